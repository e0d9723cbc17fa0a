"""What the columns of a table are: ids, motifs, conditions, targets; by name, or as declared.

A column that is neither known nor declared is an error that shows the lines to write.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import pandas as pd

from yeast_get.config import DataConfig
from yeast_get.data.conditions import ConditionField, fold, match_columns, match_one_hot
from yeast_get.data.tables import REGION_ID_HEADERS, RawTable
from yeast_get.errors import DataError, Problem

MOTIF_PATTERN = re.compile(
    r"^(MA\d{4}\.\d+([._].*)?|.+_MA\d{4}\.\d+|motif_.+|virtual_motif_.+)$", re.IGNORECASE
)
TARGET_HEADERS = ("target", "expression", "表达量")
STRAND_TARGET_HEADERS = ("target_plus", "target_minus")
REGION_HEADERS = ("chrom", "start", "end", "strand", "gene_id", "gene_name")


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
    table: RawTable, config: DataConfig, fields: list[ConditionField], kinds: Sequence[str]
) -> Roles:
    """Give every column of a table its role.

    Args:
        table: The table.
        config: Names and patterns that the YAML declares.
        fields: The condition fields.
        kinds: The roles that this table may hold: `region`, `sample`, `target`.

    Raises:
        DataError: Where a column has no role, or two columns have one.
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
        roles.accessibility = left.take(("accessibility", "开放性"))
        named = {name: left.take((name,)) for name in REGION_HEADERS}
        roles.region = {name: column for name, column in named.items() if column is not None}
    if "sample" in kinds:
        roles.sample_id = left.take(("sample_id",))
        roles.conditions = left.take_conditions(fields)
        one_hot = match_one_hot(left.columns, fields)
        roles.one_hot = {n: words for n, words in one_hot.items() if n not in roles.conditions}
        for words in roles.one_hot.values():
            left.take_all(list(words))
        for name in (each.name for each in fields if each.dropped):
            outright = [roles.conditions.pop(name)] if name in roles.conditions else []
            roles.dropped += [*outright, *roles.one_hot.pop(name, {})]
    if left.columns:
        raise DataError(list(_undeclared(table, left.columns, kinds)))
    return roles


def matches(column: str, patterns: Sequence[str]) -> bool:
    """Whether a column is named by, or matches, one of the patterns of the YAML."""
    return any(column == pattern or fnmatchcase(column, pattern) for pattern in patterns)


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
        found = [column for column in self.columns if fold(column) in names]
        if len(found) > 1:
            raise self._both(found, names[0])
        return self.take_all(found)[0] if found else None

    def take_matching(self, patterns: Sequence[str]) -> list[str]:
        """The columns that are among, or match, the patterns of the YAML."""
        return self.take_all([column for column in self.columns if matches(column, patterns)])

    def take_targets(self, config: DataConfig) -> list[str]:
        """The declared targets, or two strands, or the one column that is named like a target."""
        groups = [list(STRAND_TARGET_HEADERS), *([name] for name in TARGET_HEADERS)]
        folded = {fold(column): column for column in self.columns}
        found = ([folded[n] for n in g] for g in groups if all(n in folded for n in g))
        names = config.target_columns or next(found, [])
        return self.take_all([name for name in names if name in self.columns])

    def take_conditions(self, fields: list[ConditionField]) -> dict[str, str]:
        """Field -> the column that names it outright."""
        taken: dict[str, str] = {}
        for header, name in match_columns(self.columns, fields).items():
            if name in taken:
                raise self._both([taken[name], header], name)
            taken[name] = header
        self.take_all(list(taken.values()))
        return taken

    def _both(self, columns: list[str], role: str) -> DataError:
        what = f"{' and '.join(columns)} both mean {role}"
        return DataError(self.table.problem(what, "rename or delete one", row=1))


def _undeclared(table: RawTable, left: list[str], kinds: Sequence[str]) -> Iterator[Problem]:
    """Errors that show the lines to write for columns without a role: numbers, then texts."""
    numeric = [c for c in left if pd.api.types.is_numeric_dtype(table.frame[c])]
    for kind, columns in (("number", numeric), ("category", [c for c in left if c not in numeric])):
        if not columns:
            continue
        names = ", ".join(columns)
        fixes = [f"`data: {{description_columns: [{names}]}}` (not used by the model)"]
        if "sample" in kinds:
            entries = ", ".join(f"{column}: {{kind: {kind}}}" for column in columns)
            fixes.insert(0, f"`conditions: {{extra: {{{entries}}}}}` (growth conditions)")
        if "region" in kinds and kind == "number":
            fixes.insert(0, f"`data: {{motif_columns: [{names}]}}` (motif scores)")
            fixes.insert(0, f"`data: {{region_feature_columns: [{names}]}}` (region features)")
        if "target" in kinds and kind == "number":
            fixes.insert(0, f"`data: {{target_columns: [{names}]}}` (what is to be predicted)")
        has = "has columns" if len(columns) > 1 else "has a column"
        what = f"{has} whose role is not known: {names}"
        yield table.problem(what, f"declare in the YAML {', or '.join(fixes)}", row=1)
