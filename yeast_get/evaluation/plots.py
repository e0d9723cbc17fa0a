"""The plots of a run, each drawn from the CSV files of the run folder alone.

Every function reads a CSV file, writes a picture of 1600 x 1200 pixels (whole or not at all) and
returns the figure. Figures are objects of their own: pyplot and its global state stay untouched.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from yeast_get.data.blocks import ROWS, blocks
from yeast_get.evaluation import metrics
from yeast_get.evaluation.canvas import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    corner_box,
    new_figure,
    padded_limits,
    part_name,
    read_blocks,
    read_columns,
    say,
    shorten,
    write_figure,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KIND_COLOURS = {
    "motif": BLUE,
    "region feature": PURPLE,
    "accessibility": GREEN,
    "condition": ORANGE,
}
OTHER_COLOUR = SKY

MOST_POINTS = 3000
"""Above so many points a plot shows how many fall into each cell."""


UNIT = "units of the input"

Interval = Sequence[float] | None
"""Both ends of a 95 % interval, None where there is none."""


def plot_scatter(
    predictions_csv: str | Path, png: str | Path, part: str, pearson_ci95: Interval = None
) -> Figure:
    """Measured against predicted expression of one part, with the line y = x.

    Args:
        predictions_csv: The run's predictions.csv; two strands are pooled.
        png: The picture to write.
        part: A value of the column "split", or "all" for every row.
        pearson_ci95: The interval of Pearson's r, of the run's metrics.json.

    Raises:
        ValueError: If the file lacks a column.
    """
    values, strands = _read_predictions(predictions_csv, part, ("y_true", "y_pred"))
    figure = new_figure()
    if not len(values):
        return say(figure, png, f"no measured rows in {part_name(part)}")
    _draw_scatter(figure, values, part, strands, pearson_ci95)
    return write_figure(figure, png)


def scatter_image(y_true: np.ndarray, y_pred: np.ndarray, part: str) -> np.ndarray:
    """The same picture of values [N,T] in memory (for TensorBoard), [height,width,3] uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    values = np.stack([y_true.ravel(), y_pred.ravel()], axis=1).astype(np.float64)
    figure = new_figure(dpi=60)
    _draw_scatter(figure, values[np.isfinite(values).all(axis=1)], part, 1)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_scatter(
    figure: Figure, values: np.ndarray, part: str, strands: int, pearson_ci95: Interval = None
) -> None:
    true, pred = values.T
    axes = figure.add_subplot()
    limits = padded_limits(values)
    axes.plot(limits, limits, color=GREY, linestyle="--", linewidth=1.2, label="y = x", zorder=3)
    _cloud(figure, axes, true, pred, (*limits, *limits))
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.set(xlabel=f"measured expression ({UNIT})", ylabel=f"predicted expression ({UNIT})")
    _title(axes, part, len(values), strands)
    axes.legend(loc="lower right")
    scores = metrics.score(true, pred, ("pearson", "r2"))
    lines = [_named("Pearson r", scores["pearson"]), _named("R²", scores["r2"])]
    if pearson_ci95 is not None:
        lines.insert(1, "95 % interval {:.3f} to {:.3f}".format(*pearson_ci95))
    corner_box(axes, "\n".join(lines))


def plot_residuals(predictions_csv: str | Path, png: str | Path, part: str) -> Figure:
    """Residuals (measured less predicted) against predictions, and their histogram.

    The line is the mean residual in bins of equally many values, the band its 95 % interval.

    Args:
        predictions_csv: The run's predictions.csv; two strands are pooled.
        png: The picture to write.
        part: A value of the column "split", or "all" for every row.

    Raises:
        ValueError: If the file lacks a column.
    """
    values, strands = _read_predictions(predictions_csv, part, ("y_pred", "residual"))
    figure = new_figure()
    if not len(values):
        return say(figure, png, f"no measured rows in {part_name(part)}")
    pred, residual = values.T
    grid = figure.add_gridspec(1, 2, width_ratios=(4, 1))
    axes = figure.add_subplot(grid[0])
    side = figure.add_subplot(grid[1], sharey=axes)
    x_limits, y_limits = padded_limits(pred), padded_limits(np.append(residual, 0.0))
    _cloud(figure, axes, pred, residual, (*x_limits, *y_limits), bar_axes=side)
    _running_mean(axes, pred, residual)
    axes.set(xlim=x_limits, ylim=y_limits)
    axes.set_xlabel(f"predicted expression ({UNIT})")
    axes.set_ylabel(f"residual (measured - predicted, {UNIT})")
    _title(axes, part, len(values), strands)
    axes.legend(loc="lower right")
    corner_box(axes, f"mean {_number(residual.mean())}\nSD {_number(residual.std())}")
    bins = np.linspace(*y_limits, int(np.clip(np.sqrt(len(values)), 10, 60)) + 1)
    side.hist(residual, bins=bins.tolist(), orientation="horizontal", color=BLUE)
    side.tick_params(labelleft=False)
    side.set_xlabel("values")
    side.locator_params(axis="x", nbins=3)
    for each in (axes, side):
        each.axhline(0, color=GREY, linestyle="--", linewidth=1.2)
    return write_figure(figure, png)


def plot_importance(importance_csv: str | Path, png: str | Path, top: int = 20) -> Figure:
    """The features whose shuffling costs most, as bars with their 95 % interval.

    Args:
        importance_csv: The run's feature_importance.csv, with the columns feature, kind,
            importance_mean, importance_low and importance_high; a bar without an interval has
            no whiskers.
        png: The picture to write.
        top: How many features to show.

    Raises:
        ValueError: If the file lacks a column.
    """
    from matplotlib.patches import Patch

    values = ("importance_mean", "importance_low", "importance_high")
    types: dict[str, type] = {"feature": str, "kind": str, **dict.fromkeys(values, float)}
    # a feature may be called NA: only blank means blank
    table = read_columns(
        importance_csv, list(types), dtype=types, keep_default_na=False, na_values=[""]
    )
    table = table[np.isfinite(table["importance_mean"])]
    shown = table.sort_values("importance_mean", ascending=False, kind="stable").head(top)
    figure = new_figure()
    if not len(shown):
        return say(figure, png, "no feature has a defined importance")
    axes = figure.add_subplot()
    place = np.arange(len(shown))
    colours = [KIND_COLOURS.get(kind, OTHER_COLOUR) for kind in shown["kind"]]
    axes.barh(place, shown["importance_mean"], color=colours)
    axes.hlines(place, shown["importance_low"], shown["importance_high"], color="black")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(place, [shorten(name) for name in shown["feature"]], parse_math=False)
    axes.set(
        ylim=(len(shown) - 0.4, -0.6), xlabel="drop in Pearson r when shuffled (95 % interval)"
    )
    axes.set_title(f"Permutation importance: {len(shown)} of {len(table)} features")
    kinds = dict(zip(shown["kind"], colours, strict=True))
    order = [kind for kind in KIND_COLOURS if kind in kinds]
    order += [kind for kind in kinds if kind not in KIND_COLOURS]
    patches = [Patch(color=kinds[kind], label=kind) for kind in order]
    figure.legend(handles=patches, loc="outside lower center", ncols=max(len(patches), 1))
    return write_figure(figure, png)


def plot_history(history_csv: str | Path, png: str | Path, monitor: str = "val_pearson") -> Figure:
    """Losses and validation correlation by epoch, with the best epoch marked.

    Args:
        history_csv: The run's history.csv, with the columns epoch, train_loss, val_loss and
            val_pearson.
        png: The picture to write.
        monitor: What the best epoch is chosen by: "val_pearson" (highest) or "val_loss"
            (lowest). Where it has no value at any epoch, the other one.

    Raises:
        ValueError: If the file lacks a column.
    """
    table = read_columns(history_csv, ["epoch", "train_loss", "val_loss", "val_pearson"])
    figure = new_figure()
    if not len(table):
        return say(figure, png, "no epoch in the history")
    loss, pearson = figure.subplots(2, 1, sharex=True)
    for name, colour, label in (
        ("train_loss", BLUE, "training"),
        ("val_loss", ORANGE, "validation"),
    ):
        _curve(loss, table, name, colour, label)
    _curve(pearson, table, "val_pearson", ORANGE, "validation")
    loss.set(ylabel="loss (model space)", title="Training history")
    pearson.set(xlabel="epoch", ylabel="Pearson r (validation)")
    best = _best_epoch(table, monitor)
    for axes in (loss, pearson):
        axes.grid(alpha=0.3)
        if best is not None:
            axes.axvline(best, color=GREY, linestyle="--", label=f"best epoch: {best}")
        axes.legend(loc="best")
    pearson.xaxis.get_major_locator().set_params(integer=True)
    return write_figure(figure, png)


def plot_calibration(calibration_csv: str | Path, png: str | Path) -> Figure:
    """The share of measured values inside intervals of each level, and how wide these are.

    Args:
        calibration_csv: The run's calibration.csv, with the columns level, covered and
            mean_width.
        png: The picture to write.

    Raises:
        ValueError: If the file lacks a column.
    """
    table = read_columns(calibration_csv, ["level", "covered", "mean_width"])
    table = table.dropna().sort_values("level")
    figure = new_figure()
    if not len(table):
        return say(figure, png, "no coverage was measured")
    coverage, width = figure.subplots(1, 2, width_ratios=(3, 2))
    percent = 100 * table[["level", "covered"]]
    coverage.plot([0, 100], [0, 100], color=GREY, linestyle="--", label="as promised")
    dots = {"color": BLUE, "marker": "o"}
    coverage.plot(percent["level"], percent["covered"], label="measured", **dots)
    coverage.set(xlim=(0, 100), ylim=(0, 100), aspect="equal", title="Coverage of the intervals")
    coverage.set(xlabel="level of the interval (%)", ylabel="measured values inside it (%)")
    coverage.legend(loc="upper left")
    width.plot(percent["level"], table["mean_width"], **dots)
    width.set(xlim=(0, 100), ylim=(0, None), title="Their width")
    width.set(xlabel="level of the interval (%)", ylabel=f"mean width ({UNIT})")
    for axes in (coverage, width):
        axes.grid(alpha=0.3)
    return write_figure(figure, png)


def _read_predictions(
    path: str | Path, part: str, columns: tuple[str, str]
) -> tuple[np.ndarray, int]:
    """Two columns of the measured rows of a part, [values,2], and the number of strands."""
    import pandas as pd

    header = pd.read_csv(path, nrows=0).columns
    suffixes = ("_plus", "_minus") if f"{columns[0]}_plus" in header else ("",)
    wanted = [f"{column}{suffix}" for suffix in suffixes for column in columns]
    types = {} if part == "all" else {"split": "category"}
    kept = [np.zeros((0, len(columns)))]
    for table in read_blocks(path, [*wanted, *types], dtype=types):
        here = table if part == "all" else table[(table["split"] == part).to_numpy()]
        values = here[wanted].to_numpy(dtype=np.float64).reshape(-1, len(columns))
        kept.append(values[np.isfinite(values).all(axis=1)])
    return np.concatenate(kept), len(suffixes)


def _title(axes: Axes, part: str, count: int, strands: int) -> None:
    pooled = ", both strands pooled" if strands > 1 else ""
    axes.set_title(f"{part_name(part)} (n = {count:,}{pooled})", parse_math=False)


def _cloud(
    figure: Figure,
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    extent: tuple[float, float, float, float],
    bar_axes: Axes | None = None,
) -> None:
    """Points, or where there are many a hexagonal histogram with a logarithmic colour scale."""
    if len(x) <= MOST_POINTS:
        size, alpha = (28, 0.7) if len(x) <= 300 else (12, 0.5)
        axes.scatter(x, y, s=size, alpha=alpha, color=BLUE, linewidths=0, rasterized=True)
        return
    grid: dict[str, Any] = {"gridsize": 70, "extent": extent}
    count = None
    if len(x) > ROWS:
        x, y, count = _counted(x, y, grid)
    cells = axes.hexbin(
        x, y, count, bins="log", mincnt=1, linewidths=0.1, reduce_C_function=np.sum, **grid
    )
    cells.set_rasterized(True)  # so that a PDF stays small
    figure.colorbar(cells, ax=bar_axes or axes, label="values per cell", aspect=30)


def _counted(
    x: np.ndarray, y: np.ndarray, grid: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centers of the hexagons that hold values, and how many each does, some values at a time."""
    axes = new_figure().add_subplot()
    drawn = [axes.hexbin(x[rows], y[rows], **grid) for rows in blocks(len(x))]
    count = np.sum([np.asarray(cells.get_array()) for cells in drawn], axis=0)
    center = np.asarray(drawn[0].get_offsets())[count > 0]
    return center[:, 0], center[:, 1], count[count > 0]


def _running_mean(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """The mean of y in bins of equally many values of x, with its 95 % interval."""
    bins = int(np.clip(len(x) // 50, 1, 40))
    edges = np.unique(np.quantile(x, np.arange(1, bins) / bins))
    code = np.searchsorted(edges, x, side="right")
    count = np.bincount(code, minlength=len(edges) + 1)
    used = count > 0
    count = np.maximum(count, 1)
    at = np.bincount(code, weights=x, minlength=len(count)) / count
    mean = np.bincount(code, weights=y, minlength=len(count)) / count
    square = np.bincount(code, weights=(y - mean[code]) ** 2, minlength=len(count))
    half = 1.96 * np.sqrt(square / np.maximum(count - 1, 1) / count)
    at, mean, half = at[used], mean[used], half[used]
    axes.fill_between(at, mean - half, mean + half, color=VERMILLION, alpha=0.3, linewidth=0)
    axes.plot(at, mean, color="white", linewidth=4)
    axes.plot(at, mean, color=VERMILLION, marker="o", markersize=4, label="mean and 95 % interval")


def _curve(axes: Axes, table: pd.DataFrame, name: str, colour: str, label: str) -> None:
    """One column by epoch; epochs without a value are bridged."""
    values = table[name].to_numpy(dtype=np.float64)
    known = np.isfinite(values)
    epochs = table["epoch"].to_numpy()
    axes.plot(epochs[known], values[known], color=colour, marker="o", markersize=3, label=label)


def _best_epoch(table: pd.DataFrame, monitor: str) -> int | None:
    """The first epoch with the highest correlation or the lowest loss."""
    other = "val_loss" if monitor == "val_pearson" else "val_pearson"
    for name in (monitor, other):
        values = table[name].to_numpy(dtype=np.float64)
        values = np.where(
            np.isfinite(values), values if name == "val_pearson" else -values, -np.inf
        )
        if np.isfinite(values).any():
            return int(table["epoch"].iloc[int(np.argmax(values))])
    return None


def _named(name: str, value: float | None) -> str:
    return f"{name} = {value:.3f}" if value is not None else f"{name} undefined"


def _number(value: float) -> str:
    return f"{value:.3g}"
