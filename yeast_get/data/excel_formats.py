"""What a workbook's number format makes of a number: `0.0002` that is shown as `0.02%`.

A format can add a unit or a percent sign that stands nowhere in the cell. Such a number is taken as
the text that people see, so that its unit counts; a format that adds none changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_TOKEN = re.compile(
    r'"(?P<quoted>[^"]*)"|\\(?P<escaped>.)|\[[^\]]*\]|_.|\*.|(?P<digits>General|[.,]*[0#?][0#?.,]*|E[-+]0+)'
    r"|(?P<other>.)",
    re.IGNORECASE | re.DOTALL,
)
_CONDITION = re.compile(r"\[[<>=][^\]]*\]")
_NO_UNIT = re.compile(r"[\s()+\-−$€£¥￥,.:/'@]*")


def units_of_formats(codes: Iterable[str]) -> dict[int, str]:
    """The formats that show more than a number, by their position."""
    return {i: code for i, code in enumerate(codes) if any(shown(code, v) for v in (1, -1, 0))}


def shown(code: str, value: float, decimal: str = ".") -> str | None:
    """What a number is shown as, none of its digits lost; None where that is the number alone.

    Args:
        code: The number format, such as `0.0%` or `0" mM"`.
        value: The number in the cell.
        decimal: The decimal sign to write.
    """
    if _CONDITION.search(code) and _any_unit(code):
        return f"{value:.12g} in the format {code}"  # for nobody to read
    section = _section(code, value)
    before, after, digits, is_percent = "", "", "", False
    for token in _TOKEN.finditer(section):
        digits += token["digits"] or ""
        text = token["quoted"] or token["escaped"] or token["other"] or ""
        is_percent |= token["other"] == "%"
        before, after = (before, after + text) if digits else (before + text, after)
    if _NO_UNIT.fullmatch(before + after):
        return None
    if not digits:  # letters without quotes are the name of a format, such as G/通用格式
        return before if '"' in section or "\\" in section else None
    thousands = len(digits) - len(digits.rstrip(","))
    number = value * (100 if is_percent else 1) / 1000**thousands
    said = f"{number:.12g}".replace(".", decimal)
    return f"{before.replace('-', '')}{said}{after}".strip()


def _any_unit(code: str) -> bool:
    return any(shown(_CONDITION.sub("", part), 1) for part in code.split(";"))


def _section(code: str, value: float) -> str:
    """The part of a format that is for numbers of this sign."""
    parts = re.findall(r'(?:"[^"]*"|\\.|[^;"\\])+|(?<=;)(?=;|$)', code) or [""]
    if value < 0 and len(parts) > 1:
        return str(parts[1])
    return str(parts[2] if value == 0 and len(parts) > 2 else parts[0])
