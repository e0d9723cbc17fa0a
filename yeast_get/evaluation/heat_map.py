"""The picture of which motif matters under which condition."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from yeast_get.evaluation.canvas import new_figure, read_columns, say, shorten, write_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FACTORS, CONDITIONS = 25, 30


def plot_motif_conditions(effects_csv: str | Path, png: str | Path) -> Figure:
    """Effects of factors by condition, those that differ most, like beside like.

    Shown are the factors whose effects differ most between conditions, and of these the conditions
    that differ most from the mean one.

    Args:
        effects_csv: The run's motif_condition_effects.csv, with the columns factor, condition and
            effect.
        png: The picture to write.

    Raises:
        ValueError: If the file lacks a column.
    """
    types = {"factor": str, "condition": str, "effect": float}
    table = read_columns(
        effects_csv, list(types), dtype=types, keep_default_na=False, na_values={"effect": [""]}
    )
    wide = table.pivot(index="factor", columns="condition", values="effect")
    wide = wide.dropna(how="all").dropna(how="all", axis=1)
    figure = new_figure()
    if wide.empty:
        return say(figure, png, "no motif has an effect that is defined")
    shown = _most_different(wide)
    values = shown.to_numpy()
    largest = np.nanmax(np.abs(values)) or 1.0
    axes = figure.add_subplot()
    axes.set_facecolor("0.8")  # not defined
    cells = axes.imshow(values, cmap="RdBu_r", vmin=-largest, vmax=largest, aspect="auto")
    axes.set_yticks(range(len(shown)), [shorten(each) for each in shown.index], parse_math=False)
    axes.set_xticks(
        range(shown.shape[1]), [shorten(each, 36) for each in shown.columns], parse_math=False,
        rotation=60, ha="right", rotation_mode="anchor",
    )  # fmt: skip
    axes.tick_params(labelsize=9, length=2)
    factors, conditions = wide.shape
    axes.set_title(
        f"Which motif matters when: {len(shown)} of {factors} factors, {shown.shape[1]} of "
        f"{conditions} conditions"
    )
    figure.colorbar(cells, ax=axes, label="change of the prediction per unit of the scaled score")
    return write_figure(figure, png)


def _most_different(wide: pd.DataFrame) -> pd.DataFrame:
    """The factors and conditions to show, each in the order of a clustering."""
    middle = wide.mean(axis=1) if wide.shape[1] > 1 else 0 * wide.mean(axis=1)
    spread = (wide - middle.to_numpy()[:, None]).fillna(0.0)
    factors = spread.pow(2).sum(axis=1).nlargest(FACTORS).index
    conditions = spread.loc[factors].pow(2).sum().nlargest(CONDITIONS).index
    shown = wide.loc[factors, conditions]
    filled = shown.fillna(0.0).to_numpy()
    return shown.iloc[_order(filled), _order(filled.T)]


def _order(rows: np.ndarray) -> np.ndarray:
    """An order of rows in which like stands beside like."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    if len(rows) < 3:
        return np.arange(len(rows))
    return leaves_list(linkage(rows, method="average", optimal_ordering=True))
