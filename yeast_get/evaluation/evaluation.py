"""What is evaluated: a model, a table, and the part that the headline speaks of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from yeast_get.config import Settings
from yeast_get.data.expression_data import ExpressionData
from yeast_get.data.features import FeatureSchema
from yeast_get.data.seen_regions import SeenRegions
from yeast_get.data.splits import PART_NAMES, TEST, TRAIN, VAL
from yeast_get.data.yeast_dataset import YeastDataset
from yeast_get.evaluation.bootstrap import Resampler, choose_over
from yeast_get.evaluation.conformal import LEVEL, Calibration
from yeast_get.evaluation.inference import in_input_units, mean_and_spread, predict_members
from yeast_get.evaluation.rivals import Rivals
from yeast_get.model.yeast_model import Ensemble, YeastModel


@dataclass
class Predictions:
    """What a model says of every observation of a table.

    Attributes:
        y_pred: [N,T] in units of the input.
        y_std: [N,T] SD over the members of an ensemble, in units of the input; None without.
        y_model: [N,T] in model space.
        spread: [N,T] SD over the members in model space; 0 without.
    """

    y_pred: np.ndarray
    y_std: np.ndarray | None
    y_model: np.ndarray
    spread: np.ndarray

    def of(self, rows: slice | np.ndarray) -> Predictions:
        """Those of some rows: a slice, or a mask [N]."""
        y_std = None if self.y_std is None else self.y_std[rows]
        return Predictions(self.y_pred[rows], y_std, self.y_model[rows], self.spread[rows])


@dataclass
class Evaluation:
    """One model on one table.

    Attributes:
        model: On the device to compute on.
        data: The table.
        schema: The model's.
        settings: `task`, `training.precision` and `data.regions_per_window` are read.
        baselines: Fitted on the model's training rows.
        part: [N] part of each observation, as `PART_NAMES`.
        condition_key: [S] int64, the condition of each sample as the baselines know it.
        headline: The part that `overall` speaks of; `all` where the table holds no training row.
        overlap: How much of the table was trained on.
        calibration: How wide the intervals of predictions are; None where that is not known.
        seen: Where the training regions lie; None where that is not known.
        batch_size: Windows per batch.
        dataset: The table as the model takes it.
    """

    model: YeastModel | Ensemble
    data: ExpressionData
    schema: FeatureSchema
    settings: Settings
    baselines: Rivals
    part: np.ndarray
    condition_key: np.ndarray
    headline: str
    overlap: dict[str, Any]
    calibration: Calibration | None
    seen: SeenRegions | None
    batch_size: int
    dataset: YeastDataset = field(init=False)

    def __post_init__(self) -> None:
        device = next(self.model.parameters()).device
        window = self.settings.data.regions_per_window
        self.dataset = YeastDataset(self.data, self.schema, window, device)

    def in_part(self, name: str) -> np.ndarray:
        """[N] bool: the observations of a part, of all parts for `all`."""
        if name == "all":
            return np.ones(len(self.part), dtype=bool)
        return self.part == PART_NAMES.index(name)

    def predict(self) -> Predictions:
        """Every observation of the table, in units of the input."""
        everything = np.ones(self.data.num_observations, dtype=bool)
        precision = self.settings.training.precision
        each = predict_members(self.model, self.dataset, everything, self.batch_size, precision)
        return Predictions(*in_input_units(self.schema, each), *mean_and_spread(each))

    def interval(
        self, predictions: Predictions, level: float = LEVEL
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Lower and upper ends [N,T] in units of the input; None where nothing was calibrated."""
        if self.calibration is None:
            return None
        half = self.calibration.half_width(predictions.spread, level)
        ends = (predictions.y_model - half, predictions.y_model + half)
        low, high = (self.schema.to_input_units(end).astype(np.float32) for end in ends)
        if self.schema.target_transform != "none" or self.settings.model.head.kind == "get":
            # such targets are never below 0, though a prediction may be, a little
            low, high = np.maximum(low, np.minimum(predictions.y_pred, 0)), np.maximum(high, 0)
        return low, high

    def resampler(self, wanted: np.ndarray) -> Resampler:
        """Resamples of the observations [N] bool, drawing what is new to the model in them."""
        data = self.data
        keys = data.region_hash, self.condition_key
        codes = [np.unique(key, return_inverse=True)[1].astype(np.int32) for key in keys]
        known_region, known_condition = self.baselines.means.knows(*keys)
        rows = data.region_index[wanted], data.sample_index[wanted]
        region, condition = codes[0][rows[0]], codes[1][rows[1]]
        counts = [int(np.count_nonzero(np.bincount(each))) for each in (region, condition)]
        over = choose_over(known_region[rows[0]], known_condition[rows[1]], *counts)
        return Resampler(data.target[wanted], region, condition, over)

    @property
    def trained_on(self) -> np.ndarray:
        """[N] bool: the observations that the model was trained or validated on."""
        return np.isin(self.part, (TRAIN, VAL))

    @property
    def is_mixed(self) -> bool:
        """Whether the headline would mix rows that were trained on with others."""
        return self.headline == "all" and bool(self.trained_on.any())

    @property
    def is_fitted_to(self) -> bool:
        """Whether the headline is of rows that the model was fitted to, or calibrated on."""
        return self.headline in ("train", "val")

    @property
    def pictured(self) -> str:
        """The part that plots and importance speak of: the headline's, never a mixture."""
        if not self.is_mixed:
            return self.headline
        for name in ("test", "new", "val"):
            if (self.data.measured & self.in_part(name)).any():
                return name
        return "train"


def choose_headline(part: np.ndarray, measured: np.ndarray, asked: str | None = None) -> str:
    """The part that the headline speaks of, where `--split` does not say.

    A table that holds training or validation rows is judged on its test rows, or on those that
    the training table did not hold; a table without any such row on all of its rows.
    """
    if asked is not None:
        return asked
    if not np.isin(part, (TRAIN, VAL)).any():
        return "all"
    return "test" if (measured & (part == TEST)).any() else "new"
