"""What the columns of a table are: ids, motifs, conditions, targets; by name, or as declared.

A column that is neither known nor declared is an error that shows the lines to write.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase

import pandas as pd

from yeast_get.config import DataConfig
from yeast_get.data.conditions import (
    FAMILIAR,
    ConditionField,
    fold_header,
    headers_of,
    match_columns,
    match_one_hot,
)
from yeast_get.data.findings import counted
from yeast_get.data.raw_table import RawTable
from yeast_get.data.tables import ACCESSIBILITY_HEADERS, REGION_ID_HEADERS, SAMPLE_ID_HEADERS

MOTIF_PATTERN = re.compile(
    r"^(MA\d{4}\.\d+([._].*)?|.+_MA\d{4}\.\d+|motif_.+|virtual_motif_.+)$", re.IGNORECASE
)
_FACTOR = re.compile(
    r"^(?P<matrix>MA\d{4})\.\d+([._](?P<after>.+))?$|^(?P<before>.+)_MA\d{4}\.\d+$", re.IGNORECASE
)
TARGET_HEADERS = ("target", "expression", "表达量")
STRAND_TARGET_HEADERS = ("target_plus", "target_minus")
REGION_HEADERS = {
    "chrom": ("chrom", "chr", "chromosome", "染色体"),
    "start": ("start", "起始"),
    "end": ("end", "终止"),
    "strand": ("strand", "链"),
    "gene_id": ("gene_id", "gene", "基因"),
    "gene_name": ("gene_name", "基因名"),
}
_SYSTEMATIC_NAME = re.compile(r"^(Y[A-P][LR]\d{3}[WC](-[A-Z])?|Q\d{4}|GSM\d+)$", re.IGNORECASE)


@dataclass
class Roles:
    """What the columns of one table are."""

    region_id: str | None = None
    sample_id: str | None = None
    motifs: list[str] = field(default_factory=list)
    region_features: list[str] = field(default_factory=list)
    accessibility: str | None = None
    region: dict[str, str] = field(default_factory=dict)
    conditions: dict[str, str] = field(default_factory=dict)  # field -> header
    one_hot: dict[str, dict[str, str]] = field(default_factory=dict)  # field -> header -> word
    dropped: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    descriptions: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def named(self) -> dict[str, list[str]]:
        """Role -> columns, for people."""
        single = {"region id": self.region_id, "sample id": self.sample_id}
        out = {role: [name] for role, name in single.items() if name}
        out["motifs"] = self.motifs
        out["region features"] = self.region_features
        if self.accessibility:
            out["accessibility"] = [self.accessibility]
        out["coordinates and genes"] = list(self.region.values())
        out["conditions"] = [
            name if name == header else f"{name} ({header})"
            for name, header in self.conditions.items()
        ] + [f"{name} ({', '.join(headers)})" for name, headers in self.one_hot.items()]
        out["target"] = self.targets
        out["descriptions, not used by the model"] = self.descriptions
        out["dropped in the YAML"] = self.dropped
        return {role: columns for role, columns in out.items() if columns}


def assign_roles(
    table: RawTable,
    config: DataConfig,
    fields: list[ConditionField],
    kinds: Sequence[str],
    extra_is_error: bool = True,
) -> Roles:
    """Give every column of a table its role; a column without one, or two with one, is an error.

    Args:
        table: The table; its findings are added to.
        config: Names and patterns that the YAML declares.
        fields: The condition fields.
        kinds: The roles that this table may hold: `region`, `sample`, `target`.
        extra_is_error: Whether a column without a role is an error, or is only left out.
    """
    roles, left = Roles(), _Left(table)
    roles.descriptions = left.take_matching(config.description_columns)
    if "target" in kinds:
        roles.targets = left.take_targets(config)
        absent = [name for name in config.target_columns if name not in roles.targets]
        if roles.targets and absent:
            table.need(None, " and no column ".join(absent))
    if "region" in kinds:
        roles.region_id = left.take(REGION_ID_HEADERS)
        roles.region_features = left.take_matching(config.region_feature_columns)
        roles.motifs = (
            left.take_matching(config.motif_columns)
            if config.motif_columns
            else left.take_all([c for c in left.columns if MOTIF_PATTERN.match(c)])
        )
        roles.accessibility = left.take(ACCESSIBILITY_HEADERS)
        named = {name: left.take(headers) for name, headers in REGION_HEADERS.items()}
        roles.region = {name: column for name, column in named.items() if column is not None}
    if "sample" in kinds:
        roles.sample_id = left.take(SAMPLE_ID_HEADERS)
        roles.conditions = left.take_conditions(fields)
        one_hot = match_one_hot(left.columns, fields)
        roles.one_hot = {n: words for n, words in one_hot.items() if n not in roles.conditions}
        for words in roles.one_hot.values():
            left.take_all(list(words))
        for name in (each.name for each in fields if each.dropped):
            outright = [roles.conditions.pop(name)] if name in roles.conditions else []
            roles.dropped += [*outright, *roles.one_hot.pop(name, {})]
    if _is_turned(left.columns):
        _say_turned(table, left.columns)
    elif left.columns and extra_is_error:
        _undeclared(table, left.columns, kinds, fields)
    elif left.columns:
        roles.unused = left.columns
        columns = counted(len(left.columns), "column")
        what = f"{columns} not known and not used: {_some(left.columns)}"
        table.warn("extra column", what)
    return roles


def matches(column: str, patterns: Sequence[str]) -> bool:
    """Whether a column is named by, or matches, one of the patterns of the YAML."""
    return any(column == pattern or fnmatchcase(column, pattern) for pattern in patterns)


def factor_of(motif: str) -> str:
    """The transcription factor in the name of a motif column, or the whole name; see above.

    `MA0415.1.YAP1` is of YAP1, and of `MA0415.1` alone the matrix is told.
    """
    found = _FACTOR.match(re.sub("^(virtual_)?motif_", "", motif))
    factor = found and (found["after"] or found["before"] or found["matrix"])
    return factor.upper() if factor else motif


def factor_groups(motifs: Sequence[str]) -> dict[str, list[int]]:
    """Motif columns by the transcription factor whose binding they score.

    JASPAR's names carry the factor (`MA0265.1.ABF1`, `ABF1_MA0265.3`; a dimer such as `CBF1::X` is
    a factor of its own), or at least the matrix, whose versions belong together. Any other name is
    its own factor.

    Args:
        motifs: Names of M columns.

    Returns:
        Places of the columns by factor, in the order of the first; a factor of one column has
        the column's own name.
    """
    groups: dict[str, list[int]] = {}
    for at, name in enumerate(motifs):
        groups.setdefault(factor_of(name), []).append(at)
    return {
        factor if len(columns) > 1 else motifs[columns[0]]: columns
        for factor, columns in groups.items()
    }


class _Left:
    """The columns of a table that have no role yet; each `take` gives some of them one."""

    def __init__(self, table: RawTable) -> None:
        self.table = table
        self.columns = list(table.frame.columns)

    def take_all(self, columns: list[str]) -> list[str]:
        """These columns."""
        self.columns = [column for column in self.columns if column not in columns]
        return columns

    def take(self, names: Sequence[str]) -> str | None:
        """The one column with one of these names."""
        found = [column for column in self.columns if fold_header(column) in names]
        if len(found) > 1:
            self._both(found, names[0])
        return self.take_all(found)[0] if found else None

    def take_matching(self, patterns: Sequence[str]) -> list[str]:
        """The columns that are among, or match, the patterns of the YAML."""
        return self.take_all([column for column in self.columns if matches(column, patterns)])

    def take_targets(self, config: DataConfig) -> list[str]:
        """The declared targets, or two strands, or the one column that is named like a target."""
        groups = [list(STRAND_TARGET_HEADERS), *([name] for name in TARGET_HEADERS)]
        folded = {fold_header(column): column for column in self.columns}
        found = ([folded[n] for n in g] for g in groups if all(n in folded for n in g))
        names = config.target_columns or next(found, [])
        return self.take_all([name for name in names if name in self.columns])

    def take_conditions(self, fields: list[ConditionField]) -> dict[str, str]:
        """Field -> the column that names it outright."""
        taken: dict[str, str] = {}
        for header, name in match_columns(self.columns, fields).items():
            if name in taken:
                self._both([taken[name], header], name)
                self.take_all([header])
            taken.setdefault(name, header)
        self.take_all(list(taken.values()))
        return taken

    def _both(self, columns: list[str], role: str) -> None:
        what = f"{' and '.join(columns)} both mean {role}"
        self.table.error("two columns, one role", what, "rename or delete one", row=1)


def _some(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _is_turned(left: Sequence[str]) -> bool:
    """Whether the columns without a role are genes or samples: the table is turned."""
    names = sum(bool(_SYSTEMATIC_NAME.match(column.strip())) for column in left)
    return names >= 2 and 2 * names > len(left)


def _say_turned(table: RawTable, left: Sequence[str]) -> None:
    table.error(
        "turned table",
        f"has {len(left)} columns that are genes or samples ({_some(left, 3)}), and should have a "
        "row for each region and sample",
        "make a data folder with it as expression.csv (a row per region_id, a column per "
        "sample_id; transpose it where genes run across), or melt it: "
        "pandas.DataFrame.melt(id_vars='region_id', var_name='sample_id', value_name='target')",
        row=1,
    )


def _undeclared(
    table: RawTable, left: list[str], kinds: Sequence[str], fields: list[ConditionField]
) -> None:
    """Errors that show the lines to write for columns without a role: numbers, then texts."""
    numeric = [c for c in left if pd.api.types.is_numeric_dtype(table.frame[c])]
    for kind, columns in (("number", numeric), ("category", [c for c in left if c not in numeric])):
        if not columns:
            continue
        names = ", ".join(columns)
        fixes = [f"`data: {{description_columns: [{names}]}}` (not used by the model)"]
        if "sample" in kinds:
            entries = ", ".join(_entry(column, kind) for column in columns)
            fixes.insert(0, f"`conditions: {{extra: {{{entries}}}}}` (growth conditions)")
        if "region" in kinds and kind == "number":
            fixes.insert(0, f"`data: {{motif_columns: [{names}]}}` (motif scores)")
            fixes.insert(0, f"`data: {{region_feature_columns: [{names}]}}` (region features)")
        if "target" in kinds and kind == "number":
            fixes.insert(0, f"`data: {{target_columns: [{names}]}}` (what is to be predicted)")
        has = "has columns" if len(columns) > 1 else "has a column"
        what = f"{has} whose role is not known: {names}"
        hints = [*_near_misses(columns, kinds, fields), "declare in the YAML "]
        table.error("unknown column", what, " ".join(hints) + ", or ".join(fixes), row=1)


def _entry(column: str, kind: str) -> str:
    """A line of `conditions.extra` for a column; in English where it is a familiar one."""
    second = re.fullmatch(r"(drug_[b-z])(_concentration|_dose)?", fold_header(column))
    if second is not None:
        dose = f"{{kind: dose, drug: {second[1]}}}"
        return f"{column}: {dose if second[2] else '{kind: drug}'}"
    for name, header in FAMILIAR.items():
        if fold_header(column) == header:
            return f"{name}: {{kind: {kind}}}"
    return f"{column}: {{kind: {kind}}}"


def _near_misses(
    columns: Sequence[str], kinds: Sequence[str], fields: list[ConditionField]
) -> Iterator[str]:
    """A question for each column whose name is nearly a known one."""
    known = dict(headers_of(fields)) if "sample" in kinds else {}
    known |= {name: name for name in (SAMPLE_ID_HEADERS if "sample" in kinds else ())}
    known |= {name: name for name in (TARGET_HEADERS if "target" in kinds else ())}
    if "region" in kinds:
        headers = [n for names in REGION_HEADERS.values() for n in names]
        known |= {name: name for name in (*REGION_ID_HEADERS, *ACCESSIBILITY_HEADERS, *headers)}
    for column in columns:
        for near in get_close_matches(fold_header(column), list(known), n=1, cutoff=0.75):
            if near != fold_header(column):
                yield f"did you mean {known[near]} by {column}?"
