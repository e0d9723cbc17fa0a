"""Regions unlike those of training are found; regions like them are not."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from yeast_get.data.seen_regions import FEWEST, SeenRegions


def regions(count, rng, width=30):
    """Sparse scores of which the last two are nearly the same."""
    scores = np.where(rng.random((count, width)) < 0.2, rng.uniform(8, 15, (count, width)), 0)
    scores[:, -1] = scores[:, -2] + rng.normal(0, 0.1, count)
    return (scores - 2) / 4


def test_one_of_a_hundred_regions_like_those_of_training_is_far():
    rng = np.random.default_rng(0)
    shares = [SeenRegions.fit(regions(300, rng)).far(regions(1000, rng)).mean() for _ in range(10)]
    assert 0.003 < np.mean(shares) < 0.025


def test_absurd_scores_and_a_combination_never_seen_are_far():
    rng = np.random.default_rng(1)
    seen = SeenRegions.fit(regions(3000, rng))
    odd = regions(50, rng)
    odd[:, 3] += 20  # far beyond any score
    assert seen.far(odd).all()
    apart = regions(50, rng)
    apart[:, -1], apart[:, -2] = 3.5, -0.5  # each common, never together
    assert seen.far(apart).all()


def test_a_column_that_never_varies_hurts_nothing():
    rng = np.random.default_rng(2)
    features = regions(200, rng)
    features[:, :5] = 0
    assert SeenRegions.fit(features).far(features).mean() < 0.02


def test_too_few_regions_are_no_measure():
    rng = np.random.default_rng(3)
    assert SeenRegions.fit(regions(FEWEST - 1, rng)) is None
    assert SeenRegions.fit(np.zeros((100, 0))) is None


def test_it_travels_in_a_checkpoint():
    rng = np.random.default_rng(4)
    seen = SeenRegions.fit(regions(100, rng))
    file = io.BytesIO()
    torch.save(seen.to_dict(), file)
    file.seek(0)
    other = SeenRegions.from_dict(torch.load(file, weights_only=True))
    new = regions(500, rng)
    assert (other.far(new) == seen.far(new)).mean() > 0.998  # float32 there
    assert other.limit == pytest.approx(seen.limit)
    assert SeenRegions.from_dict({}) is None
