"""What an evaluation writes: predictions, scores beside baselines, tables, plots."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from yeast_get.config import Settings
from yeast_get.data.conditions import NO_DRUG, cell_text
from yeast_get.data.expression_data import ExpressionData
from yeast_get.data.features import FeatureSchema
from yeast_get.data.findings import counted
from yeast_get.data.splits import NEW, PART_NAMES, TEST, TRAIN, UNUSED, VAL
from yeast_get.data.yeast_dataset import EpochSampler, YeastDataset, batches
from yeast_get.errors import Problem, RunError
from yeast_get.evaluation import plots
from yeast_get.evaluation.baselines import compare
from yeast_get.evaluation.bootstrap import RESAMPLES, Resampler, choose_over, interval
from yeast_get.evaluation.importance import permutation_importance
from yeast_get.evaluation.inference import evaluating, predict
from yeast_get.evaluation.metrics import group_table, summarise
from yeast_get.evaluation.replicates import replicate_agreement
from yeast_get.evaluation.rivals import Rivals
from yeast_get.model.yeast_model import YeastModel
from yeast_get.run_dir import RunDir, atomic, write_json

log = logging.getLogger(__name__)


@dataclass
class Evaluation:
    """One model on one table.

    Attributes:
        model: On the device to compute on.
        data: The table.
        schema: The model's.
        settings: `task`, `training.precision` and `data.regions_per_window` are read.
        baselines: Fitted on the model's training rows.
        part: [N] part of each observation, as `PART_NAMES`.
        condition_key: [S] int64, the condition of each sample as the baselines know it.
        headline: The part that `overall` speaks of; `all` where the table holds no training row.
        overlap: How much of the table was trained on.
        batch_size: Windows per batch.
        dataset: The table as the model takes it.
    """

    model: YeastModel
    data: ExpressionData
    schema: FeatureSchema
    settings: Settings
    baselines: Rivals
    part: np.ndarray
    condition_key: np.ndarray
    headline: str
    overlap: dict[str, Any]
    batch_size: int
    dataset: YeastDataset = field(init=False)

    def __post_init__(self) -> None:
        device = next(self.model.parameters()).device
        window = self.settings.data.regions_per_window
        self.dataset = YeastDataset(self.data, self.schema, window, device)

    def in_part(self, name: str) -> np.ndarray:
        """[N] bool: the observations of a part, of all parts for `all`."""
        if name == "all":
            return np.ones(len(self.part), dtype=bool)
        return self.part == PART_NAMES.index(name)

    @property
    def trained_on(self) -> np.ndarray:
        """[N] bool: the observations that the model was trained or validated on."""
        return np.isin(self.part, (TRAIN, VAL))

    @property
    def is_mixed(self) -> bool:
        """Whether the headline would mix rows that were trained on with others."""
        return self.headline == "all" and bool(self.trained_on.any())

    @property
    def pictured(self) -> str:
        """The part that plots and importance speak of: the headline's, never a mixture."""
        if not self.is_mixed:
            return self.headline
        for name in ("test", "new", "val"):
            if (self.data.measured & self.in_part(name)).any():
                return name
        return "train"


def choose_headline(part: np.ndarray, measured: np.ndarray, asked: str | None = None) -> str:
    """The part that the headline speaks of, where `--split` does not say.

    A table that holds training or validation rows is judged on its test rows, or on those that
    the training table did not hold; a table without any such row on all of its rows.
    """
    if asked is not None:
        return asked
    if not np.isin(part, (TRAIN, VAL)).any():
        return "all"
    return "test" if (measured & (part == TEST)).any() else "new"


def evaluate(
    evaluation: Evaluation, run: RunDir, *, tables: bool, interpret: bool
) -> dict[str, Any]:
    """Predict every row of the table, and write what the task asks for.

    Args:
        evaluation: Model and table.
        run: Where to write.
        tables: Whether to write the tables by condition and by region.
        interpret: Whether to measure permutation importance.

    Returns:
        The content of `metrics.json`; empty with `task.test_mode: predict`.
    """
    task, precision = evaluation.settings.task, evaluation.settings.training.precision
    dataset = evaluation.dataset
    everything = np.ones(evaluation.data.num_observations, dtype=bool)
    y_model = predict(evaluation.model, dataset, everything, evaluation.batch_size, precision)
    # float32 is what predictions.csv holds: scores of that file are the scores written here
    y_pred = evaluation.schema.to_input_units(y_model).astype(np.float32)
    _refuse_non_finite(evaluation.data, y_pred)
    if task.save_predictions or task.test_mode == "predict":
        write_predictions(evaluation, y_pred, run)
    if task.save_embeddings:
        write_embeddings(evaluation, dataset, run)
    if task.test_mode == "predict":
        return {}
    metrics = measure(evaluation, y_pred)
    write_json(run.metrics, metrics)
    if tables:
        write_tables(evaluation, y_pred, run)
    pictured = evaluation.pictured
    if evaluation.is_mixed:
        log.info("plots and importance speak of the %s part, since rows that were trained on are "
                 "not mixed with others", pictured)  # fmt: skip
    if task.save_predictions:
        plots.plot_scatter(run.predictions, run.scatter_plot, pictured)
        plots.plot_residuals(run.predictions, run.residuals_plot, pictured)
    held_out = evaluation.in_part(pictured) & evaluation.data.measured
    if interpret and held_out.any():
        importance = permutation_importance(
            evaluation.model,
            evaluation.data,
            dataset,
            evaluation.schema,
            held_out,
            rows=task.importance_rows,
            repeats=task.importance_repeats,
            batch_size=evaluation.batch_size,
            seed=evaluation.settings.experiment.seed,
            precision=precision,
        )
        _write_csv(importance, run.importance)
        plots.plot_importance(run.importance, run.importance_plot)
    elif interpret:
        log.info("importance was not measured: the %s part holds no measured value", pictured)
    return metrics


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


def _refuse_non_finite(data: ExpressionData, y_pred: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(y_pred).all(axis=1))
    if len(bad):
        region = data.region_id[data.region_index[bad[0]]]
        what = f"{len(bad)} predictions are not finite numbers; the first is of region {region}"
        fix = "look for absurd numbers in that row, or train with a lower learning rate"
        raise RunError(Problem(what, fix, file=data.source, row=int(data.row[bad[0]])))


def measure(evaluation: Evaluation, y_pred: np.ndarray) -> dict[str, Any]:
    """The content of `metrics.json`.

    Args:
        evaluation: Model and table.
        y_pred: [N,T] in units of the input.
    """
    data, part = evaluation.data, evaluation.part
    condition = _conditions(data)[data.sample_index]

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
        return metrics | {"by_split": by_split, "overlap_with_training": evaluation.overlap}
    wanted = data.measured & evaluation.in_part(evaluation.headline)
    judged = _Judged(evaluation, wanted, condition[wanted])
    metrics |= judged.scores("model", y_pred[wanted])
    said = evaluation.baselines.predict(
        data, evaluation.schema, wanted, evaluation.condition_key, evaluation.part == TRAIN
    )
    baselines = {name: judged.scores(name, y) for name, y in said.items()}
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
        "baselines": baselines,
        "beats_best_baseline_by": beats,
        "overlap_with_training": evaluation.overlap,
    }


def _conditions(data: ExpressionData) -> np.ndarray:
    """[S] codes 0.., the growth condition of each sample."""
    return np.unique(data.signature, return_inverse=True)[1].reshape(-1)


def _replicates(data: ExpressionData, wanted: np.ndarray) -> dict[str, Any]:
    """How far replicates agree in the wanted rows [N]."""
    condition = _conditions(data)
    condition[data.conditions.isna().all(axis=1).to_numpy()] = -1
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


class _Judged:
    """The rows that the headline speaks of, to score predictions of them with intervals.

    Attributes:
        intervals: What was drawn for them, for `metrics.json`.
    """

    def __init__(self, evaluation: Evaluation, wanted: np.ndarray, condition: np.ndarray) -> None:
        data, fitted = evaluation.data, evaluation.baselines
        self._y_true, self._condition = data.target[wanted], condition
        self._region = data.region_index[wanted]
        keys = (data.region_hash[self._region], evaluation.condition_key[data.sample_index[wanted]])
        known = fitted.means.knows(*keys)
        sizes = {"regions": len(np.unique(keys[0])), "conditions": len(np.unique(keys[1]))}
        over = choose_over(*known, sizes["regions"], sizes["conditions"])
        self._resampler = Resampler(self._y_true, *keys, over)
        self._drawn: dict[str, np.ndarray] = {}
        self.intervals: dict[str, Any] = {"over": over, **sizes, "resamples": RESAMPLES}
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


# ---------------------------------------------------------------------------------------- tables


def write_predictions(evaluation: Evaluation, y_pred: np.ndarray, run: RunDir) -> None:
    """`predictions.csv`: one row per observation, in the order of the input."""
    data = evaluation.data
    frame = pd.DataFrame(
        {
            "row": data.row,
            "sample_id": _repeated(data.sample_id, data.sample_index),
            "region_id": _repeated(data.region_id, data.region_index),
            "gene_id": _repeated(data.gene_id, data.region_index),
            "split": pd.Categorical.from_codes(evaluation.part, list(PART_NAMES)),
        }
    )
    for name in data.conditions.columns:
        cells = [cell_text(value) for value in data.conditions[name]]
        frame[name] = _repeated(np.array(cells, dtype=object), data.sample_index)
    for t, target in enumerate(data.target_names):
        suffix = "" if len(data.target_names) == 1 else f"_{target}"
        frame[f"y_true{suffix}"] = data.target[:, t]
        frame[f"y_pred{suffix}"] = y_pred[:, t]
        frame[f"residual{suffix}"] = data.target[:, t] - y_pred[:, t]
    frame["flags"] = _repeated(evaluation.schema.flags(data), data.sample_index)
    _write_csv(frame, run.predictions)


def write_tables(evaluation: Evaluation, y_pred: np.ndarray, run: RunDir) -> None:
    """`metrics_by_condition.csv` and `metrics_by_region.csv`, a row per group and part."""
    data = evaluation.data
    _, first, condition = np.unique(data.signature, return_index=True, return_inverse=True)
    condition = condition.reshape(-1)
    names = data.conditions.iloc[first].map(cell_text).reset_index(drop=True)
    names.insert(0, "samples", np.bincount(condition))
    names.insert(0, "first_sample_id", data.sample_id[first])
    regions = pd.DataFrame({"region_id": data.region_id, "gene_id": data.gene_id})
    for group, labels, path in (
        (condition[data.sample_index], names, run.metrics_by_condition),
        (data.region_index, regions, run.metrics_by_region),
    ):
        tables = []
        for code, part in enumerate(PART_NAMES):
            wanted = data.measured & (evaluation.part == code)
            if code == UNUSED or not wanted.any():
                continue
            columns = group_table(data.target[wanted], y_pred[wanted], group[wanted], len(labels))
            table = pd.concat([labels, pd.DataFrame(columns)], axis=1)
            table.insert(0, "split", part)
            tables.append(table[table["n"] > 0])
        whole = pd.concat(tables, ignore_index=True) if tables else labels.iloc[:0]
        _write_csv(whole, path)


def write_embeddings(evaluation: Evaluation, dataset: YeastDataset, run: RunDir) -> None:
    """`embeddings.npz`: the encoder's mean output per region over the headline's observations."""
    data, model = evaluation.data, evaluation.model
    dataset.use(evaluation.in_part(evaluation.headline))
    total = np.zeros((data.num_regions, evaluation.settings.model.transformer.embed_dim))
    count = np.zeros(data.num_regions)
    device = next(model.parameters()).device
    with evaluating(model):
        for batch in batches(dataset, EpochSampler(len(dataset), evaluation.batch_size)):
            encoded = model.encode(batch.to(device)).float().cpu().numpy()
            here = (batch.observation_index >= 0).cpu().numpy()
            region = batch.region_index.cpu().numpy()[here]
            np.add.at(total, region, encoded[here])
            np.add.at(count, region, 1)
    with_any = count > 0
    with atomic(run.embeddings) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(
            handle,
            region_id=data.region_id[with_any].astype(str),
            embedding=(total[with_any] / count[with_any, None]).astype(np.float32),
        )


def write_splits(data: ExpressionData, part: np.ndarray, run: RunDir) -> None:
    """`splits.csv`: the part of every observation, in the order of the input."""
    frame = pd.DataFrame(
        {
            "row": data.row,
            "sample_id": _repeated(data.sample_id, data.sample_index),
            "region_id": _repeated(data.region_id, data.region_index),
            "split": pd.Categorical.from_codes(part, list(PART_NAMES)),
        }
    )
    _write_csv(frame, run.splits)


def write_data_report(described: dict[str, Any], problems: pd.DataFrame, run: RunDir) -> None:
    """`data_report.json` and `data_problems.csv`."""
    write_json(run.data_report, described)
    _write_csv(problems, run.data_problems)


def _repeated(values: np.ndarray, index: np.ndarray) -> pd.Categorical:
    """values[index] without making a text per row."""
    codes, words = pd.factorize(values)
    return pd.Categorical.from_codes(codes[index], [str(word) for word in words])


def _write_csv(frame: pd.DataFrame, path: Any) -> None:
    with atomic(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.9g")


def part_counts(part: np.ndarray) -> dict[str, int]:
    """Observations per part of a training table."""
    counts = np.bincount(part, minlength=NEW)
    return {name: int(counts[i]) for i, name in enumerate(PART_NAMES[:NEW])}
