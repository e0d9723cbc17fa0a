"""Questions on the command line: what they write, and that a bad one writes nothing."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import evaluate_yeast
from tests.e2e.test_refusals import one_line, run_here
from yeast_get.run_dir import EVALUATE_FILES
from yeast_get.training.checkpoint import Checkpoint

ASKED = ("--sweep", "temperature=28:39:lin:4", "--sweep", "medium=all", "--knockout", "b")


def files(folder):
    return {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}


def test_questions_are_answered_beside_the_scores(train, evaluate, table_path):
    model = train(table_path)
    folder = evaluate(model, table_path, *ASKED, "--set", "task.save_embeddings=true")
    again = evaluate(model, table_path, *ASKED, output="again")
    plain = evaluate(model, table_path, output="plain")
    for name in ("sweep.csv", "knockout.csv"):
        assert (folder / name).read_bytes() == (again / name).read_bytes()
    assert (folder / "metrics.json").read_bytes() == (plain / "metrics.json").read_bytes()
    assert (folder / "predictions.csv").read_bytes() == (plain / "predictions.csv").read_bytes()
    new = set(files(folder)) - set(files(plain))
    assert new == {"sweep.csv", "knockout.csv", "embeddings.npz"} | {
        f"plots/{name}.png" for name in ("sweep", "knockout", "embeddings")
    }
    assert set(files(folder)) <= set(EVALUATE_FILES)
    assert len(pd.read_csv(folder / "sweep.csv")) == 40 * 4 * 2
    assert len(pd.read_csv(folder / "knockout.csv")) == 40 * 3
    assert "all else as in sample" in (folder / "evaluate.log").read_text("utf-8")
    evaluate(model, table_path, "--overwrite")
    assert not {"sweep.csv", "plots/sweep.png", "knockout.csv"} & set(files(folder))


def test_a_table_without_targets_can_be_asked(train, evaluate, table, tmp_path, table_path):
    model = train(table_path)
    blank = tmp_path / "blank.csv"
    table.drop(columns="target").to_csv(blank, index=False)
    ours, theirs = (evaluate(model, path, *ASKED, output=path.stem) for path in (table_path, blank))
    assert json.loads((theirs / "metrics.json").read_text())["overall"]["pearson"] is None
    for name in ("sweep.csv", "knockout.csv"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()


def test_embeddings_of_conditions_are_means_over_their_rows(train, evaluate, table_path):
    """A region's mean over conditions and a condition's over regions have one mean."""
    run = train(table_path, "model.fusion.kind=film")
    folder = evaluate(run, table_path, "--split", "all", "--set", "task.save_embeddings=true")
    held = np.load(folder / "embeddings.npz")
    assert held["condition_embedding"].shape == (3, 16)
    assert len(held["first_sample_id"]) == 3
    assert set(held["condition"]) == {"30 °C, YPD", "37 °C", "H2O2 1 mM, SC"}
    np.testing.assert_allclose(
        held["embedding"].mean(axis=0), held["condition_embedding"].mean(axis=0), atol=1e-5
    )
    y = pd.read_csv(folder / "predictions.csv").groupby("region_id")["y_pred"].mean()
    np.testing.assert_allclose(held["expression"], y[held["region_id"]], rtol=1e-5)


def test_embeddings_of_conditions_that_the_encoder_does_not_see_are_their_loadings(
    train, evaluate, table_path
):
    run = train(table_path)
    folder = evaluate(run, table_path, "--split", "all", "--set", "task.save_embeddings=true")
    held = np.load(folder / "embeddings.npz")
    loadings = Checkpoint.load(run / "best_model.pth").model["by_factors.loadings.own"]
    rows = held["condition_embedding"]
    assert rows.shape == (3, loadings.shape[1])
    heat = held["condition"].tolist().index("37 °C")
    others = [rows[i] for i in range(3) if i != heat]  # which have the same rule
    assert np.abs(others[0] - others[1]).max() < 0.05
    assert min(np.abs(rows[heat] - each).max() for each in others) > 0.3


BAD = {
    "did you mean temperature?": ["--sweep", "temprature=25:42:lin:3"],
    "420 degC is outside 0 to 60": ["--sweep", "temperature=25:420:lin:3"],
    "holds no s9": ["--sweep", "temperature=25:42:lin:3", "--base-sample", "s9"],
    "no region or gene YAL001C": ["--sweep", "medium=all", "--regions", "YAL001C"],
    "the model has no motif YAP1": ["--knockout", "YAP1"],
    "give --sweep too": ["--regions", "YAL001C"],
}


@pytest.mark.usefixtures("blank_pictures")
def test_a_bad_question_is_one_line_and_writes_nothing(train, table_path, tmp_path):
    model = train(table_path) / "best_model.pth"
    common = ("--model", model, "--data", table_path, "--output", tmp_path / "o")
    for said, arguments in BAD.items():
        result = run_here(*common, *arguments, command=evaluate_yeast)
        assert said in one_line(result)
        assert not (tmp_path / "o").exists()
    result = run_here(*common, "--check", *BAD["give --sweep too"], command=evaluate_yeast)
    assert "give --sweep too" in one_line(result)


@pytest.mark.usefixtures("blank_pictures")
def test_a_question_needs_a_table(train, table_path, tmp_path):
    model = train(table_path) / "best_model.pth"
    exports = ("--model", model, "--export", tmp_path / "x.pth", "--knockout", "b")
    result = run_here(*exports, command=evaluate_yeast)
    assert "no folder is named" in one_line(result)
    assert not (tmp_path / "x.pth").exists()
