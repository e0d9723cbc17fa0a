"""Whether the constants of the kernel of conditions would be others without the test fold.

    python benchmarks/constants.py [--tables gasch2000 ...] [--data FOLDER]

They were chosen on pairs of folds that score every family, so that no fold of new conditions in
`accuracy.py` is clean of them. Here each test fold is put aside, in all tables at once: every other
fold is predicted from the remaining three, and of a grid of constants that one is chosen whose mean
r over these is best. It is scored on the test fold beside the shipped one, and so is the best of
the grid on the test fold itself. No network is trained: factors of regions are those of their
training cells. What the kernel is made of, and the number of factors, are not chosen anew.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import folds
import numpy as np
import pandas as pd
import torch

from yeast_get.config import Settings
from yeast_get.data.expression_data import ExpressionData
from yeast_get.data.features import FeatureSchema
from yeast_get.data.yeast_dataset import YeastDataset
from yeast_get.model.factors import FAR, SAME_DRUG, SMOOTH, TRENDS, WORDS_APART, FactorHead
from yeast_get.training.factors import Knowledge, times

Constants = tuple[float, ...]

SHIPPED: Constants = (TRENDS, SMOOTH, SAME_DRUG, WORDS_APART, FAR)
GRID: list[Constants] = [
    *product((0.3, 1, 3), (0.3, 1, 3), (0, 1, 3, 10), (0.3, 1, 3), (3, 4, 6, 1e9))
]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    known = [*folds.FAMILY]
    parser.add_argument("--tables", nargs="+", choices=known, default=known)
    parser.add_argument("--data", type=Path, default=folds.DATA)
    arguments = parser.parse_args()
    test, shipped = range(folds.FOLDS), [GRID.index(SHIPPED)] * folds.FOLDS
    tables = {table: Moments.of(table, arguments.data) for table in arguments.tables}
    without = [np.mean([each.without(k) for each in tables.values()], axis=0) for k in test]
    chosen = [int(r.argmax()) for r in without]
    for table, each in tables.items():
        frame = pd.DataFrame({
            "chosen without the fold": [GRID[at] for at in chosen], "r": each.r(chosen),
            "r, shipped": each.r(shipped), "r, best of the grid": pearson(each.test).max(axis=1),
        })  # fmt: skip
        print(f"{table}\n{frame.to_string(float_format='{:.3f}'.format)}")
        print(f"all folds together: {each.pooled(chosen):.3f}, shipped {each.pooled(shipped):.3f}")


@dataclass
class Moments:
    """Sums over the rows of hidden folds, by each choice of the grid.

    Attributes:
        by_hidden: Hidden folds -> number of rows, sums of what is said, of the target, of their
            squares and of their product [grid, folds, 6]; NaN for folds that were learned from.
    """

    by_hidden: dict[tuple[int, ...], np.ndarray]

    @classmethod
    def of(cls, table: str, folder: Path) -> Moments:
        """Hide each fold, and each pair of folds."""
        data, settings = folds.read(table, "conditions", folder)
        fold = folds.condition_folds(folds.families(data, table))[data.sample_index]
        hidden = [*combinations(range(folds.FOLDS), 1), *combinations(range(folds.FOLDS), 2)]
        return cls({each: scored(data, settings, fold, each) for each in hidden})

    def without(self, test: int) -> np.ndarray:
        """Mean r [grid] over the other folds, none of which the test fold helped to predict."""
        pairs = [pair for pair in self.by_hidden if len(pair) == 2 and test in pair]
        return np.mean([pearson(self.by_hidden[pair][:, sum(pair) - test]) for pair in pairs], 0)

    @property
    def test(self) -> np.ndarray:
        """[folds, grid, 6], each fold being hidden alone."""
        return np.stack([self.by_hidden[k,][:, k] for k in range(folds.FOLDS)])

    def r(self, choices: Sequence[int]) -> np.ndarray:
        """Of each test fold, by a choice for each."""
        return pearson(self.test[np.arange(folds.FOLDS), choices])

    def pooled(self, choices: Sequence[int]) -> float:
        """Of all test folds together, by a choice for each."""
        return float(pearson(self.test[np.arange(folds.FOLDS), choices].sum(axis=0)))


def pearson(moments: np.ndarray) -> np.ndarray:
    """[..., 6] -> [...]."""
    n, x, y, xx, yy, xy = np.moveaxis(moments, -1, 0)
    return (n * xy - x * y) / np.sqrt((n * xx - x * x) * (n * yy - y * y))


def scored(
    data: ExpressionData, settings: Settings, fold: np.ndarray, hidden: Sequence[int]
) -> np.ndarray:
    """Moments [grid, folds, 6] of hidden folds, learned from all others; `fold` is of each row."""
    known = ~np.isin(fold, hidden) & data.measured
    learned = folds.hide(data, known)
    schema = FeatureSchema.fit(learned, known, settings)
    dataset = YeastDataset(learned, schema)
    knowledge = Knowledge.of(dataset, known, settings.model.fusion.factors)
    regions = factors(knowledge, data.num_regions)
    rows = {each: np.flatnonzero((fold == each) & data.measured) for each in hidden}
    found = np.full((len(GRID), folds.FOLDS, 6), np.nan)
    for at, loadings in enumerate(of_grid(knowledge, schema)):
        cells = regions @ loadings[:, :-1].T + loadings[:, -1]
        for each, row in rows.items():
            said = cells[data.region_index[row], data.sample_index[row]]
            x = schema.to_input_units(said[:, None])[:, 0]
            y = data.target[row, 0].astype(np.float64)
            found[at, each] = len(x), x.sum(), y.sum(), x @ x, y @ y, x @ y
    return found


def factors(knowledge: Knowledge, regions: int) -> np.ndarray:
    """[P,K] of all regions, by their training cells."""
    cells, model = knowledge.cells, knowledge.model
    found = np.zeros((regions, model.loadings.shape[1]))
    for rows, count, total in cells.blocks(model.loadings.shape[1]):
        found[cells.regions[rows]] = times(*model.posterior(count, total))
    return found


def of_grid(knowledge: Knowledge, schema: FeatureSchema) -> Iterator[np.ndarray]:
    """Loadings and level [S,K+1] of all samples, by each choice of the grid."""
    dataset = knowledge.dataset
    head = FactorHead(1, schema.sizes(), knowledge.model.loadings.shape[1])
    model: Any = SimpleNamespace(by_factors=head)
    fields = dataset.conditions_of(torch.arange(dataset.num_samples))
    for choice in GRID:
        head.loadings.constants.copy_(torch.tensor(choice))
        knowledge.give_conditions(model)
        yield head.loadings.of(fields)[:, 0].double().numpy()


if __name__ == "__main__":
    with torch.no_grad():
        main()
