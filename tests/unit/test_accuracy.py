"""The benchmark of accuracy holds out what it says, hides it, and scores what is left."""

from __future__ import annotations

import sys
from argparse import Namespace

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ROOT

SIZES = {"heat": 4, "acid": 3, "salt": 3, "cold": 2, "dark": 1, "wet": 1}


@pytest.fixture
def benchmark(monkeypatch):
    """The three modules of the benchmark, which lie beside the package."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import accuracy
    import folds
    import predictors

    return Namespace(accuracy=accuracy, folds=folds, predictors=predictors)


@pytest.fixture
def folder(benchmark, tmp_path):
    """A data folder like `gasch2000`: three regions on each chromosome, a blank cell."""
    rng = np.random.default_rng(0)
    names = [name for name in benchmark.folds.CHROMOSOMES for _ in range(3)]
    regions = pd.DataFrame(
        {
            "region_id": [f"r{i}" for i in range(len(names))],
            "chrom": [f"chr{name}" for name in names],
            "start": 1000 * np.arange(len(names)),
            "end": 1000 * np.arange(len(names)) + rng.integers(100, 600, len(names)),
            "accessibility": rng.uniform(0, 1, len(names)).round(3),
            "motif_a": rng.uniform(0, 9, len(names)).round(3),
            "motif_b": rng.uniform(0, 9, len(names)).round(3),
            "chromatin_x": rng.uniform(0, 1, len(names)).round(3),
        }
    )
    group = [name for name, count in SIZES.items() for _ in range(count)]
    samples = pd.DataFrame(
        {
            "sample_id": [f"s{i}" for i in range(len(group))],
            "group": group,
            "label": group,
            "treatment": group,
            "temperature": 20.0 + np.arange(len(group)),
        }
    )
    cells = np.outer(regions["motif_a"] - 4.5, np.sin(samples["temperature"])).round(3)
    cells[0, 0] = np.nan
    expression = pd.DataFrame(cells, index=regions["region_id"], columns=samples["sample_id"])
    (tmp_path / "gasch2000").mkdir()
    regions.to_csv(tmp_path / "gasch2000" / "regions.csv", index=False)
    samples.to_csv(tmp_path / "gasch2000" / "samples.csv", index=False)
    expression.to_csv(tmp_path / "gasch2000" / "expression.csv")
    return tmp_path


def test_families_go_by_size_to_the_emptiest_fold(benchmark):
    family = np.repeat(np.arange(len(SIZES)), list(SIZES.values()))
    fold = benchmark.folds.condition_folds(family)
    assert [int(fold[family == code][0]) for code in range(6)] == [0, 1, 2, 3, 4, 4]
    assert all(len(set(fold[family == code])) == 1 for code in range(6))


@pytest.mark.parametrize("split", ["regions", "conditions", "both", "cells"])
def test_a_fold_learns_nothing_of_what_it_tests(benchmark, folder, split):
    data, settings = benchmark.folds.read("gasch2000", split, folder)
    kind = {"regions": "chromosome", "conditions": "column", "cells": "random"}
    assert settings.split.by == kind.get(split, "region_and_condition")
    tested = np.zeros(data.num_observations, dtype=int)
    region, group = data.chrom[data.region_index], data.column("group")
    for number in range(5):
        fold = benchmark.folds.make_fold(data, "gasch2000", split, number)
        tested += fold.test
        assert min(each.sum() for each in (fold.train, fold.val, fold.test)) > 0
        assert not (fold.known & fold.test).any()
        assert not (fold.train & fold.val).any()
        assert not ((fold.train | fold.val) & ~fold.known).any()
        for names, held_out in ((region, "regions"), (group, "conditions")):
            if split in (held_out, "both"):
                assert not set(names[fold.known]) & set(names[fold.test])
                assert not set(names[fold.train]) & set(names[fold.val])
        shown = benchmark.folds.hide(data, fold)
        assert (shown.measured == fold.known).all()
        assert (shown.target[fold.known] == data.target[fold.known]).all()
    if split == "both":
        assert tested.max() == 1
    else:
        assert (tested == data.measured).all()


def test_an_unknown_chromosome_is_no_fold(benchmark, folder):
    data, _ = benchmark.folds.read("gasch2000", "regions", folder)
    data.chrom[3] = "chrM"
    with pytest.raises(KeyError, match="chrM"):
        benchmark.folds.region_folds(data)


def test_a_wrong_sign_counts_where_the_value_is_clear(benchmark):
    true, pred = np.array([2.0, -2.0, 1.5, 0.5]), np.array([1.0, 1.0, 0.0, -1.0])
    assert benchmark.accuracy.wrong_sign(true, pred) == pytest.approx(2 / 3)


def test_the_commands_table_is_blank_where_the_fold_tests(benchmark, folder, monkeypatch):
    """`train_yeast` itself is told its rows, and sees no target of another one."""
    import train_yeast

    data, settings = benchmark.folds.read("gasch2000", "both", folder)
    fold = benchmark.folds.make_fold(data, "gasch2000", "both", 1)
    shown = benchmark.folds.hide(data, fold)
    task = benchmark.predictors.Task("gasch2000", shown, settings, fold)
    trained, seen = train_yeast.main, []

    def main(options, standalone_mode):
        table = pd.read_csv(f"{options[options.index('--data') + 1]}/expression.csv", index_col=0)
        seen.append(table.notna().to_numpy().reshape(-1))
        more = ["--set", "training.max_epochs=3", "--set", "logging.tensorboard=false"]
        trained([*options, *more], standalone_mode=standalone_mode)

    monkeypatch.setattr(train_yeast, "main", main)
    said = benchmark.predictors.yeast_get(task)["yeast_get"]
    assert (seen[0] == fold.known).all()
    assert said.shape == (fold.test.sum(),)
    assert 0 < said.std() < np.inf


def test_finished_folds_are_not_fitted_again_and_slow_ones_are_told(
    benchmark, folder, tmp_path, monkeypatch
):
    started = []

    def run(command, timeout, **_):
        started.append(command[3:6])
        if command[5] == "mlp":
            raise benchmark.accuracy.subprocess.TimeoutExpired(command, timeout)
        with monkeypatch.context() as here:
            here.setattr(sys, "argv", command[1:])
            benchmark.predictors.main(*map(str, command[2:]))

    monkeypatch.setattr(benchmark.accuracy.subprocess, "run", run)
    wanted = Namespace(folds=[0, 1], predictors=["baselines", "mlp"], data=folder, cap=7)
    wanted.cache = tmp_path
    frame = benchmark.accuracy.compare("gasch2000", "cells", wanted)
    assert len(started) == 4
    assert frame["note"]["mlp"] == "fold 0: stopped after 7 s"
    assert frame["pooled r"]["low rank"] > 0.9 > abs(frame["pooled r"]["global mean"])
    again = benchmark.accuracy.compare("gasch2000", "cells", wanted)
    assert len(started) == 6  # the slow one alone is tried again
    pd.testing.assert_frame_equal(again, frame)
