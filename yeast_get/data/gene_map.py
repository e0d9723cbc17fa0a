"""Which regions drive which gene: the table `genes` of a folder or workbook."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from yeast_get.data.conditions import fold_header
from yeast_get.data.raw_table import RawTable
from yeast_get.data.tables import REGION_ID_HEADERS


@dataclass
class GeneMap:
    """Genes as weighted means of regions.

    Attributes:
        gene_id: [G] text.
        weights: [G,P] sparse, each row adds up to 1.
    """

    gene_id: np.ndarray
    weights: sparse.csr_array

    @classmethod
    def read(cls, table: RawTable, region_ids: np.ndarray) -> GeneRows:
        """Read the table's columns, and take up all that is wrong with them.

        Args:
            table: With `gene_id`, `region_id`, and optionally `weight` (1 without, or where blank).
            region_ids: [P] of the table of regions, also those with errors.
        """
        columns = {fold_header(column): column for column in table.frame.columns}
        gene = next((columns[each] for each in ("gene_id", "gene") if each in columns), None)
        region = next((columns[each] for each in columns if each in REGION_ID_HEADERS), None)
        table.need(gene, "gene_id")
        table.need(region, "region_id")
        genes, regions = table.text(gene or ""), table.text(region or "")
        table.check_ids(genes, gene or "")
        table.check_ids(regions, region or "")
        known = np.isin(regions.astype(str), [str(each) for each in region_ids if each is not None])
        named = np.array([each is not None for each in regions], dtype=bool)
        what, fix = "region '{value}' is not in regions", "add it there or delete the row"
        table.error("unknown region", what, fix, column=region, where=named & ~known)
        pairs = pd.DataFrame({"gene": genes, "region": regions})
        twice = pairs.duplicated().to_numpy() & named
        what, fix = "'{value}' stands twice for the same gene", "delete one of the rows"
        table.error("duplicate gene row", what, fix, column=region, where=twice)
        weight = np.ones(len(genes))
        if "weight" in columns:
            given = table.numbers(columns["weight"])
            with np.errstate(invalid="ignore"):
                table.error("weight", "'{value}' is not above 0", "delete the row, or correct it",
                            column=columns["weight"], where=given <= 0)  # fmt: skip
            weight = np.where(np.isnan(given), 1.0, given)
        return GeneRows(table, genes, regions, weight)

    def measured_and_predicted(
        self,
        y_true: np.ndarray,
        y_pred: np.ndarray,
        region: np.ndarray,
        sample: np.ndarray,
        samples: int,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Genes whose regions are all measured among some rows, in each sample.

        Args:
            y_true: [n] NaN = not measured.
            y_pred: [n].
            region: [n] row of the region table.
            sample: [n].
            samples: S.

        Returns:
            Measured and predicted weighted means [m], gene [m] and sample [m].
        """
        rows = np.flatnonzero(~np.isnan(y_true))
        shape = (self.weights.shape[1], samples)
        place = (region[rows], sample[rows])

        def mean(values: np.ndarray) -> np.ndarray:
            table = sparse.csr_array((values[rows].astype(np.float64), place), shape=shape)
            return (self.weights @ table).toarray()

        whole = mean(np.ones(len(y_true))) > 1 - 1e-9
        gene, at = np.nonzero(whole)
        return mean(y_true)[whole], mean(y_pred)[whole], gene, at


@dataclass
class GeneRows:
    """The rows of the table `genes`, before it is known which of them count."""

    table: RawTable
    genes: np.ndarray
    regions: np.ndarray
    weight: np.ndarray

    def among(self, region_ids: np.ndarray) -> GeneMap:
        """The genes; one of which a row has an error, or a region was left out, has no value."""
        good = self.table.good()
        at = np.where(good, pd.Index(region_ids).get_indexer(pd.Index(self.regions)), -1)
        named = np.array([each is not None for each in self.genes], dtype=bool)
        gene_id, gene = np.unique(self.genes[named].astype(str), return_inverse=True)
        at, weight = at[named], np.where(good, self.weight, 1.0)[named]
        total = np.bincount(gene, weights=weight)
        kept = at >= 0
        place = (gene[kept], at[kept])
        shape = (len(gene_id), len(region_ids))
        shares = sparse.csr_array((weight[kept] / total[gene[kept]], place), shape=shape)
        return GeneMap(gene_id, shares)
