"""Pictures with a row per condition: what stands in them is what stands in the files."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from matplotlib.patches import PathPatch

from yeast_get.evaluation import canvas
from yeast_get.evaluation.condition_plots import (
    MOST_SHOWN,
    plot_conditions,
    plot_residuals_by_condition,
)

LONG_NAME = "a very long <treatment> & 培养基, whose $name$ nobody can read at a glance"


def scores(n=4, baseline=True):
    """metrics_by_condition.csv of n conditions in two parts."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"split": ["test"] * n, "first_sample_id": "s", "samples": 1})
    table["medium"] = np.resize(["YPD", "YPD", "YPD", LONG_NAME], n)
    table["temperature"] = 25.0 + np.arange(n)
    table["drug"] = np.resize(["none", "H2O2"], n)
    table["drug_concentration"] = np.resize([0.0, 0.00032], n)
    table["n"] = 50
    table["pearson"] = rng.permutation(np.linspace(-0.2, 0.9, n))
    if baseline:
        table["baseline"] = "ridge bilinear"
        table["pearson_baseline"] = rng.uniform(0, 1, n)
    return pd.concat([table, table.assign(split="train", pearson=0.99)])


def predictions(conditions=3, each=200):
    """predictions.csv; the spread of the residuals grows with the temperature."""
    rng = np.random.default_rng(1)
    temperature = np.repeat(20.0 + np.arange(conditions), each)
    table = pd.DataFrame({"row": 1, "split": "test", "medium": "YPD", "temperature": temperature})
    table["y_true"] = rng.normal(size=len(table))
    table["residual"] = rng.normal(size=len(table)) * (temperature - 19)
    table.loc[::7, ["y_true", "residual"]] = np.nan
    table["y_pred"] = 1.0
    table["y_std"] = 0.1
    return table


def labels(axes):
    return [text.get_text() for text in axes.get_yticklabels()]


def overlap(figure, texts):
    """Whether two texts cover each other, or one leaves the picture."""
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in texts]
    inside = all(box.x0 >= 0 and box.y0 >= 0 for box in boxes)
    pairs = zip(boxes, boxes[1:], strict=False)
    return not inside or any(one.overlaps(other) for one, other in pairs)


def test_bars_are_the_scores_of_the_part_the_worst_first(tmp_path):
    table = scores()
    table.to_csv(tmp_path / "m.csv", index=False)
    figure = plot_conditions(tmp_path / "m.csv", tmp_path / "m.png", "test")
    assert imread(tmp_path / "m.png").shape[:2] == (1200, 1600)
    (axes,) = figure.axes
    rows = table[table["split"] == "test"].sort_values("pearson")
    model, baseline = axes.containers
    np.testing.assert_allclose([bar.get_width() for bar in model], rows["pearson"])
    np.testing.assert_allclose([bar.get_width() for bar in baseline], rows["pearson_baseline"])
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said == ["the model", "the best baseline: ridge bilinear"]
    assert "test part" in axes.get_title()
    assert axes.get_xlim()[0] < rows["pearson"].min()
    assert not overlap(figure, axes.get_yticklabels())


def test_a_label_names_what_is_unusual_and_the_key_the_rest(tmp_path):
    table = scores(n=4)
    table["pearson"] = np.tile([0.1, 0.2, 0.3, 0.4], 2)
    table["temperature"] = np.tile([30.0, 30.0, 30.0, 37.0], 2)
    table.to_csv(tmp_path / "m.csv", index=False)
    (axes,) = plot_conditions(tmp_path / "m.csv", tmp_path / "m.png", "test").axes
    first, second, third, fourth = labels(axes)
    assert (first, second, third) == ("as usual", "H2O2 0.00032", "as usual")
    assert fourth.endswith("T 37, H2O2 0.00032")
    assert "…" in fourth
    assert "where not named: YPD, T 30" in axes.get_xlabel()
    assert "T: temperature" in axes.get_xlabel()


def test_bars_stand_alone_where_no_baseline_was_scored(tmp_path):
    scores(baseline=False).to_csv(tmp_path / "m.csv", index=False)
    (axes,) = plot_conditions(tmp_path / "m.csv", tmp_path / "m.png", "all").axes
    assert len(axes.containers) == 1


def test_a_baseline_without_a_correlation_is_named(tmp_path):
    scores().assign(pearson_baseline=np.nan).to_csv(tmp_path / "m.csv", index=False)
    figure = plot_conditions(tmp_path / "m.csv", tmp_path / "m.png", "test")
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said == ["the model", "the best baseline, ridge bilinear, has no r here"]


def test_of_many_conditions_the_worst_and_the_best_are_shown(tmp_path):
    table = scores(n=200)
    table.to_csv(tmp_path / "m.csv", index=False)
    figure = plot_conditions(tmp_path / "m.csv", tmp_path / "m.png", "test")
    (axes,) = figure.axes
    every = np.sort(table.loc[table["split"] == "test", "pearson"])
    half = MOST_SHOWN // 2
    shown = [bar.get_width() for bar in axes.containers[0]]
    np.testing.assert_allclose(shown, [*every[:half], *every[-half:]])
    assert f"worst {half} and best {half} of 200" in axes.get_title()
    assert not overlap(figure, axes.get_yticklabels())


def test_boxes_hold_the_quantiles_of_each_condition(tmp_path):
    table = predictions()
    table.to_csv(tmp_path / "p.csv", index=False)
    figure = plot_residuals_by_condition(tmp_path / "p.csv", tmp_path / "p.png", "test")
    (axes,) = figure.axes
    boxes = [patch for patch in axes.patches if isinstance(patch, PathPatch)]
    assert len(boxes) == 3
    for box, temperature in zip(boxes, (22.0, 21.0, 20.0), strict=True):  # largest errors first
        values = table.loc[table["temperature"] == temperature, "residual"].dropna()
        ends = box.get_path().vertices[:, 0]
        np.testing.assert_allclose([ends.min(), ends.max()], np.quantile(values, [0.25, 0.75]))
    counts = table.groupby("temperature")["residual"].count()
    assert labels(axes) == [f"T {t}  (n {counts[t]})" for t in (22, 21, 20)]


def test_a_file_that_is_read_in_blocks_gives_the_same_picture(tmp_path, monkeypatch):
    table = predictions(7, 50).sample(frac=1, random_state=0)
    table.loc[table["temperature"] == 22, "medium"] = None
    table.to_csv(tmp_path / "p.csv", index=False)
    plot_residuals_by_condition(tmp_path / "p.csv", tmp_path / "whole.png", "test")
    monkeypatch.setattr(canvas, "ROWS", 40)
    plot_residuals_by_condition(tmp_path / "p.csv", tmp_path / "blocks.png", "test")
    np.testing.assert_array_equal(imread(tmp_path / "blocks.png"), imread(tmp_path / "whole.png"))


def test_both_strands_are_in_a_box(tmp_path):
    table = predictions().rename(columns={"y_true": "y_true_plus", "residual": "residual_plus"})
    table["residual_minus"] = table["residual_plus"]
    table.to_csv(tmp_path / "p.csv", index=False)
    (axes,) = plot_residuals_by_condition(tmp_path / "p.csv", tmp_path / "p.png", "all").axes
    total = sum(int(label.split("(n ")[1].rstrip(")")) for label in labels(axes))
    assert total == 2 * table["residual_plus"].notna().sum()


@pytest.mark.parametrize("draw", [plot_conditions, plot_residuals_by_condition])
def test_nothing_to_show_is_said(tmp_path, draw):
    table = scores() if draw is plot_conditions else predictions()
    table.to_csv(tmp_path / "t.csv", index=False)
    (axes,) = draw(tmp_path / "t.csv", tmp_path / "t.png", "new").axes
    assert "new part" in axes.texts[0].get_text()
