"""Numbers and quantities as people write them: `30 ℃`, `1×10⁻³ M`, `30,5`, `2% (w/v)`, `无`.

Nothing is guessed: a text that could be two numbers, or holds more than one number and its unit,
is refused with a sentence on what to write.
"""

from __future__ import annotations

import functools
import re
import unicodedata
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

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_SUPERSCRIPT_RUN = re.compile("(?<=[0-9])[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_MINUS = str.maketrans("−–—﹣", "----")
_PLAIN = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?", re.IGNORECASE)
_WITH_COMMA = re.compile(r"[-+]?\d[\d.]*(?:,\d+)+(?:e[-+]?\d+)?", re.IGNORECASE)
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


def fold_cell(text: str) -> str:
    """A cell without case, width, or spaces around it."""
    return unicodedata.normalize("NFKC", text).strip().casefold()


def is_missing(text: str) -> bool:
    """Whether a text says that nothing was recorded, an error value of Excel included."""
    folded = fold_cell(text)
    return folded in MISSING or folded in EXCEL_ERRORS


def plain(text: str) -> str:
    """A text with superscripts as powers, then NFKC, one kind of minus and no spaces around."""
    text = _SUPERSCRIPT_RUN.sub(lambda m: "^" + m[0].translate(_SUPERSCRIPTS), text)
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


def _finite(digits: str, rest: str, said: str) -> tuple[float, str] | Bad:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        return Bad("not finite", f"'{said}' is not a finite number", "correct the cell")
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
        return Bad("decimal sign", what, f"write {head}.{tail[0]}, or set data.decimal: ','")
    return f"{head}.{tail[0]}"


# ---------------------------------------------------------------------------------------- units

_UNIT_WORDS = {
    "c": "degC", "°c": "degC", "度": "degC", "摄氏度": "degC", "celsius": "degC",
    "k": "kelvin", "f": "degF", "°f": "degF", "华氏度": "degF",
    "h": "hour", "hr": "hour", "hrs": "hour", "小时": "hour", "时": "hour",
    "m": "minute", "min": "minute", "mins": "minute", "分钟": "minute", "分": "minute",
    "'": "minute", "s": "second", "sec": "second", "secs": "second", "秒": "second",
    "d": "day", "天": "day", "日": "day",
}  # fmt: skip
_DOSE_WORDS = {
    "m": "mol/L", "mol": "mol", "%(w/v)": "10 g/L", "%w/v": "10 g/L", "w/v%": "10 g/L",
    "%(wt/vol)": "10 g/L",
}  # fmt: skip


@functools.cache
def registry() -> Any:
    """The units that pint knows, made at the first use."""
    import pint

    return pint.UnitRegistry()


@functools.cache
def unit_of(text: str, kind: str) -> Any:
    """A unit as pint's quantity of one, or None where it is not known.

    Args:
        text: As people write it: `℃`, `μM`, `ug/ml`, `小时`.
        kind: Of the field: `m` is a minute for a `time` and mol/L for a `dose`.
    """
    words = unicodedata.normalize("NFKC", text).strip().replace("° ", "°").replace("μ", "µ")
    squeezed = words.replace(" ", "").casefold()
    if kind == "dose":
        known = _DOSE_WORDS.get(squeezed) if squeezed != "m" or words == "M" else None
    else:
        known = _UNIT_WORDS.get(squeezed) if kind == "time" or squeezed != "m" else None
    spelt = known or words.replace("°", "deg")
    try:
        return (
            registry().Quantity(1, spelt) if known is None else registry().parse_expression(spelt)
        )
    except Exception:  # pint raises many kinds, tokenizer errors among them
        return None
