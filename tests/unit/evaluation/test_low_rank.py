"""Completion of a table of regions by samples."""

from __future__ import annotations

import numpy as np
import pytest

from yeast_get.evaluation import low_rank
from yeast_get.evaluation.low_rank import predict

P, S = 200, 30


def table(noise=0.3, targets=1, seed=0):
    rng = np.random.default_rng(seed)
    region, sample = np.divmod(np.arange(P * S), S)
    truth = rng.normal(size=(targets, P, 1)) + rng.normal(size=(targets, 1, S))
    truth = truth + rng.normal(size=(targets, P, 2)) @ rng.normal(size=(targets, 2, S))
    truth = truth[:, region, sample].T
    return region, sample, truth, truth + noise * rng.normal(size=truth.shape)


def most(share=0.8):
    return np.random.default_rng(2).random(P * S) < share


def r2(truth, said):
    return 1 - np.mean((truth - said) ** 2) / np.var(truth)


@pytest.mark.parametrize("targets", [1, 2])
def test_cells_that_were_left_out_come_back(targets):
    region, sample, truth, y = table(targets=targets)
    train = np.random.default_rng(1).random(P * S) < 0.7
    said = predict(region, sample, np.where(train[:, None], y, 1e9), train, ~train)
    assert said.shape == ((~train).sum(), targets)
    assert r2(truth[~train], said) > 0.85


def test_noise_is_not_taken_for_structure():
    """Of effects and noise alone it says what the effects say."""
    rng = np.random.default_rng(0)
    region, sample = np.divmod(np.arange(P * S), S)
    truth = (rng.normal(size=P)[region] + rng.normal(size=S)[sample])[:, None]
    y = truth + rng.normal(size=truth.shape)
    train = rng.random(P * S) < 0.7
    said = predict(region, sample, y, train, ~train)
    assert np.mean((said - truth[~train]) ** 2) < 0.1


def test_a_sample_without_a_training_cell_gets_the_effects_of_the_regions():
    region, sample, truth, y = table()
    train = (sample > 0) & most()
    new = sample[~train] == 0
    said = predict(region, sample, y, train, ~train)[new]
    effect = np.array([y[train & (region == r)].mean() for r in range(P)])
    assert np.corrcoef(said[:, 0], effect)[0, 1] > 0.99
    some = ~train & (sample > 0)
    assert r2(truth[some], predict(region, sample, y, train, some)) > 0.85


def test_replicates_of_a_cell_are_averaged():
    region, sample, _, y = table()
    train = most()
    twice = [np.concatenate([each, each[train]]) for each in (region, sample)]
    values = np.concatenate([np.where(train[:, None], y + 1, y), y[train] - 1])
    train_twice = np.concatenate([train, np.ones(train.sum(), bool)])
    wanted = np.concatenate([~train, np.zeros(train.sum(), bool)])
    np.testing.assert_allclose(
        predict(*twice, values, train_twice, wanted),
        predict(region, sample, y, train, ~train), atol=1e-6,
    )  # fmt: skip


def test_what_it_cannot_say_it_says_why(monkeypatch):
    region, sample, _, y = table()
    nothing = np.zeros(P * S, bool)
    said = predict(region, sample, y, nothing, ~nothing)
    assert said == "the table holds no training row, and it is fitted anew from these"
    said = predict(region, sample, y, region < 100, region >= 100)
    assert said == "no row has its region and its sample in training"
    some = most(0.5)
    said = predict(region, sample, np.full_like(y, np.nan), some, ~some)
    assert said == "a target has no measured value in training"
    monkeypatch.setattr(low_rank, "MOST_CELLS", P * S - 1)
    assert predict(region, sample, y, some, ~some) == "not fitted: too large a table"


def test_shrunk_is_the_svd_with_smaller_values():
    matrix = np.random.default_rng(0).normal(size=(9, 30))
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    wanted = (u * np.maximum(s - 2, 0)) @ vt
    np.testing.assert_allclose(low_rank._shrunk(matrix, 2.0), wanted, atol=1e-9)
    np.testing.assert_allclose(low_rank._shrunk(matrix.T, 2.0), wanted.T, atol=1e-9)
    big = np.random.default_rng(0).normal(size=(60, 50))
    assert np.linalg.matrix_rank(low_rank._shrunk(big, 0.0)) == low_rank.MOST_RANK


def test_constant_values_break_nothing():
    region, sample, _, y = table()
    some = most(0.5)
    assert predict(region, sample, np.full_like(y, 3.0), some, ~some) == pytest.approx(3)
