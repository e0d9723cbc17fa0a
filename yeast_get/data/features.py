"""FeatureSchema: what is learned about the columns from training rows, and nothing else.

Vocabularies, scales, means for missing values, the target's transform. It travels in the
checkpoint as plain Python, so that a new table enters the model exactly as the training table did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from yeast_get.batch import DOSE_NOT_RECORDED, NONE, UNKNOWN, InputSizes
from yeast_get.config import Settings
from yeast_get.data.blocks import blocks
from yeast_get.data.conditions import DEFAULT_C0, NO_DRUG, NORMALIZED, fold, stable_hash
from yeast_get.data.expression_data import ExpressionData
from yeast_get.data.findings import counted
from yeast_get.errors import DataError, Problem, nearest
from yeast_get.stored import Sizes, build

_Function = Callable[[np.ndarray], np.ndarray]
_TRANSFORMS: dict[str, tuple[_Function, _Function]] = {
    "none": (lambda y: y, lambda z: z),
    "log1p": (np.log1p, np.expm1),
    "log2p1": (lambda y: np.log1p(y) / np.log(2), lambda z: np.expm1(z * np.log(2))),
    "log10p1": (lambda y: np.log1p(y) / np.log(10), lambda z: np.expm1(z * np.log(10))),
}

ACCESSIBILITY = "accessibility"
"""Name of that input column, whatever the table calls it."""

PRECULTURE = "preculture_"
"""Before the name of a field: the same of the pre-culture."""

LEAST_SD = 1e-3
"""A bin that varies less between the training regions says nothing."""

SPARSE = 0.3
"""Share of a column at its smallest value from which that value gets a bin to itself."""

SAMPLE_ID = "sample id"
"""Role of the column that names samples."""

PRESENT = " (present)"
"""After the name of a column: its presence column."""


@dataclass
class _Number:
    """An entry of `FeatureSchema.numbers`."""

    name: str
    kind: Literal["number", "time"]
    mean: float
    sd: float
    min: float
    max: float
    usual: float = 0.0
    of: list[str] = field(default_factory=list)


@dataclass
class _Accessibility:
    """`FeatureSchema.accessibility`."""

    center: float
    offset: float
    scale: float
    presence: float


@dataclass
class SampleInputs:
    """The conditions of every sample as the model takes them (see `Batch` for the meanings)."""

    number: np.ndarray  # [S,Cn] float32
    present: np.ndarray  # [S,Cn] float32
    category: np.ndarray  # [S,Cc] int64
    other: np.ndarray  # [S,Cc+Cd] float32
    drug: np.ndarray  # [S,Cd] int64
    dose: np.ndarray  # [S,Cd] float32

    def rows(self) -> np.ndarray:
        """All of it, a row per sample [S,...] float64."""
        parts = (self.number, self.present, self.category, self.other, self.drug, self.dose)
        return np.concatenate(parts, axis=1, dtype=np.float64)

    def distinct(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The conditions of some samples, as far as the model can tell them apart.

        Returns:
            The first sample of each [C], and which of these each sample of the table has [S], -1
            for none.
        """
        rows = np.pad(self.rows(), ((0, 0), (0, 1)))  # numpy finds no rows without columns
        _, code = np.unique(rows, axis=0, return_inverse=True)
        code = code.reshape(-1)
        first = samples[np.sort(np.unique(code[samples], return_index=True)[1])]
        place = np.full(len(code), -1)
        place[code[first]] = np.arange(len(first))
        return first, place[code]


@dataclass
class FeatureSchema:
    """Everything that was fitted on the training rows.

    Attributes:
        motif_names: Motif columns, in the order of the model's input.
        region_feature_names: The other region features, which follow the motifs.
        center: Mean that stands for a missing value, per feature column.
        offset: Subtracted from each feature column.
        scale: Divides each feature column; infinite where it did not vary in training, so that
            the model, which could learn nothing about it, always sees 0.
        with_presence: Indices of feature columns with gaps in training, which get a presence
            column at the end.
        accessibility: center, offset, scale, and 1 with a presence column; None without.
        numbers: Per numeric or time field that was recorded: name, kind, mean, SD (infinite
            where it did not vary), smallest and largest value, and the usual one, for which the
            factors of conditions take a blank: the commonest number, or no time at all. For
            factors, the last is the elapsed time: the first that a sample has "of" the time fields
            of the table, whichever of them training has, those of the pre-culture last.
        categories: Vocabulary of each category field that was recorded; index 1 is its first word.
        drugs: Drug fields and the dose field of each (None without).
        drug_vocabulary: Names of the drugs; index 2 is its first.
        c0: Reference concentration in mol/L: per dose field by drug, "" for all others; empty for
            a dose that is declared as normalized.
        target_names: The targets.
        target_transform: Name of the transform.
        target_mean: Mean of the transformed training targets; 0 where not standardised.
        target_sd: Their SD; 1 where not standardised.
        known_regions: Hashes of training regions that have an identity; empty without.
        constant: Names of the input columns that did not vary in training.
        doses: Per dose field that was recorded: smallest and largest dose by drug.
        usual: The commonest word of each category field.
        encoding: The piecewise-linear encoding of the model's region columns; see `InputSizes`.
        known_conditions: Number of different conditions in training.
        known_samples: Hashes of the training samples and their conditions; empty without.
    """

    motif_names: list[str]
    region_feature_names: list[str]
    center: Annotated[list[float], Sizes("F")]
    offset: Annotated[list[float], Sizes("F")]
    scale: Annotated[list[float], Sizes("F", odd="inf")]
    with_presence: Annotated[list[int], Sizes("W", below="F")]
    accessibility: dict[str, float] | None
    numbers: list[dict[str, Any]]
    categories: dict[str, list[str]]
    drugs: dict[str, str | None]
    drug_vocabulary: list[str]
    c0: dict[str, dict[str, float]]
    target_names: Annotated[list[str], Sizes("T")]
    target_transform: str
    target_mean: Annotated[list[float], Sizes("T")]
    target_sd: Annotated[list[float], Sizes("T")]
    known_regions: list[int] = field(default_factory=list)
    constant: list[str] = field(default_factory=list)
    doses: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    usual: dict[str, str] = field(default_factory=dict)
    encoding: list[Annotated[list[float], Field(min_length=5, max_length=5)]] = field(
        default_factory=list
    )
    known_conditions: Annotated[int, Field(ge=0)] = 0
    known_samples: list[int] = field(default_factory=list)

    # ----------------------------------------------------------------------------------- fitting

    @classmethod
    def fit(
        cls,
        data: ExpressionData,
        train: np.ndarray,
        settings: Settings,
        inherited: Mapping[str, Sequence[Any]] | None = None,
        with_target: bool = True,
    ) -> FeatureSchema:
        """Learn the schema from the observations where `train` [N] is True.

        Args:
            data: The table.
            train: Which observations may teach.
            settings: Of the run.
            inherited: `input_columns` of a pretrained model, or its "names" alone: columns of
                these names are scaled as it knows them.
            with_target: Whether the targets are of interest.

        Raises:
            DataError: Where the targets do not suit the transform, the head or the loss.
        """
        regions = np.unique(data.region_index[train])
        samples = np.unique(data.sample_index[train])
        old, scale_as = dict(inherited or {}), settings.data.motif_scale
        motifs = _fit_features(data.motif[regions], len(data.motif_names), scale_as)
        motifs.inherit([*data.motif_names, *data.region_feature_names], old, scale_as)
        accessibility = _fit_accessibility(data, train, scale_as)
        if accessibility is not None:
            accessibility.inherit([ACCESSIBILITY], old, scale_as)
        mean, sd = _fit_target(data, train, settings) if with_target else ([0.0], [1.0])
        conditions = data.conditions.iloc[samples]
        kinds = {f.name: f.kind for f in data.fields}
        scaled = {f.name for f in data.fields if f.given_unit == NORMALIZED}
        dose_of = {f.drug: f.name for f in data.fields if f.kind == "dose"}
        drugs = {name: dose_of.get(name) for name, kind in kinds.items() if kind == "drug"}
        drug_words = {word for name in drugs for word in conditions[name].dropna()} - {NO_DRUG}
        schema = cls(
            motif_names=data.motif_names,
            region_feature_names=data.region_feature_names,
            center=motifs.center.tolist(),
            offset=motifs.offset.tolist(),
            scale=motifs.scale.tolist(),
            with_presence=np.flatnonzero(motifs.gaps).tolist(),
            accessibility=None if accessibility is None else accessibility.single(),
            numbers=[
                _fit_number(name, "number" if name in scaled else kind, conditions[name])
                for name, kind in kinds.items()
                if kind in ("number", "time") and conditions[name].notna().any()
            ],
            categories={
                name: sorted(conditions[name].dropna().unique())
                for name, kind in kinds.items()
                if kind == "category" and conditions[name].notna().any()
            },
            drugs=drugs,
            drug_vocabulary=sorted(drug_words),
            c0={
                f.name: {} if f.name in scaled else dict(f.c0)
                for f in data.fields
                if f.kind == "dose"
            },
            target_names=data.target_names,
            target_transform=settings.data.target_transform,
            target_mean=mean,
            target_sd=sd,
            known_regions=data.region_hash[regions].tolist() if settings.remembers_regions else [],
            constant=[
                *np.array([*data.motif_names, *data.region_feature_names])[motifs.still].tolist(),
                *([ACCESSIBILITY] if accessibility is not None and accessibility.still[0] else []),
            ],
            doses={
                f.name: _dose_ranges(conditions[f.name], conditions[f.drug])
                for f in data.fields
                if f.kind == "dose" and f.drug in conditions and conditions[f.name].notna().any()
            },
        )
        schema.usual = {name: str(conditions[name].mode().iloc[0]) for name in schema.categories}
        schema.encoding = schema._fit_encoding(data, train, settings.model.region_embed.bins)
        if settings.model.fusion.by_factors:
            times = [name for name, kind in kinds.items() if kind == "time" and name not in scaled]
            schema.numbers += _fit_elapsed(times, conditions)
            inputs = schema.sample_inputs(data)
            schema.known_conditions = len(inputs.distinct(samples)[0])
            schema.known_samples = _sample_keys(data, inputs)[samples].tolist()
        return schema

    def _fit_encoding(
        self, data: ExpressionData, train: np.ndarray, most: int
    ) -> list[list[float]]:
        """The bins of every input column, at most so many of each; see `_bins`."""
        if not most:
            return []
        region, sample = data.region_index[train], data.sample_index[train]
        access = self.accessibility_inputs(data)
        regions = np.unique(region)
        access = access[region, sample] if access.shape[1] > 1 else access[regions, 0]
        columns = [*self.region_inputs(data)[regions].T, *access.T]
        return [row for j, x in enumerate(columns) for row in _bins(j, x, most)]

    # --------------------------------------------------------------------------------- inputs

    def sizes(self) -> InputSizes:
        """What the model must know."""
        columns = 0
        if self.accessibility is not None:
            columns = 1 + int(self.accessibility["presence"])
        return InputSizes(
            region_features=len(self.offset) + len(self.with_presence),
            accessibility=columns,
            numbers=[each["name"] for each in self.numbers],
            categories={name: len(words) + 1 for name, words in self.categories.items()},
            drugs=list(self.drugs),
            drug_vocabulary=len(self.drug_vocabulary) + 2,
            targets=len(self.target_names),
            known_regions=len(self.known_regions),
            encoding=self.encoding,
            number_scales=[_number_scales(each) for each in self.numbers],
            steps=self._steps(),
            since=self._since(),
            known_conditions=self.known_conditions,
            known_samples=len(self.known_samples),
        )

    def _steps(self) -> list[list[int]]:
        """Places of a number of the culture and the same one of the pre-culture."""
        at = {each["name"]: j for j, each in enumerate(self.numbers) if each["kind"] == "number"}
        return [[j, at[PRECULTURE + name]] for name, j in at.items() if PRECULTURE + name in at]

    def _since(self) -> list[int]:
        """Places of the times, but for those of the pre-culture and the elapsed one."""
        times = [j for j, each in enumerate(self._plain_numbers()) if each["kind"] == "time"]
        return [j for j in times if not _before(self.numbers[j]["name"])]

    def _plain_numbers(self) -> list[dict[str, Any]]:
        """The numbers that are fields of the table; the elapsed time, which is not, is the last."""
        return [each for each in self.numbers if not each.get("of")]

    @property
    def time_fields(self) -> list[str]:
        """The fields that the elapsed time is made of."""
        return next((list(each["of"]) for each in self.numbers if each.get("of")), [])

    def fields_of_numbers(self) -> dict[str, bool]:
        """The fields that some number is made of, and whether a model can have learned from it."""
        found: dict[str, bool] = {}
        for each in self.numbers:
            for name in each.get("of") or [each["name"]]:
                found[name] = found.get(name, False) or bool(np.isfinite(each["sd"]))
        return found

    @property
    def presence_columns(self) -> dict[int, int]:
        """The presence column of each feature column that has one, by their places."""
        return {j: len(self.offset) + i for i, j in enumerate(self.with_presence)}

    def input_columns(self) -> dict[str, list[Any]]:
        """The input columns of the model in their order, and how their values are scaled.

        Returns:
            "names", and per name "center" (what stands for a missing value), "offset" and "scale".
        """
        names = [*self.motif_names, *self.region_feature_names]
        rows = list(zip(names, self.center, self.offset, self.scale, strict=True))
        rows += [(names[j] + PRESENT, 0.0, 0.0, 1.0) for j in self.with_presence]
        if self.accessibility is not None:
            fitted = self.accessibility
            if fitted["presence"]:
                rows.append((ACCESSIBILITY + PRESENT, 0.0, 0.0, 1.0))
            scales = (fitted["center"], fitted["offset"], fitted["scale"])
            rows.append((ACCESSIBILITY, *scales))
        columns = zip(*rows, strict=True)
        return {
            key: list(each)
            for key, each in zip(("names", "center", "offset", "scale"), columns, strict=True)
        }

    def region_inputs(self, data: ExpressionData) -> np.ndarray:
        """[P,M] float32: features of the table by name, imputed and scaled, then presence bits."""
        wanted = [*self.motif_names, *self.region_feature_names]
        at = {name: i for i, name in enumerate([*data.motif_names, *data.region_feature_names])}
        raw = data.motif[:, [at[name] for name in wanted]]
        blank = np.isnan(raw)
        filled = np.where(blank, np.array(self.center, dtype=np.float32), raw)
        scaled = (filled - np.array(self.offset, np.float32)) / np.array(self.scale, np.float32)
        return np.concatenate([scaled, ~blank[:, self.with_presence]], axis=1, dtype=np.float32)

    def accessibility_inputs(self, data: ExpressionData) -> np.ndarray:
        """[P,1,A] or [P,S,A] float32: presence bit where the schema has one, then the value."""
        if self.accessibility is None:
            return np.zeros((data.num_regions, 1, 0), dtype=np.float32)
        assert data.accessibility is not None, "see need_columns"
        raw = data.accessibility.reshape(data.num_regions, -1, 1)
        fitted = self.accessibility
        blank = np.isnan(raw)
        filled = np.where(blank, np.float32(fitted["center"]), raw)
        scaled = (filled - np.float32(fitted["offset"])) / np.float32(fitted["scale"])
        if not fitted["presence"]:
            return scaled.astype(np.float32)
        return np.concatenate([~blank, scaled], axis=2, dtype=np.float32)

    def absent_motif(self) -> np.ndarray:
        """[M] float32: what a motif score of zero looks like to the model.

        NaN for all that is no motif score, or did not vary in training.
        """
        out = np.full(len(self.offset) + len(self.with_presence), np.nan, dtype=np.float32)
        motifs = len(self.motif_names)
        scale = np.array(self.scale[:motifs])
        out[:motifs] = np.where(np.isinf(scale), np.nan, -np.array(self.offset[:motifs]) / scale)
        return out

    def sample_inputs(self, data: ExpressionData) -> SampleInputs:
        """The conditions of every sample of a table; what was never seen is `UNKNOWN`."""
        table = data.conditions
        blank = pd.Series(np.nan, index=table.index)
        numbers, present = [], []
        for each in self.numbers:
            raw, _ = _recorded(table, each)
            here = ~np.isnan(raw)
            z = (_number_scale(raw, each["kind"]) - each["mean"]) / each["sd"]
            numbers.append(np.where(here, z, 0.0))
            present.append(here)
        none = pd.Series(None, index=table.index, dtype=object)
        category = [
            _indices(table.get(name, none), words, first=1)
            for name, words in self.categories.items()
        ]
        drug, dose = [], []
        for name, dose_name in self.drugs.items():
            words = table.get(name, none)
            drug.append(_indices(words, self.drug_vocabulary, first=2))
            drug[-1][(words == NO_DRUG).to_numpy()] = NONE
            amount = blank if dose_name is None else table.get(dose_name, blank)
            dose.append(self._dose(amount.to_numpy(np.float64), words, dose_name))
            dose[-1][drug[-1] == NONE] = 0.0
            dose[-1][drug[-1] == UNKNOWN] = DOSE_NOT_RECORDED  # a dose of what?
        other = []
        for name in self.categories:
            words, usual = table.get(name, none), fold(self.usual.get(name, ""))
            other.append(words.notna() & (words.map(fold, "ignore") != usual))
        for name in self.drugs:
            words = table.get(name, none)
            other.append(words.notna() & (words != NO_DRUG))
        return SampleInputs(
            other=_stack(other, len(table), np.float32),
            number=_stack(numbers, len(table), np.float32),
            present=_stack(present, len(table), np.float32),
            category=_stack(category, len(table), np.int64),
            drug=_stack(drug, len(table), np.int64),
            dose=_stack(dose, len(table), np.float32),
        )

    def _dose(self, amount: np.ndarray, drug: pd.Series, dose_name: str | None) -> np.ndarray:
        """log10(1 + c/c0) / log10(1 + 1/c0), mol/L; -1 where the dose was not recorded."""
        by_drug = self.c0.get(dose_name or "", {"": DEFAULT_C0})
        if not by_drug:
            return np.where(np.isnan(amount), DOSE_NOT_RECORDED, amount)
        default = by_drug.get("", DEFAULT_C0)
        words = ["" if pd.isna(word) else fold(word) for word in drug]
        c0 = np.array([by_drug.get(word, default) for word in words], dtype=np.float64)
        with np.errstate(invalid="ignore"):
            scaled = np.log1p(amount / c0) / np.log1p(1 / c0)
        return np.where(np.isnan(amount), DOSE_NOT_RECORDED, scaled)

    def unseen(self, data: ExpressionData) -> list[str]:
        """What the table holds that training could not teach, in words."""
        return [
            *self._unseen_features(data),
            *self._unseen_numbers(data),
            *self._unseen_words(data),
        ]

    def _unseen_features(self, data: ExpressionData) -> list[str]:
        names = [*self.motif_names, *self.region_feature_names]
        at = {name: i for i, name in enumerate([*data.motif_names, *data.region_feature_names])}
        still = np.flatnonzero(np.isinf(self.scale))
        odd = [
            names[j]
            for j in still
            if names[j] in at
            and np.nanmax(np.abs(data.motif[:, at[names[j]]] - self.center[j]), initial=0) > 1e-6
        ]
        fitted, values = self.accessibility, data.accessibility
        if fitted is not None and values is not None and np.isinf(fitted["scale"]):
            varies = np.nanmax(np.abs(values - fitted["center"]), initial=0) > 1e-6
            odd += ["accessibility"] if varies else []
        said = []
        if odd:
            said.append(
                f"{counted(len(odd), 'region feature')} ignored, being the same throughout "
                f"training, though not here: {_some(odd)}"
            )
        extra = [name for name in at if name not in set(names)]
        if extra:
            features = counted(len(extra), "region feature")
            said.append(f"{features} not known to the model and not used: {_some(extra)}")
        return said

    def _unseen_numbers(self, data: ExpressionData) -> list[str]:
        fitted = {each["name"]: each for each in self._plain_numbers()}
        said = []
        for field_ in data.fields:
            values = data.conditions[field_.name].dropna() if not field_.is_text else None
            if field_.kind == "dose" or values is None or not len(values):
                continue
            each = fitted.get(field_.name)
            if each is None:
                is_time = field_.name in self.time_fields
                use = "counts as elapsed time alone" if is_time else "is ignored"
                said.append(f"{field_.name} was recorded nowhere in training and {use}")
                continue
            outside = int(_outside(values.to_numpy(np.float64), each).sum())
            if outside and np.isinf(each["sd"]):
                said.append(
                    f"{field_.name} was {each['min']:g} throughout training; that it differs in "
                    f"{counted(outside, 'sample')} is ignored"
                )
            elif outside:
                said.append(
                    f"{field_.name} is outside the {each['min']:g} to {each['max']:g} of training "
                    f"in {counted(outside, 'sample')}"
                )
        return said

    def _unseen_words(self, data: ExpressionData) -> list[str]:
        said = []
        texts = [each.name for each in data.fields if each.is_text]
        vocabularies = self._known_words()
        for name in texts:
            values = data.conditions[name].dropna()
            if name not in vocabularies and len(values):
                said.append(f"{name} was recorded nowhere in training and is ignored")
                continue
            known = vocabularies.get(name, set())
            new = sorted(word for word in set(values) if fold(word) not in known)
            if new:
                samples = counted(int(values.isin(new).sum()), "sample")
                said.append(
                    f"{name}: {', '.join(new[:5])} in {samples} was never seen in "
                    "training and counts as unknown"
                )
        return said

    def need_columns(self, data: ExpressionData) -> None:
        """Refuse a table without a column that the model was trained on.

        Raises:
            DataError: Naming each condition and accessibility, and the first region features.
        """
        problems: list[Problem] = []

        def miss(what: str, fix: str) -> None:
            problems.append(Problem(what, fix, data.source))

        trained_on = "which the model was trained on"
        wanted = [*self.motif_names, *self.region_feature_names]
        features = [*data.motif_names, *data.region_feature_names]
        missing = [name for name in wanted if name not in set(features)]
        if missing:
            what = f"lacks {len(missing)} of the {len(wanted)} region features, {trained_on}: "
            others = [name for name in features if name not in set(wanted)]
            fix = f"; it has {_some(others)}, which the model does not know" if others else ""
            miss(what + _some(missing), f"add these columns{fix}")
        if self.accessibility is not None and data.accessibility is None:
            fix = _meant(ACCESSIBILITY, data.unused, "add the column accessibility")
            miss(f"has no accessibility, {trained_on}", fix)
        fitted = [each["name"] for each in self._plain_numbers()]
        fitted += self.categories
        fitted += [name for name in self.drugs if self.drug_vocabulary]
        fitted += list(self.doses)
        for name in (name for name in fitted if name not in data.given):
            fix = "add it; leave its cells blank where it was not recorded"
            fix = _meant(name, data.unused, fix)
            miss(f"has no column {name}, {trained_on}", fix)
        if problems:
            raise DataError(problems)

    def flags(self, data: ExpressionData) -> np.ndarray:
        """What of each sample's conditions training could not teach, in words [S]; "" = nothing.

        A category that was never seen counts as UNKNOWN in the model; a number outside of the
        range of training is an extrapolation.
        """
        said: list[list[str]] = [[] for _ in range(data.num_samples)]
        for each in self.numbers:
            values, names = _recorded(data.conditions, each)
            for i in np.flatnonzero(_outside(values, each)):
                flag = f"{names[i]} outside training: {values[i]:g}"
                said[i] += [] if flag in said[i] else [flag]
        for drug, dose in self.drugs.items():
            for at, word in enumerate(data.conditions.get(drug, ())):
                amount = data.conditions[dose].iloc[at] if dose in data.conditions else np.nan
                seen = None if pd.isna(word) else self.doses.get(dose or "", {}).get(fold(word))
                if seen and not seen[0] * (1 - 1e-6) <= amount <= seen[1] * (1 + 1e-6):
                    said[at] += [] if pd.isna(amount) else [f"{dose} outside training: {amount:g}"]
        for name, known in self._known_words().items():
            for at, word in enumerate(data.conditions.get(name, ())):
                if not pd.isna(word) and fold(word) not in known:
                    said[at].append(f"{name} never seen: {word}")
        return np.array(["; ".join(each) for each in said], dtype=object)

    def _known_words(self) -> dict[str, set[str]]:
        """Folded words that training saw, by text field."""
        words = self.categories | dict.fromkeys(self.drugs, [*self.drug_vocabulary, NO_DRUG])
        return {name: {fold(word) for word in each} for name, each in words.items()}

    def region_vocab(self, data: ExpressionData) -> np.ndarray:
        """[P] int64: identity of each region, 0 where it was not trained on."""
        at = {value: i + 1 for i, value in enumerate(self.known_regions)}
        return np.array([at.get(int(value), 0) for value in data.region_hash], dtype=np.int64)

    def sample_vocab(self, data: ExpressionData, inputs: SampleInputs) -> np.ndarray:
        """[S] int64: identity of each sample, 0 where it was not trained on in its condition."""
        at = {value: i + 1 for i, value in enumerate(self.known_samples)}
        keys = _sample_keys(data, inputs) if at else np.zeros(data.num_samples)
        return np.array([at.get(int(key), 0) for key in keys], dtype=np.int64)

    # --------------------------------------------------------------------------------- targets

    def to_model(self, target: np.ndarray) -> np.ndarray:
        """Targets in units of the input [...,T] -> model space, float32."""
        out = np.empty(np.shape(target), dtype=np.float32)
        for rows in blocks(len(out)):
            out[rows] = (self.transform(target[rows]) - self.target_mean) / self.target_sd
        return out

    def transform(self, target: np.ndarray) -> np.ndarray:
        """Values in units of the input -> after `data.target_transform`, float64."""
        return _TRANSFORMS[self.target_transform][0](np.asarray(target, np.float64))

    def to_input_units(self, y: np.ndarray) -> np.ndarray:
        """Predictions of the model [...,T] -> units of the input, float64."""
        backward = _TRANSFORMS[self.target_transform][1]
        out: np.ndarray = backward(np.asarray(y, np.float64) * self.target_sd + self.target_mean)
        return out

    # ------------------------------------------------------------------------------ travelling

    def to_dict(self) -> dict[str, Any]:
        """Plain Python."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FeatureSchema:
        """Back from plain Python.

        Raises:
            ValueError: Where a part holds what it cannot, or is missing.
        """
        schema = build(cls, values)
        schema._check()
        return schema

    def _check(self) -> None:
        """Refuse what no table teaches."""
        numbers = [build(_Number, each) for each in self.numbers]
        finite = [each for n in numbers for each in (n.mean, n.min, n.max, n.usual)]
        finite += [each for row in self.encoding for each in row]
        if self.accessibility is not None:
            fitted = build(_Accessibility, self.accessibility)
            finite += [fitted.center, fitted.offset, fitted.presence]
        if not np.isfinite(finite).all():
            raise ValueError("a mean is not finite")
        if len(self.center) != len(self.motif_names) + len(self.region_feature_names):
            raise ValueError(f"{len(self.center)} scales for other numbers of names")
        columns = self.sizes().region_features + self.sizes().accessibility
        if any(not 0 <= row[0] < columns or row[1] >= row[2] for row in self.encoding):
            raise ValueError("an encoding is of a column that is not there, or has no width")
        if self.usual and self.usual.keys() != self.categories.keys():
            raise ValueError("usual words are of other fields than the categories")
        if self.known_conditions > len(self.known_samples):
            raise ValueError("there are more known conditions than known samples")
        scales = [
            *(row[4] for row in self.encoding),
            *self.scale,
            *self.target_sd,
            *(each["sd"] for each in self.numbers),
        ]
        scales += [] if self.accessibility is None else [self.accessibility["scale"]]
        scales += [c0 for by_drug in self.c0.values() for c0 in by_drug.values()]
        if not all(scale > 0 for scale in scales):
            raise ValueError("a scale is not above zero")
        if self.target_transform not in _TRANSFORMS:
            raise ValueError(f"there is no target_transform {self.target_transform}")
        if any(len(ends) != 2 for by_drug in self.doses.values() for ends in by_drug.values()):
            raise ValueError("doses: a range has two ends")


@dataclass
class _Fitted:
    """Scales of some feature columns.

    Attributes:
        center: Training mean.
        offset: Subtracted.
        scale: Divides; infinite where the column did not vary.
        gaps: Whether the column gets a presence column.
        still: Whether it did not vary in training.
    """

    center: np.ndarray
    offset: np.ndarray
    scale: np.ndarray
    gaps: np.ndarray
    still: np.ndarray

    def inherit(self, names: list[str], old: Mapping[str, Sequence[Any]], motif_scale: str) -> None:
        """Scale the columns that a pretrained model knows as it knows them.

        Where only their names are known, one that does not vary here keeps its value, which the
        pretrained weights can use: an accessibility of 1 everywhere is what GET calls binary.
        """
        known = {str(name).casefold(): i for i, name in enumerate(old.get("names", []))}
        for j, name in enumerate(names):
            at = known.get(name.casefold())
            self.gaps[j] |= (name + PRESENT).casefold() in known
            if at is not None and "scale" in old:
                self.center[j], self.offset[j], self.scale[j] = (
                    old[key][at] for key in ("center", "offset", "scale")
                )
            elif at is not None and self.still[j] and motif_scale != "standard":
                self.offset[j] = 0.0
                peak = abs(self.center[j]) if motif_scale == "max" else 1.0
                self.scale[j] = peak or 1.0

    def single(self) -> dict[str, float]:
        """Of the one column that there is."""
        return {
            "center": float(self.center[0]),
            "offset": float(self.offset[0]),
            "scale": float(self.scale[0]),
            "presence": float(self.gaps[0]),
        }


def _fit_features(values: np.ndarray, num_motifs: int, motif_scale: str) -> _Fitted:
    """Scales of each column, over training regions [P',M+F].

    Motifs are scaled as asked; the other region features are always standardised.
    """
    values = values.astype(np.float64)
    blank = np.isnan(values)
    count = (~blank).sum(axis=0).clip(min=1)
    mean = np.where(blank, 0.0, values).sum(axis=0) / count
    sd = np.sqrt(np.where(blank, 0.0, (values - mean) ** 2).sum(axis=0) / count)
    peak = np.where(blank, 0.0, np.abs(values)).max(axis=0, initial=0.0)
    offset, scale = mean.copy(), sd.copy()
    if motif_scale == "max":
        offset[:num_motifs], scale[:num_motifs] = 0.0, peak[:num_motifs]
    elif motif_scale == "none":
        offset[:num_motifs], scale[:num_motifs] = 0.0, 1.0
    still = sd < 1e-8 * np.maximum(peak, 1e-30)
    scale[still] = np.inf
    return _Fitted(mean, offset, scale, blank.any(axis=0), still)


def _fit_accessibility(data: ExpressionData, train: np.ndarray, motif_scale: str) -> _Fitted | None:
    """Accessibility is one more column of GET's input and is scaled as the motifs are.

    Only training regions count, and where it differs by sample only the cells that are trained on.
    """
    if data.accessibility is None:
        return None
    region, sample = data.region_index[train], data.sample_index[train]
    per_region = data.accessibility.ndim == 1
    values = (
        data.accessibility[np.unique(region)] if per_region else data.accessibility[region, sample]
    ).reshape(-1, 1)
    return _fit_features(values, 1, motif_scale)


def _dose_ranges(doses: pd.Series, drugs: pd.Series) -> dict[str, list[float]]:
    """Smallest and largest recorded dose of each drug, by its folded name."""
    known = doses.notna() & drugs.notna() & (drugs != NO_DRUG)
    groups = doses[known].groupby(drugs[known].map(fold))
    return {str(drug): [float(each.min()), float(each.max())] for drug, each in groups}


def _outside(values: np.ndarray, fitted: Mapping[str, Any]) -> np.ndarray:
    """Which numbers lie outside the range of training [n] bool; missing ones do not."""
    with np.errstate(invalid="ignore"):
        outside: np.ndarray = (values < fitted["min"] - 1e-9) | (values > fitted["max"] + 1e-9)
    return outside


def _number_scale(values: np.ndarray, kind: str) -> np.ndarray:
    """Times span minutes to days and enter as log10(1 + minutes); other numbers as they are."""
    return np.log10(1 + 60 * values) if kind == "time" else values


def _bins(column: int, values: np.ndarray, most: int) -> list[list[float]]:
    """The bins of one input column: column, lower and upper end, mean and SD of the encoded bin.

    A number becomes, per bin, how far it reaches into it, from 0 to 1: a piecewise-linear encoding
    (Gorishniy et al., NeurIPS 2022). Ends are quantiles of the training regions. Where many of
    them share the smallest value, as with motifs that most promoters lack, the step from it to the
    next is a bin of its own, and the rest has few. The first bin is the whole range: the number
    itself.
    """
    lowest = values.min()
    above = values[values > lowest]
    if not len(above):
        return []
    if len(values) - len(above) > SPARSE * len(values):
        few = max(most // 8, 1)
        ends = np.concatenate([[lowest], np.quantile(above, np.linspace(0, 1, few + 1))])
    else:
        ends = np.quantile(values, np.linspace(0, 1, most + 1))
    ends = np.unique(ends.astype(np.float32)).astype(np.float64)
    out = []
    whole = [(ends[0].item(), ends[-1].item())] if len(ends) > 2 else []
    for low, high in [*whole, *pairwise(ends.tolist())]:
        reach = np.clip((values - low) / (high - low), 0, 1)
        sd = float(reach.std())
        if sd > LEAST_SD:
            out.append([float(column), low, high, float(reach.mean()), sd])
    return out


def _sample_keys(data: ExpressionData, inputs: SampleInputs) -> np.ndarray:
    """A hash of the name and the condition of each sample [S], where the table names samples.

    Elsewhere replicates are told apart by the order of their rows alone, which says nothing.
    """
    rows = (row.tobytes().hex() for row in inputs.rows())
    names = data.sample_id if data.roles.get(SAMPLE_ID) else [""] * data.num_samples
    pairs = zip(names, rows, strict=True)
    return np.array([stable_hash(f"{name} {row}") for name, row in pairs], dtype=np.int64)


def _recorded(conditions: pd.DataFrame, fitted: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """A number of every sample [S] float64, NaN where not recorded, and the field it is of [S]."""
    values = np.full(len(conditions), np.nan)
    source = np.full(len(conditions), "", dtype=object)
    for name in fitted.get("of") or [fitted["name"]]:
        if name in conditions:
            blank = np.isnan(values)
            values[blank] = conditions[name].to_numpy(np.float64)[blank]
            source[blank] = name
    return values, source


def _before(name: str) -> bool:
    """Whether a field is of the pre-culture."""
    return name.startswith(PRECULTURE)


def _fit_elapsed(times: list[str], conditions: pd.DataFrame) -> list[dict[str, Any]]:
    """One time of these fields, those of the pre-culture last; none where none was recorded."""
    of = sorted(times, key=_before)
    values, _ = _recorded(conditions, {"of": of})
    if np.isnan(values).all():
        return []
    return [_fit_number("elapsed time", "time", pd.Series(values)) | {"of": of}]


def _number_scales(fitted: Mapping[str, Any]) -> list[float]:
    """Mean, SD (0 where it did not vary), and the usual value standardised."""
    mean, sd = fitted["mean"], 0.0 if np.isinf(fitted["sd"]) else fitted["sd"]
    return [mean, sd, (fitted.get("usual", mean) - mean) / fitted["sd"]]


def _fit_number(name: str, kind: str, values: pd.Series) -> dict[str, Any]:
    known = _number_scale(values.dropna().to_numpy(np.float64), kind)
    mean, sd = float(known.mean()), float(known.std())
    return {
        "name": name,
        "kind": kind,
        "mean": mean,
        "sd": sd if sd > 1e-9 else float("inf"),
        "min": float(values.min()),
        "max": float(values.max()),
        "usual": 0.0 if kind == "time" else float(pd.Series(known).mode().iloc[0]),
    }


def _fit_target(
    data: ExpressionData, train: np.ndarray, settings: Settings
) -> tuple[list[float], list[float]]:
    """Mean and SD of the transformed training targets, or 0 and 1 where rates are predicted."""
    name = settings.data.target_transform
    rates = settings.model.head.kind == "get"
    with np.errstate(invalid="ignore"):
        negative = (data.target < 0).any(axis=1)
    if negative.any() and (name != "none" or rates):
        reason = f"data.target_transform: {name}" if name != "none" else "model.head.kind: get"
        first = int(np.flatnonzero(negative)[0])
        raise DataError(
            Problem(
                f"{int(negative.sum())} targets are below zero (the first is "
                f"{np.nanmin(data.target[first]):g}), which {reason} cannot take",
                "use target_transform: none and the mlp head with mse or huber",
                file=data.source,
                row=int(data.row[first]),
            )
        )
    y = _TRANSFORMS[name][0](data.target[train].astype(np.float64))
    count = np.maximum((~np.isnan(y)).sum(axis=0), 1)
    mean = np.nansum(y, axis=0) / count
    sd = np.sqrt(np.nansum((y - mean) ** 2, axis=0) / count)
    same = sd <= 1e-9 * np.abs(mean)
    if same.any():
        names = ", ".join(n for n, each in zip(data.target_names, same, strict=True) if each)
        what = f"all training targets are the same number ({names})"
        raise DataError(Problem(what, "there is nothing to learn from them", file=data.source))
    if rates:
        return [0.0] * len(mean), [1.0] * len(mean)
    return mean.tolist(), sd.tolist()


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (" ..." if len(names) > 8 else "")


def _meant(name: str, spare: Sequence[str], fix: str) -> str:
    """What to do about a missing column that may be there under a name that is not known."""
    near = nearest(name, spare)
    return f"did you mean {name} by {near}? else {fix}" if near else fix


def _indices(words: pd.Series, vocabulary: list[str], first: int) -> np.ndarray:
    at = {fold(word): i + first for i, word in enumerate(vocabulary)}
    found = [UNKNOWN if pd.isna(word) else at.get(fold(word), UNKNOWN) for word in words]
    return np.array(found, dtype=np.int64)


def _stack(columns: list[np.ndarray], rows: int, dtype: Any) -> np.ndarray:
    if not columns:
        return np.zeros((rows, 0), dtype=dtype)
    return np.stack(columns, axis=1).astype(dtype)
