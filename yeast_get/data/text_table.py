"""CSV and TSV as programs and people write them -> a raw table, and what is wrong with it.

A file is read twice, block by block. The first pass counts the cells of every record and finds
the ones that do not fit the header. The second is the parser of pandas, which never sees these: it
counts records in its own way where it is told to skip some. A large file without quotes
and carriage returns is parsed first, on all cores, in the hope that all of its records fit; else it
is read as all others are.
"""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from yeast_get.data.excel_dates import check_dates
from yeast_get.data.findings import Findings
from yeast_get.data.quantities import decimal_sign
from yeast_get.data.raw_table import BLANK_CELLS, RawTable, with_header
from yeast_get.data.text_layout import (
    MOST_RECORD,
    Irregular,
    Layout,
    OpenQuote,
    layout_of,
    read_head,
    scan,
)
from yeast_get.data.text_source import NotUtf8, TextSource, as_gb18030, find_source
from yeast_get.errors import DataError

log = logging.getLogger("yeast_get")


_CHUNK = 96 << 20
"""How many bytes pandas parses at once, about."""

_PIECE = 16 << 20
"""How many bytes of a large plain file one thread parses at once, about."""

_LARGE = 32 << 20
"""From how many bytes on a plain file is parsed without being counted first."""


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
    decimal = decimal or _decimal_sign(layout, texts)
    table = RawTable(pd.DataFrame(), str(path), None, decimal, findings)
    if ahead is None:
        cells = _read_cells(partial(_parse_chunks, source, layout), layout, decimal or ".", texts)
        table.lost = layout.lost()
    table.frame = with_header(cells, layout.header, table)
    check_dates(table, [name for name in table.frame.columns if is_text(name)])
    return table


def _counted(source: TextSource) -> tuple[TextSource, Layout, str]:
    """The layout of a file in its encoding, and some letters of it where that was guessed."""
    try:
        layout = scan(source)
    except NotUtf8 as bad:
        source, example = as_gb18030(source, bad)
        return source, scan(source), example
    return source, layout, source.example() if source.encoding == "UTF-16" else ""


def _is_large(source: TextSource) -> bool:
    plain = source.encoding == "UTF-8" and not source.packed and not source.bom
    return plain and source.path.stat().st_size > _LARGE


def _parse_ahead(
    source: TextSource, decimal: str | None, is_text: Callable[[str], bool]
) -> tuple[Layout, pd.DataFrame] | None:
    """Layout and cells of a file if all of its records fit its header; None where that is not sure.

    Without quotes every line is a record. Where all have as many delimiters as they should have
    together, and no last cell is blank, none is too short (its last cell would be blank) and so
    none too long.
    """
    try:
        layout = layout_of(*read_head(source), str(source.path))
        layout.size = source.path.stat().st_size
        layout.rows = layout.header_row + int(layout.size / max(1, layout.line_bytes()))
        texts = [position for position, name in enumerate(layout.header) if is_text(name)]
        sign = decimal or _decimal_sign(layout, texts) or "."
        parse = partial(_parse_pieces, source, layout)
        cells = _read_cells(parse, layout, sign, texts, ahead=True)
    except (DataError, NotUtf8, Irregular, OpenQuote, ValueError) as error:
        log.debug("%s is counted first: %s", source.path, error or type(error).__name__)
        return None
    last = cells.iloc[:, -1]
    if not len(cells) or last.isna().any() or _any_blank(last):
        return None
    layout.rows = layout.header_row + len(cells)
    return layout, cells


def _any_blank(cells: pd.Series) -> bool:
    if pd.api.types.is_numeric_dtype(cells):
        return False
    return any(isinstance(cell, str) and not cell.strip() for cell in cells)


def _parse_pieces(
    source: TextSource, layout: Layout, options: dict[str, Any]
) -> Iterator[pd.DataFrame]:
    """What pandas makes of a file below its header, piece by piece, on all cores.

    Raises:
        Irregular: Where a line may not be a record, or a record more than a line.
    """
    threads = os.cpu_count() or 1
    parsing: deque[Future[pd.DataFrame]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for piece in _pieces(source, layout.header_row):
            parsing.append(pool.submit(_parse_piece, piece, layout, options))
            if len(parsing) > threads + 2:
                yield parsing.popleft().result()
        while parsing:
            yield parsing.popleft().result()


def _parse_piece(piece: bytes, layout: Layout, options: dict[str, Any]) -> pd.DataFrame:
    """What pandas makes of some lines that have the right number of delimiters together."""
    letters = np.frombuffer(piece, dtype=np.uint8)
    lines = np.count_nonzero(letters == 10) + (not piece.endswith(b"\n"))
    delimiters = np.count_nonzero(letters == ord(layout.delimiter))
    if delimiters != lines * (len(layout.header) - 1):
        raise Irregular("a row does not fit the header")
    return pd.read_csv(io.BytesIO(piece), **options)


def _pieces(source: TextSource, header_rows: int) -> Iterator[bytes]:
    """The lines of a file below its header, many at once."""
    rest = b""
    for block in source.blocks(_PIECE):
        if b'"' in block or b"\r" in block:
            raise Irregular("it holds quotes or carriage returns")
        end = block.rfind(b"\n") + 1
        piece = rest + block[:end] if end else b""
        rest = block[end:] if end else rest + block
        if len(rest) > MOST_RECORD:
            raise Irregular
        while header_rows and piece:
            header_rows -= 1
            piece = piece.partition(b"\n")[2]
        if piece:
            yield piece
    if rest and not header_rows:
        yield rest


def _parse_chunks(
    source: TextSource, layout: Layout, options: dict[str, Any]
) -> Iterator[pd.DataFrame]:
    """What pandas makes of the rows that are not left out, chunk by chunk."""
    rows = max(1, _CHUNK * layout.rows // max(1, layout.size))
    with source.open(layout.cuts) as handle:
        yield from pd.read_csv(handle, chunksize=rows, **options)


def _decimal_sign(layout: Layout, texts: Sequence[int]) -> str | None:
    """The decimal sign that the first rows show, but for columns of text."""
    skipped = set(texts)
    cells = (cell for row in layout.sample for i, cell in enumerate(row) if i not in skipped)
    return decimal_sign(cells, commas=layout.delimiter != ",")


def _note_encoding(source: TextSource, example: str, findings: Findings) -> None:
    if source.encoding == "UTF-8" and not source.bom:
        return
    said = f"{source.encoding} with a byte-order mark" if source.bom else source.encoding
    findings.normalise(source.path.name, f"read as {said}", None, example)
    log.info("%s: read as %s", source.path, said)


def _read_cells(
    parse: Callable[[dict[str, Any]], Iterator[pd.DataFrame]],
    layout: Layout,
    decimal: str,
    texts: Sequence[int],
    ahead: bool = False,
) -> pd.DataFrame:
    """The cells of all rows that are not left out, under their rows; columns by position.

    Where it goes `ahead`, the layout tells about how many rows there are, and none is left out.
    """
    skip = layout.left_out()
    index: pd.Index = pd.RangeIndex(layout.header_row + 1, layout.rows + 1)
    if len(skip) > layout.header_row:
        index = index[~index.isin(skip)]
    width, rows = len(layout.header), len(index)
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
            for position, cells in chunk.items():
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

    def put(self, cells: pd.Series, at: int) -> None:
        """Take up the cells of the rows from `at` on."""
        is_float = cells.dtype == np.float64
        kind = "number" if is_float and self._kind == "number" else _kind(cells)
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
            more = max(self.rows, len(held) * 9 // 8) - len(held)
            held = np.concatenate([held, np.empty(more, held.dtype)])
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
        return "" if cells.isna().all() else "number"
    first = cells.first_valid_index()
    if first is None:
        return ""
    return "bool" if isinstance(cells[first], bool | np.bool_) else "text"
