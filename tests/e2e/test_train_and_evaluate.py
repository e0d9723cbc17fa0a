"""The two commands from a table to files, on a small table with a planted rule."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from tests.conftest import long_table

TRAIN_FILES = {
    "config.yaml", "manifest.json", "splits.csv", "history.csv", "best_model.pth", "last.pth",
    "data_report.json", "data_problems.csv", "metrics.json", "predictions.csv", "calibration.csv",
    "plots", "train.log", "report.html",
}  # fmt: skip
EVALUATE_FILES = {
    "data_report.json", "data_problems.csv", "metrics.json", "predictions.csv", "calibration.csv",
    "metrics_by_condition.csv", "metrics_by_region.csv",
    "feature_importance.csv", "plots", "evaluate.log", "report.html",
}  # fmt: skip


def read(folder, name):
    return pd.read_csv(folder / name)


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_a_run_and_its_evaluation_write_what_the_readme_says(train, evaluate, table, table_path):
    run = train(table_path)
    assert {path.name for path in run.iterdir()} == TRAIN_FILES
    assert {p.name for p in (run / "plots").iterdir()} == {
        "scatter.png", "residuals.png", "residuals_by_condition.png", "history.png",
        "calibration.png",
    }  # fmt: skip
    folder = evaluate(run, table_path)
    assert {path.name for path in folder.iterdir()} == EVALUATE_FILES
    assert {p.name for p in (folder / "plots").iterdir()} == {
        "scatter.png", "residuals.png", "residuals_by_condition.png", "conditions.png",
        "feature_importance.png", "calibration.png",
    }  # fmt: skip
    rows = read(folder, "predictions.csv")
    assert rows["row"].tolist() == list(range(2, len(table) + 2))
    assert rows["region_id"].tolist() == table["region_id"].tolist()
    np.testing.assert_allclose(rows["y_true"], table["target"], rtol=1e-6)
    np.testing.assert_allclose(rows["residual"], rows["y_true"] - rows["y_pred"], atol=1e-5)
    pd.testing.assert_frame_equal(rows, read(run, "predictions.csv"))
    assert metrics(folder)["overall"] == metrics(run)["overall"]
    assert metrics(folder)["part"] == "test"


def assert_scores_of(said, rows):
    """SciPy and scikit-learn say the same of rows of predictions.csv."""
    true, pred = rows["y_true"].to_numpy(), rows["y_pred"].to_numpy()
    spread = true.var() + pred.var() + (true.mean() - pred.mean()) ** 2
    expected = {
        "n": len(rows), "pearson": pearsonr(true, pred).statistic,
        "spearman": spearmanr(true, pred).statistic, "r2": r2_score(true, pred),
        "rmse": root_mean_squared_error(true, pred), "mae": mean_absolute_error(true, pred),
        "concordance": 2 * np.cov(true, pred, bias=True)[0, 1] / spread,
    }  # fmt: skip
    for name, value in expected.items():
        assert said["overall"][name] == pytest.approx(value, rel=1e-7, abs=1e-9), name
    conditions = ["medium", "temperature", "drug", "drug_concentration"]
    for name, keys in (("across", conditions), ("within", ["region_id"])):
        each = [
            pearsonr(group["y_true"], group["y_pred"]).statistic
            for _, group in rows.groupby(keys, dropna=False)
            if len(group) >= 3 and group["y_true"].nunique() > 1 and group["y_pred"].nunique() > 1
        ]
        assert said[f"{name}_region_pearson_groups"] == len(each)
        if each:
            assert said[f"{name}_region_pearson"] == pytest.approx(np.mean(each), abs=1e-7)


def test_scores_are_those_of_the_written_predictions(train, table_path):
    run = train(table_path)
    rows = read(run, "predictions.csv")
    test = rows[rows["split"] == "test"]
    said = metrics(run)
    by_part = {name: part for name, part in rows.groupby("split") if name != "unused"}
    assert set(said["by_split"]) == set(by_part)
    by_drug = dict(iter(test.groupby("drug")))
    assert set(said["by_drug"]) == set(by_drug)
    pairs = [(said, test), *((said["by_split"][name], part) for name, part in by_part.items())]
    pairs += [(said["by_drug"][name], part) for name, part in by_drug.items()]
    for ours, part in pairs:
        assert_scores_of(ours, part)
    inside = said["overall"]["ci95"]
    for name, (low, high) in inside.items():
        assert low <= said["overall"][name] <= high, name
    train_rows = rows[rows["split"] == "train"]
    mean = metrics(run)["baselines"]["global mean"]["overall"]
    rmse = np.sqrt(np.mean((test["y_true"] - train_rows["y_true"].mean()) ** 2))
    assert mean["rmse"] == pytest.approx(rmse, rel=1e-5)


@pytest.mark.usefixtures("blank_pictures")
def test_the_same_command_twice_writes_the_same_bytes(train, table_path):
    settings = ("augmentation.motif_noise=0.1", "augmentation.motif_dropout=0.1")
    one = train(table_path, *settings, output="one")
    two = train(table_path, *settings, output="two")
    for name in ("metrics.json", "history.csv", "predictions.csv"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    other = train(table_path, *settings, "experiment.seed=1", output="other")
    assert (one / "history.csv").read_bytes() != (other / "history.csv").read_bytes()


@pytest.mark.usefixtures("blank_pictures")
@pytest.mark.parametrize("settings", [(), ("training.ema_decay=0.9",)])
def test_a_resumed_run_equals_an_uninterrupted_one(train, table_path, settings, tmp_path):
    """Stopped after two epochs of four (the schedule must be the longer one's from the start)."""
    whole = train(table_path, "training.max_epochs=4", *settings, output="whole")
    part = _interrupted(train, table_path, tmp_path, after=2, settings=settings)
    train(table_path, "training.max_epochs=4", *settings, output="part", extra=("--resume",))
    for name in ("metrics.json", "history.csv", "predictions.csv"):
        assert (whole / name).read_bytes() == (part / name).read_bytes(), name


@pytest.mark.usefixtures("blank_pictures")
def test_a_run_stopped_inside_an_epoch_resumes_there(train, table_path, tmp_path, monkeypatch):
    settings = ("training.checkpoint_every_n_steps=1", "model.head.dropout=0.3")
    whole = train(table_path, *settings, output="whole")
    part = _interrupted(train, table_path, tmp_path, after=None, settings=settings, steps=8)
    train(table_path, *settings, output="part", extra=("--resume",))
    for name in ("metrics.json", "history.csv", "predictions.csv"):
        assert (whole / name).read_bytes() == (part / name).read_bytes(), name


def _interrupted(train, table_path, tmp_path, *, after, settings, steps=None):
    """A run that is killed after an epoch, or after so many steps (5.25 batches an epoch)."""
    from yeast_get.training import loop

    class Killed(Exception):
        pass

    save = loop._save_last

    def save_and_die(run, progress):
        save(run, progress)
        if progress.epoch == after or (steps is not None and progress.step == steps):
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_save_last", save_and_die)
        longer = () if after is None else ("training.max_epochs=4",)
        with pytest.raises(Killed):
            train(table_path, *longer, *settings, output="part")
    return tmp_path / "part"


@pytest.mark.usefixtures("blank_pictures")
def test_resuming_with_other_data_or_settings_is_refused(
    train, table_path, table, tmp_path, capsys
):
    train(table_path)
    with pytest.raises(SystemExit) as stopped:
        train(table_path, "training.batch_size=16", extra=("--resume",))
    assert stopped.value.code == 2
    assert "training.batch_size was 32 and is now 16" in capsys.readouterr().err
    with pytest.raises(SystemExit):  # which changes how columns are read
        train(table_path, "data.motif_scale=none", extra=("--resume",))
    assert "data.motif_scale was 'standard' and is now 'none'" in capsys.readouterr().err
    table.assign(target=table["target"] + 1).to_csv(table_path, index=False)
    with pytest.raises(SystemExit):
        train(table_path, extra=("--resume",))
    assert "other data" in capsys.readouterr().err


@pytest.mark.usefixtures("blank_pictures")
def test_a_folder_with_a_run_is_refused_and_left_alone(train, table_path, capsys):
    run = train(table_path)
    before = (run / "best_model.pth").read_bytes()
    with pytest.raises(SystemExit) as stopped:
        train(table_path)
    assert stopped.value.code == 2
    assert "already holds a run" in capsys.readouterr().err
    assert (run / "best_model.pth").read_bytes() == before
    train(table_path, "experiment.seed=3", extra=("--overwrite",))
    assert (run / "best_model.pth").read_bytes() != before


@pytest.mark.usefixtures("blank_pictures")
def test_it_can_learn_sixteen_rows_by_heart(train, tmp_path):
    table = long_table(regions=40)
    table["split"] = np.where(np.arange(len(table)) < 16, "train", "test")
    table.loc[table.index[100:], "split"] = "val"
    path = tmp_path / "t.csv"
    table.to_csv(path, index=False)
    run = train(
        path, "data.description_columns=[split]", "split.by=column", "split.column=split",
        "training.max_epochs=150", "training.batch_size=16", "model.head.dropout=0",
        "augmentation.condition_dropout=0", "model.encoder.drop_path_rate=0",
        "training.weight_decay=0", "training.monitor=val_loss",
        "training.validate_every_n_epochs=150",
    )  # fmt: skip
    rows = read(run, "predictions.csv")
    rows = rows[rows["split"] == "train"]
    assert len(rows) == 16
    assert r2_score(rows["y_true"], rows["y_pred"]) > 0.95


@pytest.mark.usefixtures("blank_pictures")
def test_it_finds_the_planted_rule_and_its_importance(train, evaluate, tmp_path):
    path = tmp_path / "t.csv"
    long_table(regions=150).to_csv(path, index=False)
    run = train(path, "training.max_epochs=25", "task.importance_rows=500")
    assert metrics(run)["overall"]["pearson"] > 0.9
    means = metrics(run)["baselines"]["additive"]["overall"]["pearson"]
    assert metrics(run)["overall"]["pearson"] > means + 0.2
    folder = evaluate(run, path, "--set", "task.importance_rows=500")
    order = read(folder, "feature_importance.csv")["feature"].tolist()
    assert set(order[:3]) == {"motif_a", "motif_b", "temperature"}


@pytest.mark.parametrize("settings", [
    ("model.fusion.kind=concat",),
    ("model.fusion.kind=tokens",),
    ("data.regions_per_window=5",),
    ("data.regions_per_window=7", "model.transformer.positional_encoding=learned"),
    ("model.region_identity.enabled=true", "split.by=random"),
    ("model.head.kind=get", "training.loss=poisson", "model.fusion.kind=film"),
    ("training.loss=huber", "data.target_transform=log1p", "data.motif_scale=max"),
    ("split.by=chromosome", "split.test=[chrII]", "split.fractions=[0.5,0.4,0.1]"),
])  # fmt: skip
def test_every_kind_of_model_and_data_trains_and_agrees_with_its_evaluation(
    train, evaluate, table, tmp_path, settings
):
    table["target"] = table["target"].abs()
    if "split.by=chromosome" in settings:
        table["region_id"] = table["region_id"].str.replace("chrI_1", "chrIII_1")
    path = tmp_path / "t.csv"
    table.to_csv(path, index=False)
    run = train(path, *settings)
    folder = evaluate(run, path, "--batch-size", "7")
    ours, again = read(run, "predictions.csv"), read(folder, "predictions.csv")
    np.testing.assert_allclose(ours["y_pred"], again["y_pred"], rtol=1e-4, atol=1e-4)
    assert (ours["split"] == again["split"]).all()


def test_two_strands(train, evaluate, tmp_path):
    table = long_table()
    table = table.rename(columns={"target": "target_plus"})
    table["target_minus"] = -table["target_plus"] + 10
    path = tmp_path / "t.csv"
    table.to_csv(path, index=False)
    folder = evaluate(train(path), path)
    rows = read(folder, "predictions.csv")
    assert {"y_true_plus", "y_pred_minus", "residual_minus"} <= set(rows.columns)
    test = int((rows["split"] == "test").sum())
    assert metrics(folder)["overall"]["n"] == 2 * test
    table.drop(columns=["target_plus", "target_minus"]).to_csv(path, index=False)
    rows = read(evaluate(tmp_path / "run", path, output="blank"), "predictions.csv")
    assert rows[["y_pred_plus", "y_pred_minus"]].notna().all(axis=None)
    assert rows[["y_true_plus", "y_true_minus"]].isna().all(axis=None)


def test_a_fresh_table_without_targets_is_predicted(train, evaluate, table_path, table, tmp_path):
    run = train(table_path)
    fresh = long_table(seed=9).drop(columns="target")
    fresh["region_id"] = "new_" + fresh["region_id"]
    path = tmp_path / "fresh.csv"
    fresh.to_csv(path, index=False)
    folder = evaluate(run, path)
    rows = read(folder, "predictions.csv")
    assert rows["y_true"].isna().all()
    assert rows["y_pred"].notna().all()
    assert (rows["split"] == "new").all()
    assert metrics(folder)["overall"]["pearson"] is None
    assert "measured" in metrics(folder)["overall"]["pearson_reason"]


@pytest.mark.usefixtures("blank_pictures")
def test_a_training_table_half_of_one_and_a_fresh_one_have_three_headlines_each_true(
    train, evaluate, table, table_path, tmp_path
):
    run = train(table_path)
    fresh = long_table(seed=9)
    fresh["region_id"] = "new_" + fresh["region_id"]
    trained = read(run, "predictions.csv")
    kept = table[(trained["split"] == "train").to_numpy()].iloc[::2]
    pd.concat([kept, fresh]).to_csv(tmp_path / "half.csv", index=False)
    fresh.to_csv(tmp_path / "fresh.csv", index=False)
    said = {}
    for name, path, part, wanted in (
        ("trained", table_path, "test", "test"),
        ("half", tmp_path / "half.csv", "new", "new"),
        ("fresh", tmp_path / "fresh.csv", "all", "new"),
    ):
        folder = evaluate(run, path, output=name)
        rows = read(folder, "predictions.csv")
        scores = metrics(folder)
        assert scores["part"] == part
        rows = rows[rows["split"] == wanted]
        assert scores["overall"]["n"] == len(rows)
        expected = pearsonr(rows["y_true"], rows["y_pred"]).statistic
        assert scores["overall"]["pearson"] == pytest.approx(expected, abs=1e-9)
        counts = scores["overlap_with_training"]["rows_by_part"]
        said[name] = (scores["overall"]["pearson"], counts["train"])
    assert said["trained"][1] > said["half"][1] == len(kept) > said["fresh"][1] == 0
    assert said["half"][0] == pytest.approx(said["fresh"][0])  # the same new rows
    assert said["trained"][0] != said["fresh"][0]


def test_rows_that_were_trained_on_never_enter_a_mixed_headline(
    train, evaluate, table_path, tmp_path
):
    run = train(table_path)
    mixed = metrics(evaluate(run, table_path, "--split", "all"))
    assert mixed["overall"] is None
    assert "trained" in mixed["overall_reason"]
    assert set(mixed["by_split"]) == {"train", "val", "test"}
    assert "importance speak of the test part" in (tmp_path / "eval" / "evaluate.log").read_text()
    alone = evaluate(run, table_path, output="alone")  # of the test part alone
    pictures = ("plots/residuals.png", "plots/residuals_by_condition.png")  # without an interval
    for name in ("feature_importance.csv", *pictures):
        assert (tmp_path / "eval" / name).read_bytes() == (alone / name).read_bytes()
    fresh = long_table(seed=9)
    fresh["region_id"] = "new_" + fresh["region_id"]
    path = tmp_path / "fresh.csv"
    fresh.to_csv(path, index=False)
    new = metrics(evaluate(run, path, output="fresh"))
    assert new["part"] == "all"
    assert new["overlap_with_training"]["rows_by_part"]["train"] == 0
    assert new["overall"]["n"] == len(fresh)


def test_new_rows_can_be_asked_for_and_a_part_without_rows_says_so(
    train, evaluate, table, table_path, tmp_path
):
    run = train(table_path)
    empty = metrics(evaluate(run, table_path, "--split", "new", output="empty"))
    assert (empty["part"], empty["overall"]["n"]) == ("new", 0)
    reasons = {each["overall_reason"] for each in empty["baselines"].values()}
    assert reasons == {"the part has no measured row"}
    fresh = table.assign(region_id="new_" + table["region_id"])
    both = tmp_path / "both.csv"
    pd.concat([table, fresh]).to_csv(both, index=False)
    new = metrics(evaluate(run, both, "--split", "new", output="new"))
    assert new["overall"]["n"] == len(table)


@pytest.mark.usefixtures("blank_pictures")
def test_baselines_know_the_conditions_of_a_table_with_one_more_column(
    train, evaluate, table, table_path, tmp_path
):
    run = train(table_path)
    wider = tmp_path / "wider.csv"
    table.assign(carbon_source="glucose").to_csv(wider, index=False)
    folder = evaluate(run, wider)
    for name in ("condition mean", "additive"):
        ours = metrics(run)["baselines"][name]["overall"]
        assert metrics(folder)["baselines"][name]["overall"] == ours


@pytest.mark.usefixtures("blank_pictures")
def test_a_column_order_or_row_order_changes_no_prediction(
    train, evaluate, table, table_path, tmp_path
):
    run = train(table_path)
    shuffled = table[table.columns[::-1]].sample(frac=1, random_state=0)
    path = tmp_path / "shuffled.csv"
    shuffled.to_csv(path, index=False)
    ours = read(evaluate(run, table_path), "predictions.csv")
    theirs = read(evaluate(run, path, output="b"), "predictions.csv")
    expected = ours["y_pred"].to_numpy()[shuffled.index]
    np.testing.assert_allclose(theirs["y_pred"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("blank_pictures")
def test_the_effective_config_is_a_valid_config(train, table_path, tmp_path):
    run = train(table_path)
    again = train(table_path, output="again", extra=("--config", str(run / "config.yaml")))
    assert (run / "metrics.json").read_bytes() == (again / "metrics.json").read_bytes()


@pytest.mark.usefixtures("blank_pictures")
def test_the_checkpoint_holds_no_target_and_no_id(train, tmp_path):
    """Each region has one sample, so that the mean of a region would be its target."""
    table = long_table(regions=60)
    table["target"] += np.random.default_rng(0).normal(0, 1e-3, len(table))  # no round numbers
    table = table[table.index // 60 == table.index % 6]
    path = tmp_path / "t.csv"
    table.to_csv(path, index=False)
    run = train(path)
    for name in ("best_model.pth", "last.pth"):
        values = torch.load(run / name, weights_only=True)
        assert table["region_id"].iloc[0].encode() not in (run / name).read_bytes()
        assert (values["resume"] == {}) == (name == "best_model.pth")
        held = np.concatenate([_floats({**values, "model": {}, "resume": {}}), [np.inf]])
        assert len(held) > 10
        y = table["target"].to_numpy()
        nearest = np.abs(held[:, None] - np.concatenate([y, y - y.mean()])).min(axis=1)
        assert held[nearest < 1e-6].size == 0


def _floats(value):
    """Every floating number of a checkpoint's part."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return np.concatenate([np.zeros(0), *(_floats(part) for part in value)])
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.double().flatten().numpy()
    return np.array([value] if isinstance(value, float) else [])


@pytest.mark.usefixtures("blank_pictures")
def test_the_manifest_says_what_happened(train, table_path):
    still = ["model.encoder.drop_rate=0", "model.region_embed.feature_dropout=0"]
    run = train(table_path, *still, "model.region_embed.dropout=0")  # or its loss is mostly noise
    said = json.loads((run / "manifest.json").read_text())
    assert said["data"]["conditions"] == 3
    assert said["data"]["samples"] == 6
    assert sum(said["split"]["observations"].values()) == 240
    assert said["training"]["epochs"] == 3
    assert said["model"]["trainable"] == said["model"]["parameters"] > 0
    assert said["model"]["frozen"] == said["model"]["lora"] == 0
    assert said["pretrained"] is said["lora"] is None
    assert sum(row["parameters"] for row in said["model"]["modules"]) == said["model"]["parameters"]
    history = read(run, "history.csv")
    assert history["epoch"].tolist() == [0, 1, 2, 3]
    assert history["train_loss"].isna().tolist() == [True, False, False, False]
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[1]
    assert history["val_loss"].iloc[-1] < history["val_loss"].iloc[0]  # before training
