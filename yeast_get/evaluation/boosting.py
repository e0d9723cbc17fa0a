"""LightGBM on the rows of the table: gradient-boosted trees, where the package is installed.

What most users would try first. The trees see regions and conditions as the model does, categories
as categories. They are kept as LightGBM's own text; a leaf is a mean over 20 rows or more.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from yeast_get.data.expression_data import ExpressionData
from yeast_get.data.features import FeatureSchema

log = logging.getLogger(__name__)

NAME = "LightGBM"

ROUNDS = 400
MOST_VALUES = 400_000_000
"""Rows times columns above which it is not fitted."""

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
        features, categories = _features(data, schema, wanted)
        models = []
        for t in range(y.shape[1]):
            known = ~np.isnan(y[:, t])
            table = lightgbm.Dataset(
                features[known], y[known, t], categorical_feature=categories, free_raw_data=True
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

        features = _features(data, schema, wanted)[0]
        said = [lightgbm.Booster(model_str=text).predict(features) for text in self.models]
        return np.stack(said, axis=1)


def _features(
    data: ExpressionData, schema: FeatureSchema, wanted: np.ndarray
) -> tuple[np.ndarray, list[int]]:
    """[n,F] float32 inputs of the wanted observations, and which columns are categories."""
    samples = schema.sample_inputs(data)
    regions = schema.region_inputs(data)
    region, sample = data.region_index[wanted], data.sample_index[wanted]
    accessibility = schema.accessibility_inputs(data)  # [P,1|S,A]
    of_sample = sample if accessibility.shape[1] > 1 else np.zeros_like(sample)
    words = np.concatenate([samples.category, samples.drug], axis=1)
    numbers = np.concatenate([samples.number, samples.present, samples.dose], axis=1)
    columns = [words[sample], numbers[sample], regions[region], accessibility[region, of_sample]]
    return np.concatenate(columns, axis=1, dtype=np.float32), list(range(words.shape[1]))
