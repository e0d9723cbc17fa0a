"""How far replicates agree: what no model can be expected to exceed."""

from __future__ import annotations

from typing import Any

import numpy as np

from yeast_get.evaluation.metrics import as_columns, score

MOST_PAIRS = 200
"""How many pairs of samples are compared at most, spread over the conditions."""


def replicate_agreement(
    y_true: np.ndarray, region: np.ndarray, sample: np.ndarray, condition: np.ndarray
) -> dict[str, Any]:
    """The correlation between replicates, and what it leaves a model to reach.

    Where measurements are a truth and independent noise, and replicates correlate by rho, the truth
    itself correlates with one measurement by the square root of rho (Spearman 1904).

    Args:
        y_true: [n] or [n,T], NaN = not measured.
        region: [n] codes 0...
        sample: [n] codes 0...
        condition: [n] codes 0..; -1 where nothing was recorded, which is no condition.

    Returns:
        "pairs", how many pairs of samples of one condition share a region; "pearson", pooled over
        their regions, each pair counted in both orders; "ceiling", its square root. None where
        undefined, with "pearson_reason".
    """
    true = as_columns(y_true)
    pairs = _pairs(sample, condition)
    regions = int(region.max(initial=-1)) + 1
    first, second, used = [], [], 0
    for a, b in pairs:
        both = [_by_region(true, region, sample == each, regions) for each in (a, b)]
        shared = ~np.isnan(both[0]) & ~np.isnan(both[1])
        used += bool(shared.any())
        first += [both[0][shared], both[1][shared]]
        second += [both[1][shared], both[0][shared]]
    if not used:
        reason = "no condition has two samples with a region in common"
        return {"pairs": 0, "pearson": None, "ceiling": None, "pearson_reason": reason}
    said = score(np.concatenate(first), np.concatenate(second))
    out = {"pairs": used, "pearson": said["pearson"], "ceiling": None}
    if said["pearson"] is None:
        return out | {"pearson_reason": said["pearson_reason"]}
    return out | {"ceiling": float(np.sqrt(max(0.0, said["pearson"])))}


def _pairs(sample: np.ndarray, condition: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of samples of one condition: neighbours first, so that each condition has some."""
    samples, first = np.unique(sample, return_index=True)
    group = condition[first]
    found: list[tuple[int, int]] = []
    members = [samples[group == code] for code in np.unique(group[group >= 0])]
    for step in range(1, max((len(each) for each in members), default=1)):
        for each in members:
            found += zip(each[:-step].tolist(), each[step:].tolist(), strict=True)
            if len(found) >= MOST_PAIRS:
                return found[:MOST_PAIRS]
    return found


def _by_region(true: np.ndarray, region: np.ndarray, rows: np.ndarray, regions: int) -> np.ndarray:
    """[regions,T], NaN where not measured."""
    out = np.full((regions, true.shape[1]), np.nan)
    out[region[rows]] = true[rows]
    return out
