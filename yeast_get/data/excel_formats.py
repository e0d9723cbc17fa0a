"""What a workbook's number format makes of a number: `0.0002` that is shown as `0.02%`.

A format can add a unit or a percent sign that stands nowhere in the cell. Such a number is taken as
the text that people see, so that its unit counts; a format that adds none changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_TOKEN = re.compile(
    r'"(?P<quoted>[^"]*)"|\\(?P<escaped>.)|\[[^\]]*\]|_.|\*.|(?P<digits>General|[0#?.,]+|E[-+]0+)'
    r"|(?P<other>.)",
    re.IGNORECASE | re.DOTALL,
)
_NO_UNIT = re.compile(r"[\s()+\-−$€£¥￥,.:/'@]*")
_PADDED = re.compile("0{2,}")


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
    section = _section(code, value)
    if _PADDED.fullmatch(section) and float(value).is_integer():
        return f"{int(value):0{len(section)}d}"
    before, after, has_digits = "", "", False
    for token in _TOKEN.finditer(section):
        text = token["quoted"] or token["escaped"] or token["other"] or ""
        has_digits |= token["digits"] is not None
        before, after = (before, after + text) if has_digits else (before + text, after)
    if _NO_UNIT.fullmatch(before + after):
        return None
    if not has_digits:
        return before
    number = f"{100 * value if '%' in after else value:.12g}".replace(".", decimal)
    return f"{before.replace('-', '')}{number}{after}".strip()


def _section(code: str, value: float) -> str:
    """The part of a format that is for numbers of this sign."""
    parts = re.findall(r'(?:"[^"]*"|\\.|[^;"\\])+|(?<=;)(?=;|$)', code) or [""]
    if value < 0 and len(parts) > 1:
        return str(parts[1])
    return str(parts[2] if value == 0 and len(parts) > 2 else parts[0])
