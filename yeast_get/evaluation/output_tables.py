"""The tables that a run writes: predictions, scores by group, splits, the data report."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from contextlib import nullcontext
from gzip import GzipFile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from yeast_get.data.blocks import blocks
from yeast_get.data.conditions import cell_text
from yeast_get.data.expression_data import ExpressionData
from yeast_get.data.seen_regions import NOT_SEEN
from yeast_get.data.splits import NEW, PART_NAMES, UNUSED
from yeast_get.data.yeast_dataset import EpochSampler, YeastDataset, batches
from yeast_get.evaluation.canvas import as_cell
from yeast_get.evaluation.condition_words import condition_labels
from yeast_get.evaluation.evaluation import Evaluation, Predictions
from yeast_get.evaluation.inference import evaluating
from yeast_get.evaluation.metrics import group_table
from yeast_get.evaluation.scorecard import BestBaseline
from yeast_get.model.yeast_model import members_of
from yeast_get.run_dir import RunDir, atomic, write_json


def write_predictions(evaluation: Evaluation, predictions: Predictions, run: RunDir) -> None:
    """`predictions.csv`: one row per observation, in the order of the input."""
    data = evaluation.data
    columns = _id_columns(data)
    columns["gene_id"] = _words(data.gene_id, data.region_index)
    columns["split"] = _words(np.array(PART_NAMES, dtype=object), evaluation.part)
    for name in data.conditions.columns:
        cells = [cell_text(value) for value in data.conditions[name]]
        columns[name] = _words(np.array(cells, dtype=object), data.sample_index)
    flags = _flags(evaluation)

    def block(rows: slice) -> dict[str, list[str]]:
        said = predictions.of(rows)
        ends, true = evaluation.interval(said), data.target[rows]
        texts = {name: column(rows) for name, column in columns.items()}
        for t, suffix in enumerate(data.target_suffixes):
            texts[f"y_true{suffix}"] = _numbers(true[:, t])
            texts[f"y_pred{suffix}"] = _numbers(said.y_pred[:, t])
            texts[f"residual{suffix}"] = _numbers(true[:, t] - said.y_pred[:, t])
            if said.y_std is not None:
                texts[f"y_std{suffix}"] = _numbers(said.y_std[:, t])
            if ends is not None:
                texts[f"y_low{suffix}"], texts[f"y_high{suffix}"] = (
                    _numbers(end[:, t]) for end in ends
                )
        return texts | {"flags": flags(rows)}

    _write_rows(block, data.num_observations, run.predictions)


_Column = Callable[[slice], list[str]]
"""The cells of some rows of a CSV file, as they stand there."""


def _id_columns(data: ExpressionData) -> dict[str, _Column]:
    """What an observation is: row, sample and region."""
    return {
        "row": lambda rows: [str(row) for row in data.row[rows].tolist()],
        "sample_id": _words(data.sample_id, data.sample_index),
        "region_id": _words(data.region_id, data.region_index),
    }


def _words(values: np.ndarray, index: np.ndarray) -> _Column:
    """A column values[index] of words; blank where there is none."""
    cells = np.array(["" if pd.isna(each) else _cell(str(each)) for each in values], dtype=object)
    return lambda rows: cells[index[rows]].tolist()


def _cell(word: str) -> str:
    """A word as a CSV file has it: no formula (`canvas.as_cell`), in quotes where it needs them."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([as_cell(word), ""])  # a blank alone has quotes
    return line.getvalue()[:-2]


def _numbers(values: np.ndarray) -> list[str]:
    """Numbers to nine digits, blank where there is none."""
    texts = ("%.9g\n" * len(values) % tuple(values.tolist())).split("\n")[:-1]
    for at in np.flatnonzero(np.isnan(values)):
        texts[at] = ""
    return texts


def _write_rows(block: Callable[[slice], dict[str, list[str]]], rows: int, path: Path) -> None:
    """Write a CSV file atomically as a stream, three times as fast as pandas would.

    Args:
        block: Gives the cells of some rows, by column.
        rows: How many there are.
        path: Where.
    """
    with atomic(path) as file:
        for some in blocks(rows, _AT_ONCE):
            texts = block(some)
            if not some.start:
                file.write((",".join(map(_cell, texts)) + "\n").encode())
            lines = (f"{','.join(row)}\n" for row in zip(*texts.values(), strict=True))
            file.write("".join(lines).encode())


_AT_ONCE = 1 << 16
"""Rows that are texts at once."""


def _flags(evaluation: Evaluation) -> _Column:
    """What of each row training could not teach: of its conditions, then of its region."""
    data, seen = evaluation.data, evaluation.seen
    of_sample, samples = pd.factorize(evaluation.schema.flags(data))
    far = np.zeros(data.num_regions, dtype=bool)
    if seen is not None:
        far = seen.far(evaluation.schema.region_inputs(data))
    words = [*samples, *(f"{each}; {NOT_SEEN}".removeprefix("; ") for each in samples)]
    cells, of_far = np.array([_cell(each) for each in words], dtype=object), len(samples) * far

    def column(rows: slice) -> list[str]:
        codes = of_sample[data.sample_index[rows]] + of_far[data.region_index[rows]]
        texts: list[str] = cells[codes].tolist()
        return texts

    return column


def write_tables(
    evaluation: Evaluation, y_pred: np.ndarray, best: BestBaseline | None, run: RunDir
) -> None:
    """`metrics_by_condition.csv` and `metrics_by_region.csv`, a row per group and part.

    Beside the model's scores stand those of the best baseline, in the part of the headline.
    """
    data = evaluation.data
    first, condition = data.condition_first, data.condition
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
            if code == UNUSED:
                continue
            rows = data.target[wanted], group[wanted], len(labels)
            columns = [labels, pd.DataFrame(group_table(rows[0], y_pred[wanted], *rows[1:]))]
            if best is not None and np.isfinite(best.y_pred[wanted]).all():
                columns.append(_beside(group_table(rows[0], best.y_pred[wanted], *rows[1:]), best))
            table = pd.concat(columns, axis=1)
            table.insert(0, "split", part)
            tables.append(table[table["n"] > 0])
        scored = [table for table in tables if len(table)] or tables[:1]
        write_csv(pd.concat(scored, ignore_index=True), path)


def _beside(scores: dict[str, np.ndarray], best: BestBaseline) -> pd.DataFrame:
    """The scores of the best baseline under names of their own."""
    names = ("pearson", "spearman", "rmse")
    frame = pd.DataFrame({f"{name}_baseline": scores[name] for name in names})
    frame.insert(0, "baseline", best.name)
    return frame


def write_embeddings(
    evaluation: Evaluation, y_pred: np.ndarray, dataset: YeastDataset, run: RunDir
) -> None:
    """`embeddings.npz`: the encoder's mean output per region and per growth condition.

    Both are means over the headline's observations; where the encoder sees no conditions, theirs
    are their loadings. `expression` is the mean prediction of each region, in units of the input.
    """
    data, model = evaluation.data, evaluation.model
    first, condition = data.condition_first, data.condition[data.sample_index]
    wanted = evaluation.in_part(evaluation.headline)
    dataset.use(wanted)
    width = evaluation.settings.model.transformer.embed_dim
    regions, conditions = np.zeros((data.num_regions, width)), np.zeros((len(first), width))
    device = next(model.parameters()).device
    with evaluating(model):
        for batch in batches(dataset, EpochSampler(len(dataset), evaluation.batch_size)):
            encoded = model.encode(batch.to(device)).float().cpu().numpy()
            here = (batch.observation_index >= 0).cpu().numpy()
            at = batch.observation_index.cpu().numpy()[here]
            np.add.at(regions, data.region_index[at], encoded[here])
            np.add.at(conditions, condition[at], encoded[here])
    rows = np.bincount(data.region_index[wanted], minlength=data.num_regions)
    rows_of = np.bincount(condition[wanted], minlength=len(first))
    mean = np.bincount(data.region_index[wanted], y_pred[wanted].mean(axis=1), data.num_regions)
    here, of = rows > 0, rows_of > 0
    by_condition = conditions[of] / rows_of[of, None]
    by_factors = members_of(model)[0].by_factors
    if by_factors is not None:
        fields = dataset.conditions_of(torch.from_numpy(first[of]).to(dataset.device))
        loadings = by_factors.loadings.of({name: f.to(device) for name, f in fields.items()})
        by_condition = loadings.flatten(1).cpu().numpy()
    with atomic(run.embeddings) as file:
        np.savez_compressed(
            file,
            region_id=data.region_id[here].astype(str),
            embedding=(regions[here] / rows[here, None]).astype(np.float32),
            expression=(mean[here] / rows[here]).astype(np.float32),
            first_sample_id=data.sample_id[first][of].astype(str),
            condition=condition_labels(data)[first][of].astype(str),
            condition_embedding=by_condition.astype(np.float32),
        )


def write_splits(data: ExpressionData, part: np.ndarray, run: RunDir) -> None:
    """`splits.csv`: the part of every observation, in the order of the input."""
    columns = _id_columns(data)
    columns["split"] = _words(np.array(PART_NAMES, dtype=object), part)

    def block(rows: slice) -> dict[str, list[str]]:
        return {name: column(rows) for name, column in columns.items()}

    _write_rows(block, data.num_observations, run.splits)


def write_data_report(described: dict[str, Any], problems: pd.DataFrame, run: RunDir) -> None:
    """`data_report.json` and `data_problems.csv`."""
    write_json(run.data_report, described)
    write_csv(problems, run.data_problems)


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table atomically, numbers to nine digits; compressed where its name ends in .gz.

    No text in it is a formula, see `canvas.as_cell`.
    """
    frame = frame.rename(columns=as_cell)
    for at, kind in enumerate(frame.dtypes):
        if isinstance(kind, pd.CategoricalDtype):
            frame.isetitem(at, frame.iloc[:, at].cat.rename_categories(as_cell))
        elif not pd.api.types.is_numeric_dtype(kind):
            frame.isetitem(at, frame.iloc[:, at].map(as_cell))
    with atomic(path) as file:
        # without name and time in its header, so that the bytes are always the same
        packed = GzipFile("", "wb", fileobj=file, mtime=0) if path.suffix == ".gz" else None
        with packed or nullcontext(file) as handle:
            frame.to_csv(handle, index=False, float_format="%.9g")


def part_counts(part: np.ndarray) -> dict[str, int]:
    """Observations per part of a training table."""
    counts = np.bincount(part, minlength=NEW)
    return {name: int(counts[i]) for i, name in enumerate(PART_NAMES[:NEW])}
