"""What a model by factors knows from the training cells without gradients.

A factor model of the cells gives samples and conditions their loadings before training; with the
weights at hand it adds what the cells of each region say that its features do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import sparse

from yeast_get.data.yeast_dataset import EpochSampler, YeastDataset, batches
from yeast_get.evaluation.inference import evaluating
from yeast_get.model.yeast_model import YeastModel

ROUNDS = 10
"""Of expectation and maximisation; scores on cells left out no longer change after six."""

LEAST_NOISE = 1e-2
"""Smallest variance of cells around the factor model, of 1 for all training targets."""

AT_ONCE = 40_000_000
"""Numbers in an array of a block of regions, of which there are about four."""


@dataclass
class Cells:
    """The training cells of a table, by training region [R] and by sample and target [S*T].

    Attributes:
        count: How many observations each is, [R,S*T] sparse.
        total: The sum of their targets in model space, likewise.
        squares: Sum of their squares [S*T].
        regions: The training regions [R].
        samples: The training samples [S].
    """

    count: sparse.csr_array
    total: sparse.csr_array
    squares: np.ndarray
    regions: np.ndarray
    samples: np.ndarray

    @classmethod
    def of(cls, dataset: YeastDataset, train: np.ndarray) -> Cells:
        """Those of the observations where `train` [N] is True."""
        data = dataset.plan.data
        at = np.flatnonzero(train)
        regions, region = np.unique(data.region_index[at], return_inverse=True)
        samples, code = np.unique(data.sample_index[at], return_inverse=True)
        y = dataset.target[at].cpu().double().numpy()
        seen = dataset.measured[at].cpu().numpy()
        targets = y.shape[1]
        row = np.repeat(region, targets)[seen.ravel()]
        column = (code[:, None] * targets + np.arange(targets)).ravel()[seen.ravel()]
        shape = (len(regions), len(samples) * targets)
        y = y[seen]

        def summed(values: np.ndarray) -> sparse.csr_array:
            return sparse.coo_array((values, (row, column)), shape).tocsr()

        squares = np.bincount(column, y * y, minlength=shape[1])
        return cls(summed(np.ones(len(y))), summed(y), squares, regions, samples)

    def blocks(self, factors: int) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Some regions after the other: which, their counts and their sums, [p,S*T]."""
        step = max(AT_ONCE // max(factors**2, self.count.shape[1]), 1)
        for start in range(0, self.count.shape[0], step):
            rows = slice(start, start + step)
            yield rows, self.count[rows].toarray(), self.total[rows].toarray()


@dataclass
class FactorModel:
    """Every cell is level + loadings . factors of its region + noise.

    Attributes:
        level: [S*T].
        loadings: [S*T,K].
        noise: Variance [S*T].
    """

    level: np.ndarray
    loadings: np.ndarray
    noise: np.ndarray

    @classmethod
    def fit(cls, cells: Cells, most: int) -> FactorModel:
        """By expectation and maximisation; factors are standard normal between regions.

        Factor analysis by EM (Rubin and Thayer 1982), with gaps. There are at most so many
        factors, and no more than samples and targets.
        """
        number = np.maximum(cells.count.sum(axis=0), 1)
        level = cells.total.sum(axis=0) / number
        spread = np.maximum(cells.squares / number - level**2, LEAST_NOISE)
        centred = cells.total - sparse.csr_array(cells.count * level)
        size, directions = np.linalg.eigh((centred.T @ centred).toarray() / cells.count.shape[0])
        size, directions = size[::-1][:most].clip(0), directions[:, ::-1][:, :most]
        model = cls(level, directions * np.sqrt(size), spread / 2)
        for _ in range(ROUNDS):
            model = model._better(cells, number)
        return model

    def _better(self, cells: Cells, number: np.ndarray) -> FactorModel:
        """One round: the factors of all regions, and what they say of the samples."""
        columns, factors = self.loadings.shape
        square = np.zeros((columns, factors + 1, factors + 1))
        product = np.zeros((columns, factors + 1))
        product[:, -1], square[:, -1, -1] = cells.total.sum(axis=0), number
        for _, count, total in cells.blocks(factors):
            inverse, said = self.posterior(count, total)
            mean = times(inverse, said)
            second = (inverse + mean[:, :, None] * mean[:, None, :]).reshape(len(mean), -1)
            square[:, :-1, :-1] += (count.T @ second).reshape(columns, factors, factors)
            square[:, :-1, -1] += count.T @ mean
            product[:, :-1] += total.T @ mean
        square[:, -1, :-1] = square[:, :-1, -1]
        few = np.diag(np.append(np.ones(factors), 0.0))  # a sample with few cells says little
        prior = self.noise[:, None, None] * few
        found = np.linalg.solve(square + prior, product[:, :, None])[:, :, 0]
        left = cells.squares - (product * found).sum(axis=1)
        noise = np.maximum(left / number, LEAST_NOISE)
        return FactorModel(found[:, -1], found[:, :-1], noise)

    def posterior(self, count: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Covariance [p,K,K] of the factors of some regions, and what their cells say [p,K].

        Their product is the mean. Where another mean is known, of variance 1, it is added to what
        the cells say.

        Args:
            count: [p,S*T].
            total: [p,S*T].
        """
        weighted = self.loadings / self.noise[:, None]
        pairs = (self.loadings[:, :, None] * weighted[:, None, :]).reshape(len(weighted), -1)
        factors = self.loadings.shape[1]
        precision = (count @ pairs).reshape(-1, factors, factors) + np.eye(factors)
        return np.linalg.inv(precision), (total - count * self.level) @ weighted


def times(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The product of each matrix [p,K,K] and its vector [p,K]."""
    return np.einsum("pij,pj->pi", matrices, vectors)


Posterior = tuple[slice, np.ndarray, np.ndarray]
"""Some regions, and `FactorModel.posterior` of them."""


@dataclass
class Knowledge:
    """What the training cells of a table say, for models by factors.

    Attributes:
        dataset: Of the table, without noise.
        train: [N] bool, its training rows.
        cells: These.
        model: Of the cells.
        kept: What `_posterior` found, where all regions are one block.
    """

    dataset: YeastDataset
    train: np.ndarray
    cells: Cells
    model: FactorModel
    kept: list[Posterior] = field(default_factory=list)

    @classmethod
    def of(cls, dataset: YeastDataset, train: np.ndarray, most: int) -> Knowledge:
        """Fit the factor model, with at most so many factors."""
        cells = Cells.of(dataset, train)
        return cls(dataset, train, cells, FactorModel.fit(cells, most))

    def give_conditions(self, model: YeastModel) -> None:
        """Give a model the loadings of the training samples and their conditions."""
        head, dataset = model.by_factors, self.dataset
        assert head is not None, "fusion.kind: factors"
        weight = head.loadings.weights
        first, code = dataset.samples.distinct(self.cells.samples)
        loadings = np.column_stack((self.model.loadings, self.model.level))
        fields = dataset.conditions_of(torch.from_numpy(first).to(dataset.device))
        head.loadings.remember(
            {name: each.to(weight.device) for name, each in fields.items()},
            torch.from_numpy(code[self.cells.samples]).to(weight.device),
            dataset.sample_vocab[torch.from_numpy(self.cells.samples)].to(weight.device),
            torch.from_numpy(loadings)
            .view(len(self.cells.samples), head.loadings.targets, -1)
            .to(weight),
        )

    def give_regions(self, model: YeastModel, batch_size: int) -> None:
        """Add to the factors of each training region what its cells say beyond its features.

        Its factors are normal around those by its features, and its cells update them.

        Args:
            model: On its device.
            batch_size: Windows per batch.
        """
        head, dataset = model.by_factors, self.dataset
        assert head is not None, "fusion.kind: factors"
        if len(head.known) == 1:  # no region has a name in the model
            return
        prior = self._by_features(model, batch_size)
        more = np.zeros_like(prior)
        for rows, covariance, said in self._posterior():
            here = self.cells.regions[rows]
            more[here] = times(covariance, said + prior[here]) - prior[here]
        known = np.zeros(tuple(head.known.shape))
        known[dataset.region_vocab.cpu().numpy()] = more  # regions not known write to row 0
        known[0] = 0
        head.known.copy_(torch.from_numpy(known))

    def _posterior(self) -> Iterator[Posterior]:
        """What the cells say of the regions, block by block; it is the same for all weights."""
        if self.kept:
            yield from self.kept
            return
        for rows, count, total in self.cells.blocks(self.model.loadings.shape[1]):
            covariance, said = self.model.posterior(count, total)
            block = rows, covariance.astype(np.float32), said
            if len(said) == self.cells.count.shape[0]:
                self.kept = [block]
            yield block

    def _by_features(self, model: YeastModel, batch_size: int) -> np.ndarray:
        """Factors [P,K] by the features: the mean over windows with a region; 0 without any."""
        data, dataset = self.dataset.plan.data, self.dataset
        wanted = self.train
        if data.accessibility is None or data.accessibility.ndim == 1:  # alike in all samples
            at = np.flatnonzero(wanted)
            wanted = np.zeros_like(wanted)
            wanted[at[np.unique(data.region_index[at], return_index=True)[1]]] = True
        dataset.use(wanted)
        weight = next(model.parameters())
        total = np.zeros((data.num_regions, self.model.loadings.shape[1]))
        number = np.zeros(data.num_regions)
        with evaluating(model):
            for batch in batches(dataset, EpochSampler(len(dataset), batch_size)):
                factors = model.factors(batch.to(weight.device, weight.dtype))
                here = batch.region_mask.cpu().numpy()
                row = batch.region_index.cpu().numpy()[here]
                np.add.at(total, row, factors.cpu().double().numpy()[here])
                np.add.at(number, row, 1)
        return total / np.maximum(number, 1)[:, None]
