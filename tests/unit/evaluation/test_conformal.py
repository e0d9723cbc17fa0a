"""Intervals hold what they promise for new groups, and refuse to promise more."""

from __future__ import annotations

import numpy as np
import pytest

from yeast_get.config import load_settings
from yeast_get.data.expression_data import load_expression_data
from yeast_get.data.splits import TEST, TRAIN, VAL
from yeast_get.evaluation.conformal import LEVELS, Calibration, calibration_groups


def grouped(groups, per_group, rng):
    """Residuals that share a part within each group, and their group."""
    group = np.repeat(np.arange(groups), per_group)
    shared = rng.normal(size=groups) * 2
    return (shared[group] + rng.normal(size=len(group)))[:, None], group


def fit(residual, group, spread=None):
    zero = np.zeros_like(residual)
    return Calibration.fit(residual, zero, zero if spread is None else spread, group, "regions")


def test_rows_of_their_own_give_the_usual_split_conformal_quantile():
    rng = np.random.default_rng(0)
    residual = rng.normal(size=(99, 1))
    fitted = fit(residual, np.arange(99))
    for level in (0.5, 0.9, 0.95):
        half = fitted.half_width(np.zeros((1, 1)), level)[0, 0]
        rank = int(np.ceil(level * 100 - 1e-9))  # of 99 scores: the ceil(level (n + 1))-th
        assert half == pytest.approx(np.sort(np.abs(residual[:, 0]))[rank - 1])


def test_new_groups_are_covered_as_promised_where_rows_of_a_group_are_alike():
    """20 groups of 30 rows: the mean coverage of new groups over many calibrations."""
    rng = np.random.default_rng(1)
    covered = {level: [] for level in (0.5, 0.8, 0.9)}
    for _ in range(400):
        fitted = fit(*grouped(20, 30, rng))
        new = grouped(20, 30, rng)[0]
        for level, shares in covered.items():
            half = fitted.half_width(np.zeros_like(new), level)
            shares.append((np.abs(new) <= half).mean())
    for level, shares in covered.items():
        assert level - 0.02 <= np.mean(shares) <= level + 0.06, level


def test_too_few_groups_give_no_interval_and_the_reason():
    rng = np.random.default_rng(2)
    few = fit(*grouped(8, 50, rng))
    assert few.reason == (
        "an interval of 90% needs at least 9 regions in the validation part, which has 8"
    )
    assert np.isnan(few.half_width(np.zeros((3, 1)))).all()
    assert np.isfinite(few.half_width(np.zeros((3, 1)), 0.8)).all()
    assert fit(*grouped(9, 50, rng)).reason is None


def test_where_the_members_disagree_the_interval_is_wider():
    rng = np.random.default_rng(3)
    spread = rng.uniform(0.1, 3, size=(4000, 1))
    residual = rng.normal(size=(4000, 1)) * spread
    fitted = fit(residual, np.arange(4000), spread)
    narrow, wide = fitted.half_width(np.array([[0.1], [3.0]]))[:, 0]
    assert wide > 1.5 * narrow
    inside = np.abs(residual) <= fitted.half_width(spread)
    assert inside.mean() == pytest.approx(0.9, abs=0.01)


def test_targets_are_calibrated_apart_and_blanks_do_not_count():
    rng = np.random.default_rng(4)
    residual = np.concatenate([rng.normal(size=(300, 1)), 10 * rng.normal(size=(300, 1))], axis=1)
    residual[::2, 1] = np.nan
    fitted = fit(residual, np.arange(300))
    alone = fit(residual[1::2, 1:], np.arange(150))
    half = fitted.half_width(np.zeros((1, 2)))[0]
    assert half[1] == pytest.approx(alone.half_width(np.zeros((1, 1)))[0, 0])
    assert 5 < half[1] / half[0] < 20


def test_levels_nest_and_travel_as_plain_python():
    rng = np.random.default_rng(5)
    fitted = fit(*grouped(40, 10, rng))
    widths = [fitted.half_width(np.ones((1, 1)), level)[0, 0] for level in LEVELS]
    assert widths == sorted(widths)
    assert Calibration.from_dict(fitted.to_dict()) == fitted
    assert Calibration.from_dict({}) is None


@pytest.mark.parametrize(("new", "words"), [
    ("regions", "regions"), ("conditions", "conditions"), ("both", "conditions"), ("none", "rows"),
])  # fmt: skip
def test_what_the_split_holds_out_is_what_counts_as_one(table_path, new, words):
    """40 regions by 3 conditions; the validation part is new in what is named."""
    data = load_expression_data(load_settings(None, named={"data.path": str(table_path)}))
    condition = np.unique(data.signature, return_inverse=True)[1][data.sample_index]
    part = np.full(data.num_observations, TRAIN)
    if new in ("regions", "both"):
        part[data.region_index < 8] = VAL
    if new in ("conditions", "both"):
        part[condition == 0] = np.where(part[condition == 0] == VAL, VAL, TEST)
    if new == "conditions":
        part[condition == 1] = VAL
    if new == "both":
        part[(part == VAL) & (condition != 0)] = TEST
    if new == "none":
        part[np.random.default_rng(0).random(len(part)) < 0.2] = VAL
    groups, said = calibration_groups(data, part)
    assert said == words
    assert len(groups) == (part == VAL).sum()
    expected = {"regions": 8, "conditions": 1, "both": 1, "none": (part == VAL).sum()}
    assert len(np.unique(groups)) == expected[new]
