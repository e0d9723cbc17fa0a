"""Additive effects and a low-rank rest: what the other cells of a table say of a cell left out.

Singular values are shrunk by a threshold (soft-impute, Mazumder, Hastie and Tibshirani 2010), which
is found on training cells that are left out. It knows no motif and no condition, and can speak only
of regions and samples that both have other cells in training. Its factors would give the targets
away, so that they are never kept: it is fitted anew wherever the training rows are at hand.
"""

from __future__ import annotations

import numpy as np

from yeast_get.evaluation.baselines import cell_means, two_way

NAME = "low rank"
MOST_RANK = 20
MOST_CELLS = 100_000_000
SHRINKAGES = (1.5, 1.0, 0.7, 0.5, 0.35, 0.25)
"""Thresholds that are tried, as shares of the largest singular value that noise would have."""

_LEFT_OUT, _SWEEPS, _SEED = 0.1, 30, 0
_SETTLED = 1e-3


def predict(
    region: np.ndarray, sample: np.ndarray, y: np.ndarray, train: np.ndarray, wanted: np.ndarray
) -> np.ndarray | str:
    """What the training rows say of the wanted ones, [w,T]; or why they say nothing.

    Args:
        region: [n] codes 0...
        sample: [n] codes 0...
        y: [n,T], NaN = not measured; only training rows are read.
        train: [n] bool.
        wanted: [n] bool. A row whose region or sample has no training cell gets the other's effect.
    """
    if not train.any():
        return "the table holds no training row, and it is fitted anew from these"
    known = [np.isin(codes, codes[train]) for codes in (region, sample)]
    if not (known[0] & known[1] & wanted).any():
        return "no row has its region and its sample in training"
    shape = (int(region.max()) + 1, int(sample.max()) + 1)
    if shape[0] * shape[1] > MOST_CELLS:
        return "not fitted: too large a table"
    out = np.empty((int(wanted.sum()), y.shape[1]))
    for t in range(y.shape[1]):
        used = train & ~np.isnan(y[:, t])
        if not used.any():
            return "a target has no measured value in training"
        cells = _complete(region[used], sample[used], y[used, t].astype(np.float64), shape)
        out[:, t] = cells[region[wanted], sample[wanted]]
    return out


def _complete(
    region: np.ndarray, sample: np.ndarray, y: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Every cell [P,S]."""
    mean = y.mean()
    effects = two_way(y - mean, region, shape[0], sample, shape[1])
    additive = mean + effects[0][:, None] + effects[1]
    rest = cell_means(region, sample, y, shape) - additive
    return additive + _soft_impute(rest, _best_shrinkage(rest))


def _best_shrinkage(rest: np.ndarray) -> float:
    """The threshold that does best on cells that are left out."""
    known = np.flatnonzero(~np.isnan(rest))
    rng = np.random.default_rng(_SEED)
    out = rng.permutation(known)[: int(np.ceil(_LEFT_OUT * len(known)))]
    inside = rest.copy()
    inside.reshape(-1)[out] = np.nan
    truth = rest.reshape(-1)[out]
    best, least, filled = SHRINKAGES[0], np.inf, None
    for shrinkage in SHRINKAGES:
        filled = _soft_impute(inside, shrinkage, filled)
        error = float(np.mean((filled.reshape(-1)[out] - truth) ** 2))
        if error > least:
            break
        best, least = shrinkage, error
    return best


def _soft_impute(rest: np.ndarray, shrinkage: float, start: np.ndarray | None = None) -> np.ndarray:
    """The low-rank part of a matrix with gaps, singular values shrunk."""
    gaps = np.isnan(rest)
    if gaps.all():
        return np.zeros_like(rest)
    noise = float(np.nanstd(rest)) * np.sqrt((~gaps).mean())
    threshold = shrinkage * noise * sum(np.sqrt(rest.shape))
    part = np.zeros_like(rest) if start is None else start
    for _ in range(_SWEEPS):
        filled = np.where(gaps, part, rest)
        before, part = part, _shrunk(filled, threshold)
        change = float(np.mean((part - before) ** 2))
        if not gaps.any() or change <= _SETTLED**2 * float(np.mean(part**2)):
            break
    return part


def _shrunk(matrix: np.ndarray, threshold: float) -> np.ndarray:
    """The matrix with its singular values less a threshold, and at most `MOST_RANK` of them."""
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    square, right = np.linalg.eigh(tall.T @ tall)
    value = np.sqrt(np.maximum(square, 0))[::-1][:MOST_RANK]
    right = right[:, ::-1][:, :MOST_RANK]
    share = np.divide(np.maximum(value - threshold, 0), value, out=0 * value, where=value > 0)
    out = (tall @ right * share) @ right.T
    return out if tall is matrix else out.T
