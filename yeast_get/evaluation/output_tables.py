"""The tables that a run writes: predictions, scores by group, splits, the data report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from yeast_get.data.conditions import cell_text
from yeast_get.data.expression_data import ExpressionData
from yeast_get.data.splits import NEW, PART_NAMES, UNUSED
from yeast_get.data.yeast_dataset import EpochSampler, YeastDataset, batches
from yeast_get.evaluation.evaluation import Evaluation
from yeast_get.evaluation.inference import evaluating
from yeast_get.evaluation.metrics import group_table
from yeast_get.run_dir import RunDir, atomic, write_json


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
    write_csv(frame, run.predictions)


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
        write_csv(whole, path)


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
    write_csv(frame, run.splits)


def write_data_report(described: dict[str, Any], problems: pd.DataFrame, run: RunDir) -> None:
    """`data_report.json` and `data_problems.csv`."""
    write_json(run.data_report, described)
    write_csv(problems, run.data_problems)


def _repeated(values: np.ndarray, index: np.ndarray) -> pd.Categorical:
    """values[index] without making a text per row."""
    codes, words = pd.factorize(values)
    return pd.Categorical.from_codes(codes[index], [str(word) for word in words])


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table atomically, numbers to nine digits; compressed where its name ends in .gz."""
    gzip = {"method": "gzip", "mtime": 0}  # the same bytes at any time
    with atomic(path) as temporary:
        compression = gzip if path.suffix == ".gz" else None
        frame.to_csv(temporary, index=False, float_format="%.9g", compression=compression)


def part_counts(part: np.ndarray) -> dict[str, int]:
    """Observations per part of a training table."""
    counts = np.bincount(part, minlength=NEW)
    return {name: int(counts[i]) for i, name in enumerate(PART_NAMES[:NEW])}
