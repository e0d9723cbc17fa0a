from __future__ import annotations

import io
import time

import numpy as np
import pytest
import torch

from yeast_get.evaluation.baselines import NAMES, Baselines, compare, fit

REGION_KEYS = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 40)
CONDITION_KEYS = np.random.default_rng(1).integers(-(2**63), 2**63 - 1, 12)
UNKNOWN = np.int64(5)


def unbalanced(n=250, seed=0, strands=None):
    """Rows that favour some regions under some conditions, so that the effects are confounded."""
    rng = np.random.default_rng(seed)
    region = np.minimum(rng.geometric(0.08, n) - 1, 39)
    condition = (region // 4 + rng.integers(0, 3, n)) % 12
    y = 10 + rng.normal(size=40)[region] + 2 * rng.normal(size=12)[condition] + rng.normal(size=n)
    if strands is not None:
        y = np.stack([y * (1 + k) + rng.normal(size=n) for k in range(strands)], axis=1)
    return y, region, condition


def least_squares(y, region, condition):
    design = np.concatenate(
        [np.ones((len(y), 1)), np.eye(40)[region], np.eye(12)[condition]], axis=1
    )
    return design @ np.linalg.lstsq(design, y, rcond=None)[0]


def pooled_codes(code):
    """Codes whose levels of a single row are one level, the first of them; and which rows are."""
    single = np.bincount(code)[code] < 2
    first = code[single.argmax()] if single.any() else 0
    return np.where(single, first, code), single


def kept(region, condition):
    """Rows whose region and condition both have a number of their own."""
    return ~(pooled_codes(region)[1] | pooled_codes(condition)[1])


def say(baselines, *keys):
    return dict(baselines.predict(*keys))


def predict(baselines, region, condition):
    said = say(baselines, REGION_KEYS[region], CONDITION_KEYS[condition])
    by_rows = say(baselines, REGION_KEYS, CONDITION_KEYS, (region, condition))
    for name, values in said.items():
        np.testing.assert_array_equal(by_rows[name], values)
    return said


def fit_codes(y, region, condition):
    return fit(y, REGION_KEYS[region], CONDITION_KEYS[condition])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [60, 250, 2000])
def test_additive_is_the_least_squares_fit(n, seed):
    y, region, condition = unbalanced(n, seed)
    said = predict(fit_codes(y, region, condition), region, condition)
    expected = least_squares(y, pooled_codes(region)[0], pooled_codes(condition)[0])
    rows = kept(region, condition)
    np.testing.assert_allclose(said["additive"][rows], expected[rows], atol=1e-6)


@pytest.mark.parametrize("length", [3, 20, 300])
def test_additive_converges_on_a_chain_of_regions_and_conditions(length):
    place = np.arange(length)
    region, condition = np.append(place, place[:-1]), np.append(place, place[1:])
    y = np.random.default_rng(0).normal(size=2 * length - 1)
    said = say(fit(y, region, condition), region, condition)
    rows = kept(region, condition)
    np.testing.assert_allclose(said["additive"][rows], y[rows], atol=1e-6)  # as many effects


def test_additive_effects_are_zero_on_average():
    y, region, condition = (np.tile(each, 2) for each in unbalanced())  # nothing has one row
    baselines = fit_codes(y, region, condition)
    known = predict(baselines, region, condition)["additive"]
    nowhere = np.full(len(y), UNKNOWN)
    by_region = say(baselines, REGION_KEYS[region], nowhere)["additive"]
    by_condition = say(baselines, nowhere, CONDITION_KEYS[condition])["additive"]
    assert by_region.mean() == pytest.approx(y.mean())
    assert by_condition.mean() == pytest.approx(y.mean())
    np.testing.assert_allclose(by_region + by_condition - y.mean(), known)


def test_one_condition_alone_has_no_effect():
    y, region, _ = unbalanced()
    said = predict(fit_codes(y, region, 0 * region), region, 0 * region)
    np.testing.assert_allclose(said["additive"], said["region mean"], atol=1e-9)
    np.testing.assert_allclose(said["condition mean"], y.mean())


def test_constant_targets_and_blocks_that_share_no_row():
    pairs = np.repeat(np.arange(6), 2)
    said = say(fit(np.full(12, 0.1), pairs, pairs), pairs, pairs)
    for name in NAMES:
        np.testing.assert_allclose(said[name], 0.1)
    y = np.array([1.0, 2, 3, 4, 50, 60, 70, 90])
    region, condition = np.array([0, 0, 1, 1, 2, 2, 3, 3]), np.array([0, 1, 0, 1, 2, 3, 2, 3])
    said = predict(fit_codes(y, region, condition), region, condition)
    np.testing.assert_allclose(said["additive"], least_squares(y, region, condition), atol=1e-6)


@pytest.mark.parametrize("strands", [None, 2])
def test_means_are_those_of_the_training_rows(strands):
    y, region, condition = unbalanced(strands=strands)
    y[::6] = np.nan
    said = predict(fit_codes(y, region, condition), region, condition)
    np.testing.assert_allclose(said["global mean"][3], np.nanmean(y, axis=0))
    assert all(values.shape == y.shape for values in said.values())
    for row in range(0, len(y), 17):
        for name, code in (("region mean", region), ("condition mean", condition)):
            same = y[code == code[row]]
            if (np.isfinite(same).reshape(len(same), -1).sum(axis=0) >= 2).all():
                np.testing.assert_allclose(said[name][row], np.nanmean(same, axis=0))


@pytest.mark.parametrize("strands", [None, 2])
def test_what_rests_on_one_value_is_not_kept(strands):
    y, region, condition = unbalanced(n=60, strands=strands)
    single = pooled_codes(region)[1]
    assert single.any()
    baselines = fit_codes(y, region, condition)
    assert not np.isin(REGION_KEYS[region[single]], baselines.region_keys).any()
    said = predict(baselines, region, condition)
    expected = np.broadcast_to(y.mean(axis=0), y.shape)
    np.testing.assert_allclose(said["region mean"][single], expected[single])
    for stored in (baselines.region_means, baselines.condition_means):
        assert not np.isin(stored, y).any()
    alone = fit(np.arange(4.0), np.arange(4), np.zeros(4, int))
    assert say(alone, np.arange(4), np.ones(4, int))["region mean"] is None


def test_a_row_without_a_measured_value_changes_nothing():
    y, region, condition = unbalanced()
    more = fit_codes(np.append(y, np.nan), np.append(region, 39), np.append(condition, 0))
    fewer = fit_codes(y, region, condition)
    for name, values in predict(more, region, condition).items():
        np.testing.assert_array_equal(values, predict(fewer, region, condition)[name])


def test_strands_are_fitted_apart_with_holes_of_their_own():
    y, region, condition = unbalanced(strands=2)
    y[::4, 0] = np.nan
    y[region == 2, 1] = np.nan
    both = predict(fit_codes(y, region, condition), region, condition)
    for strand in (0, 1):
        alone = predict(fit_codes(y[:, strand], region, condition), region, condition)
        for name in NAMES:
            np.testing.assert_allclose(both[name][:, strand], alone[name], atol=1e-6)


def test_unknown_rows_fall_back_row_by_row():
    y, region, condition = unbalanced()
    baselines = fit_codes(y, region, condition)
    keys = REGION_KEYS[region], CONDITION_KEYS[condition]
    full = say(baselines, *keys)
    said = say(baselines, np.append(keys[0][1:], UNKNOWN), np.append(UNKNOWN, keys[1][1:]))
    assert said["region mean"][-1] == pytest.approx(y.mean())
    assert said["condition mean"][0] == pytest.approx(y.mean())
    np.testing.assert_array_equal(said["region mean"][:-1], full["region mean"][1:])
    np.testing.assert_array_equal(said["condition mean"][1:], full["condition mean"][1:])


def test_a_baseline_that_knows_no_row_is_undefined():
    y, region, condition = unbalanced()
    baselines = fit_codes(y, region, condition)
    nowhere = np.full(len(y), UNKNOWN)
    defined = {
        (True, False): {"global mean", "region mean", "additive"},
        (False, True): {"global mean", "condition mean", "additive"},
        (False, False): {"global mean"},
    }
    for (known_region, known_condition), names in defined.items():
        said = say(
            baselines,
            REGION_KEYS[region] if known_region else nowhere,
            CONDITION_KEYS[condition] if known_condition else nowhere,
        )
        assert {name for name, values in said.items() if values is not None} == names
    assert baselines.undefined_reason("region mean") == "none of the regions was trained on"
    assert "growth conditions" in baselines.undefined_reason("condition mean")
    assert "and none" in baselines.undefined_reason("additive")


def test_no_measured_training_value_leaves_every_baseline_undefined():
    baselines = fit(np.full(3, np.nan), np.arange(3), np.arange(3))
    assert say(baselines, np.arange(3), np.arange(3)) == dict.fromkeys(NAMES)
    assert baselines.undefined_reason("additive") == "no training row has a measured value"
    half = fit(np.array([[1.0, np.nan]] * 3), np.arange(3), np.arange(3))
    assert say(half, np.arange(3), np.arange(3)) == dict.fromkeys(NAMES)
    assert "one of the targets" in half.undefined_reason("global mean")
    assert say(fit(np.array([]), [], []), np.array([1]), np.array([1]))["additive"] is None


def test_no_rows_to_predict():
    y, region, condition = unbalanced()
    said = say(fit_codes(y, region, condition), np.array([], int), np.array([], int))
    assert said["global mean"].shape == (0,)
    assert said["additive"] is None


def test_the_training_values_are_not_changed():
    y, region, condition = unbalanced(strands=2)
    before = y.copy()
    predict(fit_codes(y, region, condition), region, condition)["global mean"][:] = 0
    np.testing.assert_array_equal(y, before)


def test_lengths_and_infinite_values_are_refused():
    with pytest.raises(ValueError, match="3 targets, 2 region keys"):
        fit(np.ones(3), np.arange(2), np.arange(3))
    with pytest.raises(ValueError, match="infinite"):
        fit(np.array([1.0, np.inf]), np.arange(2), np.arange(2))
    with pytest.raises(ValueError, match="2 region keys, 3 condition keys"):
        say(fit(np.ones(2), np.arange(2), np.arange(2)), np.arange(2), np.arange(3))


@pytest.mark.parametrize("strands", [None, 2])
def test_a_checkpoint_gives_the_same_numbers_back(strands):
    y, region, condition = unbalanced(strands=strands)
    y[::5] = np.nan
    baselines = fit_codes(y, region, condition)
    file = io.BytesIO()
    torch.save(baselines.to_dict(), file)
    file.seek(0)
    again = Baselines.from_dict(torch.load(file, weights_only=True))
    expected = predict(baselines, region, condition)
    for name, values in predict(again, region, condition).items():
        np.testing.assert_array_equal(values, expected[name])


def test_a_large_table_is_quick():
    rng = np.random.default_rng(0)
    n = 900_000
    region, condition = rng.integers(0, 6000, n), rng.integers(0, 157, n)
    y = rng.normal(size=6000)[region] + rng.normal(size=157)[condition] + rng.normal(size=n)
    keys = rng.integers(0, 2**62, 6000)[region], rng.integers(0, 2**62, 157)[condition]
    start = time.process_time()
    say(fit(y, *keys), *keys)
    assert time.process_time() - start < 4


def pooled(pearson):
    return {"overall": {"pearson": pearson}}


def test_compare_names_the_best_baseline():
    baselines = {
        "global mean": pooled(None),
        "region mean": None,
        "condition mean": pooled(0.2),
        "additive": pooled(0.5),
    }
    result = compare(pooled(0.4), baselines)
    assert result == {"name": "additive", "pearson": pytest.approx(-0.1)}


def test_compare_says_why_there_is_nothing_to_compare():
    nothing = compare(pooled(0.4), {"global mean": pooled(None), "region mean": None})
    assert nothing["name"] is None
    assert nothing["pearson"] is None
    assert nothing["pearson_reason"] == "no baseline has a defined Pearson correlation"
    flat = compare(pooled(None), {"additive": pooled(0.5)})
    assert (flat["name"], flat["pearson"]) == ("additive", None)
    assert flat["pearson_reason"] == "the model has no defined Pearson correlation"
