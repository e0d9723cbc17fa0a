"""The scores of a model beside its baselines: `metrics.json`, and the same in words."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from yeast_get.data.conditions import NO_DRUG
from yeast_get.data.expression_data import ExpressionData
from yeast_get.data.findings import counted
from yeast_get.data.splits import PART_NAMES, TRAIN, UNUSED
from yeast_get.evaluation import low_rank
from yeast_get.evaluation.baselines import compare
from yeast_get.evaluation.bootstrap import RESAMPLES, interval
from yeast_get.evaluation.conformal import LEVEL, LEVELS, NEEDED
from yeast_get.evaluation.evaluation import Evaluation, Predictions
from yeast_get.evaluation.metrics import summarise
from yeast_get.evaluation.replicates import replicate_agreement
from yeast_get.model.yeast_model import members_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BestBaseline:
    """The baseline with the highest pooled Pearson correlation.

    Attributes:
        name: As in `metrics.json`.
        y_pred: [N,T] in units of the input; NaN outside the headline's part.
    """

    name: str
    y_pred: np.ndarray


def measure(
    evaluation: Evaluation, predictions: Predictions, curve: pd.DataFrame | None
) -> tuple[dict[str, Any], BestBaseline | None]:
    """The content of `metrics.json`, and what the best baseline says of the headline's rows.

    Args:
        evaluation: Model and table.
        predictions: Of it.
        curve: `calibration_curve` of the two.
    """
    data, part, y_pred = evaluation.data, evaluation.part, predictions.y_pred
    condition = data.condition.astype(np.int32)[data.sample_index]

    def summary(y: np.ndarray, wanted: np.ndarray) -> dict[str, Any]:
        region = data.region_index[wanted]
        return summarise(data.target[wanted], y[wanted], region, condition[wanted])

    by_split = {
        name: summary(y_pred, data.measured & (part == code))
        for code, name in enumerate(PART_NAMES)
        if code != UNUSED and (data.measured & (part == code)).any()
    }
    metrics: dict[str, Any] = {"part": evaluation.headline, "units": "as in the input"}
    if evaluation.is_mixed:
        metrics["overall"] = None
        metrics["overall_reason"] = (
            f"{int(evaluation.trained_on.sum())} rows were trained or validated on; "
            "by_split keeps them apart"
        )
        return metrics | {"by_split": by_split, "overlap_with_training": evaluation.overlap}, None
    wanted = data.measured & evaluation.in_part(evaluation.headline)
    judged = _Judged(evaluation, wanted, condition[wanted])
    metrics |= judged.scores("model", y_pred[wanted])
    baselines, best = _baselines(evaluation, judged, wanted)
    beats = compare(metrics, baselines)
    if beats["pearson"] is not None:
        beats["pearson_ci95"] = judged.difference("model", beats["name"])
    return metrics | {
        "intervals": judged.intervals,
        "replicates": _replicates(data, wanted),
        "by_split": by_split,
        "by_drug": {
            drug: summary(y_pred, wanted & rows) for drug, rows in _drugs(data, wanted).items()
        },
        "by_target": _by_target(data, y_pred, wanted, condition),
        "by_gene": _by_gene(data, y_pred, wanted),
        "transformed": _transformed(evaluation, predictions.y_model, wanted, condition),
        "uncertainty": _uncertainty(evaluation, curve),
        "baselines": baselines,
        "beats_best_baseline_by": beats,
        "overlap_with_training": evaluation.overlap,
    }, best


def _baselines(
    evaluation: Evaluation, judged: _Judged, wanted: np.ndarray
) -> tuple[dict[str, Any], BestBaseline | None]:
    """The scores of every baseline, and what the best says; what the others say is not kept."""
    said = evaluation.baselines.predict(
        evaluation.data, evaluation.schema, wanted, evaluation.condition_key,
        evaluation.part == TRAIN,
    )  # fmt: skip
    is_control = evaluation.settings.training.shuffle_targets
    scores: dict[str, Any] = {}
    best, name, highest = None, "", -np.inf
    for each, y in said:
        if is_control and each == low_rank.NAME:
            y = "a control keeps no shuffled targets to fit it on"
        scores[each] = judged.scores(each, y)
        pearson = (scores[each]["overall"] or {}).get("pearson")
        if pearson is not None and pearson > highest:
            best, name, highest = y, each, pearson
        y = ""  # not held while the next is made
    return scores, None if best is None else _everywhere(name, best, wanted)


def _everywhere(name: str, y: np.ndarray | str, wanted: np.ndarray) -> BestBaseline:
    """A baseline's predictions of the wanted rows [N] in the order of the table."""
    rows = np.asarray(y, dtype=np.float64)
    if wanted.all():
        return BestBaseline(name, rows)
    y_pred = np.full((len(wanted), rows.shape[1]), np.nan)
    y_pred[wanted] = rows
    return BestBaseline(name, y_pred)


def _replicates(data: ExpressionData, wanted: np.ndarray) -> dict[str, Any]:
    """How far replicates agree in the wanted rows [N]."""
    blank = data.conditions.isna().all(axis=1).to_numpy()
    condition = np.where(blank, -1, data.condition)
    region, sample = data.region_index[wanted], data.sample_index[wanted]
    return replicate_agreement(data.target[wanted], region, sample, condition[sample])


def _drugs(data: ExpressionData, wanted: np.ndarray) -> dict[str, np.ndarray]:
    """The rows [N] of each drug, or combination of drugs, that some wanted row has."""
    names = [each.name for each in data.fields if each.kind == "drug" and each.name in data.given]
    if not names:
        return {}
    said = [
        " + ".join(word for word in row if word != NO_DRUG) or NO_DRUG
        for row in data.conditions[names].fillna("not recorded").itertuples(index=False)
    ]
    codes, words = pd.factorize(np.array(said, dtype=object), sort=True)
    rows = codes[data.sample_index]
    return {words[code]: rows == code for code in np.unique(rows[wanted])}


def _by_target(
    data: ExpressionData, y_pred: np.ndarray, wanted: np.ndarray, condition: np.ndarray
) -> dict[str, Any]:
    """The scores of each of several targets alone."""
    if len(data.target_names) == 1:
        return {}
    region = data.region_index[wanted]
    return {
        name: summarise(data.target[wanted, t], y_pred[wanted, t], region, condition[wanted])
        for t, name in enumerate(data.target_names)
    }


def _by_gene(data: ExpressionData, y_pred: np.ndarray, wanted: np.ndarray) -> dict[str, Any]:
    """The scores of genes, each the weighted mean of its regions; empty without a gene table."""
    if data.genes is None:
        return {}
    said = {}
    for t, name in enumerate(data.target_names):
        rows = data.region_index[wanted], data.sample_index[wanted]
        true, pred, gene, sample = data.genes.measured_and_predicted(
            data.target[wanted, t], y_pred[wanted, t], *rows, data.num_samples
        )
        scores = summarise(true, pred, gene, data.condition[sample])
        said[name] = {"genes": len(np.unique(gene)), **scores}
    return said


def _transformed(
    evaluation: Evaluation, y_model: np.ndarray, wanted: np.ndarray, condition: np.ndarray
) -> dict[str, Any]:
    """The scores after `data.target_transform`, which is what was trained; empty without one."""
    schema, data = evaluation.schema, evaluation.data
    if schema.target_transform == "none":
        return {}
    true = schema.transform(data.target[wanted])
    pred = y_model[wanted].astype(np.float64) * schema.target_sd + schema.target_mean
    scores = summarise(true, pred, data.region_index[wanted], condition[wanted])
    return {"units": f"{schema.target_transform} of the input", **scores}


def calibration_curve(evaluation: Evaluation, predictions: Predictions) -> pd.DataFrame | None:
    """How many of the headline's measured values lie in intervals of each nominal coverage.

    Returns:
        level, covered (share), n, mean_width (units of the input), a row per level; None where
        the headline has no measured value or is of rows that the model was fitted to, or
        nothing was calibrated.
    """
    wanted = evaluation.data.measured & evaluation.in_part(evaluation.headline)
    if (
        evaluation.is_mixed
        or evaluation.is_fitted_to
        or evaluation.calibration is None
        or not wanted.any()
    ):
        return None
    true = evaluation.data.target[wanted]
    measured = ~np.isnan(true)
    said = predictions.of(wanted)
    rows = []
    for level in LEVELS:
        ends = evaluation.interval(said, level)
        assert ends is not None, "it was calibrated"
        low, high = ends
        known = measured & ~np.isnan(high)
        inside = (low <= true) & (true <= high)
        width = (high - low)[known]
        n = int(known.sum())
        covered = float(inside[known].mean()) if n else np.nan
        rows.append([level, covered, n, float(width.mean(dtype=np.float64)) if n else np.nan])
    return pd.DataFrame(rows, columns=["level", "covered", "n", "mean_width"])


def _uncertainty(evaluation: Evaluation, curve: pd.DataFrame | None) -> dict[str, Any]:
    """What is known of the intervals at `LEVEL`, and how many of the values they hold."""
    out: dict[str, Any] = {"level": LEVEL, "covered": None, "mean_width": None}
    out |= {
        "members": len(members_of(evaluation.model)),
        "groups": None,
        "over": None,
        "reason": None,
    }
    if evaluation.calibration is None:
        return out | {"reason": "the intervals of this model were not calibrated"}
    if evaluation.is_fitted_to:
        return out | {"reason": "the model was fitted to these rows, or calibrated on them"}
    calibration = evaluation.calibration
    out |= {"groups": calibration.fewest, "over": calibration.over, "needed": NEEDED}
    if calibration.reason is not None:
        return out | {"reason": calibration.reason}
    if curve is None:
        return out | {"reason": "the part has no measured row"}
    at_level = curve.iloc[LEVELS.index(LEVEL)]
    return out | {
        "covered": float(at_level["covered"]),
        "mean_width": float(at_level["mean_width"]),
    }


class _Judged:
    """The rows that the headline speaks of, to score predictions of them with intervals.

    Attributes:
        intervals: What was drawn for them, for `metrics.json`.
    """

    def __init__(self, evaluation: Evaluation, wanted: np.ndarray, condition: np.ndarray) -> None:
        data = evaluation.data
        self._y_true, self._condition = data.target[wanted], condition
        self._region = data.region_index[wanted]
        self._resampler = evaluation.resampler(wanted)
        self._drawn: dict[str, np.ndarray] = {}
        self.intervals: dict[str, Any] = {
            "over": self._resampler.over,
            "regions": self._resampler.regions,
            "conditions": self._resampler.conditions,
            "resamples": RESAMPLES,
        }
        if self._resampler.reason is not None:
            self.intervals = {"over": None, "reason": self._resampler.reason}

    def scores(self, name: str, y: np.ndarray | str) -> dict[str, Any]:
        """What `summarise` says of a prediction, with intervals; of a reason, that it is one."""
        if isinstance(y, str):
            return {"overall": None, "overall_reason": y}
        summary = summarise(self._y_true, y, self._region, self._condition)
        if self._resampler.reason is None:
            drawn = self._resampler.scores(y)
            self._drawn[name] = drawn["pearson"]
            inside = {each: interval(values) for each, values in drawn.items()}
            for each in ("across_region_pearson", "within_region_pearson"):
                summary[f"{each}_ci95"] = inside.pop(each)
            summary["overall"]["ci95"] = inside
        return summary

    def difference(self, name: str, other: str) -> list[float] | None:
        """The interval of one Pearson's r less another, on the same resamples."""
        if self._resampler.reason is not None:
            return None
        return interval(self._drawn[name] - self._drawn[other])


def headline_lines(metrics: dict[str, Any]) -> list[str]:
    """The scores in words, for the screen and the log."""
    if metrics.get("overall") is None:
        lines = [f"no headline: {metrics.get('overall_reason', 'nothing was scored')}"]
        return lines + [f"  {_scores(name, each)}" for name, each in metrics["by_split"].items()]
    name = "all rows" if metrics["part"] == "all" else f"{metrics['part']} part"
    if not metrics["overall"]["n"]:
        return [f"{name}: nothing was scored, since no value was measured there"]
    lines = [_scores(name, metrics)]
    for name, each in metrics["baselines"].items():
        known = each["overall"] is not None
        lines.append(f"  {_scores(name, each)}" if known else f"  {name}: {each['overall_reason']}")
    lines.append(_verdict(metrics["beats_best_baseline_by"]))
    replicates = metrics["replicates"]
    if replicates["ceiling"] is not None:
        lines.append(
            f"replicates agree with r {replicates['pearson']:.3f} "
            f"({counted(replicates['pairs'], 'pair')} of samples), so that no model can be "
            f"expected above {replicates['ceiling']:.3f}"
        )
    lines.append(_coverage(metrics["uncertainty"]))
    if metrics["intervals"]["over"] is not None:
        over = metrics["intervals"]["over"].replace("both", "regions and conditions")
        lines.append(f"95 % intervals by drawing whole {over}, {RESAMPLES:,} times")
    return lines


def _verdict(beats: dict[str, Any]) -> str:
    """Whether the model is better than the best baseline, in words."""
    if beats.get("pearson") is None:
        return f"not compared with the baselines: {beats.get('pearson_reason', '')}"
    by, ci = beats["pearson"], beats["pearson_ci95"]
    said = f"the best baseline ({beats['name']}): {by:+.3f} in Pearson r"
    if ci is None:
        return f"the model {'beats' if by > 0 else 'does NOT beat'} {said}"
    verb = "beats" if ci[0] > 0 else "does NOT beat"
    unsure = ", so the two cannot be told apart" if ci[0] <= 0 <= ci[1] else ""
    return f"the model {verb} {said} (95 % CI {ci[0]:+.3f} to {ci[1]:+.3f}{unsure})"


def _coverage(said: dict[str, Any]) -> str:
    """What the intervals of single predictions are worth, in words."""
    if said["covered"] is None:
        return f"no intervals of single predictions: {said['reason']}"
    return (
        f"{said['level']:.0%} intervals of single predictions (y_low to y_high, calibrated on "
        f"{said['groups']} {said['over']} of the validation part) hold {said['covered']:.1%} of "
        "the measured values"
    )


def _scores(name: str, summary: dict[str, Any]) -> str:
    overall = summary["overall"]
    words = [f"{name}: n {overall['n']:,}"]
    pearson = f"pearson {_shown(overall['pearson'])}"
    ci = overall.get("ci95", {}).get("pearson")
    words.append(pearson if ci is None else f"{pearson} ({ci[0]:.3f} to {ci[1]:.3f})")
    words += [f"{key} {_shown(overall[key])}" for key in ("spearman", "r2", "rmse")]
    words.append(f"across regions {_shown(summary['across_region_pearson'])}")
    words.append(f"within regions {_shown(summary['within_region_pearson'])}")
    return ", ".join(words)


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def log_overlap(overlap: dict[str, Any]) -> None:
    """Say how much of a table was trained on."""
    counts = ", ".join(f"{name} {n:,}" for name, n in overlap["rows_by_part"].items() if n)
    log.info("rows by their part in training: %s", counts)
    log.info(
        "%d of %d regions and %d of %d conditions were trained on (conditions compared by %s)",
        overlap["regions_in_training"],
        overlap["regions"],
        overlap["conditions_in_training"],
        overlap["conditions"],
        ", ".join(overlap["conditions_compared_by"]) or "nothing: no field is shared",
    )
