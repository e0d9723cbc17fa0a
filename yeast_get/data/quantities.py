"""Numbers and quantities as people write them: `30 ℃`, `1×10⁻³ M`, `30,5`, `2% (w/v)`, `无`.

Nothing is guessed: a text that could be two numbers, or holds more than one number and its unit,
is refused with a sentence on what to write.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

MISSING = frozenset(
    ("", "na", "n/a", "nan", "n.a.", "null", "nil", "none", "-", "--", "—", "–", ".", "?")
    + ("unknown", "not recorded", "nr", "nd", "n.d.", "missing", "tbd")
    + ("无", "未知", "未记录", "缺失", "不详")
)
"""Texts that hold nothing, folded; `none` and its like mean NONE in a drug column."""

EXCEL_ERRORS = frozenset(
    ("#n/a", "#div/0!", "#value!", "#ref!", "#name?", "#num!", "#null!", "#spill!", "#calc!")
)
"""What a formula of Excel gives where it failed, folded."""

LARGEST = 1e15
"""No number of a table is larger: nothing that is measured is, and fill values (1e20, 9.97e36) are.

Squares of it, and the sum of 10^8 of them, are numbers of 32 bits.
"""

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_SUPERSCRIPT_RUN = re.compile("[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_SUBSCRIPT_RUN = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff")) | {
    ord("º"): "°", ord("˚"): "°",
}  # fmt: skip
_MINUS = str.maketrans("−–—﹣", "----")
_PLAIN = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?", re.IGNORECASE)
_WITH_COMMA = re.compile(r"[-+]?\d[\d.]*(?:,\d+)+(?:e[-+]?\d+)?", re.IGNORECASE)
_POINT = re.compile(r"[-+]?\d*\.\d+(?:e[-+]?\d+)?(?![\d.,])", re.IGNORECASE)
_COMMA = re.compile(r"[-+]?\d*,\d+(?:e[-+]?\d+)?(?![\d.,])", re.IGNORECASE)
_EITHER = re.compile(r"[-+]?[1-9]\d*,\d{3}(?!\d)")
_POWER = re.compile(
    r"(?:(?P<factor>[-+]?(?:\d+[.,]?\d*|[.,]\d+))\s*[x*×·]\s*)?10\s*\^\s*\(?(?P<power>[-+]?\d+)\)?"
    r"|(?P<factor2>[-+]?(?:\d+[.,]?\d*|[.,]\d+))\s*[x*×·]\s*10\s*(?P<power2>[-+]\d+)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Bad:
    """Why a cell is not a number.

    Attributes:
        kind: As in a `Finding`.
        what: What is wrong, as it follows the place.
        fix: What to write instead.
    """

    kind: str
    what: str
    fix: str


def too_large(cell: str = "{value}") -> Bad:
    """What is said of a number beyond `LARGEST`."""
    what = f"'{cell}' is beyond {LARGEST:g} and no measured number"
    return Bad("too large", what, "correct the cell, or clear it")


def fold_cell(text: str) -> str:
    """A cell without case, width, or needless spaces."""
    return " ".join(unicodedata.normalize("NFKC", text.translate(_INVISIBLE)).casefold().split())


def plain(text: str) -> str:
    """A text with superscripts as powers, then NFKC, one kind of minus and no spaces around.

    NFKC makes plain digits of digits above and below the line, which would be other numbers.
    """
    text = text.translate(_INVISIBLE)
    text = _SUPERSCRIPT_RUN.sub(lambda m: "^" + m[0].translate(_SUPERSCRIPTS), text)
    text = _SUBSCRIPT_RUN.sub(lambda m: f"_{m[0]}", text)
    return unicodedata.normalize("NFKC", text).translate(_MINUS).strip()


def split_number(text: str, decimal: str | None = None) -> tuple[float, str] | Bad:
    """A text as a number and what follows it.

    Args:
        text: As in the cell.
        decimal: The decimal sign of the file, `.` or `,`; None where the file does not show it,
            then a comma that can only be decimal is one.
    """
    said = plain(text)
    power = _POWER.match(said)
    if power is not None:
        factor = _digits(power["factor"] or power["factor2"] or "1", decimal)
        if isinstance(factor, Bad):
            return factor
        return _finite(f"{factor}e{power['power'] or power['power2']}", said[power.end() :], said)
    for pattern in (_WITH_COMMA, _PLAIN):
        match = pattern.match(said)
        if match is not None:
            digits = _digits(match[0], decimal)
            return digits if isinstance(digits, Bad) else _finite(digits, said[match.end() :], said)
    return Bad("not a number", f"'{said}' is not a number", "write a number")


def parse_number(text: str, decimal: str | None = None) -> float | Bad:
    """A text that must be one plain number; see `split_number`."""
    got = split_number(text, decimal)
    if isinstance(got, Bad):
        return got
    number, rest = got
    if rest:
        return Bad("not a number", f"'{plain(text)}' is not a number", "write the number alone")
    return number


def decimal_sign(cells: Iterable[str], commas: bool = True) -> str | None:
    """The decimal sign that most cells show, `.` or `,`; None where none shows one.

    Args:
        cells: Numbers, quantities and other texts.
        commas: Whether a comma can be one.
    """
    point = comma = 0
    for cell in cells:
        if "." in cell:
            point += _POINT.match(cell.strip()) is not None
        elif commas and "," in cell:
            said = cell.strip()
            comma += bool(_COMMA.match(said) and not _EITHER.match(said))
    if not point and not comma:
        return None
    return "." if point >= comma else ","


def _finite(digits: str, rest: str, said: str) -> tuple[float, str] | Bad:
    number = float(digits)
    if abs(number) > LARGEST:
        return too_large(said)
    return number, rest.strip()


def _digits(text: str, decimal: str | None) -> str | Bad:
    """A number of digits, points and commas as Python writes it."""
    if "," not in text:
        if decimal == "," and "." in text:
            what = f"'{text}' has a decimal point, and the file writes decimal commas"
            return Bad("decimal sign", what, "write it as the others, or set data.decimal: '.'")
        return text
    head, tail = text.split(",")[0], text.split(",")[1:]
    thousands = all(len(re.match(r"\d*", each)[0]) == 3 for each in tail)  # type: ignore[index]
    if len(tail) > 1 or "." in text:
        return Bad("not a number", f"'{text}' is not a number", "write it without thousands signs")
    if thousands and decimal is None and not head.lstrip("-+").startswith("0"):
        what = f"'{text}' can mean {head + tail[0]} and {head}.{tail[0]}"
        return Bad("decimal sign", what, "set data.decimal to '.' or ','")
    if decimal == ".":
        what = f"'{text}' has a comma, and the file writes decimal points"
        meant = f"{head}.{tail[0]}" + (f" or {head}{tail[0]}" if thousands else "")
        return Bad("decimal sign", what, f"write {meant}, or set data.decimal: ','")
    return f"{head}.{tail[0]}"


# ---------------------------------------------------------------------------------------- units

_DOSE_WORDS = {
    "摩尔": "mol/L", "毫摩尔": "mmol/L", "微摩尔": "umol/L", "纳摩尔": "nmol/L",
    "毫摩": "mmol/L", "微摩": "umol/L", "纳摩": "nmol/L",
    "毫摩尔/升": "mmol/L", "微摩尔/升": "umol/L", "纳摩尔/升": "nmol/L", "摩尔/升": "mol/L",
}  # fmt: skip
_COMMON_WORDS = {
    "%": "percent", "％": "percent", "od": "", "od600": "", "a600": "", "od600nm": "",
    "c": "degC", "°c": "degC", "度": "degC", "摄氏度": "degC", "celsius": "degC", "°": "degC",
    "degc": "degC", "degreec": "degC", "degreesc": "degC", "oc": "degC", "degreescelsius": "degC",
    "k": "kelvin", "f": "degF", "°f": "degF", "华氏度": "degF",
}  # fmt: skip
_TIME_WORDS = {
    "h": "hour", "hr": "hour", "hrs": "hour", "小时": "hour", "时": "hour", "个小时": "hour",
    "小時": "hour", "個小時": "hour", "分鐘": "minute",
    "m": "minute", "min": "minute", "mins": "minute", "分钟": "minute", "分": "minute",
    "s": "second", "sec": "second", "secs": "second", "秒": "second",
    "d": "day", "天": "day", "日": "day", "周": "week",
}  # fmt: skip
WEIGHT_PER_VOLUME = frozenset(("%", "percent", "%(w/v)", "%w/v", "%(wt/vol)", "%wt/vol"))
"""A percentage as a dose: grams in 100 mL."""


@functools.cache
def registry() -> Any:
    """The units that pint knows, made at the first use."""
    import pint

    return pint.UnitRegistry()


@functools.cache
def unit_of(text: str, kind: str) -> Any:
    """A unit as pint knows it, or None where it is not known.

    Args:
        text: As people write it: `℃`, `μM`, `ug/ml`, `小时`.
        kind: Of the condition field: an `m` is a minute for a `time`.
    """
    words = plain(text).replace("° ", "°").replace("μ", "µ")
    words = re.sub(r"(?<=[A-Za-z])\^?(-\d)", r"**\1", re.sub("[·•⋅]", "*", words))  # µmol·L-1
    squeezed = words.replace(" ", "").casefold()
    if words == "M" and kind == "time" or re.match("M(M|mol)", words):
        return None  # a month? a million moles?
    known = {"time": _TIME_WORDS, "dose": _DOSE_WORDS}.get(kind, _COMMON_WORDS)
    try:
        return registry().parse_units(known.get(squeezed, words.replace("°", "deg")))
    except Exception:  # pint raises many kinds, tokenizer errors among them
        return None


@dataclass(frozen=True)
class Target:
    """What a quantity is to become.

    Attributes:
        name: The field, for messages.
        kind: `number`, `time` or `dose`.
        unit: Its canonical unit in pint's words; "" for a pure number.
        given_unit: Unit of a number without one; None means the canonical unit.
        molar_mass: g/mol, for a dose in mass per volume.
        molar_mass_line: What to write in the YAML where it is not known.
    """

    name: str
    kind: str
    unit: str
    given_unit: str | None = None
    molar_mass: float | None = None
    molar_mass_line: str = ""


def convert(number: float, unit: str, target: Target) -> float | Bad:
    """A number with a unit (or "") in the canonical unit of a field, or what is wrong with it.

    The text of a `Bad` follows the cell: `has a unit that is not known: foo`.
    """
    wanted = unit or target.given_unit
    if not wanted or wanted == target.unit:
        return number
    if target.kind == "dose" and wanted.replace(" ", "").casefold() in WEIGHT_PER_VOLUME:
        number, wanted = 10 * number, "g/L"
    parsed = unit_of(wanted, target.kind)
    canonical = f"the canonical unit is {target.unit or 'none'}"
    if parsed is None and target.kind == "dose" and wanted.startswith("MM"):
        return Bad("unit", "is in millions of moles", f"did you mean {number:g} mM?")
    if parsed is None:
        return Bad("unit", f"has a unit that is not known: {wanted}", canonical)
    quantity = registry().Quantity(number, parsed)
    if quantity.is_compatible_with(target.unit or "dimensionless"):
        return float(quantity.to(target.unit or "dimensionless").magnitude)
    if target.kind == "dose" and quantity.check("[mass]/[volume]"):
        return _molar(float(quantity.to("g/L").magnitude), target)
    lost_capital = f"{wanted[:-1]}M" if target.kind == "dose" and wanted.endswith("m") else ""
    fix = f"did you mean {number:g} {lost_capital}?" if lost_capital else canonical
    return Bad("unit", f"is in {wanted}, which is no unit of {target.name}", fix)


def _molar(grams_per_litre: float, target: Target) -> float | Bad:
    """A mass per volume in mol/L."""
    if grams_per_litre == 0:
        return 0.0
    if target.molar_mass is None:
        what = "is mass per volume, and the molar mass of its drug is not known"
        return Bad("molar mass", what, target.molar_mass_line)
    return grams_per_litre / target.molar_mass


_PART = re.compile(r"\s*(\d+\.?\d*)\s*([^\d\s.]+)")
_SHIFT = re.compile(r"^\D*\d+\.?\d*(?:\D*?(?:to|->|→|~|至|到)|\s?(?:°?C)?\s?-)\s*\d")
ROOM_TEMPERATURE = frozenset(("rt", "room temperature", "室温", "常温", "ambient"))


def parse_quantity(text: str, target: Target, decimal: str | None = None) -> float | Bad:
    """A cell of text as a number in the canonical unit of a field.

    Args:
        text: Such as `30 ℃`, `9h`, `1 h 30 min`, `5μM`.
        target: The field.
        decimal: As in `split_number`.
    """
    said = plain(text)
    got = split_number(text, decimal)
    if isinstance(got, Bad):
        return got if got.kind != "not a number" else _no_number(text, target)
    value = convert(*got, target)
    if not isinstance(value, Bad):
        return value
    parts = _PART.findall(said) if target.kind == "time" and not _PART.sub("", said) else []
    times = [convert(float(number), unit, target) for number, unit in parts]
    if len(times) > 1 and not any(isinstance(each, Bad) for each in times):
        return float(sum(times))  # type: ignore[arg-type]
    if _SHIFT.match(said):
        what = f"'{said}' holds two values of {target.name}"
        return Bad("not a number", what, "give the start and the end in columns of their own")
    return Bad(value.kind, f"'{said}' {value.what}", value.fix)


def _no_number(text: str, target: Target) -> Bad:
    said = text.strip()
    if fold_cell(text) in ROOM_TEMPERATURE:
        fix = f"write the temperature, or set conditions.{target.name}.words: {{{said}: 25}}"
        return Bad("not a number", f"'{said}' is not a number of degrees", fix)
    what = f"'{said}' is not a number for {target.name}"
    return Bad("not a number", what, "write a number and its unit, or leave the cell blank")
