"""What an evaluation holds per observation, in bytes: nothing of it grows with texts or tables."""

from __future__ import annotations

import tracemalloc
from contextlib import contextmanager

import numpy as np
import pytest

from tests.conftest import ROOT
from yeast_get.config import settings_from_dict
from yeast_get.data.expression_data import load_expression_data
from yeast_get.data.features import FeatureSchema
from yeast_get.data.splits import TEST, TRAIN, make_split
from yeast_get.evaluation import bootstrap, inference, output_tables
from yeast_get.evaluation.evaluation import Evaluation
from yeast_get.evaluation.output_tables import write_predictions, write_splits
from yeast_get.evaluation.rivals import Rivals
from yeast_get.evaluation.scorecard import measure
from yeast_get.model.yeast_model import YeastModel
from yeast_get.run_dir import RunDir

SMALL_MODEL = {"transformer": {"num_layers": 1, "num_heads": 1, "embed_dim": 8}}
REGIONS, SAMPLES = 200, 300


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data folder of 60,000 observations, as the benchmark makes it."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import scale

    scale.write_folder(tmp_path / "table", REGIONS, SAMPLES, 4)
    return tmp_path / "table"


@contextmanager
def at_most(bytes_per_row, what):
    """The peak of the memory that is taken inside, over what was held before."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1] / (REGIONS * SAMPLES)
    finally:
        tracemalloc.stop()
    assert peak < bytes_per_row, f"{what}: {peak:.0f} bytes per observation"


def test_memory_per_observation(folder, tmp_path, monkeypatch):
    """Each limit is about a quarter above what was measured."""
    monkeypatch.setattr(output_tables, "_AT_ONCE", 2000)
    monkeypatch.setattr(bootstrap, "_CELLS", 4000)
    monkeypatch.setattr(bootstrap.Resampler.__init__, "__defaults__", (50, 0))
    settings = settings_from_dict(
        {
            "data": {"path": str(folder)},
            "model": SMALL_MODEL,
            "split": {"fractions": [0.2, 0.1, 0.7]},
        },
        "x",
    )
    with at_most(290, "reading"):
        data = load_expression_data(settings)
    with at_most(20, "splitting"):
        part = make_split(data, settings.split)
    run = RunDir(tmp_path / "run")
    run.start()
    with at_most(12, "splits.csv"):
        write_splits(data, part, run)
    schema = FeatureSchema.fit(data, part == TRAIN, settings)
    baselines = Rivals.fit(data, schema, part == TRAIN, settings.split)
    with at_most(30, "the data set"):
        evaluation = Evaluation(
            model=YeastModel(settings.model, schema.sizes(), 1),
            data=data,
            schema=schema,
            settings=settings,
            baselines=baselines,
            part=part,
            condition_key=data.signature,
            headline="test",
            overlap={},
            calibration=None,
            seen=None,
            batch_size=64,
        )
    guess = (np.nan_to_num(data.target) + data.region_index[:, None] % 7).astype(np.float32)
    monkeypatch.setattr(inference, "run", lambda *_: guess.copy())
    with at_most(52, "predicting"):
        predictions = evaluation.predict()
    with at_most(50, "predictions.csv"):
        write_predictions(evaluation, predictions, run)
    with at_most(215, "scoring"):
        metrics, best = measure(evaluation, predictions, None)
    assert (part == TEST).mean() > 0.6
    assert metrics["overall"]["ci95"]["pearson"][0] > 0
    assert best is not None
