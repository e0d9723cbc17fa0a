"""Each key of training, optimizer, logging and task has the effect that the README says."""

from __future__ import annotations

import copy
import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import long_table, train_small
from yeast_get.config import ModelConfig, Settings, TrainingConfig, TransformerConfig
from yeast_get.model import get_backbone
from yeast_get.training import finetune, loop

pytestmark = pytest.mark.usefixtures("blank_pictures")


def weights(run, name="best_model.pth"):
    return torch.load(run / name, weights_only=True)["model"]


def differ(one, two):
    return any(not torch.equal(one[name], two[name]) for name in one)


def history(run):
    return pd.read_csv(run / "history.csv")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The run that others are compared with."""
    folder = tmp_path_factory.mktemp("base")
    long_table().to_csv(folder / "table.csv", index=False)
    return train_small(folder / "table.csv", folder / "run")


@pytest.mark.parametrize("setting", [
    "experiment.seed=1", "training.learning_rate=1e-3", "training.weight_decay=3.0",
    "training.loss=mse", "training.clip_grad=0.01", "training.accumulate_grad_batches=3",
    "training.batch_size=16", "training.warmup_epochs=2", "training.precision=bf16",
    "optimizer.name=adam", "optimizer.betas=[0.5,0.6]", "optimizer.eps=0.1",
    "scheduler.name=constant", "scheduler.min_lr=4e-3", "augmentation.condition_dropout=0.5",
    "augmentation.motif_noise=0.5", "augmentation.accessibility_noise=0.5",
    "augmentation.motif_dropout=0.5", "split.seed=5",
])  # fmt: skip
def test_a_key_of_the_optimisation_changes_the_weights(train, table_path, base, setting):
    settings = [setting]
    if setting.startswith("optimizer.name"):
        settings.append("training.weight_decay=1.0")  # where Adam and AdamW differ most
    other = train(table_path, *settings, output="other")
    assert differ(weights(base, "last.pth"), weights(other, "last.pth"))


def test_the_length_of_a_region_goes_into_the_model_and_back_out(train, evaluate, table_path):
    table = pd.read_csv(table_path)
    number = table["region_id"].factorize()[0]
    table["start"], table["end"] = 1000 * number, 1000 * number + 100 + 7 * number
    table.to_csv(table_path, index=False)
    run = train(table_path, "data.region_length=true")
    kept = torch.load(run / "best_model.pth", weights_only=True)["schema"]
    assert kept["region_feature_names"] == ["region_length"]
    first = pd.read_csv(run / "predictions.csv")["y_pred"]
    again = pd.read_csv(evaluate(run, table_path) / "predictions.csv")["y_pred"]
    np.testing.assert_allclose(first, again, atol=1e-6)


def test_accumulating_two_batches_equals_one_of_twice_the_size(train, table_path):
    still = ("model.head.dropout=0", "model.encoder.drop_path_rate=0",
             "model.encoder.drop_rate=0", "model.region_embed.dropout=0",
             "model.region_embed.feature_dropout=0")  # fmt: skip
    whole = train(table_path, *still, "training.batch_size=32", output="whole")
    halves = train(table_path, *still, "training.batch_size=16",
                   "training.accumulate_grad_batches=2", output="halves")  # fmt: skip
    for name, value in weights(whole, "last.pth").items():
        torch.testing.assert_close(value, weights(halves, "last.pth")[name], rtol=1e-3, atol=1e-4)


def test_max_epochs_and_validate_every_n_epochs(train, table_path):
    rows = history(train(table_path, "training.max_epochs=5", "training.validate_every_n_epochs=2"))
    assert rows["epoch"].tolist() == [0, 1, 2, 3, 4, 5]
    assert rows["val_loss"].notna().tolist() == [True, False, True, False, True, True]


def test_zero_epochs_keep_the_weights_at_the_start(train, table_path):
    run = train(table_path, "training.max_epochs=0", "training.warmup_epochs=0")
    assert history(run)["epoch"].tolist() == [0]
    assert (run / "metrics.json").exists()


def test_early_stopping_and_its_monitor(train, table_path, monkeypatch):
    """The loss falls for two epochs and rises then; Pearson r rises all along."""
    losses = iter([5.0, 4.0, 3.0, 6.0, 7.0, 8.0, 9.0, 9.5, 9.9] * 2)
    true_validate = finetune.validate

    def scripted(*args):
        loss = next(losses)
        _, y_pred = true_validate(*args)
        rank = {5.0: 0, 4.0: 1, 3.0: 2, 6.0: 3, 7.0: 4, 8.0: 5, 9.0: 6, 9.5: 7, 9.9: 8}[loss]
        return {"val_loss": loss, "val_pearson": rank / 10}, y_pred

    monkeypatch.setattr(finetune, "validate", scripted)
    patient = ("training.max_epochs=8", "training.early_stopping_patience=3")
    run = train(table_path, *patient, "training.monitor=val_loss", output="loss")
    assert history(run)["epoch"].max() == 5
    best = torch.load(run / "best_model.pth", weights_only=True)
    assert (best["epoch"], best["scores"]["val_loss"]) == (2, 3.0)
    losses = iter([5.0, 4.0, 3.0, 6.0, 7.0, 8.0, 9.0, 9.5, 9.9])
    run = train(table_path, *patient, "training.monitor=val_pearson", output="pearson")
    assert history(run)["epoch"].max() == 8


def test_patience_waits_for_an_epoch_that_was_validated(train, table_path, monkeypatch):
    true_validate = finetune.validate

    def falling(*args):
        return {"val_loss": -float(args[-1]), "val_pearson": 0.1}, true_validate(*args)[1]

    monkeypatch.setattr(finetune, "validate", falling)
    patient = ("training.max_epochs=7", "training.early_stopping_patience=3",
               "training.validate_every_n_epochs=5")  # fmt: skip
    run = train(table_path, *patient, "training.monitor=val_loss", output="better")
    assert history(run)["epoch"].max() == 7
    run = train(table_path, *patient, output="worse")
    assert history(run)["epoch"].max() == 5


def test_a_validation_part_without_a_correlation_is_judged_by_its_loss(
    train, table, table_path, capsys
):
    """One row in the validation part."""
    table["group"] = np.where(table.index % 3 == 0, "test", "train")
    table.loc[7, "group"] = "val"
    table.to_csv(table_path, index=False)
    settings = ("data.description_columns=[group]", "split.by=column", "split.column=group",
                "model.fusion.kind=film")  # fmt: skip
    run = train(table_path, *settings, "training.max_epochs=2")
    assert capsys.readouterr().out.count("allows no correlation (fewer than 2 measured") == 1
    run = train(table_path, *settings, "training.max_epochs=4", extra=("--resume",))
    assert "allows no correlation" not in capsys.readouterr().out
    best = torch.load(run / "best_model.pth", weights_only=True)
    assert best["epoch"] == history(run)["val_loss"].argmin() > 0
    last = torch.load(run / "last.pth", weights_only=True)
    assert last["resume"]["progress"]["monitor"] == "val_loss"


def test_random_windows_do_not_move_the_schedule(train, table_path, monkeypatch):
    lengths = []
    true_rate = loop.learning_rate
    monkeypatch.setattr(
        loop, "learning_rate", lambda i, n, s: (lengths.append(n), true_rate(i, n, s))[1]
    )
    train(table_path, "data.regions_per_window=7", "training.batch_size=2", output="windows")
    assert len(set(lengths)) == 1
    lengths.clear()
    train(table_path, output="rows")  # 168 training rows in batches of 32
    assert lengths == [6] * 18


def test_learned_positions_are_as_many_as_the_window_holds(train, evaluate, table_path):
    run = train(
        table_path, "data.regions_per_window=1100", "model.transformer.positional_encoding=learned"
    )
    assert len(weights(run)["position_embed.weight"]) == 1100
    assert (evaluate(run, table_path) / "metrics.json").exists()


def test_the_average_of_the_weights_is_what_is_kept(train, table_path):
    run = train(table_path, "training.ema_decay=0.9")
    last = torch.load(run / "last.pth", weights_only=True)
    assert differ(last["model"], last["resume"]["weights"])
    plain = torch.load(train(table_path, output="p") / "last.pth", weights_only=True)
    assert not differ(plain["model"], plain["resume"]["weights"])


def test_save_every_n_epochs_keeps_checkpoints(train, table_path):
    run = train(table_path, "training.save_every_n_epochs=2", "training.max_epochs=4")
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == ["epoch_0002.pth", "epoch_0004.pth"]


def test_checkpoint_every_n_steps_writes_inside_the_epoch(train, table_path, monkeypatch):
    saved = []
    true_save = loop._save_last
    monkeypatch.setattr(
        loop, "_save_last", lambda run, at: (saved.append((at.epoch, at.batch)), true_save(run, at))
    )
    train(table_path, "training.checkpoint_every_n_steps=2", "training.max_epochs=2")
    assert saved == [(0, 0), (1, 2), (1, 4), (1, 0), (2, 2), (2, 4), (2, 0)]


@pytest.mark.parametrize("average", ["0", "0.9"])
def test_every_checkpoint_knows_the_regions_by_its_own_weights(
    train, table_path, monkeypatch, average
):
    """Also one of an epoch that is not validated, or of the middle of an epoch."""
    true_checkpoint, written = loop._checkpoint, []

    def checked(run, row):
        found = true_checkpoint(run, row)
        known = found.model["by_factors.known"]
        afresh = copy.deepcopy(run.validated)
        run.stage.remember(afresh)
        assert known[1:].any()
        assert torch.equal(known, afresh.by_factors.known)
        written.append(found.epoch)
        return found

    monkeypatch.setattr(loop, "_checkpoint", checked)
    train(
        table_path, "model.region_identity.enabled=true", "training.max_epochs=4",
        "training.validate_every_n_epochs=2", "training.save_every_n_epochs=1",
        "training.checkpoint_every_n_steps=2", f"training.ema_decay={average}",
    )  # fmt: skip
    assert set(written) == {0, 1, 2, 3, 4}


def test_workers_change_nothing(train, table_path, base):
    run = train(table_path, "training.num_workers=2", output="workers")
    assert (run / "history.csv").read_bytes() == (base / "history.csv").read_bytes()


@pytest.mark.parametrize(
    ("precision", "has_it", "width", "device", "expected"),
    [
        ("auto", True, 512, "cpu", torch.bfloat16),
        ("auto", True, 511, "cpu", None),
        ("auto", False, 512, "cpu", None),
        ("auto", True, 512, "mps", None),
        ("fp32", True, 512, "cpu", None),
        ("fp64", True, 512, "cpu", None),
        ("bf16", False, 8, "cpu", torch.bfloat16),
    ],
)
def test_precision_by_processor_and_width(monkeypatch, precision, has_it, width, device, expected):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_it)
    model = ModelConfig(transformer=TransformerConfig(embed_dim=width))
    settings = Settings(model=model, training=TrainingConfig(precision=precision))
    assert loop.training_dtype(settings, torch.device(device)) == expected


def test_auto_goes_on_in_the_precision_in_which_it_began(train, table_path, monkeypatch):
    """The processor of the second half of the run has no bfloat16."""
    steady = ("scheduler.name=constant", "training.warmup_epochs=0")
    monkeypatch.setattr(loop, "WIDE", 1)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    whole = train(table_path, *steady, "training.max_epochs=2", output="whole")
    train(table_path, *steady, "training.max_epochs=1", output="halves")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    halves = train(
        table_path, *steady, "training.max_epochs=2", output="halves", extra=("--resume",)
    )
    other = train(table_path, *steady, "training.max_epochs=2", output="other")
    assert "device cpu, bfloat16" in (whole / "train.log").read_text()
    assert "training goes on in bfloat16, as it began" in (halves / "train.log").read_text()
    assert "device cpu, float32" in (other / "train.log").read_text()
    assert not differ(weights(whole, "last.pth"), weights(halves, "last.pth"))
    assert differ(weights(whole, "last.pth"), weights(other, "last.pth"))


def test_compile_is_asked_of_torch(train, table_path, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda model: asked.append(model) or model)
    train(table_path, "training.compile=true")
    assert len(asked) == 1


def test_activation_checkpointing_computes_blocks_anew_and_changes_nothing(
    train, table_path, base, monkeypatch
):
    asked = []

    def checkpoint(*arguments, **options):
        asked.append(options)
        return recompute(*arguments, **options)

    recompute = get_backbone.checkpoint
    monkeypatch.setattr(get_backbone, "checkpoint", checkpoint)
    run = train(table_path, "training.activation_checkpointing=true", output="anew")
    assert asked
    assert (run / "history.csv").read_bytes() == (base / "history.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("cc")), reason="no C compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_compiled_model_predicts_what_the_plain_one_does(train, table_path):
    smallest = ("model.transformer.num_layers=1", "training.max_epochs=1",
                "training.warmup_epochs=0", "model.head.dropout=0",  # compiled, it draws otherwise
                "model.encoder.drop_path_rate=0", "model.encoder.drop_rate=0",
                "model.region_embed.dropout=0",
                "model.region_embed.feature_dropout=0")  # fmt: skip
    plain = train(table_path, *smallest, output="plain")
    compiled = train(table_path, *smallest, "training.compile=true", output="compiled")
    expected, y_pred = (pd.read_csv(run / "predictions.csv")["y_pred"] for run in (plain, compiled))
    np.testing.assert_allclose(y_pred, expected, atol=1e-3)


def test_deterministic_is_asked_of_torch(train, table_path, monkeypatch):
    asked = []
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", asked.append)
    train(table_path, "training.deterministic=true")
    assert asked == [True, False]
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_deterministic_is_given_back_even_after_an_error(train, table_path, monkeypatch):
    def broken(*args):
        assert torch.are_deterministic_algorithms_enabled()
        raise KeyError("a bug")

    monkeypatch.setattr(finetune, "validate", broken)
    with pytest.raises(KeyError):
        train(table_path, "training.deterministic=true")
    assert not torch.are_deterministic_algorithms_enabled()


def test_tensorboard_and_how_often_it_is_written(train, table_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def points(run):
        events = EventAccumulator(str(run / "tensorboard"))
        events.Reload()
        assert events.Tags()["images"] == ["val/scatter"]
        return len(events.Scalars("train/loss")), len(events.Scalars("val/pearson"))

    often = train(table_path, "logging.tensorboard=true", "logging.log_every_n_steps=1", output="a")
    seldom = train(
        table_path, "logging.tensorboard=true", "logging.log_every_n_steps=6", output="b"
    )
    assert points(often) == (18, 4)  # 6 steps in each of 3 epochs
    assert points(seldom) == (3, 4)


def test_the_test_modes(train, table_path, base):
    predict = train(table_path, "task.test_mode=predict", output="predict")
    assert (predict / "predictions.csv").exists()
    assert not (predict / "metrics.json").exists()
    assert not (base / "feature_importance.csv").exists()
    for name, setting in (("mode", "task.test_mode=interpret"), ("key", "task.interpret=true")):
        run = train(table_path, setting, "task.importance_repeats=2", output=name)
        table = pd.read_csv(run / "feature_importance.csv")
        assert {"importance_1", "importance_2"} <= set(table.columns)
        assert "importance_3" not in table.columns
        assert set(table["feature"]) >= {"motif_a", "temperature", "drug and drug_concentration"}


def test_importance_rows_is_how_many_rows_are_scored(train, table_path, monkeypatch):
    from yeast_get.evaluation import importance

    rows = []
    true_score = importance.score
    monkeypatch.setattr(
        importance, "score", lambda y, *more: (rows.append(len(y)), true_score(y, *more))[1]
    )
    train(table_path, "task.interpret=true", "task.importance_rows=11")
    assert set(rows) == {11}


def test_the_order_of_the_inputs_changes_no_importance(train, table_path, monkeypatch):
    from yeast_get.evaluation import importance

    settings = ("task.interpret=true", "task.importance_repeats=2")
    one = train(table_path, *settings, output="one")
    inputs = importance._inputs
    monkeypatch.setattr(importance, "_inputs", lambda *a: inputs(*a)[::-1])
    two = train(table_path, *settings, output="two")
    tables = [pd.read_csv(run / "feature_importance.csv") for run in (one, two)]
    ours, theirs = (t.sort_values("feature", ignore_index=True) for t in tables)
    pd.testing.assert_frame_equal(ours, theirs)


def test_the_importance_of_an_undefined_score_is_blank(train, table, table_path, capsys):
    """One row in the test part."""
    table["group"] = np.where(table.index % 3 == 0, "val", "train")
    table.loc[7, "group"] = "test"
    table.to_csv(table_path, index=False)
    run = train(
        table_path, "data.description_columns=[group]", "split.by=column", "split.column=group",
        "task.interpret=true",
    )  # fmt: skip
    assert pd.read_csv(run / "feature_importance.csv")["importance_mean"].isna().all()
    assert capsys.readouterr().out.count("inputs is undefined") == 1


def test_saving_predictions_and_embeddings(train, table_path):
    run = train(table_path, "task.save_predictions=false", "task.save_embeddings=true")
    assert not (run / "predictions.csv").exists()
    held = np.load(run / "embeddings.npz")
    splits = pd.read_csv(run / "splits.csv")
    test = set(splits.loc[splits["split"] == "test", "region_id"])
    assert set(held["region_id"].tolist()) == test
    assert held["embedding"].shape == (len(test), 16)


def test_the_name_stands_in_the_manifest(train, table_path):
    run = train(table_path, "experiment.name=heat shock")
    assert json.loads((run / "manifest.json").read_text())["name"] == "heat shock"
