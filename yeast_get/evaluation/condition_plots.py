"""Pictures with a row per growth condition, each drawn from a CSV file of the run folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from yeast_get.data.conditions import NO_DRUG
from yeast_get.evaluation.canvas import (
    BLUE,
    GREY,
    ORANGE,
    new_figure,
    part_name,
    read_blocks,
    read_columns,
    say,
    shorten,
    write_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_SHOWN = 30
"""Of more conditions than these, half so many of the worst and of the best are shown."""

LONGEST_LABEL = 52
LONGEST_WORD = 24

SHORT = {
    "temperature": "T",
    "preculture_time": "t0",
    "preculture_temperature": "T0",
    "preculture_od600": "OD0",
    "drug_time": "t",
    "drug_od600": "OD",
}
"""How a label calls a number; a dose stands after its drug, and a word for itself."""


def plot_conditions(metrics_by_condition_csv: str | Path, png: str | Path, part: str) -> Figure:
    """Pearson's r over the regions of each condition, beside that of the best baseline.

    Args:
        metrics_by_condition_csv: The run's table; without columns of a baseline, bars stand alone.
        png: The picture to write.
        part: A value of the column "split", or "all" for every row.

    Raises:
        ValueError: If the file lacks a column.
    """
    names = list(pd.read_csv(metrics_by_condition_csv, nrows=0).columns)
    table = read_columns(metrics_by_condition_csv, names, dtype={"pearson": float})
    table = table if part == "all" else table[table["split"] == part]
    table = table[table["pearson"].notna()].sort_values("pearson", kind="stable")
    figure = new_figure()
    if not len(table):
        return say(figure, png, f"no condition of {part_name(part)} has a Pearson correlation")
    fields = table.columns[table.columns.get_loc("samples") + 1 : table.columns.get_loc("n")]
    shown, which = _ends(table)
    labels, key = _labels(shown, list(fields))
    axes = figure.add_subplot()
    place = np.arange(len(shown), dtype=float)
    beside = "pearson_baseline" in shown and bool(shown["pearson_baseline"].notna().any())
    height = 0.4 if beside else 0.7
    axes.barh(place - beside * height / 2, shown["pearson"], height, color=BLUE, label="the model")
    name = next(iter(shown["baseline"].dropna()), None) if "baseline" in shown else None
    if name is not None and not beside:
        axes.barh(0, 0, color=ORANGE, label=f"the best baseline, {name}, has no r here")
    if beside:
        said = f"the best baseline: {name}"
        axes.barh(place + height / 2, shown["pearson_baseline"], height, color=ORANGE, label=said)
    low = min(0.0, float(np.nanmin(shown.filter(like="pearson").to_numpy())) - 0.05)
    axes.set(xlim=(low, 1), xlabel="Pearson r over the regions of a condition (no unit)")
    axes.set_title(f"Scores by condition, {part_name(part)}: {which}", parse_math=False)
    figure.legend(loc="outside lower center", ncols=2)
    _rows(axes, labels, key)
    return write_figure(figure, png)


def plot_residuals_by_condition(predictions_csv: str | Path, png: str | Path, part: str) -> Figure:
    """A box of residuals (measured less predicted) per condition, the largest errors first.

    A box holds the middle half of the values, its whiskers the middle 90 %.

    Args:
        predictions_csv: The run's predictions.csv; two strands are pooled.
        png: The picture to write.
        part: A value of the column "split", or "all" for every row.

    Raises:
        ValueError: If the file lacks a column.
    """
    named, group, value = _read_residuals(predictions_csv, part)
    fields = list(named.columns)
    figure = new_figure()
    if not len(value):
        return say(figure, png, f"no measured rows in {part_name(part)}")
    grouped = pd.Series(value).groupby(group)
    quantiles = grouped.quantile([0.05, 0.25, 0.5, 0.75, 0.95]).unstack()
    error = np.sqrt(pd.Series(value**2).groupby(group).mean())
    quantiles["rmse"], quantiles["mean"], quantiles["n"] = error, grouped.mean(), grouped.size()
    shown, which = _ends(quantiles.sort_values("rmse", ascending=False, kind="stable"))
    labels, key = _labels(named.loc[shown.index], fields)
    axes = figure.add_subplot()
    boxes = [
        {"whislo": low, "q1": q1, "med": middle, "q3": q3, "whishi": high, "mean": mean}
        for low, q1, middle, q3, high, mean in shown[
            [0.05, 0.25, 0.5, 0.75, 0.95, "mean"]
        ].itertuples(index=False)
    ]
    axes.bxp(
        boxes, positions=np.arange(len(shown)), widths=0.6, showfliers=False, patch_artist=True,
        orientation="horizontal", boxprops={"facecolor": BLUE, "alpha": 0.6, "linewidth": 0},
        medianprops={"color": "black"}, manage_ticks=False,
    )  # fmt: skip
    axes.axvline(0, color=GREY, linestyle="--", linewidth=1.2)
    axes.set_xlabel("residual (measured - predicted), units of the input")
    axes.set_title(f"Residuals by condition, {part_name(part)}: {which}", parse_math=False)
    _rows(axes, [f"{each}  (n {n:,})" for each, n in zip(labels, shown["n"], strict=True)], key)
    return write_figure(figure, png)


def _read_residuals(path: str | Path, part: str) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """The conditions of a part, a row each, and which of them every finite residual is of."""
    header = list(pd.read_csv(path, nrows=0).columns)
    first = next((i for i, name in enumerate(header) if name.startswith("y_true")), 0)
    fields = header[header.index("split") + 1 : first]
    residuals = [name for name in header if name.split("_")[0] == "residual"]
    types: dict[str, str] = dict.fromkeys(["split", *fields], "category")
    known: dict[tuple[str, ...], int] = {}
    named, groups, values = [], [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    columns = ["split", *fields, *residuals]
    for table in read_blocks(path, columns, dtype=types):
        here = table if part == "all" else table[table["split"] == part]
        codes = _codes(here[fields])
        firsts = here[fields].iloc[np.unique(codes, return_index=True)[1]].astype(object)
        words = [tuple(row) for row in firsts.astype(str).itertuples(index=False)]
        named.append(firsts[[each not in known for each in words]])
        numbers = np.array([known.setdefault(each, len(known)) for each in words], dtype=np.int64)
        group = np.repeat(numbers[codes], len(residuals))
        value = here[residuals].to_numpy(dtype=np.float64).ravel()
        finite = np.isfinite(value)
        groups.append(group[finite])
        values.append(value[finite])
    conditions = pd.concat(named, ignore_index=True) if named else pd.DataFrame(columns=fields)
    return conditions, np.concatenate(groups), np.concatenate(values)


def _codes(fields: pd.DataFrame) -> np.ndarray:
    """[n] a number per combination of words, by mixing the codes of one column after another."""
    codes = np.zeros(len(fields), dtype=np.int64)
    for name in fields:
        words = fields[name].cat.codes.to_numpy().astype(np.int64) + 1
        if (words == words[:1]).all():
            continue
        codes = np.unique(codes * (int(words.max(initial=0)) + 1) + words, return_inverse=True)[1]
    return codes


def _ends(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The first and the last rows of a table, the worst first, and what they are called."""
    if len(table) <= MOST_SHOWN:
        return table, f"all {len(table)}, worst first"
    half = MOST_SHOWN // 2
    said = f"worst {half} and best {half} of {len(table)}"
    return pd.concat([table.head(half), table.tail(half)]), said


def _labels(conditions: pd.DataFrame, fields: list[str]) -> tuple[list[str], str]:
    """What tells conditions apart, in few words, and what these leave out and stand for.

    A value that more than half of them share is named once, in the key.
    """
    texts = conditions[fields].astype(object).map(_text)
    varied = [name for name in fields if texts[name].nunique() > 1]
    counts = {name: texts[name].value_counts() for name in varied}
    usual = {n: str(c.index[0]) for n, c in counts.items() if 2 * c.iloc[0] > len(conditions)}
    rows = texts[varied].to_dict("records")
    labels = [_label(_special(row, usual)) for row in rows]
    key = []
    if any(usual.values()):
        key.append(f"where not named: {_label(usual)}")
    letters = [f"{SHORT[name]}: {name.replace('_', ' ')}" for name in varied if name in SHORT]
    return labels, "\n".join([*key, *([", ".join(letters)] if letters else [])])


def _special(row: dict[str, str], usual: dict[str, str]) -> dict[str, str]:
    """The values that are not the usual ones; a drug also where its dose is not."""
    odd = {name for name, text in row.items() if usual.get(name) != text}
    odd |= {name for name in row if f"{name}_concentration" in odd}
    return {name: text for name, text in row.items() if name in odd}


def _label(values: dict[str, str]) -> str:
    """A word for itself, a dose after its drug, any other number after its name."""
    words: list[str] = []
    for name, text in values.items():
        if not text or text == NO_DRUG:
            continue
        drug = values.get(name.removesuffix("_concentration"))
        if name.endswith("_concentration") and drug is not None:
            words += [] if text == "0" else [f"{words.pop()} {text}"]
        elif _is_word(text):
            words.append(shorten(text, LONGEST_WORD))
        else:
            words.append(f"{SHORT.get(name, shorten(name, 12))} {text}")
    return shorten(", ".join(words) or "as usual", LONGEST_LABEL)


def _text(value: object) -> str:
    """A cell as text, numbers to three digits; blank where nothing was recorded."""
    if pd.isna(value):
        return ""
    return str(value) if _is_word(value) else f"{float(str(value)):.3g}"


def _is_word(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return True
    return False


def _rows(axes: Axes, labels: list[str], key: str) -> None:
    """Name the rows, the first on top, with a grid to follow by eye."""
    size = 11 if len(labels) <= 15 and max(map(len, labels)) <= LONGEST_LABEL // 2 else 8.5
    axes.set_yticks(np.arange(len(labels)), labels, fontsize=size, parse_math=False)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    if len(labels) == MOST_SHOWN:
        axes.axhline(MOST_SHOWN // 2 - 0.5, color="black", linewidth=0.8)
    if key:
        axes.set_xlabel(f"{axes.get_xlabel()}\n{key}", parse_math=False)
