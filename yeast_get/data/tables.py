"""CSV, TSV, Excel, a data folder or a workbook -> raw tables that remember their source rows.

What a file is follows from its content, not from its name. Nothing here knows what a column means.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from yeast_get.config import DataConfig
from yeast_get.data.findings import Finding, Findings
from yeast_get.data.raw_table import RawTable
from yeast_get.data.text_table import read_text_table
from yeast_get.errors import DataError, Problem

SHEETS = ("regions", "samples", "expression", "accessibility", "expression_minus", "genes")
"""Names of the files of a data folder and of the sheets of a workbook."""

REGION_ID_HEADERS = ("region_id", "peak_id", "region", "peak", "promoter_id", "区域", "启动子")
SAMPLE_ID_HEADERS = ("sample_id", "sample", "gsm", "样品", "样本", "样品编号", "样本编号")
ACCESSIBILITY_HEADERS = ("accessibility", "开放性", "可及性")
TEXT_HEADERS = (
    *REGION_ID_HEADERS, *SAMPLE_ID_HEADERS,
    "gene_id", "gene", "基因", "gene_name", "基因名", "chrom", "chr", "chromosome", "染色体",
    "strand", "链",
)  # fmt: skip
"""Headers, folded, of columns that are read as text whatever they look like (`001`, `1E5`)."""

_SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz", ".xlsx", ".xlsm")
_ZIP = b"PK\x03\x04"
_OTHERS = {
    b"\xd0\xcf\x11\xe0": (
        "is a workbook of the old .xls kind, or one with a password",
        "open it in Excel and save it as .xlsx, without a password",
    ),
    b"PAR1": ("is a parquet file, which is not read here", "write it as CSV"),
    b"\x89HDF": ("is an HDF5 file, which is not read here", "write its tables as CSV"),
    b"%PDF": ("is a PDF", "give the table itself, as CSV or .xlsx"),
    b"7z\xbc\xaf": ("is a 7z archive", "unpack it and give the table"),
    b"Rar!": ("is a RAR archive", "unpack it and give the table"),
    b"BZh": ("is compressed by bzip2", "unpack it, or compress it as .gz"),
    b"\xfd7zXZ": ("is compressed by xz", "unpack it, or compress it as .gz"),
}
"""First bytes of what is no table here, what it is, and what to do."""


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
        findings: What is wrong or odd, in all tables.
    """

    source: str
    tables: dict[str, RawTable] = field(default_factory=dict)
    fingerprint: str = ""
    descriptions: dict[str, Callable[[], np.ndarray]] = field(default_factory=dict)
    roles: dict[str, list[str]] = field(default_factory=dict)
    names_file: str | None = None
    findings: Findings = field(default_factory=Findings)


def read_tables(
    path: str | Path,
    config: DataConfig | None = None,
    is_text: Callable[[str], bool] = lambda header: False,
    need_samples: bool = True,
) -> RawTables:
    """Read a long table, a data folder or a workbook.

    Args:
        path: A delimited text file (also gzipped), an Excel workbook, or a folder.
        config: How to read it: sheet, decimal sign, merged and hidden cells.
        is_text: Whether the column of a header is text whatever it looks like.
        need_samples: Whether a folder or workbook of regions alone is an error; else it is read
            as that one table.

    Raises:
        DataError: Where the input is missing, not of these kinds, or cannot be read at all. What
            is wrong with rows and cells is among the findings.
    """
    path, config = Path(path), config or DataConfig()
    if path.is_dir():
        return _alone(_read_folder(path, config, is_text), need_samples, "file")
    if not path.is_file():
        raise DataError(Problem("there is no such file or folder", "check --data", file=str(path)))
    raw = RawTables(str(path))
    with ThreadPoolExecutor(1) as pool:
        known = pool.submit(fingerprint, [path])
        raw.tables = _read_file(path, raw.findings, config, is_text, SHEETS, config.sheet)
        raw.fingerprint = known.result()
    return _alone(raw, need_samples, "sheet")


def _read_file(
    path: Path,
    findings: Findings,
    config: DataConfig,
    is_text: Callable[[str], bool],
    wanted: Sequence[str],
    sheet: str | None = None,
) -> dict[str, RawTable]:
    """The tables of one file: of a workbook the wanted sheets, or the one that is named."""
    decimal = None if config.decimal == "auto" else config.decimal
    if _is_workbook(path):
        from yeast_get.data.workbook import read_workbook  # with openpyxl, for workbooks alone

        return read_workbook(
            path,
            findings,
            sheet=sheet,
            wanted=wanted,
            decimal=decimal,
            fill_merged=config.fill_merged,
            include_hidden=config.include_hidden,
            is_text=is_text,
        )
    if sheet is not None:
        what = f"is no workbook, and data.sheet names {sheet!r}"
        raise DataError(Problem(what, "leave data.sheet out", file=str(path)))
    return {"long": read_text_table(path, findings, decimal=decimal, is_text=is_text)}


def _is_workbook(path: Path) -> bool:
    """Whether a file is a zip archive; what is known to be no table is refused."""
    if path.name.startswith("~$"):
        what = "is the lock file that Excel keeps while a workbook is open"
        raise DataError(Problem(what, f"give {path.name[2:]}", file=str(path)))
    try:
        with path.open("rb") as handle:
            start = handle.read(8)
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise DataError(Problem(what, "check the file", file=str(path))) from None
    for magic, (what, fix) in _OTHERS.items():
        if start.startswith(magic):
            raise DataError(Problem(what, fix, file=str(path)))
    return start.startswith(_ZIP)


def _alone(raw: RawTables, need_samples: bool, kind: str) -> RawTables:
    """Regions alone as one table, where that is allowed; else what a folder must hold is there."""
    if set(raw.tables) == {"regions"} and not need_samples:
        raw.tables = {"long": raw.tables["regions"]}
    if "long" not in raw.tables:
        _check_has(raw.tables, raw.source, kind)
    return raw


def _read_folder(folder: Path, config: DataConfig, is_text: Callable[[str], bool]) -> RawTables:
    if config.sheet is not None:
        what = f"is a folder, and data.sheet names {config.sheet!r}"
        raise DataError(Problem(what, "leave data.sheet out", file=str(folder)))
    raw = RawTables(str(folder))
    files, problems = [], []
    for name in SHEETS:
        found = [folder / f"{name}{s}" for s in _SUFFIXES if (folder / f"{name}{s}").is_file()]
        if len(found) > 1:
            names = " and ".join(path.name for path in found)
            raise DataError(Problem(f"holds {names}", "keep one of them", file=str(folder)))
        if found:
            files.append(found[0])
            try:
                tables = _read_file(found[0], raw.findings, config, is_text, (name,))
                raw.tables[name] = next(iter(tables.values()))
            except DataError as error:
                problems += error.problems
    for each in problems:
        raw.findings.add(Finding("error", "file", each.what, each.fix, each.file, each.sheet))
    if problems:
        raw.findings.raise_errors()
    raw.fingerprint = fingerprint(files)
    return raw


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
