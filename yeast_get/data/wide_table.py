"""A table of regions by samples, joined by id to those of a data folder."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from yeast_get.data.conditions import fold_header
from yeast_get.data.findings import counted
from yeast_get.data.raw_table import RawTable
from yeast_get.data.tables import REGION_ID_HEADERS


class WideMatrix:
    """A table of regions by samples, joined by id to all regions and samples of a folder.

    Attributes:
        values: [P,S] float32 with NaN for blank or absent cells, and for rows with errors.
        rows: Row number of each region [P], 0 where it has none.

    Args:
        table: The table of regions by samples.
        region_ids: Of the folder [P].
        sample_ids: Of the folder [S].
        lost_samples: How rows of samples begin that could not be read.
    """

    def __init__(
        self,
        table: RawTable,
        region_ids: np.ndarray,
        sample_ids: np.ndarray,
        lost_samples: Sequence[str] = (),
    ) -> None:
        self.table = table
        columns = list(table.frame.columns)
        id_column = next((c for c in columns if fold_header(c) in REGION_ID_HEADERS), None)
        table.need(id_column, "region_id")
        ids = table.text(id_column or "")
        names = [column for column in columns if column != id_column]
        self._names = names
        self._refuse_turned(names, set(region_ids))
        table.check_ids(ids, id_column or "", unique=True)
        known = pd.Index(region_ids).dropna().unique()
        named = np.array([each is not None for each in ids], dtype=bool)
        strange = named & (known.get_indexer(ids) < 0)
        what = "region '{value}' is not in regions"
        fix = "add it there or delete the row"
        table.error("unknown region", what, fix, column=id_column, where=strange)
        of_sample = pd.Index(sample_ids).dropna().unique()
        at_sample = of_sample.get_indexer(pd.Index(names, dtype=object))
        lost = {cell.strip() for row in lost_samples for cell in re.split(r'[\t,;|"]', row)}
        for name in (name for name, at in zip(names, at_sample, strict=True) if at < 0):
            what = "is a sample that is not in samples"
            if name in lost:
                what = "is of a sample whose row in samples has an error"
                table.warn("unknown sample", what, "mend that row", row=1, column=name)
            else:
                table.error("unknown sample", what, "add it there", row=1, column=name)
        cells = table.matrix(names)
        self.values = np.full((len(region_ids), len(sample_ids)), np.nan, dtype=np.float32)
        self.rows = np.zeros(len(region_ids), dtype=np.int64)
        good = np.flatnonzero(table.good() & ~strange)
        at = _first_places(region_ids, known)[known.get_indexer(ids[good])]
        here = at_sample >= 0
        at_sample = _first_places(sample_ids, of_sample)[at_sample[here]]
        self.values[np.ix_(at, at_sample)] = cells[np.ix_(good, np.flatnonzero(here))]
        self.rows[at] = table.frame.index.to_numpy(np.int64)[good]
        self._say_absent(len(region_ids) - len(ids), len(sample_ids) - len(names))

    def _refuse_turned(self, names: list[str], regions: set[str]) -> None:
        if names and sum(name in regions for name in names) * 2 > len(names):
            what = "stands the other way round: its columns are regions"
            fix = "transpose it: a row for each region, a column for each sample"
            self.table.error("turned table", what, fix, row=1)
            self.table.findings.raise_errors()

    def _say_absent(self, regions: int, samples: int) -> None:
        if regions > 0 or samples > 0:
            self.table.warn(
                "not measured",
                f"{counted(max(0, regions), 'region')} and {counted(max(0, samples), 'sample')} "
                "are not in it and count as not measured",
            )

    def refuse_negative(self) -> None:
        """Values below zero are errors."""
        for column in self._names:
            self.table.refuse_negative(column)


def _first_places(ids: np.ndarray, unique: pd.Index) -> np.ndarray:
    """Where each different id first stands; that it stands twice is an error of the other row."""
    place: dict[str, int] = {}
    for at, name in enumerate(ids):
        place.setdefault(name, at)
    return np.array([place[name] for name in unique], dtype=np.int64)
