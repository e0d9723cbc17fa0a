"""An Excel workbook -> raw tables, and what a workbook hides: merged cells, hidden rows, formulas.

Cells are read row by row, so that a sheet costs what it holds and not what it spans. What that way
of reading leaves out is found in the sheet's XML, which is searched block by block.
"""

from __future__ import annotations

import datetime
import functools
import re
import warnings
import zipfile
from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import pandas as pd
from openpyxl import load_workbook
from openpyxl.styles.numbers import BUILTIN_FORMATS, BUILTIN_FORMATS_MAX_SIZE
from openpyxl.utils import column_index_from_string, get_column_letter, range_boundaries
from tqdm import tqdm

from yeast_get.data.excel_dates import check_dates
from yeast_get.data.excel_formats import shown, units_of_formats
from yeast_get.data.findings import Finding, Findings, counted
from yeast_get.data.quantities import decimal_sign
from yeast_get.data.raw_table import BLANK_CELLS, RawTable, with_header
from yeast_get.errors import DataError, Problem, UserError, did_you_mean, nearest

MOST_UNPACKED = 1 << 30
"""The most bytes that a workbook may unpack to."""

MOST_ROWS, MOST_COLUMNS = 1_048_576, 16_384
"""The size of a sheet in Excel."""

_MOST_CELLS = 1 << 27
"""The most cells that a table may span, blank ones included."""

_MOST_RATIO, _RATIO_FROM = 500, 64 << 20
"""How much smaller a part may be packed, and the size from which that counts."""

_BIG_SHEET = 2_000
"""The number of rows from which reading shows its progress."""

_BLOCK = 2 << 20
"""How many bytes of a sheet are searched at once."""

_FOLDER_SHEETS = ("regions", "samples", "expression")
"""A workbook with one of these sheets holds the tables of a data folder."""

_NUMERIC = ("integer", "floating", "mixed-integer-float")
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")


@dataclass(frozen=True)
class _Options:
    """How the cells of a sheet are taken; as in `read_workbook`."""

    fill_merged: bool
    include_hidden: bool
    is_text: Callable[[str], bool]


def read_workbook(
    path: Path,
    findings: Findings,
    *,
    sheet: str | None = None,
    wanted: Sequence[str] = (),
    decimal: str | None = None,
    fill_merged: bool = False,
    include_hidden: bool = True,
    is_text: Callable[[str], bool] = lambda header: False,
) -> dict[str, RawTable]:
    """Read the tables of a data folder, or one long table, from an `.xlsx` or `.xlsm` file.

    Args:
        path: The workbook.
        findings: Takes up what is wrong with its cells.
        sheet: The sheet that holds a long table.
        wanted: Names of the sheets that make up a data folder.
        decimal: The decimal sign of its texts, `.` or `,`; None to find it out.
        fill_merged: Whether the value of merged cells counts for each of them; else they are
            errors.
        include_hidden: Whether hidden rows and columns are read.
        is_text: Whether a column of this header holds names, whatever they look like.

    Returns:
        Tables by name: those of `wanted`, or `long` alone.

    Raises:
        DataError: Where the file is no workbook, is damaged, unpacks to too much, or does not show
            which sheet to read.
    """
    file = str(path)
    _check_package(path, file)
    options = _Options(fill_merged, include_hidden, is_text)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="openpyxl")
        with path.open("rb") as handle, zipfile.ZipFile(path) as archive:
            with _one_line(file):
                book = load_workbook(handle, read_only=True, data_only=True, keep_links=False)
            with closing(book):
                chosen = _chosen(book.worksheets, file, sheet, wanted)
                formats = _formats(book, file)
                sheets = [
                    _Sheet(each, archive, file, findings, formats, options)
                    for each in chosen.values()
                ]
    sign = decimal or decimal_sign(text for each in sheets for text in each.texts())
    return {name: each.table(sign) for name, each in zip(chosen, sheets, strict=True)}


# ------------------------------------------------------------------------------------ the file


@contextmanager
def _one_line(file: str) -> Iterator[None]:
    """Whatever the libraries raise on a damaged file, as one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib, the XML parser and openpyxl raise many kinds
        cause = error.__cause__ or error
        said = " ".join(str(cause).split())
        kind = type(cause).__name__
        reason = f"{said[:100]} ({kind})" if said else kind
        what = f"cannot be read as an Excel workbook: {reason}"
        raise DataError(Problem(what, "save it anew", file=file)) from None


def _check_package(path: Path, file: str) -> None:
    """Refuse what is no workbook, or unpacks to too much, before it is opened."""
    if path.name.startswith("~$"):
        what = "is the lock file that Excel keeps while a workbook is open"
        fix = f"give the workbook itself, {path.name[2:]}"
        raise DataError(Problem(what, fix, file=file))
    with _one_line(file):
        with path.open("rb") as handle:
            if handle.read(len(_OLE)) == _OLE:
                what = "is an old workbook (.xls), or one with a password"
                raise DataError(Problem(what, "save it as .xlsx without a password", file=file))
        with zipfile.ZipFile(path) as archive:
            _check_sizes(archive, path.stat().st_size, file)
            what = _other_kind(archive)
    if what:
        raise DataError(Problem(what, "save it as .xlsx", file=file))


def _check_sizes(archive: zipfile.ZipFile, packed: int, file: str) -> None:
    parts = archive.infolist()
    total = sum(part.file_size for part in parts)
    if total > MOST_UNPACKED:
        most = _size(MOST_UNPACKED)
        what = f"unpacks to {_size(total)} from {_size(packed)}, and at most {most} are read"
        raise DataError(Problem(what, "save it as CSV", file=file))
    for part in parts:
        if part.file_size > max(_RATIO_FROM, _MOST_RATIO * part.compress_size):
            sizes = f"{_size(part.file_size)} from {_size(part.compress_size)}"
            what = f"its part {part.filename} unpacks to {sizes}, as no sheet of data does"
            raise DataError(Problem(what, "save it as CSV", file=file))


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _other_kind(archive: zipfile.ZipFile) -> str:
    """What a zip file is instead of a workbook that can be read; empty where it is one."""
    names = set(archive.namelist())
    if "xl/workbook.bin" in names:
        return "is a binary workbook (.xlsb)"
    if "mimetype" in names and b"opendocument" in archive.read("mimetype")[:100]:
        return "is an OpenDocument file"
    if "xl/workbook.xml" in names:
        with archive.open("xl/workbook.xml") as part:
            strict = b"purl.oclc.org/ooxml/" in part.read(4096)
        return "is a workbook of the kind 'Strict Open XML'" if strict else ""
    types = archive.read("[Content_Types].xml") if "[Content_Types].xml" in names else b""
    main = re.search(rb"(?:sheet|template)(?:\.macroEnabled)?\.main\+xml", types)
    return "" if main else "is a zip file that holds no workbook"


# ---------------------------------------------------------------------------------- the sheets


def _chosen(
    sheets: Sequence[Any], file: str, sheet: str | None, wanted: Sequence[str]
) -> dict[str, Any]:
    """The sheets to read, by the name of their table."""
    if sheet is not None:
        return {"long": _named(sheets, file, sheet)}
    full = [each for each in sheets if any(True for _ in _filled(each, file))]
    folder = _folder(full, file, wanted)
    if set(_FOLDER_SHEETS) & set(folder):
        return folder
    if not full:
        raise DataError(Problem("is empty", "it needs a header and rows", file=file))
    if len(full) > 1:
        said = ", ".join(_with_size(each, file) for each in full)
        fix = "name the one to use as data.sheet, or name them regions, samples, expression"
        what = f"has {len(full)} sheets that hold something: {said}"
        raise DataError(Problem(what, fix, file=file))
    return {"long": full[0]}


def _folder(sheets: Sequence[Any], file: str, wanted: Sequence[str]) -> dict[str, Any]:
    """The sheets whose names are wanted, in that order."""
    named = defaultdict(list)
    for each in sheets:
        named[_fold(each.title)].append(each)
    for name in wanted:
        if len(named[name]) > 1:
            titles = " and ".join(repr(each.title) for each in named[name])
            what = f"has {len(named[name])} sheets {name}: {titles}"
            raise DataError(Problem(what, "rename or delete all but one", file=file))
    return {name: named[name][0] for name in wanted if named[name]}


def _named(sheets: Sequence[Any], file: str, sheet: str) -> Any:
    """The sheet of this name; case and spaces around it may differ where only one fits."""
    exact = [each for each in sheets if each.title == sheet]
    near = exact or [each for each in sheets if _fold(each.title) == _fold(sheet)]
    if len(near) == 1:
        return near[0]
    titles = [each.title for each in sheets]
    fix = did_you_mean(sheet, titles)
    if nearest(sheet, titles):
        fix += f" Its sheets are {', '.join(titles)}"
    raise DataError(Problem(f"has no sheet {sheet!r}", fix, file=file))


def _fold(title: str) -> str:
    return title.strip().casefold()


def _with_size(sheet: Any, file: str) -> str:
    rows = sum(1 for _ in _filled(sheet, file))
    hidden = "" if sheet.sheet_state == "visible" else ", hidden"
    return f"{sheet.title} ({counted(rows, 'row')}{hidden})"


def _filled(sheet: Any, file: str) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Rows that hold something."""
    return ((number, row) for number, row in _rows(sheet, file) if not _is_blank(row))


def _rows(sheet: Any, file: str) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Row numbers and rows, each as long as it holds cells."""
    with _one_line(file):
        sheet.reset_dimensions()
        for number, row in enumerate(sheet.iter_rows(values_only=True), start=1):
            if number > MOST_ROWS:
                raise ValueError(f"sheet {sheet.title} goes on after row {MOST_ROWS:,}")
            yield number, row


def _is_blank(row: Sequence[Any]) -> bool:
    return all(cell is None or (isinstance(cell, str) and not cell.strip()) for cell in row)


def _clean(cell: Any) -> Any:
    """A cell, None where it holds nothing."""
    return None if isinstance(cell, str) and cell.strip() in BLANK_CELLS else cell


# ------------------------------------------------------------------------ what the cells hide


@dataclass
class _Structure:
    """What the XML of a sheet tells besides its values.

    Attributes:
        merged: Merged ranges, such as `R32:R43`.
        hidden_rows: Numbers of hidden rows.
        hidden_columns: Numbers of hidden columns, from 1.
        filtered: Whether it has a filter.
        formulas: Column number -> numbers of the rows that hold a formula without a value.
        formats: Column number -> row number -> number format, where it shows more than a number.
        last_row: The row that was met last.
        last_cells: How many of its cells were met.
    """

    merged: list[str] = field(default_factory=list)
    hidden_rows: set[int] = field(default_factory=set)
    hidden_columns: set[int] = field(default_factory=set)
    filtered: bool = False
    formulas: dict[int, array[int]] = field(default_factory=lambda: defaultdict(lambda: array("q")))
    formats: dict[int, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    last_row: int = 0
    last_cells: int = 0


class _Tags:
    """How the elements of a sheet are spelt under the prefix of its namespace.

    `formatted` finds cells of some styles, given by their ids.
    """

    def __init__(self, prefix: bytes, styles: Iterable[int] = ()) -> None:
        self.row, self.cell, self.merge = (b"<" + prefix + tag for tag in (b"row", b"c", b"merge"))
        self.filter = b"<" + prefix + b"autoFilter"

        def pattern(text: bytes) -> re.Pattern[bytes]:
            return re.compile(text.replace(b"~", re.escape(prefix)))

        self.rows = pattern(rb"<~row(?=[\s/>])[^>]*>")
        self.cells = pattern(rb"<~c(?=[\s/>])[^>]*>")
        self.columns = pattern(rb"<~col(?=[\s/>])[^>]*>")
        self.merges = pattern(rb"<~mergeCell(?=[\s/>])[^>]*>")
        ids = "|".join(map(str, styles)).encode()
        said = rb"""<~c(?=\s)[^>]*\ss\s*=\s*["'](?P<style>""" + ids + rb""")["'][^>]*>"""
        self.formatted = pattern(said) if ids else None
        self.formulas = pattern(
            rb"<~f(?=[\s/>])(?:[^>]*/>|[^>]*>[^<]*</~f>)\s*"
            rb"(?P<value><~v\s*/>|<~v\s*>\s*</~v>)?\s*</~c>"
        )


def _attribute(tag: bytes, name: bytes) -> str:
    """An attribute of a tag, empty where it has none."""
    found = _attribute_pattern(name).search(tag)
    return found[1].decode("ascii", "replace") if found else ""


@functools.cache
def _attribute_pattern(name: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"\s" + name + rb"""\s*=\s*["']([^"']*)["']""")


def _formats(book: Any, file: str) -> dict[int, str]:
    """The number formats that show more than a number, by the id of a cell's style."""
    with _one_line(file):
        numbers = [style.numFmtId for style in book._cell_styles]
        own = dict(enumerate(book._number_formats, start=BUILTIN_FORMATS_MAX_SIZE))
        return units_of_formats((BUILTIN_FORMATS | own).get(each, "General") for each in numbers)


def _scan(
    archive: zipfile.ZipFile, sheet: Any, file: str, formats: Mapping[int, str]
) -> _Structure:
    """Search the XML of a sheet."""
    structure = _Structure()
    with _one_line(file), archive.open(sheet._worksheet_path) as stream:
        first = stream.read(_BLOCK)
        root = re.search(rb"<((?:\w[\w.-]*:)?)worksheet[\s/>]", first[:65536])
        if root is None:
            raise ValueError(f"sheet {sheet.title} does not begin as one does")
        tags = _Tags(root[1], formats)
        for piece in _pieces(first, stream, tags):
            _scan_rows(piece, tags, formats, structure)
            _scan_rest(piece, tags, structure)
    return structure


def _pieces(held: bytes, stream: IO[bytes], tags: _Tags) -> Iterator[bytes]:
    """The XML in pieces that end where a row, a cell or a merged range begins."""
    while block := stream.read(_BLOCK):
        held += block
        cut = held.rfind(tags.row)
        if cut <= 0:
            cut = held.rfind(tags.cell)
        cut = max(cut, held.rfind(tags.merge))
        if cut <= 0:
            cut = len(held) - 65536
        yield held[:cut]
        held = held[cut:]
    yield held


def _scan_rows(
    piece: bytes, tags: _Tags, formats: Mapping[int, str], structure: _Structure
) -> None:
    """Take up hidden rows, formulas without a value, and number formats."""
    starts, numbers = [-1], [structure.last_row]
    for tag in tags.rows.finditer(piece):
        said = _attribute(tag[0], b"r")
        number = int(float(said)) if said else numbers[-1] + 1
        if number <= numbers[-1]:
            raise ValueError(f"row {number} of a sheet follows its row {numbers[-1]}")
        starts.append(tag.start())
        numbers.append(number)
        if _attribute(tag[0], b"hidden") in ("1", "true"):
            structure.hidden_rows.add(number)

    def place(cell: bytes, start: int) -> tuple[int, int]:
        """Row and column of a cell."""
        at = bisect_right(starts, start) - 1
        letters = re.match("[A-Za-z]+", _attribute(cell, b"r"))
        if letters:
            return numbers[at], column_index_from_string(letters[0])
        before = 0 if at else structure.last_cells
        until = start + len(cell)
        return numbers[at], before + len(tags.cells.findall(piece, max(starts[at], 0), until))

    for formula in tags.formulas.finditer(piece):
        start = piece.rfind(tags.cell, 0, formula.start())
        cell = piece[max(start, 0) : formula.start()]
        if formula["value"] and _attribute(cell, b"t") == "str":
            continue  # the value is an empty text
        row, column = place(cell, start)
        structure.formulas[column].append(row)
    for found in tags.formatted.finditer(piece) if tags.formatted else ():
        row, column = place(found[0], found.start())
        structure.formats[column][row] = formats[int(found["style"])]
    before = 0 if len(starts) > 1 else structure.last_cells
    structure.last_cells = before + len(tags.cells.findall(piece, max(starts[-1], 0)))
    structure.last_row = numbers[-1]


def _scan_rest(piece: bytes, tags: _Tags, structure: _Structure) -> None:
    """Take up merged ranges, hidden columns and the filter."""
    structure.merged += [_attribute(tag, b"ref") for tag in tags.merges.findall(piece)]
    structure.filtered |= tags.filter in piece
    for tag in tags.columns.findall(piece):
        if _attribute(tag, b"hidden") in ("1", "true"):
            low, high = int(_attribute(tag, b"min")), int(_attribute(tag, b"max"))
            structure.hidden_columns |= set(range(low, min(high, MOST_COLUMNS) + 1))


# ------------------------------------------------------------------------------------ one sheet


@dataclass
class _Grid:
    """The cells of a sheet.

    Attributes:
        header_row: The number of the first row that holds something.
        header: Its cells as text, up to the last that holds something; None where one is blank.
        numbers: Numbers of the rows below that hold something [n].
        columns: Their cells by column, one column per cell of the header [n].
        beyond: Rows with a cell beyond the last header: row number and where it stands.
    """

    header_row: int
    header: list[str | None]
    numbers: np.ndarray
    columns: list[list[Any]]
    beyond: dict[int, str]


class _Sheet:
    """A sheet on its way to be a table; its file is no longer needed."""

    def __init__(
        self,
        sheet: Any,
        archive: zipfile.ZipFile,
        file: str,
        findings: Findings,
        formats: Mapping[int, str],
        options: _Options,
    ) -> None:
        self._table = RawTable(pd.DataFrame(), file, sheet.title, None, findings)
        self._options = options
        if sheet.sheet_state != "visible":
            said = "the sheet is hidden, and is used"
            self._table.warn("hidden sheet", said, "check that it is meant")
        self._structure = _scan(archive, sheet, file, formats)
        ignored = set() if options.include_hidden else self._structure.hidden_columns
        self._grid = _read_grid(sheet, file, self._structure, ignored)

    def texts(self) -> Iterator[str]:
        """The cells of text in columns that may hold numbers."""
        for name, column in zip(self._grid.header, self._grid.columns, strict=True):
            if name and not self._options.is_text(name):
                yield from (cell for cell in column if isinstance(cell, str))

    def table(self, decimal: str | None) -> RawTable:
        """What it holds, its texts having this decimal sign; to be called once."""
        table, grid, structure = self._table, self._grid, self._structure
        table.decimal = decimal
        _as_shown(grid, structure, decimal or ".")
        if len(grid.numbers) and grid.numbers[-1] == MOST_ROWS:
            what = f"has {MOST_ROWS:,} rows, where Excel ends a sheet; more were probably cut off"
            table.warn("row limit", what, "export it again, as CSV")
        _merged(grid, structure, table, self._options.fill_merged)
        _hidden_rows(grid, structure, table, self._options.include_hidden)
        _hidden_columns(grid, structure, table, self._options.include_hidden)
        _formulas(grid, structure, table)
        what, fix = "{value}, beyond the last header", "name its column, or delete the cell"
        rows = [row for row in grid.numbers.tolist() if row in grid.beyond]
        if rows:
            held = [grid.beyond[row] for row in rows]
            _add(table, "error", "stray cell", what, fix, None, rows, held)
        is_text = self._options.is_text
        table.frame = with_header(_frame(grid, table, is_text), grid.header, table)
        check_dates(table, [name for name in table.frame.columns if is_text(name)])
        return table


def _add(
    table: RawTable,
    severity: Literal["error", "warning"],
    kind: str,
    what: str,
    fix: str,
    column: str | None,
    rows: Sequence[int] | np.ndarray,
    values: Sequence[Any] = (),
) -> None:
    """Take up a finding in these rows of a table that has no frame yet."""
    at = np.array(rows, dtype=np.int64)
    table.findings.add(
        Finding(severity, kind, what, fix, table.file, table.sheet, column, at, values)
    )


def _read_grid(sheet: Any, file: str, structure: _Structure, ignored: set[int]) -> _Grid:
    """The rows of a sheet that hold something; cells beyond the header count unless `ignored`."""
    formulas = {row for rows in structure.formulas.values() for row in rows}
    header: list[str | None] = []
    header_row = width = held = 0
    numbers: list[int] = []
    kept: list[tuple[Any, ...]] = []
    beyond: dict[int, str] = {}
    with _progress(sheet, file, structure.last_row) as rows:
        for number, row in rows:
            if _is_blank(row) and (number not in formulas or not header):
                continue
            if not header:
                header, header_row = _header(row), number
                width = len(header)
                continue
            if len(row) > width:
                stray = _stray(row, width, number, ignored)
                if stray:
                    beyond[number] = stray
                row = row[:width]
            held += width
            if held > _MOST_CELLS:
                what = f"its header is {width:,} columns wide, over {len(numbers):,} rows and more"
                fix = "delete what stands far from the table, or save it as CSV"
                raise DataError(Problem(what, fix, file, sheet.title))
            numbers.append(number)
            kept.append(row)
    if not header:
        raise DataError(Problem("is empty", "it needs a header and rows", file, sheet.title))
    columns = [list(column) for column in zip_longest(*kept)]
    columns += [[None] * len(kept) for _ in range(width - len(columns))]
    return _Grid(header_row, header, np.array(numbers, dtype=np.int64), columns, beyond)


def _progress(sheet: Any, file: str, count: int) -> Any:
    """The rows of a sheet, with a bar on stderr where there are many."""
    return tqdm(
        _rows(sheet, file), f"sheet {sheet.title}", count, leave=False, delay=1.0, unit="row",
        disable=count < _BIG_SHEET,
    )  # fmt: skip


def _header(row: Sequence[Any]) -> list[str | None]:
    """The header's cells as text, without the blank ones at the end."""
    names = [None if cell is None else _text(cell).strip() or None for cell in row]
    while names and names[-1] is None:
        names.pop()
    return names


def _stray(row: Sequence[Any], width: int, number: int, ignored: set[int]) -> str:
    """The first cell beyond the header, in words; empty where there is none."""
    tail = row[width:]
    if tail.count(None) == len(tail):
        return ""
    for column, cell in enumerate(tail, start=width + 1):
        if _clean(cell) is not None and column not in ignored:
            said = _text(cell)
            said = said if len(said) <= 24 else f"{said[:21]}..."
            return f"cell {get_column_letter(column)}{number} holds '{said}'"
    return ""


def _as_shown(grid: _Grid, structure: _Structure, decimal: str) -> None:
    """Numbers whose format adds a unit or the like become the texts that people see."""
    for column, formats in structure.formats.items():
        if column > len(grid.columns):
            continue
        cells = grid.columns[column - 1]
        rows = np.fromiter(formats, dtype=np.int64)
        for at in np.flatnonzero(np.isin(grid.numbers, rows)).tolist():
            if isinstance(cells[at], int | float) and not isinstance(cells[at], bool):
                said = shown(formats[int(grid.numbers[at])], cells[at], decimal)
                cells[at] = cells[at] if said is None else said


def _merged(grid: _Grid, structure: _Structure, table: RawTable, fill: bool) -> None:
    """Merged cells are errors, or their value goes to each of them."""
    bounds = {ref: _bounds(ref, table.file) for ref in structure.merged}
    for ref, (top, left, bottom, right) in sorted(bounds.items(), key=lambda item: item[1]):
        right = min(right, len(grid.header))
        low = int(np.searchsorted(grid.numbers, top))
        high = int(np.searchsorted(grid.numbers, bottom, "right"))
        has_header = top <= grid.header_row <= bottom
        if left > right or (high - low + has_header) * (right - left + 1) < 2:
            continue
        name = grid.header[left - 1]
        if has_header:
            value: Any = name if top == grid.header_row else None
        else:
            value = grid.columns[left - 1][low] if grid.numbers[low] == top else None
        if _clean(value) is None:
            continue
        if fill and not has_header:
            _fill(grid, range(left - 1, right), range(low, high), value, ref, table)
            continue
        what = f"{ref} is merged, and only its first cell holds '{{value}}'"
        fix = (
            "unmerge them; the header is one row with a name in each column"
            if has_header
            else "unmerge and fill the cells, or set data.fill_merged: true"
        )
        rows = [*([grid.header_row] if has_header else []), *grid.numbers[low:high].tolist()]
        column = name if left == right else None
        _add(table, "error", "merged cells", what, fix, column, rows, [_text(value)] * len(rows))


def _bounds(ref: str, file: str) -> tuple[int, int, int, int]:
    """First row, first column, last row and last column of a range, from 1."""
    with _one_line(file):
        left, top, right, bottom = range_boundaries(ref)
        return int(top), int(left), int(bottom), int(right)


def _fill(grid: _Grid, columns: range, rows: range, value: Any, ref: str, table: RawTable) -> None:
    for column in columns:
        count = len(rows) - (column == columns[0])
        for row in rows:
            grid.columns[column][row] = value
        name = grid.header[column] or f"column {column + 1}"
        table.findings.normalise(name, "filled from merged cells", count, ref)


def _hidden_rows(grid: _Grid, structure: _Structure, table: RawTable, use: bool) -> None:
    hidden = np.array([row in structure.hidden_rows for row in grid.numbers.tolist()], dtype=bool)
    if not hidden.any():
        return
    more = "the sheet has a filter" if structure.filtered else ""
    what, fix = _hidden("row", int(hidden.sum()), more, use)
    _add(table, "warning", "hidden rows", what, fix, None, grid.numbers[hidden])
    if not use:
        keep = np.flatnonzero(~hidden).tolist()
        grid.numbers = grid.numbers[~hidden]
        grid.columns = [[column[i] for i in keep] for column in grid.columns]


def _hidden_columns(grid: _Grid, structure: _Structure, table: RawTable, use: bool) -> None:
    hidden = [c for c in range(len(grid.header)) if c + 1 in structure.hidden_columns]
    names = [name for name in (grid.header[c] for c in hidden) if name]
    if names:
        more = f" and {len(names) - 12:,} more" if len(names) > 12 else ""
        what, fix = _hidden("column", len(names), f"{', '.join(names[:12])}{more}", use)
        table.warn("hidden columns", what, fix)
    if not use:
        for column in hidden:
            grid.header[column] = None
            grid.columns[column] = [None] * len(grid.numbers)


def _hidden(of: str, count: int, more: str, use: bool) -> tuple[str, str]:
    """What is said of hidden rows or columns, and what can be done."""
    said = counted(count, f"hidden {of}")
    are, more = "is" if count == 1 else "are", f" ({more})" if more else ""
    if use:
        return f"{said}{more} {are} used", "data.include_hidden: false leaves them out"
    return f"{said}{more} {are} left out", "unhide what is to be used"


def _formulas(grid: _Grid, structure: _Structure, table: RawTable) -> None:
    """Formulas whose value was not saved are errors, in columns that are kept."""
    kept = set(grid.numbers.tolist())
    what = "the formula in {value} has no saved value"
    fix = "open and save the file in Excel, or paste values"
    for column, found in sorted(structure.formulas.items()):
        name = grid.header[column - 1] if column <= len(grid.header) else None
        rows = [row for row in found if row in kept]
        if name and rows:
            cells = [f"{get_column_letter(column)}{row}" for row in rows]
            _add(table, "error", "formula without value", what, fix, name, rows, cells)


# ----------------------------------------------------------------------------------- the cells


def _frame(grid: _Grid, table: RawTable, is_text: Callable[[str], bool]) -> pd.DataFrame:
    """The cells by position, without rows that hold nothing and have no error."""
    index = pd.Index(grid.numbers)
    series = {}
    for position, name in enumerate(grid.header):
        column, grid.columns[position] = grid.columns[position], []
        values = _text_column(column) if name and is_text(name) else _plain_column(column)
        series[position] = pd.Series(values, index, dtype=values.dtype, copy=False)
    frame = pd.DataFrame(series, copy=False)
    bad = np.isin(grid.numbers, table.findings.bad_rows(table.file, table.sheet))
    blank = frame.isna().all(axis=1).to_numpy(bool) & ~bad
    if blank.all():
        raise DataError(table.problem("has a header and no rows", "add rows"))
    return frame[~blank] if blank.any() else frame


def _plain_column(column: list[Any]) -> np.ndarray:
    """Cells as int64 or float64 where all are numbers, else as they are [rows]."""
    cells = _objects(column)
    if pd.api.types.infer_dtype(cells) not in _NUMERIC:
        cells = _objects([_clean(cell) for cell in column])
    kind = pd.api.types.infer_dtype(cells)
    if kind not in _NUMERIC:
        return cells
    try:
        whole = kind == "integer" and not pd.isna(cells).any()
        return cells.astype(np.int64 if whole else np.float64)
    except OverflowError:
        return np.array([np.nan if cell is None else float(str(cell)) for cell in cells])


def _objects(column: list[Any]) -> np.ndarray:
    cells = np.empty(len(column), dtype=object)
    cells[:] = column
    return cells


def _text_column(column: list[Any]) -> np.ndarray:
    """Cells as text [rows]."""
    cells = [_clean(each) for each in column]
    return _objects([None if cell is None else _text(cell) for cell in cells])


def _text(cell: Any) -> str:
    """A cell as Excel shows it in a column of text."""
    if isinstance(cell, bool):
        return str(cell).upper()
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime.datetime) and cell.time() == datetime.time():
        return cell.date().isoformat()
    return str(cell)
