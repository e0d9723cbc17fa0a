"""Problems are one line each, with the place before what is wrong."""

from __future__ import annotations

import pytest

from yeast_get.errors import (
    MOST_LINES,
    CheckpointError,
    ConfigError,
    DataError,
    Problem,
    RunError,
    UserError,
    did_you_mean,
    nearest,
)


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (Problem("is bad"), "is bad"),
        (Problem("is bad", "mend it"), "is bad; mend it"),
        (Problem("is bad", "mend it", "a.csv"), "a.csv: is bad; mend it"),
        (Problem("is bad", file="a.yaml", line=3), "a.yaml, line 3: is bad"),
        (
            Problem("is bad", "mend it", "a.xlsx", "Tabelle1", row=7, column="target"),
            "a.xlsx, sheet Tabelle1, row 7, column target: is bad; mend it",
        ),
        (Problem("is\nbad   here"), "is bad here"),
    ],
)
def test_a_problem_reads_place_then_what_then_fix_on_one_line(problem, line):
    assert str(problem) == line


def test_one_problem_or_a_list_of_them_make_one_error():
    assert UserError(Problem("a")).problems == [Problem("a")]
    assert str(UserError([Problem("a"), Problem("b")])) == "a\nb"


@pytest.mark.parametrize(
    ("count", "last"),
    [
        (1, "error: problem 0"),
        (MOST_LINES, "error: problem 19"),
        (MOST_LINES + 1, "error: and 1 more problem of this kind"),
        (MOST_LINES + 30, "error: and 30 more problems of this kind"),
    ],
)
def test_at_most_twenty_lines_are_printed_and_then_a_count(count, last):
    lines = UserError([Problem(f"problem {i}") for i in range(count)]).lines()
    assert len(lines) == min(count, MOST_LINES + 1)
    assert lines[0] == "error: problem 0"
    assert lines[-1] == last


@pytest.mark.parametrize("kind", [ConfigError, DataError, CheckpointError, RunError])
def test_every_kind_is_a_user_error(kind):
    assert issubclass(kind, UserError)


def test_the_nearest_name_is_hinted_at_and_all_names_where_none_is_near():
    names = ["learning_rate", "loss"]
    assert nearest("learnin_rate", names) == "learning_rate"
    assert nearest("xyz", names) is None
    assert did_you_mean("learnin_rate", iter(names)) == "did you mean learning_rate?"
    assert did_you_mean("los", names, "training.") == "did you mean training.loss?"
    assert did_you_mean("xyz", iter(names)) == "known: learning_rate, loss"
    assert did_you_mean("xyz", []) == ""
