"""Whether a run may go on from what an earlier one left: the same data, settings and base."""

from __future__ import annotations

from pathlib import Path

from yeast_get.config import settings_from_dict
from yeast_get.errors import Problem, RunError
from yeast_get.training.checkpoint import Checkpoint


def resumable(path: Path, checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint that a run left, if it is of the same data and settings.

    Args:
        path: A `last.pth`.
        checkpoint: Of the run that would go on from it, before it trains.

    Raises:
        CheckpointError: Where the file cannot be read.
        RunError: Naming the first difference.
    """
    last = Checkpoint.load(path)
    with last.reading("the settings of the run"):
        settings_from_dict(last.settings, str(path))
    if not last.resume:
        what = "holds a model, and no training to go on with"
        raise RunError(Problem(what, "give the folder as the run left it", file=str(path)))
    if last.data_fingerprint != checkpoint.data_fingerprint:
        what = "was trained on other data than --data now holds"
        raise RunError(Problem(what, "resume with the same table", file=str(path)))
    for section, values in checkpoint.settings.items():
        for key, value in values.items():
            was = last.settings.get(section, {}).get(key, value)
            if was != value and (section, key) not in _MAY_CHANGE:
                raise RunError(
                    Problem(
                        f"{section}.{key} was {was!r} and is now {value!r}",
                        "resume with the same settings; only "
                        f"{', '.join('.'.join(each) for each in sorted(_MAY_CHANGE))} may change",
                        file=str(path),
                    )
                )
    if last.load_report.get("sha256") != checkpoint.load_report.get("sha256"):
        what = "was trained on another base than finetune.checkpoint now holds"
        raise RunError(Problem(what, "resume with the same checkpoint", file=str(path)))
    if last.schema != {key: checkpoint.schema.get(key) for key in last.schema}:
        what = "reads the columns of the table in another way than this version does"
        fix = f"resume with the version of yeast_get that began it ({last.software})"
        raise RunError(Problem(what, fix, file=str(path)))
    return last


_MAY_CHANGE = {
    ("data", "path"),
    ("finetune", "checkpoint"),
    ("training", "max_epochs"),
    ("training", "num_workers"),
    ("training", "activation_checkpointing"),
    ("training", "save_every_n_epochs"),
    ("training", "checkpoint_every_n_steps"),
    ("logging", "tensorboard"),
    ("logging", "log_every_n_steps"),
    *(("task", key) for key in ("test_mode", "interpret", "save_predictions", "save_embeddings")),
    *(("task", key) for key in ("importance_rows", "importance_repeats")),
    *(("report", key) for key in ("enabled", "language", "formats")),
}
