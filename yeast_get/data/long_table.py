"""Which region and sample every row of a long table belongs to, and where rows contradict."""

from __future__ import annotations

import numpy as np
import pandas as pd

from yeast_get.data.conditions import field_hashes
from yeast_get.data.findings import cell_as_text
from yeast_get.data.raw_table import RawTable
from yeast_get.data.roles import Roles


class JoinedRows:
    """Which region and sample every good row of a long table belongs to.

    A row belongs to the sample (sample id, or else condition signature; k-th occurrence of its
    region there), which is named after the two.

    Attributes:
        rows: Positions of the rows that count [N].
        region: Code of each row's region [N] int32, in order of first appearance.
        region_first: Position in `rows` of each region's first row [P].
        sample: Code of each row's sample [N] int32.
        sample_first: Position in `rows` of each sample's first row [S].
        sample_ids: Their names [S].
        given: Code of the sample id that each row names [N], -1 without.
        repeat: Which occurrence of its region in its sample each row is [N], counted from 0.
        copies: How many of all rows were exact copies of an earlier one.
    """

    def __init__(
        self,
        table: RawTable,
        roles: Roles,
        regions: np.ndarray,
        signature: np.ndarray,
        drop_copies: bool,
        target: np.ndarray,
    ) -> None:
        self.rows = np.flatnonzero(table.good())
        ids = np.full(len(regions), None, dtype=object)
        if roles.sample_id is not None:
            ids = table.text(roles.sample_id)
        names = self._join(regions, ids, signature)
        key = np.column_stack([self.region, self.base, target[self.rows]])
        copy = pd.DataFrame(key).duplicated().to_numpy() & ~np.isnan(target[self.rows]).all(axis=1)
        self.copies, self.dropped_copies = int(copy.sum()), drop_copies
        if drop_copies and copy.any():
            self.rows = self.rows[~copy]
            names = self._join(regions, ids, signature)
        most = int(self.repeat.max(initial=0)) + 1
        codes, uniques = pd.factorize(self.base.astype(np.int64) * most + self.repeat)
        self.sample, self.sample_first = codes.astype(np.int32), _first(codes, len(uniques))
        self.sample_ids = np.array(
            [self._name(names, code // most, code % most) for code in uniques], dtype=object
        )

    def _join(self, regions: np.ndarray, ids: np.ndarray, signature: np.ndarray) -> list[str]:
        rows = self.rows
        codes, uniques = pd.factorize(regions[rows])
        self.region, self.region_first = codes.astype(np.int32), _first(codes, len(uniques))
        self.given, words = pd.factorize(ids[rows])
        signatures_, values = pd.factorize(signature[rows])
        self.base = np.where(self.given >= 0, self.given, len(words) + signatures_)
        self._named = len(words)
        cell = pd.Series(self.region.astype(np.int64) * (len(words) + len(values)) + self.base)
        self.repeat = cell.groupby(cell).cumcount().to_numpy()
        return [*words, *(f"condition_{value & 0xFFFFFFFF:08x}" for value in values)]

    def _name(self, names: list[str], base: int, repeat: int) -> str:
        if base >= self._named:
            return f"{names[base]}_{repeat + 1}"
        return names[base] if repeat == 0 else f"{names[base]} ({repeat + 1})"

    def say_repeats(self, table: RawTable, target: np.ndarray) -> None:
        """Say how many rows are copies, and how far the others that repeat a cell differ."""
        if self.copies:
            done = "one of each is kept" if self.dropped_copies else "all of them count"
            table.warn(
                "duplicate rows",
                f"{self.copies:,} rows repeat region, sample and target of an earlier row; {done}",
                "" if self.dropped_copies else "data.drop_duplicates: true keeps one of each",
            )
        again = (self.repeat > 0) & (self.given >= 0)
        if again.any():
            deviation = replicate_sd(self.region, self.base, target[self.rows])
            table.warn(
                "repeated cell",
                "the same region stands again in one sample; such rows count as replicates "
                f"(SD of their targets {deviation:.3g})",
                "give replicates sample ids of their own",
                column=None,
                where=self.rows[again],
            )


def replicate_sd(region: np.ndarray, base: np.ndarray, target: np.ndarray) -> float:
    """Pooled SD of the first target within cells that stand more than once."""
    groups = pd.Series(target[:, 0].astype(np.float64)).groupby([region, base])
    squares, count = groups.var(ddof=0) * groups.count(), groups.count() - 1
    return float(np.sqrt(squares[count > 0].sum() / max(1, count[count > 0].sum())))


def _first(codes: np.ndarray, number: int) -> np.ndarray:
    """Position at which each code first stands [number]."""
    first = np.zeros(number, dtype=np.int64)
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
    return first


def check_regions(table: RawTable, roles: Roles, joined: JoinedRows) -> None:
    """What describes a region is the same in all of its rows."""
    rows, region, first = joined.rows, joined.region.astype(np.intp), joined.region_first
    places = [roles.region[name] for name in ("start", "end") if name in roles.region]
    cycles = bool(len(first)) and len(region) % len(first) == 0  # sample by sample, in one order
    is_cycle = cycles and bool((region.reshape(-1, len(first)) == region[: len(first)]).all())
    for name in (*roles.motifs, *roles.region_features, *places):
        values = table.numbers(name)[rows]
        if is_cycle:
            differs = (values.reshape(-1, len(first)) != values[: len(first)]).reshape(-1)
        else:
            differs = values != values[first][region]
        if differs.any():
            differs &= ~(np.isnan(values) & np.isnan(values[first][region]))
        if differs.any():
            _say_differs(table, name, "region", values, region, differs, rows)
    for name in ("chrom", "gene_id"):
        if name in roles.region:
            codes = pd.factorize(table.text(roles.region[name])[rows])[0]
            differs = codes != codes[first][region]
            if differs.any():
                _say_differs(table, roles.region[name], "region", codes, region, differs, rows)


def check_samples(
    table: RawTable,
    roles: Roles,
    conditions: pd.DataFrame,
    signature: np.ndarray,
    joined: JoinedRows,
) -> None:
    """The conditions of a sample that has an id are the same in all of its rows."""
    named = np.flatnonzero(joined.given >= 0)
    if not len(named):
        return
    rows, codes = joined.rows[named], joined.given[named]
    first = _first(codes, int(codes.max()) + 1)
    if (signature[rows] == signature[rows][first][codes]).all():
        return
    hashes = field_hashes(conditions.iloc[rows])
    for j, name in enumerate(conditions.columns):
        differs = hashes[:, j] != hashes[first, j][codes]
        if differs.any():
            header = roles.conditions.get(name, name)
            _say_differs(table, header, "sample", hashes[:, j], codes, differs, rows)


def _say_differs(
    table: RawTable,
    column: str,
    what: str,
    values: np.ndarray,
    group: np.ndarray,
    differs: np.ndarray,
    rows: np.ndarray,
) -> None:
    """Name the rows whose value is not the commonest one of their region or sample."""
    suspect = np.isin(group, np.unique(group[differs]))
    at = np.flatnonzero(suspect)
    frame = pd.DataFrame({"group": group[at], "value": values[at]})
    size = frame.groupby(["group", "value"], dropna=False)["value"].transform("size")
    best = frame.assign(size=size).groupby("group")["size"].transform("max")
    usual = frame.assign(at=at)[size == best].groupby("group", sort=False)["at"].first()
    usual_row = usual.reindex(frame["group"]).to_numpy()
    same = (values[at] == values[usual_row]) | (pd.isna(values[at]) & pd.isna(values[usual_row]))
    shown = table.frame[column] if column in table.frame.columns else None
    for i in np.unique(usual_row[~same]):
        odd = at[~same & (usual_row == i)]
        other = "" if shown is None else f" '{cell_as_text(shown.iloc[rows[i]])}'"
        row = int(table.frame.index[rows[i]])
        table.error(
            f"{what} differs",
            f"'{{value}}' here and{other} in row {row} for the same {what}",
            "what describes a region is the same in all of its rows"
            if what == "region"
            else "one sample has one set of conditions",
            column=column,
            where=rows[odd],
        )
