"""Which regions lie far from all that a model was trained on.

The distance is Mahalanobis's to the training regions, in motif scores and other region
features as the model takes them,
with a covariance shrunk towards the identity (Ledoit and Wolf, 2004), since motifs may be nearly as
many as regions. Far is what 99 of 100 held-back training regions are not: the limit comes from
regions that had no part in the fit, because those that had lie nearer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch

from yeast_get.stored import Sizes, build

FAR = 0.99
"""Share of the training regions that are not far."""

FOLDS = 5
FEWEST = 20
"""Training regions below which nothing is called far."""

NOT_SEEN = "region far from the training regions"
"""What `flags` says of such a region."""


@dataclass
class SeenRegions:
    """Where the training regions lie.

    Attributes:
        center: [M] their mean.
        precision: [M,M] inverse of their covariance.
        limit: Squared distance from which on a region is far.
    """

    center: Annotated[np.ndarray, Sizes("M")]
    precision: Annotated[np.ndarray, Sizes("M,M")]
    limit: float

    @classmethod
    def fit(cls, features: np.ndarray) -> SeenRegions | None:
        """Learn from the scaled features [P,M] of training regions; None where they are too few."""
        features = np.asarray(features, dtype=np.float64)
        if len(features) < FEWEST or not features.shape[1]:
            return None
        held_back = []
        fold = np.arange(len(features)) % FOLDS
        for k in range(FOLDS):
            part = _fit(features[fold != k])
            held_back.append(_distance(features[fold == k], *part))
        center, precision = _fit(features)
        limit = float(np.quantile(np.concatenate(held_back), FAR))
        return cls(center, precision, limit)

    def far(self, features: np.ndarray) -> np.ndarray:
        """Which regions [P,M] lie far from those of training [P] bool."""
        distance = _distance(np.asarray(features, np.float64), self.center, self.precision)
        return distance > self.limit * (1 + 1e-6)

    def to_dict(self) -> dict[str, Any]:
        """Tensors and a number, for the checkpoint."""
        return {
            "center": torch.from_numpy(self.center.astype(np.float32)),
            "precision": torch.from_numpy(self.precision.astype(np.float32)),
            "limit": self.limit,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> SeenRegions | None:
        """What `to_dict` stored; None of nothing.

        Raises:
            ValueError: Where a part holds what it cannot, or is missing.
        """
        return build(cls, stored) if stored else None


def _fit(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Center and precision of the rows."""
    from sklearn.covariance import ledoit_wolf

    center = features.mean(axis=0)
    covariance = ledoit_wolf(features - center, assume_centered=True)[0]
    width = len(covariance)
    floor = 1e-6 * max(np.trace(covariance) / width, 1e-12)  # columns that never vary are all 0
    return center, np.linalg.inv(covariance + floor * np.eye(width))


def _distance(features: np.ndarray, center: np.ndarray, precision: np.ndarray) -> np.ndarray:
    x = features - center
    distance: np.ndarray = np.einsum("pm,pm->p", x @ precision, x)
    return distance
