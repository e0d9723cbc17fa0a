"""Every baseline of a table: `baselines` (means), `low_rank`, `ridge` and `boosting`.

The regressions take regions with the features that the model has. Of conditions they take the
numbers, and of words only whether they are another than the usual one: a word of its own would say
nothing of words that training did not have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from yeast_get.config import SplitConfig
from yeast_get.data.conditions import NO_DRUG
from yeast_get.data.expression_data import ExpressionData
from yeast_get.data.features import FeatureSchema
from yeast_get.evaluation import baselines, boosting, low_rank, ridge
from yeast_get.stored import check

NAMES = (*baselines.NAMES, low_rank.NAME, *ridge.NAMES)
"""All that are always there, in the order of every table that shows them."""


@dataclass(frozen=True)
class Rivals:
    """All baselines, fitted on the rows that the model was trained on.

    Attributes:
        means: Means and their sum.
        ridge: The regressions, in the model's units; None where nothing could be fitted.
        usual: The commonest word of each category field in the training samples.
        boosted: LightGBM, likewise; None where it was not installed.
    """

    means: baselines.Baselines
    ridge: ridge.Ridge | None
    usual: dict[str, str]
    boosted: boosting.Boosted | None = None

    @classmethod
    def fit(
        cls, data: ExpressionData, schema: FeatureSchema, wanted: np.ndarray, split: SplitConfig
    ) -> Rivals:
        """Fit them on the wanted observations [N], the training rows.

        What the split holds out together is left out together to find the penalties of `ridge`.
        """
        target = data.target[wanted]
        region, sample = data.region_index[wanted], data.sample_index[wanted]
        means = baselines.fit(target, data.region_hash[region], data.signature[sample])
        words = {name: data.conditions[name].iloc[np.unique(sample)] for name in schema.categories}
        usual = {name: str(each.mode().iloc[0]) for name, each in words.items()}
        table = _table(data, schema, wanted, data.signature, usual)
        column = {"chromosome": "chrom", "column": split.column}.get(split.by)
        if column is not None:
            codes = pd.factorize(data.column(column)[wanted])[0]
            table = replace(
                table,
                region_groups=_groups(codes, table.region, table.region_groups),
                condition_groups=_groups(codes, table.condition, table.condition_groups),
            )
        y = schema.to_model(target)
        boosted = boosting.Boosted.fit(data, schema, wanted, y) if boosting.is_installed() else None
        return cls(means, ridge.fit(table, y), usual, boosted)

    def predict(
        self,
        data: ExpressionData,
        schema: FeatureSchema,
        wanted: np.ndarray,
        condition_key: np.ndarray,
        train: np.ndarray,
    ) -> Iterator[tuple[str, np.ndarray | str]]:
        """What each says of the wanted observations [N], [n,T]; or why it says nothing.

        One after the other, since all of them together are large.

        Args:
            data: A table.
            schema: The model's.
            wanted: [N] bool.
            condition_key: [S] int64, as the training table knows the condition of each sample.
            train: [N] bool, which observations of this table were trained on.
        """
        if not wanted.any():
            yield from dict.fromkeys(NAMES, "the part has no measured row").items()
            return

        def in_input_units(y: np.ndarray | str) -> np.ndarray | str:
            return y if isinstance(y, str) else schema.to_input_units(y)

        rows = data.region_index[wanted], data.sample_index[wanted]
        for name, y in self.means.predict(data.region_hash, condition_key, rows):
            yield name, self.means.undefined_reason(name) if y is None else y
            y = None  # not held while others are made
        target = schema.to_model(data.target)
        cells = low_rank.predict(
            data.region_index, data.sample_index, target, train & data.measured, wanted
        )
        del target
        yield low_rank.NAME, in_input_units(cells)
        if self.ridge is None:
            yield from dict.fromkeys(ridge.NAMES, "was not fitted for this model").items()
        else:
            table = _table(data, schema, wanted, condition_key, self.usual)
            for name, line in self.ridge.predict(table):
                line = in_input_units(line)
                yield name, line
                line = ""
        if self.boosted is not None:
            yield boosting.NAME, in_input_units(self.boosted.predict(data, schema, wanted))

    def to_dict(self) -> dict[str, Any]:
        """Tensors and plain Python, for the checkpoint."""
        fitted = {} if self.ridge is None else self.ridge.to_dict()
        trees = [] if self.boosted is None else self.boosted.models
        more = {"ridge": fitted, "usual": dict(self.usual), "boosted": trees}
        return {**self.means.to_dict(), **more}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Rivals:
        """What `to_dict` stored, or a checkpoint of before there were regressions.

        Raises:
            KeyError: If a part is missing.
            ValueError: If it holds what it cannot.
        """
        fitted = stored.get("ridge")
        regressions = ridge.Ridge.from_dict(fitted) if fitted else None
        trees = stored.get("boosted")
        boosted = boosting.Boosted.from_list(trees) if trees else None
        means = baselines.Baselines.from_dict(stored)
        usual = stored.get("usual", {})
        check(dict[str, str], usual, "usual")
        return cls(means, regressions, usual, boosted)

    def check_fits(self, schema: FeatureSchema) -> None:
        """Refuse baselines of another table than the schema's.

        Raises:
            ValueError: Naming what is of another size.
        """
        if self.means.one_dimensional:
            raise ValueError("its means are of one target without a name")
        sizes = schema.sizes()
        regions = sizes.region_features + sizes.accessibility
        conditions = 2 * len(sizes.numbers) + len(self.usual) + 2 * len(sizes.drugs)
        found = {"targets": (len(self.means.global_mean), sizes.targets)}
        if self.ridge is not None:
            found["targets of ridge"] = (len(self.ridge.global_mean), sizes.targets)
            found["region features"] = (self.ridge.region_scale.shape[1], regions)
            found["condition features"] = (self.ridge.condition_scale.shape[1], conditions)
        if self.boosted is not None:
            found["targets of LightGBM"] = (len(self.boosted.models), sizes.targets)
        for what, (here, wanted) in found.items():
            if here != wanted:
                raise ValueError(f"{here} {what}, where the model has {wanted}")


def _groups(codes: np.ndarray, member: np.ndarray, default: np.ndarray) -> np.ndarray:
    """The code of each region (condition), where its rows share one; else as by default."""
    out = np.full(len(default), -1)
    out[member] = codes
    return out if (out[member] == codes).all() else default


def _table(
    data: ExpressionData,
    schema: FeatureSchema,
    wanted: np.ndarray,
    condition_key: np.ndarray,
    usual: Mapping[str, str],
) -> ridge.Table:
    accessibility = schema.accessibility_inputs(data).mean(axis=1)
    keys, first, codes = np.unique(condition_key, return_index=True, return_inverse=True)
    return ridge.Table(
        region=data.region_index[wanted],
        condition=codes.reshape(-1).astype(np.int32)[data.sample_index[wanted]],
        region_features=np.concatenate([schema.region_inputs(data), accessibility], axis=1),
        condition_features=_condition_features(data, schema, usual)[first],
        region_keys=data.region_hash,
        condition_keys=keys,
        region_groups=np.arange(data.num_regions),
        condition_groups=np.arange(len(keys)),
    )


def _condition_features(
    data: ExpressionData, schema: FeatureSchema, usual: Mapping[str, str]
) -> np.ndarray:
    """[S,K]: numbers and whether they are known, other words, drugs and their doses."""
    inputs = schema.sample_inputs(data)
    nothing = pd.Series(None, index=data.conditions.index, dtype=object)
    columns = [inputs.number, inputs.present]
    for name, word in usual.items():
        words = data.conditions.get(name, nothing)
        columns.append((words.notna() & (words != word)).to_numpy()[:, None])
    for j, name in enumerate(schema.drugs):
        words = data.conditions.get(name, nothing)
        drug = (words.notna() & (words != NO_DRUG)).to_numpy()
        columns += [drug[:, None], (drug * np.maximum(inputs.dose[:, j], 0))[:, None]]
    return np.concatenate(columns, axis=1, dtype=np.float64)
