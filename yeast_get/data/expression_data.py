"""ExpressionData: regions, samples and the observations that join them.

Every input becomes this, factorised because a promoter's motif vector is the same under every
condition. Nothing after this module knows which kind of file the data came from.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from yeast_get.config import DataConfig, Settings
from yeast_get.data.checks import check_data
from yeast_get.data.condition_values import fold_one_hot, read_conditions
from yeast_get.data.conditions import (
    ConditionField,
    cell_text,
    field_hashes,
    fields_from_config,
    fold_header,
    headers_of,
    signatures,
    stable_hash,
)
from yeast_get.data.findings import Finding, Findings, cell_as_text
from yeast_get.data.raw_table import RawTable
from yeast_get.data.roles import Roles, assign_roles, matches
from yeast_get.data.tables import REGION_ID_HEADERS, TEXT_HEADERS, RawTables, read_tables
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
        given: Names of the condition fields that have a column.
        findings: What was odd, what was normalised, which rows were left out.
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
    given: set[str]
    findings: Findings = field(default_factory=Findings)

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
    def warnings(self) -> list[str]:
        """What the user should know about the table, a line each."""
        return [finding.line() for finding in self.findings.warnings]

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
        for line in self.findings.lines():
            log.info("%s", line)


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
        config = config.model_copy(update={"on_bad_row": "error"})  # a store has no rows to skip
    else:
        raw = read_tables(path, config, partial(_is_text, _text_headers(fields)), need_samples)
    build = _build_from_long if "long" in raw.tables else _build_from_folder
    data = build(raw, fields, config, need_target)
    if not data.motif.shape[1] and data.accessibility is None:
        what = "has no motif scores, region features or accessibility"
        fix = "name the motif scores as data.motif_columns"
        raise DataError(Problem(what, fix, file=data.source))
    for line in _patterns_without_a_column(raw, settings.data):
        data.findings.warn("unused setting", line)
    if settings.data.feature_names != raw.names_file:
        said = "data.feature_names is not used: the features of the input have names"
        data.findings.warn("unused setting", said)
    check_data(data, settings.data)
    return data


def _text_headers(fields: list[ConditionField]) -> set[str]:
    """Folded headers of the columns that are text whatever they look like."""
    return {*TEXT_HEADERS, *headers_of([each for each in fields if each.is_text])}


def _is_text(headers: set[str], header: str) -> bool:
    return fold_header(header) in headers


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


def _settle(tables: Iterable[RawTable], config: DataConfig) -> None:
    """Refuse tables with errors, or count the rows that are left out, as the YAML asks.

    Raises:
        DataError: With everything that was found so far.
    """
    findings = next(iter(tables := list(tables))).findings
    if not findings.errors:
        return
    if config.on_bad_row == "error" or not findings.can_be_skipped:
        findings.raise_errors()
    left_out = 0
    for table in tables:
        bad = len(findings.bad_rows(table.file, table.sheet))
        rows = len(table.frame) + table.rows_lost
        left_out += bad
        if bad > config.max_skipped * rows or bad >= rows:
            table.error(
                "too many bad rows",
                f"{bad} of {rows} rows have errors, and data.max_skipped is {config.max_skipped:g}",
                "mend the table; few rows may be left out, not many",
            )
            findings.raise_errors()
    findings.left_out = left_out
    said = f"{left_out} rows had errors and were left out (data.on_bad_row: skip)"
    findings.warn("rows left out", said)


# ------------------------------------------------------------------------------------ long table


def _build_from_long(
    raw: RawTables, fields: list[ConditionField], config: DataConfig, need_target: bool
) -> ExpressionData:
    table, findings = raw.tables["long"], raw.findings
    kinds = ("region", "sample", "target")
    roles = assign_roles(table, config, fields, kinds, extra_is_error=need_target)
    table.need(roles.region_id, _WANTED_ID)
    if need_target:
        wanted = " and no column ".join(config.target_columns) or "target"
        table.need(roles.targets[0] if roles.targets else None, wanted)
    regions = table.text(roles.region_id or "")
    _check_ids(table, regions, roles.region_id or "")
    target = _targets(table, roles, config, need_target)
    conditions = _read_condition_columns(table, roles, fields)
    _check_cells(table, roles)
    signature = signatures(conditions)
    joined = _Joined(table, roles, regions, signature, config.drop_duplicates, target)
    _check_regions(table, roles, joined)
    _check_samples(table, roles, conditions, signature, joined)
    if findings.errors:
        _settle([table], config)
        joined = _Joined(table, roles, regions, signature, config.drop_duplicates, target)
    joined.say_repeats(table, target)
    rows = joined.rows
    region_rows, sample_rows = rows[joined.region_first], rows[joined.sample_first]
    return ExpressionData(
        source=raw.source,
        fingerprint=raw.fingerprint,
        motif=_first_of_each(table, [*roles.motifs, *roles.region_features], region_rows),
        motif_names=roles.motifs,
        region_feature_names=roles.region_features,
        accessibility=_long_accessibility(table, roles, joined),
        region_id=regions[region_rows],
        **_region_columns(table, roles, regions, region_rows),
        sample_id=joined.sample_ids,
        conditions=conditions.iloc[sample_rows].reset_index(drop=True),
        fields=[each for each in fields if not each.dropped],
        region_index=joined.region,
        sample_index=joined.sample,
        target=target[rows],
        target_names=_target_names(len(roles.targets)),
        row=table.frame.index.to_numpy(np.int64)[rows],
        descriptions={name: _later(table, name, rows) for name in roles.descriptions},
        is_grid=False,
        roles=roles.named(),
        given={*roles.conditions, *roles.one_hot},
        findings=findings,
    )


_WANTED_ID = "region_id (or peak_id)"


def _targets(table: RawTable, roles: Roles, config: DataConfig, need_target: bool) -> np.ndarray:
    """[rows,T] float32; a blank one is an error in training, unless the YAML expects it."""
    if not roles.targets:
        return np.full((len(table.frame), 1), np.nan, dtype=np.float32)
    target = _columns(table, roles.targets)
    blank = np.isnan(target) & table.good()[:, None]
    for j, name in enumerate(roles.targets if need_target else []):
        if config.drop_missing_target:
            said = "no target: predicted, never trained on or scored"
            table.findings.normalise(name, said, int(blank[:, j].sum()))
        else:
            fix = "fill it in, delete the row, or set data.drop_missing_target: true"
            table.error("missing target", "is blank", fix, column=name, where=blank[:, j])
    return target


def _check_cells(table: RawTable, roles: Roles) -> None:
    """Every number that describes a region is a number, and accessibility is not negative."""
    places = [roles.region[name] for name in ("start", "end") if name in roles.region]
    for name in (*roles.motifs, *roles.region_features, *places):
        table.numbers(name)
    if roles.accessibility is not None:
        _check_accessibility(table, roles.accessibility)


def _check_accessibility(table: RawTable, column: str) -> None:
    with np.errstate(invalid="ignore"):
        negative = table.numbers(column) < 0
    table.error(
        "negative",
        "'{value}' is negative",
        "correct it; where it is a logarithm or a z-score, rename the column and declare it under "
        "data.region_feature_columns",
        column=column,
        where=negative,
    )


class _Joined:
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
        copy = pd.DataFrame(key).duplicated().to_numpy()
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
            deviation = _replicate_sd(self.region, self.base, target[self.rows])
            table.warn(
                "repeated cell",
                "the same region stands again in one sample; such rows count as replicates "
                f"(SD of their targets {deviation:.3g})",
                "give replicates sample ids of their own",
                column=None,
                where=self.rows[again],
            )


def _replicate_sd(region: np.ndarray, base: np.ndarray, target: np.ndarray) -> float:
    """Pooled SD of the first target within cells that stand more than once."""
    groups = pd.Series(target[:, 0].astype(np.float64)).groupby([region, base])
    squares, count = groups.var(ddof=0) * groups.count(), groups.count() - 1
    return float(np.sqrt(squares[count > 0].sum() / max(1, count[count > 0].sum())))


def _first(codes: np.ndarray, number: int) -> np.ndarray:
    """Position at which each code first stands [number]."""
    first = np.zeros(number, dtype=np.int64)
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
    return first


def _first_of_each(table: RawTable, names: Sequence[str], rows: np.ndarray) -> np.ndarray:
    """Numeric columns [len(rows), columns] float32, at these positions."""
    out = np.empty((len(rows), len(names)), dtype=np.float32)
    for j, name in enumerate(names):
        out[:, j] = table.numbers(name)[rows]
    return out


def _check_regions(table: RawTable, roles: Roles, joined: _Joined) -> None:
    """What describes a region is the same in all of its rows."""
    rows, region, first = joined.rows, joined.region, joined.region_first
    places = [roles.region[name] for name in ("start", "end") if name in roles.region]
    for name in (*roles.motifs, *roles.region_features, *places):
        values = table.numbers(name)[rows]
        repeated = values[first][region]
        differs = (values != repeated) & ~(np.isnan(values) & np.isnan(repeated))
        if differs.any():
            _say_differs(table, name, "region", values, region, differs, rows)
    for name in ("chrom", "gene_id"):
        if name in roles.region:
            codes = pd.factorize(table.text(roles.region[name])[rows])[0]
            differs = codes != codes[first][region]
            if differs.any():
                _say_differs(table, roles.region[name], "region", codes, region, differs, rows)


def _check_samples(
    table: RawTable,
    roles: Roles,
    conditions: pd.DataFrame,
    signature: np.ndarray,
    joined: _Joined,
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


def _long_accessibility(table: RawTable, roles: Roles, joined: _Joined) -> np.ndarray | None:
    """[P] where the rows of a region agree, else [P,S]."""
    if roles.accessibility is None:
        return None
    values = table.numbers(roles.accessibility)[joined.rows]
    per_region = values[joined.region_first].astype(np.float32)
    repeated = per_region[joined.region].astype(np.float64)
    if np.isclose(values, repeated, rtol=1e-6, atol=0, equal_nan=True).all():
        return per_region
    shape = (len(joined.region_first), len(joined.sample_ids))
    per_cell = np.full(shape, np.nan, dtype=np.float32)
    per_cell[joined.region, joined.sample] = values
    return per_cell


# ---------------------------------------------------------------------------------------- folder


def _build_from_folder(
    raw: RawTables, fields: list[ConditionField], config: DataConfig, need_target: bool
) -> ExpressionData:
    regions, samples, findings = raw.tables["regions"], raw.tables["samples"], raw.findings
    region_roles = assign_roles(regions, config, fields, ("region",), extra_is_error=need_target)
    sample_roles = assign_roles(samples, config, fields, ("sample",), extra_is_error=need_target)
    regions.need(region_roles.region_id, "region_id")
    samples.need(sample_roles.sample_id, "sample_id")
    all_regions = regions.text(region_roles.region_id or "")
    all_samples = samples.text(sample_roles.sample_id or "")
    _check_ids(regions, all_regions, region_roles.region_id or "", unique=True)
    _check_ids(samples, all_samples, sample_roles.sample_id or "", unique=True)
    conditions = _read_condition_columns(samples, sample_roles, fields)
    _check_cells(regions, region_roles)
    if need_target and "expression" not in raw.tables:
        findings.add(Finding("error", "missing table", "has no expression table",
                             "add expression.csv", raw.source))  # fmt: skip
    wide: dict[str, _WideMatrix] = {
        name: _WideMatrix(raw.tables[name], all_regions, all_samples)
        for name in ("expression", "expression_minus", "accessibility")
        if name in raw.tables
    }
    if "accessibility" in wide:
        wide["accessibility"].refuse_negative()
    if findings.errors:
        _settle(raw.tables.values(), config)
    region_rows, sample_rows = np.flatnonzero(regions.good()), np.flatnonzero(samples.good())
    region_ids, sample_ids = all_regions[region_rows], all_samples[sample_rows]
    names, target, rows = _folder_targets(wide, region_rows, sample_rows)
    region_index = np.repeat(np.arange(len(region_ids), dtype=np.int32), len(sample_ids))
    sample_index = np.tile(np.arange(len(sample_ids), dtype=np.int32), len(region_ids))
    if "genes" in raw.tables:
        said = "genes is not used: scores are per region in this version"
        findings.warn("unused table", said)
    roles = region_roles.named() | sample_roles.named() | {"target": names} | raw.roles
    features = [*region_roles.motifs, *region_roles.region_features]
    return ExpressionData(
        source=raw.source,
        fingerprint=raw.fingerprint,
        motif=_first_of_each(regions, features, region_rows),
        motif_names=region_roles.motifs,
        region_feature_names=region_roles.region_features,
        accessibility=_folder_accessibility(wide, regions, region_roles, region_rows, sample_rows),
        region_id=region_ids,
        **_region_columns(regions, region_roles, all_regions, region_rows),
        sample_id=sample_ids,
        conditions=conditions.iloc[sample_rows].reset_index(drop=True),
        fields=[each for each in fields if not each.dropped],
        region_index=region_index,
        sample_index=sample_index,
        target=target,
        target_names=_target_names(len(names)),
        row=np.repeat(rows, len(sample_ids)),
        descriptions={
            n: _later(regions, n, region_rows[region_index]) for n in region_roles.descriptions
        }
        | {n: _later(samples, n, sample_rows[sample_index]) for n in sample_roles.descriptions}
        | raw.descriptions,
        is_grid=True,
        roles={role: columns for role, columns in roles.items() if columns},
        given={*sample_roles.conditions, *sample_roles.one_hot},
        findings=findings,
    )


class _WideMatrix:
    """A table of regions by samples, joined by id to all regions and samples of a folder.

    Attributes:
        values: [P,S] float32 with NaN for blank or absent cells, and for rows with errors.
        rows: Row number of each region [P], 0 where it has none.
    """

    def __init__(self, table: RawTable, region_ids: np.ndarray, sample_ids: np.ndarray) -> None:
        self.table = table
        columns = list(table.frame.columns)
        id_column = next((c for c in columns if fold_header(c) in REGION_ID_HEADERS), None)
        table.need(id_column, "region_id")
        ids = table.text(id_column or "")
        names = [column for column in columns if column != id_column]
        self._refuse_turned(names, set(region_ids))
        _check_ids(table, ids, id_column or "", unique=True)
        known = pd.Index(region_ids).unique()
        strange = np.array([each is not None for each in ids]) & (known.get_indexer(ids) < 0)
        what = "region '{value}' is not in regions"
        fix = "add it there or delete the row"
        table.error("unknown region", what, fix, column=id_column, where=strange)
        of_sample = pd.Index(sample_ids).unique()
        at_sample = of_sample.get_indexer(pd.Index(names, dtype=object))
        for name in (name for name, at in zip(names, at_sample, strict=True) if at < 0):
            what = "is a sample that is not in samples"
            table.error("unknown sample", what, "add it there", row=1, column=name)
        cells = _columns(table, names)
        self.values = np.full((len(region_ids), len(sample_ids)), np.nan, dtype=np.float32)
        self.rows = np.zeros(len(region_ids), dtype=np.int64)
        if len(known) < len(region_ids) or len(of_sample) < len(sample_ids):
            return  # some id stands twice there, which is an error already
        good = np.flatnonzero(table.good() & ~strange)
        at = known.get_indexer(ids[good])
        here = at_sample >= 0
        self.values[np.ix_(at, at_sample[here])] = cells[np.ix_(good, np.flatnonzero(here))]
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
                f"{max(0, regions)} regions and {max(0, samples)} samples are not in it and count "
                "as not measured",
            )

    def refuse_negative(self) -> None:
        """Values below zero are errors."""
        for column in self.table.frame.columns:
            if pd.api.types.is_numeric_dtype(self.table.frame[column]):
                _check_accessibility(self.table, column)


def _folder_targets(
    wide: dict[str, _WideMatrix], region_rows: np.ndarray, sample_rows: np.ndarray
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names of the tables of targets, [N,T] targets, and row of each region [P]."""
    names: list[str] = [name for name in ("expression", "expression_minus") if name in wide]
    cells = np.ix_(region_rows, sample_rows)
    matrices = [wide[name].values[cells].reshape(-1) for name in names]
    rows = wide["expression"].rows[region_rows] if "expression" in wide else 0 * region_rows
    count = len(region_rows) * len(sample_rows)
    target = np.stack(matrices, axis=1) if matrices else np.full((count, 1), np.nan, np.float32)
    return names, target, rows


def _folder_accessibility(
    wide: dict[str, _WideMatrix],
    regions: RawTable,
    roles: Roles,
    region_rows: np.ndarray,
    sample_rows: np.ndarray,
) -> np.ndarray | None:
    """[P,S] from its own table, [P] where its samples agree or from a column of regions."""
    if "accessibility" in wide:
        if roles.accessibility is not None:
            said = "accessibility is taken from its own table, not from regions"
            regions.findings.warn("unused column", said)
        matrix: np.ndarray = wide["accessibility"].values[np.ix_(region_rows, sample_rows)]
        same = np.isclose(matrix, matrix[:, :1], rtol=1e-6, atol=0, equal_nan=True).all()
        return matrix[:, 0] if same else matrix
    if roles.accessibility is None:
        return None
    return regions.numbers(roles.accessibility)[region_rows].astype(np.float32)


# ---------------------------------------------------------------------------------------- pieces


def _columns(table: RawTable, names: Sequence[str]) -> np.ndarray:
    """Numeric columns as float32 [rows, columns]; what is no number becomes a finding."""
    return _first_of_each(table, names, np.arange(len(table.frame)))


def _check_ids(table: RawTable, ids: np.ndarray, column: str, unique: bool = False) -> None:
    """Every row has an id, where asked one of its own."""
    blank = np.array([each is None for each in ids], dtype=bool)
    table.error("blank id", "is blank", "every row needs it", column=column, where=blank)
    if unique:
        twice = pd.Series(ids).duplicated().to_numpy() & ~blank
        what, fix = "'{value}' stands twice", "ids are unique; delete or rename one"
        table.error("duplicate id", what, fix, column=column, where=twice)


def _read_condition_columns(
    table: RawTable, roles: Roles, fields: list[ConditionField]
) -> pd.DataFrame:
    """The conditions of every row, one-hot columns folded back first."""
    columns = dict(roles.conditions)
    frame = table.frame[list(columns.values())].copy()
    for name, words in roles.one_hot.items():
        frame[name] = fold_one_hot(table, name, words)
        columns[name] = name
    whole = RawTable(frame, table.file, table.sheet, table.decimal, table.findings)
    return read_conditions(whole, columns, [each for each in fields if not each.dropped])


def _region_columns(
    table: RawTable, roles: Roles, region_ids: np.ndarray, rows: np.ndarray
) -> dict[str, np.ndarray]:
    """Coordinates and genes [P], from columns or from ids such as `chrII_703665_704061`."""
    none = np.full(len(rows), None, dtype=object)
    matches = [_COORDINATES.match(region_id) for region_id in region_ids[rows]]
    out: dict[str, Any] = {}
    out["chrom"] = (
        table.text(roles.region["chrom"])[rows]
        if "chrom" in roles.region
        else np.array([m["chrom"] if m else None for m in matches], dtype=object)
    )
    for name in ("start", "end"):
        if name in roles.region:
            out[name] = table.numbers(roles.region[name])[rows]
        else:
            out[name] = np.array([float(m[name]) if m else np.nan for m in matches])
    out["gene_id"] = (
        table.text(roles.region["gene_id"])[rows] if "gene_id" in roles.region else none
    )
    return out


def _target_names(count: int) -> list[str]:
    return ["plus", "minus"] if count == 2 else ["target"]


def _later(table: RawTable, name: str, index: np.ndarray) -> Callable[[], np.ndarray]:
    """A description column, read only if somebody asks for it."""
    return lambda: table.text(name)[index]
