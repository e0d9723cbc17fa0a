"""What is odd about a whole table: constant columns, outliers, near-duplicates, the target's range.

Nothing here is about one cell; see `condition_values` and `expression_data` for those.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from yeast_get.config import DataConfig
from yeast_get.data.conditions import NO_DRUG, cell_text, fold, known_spellings
from yeast_get.data.findings import Finding, counted

if TYPE_CHECKING:
    from yeast_get.data.expression_data import ExpressionData

OUTLIER_SD = 50
"""A value this many SD from the median is warned about."""
TARGET_OUTLIER_SD = 1000
"""Likewise of targets, which have long tails where they are counts."""
_LOG_SPACE_MOST = 30
"""Above this, a target is no logarithm."""
_MOST_WORDS = 500


def check_data(data: ExpressionData, config: DataConfig) -> None:
    """Add to the findings of a table what is odd about it as a whole.

    Args:
        data: The table.
        config: Of the run; what it declares about the target is compared with it.
    """
    _constant_features(data)
    _constant_conditions(data)
    _outliers(data)
    _samples_without_conditions(data)
    for each in data.fields:
        if each.is_text:
            _near_duplicates(data, each.name, each.kind)
    _drug_as_carbon(data)
    if data.measured.any():
        _target_range(data, config)
        _target_outliers(data)


# ------------------------------------------------------------------------------------- features


def constant_features(data: ExpressionData) -> list[str]:
    """Names of region features that are the same in every region, accessibility among them."""
    names = [*data.motif_names, *data.region_feature_names]
    constant = []
    if data.num_regions > 1 and names:
        low, high = _nan_range(data.motif)
        constant = [name for name, same in zip(names, low == high, strict=True) if same]
    if data.accessibility is not None and data.accessibility.size > 1:
        low, high = _nan_range(data.accessibility.reshape(-1, 1))
        constant += ["accessibility"] if (low == high).all() else []
    return constant


def _constant_features(data: ExpressionData) -> None:
    constant = constant_features(data)
    if "accessibility" in constant and data.accessibility is not None:
        constant.remove("accessibility")
        value = np.nanmax(data.accessibility)
        data.findings.warn("constant column", f"accessibility is {value:g} everywhere")
    if constant:
        more = f" and {len(constant) - 8} more" if len(constant) > 8 else ""
        some = ", ".join(constant[:8])
        said = f"{counted(len(constant), 'constant region feature')}: {some}{more}"
        data.findings.warn("constant column", said)


def _constant_conditions(data: ExpressionData) -> None:
    for each in data.fields:
        values = data.conditions[each.name]
        if values.notna().all() and values.nunique() == 1:
            said = f"condition {each.name} is {cell_text(values.iloc[0])} in every sample"
            data.findings.warn("constant column", said)


def _outliers(data: ExpressionData) -> None:
    for name, (column, at) in feature_outliers(data).items():
        furthest = at[np.abs(column[at]).argmax()]
        values = "1 value lies" if len(at) == 1 else f"{len(at)} values lie"
        region = data.region_id[furthest * data.num_regions // len(column)]
        where = f"({column[furthest]:g} in region {region})"
        what = f"{name}: {values} more than {OUTLIER_SD} SD from the others {where}"
        data.findings.warn("outlier", what, "is it right?")


def feature_outliers(data: ExpressionData) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Region features, accessibility among them, with values far from the others.

    Returns:
        By name: the values, one or several per region, region-major; and where the far ones stand.
    """
    names = [*data.motif_names, *data.region_feature_names]
    found = {
        name: (data.motif[:, names.index(name)], at)
        for name, at in outliers(data.motif, names).items()
    }
    if data.accessibility is not None:
        values = data.accessibility.reshape(-1, 1)
        for name, at in outliers(values, ["accessibility"]).items():
            found[name] = (values[:, 0], at)
    return found


def outliers(
    values: np.ndarray, names: list[str], beyond: float = OUTLIER_SD
) -> dict[str, np.ndarray]:
    """Rows that lie far from the others, by column, for the columns that have any.

    The SD is that of all but the three largest and the three smallest values (of few values, all
    but the largest and the smallest), since an outlier inflates the SD that it is measured by.

    Args:
        values: [rows, columns], NaN = missing.
        names: Of the columns.
        beyond: How many SD from the median are far.
    """
    out: dict[str, np.ndarray] = {}
    for j, name in enumerate(names):
        column = values[:, j].astype(np.float64)
        known = np.sort(column[~np.isnan(column)])
        if len(known) < 5:
            continue
        trim = 3 if len(known) >= 30 else 1
        core = known[trim : len(known) - trim]
        if core.std() == 0:
            continue
        far = np.abs(np.nan_to_num(column - np.median(known))) > beyond * core.std()
        if far.any():
            out[name] = np.flatnonzero(far)
    return out


def _nan_range(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest number of each column, NaN left out."""
    blank = np.isnan(values)
    return np.where(blank, np.inf, values).min(axis=0), np.where(blank, -np.inf, values).max(axis=0)


# ----------------------------------------------------------------------------------- conditions


def _samples_without_conditions(data: ExpressionData) -> None:
    nothing = data.conditions.isna().all(axis=1).to_numpy()
    if nothing.any() and not nothing.all():
        some = ", ".join(data.sample_id[nothing][:5])
        said = f"{counted(int(nothing.sum()), 'sample')} without any recorded condition: {some}"
        data.findings.warn("no condition", said)


def _near_duplicates(data: ExpressionData, name: str, kind: str) -> None:
    """Rare values that nearly are a frequent one, or a well-known one, are probably typos."""
    counts = Counter(data.conditions[name].dropna())
    known = set(known_spellings("drug" if kind == "drug" else name).values()) | {NO_DRUG}
    words = [word for word, _ in counts.most_common(_MOST_WORDS)]
    for word in words:
        if word in known:
            continue
        others = [w for w in words if counts[w] >= 2 * counts[word]] + sorted(known)
        near = next((w for w in others if w != word and _is_near(word, w)), None)
        if near is not None:
            number = counts[word]
            what = f"{name} '{word}' in {counted(number, 'sample')} is nearly '{near}'"
            fix = f"correct it, or add it to conditions.{name}.categories"
            data.findings.warn("near duplicate", what, fix)


def _is_near(a: str, b: str) -> bool:
    """Whether two words differ by so few letters that one may be a typo of the other."""
    a, b = fold(a), fold(b)
    most = 2 if min(len(a), len(b)) > 5 else 1
    return min(len(a), len(b)) > 3 and edit_distance(a, b, most) <= most


def edit_distance(a: str, b: str, most: int) -> int:
    """Levenshtein's distance of two words, or `most` + 1 where it is larger."""
    if abs(len(a) - len(b)) > most:
        return most + 1
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, start=1):
        before, row[0] = row[0], i
        for j, other in enumerate(b, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (letter != other))
        if min(row) > most:
            return most + 1
    return min(row[-1], most + 1)


def _drug_as_carbon(data: ExpressionData) -> None:
    """A drug in the column of carbon sources."""
    if "carbon_source" not in data.conditions or "drug" not in data.conditions:
        return
    drugs = set(known_spellings("drug").values()) | set(data.conditions["drug"].dropna())
    folded = {fold(word) for word in drugs - {NO_DRUG}} | set(known_spellings("drug"))
    carbon = {fold(word) for word in known_spellings("carbon_source")}
    values = data.conditions["carbon_source"]
    for word, count in Counter(values.dropna()).items():
        if fold(word) in folded and fold(word) not in carbon:
            what = f"carbon_source '{word}' in {counted(count, 'sample')} is known as a drug"
            data.findings.warn("drug as carbon source", what, "move it to the drug column")


# --------------------------------------------------------------------------------------- target


def _target_range(data: ExpressionData, config: DataConfig) -> None:
    low, high = float(np.nanmin(data.target)), float(np.nanmax(data.target))
    transform = config.target_transform
    if transform == "none" and high > _LOG_SPACE_MOST and low >= 0:
        what = f"targets run from {low:g} to {high:g}, as counts or TPM do, and are not transformed"
        data.findings.warn("target range", what, "data.target_transform: log1p suits such numbers")
    elif transform != "none" and high <= _LOG_SPACE_MOST / 1.5 and not _are_counts(data.target):
        what = f"targets run from {low:g} to {high:g}, as logarithms do, and "
        what += f"data.target_transform: {transform} takes the logarithm once more"
        data.findings.warn("target range", what, "set it to none if they are logarithms already")


def _target_outliers(data: ExpressionData) -> None:
    """A target far from all others moves the mean and the SD that all are trained by."""
    names = data.target_names
    for name, at in outliers(data.target, names, TARGET_OUTLIER_SD).items():
        values = data.target[at, names.index(name)]
        what = f"target {{value}} lies more than {TARGET_OUTLIER_SD} SD from the others"
        rows, cells = data.row[at], [f"{value:g}" for value in values]
        data.findings.add(
            Finding("warning", "outlier", what, "is it right?", data.source,
                    column=name, rows=rows, values=cells)
        )  # fmt: skip


def _are_counts(target: np.ndarray) -> bool:
    known = target[~np.isnan(target)]
    return bool((known == np.round(known)).all())
