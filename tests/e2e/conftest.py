"""A small run of the two commands, in process."""

from __future__ import annotations

from pathlib import Path

import pytest

import evaluate_yeast
import train_yeast

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


@pytest.fixture
def train(tmp_path: Path):
    """Train a small model; returns the run folder."""

    def run(data: Path, *settings: str, output: str = "run", extra: tuple[str, ...] = ()) -> Path:
        folder = tmp_path / output
        arguments = ["--data", str(data), "--output", str(folder), "--device", "cpu", *extra]
        arguments += options([*SMALL, *settings])
        train_yeast.main(arguments, standalone_mode=False)
        return folder

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
