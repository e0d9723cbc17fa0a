"""The commands of the documents run, and show what the README says they show."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import evaluate_yeast
import train_yeast
from yeast_get.config import Settings, load_settings

PLANTED = {
    "MA0359.1.RAP1", "MA0412.1.UME6", "MA0303.1.GCN4", "MA0319.1.HSF1", "MA0341.1.MSN2",
    "MA0415.1.YAP1", "temperature", "drug and drug_concentration", "medium", "accessibility",
}  # fmt: skip
SET_UP = ("python3 -m venv", ".venv/bin/pip install", ".venv/bin/python -m pytest")


def bash_blocks(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return [block.strip() for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)]


def number_after(text: str, path: Path) -> float:
    found = re.search(text + r"\s+(-?\d+\.\d+)", " ".join(path.read_text("utf-8").split()))
    assert found, f"{path.name} does not say {text!r}"
    return float(found[1])


@pytest.fixture(scope="module")
def clone(tmp_path_factory, root):
    """A folder that looks like a fresh clone to the commands."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("config", "input", "docs"):
        shutil.copytree(root / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def example(clone, root):
    """All commands of README and docs have run, in their order."""
    patch = pytest.MonkeyPatch()
    patch.chdir(clone)
    try:
        for path in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
            for block in bash_blocks(path):
                for command in re.split(r"&&|\n", block):
                    run(command.strip())
    finally:
        patch.undo()
    return clone / "output"


def run(command: str) -> None:
    if command.startswith(SET_UP):
        return  # what .ci/run does
    name, *arguments = shlex.split(command)
    if name == ".venv/bin/python":
        subprocess.run([sys.executable, *arguments], check=True)
        return
    commands = {
        ".venv/bin/train_yeast": train_yeast.main,
        ".venv/bin/evaluate_yeast": evaluate_yeast.main,
    }
    assert name in commands, f"the documents name a command that no test can run: {command}"
    commands[name](arguments, standalone_mode=False)


@pytest.mark.slow
def test_the_example_scores_near_the_best_possible(example, root):
    scores = json.loads((example / "example_eval" / "metrics.json").read_text())
    ceiling = number_after("No model can score above a Pearson r of", root / "README.md")
    assert scores["part"] == "test"
    assert ceiling - 0.05 <= scores["overall"]["pearson"] <= ceiling + 0.02
    said = number_after("report about", root / "README.md")
    assert scores["overall"]["pearson"] == pytest.approx(said, abs=0.015)
    means = scores["baselines"]["additive"]["overall"]["pearson"]
    assert means == pytest.approx(
        number_after("The means of conditions reach", root / "README.md"), abs=0.015
    )
    ridge = scores["baselines"]["ridge per condition"]["overall"]["pearson"]
    assert ridge == pytest.approx(
        number_after("ridge regressions reach", root / "README.md"), abs=0.015
    )


@pytest.mark.slow
def test_the_lora_chapter_runs_and_shows_what_it_says(example, root):
    scores = json.loads((example / "yeast_lora_eval" / "metrics.json").read_text())
    said = number_after("On the example LoRA reaches about", root / "README.md")
    assert scores["overall"]["pearson"] == pytest.approx(said, abs=0.015)
    held = json.loads((example / "yeast_lora_finetune" / "manifest.json").read_text())
    assert held["pretrained"]["region_embed"] == "45 of 45 input columns taken from the file"
    assert held["model"]["frozen"] > held["model"]["trainable"] > held["model"]["lora"] > 0


@pytest.fixture
def make_example(root):
    """The generator of the example, which knows what was planted."""
    return SimpleNamespace(**runpy.run_path(str(root / "input" / "make_example.py")))


@pytest.fixture
def regions(root, make_example):
    """The regions of the example with their motif scores."""
    table = make_example.read_table(root / "input" / make_example.FILE_NAME)
    return table.drop_duplicates("peak_id").set_index("peak_id")


@pytest.mark.slow
def test_the_sweep_recovers_the_planted_dose_curve(example, make_example, regions, root):
    said = pd.read_csv(example / "example_questions" / "sweep.csv")
    with_motif = regions[regions[make_example.YAP1] > 0].index
    said = said[said["region_id"].isin(with_motif)]
    grid = regions.loc[said["region_id"]].reset_index(drop=True)
    grid = grid.assign(medium="YPD", temperature=30.0, drug="H2O2")
    grid["drug_concentration"] = said["drug_concentration"].to_numpy()
    dose = said["drug_concentration"].to_numpy()
    planted = make_example.expected_target(grid).groupby(dose).mean()
    curve = said["y_pred"].groupby(dose).mean()
    assert len(curve) == 25
    r = np.corrcoef(curve, planted)[0, 1]
    assert r >= 0.95
    assert r == pytest.approx(
        number_after("the planted dose curve with r about", root / "README.md"), abs=0.02
    )
    assert np.ptp(curve) > 0.5 * np.ptp(planted)
    outside = said["flags"].fillna("").str.startswith("drug_concentration outside training")
    np.testing.assert_array_equal(outside, ~said["drug_concentration"].between(1e-5, 5e-3))


@pytest.mark.slow
def test_without_yap1_its_regions_lose_their_answer_to_h2o2(example, make_example, regions, root):
    said = pd.read_csv(example / "example_questions" / "knockout.csv")
    has = said["region_id"].map(regions[make_example.YAP1] > 0)
    np.testing.assert_array_equal(said["has_motif"] == 1, has)
    np.testing.assert_allclose(said["change"][~has], 0, atol=1e-5)  # float32
    dose = said["condition"].str.extract(r"H2O2 ([\d.]+ .M)")[0].fillna("none")
    change = said["change"][has].groupby(dose[has]).mean()
    planted = {
        "10 µM": 1 / 21,
        "100 µM": 1 / 3,
        "400 µM": 2 / 3,
        "1.5 mM": 15 / 17,
        "5 mM": 25 / 26,
    }
    assert set(change.index) == {*planted, "none"}
    assert change["none"] == pytest.approx(0, abs=0.15)
    assert (change[list(planted)] < -0.05).all()
    assert np.corrcoef(change[list(planted)], list(planted.values()))[0, 1] < -0.95
    whole = make_example.read_table(root / "input" / make_example.FILE_NAME)
    without = make_example.expected_target(whole.assign(**{make_example.YAP1: 0.0}))
    lost = without - make_example.expected_target(whole)
    by_dose = lost[whole[make_example.YAP1] > 0].groupby(whole["drug_concentration"]).mean()
    np.testing.assert_allclose(change[list(planted)], by_dose, atol=0.3)
    text = number_after("and without YAP1 they lose about", root / "README.md")
    assert -change["5 mM"] == pytest.approx(text, abs=0.15)


@pytest.mark.slow
def test_the_worked_example_of_a_published_file_shows_what_it_says(example, root):
    text = (root / "docs" / "get_checkpoints.md").read_text("utf-8")
    log = (example / "get_lora" / "train.log").read_text("utf-8")
    said = [line for block in re.findall(r"```text\n(.*?)```", text, re.DOTALL)[1:]
            for line in block.splitlines()]  # fmt: skip
    assert len(said) == 9
    for line in said:
        assert line.strip() in log
    assert (example / "back_to_get.pth").exists()
    assert (example / "get_lora_eval" / "metrics.json").exists()


@pytest.mark.slow
def test_what_was_planted_leads_the_importance(example):
    order = pd.read_csv(example / "example_eval" / "feature_importance.csv")
    assert set(order["feature"][: len(PLANTED)]) == PLANTED


@pytest.mark.slow
def test_the_heat_map_shows_when_each_planted_motif_acts(example):
    """The rule of input/README.md: GCN4 in SC, HSF1 above 30 °C, YAP1 with H2O2, MSN2 with both."""
    folder = example / "example_interpret"
    table = pd.read_csv(folder / "motif_condition_effects.csv")
    effects = table.pivot(index="factor", columns="condition", values="effect")
    effects.index = effects.index.str.split(".").str[-1]
    labels = effects.columns
    heat = labels.str.contains("37 °C|42 °C")
    h2o2, sc = labels.str.contains("H2O2"), labels.str.contains("SC")
    strong = labels.str.contains("H2O2 (?:400 µM|1.5 mM|5 mM)")
    weakest = labels.str.contains("H2O2 10 µM")  # a twentieth of what 5 mM does
    assert (heat.sum(), h2o2.sum(), sc.sum(), strong.sum(), weakest.sum()) == (3, 6, 3, 4, 1)
    for factor, acts, where in (("HSF1", heat, heat), ("YAP1", h2o2, strong), ("GCN4", sc, sc)):
        effect = effects.loc[factor]
        assert effect[acts & ~weakest].min() > effect[~acts].abs().max(), factor
        assert effect[where].min() > 0.4
        assert effect[~acts].abs().max() < 0.25
    assert (
        effects.loc["MSN2", strong | heat].min() > effects.loc["MSN2", ~(h2o2 | heat)].max() + 0.1
    )
    always = effects.loc[["RAP1", "UME6"]].abs()
    planted = {each.split(".")[-1] for each in PLANTED if each.startswith("MA")}
    decoys = effects.drop(index=list(planted)).abs().max().max()
    assert always.min().min() > decoys
    for factor, acts in (("HSF1", heat), ("YAP1", strong), ("GCN4", sc)):
        assert effects.loc[factor, acts].min() > decoys
    assert (folder / "plots" / "motif_conditions.png").exists()


def test_the_chinese_readme_has_the_same_commands(root):
    assert bash_blocks(root / "README.md") == bash_blocks(root / "README.zh-CN.md")
    assert bash_blocks(root / "README.md")


def test_the_readme_explains_every_section_and_key(root):
    text = (root / "README.md").read_text("utf-8")
    for section, field in Settings.model_fields.items():
        assert f"`{section}" in text, section
        keys = getattr(field.annotation, "model_fields", {})
        for key in keys if section not in ("conditions",) else ("extra",):
            pattern = rf"`({section})?\.{key}[`.]|`{section}\.\*`"
            assert re.search(pattern, text), f"{section}.{key}"


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md", "docs/architecture.md"])
def test_links_and_trees_name_files_that_exist(root, name):
    path = root / name
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text("utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_the_shipped_yaml_spells_out_the_defaults(root):
    assert load_settings(root / "config" / "yeast_training.yaml") == load_settings(None)


@pytest.mark.parametrize("name", ["gasch2000", "getforyeast", "original_example"])
def test_the_example_yamls_are_valid(root, name):
    settings = load_settings(root / "docs" / "examples" / f"{name}.yaml")
    assert settings != load_settings(None)  # it says something


def test_python_scripts_equal_the_console_scripts(root):
    text = (root / "setup.cfg").read_text()
    assert "train_yeast = train_yeast:main" in text
    assert "evaluate_yeast = evaluate_yeast:main" in text
    assert sys.modules["train_yeast"].main is train_yeast.main
