"""Several processes train and evaluate as one would: `yeast_get.distributed`."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import evaluate_yeast
import train_yeast
from tests.conftest import SMALL, options
from yeast_get import distributed
from yeast_get.run_dir import RunDir

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(
    ["yeast_get.training.pretrain", "yeast_get.evaluation.questions", "matplotlib.pyplot"]
)

STILL = [
    "model.head.dropout=0", "model.encoder.drop_path_rate=0", "augmentation.condition_dropout=0",
    "augmentation.motif_noise=0", "model.region_identity.dropout=0", "model.encoder.drop_rate=0",
    "model.region_embed.dropout=0", "model.region_embed.feature_dropout=0",
    "model.region_identity.enabled=true",
]  # fmt: skip
"""Nothing is drawn at random while training, but the order of batches."""


def _one_rank(main: str, arguments: list[str], environment: dict[str, str]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    command = train_yeast.main if main == "train" else evaluate_yeast.main
    with Path(environment["SAID"]).open("w") as said, redirect_stderr(said):
        command(arguments, standalone_mode=False)


def launch(ranks: int, main: str, arguments: list[str], own: list[list[str]] | None = None) -> None:
    """Run a command in so many processes, each with the environment that torchrun gives it.

    `own` are arguments of each rank alone. Where a rank fails, what the ranks said is the message.
    """
    said = [Path(tempfile.mkstemp()[1]) for _ in range(ranks)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    told |= {"LOCAL_WORLD_SIZE": str(ranks)}
    each = [
        told | {"RANK": str(i), "LOCAL_RANK": str(i), "SAID": str(said[i])} for i in range(ranks)
    ]
    given = [arguments + more for more in own or [[]] * ranks]
    running = [
        FORK.Process(target=_one_rank, args=(main, *pair)) for pair in zip(given, each, strict=True)
    ]
    for process in running:
        process.start()
    for process in running:
        process.join(120)
    codes = [process.exitcode for process in running]
    assert codes == [0] * ranks, [codes, *(path.read_text() for path in said)]


def weights(run: Path) -> dict[str, torch.Tensor]:
    """As they train, not rounded to float32."""
    return torch.load(run / "last.pth", weights_only=True)["resume"]["weights"]


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize(
    "settings",
    [
        ("training.precision=fp64", "training.max_epochs=1", "data.regions_per_window=4",
         "training.batch_size=9",
         "training.accumulate_grad_batches=2", "training.ema_decay=0.5"),
        ("training.precision=fp32", "training.batch_size=33", "training.max_epochs=2"),
    ],
    ids=["fp64, windows, accumulation, average", "fp32"],
)  # fmt: skip
def test_one_two_and_four_ranks_agree(table_path, tmp_path, settings):
    """No batch size divides by the ranks, so that shares are filled up."""
    arguments = ["--data", str(table_path), "--device", "cpu"]
    arguments += options([*SMALL, *STILL, "training.warmup_epochs=0", *settings])
    arguments += options(["report.enabled=false"])
    for ranks in (1, 2, 4):
        launch(ranks, "train", [*arguments, "--output", str(tmp_path / str(ranks))])
    alone = tmp_path / "1"
    exact = "fp64" in settings[0]
    for ranks in ("2", "4"):
        shared = tmp_path / ranks
        assert furthest(weights(alone), weights(shared)) < (1e-8 if exact else 1e-3)
        scores = [json.loads((each / "metrics.json").read_text()) for each in (alone, shared)]
        for name in ("pearson", "rmse"):
            assert scores[0]["overall"][name] == pytest.approx(scores[1]["overall"][name], abs=1e-3)
        history = [pd.read_csv(each / "history.csv") for each in (alone, shared)]
        np.testing.assert_allclose(*history, rtol=1e-9 if exact else 1e-3)
        rows = [pd.read_csv(each / "predictions.csv") for each in (alone, shared)]
        assert rows[0]["row"].equals(rows[1]["row"])
        np.testing.assert_allclose(rows[0]["y_pred"], rows[1]["y_pred"], atol=1e-3)


def test_ranks_evaluate_pretrain_and_fine_tune_an_ensemble(table_path, tmp_path, train, evaluate):
    base, run = tmp_path / "base", tmp_path / "run"
    shared = ["--data", str(table_path), "--device", "cpu", "--set", "report.enabled=false"]
    window = ["task.stage=pretrain", "data.regions_per_window=8", "training.max_epochs=2"]
    launch(2, "train", [*shared, "--output", str(base), *options([*SMALL, *window])])
    tuned = [
        f"finetune.checkpoint={base / 'pretrained.pth'}", "lora.enabled=true",
        "training.ensemble=2", "training.max_epochs=2",
    ]  # fmt: skip
    launch(2, "train", [*shared, "--output", str(run), *options([*SMALL, *tuned])])
    assert len(torch.load(run / "best_model.pth", weights_only=True)["members"]) == 1
    model = ["--model", str(run / "best_model.pth")]
    launch(2, "evaluate", [*shared, *model, "--output", str(tmp_path / "shared")])
    quiet = ("--set", "report.enabled=false")
    alone, other = evaluate(run, table_path, *quiet, output="alone"), tmp_path / "shared"
    assert {path.name for path in alone.iterdir()} == {path.name for path in other.iterdir()}
    predictions = [pd.read_csv(each / "predictions.csv") for each in (alone, other)]
    np.testing.assert_allclose(predictions[0]["y_pred"], predictions[1]["y_pred"], atol=1e-5)


def test_ranks_that_check_and_export_write_once(table_path, tmp_path, train):
    shared = ["--data", str(table_path), "--device", "cpu"]
    checked = tmp_path / "checked"
    launch(2, "train", [*shared, "--check", "--output", str(checked), *options(SMALL)])
    assert {path.name for path in checked.iterdir()} == {"data_report.json", "data_problems.csv"}
    run, exported = train(table_path), tmp_path / "exported.pth"
    model = ["--model", str(run / "best_model.pth"), "--device", "cpu"]
    launch(2, "evaluate", [*model, "--export", str(exported)])
    assert exported.is_file()


def test_ranks_with_different_tables_are_refused(table, table_path, tmp_path):
    other = tmp_path / "1" / table_path.name
    other.parent.mkdir()
    table.assign(target=table["target"] + 1).to_csv(other, index=False)
    with pytest.raises(AssertionError, match="is another table for process 1 than for the first"):
        launch(
            2, "train", ["--device", "cpu", "--output", str(tmp_path / "run"), *options(SMALL)],
            [["--data", str(table_path)], ["--data", str(other)]],
        )  # fmt: skip


def test_ranks_meet_although_the_store_holds_those_of_earlier_starts():
    """One of them starts late, when the first has already met the dead."""
    store = torch.distributed.HashStore()
    store.set("here 1", "dead")
    store.set("here 2", "dead, too")
    store.set("meeting", "name alive dead others")
    with ThreadPoolExecutor() as pool:
        early = [pool.submit(distributed.meeting, store, number, 3) for number in (0, 1)]
        time.sleep(0.3)
        late = pool.submit(distributed.meeting, store, 2, 3)
        names = {each.result(60) for each in (*early, late)}
    assert len(names) == 1
    assert "name" not in names


def test_only_the_folder_of_this_launch_is_taken_for_that_of_a_restart(tmp_path, monkeypatch):
    run = RunDir(tmp_path / "run")
    run.start()
    assert not run.is_of_this_launch()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "7")
    assert not run.is_of_this_launch()
    run.start()
    assert run.is_of_this_launch()
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert not run.is_of_this_launch()


@pytest.mark.parametrize("who", [min, max])
def test_where_one_process_dies_torchrun_starts_again_and_nothing_is_lost(
    table_path, tmp_path, who
):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "--max-restarts", "1", "-m", "train_yeast"]
    command += ["--data", str(table_path)]
    settings = [*SMALL, "training.max_epochs=30", "report.enabled=false"]
    command += ["--device", "cpu", "--output", str(run), *options(settings)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as running:
        _wait_for(run / "last.pth", 120)
        children = f"/proc/{running.pid}/task/{running.pid}/children"
        os.kill(who(int(pid) for pid in Path(children).read_text().split()), signal.SIGKILL)
        lines, killed, noticed = [], time.monotonic(), None
        for line in running.stdout:
            lines.append(line.decode())
            if "error: another process of this run is gone" in lines[-1]:
                noticed = time.monotonic() - killed
    said = "".join(lines)
    assert running.returncode == 0, said
    assert noticed is not None, said
    assert noticed < 60
    epochs = pd.read_csv(run / "history.csv")["epoch"]
    assert list(epochs) == list(range(31))
    assert "resumed" in (run / "train.log").read_text()
    assert (run / "metrics.json").is_file()


def _wait_for(path: Path, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"no {path} after {seconds} s"
        time.sleep(0.05)
