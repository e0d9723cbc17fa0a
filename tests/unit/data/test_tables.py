"""Tables as they stand in their files: cells, row numbers, and what is refused."""

from __future__ import annotations

import datetime
import gzip

import numpy as np
import pandas as pd
import pytest

from yeast_get.data.tables import RawTable, read_tables, read_text_table
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


def long(path, **options) -> RawTable:
    return read_tables(path, **options).tables["long"]


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


def test_row_numbers_are_those_of_the_file_with_blank_lines_in_between(write):
    table = long(write("region_id,target\n\na,1\n,\n\nb,2\n"))
    assert content(table) == {"row": [3, 6], "region_id": ["a", "b"], "target": [1, 2]}


def test_row_numbers_are_those_of_the_sheet_with_blank_rows_in_between(workbook):
    frame = pd.DataFrame({"region_id": ["a", None, None, "b"], "target": [1, None, None, 2]})
    assert content(long(workbook(x=frame)))["row"] == [2, 5]


def test_decimal_commas_are_read_where_they_are_declared(write):
    path = write('region_id;motif_a;target\na;0,5;1,25\nb;1;-3,5E1\n"c";;2\n')
    table = long(path, decimal=",")
    assert content(table)["target"] == [1.25, -35.0, 2.0]
    assert content(table)["motif_a"] == [0.5, 1.0, None]
    assert long(path).numbers("target")[1]  # not declared: no number


def test_a_byte_order_mark_and_spaces_around_headers_do_not_belong_to_the_name(write):
    table = long(write("\ufeffregion_id , target\na,1\n"))
    assert list(table.frame.columns) == ["region_id", "target"]
    assert content(table)["region_id"] == ["a"]


def test_quoted_cells_may_hold_the_delimiter(write):
    table = long(write('region_id,"medium, kind",target\na,"SC, full",1\n'))
    assert content(table)["medium, kind"] == ["SC, full"]


@pytest.mark.parametrize("word", ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "#N/A"])
def test_words_for_nothing_are_blank_in_text_and_excel(write, workbook, word):
    assert content(long(write(f"region_id,drug,target\na,{word},1\n")))["drug"] == [None]
    frame = pd.DataFrame({"region_id": ["a"], "drug": [word], "target": [1]})
    assert content(long(workbook(x=frame)))["drug"] == [None]


@pytest.mark.parametrize("column", ["region_id", "peak_id", "sample_id", "gene_id", "chrom"])
def test_identifiers_stay_text_whatever_they_look_like(write, column):
    table = long(write(f"{column},target\n001,1\n1E5,2\n7,3\n"))
    assert table.text(column).tolist() == ["001", "1E5", "7"]


def test_whole_numbers_as_excel_identifiers_have_no_decimal_point(workbook):
    frame = pd.DataFrame({"region_id": [1.0, 2.5, "a "], "target": [1, 2, 3]})
    assert long(workbook(x=frame)).text("region_id").tolist() == ["1", "2.5", "a"]


# ------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", r"t.csv: is empty; it needs a header and rows"),
        ("\n\n", r"t.csv: is empty"),
        ("region_id,target\n", r"t.csv: has a header and no rows; add rows"),
        ("region_id,target\n,\n\n", r"t.csv: has a header and no rows"),
        ("region_id,,target\na,1,2\n", r"t.csv, row 1: column 2 has no header; name it or delete"),
        ("a,b,a\n1,2,3\n", r"t.csv, row 1: 'a' is the header of columns 1 and 3; rename"),
        ("region_id,target\na,1,2\n", r"t.csv: rows have different numbers of cells"),
        ("region_id,target\na,1\nb,1,2\n", r"rows have different numbers of cells .*line 3"),
        (b"region_id,target\n\xe9,1\n", r"t.csv: is not UTF-8 text; save it as UTF-8"),
        (b"\xff\xfer\x00", r"t.csv: is not UTF-8 text"),
    ],
)
def test_a_text_file_that_is_no_table_is_refused(write, content, said):
    with pytest.raises(DataError, match=said):
        read_tables(write(content))


def test_all_bad_headers_are_said_at_once(write):
    with pytest.raises(DataError) as caught:
        read_tables(write("a,,a,,b\n1,2,3,4,5\n"))
    assert len(caught.value.problems) == 3


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.csv: there is no such file or folder; check"):
        read_tables(tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    ("name", "said"),
    [("t.parquet", r"\.parquet is not a kind of table"), ("t", "no suffix is not a kind of table")],
)
def test_a_file_of_another_kind_is_refused_with_the_kinds_that_are_read(write, name, said):
    with pytest.raises(DataError, match=said + r".*give \.csv, \.tsv or \.txt"):
        read_tables(write("a\n1\n", name))


@pytest.mark.parametrize(
    "content",
    [b"not gzip", gzip.compress(b"region_id,target\na,1\n" * 99)[:-12],
     gzip.compress(b"region_id,target\na,1\n" * 9)[:10] + b"\x07" * 40],
)  # fmt: skip
def test_a_broken_gzip_file_is_one_line(write, content):
    with pytest.raises(DataError, match=r"t.csv.gz: cannot be read: .*; check the file"):
        read_tables(write(content, "t.csv.gz"))


# ----------------------------------------------------------------------------------- workbooks


def test_one_sheet_or_the_named_sheet_is_the_long_table(workbook):
    empty = pd.DataFrame()
    assert content(long(workbook(anything=FRAME, empty=empty))) == EXPECTED
    path = workbook(notes=FRAME.iloc[:1], data=FRAME)
    table = long(path, sheet="data")
    assert content(table) == EXPECTED
    assert table.sheet == "data"


def test_several_sheets_are_listed_where_none_is_named(workbook):
    said = (
        r"t.xlsx: has 2 sheets that hold something: a \(4 rows\), b \(2 rows\); name .* data.sheet"
    )
    with pytest.raises(DataError, match=said):
        read_tables(workbook(a=FRAME, b=FRAME.iloc[:1]))


def test_a_sheet_that_is_not_there_is_refused_with_those_that_are(workbook):
    with pytest.raises(DataError, match=r"has no sheet 'c'; its sheets: a, b"):
        read_tables(workbook(a=FRAME, b=FRAME), sheet="c")


def test_a_file_that_is_no_workbook_is_refused(write):
    with pytest.raises(DataError, match=r"t.xlsx: cannot be read as an Excel workbook"):
        read_tables(write("text", "t.xlsx"))


@pytest.mark.parametrize("column", ["gene_id", "region_id"])
def test_a_gene_that_excel_made_a_date_is_refused_with_its_cell(workbook, column):
    frame = pd.DataFrame({column: ["YAL001C", datetime.datetime(2024, 10, 1)], "target": [1, 2]})
    said = (
        rf"t.xlsx, sheet x, row 3, column {column}: '2024-10-01 .*' is a date where an identifier"
    )
    with pytest.raises(DataError, match=said):
        read_tables(workbook(x=frame))


def test_header_problems_in_a_workbook_name_the_sheet(workbook):
    frame = pd.DataFrame([["a", None, "a"], [1, 2, 3]])
    path = workbook(x=frame.iloc[1:].set_axis(["a", None, "a"], axis=1))
    with pytest.raises(DataError) as caught:
        read_tables(path)
    assert [str(p).partition(": ")[2].partition(";")[0] for p in caught.value.problems] == [
        "column 2 has no header", "'a' is the header of columns 1 and 3",
    ]  # fmt: skip
    assert all(p.sheet == "x" for p in caught.value.problems)


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
    folder = read_tables(tmp_path).tables
    sheets = read_tables(workbook(**SHEETS, notes=FRAME)).tables
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


# ---------------------------------------------------------------------------------- cells


def test_numbers_are_floats_with_nan_for_blank_and_a_problem_per_cell_of_text(write):
    table = read_text_table(write("region_id,x\na,1\nb,\nc,high\nd,2e3\ne,inf\n"))
    values, problems = table.numbers("x")
    np.testing.assert_array_equal(values, [1, np.nan, np.nan, 2000, np.nan])
    assert [(p.row, p.column, p.what) for p in problems] == [
        (4, "x", "'high' is not a number"), (6, "x", "'inf' is not a number"),
    ]  # fmt: skip


def test_numbers_written_as_text_in_excel_are_numbers(workbook):
    frame = pd.DataFrame({"region_id": ["a", "b"], "x": ["1.5", 2]})
    values, problems = long(workbook(s=frame)).numbers("x")
    assert values.tolist() == [1.5, 2.0]
    assert not problems


def test_a_row_that_is_cut_off_is_refused_and_blank_cells_at_the_end_are_not(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("region_id,a,b\nx,1,\ny,2,3\n")
    assert read_text_table(path).frame["b"].isna().tolist() == [True, False]
    path.write_text("region_id,a,b\nx,1,\n\ny,2\n")
    with pytest.raises(DataError, match=r"t.csv, row 4: has 2 cells where the header has 3"):
        read_text_table(path)


def test_a_sheet_of_a_table_that_is_no_workbook_is_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("region_id,a\nx,1\n")
    with pytest.raises(DataError, match="is no workbook, and data.sheet names 'one'"):
        read_tables(path, "one")
