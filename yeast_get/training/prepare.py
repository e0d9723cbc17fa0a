"""One training run in the order of its work: table, split, schema, model, fit, test."""

from __future__ import annotations

import logging
import platform
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from yeast_get import __version__
from yeast_get.config import Settings, write_settings
from yeast_get.data.expression_data import ExpressionData, load_expression_data
from yeast_get.data.features import FeatureSchema
from yeast_get.data.splits import TRAIN, TrainedRows, make_split, split_line
from yeast_get.errors import ConfigError, Problem, RunError
from yeast_get.evaluation import baselines, plots, report
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
    """

    data: ExpressionData
    part: np.ndarray
    schema: FeatureSchema
    model: YeastModel
    split: str


def prepare(settings: Settings, device: torch.device) -> Prepared:
    """Read the table, split it, fit the schema, build the model, and say what was found."""
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
    torch.manual_seed(settings.experiment.seed)
    model = YeastModel(settings.model, schema.sizes()).to(device)
    for name, count in _parameters(model).items():
        log.info("  %-16s %9d parameters", name, count)
    precision = autocast_dtype(settings.training.precision, device)
    log.info("device %s, %s", device, str(precision or torch.float32).removeprefix("torch."))
    return Prepared(data, part, schema, model, split)


def train_and_test(
    settings: Settings, device: torch.device, run: RunDir, *, resume: bool = False
) -> dict[str, Any]:
    """Train, take the best weights, and evaluate them on the test part.

    Returns:
        The content of `metrics.json`.
    """
    started = time.monotonic()
    if settings.training.deterministic:
        torch.use_deterministic_algorithms(True)
    ready = prepare(settings, device)
    data, part = ready.data, ready.part
    train_rows = part == TRAIN
    fitted = baselines.fit(
        data.target[train_rows],
        data.region_hash[data.region_index[train_rows]],
        data.signature[data.sample_index[train_rows]],
    )
    checkpoint = Checkpoint(
        settings=settings.to_dict(),
        schema=ready.schema.to_dict(),
        model={},
        trained_rows=TrainedRows.of(data, part).to_dict(),
        baselines=fitted.to_dict(),
        data_fingerprint=data.fingerprint,
    )
    held = _resumable(run, checkpoint) if resume else None
    write_text(run.config, write_settings(settings))
    report.write_splits(data, part, run)
    progress = fit(ready.model, data, part, ready.schema, settings, run, device, checkpoint, held)
    plots.plot_history(run.history, run.history_plot, settings.training.monitor)
    best = Checkpoint.load(run.best_model)
    ready.model.load_state_dict(best.model)
    log.info("testing the weights of epoch %d", best.epoch)
    metrics = report.evaluate(
        report.Evaluation(
            model=ready.model,
            data=data,
            schema=ready.schema,
            settings=settings,
            baselines=fitted,
            part=part,
            headline="test",
            overlap=best.rows().overlap(data),
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


def _resumable(run: RunDir, checkpoint: Checkpoint) -> dict[str, Any]:
    """What `last.pth` holds, if it is of the same data and settings.

    Raises:
        RunError: Naming the first difference.
    """
    last = Checkpoint.load(run.last)
    if last.data_fingerprint != checkpoint.data_fingerprint:
        what = "was trained on other data than --data now holds"
        raise RunError(Problem(what, "resume with the same table", file=str(run.last)))
    for section, values in checkpoint.settings.items():
        for key, value in values.items():
            was = last.settings[section].get(key)
            if was != value and (section, key) not in _MAY_CHANGE:
                raise RunError(
                    Problem(
                        f"{section}.{key} was {was!r} and is now {value!r}",
                        "resume with the same settings; only "
                        f"{', '.join('.'.join(each) for each in sorted(_MAY_CHANGE))} may change",
                        file=str(run.last),
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
            "pretrained_tensors_loaded": 0,
            "modules_with_lora": [],
        },
        "training": {
            "epochs": progress.epoch,
            "steps": progress.step,
            "best_epoch": best.epoch,
            "scores_of_best": best.scores,
            "last_loss": progress.loss / max(progress.targets, 1),
            "seconds": round(seconds, 1),
        },
        "device": {"kind": str(device), "gpu": gpu, "threads": torch.get_num_threads()},
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": np.__version__,
        },
    }
