"""Masked pretraining: the backbone learns the regions of a table, without any expression.

GET's objective (Fu et al., Nature 2025): in a window of neighbouring regions some are hidden, and
their motif scores and accessibility are predicted from those around them, by mean squared error.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from yeast_get.config import Settings, write_settings
from yeast_get.data.data_report import describe
from yeast_get.data.expression_data import load_expression_data, regions_only
from yeast_get.data.features import FeatureSchema
from yeast_get.data.splits import TEST, TRAIN, VAL, region_parts
from yeast_get.data.yeast_dataset import EpochSampler, MaskedRegionDataset, WindowPlan, batches
from yeast_get.distributed import (
    from_writer,
    is_writer,
    leave,
    of_every_rank,
    rank,
    refuse_other_tables,
    size,
)
from yeast_get.errors import Problem, RunError
from yeast_get.evaluation import plots
from yeast_get.evaluation.canvas import draw
from yeast_get.evaluation.inference import autocast_dtype, evaluating
from yeast_get.evaluation.metrics import score
from yeast_get.evaluation.output_tables import part_counts, write_splits
from yeast_get.model.get_backbone import LAYER_NORM_EPS
from yeast_get.model.yeast_model import MaskedRegionModel, YeastTransformer
from yeast_get.run_dir import RunDir, write_json, write_text
from yeast_get.training.checkpoint import Checkpoint, write_get
from yeast_get.training.loop import Stage, dtype_of, fit, home_of
from yeast_get.training.losses import loss_sum
from yeast_get.training.prepare import (
    begin,
    deterministic,
    log_device,
    manifest,
    start_from,
    with_batch_size,
    write_findings,
)
from yeast_get.training.resuming import resumable
from yeast_get.training.transfer import fresh, log_trainable

log = logging.getLogger(__name__)


class Pretraining(Stage):
    """The features of hidden regions."""

    def make_sets(self) -> None:
        """Make the data sets of training and validation."""
        data, schema, settings = self.data, self.schema, self.settings
        window, seed = settings.data.regions_per_window, settings.experiment.seed
        ratio = settings.task.mask_ratio
        home = home_of(settings, self.device)
        self.train_set = MaskedRegionDataset(
            data, ratio, schema, window, home, settings.augmentation, seed
        )
        self.val_set = MaskedRegionDataset(data, ratio, schema, window, self.device, seed=seed)
        regions = data.region_index[self.part == TRAIN]
        self.trained_regions = torch.from_numpy(data.region_hash[np.unique(regions)])

    def no_correlation(self) -> str | None:
        """Features differ, or there is nothing to learn; so a correlation there always is."""
        return None

    def validate(self, model: YeastTransformer, epoch: int) -> tuple[dict[str, Any], None]:
        """Loss and Pearson r over all features of the hidden validation regions, as scaled.

        Which regions are hidden is the same in every epoch. Ranks share the batches.
        """
        training = self.settings.training
        dtype = autocast_dtype(training.precision, self.device)
        self.val_set.use(self.part == VAL)
        seen, wanted = [], []
        loss = 0.0
        with evaluating(model), torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            sampler = EpochSampler(len(self.val_set), training.batch_size, shard=(rank(), size()))
            for batch in batches(self.val_set, sampler):
                prediction = model(batch.to(self.device, dtype_of(model))).float()
                loss += float(loss_sum(training.loss, prediction, batch.target, batch.target_mask))
                seen.append(prediction[batch.target_mask].cpu().numpy())
                wanted.append(batch.target[batch.target_mask].cpu().numpy())
        y_pred, y_true = (
            np.concatenate(of_every_rank(np.concatenate(each))) for each in (seen, wanted)
        )
        if not len(y_true):
            what = "no region of the validation part is hidden, so that nothing can be validated"
            fix = "hold out more regions (split.fractions), or raise task.mask_ratio"
            raise RunError(Problem(what, fix, file=self.data.source))
        if not np.isfinite(y_pred).all():
            what = f"the predictions of hidden regions are not finite in epoch {epoch}"
            raise RunError(Problem(what, "lower training.learning_rate", file=self.data.source))
        return {
            "val_loss": sum(of_every_rank(loss)) / len(y_true),
            "val_pearson": score(y_true[:, None], y_pred[:, None])["pearson"],
        }, None

    def save_best(self, folder: RunDir, kept: Checkpoint) -> None:
        """`pretrained.pth`, in GET's layout."""
        model = self.settings.model
        write_get(
            folder.pretrained,
            kept.model,
            kept.features,
            num_heads=model.transformer.num_heads,
            layer_norm_eps=model.encoder.layer_norm_eps or LAYER_NORM_EPS,
            told={
                "pretrained_regions": self.trained_regions,
                "positional_encoding": model.transformer.positional_encoding,
            },
        )


@dataclass
class PreparedPretraining:
    """All that pretraining needs.

    Attributes:
        stage: What is trained.
        model: Freshly initialised, or loaded from `finetune.checkpoint`; on its device.
        split: The line that says what is held out.
        described: The content of `data_report.json`.
        last: The checkpoint of the run to continue; None for a new one.
    """

    stage: Pretraining
    model: MaskedRegionModel
    split: str
    described: dict[str, Any]
    last: Checkpoint | None


def prepare_pretraining(
    settings: Settings, device: torch.device, last: Path | None = None
) -> PreparedPretraining:
    """Read the regions, hold some out, build the model, and say what was found.

    Args:
        settings: The run's.
        device: Where to compute.
        last: The `last.pth` to continue from.
    """
    settings, pretrained = start_from(settings, device)
    table = load_expression_data(settings, need_target=False, need_samples=False)
    table.log_summary()
    data = regions_only(table)
    refuse_other_tables(table.fingerprint, table.source)
    of_region = region_parts(table, settings.split)
    part = of_region[data.region_index]
    counts = [int((of_region == code).sum()) for code in (TRAIN, VAL, TEST)]
    split = (
        "pretraining hides and predicts {:,} regions in training and {:,} in validation; {:,} of "
        "the test part are context only".format(*counts)
    )
    if 0 in counts[:2]:
        what = "split leaves no region for training or for validation"
        raise RunError(Problem(what, "split in another way", file=data.source))
    log.info("%s", split)
    described = describe(table, settings)
    described["split"] = {"rows": part_counts(part), "said": split}
    plan = WindowPlan(data, settings.data.regions_per_window)
    settings = with_batch_size(settings, plan, part == TRAIN)
    inherited = None if pretrained is None else pretrained.inherited()
    schema = FeatureSchema.fit(data, part == TRAIN, settings, inherited, with_target=False)
    model = fresh(MaskedRegionModel, settings, schema)
    load_report = begin(model, pretrained, schema, settings)
    log_trainable(model)
    log_device(settings, device)
    checkpoint = Checkpoint(
        settings=settings.to_dict(),
        schema=schema.to_dict(),
        model={},
        trained_rows={},
        baselines={},
        data_fingerprint=data.fingerprint,
        features=schema.input_columns(),
        load_report={} if load_report is None else load_report.to_dict(),
    )
    held = None if last is None else from_writer(lambda: resumable(last, checkpoint))
    stage = Pretraining(data, part, schema, settings, device, checkpoint)
    return PreparedPretraining(stage, model.to(device), split, described, held)


def pretrain(ready: PreparedPretraining, device: torch.device, run: RunDir) -> None:
    """Train, and leave the best weights as `pretrained.pth`."""
    started = time.monotonic()
    stage, settings = ready.stage, ready.stage.settings
    if is_writer():
        write_text(run.config, write_settings(settings))
        write_splits(stage.data, stage.part, run)
        write_findings(ready.described, stage.data, run)
    with deterministic(settings.training.deterministic):
        progress = fit(ready.model, stage, run, device, ready.last)
    if not leave():
        return
    formats = settings.report.formats
    draw(plots.plot_history, run.history, run.history_plot, formats, progress.monitor)
    best = next(row for row in progress.history if row["epoch"] == progress.best_epoch)
    log.info("%s holds the weights of epoch %d; start from it with --set finetune.checkpoint=%s",
             run.pretrained.name, progress.best_epoch, run.pretrained)  # fmt: skip
    said = manifest(settings, device, stage, ready.model, progress, time.monotonic() - started)
    said["split"]["said"] = ready.split
    said["training"]["scores_of_best"] = {k: best.get(k) for k in ("val_loss", "val_pearson")}
    write_json(run.manifest, said)
