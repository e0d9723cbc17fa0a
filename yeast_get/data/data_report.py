"""The data report: what a table holds, and all that was found in it, for people and as files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd

from yeast_get.config import Settings
from yeast_get.data.checks import constant_features, feature_outliers
from yeast_get.data.expression_data import ExpressionData
from yeast_get.data.findings import Finding, Findings
from yeast_get.data.long_table import replicate_sd
from yeast_get.errors import Problem

PROBLEM_COLUMNS = ["file", "sheet", "row", "column", "value", "kind", "severity", "message"]
_MOST_ROWS_OF_A_WARNING = 1000
_MOST_ROWS = 100_000


def describe(data: ExpressionData, settings: Settings) -> dict[str, Any]:
    """What a table holds, as plain Python.

    Args:
        data: The table.
        settings: Of the run; its target transform is named beside the range.
    """
    missing = _missing_shares(data)
    return {
        "source": data.source,
        "sha256": data.fingerprint,
        "rows": data.num_observations,
        "regions": data.num_regions,
        "samples": data.num_samples,
        "condition_signatures": len(data.condition_first),
        "measured": int(data.measured.sum()),
        "roles": data.roles,
        "missing_share": missing,
        "constant_columns": constant_features(data),
        "outliers": {name: len(at) for name, (_, at) in feature_outliers(data).items()},
        "target": _describe_target(data, settings),
        "replicate_sd": _replicate_sd(data),
    }


def _missing_shares(data: ExpressionData) -> dict[str, float]:
    """Share of missing values of every column that has any: of regions, samples or cells."""
    names = [*data.motif_names, *data.region_feature_names]
    shares = dict(zip(names, np.isnan(data.motif).mean(axis=0), strict=True))
    if data.accessibility is not None:
        shares["accessibility"] = np.isnan(data.accessibility).mean()
    recorded = [name for name in data.conditions if name in data.given]
    shares |= {str(name): data.conditions[name].isna().mean() for name in recorded}
    shares |= dict(zip(data.target_names, np.isnan(data.target).mean(axis=0), strict=True))
    return {name: round(float(share), 6) for name, share in shares.items() if share}


def _describe_target(data: ExpressionData, settings: Settings) -> dict[str, Any]:
    known = data.target[~np.isnan(data.target)].astype(np.float64)
    said: dict[str, Any] = {"transform": settings.data.target_transform, "measured": len(known)}
    if len(known):
        said |= {
            "lowest": float(known.min()),
            "highest": float(known.max()),
            "mean": float(known.mean()),
            "sd": float(known.std()),
            "zeros": round(float((known == 0).mean()), 6),
        }
    return said


def _replicate_sd(data: ExpressionData) -> float | None:
    """Pooled SD of the first target over samples of one condition signature, None without any."""
    condition = data.condition
    if len(np.unique(condition)) == len(condition):
        return None
    return replicate_sd(data.region_index, condition[data.sample_index], data.target)


def describe_findings(findings: Findings) -> dict[str, Any]:
    """Counts of errors and warnings by kind, and what was normalised."""
    warned: Counter[str] = Counter()
    for finding in findings.warnings:
        warned[finding.kind] += len(finding)
    return {
        "errors": dict(findings.error_counts()),
        "rows_left_out": findings.left_out,
        "warnings": dict(warned),
        "warning_lines": [finding.line() for finding in findings.warnings],
        "normalised": [vars(each) for each in findings.normalised],
    }


def report_lines(described: dict[str, Any]) -> list[str]:
    """A description for the screen."""
    lines = [
        "data report",
        f"  rows {described['rows']:,}, regions {described['regions']:,}, samples "
        f"{described['samples']:,}, condition signatures {described['condition_signatures']:,}, "
        f"measured {described['measured']:,}",
    ]
    missing = sorted(described["missing_share"].items(), key=lambda item: -item[1])
    if missing:
        some = ", ".join(f"{name} {share:.1%}" for name, share in missing[:8])
        more = f", and {len(missing) - 8} more columns" if len(missing) > 8 else ""
        lines.append(f"  missing: {some}{more}")
    for key, word in (("constant_columns", "constant"), ("outliers", "with outliers")):
        if described[key]:
            names = list(described[key])
            more = f", and {len(names) - 8} more" if len(names) > 8 else ""
            lines.append(f"  {word}: {', '.join(names[:8])}{more}")
    target = described["target"]
    if "lowest" in target:
        lines.append(
            f"  target: {target['lowest']:.4g} to {target['highest']:.4g}, mean "
            f"{target['mean']:.4g}, SD {target['sd']:.4g}, {target['zeros']:.1%} zeros; "
            f"data.target_transform: {target['transform']}"
        )
    if described["replicate_sd"] is not None:
        lines.append(f"  SD between replicates of one condition: {described['replicate_sd']:.4g}")
    if "split" in described:
        lines.append(f"  {described['split']['said']}")
    return lines


def problem_table(findings: Findings | None, problems: Iterable[Problem] = ()) -> pd.DataFrame:
    """All findings, a row per cell, as `data_problems.csv` has them.

    Args:
        findings: Of the tables; None where reading went no further than `problems`.
        problems: What is wrong, where there are no findings.
    """
    rows: list[tuple[Any, ...]] = []
    for finding in () if findings is None else (*findings.errors, *findings.warnings):
        rows += _rows(finding)
    if findings is None or not findings.errors:
        rows += [
            (p.file, p.sheet, p.row, p.column, "", "file", "error", _message(p.what, p.fix))
            for p in problems
        ]
    frame = pd.DataFrame(rows[:_MOST_ROWS], columns=PROBLEM_COLUMNS)
    return frame.astype({"row": "Int64"})


def _rows(finding: Finding) -> Iterator[tuple[Any, ...]]:
    most = _MOST_ROWS_OF_A_WARNING if finding.severity == "warning" else _MOST_ROWS
    pairs = zip(finding.cells(), finding.problems(), strict=True)
    for (row, value), problem in islice(pairs, most):
        yield (
            finding.file, finding.sheet, row, finding.column, value, finding.kind,
            finding.severity, _message(problem.what, problem.fix),
        )  # fmt: skip


def _message(what: str, fix: str) -> str:
    return f"{what}; {fix}" if fix else what
