"""Speed of evaluating a table of a million rows, with all files and pictures.

    python benchmarks/prediction_speed.py [--regions 6400] [--samples 157] [--features 187]

makes the synthetic table of `scale.py`, trains the default model on it for two epochs, and runs
`evaluate_yeast` on all of it. Prints what each phase took, and what the model alone takes for the
same rows; figures go to `results.csv`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from results import record
from scale import EVALUATE, run, show, write_folder

from yeast_get.batch import Batch
from yeast_get.config import settings_for_evaluation
from yeast_get.model.yeast_model import YeastModel
from yeast_get.training.checkpoint import Checkpoint
from yeast_get.training.prepare import prepare_evaluation


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--regions", type=int, default=6400)
    parser.add_argument("--samples", type=int, default=157)
    parser.add_argument("--features", type=int, default=187)
    options = parser.parse_args()
    rows = options.regions * options.samples
    with tempfile.TemporaryDirectory() as temporary:
        folder, table = Path(temporary), Path(temporary) / "table"
        write_folder(table, options.regions, options.samples, options.features)
        short = ["--set", "training.max_epochs=2", "--set", "training.warmup_epochs=1"]
        run(["train_yeast.py", "--data", table, *short], folder / "run", {"train": ""})
        model = folder / "run" / "best_model.pth"
        evaluate = ["evaluate_yeast.py", "--model", model, "--data", table]
        phases = run(evaluate, folder / "evaluation", EVALUATE)
        print(f"{rows:,} rows\n")
        show("evaluate_yeast", phases, rows)
        whole = sum(each.seconds for each in phases)
        predicting, inside = model_seconds(model, table)
    figures = {
        "evaluate_yeast, rows/s": rows / whole,
        "predicting all rows, s": predicting,
        "predicting, rows/s": rows / predicting,
        "predicting, percent of evaluate_yeast": 100 * predicting / whole,
        "the network alone, percent of evaluate_yeast": 100 * inside / whole,
    }
    record(figures, f"{rows:,} rows")


def model_seconds(file: Path, table: Path) -> tuple[float, float]:
    """Seconds to predict all rows of a table, and those of them inside the network."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    checkpoint = Checkpoint.load(file)
    _, schema, model = checkpoint.build()
    settings = settings_for_evaluation(checkpoint.settings, None, (), {"data.path": str(table)})
    evaluation = prepare_evaluation(checkpoint, schema, model.to(device), settings)
    inside: list[float] = []

    def begin(network: YeastModel, given: tuple[Batch]) -> None:
        inside.append(-time.perf_counter())

    def end(network: YeastModel, given: tuple[Batch], said: torch.Tensor) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()
        inside[-1] += time.perf_counter()

    model.register_forward_pre_hook(begin)
    model.register_forward_hook(end)
    started = time.perf_counter()
    evaluation.predict()
    return time.perf_counter() - started, sum(inside)


if __name__ == "__main__":
    main()
