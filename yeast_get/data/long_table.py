"""Which region and sample every row of a long table belongs to, and where rows contradict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from yeast_get.data.blocks import ROWS, blocks
from yeast_get.data.conditions import NO_DRUG, ConditionField, field_hashes
from yeast_get.data.findings import cell_as_text, counted
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
                f"{counted(self.copies, 'row')} with region, sample and target of an earlier row; "
                f"{done}",
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
    squares, count = [], []
    regions = int(region.max(initial=0)) + 1
    for some in blocks(regions, max(1, regions * ROWS // max(1, len(region)))):
        rows = (region >= some.start) & (region < some.stop)
        values = pd.Series(target[rows, 0].astype(np.float64))
        groups = values.groupby([region[rows], base[rows]])
        number = groups.count().to_numpy()
        again = number > 1
        squares.append(groups.var(ddof=0).to_numpy()[again] * number[again])
        count.append(number[again] - 1)
    return float(np.sqrt(np.concatenate(squares).sum() / max(1, np.concatenate(count).sum())))


def _first(codes: np.ndarray, number: int) -> np.ndarray:
    """Position at which each code first stands [number]."""
    first = np.zeros(number, dtype=np.int64)
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
    return first


def check_regions(table: RawTable, roles: Roles, regions: np.ndarray, joined: JoinedRows) -> None:
    """What describes a region is the same in all of its rows, those with other errors included."""
    rows, region = joined.rows, joined.region
    if table.findings.errors:
        rows = np.flatnonzero(table.good(roles.region_id))
        region = pd.factorize(regions[rows])[0]
    groups = _Groups(table, "region", rows, region)
    places = [roles.region[name] for name in ("start", "end") if name in roles.region]
    for name in (*roles.motifs, *roles.region_features):
        groups.check(name, table.numbers(name), stored=np.float32)
    for name in places:
        groups.check(name, table.numbers(name))
    for name in ("chrom", "gene_id"):
        if name in roles.region:
            groups.check(roles.region[name], pd.factorize(table.text(roles.region[name]))[0])


def check_samples(
    table: RawTable,
    roles: Roles,
    fields: Sequence[ConditionField],
    conditions: pd.DataFrame,
    signature: np.ndarray,
    joined: JoinedRows,
) -> None:
    """The conditions of a sample that has an id are the same in all of its rows, likewise."""
    if roles.sample_id is None:
        return
    rows, sample = joined.rows, joined.given
    if table.findings.errors:
        rows = np.flatnonzero(table.good(roles.sample_id))
        sample = pd.factorize(table.text(roles.sample_id)[rows])[0]
    groups = _Groups(table, "sample", rows[sample >= 0], sample[sample >= 0])
    if not groups.differs(signature).any():
        return
    hashes = field_hashes(conditions)
    doses = {each.drug: roles.conditions.get(each.name) for each in fields if each.kind == "dose"}
    for j, name in enumerate(conditions.columns):
        alike = groups
        if doses.get(name) is not None:  # a dose that was not read may be 0: a blank drug is none
            drug = conditions[name]
            unread = drug.isna().to_numpy() & ~table.good(doses[name])
            nothing = drug.isna().to_numpy() | (drug == NO_DRUG).to_numpy()
            alike = groups.where(~(unread & groups.any(nothing & ~unread)))
        alike.check(roles.conditions.get(name, name), hashes[:, j])


class _Groups:
    """Rows of a table that belong together, to see whether they agree.

    Attributes:
        table: The table.
        what: `region` or `sample`.
        rows: Positions of the rows [n].
        group: Code of the group of each [n], in order of first appearance.
        first: Position in `rows` of the first row of each group.
    """

    def __init__(self, table: RawTable, what: str, rows: np.ndarray, group: np.ndarray) -> None:
        self.table, self.what, self.rows, self.group = table, what, rows, group.astype(np.intp)
        number = int(group.max(initial=-1)) + 1
        self.first = _first(self.group, number)
        cycles = number > 0 and len(group) % number == 0
        self._is_cycle = cycles and bool((group.reshape(-1, number) == group[:number]).all())

    def where(self, known: np.ndarray) -> _Groups:
        """The groups without some rows; `known` is of all rows of the table."""
        kept = known[self.rows]
        if kept.all():
            return self
        return _Groups(self.table, self.what, self.rows[kept], pd.factorize(self.group[kept])[0])

    def any(self, where: np.ndarray) -> np.ndarray:
        """Which rows of the table are of a group that has one of the rows meant [rows]."""
        out = np.zeros(len(where), dtype=bool)
        out[self.rows] = np.isin(self.group, self.group[where[self.rows]])
        return out

    def differs(self, column: np.ndarray, stored: type | None = None) -> np.ndarray:
        """Which rows are not as the first of their group [n].

        Args:
            column: A value for each row of the table, NaN = blank.
            stored: The type that it will be stored as, where that is another one.
        """
        values = column[self.rows]
        if self._is_cycle:  # sample by sample, in one order
            number = len(self.first)
            differs = (values.reshape(-1, number) != values[:number]).reshape(-1)
        else:
            differs = values != values[self.first][self.group]
        if differs.any() and values.dtype.kind == "f":
            values = values.astype(stored or values.dtype)
            usual = values[self.first][self.group]
            differs = (values != usual) & ~(np.isnan(values) & np.isnan(usual))
        out: np.ndarray = differs
        return out

    def check(self, column: str, values: np.ndarray, stored: type | None = None) -> None:
        """Take up an error where a value is not the commonest one of its group.

        Rows with errors elsewhere count where the others are undecided.

        Args:
            column: The column; cells of it that have an error already are not looked at.
            values: What its cells say, for each row of the table; NaN = blank.
            stored: As in `differs`.
        """
        groups = self.where(self.table.good(column)) if self.table.findings.errors else self
        differs = groups.differs(values, stored)
        if differs.any():
            groups._blame(column, values.astype(stored or values.dtype)[groups.rows], differs)

    def _blame(self, column: str, values: np.ndarray, differs: np.ndarray) -> None:
        at = np.flatnonzero(np.isin(self.group, np.unique(self.group[differs])))
        votes = np.where(self.table.good()[self.rows[at]], len(at), 1)
        frame = pd.DataFrame({"group": self.group[at], "value": values[at], "votes": votes})
        size = frame.groupby(["group", "value"], dropna=False)["votes"].transform("sum")
        best = frame.assign(size=size).groupby("group")["size"].transform("max")
        usual = frame.assign(at=at)[size == best].groupby("group", sort=False)["at"].first()
        usual_at = usual.reindex(frame["group"]).to_numpy()
        blank = pd.isna(values)
        same = (values[at] == values[usual_at]) | (blank[at] & blank[usual_at])
        for i in np.unique(usual_at[~same]):
            self._say(column, self.rows[i], self.rows[at[~same & (usual_at == i)]])

    def _say(self, column: str, usual: int, odd: np.ndarray) -> None:
        frame = self.table.frame
        shown = frame[column] if column in frame.columns else None
        other = "" if shown is None else f" '{cell_as_text(shown.iloc[usual])}'"
        row = int(frame.index[usual])
        self.table.error(
            f"{self.what} differs",
            f"'{{value}}' here and{other} in row {row} for the same {self.what}",
            "what describes a region is the same in all of its rows"
            if self.what == "region"
            else "one sample has one set of conditions",
            column=column,
            where=odd,
        )
