"""The rules of the house: who imports whom, how long the scripts are, how soon help answers."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

SHARED = {"config", "errors", "batch", "run_dir", "stored", "distributed", "yeast_get"}
MAY_IMPORT = {
    "data": {"data"},
    "model": {"model"},
    "evaluation": {"evaluation", "data", "model"},
    "training": {"training", "evaluation", "data", "model"},
    "command_line": {"command_line"},
    "config": set(),
    "errors": set(),
    "batch": set(),
    "run_dir": set(),
    "stored": set(),
    "distributed": set(),
}
HEAVY = ("torch", "pandas", "numpy", "matplotlib", "pydantic", "scipy", "sklearn", "yaml")


def imports(path: Path) -> set[str]:
    """All dotted names that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms_imported(path: Path, package: Path) -> set[str]:
    ours = {name for name in imports(path) if name.startswith("yeast_get")}
    parts = {name.split(".")[1] for name in ours if "." in name}
    return {
        name for name in parts if (package / name).is_dir() or (package / f"{name}.py").exists()
    }


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_room_imports_only_the_rooms_below_it(root, room):
    package = root / "yeast_get"
    files = list((package / room).rglob("*.py")) or [package / f"{room}.py"]
    assert files
    for path in files:
        extra = rooms_imported(path, package) - MAY_IMPORT[room] - SHARED
        assert not extra, f"{path} imports {extra}"


def test_the_model_knows_no_pandas_and_the_data_no_matplotlib(root):
    for path in (root / "yeast_get" / "model").glob("*.py"):
        assert not {name.split(".")[0] for name in imports(path)} & {"pandas", "matplotlib"}
    for path in (root / "yeast_get" / "data").glob("*.py"):
        assert "matplotlib" not in {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("script", ["train_yeast.py", "evaluate_yeast.py"])
def test_a_script_is_short_and_imports_nothing_heavy_at_the_top(root, script):
    path = root / script
    assert len(path.read_text().splitlines()) <= 150
    code = f"import sys, {path.stem}; print([m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.parametrize("script", ["train_yeast.py", "evaluate_yeast.py"])
def test_help_answers_within_a_second_and_shows_the_two_commands(root, script):
    started = time.monotonic()
    result = subprocess.run(
        [sys.executable, str(root / script), "--help"], capture_output=True, text=True
    )
    seconds = time.monotonic() - started
    assert result.returncode == 0
    assert seconds < 1.0
    assert "What most runs need:" in result.stdout
    assert "train_yeast    --config" in result.stdout
    assert "evaluate_yeast --model" in result.stdout
    options = [line.split()[0] for line in result.stdout.splitlines() if line.startswith("  --")]
    assert {"--data", "--output", "--device", "--set", "--overwrite", "--debug"} <= set(options)
    assert len(options) == len(set(options))


def test_nothing_of_the_real_data_is_in_the_project(root):
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=root)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        path = root / name
        assert not path.is_file() or path.stat().st_size <= 1_000_000, name
