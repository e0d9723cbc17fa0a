"""Intervals by the cluster bootstrap: whole regions, whole conditions, or both, are drawn.

Rows of one region, or of one growth condition, are not independent, so that drawing rows one by
one would give intervals that are too narrow. What is drawn is what the split held out: regions
where the question is of new regions. Where both are drawn, a row counts as often as its region
times its condition was drawn (Owen 2007, the pigeonhole bootstrap), which is rather too wide than
too narrow. Every score of a resample comes from sums that are gathered once for all resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from scipy import sparse
from scipy.stats import rankdata

from yeast_get.evaluation.metrics import MIN_VALUES, as_columns

RESAMPLES = 1000
FEWEST = 5
"""The fewest clusters that an interval is given for."""

_BLOCK = 100
"""How many resamples are computed at once."""

_DENSE = 0.2
"""From which share of filled cells on a table of regions by conditions is kept dense."""

_ROUNDING = 1e-12
"""A sum of squares below this share of its first value is rounding."""

Over = Literal["regions", "conditions", "both"]


def choose_over(
    region_known: np.ndarray, condition_known: np.ndarray, regions: int, conditions: int
) -> Over:
    """What is to be drawn for rows [n]: what is new to the model in most of them, else both.

    Where there are too few regions (conditions) to draw, the others are drawn alone, and the
    interval speaks of these very regions (conditions).
    """
    if min(regions, conditions) < FEWEST <= max(regions, conditions):
        return "regions" if regions > conditions else "conditions"
    new_region, new_condition = (
        bool(len(known)) and float(np.mean(known)) < 0.5
        for known in (region_known, condition_known)
    )
    if new_region == new_condition:
        return "both"
    return "regions" if new_region else "conditions"


class Resampler:
    """Resamples of some rows, the same for every prediction that is scored on them.

    Args:
        y_true: [n] or [n,T], NaN = not measured.
        region: [n] codes 0.., the region of each row.
        condition: [n] codes 0.., its growth condition.
        over: What is drawn.
        resamples: How often.
        seed: Of the draws.

    Attributes:
        reason: Why there are no intervals, None where there are.
        regions: How many there are.
        conditions: Likewise.
    """

    def __init__(
        self,
        y_true: np.ndarray,
        region: np.ndarray,
        condition: np.ndarray,
        over: Over,
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> None:
        true = as_columns(y_true)
        self._strands = true.shape[1]
        self._measured = ~np.isnan(true)
        strand = np.broadcast_to(np.arange(self._strands), true.shape)[self._measured]
        self._true = true[self._measured]
        row = np.nonzero(self._measured)[0]
        regions, region = np.unique(np.asarray(region)[row], return_inverse=True)
        conditions, condition = np.unique(np.asarray(condition)[row], return_inverse=True)
        self._region = region * self._strands + strand  # strands are never mixed in a group
        self._condition = condition * self._strands + strand
        self.regions, self.conditions = self._shape = (len(regions), len(conditions))
        self.over, self.resamples, self._seed = over, resamples, seed
        drawn = {"regions": [len(regions)], "conditions": [len(conditions)]}
        fewest = min(drawn.get(over, [len(regions), len(conditions)]))
        self.reason: str | None = None
        if fewest < FEWEST:
            what = "regions" if over == "regions" or len(regions) == fewest else "conditions"
            self.reason = f"an interval needs at least {FEWEST} {what}, and there are {fewest}"
            return
        self._center = float(self._true.mean())
        t = self._true - self._center
        ranks = rankdata(self._true)
        ranks -= ranks.mean()
        self._sums = {"n": self._table(np.ones_like(t)), "t": self._table(t)}
        self._sums |= {"tt": self._table(t * t), "u": self._table(ranks)}
        self._sums["uu"] = self._table(ranks * ranks)
        self._ranks = ranks

    def scores(self, y_pred: np.ndarray) -> dict[str, np.ndarray]:
        """The scores of every resample, by name, each [resamples] with NaN where undefined.

        Spearman's correlation takes the ranks among all rows and does not rank each resample anew.

        Args:
            y_pred: As `y_true`, finite.

        Raises:
            ValueError: If the shape is another one, or there are no intervals (see `reason`).
        """
        pred = as_columns(y_pred)
        if pred.shape != self._measured.shape:
            raise ValueError(f"y_pred has shape {pred.shape}, not {self._measured.shape}")
        if self.reason is not None:
            raise ValueError(self.reason)
        pred = pred[self._measured]
        t, p = self._true - self._center, pred - self._center
        ranks = rankdata(pred)
        ranks -= ranks.mean()
        sums = dict(self._sums)
        sums |= {"p": self._table(p), "pp": self._table(p * p), "tp": self._table(t * p)}
        sums |= {"dd": self._table((t - p) ** 2), "d": self._table(np.abs(t - p))}
        sums |= {"v": self._table(ranks), "vv": self._table(ranks**2)}
        sums["uv"] = self._table(self._ranks * ranks)
        blocks = [self._block(sums, weights) for weights in self._weights()]
        return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}

    def pearson(self, y_pred: np.ndarray) -> np.ndarray:
        """Pooled Pearson's r alone, of many predictions at once: [K,resamples], NaN if undefined.

        Args:
            y_pred: [K,n] or [K,n,T], K predictions, finite.

        Raises:
            ValueError: As `scores`.
        """
        if self.reason is not None:
            raise ValueError(self.reason)
        pred = np.reshape(y_pred, (-1, *self._measured.shape))[:, self._measured] - self._center
        t = self._true - self._center
        blocks = []
        for of_region, of_condition in self._weights():
            drawn = of_region[self._region] * of_condition[self._condition]  # [rows,k]
            sums = {"n": drawn.sum(axis=0), "t": t @ drawn, "tt": t**2 @ drawn}
            sums |= {"p": pred @ drawn, "pp": pred**2 @ drawn, "tp": pred @ (t[:, None] * drawn)}
            blocks.append(_correlation(sums, "t", "p"))
        return np.concatenate(blocks, axis=1)

    def _table(self, values: np.ndarray) -> Any:
        """Sums by region and strand, and condition and strand [R*T,C*T]."""
        shape = (self._shape[0] * self._strands, self._shape[1] * self._strands)
        table = sparse.coo_matrix((values, (self._region, self._condition)), shape=shape).tocsr()
        return table.toarray() if len(values) > _DENSE * shape[0] * shape[1] else table

    def _weights(self) -> Any:
        """How often each region and condition is drawn: [R*T,k] and [C*T,k], k = 1 where not."""
        rng = np.random.default_rng(self._seed)
        for start in range(0, self.resamples, _BLOCK):
            size = min(_BLOCK, self.resamples - start)
            drawn = []
            for number, name in zip(self._shape, ("regions", "conditions"), strict=True):
                weights = np.ones((number, 1))
                if self.over in (name, "both"):
                    chance = np.full(number, 1 / number)
                    weights = rng.multinomial(number, chance, size=size).T.astype(np.float64)
                drawn.append(np.repeat(weights, self._strands, axis=0))
            yield tuple(drawn)

    def _block(
        self, sums: Mapping[str, Any], weights: tuple[np.ndarray, np.ndarray]
    ) -> dict[str, np.ndarray]:
        of_region, of_condition = weights
        by_region = {name: table @ of_condition for name, table in sums.items()}  # [R,k]
        pooled = {name: (each * of_region).sum(axis=0) for name, each in by_region.items()}
        scores = _pooled(pooled)
        within = _within(sums["n"], by_region, of_condition)
        scores["within_region_pearson"] = _mean(within, of_region)
        by_condition = {
            name: sums[name].T @ of_region for name in ("n", "t", "p", "tt", "pp", "tp")
        }
        across = _within(sums["n"].T, by_condition, of_region)
        scores["across_region_pearson"] = _mean(across, of_condition)
        return scores


def _pooled(s: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Scores from sums over all rows of a resample, each [k]."""
    n = np.maximum(s["n"], 1)
    var_t, var_p = s["tt"] - s["t"] ** 2 / n, s["pp"] - s["p"] ** 2 / n
    shift = n * (s["t"] / n - s["p"] / n) ** 2
    return {
        "pearson": _correlation(s, "t", "p"),
        "spearman": _correlation(s, "u", "v"),
        "concordance": _ratio(2 * (s["tp"] - s["t"] * s["p"] / n), var_t + var_p + shift),
        "r2": 1 - _ratio(s["dd"], _positive(var_t, s["tt"])),
        "rmse": np.sqrt(s["dd"] / n),
        "mae": s["d"] / n,
    }


def _correlation(s: Mapping[str, np.ndarray], a: str, b: str) -> np.ndarray:
    """Pearson's r from the sums of two values, their squares and their product."""
    n = np.maximum(s["n"], 1)
    of_a, of_b = (_positive(s[x + x] - s[x] ** 2 / n, s[x + x]) for x in (a, b))
    return _ratio(s[a + b] - s[a] * s[b] / n, np.sqrt(of_a * of_b))


def _within(counts: Any, s: Mapping[str, np.ndarray], drawn: np.ndarray) -> np.ndarray:
    """The Pearson correlation of each group in each resample [G,k]; NaN where undefined."""
    distinct = (counts > 0).astype(np.float64) @ (drawn > 0).astype(np.float64)
    r = np.clip(_correlation(s, "t", "p"), -1, 1)
    return np.where(distinct >= MIN_VALUES, r, np.nan)


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted mean over groups [k], of those that are defined."""
    values, weights = np.broadcast_arrays(values, weights)
    known = ~np.isnan(values)
    total = np.where(known, weights, 0).sum(axis=0)
    return _ratio(np.where(known, values * weights, 0).sum(axis=0), total)


def _positive(square: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Sums of squares, 0 where they are only rounding."""
    return np.where(square > _ROUNDING * scale, square, 0.0)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)


def interval(values: np.ndarray) -> list[float] | None:
    """The middle 95 % of the resamples, None where more than 5 % of them are undefined."""
    known = values[~np.isnan(values)]
    if len(known) < 0.95 * len(values):
        return None
    return [float(each) for each in np.quantile(known, (0.025, 0.975))]
