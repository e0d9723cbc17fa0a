"""The one record that data and model share: a batch, and the sizes a model is built for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
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
        known_regions: Number of training regions that have an identity embedding.
    """

    region_features: int
    accessibility: int
    numbers: list[str]
    categories: dict[str, int]
    drugs: list[str]
    drug_vocabulary: int
    targets: int
    known_regions: int


@dataclass
class Batch:
    """B windows of R regions, each window in one sample (R = 1: one region in one sample).

    M region features, A accessibility columns, Cn numeric fields, Cc category fields, Cd drug
    fields, T targets. Padding has `region_mask` False.
    """

    motif: torch.Tensor  # [B,R,M] float
    accessibility: torch.Tensor  # [B,R,A] float, the value last
    region_mask: torch.Tensor  # [B,R] bool, True = a real region
    region_index: torch.Tensor  # [B,R] int64, row of the region table
    region_vocab: torch.Tensor  # [B,R] int64, identity embedding, 0 = unknown region
    condition_number: torch.Tensor  # [B,Cn] float, standardised, 0 where not recorded
    condition_present: torch.Tensor  # [B,Cn] float, 1 = recorded
    condition_category: torch.Tensor  # [B,Cc] int64, 0 = UNKNOWN
    drug: torch.Tensor  # [B,Cd] int64, 0 = UNKNOWN, 1 = NONE
    dose: torch.Tensor  # [B,Cd] float, 0 = no drug, -1 = not recorded
    target: torch.Tensor  # [B,R,T] float in model space, 0 where masked
    target_mask: torch.Tensor  # [B,R,T] bool, True = measured and in the current part
    observation_index: torch.Tensor  # [B,R] int64, -1 = none

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The fields by name."""
        for field in fields(self):
            yield field.name, getattr(self, field.name)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Batch:
        """The same batch on another device, its floating numbers in another precision."""
        moved = {
            name: value.to(device, dtype if value.is_floating_point() else None, non_blocking=True)
            for name, value in self.tensors()
        }
        return replace(self, **moved)
