"""Cells of a table as they stand in it: numbers, texts, headers."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import pytest

from yeast_get.data.raw_table import RawTable, with_header


def column(cells: list, decimal: str | None = None) -> RawTable:
    frame = pd.DataFrame({"x": pd.Series(cells, dtype=object).infer_objects()})
    frame.index = pd.RangeIndex(2, len(frame) + 2)
    return RawTable(frame, "t.csv", decimal=decimal)


def errors(table: RawTable) -> list[str]:
    return [str(p) for finding in table.findings.errors for p in finding.problems()]


def test_numbers_are_floats_with_nan_for_blank_cells_and_an_error_per_bad_one():
    table = column([1, None, "high", "2e3", np.inf, True, datetime.date(2024, 10, 1), "high"])
    np.testing.assert_array_equal(table.numbers("x"), [1, np.nan, np.nan, 2000] + [np.nan] * 4)
    assert sorted(errors(table)) == [
        "t.csv, row 4, column x: 'high' is not a number; write a number",
        "t.csv, row 6, column x: 'inf' is not a number; write a number",
        "t.csv, row 7, column x: 'True' is not a number; write a number",
        "t.csv, row 8, column x: '2024-10-01' is not a number; write a number",
        "t.csv, row 9, column x: 'high' is not a number; write a number",
    ]
    table.numbers("x")
    assert len(errors(table)) == 5  # said once


def test_a_column_of_numbers_is_taken_whole_and_infinite_cells_are_errors():
    table = column([1.5, np.nan, -np.inf])
    np.testing.assert_array_equal(table.numbers("x"), [1.5, np.nan, np.nan])
    assert errors(table) == [
        "t.csv, row 4, column x: '-inf' is beyond 1e+15 and no measured number; "
        "correct the cell, or clear it"
    ]


@pytest.mark.parametrize("cell", [True, False])
def test_a_column_of_true_and_false_holds_no_numbers(cell):
    table = column([cell, cell])
    assert np.isnan(table.numbers("x")).all()
    assert len(errors(table)) == 2


@pytest.mark.parametrize(
    ("cell", "number"),
    [("３０", 30), ("1×10⁻³", 1e-3), ("10^-3", 1e-3), ("2.5x10^2", 250), ("−5", -5), (" 7 ", 7),
     ("１０²", 100),
     ("30,5", 30.5), ("0,125", 0.125), (".5", 0.5), ("1E5", 1e5)],
)  # fmt: skip
def test_numbers_as_people_write_them(cell, number):
    table = column([cell, 1.0])
    assert table.numbers("x").tolist() == pytest.approx([number, 1])
    assert errors(table) == []


@pytest.mark.parametrize("cell", ["-", "无", "None", "未知", "n/a", "?", "NIL"])
def test_words_for_nothing_are_missing_and_counted(cell):
    table = column([cell, 1.0, cell])
    np.testing.assert_array_equal(table.numbers("x"), [np.nan, 1, np.nan])
    (said,) = table.findings.normalised
    assert (said.column, said.count, said.example) == ("x", 2, repr(cell))


@pytest.mark.parametrize("cell", ["#N/A", "#DIV/0!", "#REF!"])
def test_a_failed_formula_is_missing_and_warned_about(cell):
    table = column([1.0, cell])
    np.testing.assert_array_equal(table.numbers("x"), [1, np.nan])
    (said,) = table.findings.warnings
    assert said.line() == (
        f"t.csv, column x: {cell} is the error value of a formula and counts as missing (row 3); "
        "mend the formula"
    )


@pytest.mark.parametrize(
    ("cell", "decimal", "said"),
    [
        ("1,234", None, "'1,234' can mean 1234 and 1.234; set data.decimal to '.' or ','"),
        ("30,5", ".", "'30,5' has a comma, and the file writes decimal points; write 30.5, or set"),
        ("30.5", ",", "'30.5' has a decimal point, and the file writes decimal commas; write it"),
        ("1,234,567", None, "'1,234,567' is not a number; write it without thousands signs"),
        ("1e400", None, "'1e400' is beyond 1e+15"),
        ("²5", None, "'^25' is not a number"),
        ("5₂", None, "'5_2' is not a number"),
        ("1e39", None, "'1e39' is beyond 1e+15"),
        ("10-3", None, "'10-3' is not a number"),
        ("5 mM", None, "'5 mM' is not a number; write the number alone"),
    ],
)
def test_what_could_be_two_numbers_or_none_is_refused(cell, decimal, said):
    table = column([cell, "x"], decimal)
    table.numbers("x")
    assert any(said in line for line in errors(table))


def test_numbers_beyond_a_32_bit_float_are_errors_and_a_normalised_line_is_one_line():
    table = column([1.0, 1e39])
    np.testing.assert_array_equal(table.numbers("x"), [1, np.nan])
    assert errors(table) == [
        "t.csv, row 3, column x: '1e+39' is beyond 1e+15 and no measured number; "
        "correct the cell, or clear it"
    ]
    table.findings.normalise("x", "quantity", 1, "30\n℃ -> 30 degC")
    assert table.findings.normalised[0].line() == (
        "x: quantity in 1 cell (such as 30 ℃ -> 30 degC)"
    )


def test_texts_are_stripped_and_whole_numbers_have_no_decimal_point():
    assert column([1.0, 2.5, " a ", None]).text("x").tolist() == ["1", "2.5", "a", None]


# -------------------------------------------------------------------------------------- headers


def headed(cells: list[list], header: list) -> tuple[RawTable, pd.DataFrame]:
    table = RawTable(pd.DataFrame(), "t.csv")
    rows = pd.DataFrame(cells, index=pd.RangeIndex(2, len(cells) + 2))
    return table, with_header(rows, header, table)


def test_a_header_that_stands_twice_names_both_positions():
    table, frame = headed([[1, 2, 3]], ["a", "b", "a"])
    assert errors(table) == [
        "t.csv, row 1, column a: 'a' is the header of columns 1 and 3; rename or delete one"
    ]
    assert frame.to_numpy().tolist() == [[1, 2]]


def test_a_column_without_a_header_is_left_out_where_it_is_empty_or_counts_the_rows():
    table, frame = headed([[0, 5, None], [1, 6, None]], [None, "a", " "])
    assert errors(table) == []
    assert list(frame.columns) == ["a"]
    assert [each.column for each in table.findings.normalised] == ["column 1"]


def test_what_pandas_calls_unnamed_has_no_header():
    table, frame = headed([[0, 5, 9], [1, 6, 9]], ["Unnamed: 0", "a", "Unnamed: 2 of us"])
    assert (errors(table), list(frame.columns)) == ([], ["a", "Unnamed: 2 of us"])
    table, _ = headed([[7, 5], [7, 6]], ["Unnamed: 0", "a"])
    assert "column 1 ('Unnamed: 0') has no header and holds '7'" in errors(table)[0]
    table, frame = headed([[0, 0, 5], [1, 1, 6]], ["Unnamed: 0.1", "Unnamed: 0", "a"])
    assert (errors(table), list(frame.columns)) == ([], ["a"])


def test_every_cell_in_a_column_without_a_header_is_an_error_of_its_row():
    table, _ = headed([[1, None], [2, "x"], [3, "y"]], ["a"])
    assert errors(table) == [
        "t.csv, row 3: column 2 has no header and holds 'x'; name it, or delete the column",
        "t.csv, row 4: column 2 has no header and holds 'y'; name it, or delete the column",
    ]
