"""Excel workbooks: which sheet is read, what its cells become, what it hides, what is refused."""

from __future__ import annotations

import datetime
import io
import random
import re
import struct
import warnings
import zipfile

import numpy as np
import pytest
from openpyxl import Workbook

from yeast_get.data import workbook as module
from yeast_get.data.findings import Findings
from yeast_get.data.raw_table import RawTable
from yeast_get.data.workbook import read_workbook
from yeast_get.errors import DataError

WANTED = ("regions", "samples", "expression", "accessibility", "expression_minus", "genes")
SHEET = "xl/worksheets/sheet1.xml"
NAMESPACE = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
ROWS = [["gene", "target"], ["YAL001C", 1.5], ["YAL002W", 2.5], ["YAL003W", 3.5]]


@pytest.fixture
def save(tmp_path):
    """Write sheets, each a list of rows, to a workbook and return its path."""

    def save(edit=lambda book: None, name="t.xlsx", **sheets):
        book = Workbook()
        book.remove(book.active)
        for title, rows in sheets.items():
            sheet = book.create_sheet(title)
            for row in rows:
                sheet.append(row)
        edit(book)
        path = tmp_path / name
        book.save(path)
        return path

    return save


@pytest.fixture
def parts(save, tmp_path):
    """Write a workbook with some of its parts replaced, or None to leave one out."""

    def parts(changed, name="t.xlsx"):
        good = zipfile.ZipFile(io.BytesIO(save(t=ROWS, name="good.xlsx").read_bytes()))
        content = {each: good.read(each) for each in good.namelist()} | changed
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for each, data in content.items():
                if data is not None:
                    archive.writestr(each, data)
        return path

    return parts


@pytest.fixture
def xml(parts):
    """Write a workbook whose one sheet has this XML."""

    def xml(body, root=f'<worksheet xmlns="{NAMESPACE}">', end="</worksheet>"):
        return parts({SHEET: f"{root}{body}{end}"})

    return xml


def cells(number, *values):
    """A row of texts and numbers as XML."""
    inner = ""
    for letter, value in zip("ABCDEFGH", values, strict=False):
        if isinstance(value, str):
            inner += f'<c r="{letter}{number}" t="inlineStr"><is><t>{value}</t></is></c>'
        else:
            inner += f'<c r="{letter}{number}"><v>{value}</v></c>'
    return f'<row r="{number}">{inner}</row>'


def read(path, **options) -> tuple[RawTable, Findings]:
    """The one table of a workbook and what was found in it."""
    findings = Findings()
    options = {"is_text": lambda header: header == "gene"} | options
    tables = read_workbook(path, findings, **options)
    assert list(tables) == ["long"]
    return tables["long"], findings


def content(table) -> dict:
    frame = table.frame.astype(object).where(table.frame.notna(), None)
    return {"row": list(frame.index), **frame.to_dict("list")}


def refused(path, **options) -> str:
    """The one line with which a workbook is refused, without its path."""
    with pytest.raises(DataError) as error:
        read_workbook(path, Findings(), **options)
    (problem,) = error.value.problems
    return str(problem).replace(str(path), path.name)


def said(findings, path) -> list[str]:
    """Errors, then warnings, then what was normalised."""
    return [line.replace(str(path), path.name) for line in findings.lines()]


# -------------------------------------------------------------------------------------- sheets


def test_the_only_sheet_is_the_long_table(save):
    path = save(data=ROWS, empty=[], blank=[[" "], [None, ""]])
    table, findings = read(path, decimal=",")
    assert content(table) == {
        "row": [2, 3, 4],
        "gene": ["YAL001C", "YAL002W", "YAL003W"],
        "target": [1.5, 2.5, 3.5],
    }
    assert (table.file, table.sheet, table.decimal) == (str(path), "data", ",")
    assert table.findings is findings
    assert findings.lines() == []


def test_several_sheets_and_none_named(save):
    def hide(book):
        book["old"].sheet_state = "veryHidden"

    path = save(hide, README=[["a"], [], ["b"]], data=ROWS, old=[["x"]], empty=[])
    assert refused(path, wanted=WANTED) == (
        "t.xlsx: has 3 sheets that hold something: README (2 rows), data (4 rows), "
        "old (1 row, hidden); name the one to use as data.sheet, or name them regions, samples, "
        "expression"
    )


@pytest.mark.parametrize("name", ["data", "Data", " DATA "])
def test_named_sheet(save, name):
    path = save(README=[["a"]], data=ROWS)
    assert read(path, sheet=name)[0].sheet == "data"


def test_named_sheet_of_a_folder_is_a_long_table(save):
    path = save(regions=ROWS, samples=ROWS)
    table, _ = read(path, sheet="samples", wanted=WANTED)
    assert table.sheet == "samples"


def test_named_sheet_that_is_not_there(save):
    path = save(README=[["a"]], data=ROWS)
    assert refused(path, sheet="dta") == (
        "t.xlsx: has no sheet 'dta'; did you mean data? Its sheets are README, data"
    )
    assert refused(path, sheet="zzz") == "t.xlsx: has no sheet 'zzz'; known: README, data"


def test_folder_of_sheets(save):
    sheets = {"Samples ": ROWS, "notes": [["a"]], "REGIONS": ROWS, "genes": ROWS, "expression": []}
    findings = Findings()
    tables = read_workbook(save(**sheets), findings, wanted=WANTED)
    assert {name: table.sheet for name, table in tables.items()} == {
        "regions": "REGIONS",
        "samples": "Samples ",
        "genes": "genes",
    }
    assert all(table.findings is findings for table in tables.values())


def test_genes_alone_is_no_folder(save):
    assert read(save(genes=ROWS), wanted=WANTED)[0].sheet == "genes"


def test_one_name_for_two_sheets(save):
    assert refused(save(**{"regions": ROWS, "Regions ": ROWS}), wanted=WANTED) == (
        "t.xlsx: has 2 sheets regions: 'regions' and 'Regions '; rename or delete all but one"
    )


def test_hidden_sheet(save):
    def hide(book):
        book.create_sheet("empty")
        book["t"].sheet_state = "hidden"

    path = save(hide, t=ROWS)
    assert said(read(path)[1], path) == [
        "warning: t.xlsx, sheet t: the sheet is hidden, and is used; check that it is meant"
    ]


def test_empty_and_header_only(save):
    assert refused(save(t=[], u=[[" "]])) == "t.xlsx: is empty; it needs a header and rows"
    assert refused(save(t=[[" "]], u=ROWS), sheet="t") == (
        "t.xlsx, sheet t: is empty; it needs a header and rows"
    )
    assert refused(save(t=[["gene", "x"], [" ", "NA"]])) == (
        "t.xlsx, sheet t: has a header and no rows; add rows"
    )


# --------------------------------------------------------------------------------------- cells


def test_columns_of_numbers_have_their_type(save):
    rows = [
        ["whole", "gaps", "mixed", "words", "flags", "none", "huge"],
        [1, 1, 1, 1, True, None, 10**20],
        [2, None, 2.5, "#N/A", False, None, None],
        [3, "NA", 3, "x ", True, "nan", 3],
    ]
    table, _ = read(save(t=rows))
    assert table.frame.dtypes.astype(str).to_dict() == {
        "whole": "int64",
        "gaps": "float64",
        "mixed": "float64",
        "words": "object",
        "flags": "object",
        "none": "object",
        "huge": "float64",
    }
    assert content(table) == {
        "row": [2, 3, 4],
        "whole": [1, 2, 3],
        "gaps": [1.0, None, None],
        "mixed": [1.0, 2.5, 3.0],
        "words": [1, "#N/A", "x "],
        "flags": [True, False, True],
        "none": [None, None, None],
        "huge": [1e20, None, 3.0],
    }


@pytest.mark.parametrize("blank", ["", " ", "NA", "N/A", "NaN", "nan", "null", "NULL", " NA "])
def test_cells_that_hold_nothing(save, blank):
    table, _ = read(save(t=[["gene", "x"], [blank, 1], ["b", blank]]))
    assert content(table) == {"row": [2, 3], "gene": [None, "b"], "x": [1.0, None]}


def test_names_are_text(save):
    table, _ = read(save(t=[["gene"], ["001"], [7], [100000.0], [1.5], [True], ["a"]]))
    assert list(table.frame["gene"]) == ["001", "7", "100000", "1.5", "TRUE", "a"]


def test_whole_floats_are_names_without_a_point(xml):
    number = '<row r="2"><c r="A2"><v>1E5</v></c></row>'
    table, _ = read(xml(f"<sheetData>{cells(1, 'gene')}{number}</sheetData>"))
    assert list(table.frame["gene"]) == ["100000"]


def test_rows_beyond_the_declared_ones(xml):
    rows = cells(1, "x", "y") + cells(2, 3, 4) + cells(3, 5, 6)
    table, _ = read(xml(f'<dimension ref="A1:A2"/><sheetData>{rows}</sheetData>'))
    assert content(table) == {"row": [2, 3], "x": [3, 5], "y": [4, 6]}


def form(**codes):
    """Give cells a number format, by their place."""

    def edit(book):
        for place, code in codes.items():
            book.worksheets[0][place].number_format = code

    return edit


def test_a_number_with_a_unit_in_its_format_is_the_text_that_people_see(save):
    rows = [
        ["gene", "dose", "n"],
        ["a", 0.0002, 0.5],
        ["b", 5, 2],
        ["c", 0.25, 3],
        ["d", None, True],
    ]
    edit = form(B1="0%", B3='0"μM"', B4='0.00" mM"', B2="0.00%", B5="0%", C5="0%", C2="0.0")
    assert content(read(save(edit, t=rows))[0]) == {
        "row": [2, 3, 4, 5],
        "gene": ["a", "b", "c", "d"],
        "dose": ["0.02%", "5μM", "0.25 mM", None],
        "n": [0.5, 2, 3, True],
    }


def test_formats_are_found_without_names_of_cells_and_across_pieces(save, tmp_path, monkeypatch):
    rows = [["gene", "dose"], *(["x", i / 100] for i in range(40))]
    places = {f"B{row}": "0%" for row in range(2, 42, 3)}
    path = save(form(**places), t=rows)
    wanted = [f"{i}%" if i % 3 == 0 else i / 100 for i in range(40)]
    monkeypatch.setattr(module, "_BLOCK", 97)
    assert content(read(path)[0])["dose"] == wanted
    bare = tmp_path / "bare.xlsx"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(bare, "w") as new:
        for each in old.namelist():
            raw = old.read(each)
            new.writestr(each, re.sub(rb'<c r="[A-Z]+\d+"', b"<c", raw) if each == SHEET else raw)
    assert content(read(bare)[0])["dose"] == wanted


@pytest.mark.parametrize(
    ("doses", "sign"),
    [(["0,5 mM", "1,5"], ","), (["0.5 mM", "1,5"], "."), (["5 mM", 1.5], None), (["1,234"], None),
     (["0,5 mM", "0,5", "0.5"], ",")],
)  # fmt: skip
def test_the_texts_of_a_workbook_show_one_decimal_sign(save, doses, sign):
    rows = [["gene", "dose"], *(["1,5", dose] for dose in doses)]
    assert read(save(t=rows))[0].decimal == sign
    assert read(save(t=rows), decimal=".")[0].decimal == "."


def test_the_sheets_of_a_folder_share_their_decimal_sign(save):
    sheets = {"regions": [["gene", "a"], ["x", 1]], "samples": [["gene", "dose"], ["s", "0,5 mM"]]}
    sheets["expression"] = [["gene", "s"], ["x", 1.5]]
    path = save(form(B2='0.0" x"'), **sheets)
    tables = read_workbook(path, Findings(), wanted=WANTED, is_text=lambda header: header == "gene")
    assert [table.decimal for table in tables.values()] == [","] * 3
    assert tables["regions"].frame["a"].tolist() == ["1 x"]


def test_error_values_stay(xml):
    error = '<row r="2"><c r="A2" t="e"><v>#DIV/0!</v></c></row>'
    table, findings = read(xml(f"<sheetData>{cells(1, 'x')}{error}{cells(3, 4)}</sheetData>"))
    assert list(table.frame["x"]) == ["#DIV/0!", 4]
    assert findings.lines() == []


def test_whole_numbers_beyond_floats_are_infinite(xml):
    rows = [cells(1, "x", "y"), cells(2, 10**400, 2**64), cells(3, 4, 5)]
    table, _ = read(xml(f"<sheetData>{''.join(rows)}</sheetData>"))
    assert content(table) == {"row": [2, 3], "x": [np.inf, 4.0], "y": [2.0**64, 5.0]}


def test_dates_in_place_of_names(save):
    day = datetime.datetime
    genes = [day(2024, 10, 1), "a", day(2023, 10, 1), day(2024, 9, 7), datetime.time(7, 30)]
    genes += [day(2024, 3, 1, 12), datetime.timedelta(hours=30)]
    path = save(t=[["gene"], *([each] for each in genes)])
    table, findings = read(path)
    is_date = "is a date where a name is expected; Excel changed it: "
    again = "format the column as text and type it again"
    assert said(findings, path) == [
        f"error: t.xlsx, sheet t, row {row}, column gene: '{value}' {is_date}{was}{again}"
        for row, value, was in [
            (2, "2024-10-01", "the original was probably OCT1; "),
            (4, "2023-10-01", "the original was probably OCT1; "),
            (5, "2024-09-07", "the original was probably SEP7; "),
            (6, "07:30:00", ""),
            (7, "2024-03-01 12:00:00", "the original was probably MAR1; "),
            (8, "1 day, 6:00:00", ""),
        ]
    ]
    assert list(table.frame[table.good()]["gene"]) == ["a"]


def test_dates_elsewhere_stay(save):
    day = datetime.datetime(2024, 10, 1)
    table, findings = read(save(t=[["gene", "x"], ["a", day]]))
    assert list(table.frame["x"]) == [day]
    assert findings.errors == []


def test_blank_rows_leave_no_gap_in_the_numbers(save):
    table, _ = read(save(t=[[None], ["gene", 30.0], ["a", 1], [None, " "], [], ["b", 2]]))
    assert content(table) == {"row": [3, 6], "gene": ["a", "b"], "30": [1, 2]}


def test_short_rows(save):
    table, _ = read(save(t=[["gene", "x", "y", "z"], ["a"], ["b", 1], ["c", 2, 3]]))
    assert content(table) == {
        "row": [2, 3, 4],
        "gene": ["a", "b", "c"],
        "x": [None, 1.0, 2.0],
        "y": [None, None, 3.0],
        "z": [None, None, None],
    }


def test_cells_beyond_the_header(save):
    def put(book):
        book["t"]["H3"], book["t"]["D3"], book["t"]["C6"] = "far", " ", "x" * 30
        book["t"]["E2"], book["t"]["XFD9"] = "NA", 5

    path = save(put, t=ROWS)
    table, findings = read(path)
    end = ", beyond the last header; name its column, or delete the cell"
    assert said(findings, path) == [
        f"error: t.xlsx, sheet t, row 3: cell H3 holds 'far'{end}",
        f"error: t.xlsx, sheet t, row 6: cell C6 holds '{'x' * 21}...'{end}",
        f"error: t.xlsx, sheet t, row 9: cell XFD9 holds '5'{end}",
    ]
    assert list(table.frame.columns) == ["gene", "target"]
    assert list(table.frame[table.good()].index) == [2, 4]


def test_blank_cells_do_not_make_the_header_longer(save):
    _, findings = read(save(t=[["gene", "x", " ", " "], ["a", 1, 2], ["b", 1, 5]]))
    assert [(each.kind, list(each.rows)) for each in findings.errors] == [("stray cell", [2, 3])]


def test_the_header_is_checked(save):
    path = save(t=[["gene", "x", None, "x"], ["a", 1, 2, 3], ["b", 1, 5, 3]])
    table, findings = read(path)
    assert [finding.kind for finding in findings.errors] == ["no header", "duplicate header"]
    assert list(table.frame.columns) == ["gene", "x"]


# ------------------------------------------------------------------------------------ structure


def merge(*ranges):
    def edit(book):
        for each in ranges:
            book["t"].merge_cells(each)

    return edit


NOTES = [["gene", "note", "more"], *(["a", f"n{i}", i] for i in range(2, 8))]


def test_merged_cells(save):
    path = save(merge("B3:B5", "B6:C6"), t=NOTES)
    table, findings = read(path)
    fix = "unmerge and fill the cells, or set data.fill_merged: true"
    assert said(findings, path) == [
        *(
            f"error: t.xlsx, sheet t, row {row}, column note: B3:B5 is merged, and only its first "
            f"cell holds 'n3'; {fix}"
            for row in (3, 4, 5)
        ),
        "error: t.xlsx, sheet t, row 6: B6:C6 is merged, and only its first cell holds 'n6'; "
        + fix,
    ]
    assert [finding.kind for finding in findings.errors] == ["merged cells"] * 2
    assert list(table.frame[table.good()].index) == [2, 7]


def test_merged_cells_filled(save):
    path = save(merge("B3:B5", "B6:C6"), t=NOTES)
    table, findings = read(path, fill_merged=True)
    assert list(table.frame["note"]) == ["n2", "n3", "n3", "n3", "n6", "n7"]
    assert list(table.frame["more"]) == [2, 3, 4, 5, "n6", 7]
    assert said(findings, path) == [
        "normalised: note: filled from merged cells in 2 cells (such as B3:B5)",
        "normalised: more: filled from merged cells in 1 cell (such as B6:C6)",
    ]


@pytest.mark.parametrize("where", ["B7:B9", "C3:E3", "F2:G4", "A20:B30", "C1:E1"])
@pytest.mark.parametrize("fill", [True, False])
def test_merged_cells_that_hide_nothing(save, where, fill):
    table, findings = read(save(merge(where), t=NOTES), fill_merged=fill)
    assert findings.lines() == []
    assert len(table.frame) == 6


def test_merged_blank_cells(save):
    path = save(merge("B3:B5"), t=[*NOTES[:2], ["a", " ", 1], *NOTES[3:]])
    assert read(path)[1].lines() == []


@pytest.mark.parametrize(("range_", "first"), [("A1:A4", 2), ("A3:A5", 1)])
def test_merged_cells_that_begin_in_a_blank_row(xml, range_, first):
    rows = cells(first, "x") + cells(4, 7) + cells(5, 8)
    merged = f'<mergeCells><mergeCell ref="{range_}"/></mergeCells>'
    assert read(xml(f"<sheetData>{rows}</sheetData>{merged}"))[1].lines() == []


@pytest.mark.parametrize(
    ("where", "row", "column"), [("A1:B1", 1, ""), ("B1:B2", 1, ", column note")]
)
@pytest.mark.parametrize("fill", [True, False])
def test_merged_header(save, where, row, column, fill):
    path = save(merge(where), t=NOTES)
    lines = said(read(path, fill_merged=fill)[1], path)
    held = "gene" if where == "A1:B1" else "note"
    assert lines[0] == (
        f"error: t.xlsx, sheet t, row {row}{column}: {where} is merged, and only its first cell "
        f"holds '{held}'; unmerge them; the header is one row with a name in each column"
    )


def hide(rows=(), columns=(), filtered=False):
    def edit(book):
        for row in rows:
            book["t"].row_dimensions[row].hidden = True
        for column in columns:
            book["t"].column_dimensions[column].hidden = True
        if filtered:
            book["t"].auto_filter.ref = "A1:C7"

    return edit


def test_hidden_rows_are_used(save):
    path = save(hide(rows=(1, 3, 4, 6, 40), filtered=True), t=NOTES)
    table, findings = read(path)
    assert list(table.frame.index) == [2, 3, 4, 5, 6, 7]
    assert said(findings, path) == [
        "warning: t.xlsx, sheet t: 3 hidden rows (the sheet has a filter) are used "
        "(rows 3 to 4, 6); data.include_hidden: false leaves them out"
    ]


def test_hidden_rows_left_out(save):
    path = save(hide(rows=(3,)), t=NOTES)
    table, findings = read(path, include_hidden=False)
    assert content(table) == {
        "row": [2, 4, 5, 6, 7],
        "gene": ["a"] * 5,
        "note": ["n2", "n4", "n5", "n6", "n7"],
        "more": [2, 4, 5, 6, 7],
    }
    assert said(findings, path) == [
        "warning: t.xlsx, sheet t: 1 hidden row is left out (row 3); unhide what is to be used"
    ]


def test_hidden_columns_are_used(save):
    path = save(hide(columns="BCF"), t=NOTES)
    table, findings = read(path)
    assert list(table.frame.columns) == ["gene", "note", "more"]
    assert said(findings, path) == [
        "warning: t.xlsx, sheet t: 2 hidden columns (note, more) are used; "
        "data.include_hidden: false leaves them out"
    ]
    assert findings.warnings[0].kind == "hidden columns"


def test_hidden_columns_left_out(save):
    rows = [row + [None, "stray" if i == 2 else None] for i, row in enumerate(NOTES)]
    path = save(hide(columns="BE"), t=rows)
    table, findings = read(path, include_hidden=False)
    assert list(table.frame.columns) == ["gene", "more"]
    assert said(findings, path) == [
        "warning: t.xlsx, sheet t: 1 hidden column (note) is left out; unhide what is to be used"
    ]


def test_many_hidden_columns(save):
    names = [f"m{i}" for i in range(14)]
    path = save(hide(columns="ABCDEFGHIJKLMN"), t=[names, range(14)])
    assert "14 hidden columns (m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11 and 2 more)" in (
        read(path)[1].warnings[0].what
    )


def test_formulas_in_hidden_rows_left_out(save):
    _, findings = read(save(hide(rows=(2,)), t=[["x"], ["=1"], [2]]), include_hidden=False)
    assert findings.errors == []


def test_formulas_without_a_value(save):
    rows = [["gene", "x", "y"], ["a", "=1+1", 1], ["b", 2, "=B3*2"], ["c", "=B3", 3], ["d", 4, 4]]
    path = save(t=[*rows, [None, None, None, "=A1"]])
    table, findings = read(path)
    fix = "has no saved value; open and save the file in Excel, or paste values"
    assert said(findings, path) == [
        f"error: t.xlsx, sheet t, row 2, column x: the formula in B2 {fix}",
        f"error: t.xlsx, sheet t, row 4, column x: the formula in B4 {fix}",
        f"error: t.xlsx, sheet t, row 3, column y: the formula in C3 {fix}",
    ]
    assert list(table.frame[table.good()]["gene"]) == ["d"]


def test_a_sheet_of_formulas_alone(save):
    _, findings = read(save(t=[["x"], ["=1+1"], ["=2+2"]]))
    assert [list(finding.rows) for finding in findings.errors] == [[2, 3]]


def test_a_formula_of_text_without_a_value(xml):
    formula = '<row r="2"><c r="A2" t="str"><f>"a"</f></c></row>'
    _, findings = read(xml(f"<sheetData>{cells(1, 'x')}{formula}</sheetData>"))
    assert [list(each.values) for each in findings.errors] == [["A2"]]


def test_a_formula_longer_than_a_block(xml, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 1000)
    formula = f'<row r="2"><c r="A2"><f>{"1+" * 1500}1</f></c></row>'
    _, findings = read(xml(f"<sheetData>{cells(1, 'x')}{formula}</sheetData>"))
    assert [list(each.values) for each in findings.errors] == [["A2"]]


def test_formulas_with_a_value(xml):
    body = (
        '<row r="2"><c r="A2"><f>1+1</f><v>2</v></c><c r="B2" t="str"><f>""</f><v></v></c></row>'
        '<row r="3"><c r="A3"><f t="shared" si="0"/><v>3</v></c></row>'
    )
    table, findings = read(xml(f"<sheetData>{cells(1, 'x', 'y')}{body}</sheetData>"))
    assert findings.lines() == []
    assert content(table) == {"row": [2, 3], "x": [2, 3], "y": [None, None]}


MESSY = (
    "<{p}cols><{p}col min='2' max='16384' hidden='true'/></{p}cols><{p}sheetData>"
    '<{p}row r="1"><{p}c r="A1" t="inlineStr"><{p}is><{p}t>x</{p}t></{p}is></{p}c>'
    '<{p}c r="B1" t="inlineStr"><{p}is><{p}t>y</{p}t></{p}is></{p}c></{p}row>'
    '<{p}row hidden="true"><{p}c><{p}v>1</{p}v></{p}c><{p}c><{p}f t="shared" si="0"/></{p}c>'
    "</{p}row>"
    '<{p}row r="5"><{p}c r="A5"><{p}v>5</{p}v></{p}c></{p}row>'
    '<{p}row><{p}c><{p}v>6</{p}v></{p}c><{p}c r="B6"><{p}f>A1</{p}f> <{p}v/></{p}c></{p}row>'
    '</{p}sheetData><{p}mergeCells><{p}mergeCell ref="A5:A6"/></{p}mergeCells>'
)


@pytest.mark.parametrize("prefix", ["", "x:"])
@pytest.mark.parametrize("block", [64, 97, 333, 1 << 20])
def test_structure_under_a_prefix_and_in_blocks(xml, monkeypatch, prefix, block):
    monkeypatch.setattr(module, "_BLOCK", block)
    root = f'<{prefix}worksheet xmlns{":x" if prefix else ""}="{NAMESPACE}">'
    path = xml(MESSY.format(p=prefix), root, f"</{prefix}worksheet>")
    _, findings = read(path)
    assert [(each.kind, list(each.rows), list(each.values)) for each in findings.errors] == [
        ("merged cells", [5, 6], ["5", "5"]),
        ("formula without value", [2, 6], ["B2", "B6"]),
    ]
    assert [(each.kind, list(each.rows)) for each in findings.warnings] == [
        ("hidden rows", [2]),
        ("hidden columns", []),
    ]


def test_pieces_of_a_sheet_stay_small(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 1000)
    tags = module._Tags(b"")
    texts = b"<row><c>" + b"x" * 300_000
    merges = b"<mergeCell/>" * 20_000
    one_row = b"<row>" + b"<c/>" * 50_000
    for content, most in ((texts, 70_000), (merges, 1100), (one_row, 1100)):
        pieces = list(module._pieces(b"", io.BytesIO(content), tags))
        assert b"".join(pieces) == content
        assert max(len(piece) for piece in pieces) < most


# ---------------------------------------------------------------------------------------- limits


def test_the_last_row_of_excel(xml):
    path = xml(f"<sheetData>{cells(1, 'x')}{cells(1048576, 4)}</sheetData>")
    table, findings = read(path)
    assert content(table) == {"row": [1048576], "x": [4]}
    assert said(findings, path) == [
        "warning: t.xlsx, sheet t: has 1,048,576 rows, where Excel ends a sheet; more were "
        "probably cut off; export it again, as CSV"
    ]


def test_a_row_beyond_the_last(xml):
    assert refused(xml(f"<sheetData>{cells(1, 'x')}{cells(99999999, 4)}</sheetData>")) == (
        "t.xlsx: cannot be read as an Excel workbook: sheet t goes on after row 1,048,576 "
        "(ValueError); save it anew"
    )


def test_rows_out_of_order(xml):
    assert refused(xml(f"<sheetData>{cells(1, 'x')}{cells(3, 4)}{cells(2, 4)}</sheetData>")) == (
        "t.xlsx: cannot be read as an Excel workbook: row 2 of a sheet follows its row 3 "
        "(ValueError); save it anew"
    )


def test_a_header_too_wide_for_its_rows(save, monkeypatch):
    def put(book):
        book["t"]["XFD1"] = "far"

    monkeypatch.setattr(module, "_MOST_CELLS", 2 * 16384)
    assert refused(save(put, t=ROWS)) == (
        "t.xlsx, sheet t: its header is 16,384 columns wide, over 2 rows and more; "
        "delete what stands far from the table, or save it as CSV"
    )


def with_size(path, part, size):
    """Set the unpacked size that the directory of a zip file declares for a part."""
    data = bytearray(path.read_bytes())
    at = data.rindex(part.encode()) - 46
    assert data[at : at + 4] == b"PK\x01\x02"
    data[at + 24 : at + 28] = struct.pack("<I", size)
    path.write_bytes(data)
    return path


def test_zip_bombs(save):
    path = with_size(save(t=ROWS), SHEET, 4_000_000_000)
    line = refused(path)
    assert re.fullmatch(
        r"t.xlsx: unpacks to 4\.0 GB from 0\.0 MB, and at most 1\.1 GB are read; save it as CSV",
        line,
    )
    path = with_size(save(t=ROWS), SHEET, 70_000_000)
    assert refused(path) == (
        f"t.xlsx: its part {SHEET} unpacks to 70.0 MB from 0.0 MB, as no sheet of data does; "
        "save it as CSV"
    )


def test_progress_of_big_sheets(save, monkeypatch):
    seen = []

    def bar(rows, *args, **options):
        seen.append((args, options))
        return real(rows, *args, **options)

    real = module.tqdm
    monkeypatch.setattr(module, "tqdm", bar)
    path = save(t=ROWS)
    read(path)
    monkeypatch.setattr(module, "_BIG_SHEET", 4)
    read(path)
    same = {"leave": False, "delay": 1.0, "unit": "row"}
    assert seen == [(("sheet t", 4), same | {"disable": off}) for off in (True, False)]


# ----------------------------------------------------------------------------------- other files


def test_lock_file(save):
    assert refused(save(t=ROWS, name="~$t.xlsx")) == (
        "~$t.xlsx: is the lock file that Excel keeps while a workbook is open; "
        "give the workbook itself, t.xlsx"
    )


OLD = bytes.fromhex("d0cf11e0a1b11ae1") + b"\0" * 600
NO_XLSX = {"xl/workbook.xml": None, "[Content_Types].xml": None}
STRICT = b'<workbook xmlns="http://purl.oclc.org/ooxml/spreadsheetml/main"/>'


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({**NO_XLSX, "xl/workbook.bin": b"x"}, "is a binary workbook (.xlsb)"),
        (
            {**NO_XLSX, "mimetype": b"application/vnd.oasis.opendocument.spreadsheet"},
            "is an OpenDocument file",
        ),
        (NO_XLSX, "is a zip file that holds no workbook"),
        ({"xl/workbook.xml": STRICT}, "is a workbook of the kind 'Strict Open XML'"),
    ],
)
def test_other_zip_files(parts, changed, message):
    assert refused(parts(changed)) == f"t.xlsx: {message}; save it as .xlsx"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (OLD, "is an old workbook (.xls), or one with a password; save it as .xlsx without a "
              "password"),
        (b"gene,x\n", "cannot be read as an Excel workbook: File is not a zip file (BadZipFile); "
                      "save it anew"),
        (b"", "cannot be read as an Excel workbook: File is not a zip file (BadZipFile); "
              "save it anew"),
    ],
)  # fmt: skip
def test_other_files(tmp_path, data, message):
    path = tmp_path / "t.xlsx"
    path.write_bytes(data)
    assert refused(path) == f"t.xlsx: {message}"


def test_a_workbook_part_of_another_name(parts, save):
    good = zipfile.ZipFile(save(t=ROWS, name="good.xlsx"))
    moved = {
        "xl/workbook.xml": None,
        "xl/_rels/workbook.xml.rels": None,
        "xl/main.xml": good.read("xl/workbook.xml"),
        "xl/_rels/main.xml.rels": good.read("xl/_rels/workbook.xml.rels"),
        "[Content_Types].xml": good.read("[Content_Types].xml").replace(
            b"workbook.xml", b"main.xml"
        ),
    }
    assert len(read(parts(moved))[0].frame) == 3


def test_a_workbook_of_any_suffix(save):
    path = save(t=ROWS)
    assert len(read(path.rename(path.with_suffix(".csv")))[0].frame) == 3


def test_the_reason_is_the_first_one(parts, save):
    good = zipfile.ZipFile(save(t=ROWS, name="good.xlsx")).read("xl/workbook.xml")
    line = refused(parts({"xl/workbook.xml": good.replace(b'"visible"', b'"odd"')}))
    assert line.startswith("t.xlsx: cannot be read as an Excel workbook: Value must be one of {")
    assert line.endswith("(ValueError); save it anew")


def test_sheet_that_is_no_sheet(parts):
    strange = f'<other xmlns="{NAMESPACE}"><sheetData>{cells(1, 1)}</sheetData></other>'
    assert refused(parts({SHEET: strange.encode()})) == (
        "t.xlsx: cannot be read as an Excel workbook: sheet t does not begin as one does "
        "(ValueError); save it anew"
    )


def test_warnings_of_openpyxl_stay_away(xml):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extension = '<extLst><ext uri="{x}"></ext></extLst>'
        table, _ = read(xml(f"<sheetData>{cells(1, 'x')}{cells(2, 4)}</sheetData>{extension}"))
    assert content(table) == {"row": [2], "x": [4]}


# -------------------------------------------------------------------------------------- garbled


def garble(data: bytes, chance: random.Random) -> bytes:
    """Some bytes changed, cut out, put in twice, or the end cut off."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 3, 20))):
        at = chance.randrange(max(1, len(changed)))
        how = chance.randrange(4)
        if how == 0:
            changed[at : at + 1] = bytes([chance.randrange(256)])
        elif how == 1:
            del changed[at : at + chance.randrange(1, 40)]
        elif how == 2:
            changed[at:at] = changed[at : at + chance.randrange(1, 40)]
        else:
            changed[at : at + 1] = chance.choice((b"<", b'"', b"9", b"/>", b"\0", b"&#1;"))
    return bytes(changed[: chance.randrange(len(changed))] if chance.random() < 0.2 else changed)


def reads_or_refuses(path) -> bool:
    """Whether a workbook is read; anything but a table or one-line problems fails the test."""
    lines: list[object]
    try:
        table, findings = read(path, sheet="t", wanted=WANTED)
        lines = [*findings.lines()]
    except DataError as refusal:
        table, lines = None, [*refusal.problems]
    assert all("\n" not in str(line) for line in lines)
    assert table is None or len(table.frame)
    return table is not None


@pytest.fixture
def good(save):
    def edit(book):
        merge("B3:B4")(book)
        hide(rows=(5,), columns="C", filtered=True)(book)

    rows = [*NOTES, ["b", "=B2", datetime.datetime(2024, 1, 2)], ["c", "x", True]]
    return save(edit, t=rows, u=ROWS)


def test_garbled_files(good, tmp_path):
    chance, data = random.Random(1), good.read_bytes()
    path = tmp_path / "garbled.xlsx"
    read_whole = 0
    for _ in range(60):
        path.write_bytes(garble(data, chance))
        read_whole += reads_or_refuses(path)
    assert read_whole < 60


def test_garbled_parts(good, parts, tmp_path):
    chance = random.Random(2)
    archive = zipfile.ZipFile(io.BytesIO(good.read_bytes()))
    names = archive.namelist()
    outcomes = []
    for turn in range(120):
        name = SHEET if turn % 2 else chance.choice(names)
        path = tmp_path / "garbled.xlsx"
        with zipfile.ZipFile(path, "w") as changed:
            for each in names:
                data = archive.read(each)
                changed.writestr(each, garble(data, chance) if each == name else data)
        outcomes.append(reads_or_refuses(path))
    assert set(outcomes) == {True, False}


@pytest.mark.parametrize("depth", [100_000])
def test_deep_xml(xml, depth):
    assert "cannot be read as an Excel workbook" in refused(
        xml(f"<sheetData>{cells(1, 'x')}{cells(2, 4)}{'<row>' * depth}</sheetData>")
    )
