"""ExpressionData: regions, samples and the observations that join them.

Every input becomes this, factorised because a promoter's motif vector is the same under every
condition. Nothing after this module knows which kind of file the data came from.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from yeast_get.config import DataConfig, Settings
from yeast_get.data.conditions import (
    ConditionField,
    cell_text,
    field_hashes,
    fields_from_config,
    fold,
    fold_one_hot,
    read_conditions,
    signatures,
    stable_hash,
)
from yeast_get.data.roles import Roles, assign_roles, matches
from yeast_get.data.tables import REGION_ID_HEADERS, RawTable, RawTables, read_tables
from yeast_get.data.zarr_store import is_zarr_store, read_store
from yeast_get.errors import DataError, Problem

log = logging.getLogger(__name__)

_COORDINATES = re.compile(r"^(?P<chrom>.+?)[_:](?P<start>\d+)[_-](?P<end>\d+)$")


@dataclass
class ExpressionData:
    """The one representation of a table (P regions, S samples, N observations, T targets).

    Attributes:
        source: What the user gave as `--data`.
        fingerprint: SHA-256 of the input files.
        motif: [P,M+F] float32, NaN = missing: motif scores, then the other region features.
        motif_names: M names.
        region_feature_names: F names.
        accessibility: [P] or [P,S] float32, NaN = missing; None without such a column.
        region_id: [P] text.
        chrom: [P] text or None.
        start: [P] float64, NaN where not known; likewise `end`.
        end: See `start`.
        gene_id: [P] text or None.
        sample_id: [S] text.
        conditions: S rows, canonical fields; NaN or None = not recorded.
        fields: What the columns of `conditions` are.
        region_index: [N] int32.
        sample_index: [N] int32.
        target: [N,T] float32 in the units of the input, NaN = not measured.
        target_names: T names; `target`, or `plus` and `minus`.
        row: [N] int64, row number in the source file (header = row 1); in a folder, of the region
            in its table; in a zarr store, which region of the store it is, counted from 1.
        descriptions: Values of description columns by name, each [N].
        is_grid: Whether the observations are every region times every sample, region-major.
        roles: Role -> columns, as assigned.
        warnings: What the user should know about the table.
    """

    source: str
    fingerprint: str
    motif: np.ndarray
    motif_names: list[str]
    region_feature_names: list[str]
    accessibility: np.ndarray | None
    region_id: np.ndarray
    chrom: np.ndarray
    start: np.ndarray
    end: np.ndarray
    gene_id: np.ndarray
    sample_id: np.ndarray
    conditions: pd.DataFrame
    fields: list[ConditionField]
    region_index: np.ndarray
    sample_index: np.ndarray
    target: np.ndarray
    target_names: list[str]
    row: np.ndarray
    descriptions: dict[str, Callable[[], np.ndarray]]
    is_grid: bool
    roles: dict[str, list[str]]
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.field_hash = field_hashes(self.conditions)  # [S,fields] int64, 0 = not recorded
        self.signature = self.field_hash.sum(axis=1, dtype=np.int64)  # [S]
        self.region_hash = np.array([stable_hash(each) for each in self.region_id], dtype=np.int64)
        self.sample_hash = np.array([stable_hash(each) for each in self.sample_id], dtype=np.int64)

    @property
    def num_regions(self) -> int:
        """P."""
        return len(self.region_id)

    @property
    def num_samples(self) -> int:
        """S."""
        return len(self.sample_id)

    @property
    def num_observations(self) -> int:
        """N."""
        return len(self.region_index)

    @property
    def measured(self) -> np.ndarray:
        """[N] bool: at least one target was measured."""
        measured: np.ndarray = ~np.isnan(self.target).all(axis=1)
        return measured

    def column(self, name: str) -> np.ndarray:
        """A column of the input by name, one text per observation [N] (None = blank).

        Raises:
            DataError: Where there is no such column.
        """
        if name in self.descriptions:
            return self.descriptions[name]()
        if name in self.conditions.columns:
            texts = [cell_text(cell) for cell in self.conditions[name]]
            return np.array(texts, dtype=object)[self.sample_index]
        regions = {"region_id": self.region_id, "chrom": self.chrom, "gene_id": self.gene_id}
        if name in regions:
            return regions[name][self.region_index]
        if name == "sample_id":
            return self.sample_id[self.sample_index]
        known = ", ".join([*self.descriptions, *self.conditions.columns, *regions, "sample_id"])
        raise DataError(Problem(f"has no column {name!r}", f"known: {known}", file=self.source))

    def match_targets(self, names: list[str]) -> None:
        """Give a table without any target blank ones for a model of other targets.

        Raises:
            DataError: Where the table has measured targets, and another number of them.
        """
        if len(self.target_names) != len(names) and self.measured.any():
            what = (
                f"has {len(self.target_names)} targets, and the model was trained on {len(names)}"
            )
            fix = "name them as data.target_columns, or add expression_minus"
            raise DataError(Problem(what, fix, file=self.source))
        if len(self.target_names) != len(names):
            self.target = np.full((self.num_observations, len(names)), np.nan, dtype=np.float32)
        self.target_names = names

    def log_summary(self) -> None:
        """Say what was read: sizes, the role of every column, warnings."""
        log.info(
            "%s: %d regions, %d samples, %d observations, %d of them measured",
            self.source, self.num_regions, self.num_samples, self.num_observations,
            int(self.measured.sum()),
        )  # fmt: skip
        for role, columns in self.roles.items():
            more = f", ... ({len(columns)})" if len(columns) > 6 else ""
            log.info("  %s: %s%s", role, ", ".join(columns[:6]), more)
        for line in self.warnings:
            log.warning("warning: %s", line)


def regions_only(data: ExpressionData) -> ExpressionData:
    """The regions of a table without expression, for masked pretraining.

    One observation per region, or one per region and sample where accessibility differs by sample;
    region-major, each with one target that counts as measured and means nothing.
    """
    per_sample = data.accessibility is not None and data.accessibility.ndim == 2
    samples = data.num_samples if per_sample else 1
    region_index = np.repeat(np.arange(data.num_regions, dtype=np.int32), samples)
    return replace(
        data,
        sample_id=data.sample_id[:samples],
        conditions=data.conditions.iloc[:samples],
        region_index=region_index,
        sample_index=np.tile(np.arange(samples, dtype=np.int32), data.num_regions),
        target=np.zeros((len(region_index), 1), dtype=np.float32),
        target_names=["target"],
        row=np.repeat(_first_rows(data), samples),
        descriptions={},
        is_grid=True,
    )


def _first_rows(data: ExpressionData) -> np.ndarray:
    """Row of the file in which each region first stands [P]; 0 where it has no observation."""
    rows = np.zeros(data.num_regions, dtype=np.int64)
    rows[data.region_index[::-1]] = data.row[::-1]
    return rows


def load_expression_data(
    settings: Settings, need_target: bool = True, need_samples: bool = True
) -> ExpressionData:
    """Read the table that `data.path` names.

    Args:
        settings: The `data` and `conditions` sections are read.
        need_target: Whether a table without any target is an error.
        need_samples: Whether a folder or workbook that holds regions alone is an error.

    Raises:
        DataError: With one problem per bad cell, column or row.
    """
    config = settings.data
    if config.path is None:
        raise DataError(Problem("no table is named", "give --data or set data.path"))
    path, fields = Path(config.path), fields_from_config(settings.conditions)
    if is_zarr_store(path):
        raw, config = read_store(path, config, fields, need_target)
    else:
        raw = read_tables(path, config.sheet, config.decimal, need_samples)
    if "long" in raw.tables:
        data = _build_or_skip(raw, fields, config, need_target)
    else:
        data = _build_from_folder(raw, fields, config, need_target)
    if not data.motif.shape[1] and data.accessibility is None:
        what = "has no motif scores, region features or accessibility"
        fix = "name the motif scores as data.motif_columns"
        raise DataError(Problem(what, fix, file=data.source))
    data.warnings += _patterns_without_a_column(raw, settings.data)
    if settings.data.feature_names != raw.names_file:
        data.warnings.append("data.feature_names is not used: the features of the input have names")
    data.warnings += _constant_columns(data)
    return data


def _patterns_without_a_column(raw: RawTables, config: DataConfig) -> list[str]:
    headers = [column for table in raw.tables.values() for column in table.frame.columns]
    headers += raw.descriptions
    lists = {
        "motif_columns": config.motif_columns,
        "region_feature_columns": config.region_feature_columns,
        "description_columns": config.description_columns,
    }
    return [
        f"data.{key} names {pattern}, which no column matches"
        for key, patterns in lists.items()
        for pattern in patterns
        if not any(matches(header, [pattern]) for header in headers)
    ]


def _build_or_skip(
    raw: RawTables, fields: list[ConditionField], config: DataConfig, need_target: bool
) -> ExpressionData:
    """Build from a long table; with `on_bad_row: skip` leave out the rows that have problems."""
    skipped: list[Problem] = []
    while True:
        try:
            data = _build_from_long(raw, fields, config, need_target)
            break
        except DataError as error:
            rows = {problem.row for problem in error.problems if (problem.row or 0) > 1}
            all_have_rows = all((problem.row or 0) > 1 for problem in error.problems)
            too_many = len(rows) + len({p.row for p in skipped}) > config.max_skipped
            too_many |= len(rows) == len(raw.tables["long"].frame)
            if config.on_bad_row == "error" or not all_have_rows or too_many:
                raise
            skipped += error.problems
            table = raw.tables["long"]
            raw.tables["long"] = RawTable(
                table.frame.drop(index=list(rows)), table.file, table.sheet
            )
    for problem in skipped:
        log.warning("row left out: %s", problem)
    if skipped:
        number = len({problem.row for problem in skipped})
        data.warnings.append(
            f"{number} rows had problems and were left out (data.on_bad_row: skip)"
        )
    return data


# ------------------------------------------------------------------------------------ long table


def _build_from_long(
    raw: RawTables, fields: list[ConditionField], config: DataConfig, need_target: bool
) -> ExpressionData:
    table = raw.tables["long"]
    roles = assign_roles(table, config, fields, ("region", "sample", "target"))
    table.need(roles.region_id, "region_id (or peak_id)")
    if need_target:
        wanted = " and no column ".join(config.target_columns) or "target"
        table.need(roles.targets[0] if roles.targets else None, wanted)
    problems: list[Problem] = []
    regions = table.text(roles.region_id or "")
    problems += _blank_ids(table, regions, roles.region_id or "")
    target, bad = _columns(table, roles.targets)
    problems += bad
    conditions, bad, warnings = _read_condition_columns(table, roles, fields)
    problems += bad
    if problems:
        raise DataError(problems)

    region_index, region_rows = _codes(regions)
    sample_index, sample_ids, sample_rows = _long_samples(table, roles, conditions, region_index)
    motif = _constant_per_region(table, roles, region_index, region_rows)
    return ExpressionData(
        source=raw.source,
        fingerprint=raw.fingerprint,
        motif=motif,
        motif_names=roles.motifs,
        region_feature_names=roles.region_features,
        accessibility=_long_accessibility(
            table, roles, region_index, sample_index, len(region_rows), len(sample_ids)
        ),
        region_id=regions[region_rows],
        **_region_columns(table, roles, regions, region_rows),
        sample_id=sample_ids,
        conditions=conditions.iloc[sample_rows].reset_index(drop=True),
        fields=[each for each in fields if not each.dropped],
        region_index=region_index,
        sample_index=sample_index,
        target=target if roles.targets else np.full((len(regions), 1), np.nan, np.float32),
        target_names=_target_names(len(roles.targets)),
        row=table.frame.index.to_numpy(np.int64),
        descriptions={name: _later(table, name, None) for name in roles.descriptions},
        is_grid=False,
        roles=roles.named(),
        warnings=warnings,
    )


def _long_samples(
    table: RawTable, roles: Roles, conditions: pd.DataFrame, region_index: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sample of every row: index [N], ids [S], and the first row of each sample [S].

    A row without a sample id belongs to the sample (its condition signature, k-th occurrence of
    its region under it), which is named after the two.
    """
    signature = signatures(conditions)
    given = (
        table.text(roles.sample_id)
        if roles.sample_id is not None
        else np.full(len(signature), None, dtype=object)
    )
    unnamed = np.array([each is None for each in given], dtype=bool)
    frame = pd.DataFrame({"region": region_index, "signature": signature})[unnamed]
    occurrence = frame.groupby(["region", "signature"]).cumcount().to_numpy() + 1
    names = given.copy()
    names[unnamed] = [
        f"condition_{value & 0xFFFFFFFF:08x}_{k}"
        for value, k in zip(signature[unnamed], occurrence, strict=True)
    ]
    index, first = _codes(names)
    differs = signature != signature[first][index]
    if differs.any():
        raise DataError(
            [
                table.problem(
                    f"sample {names[i]!r} has other conditions here than in row "
                    f"{table.frame.index[first[index[i]]]}",
                    "one sample has one set of conditions",
                    table.frame.index[i],
                )
                for i in np.flatnonzero(differs)
            ]
        )
    cell = region_index.astype(np.int64) * len(first) + index
    twice = pd.Series(cell).duplicated().to_numpy()
    if twice.any():
        raise DataError(
            [
                table.problem(
                    "the same region stands twice in one sample",
                    "give replicates sample ids of their own, or delete one row",
                    row,
                )
                for row in table.frame.index[twice]
            ]
        )
    return index, names[first], first


def _constant_per_region(
    table: RawTable, roles: Roles, region_index: np.ndarray, region_rows: np.ndarray
) -> np.ndarray:
    """Motifs and other region features [P,M+F]; the rows of one region must agree."""
    names = [*roles.motifs, *roles.region_features]
    out = np.empty((len(region_rows), len(names)), dtype=np.float32)
    problems: list[Problem] = []
    for j, name in enumerate(names):
        values, bad = table.numbers(name)
        problems += bad
        first = values[region_rows]
        repeated = first[region_index]
        differs = (values != repeated) & ~(np.isnan(values) & np.isnan(repeated))
        problems += [
            table.problem(
                f"{values[i]:g} here and {repeated[i]:g} in row "
                f"{table.frame.index[region_rows[region_index[i]]]} for the same region",
                "a motif score or region feature is the same in every row of a region",
                table.frame.index[i],
                name,
            )
            for i in np.flatnonzero(differs)
        ]
        out[:, j] = first
    if problems:
        raise DataError(problems)
    return out


def _long_accessibility(
    table: RawTable,
    roles: Roles,
    region_index: np.ndarray,
    sample_index: np.ndarray,
    num_regions: int,
    num_samples: int,
) -> np.ndarray | None:
    """[P] where the rows of a region agree, else [P,S]."""
    if roles.accessibility is None:
        return None
    values, problems = table.numbers(roles.accessibility)
    if problems:
        raise DataError(problems)
    per_region = np.full(num_regions, np.nan, dtype=np.float32)
    per_region[region_index[::-1]] = values[::-1]
    repeated = per_region[region_index].astype(np.float64)
    same = np.isclose(values, repeated, rtol=1e-6, atol=0, equal_nan=True)
    if same.all():
        return per_region
    per_cell = np.full((num_regions, num_samples), np.nan, dtype=np.float32)
    per_cell[region_index, sample_index] = values
    return per_cell


# ---------------------------------------------------------------------------------------- folder


def _build_from_folder(
    raw: RawTables, fields: list[ConditionField], config: DataConfig, need_target: bool
) -> ExpressionData:
    regions, samples = raw.tables["regions"], raw.tables["samples"]
    region_roles = assign_roles(regions, config, fields, ("region",))
    sample_roles = assign_roles(samples, config, fields, ("sample",))
    regions.need(region_roles.region_id, "region_id")
    samples.need(sample_roles.sample_id, "sample_id")
    region_ids = regions.text(region_roles.region_id or "")
    sample_ids = samples.text(sample_roles.sample_id or "")
    problems = _unique_ids(regions, region_ids, region_roles.region_id or "")
    problems += _unique_ids(samples, sample_ids, sample_roles.sample_id or "")
    conditions, bad, warnings = _read_condition_columns(samples, sample_roles, fields)
    warnings += raw.warnings
    problems += bad
    motif, bad = _columns(regions, [*region_roles.motifs, *region_roles.region_features])
    problems += bad
    if problems:
        raise DataError(problems)

    if need_target and "expression" not in raw.tables:
        what = "has no expression table"
        raise DataError(Problem(what, "add expression.csv", file=raw.source))
    names, target, rows, said = _folder_targets(raw, region_ids, sample_ids)
    warnings += said
    region_index = np.repeat(np.arange(len(region_ids), dtype=np.int32), len(sample_ids))
    sample_index = np.tile(np.arange(len(sample_ids), dtype=np.int32), len(region_ids))
    accessibility, said = _folder_accessibility(raw, region_roles, region_ids, sample_ids)
    warnings += said
    if "genes" in raw.tables:
        warnings.append("genes is not used: scores are per region in this version")
    roles = region_roles.named() | sample_roles.named() | {"target": names} | raw.roles
    return ExpressionData(
        source=raw.source,
        fingerprint=raw.fingerprint,
        motif=motif,
        motif_names=region_roles.motifs,
        region_feature_names=region_roles.region_features,
        accessibility=accessibility,
        region_id=region_ids,
        **_region_columns(regions, region_roles, region_ids, np.arange(len(region_ids))),
        sample_id=sample_ids,
        conditions=conditions.reset_index(drop=True),
        fields=[each for each in fields if not each.dropped],
        region_index=region_index,
        sample_index=sample_index,
        target=target,
        target_names=_target_names(len(names)),
        row=np.repeat(rows, len(sample_ids)),
        descriptions={n: _later(regions, n, region_index) for n in region_roles.descriptions}
        | {n: _later(samples, n, sample_index) for n in sample_roles.descriptions}
        | raw.descriptions,
        is_grid=True,
        roles={role: columns for role, columns in roles.items() if columns},
        warnings=warnings,
    )


def _folder_targets(
    raw: RawTables, region_ids: np.ndarray, sample_ids: np.ndarray
) -> tuple[list[str], np.ndarray, np.ndarray, list[str]]:
    """Names of the tables of targets, [N,T] targets, row of each region [P], and warnings."""
    names: list[str] = [n for n in ("expression", "expression_minus") if n in raw.tables]
    matrices, rows = [], np.zeros(len(region_ids), dtype=np.int64)
    warnings: list[str] = []
    for name in names:
        matrix, matrix_rows, said = _wide_matrix(raw.tables[name], region_ids, sample_ids)
        matrices.append(matrix.reshape(-1))
        rows = matrix_rows if name == "expression" else rows
        warnings += said
    count = len(region_ids) * len(sample_ids)
    target = np.stack(matrices, axis=1) if matrices else np.full((count, 1), np.nan, np.float32)
    return names, target, rows, warnings


def _wide_matrix(
    table: RawTable, region_ids: np.ndarray, sample_ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """A table of regions by samples, joined by id.

    Returns:
        [P,S] float32 with NaN for blank or absent cells; the row number of each region [P], 0
        where it has none; and warnings.
    """
    id_column = next((c for c in table.frame.columns if fold(c) in REGION_ID_HEADERS), None)
    table.need(id_column, "region_id")
    ids = table.text(id_column or "")
    columns = [column for column in table.frame.columns if column != id_column]
    problems = _unique_ids(table, ids, id_column or "")
    region_of = {name: i for i, name in enumerate(region_ids)}
    sample_of = {name: i for i, name in enumerate(sample_ids)}
    problems += [
        table.problem(f"region {name!r} is not in regions", "add it there or delete the row", row)
        for row, name in zip(table.frame.index, ids, strict=True)
        if name is not None and name not in region_of
    ]
    problems += [
        table.problem("is a sample that is not in samples", "add it there", row=1, column=name)
        for name in columns
        if name not in sample_of
    ]
    values, bad = _columns(table, columns)
    problems += bad
    if problems:
        raise DataError(problems)
    matrix = np.full((len(region_ids), len(sample_ids)), np.nan, dtype=np.float32)
    at_region = np.array([region_of[name] for name in ids])
    at_sample = np.array([sample_of[name] for name in columns], dtype=np.int64)
    matrix[np.ix_(at_region, at_sample)] = values
    rows = np.zeros(len(region_ids), dtype=np.int64)
    rows[at_region] = table.frame.index
    said = []
    absent_regions, absent_samples = len(region_ids) - len(ids), len(sample_ids) - len(columns)
    if absent_regions or absent_samples:
        said.append(
            f"{table.file}: {absent_regions} regions and {absent_samples} samples are not in it "
            "and count as not measured"
        )
    return matrix, rows, said


def _folder_accessibility(
    raw: RawTables, roles: Roles, region_ids: np.ndarray, sample_ids: np.ndarray
) -> tuple[np.ndarray | None, list[str]]:
    """[P,S] from its own table, else [P] from a column of regions, else None."""
    if "accessibility" in raw.tables:
        matrix, _, said = _wide_matrix(raw.tables["accessibility"], region_ids, sample_ids)
        if roles.accessibility is not None:
            said.append("accessibility is taken from its own table, not from regions")
        return matrix, said
    if roles.accessibility is None:
        return None, []
    values, problems = raw.tables["regions"].numbers(roles.accessibility)
    if problems:
        raise DataError(problems)
    return values.astype(np.float32), []


# ---------------------------------------------------------------------------------------- pieces


def _columns(table: RawTable, names: Sequence[str]) -> tuple[np.ndarray, list[Problem]]:
    """Numeric columns as float32 [rows, columns], and a problem per cell that is none."""
    out = np.empty((len(table.frame), len(names)), dtype=np.float32)
    problems: list[Problem] = []
    for j, name in enumerate(names):
        values, bad = table.numbers(name)
        out[:, j] = values
        problems += bad
    return out, problems


def _codes(names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Code of each name in order of first appearance [N] int32, and the first row of each."""
    codes, uniques = pd.factorize(names)
    first = np.full(len(uniques), len(names), dtype=np.int64)
    np.minimum.at(first, codes, np.arange(len(names)))
    return codes.astype(np.int32), first


def _blank_ids(table: RawTable, ids: np.ndarray, column: str) -> list[Problem]:
    blank = np.array([each is None for each in ids], dtype=bool)
    return [
        table.problem("is blank", "every row needs it", row, column)
        for row in table.frame.index[blank]
    ]


def _unique_ids(table: RawTable, ids: np.ndarray, column: str) -> list[Problem]:
    twice = pd.Series(ids).duplicated().to_numpy() & np.array([each is not None for each in ids])
    rows = table.frame.index[twice]
    return _blank_ids(table, ids, column) + table.problems(
        rows, column, ids[twice], "{value} stands twice", "ids are unique; delete or rename one"
    )


def _read_condition_columns(
    table: RawTable, roles: Roles, fields: list[ConditionField]
) -> tuple[pd.DataFrame, list[Problem], list[str]]:
    """The conditions of every row, one-hot columns folded back first."""
    problems: list[Problem] = []
    columns = dict(roles.conditions)
    frame = table.frame[list(columns.values())].copy()
    for name, words in roles.one_hot.items():
        frame[name], bad = fold_one_hot(table, name, words)
        problems += bad
        columns[name] = name
    whole = RawTable(frame, table.file, table.sheet)
    kept = [each for each in fields if not each.dropped]
    conditions, bad, warnings = read_conditions(whole, columns, kept)
    return conditions, problems + bad, warnings


def _region_columns(
    table: RawTable, roles: Roles, region_ids: np.ndarray, rows: np.ndarray
) -> dict[str, np.ndarray]:
    """Coordinates and genes [P], from columns or from ids such as `chrII_703665_704061`."""
    none = np.full(len(rows), None, dtype=object)
    matches = [_COORDINATES.match(region_ids[row]) for row in rows]
    out: dict[str, Any] = {}
    out["chrom"] = (
        table.text(roles.region["chrom"])[rows]
        if "chrom" in roles.region
        else np.array([m["chrom"] if m else None for m in matches], dtype=object)
    )
    for name in ("start", "end"):
        if name in roles.region:
            values, problems = table.numbers(roles.region[name])
            if problems:
                raise DataError(problems)
            out[name] = values[rows]
        else:
            out[name] = np.array([float(m[name]) if m else np.nan for m in matches])
    out["gene_id"] = (
        table.text(roles.region["gene_id"])[rows] if "gene_id" in roles.region else none
    )
    return out


def _target_names(count: int) -> list[str]:
    return ["plus", "minus"] if count == 2 else ["target"]


def _later(table: RawTable, name: str, index: np.ndarray | None) -> Callable[[], np.ndarray]:
    """A description column, read only if somebody asks for it."""

    def read() -> np.ndarray:
        values = table.text(name)
        return values if index is None else values[index]

    return read


def _constant_columns(data: ExpressionData) -> list[str]:
    """What is the same everywhere can teach nothing."""
    said = []
    names = [*data.motif_names, *data.region_feature_names]
    if data.num_regions > 1 and names:
        low, high = _nan_range(data.motif)
        constant = [name for name, same in zip(names, low == high, strict=True) if same]
        if constant:
            more = f" and {len(constant) - 8} more" if len(constant) > 8 else ""
            some = ", ".join(constant[:8])
            said.append(f"{len(constant)} region features are constant: {some}{more}")
    if data.accessibility is not None:
        low, high = _nan_range(data.accessibility.reshape(-1, 1))
        if (low == high).all():
            said.append(f"accessibility is {low[0]:g} everywhere")
    for each in data.fields:
        values = data.conditions[each.name]
        if values.notna().all() and values.nunique() == 1:
            value = values.iloc[0]
            shown = value if isinstance(value, str) else f"{value:g}"
            said.append(f"condition {each.name} is {shown} in every sample")
    blank = int(data.conditions.isna().all(axis=1).sum())
    if blank and not data.conditions.isna().all(axis=None):
        some = ", ".join(data.sample_id[data.conditions.isna().all(axis=1)][:5])
        said.append(f"{blank} samples have no recorded condition: {some}")
    return said


def _nan_range(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest number of each column, NaN left out."""
    blank = np.isnan(values)
    return np.where(blank, np.inf, values).min(axis=0), np.where(blank, -np.inf, values).max(axis=0)
