"""What was found in a table: errors, warnings, and what was normalised; collected, not thrown.

A finding is of one kind, in one column, and lists its rows. It stays compact whatever the number
of rows; the one line per cell that a user reads is made when it is asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import numpy as np

from yeast_get.errors import MOST_LINES, DataError, Problem

_MOST_PROBLEMS = 10_000
"""How many problems a `DataError` holds one by one; its counts speak of all."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, or odd, in one place or in many rows of one column.

    Attributes:
        severity: `error` or `warning`.
        kind: What it is, in two or three words that others of its kind share: `not a number`.
        what: What is wrong; `{value}` stands for the cell.
        fix: What the user can do; likewise.
        file: The file, as the user named it.
        sheet: The sheet of a workbook.
        column: The column's header.
        rows: Row numbers of the file [n], the header being row 1; none where it is of the whole
            column or table.
        values: The cells of these rows [n], or none.
    """

    severity: Literal["error", "warning"]
    kind: str
    what: str
    fix: str = ""
    file: str | None = None
    sheet: str | None = None
    column: str | None = None
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    values: Sequence[Any] = ()

    def __len__(self) -> int:
        """How many cells, or 1 where it lists none."""
        return max(1, len(self.rows))

    def cells(self) -> Iterator[tuple[int | None, str]]:
        """Row and text of every cell; one without both where it lists none."""
        if not len(self.rows):
            yield None, ""
        for i, row in enumerate(self.rows):
            yield int(row), cell_as_text(self.values[i]) if len(self.values) else ""

    def problems(self) -> Iterator[Problem]:
        """One problem per cell."""
        for row, value in self.cells():
            what, fix = self._said(self.what, value), self._said(self.fix, value)
            yield Problem(what, fix, self.file, self.sheet, row=row, column=self.column)

    def line(self) -> str:
        """All of it in one line: the first cells, and how many more there are."""
        value = cell_as_text(self.values[0]) if len(self.values) else ""
        what, fix = self._said(self.what, value), self._said(self.fix, value)
        if len(self.rows):
            what += f" ({row_ranges(self.rows)})"
        return str(Problem(what, fix, self.file, self.sheet, column=self.column))

    @staticmethod
    def _said(text: str, value: str) -> str:
        return text.replace("{value}", value if len(value) <= 60 else f"{value[:57]}...")


@dataclass
class Normalised:
    """Cells that were read in another form than they were written in.

    Attributes:
        column: The column's header.
        what: What was done.
        count: To how many cells; 0 where it was done to the whole file.
        example: One of them.
    """

    column: str
    what: str
    count: int
    example: str = ""

    def line(self) -> str:
        """In one line."""
        cells = f" in {counted(self.count, 'cell')}" if self.count else ""
        said = f"{self.column}: {self.what}{cells}"
        return " ".join((f"{said} (such as {self.example})" if self.example else said).split())


class Findings:
    """Everything that was found in the tables of one input."""

    def __init__(self) -> None:
        self.errors: list[Finding] = []
        self.warnings: list[Finding] = []
        self.left_out = 0
        """How many rows have errors and were left out, where the YAML asks for that."""
        self._normalised: dict[tuple[str, str], Normalised] = {}

    @property
    def normalised(self) -> list[Normalised]:
        """What was normalised, in the order it was met."""
        return list(self._normalised.values())

    def add(self, finding: Finding) -> None:
        """Take up an error or a warning."""
        (self.errors if finding.severity == "error" else self.warnings).append(finding)

    def warn(self, kind: str, what: str, fix: str = "", file: str | None = None) -> None:
        """Take up a warning that is of no row or column."""
        self.add(Finding("warning", kind, what, fix, file))

    def normalise(self, column: str, what: str, count: int | None, example: str = "") -> None:
        """Count cells that were read in another form than written; None for a whole file."""
        if count is None or count:
            here = self._normalised.setdefault((column, what), Normalised(column, what, 0, example))
            here.count += count or 0

    @property
    def can_be_skipped(self) -> bool:
        """Whether every error is of some rows below the header."""
        return all(len(f.rows) and f.rows.min() > 1 for f in self.errors)

    def bad_rows(
        self, file: str | None, sheet: str | None = None, column: str | None = None
    ) -> np.ndarray:
        """Row numbers of a table that have an error [n], sorted.

        Args:
            file: Of the table.
            sheet: Of the table.
            column: Count only errors of this column and those of whole rows.
        """
        here = [f for f in self.errors if (f.file, f.sheet) == (file, sheet)]
        rows = [f.rows for f in here if column is None or f.column in (None, column)]
        return np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *rows]))

    def error_counts(self) -> Counter[str]:
        """Number of bad cells by kind."""
        counts: Counter[str] = Counter()
        for finding in self.errors:
            counts[finding.kind] += len(finding)
        return counts

    def raise_errors(self) -> None:
        """Refuse the input if anything is wrong with it.

        Raises:
            DataError: With one problem per bad cell.
        """
        if self.errors:
            every = (problem for finding in self.errors for problem in finding.problems())
            raise DataError(list(islice(every, _MOST_PROBLEMS)), findings=self)

    def error_lines(self) -> list[str]:
        """At most `MOST_LINES` errors, some of each finding, then how many more by kind."""
        word = "row left out" if self.left_out else "error"
        share = max(1, MOST_LINES // max(1, len(self.errors)))
        spare = MOST_LINES - sum(min(share, len(finding)) for finding in self.errors)
        lines: list[str] = []
        shown: Counter[str] = Counter()
        for finding in self.errors:
            take = min(len(finding), share + max(0, spare), MOST_LINES - len(lines))
            spare -= max(0, take - share)
            lines += [f"{word}: {problem}" for problem in islice(finding.problems(), take)]
            shown[finding.kind] += take
        more = self.error_counts() - shown
        if more:
            kinds = ", ".join(f"{count:,} of the kind '{kind}'" for kind, count in more.items())
            lines.append(
                f"{word}: and {sum(more.values()):,} more: {kinds}; "
                "--check --output FOLDER writes all of them to data_problems.csv"
            )
        return lines

    def lines(self) -> list[str]:
        """Errors, then warnings, then what was normalised."""
        return [
            *self.error_lines(),
            *(f"warning: {finding.line()}" for finding in self.warnings),
            *(f"normalised: {each.line()}" for each in self.normalised),
        ]


def cell_as_text(cell: Any) -> str:
    """A cell for people, as near to what stands in the file as is known."""
    if cell is None or cell != cell:
        return ""
    return f"{cell:.12g}" if isinstance(cell, float) else str(cell)


def counted(number: int, noun: str) -> str:
    """A number of things: `1 sample`, `1,204 samples`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def row_ranges(rows: Iterable[int], most: int = 6) -> str:
    """Row numbers in few words: `rows 50 to 58, 61`."""
    numbers = np.unique(np.fromiter(rows, dtype=np.int64))
    breaks = np.flatnonzero(np.diff(numbers) != 1)
    low, high = numbers[np.r_[0, breaks + 1]], numbers[np.r_[breaks, len(numbers) - 1]]
    runs = zip(low[:most], high[:most], strict=True)
    words = [f"{a}" if a == b else f"{a} to {b}" for a, b in runs]
    more = f" and more, {len(numbers):,} in all" if len(low) > most else ""
    return f"row{'s' if len(numbers) > 1 else ''} {', '.join(words)}{more}"
