"""What a user sees when something is wrong: one line, exit 2, nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import evaluate_yeast
import train_yeast
from tests.conftest import SMALL, options

pytestmark = pytest.mark.usefixtures("blank_pictures")


def run(root, *arguments, script="train_yeast.py", cwd=None):
    """A command in a process of its own, whose start takes seconds."""
    return subprocess.run(
        [sys.executable, str(root / script), *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, timeout=120,
    )  # fmt: skip


def run_here(*arguments, command=train_yeast):
    """The same within this process, where the start adds nothing."""
    result = CliRunner().invoke(command.main, [*map(str, arguments)], catch_exceptions=False)
    return SimpleNamespace(returncode=result.exit_code, stdout=result.stdout, stderr=result.stderr)


def one_line(result):
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def test_a_misspelt_key_names_file_line_and_the_right_key(root, tmp_path, table_path):
    config = tmp_path / "c.yaml"
    config.write_text("training:\n  learning_rat: 1e-3\n")
    said = one_line(run(root, "--config", config, "--data", table_path, "--output", tmp_path / "o"))
    assert f"{config}, line 2: unknown key training.learning_rat" in said
    assert "did you mean training.learning_rate?" in said
    assert not (tmp_path / "o").exists()


def test_a_bad_cell_names_file_row_and_column(tmp_path, table, table_path):
    table["target"] = table["target"].astype(object)
    table.loc[3, "target"] = "high"
    table.to_csv(table_path, index=False)
    said = one_line(run_here("--data", table_path, "--output", tmp_path / "o"))
    assert f"{table_path}, row 5, column target: 'high' is not a number" in said
    assert not (tmp_path / "o").exists()


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_typo_loses_nothing_even_with_overwrite(
    train, evaluate, table, table_path, tmp_path, capsys
):
    run, evaluation = train(table_path), evaluate(tmp_path / "run", table_path)
    assert "epoch 3" in (run / "train.log").read_text()
    before = files(run) | files(evaluation)
    with pytest.raises(SystemExit):
        train(table_path, "data.regions_per_window=5", "experiment.seed=1", extra=("--resume",))
    bad = tmp_path / "bad.csv"
    table.assign(target="high").to_csv(bad, index=False)
    for command in (
        lambda: train(bad, extra=("--overwrite",)),
        lambda: evaluate(run, bad, "--overwrite"),
    ):
        with pytest.raises(SystemExit) as stopped:
            command()
        assert stopped.value.code == 2
    assert files(run) | files(evaluation) == before
    capsys.readouterr()
    with pytest.raises(SystemExit):
        evaluate(run, table_path, "--overwrite", output="run")
    assert "holds a training run; give another --output" in capsys.readouterr().err
    assert files(run) | files(evaluation) == before


def test_a_table_without_places_is_refused_for_windows_before_anything_is_written(
    train, table, table_path, tmp_path, capsys
):
    table["region_id"] = table["region_id"].str.replace("_", "")
    table.to_csv(table_path, index=False)
    with pytest.raises(SystemExit) as stopped:
        train(table_path, "data.regions_per_window=5")
    assert stopped.value.code == 2
    assert "no chromosome or start" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_log_starts_anew_with_overwrite_and_goes_on_with_resume(train, table_path):
    log = train(table_path, "training.max_epochs=2") / "train.log"
    assert log.read_text().count("before training") == 1
    assert "motifs: motif_a" in log.read_text()  # said before the folder was there
    train(table_path, extra=("--resume",))
    assert log.read_text().count("motifs: motif_a") == 2
    train(table_path, extra=("--overwrite",))
    assert log.read_text().count("motifs: motif_a") == 1


@pytest.mark.parametrize("device", ["cuda:77", "tpu", "mps" if sys.platform != "darwin" else "xla"])
def test_a_device_that_is_not_there_is_named_with_those_that_are(tmp_path, device):
    said = one_line(run_here("--device", device, "--data", "x.csv", "--output", tmp_path / "o"))
    assert f"--device {device} is not on this machine" in said
    assert "it has cpu" in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"not a checkpoint", "is text, and no checkpoint"),
        (b"PK\x03\x04 half a zip", "is damaged or cut off"),
    ],
)
def test_a_file_that_is_no_checkpoint_gets_one_line(tmp_path, table_path, content, said):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    arguments = ("--model", path, "--data", table_path, "--output", tmp_path / "o")
    result = run_here(*arguments, command=evaluate_yeast)
    assert f"model.pth: {said}" in one_line(result)


def test_a_checkpoint_of_something_else_or_of_a_later_layout_is_refused(
    root, tmp_path, train, table_path
):
    other = tmp_path / "other.pth"
    torch.save({"state_dict": {}}, other)
    arguments = ("--data", table_path, "--output", tmp_path / "o")
    said = one_line(run_here("--model", other, *arguments, command=evaluate_yeast))
    assert "is not a checkpoint that train_yeast wrote" in said
    path = train(table_path) / "best_model.pth"
    values = torch.load(path, weights_only=True)
    torch.save(values | {"format": 99}, other)
    said = one_line(run_here("--model", other, *arguments, command=evaluate_yeast))
    assert "layout 99" in said
    said = one_line(
        run(root, "--model", tmp_path / "no.pth", *arguments, script="evaluate_yeast.py")
    )
    assert "there is no such file" in said


def test_an_evaluation_that_contradicts_the_training_is_refused(tmp_path, train, table_path):
    model = train(table_path) / "best_model.pth"
    arguments = ("--model", model, "--data", table_path, "--output", tmp_path / "o")
    said = one_line(
        run_here(*arguments, "--set", "data.target_transform=log1p", command=evaluate_yeast)
    )
    assert "not what the model was trained with" in said
    said = one_line(run_here(*arguments, "--set", "training.batch_size=4", command=evaluate_yeast))
    assert "training.batch_size belongs to the checkpoint" in said


def test_a_loss_that_is_not_finite_names_epoch_step_and_rows(
    train, table_path, capsys, monkeypatch
):
    from yeast_get.training import loop

    true_loss = loop.loss_sum

    def poisoned(name, prediction, target, mask):
        loss = true_loss(name, prediction, target, mask)
        return loss * float("nan") if prediction.requires_grad else loss

    monkeypatch.setattr(loop, "loss_sum", poisoned)
    with pytest.raises(SystemExit) as stopped:
        train(table_path)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "the loss is not finite in epoch 1, step 0" in said
    assert "condition_" in said
    assert "chrI" in said


def test_validation_predictions_that_are_not_finite_are_one_line(train, table_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        train(
            table_path, "training.learning_rate=1e30", "training.clip_grad=0",
            "training.batch_size=512", "training.warmup_epochs=0",
        )  # fmt: skip
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "36 of 36 validation rows have no finite prediction in epoch 1" in lines[0]
    assert "the first is row " in lines[0]
    assert "lower training.learning_rate" in lines[0]


@pytest.mark.parametrize("broken", ["settings", "schema", "model", "trained_rows", "baselines"])
def test_a_checkpoint_of_a_later_version_is_one_line(
    train, evaluate, table_path, tmp_path, capsys, broken
):
    run = train(table_path, "training.max_epochs=0", "training.warmup_epochs=0")
    values = torch.load(run / "best_model.pth", weights_only=True)
    if broken == "settings":
        values["settings"]["training"]["of_the_future"] = 1
    elif broken == "baselines":
        values["baselines"].pop("global_mean")
    else:
        values[broken]["of_the_future"] = torch.zeros(1)
    torch.save(values | {"software": "9.9"}, run / "best_model.pth")
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        evaluate(run, table_path)
    assert stopped.value.code == 2
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1
    assert "best_model.pth: this version" in said
    assert "use the version of yeast_get that wrote it (9.9)" in said
    assert not (tmp_path / "eval").exists()


def test_sigterm_and_ctrl_c_leave_a_whole_checkpoint(root, tmp_path, table_path):
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        folder = tmp_path / f"run_{code}"
        arguments = ["--data", table_path, "--output", folder, *options(SMALL)]
        process = subprocess.Popen(
            [sys.executable, str(root / "train_yeast.py"), *map(str, arguments),
             "--set", "training.max_epochs=100000"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not (folder / "last.pth").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)
        os.kill(process.pid, number)
        _, said = process.communicate(timeout=60)
        assert process.returncode == code, said
        assert "Traceback" not in said
        assert torch.load(folder / "last.pth", weights_only=True)["resume"]["progress"]


def test_our_own_bugs_show_a_traceback_and_exit_with_1(root, tmp_path, table_path):
    code = (
        "import train_yeast, yeast_get.training.prepare as p\n"
        "def broken(*a, **k): raise KeyError('a bug')\n"
        "p.train_and_test = broken\n"
        f"train_yeast.main(['--data', {str(table_path)!r}, '--output', {str(tmp_path / 'o')!r}])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_many_problems_are_counted_after_twenty(tmp_path, table, table_path):
    table["target"] = "x"
    table.to_csv(table_path, index=False)
    result = run_here("--data", table_path, "--output", tmp_path / "o")
    lines = result.stderr.strip().splitlines()
    assert result.returncode == 2
    assert len(lines) == 21
    more = len(table) - 20
    assert lines[-1] == (
        f"error: and {more} more: {more} of the kind 'not a number'; --check --output FOLDER "
        "writes all of them to data_problems.csv"
    )


def test_check_writes_nothing(root, tmp_path, table_path):
    before = sorted(tmp_path.iterdir())
    result = run(root, "--data", table_path, "--check", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "motifs: motif_a, motif_b, motif_c" in result.stdout
    assert "6 samples of 3 conditions" in result.stdout
    assert sorted(tmp_path.iterdir()) == before


def test_constant_targets_are_refused_before_training(tmp_path, table, table_path):
    table["target"] = 1.5
    table.to_csv(table_path, index=False)
    said = one_line(run_here("--data", table_path, "--output", tmp_path / "o"))
    assert "all training targets are the same number" in said
    assert np.all(table["target"] == 1.5)


def test_absurd_inputs_of_an_evaluation_end_in_one_line(train, evaluate, table, table_path, capsys):
    table["motif_a"] *= 1e-9
    table.to_csv(table_path, index=False)
    run = train(table_path, "model.region_embed.bins=0")  # a bin ends where training did
    table.loc[table["region_id"] == table["region_id"][0], "motif_a"] = 1e15
    table.to_csv(table_path, index=False)
    with pytest.raises(SystemExit) as stopped:
        evaluate(run, table_path)
    assert stopped.value.code == 2
    assert f"{table_path}, row 2: 6 predictions are not finite" in capsys.readouterr().err
