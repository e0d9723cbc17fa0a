"""Ids, names and words of a table are texts: no output obeys them, and none leaves the folder."""

from __future__ import annotations

import csv
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import torch

import evaluate_yeast
import train_yeast
from tests.conftest import SMALL, options
from yeast_get.errors import Problem, printable
from yeast_get.evaluation.canvas import as_cell, as_text, read_columns
from yeast_get.evaluation.output_tables import write_csv

FORMULAS = ["=cmd|' /C calc'!A0", "+1+2", "-10_promoter", "@SUM(A1)", "\t=1", "\r=1", "'=1",
            "''-x", "\n=1", "＝1", "＋1", "－x", "＠S", "-1_0", "-nan", "-inf", "\t5"]  # fmt: skip
PLAIN = ["chrI_1_501", "-5", "+5", "1e-3", "-.5", "'quoted'", "", "a=b", "3-AT", "-1.5e3"]
SCRIPT = "<script>alert(1)</script>"
NO_PAGE = "report.enabled=false"
IMAGE = '"><img src=x onerror=alert(1)>'


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_written_behind_an_apostrophe_and_read_as_it_was(text):
    assert as_cell(text) == f"'{text}"
    assert as_text(as_cell(text)) == text


@pytest.mark.parametrize("text", PLAIN)
def test_all_else_is_written_as_it_is(text):
    assert as_cell(text) == text
    assert as_text(text) == text


def test_a_table_comes_back_as_it_was_and_its_numbers_are_untouched(tmp_path):
    words = [*FORMULAS[:4], "plain", None]
    frame = pd.DataFrame(
        {
            "word": words,
            "kind": pd.Categorical.from_codes([0, 1, 2, 0, 1, -1], ["=a", "'=a", "b"]),
            "number": [-1.5, np.nan, -np.inf, 1e30, -0.0, 2],
            "=head": range(6),
        }
    )
    before = frame.copy(deep=True)
    write_csv(frame, tmp_path / "t.csv")
    pd.testing.assert_frame_equal(frame, before)
    with (tmp_path / "t.csv").open(newline="") as handle:
        rows = list(csv.reader(handle))
    cells = [
        cell for row in rows for cell in row if not cell.lstrip("-").startswith(("1", "i", "0"))
    ]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    assert rows[1][2] == "-1.5"
    back = read_columns(tmp_path / "t.csv", ["word", "kind", "number"], dtype={"kind": "category"})
    assert list(back["word"].dropna()) == words[:-1]
    assert list(back["kind"].astype(object).dropna()) == ["=a", "'=a", "b", "=a", "'=a"]
    np.testing.assert_array_equal(back["number"], frame["number"])


def test_what_a_terminal_would_obey_is_written_out():
    said = str(Problem("\x1b[2J\x1b]0;owned\x07 a\nb \u202e \ud800", "\x9b31m", file="a\x00b"))
    assert said.isprintable()
    assert "\\x1b[2J" in said
    assert printable("温度 37 °C, 3′-UTR") == "温度 37 °C, 3′-UTR"
    assert len(str(Problem("x" * 10**6))) < 1100


class Tags(HTMLParser):
    """The tags of a page, and their attributes."""

    def __init__(self, html):
        super().__init__()
        self.found = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


@pytest.fixture
def hostile(root, tmp_path):
    """A table whose every text is an attack, for the kept model."""
    folder = root / "tests" / "fixtures" / "checkpoints"
    table = pd.read_csv(folder / "table.csv").astype({"medium": object, "drug": object})
    table["gene_id"] = [f"=GENE{i % 60}{SCRIPT}" for i in range(len(table))]
    table["region_id"] = table["region_id"].replace(
        {"chrI_1_501": f"=1+1{SCRIPT}", "chrI_1001_1501": "../../../../x", "chrI_2001_2501": IMAGE,
         "chrI_3001_3501": "-10_promoter", "chrI_4001_4501": "\x1b[31m", "chrI_5001_5501": "a\x07"}
    )  # fmt: skip
    table["sample_id"] = table["sample_id"].replace({"a1": f"@a1{SCRIPT}", "b1": "../../b1"})
    table.loc[table["sample_id"] == "c1", "drug"] = f"=drug{IMAGE}"
    table[f"=more{SCRIPT}"] = 1.0
    path = tmp_path / "=table<b>.csv"
    table.to_csv(path, index=False)
    return folder / "layout3.pth", path


def test_an_evaluation_of_hostile_texts(hostile, tmp_path, capsys):
    model, path = hostile
    (tmp_path / "in").mkdir()
    before = set(tmp_path.rglob("*"))
    out = tmp_path / "in" / "out"
    sweep = ("--sweep", "temperature=25:37:lin:3", "--regions", "-10_promoter,../../../../x")
    knockout = ("--knockout", "motif_a", "--interpret", "--set", "report.formats=[png, pdf]")
    arguments = ["--model", model, "--data", path, "--output", out, "--device", "cpu"]
    arguments += [*sweep, *knockout, "--set", f'data.description_columns=["=more{SCRIPT}"]']
    evaluate_yeast.main([str(each) for each in arguments], standalone_mode=False)
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert "\x07" not in said.out + said.err
    log = (out / "evaluate.log").read_text("utf-8")
    assert "\x1b" not in log
    assert all(out in each.parents or each == out for each in set(tmp_path.rglob("*")) - before)
    tags = Tags((out / "report.html").read_text("utf-8")).found
    assert "script" not in {tag for tag, _ in tags}
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    images = [attributes["src"] for tag, attributes in tags if tag == "img"]
    assert images
    assert all(each.startswith("data:image/png;base64,") for each in images)
    tables = [each for each in out.rglob("*.csv*") if each.suffix != ".png"]
    assert len(tables) >= 7
    for each in tables:
        for column in pd.read_csv(each, dtype=str, keep_default_na=False).items():
            for cell in {column[0], *column[1]}:
                assert as_cell(as_text(cell)) == cell, (each, cell)
    found = set(pd.read_csv(out / "sweep.csv")["region_id"])
    assert found == {"'-10_promoter", "../../../../x"}


def made_within(folder, command, *arguments):
    """Run a command that writes to a folder two levels down; nothing else may appear."""
    out = folder / "deep" / "out"
    out.parent.mkdir()
    before = set(folder.rglob("*"))
    given = ["--output", str(out), "--device", "cpu", *map(str, arguments)]
    command.main(given, standalone_mode=False)
    made = set(folder.rglob("*")) - before
    assert all(out in each.parents or each == out for each in made)
    tags = {tag for tag, _ in Tags((out / "report.html").read_text("utf-8")).found}
    assert "script" not in tags
    assert len(made) > 8


def test_no_text_of_a_checkpoint_says_where_anything_is_written(root, tmp_path):
    folder = root / "tests" / "fixtures" / "checkpoints"
    values = torch.load(folder / "layout3_adapter.pth", weights_only=True)
    away = f"../../away{SCRIPT}"
    values["settings"]["experiment"]["name"] = away
    values["settings"]["data"] |= {"path": away, "sheet": away, "feature_names": away}
    values["settings"]["finetune"] |= {"checkpoint": away, "feature_names": away}
    values["lora"]["base_file"] = values["load_report"]["file"] = away
    values["load_report"] |= {"layout": away, "notes": [away], "region_embed": away}
    values["software"] = away
    torch.save(values, tmp_path / "a.pth")
    base = ("--base", folder / "layout3_base.pth", "--data", folder / "table.csv")
    made_within(tmp_path, evaluate_yeast, "--model", tmp_path / "a.pth", *base)


def test_no_text_of_a_yaml_says_where_anything_is_written(root, tmp_path):
    data = root / "tests" / "fixtures" / "checkpoints" / "table.csv"
    name = f"experiment.name='../../away{SCRIPT}'"
    short = [*SMALL, name, "training.max_epochs=0", "training.warmup_epochs=0"]
    made_within(tmp_path, train_yeast, "--data", data, *options(short))


def run(tmp_path, table, command=train_yeast, given=()):
    """The exit code of a command on a table."""
    table.to_csv(tmp_path / "t.csv", index=False)
    short = [*SMALL, "training.max_epochs=0", "training.warmup_epochs=0", NO_PAGE]
    short += ["experiment.seed=20240101123456", "split.seed=20240101123456"]
    given = given or options(short)
    arguments = ["--data", tmp_path / "t.csv", "--output", tmp_path / command.__name__]
    with pytest.raises(SystemExit) as left:
        command.main([*map(str, arguments), "--device", "cpu", *map(str, given)])
    return left.value.code


EVERY_TENTH = range(0, 240, 10)


@pytest.mark.parametrize(
    ("column", "rows", "others", "value"),
    [
        ("target", [7], None, 1e30),
        ("target", EVERY_TENTH, None, 9.97e36),
        ("target", [7], 2.0, -1e20),
        ("accessibility", [7], None, 1e30),
        ("motif_a", [7], None, "1e16"),
        ("temperature", [7], None, 1e20),
    ],
)
def test_a_fill_value_is_an_error_with_its_row(root, tmp_path, capsys, column, rows, others, value):
    """However many there are, and whatever the others are."""
    table = pd.read_csv(root / "tests" / "fixtures" / "checkpoints" / "table.csv")
    table[column] = table[column].astype(object) if others is None else others
    table.loc[list(rows), column] = value
    assert run(tmp_path, table) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "beyond 1e+15" in line]
    assert 1 <= len(lines) <= 20
    assert f", row {rows[0] + 2}, column {column}: '" in lines[0]
    model = root / "tests" / "fixtures" / "checkpoints" / "layout3.pth"
    assert run(tmp_path, table, evaluate_yeast, ("--model", model)) == 2
    assert "beyond 1e+15" in capsys.readouterr().err


@pytest.mark.parametrize("column", ["target", "accessibility", "motif_a"])
def test_the_largest_number_is_warned_about_and_ends_no_run(root, tmp_path, capsys, column):
    table = pd.read_csv(root / "tests" / "fixtures" / "checkpoints" / "table.csv")
    same_region = table["region_id"] == table["region_id"][7]
    table.loc[same_region if column == "motif_a" else 7, column] = 1e15
    assert run(tmp_path, table) == 0
    said = capsys.readouterr()
    assert f"{column}: " in said.err + said.out
    assert "SD from the others" in said.err + said.out
    best = tmp_path / "train_yeast" / "best_model.pth"
    assert run(tmp_path, table, evaluate_yeast, ("--model", best, "--set", NO_PAGE)) == 0
    assert np.isfinite(pd.read_csv(tmp_path / "evaluate_yeast" / "predictions.csv")["y_pred"]).all()


def test_a_validation_loss_that_no_float_holds_is_an_error(root, tmp_path, capsys):
    table = pd.read_csv(root / "tests" / "fixtures" / "checkpoints" / "table.csv")
    table["target"] *= 1e-9
    table["part"] = np.array(["train", "val", "test"])[np.arange(len(table)) % 3]
    table.loc[1, "target"] = 1e15
    by_part = [
        "data.description_columns=[part]",
        "split.by=column",
        "split.column=part",
        "split.val=[val]",
        "split.test=[test]",
        "training.loss=mse",
    ]
    assert run(tmp_path, table, given=options([*SMALL, *by_part])) == 2
    assert "the validation loss is not finite in epoch 0; look for" in capsys.readouterr().err
