"""Names that Excel took for dates: `OCT1` became `1-Oct`, or the number of that day."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from yeast_get.data.raw_table import RawTable

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_NAMED = "|".join(_MONTHS)
_CLOCK = r"(?:[ T]\d{1,2}:\d\d(?::\d\d(?:\.0+)?)?)?"
_FORMS = tuple(
    re.compile(form + _CLOCK)
    for form in (
        rf"(?P<day>\d{{1,2}})-(?P<name>{_NAMED})(?:-\d\d(?:\d\d)?)?",
        rf"(?P<name>{_NAMED})-(?P<day>\d{{1,2}})",
        r"(?:19|20)\d\d(?P<sign>[-/])(?P<month>\d{1,2})(?P=sign)(?P<day>\d{1,2})",
        r"(?P<month>\d{1,2})/(?P<day>\d{1,2})/(?:19|20)\d\d",
        r"(?:(?:19|20)\d\d年)?(?P<month>\d{1,2})月(?P<day>\d{1,2})日",
    )
)
_TIME = re.compile(r"(?:\d+ days?, )?\d{1,2}:\d\d:\d\d")
_SERIALS = range(36_526, 55_001)  # 2000-01-01 to 2050-07-31
_DAY_ZERO = datetime.date(1899, 12, 30)


def check_dates(table: RawTable, columns: Iterable[str]) -> None:
    """Take up an error for every date in columns of names.

    Args:
        table: The table; its rows stay as they are.
        columns: Columns that hold names. In those of genes a number that stands for a day is a
            date too, where most of the other cells are no numbers.
    """
    for column in columns:
        codes, cells = pd.factorize(table.frame[column])  # -1 = blank
        texts = [str(cell).strip() for cell in cells]
        for code, name in _dates(texts):
            what = "'{value}' is a date where a name is expected"
            _add(table, column, what, name, codes == code)
        for code, name in _serials(texts, codes) if _is_gene(column) else ():
            what = "'{value}' is the number of a date where a name is expected"
            _add(table, column, what, name, codes == code)


def _add(table: RawTable, column: str, what: str, name: str, where: np.ndarray) -> None:
    was = f"the original was probably {name}; " if name else ""
    how = "format the column as text and type it again" if table.sheet else "type it again"
    fix = f"Excel changed it: {was}{how}"
    table.error("date", what, fix, column=column, where=where)


def _dates(texts: Sequence[str]) -> Iterable[tuple[int, str]]:
    """Which texts are dates or times of day, and the name that each was, "" where not known."""
    for code, text in enumerate(texts):
        match = next((match for form in _FORMS if (match := form.fullmatch(text))), None)
        name = "" if match is None else _original(match.groupdict())
        if name or _TIME.fullmatch(text):
            yield code, name


def _original(parts: dict[str, str]) -> str:
    """The name that Excel took for this date, or nothing where there is no such day."""
    day = int(parts["day"])
    if "name" in parts:
        return f"{parts['name'].upper()}{day}"
    month = int(parts["month"])
    if month > 12:
        month, day = day, month
    return f"{_MONTHS[month - 1].upper()}{day}" if 1 <= month <= 12 and 1 <= day <= 31 else ""


def _serials(texts: Sequence[str], codes: np.ndarray) -> Iterable[tuple[int, str]]:
    """Which texts are numbers of days, where most cells are no numbers."""
    whole = np.array([text.isdecimal() for text in texts], dtype=bool)
    filled = codes[codes >= 0]
    if not len(filled) or whole[filled].mean() >= 0.5:
        return
    for code in np.flatnonzero(whole).tolist():
        if int(texts[code]) in _SERIALS:
            day = _DAY_ZERO + datetime.timedelta(days=int(texts[code]))
            yield code, f"{_MONTHS[day.month - 1].upper()}{day.day}"


def _is_gene(column: str) -> bool:
    return "gene" in column.casefold() or "基因" in column
