"""What a user did wrong, as one line each.

Every mistake that a user can mend is a `Problem`; one or more of them are raised together as a
`UserError`. The two commands print them on stderr and exit with 2. Anything else that is raised
is a bug of ours: it keeps its traceback and exits with 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

MOST_LINES = 20
"""How many problems are printed one by one before the rest is only counted."""

LONGEST_TEXT = 1000
"""Characters of a line about a problem; what a file holds may be longer."""


@dataclass(frozen=True)
class Problem:
    """One mistake: where it is, what it is, and what to do about it.

    Attributes:
        what: What is wrong, naming the value.
        fix: What the user can do.
        file: The file that holds it, as the user named it.
        sheet: The sheet of a workbook.
        line: The line of a YAML file, counted from 1.
        row: The row of a table, counted from 1 with the header as row 1, as a spreadsheet does.
        column: The column's header.
    """

    what: str
    fix: str = ""
    file: str | None = None
    sheet: str | None = None
    line: int | None = None
    row: int | None = None
    column: str | None = None

    def __str__(self) -> str:
        place = [
            text
            for value, text in (
                (self.file, f"{self.file}"),
                (self.sheet, f"sheet {self.sheet}"),
                (self.line, f"line {self.line}"),
                (self.row, f"row {self.row}"),
                (self.column, f"column {self.column}"),
            )
            if value is not None
        ]
        said = f"{self.what}; {self.fix}" if self.fix else self.what
        text = f"{', '.join(place)}: {said}" if place else said
        text = printable(" ".join(text.split()))
        if len(text) <= LONGEST_TEXT:
            return text
        return f"{text[: LONGEST_TEXT // 2]} ... {text[-LONGEST_TEXT // 4 :]}"


class UserError(Exception):
    """One or more mistakes that the user can mend (exit code 2)."""

    def __init__(self, problems: Problem | Sequence[Problem]) -> None:
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def lines(self) -> list[str]:
        """The lines for stderr: at most `MOST_LINES` problems, then a count of the others."""
        lines = [f"error: {problem}" for problem in self.problems[:MOST_LINES]]
        more = len(self.problems) - MOST_LINES
        if more > 0:
            lines.append(f"error: and {more} more problem{'s' if more > 1 else ''} of this kind")
        return lines


class ConfigError(UserError):
    """A mistake in a YAML file, in `--set` or in an option."""


class DataError(UserError):
    """Mistakes in a table.

    Args:
        problems: The mistakes.
        findings: All that was found in the tables, where they were read so far: its `lines` are
            those for stderr.
    """

    def __init__(self, problems: Problem | Sequence[Problem], findings: Any = None) -> None:
        super().__init__(problems)
        self.findings = findings

    def lines(self) -> list[str]:
        """The lines for stderr: errors, and where tables were read, warnings too."""
        return super().lines() if self.findings is None else list(self.findings.lines())


class CheckpointError(UserError):
    """A checkpoint that cannot be used."""


class RunError(UserError):
    """A run folder or a device that cannot be used, or a training that went wrong."""


class Stopped(Exception):
    """A signal ended a run after its state was written.

    Attributes:
        number: Of the signal.
    """

    def __init__(self, number: int, said: str) -> None:
        self.number = number
        super().__init__(said)


class WriteError(RunError):
    """A file or folder that the system did not let us write."""


def printable(text: str) -> str:
    """A text that a terminal shows and does not obey: control characters are written out."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The one of `choices` that `name` was probably meant to be."""
    near = get_close_matches(name, list(choices), n=1, cutoff=0.6)
    return near[0] if near else None


def did_you_mean(name: str, choices: Iterable[str], prefix: str = "") -> str:
    """A hint that names the nearest of `choices`, or all of them where none is near."""
    known = list(choices)
    near = nearest(name, known)
    if near is not None:
        return f"did you mean {prefix}{near}?"
    return f"known: {', '.join(known)}" if known else ""
