"""CSV, TSV, Excel, a data folder or a workbook -> raw tables that remember their source rows.

Nothing here knows what a column means. Every table keeps the row numbers of its file (the header
is row 1) as its index, so that any later complaint can name the row.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import warnings
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd

from yeast_get.errors import DataError, Problem

SHEETS = ("regions", "samples", "expression", "accessibility", "expression_minus", "genes")
"""Names of the files of a data folder and of the sheets of a workbook."""

REGION_ID_HEADERS = ("region_id", "peak_id", "region", "peak", "promoter_id")
TEXT_HEADERS = (*REGION_ID_HEADERS, "sample_id", "gene_id", "gene_name", "chrom", "strand")
"""Columns that are read as text whatever they look like (`001`, `1E5`)."""

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "#N/A")
"""Cells that hold nothing, in any column."""

_TEXT_SUFFIXES = (".csv", ".tsv", ".txt")
_EXCEL_SUFFIXES = (".xlsx", ".xlsm")


@dataclass
class RawTable:
    """One table as it stands in its file.

    Attributes:
        frame: The cells; the index holds row numbers of the file, the header being row 1.
        file: The file's name as the user gave it.
        sheet: The sheet, where the file is a workbook.
    """

    frame: pd.DataFrame
    file: str
    sheet: str | None = None

    def problem(
        self, what: str, fix: str = "", row: Any = None, column: str | None = None
    ) -> Problem:
        """A problem in this table; `row` is a row number of the file."""
        return Problem(
            what, fix, self.file, self.sheet, row=None if row is None else int(row), column=column
        )

    def problems(
        self, rows: Iterable[Any], column: str, values: Iterable[Any], what: str, fix: str
    ) -> list[Problem]:
        """One problem per bad cell; `what` holds `{value}` where the cell's text goes."""
        return [
            self.problem(what.format(value=repr(str(value))), fix, row, column)
            for row, value in zip(rows, values, strict=True)
        ]

    def need(self, column: str | None, name: str) -> None:
        """Refuse the table if a column that it must have was not found."""
        if column is None:
            known = ", ".join(list(self.frame.columns)[:12])
            fix = f"add it; the first columns are {known}"
            raise DataError(self.problem(f"has no column {name}", fix, row=1))

    def numbers(self, column: str) -> tuple[np.ndarray, list[Problem]]:
        """A column as float64 [rows] with NaN for blank cells, and a problem per cell of text."""
        series = self.frame[column]
        if series.dtype != object and pd.api.types.is_numeric_dtype(series):
            values = series.to_numpy(np.float64, na_value=np.nan)
        else:
            values = pd.to_numeric(series, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        text = np.isnan(values) & series.notna().to_numpy()
        bad = text | np.isinf(values)
        problems = self.problems(
            self.frame.index[bad],
            column,
            series[bad],
            "{value} is not a number",
            "correct the cell",
        )
        return np.where(bad, np.nan, values), problems

    def text(self, column: str) -> np.ndarray:
        """A column as text [rows], None for blank cells."""
        series = self.frame[column]
        cells = [None if pd.isna(cell) else _as_text(cell) for cell in series]
        return np.array(cells, dtype=object)


@dataclass
class RawTables:
    """All tables of one input.

    Attributes:
        tables: By name: `long` alone, or names of `SHEETS`.
        source: What the user gave as `--data`.
        fingerprint: SHA-256 over the bytes of the files, in the order they were read.
        descriptions: Description columns that stand in no table, by name: a text per region and
            sample, region-major, read only if somebody asks for it.
        roles: Role -> columns, for people, where it is not what the tables show.
        names_file: The file that named the features of an input without names of its own.
        warnings: What the user should know about the input.
    """

    source: str
    tables: dict[str, RawTable] = field(default_factory=dict)
    fingerprint: str = ""
    descriptions: dict[str, Callable[[], np.ndarray]] = field(default_factory=dict)
    roles: dict[str, list[str]] = field(default_factory=dict)
    names_file: str | None = None
    warnings: list[str] = field(default_factory=list)


def read_tables(
    path: str | Path, sheet: str | None = None, decimal: str = ".", need_samples: bool = True
) -> RawTables:
    """Read a long table, a data folder or a workbook.

    Args:
        path: A `.csv`, `.tsv`, `.txt` (each also `.gz`) or `.xlsx` file, or a folder.
        sheet: The sheet of a workbook that holds a long table.
        decimal: The decimal sign of text files, `.` or `,`.
        need_samples: Whether a folder or workbook of regions alone is an error; else it is read
            as that one table.

    Raises:
        DataError: Where the input is missing, not of these kinds, or cannot be parsed.
    """
    path = Path(path)
    if path.is_dir():
        return _alone(_read_folder(path, decimal), need_samples, "file")
    if not path.is_file():
        raise DataError(Problem("there is no such file or folder", "check --data", file=str(path)))
    raw = RawTables(str(path), fingerprint=fingerprint([path]))
    if path.suffix.lower() in _EXCEL_SUFFIXES:
        raw.tables = _read_workbook(path, sheet)
    elif sheet is not None:
        what = f"is no workbook, and data.sheet names {sheet!r}"
        raise DataError(Problem(what, "leave data.sheet out", file=str(path)))
    else:
        raw.tables = {"long": read_text_table(path, decimal)}
    return _alone(raw, need_samples, "sheet")


def _alone(raw: RawTables, need_samples: bool, kind: str) -> RawTables:
    """Regions alone as one table, where that is allowed; else what a folder must hold is there."""
    if set(raw.tables) == {"regions"} and not need_samples:
        raw.tables = {"long": raw.tables["regions"]}
    if "long" not in raw.tables:
        _check_has(raw.tables, raw.source, kind)
    return raw


def read_text_table(path: Path, decimal: str = ".") -> RawTable:
    """Read one delimited text file; the delimiter is the commonest of tab, comma, semicolon."""
    file = str(path)
    stem = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    if stem.suffix.lower() not in _TEXT_SUFFIXES:
        raise DataError(
            Problem(
                f"{path.suffix or 'no suffix'} is not a kind of table that is read here",
                "give .csv, .tsv or .txt (each also .gz), .xlsx, or a data folder",
                file=file,
            )
        )
    try:
        with _open_text(path) as handle:
            header_line = handle.readline()
        if not header_line.strip():
            raise DataError(Problem("is empty", "it needs a header and rows", file=file))
        delimiter = max("\t,;", key=header_line.count)
        header = [name.strip() for name in next(csv.reader([header_line], delimiter=delimiter))]
        _check_header(header, file, None)
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                path,
                sep=delimiter,
                header=None,
                skiprows=1,
                names=header,
                index_col=False,
                decimal=decimal,
                dtype={name: str for name in header if name.lower() in TEXT_HEADERS},
                keep_default_na=False,
                na_values=list(MISSING),
                skip_blank_lines=False,
                encoding="utf-8-sig",
                low_memory=False,
            )
    except UnicodeDecodeError:
        raise DataError(Problem("is not UTF-8 text", "save it as UTF-8", file=file)) from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(Problem(f"cannot be read: {error}", "check the file", file=file)) from None
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise DataError(
            Problem(
                f"rows have different numbers of cells ({str(error).strip()})",
                "quote cells that hold the delimiter",
                file=file,
            )
        ) from None
    frame.index = pd.RangeIndex(2, len(frame) + 2)
    frame = _drop_blank_rows(frame, file, None)
    if frame.iloc[:, -1].isna().any():  # blank cells, or rows that end too soon
        _check_lengths(path, file, delimiter, header)
    return RawTable(frame, file)


def _check_lengths(path: Path, file: str, delimiter: str, header: list[str]) -> None:
    """Refuse rows with fewer cells than the header, which pandas would pad in silence."""
    with _open_text(path) as handle:
        problems = [
            Problem(
                f"has {len(cells)} cells where the header has {len(header)}",
                "the row is cut off; complete or delete it",
                file,
                row=row,
            )
            for row, cells in enumerate(csv.reader(handle, delimiter=delimiter), start=1)
            if any(cells) and len(cells) < len(header)
        ]
    if problems:
        raise DataError(problems)


def _open_text(path: Path) -> TextIO:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _read_folder(folder: Path, decimal: str) -> RawTables:
    raw = RawTables(str(folder))
    files = []
    suffixes = [f"{suffix}{gz}" for suffix in _TEXT_SUFFIXES for gz in ("", ".gz")]
    for name in SHEETS:
        found = [folder / f"{name}{s}" for s in suffixes if (folder / f"{name}{s}").is_file()]
        if len(found) > 1:
            names = " and ".join(path.name for path in found)
            raise DataError(Problem(f"holds {names}", "keep one of them", file=str(folder)))
        if found:
            raw.tables[name] = read_text_table(found[0], decimal)
            files.append(found[0])
    raw.fingerprint = fingerprint(files)
    return raw


def _read_workbook(path: Path, sheet: str | None) -> dict[str, RawTable]:
    """The sheets of a workbook: those of a data folder, or the one long table."""
    file = str(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # styles that openpyxl does not know
            sheets = pd.read_excel(
                path, sheet_name=None, header=None, dtype=object,
                keep_default_na=False, na_values=list(MISSING),
            )  # fmt: skip
    except Exception as error:  # openpyxl and zipfile raise many kinds
        raise DataError(
            Problem(f"cannot be read as an Excel workbook: {error}", "save it anew", file=file)
        ) from None
    sheets = {str(name): cells for name, cells in sheets.items() if len(cells)}
    if sheet is not None:
        if sheet not in sheets:
            known = ", ".join(sheets)
            raise DataError(Problem(f"has no sheet {sheet!r}", f"its sheets: {known}", file=file))
        return {"long": _from_cells(sheets[sheet], file, sheet)}
    if any(name in sheets for name in ("regions", "samples", "expression")):
        known_sheets = {name: cells for name, cells in sheets.items() if name in SHEETS}
        return {name: _from_cells(cells, file, name) for name, cells in known_sheets.items()}
    if len(sheets) != 1:
        names = ", ".join(f"{name} ({len(cells)} rows)" for name, cells in sheets.items())
        raise DataError(
            Problem(
                f"has {len(sheets)} sheets that hold something: {names}",
                "name the one to use as data.sheet, or name them regions, samples, expression",
                file=file,
            )
        )
    name, cells = next(iter(sheets.items()))
    return {"long": _from_cells(cells, file, name)}


def _from_cells(cells: pd.DataFrame, file: str, sheet: str) -> RawTable:
    header = ["" if pd.isna(cell) else str(cell).strip() for cell in cells.iloc[0]]
    _check_header(header, file, sheet)
    frame = cells.iloc[1:].set_axis(header, axis=1)
    frame.index = pd.RangeIndex(2, len(frame) + 2)
    frame = _drop_blank_rows(frame, file, sheet)
    table = RawTable(frame.infer_objects(), file, sheet)
    for name in (name for name in header if name.lower() in TEXT_HEADERS):
        dates = frame[name].map(lambda cell: hasattr(cell, "isoformat"))
        if dates.any():
            raise DataError(
                table.problems(
                    frame.index[dates],
                    name,
                    frame[name][dates],
                    "{value} is a date where an identifier is expected",
                    "Excel changed it; format the column as text and type the name again",
                )  # fmt: skip
            )
    return table


def _as_text(cell: Any) -> str:
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()


def _check_header(header: list[str], file: str, sheet: str | None) -> None:
    problems = []
    for position, name in enumerate(header):
        if not name:
            what, fix = f"column {position + 1} has no header", "name it or delete the column"
            problems.append(Problem(what, fix, file, sheet, row=1))
        elif name in header[:position]:
            first = header.index(name) + 1
            what = f"{name!r} is the header of columns {first} and {position + 1}"
            problems.append(Problem(what, "rename or delete one", file, sheet, row=1))
    if problems:
        raise DataError(problems)


def _drop_blank_rows(frame: pd.DataFrame, file: str, sheet: str | None) -> pd.DataFrame:
    blank = frame.isna().all(axis=1)
    frame = frame[~blank] if blank.any() else frame
    if not len(frame):
        raise DataError(Problem("has a header and no rows", "add rows", file, sheet))
    return frame


def _check_has(tables: dict[str, RawTable], file: str, kind: str) -> None:
    missing = [name for name in ("regions", "samples") if name not in tables]
    if missing:
        raise DataError(
            Problem(
                f"has no {kind} {' and no '.join(missing)}",
                "a data folder or workbook holds regions, samples and expression",
                file=file,
            )
        )


def fingerprint(files: Iterable[Path]) -> str:
    """SHA-256 over the bytes of files, in their order."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
