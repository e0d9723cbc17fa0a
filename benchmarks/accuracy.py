"""Accuracy of `train_yeast` beside what a user would pick instead, on the same folds.

    python benchmarks/accuracy.py [--tables gasch2000 ...] [--splits regions ...] [--folds 0 ...]
        [--predictors yeast_get ...] [--data FOLDER] [--cap SECONDS] [--cache FOLDER]

prints a table for each table of data and split (`folds.py` has the folds, `predictors.py` what is
compared), and appends it, with date, versions and machine, to benchmarks/accuracy.csv. Finished
folds stay in the cache, so that an interrupted table goes on; what exceeds the cap is stopped.

In a run test rows choose nothing: a predictor runs in a process of its own, on a table in which
every target that it may not learn from is NaN (for `train_yeast`: on a copy of the files, where
these cells are blank), and leaves its predictions. They are scored here, where nothing is fitted.
The best rival alone is chosen by the test rows, in its own favour. What was chosen before, on which
rows, is in docs/benchmarks.md: no fold of `conditions` is clean of it.

Scores are of the held-out cells of all folds together. The interval is of the difference in pooled
r to the best rival, over resamples of what is held out: regions, families of conditions, or both.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import folds
import numpy as np
import pandas as pd
import predictors
import torch

from yeast_get import __version__
from yeast_get.config import load_settings
from yeast_get.data.expression_data import ExpressionData
from yeast_get.evaluation import rivals
from yeast_get.evaluation.bootstrap import Over, Resampler, interval
from yeast_get.evaluation.metrics import summarise

RESULTS = Path(__file__).with_name("accuracy.csv")
OURS = "yeast_get"
PACKAGE = ("yeast_get/**/*.py", "train_yeast.py")
COLUMNS = {
    "pooled r": ".3f",
    "R²": ".3f",
    "across-region r": ".3f",
    "within-region r": ".3f",
    "wrong sign, %": ".1f",
    "s per fold": ".0f",
}
OVER: dict[str, Over] = {"regions": "regions", "conditions": "conditions"}
"""What is drawn for the interval; of the other splits, regions and conditions."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    lists = {"tables": [*folds.FAMILY], "splits": [*folds.SPLITS], "folds": [*range(folds.FOLDS)]}
    for name, known in (lists | {"predictors": [*predictors.PREDICTORS]}).items():
        kind: Any = type(known[0])
        parser.add_argument(f"--{name}", nargs="+", type=kind, choices=known, default=known)
    parser.add_argument("--data", type=Path, default=folds.DATA)
    parser.add_argument("--cap", type=float, default=3600, help="seconds per fold and predictor")
    parser.add_argument("--cache", type=Path, default=folds.ROOT / "output" / "accuracy")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    for table in arguments.tables:
        for split in arguments.splits:
            frame = compare(table, split, arguments)
            show(frame, f"{table}, {split}, folds {' '.join(map(str, arguments.folds))}")
            record(frame, {"table": table, "split": split, "folds": arguments.folds})


def compare(table: str, split: str, arguments: argparse.Namespace) -> pd.DataFrame:
    """Fit what is not in the cache, and score everything: a row per predictor."""
    data, _ = folds.read(table, split, arguments.data)
    said: dict[str, list[np.ndarray | str]] = {}  # by name, one per fold
    seconds: dict[str, list[float]] = {}
    for number in arguments.folds:
        for predictor in arguments.predictors:
            each, took = fitted(predictor, data, (table, split, str(number)), arguments)
            for name, y in each.items():
                said.setdefault(name, []).append(y)
                seconds.setdefault(name, []).append(took)
    numbers = arguments.folds
    rows = np.concatenate(
        [np.flatnonzero(folds.make_fold(data, table, split, k).test) for k in numbers]
    )
    lines: dict[str, dict[str, Any]] = {}
    whole: dict[str, np.ndarray] = {}
    for name, parts in said.items():
        reasons = [
            f"fold {k}: {y}" for k, y in zip(numbers, parts, strict=True) if isinstance(y, str)
        ]
        if reasons:
            lines[name] = {"note": reasons[0]}
            continue
        whole[name] = np.concatenate(parts)
        lines[name] = scores(data, rows, whole[name], signs=table == "gasch2000")
        lines[name]["s per fold"] = np.mean(seconds[name])
    family = folds.families(data, table)[data.sample_index[rows]]
    draw = data.target[rows, 0], data.region_index[rows], family, OVER.get(split, "both")
    best = max(whole.keys() - {OURS}, key=lambda name: lines[name]["pooled r"] or -1, default=None)
    if OURS in whole and best is not None:
        lines[OURS] |= {"rival": best, **difference(Resampler(*draw), whole[OURS], whole[best])}
    return pd.DataFrame.from_dict(lines, orient="index")


def fitted(
    predictor: str, data: ExpressionData, at: tuple[str, str, str], arguments: argparse.Namespace
) -> tuple[dict[str, np.ndarray | str], float]:
    """Name -> predictions of the test rows of a fold, or why there are none; and seconds.

    Args:
        predictor: Of `predictors.PREDICTORS`.
        data: The table.
        at: Table, split and fold.
        arguments: Of the command.
    """
    names = rivals.NAMES if predictor == "baselines" else (predictor,)
    if (only := predictors.ONLY.get(predictor, at[1])) != at[1]:
        return dict.fromkeys(names, f"is of new {only} only"), np.nan
    if predictor.startswith("lightgbm") and importlib.util.find_spec("lightgbm") is None:
        return dict.fromkeys(names, "the package lightgbm is not installed"), np.nan
    key = hashlib.sha256("\n".join([data.fingerprint, *identity(predictor, at[0])]).encode())
    stem = arguments.cache / "-".join([*at, predictor.replace(" ", "_"), key.hexdigest()[:16]])
    done, begun, log = (stem.with_suffix(end) for end in (".npz", ".begun.npz", ".log"))
    if not done.exists():
        print(f"{', '.join(at)}: {predictor}", file=sys.stderr, flush=True)
        command = [sys.executable, predictors.__file__, *at, predictor, arguments.data, begun]
        path = os.pathsep.join([str(folds.ROOT), *sys.path])
        try:
            with log.open("w") as text, TemporaryDirectory() as scratch:
                env = {**os.environ, "PYTHONPATH": path, "TMPDIR": scratch}
                subprocess.run(command, check=True, timeout=arguments.cap, env=env, stdout=text,
                               stderr=subprocess.STDOUT)  # fmt: skip
        except subprocess.TimeoutExpired:
            return dict.fromkeys(names, f"stopped after {arguments.cap:g} s"), np.nan
        except subprocess.CalledProcessError:
            return dict.fromkeys(names, f"failed, see {log}"), np.nan
        begun.replace(done)
    with np.load(done) as held:
        arrays = {name: held[name] for name in held.files}
    took = float(arrays.pop("seconds"))
    return {name: y if y.ndim else str(y) for name, y in arrays.items()}, took


def identity(predictor: str, table: str) -> Iterator[str]:
    """All that its predictions depend on beside the table: settings and source.

    Of the package, rivals use what reads and encodes tables, and the evaluation.
    """
    yield repr(predictors.SETTINGS.get(predictor))
    yield repr(load_settings(str(folds.example_config(table))))  # with all defaults
    yield sources("benchmarks/folds.py", "benchmarks/predictors.py")
    parts = ["yeast_get/data/**/*.py", "yeast_get/evaluation/**/*.py"]
    yield sources(*(PACKAGE if predictor == OURS else parts))


def sources(*patterns: str) -> str:
    """Source files of the repository, as one text."""
    files = [file for pattern in patterns for file in sorted(folds.ROOT.glob(pattern))]
    return "\n".join(each.read_text(encoding="utf-8") for each in files)


def scores(
    data: ExpressionData, rows: np.ndarray, y_pred: np.ndarray, signs: bool
) -> dict[str, Any]:
    """The columns of the table for one predictor; `signs`: whether those of the target matter."""
    y_true = data.target[rows, 0]
    condition = data.condition[data.sample_index[rows]]
    summary = summarise(y_true, y_pred, data.region_index[rows], condition)
    found = [summary["overall"]["pearson"], summary["overall"]["r2"]]
    found += [summary["across_region_pearson"], summary["within_region_pearson"]]
    found += [100 * wrong_sign(y_true, y_pred)] if signs else []
    return dict(zip(COLUMNS, found, strict=False))


def wrong_sign(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """The share of values beyond 1 or -1 whose predicted sign is not theirs."""
    clear = np.abs(y_true) > 1
    return float(np.mean(np.sign(y_pred[clear]) != np.sign(y_true[clear])))


def difference(resampler: Resampler, ours: np.ndarray, best: np.ndarray) -> dict[str, Any]:
    """The middle 95 % of the difference in pooled r, over the same resamples of both."""
    if resampler.reason is not None:
        return {"over": resampler.over, "note": resampler.reason}
    r = [resampler.scores(y)["pearson"] for y in (ours, best)]
    low, high = interval(r[0] - r[1]) or (np.nan, np.nan)
    return {"over": resampler.over, "low": low, "high": high}


def show(frame: pd.DataFrame, title: str) -> None:
    """The table in Markdown, and the difference to the best rival."""
    frame = frame.reindex(columns=[*COLUMNS, "note", "rival", "over", "low", "high"])
    print(f"\n{title}\n\n| predictor | {' | '.join([*COLUMNS, 'note'])} |")
    print("| --- " * (len(COLUMNS) + 2) + "|")
    for name, line in frame.iterrows():
        cells = ["" if pd.isna(line[c]) else format(line[c], form) for c, form in COLUMNS.items()]
        print(f"| {' | '.join([str(name), *cells, '' if pd.isna(line.note) else line.note])} |")
    if OURS in frame.index and not pd.isna(frame.rival[OURS]):
        ours = frame.loc[OURS]
        gain = ours["pooled r"] - frame["pooled r"][ours.rival]
        print(f"\npooled r of {OURS} less that of {ours.rival}: {gain:+.3f}, 95 % interval "
              f"{ours.low:+.3f} to {ours.high:+.3f} over {ours.over}", flush=True)  # fmt: skip


def record(frame: pd.DataFrame, about: dict[str, Any]) -> None:
    """Append the table to `RESULTS`."""
    columns = [*COLUMNS, "rival", "over", "low", "high", "note"]
    frame = frame.reindex(columns=columns).rename_axis("predictor").reset_index()
    version = f"{__version__} {hashlib.sha256(sources(*PACKAGE).encode()).hexdigest()[:12]}"
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    now = datetime.datetime.now().isoformat(timespec="seconds")
    about = {
        "date": now,
        "yeast_get": version,
        "torch": torch.__version__,
        "machine": machine,
    } | about
    for at, (name, value) in enumerate(about.items()):
        frame.insert(at, name, str(value))
    frame.to_csv(RESULTS, mode="a", header=not RESULTS.exists(), index=False, float_format="%.5g")


if __name__ == "__main__":
    main()
