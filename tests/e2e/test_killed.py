"""A training that is killed at any moment goes on to the same bytes.

`YEAST_GET_KILLS` says how often (5; `make soak`: 30), `YEAST_GET_SEED` at which moments.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import subprocess
import sys

import pytest

from tests.conftest import SMALL, long_table, options
from tests.e2e.killer import STEPS
from yeast_get.training.checkpoint import Checkpoint

KILLS = int(os.environ.get("YEAST_GET_KILLS", "5"))
SEED = int(os.environ.get("YEAST_GET_SEED", "0"))
RUNS = [
    ["training.ensemble=2", "training.checkpoint_every_n_steps=2", "training.max_epochs=2",
     "model.region_identity.enabled=true"],
    ["training.ema_decay=0.9", "training.save_every_n_epochs=1", "training.monitor=val_loss",
     "model.region_identity.enabled=true",
     "logging.tensorboard=true", "logging.log_every_n_steps=1", "report.formats=[png,pdf]"],
]  # fmt: skip
"""Settings of the runs that are killed, one after the other."""
SAME = (
    "best_model.pth", "last.pth", "history.csv", "metrics.json", "predictions.csv", "splits.csv",
    "calibration.csv", "config.yaml", "data_report.json", "report.html", "plots/*",
    "members/2/*.pth", "members/2/history.csv", "checkpoints/*",
)  # fmt: skip


@pytest.fixture
def server(root):
    """Does the jobs of `killer.py`; the process that it forks has imported everything."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.killer"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root,
    )  # fmt: skip

    def job(folder, arguments, kill=None):
        values = {"folder": str(folder), "arguments": arguments, "kill": kill}
        process.stdin.write(json.dumps(values) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    yield job
    process.communicate()


def written(run):
    return {
        path.relative_to(run).as_posix(): path.read_bytes()
        for pattern in SAME
        for path in run.glob(pattern)
    }


def check_what_is_left(run):
    """Whatever stands under its own name after a kill is whole."""
    for path in run.rglob("*.pth"):
        Checkpoint.load(path)
    for path in run.rglob("*.json"):
        json.loads(path.read_text())


def moments(rng, reference):
    """Every kind of step in turn, and any time; of the first half, as a resumed run does less."""
    of_kind = reference["steps"] | {"time": reference["seconds"]}
    while True:
        for kind in (*STEPS, "time"):
            until = of_kind[kind] * rng.uniform(0, 0.5)
            yield kind, until if kind == "time" else math.ceil(until)


def test_a_run_that_is_killed_again_and_again_ends_in_the_same_bytes(server, tmp_path):
    """Started as before, then with the option that the refusal names, until it comes through."""
    long_table(20).to_csv(tmp_path / "table.csv", index=False)
    rng, kills, number = random.Random(SEED), 0, 0
    while kills < KILLS:
        given = ["--data", str(tmp_path / "table.csv"), "--output", "run", "--device", "cpu"]
        given += options([*SMALL, *RUNS[number % len(RUNS)]])
        folder, whole = tmp_path / f"{number}", tmp_path / f"whole_{number % len(RUNS)}"
        folder.mkdir()
        if not whole.exists():
            whole.mkdir()
            reference = server(whole, given)
            assert reference["code"] == 0, (whole / "said.txt").read_text()
            plan = moments(rng, reference)
        option, met, kill = [], [], next(plan)
        while True:
            code = server(folder, given + option, kill if kills < KILLS else None)["code"]
            said = (folder / "said.txt").read_text()
            assert code in (0, 2, -9), said
            if code == 2:
                option = re.findall("--overwrite|--resume", said)[-1:]
                assert option, said
                continue
            if code == 0:
                break
            check_what_is_left(folder / "run")
            kills, option, met, kill = kills + 1, [], [*met, kill], next(plan)
        expected, found = written(whole / "run"), written(folder / "run")
        assert expected.keys() == found.keys(), met
        assert [name for name in expected if expected[name] != found[name]] == [], met
        assert not [path for path in folder.rglob(".*") if path.is_file()], met
        number += 1
