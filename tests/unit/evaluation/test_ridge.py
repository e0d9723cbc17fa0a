"""The ridge regressions: what they fit, what they say of other tables, what they keep."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge

from yeast_get.evaluation import ridge
from yeast_get.evaluation.ridge import NAMES, PENALTIES, Ridge, Table, fit

P, C, M, K = 60, 20, 4, 3


def make(seed=0, noise=0.1, targets=1, gaps=0.0):
    """A table of all regions and conditions under a bilinear rule, and its values [n,T]."""
    rng = np.random.default_rng(seed)
    f, g = rng.normal(2, 3, (P, M)), rng.normal(-1, 2, (C, K))
    weights = rng.normal(size=(targets, M + 1, K + 1))
    cells = ridge._with_one(f) @ weights @ ridge._with_one(g).T  # [T,P,C]
    region, condition = np.divmod(np.arange(P * C), C)
    y = cells[:, region, condition].T + noise * rng.normal(size=(P * C, targets))
    y[rng.random(y.shape) < gaps] = np.nan
    keys = np.sort(rng.integers(0, 1 << 40, P)), np.sort(rng.integers(0, 1 << 40, C))
    return Table(region, condition, f, g, *keys, np.arange(P), np.arange(C)), y


def rows(table, wanted):
    return replace(table, region=table.region[wanted], condition=table.condition[wanted])


def r2(y, said):
    return 1 - np.nanmean((y - said) ** 2) / np.nanvar(y)


@pytest.mark.parametrize("targets", [1, 2])
@pytest.mark.parametrize("gaps", [0.0, 0.1])
def test_each_predicts_what_it_can(targets, gaps):
    table, y = make(targets=targets, gaps=gaps)
    train = (table.region < 40) & (table.condition < 15)
    fitted = fit(rows(table, train), y[train])
    new_region = (table.region >= 40) & (table.condition < 15)
    new_condition = (table.region < 40) & (table.condition >= 15)
    new = (table.region >= 40) & (table.condition >= 15)
    for wanted, able in (
        (new_region, {NAMES[0], NAMES[2]}), (new_condition, {NAMES[1], NAMES[2]}),
        (new, {NAMES[2]}), (train, set(NAMES)),
    ):  # fmt: skip
        said = dict(fitted.predict(rows(table, wanted)))
        assert {name for name, value in said.items() if not isinstance(value, str)} == able
        for name in able:
            assert r2(y[wanted], said[name]) > 0.95, name
    said = dict(fitted.predict(rows(table, new)))
    assert said[NAMES[0]] == "none of the growth conditions was trained on often enough"
    assert said[NAMES[1]] == "none of the regions was trained on often enough"


@pytest.mark.parametrize("shape", [(30, 4), (6, 9)])
def test_a_regression_is_that_of_scikit_learn(shape):
    rng = np.random.default_rng(0)
    x, y = rng.normal(1, 2, shape), rng.normal(size=(shape[0], 3))
    got = ridge._ridge(x, y, PENALTIES)
    for penalty, weights in zip(PENALTIES, got, strict=True):
        judge = SklearnRidge(alpha=shape[0] * penalty).fit(x, y)
        np.testing.assert_allclose(weights[:, :-1], judge.coef_, atol=1e-8)
        np.testing.assert_allclose(weights[:, -1], judge.intercept_, atol=1e-8)


def test_groups_with_the_same_gaps_are_fitted_as_if_alone():
    table, y = make(gaps=0.4, noise=1)
    cells = ridge._cells(table, y[:, 0], (P, C))
    cells[10:20] = np.where(np.isnan(cells[10]), np.nan, cells[10:20])
    features, fold = table.condition_features, np.arange(C) % 5
    together = ridge._grouped(cells, features, fold)
    penalty = ridge._best_penalty(cells, features, fold, np.flatnonzero(~np.isnan(together[:, 0])))
    for a in np.flatnonzero(~np.isnan(together[:, 0])):
        known = ~np.isnan(cells[a])
        alone = ridge._ridge(features[known], cells[a][known][:, None], [penalty])[0, 0]
        np.testing.assert_allclose(together[a], alone, atol=1e-9)


def test_replicates_are_averaged():
    table, y = make(noise=1.0)
    order = np.r_[np.arange(P * C), np.arange(P * C)]
    twice = fit(rows(table, order), np.concatenate([y + 1, y - 1]))
    once = fit(table, y)
    for name in NAMES:
        np.testing.assert_allclose(
            dict(twice.predict(table))[name], dict(once.predict(table))[name], atol=1e-4
        )


def test_unknown_regions_among_known_ones_get_the_mean():
    table, y = make()
    train = table.region < 40
    fitted = fit(rows(table, train), y[train])
    said = dict(fitted.predict(table))[NAMES[1]]
    assert (said[~train] == y[train].mean()).all()
    assert r2(y[train], said[train]) > 0.95


def test_a_group_with_less_than_two_cells_per_weight_has_no_regression():
    table, y = make()
    few = (table.region > 0) | (table.condition < 2 * K + 1)
    fitted = fit(rows(table, few), y[few])
    assert table.region_keys[0] not in fitted.region_keys
    enough = (table.region > 0) | (table.condition < 2 * K + 2)
    fitted = fit(rows(table, enough), y[enough])
    assert fitted.region_keys.tolist() == table.region_keys.tolist()


def test_columns_that_do_not_vary_and_other_tables_break_nothing():
    table, y = make()
    features = table.region_features.copy()
    features[:, 0] = 7
    train = table.region < 40
    fitted = fit(rows(replace(table, region_features=features), train), y[train])
    other = features.copy()
    other[50, 0] = 1e9
    said = dict(fitted.predict(rows(replace(table, region_features=other), ~train)))[NAMES[0]]
    same = dict(fitted.predict(rows(replace(table, region_features=features), ~train)))[NAMES[0]]
    np.testing.assert_array_equal(said, same)


def test_a_feature_far_outside_of_training_is_not_followed_without_end():
    table, y = make()
    train = table.region < 40
    fitted = fit(rows(table, train), y[train])
    far, further = table.region_features.copy(), table.region_features.copy()
    far[50, 1], further[50, 1] = 1e3, 1e6
    said = [
        dict(fitted.predict(rows(replace(table, region_features=each), ~train)))[NAMES[0]]
        for each in (far, further)
    ]
    np.testing.assert_array_equal(*said)
    assert np.abs(said[0]).max() < 10 * np.abs(y).max()


def test_the_penalty_is_found_on_whole_groups():
    """Conditions of one group are copies: left out one by one they would ask for no penalty."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(8), 6)
    features = rng.normal(size=(8, 7))[group]
    cells = rng.normal(size=(200, 8))[:, group] + 0.1 * rng.normal(size=(200, 48))
    one_by_one = ridge._best_penalty(cells, features, ridge._folds(np.arange(48)), np.arange(200))
    by_group = ridge._best_penalty(cells, features, ridge._folds(group), np.arange(200))
    assert one_by_one < 0.1 < 1 <= by_group


def test_nothing_is_fitted_without_values_or_on_too_large_a_table(monkeypatch):
    table, y = make()
    assert fit(table, np.full_like(y, np.nan)) is None
    monkeypatch.setattr(ridge, "MOST_CELLS", P * C - 1)
    assert fit(table, y) is None


def test_the_numbers_travel_as_tensors(tmp_path):
    table, y = make(targets=2)
    fitted = fit(table, y)
    torch.save(fitted.to_dict(), tmp_path / "r.pt")
    again = Ridge.from_dict(torch.load(tmp_path / "r.pt", weights_only=True))
    for name, said in fitted.predict(table):
        np.testing.assert_array_equal(dict(again.predict(table))[name], said)
