"""What fine-tuning and training from scratch train: expression, in model space."""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import torch

from yeast_get.config import Settings
from yeast_get.data.expression_data import ExpressionData
from yeast_get.data.features import FeatureSchema
from yeast_get.data.splits import TRAIN, VAL
from yeast_get.data.yeast_dataset import YeastDataset
from yeast_get.errors import Problem, RunError
from yeast_get.evaluation.inference import predict
from yeast_get.evaluation.metrics import score
from yeast_get.evaluation.plots import scatter_image
from yeast_get.model.yeast_model import YeastModel, YeastTransformer
from yeast_get.run_dir import RunDir
from yeast_get.training.checkpoint import Checkpoint
from yeast_get.training.factors import Knowledge
from yeast_get.training.loop import Stage, home_of, place
from yeast_get.training.losses import loss_sum


class Finetune(Stage):
    """Expression of the measured observations of a table."""

    def make_sets(self) -> None:
        """Make the data sets of training and validation."""
        data, schema, settings = self.data, self.schema, self.settings
        window, seed = settings.data.regions_per_window, settings.experiment.seed
        home = home_of(settings, self.device)
        by_region = settings.model.fusion.by_factors
        self.train_set = YeastDataset(
            data, schema, window, home, settings.augmentation, seed, by_region
        )
        shared = home == self.device
        self.val_set = (
            self.train_set.without_noise()
            if shared
            else YeastDataset(data, schema, window, self.device)
        )

    @cached_property
    def known(self) -> Knowledge | None:
        """What the training cells say, for a model by factors; None for others."""
        fusion = self.settings.model.fusion
        if not fusion.by_factors:
            return None
        return Knowledge.of(self.val_set, self.part == TRAIN, fusion.factors)

    def no_correlation(self) -> str | None:
        """Why the validation targets allow no correlation."""
        target = self.data.target[self.part == VAL]
        itself = score(target, np.nan_to_num(target), ("pearson",))
        return None if itself["pearson"] is not None else str(itself["pearson_reason"])

    def validate(self, model: YeastTransformer, epoch: int) -> tuple[dict[str, Any], Any]:
        """Loss in model space, Pearson r in units of the input, and what draws a scatter plot."""
        wanted = self.part == VAL
        self.remember(model)
        scores, y_pred = validate(
            cast(YeastModel, model), self.val_set, self.data, wanted, self.schema, self.settings,
            epoch,
        )  # fmt: skip
        title = f"validation, epoch {epoch}"
        return scores, partial(scatter_image, self.data.target[wanted], y_pred[wanted], title)

    def prepare(self, model: YeastModel) -> None:
        """What is known of the conditions before training."""
        if self.known is not None:
            self.known.give_conditions(model)

    def remember(self, model: YeastTransformer) -> None:
        """What is known of the training regions, with the weights at hand."""
        if self.known is not None:
            self.known.give_regions(cast(YeastModel, model), self.settings.training.batch_size)

    def save_best(self, folder: RunDir, kept: Checkpoint) -> None:
        """`best_model.pth`, and with LoRA the adapter alone."""
        kept.save(folder.best_model)
        if kept.lora:
            kept.adapter().save(folder.adapter)


def validate(
    model: YeastModel,
    dataset: YeastDataset,
    data: ExpressionData,
    wanted: np.ndarray,
    schema: FeatureSchema,
    settings: Settings,
    epoch: int,
) -> tuple[dict[str, Any], np.ndarray]:
    """Loss (model space) and pooled scores (input units) on the wanted observations.

    Returns:
        `val_loss`, `val_pearson` (None where undefined), and predictions [N,T] in input units.

    Raises:
        RunError: Where a prediction is not finite, naming the first row.
    """
    training = settings.training
    y = predict(model, dataset, wanted, training.batch_size, training.precision)
    y_pred = schema.to_input_units(y)
    bad = wanted & ~np.isfinite(y_pred).all(axis=1)
    if bad.any():
        what = (
            f"{bad.sum()} of {wanted.sum()} validation rows have no finite prediction in epoch "
            f"{epoch}; the first is row {place(data, int(bad.argmax()))}"
        )
        raise RunError(Problem(what, "lower training.learning_rate", file=data.source))
    target = torch.from_numpy(schema.to_model(data.target[wanted]))
    mask = ~torch.isnan(target)
    loss = loss_sum(training.loss, torch.from_numpy(y[wanted]), target.nan_to_num(), mask)
    scores = {
        "val_loss": float(loss) / max(int(mask.sum()), 1),
        "val_pearson": score(data.target[wanted], y_pred[wanted], ("pearson",))["pearson"],
    }
    return scores, y_pred
