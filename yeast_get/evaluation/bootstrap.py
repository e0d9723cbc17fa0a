"""Intervals by the cluster bootstrap: whole regions, whole conditions, or both, are drawn.

Rows of one region, or of one growth condition, are not independent, so that drawing rows one by
one would give intervals that are too narrow. What is drawn is what the split held out: regions
where the question is of new regions. Where both are drawn, a row counts as often as its region
times its condition was drawn (Owen 2007, the pigeonhole bootstrap), which is rather too wide than
too narrow. Every score of a resample comes from sums by region and condition, gathered once for all
resamples, some regions at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
from scipy import sparse

from yeast_get.evaluation.metrics import MIN_VALUES, as_columns, double_ranks

RESAMPLES = 1000
FEWEST = 5
"""The fewest clusters that an interval is given for."""

_BLOCK = 100
"""How many resamples are computed at once."""

_CELLS = 2_000_000
"""Up to how many cells, regions times conditions, the sums of all are held at once; of a larger
table a quarter of that, since the allocator keeps what is freed in pieces of some megabytes."""

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
        true = np.asarray(y_true)
        true = true[:, None] if true.ndim == 1 else true
        self._strands = true.shape[1]
        self._measured = ~np.isnan(true)
        strand = np.broadcast_to(np.arange(self._strands, dtype=np.int32), true.shape)
        strand = strand[self._measured]
        self._true = true[self._measured]
        row = np.nonzero(self._measured)[0]
        regions, region = _renumbered(np.asarray(region)[row])
        conditions, condition = _renumbered(np.asarray(condition)[row])
        self._region = region * self._strands + strand  # strands are never mixed in a group
        self._condition = condition * self._strands + strand
        self.regions, self.conditions = self._shape = (regions, conditions)
        self.over, self.resamples, self._seed = over, resamples, seed
        drawn = {"regions": [regions], "conditions": [conditions]}
        fewest = min(drawn.get(over, [regions, conditions]))
        self.reason: str | None = None
        if fewest < FEWEST:
            what = "regions" if over == "regions" or regions == fewest else "conditions"
            self.reason = f"an interval needs at least {FEWEST} {what}, and there are {fewest}"
            return
        self._center = float(self._true.mean(dtype=np.float64))
        self._dense = len(self._true) > _DENSE * regions * conditions * self._strands**2
        self._ranks = double_ranks(self._true)

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
        pred = pred.ravel() if self._measured.all() else pred[self._measured]
        rank = double_ranks(pred)
        totals = [_Totals(*weights) for weights in self._weights()]
        for groups, rows in self._blocks():
            sums = self._sums(pred, rank, groups, rows)
            for each in totals:
                each.add(sums, groups)
        said = [each.scores() for each in totals]
        return {name: np.concatenate([block[name] for block in said]) for name in said[0]}

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
        t = self._true.astype(np.float64) - self._center
        blocks = []
        for of_region, of_condition in self._weights():
            drawn = of_region[self._region] * of_condition[self._condition]  # [rows,k]
            sums = {"n": drawn.sum(axis=0), "t": t @ drawn, "tt": t**2 @ drawn}
            sums |= {"p": pred @ drawn, "pp": pred**2 @ drawn, "tp": pred @ (t[:, None] * drawn)}
            blocks.append(_correlation(sums, "t", "p"))
        return np.concatenate(blocks, axis=1)

    def _blocks(self) -> Iterator[tuple[slice, np.ndarray | slice]]:
        """Regions and strands, as many as have `_CELLS` cells, and where their rows stand."""
        groups, cells = self._shape[0] * self._strands, self._shape[1] * self._strands
        if groups * cells <= _CELLS:
            yield slice(0, groups), slice(None)
            return
        size = max(1, _CELLS // 4 // cells)
        order = np.argsort(self._region, kind="stable").astype(np.min_scalar_type(-len(self._true)))
        ends = np.searchsorted(self._region[order], np.arange(0, groups + size, size))
        for start, low, high in zip(range(0, groups, size), ends[:-1], ends[1:], strict=True):
            yield slice(start, min(start + size, groups)), order[low:high]

    def _sums(
        self, pred: np.ndarray, rank: np.ndarray, groups: slice, rows: np.ndarray | slice
    ) -> dict[str, Any]:
        """Sums by region and strand, and condition and strand, of some regions [G,C*T] each."""
        at = self._region[rows] - groups.start, self._condition[rows]
        shape = (groups.stop - groups.start, self._shape[1] * self._strands)

        def table(values: np.ndarray) -> Any:
            sums = sparse.coo_matrix((values, at), shape=shape).tocsr()
            return sums.toarray() if self._dense else sums

        t, p = self._true[rows].astype(np.float64) - self._center, pred[rows] - self._center
        u, v = (each[rows] / 2 - (len(each) + 1) / 2 for each in (self._ranks, rank))
        values = {"n": np.ones_like(t), "t": t, "tt": t * t, "u": u, "uu": u * u}
        values |= {"p": p, "pp": p * p, "tp": t * p, "dd": (t - p) ** 2, "d": np.abs(t - p)}
        values |= {"v": v, "vv": v**2, "uv": u * v}
        return {name: table(each) for name, each in values.items()}

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


class _Totals:
    """Sums over all rows of k resamples, which grow by some regions at a time.

    Args:
        of_region: [R,k] how often each region (and strand) was drawn; k = 1 where they were not.
        of_condition: [C,k], likewise.
    """

    def __init__(self, of_region: np.ndarray, of_condition: np.ndarray) -> None:
        self._of_region, self._of_condition = of_region, of_condition
        self._pooled: dict[str, np.ndarray] = {}  # [k]
        self._by_condition: dict[str, np.ndarray] = {}  # [C,k], "regions": how many were drawn
        self._within: dict[str, np.ndarray] = {}  # [k]

    def add(self, sums: Mapping[str, Any], groups: slice) -> None:
        """Take up the sums [G,C] of some regions, by name."""
        of_region, of_condition = self._of_region[groups], self._of_condition
        by_region = {name: table @ of_condition for name, table in sums.items()}  # [G,k]
        _grow(self._pooled, {n: (each * of_region).sum(axis=0) for n, each in by_region.items()})
        filled = (sums["n"] > 0).astype(np.float64)
        within = _within(by_region, filled @ (of_condition > 0).astype(np.float64))
        above, below = _weighted(within, of_region)
        _grow(self._within, {"above": above, "below": below})
        names = ("n", "t", "p", "tt", "pp", "tp")
        by_condition = {name: sums[name].T @ of_region for name in names}
        by_condition["regions"] = filled.T @ (of_region > 0).astype(np.float64)
        _grow(self._by_condition, by_condition)

    def scores(self) -> dict[str, np.ndarray]:
        """The scores of each resample, each [k]."""
        across = _within(self._by_condition, self._by_condition["regions"])
        return {
            **_pooled(self._pooled),
            "within_region_pearson": _ratio(self._within["above"], self._within["below"]),
            "across_region_pearson": _ratio(*_weighted(across, self._of_condition)),
        }


def _grow(totals: dict[str, np.ndarray], more: Mapping[str, np.ndarray]) -> None:
    for name, each in more.items():
        if name in totals:
            totals[name] += each
        else:
            totals[name] = each


def _renumbered(codes: np.ndarray) -> tuple[int, np.ndarray]:
    """How many different codes 0.. there are, and these anew without gaps [n] int32."""
    used = np.bincount(codes) > 0
    number = np.cumsum(used, dtype=np.int32) - 1
    return int(np.count_nonzero(used)), number[codes]


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


def _within(s: Mapping[str, np.ndarray], distinct: np.ndarray) -> np.ndarray:
    """The Pearson correlation of each group in each resample [G,k]; NaN where undefined.

    Args:
        s: Sums of each group.
        distinct: How many different values of it were drawn.
    """
    r = np.clip(_correlation(s, "t", "p"), -1, 1)
    return np.where(distinct >= MIN_VALUES, r, np.nan)


def _weighted(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the groups that are defined: the weighted sum of values, and that of weights; [k] each."""
    values, weights = np.broadcast_arrays(values, weights)
    known = ~np.isnan(values)
    above = np.where(known, values * weights, 0).sum(axis=0)
    return above, np.where(known, weights, 0).sum(axis=0)


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
