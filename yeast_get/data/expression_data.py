"""ExpressionData: regions, samples and the observations that join them.

Every input becomes this, factorised because a promoter's motif vector is the same under every
condition. Nothing after this module knows which kind of file the data came from.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
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
from yeast_get.data.findings import Finding, Findings, counted
from yeast_get.data.gene_map import GeneMap
from yeast_get.data.long_table import JoinedRows, check_regions, check_samples
from yeast_get.data.raw_table import RawTable
from yeast_get.data.roles import Roles, assign_roles, matches
from yeast_get.data.tables import TEXT_HEADERS, RawTables, read_tables
from yeast_get.data.wide_table import WideMatrix
from yeast_get.data.zarr_store import is_zarr_store, read_store
from yeast_get.errors import DataError, Problem

log = logging.getLogger(__name__)

REGION_LENGTH = "region_length"
"""Name of the feature that `data.region_length` makes."""

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
        row: [N] int64 (int32 of a folder), row number in the source file (header = row 1); in a
            folder, of the region in its table; in a zarr store, which region of the store it is,
            counted from 1.
        descriptions: Values of description columns by name, each [N].
        is_grid: Whether the observations are every region times every sample, region-major.
        roles: Role -> columns, as assigned.
        given: Names of the condition fields that have a column.
        unused: Columns whose role is not known, of a table to predict.
        genes: Which regions drive which gene; None without such a table.
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
    unused: list[str]
    genes: GeneMap | None
    findings: Findings = field(default_factory=Findings)

    def __post_init__(self) -> None:
        self.field_hash = field_hashes(self.conditions)  # [S,fields] int64, 0 = not recorded
        self.signature = self.field_hash.sum(axis=1, dtype=np.int64)  # [S]
        _, self.condition_first, condition = np.unique(  # [C] the first sample of each condition
            self.signature, return_index=True, return_inverse=True
        )
        self.condition = condition.reshape(-1)  # [S] codes 0.., which condition a sample has
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
    def target_suffixes(self) -> list[str]:
        """What follows the name of a column of each target in an output table, T texts."""
        return [""] if len(self.target_names) == 1 else [f"_{name}" for name in self.target_names]

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
        texts = partial(_is_text, _text_headers(fields), config.description_columns)
        raw = read_tables(path, config, texts, need_samples)
    build = _build_from_long if "long" in raw.tables else _build_from_folder
    data = build(raw, fields, config, need_target)
    if config.region_length:
        _add_length(data)
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


def _add_length(data: ExpressionData) -> None:
    """The length of each region as its last feature."""
    length = data.end - data.start
    what, fix = None, "set data.region_length: false"
    if REGION_LENGTH in (*data.motif_names, *data.region_feature_names):
        what = (
            f"has a column {REGION_LENGTH}, which data.region_length: true makes of start and end"
        )
    elif not np.isfinite(length).any():
        what = "has no region with a start and an end, and data.region_length is true"
        fix = f"add the columns start and end, or {fix} and train anew"
    if what is not None:
        raise DataError(Problem(what, fix, file=data.source))
    data.motif = np.column_stack((data.motif, length.astype(np.float32)))
    data.region_feature_names = [*data.region_feature_names, REGION_LENGTH]
    said = f"{REGION_LENGTH} (of start and end)"
    data.roles["region features"] = [*data.roles.get("region features", []), said]


def _text_headers(fields: list[ConditionField]) -> set[str]:
    """Folded headers of the columns that are text whatever they look like."""
    return {*TEXT_HEADERS, *headers_of([each for each in fields if each.is_text])}


def _is_text(headers: set[str], described: Sequence[str], header: str) -> bool:
    return fold_header(header) in headers or matches(header, described)


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


def _settle(tables: Sequence[RawTable], config: DataConfig) -> None:
    """Refuse tables with errors, or count the rows that are left out, as the YAML asks.

    Raises:
        DataError: With everything that was found so far.
    """
    findings = tables[0].findings
    if not findings.errors:
        return
    if config.on_bad_row == "error" or not findings.can_be_skipped:
        findings.raise_errors()
    left_out = 0
    for table in tables:
        bad = len(findings.bad_rows(table.file, table.sheet))
        rows = len(table.frame) + len(table.lost)
        left_out += bad
        if bad > config.max_skipped * rows or bad >= rows:
            table.error(
                "too many bad rows",
                f"{bad} of {rows} rows have errors, and data.max_skipped is {config.max_skipped:g}",
                "mend the table; few rows may be left out, not many",
            )
            findings.raise_errors()
    findings.left_out = left_out
    said = f"{counted(left_out, 'row')} with errors left out (data.on_bad_row: skip)"
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
    table.check_ids(regions, roles.region_id or "")
    target = _targets(table, roles, config, need_target)
    conditions = _read_condition_columns(table, roles, fields)
    _check_cells(table, roles)
    signature = signatures(conditions)
    drop_copies = config.drop_duplicates and need_target  # a prediction has a row for every row
    joined = JoinedRows(table, roles, regions, signature, drop_copies, target)
    check_regions(table, roles, regions, joined)
    check_samples(table, roles, fields, conditions, signature, joined)
    if findings.errors:
        _settle([table], config)
        joined = JoinedRows(table, roles, regions, signature, drop_copies, target)
    joined.say_repeats(table, target)
    rows = joined.rows
    region_rows, sample_rows = rows[joined.region_first], rows[joined.sample_first]
    return ExpressionData(
        source=raw.source,
        fingerprint=raw.fingerprint,
        motif=table.matrix([*roles.motifs, *roles.region_features], region_rows),
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
        unused=roles.unused,
        genes=None,
        findings=findings,
    )


_WANTED_ID = "region_id (or peak_id)"


def _targets(table: RawTable, roles: Roles, config: DataConfig, need_target: bool) -> np.ndarray:
    """[rows,T] float32; a blank one is an error in training, unless the YAML expects it."""
    if not roles.targets:
        return np.full((len(table.frame), 1), np.nan, dtype=np.float32)
    target = table.matrix(roles.targets)
    for j, name in enumerate(roles.targets if need_target else []):
        blank = np.isnan(target[:, j]) & table.good(name)
        if config.drop_missing_target:
            said = "no target: predicted, never trained on or scored"
            table.findings.normalise(name, said, int((blank & table.good()).sum()))
        else:
            fix = "fill it in, delete the row, or set data.drop_missing_target: true"
            table.error("missing target", "is blank", fix, column=name, where=blank)
    return target


def _check_cells(table: RawTable, roles: Roles) -> None:
    """Every number that describes a region is a number, and accessibility is not negative."""
    places = [roles.region[name] for name in ("start", "end") if name in roles.region]
    for name in (*roles.motifs, *roles.region_features, *places):
        table.numbers(name)
    if roles.accessibility is not None:
        table.refuse_negative(roles.accessibility)
    features = [*roles.motifs, *roles.region_features]
    features += [roles.accessibility] if roles.accessibility else []
    blank = table.good()
    for name in features if len(features) > 1 else ():
        blank &= np.isnan(table.numbers(name))
        if not blank.any():
            return
    table.error(
        "note row",
        "'{value}' has no motif score, region feature or accessibility at all",
        "is it a note or a total below the table? delete it",
        column=roles.region_id,
        where=blank & (len(features) > 1),
    )


def _long_accessibility(table: RawTable, roles: Roles, joined: JoinedRows) -> np.ndarray | None:
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
    regions.check_ids(all_regions, region_roles.region_id or "", unique=True)
    samples.check_ids(all_samples, sample_roles.sample_id or "", unique=True)
    conditions = _read_condition_columns(samples, sample_roles, fields)
    _check_cells(regions, region_roles)
    if need_target and "expression" not in raw.tables:
        findings.add(Finding("error", "missing table", "has no expression table",
                             "add expression.csv", raw.source))  # fmt: skip
    wide: dict[str, WideMatrix] = {
        name: WideMatrix(raw.tables[name], all_regions, all_samples, samples.lost)
        for name in ("expression", "expression_minus", "accessibility")
        if name in raw.tables
    }
    if "accessibility" in wide:
        wide["accessibility"].refuse_negative()
    genes = GeneMap.read(raw.tables["genes"], all_regions) if "genes" in raw.tables else None
    if findings.errors:
        _settle(list(raw.tables.values()), config)
    region_rows, sample_rows = np.flatnonzero(regions.good()), np.flatnonzero(samples.good())
    region_ids, sample_ids = all_regions[region_rows], all_samples[sample_rows]
    names, target, rows = _folder_targets(wide, region_rows, sample_rows)
    region_index = np.repeat(np.arange(len(region_ids), dtype=np.int32), len(sample_ids))
    sample_index = np.tile(np.arange(len(sample_ids), dtype=np.int32), len(region_ids))
    roles = region_roles.named() | sample_roles.named() | {"target": names} | raw.roles
    features = [*region_roles.motifs, *region_roles.region_features]
    return ExpressionData(
        source=raw.source,
        fingerprint=raw.fingerprint,
        motif=regions.matrix(features, region_rows),
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
        row=np.repeat(rows.astype(np.int32), len(sample_ids)),
        descriptions={
            n: _later(regions, n, region_rows[region_index]) for n in region_roles.descriptions
        }
        | {n: _later(samples, n, sample_rows[sample_index]) for n in sample_roles.descriptions}
        | raw.descriptions,
        is_grid=True,
        roles={role: columns for role, columns in roles.items() if columns},
        given={*sample_roles.conditions, *sample_roles.one_hot},
        unused=[*region_roles.unused, *sample_roles.unused],
        genes=None if genes is None else genes.among(region_ids),
        findings=findings,
    )


def _folder_targets(
    wide: dict[str, WideMatrix], region_rows: np.ndarray, sample_rows: np.ndarray
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
    wide: dict[str, WideMatrix],
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
    return partial(_read_later, table, name, index)


def _read_later(table: RawTable, name: str, index: np.ndarray) -> np.ndarray:
    return table.text(name)[index]
