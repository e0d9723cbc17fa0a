"""Growth-condition fields: names, units, limits, spellings, missing values, signatures.

A field is a number, a time, a category, a drug, or the dose of a drug. The standard fields stand
in `STANDARD_FIELDS`; a laboratory adds its own under `conditions.extra` in the YAML. Numbers end
in their canonical unit, categories in one spelling, and what was not recorded stays not recorded.
"""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from yeast_get.config import ConditionsConfig, ExtraFieldConfig, FieldConfig
from yeast_get.data.tables import TEXT_HEADERS, RawTable
from yeast_get.errors import ConfigError, Problem

NO_DRUG = "none"
NO_DRUG_SPELLINGS = ("none", "no drug", "no_drug", "mock", "dmso", "无", "对照")
NOT_RECORDED = ("-", "?", "unknown", "未知", "nr", "not recorded")
NORMALIZED = "normalized"
"""`unit: normalized` says that the numbers are already scaled: no unit, no limits."""

DEFAULT_C0 = 1e-9
"""Reference concentration of a dose, mol/L."""


@dataclass(frozen=True)
class ConditionField:
    """One growth-condition column.

    Attributes:
        name: Canonical name.
        kind: `number`, `time`, `category`, `drug` or `dose`.
        unit: Canonical unit in pint's words; "" for a pure number, None for text.
        given_unit: Unit of plain numbers in the table; None means the canonical unit.
        typical: Range outside of which a value is warned about.
        limits: Range outside of which a value is an error.
        headers: Other headers of this column, besides the name.
        spellings: Canonical category by folded spelling.
        drug: The drug field that a dose belongs to.
        c0: Reference concentration in mol/L by folded drug; "" for all others.
        molar_mass: g/mol by folded drug, for doses given as mass per volume.
    """

    name: str
    kind: str
    unit: str | None = None
    given_unit: str | None = None
    typical: tuple[float, float] | None = None
    limits: tuple[float, float] | None = None
    headers: tuple[str, ...] = ()
    spellings: Mapping[str, str] = field(default_factory=dict)
    drug: str | None = None
    c0: Mapping[str, float] = field(default_factory=lambda: {"": DEFAULT_C0})
    molar_mass: Mapping[str, float] = field(default_factory=dict)
    dropped: bool = False

    @property
    def is_text(self) -> bool:
        """Whether the values are words rather than numbers."""
        return self.kind in ("category", "drug")


_HOURS = (0.0, 2000.0)
_INFINITY = float("inf")
STANDARD_FIELDS = (
    ConditionField("medium", "category", headers=("media", "培养基")),
    ConditionField(
        "temperature", "number", "degC", None, (20, 45), (0, 60), ("温度", "加药培养温度")
    ),
    ConditionField("preculture_time", "time", "hour", None, (3, 4), _HOURS, ("预培养时间",)),
    ConditionField(
        "preculture_temperature", "number", "degC", None, (20, 45), (0, 60), ("预培养温度",)
    ),
    ConditionField("preculture_od600", "number", "", None, (0, 3), (0, 100), ("预培养终点",)),
    ConditionField("drug", "drug", headers=("药物",)),
    ConditionField(
        "drug_concentration", "dose", "mol/L", None, None, (0, _INFINITY), ("浓度",), drug="drug"
    ),
    ConditionField("drug_time", "time", "hour", None, None, _HOURS, ("加药培养时间",)),
    ConditionField("drug_od600", "number", "", None, (0, 3), (0, 100), ("加药培养终点",)),
    ConditionField("carbon_source", "category", headers=("碳源",)),
    ConditionField("nitrogen_source", "category", headers=("氮源",)),
)
_EXTRA_UNITS = {"number": "", "time": "hour", "dose": "mol/L"}
_EXTRA_LIMITS = {"time": _HOURS, "dose": (0.0, _INFINITY)}


def fold(text: str) -> str:
    """A header or category without case, width, or spaces at the ends and between words."""
    return "_".join(unicodedata.normalize("NFKC", text).casefold().split())


def fields_from_config(config: ConditionsConfig) -> list[ConditionField]:
    """The fields of a run: the standard ones as the YAML changes them, then its extra ones.

    Fields that the YAML drops are among them, marked so, since their columns are still known.

    Raises:
        ConfigError: Where two fields claim one header, or a key does not suit its field.
    """
    fields = [_configured(each, getattr(config, each.name)) for each in STANDARD_FIELDS]
    fields += [_configured(_extra_field(n, extra), extra) for n, extra in config.extra.items()]
    _check_headers(fields)
    return fields


_KEYS_OF_KIND = {
    "category": {"categories"},
    "drug": {"categories"},
    "number": {"unit", "typical", "limits"},
    "time": {"unit", "typical", "limits"},
    "dose": {"unit", "typical", "limits", "c0", "molar_mass"},
}
_KEYS_OF_ALL = {"aliases", "drop", "kind", "drug"}


def _check_keys(base: ConditionField, entry: FieldConfig) -> None:
    """A key that could have no effect on a field of this kind is an error."""
    allowed = _KEYS_OF_KIND[base.kind]
    for key, info in type(entry).model_fields.items():
        given = getattr(entry, key) != info.get_default(call_default_factory=True)
        if given and key not in allowed | _KEYS_OF_ALL:
            what = f"conditions: {base.name} is a {base.kind}, and {key} says nothing about it"
            fix = f"leave it out; it may have {', '.join(sorted(allowed))}"
            raise ConfigError(Problem(what, fix))


def _check_headers(fields: list[ConditionField]) -> None:
    """Every header means one thing."""
    owner = dict.fromkeys(TEXT_HEADERS, "an identifier") | {"accessibility": "accessibility"}
    for each in fields:
        for header in dict.fromkeys(fold(name) for name in (each.name, *each.headers)):
            if header in owner:
                what = f"the header {header} would mean both {owner[header]} and {each.name}"
                raise ConfigError(Problem(what, "rename the field or its alias in the YAML"))
            owner[header] = each.name


def _extra_field(name: str, extra: ExtraFieldConfig) -> ConditionField:
    unit = _EXTRA_UNITS.get(extra.kind)
    if extra.kind == "number" and extra.unit not in (None, NORMALIZED):
        unit = extra.unit  # whatever it measures, the declared unit is its canonical one
    return ConditionField(
        name,
        extra.kind,
        unit=unit,
        limits=_EXTRA_LIMITS.get(extra.kind),
        drug=extra.drug,
    )


def _configured(base: ConditionField, entry: FieldConfig) -> ConditionField:
    _check_keys(base, entry)
    c0 = entry.c0 if isinstance(entry.c0, dict) else {"": entry.c0 or DEFAULT_C0}
    spellings = {fold(s): name for name, all_s in entry.categories.items() for s in [name, *all_s]}
    if base.kind == "drug":
        spellings = {fold(s): NO_DRUG for s in NO_DRUG_SPELLINGS} | spellings
    return replace(
        base,
        dropped=entry.drop,
        given_unit=entry.unit,
        typical=base.typical if entry.typical is None else (entry.typical[0], entry.typical[1]),
        limits=base.limits if entry.limits is None else (entry.limits[0], entry.limits[1]),
        headers=(*base.headers, *entry.aliases),
        spellings=spellings,
        c0={"": DEFAULT_C0} | {fold(drug): value for drug, value in c0.items()},
        molar_mass={fold(drug): mass for drug, mass in entry.molar_mass.items()},
    )


# -------------------------------------------------------------------------------------- columns


def match_columns(headers: Iterable[str], fields: list[ConditionField]) -> dict[str, str]:
    """Header -> field name, for the headers that name a field outright."""
    known = {fold(name): f.name for f in fields for name in (f.name, *f.headers)}
    return {header: known[fold(header)] for header in headers if fold(header) in known}


def match_one_hot(
    headers: Iterable[str], fields: list[ConditionField]
) -> dict[str, dict[str, str]]:
    """Field name -> one-hot header -> category, as in drug -> {drug_H2O2: H2O2, drug_none: none}.

    The longest name that a header begins with is the one meant: `drug_b_none` is of `drug_b`.
    """
    prefixes = {fold(name): f.name for f in fields if f.is_text for name in (f.name, *f.headers)}
    longest_first = sorted(prefixes, key=len, reverse=True)
    groups: dict[str, dict[str, str]] = {}
    for header in headers:
        prefix = next((p for p in longest_first if fold(header).startswith(f"{p}_")), None)
        if prefix is not None:
            groups.setdefault(prefixes[prefix], {})[header] = header[len(prefix) + 1 :]
    return groups


def fold_one_hot(
    table: RawTable, name: str, categories: Mapping[str, str]
) -> tuple[pd.Series, list[Problem]]:
    """One-hot columns back into their categories; rows that are not one-hot are problems."""
    values = np.column_stack([table.numbers(column)[0] for column in categories])
    is_one_hot = ((values == 0) | (values == 1)).all(axis=1) & (values.sum(axis=1) == 1)
    problems = [
        table.problem(
            f"{', '.join(categories)} are not one-hot for {name}",
            "exactly one of them must be 1 and the others 0",
            row,
        )
        for row in table.frame.index[~is_one_hot]
    ]
    words = np.array(list(categories.values()), dtype=object)
    chosen = words[np.nan_to_num(values).argmax(axis=1)]
    return pd.Series(chosen, index=table.frame.index, name=name), problems


def read_conditions(
    table: RawTable, columns: Mapping[str, str], fields: list[ConditionField]
) -> tuple[pd.DataFrame, list[Problem], list[str]]:
    """The condition columns of a table in canonical names, units and spellings.

    Args:
        table: Where the columns stand.
        columns: Field name -> header. A field without a column is recorded nowhere.
        fields: The fields of the run.

    Returns:
        A frame with every field as a column (numbers as float64 with NaN, categories as text with
        None), a list of problems, and a list of warnings.
    """
    frame = pd.DataFrame(index=table.frame.index)
    problems: list[Problem] = []
    warnings: list[str] = []
    for each in sorted(fields, key=lambda f: f.kind == "dose"):  # doses need their drugs
        header = columns.get(each.name)
        if header is None:
            frame[each.name] = pd.Series(
                [None if each.is_text else np.nan] * len(frame),
                index=frame.index,
                dtype=object if each.is_text else np.float64,
            )
        elif each.is_text:
            frame[each.name] = _read_text(table, header, each)
        else:
            drugs = frame[each.drug].to_numpy() if each.drug in frame.columns else None
            values, bad = _read_numbers(table, header, each, drugs)
            frame[each.name] = values
            problems += bad
            problems += _check_limits(table, header, each, values)
            warnings += _check_typical(each, values)
    for each in fields:
        if each.kind == "dose" and each.drug in frame.columns:
            problems += _reconcile_dose(table, frame, each, columns)
    return frame[[f.name for f in fields]], problems, warnings


def _read_text(table: RawTable, header: str, each: ConditionField) -> pd.Series:
    """Categories in one spelling; the first spelling met stands for all that fold to it."""
    texts = table.text(header)
    canonical: dict[str, str | None] = dict.fromkeys(map(fold, NOT_RECORDED))
    canonical.update(each.spellings)
    out: list[str | None] = []
    for text in texts:
        if text is None:
            out.append(None)
        else:
            clean = unicodedata.normalize("NFKC", text).strip()
            out.append(canonical.setdefault(fold(text), clean))
    return pd.Series(out, index=table.frame.index, dtype=object)


def _read_numbers(
    table: RawTable, header: str, each: ConditionField, drugs: np.ndarray | None
) -> tuple[np.ndarray, list[Problem]]:
    """A column of plain numbers, or of texts such as `30 °C`, in the canonical unit."""
    series = table.frame[header]
    problems: list[Problem] = []
    if pd.api.types.is_numeric_dtype(series) and each.given_unit in (None, NORMALIZED):
        values, problems = table.numbers(header)
        return values, problems
    values = np.full(len(series), np.nan)
    keys = series.astype(object).where(series.notna(), None).to_numpy()
    pairs = [(key, None if drugs is None else drugs[i]) for i, key in enumerate(keys)]
    parsed: dict[tuple[Any, Any], float | Problem | _NeedsMolarMass] = {}
    by_drug: dict[str | None, list[int]] = {}
    for i, pair in enumerate(pairs):
        if pair[0] is None:
            continue
        if pair not in parsed:
            parsed[pair] = _parse(pair[0], each, pair[1])
        result = parsed[pair]
        if isinstance(result, Problem):
            problems.append(table.problem(result.what, result.fix, series.index[i], header))
        elif isinstance(result, _NeedsMolarMass):
            by_drug.setdefault(pair[1], []).append(i)
        else:
            values[i] = result
    for drug, at in by_drug.items():
        some = ", ".join(dict.fromkeys(str(keys[i]) for i in at[:20]))
        rows = _row_ranges([int(series.index[i]) for i in at])
        problems.append(
            table.problem(
                f"doses of {drug or 'a drug that is not named'} in mass per volume ({some}; "
                f"rows {rows}), and its molar mass is not known",
                "write `conditions: "
                f"{{{each.name}: {{molar_mass: {{{drug or 'DRUG'}: <g/mol>}}}}}}` in the YAML",
                column=header,
            )
        )
    return values, problems


def _row_ranges(rows: list[int]) -> str:
    """Row numbers in few words: `50 to 58, 61`."""
    runs: list[list[int]] = []
    for row in rows:
        if runs and row == runs[-1][1] + 1:
            runs[-1][1] = row
        else:
            runs.append([row, row])
    words = [f"{low}" if low == high else f"{low} to {high}" for low, high in runs[:10]]
    return ", ".join(words) + (" and more" if len(runs) > 10 else "")


MISSING_NUMBERS = ("无", "none", "None")

_NUMBER = re.compile(r"^([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*)$")


class _NeedsMolarMass(Exception):
    """A dose in mass per volume of a drug whose molar mass the YAML does not give."""


def _parse(cell: Any, each: ConditionField, drug: str | None) -> float | Problem | _NeedsMolarMass:
    """One cell in the canonical unit, or what is wrong with it."""
    text = unicodedata.normalize("NFKC", str(cell)).strip()
    if text.casefold() in NOT_RECORDED or text in MISSING_NUMBERS:
        return float("nan")
    match = _NUMBER.match(text)
    if match is None:
        return Problem(f"{text!r} is not a number for {each.name}", "write a number and its unit")
    number, unit = float(match[1]), match[2].strip()
    if not np.isfinite(number):
        return Problem(f"{text!r} is not a finite number", "correct the cell")
    if each.given_unit == NORMALIZED:
        if unit:
            what = f"{text!r} has a unit, and {each.name} is declared as normalized"
            return Problem(what, "remove one of the two")
        return number
    try:
        return _to_canonical(number, unit or each.given_unit, each, drug)
    except _NeedsMolarMass as need:
        return need
    except ValueError as error:
        return Problem(f"{text!r} {error}", f"the canonical unit is {each.unit or 'none'}")


def _to_canonical(number: float, unit: str | None, each: ConditionField, drug: str | None) -> float:
    """Convert with pint; a mass per volume becomes molar by the drug's molar mass."""
    if unit is None or unit == each.unit:
        return number
    import pint

    registry = _registry()
    try:
        quantity = registry.Quantity(number, registry.parse_units(_clean_unit(unit)))
    except Exception:  # pint raises many kinds, tokenizer errors among them
        raise ValueError(f"has a unit that is not known: {unit!r}") from None
    try:
        return float(quantity.to(each.unit or "dimensionless").magnitude)
    except pint.DimensionalityError:
        if each.kind == "dose" and quantity.check("[mass]/[volume]"):
            mass = None if drug is None else each.molar_mass.get(fold(drug))
            if number == 0:
                return 0.0
            if mass is None:
                raise _NeedsMolarMass from None
            return float(quantity.to("g/L").magnitude) / mass
        raise ValueError(f"is in {unit}, which is no unit of {each.name}") from None


@functools.cache
def _registry() -> Any:
    import pint

    return pint.UnitRegistry()


_UNIT_WORDS = {"c": "degC", "°c": "degC", "k": "kelvin", "f": "degF", "°f": "degF", "hrs": "hour"}


def _clean_unit(unit: str) -> str:
    """A unit as pint spells it."""
    unit = unit.replace("° ", "°")
    return _UNIT_WORDS.get(unit.casefold(), unit.replace("μ", "µ").replace("°", "deg"))


def _check_limits(
    table: RawTable, header: str, each: ConditionField, values: np.ndarray
) -> list[Problem]:
    low, high = each.limits or (-_INFINITY, _INFINITY)
    if each.given_unit == NORMALIZED:
        low, high = 0.0 if each.kind == "dose" else -_INFINITY, _INFINITY
    with np.errstate(invalid="ignore"):
        bad = (values < low) | (values > high)
    unit = f" {each.unit}" if each.unit else ""
    return [
        table.problem(
            f"{value:g}{unit} is outside {low:g} to {high:g} for {each.name}",
            f"correct it, or set conditions.{each.name}.limits or .unit",
            row,
            header,
        )
        for row, value in zip(table.frame.index[bad], values[bad], strict=True)
    ]


def _check_typical(each: ConditionField, values: np.ndarray) -> list[str]:
    if each.typical is None or each.given_unit == NORMALIZED:
        return []
    low, high = each.typical
    with np.errstate(invalid="ignore"):
        odd = values[(values < low) | (values > high)]
    if not len(odd):
        return []
    some = ", ".join(f"{value:g}" for value in np.unique(odd)[:5])
    return [
        f"{each.name}: {len(odd)} value{'s' if len(odd) > 1 else ''} outside the usual "
        f"{low:g} to {high:g} ({some})"
    ]


def _reconcile_dose(
    table: RawTable, frame: pd.DataFrame, each: ConditionField, columns: Mapping[str, str]
) -> list[Problem]:
    """Make drug and dose agree: dose zero is no drug, no drug is dose zero."""
    assert each.drug is not None
    drug, dose = frame[each.drug].to_numpy(dtype=object), frame[each.name].to_numpy().copy()
    blank = np.array([value is None for value in drug], dtype=bool)
    none = drug == NO_DRUG
    positive = np.nan_to_num(dose) > 0
    problems = [
        table.problem(
            f"{each.drug} is {'blank' if is_blank else 'none'} and {each.name} is {value:g} mol/L",
            f"name the drug, or set {each.name} to 0",
            row,
            columns.get(each.name),
        )
        for row, value, is_blank in zip(
            table.frame.index[positive & (blank | none)],
            dose[positive & (blank | none)],
            blank[positive & (blank | none)],
            strict=True,
        )
    ]
    zero = dose == 0
    frame[each.drug] = pd.Series(np.where(zero, NO_DRUG, drug), index=frame.index, dtype=object)
    frame[each.name] = np.where(none, 0.0, dose)
    return problems


# ----------------------------------------------------------------------------------- signatures


def field_hashes(conditions: pd.DataFrame) -> np.ndarray:
    """A 64-bit hash of each recorded condition [rows,fields] int64; 0 where not recorded.

    Numbers count to six significant digits, texts but for case and width.
    """
    out = np.zeros(conditions.shape, dtype=np.int64)
    for j, name in enumerate(conditions.columns):
        codes, values = pd.factorize(conditions[name])  # -1 = not recorded
        hashes = [stable_hash(f"{name}={fold(cell_text(value) or '')}") for value in values]
        out[:, j] = np.append(np.array(hashes, dtype=np.int64), 0)[codes]
    return out


def signatures(conditions: pd.DataFrame) -> np.ndarray:
    """The condition signature of each row, as a 64-bit hash [rows] int64.

    Two samples have one signature exactly where all recorded fields are alike. It is the sum
    (modulo 2 ** 64) of the hashes of its fields, so a field that is recorded nowhere does not
    count, and the signature over some of the fields is the sum over those.
    """
    return field_hashes(conditions).sum(axis=1, dtype=np.int64)


def cell_text(value: Any) -> str | None:
    """A condition as text; None where it was not recorded."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    return value if isinstance(value, str) else f"{value:.6g}"


def stable_hash(text: str) -> int:
    """A signed 64-bit hash of a text, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), signed=True)
