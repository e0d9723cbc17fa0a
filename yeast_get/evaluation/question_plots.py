"""The pictures of questions, each drawn from one file of the run folder alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from yeast_get.evaluation.canvas import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    new_figure,
    padded_limits,
    read_columns,
    say,
    shorten,
    write_figure,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas.core.groupby import DataFrameGroupBy

COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, "black", GREY)

MOST_CURVES = 8
"""Values of a second field that have a line of their own; more make a heat map."""

MOST_BANDS = 3
"""Lines of a second field that have bands; more would hide each other."""

MOST_REGIONS = 12
"""Regions that have a line of their own."""

MOST_BARS = 25

Units = Mapping[str, str | None]
"""Per swept field its unit: "" for a pure number, None for words."""


# ---------------------------------------------------------------------------------------- sweeps


def plot_sweep(sweep_csv: str | Path, png: str | Path, fields: Units) -> Figure:
    """The curves of a sweep: over regions their mean and 10 to 90 % band, or a line each.

    With two fields a line per value of the shorter one, or a heat map where that has many. What is
    extrapolated is hollow, and shaded where all lines are.

    Args:
        sweep_csv: The run's sweep.csv.
        png: The picture to write.
        fields: The swept columns with their units.

    Raises:
        ValueError: If the file lacks a column.
    """
    table, targets = _read_sweep(sweep_csv, fields)
    # words are told by colour; of two alike the longer is drawn along
    order = {name: (fields[name] is None, -table[name].nunique()) for name in fields}
    x, *others = sorted(fields, key=order.__getitem__)
    by = others[0] if others else None
    figure = new_figure()
    panels = figure.subplots(len(targets), squeeze=False)[:, 0]
    for axes, target in zip(panels, targets, strict=True):
        strand = target.removeprefix("y_pred")
        here = table.assign(y=table[target], sd=table.get(f"y_std{strand}", np.nan))
        if by is not None and here[by].nunique() > MOST_CURVES:
            _heat_map(figure, axes, here, x, by, fields)
        else:
            _curves(axes, here, x, by, fields)
        if strand:
            axes.set_title(f"strand {strand.removeprefix('_')}: {axes.get_title()}")
    return write_figure(figure, png)


def _read_sweep(sweep_csv: str | Path, fields: Units) -> tuple[pd.DataFrame, list[str]]:
    """The table, and the names of its predictions."""
    import pandas as pd

    header = list(pd.read_csv(sweep_csv, nrows=0))
    values = [name for name in header if name.startswith("y_")]
    words = ["region_id", *(name for name, unit in fields.items() if unit is None)]
    table = read_columns(
        sweep_csv, ["region_id", *fields, *values, "extrapolated"],
        dtype=dict.fromkeys(words, str), keep_default_na=False,  # a word may be NA
    )  # fmt: skip
    table["outside"] = table["extrapolated"].astype(int) > 0
    return table, [name for name in values if name.startswith("y_pred")]


def _curves(axes: Axes, table: pd.DataFrame, x: str, by: str | None, fields: Units) -> None:
    """A line per region, per value of the second field, or one of all."""
    title, lines = _lines(table, x, by)
    points = table[x].unique()
    place = np.arange(len(points)) if fields[x] is None else points
    outside = []
    for i, (name, line) in enumerate(lines):
        label = f"{name:.4g}" if isinstance(name, float) else shorten(str(name))
        beside = 0.5 * ((i + 0.5) / lines.ngroups - 0.5) if fields[x] is None else 0.0
        outside.append(_curve(axes, line, x, place + beside, i, label, is_words=fields[x] is None))
    _shade(axes, np.all(outside, axis=0), place)
    if np.any(outside):
        axes.scatter([], [], s=24, facecolor="white", edgecolor="black", label="outside training")
    axes.set(title=title, ylabel="predicted expression (units of the input)")
    _x_axis(axes, x, points, fields)
    axes.grid(alpha=0.3)
    if len(outside) > 1 or np.any(outside):
        axes.legend(title=None if by is None else _named(by, fields), fontsize=9)


def _lines(table: pd.DataFrame, x: str, by: str | None) -> tuple[str, DataFrameGroupBy]:
    """What the lines are, in words, and the rows of each."""
    regions = table["region_id"].nunique()
    spread = ", band: SD of the ensemble" if table["sd"].notna().any() else ""
    if by is None and regions <= MOST_REGIONS:
        return f"prediction of each region{spread}", table.groupby("region_id", sort=False)
    if by is None:
        lines = table.groupby(np.full(len(table), "mean of regions"))
    else:
        lines = table.groupby(by, sort=False)
    if regions == 1:
        return f"region {shorten(table['region_id'].iloc[0])}{spread}", lines
    if lines.ngroups <= MOST_BANDS:
        return f"{regions:,} regions: mean, and the band of 10 to 90 % of them", lines
    means = table.groupby([by, x], sort=False, as_index=False)
    mean = means.agg({"y": "mean", "outside": "any"}).assign(region_id="mean", sd=np.nan)
    return f"mean of {regions:,} regions", mean.groupby(by, sort=False)


def _curve(
    axes: Axes, line: pd.DataFrame, x: str, place: np.ndarray, i: int, label: str, is_words: bool
) -> np.ndarray:
    """One line with its band; which of its points are outside of training."""
    points = line.groupby(x, sort=False)
    mean, outside = points["y"].mean().to_numpy(), points["outside"].any().to_numpy()
    low, high = points["y"].quantile(0.1).to_numpy(), points["y"].quantile(0.9).to_numpy()
    if line["region_id"].nunique() == 1:
        sd = points["sd"].mean().fillna(0.0).to_numpy()
        low, high = mean - sd, mean + sd
    colour, dashes = COLOURS[i % len(COLOURS)], "-" if i < len(COLOURS) else "--"
    if is_words:
        axes.vlines(place, low, high, color=colour, alpha=0.5, linewidth=2)
    else:
        axes.fill_between(place, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(place, mean, color=colour, linestyle=dashes, label=label)
    named = label if is_words else None
    faces = ["white" if each else colour for each in outside]
    axes.scatter(place, mean, s=24, c=faces, edgecolors=colour, label=named, zorder=3)
    return outside


def _shade(axes: Axes, outside: np.ndarray, place: np.ndarray) -> None:
    """Shade the points at either end that are outside of training, to the edge of the picture."""
    inside = np.flatnonzero(~outside)
    if not outside.any() or not len(inside):
        return
    left, right = inside[0], len(place) - 1 - inside[-1]
    for count, near, at in ((left, left - 1, 0.01), (right, inside[-1] + 1, 0.99)):
        if count:
            end = place[0] if at < 0.5 else place[-1]
            far = abs(end) or np.ptp(place) or 1.0  # the limits cut it off; a log axis ends at 0
            edge = end - far if at < 0.5 else end + far
            axes.axvspan(place[near], edge, color=GREY, alpha=0.15, linewidth=0)
            axes.text(at, 0.02, "outside training", transform=axes.transAxes, color=GREY,
                      ha="left" if at < 0.5 else "right", va="bottom")  # fmt: skip


def _heat_map(
    figure: Figure, axes: Axes, table: pd.DataFrame, x: str, by: str, fields: Units
) -> None:
    """The mean over regions of every point; a cross where it is outside of training."""
    columns, rows = table[x].unique(), table[by].unique()
    shape = (len(rows), len(columns))
    cells = table.groupby([by, x], sort=False)[["y", "outside"]].mean()
    cells = cells.reindex([(row, column) for row in rows for column in columns])
    image = axes.pcolormesh(cells["y"].to_numpy().reshape(shape), cmap="cividis")
    row, column = np.nonzero(cells["outside"].to_numpy().reshape(shape))
    axes.scatter(column + 0.5, row + 0.5, s=12, marker="x", color="white", linewidth=0.8)
    figure.colorbar(image, ax=axes, label="predicted expression (units of the input)", aspect=30)
    note = "; crosses: outside training" if len(row) else ""
    axes.set_title(f"mean of {table['region_id'].nunique():,} regions{note}")
    for axis, name, values in ((axes.xaxis, x, columns), (axes.yaxis, by, rows)):
        shown = np.arange(0, len(values), -(-len(values) // 25))
        labels = [shorten(str(v)) if fields[name] is None else f"{v:.3g}" for v in values[shown]]
        axis.set_ticks(shown + 0.5, labels, parse_math=False)
        axis.set_label_text(_named(name, fields))
    axes.tick_params(axis="x", rotation=90 if len(columns) > 10 else 0)


def _x_axis(axes: Axes, x: str, points: np.ndarray, fields: Units) -> None:
    """The axis of a swept field: words, or numbers on the scale of the grid."""
    axes.set_xlabel(_named(x, fields))
    if fields[x] is None:
        axes.set_xticks(np.arange(len(points)), [shorten(p) for p in points], parse_math=False)
        axes.tick_params(axis="x", rotation=90 if len(points) > 6 else 0)
        axes.set_xlim(-0.6, len(points) - 0.4)
        return
    steps = np.diff(points)
    if points[0] > 0 and not np.allclose(steps, steps[0], rtol=1e-4, atol=0):
        axes.set_xscale("log")
        margin = (points[-1] / points[0]) ** 0.03
        axes.set_xlim(points[0] / margin, points[-1] * margin)
    else:
        axes.set_xlim(padded_limits(points))


def _named(name: str, fields: Units) -> str:
    said = name.replace("_", " ")
    return f"{said} ({fields[name]})" if fields[name] else said


# -------------------------------------------------------------------------------------- knockouts


def plot_knockout(knockout_csv: str | Path, png: str | Path, names: str) -> Figure:
    """The mean change of regions with the motif, by condition, and the span of 10 to 90 % of them.

    Args:
        knockout_csv: The run's knockout.csv; two strands are averaged.
        png: The picture to write.
        names: What was taken away.

    Raises:
        ValueError: If the file lacks a column.
    """
    import pandas as pd

    header = list(pd.read_csv(knockout_csv, nrows=0))
    changes = [n for n in header if n.startswith("change") and not n.startswith("change_std")]
    table = read_columns(
        knockout_csv, ["first_sample_id", "condition", "has_motif", *changes],
        dtype={"first_sample_id": str, "condition": str}, keep_default_na=False,
    )  # fmt: skip
    table = table[table["has_motif"] == 1]
    figure = new_figure()
    if not len(table):
        return say(figure, png, "no region has the motif")
    groups = table.assign(change=table[changes].mean(axis=1)).groupby("first_sample_id")
    bars = pd.DataFrame(
        {
            "condition": groups["condition"].first(),
            "mean": groups["change"].mean(),
            "low": groups["change"].quantile(0.1),
            "high": groups["change"].quantile(0.9),
        }
    )
    every = len(bars)
    bars = bars.sort_values("mean", key=np.abs, ascending=False, kind="stable").head(MOST_BARS)
    axes = figure.add_subplot()
    place = np.arange(len(bars))
    axes.barh(place, bars["mean"], color=np.where(bars["mean"] < 0, BLUE, ORANGE))
    axes.hlines(place, bars["low"], bars["high"], color="black", linewidth=1)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(place, [shorten(c, 60) for c in bars["condition"]], parse_math=False)
    axes.tick_params(axis="y", labelsize=9 if len(bars) > 12 else 10)
    axes.set(ylim=(len(bars) - 0.4, -0.6))
    axes.set_xlabel("change, units of the input (bar: mean, line: 10-90 % of regions)")
    shown = f"{len(bars)} of {every} conditions" if every > len(bars) else f"{every} conditions"
    axes.set_title(f"{shorten(names)} set to absent, regions that have it; {shown}")
    return write_figure(figure, png)


# -------------------------------------------------------------------------------------- embeddings


def plot_embeddings(embeddings_npz: str | Path, png: str | Path) -> Figure:
    """Regions and growth conditions on the first two principal components of their embeddings.

    Of the conditions those farthest out are named first, and others where there is room.

    Args:
        embeddings_npz: The run's embeddings.npz.
        png: The picture to write.

    Raises:
        KeyError: If the file lacks an array.
    """
    held = np.load(embeddings_npz)
    figure = new_figure()
    if not len(held["embedding"]):
        return say(figure, png, "the part of the headline holds no row to embed")
    regions, conditions = figure.subplots(2, 1)
    place, axis_labels = _principal(held["embedding"])
    order = np.argsort(np.abs(held["expression"] - np.median(held["expression"])))
    points = regions.scatter(*place[order].T, c=held["expression"][order], s=10, cmap="cividis")
    figure.colorbar(points, ax=regions, label="mean prediction (units of the input)", aspect=20)
    regions.set(title=f"{len(place):,} regions", xlabel=axis_labels[0], ylabel=axis_labels[1])
    place, axis_labels = _principal(held["condition_embedding"])
    conditions.scatter(*place.T, s=24, color=VERMILLION)
    conditions.set(title=f"{len(place):,} conditions", xlabel=axis_labels[0], ylabel=axis_labels[1])
    conditions.margins(0.15)
    figure.draw_without_rendering()  # the layout, before labels look for room
    figure.set_layout_engine("none")
    _label(conditions, place, [shorten(text, 60) for text in held["condition"]])
    return write_figure(figure, png)


def _principal(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The first two principal components [n,2], and the labels of their axes."""
    centred = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    left, size, right = np.linalg.svd(centred, full_matrices=False)
    sign = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])  # no sign by chance
    scores = np.zeros((len(values), 2))
    count = min(2, len(size))
    scores[:, :count] = (left * size * sign)[:, :count]
    share = np.zeros(2)
    share[:count] = (size**2 / max((size**2).sum(), 1e-30))[:count]
    return scores, [f"component {k + 1} ({100 * share[k]:.0f} %)" for k in range(2)]


def _label(axes: Axes, place: np.ndarray, texts: list[str]) -> None:
    """Name points, the farthest out first, wherever no name covers another or leaves the axes."""
    from matplotlib.transforms import Bbox

    room = axes.get_window_extent()
    taken = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in axes.transData.transform(place)]
    for i in np.argsort(-np.linalg.norm(place, axis=1), kind="stable"):
        for shift, align in ((7, "left"), (-7, "right")):
            text = axes.annotate(
                texts[i], place[i], (shift, 0), textcoords="offset points", fontsize=8,
                ha=align, va="center", parse_math=False,
            )  # fmt: skip
            box = text.get_window_extent()
            inside = room.x0 < box.x0 and box.x1 < room.x1
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()
