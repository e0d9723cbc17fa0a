"""Text tables: what is read from each kind of file, and the exact words where it is refused."""

from __future__ import annotations

import csv
import gzip
import io
import logging
import random
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from yeast_get.data import text_layout, text_source, text_table
from yeast_get.data.excel_dates import check_dates
from yeast_get.data.findings import Findings
from yeast_get.data.raw_table import RawTable
from yeast_get.data.text_table import read_text_table
from yeast_get.errors import DataError

CHINESE = "基因,温度\n雨,30\n"


def is_name(header: str) -> bool:
    return "gene" in header or header == "sample_id"


@pytest.fixture
def read(tmp_path):
    """Write text or bytes to a file and read it as a table."""

    def read(content: str | bytes, name: str = "t.csv", **options) -> RawTable:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_text_table(path, Findings(), is_text=is_name, **options)

    return read


@pytest.fixture
def refusal(read):
    """What is said of a file that is not read, without its folder."""

    def refusal(content: str | bytes, **options) -> str:
        with pytest.raises(DataError) as caught:
            read(content, **options)
        assert len(caught.value.problems) == 1
        said = str(caught.value)
        assert "\n" not in said
        return said[said.index("t.csv") :]

    return refusal


def content(table: RawTable) -> dict:
    """Every cell by column, NaN as None, under the row numbers."""
    frame = table.frame.astype(object).where(table.frame.notna(), None)
    return {"row": list(frame.index), **frame.to_dict("list")}


def errors(table: RawTable) -> list[str]:
    """The errors in a table, one line per cell, without the folder."""
    lines = [line for finding in table.findings.errors for line in map(str, finding.problems())]
    return [line[line.index("t.csv") :] for line in lines]


def normalised(table: RawTable) -> list[tuple[str, str, int, str]]:
    return [(n.column, n.what, n.count, n.example) for n in table.findings.normalised]


# ------------------------------------------------------------------------------------- encodings


def test_plain_utf8_says_nothing_about_its_encoding(read):
    table = read(CHINESE)
    assert content(table) == {"row": [2], "基因": ["雨"], "温度": [30]}
    assert normalised(table) == []


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (CHINESE.encode("utf-8-sig"), ("t.csv", "read as UTF-8 with a byte-order mark", 0, "")),
        (CHINESE.encode("gb18030"), ("t.csv", "read as GB18030", 0, "基因")),
        (
            b"\xff\xfe" + CHINESE.encode("utf-16-le"),
            ("t.csv", "read as UTF-16 with a byte-order mark", 0, "基因"),
        ),
        (
            b"\xfe\xff" + CHINESE.encode("utf-16-be"),
            ("t.csv", "read as UTF-16 with a byte-order mark", 0, "基因"),
        ),
    ],
)
def test_other_encodings_are_read_and_named(read, caplog, raw, said):
    with caplog.at_level(logging.INFO, "yeast_get"):
        table = read(raw)
    assert content(table) == {"row": [2], "基因": ["雨"], "温度": [30]}
    assert normalised(table) == [said]
    assert [record.getMessage().split("t.csv: ")[1] for record in caplog.records] == [said[1]]


def test_letters_are_whole_where_blocks_part_them(read, monkeypatch):
    text = "gene,n\n" + "".join(f"基因é{i},{i}\n" for i in range(50))
    whole = content(read(text))
    for size in (7, 8, 9, 64):
        monkeypatch.setattr(text_source, "BLOCK", size)
        for codec in ("utf-8", "utf-16", "gb18030"):
            assert content(read(text.encode(codec))) == whole


def test_gb18030_far_below_the_header(read):
    table = read(b"gene,n\n" + b"A,1\n" * 5 + "温,2\n".encode("gb18030"))
    assert content(table)["gene"] == ["A"] * 5 + ["温"]


def test_gb18030_with_a_byte_order_mark(read):
    table = read('\ufeff"温,b",c\n1,2\n'.encode("gb18030"))
    assert list(table.frame.columns) == ["温,b", "c"]


def test_letter_that_a_block_breaks_off(refusal, monkeypatch):
    monkeypatch.setattr(text_source, "BLOCK", 8)
    said = refusal(b"gene,n\n\xc3,1\nB,2\nC,3\nD,4\n")
    assert "(byte 0xc3 in row 2)" in said


def test_gb18030_header_with_a_line_break(read):
    assert list(read('"temp\n(℃)",b\n1,2\n'.encode("gb18030")).frame.columns) == ["temp\n(℃)", "b"]


@pytest.mark.parametrize(
    ("raw", "byte", "row"),
    [
        (b"gene,n\nA,1\n\n\xff,2\n", "ff", 4),
        (b'gene,n\n"A\nB",1\nC\xe9,2\n', "e9", 3),
        (b"\xff,n\n", "ff", 1),
        (b"gene,n\nA,\xc3", "c3", 2),
        ("gene,n\nA,1\n\ue5e5\ue5e6,2\n".encode("gb18030"), "a3", 3),  # private use
        (b"gene,n\nA,1\n\x01\xce\xc2,2\n", "ce", 3),  # a control character
    ],
)
def test_neither_utf8_nor_gb18030(refusal, raw, byte, row):
    if byte == "a3":
        byte = f"{raw.split(chr(10).encode())[2][0]:02x}"
    assert refusal(raw) == (
        f"t.csv: is neither UTF-8 nor GB18030 text (byte 0x{byte} in row {row}); save it as UTF-8"
    )


def test_utf16_that_is_cut_off(refusal):
    raw = CHINESE.encode("utf-16")[:-1]
    assert refusal(raw) == "t.csv: is no valid UTF-16 text; save it as UTF-8"


@pytest.mark.parametrize(
    "raw",
    [
        CHINESE.encode("utf-16-le"),
        b"a,b\n1,\x002\n",
        b"a\x00\xff,b\n",
        "a,b\n1,\0\n".encode("utf-16"),
    ],
)
def test_nul_bytes(refusal, raw):
    said = "holds NUL bytes: it is no text table, or UTF-16 without its byte-order mark"
    assert refusal(raw) == f"t.csv: {said}; save it as UTF-8"


# ------------------------------------------------------------------------------------------ gzip


def test_gzip_is_known_by_its_content(read):
    plain = content(read("gene,n\nA,1\nB,2\n"))
    assert content(read(gzip.compress(b"gene,n\nA,1\nB,2\n"), "t.csv")) == plain
    parts = gzip.compress(b"gene,n\nA,1\n") + gzip.compress(b"B,2\n")
    assert content(read(parts, "t.csv.gz")) == plain
    assert content(read("gene,n\nA,1\nB,2\n", "t.csv.gz")) == plain
    assert content(read(gzip.compress("基因,n\n雨,1\n".encode("gb18030"))))["基因"] == ["雨"]


def test_gzip_that_is_damaged(refusal):
    packed = gzip.compress(b"gene,n\nA,1\n" * 100)
    crc = packed[:-8] + b"\0\0\0\0" + packed[-4:]
    fix = "copy or download it again"
    cut = "Compressed file ended before the end-of-stream marker was reached"
    assert refusal(packed[:-20]) == f"t.csv: cannot be unpacked: {cut}; {fix}"
    assert refusal(packed[:2]) == f"t.csv: cannot be unpacked: {cut}; {fix}"
    assert refusal(crc).startswith("t.csv: cannot be unpacked: CRC check failed")
    said = refusal(packed + b"garbage")
    assert said == f"t.csv: cannot be unpacked: Not a gzipped file (b'ga'); {fix}"


def test_gzip_bomb(refusal, monkeypatch):
    bomb = gzip.compress(b"a,b\n" + b"1,2\n" * (4 << 20))
    monkeypatch.setattr(text_source, "MOST_UNPACKED", 1 << 20)
    monkeypatch.setattr(text_source, "BLOCK", 1 << 16)
    monkeypatch.setattr(text_layout, "_HEAD", 1 << 16)
    tracemalloc.start()
    said = refusal(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert said == "t.csv: unpacks to more than 0 GiB; unpack it and split it"
    assert peak < 6 << 20
    assert text_source.MOST_UNPACKED == 1 << 20


def test_no_such_file(tmp_path):
    with pytest.raises(DataError, match="t.csv: cannot be read: No such file or directory; check"):
        read_text_table(tmp_path / "t.csv", Findings())


# ----------------------------------------------------------------------------- what is no table


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; it needs a header and rows"),
        ("\n \r\n\n,,\n", "is empty; it needs a header and rows"),
        ("gene,n\n", "has a header and no rows; add rows"),
        ("\ngene,n\n\n,,\n", "has a header and no rows; add rows"),
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "is a git-lfs pointer, not the table; run git lfs pull",
        ),
        (
            "\n<!DOCTYPE html>\n<html>",
            "is a web page and no table, perhaps that of a login; download the table itself",
        ),
        (
            "<html><body>",
            "is a web page and no table, perhaps that of a login; download the table itself",
        ),
        *(
            (
                start,
                "is a GEO series matrix, genes by samples; take the lines between "
                "!series_matrix_table_begin and !series_matrix_table_end as expression.csv of a "
                "data folder (ID_REF becomes region_id), and the !Sample_ lines as samples.csv",
            )
            for start in (
                '!Series_title\t"A"\n!Sample_title\t"a"\n',
                '!Sample_title\t"a"\n',
                '!series_matrix_table_begin\n"ID_REF"\t"GSM1"\n',
            )
        ),
        (
            "# made by hand\ngene,n\n",
            "begins with a comment line; delete the lines before the header, "
            "and a # before its first name",
        ),
        ("sep=;\ngene;n\nA;1\n", "begins with a line for Excel, 'sep='; delete this line"),
    ],
)
def test_what_is_no_table(refusal, text, said):
    assert refusal(text) == f"t.csv: {said}"


def test_lines_without_end(refusal, monkeypatch):
    monkeypatch.setattr(text_layout, "MOST_RECORD", 1000)
    monkeypatch.setattr(text_layout, "_HEAD", 100)
    monkeypatch.setattr(text_source, "BLOCK", 100)
    what = "has no line of text in its first 0 MiB"
    assert refusal("\n" * 5000) == f"t.csv: {what}; check that it is a text table"
    assert refusal("x" * 5000) == f"t.csv: {what}; check that it is a text table"
    what = "has more than 0 MiB in a line"
    said = refusal("a,b\n" + "1,2\n" * 100 + "x" * 5000)
    assert said == f"t.csv, row 102: {what}; check that it is a text table"


def test_a_cell_without_end(refusal):
    what = "holds a cell of more than 131,072 characters"
    said = refusal("x" * 200_000)
    assert said == f"t.csv, row 1: {what}; check that it is a text table"
    said = refusal('a,b\n1,2\n"' + "x" * 200_000 + '",2,""\n')
    assert said == f"t.csv, row 3: {what}; check that it is a text table"


def test_too_many_rows_that_do_not_fit(refusal, monkeypatch):
    monkeypatch.setattr(text_layout, "_MOST_LEFT_OUT", 10)
    what = "has more than 10 rows that are blank or do not fit the header"
    assert refusal("a,b\n1,2\n" + "\n" * 11) == f"t.csv: {what}; check that it is the table"
    assert refusal("a,b\n1,2\n" + "1\n" * 11) == f"t.csv: {what}; check that it is the table"
    rows = '"1"x,2\n' * 11
    assert refusal("a,b\n1,2\n" + rows) == f"t.csv: {what}; check that it is the table"


# ------------------------------------------------------------------------------------ delimiters


@pytest.mark.parametrize("delimiter", "\t,;|")
def test_delimiters(read, delimiter):
    text = "gene,n,m\nA,1,2\nB,3,4\n".replace(",", delimiter)
    assert content(read(text)) == {"row": [2, 3], "gene": ["A", "B"], "n": [1, 3], "m": [2, 4]}


def test_delimiter_of_a_header_with_commas_in_names(read):
    text = "temp, in C;OD, at end;n\n30;0,5;1\n30;0,6;2\n"
    table = read(text)
    assert list(table.frame.columns) == ["temp, in C", "OD, at end", "n"]
    table = read('"a;b;c;d",n\nx,1\n')
    assert list(table.frame.columns) == ["a;b;c;d", "n"]


def test_delimiter_that_most_rows_fit(read):
    table = read("a;x,b\n" + "1,2\n" * 5)
    assert list(table.frame.columns) == ["a;x", "b"]


def test_one_column(read):
    assert content(read("gene\nA\nB\n")) == {"row": [2, 3], "gene": ["A", "B"]}


def test_title_above_the_header(read):
    table = read("My results\ngene,n\nA,1\n")
    assert errors(table) == [
        f"t.csv, row {row}: has 2 cells where the header has 1; if the first row is a title, "
        "delete it"
        for row in (2, 3)
    ]


# -------------------------------------------------------------------------------- rows and quotes


def test_blank_rows_keep_their_numbers(read):
    table = read('\n  \ngene,n\nA,1\n\n,\n" ", \nB,2\n""\n')
    assert content(table) == {"row": [4, 8], "gene": ["A", "B"], "n": [1, 2]}
    assert errors(table) == []


def test_a_cell_that_is_a_quote_is_not_blank(read):
    assert content(read('gene,n\n"""",\n,1\n')) == {
        "row": [2, 3],
        "gene": ['"', None],
        "n": [None, 1],
    }


def test_a_delimiter_in_quotes_is_not_blank(read):
    assert content(read('gene,n\n",",\n,"\n"\n'))["gene"] == [","]


def test_long_rows(read):
    table = read("gene,n,m\nADE5,7,1,2\nA,1,2\nDur1,2,3,4\nB,1,2,x\nC,1,2,3,4\n")
    assert content(table) == {"row": [3], "gene": ["A"], "n": [1], "m": [2]}
    assert errors(table) == [
        "t.csv, row 2: has 4 cells where the header has 3; "
        'write "ADE5,7" in quotes, or its systematic name YGL234W',
        "t.csv, row 4: has 4 cells where the header has 3; "
        'write "DUR1,2" in quotes, or its systematic name YBR208C',
        "t.csv, row 5: has 4 cells where the header has 3; "
        'quote cells that hold the delimiter, as in "ADE5,7"',
        "t.csv, row 6: has 5 cells where the header has 3; "
        'quote cells that hold the delimiter, as in "ADE5,7"',
    ]
    assert {finding.kind for finding in table.findings.errors} == {"ragged row"}
    assert table.findings.errors[0].values == ["ADE5,7,1,2"]


def test_one_long_row_alone(read):
    assert errors(read("gene,n\nARG5,6,1\n")) == [
        "t.csv, row 2: has 3 cells where the header has 2; "
        'write "ARG5,6" in quotes, or its systematic name YER069W'
    ]
    assert errors(read('gene,t,n\n"ADE5,7",x,y,1\n')) == [
        "t.csv, row 2: has 4 cells where the header has 3; "
        'quote cells that hold the delimiter, as in "ADE5,7"'
    ]


def test_long_rows_of_another_delimiter(read):
    assert errors(read("gene\tn\nADE5,7\t1\t2\nA\t1\n")) == [
        "t.csv, row 2: has 3 cells where the header has 2; quote cells that hold the delimiter"
    ]


def test_short_rows_are_one_finding(read):
    table = read("gene,n,m\nA,1\nB,1,2\nmade by hand in the laboratory on a very long day in the "
                 "year 2024\nC,2\n")  # fmt: skip
    assert [list(finding.rows) for finding in table.findings.errors] == [[2, 5], [4]]
    fix = "the row is cut off, or is a note; complete or delete it"
    assert errors(table) == [
        f"t.csv, row 2: has 2 cells where the header has 3; {fix}",
        f"t.csv, row 5: has 2 cells where the header has 3; {fix}",
        f"t.csv, row 4: has 1 cell where the header has 3; {fix}",
    ]
    assert table.findings.errors[1].values == [
        "made by hand in the laboratory on a very long day in the year 2024"[:60]
    ]
    assert content(table)["row"] == [3]


def test_many_ragged_rows_are_quoted_in_part(read, monkeypatch):
    monkeypatch.setattr(text_layout, "_MOST_VALUES", 2)
    table = read("gene,n\nA,1\n" + "B\n" * 4)
    assert table.findings.errors[0].values == ["B", "B", "", ""]


def test_header_without_the_first_name(read):
    table = read("temp\tn\nA\t1\t2\nB\t3\t4\n")
    assert content(table) == {"row": [], "temp": [], "n": []}
    assert errors(table) == [
        f"t.csv, row {row}: has 3 cells where the header has 2; "
        "R leaves out the first header; write it in front of the others"
        for row in (2, 3)
    ]


def test_blank_cells_beyond_the_header_are_no_cells(read):
    table = read('gene,n\nA,1\nB,2,,\nC,3, ,""," "\nD,4,,x\n')
    assert content(table) == {"row": [2, 3, 4], "gene": ["A", "B", "C"], "n": [1, 2, 3]}
    assert [list(finding.rows) for finding in table.findings.errors] == [[5]]


def test_header_that_ends_in_blank_names(read):
    table = read("gene,n,,\nA,1,,\nB,2,,x\n")
    assert content(table) == {"row": [2, 3], "gene": ["A", "B"], "n": [1, 2]}
    assert errors(table) == [
        "t.csv, row 3: column 4 has no header and holds 'x'; name it, or delete the column"
    ]


def test_header_is_stripped_and_repeated_names_refused(read):
    table = read("\ufeff\ufeff gene , n, n\nA,1,2\n")
    assert content(table) == {"row": [2], "gene": ["A"], "n": [1]}
    assert errors(table) == [
        "t.csv, row 1, column n: 'n' is the header of columns 2 and 3; rename or delete one"
    ]


def test_note_at_the_bottom_is_left_to_later_checks(read):
    assert content(read("gene,n,m\nA,1,2\ntotal,,\n"))["gene"] == ["A", "total"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_and_line_breaks_in_quotes(read, end):
    text = f'gene,n{end}"A{end}x",1{end}{end}B,2{end}"C,""c""",3'
    table = read(text)
    assert content(table) == {
        "row": [2, 4, 5],
        "gene": [f"A{end}x", "B", 'C,"c"'],
        "n": [1, 2, 3],
    }
    assert errors(table) == []


def test_mixed_line_ends(read):
    assert content(read("gene,n\nA,1\rB,2\r\n\r\r\nC,3\n"))["row"] == [2, 3, 6]


def test_quote_in_the_middle_of_a_cell_is_a_letter(read):
    table = read('gene,n,m\nA,5" plate,1\n\n"B\nb",6" plate,2,,\nC,1\nD,1,2,3\n')
    assert content(table) == {
        "row": [2, 4],
        "gene": ["A", "B\nb"],
        "n": ['5" plate', '6" plate'],
        "m": [1, 2],
    }
    assert [list(finding.rows) for finding in table.findings.errors] == [[5], [6]]


def test_cell_that_goes_on_behind_its_quote(read):
    table = read('gene,n,m\n"A,1,2\n"B",3,4\nC,5,6\n')
    assert content(table)["row"] == [3]
    assert [finding.kind for finding in table.findings.errors] == ["quote"]
    assert errors(table) == [
        "t.csv, row 2: a cell goes on behind its closing quote; "
        'write a quote inside a cell twice, as in "5"" plate", or close the cell before'
    ]


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ('gene,n\nA,1\n\n"B,2\nC,3\n', 4),
        ('"gene,n\nA,1\n', 1),
        ('gene,n\n"A\nx",1\n"B' + ",3\n" * 50_000, 3),
    ],
)
def test_quote_that_never_closes(refusal, text, row):
    said = f"t.csv, row {row}: a quote opens and never closes; close or delete it"
    assert refusal(text) == said


def test_long_open_quote_is_given_up(refusal, monkeypatch):
    monkeypatch.setattr(text_layout, "MOST_RECORD", 5000)
    monkeypatch.setattr(text_layout, "_HEAD", 1000)
    monkeypatch.setattr(text_source, "BLOCK", 1000)
    count, sizes = text_layout._count_cells, []

    def counted(data: bytes, *others) -> int:
        sizes.append(len(data))
        return count(data, *others)

    monkeypatch.setattr(text_layout, "_count_cells", counted)
    text = 'gene,n\nA,1\n"B' + ",3\n" * 50_000
    assert refusal(text).startswith("t.csv, row 3: a quote opens and never closes")
    assert max(sizes) < 7000


# ----------------------------------------------------------------------------- numbers and texts


@pytest.mark.parametrize(
    ("text", "decimal", "cells"),
    [
        ("a;b\n30,5;1\n0,25;2\n", ",", [30.5, 0.25]),
        ("a;b\n30,5;1\n1,250;2\n", ",", [30.5, 1.25]),
        ("a;b\n30.5;1\n1,250;2\n", ".", ["30.5", "1,250"]),
        ("a;b\n30.5;1\n0,25;2\n", ".", ["30.5", "0,25"]),
        ("a;b\n1,234;1\n2,500;2\n", None, ["1,234", "2,500"]),
        ("a;b\n0,234;1\n2,500;2\n", ",", [0.234, 2.5]),
        ("a;b\n1;1\nx,5;2\n", None, ["1", "x,5"]),
        ('a,b\n"30,5",1\n"0,25",2\n', None, ["30,5", "0,25"]),
        ("a,b\n.5,1\n1.5e-3,2\n", ".", [0.5, 0.0015]),
        ("a\tb\n-1,5E3\t1\n+2,5\t2\n", ",", [-1500, 2.5]),
    ],
)
def test_decimal_sign(read, text, decimal, cells):
    table = read(text)
    assert table.decimal == decimal
    assert content(table)["a"] == cells


def test_decimal_sign_is_not_read_off_half_a_row(read, monkeypatch):
    monkeypatch.setattr(text_source, "BLOCK", 16)
    monkeypatch.setattr(text_layout, "_HEAD", 16)
    text = "a;b\n1,234;5\n1,234;5\n"
    assert text[:16].endswith("\n1,23")
    assert read(text).decimal is None


def test_decimal_sign_of_text_columns_does_not_count(read):
    assert read("gene;n\n1.5;30,5\n").decimal == ","


def test_decimal_comma_declared(read):
    table = read("a;b;c;d\n30,5;30.5;1,234;1.234,5\n1;2;3;4\n", decimal=",")
    assert table.decimal == ","
    assert content(table) == {
        "row": [2, 3],
        "a": [30.5, 1.0],
        "b": ["30.5", "2"],
        "c": [1.234, 3.0],
        "d": ["1.234,5", "4"],
    }


def test_decimal_point_declared(read):
    table = read("a;b\n30,5;1\n", decimal=".")
    assert (table.decimal, content(table)["a"]) == (".", ["30,5"])


def test_text_columns_stay_as_written(read):
    table = read("gene, sample_id ,n\n001,1E5,001\n A , , 2 \nNA, NA ,3\n")
    assert content(table) == {
        "row": [2, 3, 4],
        "gene": ["001", "A", None],
        "sample_id": ["1E5", None, None],
        "n": [1, 2, 3],
    }


def test_missing_cells(read):
    cells = ["", "NA", "N/A", "NaN", "nan", "null", "NULL"]
    table = read("n,m\n1,1\n" + "".join(f"{cell},1\n" for cell in cells) + "none,1\n")
    assert content(table)["n"] == ["1", *[None] * 7, "none"]
    assert content(read("n,m\n" + "".join(f"{cell},1\n" for cell in cells)))["n"] == [None] * 7


CHUNKS = {
    "late text": (["001", "002", "003", "x"], ["001", "002", "003", "x"]),
    "early text": (["x", "002", "003", "004"], ["x", "002", "003", "004"]),
    "late float": (["1", "2", "3", "4.5"], [1, 2, 3, 4.5]),
    "late blank": (["1", "2", "", "4"], [1, 2, None, 4]),
    "late number": (["", "", "3", "4"], [None, None, 3, 4]),
    "late word": (["", "", "x", ""], [None, None, "x", None]),
    "truth": (["True", "", "False", "True"], [True, None, False, True]),
    "truth and number": (["True", "False", "1", "0"], ["True", "False", "1", "0"]),
    "large": (["9007199254740993", "2", "3", "4"], [9007199254740993, 2, 3, 4]),
    "nothing": (["", "", "", ""], [None] * 4),
}


@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_columns_are_the_same_in_chunks_and_whole(read, monkeypatch, chunk):
    monkeypatch.setattr(text_table, "_CHUNK", chunk)
    rows = zip(*(cells for cells, _ in CHUNKS.values()), strict=True)
    table = read("\n".join([",".join(CHUNKS), *(",".join(row) for row in rows)]))
    assert content(table) == {"row": [2, 3, 4, 5]} | {
        name: wanted for name, (_, wanted) in CHUNKS.items()
    }
    assert [table.frame[name].dtype.kind for name in ("large", "late float", "nothing")] == [
        "i",
        "f",
        "f",
    ]


# ----------------------------------------------------------------------------------------- dates


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ("1-Oct", "OCT1"),
        ("07-Sep", "SEP7"),
        ("1-Oct-24", "OCT1"),
        ("Oct-01", "OCT1"),
        ("2024-10-01", "OCT1"),
        ("2024-10-01 00:00:00", "OCT1"),
        ("2024/10/1", "OCT1"),
        ("10/1/2024", "OCT1"),
        ("31/12/2024", "DEC31"),
        ("10月1日", "OCT1"),
    ],
)
def test_dates_in_columns_of_names(read, cell, name):
    table = read(f"gene,when\nYAL001C,{cell}\n{cell},{cell}\n")
    assert errors(table) == [
        f"t.csv, row 3, column gene: '{cell}' is a date where a name is expected; "
        f"Excel changed it: the original was probably {name}; type it again"
    ]
    assert table.findings.errors[0].kind == "date"
    assert list(table.frame[table.good()].index) == [2]


@pytest.mark.parametrize(
    "cell", ["OCT1", "Oct1", "OCT-1", "2024-13-32", "2024-12-32", "1-2", "YAL001C-A", "13月1日x"]
)
def test_what_is_no_date(read, cell):
    assert errors(read(f"gene,n\n{cell},1\n")) == []


def test_number_of_a_day_among_genes(read):
    rows = ["45566,45566", "YAL001C,a", "YAL002W,b", "12,c", ",d", "99999,e", "A,f", "B,g"]
    text = "\n".join(["gene,sample_id", *rows])
    assert errors(read(text)) == [
        "t.csv, row 2, column gene: '45566' is the number of a date where a name is expected; "
        "Excel changed it: the original was probably OCT1; type it again"
    ]
    assert errors(read("gene,n\n45566,1\n45567,2\nA,3\n")) == []  # ids of NCBI


def test_dates_of_a_workbook():
    cells = [pd.Timestamp("2024-09-07"), "A", None, pd.Timestamp("2024-09-07")]
    table = RawTable(pd.DataFrame({"gene": cells}, index=[2, 3, 4, 5], dtype=object), "t.xlsx")
    check_dates(table, ["gene"])
    (finding,) = table.findings.errors
    assert list(finding.rows) == [2, 5]
    assert finding.fix == "Excel changed it: the original was probably SEP7; type it again"


# ---------------------------------------------------------------------------------------- at large


def random_table(rng: np.random.Generator) -> tuple[str, dict]:
    """A table as a program writes it, and its cells."""
    delimiter = str(rng.choice(list(",;\t")))
    width, rows = int(rng.integers(2, 6)), int(rng.integers(1, 30))
    letters = ["a", "b", '"', "\n", ",", ";", "\t", "é", "温", "x", "y"]
    cells = [
        ["".join(rng.choice(letters, rng.integers(1, 6))) + "." for _ in range(width)]
        for _ in range(rows)
    ]
    end = str(rng.choice(["\n", "\r\n"]))
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end)
    names = [f"gene{i}" for i in range(width)]
    writer.writerow(names)
    index = []
    row = 1
    for cell in cells:
        if rng.random() < 0.2:
            text.write(end)
            row += 1
        writer.writerow(cell)
        row += 1
        index.append(row)
    columns = {name: [cell[i].strip() for cell in cells] for i, name in enumerate(names)}
    return text.getvalue(), {"row": index, **columns}


@pytest.mark.parametrize("slow", [False, True])
def test_random_tables_come_back_cell_by_cell(read, monkeypatch, slow):
    def never(*_):
        raise AssertionError("the other pass")

    def irregular(*_):
        raise text_layout.Irregular

    monkeypatch.setattr(text_source, "BLOCK", 64)
    monkeypatch.setattr(text_table, "_CHUNK", 300)
    name, instead = ("_scan_fast", irregular) if slow else ("_scan_slowly", never)
    monkeypatch.setattr(text_layout, name, instead)
    rng = np.random.default_rng(1)
    for _ in range(150):
        text, wanted = random_table(rng)
        table = read(text)
        assert content(table) == wanted
        assert errors(table) == []


def mutated(rng: np.random.Generator) -> bytes:
    """Random bytes, or a file with some bytes or letters changed."""
    if rng.random() < 0.2:
        start = (b"", b"\x1f\x8b", b"\xff\xfe", b"\xef\xbb\xbf", b"gene,n\n")[rng.integers(5)]
        return start + rng.integers(0, 256, rng.integers(0, 300)).astype(np.uint8).tobytes()
    text = random_table(rng)[0]
    raw = bytearray(text.encode(str(rng.choice(["utf-8", "utf-16", "gb18030", "utf-8-sig"]))))
    letters = b'",;\t|\n\r \x00\xff\x80' if rng.random() < 0.3 else b'",;\t|\n\r '
    for _ in range(rng.integers(1, 8)):
        at = int(rng.integers(len(raw)))
        raw[at : at + int(rng.integers(0, 2))] = bytes([letters[rng.integers(len(letters))]])
    packed = gzip.compress(bytes(raw)) if rng.random() < 0.2 else bytes(raw)
    return packed[: rng.integers(1, len(packed))] if rng.random() < 0.1 else packed


def test_damaged_files_load_or_are_refused_in_one_line(read):
    rng = np.random.default_rng(2)
    loaded, refused = 0, []
    for _ in range(400):
        try:
            table = read(mutated(rng))
        except DataError as error:
            refused += [str(error)]
        else:
            loaded += 1
            assert not set(table.frame.index) & {
                int(row) for found in table.findings.errors if found.kind in ("ragged row", "quote")
                for row in found.rows
            }  # fmt: skip
    assert loaded > 50
    assert len(refused) > 50
    assert all("\n" not in said and ": " in said for said in refused)


def test_irregular_files_are_read_alike_by_both_passes(read, monkeypatch):
    rng = np.random.default_rng(3)
    raws = [raw for raw in (mutated(rng) for _ in range(300)) if raw[:2] != b"\x1f\x8b"]

    def outcome(raw: bytes) -> tuple:
        try:
            table = read(raw)
        except DataError as error:
            return (str(error),)
        return list(table.frame.index), [str(f.line()) for f in table.findings.errors]

    both = [outcome(raw) for raw in raws]

    def irregular(*_):
        raise text_layout.Irregular

    monkeypatch.setattr(text_layout, "_scan_fast", irregular)
    assert [outcome(raw) for raw in raws] == both


# ------------------------------------------------------------------------------- large files

PLAIN = "id,a,b\nx,1,2\ny,3,4\nz,5,6\n"


def outcome(path, monkeypatch, large: int):
    """Cells, findings and decimal sign of a file, or its refusal; parsed ahead from `large` on."""
    monkeypatch.setattr(text_table, "_LARGE", large)
    monkeypatch.setattr(text_table, "_PIECE", 11)  # about a row
    findings = Findings()
    try:
        table = read_text_table(path, findings, is_text=lambda header: header == "id")
    except DataError as error:
        return [str(problem) for problem in error.problems]
    said = [str(problem) for finding in findings.errors for problem in finding.problems()]
    return content(table), table.decimal, said, normalised(table)


@pytest.mark.parametrize(
    "text",
    [
        PLAIN, PLAIN + "w,7\n", PLAIN + "w,7,8,9\n", PLAIN + "w,7,8,9,10\n", "\n" + PLAIN,
        PLAIN + "\n", PLAIN + "w,7,\n", PLAIN + "w,7,8,\n", "id,a,b\nx,1,2,3\ny,3,4\n",
        PLAIN.replace("\n", "\r\n"), PLAIN + '"w",7,8\n', PLAIN + "w,\u00e9,8\n", PLAIN + "w,x,8",
        "id,a,b\nr1,x,1,NA\nr2,y,3,NA\n", "id,a,b\nx,1,2,,note\ny,3,4\n", PLAIN + ",, \n",
        PLAIN + "w,7,8,,9\n", "id,a,b\n" + "x,0,1\n" * 9 + "y,5 mM,2\n" * 9, PLAIN + "w\n" * 90,
        "id;a;b\nx;1,5;2\ny;2,5;3\n", "id,a,b\n", PLAIN + " ,,\n", PLAIN + "001,007,1E5\n",
    ],
)  # fmt: skip
def test_a_file_that_is_parsed_ahead_is_the_same(tmp_path, monkeypatch, text):
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8", newline="")
    assert outcome(path, monkeypatch, 0) == outcome(path, monkeypatch, 1 << 30)


def test_a_file_of_several_kinds_in_a_column_need_not_be_counted(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    path.write_text("\n\nid,a,b\n" + "x,0,1\n" * 50 + "yyyy,5 mM,2\n" * 50, encoding="utf-8")
    monkeypatch.setattr(text_table, "scan", None)
    assert outcome(path, monkeypatch, 0)[0]["a"] == ["0"] * 50 + ["5 mM"] * 50


def test_damaged_files_that_are_parsed_ahead_are_the_same(tmp_path, monkeypatch):
    rng = random.Random(0)
    path = tmp_path / "t.csv"
    for _ in range(300):
        raw = bytearray(("id,a,b\n" + "x,1.5,2\n" * 30).encode())
        for _ in range(rng.randint(0, 3)):
            at = rng.randrange(8, len(raw))
            raw[at : at + rng.randint(0, 1)] = rng.choice([b",", b"\n", b" ", b"7", b"\xe9", b'"'])
        path.write_bytes(raw)
        assert outcome(path, monkeypatch, 0) == outcome(path, monkeypatch, 1 << 30), bytes(raw)


def test_a_plain_large_file_is_not_counted(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    path.write_text(PLAIN)
    monkeypatch.setattr(text_table, "scan", None)
    table, *_ = outcome(path, monkeypatch, 0)
    assert table == {"row": [2, 3, 4], "id": ["x", "y", "z"], "a": [1, 3, 5], "b": [2, 4, 6]}
