"""Speed of loading, training and prediction on a real data folder.

    python benchmarks/speed.py [DATA_FOLDER] [--config YAML]

prints one table and appends it, with date, versions and machine, to benchmarks/results.csv.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
from results import peak_megabytes, record

from yeast_get.batch import Batch
from yeast_get.config import load_settings
from yeast_get.data.expression_data import load_expression_data
from yeast_get.data.features import FeatureSchema
from yeast_get.data.splits import TRAIN, VAL, make_split
from yeast_get.data.yeast_dataset import EpochSampler, YeastDataset, batches
from yeast_get.evaluation.inference import predict
from yeast_get.model.yeast_model import YeastModel
from yeast_get.training.losses import loss_sum
from yeast_get.training.optim import make_optimizer

ROOT = Path(__file__).resolve().parent.parent
STEPS = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    data = Path(os.environ.get("YEAST_GET_DATA", ROOT.parent / "shared" / "data")) / "gasch2000"
    parser.add_argument("data", nargs="?", default=str(data))
    parser.add_argument("--config", default=str(ROOT / "docs" / "examples" / "gasch2000.yaml"))
    arguments = parser.parse_args()
    settings = load_settings(arguments.config, (), {"data.path": arguments.data})
    figures: dict[str, float] = {}

    started = time.perf_counter()
    table = load_expression_data(settings)
    figures["load, s"] = time.perf_counter() - started
    figures["peak memory after loading, MB"] = peak_megabytes()
    started = time.perf_counter()
    part = make_split(table, settings.split)
    schema = FeatureSchema.fit(table, part == TRAIN, settings)
    figures["split and schema, s"] = time.perf_counter() - started

    dataset = YeastDataset(table, schema, 1, "cpu", settings.augmentation)
    dataset.use(part == TRAIN)
    size = settings.training.batch_size
    sampler = EpochSampler(len(dataset), size, np.random.default_rng(0))
    started = time.perf_counter()
    some = [batch for batch, _ in zip(batches(dataset, sampler), range(STEPS), strict=False)]
    figures["prepare one batch, ms"] = 1e3 * (time.perf_counter() - started) / STEPS

    model = YeastModel(settings.model, schema.sizes(), settings.data.regions_per_window)
    optimizer = make_optimizer(model, settings)
    train_step(model, optimizer, some[0], settings.training.loss)
    started = time.perf_counter()
    for batch in some:
        train_step(model, optimizer, batch, settings.training.loss)
    seconds = (time.perf_counter() - started) / STEPS
    figures["train one batch, ms"] = 1e3 * seconds
    figures["training, rows/s"] = size / seconds

    wanted = part == VAL
    started = time.perf_counter()
    predict(model, YeastDataset(table, schema), wanted, size)
    figures["prediction, rows/s"] = wanted.sum() / (time.perf_counter() - started)
    figures["peak memory, MB"] = peak_megabytes()
    record(figures, Path(arguments.data).name)


def train_step(
    model: YeastModel, optimizer: torch.optim.Optimizer, batch: Batch, loss: str
) -> None:
    model.train()
    value = loss_sum(loss, model(batch), batch.target, batch.target_mask)
    (value / max(int(batch.target_mask.sum()), 1)).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


if __name__ == "__main__":
    main()
