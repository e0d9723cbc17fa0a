"""The benchmark of accuracy holds out what it says, hides it, and scores what is left."""

from __future__ import annotations

import sys
from argparse import Namespace
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ROOT

SIZES = {"heat": 4, "acid": 3, "salt": 3, "cold": 2, "dark": 1, "wet": 1}


@pytest.fixture
def benchmark(monkeypatch):
    """The modules of the benchmark, which lie beside the package."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import accuracy
    import constants
    import folds
    import predictors

    return Namespace(accuracy=accuracy, constants=constants, folds=folds, predictors=predictors)


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
        shown = benchmark.folds.hide(data, fold.known)
        assert (shown.measured == fold.known).all()
        assert (shown.target[fold.known] == data.target[fold.known]).all()
    if split == "both":
        assert tested.max() == 1
    else:
        assert (tested == data.measured).all()


def test_a_validation_part_lacks_its_largest_group(benchmark, folder):
    data, _ = benchmark.folds.read("gasch2000", "regions", folder)
    chrom, group = data.chrom[data.region_index], data.column("group")
    for number in range(5):
        fold = benchmark.folds.make_fold(data, "gasch2000", "regions", number)
        largest = f"chr{benchmark.folds.CHROMOSOMES[(number + 1) % 5]}"
        assert largest in set(chrom[fold.train]) - set(chrom[fold.val])
    fold = benchmark.folds.make_fold(data, "gasch2000", "conditions", 3)
    after = {"dark", "wet"}  # the one of them that counts as larger is learned from
    assert len(after & set(group[fold.val])) == len(after & set(group[fold.train])) == 1
    cells = benchmark.folds.make_fold(data, "gasch2000", "cells", 0)
    assert cells.val.sum() == pytest.approx(cells.test.sum() / 3, rel=0.2)


@pytest.mark.parametrize("split", ["regions", "conditions", "both", "cells"])
def test_validation_need_not_hold_out_conditions(benchmark, folder, split):
    data, _ = benchmark.folds.read("gasch2000", split, folder)
    fold = benchmark.folds.make_fold(data, "gasch2000", split, 3)
    whole = benchmark.folds.with_all_conditions(fold, data)
    if split in ("regions", "cells"):
        assert whole is fold
        return
    assert not (whole.train & whole.val).any()
    assert ((whole.train | whole.val) == fold.known).all()
    assert (whole.known is fold.known, whole.test is fold.test) == (True, True)
    assert set(data.sample_index[whole.train]) == set(data.sample_index[fold.known])
    regions = set(data.region_index[whole.val])
    if split == "both":
        assert regions == set(data.region_index[fold.val])
        assert not regions & set(data.region_index[whole.train])
    else:
        assert 0 < whole.val.sum() < fold.known.sum() / 10
        assert regions <= set(data.region_index[whole.train])


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
    shown = benchmark.folds.hide(data, fold.known)
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


def test_every_target_that_may_not_be_learned_from_is_hidden(
    benchmark, folder, tmp_path, monkeypatch
):
    def stub(task):
        assert (task.data.measured == task.fold.known).all()
        return {"stub": np.arange(task.fold.test.sum())}

    monkeypatch.setitem(benchmark.predictors.PREDICTORS, "stub", stub)
    for split in benchmark.folds.SPLITS:
        out = tmp_path / f"{split}.npz"
        benchmark.predictors.main("gasch2000", split, "1", "stub", str(folder), str(out))
        with np.load(out) as held:
            assert set(held) == {"stub", "seconds"}


def test_what_a_fold_depends_on_is_in_its_name(benchmark, monkeypatch):
    def identity(predictor):
        return "\n".join(benchmark.accuracy.identity(predictor, "gasch2000"))

    for predictor in benchmark.predictors.PREDICTORS:
        text = identity(predictor)
        for source in ("class Rows:", "def chosen(", "def make_fold(", "class FeatureSchema:",
                       "PARAMETERS: dict[str, Any]", "class Rivals:"):  # fmt: skip
            assert source in text
        for source in ("class YeastModel(", "def make_optimizer("):
            assert (source in text) == (predictor == "yeast_get")
    before = identity("mlp")
    monkeypatch.setitem(benchmark.predictors.SETTINGS["mlp"], "hidden", 9)
    assert identity("mlp") != before


def test_the_best_on_the_validation_part_is_fitted_on_all_that_is_known(benchmark, folder):
    data, settings = benchmark.folds.read("gasch2000", "cells", folder)
    fold = benchmark.folds.make_fold(data, "gasch2000", "cells", 0)
    shown = benchmark.folds.hide(data, fold.known)
    task, asked = benchmark.predictors.Task("gasch2000", shown, settings, fold), []

    def fit(rows, wanted, steps):
        asked.append((rows, wanted, list(steps)))
        return [data.target[wanted, 0] + (step - 3) for step in steps]

    said = benchmark.predictors.chosen(task, fit, (1, 2, 5))  # off by -2, -1 and 2
    (rows, wanted, steps), (again, tested, step) = asked
    assert (rows is fold.train, wanted is fold.val, steps) == (True, True, [1, 2, 5])
    assert (again is fold.known, tested is fold.test, step) == (True, True, [2])
    np.testing.assert_allclose(said, data.target[fold.test, 0] - 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("predictor", "split", "settings"),
    [
        ("ridge on eight", "conditions", {}),
        ("mlp", "regions", {"hidden": 32, "lr": 1e-2, "batch": 32, "steps": (2, 8)}),
        ("lightgbm rows", "regions", {"steps": (40, 80)}),
        ("lightgbm components", "regions", {"min_data_in_leaf": 3, "steps": (50, 100)}),
    ],
)
def test_a_rival_finds_a_rule_that_is_its_kind(
    benchmark, folder, monkeypatch, predictor, split, settings
):
    """Each region has its level and its answer to the temperature, by a motif."""
    if predictor.startswith("lightgbm"):
        pytest.importorskip("lightgbm")
    changed = {**benchmark.predictors.SETTINGS[predictor], **settings}
    monkeypatch.setitem(benchmark.predictors.SETTINGS, predictor, changed)
    data, settings = benchmark.folds.read("gasch2000", split, folder)
    motif = data.motif[:, data.motif_names.index("motif_a")]
    rule = np.outer(motif, 1 + (data.conditions["temperature"] - 26) / 10).ravel()
    whole = replace(data, target=rule[:, None].astype(np.float32))
    fold = benchmark.folds.make_fold(whole, "gasch2000", split, 1)
    task = benchmark.predictors.Task(
        "gasch2000", benchmark.folds.hide(whole, fold.known), settings, fold
    )
    said = benchmark.predictors.PREDICTORS[predictor](task)[predictor]
    assert np.corrcoef(said, rule[fold.test])[0, 1] > 0.9


def test_trees_on_components_are_the_mean_of_four_seeds(benchmark, folder, monkeypatch):
    data, settings = benchmark.folds.read("gasch2000", "regions", folder)
    fold = benchmark.folds.make_fold(data, "gasch2000", "regions", 0)
    shown = benchmark.folds.hide(data, fold.known)
    task = benchmark.predictors.Task("gasch2000", shown, settings, fold)

    def said(of_seed):
        def train(parameters, table, rounds):
            value = of_seed[parameters["seed"]]
            return Namespace(predict=lambda regions, num_iteration: np.full(len(regions), value))

        stub = Namespace(Dataset=lambda *_: None, train=train)
        monkeypatch.setitem(sys.modules, "lightgbm", stub)
        return benchmark.predictors.lightgbm_components(task)["lightgbm components"]

    np.testing.assert_allclose(said([1.0, 2.0, 4.0, 9.0]), said([4.0] * 4))
    assert not np.allclose(said([1.0, 2.0, 4.0, 9.0]), said([1.0] * 4))


@pytest.mark.parametrize(
    ("split", "over"), [("regions", "regions"), ("conditions", "conditions"), ("cells", "both")]
)
def test_the_difference_is_that_to_the_best_rival(benchmark, folder, monkeypatch, split, over):
    data, _ = benchmark.folds.read("gasch2000", split, folder)
    noise = np.random.default_rng(0).normal(size=data.num_observations)
    off = {"yeast_get": 1.0, "mlp": 3.0, "ridge on eight": 9.0}  # SDs of the noise

    def fitted(predictor, data, at, arguments):
        fold = benchmark.folds.make_fold(data, *at[:2], int(at[2]))
        return {predictor: (data.target[:, 0] + off[predictor] * noise)[fold.test]}, 1.0

    monkeypatch.setattr(benchmark.accuracy, "fitted", fitted)
    wanted = Namespace(folds=range(5), predictors=[*off], data=folder)
    ours = benchmark.accuracy.compare("gasch2000", split, wanted).loc["yeast_get"]
    assert (ours["rival"], ours["over"]) == ("mlp", over)
    assert 0 < ours["low"] < ours["high"]
    off["mlp"] = 0.1
    ours = benchmark.accuracy.compare("gasch2000", split, wanted).loc["yeast_get"]
    assert ours["low"] < ours["high"] < 0


# ------------------------------------------------------------------ constants, chosen anew


def moments(x, y):
    return np.array([len(x), x.sum(), y.sum(), x @ x, y @ y, x @ y])


def test_r_by_moments_is_r(benchmark):
    constants = benchmark.constants
    x, y = np.random.default_rng(0).normal(3, 2, (2, 50))
    assert constants.pearson(moments(x, y)) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert constants.SHIPPED in constants.GRID


def test_a_choice_for_a_fold_is_made_where_it_is_hidden(benchmark):
    """Each fold likes a choice of its own: that of a fold shows only where another is hidden."""
    constants = benchmark.constants
    rng, folds = np.random.default_rng(0), range(5)
    y = rng.normal(size=(5, 400))
    by_hidden = {}
    for hidden in [*combinations(folds, 1), *combinations(folds, 2)]:
        found = np.full((6, 5, 6), np.nan)
        for choice in range(6):
            for fold in hidden:
                good = (choice == fold) + 0.6 * (choice == 5)
                found[choice, fold] = moments(good * y[fold] + rng.normal(size=400), y[fold])
        by_hidden[hidden] = found
    made = constants.Moments(by_hidden)
    for fold in folds:
        assert made.without(fold).argmax() == 5
        assert made.without(fold)[fold] == pytest.approx(0, abs=0.1)  # its own is worth nothing
        assert made.r([fold] * 5)[fold] == pytest.approx(0.7, abs=0.1)
    best = made.pooled([*folds])
    assert best > made.pooled([5] * 5) + 0.1
    expected = np.sum([by_hidden[fold,][fold, fold] for fold in folds], axis=0)
    assert best == pytest.approx(constants.pearson(expected))


def test_what_is_said_of_hidden_folds_does_not_depend_on_their_targets(
    benchmark, folder, monkeypatch
):
    constants, folds = benchmark.constants, benchmark.folds
    monkeypatch.setattr(constants, "GRID", [constants.SHIPPED])
    data, settings = folds.read("gasch2000", "conditions", folder)
    fold = folds.condition_folds(folds.families(data, "gasch2000"))[data.sample_index]
    changed = data.target.copy()
    changed[np.isin(fold, [1, 3])] += (
        np.random.default_rng(0).normal(0, 9, (np.isin(fold, [1, 3]).sum(), 1)).astype(np.float32)
    )
    one = constants.scored(data, settings, fold, [1, 3])
    other = constants.scored(replace(data, target=changed), settings, fold, [1, 3])
    assert (np.isfinite(one).all(axis=(0, 2)) == [False, True, False, True, False]).all()
    of_said = [0, 1, 3]  # number, sum, squares
    np.testing.assert_array_equal(one[..., of_said], other[..., of_said])
    assert (one[:, 1, 2] != other[:, 1, 2]).all()
