"""LightGBM on the rows of the table: gradient-boosted trees, where the package is installed.

What most users would try first. The trees see regions and conditions as the model does, categories
as categories. They are kept as LightGBM's own text; a leaf is a mean over 20 rows or more.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from yeast_get.data.blocks import blocks
from yeast_get.data.expression_data import ExpressionData
from yeast_get.data.features import FeatureSchema

log = logging.getLogger(__name__)

NAME = "LightGBM"

ROUNDS = 400
MOST_VALUES = 400_000_000
"""Rows times columns above which it is not fitted."""

AT_ONCE = 20_000_000
"""Rows times columns that it predicts at once."""

PARAMETERS: dict[str, Any] = {
    "objective": "regression",
    "num_leaves": 127,
    "learning_rate": 0.05,
    "min_data_in_leaf": 20,
    "feature_fraction": 0.5,
    "seed": 0,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


def is_installed() -> bool:
    """Whether LightGBM can be imported (extra `[baselines]`)."""
    try:
        import lightgbm  # noqa: F401
    except (ImportError, OSError):  # OSError: a library of the system is missing
        return False
    return True


@dataclass(frozen=True)
class Boosted:
    """Fitted trees, one model per target, in the unit of the targets they were fitted on."""

    models: list[str]

    @classmethod
    def fit(
        cls, data: ExpressionData, schema: FeatureSchema, wanted: np.ndarray, y: np.ndarray
    ) -> Boosted | None:
        """Fit on the wanted observations [N]; None where they are too many.

        Args:
            data: The table.
            schema: Fitted on the same observations.
            wanted: [N] bool.
            y: [n,T] their targets, NaN = not measured.
        """
        import lightgbm

        if int(wanted.sum()) * (data.motif.shape[1] + len(data.fields)) > MOST_VALUES:
            log.info("LightGBM is not fitted: the table is too large for it")
            return None
        inputs = _Inputs(data, schema)
        features = inputs.of(np.flatnonzero(wanted))
        models = []
        for t in range(y.shape[1]):
            known = ~np.isnan(y[:, t])
            table = lightgbm.Dataset(
                features if known.all() else features[known],
                y[known, t],
                categorical_feature=list(range(inputs.categories)),
                free_raw_data=True,
            )
            models.append(lightgbm.train(PARAMETERS, table, ROUNDS).model_to_string())
        return cls(models)

    def predict(
        self, data: ExpressionData, schema: FeatureSchema, wanted: np.ndarray
    ) -> np.ndarray | str:
        """What the trees say of the wanted observations, [n,T]; or why they say nothing."""
        if not is_installed():
            return "the package lightgbm is not installed here"
        import lightgbm

        inputs, rows = _Inputs(data, schema), np.flatnonzero(wanted)
        boosters = [lightgbm.Booster(model_str=text) for text in self.models]
        said = np.empty((len(rows), len(boosters)))
        for some in blocks(len(rows), max(1, AT_ONCE // inputs.width)):
            features = inputs.of(rows[some])
            for t, booster in enumerate(boosters):
                said[some, t] = booster.predict(features)
        return said


class _Inputs:
    """What the trees see of any observations of a table.

    Attributes:
        categories: How many columns are categories; they come first.
        width: How many columns there are.
    """

    def __init__(self, data: ExpressionData, schema: FeatureSchema) -> None:
        samples = schema.sample_inputs(data)
        self._region, self._sample = data.region_index, data.sample_index
        self._words = np.concatenate([samples.category, samples.drug], axis=1)
        self._numbers = np.concatenate([samples.number, samples.present, samples.dose], axis=1)
        self._regions = schema.region_inputs(data)
        self._accessibility = schema.accessibility_inputs(data)  # [P,1|S,A]
        self.categories = self._words.shape[1]
        parts = self._words, self._numbers, self._regions, self._accessibility
        self.width = sum(part.shape[-1] for part in parts)

    def of(self, rows: np.ndarray) -> np.ndarray:
        """[n,F] float32 inputs of some observations [n]."""
        region, sample = self._region[rows], self._sample[rows]
        of_sample = sample if self._accessibility.shape[1] > 1 else np.zeros_like(sample)
        columns = [self._words[sample], self._numbers[sample], self._regions[region]]
        columns.append(self._accessibility[region, of_sample])
        return np.concatenate(columns, axis=1, dtype=np.float32)
