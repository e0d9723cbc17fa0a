"""CSV and TSV as programs and people write them -> a raw table, and what is wrong with it.

A file is read twice, block by block. The first pass counts the cells of every record and finds
the ones that do not fit the header. The second is the parser of pandas, which never sees these: it
counts records in its own way where it is told to skip some. A large file without quotes is parsed
first, on all cores, in the hope that all of its records fit, which a full last column shows; else
it is read as all others are.
"""

from __future__ import annotations

import csv
import io
import logging
import os
import re
import warnings
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from yeast_get.data.excel_dates import check_dates
from yeast_get.data.findings import Finding, Findings
from yeast_get.data.raw_table import BLANK_CELLS, RawTable, with_header
from yeast_get.data.text_source import NotUtf8, TextSource, as_gb18030, find_source
from yeast_get.errors import DataError, Problem

log = logging.getLogger("yeast_get")

_DELIMITERS = "\t,;|"
_MOST_RECORD = 64 << 20
"""How many characters a record may have."""

_MOST_LEFT_OUT = 2_000_000
"""How many blank and ragged rows a table may have."""

_MOST_VALUES = 10_000
"""How many ragged rows of a kind are quoted."""

_CHUNK = 96 << 20
"""How many bytes pandas parses at once, about."""

_PIECE = 16 << 20
"""How many bytes of a large plain file one thread parses at once, about."""

_LARGE = 32 << 20
"""From how many bytes on a plain file is parsed without being counted first."""

_HEAD = 2 << 20
"""How many bytes the delimiter is judged by, at least one line."""

_QUOTE_CELLS = "quote cells that hold the delimiter"
_SAMPLE_ROWS, _SAMPLE_CELLS = 1000, 50_000
_COMMA_GENE = re.compile(r"(?<![\w\"])(ADE5,7|ARG5,6|DUR1,2)(?!\d)", re.IGNORECASE)
_LOCI = {"ADE5,7": "YGL234W", "ARG5,6": "YER069W", "DUR1,2": "YBR208C"}
_POINT = re.compile(r"[-+]?\d*\.\d+(?:[eE][-+]?\d+)?")
_COMMA = re.compile(r"[-+]?\d*,\d+(?:[eE][-+]?\d+)?")
_EITHER = re.compile(r"[-+]?[1-9]\d*,\d{3}")


def read_text_table(
    path: Path,
    findings: Findings,
    *,
    decimal: str | None = None,
    is_text: Callable[[str], bool] = lambda header: False,
) -> RawTable:
    """Read one delimited text file, packed or not.

    Args:
        path: The file; what it is shows in its content and not in its name.
        findings: Where errors, warnings and what was normalised go.
        decimal: The decimal sign, `.` or `,`; None to find it out.
        is_text: Whether a column of this header holds text whatever it looks like.

    Returns:
        The rows that have as many cells as the header, under their row numbers in the file. A
        row is a record: a line break in quotes begins none, and a blank line is one. The rows
        left out stand in `findings`.

    Raises:
        DataError: Where nothing can be read.
    """
    source = find_source(path)
    ahead = _parse_ahead(source, decimal, is_text) if _is_large(source) else None
    if ahead is None:
        source, layout, example = _counted(source)
        _note_encoding(source, example, findings)
        layout.report(findings)
    else:
        layout, cells = ahead
    texts = [position for position, name in enumerate(layout.header) if is_text(name)]
    decimal = decimal or _decimal_sign(layout, set(texts))
    table = RawTable(pd.DataFrame(), str(path), None, decimal, findings)
    if ahead is None:
        cells = _read_cells(partial(_parse_chunks, source, layout), layout, decimal or ".", texts)
        table.rows_lost = len(layout.left_out()) - layout.header_row - len(layout.blank)
    table.frame = with_header(cells, layout.header, table)
    check_dates(table, [name for name in table.frame.columns if is_text(name)])
    return table


def _counted(source: TextSource) -> tuple[TextSource, _Layout, str]:
    """The layout of a file in its encoding, and some letters of it where that was guessed."""
    try:
        layout = _scan(source)
    except NotUtf8 as bad:
        source, example = as_gb18030(source, bad)
        return source, _scan(source), example
    return source, layout, source.example() if source.encoding == "UTF-16" else ""


def _is_large(source: TextSource) -> bool:
    plain = source.encoding == "UTF-8" and not source.packed and not source.bom
    return plain and source.path.stat().st_size > _LARGE


def _parse_ahead(
    source: TextSource, decimal: str | None, is_text: Callable[[str], bool]
) -> tuple[_Layout, pd.DataFrame] | None:
    """Layout and cells of a file if all of its records fit its header; None where that is not sure.

    Without quotes every line is a record. pandas pads a short one and a blank one, so that the
    last column is not full; the cells that a long one has too many stand in a column of their own.
    """
    try:
        layout = _layout_of(*_read_head(source), str(source.path))
        layout.size = source.path.stat().st_size
        layout.rows = layout.header_row + int(layout.size / max(1, layout.line_bytes()))
        texts = [position for position, name in enumerate(layout.header) if is_text(name)]
        sign = decimal or _decimal_sign(layout, set(texts)) or "."
        parse = partial(_parse_pieces, source, layout)
        cells = _read_cells(parse, layout, sign, texts, ahead=True)
    except (DataError, NotUtf8, _Irregular, _OpenQuote, ValueError, pd.errors.ParserError):
        return None
    width = len(layout.header)
    if not len(cells) or cells[width - 1].isna().any() or cells[width].notna().any():
        return None
    layout.rows = layout.header_row + len(cells)
    return layout, cells.iloc[:, :width]


def _parse_pieces(
    source: TextSource, layout: _Layout, options: dict[str, Any]
) -> Iterator[pd.DataFrame]:
    """What pandas makes of a file below its header, piece by piece, on all cores.

    Raises:
        _Irregular: Where a line may not be a record, or a record more than a line.
    """
    threads = os.cpu_count() or 1
    parsing: deque[Future[pd.DataFrame]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for piece in _pieces(source, layout.header_row):
            parsing.append(pool.submit(pd.read_csv, io.BytesIO(piece), **options))
            if len(parsing) > threads + 2:
                yield parsing.popleft().result()
        while parsing:
            yield parsing.popleft().result()


def _pieces(source: TextSource, header_rows: int) -> Iterator[bytes]:
    """The lines of a file below its header, many at once."""
    rest = b""
    for block in source.blocks(_PIECE):
        if b'"' in block or b"\r" in block:
            raise _Irregular
        end = block.rfind(b"\n") + 1
        piece = rest + block[:end] if end else b""
        rest = block[end:] if end else rest + block
        if len(rest) > _MOST_RECORD:
            raise _Irregular
        while header_rows and piece:
            header_rows -= 1
            piece = piece.partition(b"\n")[2]
        if piece:
            yield piece
    if rest and not header_rows:
        yield rest


def _parse_chunks(
    source: TextSource, layout: _Layout, options: dict[str, Any]
) -> Iterator[pd.DataFrame]:
    """What pandas makes of the rows that are not left out, chunk by chunk."""
    rows = max(1, _CHUNK * layout.rows // max(1, layout.size))
    with source.open(layout.cuts) as handle:
        yield from pd.read_csv(handle, chunksize=rows, **options)


def _note_encoding(source: TextSource, example: str, findings: Findings) -> None:
    if source.encoding == "UTF-8" and not source.bom:
        return
    said = f"{source.encoding} with a byte-order mark" if source.bom else source.encoding
    findings.normalise(source.path.name, f"read as {said}", None, example)
    log.info("%s: read as %s", source.path, said)


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
class _Layout:
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
            words = "1 cell" if cells == 1 else f"{cells} cells"
            self._error(
                findings, "ragged row", f"has {words} where the header has {width}", fix, at
            )
        if self.unquoted.rows:
            what = "a cell goes on behind its closing quote"
            fix = 'write a quote inside a cell twice, as in "5"" plate", or close the cell before'
            self._error(findings, "quote", what, fix, self.unquoted)

    def _error(self, findings: Findings, kind: str, what: str, fix: str, at: _Rows) -> None:
        rows = np.array(at.rows, dtype=np.int64)
        findings.add(Finding("error", kind, what, fix, self.file, rows=rows, values=at.values))


def _refusal(file: str, what: str, fix: str, row: int | None = None) -> DataError:
    return DataError(Problem(what, fix, file, row=row))


class _OpenQuote(Exception):
    """A row with a cell that does not end, mostly of a quote that does not close."""

    def __init__(self, row: int, quoted: bool = True) -> None:
        super().__init__(row)
        self.row = row
        self._quoted = quoted

    def refusal(self, file: str) -> DataError:
        if self._quoted:
            return _refusal(file, "a quote opens and never closes", "close or delete it", self.row)
        what = f"holds a cell of more than {csv.field_size_limit():,} characters"
        return _refusal(file, what, "check that it is a text table", self.row)


def _records(lines: Iterable[str], delimiter: str) -> Iterator[tuple[list[str], str]]:
    """The cells of every record, and its text.

    Raises:
        _OpenQuote: Where a quote is not closed, or not within a sane length.
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
            raise _OpenQuote(row, any('"' in line for line in taken)) from None
        if ended:
            raise _OpenQuote(row)
        yield cells, "".join(taken)
        taken.clear()


def _all_blank(cells: Iterable[str]) -> bool:
    return not any(cell.strip(" \t\r\n\f\v") for cell in cells)


# ----------------------------------------------------------------------------------- first pass


def _scan(source: TextSource) -> _Layout:
    """The layout of a file.

    Raises:
        NotUtf8: As `TextSource.blocks`, its row counted.
        DataError: Where nothing can be read.
    """
    head, whole = _read_head(source)
    file = str(source.path)
    layout = _layout_of(head, whole, file)
    try:
        try:
            _scan_fast(source.blocks(), layout)
        except _Irregular:
            layout = _layout_of(head, whole, file)
            _scan_slowly(source.open(), layout)
    except NotUtf8 as bad:
        bad.row = layout.rows + 1
        raise
    except _OpenQuote as error:
        raise error.refusal(file) from None
    return layout


def _read_head(source: TextSource) -> tuple[str, bool]:
    """How a file begins, in one line or more, and whether that is all of it."""
    head = b""
    blocks = source.blocks(_HEAD)
    try:
        for block in blocks:
            head += block
            if len(head) >= _HEAD and re.search(rb"[\r\n]", head.lstrip()):
                break
            if len(head) > _MOST_RECORD:
                what = f"has no line of text in its first {_MOST_RECORD >> 20} MiB"
                raise _refusal(str(source.path), what, "check that it is a text table")
        whole = next(blocks, b"") == b""
    except NotUtf8 as bad:
        unquoted = head.split(b'"')[::2]
        bad.row = 1 + sum(len(re.findall(rb"\r\n?|\n", part)) for part in unquoted)
        raise
    return head.decode("utf-8", "ignore"), whole


def _layout_of(head: str, whole: bool, file: str) -> _Layout:
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
    return _Layout(file, best.delimiter, header, best.header_row, best.rows)


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
    broken: _OpenQuote | None = None

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
        except _OpenQuote as error:
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


class _Irregular(Exception):
    """A file that a slower way reads right."""


def _scan_fast(blocks: Iterator[bytes], layout: _Layout) -> None:
    """Count cells with numpy.

    Raises:
        _Irregular: Where a quote stands in the middle of a cell or never closes, a line ends in a
            bare carriage return, or a record is longer than sane.
    """
    tail = b""
    for block in blocks:
        data = tail + block
        _check_returns(data)
        tail = data[_count_cells(data, layout) :]
        if len(tail) > _MOST_RECORD:
            raise _Irregular
    if tail:
        _count_cells(tail + b"\n", layout, last=True)


def _check_returns(data: bytes) -> None:
    if b"\r" not in data:
        return
    bare = data.count(b"\r") - data.count(b"\r\n")
    if bare - data.endswith(b"\r"):
        raise _Irregular


def _count_cells(data: bytes, layout: _Layout, last: bool = False) -> int:
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
            raise _Irregular
        quotes = quotes[: np.searchsorted(quotes, ends[-1] if len(ends) else 0)]
        _check_quotes(letters, quotes, layout.delimiter)
    if not len(ends):
        return 0
    starts = np.concatenate([[0], ends[:-1] + 1])
    longest = int((ends - starts).max())
    count = np.uint16 if longest < 1 << 16 else np.int64  # the narrow one is the fast one
    counted = is_separator[: ends[-1] + 1].view(np.uint8)
    cells = np.add.reduceat(counted, starts, dtype=count).astype(np.int64) + 1
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
        raise _Irregular


def _take(layout: _Layout, row: int, cells: int, line: bytes) -> bool:
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


def _blanks(layout: _Layout, row: int, more: int, line: bytes) -> tuple[bool, bool]:
    """Whether a record is blank, and whether it is in the cells that it has more than the header.

    Raises:
        _OpenQuote: Where a cell is too long to tell.
    """
    delimiter = layout.delimiter.encode()
    blank = not line.strip(delimiter + b'" \t\r\n\f\v')
    if (blank or more > 0) and b'"' in line:
        try:
            cells, _ = next(_records(io.StringIO(line.decode(), newline=""), layout.delimiter))
        except _OpenQuote:
            raise _OpenQuote(row, quoted=False) from None
        return _all_blank(cells), more > 0 and _all_blank(cells[len(layout.header) :])
    return blank, more > 0 and not b"".join(line.rsplit(delimiter, more)[1:]).strip()


def _scan_slowly(handle: io.BufferedReader, layout: _Layout) -> None:
    """Count cells with the csv module, which knows every odd quote and line end.

    Raises:
        _OpenQuote: Where a quote is not closed.
    """
    with io.TextIOWrapper(handle, "utf-8", newline="") as text:
        for cells, line in _records(_lines(text, layout), layout.delimiter):
            layout.rows += 1
            end = layout.size + len(line.encode())
            if not _take_slowly(layout, layout.rows, cells, line):
                layout.cut(layout.size, end)
            layout.size = end


def _take_slowly(layout: _Layout, row: int, cells: list[str], line: str) -> bool:
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


def _lines(text: io.TextIOWrapper, layout: _Layout) -> Iterator[str]:
    while line := text.readline(_MOST_RECORD):
        if len(line) == _MOST_RECORD:
            what = f"has more than {_MOST_RECORD >> 20} MiB in a line"
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


def _decimal_sign(layout: _Layout, texts: set[int]) -> str | None:
    """The decimal sign that most cells of the first rows show, if they show one."""
    point = comma = 0
    for row in layout.sample:
        for position, cell in enumerate(row):
            if position in texts:
                continue
            if "." in cell:
                point += _POINT.fullmatch(cell.strip()) is not None
            elif "," in cell and layout.delimiter != ",":
                said = cell.strip()
                comma += bool(_COMMA.fullmatch(said) and not _EITHER.fullmatch(said))
    if not point and not comma:
        return None
    return "." if point >= comma else ","


# ---------------------------------------------------------------------------------- second pass


def _read_cells(
    parse: Callable[[dict[str, Any]], Iterator[pd.DataFrame]],
    layout: _Layout,
    decimal: str,
    texts: Sequence[int],
    ahead: bool = False,
) -> pd.DataFrame:
    """The cells of all rows that are not left out, under their rows; columns by position.

    Where it goes `ahead`, the layout tells about how many rows there are, none is left out, and
    one more column takes up what a row has too much.
    """
    skip = layout.left_out()
    index: pd.Index = pd.RangeIndex(layout.header_row + 1, layout.rows + 1)
    if len(skip) > layout.header_row:
        index = index[~index.isin(skip)]
    width, rows = len(layout.header) + ahead, len(index)
    columns = {position: _Column(rows) for position in range(width)}
    if rows:
        options: dict[str, Any] = {
            "sep": layout.delimiter,
            "decimal": decimal,
            "header": None,
            "names": range(width),
            "usecols": list(range(width)) if layout.wider else None,
            "dtype": dict.fromkeys(texts, object),
            "index_col": False,
            "keep_default_na": False,
            "na_values": list(BLANK_CELLS),
            "skip_blank_lines": False,
            "encoding": "utf-8",
            "low_memory": True,
        }
        rows = _fill(columns, parse(options))
        assert ahead or rows == len(index), f"pandas reads {rows} rows of {len(index)}"
        index = index if rows == len(index) else pd.RangeIndex(index[0], index[0] + rows)
        mixed = [position for position, column in columns.items() if column.mixed]
        for position in mixed:
            columns[position] = _Column(rows)
        if mixed:
            as_text = {"usecols": mixed, "dtype": dict.fromkeys(mixed, str)}
            _fill(columns, parse(options | as_text))
    for position in texts:
        columns[position].strip()
    series = {position: column.series(index) for position, column in columns.items()}
    return pd.DataFrame(series, index=index, columns=range(width), copy=False)


def _fill(columns: dict[int, _Column], chunks: Iterator[pd.DataFrame]) -> int:
    """Put all rows of some columns together; returns their number."""
    at = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pd.errors.ParserWarning)  # of cells beyond the header
        warnings.simplefilter("ignore", pd.errors.DtypeWarning)  # `_Column` sees to that
        for chunk in chunks:
            floats = chunk.select_dtypes("float64")
            for position, values in zip(floats.columns, floats.to_numpy().T, strict=True):
                columns[position].put(values, at)
            for position, cells in chunk.select_dtypes(exclude="float64").items():
                columns[position].put(cells, at)
            at += len(chunk)
    return at


class _Column:
    """A column that is put together from chunks.

    It holds numbers, truth values or texts. Where chunks differ in that, it is `mixed` and has to
    be read anew as text, as it would have been in one piece: else `001` were 1 in some rows.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.mixed = False
        self._kind = ""
        self._values: np.ndarray | None = None

    def put(self, cells: pd.Series | np.ndarray, at: int) -> None:
        """Take up the cells of the rows from `at` on.

        Args:
            cells: An array of floats, or a series of anything.
            at: The position of the first row.
        """
        if isinstance(cells, np.ndarray):
            kind = "" if self._kind != "number" and np.isnan(cells).all() else "number"
        else:
            kind = _kind(cells)
        if self.mixed or (not kind and self._values is None):
            return
        if kind == "mixed" or (kind and self._kind and kind != self._kind):
            self.mixed, self._values = True, None
            return
        self._kind = self._kind or kind
        values = np.asarray(cells, dtype=object if self._kind != "number" else None)
        held = self._values
        self.rows = max(self.rows, at + len(values))
        if held is None:
            dtype = values.dtype if at == 0 or values.dtype == object else np.dtype(np.float64)
            held = np.empty(self.rows, dtype)
            held[:at] = np.nan if at else 0
        elif len(held) < self.rows:
            held = np.concatenate([held, np.empty(self.rows // 8, held.dtype)])
        if held.dtype != values.dtype:
            held = held.astype(np.result_type(held.dtype, values.dtype))
        held[at : at + len(values)] = values
        self._values = held

    def strip(self) -> None:
        """Take the spaces around texts away; blank texts become missing."""
        if self._values is not None:
            codes, cells = pd.factorize(self._values)  # -1 = blank
            texts = [str(cell).strip() for cell in cells]
            kept = [np.nan if text in BLANK_CELLS else text for text in texts]
            self._values = np.array([*kept, np.nan], dtype=object)[codes]

    def series(self, index: pd.Index) -> pd.Series:
        """The column, without another copy of its numbers."""
        rows = len(index)
        values = np.full(rows, np.nan) if self._values is None else self._values[:rows]
        self._values = None
        series = pd.Series(values, index=index, copy=False)
        return series.infer_objects() if values.dtype == object else series


def _kind(cells: pd.Series) -> str:
    """`number`, `bool` or `text`, or nothing where all cells are blank."""
    if pd.api.types.is_bool_dtype(cells):
        return "bool"
    if cells.dtype == object:
        inferred = pd.api.types.infer_dtype(cells, skipna=True)
        if inferred not in ("string", "boolean", "empty"):
            return "mixed"
    if pd.api.types.is_numeric_dtype(cells):
        return "number"
    first = cells.first_valid_index()
    if first is None:
        return ""
    return "bool" if isinstance(cells[first], bool | np.bool_) else "text"
