"""Fixtures for all tests: small tables with a known answer, and the real data where it is."""

from __future__ import annotations

import os
import shutil
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from matplotlib.figure import Figure
from PIL import Image

import evaluate_yeast
import train_yeast

ROOT = Path(__file__).resolve().parent.parent

torch.set_num_threads(1)  # small tensors gain nothing from more, and a busy machine loses
os.environ["OMP_NUM_THREADS"] = "1"  # likewise in the processes that tests start


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data and fixtures, which is not part of the project."""
    path = Path(os.environ.get("YEAST_GET_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real data at {path}; set YEAST_GET_DATA")
    return path


def long_table(regions: int = 40, seed: int = 0) -> pd.DataFrame:
    """A long table with a planted rule: motif_a acts always, motif_b only at 37 °C.

    Six samples: three conditions, two replicates each; no sample ids. Regions lie on two
    chromosomes and differ in their features.
    """
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0, 10, (regions, 3)).round(2)
    access = rng.uniform(0, 1, regions).round(3)
    rows = []
    for medium, temperature, drug, dose in (
        ("YPD", 30.0, "none", 0.0),
        ("YPD", 37.0, "none", 0.0),
        ("SC", 30.0, "H2O2", 1e-3),
    ):
        for _ in range(2):
            for i in range(regions):
                chrom = "chrI" if i < regions // 2 else "chrII"
                start = 1000 * (i % (regions // 2)) + 1
                effect = 0.3 * scores[i, 0] + 0.3 * scores[i, 1] * (temperature == 37)
                rows.append(
                    {
                        "region_id": f"{chrom}_{start}_{start + 500}",
                        "motif_a": scores[i, 0],
                        "motif_b": scores[i, 1],
                        "motif_c": scores[i, 2],
                        "accessibility": access[i],
                        "medium": medium,
                        "temperature": temperature,
                        "drug": drug,
                        "drug_concentration": dose,
                        "target": round(effect + rng.normal(0, 0.05), 4),
                    }
                )
    return pd.DataFrame(rows)


def as_cube(long: pd.DataFrame) -> dict[str, object]:
    """The small long table with sample ids as the arrays of a `matrix` cube, in its order."""
    features = ["motif_a", "motif_b", "motif_c", "accessibility", "temperature"]
    media = pd.get_dummies(long["medium"], prefix="medium", dtype=float)
    drugs = pd.get_dummies(long["drug"], prefix="drug", dtype=float)
    wide = pd.concat([long[[*features, "drug_concentration"]], media, drugs], axis=1)
    regions, samples = long["region_id"].unique(), long["sample_id"].unique()
    shape = (len(samples), len(regions))
    return {
        "matrix": wide.to_numpy().reshape(*shape, -1),
        "feature_names": list(wide.columns),
        "peak_ids": list(regions),
        "sample_ids": list(samples),
        "expression": long["target"].to_numpy().reshape(shape),
    }


def write_store(path: Path, arrays: dict[str, object], zarr_format: int = 3, **options) -> Path:
    """Write arrays as a zarr store; `options` are those of arrays, by name."""
    shutil.rmtree(path, ignore_errors=True)
    group = zarr.create_group(path, zarr_format=zarr_format)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of texts of fixed length, which format 3 calls unstable
        for name, values in arrays.items():
            group.create_array(name, data=np.asarray(values), **options.get(name, {}))
    return path


@pytest.fixture
def blank_pictures(monkeypatch):
    """A dot for every picture: for tests of numbers, whose pictures others draw and look at."""
    dot = BytesIO()
    Image.new("RGB", (1, 1)).save(dot, "png")
    monkeypatch.setattr(Figure, "savefig", lambda _, file, **__: file.write(dot.getvalue()))


@pytest.fixture
def table() -> pd.DataFrame:
    """The small long table; see `long_table`."""
    return long_table()


@pytest.fixture
def table_path(table: pd.DataFrame, tmp_path: Path) -> Path:
    """The small long table as a CSV file."""
    path = tmp_path / "table.csv"
    table.to_csv(path, index=False)
    return path


SMALL = [
    "model.transformer.embed_dim=16",
    "model.transformer.num_layers=2",
    "model.transformer.num_heads=2",
    "model.feature_encoders.embed_dim=4",
    "model.fusion.hidden_dim=16",
    "model.head.hidden_dim=16",
    "training.batch_size=32",
    "training.max_epochs=3",
    "training.warmup_epochs=1",
    "training.learning_rate=5e-3",
    "training.early_stopping_patience=0",
    "logging.tensorboard=false",
    "task.importance_rows=40",
    "task.importance_repeats=1",
]


def options(settings: list[str]) -> list[str]:
    return [part for text in settings for part in ("--set", text)]


def train_small(data: Path, folder: Path, *settings: str, extra: tuple[str, ...] = ()) -> Path:
    """Train a small model into a folder; returns the folder."""
    arguments = ["--data", str(data), "--output", str(folder), "--device", "cpu", *extra]
    arguments += options([*SMALL, *settings])
    train_yeast.main(arguments, standalone_mode=False)
    return folder


@pytest.fixture
def train(tmp_path: Path):
    """Train a small model; returns the run folder."""

    def run(data: Path, *settings: str, output: str = "run", extra: tuple[str, ...] = ()) -> Path:
        return train_small(data, tmp_path / output, *settings, extra=extra)

    return run


@pytest.fixture
def evaluate(tmp_path: Path):
    """Evaluate a run; returns the folder of the evaluation."""

    def run(model: Path, data: Path, *extra: str, output: str = "eval") -> Path:
        folder = tmp_path / output
        arguments = ["--model", str(model / "best_model.pth"), "--data", str(data)]
        arguments += ["--output", str(folder), "--device", "cpu", *extra]
        evaluate_yeast.main(arguments, standalone_mode=False)
        return folder

    return run
