from __future__ import annotations

import logging
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread

from yeast_get import run_dir
from yeast_get.data import blocks
from yeast_get.errors import WriteError
from yeast_get.evaluation import canvas, plots
from yeast_get.evaluation.metrics import score


def write_predictions(path, n=300, strands=(), seed=0):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"row": np.arange(n) + 2, "region_id": "chrII_1_2", "gene_id": "酵母"})
    table["split"] = np.resize(["train", "test", "test", "val"], n)
    for suffix in strands or ("",):
        true = rng.normal(size=n)
        pred = 0.6 * true + rng.normal(size=n)
        true[::10] = np.nan
        table[f"y_true{suffix}"] = true
        table[f"y_pred{suffix}"] = pred
        table[f"residual{suffix}"] = true - pred
    table.to_csv(path, index=False)
    return table


def written(png):
    """The picture, after a check that it is one and is not blank."""
    image = imread(png)
    assert image.shape[:2] == (1200, 1600)
    assert np.ptp(image[..., :3]) > 0.5
    assert [path.name for path in png.parent.glob("*tmp*")] == []
    return image


def texts(axes):
    return [text.get_text() for text in axes.texts]


def kinds(axes, kind):
    return [artist for artist in axes.collections if type(artist) is kind]


@pytest.fixture
def png(tmp_path):
    (tmp_path / "plots").mkdir()
    return tmp_path / "plots" / "plot.png"


@pytest.mark.parametrize("part", ["test", "all"])
def test_scatter_shows_the_measured_rows_of_a_part(tmp_path, png, part):
    table = write_predictions(tmp_path / "p.csv")
    rows = table if part == "all" else table[table["split"] == part]
    rows = rows[rows["y_true"].notna()]
    axes = plots.plot_scatter(tmp_path / "p.csv", png, part).axes[0]
    written(png)
    (points,) = kinds(axes, PathCollection)
    np.testing.assert_allclose(points.get_offsets(), rows[["y_true", "y_pred"]])
    assert axes.get_xlabel() == "measured expression (units of the input)"
    assert axes.get_ylabel() == "predicted expression (units of the input)"
    assert part in axes.get_title()
    assert f"n = {len(rows)}" in axes.get_title()
    assert axes.get_xlim() == axes.get_ylim()
    assert axes.get_aspect() == 1
    scores = score(rows["y_true"].to_numpy(), rows["y_pred"].to_numpy())
    assert texts(axes) == [f"Pearson r = {scores['pearson']:.3f}\nR² = {scores['r2']:.3f}"]
    (line,) = axes.lines
    np.testing.assert_array_equal(*line.get_data())


def test_scatter_shows_the_interval_of_the_correlation(tmp_path, png):
    write_predictions(tmp_path / "p.csv")
    axes = plots.plot_scatter(tmp_path / "p.csv", png, "test", (0.4321, 0.5678)).axes[0]
    assert "95 % interval 0.432 to 0.568" in texts(axes)[0].splitlines()


def test_a_million_points_make_a_small_pdf_in_seconds(tmp_path, png):
    write_predictions(tmp_path / "p.csv", n=1_000_000)
    started = time.process_time()
    canvas.draw(plots.plot_scatter, tmp_path / "p.csv", png, ["png", "pdf"], "all")
    assert time.process_time() - started < 20
    assert png.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    assert png.with_suffix(".pdf").stat().st_size < 1_000_000
    assert png.stat().st_size < 1_000_000


def test_a_pdf_has_the_same_bytes_twice(tmp_path, png):
    write_predictions(tmp_path / "p.csv", n=4000)
    said = []
    for _ in range(2):
        canvas.draw(plots.plot_scatter, tmp_path / "p.csv", png, ["png", "pdf"], "all")
        said.append(png.with_suffix(".pdf").read_bytes())
    assert said[0] == said[1]
    assert b"CreationDate" not in said[0]


def test_calibration(tmp_path, png):
    table = pd.DataFrame({"level": [0.9, 0.5], "covered": [0.88, 0.6], "mean_width": [3.0, 1.0]})
    table["n"] = 10
    table.to_csv(tmp_path / "c.csv", index=False)
    coverage, width = plots.plot_calibration(tmp_path / "c.csv", png).axes
    written(png)
    diagonal, measured = coverage.lines
    np.testing.assert_array_equal(*diagonal.get_data())
    np.testing.assert_allclose(measured.get_data(), [[50, 90], [60, 88]])
    np.testing.assert_allclose(width.lines[0].get_data(), [[50, 90], [1, 3]])
    table.assign(covered=np.nan).to_csv(tmp_path / "c.csv", index=False)
    assert texts(plots.plot_calibration(tmp_path / "c.csv", png).axes[0]) == [
        "no coverage was measured"
    ]


def test_scatter_of_many_points_counts_them(tmp_path, png):
    table = write_predictions(tmp_path / "p.csv", n=4000)
    axes, bar = plots.plot_scatter(tmp_path / "p.csv", png, "all").axes
    written(png)
    (cells,) = kinds(axes, PolyCollection)
    assert cells.get_array().sum() == table["y_true"].notna().sum()
    assert bar.get_ylabel() == "values per cell"


@pytest.mark.parametrize("draw", [plots.plot_scatter, plots.plot_residuals])
def test_a_file_that_is_read_in_blocks_gives_the_same_picture(tmp_path, png, monkeypatch, draw):
    write_predictions(tmp_path / "p.csv", 9000)
    draw(tmp_path / "p.csv", png, "all")
    whole = imread(png)
    monkeypatch.setattr(plots, "ROWS", 1000)
    monkeypatch.setattr(blocks, "ROWS", 1000)
    monkeypatch.setattr(canvas, "ROWS", 1000)
    draw(tmp_path / "p.csv", png, "all")
    np.testing.assert_array_equal(imread(png), whole)


def test_two_strands_are_pooled_and_it_is_said(tmp_path, png):
    table = write_predictions(tmp_path / "p.csv", strands=("_plus", "_minus"))
    n = int(table[["y_true_plus", "y_true_minus"]].notna().sum().sum())
    for draw in (plots.plot_scatter, plots.plot_residuals):
        axes = draw(tmp_path / "p.csv", png, "all").axes[0]
        (points,) = kinds(axes, PathCollection)
        assert len(points.get_offsets()) == n
        assert "both strands pooled" in axes.get_title()


@pytest.mark.parametrize("n", [300, 5000])
def test_residuals(tmp_path, png, n):
    table = write_predictions(tmp_path / "p.csv", n=n)
    rows = table[(table["split"] == "test") & table["residual"].notna()]
    axes, side = plots.plot_residuals(tmp_path / "p.csv", png, "test").axes[:2]
    written(png)
    assert axes.get_xlabel() == "predicted expression (units of the input)"
    assert axes.get_ylabel() == "residual (measured - predicted, units of the input)"
    assert f"n = {len(rows):,}" in axes.get_title()
    assert any(set(line.get_ydata()) == {0} for line in axes.lines)
    assert sum(bar.get_width() for bar in side.patches) == len(rows)
    (mean,) = (line for line in axes.lines if line.get_label().startswith("mean"))
    assert len(mean.get_xdata()) == min(max(len(rows) // 50, 1), 40)
    # equally many values in each bin, so that the mean of the bins' means is the mean
    assert np.mean(mean.get_ydata()) == pytest.approx(rows["residual"].mean(), abs=0.02)


@pytest.mark.parametrize("draw", [plots.plot_scatter, plots.plot_residuals])
@pytest.mark.parametrize("part", ["val", "unused", "$x$ 培养基"])
def test_a_part_without_measured_rows_says_so(tmp_path, png, draw, part):
    table = write_predictions(tmp_path / "p.csv")
    table.loc[table["split"] == "val", ["y_true", "residual"]] = np.nan
    table.to_csv(tmp_path / "p.csv", index=False)
    figure = draw(tmp_path / "p.csv", png, part)
    written(png)
    assert texts(figure.axes[0]) == [f"no measured rows in {part} part"]


@pytest.mark.parametrize("draw", [plots.plot_scatter, plots.plot_residuals])
@pytest.mark.parametrize("rows", [1, 2, 5000])
def test_equal_values_are_drawn_without_a_warning(tmp_path, png, draw, rows):
    constant = {"split": "test", "y_true": 3.0, "y_pred": 3.0, "residual": 0.0}
    pd.DataFrame([constant] * rows).to_csv(tmp_path / "p.csv", index=False)
    axes = draw(tmp_path / "p.csv", png, "test").axes[0]
    written(png)
    if draw is plots.plot_scatter:
        assert texts(axes) == ["Pearson r undefined\nR² undefined"]


def test_a_file_without_a_column_is_refused_and_nothing_is_written(tmp_path, png):
    pd.DataFrame({"y_true": [1.0]}).to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(ValueError, match="y_pred"):
        plots.plot_scatter(tmp_path / "p.csv", png, "all")
    assert list(png.parent.iterdir()) == []


def test_a_failed_write_leaves_the_old_picture(tmp_path, png, monkeypatch):
    write_predictions(tmp_path / "p.csv")
    plots.plot_scatter(tmp_path / "p.csv", png, "all")
    before = png.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(run_dir.os, "replace", fail)
    with pytest.raises(WriteError, match="disk full"):
        plots.plot_scatter(tmp_path / "p.csv", png, "test")
    assert png.read_bytes() == before
    assert [path.name for path in png.parent.iterdir()] == ["plot.png"]


def importance_table(features=30):
    names = [f"motif_{k}" for k in range(features - 4)]
    names += ["x" * 80, "NA", "培养基 $a_1$", "undefined"]
    table = pd.DataFrame({"feature": names, "kind": "motif"})
    table["importance_mean"] = np.random.default_rng(0).normal(0.01, 0.01, features)
    table["repeat_1"] = 0.0
    table.loc[features - 4 :, "kind"] = ["region feature", "accessibility", "condition", "new kind"]
    table.loc[features - 4 :, "importance_mean"] = [0.2, 0.3, 0.4, np.nan]
    table["importance_low"] = table["importance_mean"] - 0.002
    table["importance_high"] = table["importance_mean"] + 0.005
    return table


def test_importance_shows_the_largest_on_top(tmp_path, png):
    importance_table().to_csv(tmp_path / "i.csv", index=False)
    figure = plots.plot_importance(tmp_path / "i.csv", png, top=10)
    written(png)
    (axes,) = figure.axes
    widths = [bar.get_width() for bar in axes.patches]
    assert len(widths) == 10
    assert widths == sorted(widths, reverse=True)
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first bar is the top one
    assert axes.get_xlabel() == "drop in Pearson r when shuffled (95 % interval)"
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[:2] == ["培养基 $a_1$", "NA"]
    assert labels[2] == canvas.shorten("x" * 80)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(plots.KIND_COLOURS)
    assert to_hex(axes.patches[0].get_facecolor()).upper() == plots.KIND_COLOURS["condition"]
    assert "10 of 29" in axes.get_title()
    (whiskers,) = axes.collections
    for bar, ((low, _), (high, _)) in zip(axes.patches, whiskers.get_segments(), strict=True):
        assert (low, high) == pytest.approx((bar.get_width() - 0.002, bar.get_width() + 0.005))


def test_importance_with_fewer_features_than_asked_an_unknown_kind_and_no_interval(tmp_path, png):
    row = {"feature": "a", "kind": "new", "importance_mean": -0.1}
    row |= {"importance_low": np.nan, "importance_high": np.nan}
    pd.DataFrame([row]).to_csv(tmp_path / "i.csv", index=False)
    (axes,) = plots.plot_importance(tmp_path / "i.csv", png).axes
    written(png)
    assert to_hex(axes.patches[0].get_facecolor()).upper() == plots.OTHER_COLOUR


def test_importance_of_nothing_says_so(tmp_path, png):
    importance_table().head(0).to_csv(tmp_path / "i.csv", index=False)
    figure = plots.plot_importance(tmp_path / "i.csv", png)
    written(png)
    assert texts(figure.axes[0]) == ["no feature has a defined importance"]


def history():
    return pd.DataFrame(
        {
            "epoch": [0, 1, 2, 3],
            "train_loss": [np.nan, 3.0, 2.0, 1.0],
            "val_loss": [4.0, 3.0, 3.5, 3.6],
            "val_pearson": [np.nan, 0.2, 0.4, 0.3],
            "learning_rate": 1e-3,
        }
    )


def marked(axes):
    (label,) = (line.get_label() for line in axes.lines if str(line.get_label()).startswith("best"))
    return label


@pytest.mark.parametrize(("monitor", "best"), [("val_pearson", 2), ("val_loss", 1)])
def test_history(tmp_path, png, monitor, best):
    history().to_csv(tmp_path / "h.csv", index=False)
    loss, pearson = plots.plot_history(tmp_path / "h.csv", png, monitor).axes
    written(png)
    assert loss.lines[0].get_xdata().tolist() == [1, 2, 3]
    assert loss.lines[1].get_ydata().tolist() == [4.0, 3.0, 3.5, 3.6]
    assert pearson.lines[0].get_ydata().tolist() == [0.2, 0.4, 0.3]
    assert marked(loss) == marked(pearson) == f"best epoch: {best}"
    assert pearson.get_xlabel() == "epoch"
    assert "loss" in loss.get_ylabel()
    assert "Pearson r" in pearson.get_ylabel()


def test_history_without_a_correlation_or_without_rows(tmp_path, png):
    history().assign(val_pearson=np.nan).to_csv(tmp_path / "h.csv", index=False)
    assert marked(plots.plot_history(tmp_path / "h.csv", png).axes[0]) == "best epoch: 1"
    history().assign(val_pearson=np.nan, val_loss=np.nan).to_csv(tmp_path / "h.csv", index=False)
    assert len(plots.plot_history(tmp_path / "h.csv", png).axes[0].lines) == 2
    history().head(0).to_csv(tmp_path / "h.csv", index=False)
    figure = plots.plot_history(tmp_path / "h.csv", png)
    written(png)
    assert texts(figure.axes[0]) == ["no epoch in the history"]


def test_shorten_keeps_both_ends():
    assert canvas.shorten("MA0265.1.ABF1") == "MA0265.1.ABF1"
    short = canvas.shorten("start" + "x" * 50 + "end")
    assert len(short) == canvas.LONGEST_NAME
    assert short.startswith("start")
    assert short.endswith("end")
    assert "…" in short


def test_pyplot_is_never_imported():
    code = (
        "import sys; from yeast_get.evaluation import canvas, plots; "
        "assert 'matplotlib' not in sys.modules; canvas.new_figure(); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_picture_that_fails_is_a_warning_and_leaves_none(tmp_path, png, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("yeast_get"), "propagate", True)
    source = tmp_path / "p.csv"
    write_predictions(source)
    canvas.draw(plots.plot_scatter, source, png, ["pdf"], "all")
    pdf = png.with_suffix(".pdf")
    assert png.exists()
    assert pdf.exists()
    savefig = Figure.savefig

    def no_pdf(figure, file, format, **options):
        if format == "pdf":
            raise RuntimeError("no font")
        savefig(figure, file, format=format, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", no_pdf)
        canvas.draw(plots.plot_scatter, source, png, ["pdf"], "all")
    assert "warning" in caplog.text
    assert "no picture could be made (RuntimeError: no font)" in caplog.text
    assert png.exists()
    assert not pdf.exists()
    source.unlink()
    canvas.draw(plots.plot_scatter, source, png, ["png"], "all")
    assert "(FileNotFoundError: " in caplog.text
    assert not png.exists()
