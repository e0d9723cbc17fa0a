"""Three ridge regressions that know motifs and conditions: the rivals that a model has to beat.

One regression per growth condition over the features of regions says something of new regions; one
per region over the features of conditions, of new conditions; one over their products, of both.
They are fitted on training rows only and kept as fitted numbers, as the other baselines are. Cells
are means over replicates; the weight of the penalty is found by leaving out training regions or
conditions, never by a row that is tested.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

import numpy as np

from yeast_get.data.blocks import blocks
from yeast_get.evaluation.baselines import cell_means, find
from yeast_get.stored import Sizes, build

NAMES = ("ridge per condition", "ridge per region", "ridge bilinear")
"""The regressions, in the order of every table that shows them."""

MIN_VALUES = 3
"""The fewest measured cells for a regression of its own."""

PENALTIES = (0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
"""Weights of the penalty that are tried, per row and unit of variance."""

MOST_SD = 5.0
"""Features further than so many SD from the mean of training count as so far: a straight line that
is drawn on without end is no rival."""

MOST_CELLS = 100_000_000
"""The most cells, regions times conditions, that are fitted."""

_FOLDS, _TRIED, _SEED = 5, 200, 0
_FILLS = 10


@dataclass(frozen=True)
class Ridge:
    """Fitted regressions for T targets, in the unit of the targets they were fitted on.

    Attributes:
        global_mean: [T] float64.
        region_scale: [2,M]: what is taken off each region feature, and what divides it.
        condition_scale: [2,K], likewise.
        region_keys: [P] int64, the regions with a regression, ascending.
        per_region: [P,K+1,T] float32, the intercept last; NaN for targets with too few cells.
        condition_keys: [C] int64, the conditions with a regression, ascending.
        per_condition: [C,M+1,T] float32, likewise.
        bilinear: [M+1,K+1,T] float32, the last row and column those of a constant 1.
    """

    global_mean: Annotated[np.ndarray, Sizes("T")]
    region_scale: Annotated[np.ndarray, Sizes("2,M", odd="inf")]
    condition_scale: Annotated[np.ndarray, Sizes("2,K", odd="inf")]
    region_keys: Annotated[np.ndarray, Sizes("P", "i")]
    per_region: Annotated[np.ndarray, Sizes("P,K+1,T", odd="nan")]
    condition_keys: Annotated[np.ndarray, Sizes("C", "i")]
    per_condition: Annotated[np.ndarray, Sizes("C,M+1,T", odd="nan")]
    bilinear: Annotated[np.ndarray, Sizes("M+1,K+1,T")]

    def predict(self, table: Table) -> Iterator[tuple[str, np.ndarray | str]]:
        """What each regression says of the rows of a table, [n,T]; or why it says nothing.

        A row whose region (condition) has no regression of its own gets the global mean.
        """
        region, condition = table.region, table.condition
        f = _scaled(table.region_features, self.region_scale)
        g = _scaled(table.condition_features, self.condition_scale)
        nothing = "none of the {} was trained on often enough"
        # no name is given to what is said, so that nothing is held while it is scored
        places = _places(self.condition_keys, table.condition_keys)
        yield (
            NAMES[0],
            _or(
                self._of_groups(self.per_condition, places, condition, f, region),
                nothing.format("growth conditions"),
            ),
        )
        places = _places(self.region_keys, table.region_keys)
        yield (
            NAMES[1],
            _or(
                self._of_groups(self.per_region, places, region, g, condition),
                nothing.format("regions"),
            ),
        )
        yield NAMES[2], self._of_products(f, region, g, condition)

    def _of_products(
        self, f: np.ndarray, region: np.ndarray, g: np.ndarray, condition: np.ndarray
    ) -> np.ndarray:
        """[n,T] by the products of scaled features of regions and conditions."""
        product = np.einsum("pm,mkt->pkt", _with_one(f), self.bilinear.astype(np.float64))
        ones = _with_one(g)
        rows = np.empty((len(region), len(self.global_mean)))
        for t in range(rows.shape[1]):
            for at in blocks(len(rows)):
                weights, features = product[region[at], :, t], ones[condition[at]]
                rows[at, t] = np.einsum("nk,nk->n", weights, features)
        rows += self.global_mean
        return rows

    def _of_groups(
        self,
        weights: np.ndarray,
        places: np.ndarray,
        group: np.ndarray,
        features: np.ndarray,
        row: np.ndarray,
    ) -> np.ndarray | None:
        """[n,T] by the weights of each row's group, else the global mean; None if no row has any.

        Args:
            weights: As `per_region`.
            places: The place in `weights` of each group, -1 where it has none.
            group: The group of each row [n].
            features: Scaled features of what is no group.
            row: Which of these each row has.
        """
        at = places[group]
        if not (at >= 0).any():
            return None
        out = np.broadcast_to(self.global_mean, (len(at), len(self.global_mean))).copy()
        ones = _with_one(features)
        order = np.argsort(at, kind="stable")[np.count_nonzero(at < 0) :]
        bounds = np.flatnonzero(np.diff(at[order], prepend=-1, append=-2))
        for low, high in zip(bounds[:-1], bounds[1:], strict=True):
            rows = order[low:high]
            value = ones[row[rows]] @ weights[at[rows[0]]].astype(np.float64)
            np.copyto(value, self.global_mean, where=np.isnan(value))
            out[rows] = value
        return out

    def to_dict(self) -> dict[str, Any]:
        """The fitted numbers as tensors, for `torch.load(weights_only=True)`."""
        import torch

        return {field.name: torch.tensor(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Ridge:
        """What `to_dict` stored.

        Raises:
            ValueError: If a part is missing, or holds what it cannot.
        """
        fitted = build(cls, stored)
        for mean, scale in (fitted.region_scale, fitted.condition_scale):
            if not (scale > 0).all() or not np.isfinite(mean).all():
                raise ValueError("a scale is not above zero")
        return fitted


@dataclass(frozen=True)
class Table:
    """Rows by region and condition, with the features of both.

    Attributes:
        region: [n] codes 0..P-1.
        condition: [n] codes 0..C-1.
        region_features: [P,M], without gaps.
        condition_features: [C,K], without gaps.
        region_keys: [P] int64 by which regions are known in other tables.
        condition_keys: [C] int64, likewise.
        region_groups: [P] codes: regions of one group are left out together.
        condition_groups: [C] codes, likewise.
    """

    region: np.ndarray
    condition: np.ndarray
    region_features: np.ndarray
    condition_features: np.ndarray
    region_keys: np.ndarray
    condition_keys: np.ndarray
    region_groups: np.ndarray
    condition_groups: np.ndarray


def fit(table: Table, y: np.ndarray) -> Ridge | None:
    """Fit the three regressions; give it training rows only.

    Args:
        table: The rows.
        y: [n,T], NaN = not measured.

    Returns:
        None where nothing can be fitted: no value, or more than `MOST_CELLS` cells.
    """
    shape = (len(table.region_features), len(table.condition_features))
    if shape[0] * shape[1] > MOST_CELLS or not np.isfinite(y).any(axis=0).all():
        return None
    seen = [np.unique(each) for each in (table.region, table.condition)]
    region_scale = _scale(table.region_features[seen[0]])
    condition_scale = _scale(table.condition_features[seen[1]])
    f = _scaled(table.region_features, region_scale)
    g = _scaled(table.condition_features, condition_scale)
    mean = np.nanmean(np.asarray(y, dtype=np.float64), axis=0)
    folds = _folds(table.region_groups), _folds(table.condition_groups)
    per_region, per_condition, bilinear = [], [], []
    for t in range(y.shape[1]):
        cells = _cells(table, y[:, t] - mean[t], shape)
        per_region.append(_grouped(cells, g, folds[1]))
        per_condition.append(_grouped(cells.T, f, folds[0]))
        known = cells[np.ix_(*seen)]
        folds_of_known = folds[0][seen[0]], folds[1][seen[1]]
        bilinear.append(_bilinear(known, f[seen[0]], g[seen[1]], folds_of_known))
    of_region, of_condition = (
        np.stack(each, axis=-1).astype(np.float32) for each in (per_region, per_condition)
    )
    for weights in (of_region, of_condition):
        weights[:, -1] += mean.astype(np.float32)
    kept = [_kept(of_region, table.region_keys), _kept(of_condition, table.condition_keys)]
    return Ridge(
        global_mean=mean,
        region_scale=region_scale,
        condition_scale=condition_scale,
        region_keys=table.region_keys[kept[0]],
        per_region=of_region[kept[0]],
        condition_keys=table.condition_keys[kept[1]],
        per_condition=of_condition[kept[1]],
        bilinear=np.stack(bilinear, axis=-1).astype(np.float32),
    )


def _or(said: np.ndarray | None, reason: str) -> np.ndarray | str:
    return reason if said is None else said


def _kept(weights: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Where some target has a regression, in the order of their keys."""
    order = np.argsort(keys)
    some: np.ndarray = ~np.isnan(weights).any(axis=1).all(axis=1)
    return order[some[order]]


def _scale(features: np.ndarray) -> np.ndarray:
    """Mean and SD of each column [2,M]; what does not vary is divided by infinity."""
    values = features.astype(np.float64)
    sd = values.std(axis=0) if len(values) else np.zeros(values.shape[1])
    mean = values.mean(axis=0) if len(values) else np.zeros(values.shape[1])
    return np.stack([mean, np.where(sd > 1e-9 * np.maximum(1, np.abs(mean)), sd, np.inf)])


def _scaled(features: np.ndarray, scale: np.ndarray) -> np.ndarray:
    scaled = (features.astype(np.float64) - scale[0]) / scale[1]
    clipped: np.ndarray = np.clip(scaled, -MOST_SD, MOST_SD)
    return clipped


def _with_one(features: np.ndarray) -> np.ndarray:
    return np.concatenate([features, np.ones((len(features), 1))], axis=1)


def _places(known: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The place of each key among the known ones, which ascend; -1 where it is none of them."""
    place, is_known = find(known, keys)
    return np.where(is_known, place, -1).astype(np.int32)


def _cells(table: Table, y: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Means of the measured values of each region and condition [P,C], NaN without any."""
    known = ~np.isnan(y)
    return cell_means(table.region[known], table.condition[known], y[known], shape)


def _folds(groups: np.ndarray) -> np.ndarray:
    """The fold of each member of the groups, dealt out at random."""
    values, codes = np.unique(groups, return_inverse=True)
    dealt: np.ndarray = np.random.default_rng(_SEED).permutation(len(values)) % _FOLDS
    return dealt[codes.reshape(-1)]


def _grouped(cells: np.ndarray, features: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """A ridge regression for each group over the features of the others.

    Args:
        cells: [A,B], NaN = not measured.
        features: [B,M], scaled.
        fold: [B], which are left out together to find the penalty.

    Returns:
        [A,M+1] weights, the intercept last; NaN for a group with less than two cells per
        weight, which would give its targets away.
    """
    out = np.full((len(cells), features.shape[1] + 1), np.nan)
    fewest = max(MIN_VALUES, 2 * (1 + np.count_nonzero(features.any(axis=0))))
    enough = np.flatnonzero((~np.isnan(cells)).sum(axis=1) >= fewest)
    penalty = _best_penalty(cells, features, fold, enough)
    for known, members in _alike(cells, enough):
        y = cells[np.ix_(members, known)].T
        out[members] = _ridge(features[known], y, [penalty])[0]
    return out


def _alike(cells: np.ndarray, groups: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Groups [A'] that are measured in the same columns, and these [B'], for one fit of all."""
    known = ~np.isnan(cells[groups])
    patterns, codes = np.unique(np.packbits(known, axis=1), axis=0, return_inverse=True)
    codes = codes.reshape(-1)
    for code in range(len(patterns)):
        members = np.flatnonzero(codes == code)
        yield np.flatnonzero(known[members[0]]), groups[members]


def _best_penalty(
    cells: np.ndarray, features: np.ndarray, fold: np.ndarray, enough: np.ndarray
) -> float:
    """The penalty that does best where a fold of the columns is left out, over some groups."""
    tried = np.random.default_rng(_SEED).permutation(enough)[:_TRIED]
    error = np.zeros(len(PENALTIES))
    for known, members in _alike(cells, tried):
        for each in range(_FOLDS):
            train, test = known[fold[known] != each], known[fold[known] == each]
            if len(train) < MIN_VALUES or not len(test):
                continue
            weights = _ridge(features[train], cells[np.ix_(members, train)].T, PENALTIES)
            said = _with_one(features[test]) @ weights.transpose(0, 2, 1)
            error += ((said - cells[np.ix_(members, test)].T) ** 2).sum(axis=(1, 2))
    return _least(error)


def _least(error: np.ndarray) -> float:
    """The penalty of the smallest error [L]; the largest one where nothing could be tried."""
    return PENALTIES[int(np.argmin(error))] if error.any() else PENALTIES[-1]


def _ridge(x: np.ndarray, y: np.ndarray, penalties: Sequence[float]) -> np.ndarray:
    """Ridge regressions of y [n,A] over x [n,M]; `n * penalty` weighs the squared weights.

    Returns:
        Weights for each penalty [L,A,M+1], the intercept last and without a penalty.
    """
    center, mean = x.mean(axis=0), y.mean(axis=0)
    x, y = x - center, y - mean
    n = len(x)
    wide = x.shape[1] > n
    value, vector = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    turned = vector.T @ (y if wide else x.T @ y)
    out = np.empty((len(penalties), y.shape[1], x.shape[1] + 1))
    for each, penalty in zip(out, penalties, strict=True):
        weights = vector @ (turned / (np.maximum(value, 0) + n * penalty)[:, None])
        each[:, :-1] = (x.T @ weights if wide else weights).T
        each[:, -1] = mean - each[:, :-1] @ center
    return out


def _bilinear(
    cells: np.ndarray, f: np.ndarray, g: np.ndarray, folds: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Ridge weights [M+1,K+1] of the products of both features; gaps are filled by the fit."""
    f, g = _with_one(f), _with_one(g)
    error = np.zeros(len(PENALTIES))
    for each in range(_FOLDS):
        train = [fold != each for fold in folds]
        test = [fold == each for fold in folds]
        inside, outside = cells[np.ix_(*train)], cells[np.ix_(*test)]
        if np.isnan(inside).all() or np.isnan(outside).all():
            continue
        fits = _filled_fits(inside, f[train[0]], g[train[1]], PENALTIES)
        for i, weights in enumerate(fits):
            error[i] += np.nansum((f[test[0]] @ weights @ g[test[1]].T - outside) ** 2)
    return next(_filled_fits(cells, f, g, [_least(error)]))


def _filled_fits(
    cells: np.ndarray, f: np.ndarray, g: np.ndarray, penalties: Sequence[float]
) -> Iterator[np.ndarray]:
    """For each penalty: fit, fill the gaps with what the fit says, and fit again, some times."""
    u, s, vt = np.linalg.svd(f, full_matrices=False)
    p, q, wt = np.linalg.svd(g, full_matrices=False)
    gaps = np.isnan(cells)
    for penalty in penalties:
        shrink = np.outer(s, q) / (np.outer(s**2, q**2) + penalty * cells.size)
        filled = np.where(gaps, 0.0, cells)
        weights = np.zeros((f.shape[1], g.shape[1]))
        for _ in range(_FILLS if gaps.any() else 1):
            weights = vt.T @ (shrink * (u.T @ filled @ p)) @ wt
            if gaps.any():
                filled = np.where(gaps, f @ weights @ g.T, cells)
        yield weights
