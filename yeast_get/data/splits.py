"""Which observations train, validate and test: by region, condition, both, chromosome, column.

Groups never straddle two parts. By condition, the group is the condition signature, which all
replicates share; by region, regions with identical feature rows, or that overlap by more than half
of the shorter, are one group; by chromosome or column, its value; at random, the pair of region and
condition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from yeast_get.config import SplitConfig
from yeast_get.data.expression_data import ExpressionData
from yeast_get.data.findings import counted
from yeast_get.errors import DataError, Problem
from yeast_get.stored import Sizes, build

PARTS = ("train", "val", "test", "unused")
TRAIN, VAL, TEST, UNUSED, NEW = 0, 1, 2, 3, 4
PART_NAMES = (*PARTS, "new")
"""Names by code. `new` are rows of another table that the training table did not hold."""


def make_split(data: ExpressionData, config: SplitConfig) -> np.ndarray:
    """Part of every observation [N] uint8, as `split` asks for; unmeasured ones are `unused`.

    Raises:
        DataError: Where the table has too few groups for the split, or not the column.
    """
    rng = np.random.default_rng(config.seed)
    if config.by == "region":
        part = _assign(region_groups(data), data.region_index, config, rng)
    elif config.by == "condition":
        part = _assign(data.condition, data.sample_index, config, rng)
    elif config.by == "region_and_condition":
        by_region = _assign(region_groups(data), data.region_index, config, rng)
        by_condition = _assign(data.condition, data.sample_index, config, rng)
        part = np.where(by_region == by_condition, by_region, np.uint8(UNUSED))
    elif config.by == "chromosome":
        part = _by_name(data, data.chrom[data.region_index], "chrom", config, rng)
    elif config.by == "column":
        column = config.column or ""
        part = _by_name(data, data.column(column), column, config, rng)
    else:
        cell = data.region_index.astype(np.int64) * data.num_samples
        cell += data.condition[data.sample_index]
        part = _assign(_codes(cell), np.arange(len(cell)), config, rng)
    part = np.where(data.measured, part, np.uint8(UNUSED))
    _check_parts(data, part, config)
    return part


def shuffle_targets(data: ExpressionData, part: np.ndarray, seed: int) -> None:
    """Deal the measured targets out anew within the training and within the validation part.

    The control of a method: what is left of its score tells how far the score can be believed.
    """
    rng = np.random.default_rng(seed)
    data.target = data.target.copy()
    for each in (TRAIN, VAL):
        rows = np.flatnonzero((part == each) & data.measured)
        data.target[rows] = data.target[rng.permutation(rows)]


def region_parts(data: ExpressionData, config: SplitConfig) -> np.ndarray:
    """Part of every region [P] uint8, as `make_split` deals them out: for masked pretraining.

    What a later training on this table will test is so never learned from. A split that holds out
    no regions (by condition, at random, or by a column that differs within a region) gives those
    of `split.by: region`.
    """
    rng = np.random.default_rng(config.seed)
    part = None
    if config.by == "chromosome":
        part = _by_name(data, data.chrom[data.region_index], "chrom", config, rng)
    elif config.by == "column":
        column = config.column or ""
        part = _by_name(data, data.column(column), column, config, rng)
    out = np.full(data.num_regions, TRAIN, dtype=np.uint8)
    if part is not None:
        out[data.region_index] = part
    if part is None or (out[data.region_index] != part).any():
        rng = np.random.default_rng(config.seed)
        out[data.region_index] = _assign(region_groups(data), data.region_index, config, rng)
    return out


def region_groups(data: ExpressionData) -> np.ndarray:
    """Group of every region [P]: identical feature rows, or overlap above half of the shorter."""
    features = [np.nan_to_num(data.motif, nan=-1e30)]
    if data.accessibility is not None:
        access = data.accessibility.reshape(data.num_regions, -1)
        features.append(np.nan_to_num(access, nan=-1e30))
    rows = np.ascontiguousarray(np.concatenate(features, axis=1))
    alike = _codes(rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel())
    first = np.full(alike.max() + 1, len(alike))
    np.minimum.at(first, alike, np.arange(len(alike)))
    left, right = _overlaps(data)
    left = np.concatenate([left, np.arange(len(alike))])
    right = np.concatenate([right, first[alike]])
    graph = coo_matrix((np.ones(len(left)), (left, right)), shape=(len(alike), len(alike)))
    groups: np.ndarray = connected_components(graph, directed=False)[1]
    return groups


def _overlaps(data: ExpressionData) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of regions that overlap by more than half of the shorter."""
    placed = np.isfinite(data.start) & np.isfinite(data.end)
    left: list[int] = []
    right: list[int] = []
    for chrom in {name for name in data.chrom[placed] if name is not None}:
        on_it = np.flatnonzero(placed & (data.chrom == chrom))
        on_it = on_it[np.argsort(data.start[on_it], kind="stable")]
        start, end = data.start[on_it], data.end[on_it]
        for i in range(len(on_it)):
            j = i + 1
            while j < len(on_it) and start[j] < end[i]:
                shorter = min(end[i] - start[i], end[j] - start[j])
                if min(end[i], end[j]) - start[j] > shorter / 2:
                    left.append(int(on_it[i]))
                    right.append(int(on_it[j]))
                j += 1
    return np.array(left, dtype=np.int64), np.array(right, dtype=np.int64)


def _codes(values: np.ndarray) -> np.ndarray:
    codes: np.ndarray = np.unique(values, return_inverse=True)[1].reshape(-1)
    return codes


def _assign(
    group_of_unit: np.ndarray, unit: np.ndarray, config: SplitConfig, rng: np.random.Generator
) -> np.ndarray:
    """Deal whole groups out to the parts so that each comes near its share of observations."""
    group = group_of_unit[unit]
    size = np.bincount(group, minlength=group_of_unit.max() + 1)
    return _deal(size, config, rng)[group]


def _deal(size: np.ndarray, config: SplitConfig, rng: np.random.Generator) -> np.ndarray:
    """Part of every group: in random order, each to the part that lacks most of its share."""
    target = np.array(config.fractions) * size.sum()
    filled = np.zeros(3)
    part = np.zeros(len(size), dtype=np.uint8)
    wanted = np.where(target > 0, target, 1.0)
    for group in rng.permutation(len(size)):
        lacking = np.where(target > 0, (target - filled) / wanted, -np.inf)
        part[group] = int(lacking.argmax())
        filled[part[group]] += size[group]
    return part


def _by_name(
    data: ExpressionData,
    names: np.ndarray,
    column: str,
    config: SplitConfig,
    rng: np.random.Generator,
) -> np.ndarray:
    """Groups are the values of a column; some may be named for test and val outright."""
    blank = np.array([name is None for name in names], dtype=bool)
    if blank.any():
        what = f"{blank.sum()} observations have no {column}, by which the table is split"
        raise DataError(Problem(what, "fill it in", file=data.source, column=column))
    values, group = np.unique(names.astype(str), return_inverse=True)
    named = set(config.test) | set(config.val)
    unknown = sorted(named - set(values))
    if unknown:
        what = f"split names {', '.join(unknown)}, which {column} does not hold"
        known = ", ".join(values[:20])
        raise DataError(Problem(what, f"it holds {known}", file=data.source, column=column))
    if set(values) <= set(PARTS) and not named:
        of_value = np.array([PARTS.index(value) for value in values], dtype=np.uint8)
        return of_value[group]
    part = np.full(len(values), TRAIN, dtype=np.uint8)
    free = np.array([value not in named for value in values])
    size = np.bincount(group, minlength=len(values))
    if config.test and config.val:
        pass  # all other groups train
    elif named:  # deal the other part out of what is left
        shares = [config.fractions[0], 0.0 if config.val else config.fractions[1], 0.0]
        shares[2] = 0.0 if config.test else config.fractions[2]
        total = sum(shares)
        rest = config.model_copy(update={"fractions": [s / total for s in shares]})
        part[free] = _deal(size[free], rest, rng)
    else:
        part = _deal(size, config, rng)
    part[np.isin(values, config.val)] = VAL
    part[np.isin(values, config.test)] = TEST
    return part[group]


def _check_parts(data: ExpressionData, part: np.ndarray, config: SplitConfig) -> None:
    empty = [name for code, name in enumerate(PARTS[:3]) if not (part == code).any()]
    if empty:
        raise DataError(
            Problem(
                f"split.by: {config.by} leaves {' and '.join(empty)} without a measured value",
                "the table has too few groups for it; split in another way or add data",
                file=data.source,
            )
        )


def split_line(data: ExpressionData, part: np.ndarray, config: SplitConfig) -> str:
    """One sentence on what the split holds out, and how much of the test part is known."""
    test, train = part == TEST, part == TRAIN
    known_region = np.zeros(data.num_regions, dtype=bool)
    known_region[data.region_index[train]] = True
    codes = data.condition
    known_condition = np.zeros(codes.max() + 1, dtype=bool)
    known_condition[codes[data.sample_index[train]]] = True
    cells = data.region_index.astype(np.int64) * len(known_condition) + codes[data.sample_index]
    region = known_region[data.region_index[test]]
    condition = known_condition[codes[data.sample_index[test]]]
    both = np.isin(cells[test], np.unique(cells[train]))
    counts = ", ".join(
        f"{name} {int((part == code).sum()):,}" for code, name in enumerate(PARTS[:3])
    )
    left_out = int((data.measured & (part == UNUSED)).sum())
    counts += f", left out {left_out:,}" if left_out else ""
    return (
        f"split by {config.column if config.by == 'column' else config.by}: {counts} "
        f"measured observations; {conditions_line(data)}; of the test rows "
        f"{region.mean():.1%} have their region in training, {condition.mean():.1%} their "
        f"condition, {both.mean():.1%} the very pair of the two"
    )


def conditions_line(data: ExpressionData) -> str:
    """How many conditions the samples are, replicates counted once."""
    blank = data.conditions.isna().all(axis=1).to_numpy()
    conditions = len(np.unique(data.signature[~blank]))
    line = f"{counted(data.num_samples, 'sample')} of {counted(conditions, 'condition')}"
    return (
        f"{line} ({counted(int(blank.sum()), 'sample')} without a recorded one)"
        if blank.any()
        else line
    )


@dataclass
class TrainedRows:
    """What a checkpoint remembers of its table: hashes of ids and conditions, parts of rows.

    Attributes:
        region_hash: [P] int64 hashes of region ids.
        sample_hash: [S] int64 hashes of sample ids.
        field_names: Names of the condition fields.
        field_hash: [S,fields] int64 hashes of the conditions, 0 where not recorded.
        part: [N] uint8; `NEW` for rows without a measured target, which taught nothing.
        cell: [N] int64, region * S + sample of each row; None where the rows are the full grid.
    """

    region_hash: Annotated[np.ndarray, Sizes("P", "i")]
    sample_hash: Annotated[np.ndarray, Sizes("S", "i")]
    field_names: Annotated[list[str], Sizes("C")]
    field_hash: Annotated[np.ndarray, Sizes("S,C", "i")]
    part: Annotated[np.ndarray, Sizes("N", "u")]
    cell: Annotated[np.ndarray, Sizes("N", "i")] | None

    @classmethod
    def of(cls, data: ExpressionData, part: np.ndarray) -> TrainedRows:
        """Remember a table and its split."""
        cell = None
        if not data.is_grid:
            cell = data.region_index.astype(np.int64) * data.num_samples + data.sample_index
        return cls(
            region_hash=data.region_hash,
            sample_hash=data.sample_hash,
            field_names=list(data.conditions.columns),
            field_hash=data.field_hash,
            part=np.where(data.measured, part, np.uint8(NEW)),
            cell=cell,
        )

    def shared_fields(self, data: ExpressionData) -> list[str]:
        """The condition fields that are recorded both here and in another table."""
        here = dict(zip(self.field_names, (self.field_hash != 0).any(axis=0), strict=True))
        there = (data.field_hash != 0).any(axis=0)
        names = zip(data.conditions.columns, there, strict=True)
        return [name for name, recorded in names if recorded and here.get(name, False)]

    def condition_key(self, data: ExpressionData) -> np.ndarray:
        """Signatures [S] by which this table's baselines know the samples of another table.

        A sample whose shared fields fit exactly one condition here is that condition.
        """
        ours, theirs = self._shared_signatures(data)
        whole = self.field_hash.sum(axis=1, dtype=np.int64)
        known: dict[int, set[int]] = {}
        for shared, signature in zip(ours.tolist(), whole.tolist(), strict=True):
            known.setdefault(shared, set()).add(signature)
        only = {shared: next(iter(fits)) for shared, fits in known.items() if len(fits) == 1}
        pairs = zip(theirs.tolist(), data.signature.tolist(), strict=True)
        return np.array([only.get(shared, itself) for shared, itself in pairs], dtype=np.int64)

    def parts_of(self, data: ExpressionData) -> np.ndarray:
        """Part of every observation of another table [N] uint8.

        Conditions are compared over the fields that both tables recorded, so that one more or one
        fewer column hides nothing. A row with the region, the sample id and the conditions of a
        row here has that row's part. A row whose region was trained on under the same conditions
        in another sample is `train`, and likewise `val` and `test`. A blank cell that was blank
        here is `unused`; every other row is `new`.
        """
        ours, theirs = self._shared_signatures(data)
        samples = len(self.sample_hash)
        region = _positions(self.region_hash, data.region_hash)[data.region_index]
        sample = _positions(self.sample_hash, data.sample_hash)
        sample = np.where(ours[sample] == theirs, sample, -1)[data.sample_index]
        part = self._part_at(samples, np.arange(samples), region, sample)
        values, codes = np.unique(ours, return_inverse=True)
        signature = _positions(values, theirs)[data.sample_index]
        blank_in_both = ~data.measured & (region >= 0) & (sample >= 0) & (part == NEW)
        alike = self._part_at(len(values), codes.reshape(-1), region, signature)
        part = np.where(part == NEW, alike, part)
        return np.where(blank_in_both, np.uint8(UNUSED), part)

    def _shared_signatures(self, data: ExpressionData) -> tuple[np.ndarray, np.ndarray]:
        """Signatures of the samples here and there, over the fields that both recorded."""
        shared = self.shared_fields(data)
        here = [self.field_names.index(name) for name in shared]
        there = [list(data.conditions.columns).index(name) for name in shared]
        ours = self.field_hash[:, here].sum(axis=1, dtype=np.int64)
        return ours, data.field_hash[:, there].sum(axis=1, dtype=np.int64)

    def _part_at(
        self, width: int, column_of_sample: np.ndarray, region: np.ndarray, column: np.ndarray
    ) -> np.ndarray:
        """Part of each wanted place [n] uint8, `NEW` where no row is; train wins, then val, test.

        Takes memory for the rows that are there, and not for all regions times samples.

        Args:
            width: Columns of a table of places, with a line per region.
            column_of_sample: [S] column of each sample in it.
            region: [n] lines that are asked for, -1 = none.
            column: [n] columns, likewise.
        """
        cell, samples = self._cells(), len(self.sample_hash)
        place = cell // samples * width + column_of_sample[cell % samples]
        # The first of a place has the part that wins; a grid's are nearly in order.
        known = np.sort(place * 8 + self.part, kind="stable")
        wanted = region * width + column
        found = known[np.searchsorted(known, wanted * 8).clip(max=len(known) - 1)]
        there = (region >= 0) & (column >= 0) & (found // 8 == wanted)
        return np.where(there, found % 8, NEW).astype(np.uint8)

    def _cells(self) -> np.ndarray:
        return np.arange(len(self.part)) if self.cell is None else self.cell

    def overlap(self, data: ExpressionData, part: np.ndarray) -> dict[str, Any]:
        """How much of another table, with its `parts_of`, was trained on."""
        cell = self._cells()[self.part == TRAIN]
        samples = len(self.sample_hash)
        regions = np.isin(data.region_hash, self.region_hash[np.unique(cell // samples)])
        ours, theirs = self._shared_signatures(data)
        conditions = np.unique(theirs)
        known = np.isin(conditions, ours[np.unique(cell % samples)])
        counts = {name: int((part == code).sum()) for code, name in enumerate(PART_NAMES)}
        return {
            "rows": len(part),
            "rows_by_part": counts,
            "regions": data.num_regions,
            "regions_in_training": int(regions.sum()),
            "conditions": len(conditions),
            "conditions_in_training": int(known.sum()),
            "conditions_compared_by": self.shared_fields(data),
        }

    def to_dict(self) -> dict[str, Any]:
        """Tensors and names, for the checkpoint."""
        import torch

        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {
            name: torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value
            for name, value in values.items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainedRows:
        """Back from the checkpoint.

        Raises:
            ValueError: Where a part holds what it cannot, or is missing.
        """
        rows = build(cls, values)
        grid = len(rows.region_hash) * len(rows.sample_hash)
        if rows.cell is None:
            fits = 0 < len(rows.part) == grid
        else:
            fits = len(rows.cell) > 0 and 0 <= rows.cell.min() <= rows.cell.max() < grid
        if not fits:
            raise ValueError(f"{len(rows.part)} rows that are not those of {grid} cells")
        if rows.part.max() > NEW:
            raise ValueError("a part that is none")
        return rows


def _positions(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Index of each wanted hash among the known ones, -1 where it is not there."""
    order = np.argsort(known, kind="stable")
    at = np.searchsorted(known[order], wanted).clip(max=len(known) - 1)
    return np.where(known[order][at] == wanted, order[at], -1)
