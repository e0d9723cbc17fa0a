"""`training.ensemble`: several models in one checkpoint, their mean, their spread, intervals."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import long_table

KEPT = "training.ensemble=3"


def state(path):
    return torch.load(path, weights_only=True)


def predictions(folder):
    return pd.read_csv(folder / "predictions.csv")


def equal(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """120 regions, so that the validation part has enough of them to calibrate on."""
    file = tmp_path_factory.mktemp("ensemble") / "table.csv"
    long_table(regions=120).to_csv(file, index=False)
    return file


@pytest.mark.usefixtures("blank_pictures")
def test_members_are_the_runs_of_the_next_seeds_and_their_mean_is_predicted(train, evaluate, path):
    run = train(path, KEPT, output="three")
    alone = [train(path, f"experiment.seed={k}", output=f"seed{k}") for k in range(3)]
    whole = state(run / "best_model.pth")
    states = [whole["model"], *whole["members"]]
    assert len(states) == 3
    second = predictions(evaluate(run / "members" / "2", path, output="second"))
    pd.testing.assert_series_equal(second["y_pred"], predictions(alone[1])["y_pred"])
    for member, other in zip(states, alone, strict=True):
        assert equal(member, state(other / "best_model.pth")["model"])
    said = predictions(run)
    each = np.stack([predictions(folder)["y_pred"] for folder in alone])
    np.testing.assert_allclose(said["y_pred"], each.mean(axis=0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(said["y_std"], each.std(axis=0, ddof=1), rtol=1e-3, atol=1e-5)
    assert "y_std" not in predictions(alone[0])
    again = evaluate(run, path)
    pd.testing.assert_frame_equal(predictions(again), said)
    assert json.loads((again / "metrics.json").read_text())["uncertainty"]["members"] == 3
    members = json.loads((run / "manifest.json").read_text())["training"]["members"]
    assert [each["best_epoch"] for each in members] == [
        state(folder / "best_model.pth")["epoch"] for folder in alone
    ]


@pytest.mark.usefixtures("blank_pictures")
def test_an_interrupted_ensemble_goes_on_with_the_member_that_was_under_way(
    train, path, monkeypatch
):
    from yeast_get.training import loop

    whole = train(path, KEPT, output="whole")
    finish, epochs = loop._finish_epoch, []

    def counted(run, progress, train_loss):
        finish(run, progress, train_loss)
        epochs.append((run.settings.experiment.seed, progress.epoch))
        if epochs[-1] == (1, 1) and len(epochs) == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_finish_epoch", counted)
    with pytest.raises(SystemExit) as stopped:
        train(path, KEPT, output="cut")
    assert stopped.value.code == 130
    epochs.clear()
    cut = train(path, KEPT, output="cut", extra=("--resume",))
    assert epochs == [(1, 2), (1, 3), (2, 0), (2, 1), (2, 2), (2, 3)]
    assert (cut / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()
    assert (cut / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()


def test_intervals_hold_what_metrics_and_the_curve_say(train, evaluate, path):
    run = train(path, output="one")
    folder = evaluate(run, path)
    rows = predictions(folder)
    test = rows[rows["split"] == "test"]
    inside = (test["y_low"] <= test["y_true"]) & (test["y_true"] <= test["y_high"])
    said = json.loads((folder / "metrics.json").read_text())["uncertainty"]
    assert said["covered"] == pytest.approx(inside.mean())
    assert said["mean_width"] == pytest.approx((test["y_high"] - test["y_low"]).mean(), rel=1e-5)
    assert (said["groups"], said["over"]) == (18, "regions")
    curve = pd.read_csv(folder / "calibration.csv").set_index("level")
    assert curve.loc[0.9, "covered"] == pytest.approx(said["covered"])
    assert (np.diff(curve["mean_width"].dropna()) >= 0).all()
    assert (curve["n"].iloc[:-1] == len(test)).all()
    assert curve["n"].iloc[-1] == 0  # 95 % would need 19 regions


def test_intervals_of_counts_are_never_below_zero(train, path, tmp_path):
    table = pd.read_csv(path)
    table["target"] = np.exp(3 * (table["target"] - 2).clip(lower=0)) - 1  # many are 0
    table.to_csv(tmp_path / "counts.csv", index=False)
    run = train(tmp_path / "counts.csv", "data.target_transform=log1p", output="counts")
    rows = predictions(run)
    assert (rows["y_pred"] < 0).any()
    assert (rows["y_low"] <= rows["y_pred"]).all()
    assert (rows["y_pred"] <= rows["y_high"]).all()
    assert (rows["y_low"][rows["y_pred"] >= 0] >= 0).all()
    assert (rows["y_high"] >= 0).all()
    high = rows[rows["y_low"] > 0]
    assert len(high)
    assert (high["y_high"] - high["y_pred"] > high["y_pred"] - high["y_low"]).all()
    said = json.loads((run / "metrics.json").read_text())["transformed"]
    test = rows[rows["split"] == "test"]
    true, pred = np.log1p(test["y_true"]), np.log1p(test["y_pred"].clip(lower=-0.9999))
    assert said["units"] == "log1p of the input"
    assert said["overall"]["pearson"] == pytest.approx(np.corrcoef(true, pred)[0, 1], rel=1e-4)


def test_an_ensemble_of_adapters_shares_one_base(train, evaluate, path):
    window = ("data.regions_per_window=8", "training.warmup_epochs=0", "training.max_epochs=1")
    base = train(path, *window, "task.stage=pretrain", output="p") / "pretrained.pth"
    settings = (f"finetune.checkpoint={base}", "lora.enabled=true", "training.ensemble=2")
    run = train(path, *settings, output="lora")
    held = state(run / "best_model.pth")
    assert not set(held["lora"]["base"]) & set(held["members"][0])
    adapter = evaluate(run, path, "--model", str(run / "adapter.pth"), "--base", str(base))
    assert predictions(adapter)["y_pred"].equals(predictions(run)["y_pred"])
    merged = evaluate(run, path, "--export", str(run / "merged.pth"), output="m")
    assert "y_std" in predictions(merged)
    again = evaluate(run, path, "--model", str(run / "merged.pth"), output="n")
    np.testing.assert_allclose(
        predictions(again)["y_pred"], predictions(run)["y_pred"], rtol=1e-4, atol=1e-5
    )


@pytest.mark.usefixtures("blank_pictures")
def test_a_region_unlike_all_others_is_flagged(train, evaluate, path, tmp_path):
    run = train(path)
    table = pd.read_csv(path)
    odd = table["region_id"] == table["region_id"].iloc[0]
    table.loc[odd, "region_id"] = "chrI_900000_900500"
    table.loc[odd, "motif_c"] = 500.0
    table.to_csv(tmp_path / "odd.csv", index=False)
    rows = predictions(evaluate(run, tmp_path / "odd.csv", output="odd"))
    flagged = rows["flags"].fillna("").str.contains("region far from the training regions")
    assert flagged[odd].all()
    assert flagged[~odd].mean() < 0.05
