"""Permutation importance: how much the score drops when one input is shuffled.

A region feature is shuffled among the regions of the table, a condition field among its samples,
and the score is taken on held-out observations. The motif columns of one transcription factor are
shuffled together, since each would stand in for the others. The idea is Breiman's (2001), as
scikit-learn implements it for plain matrices; here the two factors of the table are shuffled apart.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch

from yeast_get.data.conditions import stable_hash
from yeast_get.data.features import FeatureSchema
from yeast_get.data.roles import factor_groups
from yeast_get.data.yeast_dataset import YeastDataset
from yeast_get.evaluation.bootstrap import Resampler, interval
from yeast_get.evaluation.evaluation import Evaluation
from yeast_get.evaluation.inference import run
from yeast_get.evaluation.metrics import score

log = logging.getLogger(__name__)

POSITIVE = 2**63 - 1
"""Bits of a hash that a seed takes."""


def permutation_importance(evaluation: Evaluation, wanted: np.ndarray) -> pd.DataFrame:
    """Drop in pooled Pearson r on at most `task.importance_rows` observations, per input.

    The motif columns of one transcription factor are one input. The interval is of the drop
    averaged over the repeats; it draws what is new to the model (see `Evaluation.resampler`), the
    same for the whole input and the shuffled ones.

    Args:
        evaluation: Model and table. The inputs of its dataset are given back as they were; the
            observations that it goes through are others.
        wanted: [N] bool, the held-out observations; those to score on are drawn at random (whole
            windows).

    Returns:
        feature, kind, columns (how many of the table are shuffled together), importance_mean,
        importance_std (over the repeats), importance_low and importance_high (95 %), and
        importance_1..K, largest first; NaN where a score is not defined.
    """
    data, dataset, schema = evaluation.data, evaluation.dataset, evaluation.schema
    task, seed = evaluation.settings.task, evaluation.settings.experiment.seed
    precision, repeats = evaluation.settings.training.precision, task.importance_repeats
    rng = np.random.default_rng(seed)
    dataset.use(_some(dataset, wanted & data.measured, task.importance_rows, rng))
    measured = dataset.wanted.cpu().numpy()

    def predict() -> np.ndarray:
        y_model = run(evaluation.model, dataset, evaluation.batch_size, precision)
        return schema.to_input_units(y_model[measured])

    inputs = _inputs(dataset, schema)
    varies = np.array([_varies(tensors) for *_, tensors in inputs], dtype=bool)
    y_pred = [predict()]
    for (name, _, _, tensors), here in zip(inputs, varies, strict=True):
        for k in range(repeats if here else 0):
            with _shuffled(tensors, np.random.default_rng([seed, stable_hash(name) & POSITIVE, k])):
                y_pred.append(predict())
    pearson = [score(data.target[measured], each, ("pearson",))["pearson"] for each in y_pred]
    r = np.array(pearson, dtype=np.float64)  # NaN where undefined
    drops = np.full((len(inputs), repeats), r[0] - r[0])  # constant: shuffling changes nothing
    drops[varies] = r[0] - r[1:].reshape(-1, repeats)
    ends = np.repeat(drops[:, :1] * 0, 2, axis=1)
    ends[varies] = _intervals(evaluation.resampler(measured), np.stack(y_pred), repeats)
    frame = pd.DataFrame([each[:3] for each in inputs], columns=["feature", "kind", "columns"])
    frame["importance_mean"], frame["importance_std"] = drops.mean(axis=1), drops.std(axis=1)
    frame["importance_low"], frame["importance_high"] = ends.T
    frame[[f"importance_{k + 1}" for k in range(repeats)]] = drops
    undefined = int(frame["importance_mean"].isna().sum())
    if undefined:
        log.info("importance of %d of %d inputs is undefined: Pearson r on these %d rows is not "
                 "defined", undefined, len(frame), int(measured.sum()))  # fmt: skip
    return frame.sort_values("importance_mean", ascending=False, kind="stable", ignore_index=True)


def _intervals(resampler: Resampler, y_pred: np.ndarray, repeats: int) -> np.ndarray:
    """95 % intervals [V,2] of the drops of V inputs, NaN where there are none.

    Args:
        resampler: Of the scored rows [n].
        y_pred: [1 + V * repeats,n,T], the predictions of the whole input first.
        repeats: Shuffles per input.
    """
    if resampler.reason is not None:
        log.info("no intervals of importance: %s", resampler.reason)
        return np.full(((len(y_pred) - 1) // repeats, 2), np.nan)
    drawn = resampler.pearson(y_pred)
    drops = drawn[0] - drawn[1:].reshape(-1, repeats, resampler.resamples).mean(axis=1)
    return np.array([interval(each) or (np.nan, np.nan) for each in drops]).reshape(-1, 2)


Columns = list[tuple[torch.Tensor, list[int]]]
"""Columns of the dataset's tensors that hold one input; all have the same rows."""


def _varies(tensors: Columns) -> bool:
    parts = (tensor[..., columns] for tensor, columns in tensors)
    return any(bool((part != part[:1]).any()) for part in parts)


@contextmanager
def _shuffled(tensors: Columns, rng: np.random.Generator) -> Iterator[None]:
    """Some columns with their rows in another order, and afterwards as they were."""
    kept = [(tensor, columns, tensor[..., columns].clone()) for tensor, columns in tensors]
    order = torch.from_numpy(rng.permutation(len(tensors[0][0]))).to(tensors[0][0].device)
    try:
        for tensor, columns, part in kept:
            tensor[..., columns] = part[order]
        yield
    finally:
        for tensor, columns, part in kept:
            tensor[..., columns] = part


def _some(
    dataset: YeastDataset, wanted: np.ndarray, rows: int, rng: np.random.Generator
) -> np.ndarray:
    """A mask [N] of about `rows` wanted observations, in whole windows."""
    windows = dataset.plan.windows(wanted)
    in_window = np.append(wanted, False)[windows.observation]  # index -1 reads the last, False
    order = rng.permutation(len(windows))
    enough = np.cumsum(in_window[order].sum(axis=1))
    chosen = order[: int(np.searchsorted(enough, rows)) + 1]
    mask = np.zeros(len(wanted), dtype=bool)
    mask[windows.observation[chosen][in_window[chosen]]] = True
    return mask


def _inputs(dataset: YeastDataset, schema: FeatureSchema) -> list[tuple[str, str, int, Columns]]:
    """Per input: name, kind, how many columns of the table it is, and where the tensors hold it."""
    out: list[tuple[str, str, int, Columns]] = []
    presence = schema.presence_columns

    def region_input(name: str, kind: str, columns: list[int]) -> None:
        bits = [presence[j] for j in columns if j in presence]
        out.append((name, kind, len(columns), [(dataset.motif, columns + bits)]))

    for factor, columns in factor_groups(schema.motif_names).items():
        region_input(factor, "motif", columns)
    for j, name in enumerate(schema.region_feature_names, len(schema.motif_names)):
        region_input(name, "region feature", [j])
    if schema.accessibility is not None:
        columns = list(range(dataset.accessibility.shape[-1]))
        out.append(("accessibility", "accessibility", 1, [(dataset.accessibility, columns)]))
    for names, columns in _numbers(schema):
        pair = [(dataset.number, columns), (dataset.present, columns)]
        out.append((" and ".join(names), "condition", len(names), pair))
    for j, name in enumerate(schema.categories):
        pair = [(dataset.category, [j]), (dataset.other, [j])]
        out.append((name, "condition", 1, pair))
    for j, (name, dose) in enumerate(schema.drugs.items()):
        pair = [(dataset.drug, [j]), (dataset.dose, [j])]
        pair.append((dataset.other, [len(schema.categories) + j]))
        if dose is None:
            out.append((name, "condition", 1, pair))
        else:
            out.append((f"{name} and {dose}", "condition", 2, pair))
    return out


def _numbers(schema: FeatureSchema) -> Iterator[tuple[list[str], list[int]]]:
    """The numeric fields of each input and the places of their numbers.

    Times that are also read as one elapsed time are one input.
    """
    places: dict[str, list[int]] = {}
    for j, each in enumerate(schema.numbers):
        is_time = each.get("of") or each["name"] in schema.time_fields
        places.setdefault("" if is_time else each["name"], []).append(j)
    for columns in places.values():
        numbers = [schema.numbers[j] for j in columns]
        yield [each["name"] for each in numbers if not each.get("of")], columns
