"""Speed and memory of the data gate beside pandas' plain readers, each in a process of its own.

    python benchmarks/data_gate.py [--rows 1000000] [--columns 200] [--excel-rows 50000]

The long table holds `columns` in all: region and sample ids, accessibility, three conditions, the
target, and motif scores. pandas is timed with every engine that is installed; the ratio is to the
fastest. Memory is the peak of the process less its peak after the imports, as a share of the frame
that pandas parses.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from yeast_get.config import settings_from_dict

_PANDAS = """
import json, resource, sys, time
import pandas as pd
{warm}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
frame = pd.read_csv(sys.argv[1], engine={engine!r}, **{options!r})
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps({{"seconds": seconds, "mb": peak / 1024,
                  "frame_mb": frame.memory_usage().sum() / 2**20}}))
"""
_GATE = """
import json, resource, sys, time
from yeast_get.config import load_settings
from yeast_get.data.expression_data import load_expression_data
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
data = load_expression_data(load_settings(None, (), {"data.path": sys.argv[1]}))
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps({"seconds": seconds, "mb": peak / 1024, "rows": data.num_observations,
                  "warnings": data.warnings}))
"""


def write_table(path: Path, rows: int, columns: int) -> None:
    """A long table of 10,000 regions, in blocks of one sample."""
    regions, motifs = min(10_000, rows), columns - 7
    rng = np.random.default_rng(0)
    scores = rng.uniform(0, 10, (regions, motifs))
    stems = [
        f"chrI_{1000 * i}_{1000 * i + 500},{{}},"
        + ",".join(f"{value:.5f}" for value in row)
        + f",{rng.uniform():.5f},{{}},{{}},{{}}"
        for i, row in enumerate(scores)
    ]
    names = ",".join(f"motif_{i}" for i in range(motifs))
    with path.open("w") as handle:
        handle.write(f"region_id,sample_id,{names},accessibility,medium,temperature,drug,target\n")
        for start in range(0, rows, regions):
            sample = start // regions
            targets = rng.uniform(0, 9, regions)
            block = (
                f"{stem.format(f's{sample}', ('YPD', 'SC')[sample % 2], 25 + sample % 12, 'none')}"
                f",{target:.5f}\n"
                for stem, target in zip(stems, targets, strict=True)
            )
            handle.writelines(list(block)[: rows - start])


def measure(code: str, path: Path) -> dict:
    out = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    return json.loads(out.stdout.strip().splitlines()[-1])


def engines() -> list[tuple[str, dict]]:
    found: list[tuple[str, dict]] = [("c", {"low_memory": False}), ("c", {})]
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        return found
    return [*found, ("pyarrow", {})]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=200)
    parser.add_argument("--excel-rows", type=int, default=50_000)
    given = parser.parse_args()
    settings_from_dict({}, "defaults")  # what cannot be imported fails here
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        write_table(path, given.rows, given.columns)
        print(
            f"{given.rows:,} rows x {given.columns} columns, {path.stat().st_size / 2**20:,.0f} MB"
        )
        plain = []
        for engine, options in engines():
            warm = "import pyarrow.csv" if engine == "pyarrow" else ""
            code = _PANDAS.format(engine=engine, options=options, warm=warm)
            plain.append(measure(code, path))
            print(f"pandas {engine} {options}: {plain[-1]}")
        gate = measure(_GATE, path)
        best = min(each["seconds"] for each in plain)
        print(f"gate: {gate}")
        print(f"time: {gate['seconds'] / best:.2f} of the fastest plain reader")
        print(f"memory: {gate['mb'] / plain[0]['frame_mb']:.2f} of the parsed frame")
        if given.excel_rows:
            small, book = Path(folder) / "s.csv", Path(folder) / "t.xlsx"
            write_table(small, given.excel_rows, given.columns)
            _write_workbook(small, book)
            print(f"Excel, {given.excel_rows:,} rows x {given.columns}: {measure(_GATE, book)}")


def _write_workbook(csv_path: Path, path: Path) -> None:
    import csv

    import openpyxl

    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("data")
    with csv_path.open() as handle:
        reader = csv.reader(handle)
        sheet.append(next(reader))
        for row in reader:
            sheet.append([_cell(cell) for cell in row])
    book.save(path)


def _cell(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


if __name__ == "__main__":
    main()
