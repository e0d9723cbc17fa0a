"""The training loop, to be read from top to bottom.

`fit` goes through the epochs; `_train_one_epoch` through the batches of one; `_step` makes one
optimizer step; `_finish_epoch` scores and keeps. What is known at any moment stands in `Progress`;
what is trained on, how it is scored and what is kept of it stands in a `Stage`.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from yeast_get.batch import Batch
from yeast_get.config import Settings
from yeast_get.data.expression_data import ExpressionData
from yeast_get.data.features import FeatureSchema
from yeast_get.data.splits import TRAIN
from yeast_get.data.yeast_dataset import EpochSampler, YeastDataset, batches
from yeast_get.errors import Problem, RunError
from yeast_get.evaluation.inference import autocast_dtype
from yeast_get.model.yeast_model import YeastTransformer
from yeast_get.run_dir import RunDir, write_text
from yeast_get.training.board import Board
from yeast_get.training.checkpoint import Checkpoint
from yeast_get.training.losses import loss_sum
from yeast_get.training.optim import learning_rate, make_optimizer

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """Where a run stands; `last.pth` holds it.

    Attributes:
        epoch: The epoch under way, or the last one finished where `batch` is 0.
        batch: Batches of this epoch that are done.
        step: Optimizer steps so far.
        loss: Sum of the loss over this epoch so far.
        targets: Number of targets in it.
        monitor: The score that decides, `training.monitor` where it can be had.
        best: Best value of the monitor so far.
        best_epoch: Its epoch.
        history: A row per finished epoch; epoch 0 is before training.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss: float = 0.0
    targets: int = 0
    monitor: str = "val_pearson"
    best: float | None = None
    best_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


class Stage(ABC):
    """What the loop trains: where its batches come from, how it is scored, what is kept of it.

    Attributes:
        data: The table.
        part: [N] part of each observation.
        schema: Fitted on the training part.
        settings: The run's.
        device: Where to compute.
        train_set: Gathers training batches.
        checkpoint: All of it but the weights and scores.
    """

    train_set: YeastDataset

    def __init__(
        self,
        data: ExpressionData,
        part: np.ndarray,
        schema: FeatureSchema,
        settings: Settings,
        device: torch.device,
        checkpoint: Checkpoint,
    ) -> None:
        self.data, self.part, self.schema, self.settings = data, part, schema, settings
        self.device, self.checkpoint = device, checkpoint
        self.make_sets()

    @abstractmethod
    def make_sets(self) -> None:
        """Make `train_set`, and what validation needs."""

    @abstractmethod
    def no_correlation(self) -> str | None:
        """Why the validation part allows no correlation; None where it does."""

    @abstractmethod
    def validate(self, model: YeastTransformer, epoch: int) -> tuple[dict[str, Any], Any]:
        """`val_loss` and `val_pearson` (None where undefined), and what draws a picture, or None.

        Raises:
            RunError: Where a prediction is not finite.
        """

    @abstractmethod
    def save_best(self, folder: RunDir, kept: Checkpoint) -> None:
        """Write the weights that did best so far."""


@dataclass
class _Run:
    """What the parts of the loop share."""

    model: YeastTransformer
    forward: Callable[[Batch], torch.Tensor]
    averaged: AveragedModel | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    stage: Stage
    settings: Settings
    folder: RunDir
    device: torch.device
    steps_per_epoch: int
    board: Board

    @property
    def validated(self) -> YeastTransformer:
        """The weights that are scored and kept: the average where there is one."""
        if self.averaged is None:
            return self.model
        return cast(YeastTransformer, self.averaged.module)


def fit(
    model: YeastTransformer,
    stage: Stage,
    folder: RunDir,
    device: torch.device,
    resume: dict[str, Any] | None = None,
) -> Progress:
    """Train, keeping the best and the last weights in the run folder.

    Args:
        model: On `device`.
        stage: What is trained.
        folder: Where `history.csv`, the checkpoints and TensorBoard's files go.
        device: Where to compute.
        resume: `Checkpoint.resume` of a `last.pth` to continue from.

    Raises:
        RunError: Where the loss or a validation prediction is not finite.
    """
    run = _start(model, stage, folder, device)
    progress = Progress(monitor=_monitor(run)) if resume is None else _restore(run, resume)
    if not progress.history:
        _finish_epoch(run, progress, train_loss=None)
    training = run.settings.training
    while progress.epoch < training.max_epochs or progress.batch:
        if _is_spent(run, progress):
            log.info("early stop: no better %s for %d epochs", progress.monitor,
                     training.early_stopping_patience)  # fmt: skip
            break
        train_loss = _train_one_epoch(run, progress)
        _finish_epoch(run, progress, train_loss)
    return progress


def _start(model: YeastTransformer, stage: Stage, folder: RunDir, device: torch.device) -> _Run:
    settings = stage.settings
    training = settings.training
    averaged = None
    if training.ema_decay:
        averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(training.ema_decay))
    half = autocast_dtype(training.precision, device) == torch.float16
    per_step = training.batch_size * training.accumulate_grad_batches
    return _Run(
        model=model,
        forward=torch.compile(model) if training.compile else model,
        averaged=averaged,
        optimizer=make_optimizer(model, settings),
        scaler=torch.amp.GradScaler(device.type, enabled=half),
        stage=stage,
        settings=settings,
        folder=folder,
        device=device,
        # without random offsets, which add a window here and there: the schedule must not jump
        steps_per_epoch=math.ceil(
            len(stage.train_set.plan.windows(stage.part == TRAIN)) / per_step
        ),
        board=Board(folder.tensorboard if settings.logging.tensorboard else None),
    )


def home_of(settings: Settings, device: torch.device) -> torch.device:
    """Where the tensors of the training set live: beside the model, or where workers can gather."""
    return torch.device("cpu") if settings.training.num_workers else device


def _monitor(run: _Run) -> str:
    """The score that decides: the loss where the validation targets allow no correlation."""
    wanted = run.settings.training.monitor
    reason = run.stage.no_correlation() if wanted == "val_pearson" else None
    if reason is not None:
        log.warning("warning: the validation part allows no correlation (%s); "
                    "val_loss decides in place of val_pearson", reason)  # fmt: skip
        return "val_loss"
    return wanted


def _is_spent(run: _Run, progress: Progress) -> bool:
    """Whether patience is over; asked only right after an epoch that was validated."""
    patience = run.settings.training.early_stopping_patience
    if not patience or progress.batch or "val_loss" not in progress.history[-1]:
        return False
    return progress.epoch - progress.best_epoch >= patience


# ----------------------------------------------------------------------------------- one epoch


def _train_one_epoch(run: _Run, progress: Progress) -> float:
    """Go through the training part once, or through the rest of it; returns the mean loss."""
    training, seed = run.settings.training, run.settings.experiment.seed
    if progress.batch == 0:
        progress.epoch, progress.loss, progress.targets = progress.epoch + 1, 0.0, 0
    epoch = progress.epoch
    offsets = np.random.default_rng([seed, epoch, 0])
    train_set = run.stage.train_set
    train_set.use(run.stage.part == TRAIN, epoch, offsets)
    shuffle = np.random.default_rng([seed, epoch, 1])
    sampler = EpochSampler(len(train_set), training.batch_size, shuffle, progress.batch)
    last_batch = progress.batch + len(sampler)
    dtype = autocast_dtype(training.precision, run.device)
    run.model.train()
    pending = 0
    loader = batches(train_set, sampler, training.num_workers)
    with tqdm(loader, f"epoch {epoch}", leave=False, disable=None, unit="batch") as bar:
        for batch in bar:
            on_device = batch.to(run.device)
            with torch.autocast(run.device.type, dtype, enabled=dtype is not None):
                prediction = run.forward(on_device)
                loss = loss_sum(training.loss, prediction, on_device.target, on_device.target_mask)
            value, count = float(loss.detach()), int(on_device.target_mask.sum())
            if not math.isfinite(value):
                raise _not_finite(run, on_device, progress)
            # A sum divided by a constant; `_step` makes it the mean over all pending targets.
            run.scaler.scale(loss / training.batch_size).backward()
            pending += count
            progress.batch += 1
            progress.loss += value
            progress.targets += count
            if progress.batch % training.accumulate_grad_batches == 0 or (
                progress.batch == last_batch
            ):
                rate = learning_rate(progress.step, run.steps_per_epoch, run.settings)
                _step(run, rate, training.batch_size / max(pending, 1))
                progress.step, pending = progress.step + 1, 0
                mean = progress.loss / max(progress.targets, 1)
                bar.set_postfix(loss=f"{mean:.4f}", lr=f"{rate:.1e}")
                _after_step(run, progress, value / max(count, 1), rate, last_batch)
    progress.batch = 0
    return progress.loss / max(progress.targets, 1)


def _step(run: _Run, rate: float, correction: float) -> None:
    """One optimizer step at the given rate, on gradients times `correction`."""
    parameters = [p for p in run.model.parameters() if p.grad is not None]
    run.scaler.unscale_(run.optimizer)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(correction)
    if run.settings.training.clip_grad:
        torch.nn.utils.clip_grad_norm_(parameters, run.settings.training.clip_grad)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)
    if run.averaged is not None:
        run.averaged.update_parameters(run.model)


def _after_step(run: _Run, progress: Progress, loss: float, rate: float, last_batch: int) -> None:
    """Scalars every few steps, and a `last.pth` inside long epochs."""
    if progress.step % run.settings.logging.log_every_n_steps == 0:
        run.board.add_scalar("train/loss", loss, progress.step)
        run.board.add_scalar("train/learning_rate", rate, progress.step)
    every = run.settings.training.checkpoint_every_n_steps
    if every and progress.step % every == 0 and progress.batch < last_batch:
        _save_last(run, progress)


def _not_finite(run: _Run, batch: Batch, progress: Progress) -> RunError:
    """The error that names epoch, step and the rows of a batch."""
    at = batch.observation_index[batch.observation_index >= 0].cpu().numpy()
    data = run.stage.data
    rows = ", ".join(place(data, i) for i in at[:5])
    return RunError(
        Problem(
            f"the loss is not finite in epoch {progress.epoch}, step {progress.step}; "
            f"the {len(at)} rows of that batch begin with {rows}",
            "look at these rows, or lower training.learning_rate; the last whole epoch is in "
            f"{run.folder.last.name}",
            file=data.source,
        )
    )


def place(data: ExpressionData, i: int) -> str:
    """An observation as its row, region and sample."""
    region, sample = data.region_index[i], data.sample_index[i]
    return f"{data.row[i]} ({data.region_id[region]}, {data.sample_id[sample]})"


# ---------------------------------------------------------------------------- after each epoch


def _finish_epoch(run: _Run, progress: Progress, train_loss: float | None) -> None:
    """Validate, write the history, and keep the weights if they are the best so far."""
    training, epoch = run.settings.training, progress.epoch
    row: dict[str, Any] = {"epoch": epoch, "train_loss": train_loss}
    due = epoch % training.validate_every_n_epochs == 0 or epoch >= training.max_epochs
    if due:
        scores, picture = run.stage.validate(run.validated, epoch)
        row |= scores
        run.board.add_validation(epoch, scores, picture)
    row["learning_rate"] = run.optimizer.param_groups[0]["lr"] if epoch else None
    progress.history.append(row)
    names = ["epoch", "train_loss", "val_loss", "val_pearson", "learning_rate"]
    table = pd.DataFrame(progress.history, columns=names)
    write_text(run.folder.history, table.to_csv(index=False))
    log.info("%s%s", _line(row), _keep_if_best(run, progress, row) if due else "")
    if training.save_every_n_epochs and epoch and epoch % training.save_every_n_epochs == 0:
        _checkpoint(run, row).save(run.folder.periodic_checkpoint(epoch))
    _save_last(run, progress)


def _keep_if_best(run: _Run, progress: Progress, row: dict[str, Any]) -> str:
    monitor = progress.monitor
    value = row[monitor]
    if value is None and progress.best is None and not progress.epoch:
        run.stage.save_best(run.folder, _checkpoint(run, row))  # so that there is one
        return ""
    if value is None or not math.isfinite(value):
        return ""
    better = progress.best is None or (
        value < progress.best if monitor == "val_loss" else value > progress.best
    )
    if not better:
        return ""
    progress.best, progress.best_epoch = value, progress.epoch
    run.stage.save_best(run.folder, _checkpoint(run, row))
    return "  (best so far)"


def _line(row: dict[str, Any]) -> str:
    words = [f"epoch {row['epoch']}" if row["epoch"] else "before training"]
    for name in ("train_loss", "val_loss", "val_pearson"):
        if row.get(name) is not None:
            words.append(f"{name} {row[name]:.4f}")
    return "  ".join(words)


def _checkpoint(run: _Run, row: dict[str, Any]) -> Checkpoint:
    weights = {k: v.detach().cpu().clone() for k, v in run.validated.state_dict().items()}
    scores: dict[str, Any] = {k: row[k] for k in ("val_loss", "val_pearson") if k in row}
    return dataclasses.replace(
        run.stage.checkpoint, model=weights, epoch=row["epoch"], scores=scores
    )


def _save_last(run: _Run, progress: Progress) -> None:
    """`last.pth`: everything that `_restore` needs."""
    row = progress.history[-1] if progress.history else {"epoch": 0}
    last = _checkpoint(run, row | {"epoch": progress.epoch})
    last.resume = {
        "progress": dataclasses.asdict(progress),
        "weights": run.model.state_dict(),
        "average": None if run.averaged is None else run.averaged.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state(run.device) if run.device.type == "cuda" else None,
    }
    last.save(run.folder.last)


def _restore(run: _Run, resume: dict[str, Any]) -> Progress:
    run.model.load_state_dict(resume["weights"])
    if run.averaged is not None and resume["average"] is not None:
        run.averaged.load_state_dict(resume["average"])
    run.optimizer.load_state_dict(resume["optimizer"])
    if resume["scaler"]:
        run.scaler.load_state_dict(resume["scaler"])
    torch.set_rng_state(resume["rng"])
    if run.device.type == "cuda" and resume["cuda_rng"] is not None:
        torch.cuda.set_rng_state(resume["cuda_rng"], run.device)
    return Progress(**resume["progress"])
