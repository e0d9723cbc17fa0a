"""From one trained model to what an evaluation takes: other members, and calibrated intervals."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from functools import partial

import torch

from yeast_get.data.splits import VAL
from yeast_get.distributed import from_writer, is_writer
from yeast_get.evaluation.conformal import Calibration, calibration_groups
from yeast_get.evaluation.inference import mean_and_spread, predict_members
from yeast_get.model.yeast_model import Ensemble, YeastModel
from yeast_get.run_dir import RunDir
from yeast_get.training.checkpoint import Checkpoint
from yeast_get.training.finetune import Finetune
from yeast_get.training.loop import fit
from yeast_get.training.resuming import resumable

log = logging.getLogger(__name__)


def train_other_members(
    stage: Finetune,
    another: Callable[[int], YeastModel],
    run: RunDir,
    device: torch.device,
    *,
    resume: bool,
) -> list[Checkpoint]:
    """Train members 2 to `training.ensemble`, each in a folder of its own.

    Member k is what a run with `experiment.seed` + k - 1 would train on the same split.

    Args:
        stage: Of the first member.
        another: Makes a fresh model from a seed.
        run: The run folder.
        device: Where to compute.
        resume: Whether to go on where an earlier run stopped.

    Returns:
        The best checkpoint of each.
    """
    settings, members = stage.settings, []
    for number in range(2, settings.training.ensemble + 1):
        seed = settings.experiment.seed + number - 1
        log.info("member %d of %d, seed %d", number, settings.training.ensemble, seed)
        folder = from_writer(partial(run.member, number))
        alone = {
            "experiment": settings.experiment.model_copy(update={"seed": seed}),
            "training": settings.training.model_copy(update={"ensemble": 1}),
        }
        own = settings.model_copy(update=alone)
        kept = dataclasses.replace(stage.checkpoint, settings=own.to_dict())
        held = from_writer(partial(_held, folder, kept)) if resume else None
        member = Finetune(stage.data, stage.part, stage.schema, own, device, kept)
        member.known = stage.known  # of the same cells
        fit(another(seed), member, folder, device, held)
        members.append(from_writer(partial(Checkpoint.load, folder.best_model)))
    return members


def _held(folder: RunDir, kept: Checkpoint) -> Checkpoint | None:
    """A member's `last.pth`, where there is one to go on from."""
    return resumable(folder.last, kept) if folder.last.is_file() else None


def finish(
    members: list[Checkpoint], stage: Finetune, run: RunDir, device: torch.device
) -> tuple[Checkpoint, YeastModel | Ensemble]:
    """Join the members in `best_model.pth`, with intervals calibrated on the validation part.

    Returns:
        That checkpoint, and its model on the device.
    """
    first, *others = members
    whole = dataclasses.replace(first, members=[each.without_base() for each in others])
    model = whole.build()[-1].to(device)
    training, wanted = stage.settings.training, stage.part == VAL
    each = predict_members(model, stage.val_set, wanted, training.batch_size, training.precision)
    y_pred, spread = mean_and_spread(each[:, wanted])
    target = stage.schema.to_model(stage.data.target[wanted])
    groups, over = calibration_groups(stage.data, stage.part)
    calibration = Calibration.fit(target, y_pred, spread, groups, over)
    whole = dataclasses.replace(whole, calibration=calibration.to_dict())
    if is_writer():
        stage.save_best(run, whole)
    return whole, model
