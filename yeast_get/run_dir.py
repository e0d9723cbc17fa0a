"""The run folder: the only place that knows the names of output files, and how one is written."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from yeast_get.distributed import is_writer, launch
from yeast_get.errors import Problem, RunError, WriteError

log = logging.getLogger(__name__)

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

LOCK = ".lock"
"""What a run holds while it writes: a file that says who."""
LAUNCH = ".launch"
"""Under torchrun: which one began the run, see `is_of_this_launch`."""


class RunDir:
    """Paths of everything that a run writes, and the rules for a folder that holds a run.

    A command calls `check` before its work, and `start` when all that could be refused is read;
    until then nothing is made or deleted. One process at a time writes there: `check` locks a
    folder that is there, `start` a new one, and `release`, or the end of the process, frees it.

    Args:
        path: The folder.
        writes: What the command writes there: `TRAIN_FILES` or `EVALUATE_FILES`.
    """

    def __init__(self, path: str | Path, writes: tuple[str, ...] = TRAIN_FILES) -> None:
        self.path, self._named = Path(path), bool(str(path))
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
        self._locked: int | None = None

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

    def takes_a_report(self) -> bool:
        """Whether a check may write here: the writer's, into a folder that was named."""
        return self._named and is_writer() and not self.holds_a_run()

    def holds_a_run(self) -> bool:
        """Whether the folder holds more than the report of a check."""
        return bool(self._of_a_run())

    def check(self, *, resume: bool = False, overwrite: bool = False, lock: bool = True) -> None:
        """Refuse a folder that holds a run unless told what to do with it; changes nothing.

        Args:
            resume: Continue the run that it holds.
            overwrite: Delete, in `start`, the files that this command wrote, and nothing else.
            lock: Whether something will be written there.

        Raises:
            RunError: Where the folder cannot be used so, or another process writes there.
        """
        if lock and self.path.is_dir():
            self._lock()
        self._refuse(resume, overwrite)

    def _refuse(self, resume: bool, overwrite: bool) -> None:
        where = str(self.path)
        if self.path.exists() and not self.path.is_dir():
            raise RunError(Problem("is a file", "name a folder", file=where))
        if resume and overwrite:
            raise RunError(Problem("--resume and --overwrite contradict", "give one of them"))
        held = self._of_a_run()
        if resume and not self.last.is_file():
            what = f"holds no {self.last.name} to resume from"
            fix = "start anew with --overwrite" if held else "leave --resume out"
            raise RunError(Problem(what, fix, file=where))
        trained = self.best_model.exists() or self.last.exists()
        if trained and self.best_model.name not in self.writes:
            raise RunError(Problem("holds a training run", "give another --output", file=where))
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
            RunError: Where the folder cannot be written, or another run came into it.
        """
        self._enter(overwrite)
        with writing(self.path):
            # the last checkpoint first: nobody shall go on with half a run
            for path in sorted(self._own(), key=self.last.__ne__) if overwrite else []:
                path.unlink()
            self.plots.mkdir(exist_ok=True)
            if launch():
                write_text(self.path / LAUNCH, launch())

    def is_of_this_launch(self) -> bool:
        """Whether the torchrun that started this process had begun a run here before."""
        begun = self.path / LAUNCH
        return bool(launch()) and begun.is_file() and begun.read_text() == launch()

    def start_check(self) -> None:
        """Make the folder for the report of a check.

        Raises:
            RunError: Where it cannot be written, or a run came into it.
        """
        self._enter(overwrite=False)

    def _enter(self, overwrite: bool) -> None:
        """Make and lock a folder that was not there, and remove what a killed run was writing."""
        with writing(self.path):
            if self._locked is None:
                self.path.mkdir(parents=True, exist_ok=True)
                self._lock()
                self._refuse(resume=False, overwrite=overwrite)
            for pattern in self.writes:
                for path in self.path.glob(_temporary(Path(pattern), "*").as_posix()):
                    path.unlink()

    def _lock(self) -> None:
        if self._locked is None:
            with writing(self.path):
                self._locked = _lock_file(self.path / LOCK)

    def release(self) -> None:
        """Let other processes write here."""
        if self._locked is not None:
            if _stands_at(self._locked, self.path / LOCK):
                with suppress(OSError):
                    (self.path / LOCK).unlink()
            os.close(self._locked)
            self._locked = None

    def member(self, number: int) -> RunDir:
        """The folder of another member of an ensemble, 2 and up."""
        other = RunDir(self.members / str(number), self.writes)
        with writing(other.path):
            self.members.mkdir(exist_ok=True)  # not its parents: a run folder that is gone stays so
            other.path.mkdir(exist_ok=True)
        return other

    def periodic_checkpoint(self, epoch: int) -> Path:
        """Path of the checkpoint kept for one epoch."""
        with writing(self.checkpoints):
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


_MENDING = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    errno.ENOENT: "the folder was removed or moved",
}
"""What to do about the commonest failures."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line why the system let nobody write there.

    Raises:
        WriteError: In place of any OSError.
    """
    try:
        yield
    except OSError as error:
        what = f"cannot be written: {error.strerror or error}"
        fix = _MENDING.get(error.errno or 0, "look at the disk and at the rights to its folder")
        raise WriteError(Problem(what, fix, file=str(path))) from error


@contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """A new file, open for bytes, that replaces `path` once it is whole and on disk.

    Raises:
        WriteError: Where it cannot be written; what stood at `path` is as it was.
    """
    temporary = _temporary(path, str(os.getpid()))
    with writing(path):
        try:
            with open(temporary, "wb") as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(temporary, path)
            _flush_folder(path.parent)
        finally:
            with suppress(OSError):
                temporary.unlink()


def _temporary(path: Path, process: str) -> Path:
    """The name under which a process writes a file."""
    return path.with_name(f".{path.name}.{process}.tmp")


def _flush_folder(path: Path) -> None:
    """Put on disk what a folder lists, where its file system knows how."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(folder)


def _lock_file(path: Path) -> int:
    """Make and lock a file; its descriptor. The lock ends with the process, whatever ends that.

    It is a record lock: unlike that of `flock`, it is not inherited by workers that outlive a
    killed process, and network file systems know it.

    Raises:
        RunError: Where another process holds the lock.
    """
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            by = os.read(file, 500).decode(errors="replace") or "another process"
            os.close(file)
            what, fix = f"is being written by {by}", "wait for it, or give another --output"
            raise RunError(Problem(what, fix, file=str(path.parent))) from None
        except OSError as error:
            log.warning("warning: %s cannot be locked (%s): nothing keeps another run from writing "
                        "there", path.parent, error.strerror)  # fmt: skip
        if _stands_at(file, path):
            break
        os.close(file)  # of a run that just ended, and has removed it
    with suppress(OSError):  # a full disk, perhaps: the lock holds all the same
        os.truncate(file, 0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        os.write(file, f"process {os.getpid()} on {platform.node()} since {since}".encode())
    return file


def _stands_at(file: int, path: Path) -> bool:
    """Whether a path still leads to an open file."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    with atomic(path) as file:
        file.write(text.encode())


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file atomically; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
