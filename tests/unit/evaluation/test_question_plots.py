"""The pictures of questions show what their files hold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.colors import to_rgba
from sklearn.decomposition import PCA

from tests.unit.evaluation.test_plots import kinds, texts, written
from yeast_get.evaluation.question_plots import plot_embeddings, plot_knockout, plot_sweep


@pytest.fixture
def png(tmp_path):
    return tmp_path / "plot.png"


def write_sweep(path, axes, regions=20, outside=lambda point: "", sd=None):
    """A sweep.csv of made-up predictions over the product of axes."""
    rng = np.random.default_rng(0)
    points = pd.MultiIndex.from_product(axes.values(), names=axes).to_frame(index=False)
    names = pd.DataFrame({"region_id": [f"chrI_{i}_{i + 5}" for i in range(regions)]})
    table = names.merge(points, how="cross")
    table["y_pred"] = rng.normal(size=len(table))
    if sd is not None:
        table["y_std"] = sd
    table["extrapolated"] = [int(bool(outside(point))) for point in table.to_dict("records")]
    table.to_csv(path, index=False)
    return table


def line(axes, label):
    (found,) = [each for each in axes.lines if each.get_label() == label]
    return found.get_xydata().T


def hot(point):
    return f"temperature outside training: {point['temperature']}" * (point["temperature"] > 37)


def test_a_curve_is_the_mean_of_regions_and_hollow_outside_of_training(tmp_path, png):
    table = write_sweep(tmp_path / "s.csv", {"temperature": np.arange(30.0, 40)}, outside=hot)
    figure = plot_sweep(tmp_path / "s.csv", png, {"temperature": "°C"})
    written(png)
    (axes,) = figure.axes
    x, y = line(axes, "mean of regions")
    mean = table.groupby("temperature")["y_pred"].mean()
    np.testing.assert_allclose([x, y], [mean.index, mean], rtol=1e-6)
    assert axes.get_xscale() == "linear"
    assert axes.get_xlabel() == "temperature (°C)"
    assert axes.get_title() == "20 regions: mean, and the band of 10 to 90 % of them"
    band = next(each for each in axes.collections if not isinstance(each, PathCollection))
    edges = band.get_paths()[0].vertices
    for share in (0.1, 0.9):
        expected = table.groupby("temperature")["y_pred"].quantile(share)
        for point in zip(expected.index, expected, strict=True):
            assert np.abs(edges - point).sum(axis=1).min() < 1e-9
    dots = next(each for each in kinds(axes, PathCollection) if len(each.get_offsets()) == 10)
    hollow = (dots.get_facecolor() == to_rgba("white")).all(axis=1)
    assert hollow.tolist() == [False] * 8 + [True] * 2
    assert texts(axes) == ["outside training"]
    (shade,) = axes.patches
    assert shade.get_x() == 38
    assert shade.get_x() + shade.get_width() >= axes.get_xlim()[1]


def test_a_range_that_begins_at_zero_is_shaded_to_the_edge(tmp_path, png):
    def cold(point):
        return "temperature outside training: 0" * (point["temperature"] == 0)

    write_sweep(tmp_path / "s.csv", {"temperature": np.arange(0.0, 40, 10)}, outside=cold)
    (axes,) = plot_sweep(tmp_path / "s.csv", png, {"temperature": "°C"}).axes
    (shade,) = axes.patches
    left, right = sorted((shade.get_x(), shade.get_x() + shade.get_width()))
    assert left <= axes.get_xlim()[0] < 0
    assert right == 0


def test_few_regions_have_a_line_each_with_the_spread_of_an_ensemble(tmp_path, png):
    table = write_sweep(tmp_path / "s.csv", {"dose": np.geomspace(1e-6, 1e-2, 9)}, 3, sd=0.25)
    figure = plot_sweep(tmp_path / "s.csv", png, {"dose": "mol/L"})
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert axes.get_title() == "prediction of each region, band: SD of the ensemble"
    for region, rows in table.groupby("region_id"):
        np.testing.assert_allclose(line(axes, region)[1], rows["y_pred"])
    bands = [each for each in axes.collections if not isinstance(each, PathCollection)]
    first = table[table["region_id"] == table["region_id"][0]]["y_pred"]
    assert bands[0].get_paths()[0].vertices[:, 1].max() == pytest.approx(first.max() + 0.25)
    assert not axes.patches
    assert not texts(axes)


def test_words_and_a_second_field_have_a_line_per_value(tmp_path, png):
    axes_of = {"medium": ["NA", "YPD"], "temperature": [25.0, 30.0, 37.0]}
    table = write_sweep(tmp_path / "s.csv", axes_of)
    (axes,) = plot_sweep(tmp_path / "s.csv", png, {"medium": None, "temperature": "°C"}).axes
    rows = table[table["medium"] == "NA"].groupby("temperature")["y_pred"].mean()
    np.testing.assert_allclose(line(axes, "NA")[1], rows)
    assert axes.get_legend().get_title().get_text() == "medium"
    write_sweep(tmp_path / "s.csv", {"medium": ["NA", "YPD", "SC"]})
    (axes,) = plot_sweep(tmp_path / "s.csv", png, {"medium": None}).axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["NA", "YPD", "SC"]


def test_many_lines_have_no_bands(tmp_path, png):
    axes_of = {"temperature": [25.0, 30.0, 37.0], "medium": list("ABCDE")}
    table = write_sweep(tmp_path / "s.csv", axes_of)
    (axes,) = plot_sweep(tmp_path / "s.csv", png, {"temperature": "°C", "medium": None}).axes
    mean = table[table["medium"] == "D"].groupby("temperature")["y_pred"].mean()
    np.testing.assert_allclose(line(axes, "D")[1], mean)
    for band in (each for each in axes.collections if not isinstance(each, PathCollection)):
        assert len(np.unique(band.get_paths()[0].vertices[:, 1].round(9))) == 3  # of no height
    assert axes.get_title() == "mean of 20 regions"


def test_two_long_fields_make_a_heat_map(tmp_path, png):
    axes_of = {"temperature": np.arange(30.0, 40), "time": np.arange(1.0, 13)}
    table = write_sweep(tmp_path / "s.csv", axes_of, outside=hot)
    figure = plot_sweep(tmp_path / "s.csv", png, {"temperature": "°C", "time": "h"})
    written(png)
    axes = figure.axes[0]
    (mesh,) = kinds(axes, QuadMesh)
    expected = table.groupby(["temperature", "time"])["y_pred"].mean().to_numpy()  # longer along
    np.testing.assert_allclose(mesh.get_array().reshape(-1), expected, rtol=1e-6)
    (crosses,) = kinds(axes, PathCollection)
    assert sorted(set(crosses.get_offsets()[:, 1])) == [8.5, 9.5]
    assert len(crosses.get_offsets()) == 2 * 12


def test_of_a_short_and_a_long_field_the_long_one_is_drawn_along(tmp_path, png):
    axes_of = {"temperature": [25.0, 37.0], "dose": np.geomspace(1e-9, 1e-8, 60)}
    write_sweep(tmp_path / "s.csv", axes_of)
    (axes,) = plot_sweep(tmp_path / "s.csv", png, {"temperature": "°C", "dose": "mol/L"}).axes
    assert len(axes.lines) == 2
    assert all(len(each.get_xdata()) == 60 for each in axes.lines)
    assert axes.get_xscale() == "log"


def test_two_strands_have_a_panel_each(tmp_path, png):
    table = write_sweep(tmp_path / "s.csv", {"temperature": [25.0, 30.0]})
    table = table.rename(columns={"y_pred": "y_pred_plus"}).assign(y_pred_minus=1.5)
    table.to_csv(tmp_path / "s.csv", index=False)
    plus, minus = plot_sweep(tmp_path / "s.csv", png, {"temperature": "°C"}).axes
    assert plus.get_title().startswith("strand plus")
    assert line(minus, "mean of regions")[1].tolist() == [1.5, 1.5]


def test_knockout_bars_are_means_over_regions_with_the_motif(tmp_path, png):
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"first_sample_id": np.repeat([f"s{i:02d}" for i in range(30)], 8)})
    table["condition"] = "condition of " + table["first_sample_id"]
    table["has_motif"] = np.arange(len(table)) % 2
    table["change"] = rng.normal(size=len(table))
    table.to_csv(tmp_path / "k.csv", index=False)
    (axes,) = plot_knockout(tmp_path / "k.csv", png, "YAP1").axes
    written(png)
    mean = table[table["has_motif"] == 1].groupby("condition")["change"].mean()
    largest = mean.reindex(mean.abs().sort_values(ascending=False).index)[:25]
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], largest, rtol=1e-6)
    assert [text.get_text() for text in axes.get_yticklabels()] == list(largest.index)
    assert "25 of 30 conditions" in axes.get_title()
    table.assign(has_motif=0).to_csv(tmp_path / "k.csv", index=False)
    figure = plot_knockout(tmp_path / "k.csv", png, "YAP1")
    assert texts(figure.axes[0]) == ["no region has the motif"]


@pytest.mark.parametrize("conditions", [1, 60])
def test_embeddings_lie_on_their_principal_components_and_names_apart(tmp_path, png, conditions):
    rng = np.random.default_rng(2)
    held = {
        "embedding": rng.normal(size=(40, 6)), "expression": rng.normal(size=40),
        "condition_embedding": rng.normal(size=(conditions, 6)),
        "condition": np.array([f"YPD, {i} °C, H2O2 400 µM, for 0.5 h" for i in range(conditions)]),
    }  # fmt: skip
    np.savez(tmp_path / "e.npz", **held)
    figure = plot_embeddings(tmp_path / "e.npz", png)
    written(png)
    expected = PCA(2).fit_transform(held["embedding"])
    (dots,) = kinds(figure.axes[0], PathCollection)
    shown = np.asarray(dots.get_offsets())
    order = np.argsort(np.abs(held["expression"] - np.median(held["expression"])))
    np.testing.assert_allclose(np.abs(shown), np.abs(expected[order]), atol=1e-9)
    axes = figure.axes[1]
    boxes = [text.get_window_extent() for text in axes.texts]
    assert 1 <= len(boxes) <= conditions
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
        assert figure.bbox.x0 < box.x0
        assert box.x1 < figure.bbox.x1
