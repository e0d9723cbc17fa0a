"""The cells of growth-condition columns -> canonical units and spellings, with all that is odd.

What is wrong becomes findings of the table, and the cell is read as not recorded.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from yeast_get.data.conditions import (
    NO_DRUG,
    NO_DRUG_SPELLINGS,
    NORMALIZED,
    ConditionField,
    fold,
    header_unit,
    split_header,
)
from yeast_get.data.findings import counted
from yeast_get.data.quantities import (
    LARGEST,
    Bad,
    Target,
    convert,
    fold_cell,
    parse_number,
    parse_quantity,
    split_number,
    too_large,
    unit_of,
)
from yeast_get.data.raw_table import RawTable, is_bool, positions

_INFINITY = float("inf")
_NO_DRUG = {fold(word) for word in NO_DRUG_SPELLINGS}
_NOTE = re.compile("默认|default|[-0-9.]+$", re.IGNORECASE)
_AMBIGUOUS = {"ypg": "YPG can mean galactose or glycerol"}


def fold_one_hot(table: RawTable, name: str, categories: Mapping[str, str]) -> pd.Series:
    """One-hot columns back into their categories; rows that are not one-hot are errors.

    They hold 0 and 1, or true and false as `pandas.get_dummies` writes them.
    """
    values = np.column_stack([_zero_or_one(table, column) for column in categories])
    is_one_hot = ((values == 0) | (values == 1)).all(axis=1) & (values.sum(axis=1) == 1)
    table.error(
        "not one-hot",
        f"{', '.join(categories)} are not one-hot for {name}",
        "exactly one of them must be 1 and the others 0",
        where=~is_one_hot,
    )
    words = np.array(list(categories.values()), dtype=object)
    chosen = words[np.nan_to_num(values).argmax(axis=1)]
    return pd.Series(chosen, index=table.frame.index, name=name)


def _zero_or_one(table: RawTable, column: str) -> np.ndarray:
    """A one-hot column as numbers [rows], true as 1."""
    series = table.frame[column]
    truths = is_bool(series)
    if not truths.any():
        return table.numbers(column)
    numbers = series.astype(object).mask(truths, series.map({True: 1.0, False: 0.0}))
    return RawTable(
        numbers.to_frame(), table.file, table.sheet, table.decimal, table.findings
    ).numbers(column)


def read_conditions(
    table: RawTable, columns: Mapping[str, str], fields: list[ConditionField]
) -> pd.DataFrame:
    """The condition columns of a table in canonical names, units and spellings.

    Args:
        table: Where the columns stand; its findings are added to.
        columns: Field name -> header. A field without a column is recorded nowhere.
        fields: The fields of the run.

    Returns:
        A frame with every field as a column: numbers as float64 with NaN, categories as text with
        None.
    """
    frame = pd.DataFrame(index=table.frame.index)
    for each in sorted(fields, key=lambda f: f.kind == "dose"):  # doses need their drugs
        header = columns.get(each.name)
        if header is not None:
            _check_bracket(table, header, each)
        if each.is_text:
            nothing = np.full(len(frame), None, dtype=object)
            frame[each.name] = nothing if header is None else _read_text(table, header, each)
        elif header is None:
            frame[each.name] = np.nan
        else:
            drugs = frame[each.drug].to_numpy() if each.drug in frame.columns else None
            values = _read_numbers(table, header, each, drugs)
            values = _zeros(table, header, each, values)
            frame[each.name] = _check_limits(table, header, each, values)
            _check_typical(table, header, each, values)
    for each in fields:
        if each.kind == "dose" and each.drug in frame.columns:
            _reconcile_dose(table, frame, each, columns)
    return frame[[f.name for f in fields]]


def _check_bracket(table: RawTable, header: str, each: ConditionField) -> None:
    """Say what is thought of the bracket in a header, where it is not simply the unit."""
    bracket = split_header(header)[1]
    unit = header_unit(header, each)
    is_note = _NOTE.match(bracket) or fold(header) in {fold(alias) for alias in each.headers}
    if bracket and not unit and each.unit and not is_note:
        table.error(
            "unit",
            f"'{bracket}' in the header is no unit that is known",
            f"write the unit, such as {each.unit}, or none; the numbers are then in {each.unit}",
            column=header,
        )
    elif (
        unit and each.given_unit and unit_of(each.given_unit, each.kind) != unit_of(unit, each.kind)
    ):
        table.error(
            "unit conflict",
            f"the header says {unit}, and conditions.{each.name}.unit says {each.given_unit}",
            "delete one of the two",
            column=header,
        )
    elif unit:
        said = convert(1.0, unit, _target(each, None, None))
        if isinstance(said, Bad) and said.kind != "molar mass":
            table.error("unit", f"the header's unit {said.what}", said.fix, column=header)
    elif bracket:
        what = f"'{bracket}' in the header is not used; blank cells stay not recorded"
        table.warn("header note", what, "fill them in if they are known", column=header)


# ----------------------------------------------------------------------------------------- text


def _read_text(table: RawTable, header: str, each: ConditionField) -> pd.Series:
    """Categories in one spelling; the first spelling met stands for all that fold to it."""
    texts = pd.Series(table.text(header), index=table.frame.index, dtype=object)
    canonical: dict[str, str | None] = dict(each.spellings)
    if not each.is_standard and all(_is_number(text) for text in pd.unique(texts.dropna())):
        canonical.setdefault("0", "0")  # a category of numbers, such as 0 and 1
    out = np.full(len(texts), None, dtype=object)
    for text, at in positions(texts, texts.notna().to_numpy()):
        word = _category(table, header, each, text, at, canonical)
        out[at] = word
        if word is not None and word != text:
            table.findings.normalise(header, "spelling", len(at), f"{text} -> {word}")
    return pd.Series(out, index=table.frame.index, dtype=object)


def _category(
    table: RawTable,
    header: str,
    each: ConditionField,
    text: str,
    at: np.ndarray,
    canonical: dict[str, str | None],
) -> str | None:
    """One word in its canonical spelling, None where it says that nothing was recorded."""
    folded = fold_cell(text)
    known = canonical.get(fold(text))
    if known is not None:
        return known
    keeps_none = not each.is_standard and folded in _NO_DRUG
    if not keeps_none and table.holds_nothing(text, at, header):
        return None
    if folded in ("0", "0.0"):
        if not each.zero_is_missing:
            name = "no drug" if each.kind == "drug" else "missing"
            fix = f"write blank where it was not recorded, or set conditions.{each.name}"
            fix += (
                ".categories: {none: ['0']}, or .zero_is_missing: true"
                if each.kind == "drug"
                else ".zero_is_missing: true"
            )
            where = " (with a dose of 0 as no drug)" if each.kind == "drug" else ""
            what = f"0 is no {each.name} and counts as not recorded{where}; was {name} meant?"
            table.warn("zero", what, fix, column=header, where=at)
        return None
    if each.name == "medium" and folded in _AMBIGUOUS:
        fix = "write YPGal or YPGly, or list it under conditions.medium.categories"
        table.warn("ambiguous", _AMBIGUOUS[folded], fix, column=header, where=at)
    clean = " ".join(unicodedata.normalize("NFKC", text).replace("\u200b", "").split())
    return canonical.setdefault(fold(text), clean)


def _is_number(text: str) -> bool:
    return isinstance(parse_number(text, "."), float)


# -------------------------------------------------------------------------------------- numbers


def _target(each: ConditionField, unit: str | None, drug: str | None) -> Target:
    line = (
        "write `conditions: "
        f"{{{each.name}: {{molar_mass: {{{drug or 'DRUG'}: <g/mol>}}}}}}` in the YAML"
    )
    mass = None if drug is None else each.molar_mass.get(fold(drug))
    return Target(each.name, each.kind, each.unit or "", unit, mass, line)


def _read_numbers(
    table: RawTable, header: str, each: ConditionField, drugs: np.ndarray | None
) -> np.ndarray:
    """A column of plain numbers, or of texts such as `30 °C`, in the canonical unit."""
    series = table.frame[header]
    if each.given_unit == NORMALIZED:
        return _read_normalized(table, header, each)
    unit = header_unit(header, each) or each.given_unit
    is_number = pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series)
    if is_number and (not unit or unit == each.unit):
        return table.numbers(header)
    values = np.full(len(series), np.nan)
    for cell, drug, at in _cells_by_drug(series, drugs):
        got = _parse(table, header, cell, at, each, _target(each, unit, drug))
        if isinstance(got, Bad):
            table.error(got.kind, got.what, got.fix, column=header, where=at)
        else:
            values[at] = got
    _unit_conflicts(table, header, each, series)
    return values


def _cells_by_drug(
    series: pd.Series, drugs: np.ndarray | None
) -> Iterator[tuple[Any, str | None, np.ndarray]]:
    """Every different cell with the drug beside it, and where the pair stands."""
    for cell, at in positions(series, series.notna().to_numpy()):
        if drugs is None:
            yield cell, None, at
            continue
        codes, words = pd.factorize(drugs[at])  # -1 = no drug recorded
        for code in np.unique(codes):
            yield cell, None if code < 0 else words[code], at[codes == code]


def _parse(
    table: RawTable, header: str, cell: Any, at: np.ndarray, each: ConditionField, target: Target
) -> float | Bad:
    """One cell in the canonical unit, NaN where it says that nothing was recorded."""
    if isinstance(cell, bool | np.bool_) or hasattr(cell, "isoformat"):
        what = f"'{cell}' is not a number for {each.name}"
        return Bad("not a number", what, "write a number and its unit as text")
    if isinstance(cell, int | float | np.number):
        return _convert_plain(float(cell), target)
    text = str(cell)
    if fold(text) in each.words:
        value = each.words[fold(text)]
        table.findings.normalise(header, "word", len(at), f"{text} -> {value:g}")
        return value
    if table.holds_nothing(text, at, header):
        return float("nan")
    got = parse_quantity(text, target, table.decimal)
    if not isinstance(got, Bad) and got != parse_number(text, "."):
        canonical = f"{got:g} {target.unit}".strip()
        table.findings.normalise(header, "quantity", len(at), f"{text} -> {canonical}")
    return got


def _convert_plain(number: float, target: Target) -> float | Bad:
    """A cell that holds a number, in the unit of its column."""
    if not abs(number) <= LARGEST:
        return too_large(str(number))
    got = convert(number, "", target)
    if isinstance(got, Bad):
        return Bad(got.kind, f"'{number:g} {target.given_unit}' {got.what}", got.fix)
    return got


def _read_normalized(table: RawTable, header: str, each: ConditionField) -> np.ndarray:
    """Numbers that are already scaled: no unit."""
    series = table.frame[header]
    if not pd.api.types.is_numeric_dtype(series):
        for cell, at in positions(series, series.notna().to_numpy()):
            got = split_number(str(cell), table.decimal)
            if not isinstance(got, Bad) and got[1] and unit_of(got[1], each.kind):
                what = f"'{cell}' has a unit, and {each.name} is declared as normalized"
                table.error("unit", what, "remove one of the two", column=header, where=at)
                series = series.drop(series.index[at])
    kept = RawTable(series.to_frame(), table.file, table.sheet, table.decimal, table.findings)
    return pd.Series(kept.numbers(header), index=series.index).reindex(table.frame.index).to_numpy()


def _unit_conflicts(table: RawTable, header: str, each: ConditionField, series: pd.Series) -> None:
    """Cells that name another unit than their header: the cell is believed, and it is said."""
    unit = header_unit(header, each)
    if not unit:
        return
    odd = [np.zeros(0, dtype=np.int64)]
    for cell, at in positions(series, series.notna().to_numpy()):
        got = split_number(str(cell), table.decimal) if isinstance(cell, str) else None
        own = got[1] if isinstance(got, tuple) else ""
        if own and unit_of(own, each.kind) not in (None, unit_of(unit, each.kind)):
            odd.append(at)
    what = f"the header says {unit} and the cell '{{value}}'; the cell is believed"
    where = np.sort(np.concatenate(odd))
    table.warn("unit conflict", what, "write one unit", column=header, where=where)


# --------------------------------------------------------------------------------------- ranges


def _zeros(table: RawTable, header: str, each: ConditionField, values: np.ndarray) -> np.ndarray:
    """Zeros that may be blanks: missing where the YAML says so, else warned about."""
    zero = values == 0
    if each.zero_is_missing:
        table.findings.normalise(header, "0 read as missing", int(zero.sum()))
        return np.where(zero, np.nan, values)
    others = np.isfinite(values) & ~zero
    suspect = each.kind in ("number", "time") and each.is_standard and others.any()
    if suspect and each.given_unit != NORMALIZED:
        unit = f" {each.unit}" if each.unit else ""
        what = f"0{unit} where other cells are not zero; was a blank filled with 0?"
        fix = f"clear the cells, or set conditions.{each.name}.zero_is_missing: true"
        table.warn("zero", what, fix, column=header, where=zero)
    return values


def _check_limits(
    table: RawTable, header: str, each: ConditionField, values: np.ndarray
) -> np.ndarray:
    """The values, those outside the limits missing; each is an error."""
    low, high = each.limits or (-_INFINITY, _INFINITY)
    if each.given_unit == NORMALIZED:
        low, high = 0.0 if each.kind == "dose" else -_INFINITY, _INFINITY
    low, high = max(low, -LARGEST), min(high, LARGEST)
    with np.errstate(invalid="ignore"):
        bad = (values < low) | (values > high)
    unit = f" {each.unit}" if each.unit else ""
    for value in np.unique(values[bad]):
        what = f"{value:g}{unit} is outside {low:g} to {high:g} for {each.name}"
        fix = f"correct it, or set conditions.{each.name}.limits or .unit"
        hint = _hint(each, float(value))
        table.error("out of range", what, hint or fix, column=header, where=bad & (values == value))
    return np.where(bad, np.nan, values)


def _hint(each: ConditionField, value: float) -> str:
    """What a value outside of its limits may have been meant to be."""
    if each.unit == "degC" and 273.15 <= value <= 333.15:
        return f"{value:g} K would be {value - 273.15:g} °C; write {value:g} K, or correct it"
    if each.unit == "degC" and 60 < value <= 140:
        celsius = (value - 32) / 1.8
        return f"{value:g} °F would be {celsius:g} °C; write {value:g} °F, or correct it"
    return ""


def _check_typical(table: RawTable, header: str, each: ConditionField, values: np.ndarray) -> None:
    if each.typical is None or each.given_unit == NORMALIZED:
        return
    low, high = each.typical
    limits = each.limits or (-_INFINITY, _INFINITY)
    with np.errstate(invalid="ignore"):
        odd = ((values < low) | (values > high)) & (values >= limits[0]) & (values <= limits[1])
    odd &= (values != 0) | (low <= 0)  # zeros have a warning of their own
    if not odd.any():
        return
    some = ", ".join(f"{value:g}" for value in np.unique(values[odd])[:5])
    number = int(odd.sum())
    unit = f" {each.unit}" if each.unit else ""
    table.warn(
        "unusual value",
        f"{counted(number, 'value')} outside the usual {low:g} to {high:g}{unit} ({some})",
        "a slip of the decimal point?" if each.unit == "" else "is the unit right?",
        column=header,
        where=odd,
    )


def _reconcile_dose(
    table: RawTable, frame: pd.DataFrame, each: ConditionField, columns: Mapping[str, str]
) -> None:
    """Make drug and dose agree: dose zero is no drug, no drug is dose zero."""
    assert each.drug is not None
    drug, dose = frame[each.drug].to_numpy(dtype=object), frame[each.name].to_numpy().copy()
    blank = np.array([value is None for value in drug], dtype=bool)
    none = drug == NO_DRUG
    positive = np.nan_to_num(dose) > 0
    header = columns.get(each.name)
    for said, odd in (("blank", blank & positive), ("none", none & positive)):
        table.error(
            "contradiction",
            f"{each.drug} is {said} and {each.name} is '{{value}}'",
            f"name the drug, or set {each.name} to 0",
            column=header,
            where=odd,
        )
    without = ~blank & ~none & np.isnan(dose)
    if header is not None and without.any():
        table.warn(
            "no dose",
            f"{each.drug} is named and {each.name} is blank; the dose counts as not recorded",
            "fill it in if it is known",
            column=header,
            where=without & table.good(),
        )
    zero = dose == 0
    frame[each.drug] = pd.Series(np.where(zero, NO_DRUG, drug), index=frame.index, dtype=object)
    frame[each.name] = np.where(none, 0.0, dose)
