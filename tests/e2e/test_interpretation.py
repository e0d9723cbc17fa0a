"""What --interpret writes, and that grouped importance has intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tests.conftest import long_table

FILES = ("feature_attributions.csv.gz", "motif_condition_effects.csv", "plots/motif_conditions.png")


def read(folder, name="feature_importance.csv"):
    return pd.read_csv(folder / name)


def test_interpret_is_an_option_of_both_commands_and_writes_the_same_bytes(
    train, evaluate, table_path
):
    run = train(table_path, extra=("--interpret",))
    plain = evaluate(run, table_path, "--set", "task.interpret=false", output="plain")
    twice = [evaluate(run, table_path, "--interpret", output=name) for name in ("one", "two")]
    for name in FILES:
        assert not (plain / name).exists()
        assert (run / name).read_bytes() == (twice[0] / name).read_bytes()
        assert (twice[0] / name).read_bytes() == (twice[1] / name).read_bytes()
    header = (run / FILES[0]).read_bytes()[:10]
    assert header[3] == 0  # no name, which would be that of a process
    assert header[4:8] == bytes(4)  # no time
    assert read(run).equals(read(plain))
    assert "add up to the change" in (run / "train.log").read_text()


def test_the_shares_of_the_written_predictions_add_up(train, evaluate, table_path):
    """Four features, so that all of them are among the ten largest."""
    run = train(table_path, "training.max_epochs=10")
    folder = evaluate(run, table_path, "--interpret")
    rows = read(folder, FILES[0])
    assert set(rows["feature"]) == {"motif_a", "motif_b", "motif_c", "accessibility"}
    by_pair = rows.groupby(["region_id", "sample_id"])
    total = by_pair["integrated_gradients"].sum()
    change = by_pair["prediction"].first() - by_pair["baseline_prediction"].first()
    sd = pd.read_csv(table_path)["target"].std()
    assert (total - change).abs().max() < 0.011 * max(change.abs().max(), 0.1 * sd)
    predicted = read(folder, "predictions.csv").set_index(["region_id", "sample_id"])
    assert set(predicted.loc[by_pair.first().index, "split"]) == {"test"}
    np.testing.assert_allclose(
        by_pair["prediction"].first(), predicted.loc[by_pair.first().index, "y_pred"], atol=1e-4
    )


def test_a_table_without_targets_has_attributions_but_no_importance(
    train, evaluate, tmp_path, capsys
):
    table = long_table()
    table.to_csv(tmp_path / "t.csv", index=False)
    run = train(tmp_path / "t.csv")
    blank = table.drop(columns="target")
    predict = ("--interpret", "--set", "task.test_mode=predict", "--set", "task.importance_rows=10")
    blank.assign(region_id="new_" + blank["region_id"]).to_csv(tmp_path / "p.csv", index=False)
    folder = evaluate(run, tmp_path / "p.csv", *predict)
    assert read(folder, FILES[0])["region_id"].nunique() == 4  # 10 pairs of them
    assert not (folder / "feature_importance.csv").exists()
    blank.to_csv(tmp_path / "p.csv", index=False)
    folder = evaluate(run, tmp_path / "p.csv", *predict, output="known")
    assert not (folder / FILES[0]).exists()
    assert "nothing was attributed: the new part holds no row" in capsys.readouterr().out


def test_columns_of_one_factor_are_one_input_and_intervals_hold_their_mean(
    train, evaluate, tmp_path
):
    """Two versions of a motif say the same: shuffled one by one, each would stand in for both."""
    table = long_table(regions=150)
    table = table.rename(columns={"motif_a": "MA0265.1.ABF1"})
    table["ABF1_MA0265.3"] = table["MA0265.1.ABF1"]
    table.to_csv(tmp_path / "t.csv", index=False)
    run = train(tmp_path / "t.csv", "training.max_epochs=15", "task.importance_repeats=3")
    folder = evaluate(run, tmp_path / "t.csv", "--set", "task.importance_rows=500", "--interpret")
    rows = read(folder).set_index("feature")
    assert rows.loc["ABF1", "columns"] == 2
    assert rows.loc["drug and drug_concentration", "columns"] == 2
    assert rows.loc["motif_b", "columns"] == 1
    assert set(rows.index[:3]) == {"ABF1", "motif_b", "temperature"}
    assert (rows["importance_low"] <= rows["importance_mean"]).all()
    assert (rows["importance_mean"] <= rows["importance_high"]).all()
    assert rows.loc["ABF1", "importance_low"] > 0.2
    assert rows.loc["motif_c", "importance_low"] < 0.05
    assert set(read(folder, FILES[1])["factor"]) == {"ABF1", "motif_b", "motif_c"}


def test_too_few_regions_give_importance_without_intervals(train, table, table_path, capsys):
    table["group"] = np.where(table["region_id"].isin(table["region_id"].unique()[:4]), "test", "")
    table["group"] = table["group"].where(
        table["group"] == "test", np.where(table.index % 3 == 0, "val", "train")
    )
    table.to_csv(table_path, index=False)
    run = train(
        table_path, "data.description_columns=[group]", "split.by=column", "split.column=group",
        "task.interpret=true",
    )  # fmt: skip
    assert read(run)["importance_mean"].notna().all()
    varied = read(run).query("importance_mean != 0")
    assert varied["importance_low"].isna().all()
    assert "no intervals of importance: an interval needs" in capsys.readouterr().out
