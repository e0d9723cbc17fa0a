"""The tables, splits and folds of `accuracy.py`: what may be learned from, and what is hidden.

Four splits with five outer folds each, which only depend on the table:

    regions     new promoters: whole chromosomes, dealt out in a fixed order
    conditions  new conditions: whole families of treatments (gasch2000) or condition signatures
    both        a new promoter under a new condition: regions of fold k times conditions of fold k;
                nothing of either is learned from
    cells       a random fifth of the cells

The validation part of a fold is cut from its training rows: what the next fold holds out, without
its largest chromosome or family, or a third of its cells; for `both` all of it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from yeast_get.config import Settings, load_settings
from yeast_get.data.expression_data import ExpressionData, load_expression_data

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("YEAST_GET_DATA", ROOT.parent / "shared" / "data"))
FOLDS = 5
SPLITS = ("regions", "conditions", "both", "cells")
FAMILY = {"gasch2000": "group", "getforyeast": None}
"""Table -> the column of what is held out together of conditions; None: the signature."""

CHROMOSOMES = ("IV", "XV", "VII", "XII", "XVI", "XIII", "II", "XIV",
               "X", "XI", "V", "VIII", "IX", "III", "VI", "I")  # fmt: skip


@dataclass(frozen=True)
class Fold:
    """Which observations of a table may be used for what, [N] bool each; all are measured.

    Attributes:
        known: Whatever may be learned from.
        train: Of these, what is learned from while something is chosen.
        val: Of these, what it is chosen on.
        test: What is predicted.
    """

    known: np.ndarray
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def example_config(table: str) -> Path:
    """The configuration that is shipped for a table."""
    return ROOT / "docs" / "examples" / f"{table}.yaml"


def read(table: str, split: str, folder: Path) -> tuple[ExpressionData, Settings]:
    """The whole table, and the shipped settings of it with the kind of the split."""
    by = {"regions": "chromosome", "both": "region_and_condition", "cells": "random"}
    overrides = [f"split.by={by.get(split, 'condition')}"]
    if split == "conditions" and FAMILY[table] is not None:
        overrides = ["split.by=column", f"split.column={FAMILY[table]}"]
    named = {"data.path": str(folder / table)}
    settings = load_settings(str(example_config(table)), overrides, named)
    return load_expression_data(settings), settings


def families(data: ExpressionData, table: str) -> np.ndarray:
    """[S] codes 0.., which samples are held out together."""
    column = FAMILY[table]
    if column is None:
        return data.condition
    first = np.unique(data.sample_index, return_index=True)[1]
    return pd.factorize(data.column(column)[first])[0]


def region_folds(data: ExpressionData) -> np.ndarray:
    """[P] fold of each region: the place of its chromosome in `CHROMOSOMES`, modulo 5.

    Raises:
        KeyError: For a chromosome that is not one of yeast.
    """
    fold = {f"chr{name}": at % FOLDS for at, name in enumerate(CHROMOSOMES)}
    return np.array([fold[name] for name in data.chrom])


def condition_folds(family: np.ndarray) -> np.ndarray:
    """[S] fold of each sample: the largest family first, each to the fold with fewest samples."""
    filled = np.zeros(FOLDS, dtype=int)
    fold = np.empty(len(family), dtype=int)
    for code, samples in pd.Series(family).value_counts().items():
        fold[family == code] = filled.argmin()
        filled[filled.argmin()] += samples
    return fold


def make_fold(data: ExpressionData, table: str, split: str, number: int) -> Fold:
    """One outer fold of a split.

    Args:
        data: The table.
        table: Its name, one of `FAMILY`.
        split: One of `SPLITS`.
        number: 0 to 4.
    """
    by_region = region_folds(data)[data.region_index]
    by_condition = condition_folds(families(data, table))[data.sample_index]
    held_out = {
        "regions": [by_region],
        "conditions": [by_condition],
        "both": [by_region, by_condition],
        "cells": [np.random.default_rng(0).permutation(data.num_observations) % FOLDS],
    }[split]
    after = (number + 1) % FOLDS

    def inside(fold: int) -> np.ndarray:
        return np.all([each == fold for each in held_out], axis=0) & data.measured

    def outside(fold: int) -> np.ndarray:
        return np.all([each != fold for each in held_out], axis=0) & data.measured

    known = outside(number)
    val = known & inside(after)
    if len(held_out) == 2:  # rows that mix the two folds are of neither part
        return Fold(known, known & outside(after), val, inside(number))
    smaller = val & _smaller_groups(data, table, split)
    val = smaller if smaller.any() else val
    return Fold(known, known & ~val, val, inside(number))


def with_all_conditions(fold: Fold, data: ExpressionData) -> Fold:
    """The same fold, where conditions are new with a validation part that holds out none.

    For whoever stops by the validation part, does not learn from it, and has conditions apart from
    what is stopped. Where regions are new too, validation has its regions under all conditions;
    else a twentieth of the cells.
    """
    region, sample = data.region_index, data.sample_index
    if np.isin(sample[fold.val], sample[fold.train]).any():
        return fold
    if np.isin(region[fold.val], region[fold.train]).any():
        val = np.random.default_rng(0).permutation(data.num_observations) % 20 == 0
    else:
        val = np.isin(region, region[fold.val])
    return replace(fold, train=fold.known & ~val, val=fold.known & val)


def _smaller_groups(data: ExpressionData, table: str, split: str) -> np.ndarray:
    """[N] bool: all but the largest group of each fold; of single cells, every third."""
    if split == "regions":
        largest = [f"chr{name}" for name in CHROMOSOMES[:FOLDS]]
        return ~np.isin(data.chrom, largest)[data.region_index]
    if split == "conditions":
        family = families(data, table)
        counts = pd.Series(family).value_counts()
        return ~np.isin(family, counts.index[:FOLDS])[data.sample_index]
    return np.arange(data.num_observations) % 3 == 0


def hide(data: ExpressionData, known: np.ndarray) -> ExpressionData:
    """The table with NaN for every target that may not be learned from; `known` is [N] bool."""
    return replace(data, target=np.where(known[:, None], data.target, np.float32(np.nan)))
