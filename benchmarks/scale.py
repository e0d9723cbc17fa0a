"""Memory and speed of one big table: a synthetic data folder, trained on and evaluated.

    python benchmarks/scale.py [--regions 6000] [--samples 3400] [--features 500]

writes the folder, runs `train_yeast` (a small model, one epoch) and `evaluate_yeast` on all of it,
each in a process of its own, and prints what every phase took. A phase ends when the file that it
writes is there. Nothing is kept, unless --keep names a folder for all of it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
BLOCK = 200
"""Regions of the expression table that are made at once."""

TRAIN = {
    "read, check, split": "data_problems.csv",
    "fit baselines, validate": "history.csv",
    "train one epoch, validate": "plots/history.png",
    "predict all rows, write them": "predictions.csv",
    "score, beside baselines": "metrics.json",
    "pictures, page": "",
}
EVALUATE = {
    "read, check, compare": "data_problems.csv",
    "predict all rows, write them": "predictions.csv",
    "score, beside baselines": "metrics.json",
    "tables, pictures, importance, page": "",
}
"""Phases of a command, and the file of the run folder that ends each; "" is the end."""

SETTINGS = {
    "split.fractions": "[0.04, 0.02, 0.94]",
    "training.max_epochs": 1,
    "training.warmup_epochs": 0,
    "training.batch_size": 8192,
    "model.transformer.num_layers": 1,
    "model.transformer.num_heads": 2,
    "model.transformer.embed_dim": 16,
    "model.fusion.hidden_dim": 16,
    "model.head.hidden_dim": 16,
    "model.encoder.mlp_ratio": 1,
    "logging.tensorboard": "false",
    "task.importance_repeats": 1,
    "task.importance_rows": 1000,
}
"""A small model, and little to train on: an epoch of 14 million rows takes long on two cores."""


@dataclass
class Phase:
    """A phase of a command: its seconds, and the largest resident memory in it, in bytes."""

    name: str
    seconds: float
    peak: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--regions", type=int, default=6000)
    parser.add_argument("--samples", type=int, default=3400)
    parser.add_argument("--features", type=int, default=500)
    parser.add_argument("--keep", type=Path, help="a folder for the table and the runs")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="of the training"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        measure(folder, options.regions, options.samples, options.features, options.set)


def measure(folder: Path, regions: int, samples: int, features: int, more: Sequence[str]) -> None:
    """Train and evaluate in a folder, and print a table of the phases."""
    rows = regions * samples
    write_folder(folder / "table", regions, samples, features)
    settings = [f"{key}={value}" for key, value in SETTINGS.items()]
    sets = [word for each in (*settings, *more) for word in ("--set", each)]
    train = ["train_yeast.py", "--data", folder / "table", *sets]
    print(f"{regions:,} regions x {samples:,} samples x {features:,} features: {rows:,} rows\n")
    show("train_yeast", run(train, folder / "run", TRAIN), rows)
    evaluate: list[str | Path] = ["evaluate_yeast.py", "--model", folder / "run" / "best_model.pth"]
    evaluate += ["--data", folder / "table"]
    show("evaluate_yeast", run(evaluate, folder / "evaluation", EVALUATE), rows)


def write_folder(folder: Path, regions: int, samples: int, features: int) -> None:
    """A data folder: random motifs, conditions, and a target that depends on both.

    Args:
        folder: Where.
        regions: How many.
        samples: How many; every other one is a replicate of the one before it.
        features: Motifs.
    """
    if folder.is_dir():
        return
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    ids = [f"chr{i % 16 + 1}_{1000 * i}_{1000 * i + 500}" for i in range(regions)]
    motifs = [f"MA{j:04d}.1.F{j}" for j in range(features)]
    found = rng.random((regions, features), dtype=np.float32) < 0.1
    score = found * rng.uniform(10, 15, (regions, features)).astype(np.float32)
    table = pd.DataFrame(score, columns=motifs)
    table.insert(0, "region_id", ids)
    table.to_csv(folder / "regions.csv", index=False, float_format="%.3g")
    condition = np.arange(samples) // 2
    heat, dose = 20 + condition % 23, 1e-4 * (condition // 23)
    names = [f"s{i}" for i in range(samples)]
    drug = np.where(dose > 0, "H2O2", "none")
    conditions = {"temperature": heat, "drug": drug, "drug_concentration": dose}
    samples_table = pd.DataFrame({"sample_id": names, "medium": "YPD", **conditions})
    samples_table.to_csv(folder / "samples.csv", index=False)
    effect = rng.normal(size=(features, 3)) / np.sqrt(features)
    state = np.stack([np.ones(samples), (heat - 31) / 11, dose / max(dose.max(), 1e-4)])
    for at in range(0, regions, BLOCK):
        block = found[at : at + BLOCK] @ effect @ state * 3 + 5
        block += rng.normal(size=block.shape) * 0.5
        frame = pd.DataFrame(block.astype(np.float32), ids[at : at + BLOCK], names)
        frame.to_csv(
            folder / "expression.csv", mode="a", header=at == 0, index_label="region_id",
            float_format="%.3f",
        )  # fmt: skip


def run(command: Sequence[str | Path], output: Path, phases: dict[str, str]) -> list[Phase]:
    """Run a command in a process of its own, and watch its memory and its files.

    Raises:
        SystemExit: Where it fails, with what it said.
    """
    shutil.rmtree(output, ignore_errors=True)  # a file of an earlier run would end a phase
    words = [sys.executable, *map(str, command), "--output", str(output)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    log = output.with_name(f"{output.name}.log")
    with log.open("w") as said:
        process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=said, stderr=said)
    done: list[Phase] = []
    started, peak = time.monotonic(), 0
    waiting = list(phases.items())
    while process.poll() is None:
        peak = _peak(process.pid, peak)
        name, file = waiting[0]
        if file and (output / file).exists():
            done.append(Phase(name, time.monotonic() - started, peak))
            started, peak = time.monotonic(), 0
            _forget_peak(process.pid)
            waiting.pop(0)
        time.sleep(0.02)
    if process.returncode:
        sys.exit(f"{' '.join(words)} failed:\n{log.read_text()[-3000:]}")
    return [*done, Phase(waiting[0][0], time.monotonic() - started, peak)]


def _peak(pid: int, before: int) -> int:
    """The largest resident memory of a process, as the kernel counts it; `before` of a dead one."""
    lines = (Path("/proc") / str(pid) / "status").read_text().splitlines()
    kilobytes = (int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return next(kilobytes, 0) * 1024 or before


def _forget_peak(pid: int) -> None:
    """Let the kernel count the peak of a process anew."""
    (Path("/proc") / str(pid) / "clear_refs").write_text("5")


def show(command: str, phases: Sequence[Phase], rows: int) -> None:
    """A table of the phases of a command on a table of so many rows, in Markdown."""
    print(f"| {command} | seconds | rows/s | peak, GiB |\n| --- | --- | --- | --- |")
    seconds, peak = sum(each.seconds for each in phases), max(each.peak for each in phases)
    for each in (*phases, Phase("all of it", seconds, peak)):
        speed = f"{rows / each.seconds:,.0f}"
        print(f"| {each.name} | {each.seconds:,.1f} | {speed} | {each.peak / 2**30:.2f} |")
    print(flush=True)


if __name__ == "__main__":
    main()
