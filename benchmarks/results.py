"""What the benchmarks share: figures on the screen and in `results.csv`, and the peak of memory."""

from __future__ import annotations

import csv
import datetime
import os
import platform
import resource
from pathlib import Path

import torch

RESULTS = Path(__file__).with_name("results.csv")


def peak_megabytes() -> float:
    """Largest memory of this process so far: of the GPU where there is one, else of the host."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def record(figures: dict[str, float], data: str) -> None:
    """Print figures and append them with date, version and machine.

    Args:
        figures: Name, with its unit -> value.
        data: What they were measured on.
    """
    is_new = not RESULTS.exists()
    now = datetime.datetime.now().isoformat(timespec="seconds")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        machine = torch.cuda.get_device_name()
    with RESULTS.open("a", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        if is_new:
            writer.writerow(["date", "torch", "machine", "data", "figure", "value"])
        for name, value in figures.items():
            print(f"{name:44s} {value:12.1f}")
            writer.writerow([now, torch.__version__, machine, data, name, f"{value:.4g}"])
