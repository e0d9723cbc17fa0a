"""The training loop, to be read from top to bottom.

`fit` goes through the epochs; `_train_one_epoch` through the batches of one; `_step` makes one
optimizer step; `_finish_epoch` scores and keeps. What is known at any moment stands in `Progress`;
what is trained on, how it is scored and what is kept of it stands in a `Stage`. Several ranks each
take their share of every batch, and know the same `Progress`; the writer alone keeps files.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from yeast_get.batch import Batch
from yeast_get.config import Settings
from yeast_get.data.expression_data import ExpressionData
from yeast_get.data.features import FeatureSchema
from yeast_get.data.splits import TRAIN
from yeast_get.data.yeast_dataset import EpochSampler, YeastDataset, batches
from yeast_get.distributed import from_writer, is_writer, of_every_rank, rank, size, sum_over_ranks
from yeast_get.errors import Problem, RunError, Stopped
from yeast_get.evaluation.inference import autocast_dtype
from yeast_get.model.yeast_model import YeastTransformer
from yeast_get.run_dir import RunDir, write_text
from yeast_get.stored import build
from yeast_get.training.board import Board
from yeast_get.training.checkpoint import Checkpoint
from yeast_get.training.interruption import StopSignal
from yeast_get.training.losses import loss_sum
from yeast_get.training.optim import learning_rate, make_optimizer

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """Where a run stands; `last.pth` holds it.

    Sums are over all ranks.

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

    def remember(self, model: YeastTransformer) -> None:
        """Bring up to date what a model holds that is found by its weights; `validate` does so."""
        return

    @abstractmethod
    def save_best(self, folder: RunDir, kept: Checkpoint) -> None:
        """Write the weights that did best so far."""


@dataclass
class _Run:
    """What the parts of the loop share."""

    model: YeastTransformer
    forward: Callable[[Batch], torch.Tensor]
    shared: DistributedDataParallel | None
    stop: StopSignal
    averaged: AveragedModel | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    autocast: torch.dtype | None
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
    last: Checkpoint | None = None,
) -> Progress:
    """Train, keeping the best and the last weights in the run folder.

    Args:
        model: On `device`.
        stage: What is trained.
        folder: Where `history.csv`, the checkpoints and TensorBoard's files go.
        device: Where to compute.
        last: The `last.pth` to continue from.

    Raises:
        CheckpointError: Where `last` does not hold what it should.
        RunError: Where the loss, a gradient or a validation prediction is not finite.
        Stopped: After SIGTERM or Ctrl-C, when `last.pth` holds the last whole step.
    """
    with StopSignal() as stop:
        run = _start(model, stage, folder, device, stop)
        if last is None:
            progress = Progress(monitor=_monitor(run))
        else:
            progress = _restore(run, last)
            log.info("resumed in epoch %d, after step %d", progress.epoch, progress.step)
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
        if any(of_every_rank(bool(stop.number))):  # during the last validation
            raise _stopped(run, progress)
    return progress


def _start(
    model: YeastTransformer, stage: Stage, folder: RunDir, device: torch.device, stop: StopSignal
) -> _Run:
    settings = stage.settings
    training = settings.training
    if training.precision == "fp64":
        model.double()
    model.encoder.checkpointing = training.activation_checkpointing
    shared = None
    if size() > 1:
        torch.manual_seed(torch.initial_seed() + rank())  # ranks drop out each on its own
        gpu = [device.index] if device.type == "cuda" else None
        shared = DistributedDataParallel(model, device_ids=gpu)
    forward = model if shared is None else shared
    averaged = None
    if training.ema_decay:
        averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(training.ema_decay))
    autocast = training_dtype(settings, device)
    per_step = training.batch_size * training.accumulate_grad_batches
    return _Run(
        model=model,
        forward=torch.compile(forward) if training.compile else forward,
        shared=shared,
        stop=stop,
        averaged=averaged,
        optimizer=make_optimizer(model, settings),
        scaler=torch.amp.GradScaler(device.type, enabled=autocast == torch.float16),
        autocast=autocast,
        stage=stage,
        settings=settings,
        folder=folder,
        device=device,
        # without random offsets, which add a window here and there: the schedule must not jump
        steps_per_epoch=math.ceil(
            len(stage.train_set.plan.windows(stage.part == TRAIN)) / per_step
        ),
        board=Board(folder.tensorboard if settings.logging.tensorboard and is_writer() else None),
    )


def home_of(settings: Settings, device: torch.device) -> torch.device:
    """Where the tensors of the training set live: beside the model, or where workers can gather."""
    return torch.device("cpu") if settings.training.num_workers else device


WIDE = 512
"""Width of an encoder from which bfloat16 is sure to be faster on a CPU that multiplies in it."""


def training_dtype(settings: Settings, device: torch.device) -> torch.dtype | None:
    """The reduced precision to train in, None for that of the weights.

    That of predictions (`autocast_dtype`), but `auto` is bfloat16 on a processor that multiplies in
    it too, where the encoder is wide. Predictions stay in float32 there, so that a checkpoint says
    the same on every processor. A rule and not a measurement, so that the same run is the same.
    """
    training, wide = settings.training, settings.model.transformer.embed_dim >= WIDE
    if training.precision == "auto" and device.type == "cpu" and wide and _multiplies_in_bf16():
        return torch.bfloat16
    return autocast_dtype(training.precision, device)


def _multiplies_in_bf16() -> bool:
    """Whether this processor has instructions for it (AVX-512 BF16, or AMX, which implies it)."""
    asked = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return asked is not None and bool(asked())


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
    count = train_set.windows.place if train_set.by_region else len(train_set)
    sampler = EpochSampler(
        count, training.batch_size, shuffle, progress.batch, shard=(rank(), size())
    )
    last_batch = progress.batch + len(sampler)
    run.model.train()
    pending = _Pending()
    loader = batches(train_set, sampler, training.num_workers)
    silent = None if is_writer() else True  # None: where there is no terminal
    with tqdm(loader, f"epoch {epoch}", leave=False, disable=silent, unit="batch") as bar:
        for batch in bar:
            progress.batch += 1
            due = progress.batch == last_batch or (
                progress.batch % training.accumulate_grad_batches == 0
            )
            _forward_and_back(run, batch.to(run.device, dtype_of(run.model)), pending, due)
            if due:
                loss, count, stopping = _sum_up(run, progress, pending)
                progress.loss += loss
                progress.targets += count
                rate = learning_rate(progress.step, run.steps_per_epoch, run.settings)
                _step(run, progress, pending, rate, size() * training.batch_size / max(count, 1))
                progress.step, pending = progress.step + 1, _Pending()
                mean = progress.loss / max(progress.targets, 1)
                bar.set_postfix(loss=f"{mean:.4f}", lr=f"{rate:.1e}", refresh=False)
                _after_step(run, progress, loss / max(count, 1), rate, last_batch)
                if stopping:
                    _save_last(run, progress)
                    raise _stopped(run, progress)
    progress.batch = 0
    return progress.loss / max(progress.targets, 1)


@dataclass
class _Pending:
    """What this rank has gathered for the next optimizer step.

    Attributes:
        losses: Of its batches, each a sum over its targets.
        counts: The number of targets in each.
        rows: Their observations, -1 for none.
    """

    losses: list[torch.Tensor] = field(default_factory=list)
    counts: list[torch.Tensor] = field(default_factory=list)
    rows: list[torch.Tensor] = field(default_factory=list)


def dtype_of(model: YeastTransformer) -> torch.dtype:
    """Of its weights: double in `fp64`."""
    return next(model.parameters()).dtype


def _forward_and_back(run: _Run, batch: Batch, pending: _Pending, due: bool) -> None:
    """Add the gradient of one batch; the ranks exchange theirs where a step is due."""
    training, dtype = run.settings.training, run.autocast
    apart: AbstractContextManager[None] = nullcontext()
    if run.shared is not None and not due:
        apart = run.shared.no_sync()
    with apart:
        with torch.autocast(run.device.type, dtype, enabled=dtype is not None):
            prediction = run.forward(batch)
            loss = loss_sum(training.loss, prediction, batch.target, batch.target_mask)
        # A sum divided by a constant; `_step` makes it the mean over all pending targets.
        run.scaler.scale(loss / training.batch_size).backward()
    pending.losses.append(loss.detach())
    pending.counts.append(batch.target_mask.sum())
    pending.rows.append(batch.observation_index)


def _sum_up(run: _Run, progress: Progress, pending: _Pending) -> tuple[float, int, bool]:
    """Loss and targets of a step over all ranks, and whether any of them was told to stop.

    Raises:
        RunError: Where the loss is not finite.
    """
    loss, count = torch.stack(pending.losses).sum(), torch.stack(pending.counts).sum()
    told = torch.tensor(float(run.stop.number > 0), device=run.device)
    sums = sum_over_ranks(torch.stack((loss, count.to(loss.dtype), told.to(loss.dtype)))).tolist()
    if not math.isfinite(sums[0]):
        raise _not_finite(run, "the loss", pending, progress)
    return sums[0], round(sums[1]), sums[2] > 0


def _step(run: _Run, progress: Progress, pending: _Pending, rate: float, correction: float) -> None:
    """One optimizer step at the given rate, on gradients times `correction`.

    Raises:
        RunError: Where a gradient is not finite; in fp16 only where no scale helps.
    """
    groups = run.optimizer.param_groups
    gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
    run.scaler.unscale_(run.optimizer)
    norm = correction * torch.stack(torch._foreach_norm(gradients)).norm()
    # In fp16 the scaler leaves such a step out and halves its scale, first of all.
    if run.scaler.get_scale() <= 1 and not torch.isfinite(norm):
        raise _not_finite(run, "a gradient", pending, progress)
    clip = run.settings.training.clip_grad or math.inf  # corrected and clipped at once
    torch._foreach_mul_(gradients, correction * (clip / (norm + 1e-6)).clamp(max=1.0))
    for group in groups:
        group["lr"] = rate * group.get("faster", 1.0)
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


def _stopped(run: _Run, progress: Progress) -> Stopped:
    """What ends a run that a signal stopped, on every rank."""
    number = max(of_every_rank(run.stop.number))
    at = f"in epoch {progress.epoch}, after step {progress.step}"
    return Stopped(number, f"{at}; {run.folder.last} holds it, go on with --resume")


def _not_finite(run: _Run, what: str, pending: _Pending, progress: Progress) -> RunError:
    """The error that names epoch, step and the rows of a step, on every rank."""
    at = np.concatenate(of_every_rank(torch.cat(pending.rows).cpu().numpy()))
    at = at[at >= 0]
    data = run.stage.data
    rows = ", ".join(place(data, i) for i in at[:5])
    return RunError(
        Problem(
            f"{what} is not finite in epoch {progress.epoch}, step {progress.step}; "
            f"the {len(at)} rows of that step begin with {rows}",
            "look at these rows, or lower training.learning_rate; "
            f"{run.folder.last.name} holds the run as it was last saved",
            file=data.source,
        )
    )


def place(data: ExpressionData, i: int) -> str:
    """An observation as its row, region and sample."""
    region, sample = data.region_index[i], data.sample_index[i]
    return f"{data.row[i]} ({data.region_id[region]}, {data.sample_id[sample]})"


# ---------------------------------------------------------------------------- after each epoch


def _finish_epoch(run: _Run, progress: Progress, train_loss: float | None) -> None:
    """Validate, write the history, and keep the weights if they are the best so far.

    `last.pth` is written before the best weights: a run that dies between the two takes them from
    there (`_restore`), and never finds best weights that it knows nothing of.
    """
    training, epoch = run.settings.training, progress.epoch
    row: dict[str, Any] = {"epoch": epoch, "train_loss": train_loss}
    due = epoch % training.validate_every_n_epochs == 0 or epoch >= training.max_epochs
    if due:
        found, picture = run.stage.validate(run.validated, epoch)
        scores = from_writer(lambda: found)  # the writer decides, and the others agree
        if not math.isfinite(scores["val_loss"]):
            what = f"the validation loss is not finite in epoch {epoch}"
            fix = "look for values far from all others, or lower training.learning_rate"
            raise RunError(Problem(what, fix, file=run.stage.data.source))
        row |= scores
        run.board.add_validation(epoch, scores, picture)
    else:
        run.stage.remember(run.validated)
    row["learning_rate"] = run.optimizer.param_groups[0]["lr"] if epoch else None
    progress.history.append(row)
    best = due and _is_best(progress, row)
    if best:
        progress.best, progress.best_epoch = row[progress.monitor], epoch
    log.info("%s%s", _line(row), "  (best so far)" if best else "")
    if is_writer():
        names = ["epoch", "train_loss", "val_loss", "val_pearson", "learning_rate"]
        table = pd.DataFrame(progress.history, columns=names)
        write_text(run.folder.history, table.to_csv(index=False))
        if training.save_every_n_epochs and epoch and epoch % training.save_every_n_epochs == 0:
            _checkpoint(run, row).save(run.folder.periodic_checkpoint(epoch))
    _save_last(run, progress)
    _save_best(run, progress)


def _is_best(progress: Progress, row: dict[str, Any]) -> bool:
    value = row[progress.monitor]
    if value is None or not math.isfinite(value):
        return False
    if progress.best is None:
        return True
    return bool(value < progress.best if progress.monitor == "val_loss" else value > progress.best)


def _save_best(run: _Run, progress: Progress) -> None:
    """The best weights, where they are those of the epoch just finished.

    Epoch 0 is the best where no later one has a score, so that there is always one.
    """
    if is_writer() and progress.best_epoch == progress.epoch and not progress.batch:
        run.stage.save_best(run.folder, _checkpoint(run, progress.history[-1]))


def _line(row: dict[str, Any]) -> str:
    words = [f"epoch {row['epoch']}" if row["epoch"] else "before training"]
    for name in ("train_loss", "val_loss", "val_pearson"):
        if row.get(name) is not None:
            words.append(f"{name} {row[name]:.4f}")
    return "  ".join(words)


def _checkpoint(run: _Run, row: dict[str, Any]) -> Checkpoint:
    state = run.validated.state_dict()
    weights = {name: _kept(value) for name, value in state.items()}
    scores: dict[str, Any] = {k: row[k] for k in ("val_loss", "val_pearson") if k in row}
    return dataclasses.replace(
        run.stage.checkpoint, model=weights, epoch=row["epoch"], scores=scores
    )


def _kept(weight: torch.Tensor) -> torch.Tensor:
    """A copy on the CPU, in float32 also where `fp64` trains."""
    dtype = torch.float32 if weight.is_floating_point() else weight.dtype
    return weight.detach().to("cpu", dtype, copy=True)


def _save_last(run: _Run, progress: Progress) -> None:
    """`last.pth`: everything that `_restore` needs, of every rank."""
    draws = of_every_rank(_random_state(run.device))
    if not is_writer():
        return
    if progress.batch:
        run.stage.remember(run.validated)
    row = progress.history[-1] if progress.history else {"epoch": 0}
    last = _checkpoint(run, row | {"epoch": progress.epoch})
    last.resume = {
        "progress": dataclasses.asdict(progress),
        "weights": run.model.state_dict(),
        "average": None if run.averaged is None else run.averaged.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "rng": draws,
        "bf16": run.autocast == torch.bfloat16,
    }
    last.save(run.folder.last)


def _restore(run: _Run, last: Checkpoint) -> Progress:
    """Set everything to where `last.pth` has it.

    Raises:
        CheckpointError: Where it does not fit the model, or is not what `_save_last` wrote.
    """
    with last.reading("the training to go on with"):
        resume = last.resume
        progress = build(Progress, resume["progress"])
        run.model.load_state_dict(resume["weights"])
        if run.averaged is not None:
            run.averaged.load_state_dict(resume["average"])
        _load_optimizer(run.optimizer, resume["optimizer"])
        if resume["scaler"]:
            run.scaler.load_state_dict(resume["scaler"])
        _go_on_in(run, resume.get("bf16"))
        if rank() < len(resume["rng"]):
            _draw_on(resume["rng"][rank()], run.device)
        else:  # more ranks than before
            torch.manual_seed(torch.initial_seed() + progress.step)
    _save_best(run, progress)
    return progress


def _go_on_in(run: _Run, bf16: bool | None) -> None:
    """Take the precision that `auto` meant where the run began; None where no file says so."""
    if run.settings.training.precision != "auto":
        return
    if bf16 is None:
        bf16 = autocast_dtype("auto", run.device) == torch.bfloat16
    began = torch.bfloat16 if bf16 else None
    if began != run.autocast:
        log.info("training goes on in %s, as it began", "bfloat16" if bf16 else "float32")
    run.autocast = began


def _load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load its state, which torch does without a look at the shapes."""
    optimizer.load_state_dict(state)
    for parameter, held in optimizer.state.items():
        shapes = {value.shape for value in held.values() if value.dim()}
        if shapes - {parameter.shape}:
            raise ValueError(f"moments of {shapes} for weights of {parameter.shape}")


def _random_state(device: torch.device) -> dict[str, Any]:
    """Where every generator of random numbers stands."""
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002  (a library may draw from it)
    gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return {
        "torch": torch.get_rng_state(),
        "cuda": gpu,
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
    }


def _draw_on(state: dict[str, Any], device: torch.device) -> None:
    """Set every generator to where it stood."""
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
