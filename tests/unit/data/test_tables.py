"""Which kind of file an input is, data folders, and fingerprints."""

from __future__ import annotations

import numpy as np
import openpyxl
import pandas as pd
import pytest

from yeast_get.config import DataConfig
from yeast_get.data.raw_table import RawTable
from yeast_get.data.tables import read_tables
from yeast_get.errors import DataError

FRAME = pd.DataFrame(
    {
        "region_id": ["001", "1E5", "YAL001C"],
        "temperature": [30.0, np.nan, 37.5],
        "drug": ["none", None, "H2O2"],
        "target": [1.5, -2.0, 0.25],
    }
)


@pytest.fixture
def write(tmp_path):
    """Write text or bytes to a file and return its path."""

    def write(content: str | bytes, name: str = "t.csv"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def workbook(tmp_path):
    """Write sheets to a workbook and return its path."""

    def workbook(**sheets: pd.DataFrame):
        path = tmp_path / "t.xlsx"
        with pd.ExcelWriter(path) as writer:
            for name, frame in sheets.items():
                frame.to_excel(writer, sheet_name=name, index=False)
        return path

    return workbook


def is_text(header: str) -> bool:
    return header in ("region_id", "sample_id", "drug")


def long(path, **options) -> RawTable:
    return read_tables(path, DataConfig(**options), is_text).tables["long"]


def content(table: RawTable) -> dict:
    """Every cell by column, as numbers where the column holds numbers, NaN as None."""
    frame = table.frame.astype(object).where(table.frame.notna(), None)
    return {"row": list(frame.index), **frame.to_dict("list")}


EXPECTED = {
    "row": [2, 3, 4],
    "region_id": ["001", "1E5", "YAL001C"],
    "temperature": [30.0, None, 37.5],
    "drug": ["none", None, "H2O2"],
    "target": [1.5, -2.0, 0.25],
}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".CSV", ".csv.gz", ".tsv.gz", ".xlsx"])
@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_every_kind_of_file_holds_the_same_table(tmp_path, suffix, delimiter):
    path = tmp_path / f"t{suffix}"
    if suffix == ".xlsx":
        FRAME.to_excel(path, index=False)
    else:
        FRAME.to_csv(path, sep=delimiter, index=False)
    table = long(path)
    assert content(table) == EXPECTED
    assert table.file == str(path)


def test_identifiers_stay_text_whatever_they_look_like(write):
    table = long(write("sample_id,target\n001,1\n1E5,2\n7,3\n"))
    assert table.text("sample_id").tolist() == ["001", "1E5", "7"]


# ------------------------------------------------------------------------------------ refusals


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.csv: there is no such file or folder; check"):
        read_tables(tmp_path / "nowhere.csv")


@pytest.mark.parametrize("name", ["t", "t.dat", "t.xlsx", "t.csv.gz"])
def test_what_a_file_is_follows_from_its_content(write, tmp_path, name):
    assert long(write("region_id,target\na,1\n", name)).text("region_id").tolist() == ["a"]
    FRAME.to_excel(tmp_path / "t.xlsx", index=False)
    path = (tmp_path / "t.xlsx").rename(tmp_path / "t.csv")
    assert content(long(path)) == EXPECTED


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is a workbook of the old .xls kind, or one with a "
         "password; open it in Excel and save it as .xlsx, without a password"),
        (b"PAR1", "is a parquet file, which is not read here; write it as CSV"),
        (b"\x89HDF\r\n", "is an HDF5 file, which is not read here; write its tables as CSV"),
        (b"%PDF-1.7", "is a PDF; give the table itself, as CSV or .xlsx"),
        (b"BZh91AY", "is compressed by bzip2; unpack it, or compress it as .gz"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_table_is_refused_by_its_first_bytes(write, start, said):
    with pytest.raises(DataError) as caught:
        read_tables(write(start + bytes(40), "t.csv"))
    (problem,) = caught.value.problems
    assert str(problem).endswith(f"t.csv: {said}")


def test_the_lock_file_of_excel_is_refused(write):
    with pytest.raises(DataError, match=r"is the lock file that Excel keeps .*; give t\.xlsx"):
        read_tables(write(b"\x05owner", "~$t.xlsx"))


def test_a_sheet_of_a_table_that_is_no_workbook_is_refused(write):
    with pytest.raises(DataError, match="is no workbook, and data.sheet names 'one'"):
        long(write("region_id,a\nx,1\n"), sheet="one")


def test_a_sheet_of_a_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="is a folder, and data.sheet names 'one'; leave"):
        read_tables(tmp_path, DataConfig(sheet="one"))


def test_the_yaml_says_how_to_read_a_workbook_and_a_text(write, workbook):
    assert long(workbook(a=FRAME, b=FRAME.iloc[:1]), sheet="b").sheet == "b"
    assert long(write("region_id;x\na;1,234\n"), decimal=",").numbers("x").tolist() == [1.234]
    path = workbook(x=FRAME)
    book = openpyxl.load_workbook(path)
    book["x"].merge_cells("C2:C3")
    book["x"].column_dimensions["D"].hidden = True
    book.save(path)
    assert long(path).findings.errors[0].kind == "merged cells"
    table = long(path, fill_merged=True, include_hidden=False)
    assert table.findings.errors == []
    assert list(table.frame.columns) == ["region_id", "temperature", "drug"]


# ------------------------------------------------------------------------------------- folders

REGIONS = pd.DataFrame({"region_id": ["01", "b"], "motif_a": [1.0, 2.0]})
SAMPLES = pd.DataFrame({"sample_id": ["1", "s2"], "medium": ["YPD", "SC"]})
EXPRESSION = pd.DataFrame({"region_id": ["b", "01"], "1": [1.0, np.nan], "s2": [3.0, 4.0]})
SHEETS = {"regions": REGIONS, "samples": SAMPLES, "expression": EXPRESSION}


def test_a_workbook_of_named_sheets_holds_the_same_tables_as_a_folder(tmp_path, workbook):
    for (name, frame), suffix in zip(SHEETS.items(), (".csv", ".tsv", ".csv.gz"), strict=True):
        sep = "\t" if suffix == ".tsv" else ","
        frame.to_csv(tmp_path / f"{name}{suffix}", index=False, sep=sep)
    (tmp_path / "notes.txt").write_text("not a table of ours")
    folder = read_tables(tmp_path, is_text=is_text).tables
    sheets = read_tables(workbook(**SHEETS, notes=FRAME), is_text=is_text).tables
    assert list(folder) == list(sheets) == list(SHEETS)
    for name in SHEETS:
        assert content(folder[name]) == content(sheets[name])
        assert sheets[name].sheet == name
    assert content(folder["regions"])["region_id"] == ["01", "b"]


@pytest.mark.parametrize(
    ("present", "said"),
    [
        (["samples", "expression"], "has no file regions;"),
        (["regions"], "has no file samples;"),
        ([], "has no file regions and no samples; a data folder or workbook holds"),
    ],
)
def test_a_folder_without_its_tables_is_refused(tmp_path, present, said):
    for name in present:
        SHEETS[name].to_csv(tmp_path / f"{name}.csv", index=False)
    with pytest.raises(DataError, match=said):
        read_tables(tmp_path)


def test_a_workbook_without_samples_is_refused(workbook):
    with pytest.raises(DataError, match=r"t.xlsx: has no sheet samples"):
        read_tables(workbook(regions=REGIONS, expression=EXPRESSION))


def test_two_files_of_one_name_are_refused(tmp_path):
    for suffix in (".csv", ".tsv"):
        REGIONS.to_csv(tmp_path / f"regions{suffix}", index=False)
    with pytest.raises(DataError, match=r"holds regions.csv and regions.tsv; keep one of them"):
        read_tables(tmp_path)


# --------------------------------------------------------------------------------- fingerprint


def test_the_fingerprint_is_the_content_and_not_the_name(write, tmp_path):
    first = read_tables(write("region_id,target\na,1\n", "a.csv")).fingerprint
    assert read_tables(write("region_id,target\na,1\n", "b.csv")).fingerprint == first
    assert read_tables(write("region_id,target\na,2\n", "a.csv")).fingerprint != first
    assert len(first) == 64


def test_the_fingerprint_of_a_folder_covers_every_table(tmp_path):
    seen = set()
    for name in ("regions", "samples", "expression"):
        for each, frame in SHEETS.items():
            changed = frame.iloc[:1] if each == name else frame
            changed.to_csv(tmp_path / f"{each}.csv", index=False)
        seen.add(read_tables(tmp_path).fingerprint)
    assert len(seen) == 3
