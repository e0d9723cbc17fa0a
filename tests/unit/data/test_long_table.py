"""Replicates of a long table, some regions at a time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from yeast_get.data import long_table
from yeast_get.data.long_table import replicate_sd


@pytest.mark.parametrize("rows", [1 << 20, 100])
def test_replicate_sd_is_the_pooled_sd_within_cells(monkeypatch, rows):
    monkeypatch.setattr(long_table, "ROWS", rows)
    rng = np.random.default_rng(0)
    region, base = rng.integers(0, 50, 900), rng.integers(0, 12, 900)
    target = rng.normal(size=(900, 1)).astype(np.float32)
    target[::11] = np.nan
    known = ~np.isnan(target[:, 0])
    table = pd.DataFrame({"r": region, "b": base, "y": target[:, 0].astype(np.float64)})[known]
    rest = table["y"] - table.groupby(["r", "b"])["y"].transform("mean")
    dof = (table.groupby(["r", "b"]).size() - 1).sum()
    wanted = float(np.sqrt((rest**2).sum() / dof))
    assert replicate_sd(region, base, target) == pytest.approx(wanted, rel=1e-12)


def test_without_replicates_the_sd_is_zero():
    assert replicate_sd(np.arange(3), np.zeros(3, int), np.ones((3, 1), np.float32)) == 0.0
