"""Pretraining, LoRA from the file, the adapter alone, and the way back to GET."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import evaluate_yeast
import train_yeast
from tests import conftest
from tests.conftest import long_table
from yeast_get.model.get_backbone import GETRegionFinetune
from yeast_get.model.pretrained import load_get
from yeast_get.training.checkpoint import Checkpoint

pytestmark = pytest.mark.usefixtures("blank_pictures")

FILM = (
    "model.fusion.kind=film", "model.encoder.drop_rate=0", "model.encoder.drop_path_rate=0.1",
    "model.region_embed.dropout=0", "model.region_embed.feature_dropout=0",
    "training.weight_decay=0.05", "training.loss=mse",
)  # fmt: skip
"""As config/get_finetune.yaml has it, for all runs here."""

PRETRAIN = ("task.stage=pretrain", "data.regions_per_window=8", "training.monitor=val_loss")


def train_small(data, folder, *settings, extra=()):
    return conftest.train_small(data, folder, *FILM, *settings, extra=extra)


@pytest.fixture
def train(tmp_path):
    """As everywhere, but with `FILM`."""

    def run(data, *settings, output="run", extra=()):
        return train_small(data, tmp_path / output, *settings, extra=extra)

    return run


def weights(path):
    values = torch.load(path, weights_only=True)
    return values["state_dict"] if "state_dict" in values else values["model"]


def manifest(run):
    return json.loads((run / "manifest.json").read_text())


@pytest.fixture(scope="module")
def transferred(tmp_path_factory):
    """A folder with a backbone that was pretrained on the table's regions, and LoRA from it."""
    folder = tmp_path_factory.mktemp("transferred")
    long_table().to_csv(folder / "table.csv", index=False)
    base = train_small(folder / "table.csv", folder / "base", *PRETRAIN) / "pretrained.pth"
    lora = ("lora.enabled=true", "lora.rank=2", "training.max_epochs=6")
    train_small(folder / "table.csv", folder / "tuned", f"finetune.checkpoint={base}", *lora)
    return folder


@pytest.fixture
def base(transferred, tmp_path):
    """A copy of the backbone."""
    return shutil.copytree(transferred / "base", tmp_path / "base") / "pretrained.pth"


@pytest.fixture
def tuned(transferred, tmp_path):
    """A copy of the run of LoRA from it."""
    return shutil.copytree(transferred / "tuned", tmp_path / "tuned")


def refused(command, *arguments) -> None:
    """The command ends with exit code 2."""
    with pytest.raises(SystemExit) as stopped:
        command.main([str(each) for each in arguments], standalone_mode=False)
    assert stopped.value.code == 2


# ------------------------------------------------------------------------------ pretraining


def test_pretraining_learns_and_writes_a_get_file_with_the_names_of_its_features(
    train, table, table_path
):
    """Neighbours are alike here, so that a hidden region can be told from those around it."""
    smooth = table.groupby("region_id", sort=False)[["motif_a", "motif_b", "accessibility"]]
    place = smooth.ngroup()
    for name, rate in (("motif_a", 0.5), ("motif_b", 0.3), ("accessibility", 0.2)):
        table[name] = 5 + 3 * np.sin(rate * place)
    table.drop(columns="target").to_csv(table_path, index=False)
    run = train(table_path, *PRETRAIN, "training.max_epochs=60", "training.batch_size=4")
    history = pd.read_csv(run / "history.csv")
    assert history["val_loss"].min() < 0.5 * history["val_loss"].iloc[0]
    assert history["val_pearson"].max() > 0.5
    held = torch.load(run / "pretrained.pth", weights_only=True)
    assert held["features"]["names"] == ["motif_a", "motif_b", "motif_c", "accessibility"]
    assert {"mask_token", "head_mask.weight", "cls_token"} <= set(held["state_dict"])
    model, report = load_get(run / "pretrained.pth")
    assert report.encoder[0] == report.encoder[1] > 0
    assert report.missing == ["head_exp.head.weight", "head_exp.head.bias"]
    assert model.encoder.blocks[0].attn.num_heads == 2
    assert not (run / "predictions.csv").exists()
    said = manifest(run)
    assert said["stage"] == "pretrain"
    assert said["training"]["scores_of_best"]["val_loss"] == pytest.approx(
        history["val_loss"].min()
    )


def test_pretraining_takes_regions_alone(train, table, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    regions = table.drop_duplicates("region_id")
    columns = ["region_id", "motif_a", "motif_b", "motif_c", "accessibility"]
    regions[columns].to_csv(folder / "regions.csv", index=False)
    run = train(folder, *PRETRAIN)
    assert (run / "pretrained.pth").exists()
    with pytest.raises(SystemExit):
        train(folder, output="expression")


def test_pretraining_never_learns_from_what_training_will_test(train, table_path, base, tuned):
    splits = pd.read_csv(base.parent / "splits.csv").set_index("region_id")["split"]
    later = pd.read_csv(tuned / "splits.csv").drop_duplicates("region_id")
    assert splits.to_dict() == later.set_index("region_id")["split"].to_dict()
    log = (tuned / "train.log").read_text()
    assert f"of the {(splits == 'test').sum()} test regions, 0 were learned from" in log
    leaky = train(table_path, *PRETRAIN, "split.seed=7", output="leaky") / "pretrained.pth"
    train(table_path, f"finetune.checkpoint={leaky}", output="after")
    seen = pd.read_csv(leaky.parent / "splits.csv").set_index("region_id")["split"]
    count = (seen[splits[splits == "test"].index] == "train").sum()
    assert count > 0
    log = (tuned.parent / "after" / "train.log").read_text()
    assert f"test regions, {count} were learned from in its pretraining" in log


def test_pretraining_goes_on_where_it_stopped(train, table_path):
    noise = ("augmentation.motif_noise=0.1", "training.ema_decay=0.5")
    whole = train(table_path, *PRETRAIN, *noise, "scheduler.name=constant",
                  "training.max_epochs=4", output="whole")  # fmt: skip
    halves = train(table_path, *PRETRAIN, *noise, "scheduler.name=constant",
                   "training.max_epochs=2", output="halves")  # fmt: skip
    train(table_path, *PRETRAIN, *noise, "scheduler.name=constant", "training.max_epochs=4",
          output="halves", extra=("--resume",))  # fmt: skip
    assert (whole / "history.csv").read_bytes() == (halves / "history.csv").read_bytes()
    one, two = weights(whole / "last.pth"), weights(halves / "last.pth")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_pretraining_goes_on_from_a_pretrained_file(train, table_path, base):
    again = train(table_path, *PRETRAIN, f"finetune.checkpoint={base}", "training.max_epochs=0",
                  "training.warmup_epochs=0", output="again") / "pretrained.pth"  # fmt: skip
    one, two = weights(base), weights(again)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert manifest(again.parent)["pretrained"]["missing"] == []


# ------------------------------------------------------------------------------------- LoRA


def test_lora_moves_the_adapters_and_not_one_bit_of_the_base(base, tuned):
    before, after = weights(base), weights(tuned / "best_model.pth")
    record = Checkpoint.load(tuned / "best_model.pth").lora
    assert {name for name in before if name in after} == set(record["base"])
    assert all(torch.equal(before[name], after[name]) for name in record["base"])
    assert len(record["modules"]) == 8  # 2 blocks: qkv, proj, fc1, fc2
    last = weights(tuned / "last.pth")
    for path in record["modules"]:
        assert last[f"{path}.lora_B"].abs().max() > 0
    said = manifest(tuned)
    lora = sum(v.numel() for k, v in after.items() if k.endswith(("lora_A", "lora_B")))
    assert said["model"]["lora"] == lora > 0
    assert said["model"]["frozen"] == sum(before[name].numel() for name in record["base"])
    assert said["model"]["trainable"] + said["model"]["frozen"] == said["model"]["parameters"]
    rows = {row["module"]: row for row in said["model"]["modules"]}
    assert rows["region_embed"]["trainable"] == rows["cls_token"]["trainable"] == 0
    assert rows["encoder"]["trainable"] == rows["encoder"]["lora"]
    assert rows["head"]["frozen"] == rows["fusion"]["frozen"] == 0
    assert said["pretrained"]["encoder"][0] == said["pretrained"]["encoder"][1] > 0


def test_the_adapter_and_its_base_are_the_model(evaluate, base, tuned, table_path, tmp_path):
    whole = evaluate(tuned, table_path, output="whole") / "predictions.csv"
    arguments = ["--model", tuned / "adapter.pth", "--data", table_path, "--device", "cpu"]
    arguments += ["--base", base, "--output", tmp_path / "parts"]
    evaluate_yeast.main([str(each) for each in arguments], standalone_mode=False)
    assert (tmp_path / "parts" / "predictions.csv").read_bytes() == whole.read_bytes()
    held = weights(tuned / "adapter.pth")
    assert not set(held) & set(Checkpoint.load(tuned / "adapter.pth").lora["base"])
    assert (tuned / "adapter.pth").stat().st_size < (tuned / "best_model.pth").stat().st_size


def test_an_adapter_needs_its_own_base(train, base, tuned, table_path, tmp_path, capsys):
    arguments = ["--model", tuned / "adapter.pth", "--data", table_path, "--output", tmp_path / "o"]
    refused(evaluate_yeast, *arguments)
    said = capsys.readouterr().err
    assert "adapter.pth: is an adapter, and holds no backbone; give --base" in said
    assert "(pretrained.pth)" in said
    other = train(table_path, *PRETRAIN, "experiment.seed=3", output="other") / "pretrained.pth"
    capsys.readouterr()
    refused(evaluate_yeast, *arguments, "--base", other)
    assert "is not the base that the adapter was trained from" in capsys.readouterr().err
    arguments[1] = tuned / "best_model.pth"
    refused(evaluate_yeast, *arguments, "--base", base)
    assert "is whole and needs no base" in capsys.readouterr().err
    refused(train_yeast, "--check", "--set", f"finetune.checkpoint={tuned / 'adapter.pth'}")
    assert "is an adapter, and holds no backbone" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_merged_and_exported_weights(train, evaluate, base, tuned, table_path, tmp_path, capsys):
    merged, get = tmp_path / "merged" / "best_model.pth", tmp_path / "get.pth"
    merged.parent.mkdir()
    arguments = ["--model", tuned / "adapter.pth", "--base", base, "--export", merged]
    arguments += ["--export-get", get]
    evaluate_yeast.main([str(each) for each in arguments], standalone_mode=False)
    said = capsys.readouterr().out
    assert "feature_encoder, fusion, head have no place in GET's layout" in said
    y_pred = pd.read_csv(evaluate(tuned, table_path, output="a") / "predictions.csv")["y_pred"]
    ours = pd.read_csv(evaluate(merged.parent, table_path, output="b") / "predictions.csv")
    np.testing.assert_allclose(ours["y_pred"], y_pred, rtol=1e-4, atol=1e-5)
    whole, plain = weights(tuned / "best_model.pth"), weights(merged)
    assert not any("lora" in name for name in plain)
    qkv = "encoder.blocks.0.attn.qkv"
    update = whole[f"{qkv}.lora_B"] @ whole[f"{qkv}.lora_A"] * 16 / 2
    torch.testing.assert_close(plain[f"{qkv}.weight"], whole[f"{qkv}.weight"] + update)
    exported = weights(get)
    assert {name.partition(".")[0] for name in exported} == {"cls_token", "region_embed", "encoder"}
    assert all(torch.equal(exported[name], plain[name]) for name in exported)
    refused(evaluate_yeast, *arguments)
    assert "is there already" in capsys.readouterr().err
    train(table_path, f"finetune.checkpoint={get}", "split.seed=7", "training.max_epochs=0",
          "training.warmup_epochs=0", output="leaky")  # fmt: skip
    assert "were trained or validated on when the file was made" in capsys.readouterr().out


def test_a_lora_run_goes_on_where_it_stopped_and_only_from_its_own_base(
    train, base, table_path, tmp_path, capsys
):
    lora = (f"finetune.checkpoint={base}", "lora.enabled=true", "lora.dropout=0.2",
            "scheduler.name=constant")  # fmt: skip
    whole = train(table_path, *lora, "training.max_epochs=4", output="whole")
    train(table_path, *lora, "training.max_epochs=2", output="halves")
    halves = train(table_path, *lora, "training.max_epochs=4", output="halves",
                   extra=("--resume",))  # fmt: skip
    for name in ("history.csv", "predictions.csv", "metrics.json"):
        assert (whole / name).read_bytes() == (halves / name).read_bytes()
    other = train(table_path, *PRETRAIN, "experiment.seed=3", output="other") / "pretrained.pth"
    capsys.readouterr()
    with pytest.raises(SystemExit):
        train(table_path, *lora, f"finetune.checkpoint={other}", output="halves",
              extra=("--resume",))  # fmt: skip
    assert "was trained on another base" in capsys.readouterr().err


def test_lora_dropout_and_scale_change_the_run(train, base, table_path):
    lora = (f"finetune.checkpoint={base}", "lora.enabled=true")
    runs = {
        setting: weights(train(table_path, *lora, setting, output=setting) / "last.pth")
        for setting in ("lora.rank=8", "lora.alpha=4", "lora.dropout=0.5", "lora.rslora=true")
    }
    plain = runs.pop("lora.rank=8")
    for other in runs.values():
        assert any(not torch.equal(plain[name], other[name]) for name in plain)


def test_targets_and_exclude_choose_the_maps(train, base, table_path, capsys):
    lora = (f"finetune.checkpoint={base}", "lora.enabled=true")
    run = train(table_path, *lora, "lora.targets=[attn.qkv, mlp]", "lora.exclude=[blocks.1.mlp, x]")
    assert "warning: lora.exclude: there is no linear map at x" in capsys.readouterr().out
    modules = Checkpoint.load(run / "best_model.pth").lora["modules"]
    block = "encoder.blocks."
    assert modules == [
        f"{block}0.attn.qkv", f"{block}0.mlp.fc1", f"{block}0.mlp.fc2", f"{block}1.attn.qkv",
    ]  # fmt: skip
    run = train(table_path, *lora, 'lora.targets="encoder.*fc[12]"', output="text")
    assert len(Checkpoint.load(run / "best_model.pth").lora["modules"]) == 4
    capsys.readouterr()
    for setting in ("lora.targets=[kv]", 'lora.targets="encoder"', "lora.targets=[head]"):
        with pytest.raises(SystemExit):
            train(table_path, *lora, setting, output="none")
        said = capsys.readouterr().err
        assert len(said.strip().splitlines()) == 1
        assert "lora.targets: no linear map is left for adapters" in said


def test_frozen_blocks_are_without_dropout_unless_it_is_wanted(train, base, table_path):
    lora = (f"finetune.checkpoint={base}", "lora.enabled=true", "training.max_epochs=1",
            "training.warmup_epochs=0", "model.head.dropout=0")  # fmt: skip
    noisy = ("model.encoder.drop_path_rate=0.5", "model.encoder.drop_rate=0.5",
             "model.encoder.attn_drop_rate=0.5")  # fmt: skip
    still = train(table_path, *lora, "model.encoder.drop_path_rate=0", output="still")
    quiet = train(table_path, *lora, *noisy, output="quiet")
    loud = train(table_path, *lora, *noisy, "lora.freeze_dropout=false", output="loud")
    assert (still / "history.csv").read_bytes() == (quiet / "history.csv").read_bytes()
    assert (still / "history.csv").read_bytes() != (loud / "history.csv").read_bytes()


def test_get_s_own_head_takes_an_adapter_where_it_fits(train, table, table_path, tmp_path):
    """A whole GET model of one output, whose features are named by a file."""
    table["target"] -= table["target"].min()
    table.to_csv(table_path, index=False)
    model = GETRegionFinetune(4, 16, 2, 2, 1)
    torch.save({"model": model.state_dict()}, tmp_path / "get.pth")
    (tmp_path / "names.txt").write_text("motif_b\nMOTIF_A\nmotif_c\n")
    run = train(
        table_path, f"finetune.checkpoint={tmp_path / 'get.pth'}", "finetune.num_heads=2",
        f"finetune.feature_names={tmp_path / 'names.txt'}", "lora.enabled=true",
        "model.head.kind=get", "model.fusion.kind=film", "data.motif_scale=max",
    )  # fmt: skip
    record = Checkpoint.load(run / "best_model.pth").lora
    assert "head_exp.head" in record["modules"]
    assert "region_embed.embed.weight" in record["base"]
    held = weights(run / "best_model.pth")["region_embed.embed.weight"]
    theirs = model.state_dict()["region_embed.embed.weight"]
    assert torch.equal(held, theirs[:, [1, 0, 2, 3]])  # by name
    said = manifest(run)["pretrained"]
    assert said["columns"] == [1, 0, 2, 3]
    assert any("holds no scales of its features" in note for note in said["notes"])


# ---------------------------------------------------------------------- what fits, what not


def test_features_of_other_names_are_not_taken(train, base, table, table_path, capsys):
    renamed = table.rename(columns={"motif_c": "motif_z"})
    renamed.to_csv(table_path, index=False)
    run = train(table_path, f"finetune.checkpoint={base}", "lora.enabled=true", output="some")
    assert manifest(run)["pretrained"]["region_embed"].startswith("3 of 4 input columns taken")
    rows = {row["module"]: row for row in manifest(run)["model"]["modules"]}
    assert rows["region_embed"]["frozen"] == 0  # trains in full
    assert "region_embed.embed.weight" in weights(run / "adapter.pth")  # the adapter brings it
    others = {f"motif_{x}": f"motif_{y}" for x, y in zip("abc", "xyz", strict=True)}
    table.rename(columns=others | {"accessibility": "motif_w"}).to_csv(table_path, index=False)
    run = train(table_path, f"finetune.checkpoint={base}", output="none")
    assert manifest(run)["pretrained"]["region_embed"].startswith("newly initialised: no feature")


def test_the_scales_come_with_the_columns(train, base, table, table_path):
    held = torch.load(base, weights_only=True)["features"]
    table["motif_a"] = 3 * table["motif_a"] + 1
    table.to_csv(table_path, index=False)
    run = train(table_path, f"finetune.checkpoint={base}")
    schema = Checkpoint.load(run / "best_model.pth").schema
    assert schema["offset"] == held["offset"][:3]
    assert schema["scale"] == held["scale"][:3]
    assert schema["accessibility"]["scale"] == held["scale"][3]
    plain = Checkpoint.load(train(table_path, output="plain") / "best_model.pth").schema
    assert plain["scale"][0] == pytest.approx(3 * held["scale"][0], rel=0.2)


def test_a_size_that_contradicts_the_file_is_refused_and_one_left_out_is_taken(
    base, table_path, tmp_path, capsys
):
    arguments = ["--data", table_path, "--output", tmp_path / "o", "--set",
                 f"finetune.checkpoint={base}", "--set", "logging.tensorboard=false", "--set",
                 "training.max_epochs=0", "--set", "training.warmup_epochs=0"]  # fmt: skip
    wrong = ["model.transformer.embed_dim=32", "model.encoder.mlp_ratio=2"]
    refused(train_yeast, *arguments, *(x for text in wrong for x in ("--set", text)))
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 2
    assert "model.transformer.embed_dim is 32, and" in said[0]
    assert "pretrained.pth has 16; write 16, or leave it out" in said[0]
    train_yeast.main([str(each) for each in arguments], standalone_mode=False)
    stored = Checkpoint.load(tmp_path / "o" / "best_model.pth").settings["model"]
    assert stored["transformer"]["embed_dim"] == 16
    assert stored["transformer"]["num_heads"] == 2
    again = ["--config", tmp_path / "o" / "config.yaml", "--output", tmp_path / "p"]
    train_yeast.main([str(each) for each in again], standalone_mode=False)  # a valid --config


def test_freeze_holds_what_it_names(train, base, table_path, capsys):
    run = train(table_path, f"finetune.checkpoint={base}", "finetune.freeze=[encoder, cls_token]")
    before, after = weights(base), weights(run / "last.pth")
    for name in before:
        if name in after:
            frozen = name.startswith(("encoder.", "cls_token"))
            assert torch.equal(before[name], after[name]) == frozen, name
    assert not (run / "adapter.pth").exists()
    with pytest.raises(SystemExit):
        train(table_path, f"finetune.checkpoint={base}", "finetune.freeze=[encode]", output="x")
    assert "finetune.freeze: no parameter of the model is in 'encode'" in capsys.readouterr().err
    everything = "[cls_token,region_embed,encoder,feature_encoder,fusion,head]"
    with pytest.raises(SystemExit):
        train(
            table_path, f"finetune.checkpoint={base}", f"finetune.freeze={everything}", output="n"
        )
    assert "finetune.freeze leaves nothing to train" in capsys.readouterr().err
    lora = ("lora.enabled=true", f"finetune.freeze={everything}")
    said = manifest(train(table_path, f"finetune.checkpoint={base}", *lora, output="lora"))["model"]
    assert said["trainable"] == said["lora"] > 0


def test_freeze_holds_in_pretraining_too(train, base, table_path):
    again = train(table_path, *PRETRAIN, f"finetune.checkpoint={base}",
                  "finetune.freeze=[encoder.blocks.0]", output="again")  # fmt: skip
    before, after = weights(base), weights(again / "last.pth")
    for name in before:
        assert torch.equal(before[name], after[name]) == name.startswith("encoder.blocks.0.")


def test_full_fine_tuning_starts_from_the_file_and_moves_it(train, base, table_path):
    start = train(table_path, f"finetune.checkpoint={base}", "training.max_epochs=0",
                  "training.warmup_epochs=0", output="start")  # fmt: skip
    run = train(table_path, f"finetune.checkpoint={base}")
    before = weights(base)
    for name, value in weights(start / "best_model.pth").items():
        if name in before:
            assert torch.equal(value, before[name])
    after = weights(run / "last.pth")
    assert all(not torch.equal(after[n], v) for n, v in before.items() if n in after)


def test_a_run_of_ours_is_a_base_too(train, base, tuned, table_path):
    """Its adapters are merged, and what belongs to its table is left out."""
    run = train(table_path, f"finetune.checkpoint={tuned / 'best_model.pth'}",
                "training.max_epochs=0", "training.warmup_epochs=0")  # fmt: skip
    said = manifest(run)["pretrained"]
    assert said["layout"] == "checkpoint of yeast_get"
    assert any(note.startswith("8 LoRA adapters merged, scale 8") for note in said["notes"])
    assert {name.partition(".")[0] for name in said["left_out"]} == {
        "feature_encoder", "fusion", "head",
    }  # fmt: skip
    log = (run / "train.log").read_text()
    assert "0 of the 36 test rows were trained or validated on when the file was made" in log
    other = train(table_path, f"finetune.checkpoint={tuned / 'best_model.pth'}", "split.seed=7",
                  "training.max_epochs=0", "training.warmup_epochs=0", output="leaky")  # fmt: skip
    one, two = (pd.read_csv(each / "splits.csv")["split"] for each in (tuned, other))
    seen = (one.isin(["train", "val"]) & (two == "test")).sum()
    assert seen > 0
    log = (other / "train.log").read_text()
    assert f"warning: {seen} of the 36 test rows were trained or validated on" in log
    merged = Checkpoint.load(tuned / "best_model.pth").merged().model
    for name, value in weights(run / "best_model.pth").items():
        if name.startswith("encoder."):
            torch.testing.assert_close(value, merged[name])


def test_looking_at_a_checkpoint_without_a_table(base, capsys):
    train_yeast.main(["--check", "--set", f"finetune.checkpoint={base}"], standalone_mode=False)
    said = capsys.readouterr().out
    assert "masked pretraining (current names)" in said
    assert "2 blocks, 16 wide, 2 heads (as the file says)" in said
    assert "(100.0 %)" in said
    assert "checked the checkpoint alone" in said


def test_checking_a_table_and_a_checkpoint_shows_what_would_train(base, table_path, capsys):
    arguments = ["--check", "--data", table_path, "--set", f"finetune.checkpoint={base}", "--set",
                 "lora.enabled=true"]  # fmt: skip
    train_yeast.main([str(each) for each in arguments], standalone_mode=False)
    said = capsys.readouterr().out
    assert "4 of 4 input columns taken from the file" in said
    assert "module" in said
    assert "no adapter is at head_exp: no linear map there came from the checkpoint" in said
    assert "nothing was written" in said


def test_the_shipped_get_yaml_trains_from_a_file_of_any_size(
    train, base, table_path, root, tmp_path
):
    arguments = ["--config", root / "config" / "get_finetune.yaml", "--data", table_path,
                 "--output", tmp_path / "o", "--device", "cpu", "--set",
                 f"finetune.checkpoint={base}", "--set", "training.max_epochs=1", "--set",
                 "training.warmup_epochs=0", "--set", "logging.tensorboard=false"]  # fmt: skip
    train_yeast.main([str(each) for each in arguments], standalone_mode=False)
    assert (tmp_path / "o" / "adapter.pth").exists()


def test_a_file_that_brings_code_is_only_run_when_it_is_trusted(
    train, base, table_path, tmp_path, capsys
):
    class Payload:
        def __reduce__(self):
            return shutil.copy, (str(base), str(tmp_path / "ran"))

    path = tmp_path / "evil.pth"
    torch.save(torch.load(base, weights_only=True) | {"extra": Payload()}, path)
    with pytest.raises(SystemExit):
        train(table_path, f"finetune.checkpoint={path}", output="no")
    said = capsys.readouterr().err
    assert "wants to import shutil.copy, which may run code, and was not read" in said
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "no").exists()
    train(table_path, f"finetune.checkpoint={path}", "finetune.trust_checkpoint=true", output="yes")
    assert (tmp_path / "ran").exists()
    assert "whatever code" in capsys.readouterr().out


def test_a_pretraining_run_predicts_no_expression(evaluate, base, table_path, tmp_path, capsys):
    (tmp_path / "copy").mkdir()
    shutil.copy(base.parent / "last.pth", tmp_path / "copy" / "best_model.pth")
    with pytest.raises(SystemExit):
        evaluate(tmp_path / "copy", table_path)
    assert "is of masked pretraining, and predicts no expression" in capsys.readouterr().err


def test_files_of_layout_one_still_load(train, evaluate, table_path, tmp_path):
    run = train(table_path)
    before = pd.read_csv(evaluate(run, table_path, output="a") / "predictions.csv")
    values = torch.load(run / "best_model.pth", weights_only=True)
    for name in ("features", "lora", "load_report", "members", "calibration", "seen_regions"):
        del values[name]
    values["settings"]["lora"] = {"enabled": False}
    values["settings"]["finetune"] = {"checkpoint": None}
    del values["settings"]["model"]["encoder"]["layer_norm_eps"]
    del values["schema"]["constant"]
    torch.save(values | {"format": 1}, run / "best_model.pth")
    after = pd.read_csv(evaluate(run, table_path, output="b") / "predictions.csv")
    later = ["y_low", "y_high", "flags"]
    pd.testing.assert_frame_equal(before.drop(columns=later), after.drop(columns="flags"))
    said = json.loads((tmp_path / "b/metrics.json").read_text())["uncertainty"]
    assert said["reason"] == "the intervals of this model were not calibrated"


# --------------------------------------------------------------------- what must not be lost


def test_overwrite_never_deletes_what_the_run_starts_from(train, base, table_path, capsys):
    with pytest.raises(SystemExit):
        train(table_path, f"finetune.checkpoint={base}", output="base", extra=("--overwrite",))
    assert (
        "pretrained.pth: is finetune.checkpoint, and --overwrite would" in capsys.readouterr().err
    )
    assert base.exists()


def test_exports_never_write_over_what_is_read(tuned, base, tmp_path, capsys):
    arguments = ["--model", tuned / "adapter.pth", "--base", base, "--overwrite", "--export"]
    for target in (base, tuned / "adapter.pth"):
        refused(evaluate_yeast, *arguments, target)
        assert "is read or written by this command already" in capsys.readouterr().err
    one = tmp_path / "one.pth"
    refused(evaluate_yeast, *arguments, one, "--export-get", one)
    assert not one.exists()


def test_full_fine_tuning_is_not_resumed_from_another_file(train, base, table_path, capsys):
    other = train(table_path, *PRETRAIN, "experiment.seed=3", output="other") / "pretrained.pth"
    train(table_path, f"finetune.checkpoint={base}", "scheduler.name=constant", output="run")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        train(table_path, f"finetune.checkpoint={other}", "scheduler.name=constant",
              "training.max_epochs=5", output="run", extra=("--resume",))  # fmt: skip
    assert "was trained on another base" in capsys.readouterr().err


def test_an_adapter_of_reordered_columns_and_rslora_is_the_model(
    train, evaluate, base, table, table_path, tmp_path
):
    order = ["motif_c", "motif_a", "motif_b"]
    table[[*order, *(c for c in table if c not in order)]].to_csv(table_path, index=False)
    run = train(table_path, f"finetune.checkpoint={base}", "lora.enabled=true", "lora.rank=2",
                "lora.rslora=true", output="run")  # fmt: skip
    assert manifest(run)["pretrained"]["columns"] == [2, 0, 1, 3]
    whole = evaluate(run, table_path, output="whole") / "predictions.csv"
    assert whole.read_bytes() == (run / "predictions.csv").read_bytes()
    arguments = ["--model", run / "adapter.pth", "--base", base, "--data", table_path]
    arguments += ["--output", tmp_path / "parts", "--device", "cpu"]
    evaluate_yeast.main([str(each) for each in arguments], standalone_mode=False)
    assert (tmp_path / "parts" / "predictions.csv").read_bytes() == whole.read_bytes()


def test_a_base_of_fewer_columns_is_another_base(train, tuned, table, table_path, tmp_path, capsys):
    few = tmp_path / "few.csv"
    table.drop(columns=["motif_b", "motif_c"]).to_csv(few, index=False)
    other = train(few, *PRETRAIN, output="few") / "pretrained.pth"
    capsys.readouterr()
    refused(evaluate_yeast, "--model", tuned / "adapter.pth", "--base", other, "--data", table_path,
            "--output", tmp_path / "o")  # fmt: skip
    assert "is not the base that the adapter was trained from" in capsys.readouterr().err


def test_a_map_of_which_a_part_is_new_trains_in_full(train, base, table_path, tmp_path):
    held = torch.load(base, weights_only=True)
    del held["state_dict"]["encoder.blocks.0.mlp.fc2.bias"]
    torch.save(held, tmp_path / "part.pth")
    run = train(table_path, f"finetune.checkpoint={tmp_path / 'part.pth'}", "lora.enabled=true",
                "finetune.strict=false")  # fmt: skip
    record = Checkpoint.load(run / "best_model.pth").lora
    assert "encoder.blocks.0.mlp.fc2" not in record["modules"]
    assert "encoder.blocks.0.mlp.fc2.weight" not in record["base"]
    name = "encoder.blocks.0.mlp.fc2.weight"
    assert not torch.equal(weights(run / "last.pth")[name], held["state_dict"][name])


def test_epsilon_and_positions_travel_with_the_file(train, table_path, capsys):
    odd = ("model.encoder.layer_norm_eps=1e-5", "model.transformer.positional_encoding=sinusoidal")
    base = train(table_path, *PRETRAIN, *odd, output="base") / "pretrained.pth"
    capsys.readouterr()
    run = train(table_path, f"finetune.checkpoint={base}", output="run")
    said = capsys.readouterr().out
    assert "was trained with positional_encoding: sinusoidal, and the model has none" in said
    stored = Checkpoint.load(run / "best_model.pth").settings["model"]
    assert stored["encoder"]["layer_norm_eps"] == 1e-5
    assert "these columns are scaled as in the file" in said
