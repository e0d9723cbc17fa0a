"""How soon the commands are there, in CPU seconds, which a busy machine changes little."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

FIRST_STEP = """
import os, sys, time
from torch.optim.optimizer import register_optimizer_step_post_hook

def end(*_):
    print(time.process_time(), flush=True)
    os._exit(0)

register_optimizer_step_post_hook(end)
from train_yeast import main
main()
"""


def cpu_seconds(root, *words):
    """CPU seconds of a process of Python, and its output."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, cwd=root, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, result.stdout


@pytest.mark.parametrize("script", ["train_yeast.py", "evaluate_yeast.py"])
def test_help_takes_half_a_second(root, script):
    seconds, said = cpu_seconds(root, script, "--help")
    assert said.startswith("Usage:")
    assert seconds < 0.5


def test_all_that_training_imports_takes_ten_seconds(root):
    seconds, _ = cpu_seconds(root, "-c", "import yeast_get.training.prepare")
    assert seconds < 10


def test_the_first_step_on_the_example_comes_within_fifteen_seconds(root, tmp_path):
    words = ["--config", "config/yeast_training.yaml", "--output", tmp_path / "run"]
    data = ["--data", "input/gsm_example_with_condition.csv"]
    _, said = cpu_seconds(root, "-c", FIRST_STEP, *words, *data)
    assert float(said.splitlines()[-1]) < 15
