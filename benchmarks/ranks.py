"""Rows per second of training by the number of ranks, each with a batch of the same size.

    python benchmarks/ranks.py [DATA] [--ranks 1 2 4] [--batch 256] [--device cpu]

Starts `train_yeast` by torchrun, one thread per rank, on the shipped example unless told otherwise,
and reads the times of whole epochs, checkpoint included, off its log. Weak scaling: the batch grows
with the ranks, and the work of each stays what it was.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from results import record

ROOT = Path(__file__).resolve().parent.parent
EPOCHS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    example = ROOT / "input" / "gsm_example_with_condition.csv"
    parser.add_argument("data", nargs="?", default=str(example))
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    for ranks in arguments.ranks:
        figures[f"{ranks} ranks: rows/s"] = rows_per_second(ranks, arguments)
    first = arguments.ranks[0]
    alone = figures[f"{first} ranks: rows/s"] / first
    for ranks in arguments.ranks[1:]:
        share = figures[f"{ranks} ranks: rows/s"] / (ranks * alone)
        figures[f"{ranks} ranks: percent of {ranks} times one"] = 100 * share
    record(figures, f"{Path(arguments.data).name}, {arguments.batch} rows per rank")


def rows_per_second(ranks: int, arguments: argparse.Namespace) -> float:
    """Training rows per second over the epochs after the first."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        settings = {
            "training.batch_size": ranks * arguments.batch,
            "training.max_epochs": EPOCHS,
            "training.validate_every_n_epochs": EPOCHS + 1,
            "task.test_mode": "predict",
            "report.enabled": "false",
            "logging.tensorboard": "false",
        }
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(ranks), "-m", "train_yeast", "--output", str(run)]
        command += ["--data", arguments.data, "--device", arguments.device]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        log = (run / "train.log").read_text(encoding="utf-8").splitlines()
        rows = json.loads((run / "manifest.json").read_text())["split"]["observations"]["train"]
    times = [
        datetime.datetime.strptime(line.partition("  ")[0], "%Y-%m-%d %H:%M:%S,%f")
        for line in log
        if any(f"  epoch {number}  " in line for number in (1, EPOCHS - 1))
    ]
    return rows * (EPOCHS - 2) / (times[1] - times[0]).total_seconds()


if __name__ == "__main__":
    main()
