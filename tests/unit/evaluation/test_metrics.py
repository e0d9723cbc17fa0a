from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from yeast_get.data import blocks
from yeast_get.evaluation.metrics import (
    double_ranks,
    group_table,
    grouped_pearson,
    score,
    summarise,
)


def example(n=500, seed=0, offset=0.0, scale=1.0):
    rng = np.random.default_rng(seed)
    true = rng.normal(size=n)
    pred = 0.5 * true + rng.normal(size=n)
    return offset + scale * true, offset + scale * pred


@pytest.mark.parametrize(("offset", "scale"), [(0, 1), (1e6, 1), (1e6, 1e-3), (-5, 1e8), (0, 1e-9)])
@pytest.mark.parametrize("n", [2, 3, 500])
def test_score_equals_scipy_and_sklearn(n, offset, scale):
    true, pred = example(n, n, offset, scale)
    result = score(true, pred)
    # the judge itself loses digits to the offset, so it is given the same numbers without it
    near_true, near_pred = true - offset, pred - offset
    assert result["n"] == n
    assert result["pearson"] == pytest.approx(
        stats.pearsonr(near_true, near_pred).statistic, rel=1e-9
    )
    assert result["spearman"] == pytest.approx(stats.spearmanr(true, pred).statistic, rel=1e-9)
    assert result["r2"] == pytest.approx(r2_score(near_true, near_pred), rel=1e-9)
    assert result["rmse"] == pytest.approx(root_mean_squared_error(true, pred), rel=1e-9)
    assert result["mae"] == pytest.approx(mean_absolute_error(true, pred), rel=1e-9)
    moments = np.cov(near_true, near_pred, bias=True)
    shift = (true - pred).mean() ** 2
    lin = 2 * moments[0, 1] / (moments[0, 0] + moments[1, 1] + shift)
    assert result["concordance"] == pytest.approx(lin, rel=1e-9)
    assert not any(name.endswith("_reason") for name in result)


def test_spearman_with_ties_equals_scipy():
    true, pred = example()
    true, pred = np.round(true), np.round(pred)
    assert score(true, pred)["spearman"] == pytest.approx(stats.spearmanr(true, pred).statistic)


def test_values_that_were_not_measured_are_left_out_and_strands_pooled():
    true, pred = example()
    true[::7] = np.nan
    keep = ~np.isnan(true)
    assert score(true, pred) == score(true[keep], pred[keep])
    assert score(true.reshape(-1, 2), pred.reshape(-1, 2)) == score(true, pred)


def test_float32_is_scored_in_float64():
    true, pred = (values.astype(np.float32) for values in example())
    assert score(true, pred) == score(true.astype(float), pred.astype(float))


@pytest.mark.parametrize(
    ("true", "pred", "undefined"),
    [
        ([], [], dict.fromkeys(["rmse", "mae"], "no measured values")),
        ([np.nan], [1.0], dict.fromkeys(["rmse", "mae"], "no measured values")),
        (
            [1.0],
            [2.0],
            dict.fromkeys(["pearson", "spearman", "r2"], "fewer than 2 measured values"),
        ),
        ([0.1] * 12, range(12), {"pearson": "all 12 measured values are equal"}),
        ([0.1] * 12, range(12), {"r2": "all 12 measured values are equal"}),
        ([0.3, 0.1 + 0.2, 0.3], [1, 2, 3], {"pearson": "all 3 measured values are equal"}),
        ([1, 2, 3], [0.1] * 3, {"pearson": "all predictions are equal"}),
        ([1, 2, 3], [0.1] * 3, {"spearman": "all predictions are equal"}),
    ],
)
def test_an_undefined_score_is_none_with_its_reason(true, pred, undefined):
    result = score(np.array(true, dtype=float), np.array(pred, dtype=float))
    for name, reason in undefined.items():
        assert result[name] is None
        assert result[f"{name}_reason"] == reason


def test_r2_of_equal_predictions_is_defined():
    assert score(np.array([1.0, 2, 3]), np.full(3, 2.0))["r2"] == pytest.approx(0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_prediction_that_is_not_finite_is_refused(bad):
    for true in (1.0, np.nan):
        with pytest.raises(ValueError, match="1 of 2 predictions are not finite"):
            score(np.array([1.0, true]), np.array([1.0, bad]))


def test_an_infinite_measured_value_and_unequal_shapes_are_refused():
    with pytest.raises(ValueError, match="infinite"):
        score(np.array([1.0, np.inf]), np.ones(2))
    with pytest.raises(ValueError, match="shape"):
        score(np.ones((4, 2)), np.ones(8))
    with pytest.raises(ValueError, match="group has shape"):
        grouped_pearson(np.ones(4), np.ones(4), np.zeros(3, int), 2)
    with pytest.raises(ValueError, match="code 3, but there are 2 groups"):
        grouped_pearson(np.ones(4), np.ones(4), np.arange(4), 2, num_groups=2)


def by_loop(true, pred, group, min_count):
    result = []
    for code in range(group.max() + 1):
        rows = (group == code) & ~np.isnan(true)
        one, other = true[rows], pred[rows]
        flat = len(one) < min_count or np.ptp(one) == 0 or np.ptp(other) == 0
        result.append(np.nan if flat else stats.pearsonr(one, other).statistic)
    return np.array(result)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_grouped_pearson_equals_a_loop(offset):
    true, pred = example(2000)
    group = np.random.default_rng(1).integers(-1, 300, 2000)
    true, pred = true + offset * group, pred - offset * group
    true[::5] = np.nan
    true[group == 7] = 0.1
    pred[group == 9] = 1 / 3
    expected = by_loop(true, pred, group, 4)
    result = grouped_pearson(true, pred, group, 4)
    np.testing.assert_array_equal(np.isnan(result), np.isnan(expected))
    np.testing.assert_allclose(result, expected, rtol=1e-7 if offset else 1e-9)
    assert np.isnan(expected).sum() > 5


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e6 + 0.1, -1e-7])
def test_a_constant_group_is_undefined_even_up_to_rounding(value):
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(50), 7)
    noise = value * (1 + rng.integers(-1, 2, 350) * 2.3e-16)
    for constant in (np.full(350, value), noise):
        assert np.isnan(grouped_pearson(constant, rng.normal(size=350), group, 3)).all()
        assert np.isnan(grouped_pearson(rng.normal(size=350), constant, group, 3)).all()


def test_no_rows_and_empty_groups():
    nothing = np.array([])
    assert grouped_pearson(nothing, nothing, np.array([], dtype=int), 3).shape == (0,)
    assert np.isnan(grouped_pearson(nothing, nothing, np.array([], dtype=int), 3, 4)).all()
    table = group_table(nothing, nothing, np.array([], dtype=int), 2)
    assert table["n"].tolist() == [0, 0]
    assert all(np.isnan(table[name]).all() for name in table if name != "n")


def test_a_million_rows_are_quick():
    true, pred = example(1_000_000)
    group = np.random.default_rng(0).integers(0, 6000, 1_000_000)
    start = time.process_time()
    grouped_pearson(true, pred, group, 3)
    assert time.process_time() - start < 1.5


def test_group_table_equals_the_score_of_each_group():
    true, pred = example(600)
    group = np.random.default_rng(1).integers(-1, 40, 600)
    true[::3] = np.nan
    table = group_table(true, pred, group, 42)
    for code in range(42):
        rows = group == code
        expected = score(true[rows], pred[rows])
        assert table["n"][code] == expected["n"]
        for name in ("rmse", "mae"):
            value = np.nan if expected[name] is None else expected[name]
            assert table[name][code] == pytest.approx(value, nan_ok=True)
        if expected["n"] >= 3:
            assert table["pearson"][code] == pytest.approx(expected["pearson"])
            assert table["spearman"][code] == pytest.approx(expected["spearman"])
            assert table["mean_true"][code] == pytest.approx(np.nanmean(true[rows]))
            assert table["mean_pred"][code] == pytest.approx(pred[rows & ~np.isnan(true)].mean())
        else:
            assert np.isnan(table["pearson"][code])
            assert np.isnan(table["spearman"][code])


def test_group_table_ranks_ties_as_scipy_does_and_leaves_equal_values_undefined():
    rng = np.random.default_rng(2)
    true, pred = rng.integers(0, 4, 400).astype(float), rng.integers(0, 4, 400).astype(float)
    group = np.repeat(np.arange(8), 50)
    true[group == 3] = 1.0
    pred[group == 4] = 2.0
    table = group_table(true, pred, group, 8)
    for code in range(8):
        rows = group == code
        if code in (3, 4):
            assert np.isnan(table["spearman"][code])
        else:
            expected = stats.spearmanr(true[rows], pred[rows]).statistic
            assert table["spearman"][code] == pytest.approx(expected)


def planted(strands=None, seed=0):
    """Regions x conditions, with the conditions as one row each."""
    rng = np.random.default_rng(seed)
    region, condition = (code.ravel() for code in np.indices((30, 8)))
    shape = (240,) if strands is None else (240, strands)
    true = rng.normal(size=shape)
    return true, true + rng.normal(size=shape), region, condition


def test_summarise_means_the_correlations_of_the_groups():
    true, pred, region, condition = planted()
    true[region == 3] = 1.0
    true[(region == 4) & (condition > 1)] = np.nan
    result = summarise(true, pred, region, condition)
    assert result["overall"] == score(true, pred)
    within = by_loop(true, pred, region, 3)
    across = by_loop(true, pred, condition, 3)
    assert result["within_region_pearson"] == pytest.approx(np.nanmean(within))
    assert result["within_region_pearson_groups"] == 28
    assert result["across_region_pearson"] == pytest.approx(np.nanmean(across))
    assert result["across_region_pearson_groups"] == 8
    table = group_table(true, pred, region, 30)
    assert result["within_region_pearson"] == pytest.approx(np.nanmean(table["pearson"]))


def test_summarise_keeps_the_strands_of_a_group_apart():
    true, pred, region, condition = planted(strands=2)
    shifted = summarise(true + [0, 100], pred - [0, 100], region, condition)
    plain = summarise(true, pred, region, condition)
    assert plain["within_region_pearson_groups"] == 60
    assert plain["across_region_pearson_groups"] == 16
    for name in ("within_region_pearson", "across_region_pearson"):
        assert shifted[name] == pytest.approx(plain[name])
    assert plain["overall"]["n"] == 480


def test_summarise_leaves_out_code_minus_one():
    true, pred, region, condition = planted(strands=2)
    out = region == 29
    expected = summarise(true[~out], pred[~out], region[~out], condition[~out])
    result = summarise(true, pred, np.where(out, -1, region), condition)
    assert result["within_region_pearson"] == pytest.approx(expected["within_region_pearson"])
    assert result["overall"]["n"] == 480


def test_predictions_that_ignore_the_conditions_have_no_within_region_score():
    true, _, region, condition = planted()
    result = summarise(true, region / 3, region, condition)
    assert result["within_region_pearson"] is None
    assert result["within_region_pearson_groups"] == 0
    assert "no region has 3 measured values" in result["within_region_pearson_reason"]
    assert result["across_region_pearson"] is not None
    nothing = summarise(np.full(240, np.nan), true, region, condition)
    assert nothing["overall"]["n"] == 0
    assert "no condition" in nothing["across_region_pearson_reason"]


def test_scores_that_are_summed_in_blocks_have_every_bit_of_the_whole(monkeypatch):
    true, pred = example(1000, 3, 5.0)
    true[::9] = np.nan
    whole = score(true, pred)
    monkeypatch.setattr(blocks, "ROWS", 64)
    assert score(true, pred) == whole
    assert score(true, pred, ("r2",)) == {"n": whole["n"], "r2": whole["r2"]}
    # one group of all rows is added up in the same order
    group = np.zeros(len(true), dtype=int)
    assert grouped_pearson(true, pred, group, 3)[0] == pytest.approx(whole["pearson"], abs=1e-15)


@pytest.mark.parametrize("values", [0, 1, 2, 3, 10_000])
@pytest.mark.parametrize("n", [0, 1, 2, 500])
def test_ranks_are_those_of_scipy(n, values):
    rng = np.random.default_rng(n)
    numbers = rng.integers(0, values, n) / 7 if values else rng.normal(size=n)
    np.testing.assert_array_equal(double_ranks(numbers) / 2, stats.rankdata(numbers))
