"""The one record that data and model share: a batch, and the sizes a model is built for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

UNKNOWN = 0
"""Index of a category that was not recorded, never seen in training, or dropped at random."""

NONE = 1
"""Index of "no drug" in the vocabulary of drugs; it adds exactly nothing."""

DOSE_NOT_RECORDED = -1.0
"""Dose of a drug whose concentration was not recorded."""


@dataclass(frozen=True)
class InputSizes:
    """What a model must know about the table it is built for.

    Attributes:
        region_features: Columns of `Batch.motif` (motifs, other region features, presence bits).
        accessibility: Columns of `Batch.accessibility`: 0 without any, 1, or 2 with a presence
            bit before the value.
        numbers: Names of the numeric condition fields, in the order of `Batch.condition_number`.
        categories: Vocabulary size (with `UNKNOWN` at 0) of each category field, in the order of
            `Batch.condition_category`.
        drugs: Names of the drug fields, in the order of `Batch.drug` and `Batch.dose`.
        drug_vocabulary: Size of the vocabulary that all drug fields share (`UNKNOWN` at 0,
            `NONE` at 1).
        targets: Number of targets T, 1 or 2.
        known_regions: Number of training regions that have an identity.
        encoding: The piecewise-linear encoding of the region's columns, a row per bin: column,
            lower end, upper end, mean and SD of the encoded bin; empty without.
        number_scales: Of each numeric field: mean, SD (0 where it did not vary), and the
            standardised value that a blank is taken for.
        steps: Pairs of numeric fields, by their places, whose difference is a step from the
            pre-culture to the culture.
        since: Places of the numeric fields that are times since something was done to the culture.
        known_conditions: Number of different conditions in training.
        known_samples: Number of samples in training.
    """

    region_features: int
    accessibility: int
    numbers: list[str]
    categories: dict[str, int]
    drugs: list[str]
    drug_vocabulary: int
    targets: int
    known_regions: int
    encoding: list[list[float]] = field(default_factory=list)
    number_scales: list[list[float]] = field(default_factory=list)
    steps: list[list[int]] = field(default_factory=list)
    since: list[int] = field(default_factory=list)
    known_conditions: int = 0
    known_samples: int = 0


@dataclass
class Batch:
    """B windows of R regions, each window in one sample (R = 1: one region in one sample).

    M region features, A accessibility columns, Cn numeric fields, Cc category fields, Cd drug
    fields, T targets. Padding has `region_mask` False. Windows of the same regions share a row of
    the region fields, and windows of one sample a row of the condition fields: U and V are at most
    B, and `region_row` and `condition_row` say which row is whose.
    """

    motif: torch.Tensor  # [U,R,M] float
    accessibility: torch.Tensor  # [U,R,A] float, the value last
    region_mask: torch.Tensor  # [U,R] bool, True = a real region
    region_index: torch.Tensor  # [U,R] int64, row of the region table
    region_vocab: torch.Tensor  # [U,R] int64, place among the known regions, 0 = unknown region
    sample_vocab: torch.Tensor  # [V] int64, place among the known samples, 0 = unknown sample
    condition_number: torch.Tensor  # [V,Cn] float, standardised, 0 where not recorded
    condition_present: torch.Tensor  # [V,Cn] float, 1 = recorded
    condition_category: torch.Tensor  # [V,Cc] int64, 0 = UNKNOWN
    condition_other: torch.Tensor  # [V,Cc+Cd] float, 1 = another word than the usual, or a drug
    drug: torch.Tensor  # [V,Cd] int64, 0 = UNKNOWN, 1 = NONE
    dose: torch.Tensor  # [V,Cd] float, 0 = no drug, -1 = not recorded
    target: torch.Tensor  # [B,R,T] float in model space, 0 where masked
    target_mask: torch.Tensor  # [B,R,T] bool, True = measured and in the current part
    observation_index: torch.Tensor  # [B,R] int64, -1 = none
    region_row: torch.Tensor | None = None  # [B] int64 below U; None: each window has its own
    condition_row: torch.Tensor | None = None  # [B] int64 below V; None: each window has its own

    def __len__(self) -> int:
        return len(self.target)

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The fields by name, but for rows that are not shared."""
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None:
                yield each.name, value

    def of_windows(self, at: torch.Tensor) -> Batch:
        """Some windows [k], each with rows of its own."""
        taken = {name: getattr(self, name)[at] for name in _OF_WINDOWS}
        for names, row in ((_OF_REGIONS, self.region_row), (CONDITION_FIELDS, self.condition_row)):
            rows = at if row is None else row[at]
            taken |= {name: getattr(self, name)[rows] for name in names}
        return Batch(**taken)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Batch:
        """The same batch on another device, its floating numbers in another precision."""
        moved = {
            name: value.to(device, dtype if value.is_floating_point() else None, non_blocking=True)
            for name, value in self.tensors()
        }
        return replace(self, **moved)


def rows_of(values: torch.Tensor, row: torch.Tensor | None) -> torch.Tensor:
    """Values [U,...] of shared rows as those of every window [B,...]."""
    return values if row is None else values[row]


_OF_WINDOWS = ("target", "target_mask", "observation_index")
_OF_REGIONS = ("motif", "accessibility", "region_mask", "region_index", "region_vocab")
CONDITION_FIELDS = (
    "sample_vocab",
    "condition_number",
    "condition_present",
    "condition_category",
    "condition_other",
    "drug",
    "dose",
)
"""The fields of a batch that hold samples and their conditions."""
