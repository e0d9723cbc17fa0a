"""What the benchmarks share: figures on the screen and in `results.csv`, and the peak of memory."""

from __future__ import annotations

import csv
import datetime
import os
import platform
import re
import resource
from collections.abc import Sequence
from pathlib import Path

import torch

RESULTS = Path(__file__).with_name("results.csv")


def peak_megabytes() -> float:
    """Largest memory of this process so far: of the GPU where there is one, else of the host."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    # what getrusage says begins, on Linux, with the size of the parent process
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return peak if (found := of_this_process("VmHWM")) is None else found


def of_this_process(name: str) -> float | None:
    """A figure in MB of what Linux says of this process (`VmHWM`, its peak; `VmRSS`, now)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    found = re.search(rf"^{name}:\s+(\d+) kB", status.read_text(encoding="utf-8"), re.MULTILINE)
    return None if found is None else int(found[1]) / 1024


def record(figures: dict[str, float], data: str) -> None:
    """Print figures and append them with date, version and machine.

    Args:
        figures: Name, with its unit -> value.
        data: What they were measured on.
    """
    for name, value in figures.items():
        print(f"{name:44s} {value:12.1f}")
    keep(figures, data)


def keep(figures: dict[str, float], data: str) -> None:
    """Append figures as `record` does, without a word."""
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
            writer.writerow([now, torch.__version__, machine, data, name, f"{value:.4g}"])


def show(first: str, rows: dict[str, dict[str, float]], data: str) -> None:
    """Print a table in Markdown, three digits a figure, and keep its figures.

    Args:
        first: Heading of the names of the rows.
        rows: Name -> heading -> value; a value may be missing.
        data: What they were measured on.
    """
    headings = list(dict.fromkeys(heading for row in rows.values() for heading in row))
    print(f"\n{data}\n")
    _line([first, *headings])
    _line(["---"] * (1 + len(headings)))
    for name, row in rows.items():
        _line([name, *(_text(row[each]) if each in row else "" for each in headings)])
        keep({f"{name}: {heading}": value for heading, value in row.items()}, data)


def _line(words: Sequence[str]) -> None:
    print(f"| {' | '.join(words)} |", flush=True)


def _text(value: float) -> str:
    """Three digits, and all of those before the point."""
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}"
