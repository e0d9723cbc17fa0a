"""The page in a real browser, without a network: nothing sticks out, all pictures are there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import long_table

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next((found for name in NAMES if (found := shutil.which(name))), None)
WIDTHS = (1280, 390)

PROBE = """<!DOCTYPE html><html><body><iframe id="page" src="report.html" width="{width}"
 height="900" style="border:0"></iframe><pre id="said"></pre><script>
document.getElementById("page").onload = (event) => {{
  const inside = event.target.contentWindow, page = inside.document;
  document.getElementById("said").textContent = "SAID" + JSON.stringify({{
    width: inside.innerWidth, wide: page.documentElement.scrollWidth,
    images: [...page.images].map((each) => each.complete && each.naturalWidth),
    language: page.documentElement.lang,
  }}) + "DIAS";
}};</script></body></html>"""
"""A page that holds the page at a width which no browser window may have, and measures it."""


def look(folder: Path, html: str, width: int) -> tuple[dict, str]:
    """What a browser says of a page at a width, and what it wrote to its console."""
    (folder / "report.html").write_text(html, "utf-8")
    (folder / "probe.html").write_text(PROBE.format(width=width), "utf-8")
    done = subprocess.run(
        [
            str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
            "--allow-file-access-from-files", "--enable-logging=stderr", "--no-first-run",
            "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}",
            "--virtual-time-budget=5000", f"--window-size={max(width, 500)},1000",
            (folder / "probe.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    said = re.search(r"SAID(.*?)DIAS</pre>", done.stdout)
    assert said, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(said[1]), "\n".join(console)


@pytest.fixture(scope="module")
def browser() -> None:
    if BROWSER is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")


def evaluated(train, evaluate, tmp_path: Path) -> tuple[Path, Path]:
    """A run and its evaluation in Chinese, of a table with names that are hard to set."""
    table = long_table()
    long = "a_very_long_name_of_a_medium_without_any_space_" * 3
    table["medium"] = table["medium"].replace({"SC": f"<i>SC & {long}</i> 培养基"})
    table["drug"] = table["drug"].replace({"H2O2": f"drug_{long}"})
    path = tmp_path / f"{long[:100]}.csv"
    table.to_csv(path, index=False)
    run = train(path, "experiment.name=<script>alert(1)</script>")
    return run, evaluate(run, path, "--set", "report.language=zh")


def test_the_page_fits_its_window_and_shows_its_pictures(train, evaluate, tmp_path, browser):
    for folder, language in zip(evaluated(train, evaluate, tmp_path), ("en", "zh-CN"), strict=True):
        html = (folder / "report.html").read_text("utf-8")
        pictures = len(list((folder / "plots").glob("*.png")))
        assert pictures >= 4
        for width in WIDTHS:
            said, console = look(tmp_path, html, width)
            assert said["width"] == width
            assert said["wide"] <= width, language
            assert said["images"] == [1600] * pictures
            assert said["language"] == language
            assert console == ""


def test_the_browser_would_see_what_is_wrong(tmp_path, browser):
    """A page that is too wide, lacks a picture and has an error."""
    html = (
        "<!DOCTYPE html><html lang=en><body><div style='width:2000px'>x</div>"
        "<img src='data:image/png;base64,AAAA'><script>console.error('broken')</script>"
    )
    said, console = look(tmp_path, html, 390)
    assert said["wide"] >= 2000
    assert said["images"] == [0]
    assert "broken" in console


def test_the_scores_of_the_best_baseline_by_condition_are_those_of_its_predictions(
    train, evaluate, table_path
):
    """The squared errors of all conditions add up to those of the whole part."""
    folder = evaluate(train(table_path), table_path)
    said = json.loads((folder / "metrics.json").read_text())
    rows = pd.read_csv(folder / "metrics_by_condition.csv")
    test = rows[rows["split"] == "test"]
    name = said["beats_best_baseline_by"]["name"]
    assert set(test["baseline"]) == {name}
    assert rows.loc[rows["split"] != "test", "pearson_baseline"].isna().all()
    pooled = (test["n"] * test["rmse_baseline"] ** 2).sum() / test["n"].sum()
    assert pooled**0.5 == pytest.approx(said["baselines"][name]["overall"]["rmse"], rel=1e-6)
    across = said["baselines"][name]["across_region_pearson"]
    assert test["pearson_baseline"].mean() == pytest.approx(across, rel=1e-6)


def test_language_formats_and_no_page(train, evaluate, table_path):
    run = train(table_path, "report.enabled=false", "report.formats=[png,pdf]")
    assert not (run / "report.html").exists()
    names = {path.name for path in (run / "plots").iterdir()}
    assert names == {
        f"{name}.{kind}"
        for name in ("scatter", "residuals", "residuals_by_condition", "history", "calibration")
        for kind in ("png", "pdf")
    }
    folder = evaluate(run, table_path, "--set", "report.enabled=true")
    html = (folder / "report.html").read_text("utf-8")
    assert '<html lang="en">' in html
    assert f"evaluate_yeast --model {run / 'best_model.pth'}" in html
    again = evaluate(run, table_path, "--set", "report.enabled=true", "--overwrite")
    assert (again / "report.html").read_text("utf-8").replace(" --overwrite", "") == html
    chinese = evaluate(
        run, table_path, "--set", "report.enabled=true", "--set", "report.language=zh",
        "--set", "task.test_mode=predict", output="zh",
    )  # fmt: skip
    html = (chinese / "report.html").read_text("utf-8")
    assert '<html lang="zh-CN">' in html
    assert "没有计分" in html


def test_formats_without_png_are_refused(train, table_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        train(table_path, "report.formats=[pdf]")
    assert stopped.value.code == 2
    assert "report.formats: lacks png" in capsys.readouterr().err
