"""Four baselines that know no motif: what a model has to beat.

They are fitted on training rows only and kept as fitted numbers, so that they travel with a
checkpoint and speak of any table. Regions and conditions are known by 64-bit keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any

import numpy as np

from yeast_get.stored import Sizes, build

NAMES = ("global mean", "region mean", "condition mean", "additive")
"""The baselines, in the order of every table that shows them."""

MAX_SWEEPS = 1000
TOLERANCE = 1e-8
"""The additive fit ends when no effect changes by more than this share of the targets' SD."""

NO_EFFECT = 1e-12
"""A share of the effects that a sweep takes off at most where the data cannot tell them apart."""

MIN_VALUES = 2
"""Fewest values of a region or condition for a number of its own: the mean of one is a target."""


@dataclass(frozen=True)
class Baselines:
    """Fitted baselines for T targets, in the unit of the targets they were fitted on.

    Attributes:
        global_mean: [T] float64, NaN for a target that no training row measures.
        region_keys: [P] int64, the regions that were trained on, ascending.
        region_means: [P,T], NaN where the region has fewer than `MIN_VALUES` measured values of
            that target; a region with so few of every target counts as not trained on.
        region_effects: [P,T], 0 there.
        condition_keys: [S] int64, the conditions that were trained on, ascending.
        condition_means: [S,T], as `region_means`.
        condition_effects: [S,T], as `region_effects`.
        one_dimensional: Whether the targets were [n], so that predictions are too.
    """

    global_mean: Annotated[np.ndarray, Sizes("T", odd="nan")]
    region_keys: Annotated[np.ndarray, Sizes("P", "i")]
    region_means: Annotated[np.ndarray, Sizes("P,T", odd="nan")]
    region_effects: Annotated[np.ndarray, Sizes("P,T")]
    condition_keys: Annotated[np.ndarray, Sizes("S", "i")]
    condition_means: Annotated[np.ndarray, Sizes("S,T", odd="nan")]
    condition_effects: Annotated[np.ndarray, Sizes("S,T")]
    one_dimensional: bool

    def predict(
        self,
        region_key: np.ndarray,
        condition_key: np.ndarray,
        rows: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> Iterator[tuple[str, np.ndarray | None]]:
        """What each baseline says of some rows, one after the other, since all together are large.

        Args:
            region_key: [P] int64, as in `fit`.
            condition_key: [S] int64, as in `fit`.
            rows: [n] codes each, which of these regions and conditions every row has; None where
                there is a row for each pair of keys (P = S = n).

        Yields:
            Each of `NAMES`, with [n,T] float64 ([n] if fitted on [n]), or None where the baseline
            has nothing to say, see `undefined_reason`. A row whose region (condition) was not
            trained on gets the global mean, and in "additive" no region (condition) effect.

        Raises:
            ValueError: If there are no rows and the two keys differ in length.
        """
        if rows is None and len(region_key) != len(condition_key):
            raise ValueError(f"{len(region_key)} region keys, {len(condition_key)} condition keys")
        found = [find(self.region_keys, region_key), find(self.condition_keys, condition_key)]
        if rows is not None:
            found = [(at[row], known[row]) for (at, known), row in zip(found, rows, strict=True)]
        return ((name, self._says(name, *found)) for name in NAMES)

    def _says(
        self,
        name: str,
        region: tuple[np.ndarray, np.ndarray],
        condition: tuple[np.ndarray, np.ndarray],
    ) -> np.ndarray | None:
        """What a baseline says of rows, given what `find` says of their regions and conditions."""
        some_region, some_condition = bool(region[1].any()), bool(condition[1].any())
        speaks = {
            "global mean": True,
            "region mean": some_region,
            "condition mean": some_condition,
            "additive": some_region or some_condition,
        }
        if np.isnan(self.global_mean).any() or not speaks[name]:
            return None
        base = np.broadcast_to(self.global_mean, (len(region[0]), len(self.global_mean)))
        if name == "global mean":
            return self._shape(base.copy())
        if name == "region mean":
            return self._shape(_look_up(self.region_means, *region, base))
        if name == "condition mean":
            return self._shape(_look_up(self.condition_means, *condition, base))
        nothing = np.zeros_like(base)
        effect = _look_up(self.region_effects, *region, nothing)
        effect += _look_up(self.condition_effects, *condition, nothing)
        return self._shape(base + effect)

    def knows(
        self, region_key: np.ndarray, condition_key: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Whether each region, and each condition, was trained on; a bool for each key."""
        return find(self.region_keys, region_key)[1], find(self.condition_keys, condition_key)[1]

    def undefined_reason(self, name: str) -> str:
        """Why `predict` gave None for the baseline `name`.

        Raises:
            KeyError: If there is no baseline of that name.
        """
        reasons = {
            "global mean": "no training row has a measured value",
            "region mean": "none of the regions was trained on",
            "condition mean": "none of the growth conditions was trained on",
            "additive": "none of the regions and none of the growth conditions was trained on",
        }
        reason = reasons[name]
        if not np.isnan(self.global_mean).any():
            return reason
        if np.isnan(self.global_mean).all():
            return reasons["global mean"]
        return "one of the targets has no measured value in the training rows"

    def to_dict(self) -> dict[str, Any]:
        """The fitted numbers as plain Python and tensors, for `torch.load(weights_only=True)`."""
        import torch

        stored: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            stored[field.name] = torch.tensor(value) if isinstance(value, np.ndarray) else value
        return stored

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Baselines:
        """The baselines that `to_dict` stored, with the same numbers.

        Raises:
            KeyError: If a part is missing.
            ValueError: If it holds what it cannot.
        """
        return build(cls, {field.name: stored[field.name] for field in fields(cls)})

    def _shape(self, values: np.ndarray) -> np.ndarray:
        return values[:, 0] if self.one_dimensional else values


def fit(y: np.ndarray, region_key: np.ndarray, condition_key: np.ndarray) -> Baselines:
    """Fit the four baselines; give it training rows only.

    The additive baseline is the two-way least-squares fit y ~ global + region + condition, whose
    region effects and condition effects are each zero on average over the rows. Where regions
    and conditions fall into blocks that share no row, the condition effects are zero on average
    in each block.

    A checkpoint must never hold a target of the user's. A region or condition with a single
    measured value of a target would have that very value as its mean, so it counts as not trained
    on: nothing of it is kept, and in the additive fit all such regions share one effect, all such
    conditions another.

    Args:
        y: [n] or [n,T], NaN = not measured.
        region_key: [n] int64, a hash of each row's region.
        condition_key: [n] int64, a hash of each row's growth condition.

    Raises:
        ValueError: If the lengths differ or a measured value is infinite.
    """
    values = np.asarray(y, dtype=np.float64)
    if not len(values) == len(region_key) == len(condition_key):
        raise ValueError(
            f"{len(values)} targets, {len(region_key)} region keys, "
            f"{len(condition_key)} condition keys"
        )
    if np.isinf(values).any():
        raise ValueError("a measured value is infinite")
    one_dimensional = values.ndim == 1
    table = values[:, None] if one_dimensional else values
    trained = ~np.isnan(table).all(axis=1)
    table = table[trained]
    region_keys, region = _codes(np.asarray(region_key)[trained])
    condition_keys, condition = _codes(np.asarray(condition_key)[trained])
    columns = [
        _fit_target(column, region, len(region_keys), condition, len(condition_keys))
        for column in table.T
    ]
    overall, region_means, region_effects, condition_means, condition_effects = (
        np.stack(parts, axis=-1) for parts in zip(*columns, strict=True)
    )
    some_region = ~np.isnan(region_means).all(axis=1)
    some_condition = ~np.isnan(condition_means).all(axis=1)
    return Baselines(
        overall,
        region_keys[some_region],
        region_means[some_region],
        region_effects[some_region],
        condition_keys[some_condition],
        condition_means[some_condition],
        condition_effects[some_condition],
        one_dimensional,
    )


def compare(
    model_summary: Mapping[str, Any], baseline_summaries: Mapping[str, Mapping[str, Any] | None]
) -> dict[str, Any]:
    """By how much the model beats the best baseline, on the same rows.

    Args:
        model_summary: What `metrics.summarise` says of the model.
        baseline_summaries: The same of each baseline by name; None for an undefined one.

    Returns:
        "name", the baseline with the highest pooled Pearson correlation, and "pearson", the
        model's correlation less that one's; each None where undefined, with "pearson_reason".
    """
    pooled = {name: _pooled(summary) for name, summary in baseline_summaries.items()}
    defined = {name: value for name, value in pooled.items() if value is not None}
    if not defined:
        reason = "no baseline has a defined Pearson correlation"
        return {"name": None, "pearson": None, "pearson_reason": reason}
    best = max(defined, key=lambda name: defined[name])
    own = _pooled(model_summary)
    if own is None:
        reason = "the model has no defined Pearson correlation"
        return {"name": best, "pearson": None, "pearson_reason": reason}
    return {"name": best, "pearson": own - defined[best]}


def _pooled(summary: Mapping[str, Any] | None) -> float | None:
    """The pooled Pearson correlation of a summary, if it has one."""
    overall = None if summary is None else summary.get("overall")
    return None if overall is None else overall.get("pearson")


def _codes(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct keys, ascending, and the place among them of each row's key."""
    distinct, code = np.unique(keys.astype(np.int64, copy=False), return_inverse=True)
    return distinct, code.astype(np.int32)


def find(known_keys: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The place of each key among the known ones, and whether it is one of them."""
    wanted = np.asarray(keys, dtype=np.int64)
    if not len(known_keys):
        return np.zeros(len(wanted), dtype=np.intp), np.zeros(len(wanted), dtype=bool)
    distinct, code = _codes(wanted)
    place = np.minimum(np.searchsorted(known_keys, distinct), len(known_keys) - 1)
    return place[code], (known_keys[place] == distinct)[code]


def _look_up(
    table: np.ndarray, place: np.ndarray, known: np.ndarray, otherwise: np.ndarray
) -> np.ndarray:
    """The table's rows [n,T] where they are known and not NaN, else `otherwise`."""
    result = otherwise.copy()
    if known.any():
        found = table[place]
        np.copyto(result, found, where=known[:, None] & ~np.isnan(found))
    return result


def _fit_target(
    column: np.ndarray, region: np.ndarray, regions: int, condition: np.ndarray, conditions: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Global mean, region means and effects, condition means and effects of one target."""
    measured = ~np.isnan(column)
    if not measured.any():
        nothing = [np.full(size, fill) for size in (regions, conditions) for fill in (np.nan, 0.0)]
        return (np.array(np.nan), *nothing)  # type: ignore[return-value]
    value, region, condition = column[measured], region[measured], condition[measured]
    overall = value.mean()
    rest = value - overall
    known_region = np.bincount(region, minlength=regions) >= MIN_VALUES
    known_condition = np.bincount(condition, minlength=conditions) >= MIN_VALUES
    region_effects, condition_effects = two_way(
        rest,
        np.where(known_region, np.arange(regions), regions)[region],  # the others: one more region
        regions + 1,
        np.where(known_condition, np.arange(conditions), conditions)[condition],
        conditions + 1,
    )
    region_means = _level_means(rest, region, regions) + overall
    condition_means = _level_means(rest, condition, conditions) + overall
    return (
        np.array(overall),
        np.where(known_region, region_means, np.nan),
        np.where(known_region, region_effects[:-1], 0.0),
        np.where(known_condition, condition_means, np.nan),
        np.where(known_condition, condition_effects[:-1], 0.0),
    )


def _level_means(value: np.ndarray, code: np.ndarray, levels: int) -> np.ndarray:
    """The mean of each level, NaN for a level without a value."""
    count = np.bincount(code, minlength=levels)
    total = np.bincount(code, weights=value, minlength=levels)
    return np.divide(total, count, out=np.full(levels, np.nan), where=count > 0)


def cell_means(
    region: np.ndarray, column: np.ndarray, y: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """The mean of the values of each cell [P,C], NaN for a cell without one."""
    flat = region.astype(np.int64) * shape[1] + column
    return _level_means(y, flat, shape[0] * shape[1]).reshape(shape)


def two_way(
    rest: np.ndarray, region: np.ndarray, regions: int, condition: np.ndarray, conditions: int
) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares effects of `rest` ~ region + condition.

    A sweep of backfitting sets each region's effect to the mean of what the conditions leave,
    then each condition's to the mean of what the regions leave. Its slow convergence on
    unbalanced data is mended by conjugate gradients on the sweep (in the inner product that
    weighs a condition by its rows), which lead to the same effects.
    """
    from scipy.sparse import coo_matrix

    at = region.astype(np.int32), condition.astype(np.int32)
    cells = coo_matrix((np.ones(len(rest)), at), shape=(regions, conditions)).tocsr()
    by_condition = cells.T.tocsr()
    region_count = np.maximum(np.bincount(region, minlength=regions), 1)
    weight = np.maximum(np.bincount(condition, minlength=conditions), 1)
    region_mean = np.nan_to_num(_level_means(rest, region, regions))
    condition_mean = np.nan_to_num(_level_means(rest, condition, conditions))

    def what_regions_explain(region_effect: np.ndarray) -> np.ndarray:
        return by_condition @ region_effect / weight

    def swept(effect: np.ndarray) -> np.ndarray:
        """How much a sweep would take off the condition effects, for data of all zeros."""
        return effect - what_regions_explain(cells @ effect / region_count)

    start = condition_mean - what_regions_explain(region_mean)
    tolerance = TOLERANCE * float(rest.std())
    effect = _conjugate_gradients(swept, start, weight, tolerance)
    effect = effect - np.average(effect, weights=np.bincount(condition, minlength=conditions))
    region_effect = region_mean - cells @ effect / region_count
    region_effect[np.bincount(region, minlength=regions) == 0] = 0.0
    return region_effect, effect


def _conjugate_gradients(
    operator: Any, start: np.ndarray, weight: np.ndarray, tolerance: float
) -> np.ndarray:
    """Solve operator(effect) = start, where the operator is symmetric in the weights' product."""
    effect = np.zeros_like(start)
    residual, direction = start, start
    square = float(weight @ residual**2)
    for _ in range(MAX_SWEEPS):
        image = operator(direction)
        curvature = float(weight @ (direction * image))
        if curvature <= NO_EFFECT * square:
            break
        step = square / curvature
        effect = effect + step * direction
        residual = residual - step * image
        if np.abs(step * direction).max() < tolerance:
            break
        before, square = square, float(weight @ residual**2)
        direction = residual + square / before * direction
    return effect
