"""LightGBM on the rows of the table: gradient-boosted trees, where the package is installed.

What most users would try first. The trees see regions and conditions as the model does, categories
as categories. They are kept as a text that LightGBM reads; a leaf is a mean over 20 rows or more.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from yeast_get.data.blocks import blocks
from yeast_get.data.expression_data import ExpressionData
from yeast_get.data.features import FeatureSchema
from yeast_get.stored import LARGEST, check

log = logging.getLogger(__name__)

NAME = "LightGBM"

ROUNDS = 400
MOST_TREES, MOST_LEAVES, MOST_COLUMNS = 100_000, 100_000, 1_000_000
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
        return cls.from_list(models)

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
        for booster in boosters:
            if booster.num_feature() != inputs.width:
                return f"its trees are of {booster.num_feature()} columns, not {inputs.width}"
        for some in blocks(len(rows), max(1, AT_ONCE // inputs.width)):
            features = inputs.of(rows[some])
            for t, booster in enumerate(boosters):
                said[some, t] = booster.predict(features)
        return said


def _checked(text: str) -> str:
    """A model anew, of numbers that fit each other and of which every branch leads to a leaf.

    LightGBM trusts its files: a branch that leads out of the tree, or back to itself, a wrong
    number of classes, or a line within a line ends or hangs the process. So nothing of the text
    itself is kept, and of its head nothing but the number of columns.
    """
    head, *trees = text.partition("\nend of trees")[0].split("\nTree=")
    try:
        columns = int(_values(head)["max_feature_idx"]) + 1
        if not 0 < columns <= MOST_COLUMNS or len(trees) > MOST_TREES:
            raise ValueError("too large")
        made = [_tree(_values(tree), columns) for tree in trees]
    except (KeyError, OverflowError, ValueError):
        raise ValueError("boosted: the trees of LightGBM are damaged") from None
    lines: dict[str, list[Any]] = {
        "tree\nversion": ["v4"],
        "num_class": [1],
        "num_tree_per_iteration": [1],
        "label_index": [0],
        "max_feature_idx": [columns - 1],
        "objective": ["regression"],
        "feature_names": [f"Column_{i}" for i in range(columns)],
        "feature_infos": ["none"] * columns,
    }
    parts = [_text(lines), *(f"Tree={i}\n{_text(tree)}" for i, tree in enumerate(made))]
    return "\n\n".join(parts) + "\n\n\nend of trees\n"


def _values(text: str) -> dict[str, str]:
    return {key: value for key, _, value in (line.partition("=") for line in text.split("\n"))}


def _text(lines: dict[str, list[Any]]) -> str:
    return "\n".join(f"{key}={' '.join(map(str, values))}" for key, values in lines.items())


def _tree(held: dict[str, str], columns: int) -> dict[str, list[Any]]:
    """The lines of a tree, whose arrays fit each other; a branch leads to a later one or to a leaf.

    Raises:
        ValueError: Where they do not.
    """
    made: dict[str, list[Any]] = {}

    def numbers(key: str, count: int, low: float, high: float, kind: type = int) -> np.ndarray:
        found: np.ndarray = np.array(held[key].split(), dtype=np.dtype(kind))
        if len(found) != count or not ((found >= low) & (found <= high)).all():
            raise ValueError(key)
        made[key] = found.tolist()
        return found

    leaves = int(numbers("num_leaves", 1, 1, MOST_LEAVES)[0])
    categorical = int(numbers("num_cat", 1, 0, leaves - 1)[0])
    numbers("leaf_value", leaves, -LARGEST, LARGEST, float)
    if int(held.get("is_linear", 0)):
        raise ValueError("is_linear")
    if leaves == 1:
        return made
    splits = leaves - 1
    for key in ("left_child", "right_child"):
        child = numbers(key, splits, -leaves, splits - 1)
        if not ((child < 0) | (child > np.arange(splits))).all():
            raise ValueError(key)
    numbers("split_feature", splits, 0, columns - 1)
    finite = np.finfo(float).max
    threshold = numbers("threshold", splits, -finite, finite, float)
    words = threshold[numbers("decision_type", splits, 0, 15) % 2 == 1]
    if not ((words >= 0) & (words < categorical)).all():
        raise ValueError("threshold")
    if categorical:
        most = len(held["cat_threshold"])
        ends = numbers("cat_boundaries", categorical + 1, 0, most)
        numbers("cat_threshold", int(ends[-1]), 0, 2**32 - 1)
        if ends[0] or (np.diff(ends) <= 0).any():
            raise ValueError("cat_boundaries")
    return made


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
