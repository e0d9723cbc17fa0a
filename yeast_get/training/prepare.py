"""One training run in the order of its work: table, split, schema, model, fit, test."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from yeast_get import __version__
from yeast_get.config import Settings, write_settings
from yeast_get.data.expression_data import ExpressionData, load_expression_data
from yeast_get.data.features import FeatureSchema
from yeast_get.data.splits import TRAIN, TrainedRows, make_split, split_line
from yeast_get.data.yeast_dataset import WindowPlan
from yeast_get.errors import ConfigError, Problem, RunError
from yeast_get.evaluation import baselines, plots, report
from yeast_get.evaluation.baselines import Baselines
from yeast_get.evaluation.inference import autocast_dtype
from yeast_get.model.yeast_model import YeastModel
from yeast_get.run_dir import RunDir, write_json, write_text
from yeast_get.training.checkpoint import Checkpoint
from yeast_get.training.loop import Progress, fit

log = logging.getLogger(__name__)


@dataclass
class Prepared:
    """All that training needs.

    Attributes:
        data: The table.
        part: [N] part of each observation.
        schema: Fitted on the training part.
        model: Freshly initialised, on its device.
        split: The line that says what is held out.
        baselines: Fitted on the training part.
        checkpoint: All of it but weights and scores.
        resume: `Checkpoint.resume` of the run to continue; None for a new one.
    """

    data: ExpressionData
    part: np.ndarray
    schema: FeatureSchema
    model: YeastModel
    split: str
    baselines: Baselines
    checkpoint: Checkpoint
    resume: dict[str, Any] | None


def prepare(settings: Settings, device: torch.device, last: Path | None = None) -> Prepared:
    """Read the table, split it, fit the schema, build the model, and say what was found.

    Whatever can be wrong with the table or the settings is found here, before a file is written.

    Args:
        settings: The run's.
        device: Where to compute.
        last: The `last.pth` to continue from.
    """
    if settings.training.precision == "fp16" and device.type != "cuda":
        what = f"training.precision: fp16 needs a CUDA device, and this is {device}"
        raise ConfigError(Problem(what, "use auto, bf16 or fp32"))
    data = load_expression_data(settings)
    data.log_summary()
    part = make_split(data, settings.split)
    split = split_line(data, part, settings.split)
    log.info("%s", split)
    schema = FeatureSchema.fit(data, part == TRAIN, settings)
    for line in schema.unseen(data):
        log.warning("warning: %s", line)
    window = settings.data.regions_per_window
    WindowPlan(data, window)  # refuses regions that have no place
    torch.manual_seed(settings.experiment.seed)
    model = YeastModel(settings.model, schema.sizes(), max_regions=window).to(device)
    for name, count in _parameters(model).items():
        log.info("  %-16s %9d parameters", name, count)
    precision = autocast_dtype(settings.training.precision, device)
    log.info("device %s, %s", device, str(precision or torch.float32).removeprefix("torch."))
    fitted = _fit_baselines(data, part == TRAIN)
    checkpoint = Checkpoint(
        settings=settings.to_dict(),
        schema=schema.to_dict(),
        model={},
        trained_rows=TrainedRows.of(data, part).to_dict(),
        baselines=fitted.to_dict(),
        data_fingerprint=data.fingerprint,
    )
    resume = None if last is None else _resumable(last, checkpoint)
    return Prepared(data, part, schema, model, split, fitted, checkpoint, resume)


def _fit_baselines(data: ExpressionData, wanted: np.ndarray) -> Baselines:
    return baselines.fit(
        data.target[wanted],
        data.region_hash[data.region_index[wanted]],
        data.signature[data.sample_index[wanted]],
    )


def train_and_test(
    ready: Prepared, settings: Settings, device: torch.device, run: RunDir
) -> dict[str, Any]:
    """Train, take the best weights, and evaluate them on the test part.

    Returns:
        The content of `metrics.json`.
    """
    started = time.monotonic()
    data, part = ready.data, ready.part
    write_text(run.config, write_settings(settings))
    report.write_splits(data, part, run)
    with _deterministic(settings.training.deterministic):
        progress = fit(
            ready.model, data, part, ready.schema, settings, run, device,
            ready.checkpoint, ready.resume,
        )  # fmt: skip
        plots.plot_history(run.history, run.history_plot, progress.monitor)
        best = Checkpoint.load(run.best_model)
        ready.model.load_state_dict(best.model)
        log.info("testing the weights of epoch %d", best.epoch)
        metrics = report.evaluate(
            report.Evaluation(
                model=ready.model,
                data=data,
                schema=ready.schema,
                settings=settings,
                baselines=ready.baselines,
                part=part,
                condition_key=data.signature,
                headline="test",
                overlap=best.rows().overlap(data, part),
                batch_size=settings.training.batch_size,
            ),
            run,
            tables=False,
            interpret=settings.task.interpret or settings.task.test_mode == "interpret",
        )
    for line in report.headline_lines(metrics) if metrics else []:
        log.info("%s", line)
    seconds = time.monotonic() - started
    write_json(run.manifest, _manifest(settings, device, ready, best, progress, seconds))
    return metrics


@contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    """Only deterministic algorithms of torch, where wanted; the flag is given back as it was."""
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _resumable(path: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    """What `last.pth` holds, if it is of the same data and settings.

    Raises:
        RunError: Naming the first difference.
    """
    last = Checkpoint.load(path)
    if last.data_fingerprint != checkpoint.data_fingerprint:
        what = "was trained on other data than --data now holds"
        raise RunError(Problem(what, "resume with the same table", file=str(path)))
    for section, values in checkpoint.settings.items():
        for key, value in values.items():
            was = last.settings[section].get(key)
            if was != value and (section, key) not in _MAY_CHANGE:
                raise RunError(
                    Problem(
                        f"{section}.{key} was {was!r} and is now {value!r}",
                        "resume with the same settings; only "
                        f"{', '.join('.'.join(each) for each in sorted(_MAY_CHANGE))} may change",
                        file=str(path),
                    )
                )
    resume: dict[str, Any] = last.resume
    return resume


_MAY_CHANGE = {
    ("data", "path"),
    ("training", "max_epochs"),
    ("training", "num_workers"),
    ("training", "save_every_n_epochs"),
    ("training", "checkpoint_every_n_steps"),
    ("logging", "tensorboard"),
    ("logging", "log_every_n_steps"),
    *(("task", key) for key in ("test_mode", "interpret", "save_predictions", "save_embeddings")),
    *(("task", key) for key in ("importance_rows", "importance_repeats")),
}


def _parameters(model: YeastModel) -> dict[str, int]:
    """Parameters per top-level module, and in total."""
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        top = name.partition(".")[0]
        counts[top] = counts.get(top, 0) + parameter.numel()
    return counts | {"total": sum(counts.values())}


def _manifest(
    settings: Settings,
    device: torch.device,
    ready: Prepared,
    best: Checkpoint,
    progress: Progress,
    seconds: float,
) -> dict[str, Any]:
    """What happened, as against what was asked for (that is `config.yaml`)."""
    data, model = ready.data, ready.model
    parameters = _parameters(model)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "software": __version__,
        "name": settings.experiment.name,
        "seed": settings.experiment.seed,
        "data": {
            "source": data.source,
            "sha256": data.fingerprint,
            "regions": data.num_regions,
            "samples": data.num_samples,
            "conditions": len(np.unique(data.signature)),
            "observations": data.num_observations,
            "measured": int(data.measured.sum()),
            "roles": data.roles,
            "warnings": data.warnings,
        },
        "split": {"said": ready.split, "observations": report.part_counts(ready.part)},
        "model": {
            "parameters": parameters,
            "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        },
        "training": {
            "epochs": progress.epoch,
            "steps": progress.step,
            "best_epoch": best.epoch,
            "scores_of_best": best.scores,
            "last_loss": progress.loss / progress.targets if progress.targets else None,
            "seconds": round(seconds, 1),
        },
        "device": {"kind": str(device), "gpu": gpu, "threads": torch.get_num_threads()},
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": np.__version__,
        },
    }
