"""Prediction intervals that hold what they promise: split conformal, on the validation part.

The score of a validation row is its absolute residual over the scale of its prediction, and an
interval is the prediction plus and minus a quantile of these scores (Papadopoulos et al., 2002;
scaled: Lei et al., 2018). Rows of one region, or of one condition, are not exchangeable with those
of another, so that where the split holds out groups, groups are what is counted: each weighs
1 / (groups + 1), spread evenly over its rows, and the rest stands for the group to come (Lee,
Barber and Willett, 2023). All of it is in model space, so that the intervals of a transformed
target are not symmetric in the units of the input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Annotated, Any, Literal

import numpy as np

from yeast_get.data.expression_data import ExpressionData
from yeast_get.data.splits import TRAIN, VAL, region_groups
from yeast_get.evaluation.metrics import as_columns
from yeast_get.stored import Sizes, build

LEVEL = 0.9
"""Nominal coverage of the intervals in `predictions.csv`."""

NEEDED = 9
"""Fewest groups for an interval at that level: 9 of 10, with the one to come."""

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, LEVEL, 0.95)
"""Nominal coverages that a checkpoint has quantiles for, and that a calibration curve shows."""


Over = Literal["regions", "conditions", "rows"]
"""What counts as one."""


@dataclass
class Calibration:
    """What was learned from the residuals of the validation part.

    Attributes:
        scale: Per target T, the root mean square residual in model space.
        quantiles: Per target, a quantile of the scores for each of `LEVELS`; None where there are
            too few groups for that level.
        over: What was counted: regions, conditions or rows.
        groups: How many of them, per target.
    """

    scale: Annotated[list[float], Sizes("T")]
    quantiles: Annotated[list[list[float | None]], Sizes("T")]
    over: Over
    groups: Annotated[list[int], Sizes("T")]

    @classmethod
    def fit(
        cls,
        y_true: np.ndarray,
        y_pred: np.ndarray,
        spread: np.ndarray,
        group: np.ndarray,
        over: Over,
    ) -> Calibration:
        """Learn from validation rows.

        Args:
            y_true: [n,T] in model space, NaN = not measured.
            y_pred: [n,T] in model space.
            spread: [n,T] SD of the members of an ensemble; 0 for a single model.
            group: [n] codes of what is exchangeable.
            over: What the groups are, in words.
        """
        residual = np.abs(as_columns(y_true) - as_columns(y_pred)).astype(np.float64)
        known = ~np.isnan(residual)
        scale, quantiles, groups = [], [], []
        for t in range(residual.shape[1]):
            rows = known[:, t]
            size = float(np.sqrt(np.mean(residual[rows, t] ** 2))) if rows.any() else 0.0
            score = residual[rows, t] / np.maximum(np.hypot(spread[rows, t], size), _SMALLEST)
            scale.append(size)
            groups.append(len(np.unique(group[rows])))
            quantiles.append([_quantile(score, group[rows], level) for level in LEVELS])
        return cls(scale, quantiles, over, groups)

    def half_width(self, spread: np.ndarray, level: float = LEVEL) -> np.ndarray:
        """Half of the interval of predictions with a spread [n,T], in model space; NaN = none."""
        chosen = [each[LEVELS.index(level)] for each in self.quantiles]
        quantile = np.array([np.nan if each is None else each for each in chosen])
        return quantile * np.hypot(spread, np.array(self.scale))

    @property
    def fewest(self) -> int:
        """Groups of the target with the fewest that has intervals; of any where none has."""
        known = [each[LEVELS.index(LEVEL)] is not None for each in self.quantiles]
        return min((n for n, has in zip(self.groups, known, strict=True) if has),
                   default=max(self.groups))  # fmt: skip

    @property
    def reason(self) -> str | None:
        """Why no target has intervals at `LEVEL`; None where one has."""
        if any(each[LEVELS.index(LEVEL)] is not None for each in self.quantiles):
            return None
        return (
            f"an interval of {LEVEL:.0%} needs at least {NEEDED} {self.over} in the validation "
            f"part, which has {self.fewest}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain Python."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Calibration | None:
        """What `to_dict` stored; None of a checkpoint that was not calibrated.

        Raises:
            ValueError: Where a part holds what it cannot, or is missing.
        """
        if not stored:
            return None
        calibration = build(cls, stored)
        if any(len(each) != len(LEVELS) for each in calibration.quantiles):
            raise ValueError(f"a target has other quantiles than those of {len(LEVELS)} levels")
        if min(calibration.scale) < 0 or any(q and q < 0 for q in chain(*calibration.quantiles)):
            raise ValueError("an interval ends below where it begins")
        return calibration


def calibration_groups(data: ExpressionData, part: np.ndarray) -> tuple[np.ndarray, Over]:
    """What counts as one in the validation part: a region, a condition, or a row.

    Regions (alike or overlapping ones as one) where those of the validation part are new,
    conditions where these are; where both are, the fewer of the two; rows where neither is.

    Args:
        data: The training table.
        part: [N] part of each observation.

    Returns:
        [n] codes of the validation rows, and what they are, in words.
    """
    val, train = part == VAL, part == TRAIN
    region = region_groups(data)[data.region_index]
    condition = data.condition[data.sample_index]
    kinds: list[tuple[np.ndarray, Over]] = [(region, "regions"), (condition, "conditions")]
    new = [
        (group[val], words)
        for group, words in kinds
        if np.isin(group[val], group[train]).mean() < 0.5
    ]
    if not new:
        return np.arange(int(val.sum())), "rows"
    return min(new, key=lambda each: len(np.unique(each[0])))


_SMALLEST = 1e-12


def _quantile(score: np.ndarray, group: np.ndarray, level: float) -> float | None:
    """The score below which a new group's row lies with this probability at least."""
    if not len(score):
        return None
    _, code, size = np.unique(group, return_inverse=True, return_counts=True)
    weight = 1 / (size[code.reshape(-1)] * (len(size) + 1))
    order = np.argsort(score, kind="stable")
    reached = np.cumsum(weight[order])
    at = int(np.searchsorted(reached, level - 1e-9))
    return float(score[order[at]]) if at < len(score) else None
