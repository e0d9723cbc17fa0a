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
from yeast_get.stored import check

log = logging.getLogger(__name__)

NAME = "LightGBM"

ROUNDS = 400
MOST_TREES, MOST_LEAVES = 100_000, 100_000
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
    def from_list(cls, stored: Any) -> Boosted:
        """The models of a checkpoint.

        Raises:
            ValueError: Where one is no model, which LightGBM itself does not survive.
        """
        check(list[str], stored, "boosted")
        return cls([_checked(text) for text in stored])

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
        try:
            boosters = [lightgbm.Booster(model_str=text) for text in self.models]
        except lightgbm.basic.LightGBMError as error:
            return f"its trees cannot be read ({error})"
        said = np.empty((len(rows), len(boosters)))
        for some in blocks(len(rows), max(1, AT_ONCE // inputs.width)):
            features = inputs.of(rows[some])
            for t, booster in enumerate(boosters):
                said[some, t] = booster.predict(features)
        return said


def _checked(text: str) -> str:
    """The head and the trees of a model, of which every branch leads to a leaf.

    LightGBM trusts its files: a branch that leads out of the tree, or back to itself, ends or hangs
    the process. The table of the trees' sizes is left out, since it is for reading by many threads,
    which end the process where it is wrong.
    """
    head, *trees = text.partition("\nend of trees")[0].split("\nTree=")
    lines = [line for line in head.split("\n") if not line.startswith("tree_sizes=")]
    try:
        features = int(_values("\n".join(lines))["max_feature_idx"]) + 1
        sound = len(trees) <= MOST_TREES and all(
            _is_sound(_values(tree), features) for tree in trees
        )
    except (KeyError, OverflowError, ValueError):
        sound = False
    if not sound:
        raise ValueError("boosted: the trees of LightGBM are damaged")
    return "\nTree=".join(["\n".join(lines), *trees]) + "\nend of trees\n"


def _values(text: str) -> dict[str, str]:
    pairs = [line.partition("=") for line in text.split("\n")]
    if len({key for key, _, value in pairs if value}) < sum(bool(value) for *_, value in pairs):
        raise ValueError("a key stands twice")
    return {key: value for key, _, value in pairs}


def _is_sound(tree: dict[str, str], features: int) -> bool:
    """Whether the arrays of a tree fit each other; a branch leads to a later one or to a leaf."""

    def numbers(key: str, count: int, kind: type) -> np.ndarray:
        found: np.ndarray = np.array(tree.get(key, "").split(), dtype=kind)
        if len(found) != count or not np.isfinite(found).all():
            raise ValueError(key)
        return found

    leaves, categorical = int(tree["num_leaves"]), int(tree["num_cat"])
    if not 0 < leaves <= MOST_LEAVES or int(tree.get("is_linear", 0)):
        return False
    numbers("leaf_value", leaves, float)
    if leaves == 1:
        return categorical == 0
    at = np.arange(leaves - 1)
    for key in ("left_child", "right_child"):
        child = numbers(key, leaves - 1, np.int64)
        if not np.where(child < 0, ~child < leaves, (child > at) & (child < leaves - 1)).all():
            return False
    feature = numbers("split_feature", leaves - 1, np.int64)
    threshold = numbers("threshold", leaves - 1, float)
    words = numbers("decision_type", leaves - 1, np.int64) % 2 == 1
    if not ((feature >= 0) & (feature < features)).all() or not 0 <= categorical < leaves:
        return False
    if not categorical:
        return not words.any()
    ends = numbers("cat_boundaries", categorical + 1, np.int64)
    numbers("cat_threshold", int(ends[-1]), np.int64)
    chosen = threshold[words]
    return bool(
        ends[0] == 0
        and (np.diff(ends) > 0).all()
        and ((chosen >= 0) & (chosen < categorical)).all()
    )


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
