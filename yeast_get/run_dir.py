"""The run folder: the only place that knows the names of output files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from yeast_get.errors import Problem, RunError

_BOTH = (
    "data_report.json",
    "data_problems.csv",
    "metrics.json",
    "predictions.csv",
    "calibration.csv",
    "feature_importance.csv",
    "feature_attributions.csv.gz",
    "motif_condition_effects.csv",
    "embeddings.npz",
    "plots/scatter.png",
    "plots/residuals.png",
    "plots/feature_importance.png",
    "plots/residuals_by_condition.png",
    "plots/calibration.png",
    "report.html",
    "plots/embeddings.png",
    "plots/motif_conditions.png",
)
TRAIN_FILES = (
    "config.yaml",
    "manifest.json",
    "splits.csv",
    "history.csv",
    "best_model.pth",
    "adapter.pth",
    "pretrained.pth",
    "last.pth",
    "checkpoints/epoch_*.pth",
    "members/*/history.csv",
    "members/*/best_model.pth",
    "members/*/adapter.pth",
    "members/*/last.pth",
    "members/*/checkpoints/epoch_*.pth",
    "members/*/tensorboard/events.out.tfevents.*",
    "plots/history.png",
    "tensorboard/events.out.tfevents.*",
    "train.log",
    *_BOTH,
)
"""What `train_yeast` writes, as patterns in the run folder."""

EVALUATE_FILES = (
    "metrics_by_condition.csv",
    "metrics_by_region.csv",
    "plots/conditions.png",
    "sweep.csv",
    "plots/sweep.png",
    "knockout.csv",
    "plots/knockout.png",
    "evaluate.log",
    *_BOTH,
)
"""What `evaluate_yeast` writes."""


class RunDir:
    """Paths of everything that a run writes, and the rules for a folder that holds a run.

    A command calls `check` before its work, and `start` when all that could be refused is read;
    until then nothing is made or deleted.

    Args:
        path: The folder.
        writes: What the command writes there: `TRAIN_FILES` or `EVALUATE_FILES`.
    """

    def __init__(self, path: str | Path, writes: tuple[str, ...] = TRAIN_FILES) -> None:
        self.path = Path(path)
        pdfs = (name.replace(".png", ".pdf") for name in writes if name.endswith(".png"))
        self.writes = (*writes, *pdfs)
        self.config = self.path / "config.yaml"
        self.manifest = self.path / "manifest.json"
        self.splits = self.path / "splits.csv"
        self.history = self.path / "history.csv"
        self.best_model = self.path / "best_model.pth"
        self.adapter = self.path / "adapter.pth"
        self.pretrained = self.path / "pretrained.pth"
        self.last = self.path / "last.pth"
        self.members = self.path / "members"
        self.checkpoints = self.path / "checkpoints"
        self.data_report = self.path / "data_report.json"
        self.data_problems = self.path / "data_problems.csv"
        self.metrics = self.path / "metrics.json"
        self.predictions = self.path / "predictions.csv"
        self.metrics_by_condition = self.path / "metrics_by_condition.csv"
        self.metrics_by_region = self.path / "metrics_by_region.csv"
        self.importance = self.path / "feature_importance.csv"
        self.calibration = self.path / "calibration.csv"
        self.attributions = self.path / "feature_attributions.csv.gz"
        self.motif_conditions = self.path / "motif_condition_effects.csv"
        self.embeddings = self.path / "embeddings.npz"
        self.sweep = self.path / "sweep.csv"
        self.knockout = self.path / "knockout.csv"
        self.plots = self.path / "plots"
        self.scatter_plot = self.plots / "scatter.png"
        self.residuals_plot = self.plots / "residuals.png"
        self.importance_plot = self.plots / "feature_importance.png"
        self.conditions_plot = self.plots / "conditions.png"
        self.residuals_by_condition_plot = self.plots / "residuals_by_condition.png"
        self.calibration_plot = self.plots / "calibration.png"
        self.embeddings_plot = self.plots / "embeddings.png"
        self.sweep_plot = self.plots / "sweep.png"
        self.knockout_plot = self.plots / "knockout.png"
        self.motif_conditions_plot = self.plots / "motif_conditions.png"
        self.history_plot = self.plots / "history.png"
        self.report = self.path / "report.html"
        self.tensorboard = self.path / "tensorboard"
        self.train_log = self.path / "train.log"
        self.evaluate_log = self.path / "evaluate.log"

    def _own(self) -> list[Path]:
        """The files that an earlier run of the command left in the folder."""
        found = {path for pattern in self.writes for path in self.path.glob(pattern)}
        return sorted(path for path in found if path.is_file() or path.is_symlink())

    def names(self) -> list[str]:
        """What the run left in the folder, without the page itself and files named by the time."""
        names = [path.relative_to(self.path).as_posix() for path in self._own()]
        return [n for n in names if n != self.report.name and "tensorboard/" not in n]

    def _of_a_run(self) -> list[Path]:
        """Its own files, without those that a check or a refused run leaves."""
        of_a_check = (self.data_report, self.data_problems, self.train_log, self.evaluate_log)
        return [path for path in self._own() if path not in of_a_check]

    def holds_a_run(self) -> bool:
        """Whether the folder holds more than the report of a check."""
        return bool(self._of_a_run())

    def check(self, *, resume: bool = False, overwrite: bool = False) -> None:
        """Refuse a folder that holds a run unless told what to do with it; changes nothing.

        Args:
            resume: Continue the run that it holds.
            overwrite: Delete, in `start`, the files that this command wrote, and nothing else.

        Raises:
            RunError: Where the folder cannot be used so.
        """
        where = str(self.path)
        if self.path.exists() and not self.path.is_dir():
            raise RunError(Problem("is a file", "name a folder", file=where))
        if resume and overwrite:
            raise RunError(Problem("--resume and --overwrite contradict", "give one of them"))
        if resume and not self.last.is_file():
            what = f"holds no {self.last.name} to resume from"
            raise RunError(Problem(what, "leave --resume out", file=where))
        trained = self.best_model.exists() or self.last.exists()
        if trained and self.best_model.name not in self.writes:
            raise RunError(Problem("holds a training run", "give another --output", file=where))
        held = self._of_a_run()
        if held and not (resume or overwrite):
            names = ", ".join(path.relative_to(self.path).as_posix() for path in held[:4])
            raise RunError(
                Problem(
                    f"already holds a run ({names})",
                    "give another --output, or --overwrite"
                    + (", or --resume" if self.last.is_file() else ""),
                    file=where,
                )
            )

    def check_keeps(self, path: str | None, name: str) -> None:
        """Refuse to overwrite a file that the run itself starts from.

        Raises:
            RunError: Naming the file.
        """
        if path is not None and Path(path).resolve() in {own.resolve() for own in self._own()}:
            what = f"is {name}, and --overwrite would delete it"
            raise RunError(Problem(what, "give another --output, or move it", file=path))

    def start(self, *, overwrite: bool = False) -> None:
        """Make the folders; with `overwrite`, first delete what this command wrote before.

        Raises:
            RunError: Where the folder cannot be written.
        """
        try:
            for path in self._own() if overwrite else []:
                path.unlink()
            self.plots.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"cannot be written: {error.strerror}"
            raise RunError(Problem(what, "check the path", file=str(self.path))) from None

    def start_check(self) -> None:
        """Make the folder for the report of a check.

        Raises:
            RunError: Where it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"cannot be written: {error.strerror}"
            raise RunError(Problem(what, "check the path", file=str(self.path))) from None

    def member(self, number: int) -> RunDir:
        """The folder of another member of an ensemble, 2 and up."""
        other = RunDir(self.members / str(number), self.writes)
        other.path.mkdir(parents=True, exist_ok=True)
        return other

    def periodic_checkpoint(self, epoch: int) -> Path:
        """Path of the checkpoint kept for one epoch."""
        self.checkpoints.mkdir(exist_ok=True)
        return self.checkpoints / f"epoch_{epoch:04d}.pth"


def check_new_files(paths: Sequence[str], read: Sequence[str | None], overwrite: bool) -> None:
    """Refuse to write where something stands that is not to be lost.

    Args:
        paths: Files to write.
        read: Files that the command reads.
        overwrite: Whether other files may be replaced.

    Raises:
        RunError: Naming the path.
    """
    taken = {Path(each).resolve() for each in read if each}
    for path in paths:
        if Path(path).resolve() in taken:
            what = "is read or written by this command already"
            raise RunError(Problem(what, "name another file", file=path))
        taken.add(Path(path).resolve())
        _check_new_file(path, overwrite)


def _check_new_file(path: str, overwrite: bool) -> None:
    """Refuse a file that is there, unless it may be replaced, and a folder that is not.

    Raises:
        RunError: Naming the path.
    """
    where = Path(path)
    if where.is_dir() or not where.parent.is_dir():
        what = "is a folder" if where.is_dir() else "lies in a folder that is not there"
        raise RunError(Problem(what, "name a file in a folder that exists", file=str(path)))
    if where.exists() and not overwrite:
        raise RunError(Problem("is there already", "name another, or --overwrite", file=str(path)))


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
