"""A run that can have learned nothing says so; genes are scored as their regions say."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from tests.conftest import long_table


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.usefixtures("blank_pictures")
def test_shuffled_targets_leave_nothing_to_learn(train, evaluate, tmp_path, capsys):
    path = tmp_path / "table.csv"
    table = long_table(regions=120)
    table.to_csv(path, index=False)
    learned = metrics(train(path, output="learned"))
    control = train(path, "training.shuffle_targets=true", output="control")
    assert learned["overall"]["pearson"] > 0.8
    said = metrics(control)
    low, high = said["across_region_pearson_ci95"]
    assert low <= 0 <= high
    for scores in (said, *said["baselines"].values()):
        assert (scores["overall"] or {"r2": 0})["r2"] < 0.05
    rows = pd.read_csv(control / "predictions.csv")
    parts = rows.groupby("split")["y_true"]
    assert np.allclose(rows["y_true"][rows["split"] == "test"],
                       table["target"][(rows["split"] == "test").to_numpy()])  # fmt: skip
    for part, values in parts:
        there = table["target"][(rows["split"] == part).to_numpy()]
        assert sorted(values.round(4)) == pytest.approx(sorted(there.round(4)))
    assert not np.allclose(rows["y_true"], table["target"])
    capsys.readouterr()
    again = evaluate(control, path)
    assert "the model is a control, trained on shuffled targets" in capsys.readouterr().out
    assert metrics(again)["overall"]["pearson"] == pytest.approx(said["overall"]["pearson"])
    reason = metrics(again)["baselines"]["low rank"]["overall_reason"]
    assert reason == "a control keeps no shuffled targets to fit it on"


def test_genes_are_scored_beside_regions(train, tmp_path):
    table = long_table(regions=40)
    folder = tmp_path / "folder"
    folder.mkdir()
    features = ["motif_a", "motif_b", "motif_c", "accessibility"]
    regions = table.drop_duplicates("region_id")[["region_id", *features]]
    regions.to_csv(folder / "regions.csv", index=False)
    table["sample_id"] = "s" + (table.index // 40).astype(str)
    fields = ["sample_id", "medium", "temperature", "drug", "drug_concentration"]
    table.drop_duplicates("sample_id")[fields].to_csv(folder / "samples.csv", index=False)
    wide = table.pivot_table(index="region_id", columns="sample_id", values="target")
    wide.to_csv(folder / "expression.csv")
    genes = pd.DataFrame(
        {"gene_id": "gene of " + regions["region_id"], "region_id": regions["region_id"]}
    )
    genes.to_csv(folder / "genes.csv", index=False)
    run = train(folder)
    said = metrics(run)
    alone = said["by_gene"]["target"]  # one region each: the scores of regions
    assert alone["genes"] == said["intervals"]["regions"]
    assert alone["overall"]["pearson"] == pytest.approx(said["overall"]["pearson"])
    pairs = genes.assign(gene_id=np.arange(len(genes)) // 2)
    pairs.to_csv(folder / "genes.csv", index=False)
    again = train(folder, output="pairs")
    rows = pd.read_csv(again / "predictions.csv").merge(pairs.astype(str), on="region_id")
    test = rows[rows["split"] == "test"]
    by_gene = test.groupby(["gene_id_y", "sample_id"])[["y_true", "y_pred"]]
    means = by_gene.mean()[by_gene.size() == 2]
    said = metrics(again)["by_gene"]["target"]["overall"]
    assert said["n"] == len(means)
    expected = np.corrcoef(means["y_true"], means["y_pred"])[0, 1]
    assert said["pearson"] == pytest.approx(expected)


@pytest.mark.usefixtures("blank_pictures")
def test_the_shipped_example_scores_near_zero_when_shuffled_and_its_intervals_hold_their_share(
    train, root
):
    path = root / "input" / "gsm_example_with_condition.csv"
    fast = ("training.max_epochs=6", "training.batch_size=256")
    learned = metrics(train(path, *fast, output="learned"))
    assert learned["overall"]["pearson"] > 0.7
    assert 0.85 <= learned["uncertainty"]["covered"] <= 0.95
    said = metrics(train(path, *fast, "training.shuffle_targets=true", output="control"))
    assert abs(said["overall"]["pearson"]) < 0.15  # near 0; 12 conditions are few for nearer
