"""The predictors that `accuracy.py` compares; each runs in a process of its own.

python benchmarks/predictors.py TABLE SPLIT FOLD PREDICTOR DATA OUT.npz
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from folds import Fold, example_config, hide, make_fold, read, with_all_conditions

from yeast_get.config import Settings
from yeast_get.data.expression_data import ExpressionData
from yeast_get.data.features import FeatureSchema
from yeast_get.data.splits import PART_NAMES, TEST, TRAIN, UNUSED, VAL
from yeast_get.evaluation import boosting
from yeast_get.evaluation.rivals import Rivals

Said = dict[str, np.ndarray | str]
"""Name -> predictions of the test rows [n] in units of the input, or why there are none."""

SETTINGS: dict[str, dict[str, Any]] = {
    "lightgbm rows": {**boosting.PARAMETERS, "steps": (100, 200, 400)},
    "lightgbm components": {
        "learning_rate": 0.03, "num_leaves": 15, "min_data_in_leaf": 20, "feature_fraction": 0.3,
        "bagging_fraction": 0.8, "bagging_freq": 1, "deterministic": True, "force_row_wise": True,
        "verbosity": -1, "components": 12, "steps": (150, 300, 500), "seeds": 4,
    },
    "ridge on eight": {"steps": (0.03, 0.1, 0.3, 1.0, 3.0)},
    "mlp": {"hidden": 256, "dropout": 0.1, "lr": 1e-3, "weight_decay": 1e-2, "batch": 2048,
            "steps": (1, 2, 4, 8)},
}  # fmt: skip
"""`steps`, rounds or epochs (of the ridge: penalties), are the whole budget of tuning: one fit is
scored on the validation part after each, and one on all training rows takes what did best. Where
there are `seeds`, a fit is the mean of so many, as four members are of `train_yeast`."""


@dataclass(frozen=True)
class Task:
    """What a predictor is given.

    Attributes:
        table: Its name.
        data: The table; every target outside of `fold.known` is NaN.
        settings: Those that are shipped for it.
        fold: Which rows to learn from, and which to predict.
    """

    table: str
    data: ExpressionData
    settings: Settings
    fold: Fold

    def schema(self, rows: np.ndarray) -> FeatureSchema:
        """How columns are scaled and words are numbered, learned on some rows [N] bool."""
        return FeatureSchema.fit(self.data, rows, self.settings)


Fit = Callable[[np.ndarray, np.ndarray, Sequence[Any]], list[np.ndarray]]
"""(rows to learn from [N] bool, rows to predict [N] bool, steps) -> predictions after each."""


def chosen(task: Task, fit: Fit, steps: Sequence[Any]) -> np.ndarray:
    """The test rows, by the number of steps that the validation part likes best."""
    fold, y = task.fold, task.data.target[:, 0]
    tried = fit(fold.train, fold.val, steps)
    best = steps[int(np.argmin([np.mean((each - y[fold.val]) ** 2) for each in tried]))]
    print(f"chosen: {best} of {steps}")
    return fit(fold.known, fold.test, [best])[0]


def yeast_get(task: Task) -> Said:
    """`train_yeast` as it is shipped, on a copy of the folder in which hidden cells are blank.

    Only its split is told, row by row, validation without new conditions; the predictions are those
    of its own file. The baseline that is a predictor of its own here is not fitted once more, as
    where LightGBM is not installed.
    """
    import train_yeast

    data, fold = task.data, with_all_conditions(task.fold, task.data)
    part = np.select([fold.train, fold.val, fold.test], [TRAIN, VAL, TEST], UNUSED).astype(np.uint8)
    with TemporaryDirectory() as scratch:
        copy, run = Path(scratch) / "table", Path(scratch) / "run"
        skip = shutil.ignore_patterns("expression*")
        shutil.copytree(str(task.settings.data.path), copy, ignore=skip)
        cells = data.target.reshape(data.num_regions, data.num_samples)
        frame = pd.DataFrame(cells, index=data.region_id, columns=data.sample_id)
        frame.to_csv(copy / "expression.csv", index_label="region_id")
        options = ["--config", example_config(task.table), "--data", copy, "--output", run]
        split = {"by": task.settings.split.by, "column": task.settings.split.column or "null"}
        wanted = {f"split.{key}": value for key, value in split.items()}
        wanted |= {"task.test_mode": "predict", "report.enabled": "false"}
        for key, value in wanted.items():
            options += ["--set", f"{key}={value}"]
        told = patch("yeast_get.training.prepare.make_split", lambda *_: part)
        with told, without_lightgbm():
            train_yeast.main([str(each) for each in options], standalone_mode=False)
        said = pd.read_csv(run / "predictions.csv", usecols=["region_id", "split", "y_pred"])
    as_told = said["split"].to_numpy() == np.array(PART_NAMES)[part]
    if not (as_told & (said["region_id"].to_numpy() == data.region_id[data.region_index])).all():
        raise RuntimeError("predictions.csv has other rows, or parts, than it was told")
    return {"yeast_get": said["y_pred"].to_numpy()[fold.test]}


def without_lightgbm() -> Any:
    """Keep yeast_get from fitting LightGBM among its baselines."""
    return patch("yeast_get.evaluation.boosting.is_installed", lambda: False)


def baselines(task: Task) -> Said:
    """Those of the evaluation but for LightGBM, which is a predictor of its own here."""
    data, fold = task.data, task.fold
    schema = task.schema(fold.known)
    with without_lightgbm():
        rivals = Rivals.fit(data, schema, fold.known, task.settings.split)
    each = rivals.predict(data, schema, fold.test, data.signature, fold.known)
    return {name: y if isinstance(y, str) else y[:, 0] for name, y in each}


class Rows:
    """Regions beside conditions, as numbers, for predictors that take rows.

    Attributes:
        regions: [P,F] motifs, region features, accessibility.
        words: [S,W] codes of the words of every sample.
        numbers: [S,K] its numbers and doses.
    """

    def __init__(self, data: ExpressionData, schema: FeatureSchema) -> None:
        samples, accessibility = schema.sample_inputs(data), schema.accessibility_inputs(data)
        self.regions = np.concatenate([schema.region_inputs(data), accessibility[:, 0]], axis=1)
        self.words = np.concatenate([samples.category, samples.drug], axis=1)
        self.numbers = np.concatenate([samples.number, samples.present, samples.dose], axis=1)
        self._region, self._sample = data.region_index, data.sample_index

    def of(self, rows: np.ndarray) -> np.ndarray:
        """[n,W+K+F] float32 of some rows [N] bool, the words first."""
        region, sample = self._region[rows], self._sample[rows]
        columns = [self.words[sample], self.numbers[sample], self.regions[region]]
        return np.concatenate(columns, axis=1, dtype=np.float32)


def lightgbm_rows(task: Task) -> Said:
    """LightGBM on regions and conditions, row by row."""
    import lightgbm

    settings = dict(SETTINGS["lightgbm rows"])
    steps, y = settings.pop("steps"), task.data.target[:, 0]

    def fit(rows: np.ndarray, wanted: np.ndarray, steps: Sequence[int]) -> list[np.ndarray]:
        inputs = Rows(task.data, task.schema(rows))
        words = list(range(inputs.words.shape[1]))
        table = lightgbm.Dataset(inputs.of(rows), y[rows], categorical_feature=words)
        trees, features = lightgbm.train(settings, table, max(steps)), inputs.of(wanted)
        return [trees.predict(features, num_iteration=step) for step in steps]

    return {"lightgbm rows": chosen(task, fit, steps)}


def lightgbm_components(task: Task) -> Said:
    """Principal components of the samples, and LightGBM on regions for each of them."""
    import lightgbm

    settings = dict(SETTINGS["lightgbm components"])
    steps, components, seeds = (settings.pop(name) for name in ("steps", "components", "seeds"))
    data = task.data

    def fit(rows: np.ndarray, wanted: np.ndarray, steps: Sequence[int]) -> list[np.ndarray]:
        cells = np.full((data.num_regions, data.num_samples), np.nan)
        cells[data.region_index[rows], data.sample_index[rows]] = data.target[rows, 0]
        known = ~np.isnan(cells).all(axis=1)
        center = np.nanmean(cells, axis=0)
        rest = np.nan_to_num(cells[known] - center)
        axes = np.linalg.svd(rest, full_matrices=False)[2][:components]
        regions = Rows(data, task.schema(rows)).regions
        said = [np.tile(center, (data.num_regions, 1)) for _ in steps]
        for axis in axes:
            for seed in range(seeds):
                table = lightgbm.Dataset(regions[known], rest @ axis)  # a seed draws bins too
                trees = lightgbm.train({**settings, "seed": seed}, table, max(steps))
                for each, step in zip(said, steps, strict=True):
                    each += np.outer(trees.predict(regions, num_iteration=step), axis) / seeds
        return [each[data.region_index[wanted], data.sample_index[wanted]] for each in said]

    return {"lightgbm components": chosen(task, fit, steps)}


def ridge_on_eight(task: Task) -> Said:
    """A ridge per region around its mean, on eight numbers that are made of a condition by hand."""
    data = task.data
    nothing = pd.Series(np.nan, index=data.conditions.index)

    def column(name: str) -> pd.Series:
        return data.conditions.get(name, nothing)

    temperature = column("temperature").fillna(30)
    time = column("drug_time").fillna(column("preculture_time")).fillna(0)
    numbers = [temperature, (temperature - column("preculture_temperature")).fillna(0)]
    numbers.append(np.log10(1 + 60 * time))
    for name in ("drug", "treatment", "carbon_source", "medium", "nitrogen_source"):
        words = column(name)
        numbers.append(words.notna() & (words != words.mode().get(0)))
    conditions = np.column_stack(numbers).astype(np.float64)

    def fit(rows: np.ndarray, wanted: np.ndarray, steps: Sequence[float]) -> list[np.ndarray]:
        cells = np.full((data.num_regions, data.num_samples), np.nan)
        cells[data.region_index[rows], data.sample_index[rows]] = data.target[rows, 0]
        known = ~np.isnan(cells).all(axis=0)
        sd = conditions[known].std(axis=0)
        x = (conditions - conditions[known].mean(axis=0)) / np.where(sd > 0, sd, np.inf)
        mean = np.nanmean(cells, axis=1)
        rest = np.nan_to_num(cells[:, known] - mean[:, None])
        square, product = x[known].T @ x[known] / known.sum(), x[known].T @ rest.T / known.sum()
        region, sample = data.region_index[wanted], data.sample_index[wanted]
        said = []
        for penalty in steps:
            slopes = np.linalg.solve(square + penalty * np.eye(len(square)), product)
            said.append(mean[region] + (x @ slopes)[sample, region])
        return said

    return {"ridge on eight": chosen(task, fit, SETTINGS["ridge on eight"]["steps"])}


def mlp(task: Task) -> Said:
    """Two hidden layers on regions and conditions, row by row; words are one-hot."""
    settings = SETTINGS["mlp"]
    data, width = task.data, settings["hidden"]

    def fit(rows: np.ndarray, wanted: np.ndarray, steps: Sequence[int]) -> list[np.ndarray]:
        torch.manual_seed(0)
        inputs = Rows(data, task.schema(rows))
        one_hot = [np.eye(int(words.max()) + 1)[words] for words in inputs.words.T]
        regions = torch.tensor(inputs.regions)
        samples = torch.tensor(np.hstack([inputs.numbers, *one_hot]), dtype=torch.float32)
        index = torch.tensor(np.stack([data.region_index, data.sample_index], axis=1))
        known, asked = (torch.from_numpy(np.flatnonzero(each)) for each in (rows, wanted))
        y = torch.from_numpy(data.target[:, 0])
        mean, sd = y[known].mean(), y[known].std()

        def features(at: torch.Tensor) -> torch.Tensor:
            return torch.cat([regions[index[at, 0]], samples[index[at, 1]]], dim=1)

        layers: list[torch.nn.Module] = []
        for wide in (regions.shape[1] + samples.shape[1], width):
            layers += [torch.nn.Linear(wide, width), torch.nn.ReLU()]
            layers += [torch.nn.Dropout(settings["dropout"])]
        model = torch.nn.Sequential(*layers, torch.nn.Linear(width, 1))
        decay = settings["weight_decay"]
        optimizer = torch.optim.AdamW(model.parameters(), lr=settings["lr"], weight_decay=decay)
        said = []
        for epoch in range(1, max(steps) + 1):
            model.train()
            for at in known[torch.randperm(len(known))].split(settings["batch"]):
                loss = torch.nn.functional.mse_loss(model(features(at))[:, 0], (y[at] - mean) / sd)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if epoch in steps:
                model.eval()
                with torch.no_grad():
                    parts = [model(features(at))[:, 0] for at in asked.split(1 << 16)]
                said.append((torch.cat(parts) * sd + mean).numpy())
        return said

    return {"mlp": chosen(task, fit, settings["steps"])}


ONLY = {"lightgbm components": "regions", "ridge on eight": "conditions"}
"""Predictor -> the only split that it speaks of."""

PREDICTORS: dict[str, Callable[[Task], Said]] = {
    "yeast_get": yeast_get,
    "baselines": baselines,
    "lightgbm rows": lightgbm_rows,
    "lightgbm components": lightgbm_components,
    "ridge on eight": ridge_on_eight,
    "mlp": mlp,
}


def main(table: str, split: str, number: str, predictor: str, folder: str, out: str) -> None:
    """Fit one predictor on one fold, and write what it says of the test rows."""
    data, settings = read(table, split, Path(folder))
    fold = make_fold(data, table, split, int(number))
    task = Task(table, hide(data, fold.known), settings, fold)
    started = time.perf_counter()
    said = PREDICTORS[predictor](task)
    seconds = time.perf_counter() - started
    np.savez_compressed(out, seconds=seconds, **{name: np.array(y) for name, y in said.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
