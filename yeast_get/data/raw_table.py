"""A table as it stands in its file: cells, row numbers, and what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from yeast_get.data.findings import Finding, Findings
from yeast_get.data.quantities import (
    EXCEL_ERRORS,
    LARGEST,
    MISSING,
    Bad,
    fold_cell,
    parse_number,
    too_large,
)
from yeast_get.errors import Problem

BLANK_CELLS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")
"""Cells that every reader takes for blank, in any column."""


_UNNAMED = re.compile(r"Unnamed: \d+(\.\d+)*(_level_\d+)?")


@dataclass
class RawTable:
    """One table as it stands in its file.

    Attributes:
        frame: The cells; the index holds row numbers of the file, the header being row 1.
        file: The file's name as the user gave it.
        sheet: The sheet, where the file is a workbook.
        decimal: The decimal sign of its texts, `.` or `,`; None where they do not show it.
        findings: What is wrong with it; all tables of one input share it.
        lost: How the rows begin that could not be taken into the frame.
    """

    frame: pd.DataFrame
    file: str
    sheet: str | None = None
    decimal: str | None = None
    findings: Findings = field(default_factory=Findings)
    lost: list[str] = field(default_factory=list)
    _numbers: dict[str, np.ndarray] = field(default_factory=dict)

    def problem(
        self, what: str, fix: str = "", row: Any = None, column: str | None = None
    ) -> Problem:
        """A problem in this table; `row` is a row number of the file."""
        return Problem(
            what, fix, self.file, self.sheet, row=None if row is None else int(row), column=column
        )

    def add(
        self,
        severity: Literal["error", "warning"],
        kind: str,
        what: str,
        fix: str = "",
        column: str | None = None,
        where: np.ndarray | Sequence[int] | None = None,
        values: Sequence[Any] | None = None,
        row: int | None = None,
    ) -> None:
        """Take up a finding in this table.

        Args:
            severity: `error` or `warning`.
            kind: As in `Finding`.
            what: As in `Finding`; `{value}` stands for the cell.
            fix: As in `Finding`.
            column: The column.
            where: Which rows: a mask [rows] or positions; None for the whole column or table,
                and nothing is added where no row is meant.
            values: The cells of these rows; by default those of the column.
            row: A row number of the file instead, such as 1 for the header.
        """
        cells: Sequence[Any] = []
        if where is None:
            rows = np.array([] if row is None else [row], dtype=np.int64)
        else:
            at = np.asarray(where)
            at = np.flatnonzero(at) if at.dtype == bool else at.astype(np.int64)
            if not len(at):
                return
            rows = self.frame.index.to_numpy(np.int64)[at]
            cells = list(self.frame[column].iloc[at]) if column in self.frame.columns else []
        self.findings.add(
            Finding(
                severity, kind, what, fix, self.file, self.sheet, column, rows,
                cells if values is None else values,
            )
        )  # fmt: skip

    def error(self, kind: str, what: str, fix: str = "", **where: Any) -> None:
        """Take up an error; see `add`."""
        self.add("error", kind, what, fix, **where)

    def warn(self, kind: str, what: str, fix: str = "", **where: Any) -> None:
        """Take up a warning; see `add`."""
        self.add("warning", kind, what, fix, **where)

    def need(self, column: str | None, name: str) -> None:
        """Refuse the table if a column that it must have was not found."""
        if column is None:
            known = ", ".join(list(self.frame.columns)[:12])
            fix = f"add it; the first columns are {known}"
            self.error("missing column", f"has no column {name}", fix, row=1)
            self.findings.raise_errors()

    def good(self, column: str | None = None) -> np.ndarray:
        """[rows] bool: the rows without an error, or without one in this column."""
        bad = self.findings.bad_rows(self.file, self.sheet, column)
        good: np.ndarray = ~np.isin(self.frame.index.to_numpy(np.int64), bad)
        return good

    def numbers(self, column: str) -> np.ndarray:
        """A column of plain numbers as float64 [rows], NaN for blank cells and for bad ones.

        What is wrong with it is taken up once, however often it is asked for.
        """
        if column not in self._numbers:
            values = self._read_numbers(column)
            if np.shares_memory(values, self.frame[column].to_numpy()):
                return values
            self._numbers[column] = values
        return self._numbers[column]

    def _read_numbers(self, column: str) -> np.ndarray:
        series = self.frame[column]
        if pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series):
            values = series.to_numpy(np.float64, na_value=np.nan)
            large = (values > LARGEST) | (values < -LARGEST)
            bad = too_large()
            self.error(bad.kind, bad.what, bad.fix, column=column, where=large)
            return np.where(large, np.nan, values) if large.any() else values
        cells = pd.to_numeric(series.where(~self._needs_a_look(series), "x"), errors="coerce")
        values = cells.to_numpy(np.float64, na_value=np.nan).copy()
        unclear = ~(np.abs(values) <= LARGEST) & series.notna().to_numpy()
        for cell, at in positions(series, unclear):
            values[at] = self._number(cell, at, column)
        return values

    def _needs_a_look(self, series: pd.Series) -> np.ndarray:
        """Which cells are not for pandas to read [rows]: truth values, points among commas."""
        look = is_bool(series)
        if self.decimal == ",":
            look |= np.array([isinstance(cell, str) and "." in cell for cell in series], dtype=bool)
        return look

    def _number(self, cell: Any, at: np.ndarray, column: str) -> float:
        """A cell that is no plain number at first sight, at these positions."""
        if self.holds_nothing(str(cell), at, column):
            return np.nan
        if isinstance(cell, bool | np.bool_) or hasattr(cell, "isoformat"):
            got: float | Bad = Bad("not a number", f"'{cell}' is not a number", "write a number")
        else:
            got = parse_number(str(cell), self.decimal)
        if isinstance(got, Bad):
            fix = got.fix
            if self.sheet and str(cell)[:1].isdecimal():
                fix += "; where Excel's number format adds the rest, set it to General"
            self.error(got.kind, got.what, fix, column=column, where=at)
            return np.nan
        self.findings.normalise(column, "read as a plain number", len(at), f"{cell} -> {got:g}")
        return got

    def holds_nothing(self, text: str, at: np.ndarray, column: str) -> bool:
        """Whether the cells at these positions say that nothing was recorded; takes it up if so."""
        folded = fold_cell(text)
        if folded in EXCEL_ERRORS:
            what = "{value} is the error value of a formula and counts as missing"
            self.warn("Excel error value", what, "mend the formula", column=column, where=at)
        elif folded in MISSING:
            self.findings.normalise(column, "read as missing", len(at), repr(text))
        return folded in EXCEL_ERRORS or folded in MISSING

    def matrix(self, names: Sequence[str], at: np.ndarray | None = None) -> np.ndarray:
        """Columns of numbers as float32 [rows, columns], of all rows or of these positions."""
        out = np.empty((len(self.frame) if at is None else len(at), len(names)), dtype=np.float32)
        for j, name in enumerate(names):
            values = self.numbers(name)
            out[:, j] = values if at is None else values[at]
        return out

    def check_ids(self, ids: np.ndarray, column: str, unique: bool = False) -> None:
        """Every row has an id, where asked one of its own."""
        blank = np.array([each is None for each in ids], dtype=bool)
        self.error("blank id", "is blank", "every row needs it", column=column, where=blank)
        if unique:
            twice = pd.Series(ids).duplicated().to_numpy() & ~blank
            what, fix = "'{value}' stands twice", "ids are unique; delete or rename one"
            self.error("duplicate id", what, fix, column=column, where=twice)

    def refuse_negative(self, column: str) -> None:
        """A column of accessibility is not negative."""
        with np.errstate(invalid="ignore"):
            negative = self.numbers(column) < 0
        self.error(
            "negative",
            "'{value}' is negative",
            "correct it; where it is a logarithm or a z-score, rename the column and declare it "
            "under data.region_feature_columns",
            column=column,
            where=negative,
        )

    def text(self, column: str) -> np.ndarray:
        """A column as text [rows], None for blank cells."""
        codes, cells = pd.factorize(self.frame[column])  # -1 = blank
        texts = np.array([*(_as_text(cell) for cell in cells), None], dtype=object)
        return texts[codes]


def is_bool(series: pd.Series) -> np.ndarray:
    """Which cells are true or false [rows]."""
    if pd.api.types.is_bool_dtype(series):
        return np.ones(len(series), dtype=bool)
    if pd.api.types.infer_dtype(series, skipna=True) in ("string", "empty"):
        return np.zeros(len(series), dtype=bool)
    return np.array([isinstance(cell, bool | np.bool_) for cell in series], dtype=bool)


def positions(series: pd.Series, wanted: np.ndarray) -> list[tuple[Any, np.ndarray]]:
    """The different cells at the wanted positions, and where each stands."""
    out: list[tuple[Any, np.ndarray]] = []
    truths = is_bool(series) & wanted  # to pandas a TRUE is a 1
    for truth in (True, False) if truths.any() else ():
        at = np.flatnonzero(truths & (series == truth).to_numpy())
        out += [(truth, at)] if len(at) else []
    at = np.flatnonzero(wanted & ~truths)
    codes, cells = pd.factorize(series.iloc[at].astype(object))
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(len(cells) + 1))
    return out + [(cell, at[order[bounds[i] : bounds[i + 1]]]) for i, cell in enumerate(cells)]


def _as_text(cell: Any) -> str:
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()


def with_header(cells: pd.DataFrame, header: Sequence[str | None], table: RawTable) -> pd.DataFrame:
    """The cells under their headers; what is wrong with the header becomes findings.

    Args:
        cells: The rows below the header, with row numbers of the file as index, columns by
            position. There may be more columns than headers.
        header: The headers, None or blank where there is none.
        table: Whose findings to add to; its frame is not looked at.

    Returns:
        The columns with a header. A column without one is left out where it is empty or only
        counts the rows (the index that pandas writes), else it is an error; so is a second column
        of the same header. What pandas calls `Unnamed: 0` has no header.
    """
    names = ["" if name is None else str(name).strip() for name in header]
    called = {i: f" ('{name}')" for i, name in enumerate(names) if _UNNAMED.fullmatch(name)}
    names = ["" if i in called else name for i, name in enumerate(names)]
    names += [""] * (cells.shape[1] - len(names))
    kept: dict[str, int] = {}
    problem = table.findings.add
    for position, name in enumerate(names):
        column = cells.iloc[:, position] if position < cells.shape[1] else None
        if not name:
            if column is None or column.isna().all():
                continue
            if _only_counts(column):
                table.findings.normalise(
                    f"column {position + 1}", "a row counter without a header, left out", None
                )
                continue
            held = column.dropna()
            problem(Finding(
                "error", "no header",
                f"column {position + 1}{called.get(position, '')} has no header and holds "
                "'{value}'",
                "name it, or delete the column", table.file, table.sheet, None,
                held.index.to_numpy(np.int64), list(held),
            ))  # fmt: skip
        elif name in kept:
            problem(Finding(
                "error", "duplicate header",
                f"'{name}' is the header of columns {kept[name] + 1} and {position + 1}",
                "rename or delete one", table.file, table.sheet, name, np.array([1]), [name],
            ))  # fmt: skip
        else:
            kept[name] = position
    return cells.iloc[:, list(kept.values())].set_axis(list(kept), axis=1)


def _only_counts(column: pd.Series) -> bool:
    """Whether a column is 0, 1, 2, ... or 1, 2, 3, ..."""
    if column.isna().any():
        return False
    values = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    return bool((np.diff(values) == 1).all() and values[0] in (0, 1)) and len(values) > 1
