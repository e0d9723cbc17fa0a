"""How a delimited text file is laid out: its delimiter, its header, and the rows that do not fit.

The first pass over a file. It counts the cells of every record with numpy, or with the csv module
where quotes or line ends are odd, and never holds more than a block.
"""

from __future__ import annotations

import csv
import io
import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from yeast_get.data.findings import Finding, Findings, counted
from yeast_get.data.text_source import NotUtf8, TextSource
from yeast_get.errors import DataError, Problem

_DELIMITERS = "\t,;|"
MOST_RECORD = 64 << 20
"""How many characters a record may have."""

_MOST_LEFT_OUT = 2_000_000
"""How many blank and ragged rows a table may have."""

_MOST_VALUES = 10_000
"""How many ragged rows of a kind are quoted."""

_HEAD = 2 << 20
"""How many bytes the delimiter is judged by, at least one line."""

_QUOTE_CELLS = "quote cells that hold the delimiter"
_SAMPLE_ROWS, _SAMPLE_CELLS = 1000, 50_000
_COMMA_GENE = re.compile(r"(?<![\w\"])(ADE5,7|ARG5,6|DUR1,2)(?!\d)", re.IGNORECASE)
_LOCI = {"ADE5,7": "YGL234W", "ARG5,6": "YER069W", "DUR1,2": "YBR208C"}


# --------------------------------------------------------------------------------------- layout


@dataclass
class _Rows:
    """Rows of the file, and how they begin."""

    rows: list[int] = field(default_factory=list)
    values: list[str] = field(default_factory=list)

    def add(self, row: int, text: str) -> None:
        self.rows.append(row)
        self.values.append(text.rstrip("\r\n")[:60] if len(self.rows) <= _MOST_VALUES else "")


@dataclass
class Layout:
    """What the first pass finds.

    Attributes:
        file: The file's name as the user gave it.
        delimiter: What parts its cells.
        header: The headers.
        header_row: The row they stand in.
        sample: Some rows below it.
        rows: How many rows there are.
        size: How many bytes they take.
        cuts: Where bytes begin and end that are not to be read: begin, end, begin, end, ...
        wider: Whether some rows have blank cells beyond the header's last.
        blank: Rows without anything.
        ragged: Rows by their number of cells, where it is not the header's, and what to do.
        unquoted: Rows in which a cell goes on behind its closing quote.
    """

    file: str
    delimiter: str
    header: list[str]
    header_row: int
    sample: list[list[str]]
    rows: int = 0
    size: int = 0
    cuts: array[int] = field(default_factory=lambda: array("q"))
    wider: bool = False
    blank: list[int] = field(default_factory=list)
    ragged: dict[tuple[int, str], _Rows] = field(default_factory=dict)
    unquoted: _Rows = field(default_factory=_Rows)
    _count: int = 0

    def left_out(self) -> np.ndarray:
        """Rows that are not to be read [n], sorted."""
        ragged = [row for each in self.ragged.values() for row in each.rows]
        above = range(1, self.header_row + 1)
        rows = [*above, *self.blank, *ragged, *self.unquoted.rows]
        return np.unique(np.array(rows, dtype=np.int64))

    def lost(self) -> list[str]:
        """How the rows begin that are left out and not blank."""
        rows = [*self.ragged.values(), self.unquoted]
        return [text for each in rows for text in each.values]

    def cut(self, begin: int, end: int) -> None:
        """Leave the bytes of a record out."""
        if len(self.cuts) and self.cuts[-1] == begin:
            self.cuts[-1] = end
        else:
            self.cuts.extend((begin, end))

    def line_bytes(self) -> float:
        """How many bytes a row of the sample takes, about; a little less than it does."""
        bytes_ = sum(len(cell.encode()) + 1 for row in self.sample for cell in row)
        return 0.98 * bytes_ / max(1, len(self.sample))

    def add_blank(self, row: int) -> None:
        """Take up a row without anything."""
        self.blank.append(row)
        self._count_one()

    def add_ragged(self, row: int, cells: int, text: str) -> None:
        """Take up a row with another number of cells than the header."""
        self.ragged.setdefault((cells, self._fix(cells, text)), _Rows()).add(row, text)
        self._count_one()

    def add_unquoted(self, row: int, text: str) -> None:
        """Take up a row in which a cell goes on behind its closing quote."""
        self.unquoted.add(row, text)
        self._count_one()

    def _count_one(self) -> None:
        self._count += 1
        if self._count > _MOST_LEFT_OUT:
            what = f"has more than {_MOST_LEFT_OUT:,} rows that are blank or do not fit the header"
            raise _refusal(self.file, what, "check that it is the table")

    def _fix(self, cells: int, text: str) -> str:
        if len(self.header) == 1:
            return "if the first row is a title, delete it"
        if cells < len(self.header):
            return "the row is cut off, or is a note; complete or delete it"
        if self.delimiter != ",":
            return _QUOTE_CELLS
        gene = _COMMA_GENE.search(text)
        if gene is None:
            return f'{_QUOTE_CELLS}, as in "ADE5,7"'
        name = gene[0].upper()
        return f'write "{name}" in quotes, or its systematic name {_LOCI[name]}'

    def report(self, findings: Findings) -> None:
        """Take up what is wrong with the rows.

        Raises:
            DataError: Where there are no rows at all.
        """
        if self.rows - self.header_row == len(self.blank):
            raise _refusal(self.file, "has a header and no rows", "add rows")
        width, left = len(self.header), self.rows - len(self.left_out())
        for (cells, fix), at in self.ragged.items():
            all_alike = not left and len(self.ragged) == 1 and len(at.rows) > 1
            if all_alike and cells == width + 1 and fix.startswith(_QUOTE_CELLS):
                fix = "R leaves out the first header; write it in front of the others"
            what = f"has {counted(cells, 'cell')} where the header has {width}"
            self._error(findings, "ragged row", what, fix, at)
        if self.unquoted.rows:
            what = "a cell goes on behind its closing quote"
            fix = 'write a quote inside a cell twice, as in "5"" plate", or close the cell before'
            self._error(findings, "quote", what, fix, self.unquoted)

    def _error(self, findings: Findings, kind: str, what: str, fix: str, at: _Rows) -> None:
        rows = np.array(at.rows, dtype=np.int64)
        findings.add(Finding("error", kind, what, fix, self.file, rows=rows, values=at.values))


def _refusal(file: str, what: str, fix: str, row: int | None = None) -> DataError:
    return DataError(Problem(what, fix, file, row=row))


class OpenQuote(Exception):
    """A row with a cell that does not end, mostly of a quote that does not close."""

    def __init__(self, row: int, quoted: bool = True) -> None:
        super().__init__(row)
        self.row = row
        self._quoted = quoted

    def refusal(self, file: str) -> DataError:
        """What to say of it."""
        if self._quoted:
            return _refusal(file, "a quote opens and never closes", "close or delete it", self.row)
        what = f"holds a cell of more than {csv.field_size_limit():,} characters"
        return _refusal(file, what, "check that it is a text table", self.row)


def _records(lines: Iterable[str], delimiter: str) -> Iterator[tuple[list[str], str]]:
    """The cells of every record, and its text.

    Raises:
        OpenQuote: Where a quote is not closed, or not within a sane length.
    """
    taken: list[str] = []
    ended = False

    def feed() -> Iterator[str]:
        nonlocal ended
        for line in lines:
            taken.append(line)
            yield line
        ended = True

    row = 0
    reader = csv.reader(feed(), delimiter=delimiter)
    while True:
        row += 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            raise OpenQuote(row, any('"' in line for line in taken)) from None
        if ended:
            raise OpenQuote(row)
        yield cells, "".join(taken)
        taken.clear()


def _all_blank(cells: Iterable[str]) -> bool:
    return not any(cell.strip(" \t\r\n\f\v") for cell in cells)


# ----------------------------------------------------------------------------------- first pass


def scan(source: TextSource) -> Layout:
    """The layout of a file.

    Raises:
        NotUtf8: As `TextSource.blocks`, its row counted.
        DataError: Where nothing can be read.
    """
    head, whole = read_head(source)
    file = str(source.path)
    layout = layout_of(head, whole, file)
    try:
        try:
            _scan_fast(source.blocks(), layout)
        except Irregular:
            layout = layout_of(head, whole, file)
            _scan_slowly(source.open(), layout)
    except NotUtf8 as bad:
        bad.row = layout.rows + 1
        raise
    except OpenQuote as error:
        raise error.refusal(file) from None
    return layout


def read_head(source: TextSource) -> tuple[str, bool]:
    """How a file begins, in one line or more, and whether that is all of it."""
    head = b""
    blocks = source.blocks(_HEAD)
    try:
        for block in blocks:
            head += block
            if len(head) >= _HEAD and re.search(rb"[\r\n]", head.lstrip()):
                break
            if len(head) > MOST_RECORD:
                what = f"has no line of text in its first {MOST_RECORD >> 20} MiB"
                raise _refusal(str(source.path), what, "check that it is a text table")
        whole = next(blocks, b"") == b""
    except NotUtf8 as bad:
        unquoted = head.split(b'"')[::2]
        bad.row = 1 + sum(len(re.findall(rb"\r\n?|\n", part)) for part in unquoted)
        raise
    return head.decode("utf-8", "ignore"), whole


def layout_of(head: str, whole: bool, file: str) -> Layout:
    """Delimiter and header of a file that begins like this."""
    _check_kind(head.lstrip().removeprefix('"'), file)
    if not whole:
        head = head[: max(head.rfind("\n"), head.rfind("\r")) + 1]
    choices = [_Choice.of(head, delimiter) for delimiter in _DELIMITERS]
    best = max(choices, key=lambda choice: choice.rank)
    if not best.header:
        if best.broken:
            raise best.broken.refusal(file)
        raise _refusal(file, "is empty", "it needs a header and rows")
    header = [name.replace("\ufeff", "").strip() for name in best.header]
    return Layout(file, best.delimiter, header, best.header_row, best.rows)


def _check_kind(text: str, file: str) -> None:
    """Refuse what is text and no table."""
    start = text[:200].casefold()
    if start.startswith("version https://git-lfs"):
        raise _refusal(file, "is a git-lfs pointer, not the table", "run git lfs pull")
    if start.startswith(("<!doctype html", "<html")):
        what = "is a web page and no table, perhaps that of a login"
        raise _refusal(file, what, "download the table itself")
    if start.startswith(("!series_", "!sample_")):
        raise _refusal(
            file,
            "is a GEO series matrix, genes by samples",
            "take the lines between !series_matrix_table_begin and !series_matrix_table_end as "
            "expression.csv of a data folder (ID_REF becomes region_id), and the !Sample_ lines "
            "as samples.csv",
        )
    if re.match(r"sep=.\s", start):
        raise _refusal(file, "begins with a line for Excel, 'sep='", "delete this line")
    if start.startswith("#"):
        fix = "delete the lines before the header, and a # before its first name"
        raise _refusal(file, "begins with a comment line", fix)


@dataclass
class _Choice:
    """A delimiter, and what it makes of the first records.

    Attributes:
        delimiter: The delimiter.
        header: The cells of the first record that is not blank; none where there is none.
        header_row: Its row.
        rows: The cells of rows below it.
        broken: The cell that does not end, where one ends all this.
    """

    delimiter: str
    header: list[str] = field(default_factory=list)
    header_row: int = 0
    rows: list[list[str]] = field(default_factory=list)
    broken: OpenQuote | None = None

    @classmethod
    def of(cls, head: str, delimiter: str) -> _Choice:
        """What a delimiter makes of the beginning of a file."""
        choice = cls(delimiter)
        cells_left = _SAMPLE_CELLS
        try:
            for row, (cells, text) in enumerate(_records(io.StringIO(head, newline=""), delimiter)):
                if not text.strip(f'{_DELIMITERS}" \r\n'):
                    continue
                if not choice.header:
                    choice.header, choice.header_row = cells, row + 1
                    continue
                choice.rows.append(cells)
                cells_left -= len(cells)
                if len(choice.rows) == _SAMPLE_ROWS or cells_left <= 0:
                    break
        except OpenQuote as error:
            choice.broken = error
        return choice

    @property
    def rank(self) -> tuple[int, float, int]:
        """How well it fits: how many columns it gives, in how large a part of the rows."""
        width = len(self.header)
        rows = self.rows[:100]
        fits = sum(len(row) >= width and _all_blank(row[width:]) for row in rows)
        if width == 1:  # a title above the table, or a table of one column
            wide = sum(len(row) > 1 for row in rows) >= max(1, len(rows) / 2)
            return 1, 1.0 if wide else 0.0, fits
        return min(width, 2), width * fits / max(1, len(rows)), width


class Irregular(Exception):
    """A file that a slower way reads right."""


def _scan_fast(blocks: Iterator[bytes], layout: Layout) -> None:
    """Count cells with numpy.

    Raises:
        Irregular: Where a quote stands in the middle of a cell or never closes, a line ends in a
            bare carriage return, or a record is longer than sane.
    """
    tail = b""
    for block in blocks:
        data = tail + block
        _check_returns(data)
        tail = data[_count_cells(data, layout) :]
        if len(tail) > MOST_RECORD:
            raise Irregular
    if tail:
        _count_cells(tail + b"\n", layout, last=True)


def _check_returns(data: bytes) -> None:
    if b"\r" not in data:
        return
    bare = data.count(b"\r") - data.count(b"\r\n")
    if bare - data.endswith(b"\r"):
        raise Irregular


def _count_cells(data: bytes, layout: Layout, last: bool = False) -> int:
    """Take up the records that end in here; returns where the last one does."""
    letters = np.frombuffer(data, dtype=np.uint8)
    ends = np.flatnonzero(letters == 10)
    is_separator = letters == ord(layout.delimiter)
    if b'"' in data:
        quotes = np.flatnonzero(letters == 34)
        ends = ends[np.searchsorted(quotes, ends) % 2 == 0]
        seps = np.flatnonzero(is_separator)
        is_separator[seps[np.searchsorted(quotes, seps) % 2 == 1]] = False
        if last and not len(ends):
            raise Irregular
        quotes = quotes[: np.searchsorted(quotes, ends[-1] if len(ends) else 0)]
        _check_quotes(letters, quotes, layout.delimiter)
    if not len(ends):
        return 0
    starts = np.concatenate([[0], ends[:-1] + 1])
    longest = int((ends - starts).max())
    count = np.uint16 if longest < 1 << 16 else np.int64  # the narrow one is the fast one
    ones = is_separator[: ends[-1] + 1].view(np.uint8)
    cells = np.add.reduceat(ones, starts, dtype=count).astype(np.int64) + 1
    first, second = letters[starts], letters[np.minimum(starts + 1, ends)]
    odd = (cells != len(layout.header)) | (first <= 32) | (first == ord(layout.delimiter))
    odd |= (first == 34) & ((second <= 32) | (second == 34))
    odd[: max(0, layout.header_row - layout.rows)] = True
    for at in map(int, np.flatnonzero(odd)):
        begin, end = int(starts[at]), int(ends[at])
        line = data[begin:end].rstrip(b"\r")
        if not _take(layout, layout.rows + at + 1, int(cells[at]), line):
            layout.cut(layout.size + begin, layout.size + end + 1)
    done = int(ends[-1]) + 1
    layout.rows += len(ends)
    layout.size += done
    return done


def _check_quotes(letters: np.ndarray, quotes: np.ndarray, delimiter: str) -> None:
    """See that quotes open cells, close them, or stand in pairs.

    Args:
        letters: The bytes.
        quotes: Where the quotes are, an even number of them [quotes].
        delimiter: What parts cells.
    """
    parts = np.zeros(256, dtype=bool)
    parts[[10, 13, 34, ord(delimiter)]] = True
    opening, closing = quotes[::2], quotes[1::2]
    opening = opening[opening > 0]
    if not (parts[letters[opening - 1]].all() and parts[letters[closing + 1]].all()):
        raise Irregular


def _take(layout: Layout, row: int, cells: int, line: bytes) -> bool:
    """Take up one record of the fast pass; returns whether it is to be read."""
    if row <= layout.header_row:
        return False
    more = cells - len(layout.header)
    blank, blank_end = _blanks(layout, row, more, line)
    if blank:
        layout.add_blank(row)
        return False
    if blank_end:
        layout.wider = True
        return True
    if more:
        layout.add_ragged(row, cells, line.decode("utf-8", "replace"))
    return not more


def _blanks(layout: Layout, row: int, more: int, line: bytes) -> tuple[bool, bool]:
    """Whether a record is blank, and whether it is in the cells that it has more than the header.

    Raises:
        OpenQuote: Where a cell is too long to tell.
    """
    delimiter = layout.delimiter.encode()
    blank = not line.strip(delimiter + b'" \t\r\n\f\v')
    if (blank or more > 0) and b'"' in line:
        try:
            cells, _ = next(_records(io.StringIO(line.decode(), newline=""), layout.delimiter))
        except OpenQuote:
            raise OpenQuote(row, quoted=False) from None
        return _all_blank(cells), more > 0 and _all_blank(cells[len(layout.header) :])
    return blank, more > 0 and not b"".join(line.rsplit(delimiter, more)[1:]).strip()


def _scan_slowly(handle: io.BufferedReader, layout: Layout) -> None:
    """Count cells with the csv module, which knows every odd quote and line end.

    Raises:
        OpenQuote: Where a quote is not closed.
    """
    with io.TextIOWrapper(handle, "utf-8", newline="") as text:
        for cells, line in _records(_lines(text, layout), layout.delimiter):
            layout.rows += 1
            end = layout.size + len(line.encode())
            if not _take_slowly(layout, layout.rows, cells, line):
                layout.cut(layout.size, end)
            layout.size = end


def _take_slowly(layout: Layout, row: int, cells: list[str], line: str) -> bool:
    """Take up one record of the slow pass; returns whether it is to be read."""
    width = len(layout.header)
    if not _is_strict(line, layout.delimiter):
        layout.add_unquoted(row, line)
    elif row > layout.header_row:
        if not _all_blank(cells):
            if len(cells) >= width and _all_blank(cells[width:]):
                layout.wider |= len(cells) > width
                return True
            layout.add_ragged(row, len(cells), line)
        else:
            layout.add_blank(row)
    return False


def _lines(text: io.TextIOWrapper, layout: Layout) -> Iterator[str]:
    while line := text.readline(MOST_RECORD):
        if len(line) == MOST_RECORD:
            what = f"has more than {MOST_RECORD >> 20} MiB in a line"
            raise _refusal(layout.file, what, "check that it is a text table", layout.rows + 1)
        yield line


def _is_strict(record: str, delimiter: str) -> bool:
    """Whether every quoted cell ends with its quote."""
    if not record.startswith('"') and f'{delimiter}"' not in record:
        return True
    lines = io.StringIO(record, newline="")
    try:
        next(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error:
        return False
    return True
