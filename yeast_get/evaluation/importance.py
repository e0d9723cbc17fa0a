"""Permutation importance: how much the score drops when one input is shuffled.

A region feature is shuffled among the regions of the table, a condition field among its samples,
and the score is taken on held-out observations. The idea is Breiman's (2001), as scikit-learn
implements it for plain matrices; here the two factors of the table are shuffled apart.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch

from yeast_get.data.conditions import stable_hash
from yeast_get.data.expression_data import ExpressionData
from yeast_get.data.features import FeatureSchema
from yeast_get.data.yeast_dataset import YeastDataset
from yeast_get.evaluation.inference import run
from yeast_get.evaluation.metrics import score
from yeast_get.model.yeast_model import Ensemble, YeastModel

log = logging.getLogger(__name__)

POSITIVE = 2**63 - 1
"""Bits of a hash that a seed takes."""


def permutation_importance(
    model: YeastModel | Ensemble,
    data: ExpressionData,
    dataset: YeastDataset,
    schema: FeatureSchema,
    wanted: np.ndarray,
    *,
    rows: int,
    repeats: int,
    batch_size: int,
    seed: int,
    precision: str = "fp32",
) -> pd.DataFrame:
    """Drop in pooled Pearson r on at most `rows` of the wanted observations, per input.

    Args:
        model: The model.
        data: The table.
        dataset: Of that table, without augmentation. Its inputs are given back as they were; the
            observations that it goes through are others.
        schema: The schema.
        wanted: [N] bool, the held-out observations.
        rows: Observations to score on, drawn at random (whole windows).
        repeats: Shuffles per input.
        batch_size: Windows per batch.
        seed: Seed of the draws; the order of the inputs does not matter.
        precision: As in `training.precision`.

    Returns:
        feature, kind, importance_mean, importance_std and importance_1..K, largest first; NaN
        where a score is not defined.
    """
    dataset.use(_some(dataset, wanted & data.measured, rows, np.random.default_rng(seed)))
    measured = dataset.wanted.cpu().numpy()
    y_true = data.target[measured]

    def pearson() -> float:
        y_pred = schema.to_input_units(run(model, dataset, batch_size, precision)[measured])
        value = score(y_true, y_pred)["pearson"]
        return np.nan if value is None else value

    whole = pearson()
    table = []
    for name, kind, tensors in _inputs(dataset, schema):
        drops = []
        for k in range(repeats if _varies(tensors) else 0):
            with _shuffled(tensors, np.random.default_rng([seed, stable_hash(name) & POSITIVE, k])):
                drops.append(whole - pearson())
        drops = drops or [whole - whole] * repeats  # constant: shuffling changes nothing
        table.append([name, kind, float(np.mean(drops)), float(np.std(drops)), *drops])
    names = ["feature", "kind", "importance_mean", "importance_std"]
    names += [f"importance_{k + 1}" for k in range(repeats)]
    frame = pd.DataFrame(table, columns=names)
    undefined = int(frame["importance_mean"].isna().sum())
    if undefined:
        log.info("importance of %d of %d inputs is undefined: Pearson r on these %d rows is not "
                 "defined", undefined, len(frame), len(y_true))  # fmt: skip
    return frame.sort_values("importance_mean", ascending=False, kind="stable", ignore_index=True)


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


def _inputs(dataset: YeastDataset, schema: FeatureSchema) -> list[tuple[str, str, Columns]]:
    """Name, kind, and the columns of the dataset's tensors that hold it, per input."""
    out: list[tuple[str, str, Columns]] = []
    names = [*schema.motif_names, *schema.region_feature_names]
    presence = {j: len(names) + i for i, j in enumerate(schema.with_presence)}
    for j, name in enumerate(names):
        kind = "motif" if j < len(schema.motif_names) else "region feature"
        columns = [j, presence[j]] if j in presence else [j]
        out.append((name, kind, [(dataset.motif, columns)]))
    if schema.accessibility is not None:
        columns = list(range(dataset.accessibility.shape[-1]))
        out.append(("accessibility", "accessibility", [(dataset.accessibility, columns)]))
    for j, each in enumerate(schema.numbers):
        pair = [(dataset.number, [j]), (dataset.present, [j])]
        out.append((each["name"], "condition", pair))
    for j, name in enumerate(schema.categories):
        out.append((name, "condition", [(dataset.category, [j])]))
    for j, (name, dose) in enumerate(schema.drugs.items()):
        both = name if dose is None else f"{name} and {dose}"
        out.append((both, "condition", [(dataset.drug, [j]), (dataset.dose, [j])]))
    return out
