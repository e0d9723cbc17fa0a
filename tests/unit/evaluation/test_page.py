"""The page says what the files say, in both languages, whatever stands in them."""

from __future__ import annotations

import base64
import json
import re
from string import Formatter

import pytest

from yeast_get.config import load_settings
from yeast_get.evaluation import rivals
from yeast_get.evaluation.page import PICTURES, write_page
from yeast_get.evaluation.page_words import SAID_IN_CHINESE, WORDS
from yeast_get.run_dir import EVALUATE_FILES, RunDir, write_json

NASTY = "<b>&\"培养基'</b>"
PNG = b"\x89PNG not really"
TRAINED = {
    "software": "0.1.0",
    "model": {"parameters": 12345, "trainable": 345, "lora": 0, "frozen": 12000},
    "pretrained": {"file": NASTY, "backbone": (10, 20)},
    "lora": {"modules": ["a", "b"]},
    "training": {"epochs": 7, "best_epoch": 5},
}


def summary(pearson, ci95=None, n=896):
    overall = {"n": n, "pearson": pearson, "spearman": 0.5, "r2": 0.25, "rmse": 1.5, "mae": 1.25}
    if pearson is None:
        overall["pearson_reason"] = "all predictions are equal"
    if ci95:
        overall["ci95"] = {"pearson": ci95}
    return {"overall": overall, "across_region_pearson": 0.123, "within_region_pearson": None}


def metrics(by=0.05, ci95=(0.01, 0.09)):
    test = summary(0.8, [0.7, 0.85])
    return {
        "part": "test",
        **test,
        "intervals": {"over": "regions", "regions": 56, "conditions": 12, "resamples": 1000},
        "replicates": {"pairs": 4, "pearson": 0.9, "ceiling": 0.95},
        "by_split": {"train": summary(0.99), "test": test},
        "by_drug": {NASTY: summary(0.4321)},
        "by_target": {},
        "baselines": {
            "region mean": {
                "overall": None,
                "overall_reason": "none of the regions was trained on",
            },
            "ridge bilinear": summary(0.8 - by),
        },
        "beats_best_baseline_by": {"name": "ridge bilinear", "pearson": by, "pearson_ci95": ci95},
        "overlap_with_training": OVERLAP,
    }


OVERLAP = {
    "rows_by_part": {"train": 4000, "val": 96, "test": 896, "unused": 0, "new": 0},
    "regions": 370, "regions_in_training": 258, "conditions": 12, "conditions_in_training": 11,
}  # fmt: skip
REPORT = {
    "source": NASTY, "sha256": "abc", "rows": 4992, "regions": 370, "samples": 16,
    "condition_signatures": 12, "measured": 4992, "warning_lines": [NASTY], "rows_left_out": 3,
    "target": {"lowest": 1.0, "highest": 2.0, "mean": 1.5, "sd": 0.1, "transform": "none"},
    "overlap_with_training": OVERLAP,
}  # fmt: skip


@pytest.fixture
def page(tmp_path):
    """Write the page of some metrics; returns its text, and the text without marks."""

    def write(scores, language="en", report=REPORT, settings=()):
        run = RunDir(tmp_path / language, EVALUATE_FILES)
        if not run.plots.is_dir():
            run.start()
        write_json(run.data_report, report)
        run.metrics.unlink(missing_ok=True)
        if scores:
            write_json(run.metrics, scores)
        given = load_settings(None, [f"report.language={language}", *settings])
        write_page(run, given, TRAINED, "evaluate_yeast --model 'a b.pth'")
        html = run.report.read_text("utf-8")
        body = re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
        return html, re.sub(r"<[^>]*>", " ", body)

    return write


def test_both_languages_say_the_same_things_about_the_same_values():
    assert WORDS["en"].keys() == WORDS["zh"].keys()
    for key, text in WORDS["en"].items():
        values = [
            {name for _, name, _, _ in Formatter().parse(words) if name}
            for words in (text, WORDS["zh"][key])
        ]
        assert values[0] == values[1], key
    assert set(rivals.NAMES) <= SAID_IN_CHINESE.keys()


@pytest.mark.parametrize("picture", PICTURES)
def test_every_picture_has_a_caption(picture):
    assert WORDS["en"][picture] != WORDS["zh"][picture]


@pytest.mark.parametrize(
    ("by", "ci95", "said"),
    [
        (0.05, [0.01, 0.09], "This is better than the best simple baseline"),
        (0.05, [-0.01, 0.11], "the two cannot be told apart"),
        (-0.05, [-0.11, 0.01], "the two cannot be told apart"),
        (-0.05, [-0.09, -0.01], "This is NOT better than simple baselines"),
        (0.05, None, "This is better than the best simple baseline"),
        (-0.05, None, "This is NOT better than simple baselines"),
    ],
)
def test_the_verdict_says_whether_the_model_beats_the_best_baseline(page, by, ci95, said):
    _, text = page(metrics(by, ci95))
    assert "In regions (promoters) that the model was not trained on (896 measured values;" in text
    assert "r = 0.800 (95 % interval 0.700 to 0.850)" in text
    assert f"ridge bilinear (r = {0.8 - by:.3f})" in text
    verdicts = ["This is better", "cannot be told apart", "predicts better"]
    assert said in text
    assert sum(verdict in text for verdict in verdicts) == 1
    assert ("(95 % interval {:+.3f} to {:+.3f})".format(*ci95) in text) if ci95 else True


@pytest.mark.parametrize(
    ("by", "said"),
    [("condition", "growth conditions that"), ("random", "single measurements"),
     ("region_and_condition", "neither of which"), ("chromosome", "chromosomes")],
)  # fmt: skip
def test_the_verdict_says_what_was_held_out(page, by, said):
    assert said in page(metrics(), settings=[f"split.by={by}"])[1].split("What was held out")[0]


def test_rows_that_were_trained_on_are_not_called_new(page):
    _, text = page(metrics() | {"part": "train"})
    assert "which says nothing about new data" in text
    assert "was not trained on" not in text.split("Scores beside")[0]


def test_a_mixture_gets_no_single_score(page):
    mixed = {
        "part": "all", "overall": None, "overall_reason": "mixed",
        "by_split": {"train": summary(0.99), "test": summary(0.5)},
        "overlap_with_training": OVERLAP,
    }  # fmt: skip
    _, text = page(mixed)
    assert "no single score, since the table mixes 4,096 rows" in text
    assert "0.990" in text
    assert "Scores beside" not in text


def test_what_was_not_scored_is_said(page):
    assert "This run predicted 4,992 rows and scored none" in page(None)[1]
    nothing = metrics() | {"overall": {"n": 0, "pearson": None, "pearson_reason": "no values"}}
    assert "Nothing was scored" in page(nothing)[1]
    undefined = metrics() | summary(None)
    assert "no correlation is defined: all predictions are equal" in page(undefined)[1]
    alone = metrics()
    alone["beats_best_baseline_by"] = {
        "name": None, "pearson": None,
        "pearson_reason": "no baseline has a defined Pearson correlation",
    }  # fmt: skip
    assert "not compared with simple baselines: no baseline has a defined" in page(alone)[1]


def test_an_undefined_baseline_stands_in_the_table_with_its_reason(page):
    _, text = page(metrics())
    assert re.search(r"region mean\s+undefined: none of the regions was trained on", text)
    assert re.search(r"ridge bilinear \(best baseline\)\s+0.750", text)


def test_names_cannot_break_the_page(page):
    html, text = page(metrics(), settings=[f"experiment.name={json.dumps(NASTY)}"])
    assert "<b>" not in html
    escaped = "&lt;b&gt;&amp;&quot;培养基&#x27;&lt;/b&gt;"
    assert html.count(escaped) == 6  # title twice, drug, source, pretrained file, warning
    assert "evaluate_yeast --model &#x27;a b.pth&#x27;" in text


def test_the_page_holds_its_pictures_and_needs_no_other_file(page, tmp_path):
    plots = tmp_path / "en" / "plots"
    plots.mkdir(parents=True)
    for name in ("history", "scatter", "sweep"):
        (plots / f"{name}.png").write_bytes(PNG + name.encode())
    html, _ = page(metrics())
    held = re.findall(r'src="([^"]*)"', html)
    assert all(each.startswith("data:image/png;base64,") for each in held)
    decoded = [base64.b64decode(each.split(",")[1]) for each in held]
    assert decoded == [PNG + name for name in (b"scatter", b"history", b"sweep")]
    assert "http" not in html
    assert "<script" not in html
    assert "plots/scatter.png" in html.split("<h2>Files</h2>")[1]


def test_how_sure_predictions_are_is_one_sentence(page):
    sure = {
        "level": 0.9, "covered": 0.876, "mean_width": 2.345, "members": 5, "reason": None,
        "groups": 54, "over": "regions", "needed": 9,
    }  # fmt: skip
    _, text = page(metrics() | {"uncertainty": sure})
    assert "87.6% lie inside the 90% prediction intervals, whose mean width is 2.35" in text
    assert "calibrated on 54 regions of the validation part" in text
    assert "the mean of 5 models" in text
    unsure = sure | {"covered": None, "mean_width": None, "reason": "nothing was measured"}
    said = page(metrics() | {"uncertainty": unsure})[1]
    assert "no calibrated prediction intervals: nothing was measured" in said
    few = page(metrics() | {"uncertainty": unsure | {"groups": 6}})[1]
    assert "the validation part has 6 regions, and 9 are needed" in few


def test_a_chinese_page_is_chinese(page):
    html, text = page(metrics(), "zh")
    assert '<html lang="zh-CN">' in html
    left = set(re.findall(r"[a-z]{3,}", text.replace(NASTY, "")))
    known = {"yeast", "get", "earson", "pearman", "train", "test", "val", "new", "data", "report",
             "json", "metrics", "evaluate", "model", "pth", "abc", "amp", "quot"}  # fmt: skip
    assert left <= known, left - known


def test_a_control_and_scores_of_genes_are_told(page):
    settings = ("training.shuffle_targets=true",)
    _, text = page(metrics() | {"by_gene": {"target": summary(0.6543)}}, settings=settings)
    assert "A control: training and validation targets were shuffled" in text
    assert "By gene: weighted means of regions" in text
    assert "0.654" in text
    assert "A control" not in page(metrics())[1]
