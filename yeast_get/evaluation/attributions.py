"""What a prediction owes to each input of its region: gradient x input, integrated gradients.

Integrated gradients (Sundararajan, Taly and Yan, ICML 2017) share out the change of the prediction
from a baseline region to the region itself: input less baseline, times the gradient averaged over
the straight line between the two, so that the shares add up to the change. Gradient x input takes
the gradient at the region alone, times the same difference. The baseline region has no motif (each
score 0) and training's mean in all else; the growth condition, and in a window the neighbours,
stay as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from yeast_get.batch import Batch
from yeast_get.data.features import ACCESSIBILITY, PRESENT, FeatureSchema
from yeast_get.data.roles import factor_groups
from yeast_get.data.yeast_dataset import EpochSampler, batches
from yeast_get.evaluation.condition_words import condition_labels
from yeast_get.evaluation.evaluation import Evaluation
from yeast_get.evaluation.inference import evaluating
from yeast_get.model.yeast_model import Ensemble, YeastModel

log = logging.getLogger(__name__)

NODES = (16, 32, 64, 128, 256, 512, 1024)
"""Points on the line that are tried in turn, until the shares add up."""

TOLERANCE = 0.01
"""The largest difference between the shares' sum and the change, relative to the change."""

TOP = 10
"""How many features of a prediction are written."""

FLOOR = 0.1
"""Changes below this share of the target's SD are judged as if they were so large."""

NEARLY_ZERO = 1e-4
"""A scaled input nearer to its baseline than this is at its baseline."""


@dataclass
class Attributions:
    """The predictions of K pairs of region and growth condition, and what they owe to F features.

    Predictions and attributions are in units of the target as it was trained on: those of the
    table, or of `data.target_transform` of it; the mean of both strands where there are two.

    Attributes:
        observation: [K] one observation of each pair.
        difference: [K,F] scaled input less baseline.
        gradient_x_input: [K,F].
        integrated: [K,F] integrated gradients.
        prediction: [K].
        baseline: [K] prediction for the baseline region.
    """

    observation: np.ndarray
    difference: np.ndarray
    gradient_x_input: np.ndarray
    integrated: np.ndarray
    prediction: np.ndarray
    baseline: np.ndarray


def attribute(evaluation: Evaluation, wanted: np.ndarray) -> Attributions:
    """Attribute predictions to motif scores, other region features and accessibility, in float32.

    Each region's own prediction is attributed to its own features. A presence column counts with
    its feature, which the baseline region has recorded.

    Args:
        evaluation: Model and table. The observations that its dataset goes through are others
            afterwards; parameters and mode of the model stay as they are.
        wanted: [N] bool, at least one; of these, `task.importance_rows` pairs at most.
    """
    dataset, schema, model = evaluation.dataset, evaluation.schema, evaluation.model
    dataset.use(_pairs(evaluation, wanted))
    per_batch = max(1, evaluation.batch_size // dataset.plan.size)  # a row for each region
    baseline = torch.from_numpy(_baseline(schema)).to(dataset.device)
    floor = FLOOR * float(np.mean(schema.target_sd))
    parts = []
    with evaluating(model), torch.enable_grad():
        for batch in batches(dataset, EpochSampler(len(dataset), per_batch)):
            window, place = (batch.observation_index >= 0).nonzero(as_tuple=True)
            rows = batch.of_windows(window)
            predict = partial(_predict, model, schema, rows, place)
            at = (torch.arange(len(place), device=place.device), place)
            inputs = torch.cat((rows.motif[at], rows.accessibility[at]), dim=1)  # [k,columns]
            integrated = _integrate(predict, inputs, baseline, floor)
            gradient = _gradient(predict, inputs)
            with torch.no_grad():
                ends = predict(inputs), predict(baseline.expand_as(inputs))
            difference = inputs - baseline
            each = (rows.observation_index[at], difference, gradient * difference, integrated)
            parts.append([value.cpu().numpy() for value in (*each, *ends)])
    held = [np.concatenate(each) for each in zip(*parts, strict=True)]
    order = np.argsort(held[0])  # that of the table
    found = Attributions(*(each[order] for each in held))
    _log_completeness(found.integrated.sum(axis=1), found.prediction - found.baseline, floor)
    value, feature = _features(schema)
    found.difference = found.difference[:, value]
    found.difference[np.abs(found.difference) < NEARLY_ZERO] = 0
    found.gradient_x_input = found.gradient_x_input @ feature
    found.integrated = found.integrated @ feature
    return found


def _pairs(evaluation: Evaluation, wanted: np.ndarray) -> np.ndarray:
    """[N] bool: one observation per region and condition; few regions under all, if need be."""
    data, task = evaluation.data, evaluation.settings.task
    at = np.flatnonzero(wanted)
    region = data.region_index[at]
    pairs = pd.DataFrame({"region": region, "condition": data.signature[data.sample_index[at]]})
    turn = np.random.default_rng(evaluation.settings.experiment.seed).permutation(data.num_regions)
    order = np.argsort(turn[region], kind="stable")
    first = order[~pairs.duplicated().to_numpy()[order]]
    mask = np.zeros(len(wanted), dtype=bool)
    mask[at[first[: task.importance_rows]]] = True
    return mask


def _baseline(schema: FeatureSchema) -> np.ndarray:
    """[columns] float32, the baseline region as the model's input."""
    columns = schema.input_columns()
    center, offset, scale = (np.array(columns[key]) for key in ("center", "offset", "scale"))
    baseline: np.ndarray = ((center - offset) / scale).astype(np.float32)
    absent = schema.absent_motif()
    baseline[: len(absent)] = np.where(np.isnan(absent), baseline[: len(absent)], absent)
    baseline[[name.endswith(PRESENT) for name in columns["names"]]] = 1
    return baseline


def _features(schema: FeatureSchema) -> tuple[list[int], np.ndarray]:
    """The column of the input that holds each feature's value, and whose each column is.

    Returns:
        [F], and [columns,F] float32: 1 where a column is the value or the presence of a feature.
    """
    columns, names = schema.input_columns()["names"], feature_names(schema)
    owner = [[column in (name, name + PRESENT) for name in names] for column in columns]
    return [columns.index(name) for name in names], np.array(owner, dtype=np.float32)


def feature_names(schema: FeatureSchema) -> list[str]:
    """Names of the F features: motifs, other region features, accessibility where there is one."""
    last = [ACCESSIBILITY] if schema.accessibility is not None else []
    return [*schema.motif_names, *schema.region_feature_names, *last]


def _predict(
    model: YeastModel | Ensemble, schema: FeatureSchema, rows: Batch, place: Tensor, inputs: Tensor,
    index: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Predictions [k] for one region of each window, with other inputs.

    Args:
        model: In evaluation mode.
        schema: For the units of the target.
        rows: Windows.
        place: Where in its window the region stands.
        inputs: [k,columns] of the region.
        index: [k] which of the windows; all without.
    """
    if index is not None:
        rows, place = rows.of_windows(index), place[index]
    at = (torch.arange(len(place), device=place.device), place)
    motif, accessibility = inputs.split((rows.motif.shape[-1], rows.accessibility.shape[-1]), 1)
    rows = replace(
        rows,
        motif=rows.motif.index_put(at, motif),
        accessibility=rows.accessibility.index_put(at, accessibility),
    )
    y = model(rows)[at].float()  # [k,T]
    mean, sd = (y.new_tensor(each) for each in (schema.target_mean, schema.target_sd))
    return (y * sd + mean).mean(dim=1)


def _gradient(predict: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """Gradient of each prediction by its own inputs [k,columns]."""
    inputs = inputs.detach().requires_grad_()
    return torch.autograd.grad(predict(inputs).sum(), inputs)[0]


def _integrate(
    predict: Callable[..., Tensor], inputs: Tensor, baseline: Tensor, floor: float
) -> Tensor:
    """Integrated gradients [k,columns] by Gauss and Legendre's rule.

    Where they do not add up with few points, more are taken.

    Args:
        predict: Inputs [k',columns] and `index` [k'], which of the regions these are -> [k'].
        inputs: [k,columns].
        baseline: [columns].
        floor: Changes below this are judged as if they were so large.
    """
    difference = inputs - baseline
    integrated = torch.zeros_like(inputs)
    with torch.no_grad():
        change = predict(inputs) - predict(baseline.expand_as(inputs))
    left = torch.arange(len(inputs), device=inputs.device)
    for nodes in NODES:
        integrated[left] = 0
        rule = [inputs.new_tensor(each) for each in np.polynomial.legendre.leggauss(nodes)]
        at_once = len(inputs) // len(left)  # no more rows than there are regions
        for point, weight in zip(*(each.split(at_once) for each in rule), strict=True):
            along = baseline + (point[:, None, None] + 1) / 2 * difference[left]
            index = left.repeat(len(point))
            gradient = _gradient(partial(predict, index=index), along.flatten(0, 1))
            mean = (weight[:, None, None] / 2 * gradient.view_as(along)).sum(dim=0)
            integrated[left] += mean * difference[left]
        error = (integrated.sum(dim=1) - change).abs()
        left = (error > TOLERANCE * change.abs().clamp(min=floor)).nonzero().squeeze(1)
        if not len(left):
            break
    return integrated


def _log_completeness(total: np.ndarray, change: np.ndarray, floor: float) -> None:
    """Say how well the integrated gradients add up to the change of each prediction [K]."""
    error = np.abs(total - change) / np.maximum(np.abs(change), floor)
    log.info("integrated gradients of %d predictions add up to the change from the baseline region "
             "within %.2g %%", len(total), 100 * error.max())  # fmt: skip
    poor = int((error > TOLERANCE).sum())
    if poor:
        log.warning("of %d predictions the integrated gradients are off by more than %g %%: their "
                    "attributions are rough", poor, 100 * TOLERANCE)  # fmt: skip


def top_rows(evaluation: Evaluation, attributed: Attributions) -> pd.DataFrame:
    """The `TOP` features of each prediction by the size of their integrated gradients.

    Returns:
        region_id, gene_id, sample_id (of one sample of the condition), condition, feature, value
        (of the table), gradient_x_input, integrated_gradients, prediction, baseline_prediction;
        by observation, largest first.
    """
    data, schema = evaluation.data, evaluation.schema
    names = np.array(feature_names(schema), dtype=object)
    size = np.abs(attributed.integrated)
    top = np.argsort(-size, axis=1, kind="stable")[:, :TOP]  # [K,TOP]
    region = data.region_index[attributed.observation]
    sample = data.sample_index[attributed.observation]
    labels = condition_labels(data)[sample]
    columns = {name: j for j, name in enumerate([*data.motif_names, *data.region_feature_names])}
    value = data.motif[region][:, [columns[each] for each in names if each in columns]]
    if schema.accessibility is not None:
        assert data.accessibility is not None, "see need_columns"
        per_region = data.accessibility.ndim == 1
        cells = data.accessibility[region] if per_region else data.accessibility[region, sample]
        value = np.column_stack((value, cells))
    shown = {
        "region_id": data.region_id[region],
        "gene_id": data.gene_id[region],
        "sample_id": data.sample_id[sample],
        "condition": labels,
    }
    table = pd.DataFrame({name: np.repeat(each, top.shape[1]) for name, each in shown.items()})
    table["feature"] = names[top].ravel()
    for name, each in (
        ("value", value),
        ("gradient_x_input", attributed.gradient_x_input),
        ("integrated_gradients", attributed.integrated),
    ):
        table[name] = np.take_along_axis(each, top, axis=1).ravel()
    table["prediction"] = np.repeat(attributed.prediction, top.shape[1])
    table["baseline_prediction"] = np.repeat(attributed.baseline, top.shape[1])
    return table


def condition_effects(evaluation: Evaluation, attributed: Attributions) -> pd.DataFrame:
    """How much the motifs of each factor matter under each condition.

    The effect is the slope of the integrated gradients on the scaled score, through the origin by
    least squares over the regions: the mean change of the prediction with a score that is larger by
    one SD of training (`data.motif_scale: standard`), summed over the columns of the factor.

    Returns:
        factor, condition, effect (NaN where no region has the motif), regions (that have it).
    """
    data, motifs = evaluation.data, evaluation.schema.motif_names
    signature = data.signature[data.sample_index[attributed.observation]]
    _, first, code = np.unique(signature, return_index=True, return_inverse=True)
    labels = condition_labels(data)[data.sample_index[attributed.observation[first]]]
    difference, integrated = (
        each[:, : len(motifs)].astype(np.float64)
        for each in (attributed.difference, attributed.integrated)
    )
    of_condition = np.eye(len(first))[code].T  # [C,K]
    square = of_condition @ difference**2
    product = of_condition @ (difference * integrated)
    slope = np.divide(product, square, out=np.full_like(square, np.nan), where=square > 0)
    groups = factor_groups(motifs)
    effects, regions = [], []
    for columns in groups.values():
        effects.append(pd.DataFrame(slope[:, columns]).sum(axis=1, min_count=1))
        regions.append(of_condition @ (difference[:, columns] != 0).any(axis=1))
    return pd.DataFrame(
        {
            "factor": np.repeat(list(groups), len(labels)),
            "condition": np.tile(labels, len(groups)),
            "effect": np.reshape(effects, -1),
            "regions": np.reshape(regions, -1).astype(np.int64),
        }
    )
