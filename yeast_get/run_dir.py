"""The run folder: the only place that knows the names of output files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from yeast_get.errors import Problem, RunError


class RunDir:
    """Paths of everything that a run writes, and the rules for a folder that holds a run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.manifest = self.path / "manifest.json"
        self.splits = self.path / "splits.csv"
        self.history = self.path / "history.csv"
        self.best_model = self.path / "best_model.pth"
        self.last = self.path / "last.pth"
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.json"
        self.predictions = self.path / "predictions.csv"
        self.metrics_by_condition = self.path / "metrics_by_condition.csv"
        self.metrics_by_region = self.path / "metrics_by_region.csv"
        self.importance = self.path / "feature_importance.csv"
        self.embeddings = self.path / "embeddings.npz"
        self.plots = self.path / "plots"
        self.scatter_plot = self.plots / "scatter.png"
        self.residuals_plot = self.plots / "residuals.png"
        self.importance_plot = self.plots / "feature_importance.png"
        self.history_plot = self.plots / "history.png"
        self.tensorboard = self.path / "tensorboard"
        self.train_log = self.path / "train.log"
        self.evaluate_log = self.path / "evaluate.log"

    def _own(self) -> list[Path]:
        """Everything directly in the folder that a run may have written."""
        paths = [value for value in vars(self).values() if isinstance(value, Path)]
        return [path for path in paths if path.parent == self.path and path.exists()]

    def _holds_a_run(self) -> bool:
        """Whether there is more than the log and the empty folder that a refused table leaves."""
        logs = (self.train_log, self.evaluate_log)
        held = [path for path in self._own() if path not in logs]
        return any(path.is_file() or any(path.iterdir()) for path in held)

    def open(self, *, resume: bool = False, overwrite: bool = False) -> None:
        """Make the folder, refusing one that holds a run unless told what to do with it.

        Args:
            resume: Continue the run that it holds.
            overwrite: Delete the files of the run that it holds, and nothing else.

        Raises:
            RunError: Where the folder cannot be used so.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunError(Problem("is a file", "name a folder", file=str(self.path)))
        if resume and overwrite:
            raise RunError(Problem("--resume and --overwrite contradict", "give one of them"))
        if resume and not self.last.is_file():
            what = f"holds no {self.last.name} to resume from"
            raise RunError(Problem(what, "leave --resume out", file=str(self.path)))
        held = self._own()
        if self._holds_a_run() and not (resume or overwrite):
            names = ", ".join(sorted(path.name for path in held)[:4])
            raise RunError(
                Problem(
                    f"already holds a run ({names})",
                    "give another --output, or --overwrite"
                    + (", or --resume" if self.last.is_file() else ""),
                    file=str(self.path),
                )
            )
        try:
            for path in held if overwrite else []:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            self.plots.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"cannot be written: {error.strerror}"
            raise RunError(Problem(what, "check the path", file=str(self.path))) from None

    def periodic_checkpoint(self, epoch: int) -> Path:
        """Path of the checkpoint kept for one epoch."""
        self.checkpoints.mkdir(exist_ok=True)
        return self.checkpoints / f"epoch_{epoch:04d}.pth"


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that replaces `path` once it is whole and on disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file atomically; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
