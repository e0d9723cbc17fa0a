"""The heat map shows what differs most, centred on zero, and says so where there is nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd

from yeast_get.evaluation.heat_map import CONDITIONS, FACTORS, plot_motif_conditions


def effects(factors=40, conditions=50):
    """Factor k differs between conditions by k / 100; NA is the name of one."""
    rng = np.random.default_rng(0)
    spread = np.arange(factors)[:, None] / 100
    values = rng.normal(size=(factors, conditions)) * spread + 3
    names = [f"F{k}" for k in range(factors - 1)] + ["NA"]
    table = pd.DataFrame(values, index=names, columns=[f"c{k}" for k in range(conditions)])
    table = table.rename_axis("factor").reset_index()
    return table.melt("factor", var_name="condition", value_name="effect").assign(regions=1)


def test_it_shows_the_factors_that_differ_most_centred_on_zero(tmp_path):
    table = effects()
    table.loc[table["factor"] == "F38", "effect"] = np.nan
    table.to_csv(tmp_path / "e.csv", index=False)
    figure = plot_motif_conditions(tmp_path / "e.csv", tmp_path / "e.png")
    assert (tmp_path / "e.png").stat().st_size > 0
    axes = figure.axes[0]
    (image,) = axes.images
    assert image.get_array().shape == (FACTORS, CONDITIONS)
    low, high = image.get_clim()
    assert low == -high
    shown = {label.get_text() for label in axes.get_yticklabels()}
    assert "NA" in shown
    assert not shown & {"F38", "F0", "F1", "F2"}


def test_like_stands_beside_like(tmp_path):
    """Two kinds of factors, told apart by the conditions in which they act, that alternate."""
    rows = [
        (f"F{i}", f"c{j}", float((i + j) % 2) + 0.01 * i)
        for i in range(8) for j in range(6)
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["factor", "condition", "effect"])
    table.to_csv(tmp_path / "e.csv", index=False)
    axes = plot_motif_conditions(tmp_path / "e.csv", tmp_path / "e.png").axes[0]
    odd = [int(label.get_text()[1:]) % 2 for label in axes.get_yticklabels()]
    assert np.count_nonzero(np.diff(odd)) == 1


def test_without_any_effect_it_says_so(tmp_path):
    effects().head(0).to_csv(tmp_path / "e.csv", index=False)
    figure = plot_motif_conditions(tmp_path / "e.csv", tmp_path / "e.png")
    assert figure.axes[0].texts[0].get_text() == "no motif has an effect that is defined"
