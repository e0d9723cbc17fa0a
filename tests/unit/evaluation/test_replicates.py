"""The agreement of replicates."""

from __future__ import annotations

import numpy as np
import pytest

from yeast_get.evaluation import replicates
from yeast_get.evaluation.replicates import replicate_agreement


def measured(noise: float, regions=4000, samples=(0, 0, 0, 1, 1, 2), seed=0):
    rng = np.random.default_rng(seed)
    condition_of = np.array(samples)
    region, sample = np.divmod(np.arange(regions * len(samples)), len(samples))
    truth = rng.normal(size=(regions, 3))[region, condition_of[sample]]
    return truth, truth + noise * rng.normal(size=truth.shape), region, sample, condition_of[sample]


@pytest.mark.parametrize("noise", [0.2, 1.0])
def test_the_ceiling_is_what_the_truth_itself_reaches(noise):
    truth, y, region, sample, condition = measured(noise)
    said = replicate_agreement(y, region, sample, condition)
    assert said["pairs"] == 4
    assert said["pearson"] == pytest.approx(1 / (1 + noise**2), abs=0.02)
    assert said["ceiling"] == pytest.approx(np.corrcoef(truth, y)[0, 1], abs=0.02)


def test_cells_that_are_not_measured_and_samples_without_conditions_count_nothing():
    _, y, region, sample, condition = measured(0.5, regions=50)
    expected = replicate_agreement(y, region, sample, condition)
    more = np.concatenate([y, 100 * y[:60], np.full(50, np.nan)])
    regions = np.concatenate([region, region[:60], np.arange(50)])
    samples = np.concatenate([sample, 6 + sample[:60] % 2, np.full(50, 9)])
    conditions = np.concatenate([condition, np.full(60, -1), np.zeros(50, int)])
    got = replicate_agreement(more, regions, samples, conditions)
    assert got == expected
    shuffled = np.random.default_rng(1).permutation(len(more))
    again = replicate_agreement(
        more[shuffled], regions[shuffled], samples[shuffled], conditions[shuffled]
    )
    assert again["pearson"] == pytest.approx(expected["pearson"])


@pytest.mark.parametrize(
    ("y", "sample", "condition", "reason"),
    [
        ([1.0, 2, 3], [0, 1, 2], [0, 1, 2], "no condition has two samples with a region in common"),
        ([], [], [], "no condition has two samples with a region in common"),
        ([1.0, 1, 1], [0, 1, 2], [0, 0, 0], "all 6 measured values are equal"),
    ],
)
def test_without_replicates_there_is_no_ceiling(y, sample, condition, reason):
    codes = [np.array(each, dtype=int) for each in ([0] * len(y), sample, condition)]
    said = replicate_agreement(np.array(y), *codes)
    assert (said["pearson"], said["ceiling"], said["pearson_reason"]) == (None, None, reason)


def test_many_pairs_are_spread_over_the_conditions(monkeypatch):
    monkeypatch.setattr(replicates, "MOST_PAIRS", 4)
    assert replicates._pairs(np.arange(7), np.array([0, 0, 0, 1, 1, 1, -1])) == [
        (0, 1), (1, 2), (3, 4), (4, 5),
    ]  # fmt: skip
