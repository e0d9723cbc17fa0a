"""Scores of predictions: numpy in, plain numbers out.

Every score is computed once over all the rows it speaks of, in float64, never as a mean over
batches. A score that is not defined is None with its reason beside it, or NaN in an array.
A value of `y_true` that is NaN was not measured and is left out; a prediction must be finite.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

import numpy as np

from yeast_get.data.blocks import blocks

MIN_VALUES = 3
"""Fewest measured values of a condition or of a region for a Pearson correlation of its own."""

ROUNDING = 4.0
"""Values that vary by less than so many units in the last place of their mean are equal."""


SCORES = ("pearson", "spearman", "concordance", "r2", "rmse", "mae")


def score(
    y_true: np.ndarray, y_pred: np.ndarray, wanted: Collection[str] = SCORES
) -> dict[str, Any]:
    """The pooled scores of one set of predictions.

    Args:
        y_true: [n] or [n,T], measured values, NaN = not measured.
        y_pred: Same shape and unit, finite.
        wanted: Which of `SCORES`; ranks of many values take long.

    Returns:
        "n" (the number of measured values) and the wanted scores: "concordance" is Lin's (1989),
        "r2" compares with the mean of these very values, "rmse" and "mae" are in the unit of the
        input. An undefined score is None, and "<name>_reason" says why.

    Raises:
        ValueError: If the shapes differ, a prediction is not finite, or a measured value is
            infinite.
    """
    true, pred = _measured(y_true, y_pred)
    correlation = _why_no_correlation(true, pred)
    variance = _why_no_variance(true)
    nothing = None if true.size else "no measured values"
    scores: dict[str, Any] = {"n": int(true.size)}
    for name, reason, value in (
        ("pearson", correlation, _pearson),
        ("spearman", correlation, _spearman),
        ("concordance", variance, _concordance),
        ("r2", variance, _r2),
        ("rmse", nothing, lambda t, p: float(np.sqrt(np.mean((t - p) ** 2)))),
        ("mae", nothing, lambda t, p: float(np.mean(np.abs(t - p)))),
    ):
        if name in wanted:
            _put(scores, name, reason, partial(value, true, pred))
    return scores


def grouped_pearson(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    group: np.ndarray,
    min_count: int,
    num_groups: int | None = None,
) -> np.ndarray:
    """The Pearson correlation within each group.

    Args:
        y_true: [n] or [n,T], measured values, NaN = not measured.
        y_pred: Same shape and unit, finite.
        group: Codes 0..G-1, [n] or the shape of `y_true`; -1 leaves a row out.
        min_count: Fewest measured values for a group to count.
        num_groups: G, where it is more than the largest code + 1.

    Returns:
        [G] float64; NaN for a group with too few values, or whose measured values or predictions
        are all equal (up to rounding).

    Raises:
        ValueError: As `score`.
    """
    true, pred, code, groups = _grouped(y_true, y_pred, group, num_groups)
    count = np.bincount(code, minlength=groups)
    true, true_square = _centred(true, code, count)
    pred, pred_square = _centred(pred, code, count)
    product = np.bincount(code, weights=true * pred, minlength=groups)
    result = np.full(groups, np.nan)
    defined = (count >= max(min_count, 2)) & (true_square > 0) & (pred_square > 0)
    scale = np.sqrt(true_square[defined]) * np.sqrt(pred_square[defined])
    result[defined] = np.clip(product[defined] / scale, -1.0, 1.0)
    return result


def group_table(
    y_true: np.ndarray, y_pred: np.ndarray, group: np.ndarray, num_groups: int
) -> dict[str, np.ndarray]:
    """The scores of each group, as the columns of a table.

    Args:
        y_true: [n] or [n,T], measured values, NaN = not measured; two strands are pooled.
        y_pred: Same shape and unit, finite.
        group: Codes 0..num_groups-1, [n] or the shape of `y_true`; -1 leaves a row out.
        num_groups: The number of groups G.

    Returns:
        "n" (int64), "pearson" and "spearman" (at least `MIN_VALUES` values), "rmse", "mae",
        "mean_true", "mean_pred", each [G], over the measured values of a group; NaN where
        undefined.

    Raises:
        ValueError: As `score`.
    """
    true, pred, code, groups = _grouped(y_true, y_pred, group, num_groups)
    count = np.bincount(code, minlength=groups)
    difference = true - pred
    pearson = grouped_pearson(true, pred, code, MIN_VALUES, groups)
    ranks = _ranks(true, code), _ranks(pred, code)
    spearman = grouped_pearson(*ranks, code, MIN_VALUES, groups)
    return {
        "n": count.astype(np.int64),
        "pearson": pearson,
        "spearman": np.where(np.isnan(pearson), np.nan, spearman),
        "rmse": np.sqrt(_mean(difference**2, code, count)),
        "mae": _mean(np.abs(difference), code, count),
        "mean_true": _mean(true, code, count),
        "mean_pred": _mean(pred, code, count),
    }


def summarise(
    y_true: np.ndarray, y_pred: np.ndarray, region: np.ndarray, condition: np.ndarray
) -> dict[str, Any]:
    """What is said of one part of the data: pooled, across regions, and within regions.

    Two strands (T = 2) are pooled; a correlation never mixes the strands of one group.

    Args:
        y_true: [n] or [n,T], measured values, NaN = not measured.
        y_pred: Same shape and unit, finite.
        region: [n] codes 0.., which region a row is of; -1 = of none.
        condition: [n] codes 0.., which growth condition a row is of; -1 = of none.

    Returns:
        "overall" (see `score`); "across_region_pearson", the mean over conditions of the
        correlation over regions; "within_region_pearson", the mean over regions of the
        correlation over samples. Each mean has "<name>_groups" beside it, how many groups it is
        the mean of, and "<name>_reason" where it is None.

    Raises:
        ValueError: As `score`.
    """
    summary: dict[str, Any] = {"overall": score(y_true, y_pred)}
    for name, group, word in (
        ("across_region_pearson", condition, "condition"),
        ("within_region_pearson", region, "region"),
    ):
        each = grouped_pearson(y_true, y_pred, _per_strand(group, np.shape(y_true)), MIN_VALUES)
        each = each[~np.isnan(each)]
        varied = f"{MIN_VALUES} measured values that vary and predictions that vary"
        reason = None if each.size else f"no {word} has {varied}"
        _put(summary, name, reason, lambda each=each: float(np.mean(each)))
        summary[f"{name}_groups"] = int(each.size)
    return summary


def as_columns(y: np.ndarray) -> np.ndarray:
    """[n] or [n,T] as [n,T] float64."""
    values = np.asarray(y, dtype=np.float64)
    return values[:, None] if values.ndim == 1 else values


def double_ranks(values: np.ndarray) -> np.ndarray:
    """Twice the rank of each of some finite values [n], from 1 on, ties sharing their mean rank.

    Twice, since these are whole numbers: they take a fifth of the memory of
    `scipy.stats.rankdata`, with which they agree.
    """
    order = np.argsort(values)
    in_order = values[order]
    as_before = np.concatenate([[False], in_order[1:] == in_order[:-1], [False]])
    del in_order
    whole = np.int32 if len(values) < 2**30 else np.int64
    rank = np.arange(2, 2 * len(values) + 2, 2, dtype=whole)
    edges = np.diff(as_before.astype(np.int8))
    first, last = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    tied = (as_before[1:] | as_before[:-1])[: len(rank)]
    rank[tied] = np.repeat((first + last + 2).astype(whole), last - first + 1)
    out = np.empty_like(rank)
    out[order] = rank
    return out


def _put(scores: dict[str, Any], name: str, reason: str | None, value: Any) -> None:
    """Store `value()`, or None and the reason why there is no value."""
    scores[name] = value() if reason is None else None
    if reason is not None:
        scores[f"{name}_reason"] = reason


def _measured(y_true: np.ndarray, y_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The measured values and their predictions, flat float64."""
    true, pred = _check(y_true, y_pred)
    keep = ~np.isnan(true)
    if keep.all():  # without copies
        return true.ravel(), pred.ravel()
    return true[keep], pred[keep]


def _check(y_true: np.ndarray, y_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64, after the checks that every score makes."""
    true, pred = np.asarray(y_true, dtype=np.float64), np.asarray(y_pred, dtype=np.float64)
    if true.shape != pred.shape:
        raise ValueError(f"y_true has shape {true.shape}, but y_pred has shape {pred.shape}")
    bad = int(pred.size - np.count_nonzero(np.isfinite(pred)))
    if bad:
        raise ValueError(f"{bad} of {pred.size} predictions are not finite numbers")
    if np.isinf(true).any():
        raise ValueError("a measured value is infinite")
    return true, pred


def _grouped(
    y_true: np.ndarray, y_pred: np.ndarray, group: np.ndarray, num_groups: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Measured values, predictions and group codes, flat, and the number of groups."""
    true, pred = _check(y_true, y_pred)
    code = np.asarray(group)
    if code.ndim < true.ndim:
        code = np.repeat(code, true.shape[1]).reshape(true.shape)
    if code.shape != true.shape:
        raise ValueError(f"y_true has shape {true.shape}, but group has shape {code.shape}")
    least = int(code.max(initial=-1)) + 1
    groups = least if num_groups is None else num_groups
    if groups < least:
        raise ValueError(f"group holds code {least - 1}, but there are {groups} groups")
    keep = ~np.isnan(true) & (code >= 0)
    if keep.all():
        return true.ravel(), pred.ravel(), code.ravel().astype(np.intp), groups
    return true[keep], pred[keep], code[keep].astype(np.intp), groups


def _per_strand(group: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Group codes [n], or [n,T] with a code of its own for every strand of a group."""
    code = np.asarray(group)
    if len(shape) < 2:
        return code
    if shape[1] == 1:
        return code[:, None]
    strands = shape[1]
    apart = code[:, None] * strands + np.arange(strands)
    return np.where(code[:, None] < 0, -1, apart)


def _ranks(values: np.ndarray, code: np.ndarray) -> np.ndarray:
    """The rank of each value within its group, ties sharing their mean rank."""
    import pandas as pd

    return pd.Series(values).groupby(code).rank().to_numpy()


def _mean(values: np.ndarray, code: np.ndarray, count: np.ndarray) -> np.ndarray:
    """The mean of each group, NaN for an empty one."""
    total = np.bincount(code, weights=values, minlength=len(count))
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


def _centred(
    values: np.ndarray, code: np.ndarray, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Deviations from the group's mean [n], and their sum of squares [G], 0 if only rounding.

    One member of the group is taken off first, so that equal values become exactly zero and a
    large offset costs no digits.
    """
    groups = len(count)
    member = np.zeros(groups)
    member[code] = values
    deviation = values - member[code]
    centre = np.bincount(code, weights=deviation, minlength=groups) / np.maximum(count, 1)
    deviation -= centre[code]
    square = np.bincount(code, weights=deviation**2, minlength=groups)
    square[_is_rounding(square, count, member + centre)] = 0.0
    return deviation, square


def _is_rounding(square: Any, count: Any, mean: Any) -> Any:
    """Whether a sum of squared deviations is no more than the rounding of the values."""
    noise = ROUNDING * np.finfo(np.float64).eps * np.abs(mean)
    return square <= count * noise**2


def _single(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Deviations from the mean and their sum of squares, all values being one group."""
    shifted = np.subtract(values, values[-1], dtype=np.float64)
    centre = _running_sum(shifted) / values.size
    shifted -= centre
    square = _running_sum(shifted, power=2)
    return shifted, 0.0 if _is_rounding(square, values.size, values[-1] + centre) else square


def _running_sum(values: np.ndarray, power: int = 1) -> float:
    """The sum of values, or of their squares, one after the other, as `_centred` adds them up."""
    total = 0.0
    for rows in blocks(len(values)):
        block = np.concatenate([[total], values[rows] ** power])
        total = float(np.bincount(np.zeros(len(block), dtype=np.intp), weights=block)[0])
    return total


def _why_no_variance(true: np.ndarray) -> str | None:
    """Why R² is undefined, if it is."""
    if true.size < 2:
        return "fewer than 2 measured values"
    if _single(true)[1] == 0:
        return f"all {true.size} measured values are equal"
    return None


def _why_no_correlation(true: np.ndarray, pred: np.ndarray) -> str | None:
    """Why a correlation is undefined, if it is."""
    reason = _why_no_variance(true)
    if reason is None and _single(pred)[1] == 0:
        reason = "all predictions are equal"
    return reason


def _pearson(true: np.ndarray, pred: np.ndarray) -> float:
    true_dev, true_square = _single(true)
    pred_dev, pred_square = _single(pred)
    scale = np.sqrt(true_square) * np.sqrt(pred_square)
    return float(np.clip(np.dot(true_dev, pred_dev) / scale, -1.0, 1.0))


def _spearman(true: np.ndarray, pred: np.ndarray) -> float:
    """The Pearson correlation of the ranks, ties sharing their mean rank."""
    return _pearson(double_ranks(true), double_ranks(pred))


def _concordance(true: np.ndarray, pred: np.ndarray) -> float:
    """Lin's concordance: 1 on the identity line, less the further from it."""
    true_dev, true_square = _single(true)
    pred_dev, pred_square = _single(pred)
    shift = true.size * float((true - pred).mean()) ** 2
    product = float(np.dot(true_dev, pred_dev)) if pred_square else 0.0
    return 2 * product / (true_square + pred_square + shift)


def _r2(true: np.ndarray, pred: np.ndarray) -> float:
    return float(1.0 - np.sum((true - pred) ** 2) / _single(true)[1])
