"""The real tables load, split and train as the documents say; skipped where they are not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from yeast_get.config import load_settings
from yeast_get.data.expression_data import load_expression_data
from yeast_get.data.splits import conditions_line
from yeast_get.errors import DataError

pytestmark = pytest.mark.real_data


def load(root, data_dir, name, *overrides):
    config = root / "docs" / "examples" / f"{name}.yaml"
    return load_expression_data(
        load_settings(config, overrides, {"data.path": str(data_dir / name)})
    )


def test_gasch2000_loads_within_its_budget(root, data_dir):
    """887,050 cells under 1.5 GB and 20 s."""
    code = (
        "import resource, time; t = time.monotonic()\n"
        "from yeast_get.config import load_settings\n"
        "from yeast_get.data.expression_data import load_expression_data\n"
        "s = load_settings('docs/examples/gasch2000.yaml', (), "
        f"{{'data.path': {str(data_dir / 'gasch2000')!r}}})\n"
        "d = load_expression_data(s)\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "print(d.num_observations, int(d.measured.sum()), time.monotonic() - t, peak)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    cells, measured, seconds, megabytes = map(float, result.stdout.split())
    assert (cells, measured) == (887_050, 859_544)
    assert seconds < 20
    assert megabytes < 1500


def test_gasch2000_needs_its_declarations(data_dir):
    settings = load_settings(None, (), {"data.path": str(data_dir / "gasch2000")})
    with pytest.raises(DataError, match=r"region_feature_columns: \[chromatin_nuc_occupancy"):
        load_expression_data(settings)
    settings = load_settings(
        None, ["data.region_feature_columns=['chromatin_*']"],
        {"data.path": str(data_dir / "gasch2000")},
    )  # fmt: skip
    with pytest.raises(DataError, match=r"label, group, treatment"):
        load_expression_data(settings)


def test_getforyeast_is_thirteen_conditions(root, data_dir):
    data = load(root, data_dir, "getforyeast")
    assert conditions_line(data).startswith("66 samples of 13 conditions")
    assert any("GSM7768081, GSM7768082" in line for line in data.warnings)
    dose = data.conditions["drug_concentration"][data.conditions["drug"] == "PeAfpA"]
    expected = np.repeat([1e-3, 2e-3, 4e-3], 3) / 6600  # µg/mL are 1e-3 g/L
    np.testing.assert_allclose(dose, expected)


def test_getforyeast_without_the_molar_mass_is_refused_with_the_line_to_write(data_dir):
    settings = load_settings(
        None, ["conditions.extra.strain={kind: category}"],
        {"data.path": str(data_dir / "getforyeast")},
    )  # fmt: skip
    with pytest.raises(DataError) as refused:
        load_expression_data(settings)
    assert [problem.row for problem in refused.value.problems] == list(range(50, 59))
    said = refused.value.lines()[0]
    assert "row 50, column drug_concentration: '1 μg/mL' is mass per volume" in said
    assert "{molar_mass: {PeAfpA: <g/mol>}}" in said


def test_the_original_example_trains_with_its_constant_columns_named(
    root, data_dir, train, evaluate, capsys
):
    path = data_dir / "original_example" / "gsm_example_with_condition.csv"
    config = root / "docs" / "examples" / "original_example.yaml"
    assert len([line for line in config.read_text().splitlines() if line.strip()]) <= 4
    run = train(path, extra=("--config", str(config)))
    said = json.loads((run / "manifest.json").read_text())["data"]["warnings"]
    assert any("47 constant region features: virtual_motif_0" in line for line in said)
    assert any("accessibility is 1 everywhere" in line for line in said)
    assert any("condition temperature is 0.5 in every sample" in line for line in said)
    assert "warning: accessibility is 1 everywhere" in capsys.readouterr().out
    assert json.loads((evaluate(run, path) / "metrics.json").read_text())["overall"]["n"] > 0


def test_windows_of_neighbours_train_on_gasch2000_and_never_cross_a_chromosome(
    root, data_dir, train, tmp_path
):
    """All chromosomes, the first 25 arrays."""
    from yeast_get.data.yeast_dataset import WindowPlan

    data = load(root, data_dir, "gasch2000")
    windows = WindowPlan(data, 200).windows(data.measured, np.random.default_rng(0))
    for regions in windows.region[::40]:
        assert len(set(data.chrom[regions[regions >= 0]])) == 1
    config = str(root / "docs" / "examples" / "gasch2000.yaml")
    folder = tmp_path / "gasch2000"
    folder.mkdir()
    shutil.copy(data_dir / "gasch2000" / "regions.csv.gz", folder)
    samples = pd.read_csv(data_dir / "gasch2000" / "samples.csv").head(25)
    samples.to_csv(folder / "samples.csv", index=False)
    expression = pd.read_csv(data_dir / "gasch2000" / "expression.csv.gz")
    expression = expression[["region_id", *samples["sample_id"]]]
    expression.to_csv(folder / "expression.csv", index=False)
    run = train(
        folder, "data.regions_per_window=200", "training.max_epochs=1",
        "training.warmup_epochs=0", "task.save_predictions=false", extra=("--config", config),
    )  # fmt: skip
    scores = json.loads((run / "manifest.json").read_text())["training"]["scores_of_best"]
    assert scores["val_pearson"] > 0.1
