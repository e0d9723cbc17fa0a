"""Full and read-only disks, folders that vanish, two runs at once: one line, and nothing lost."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys

import pytest

from yeast_get.evaluation import plots
from yeast_get.training import loop
from yeast_get.training.checkpoint import Checkpoint

SHORT = ("training.max_epochs=1", "training.warmup_epochs=0")


@pytest.fixture
def disk(tmp_path):
    """A file system of 4 MB of its own; needs the right to mount one."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a file system")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def refused(train, capsys):
    """Train where that must fail; returns the one line that says why."""

    def run(*arguments, **options):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            train(*arguments, **options)
        lines = capsys.readouterr().err.strip().splitlines()
        assert stopped.value.code == 2
        assert len(lines) == 1, lines
        return lines[0].removeprefix("error: ")

    return run


def whole(run):
    """Every file of a folder that no run is writing; each checkpoint can be read."""
    for path in run.rglob("*.pth"):
        Checkpoint.load(path)
    found = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert not [path for path in found if path.name.startswith(".")]
    return found


def test_a_full_disk_keeps_the_old_checkpoint_and_the_run_goes_on_with_more_space(
    train, refused, table_path, disk
):
    longer = ("training.max_epochs=2", "training.warmup_epochs=0", "logging.tensorboard=true")
    run = train(table_path, *longer, "training.max_epochs=1", output="disk/run")
    before = whole(run)
    filler = disk / "filler"  # leaves room for a table, not for last.pth
    filler.write_bytes(bytes(shutil.disk_usage(disk).free - 120_000))
    said = refused(table_path, *longer, output="disk/run", extra=("--resume",))
    assert said == (
        f"{run}/last.pth: cannot be written: No space left on device; free some space, "
        "then go on with --resume (last.pth holds epoch 1)"
    )
    after = whole(run)
    assert before[run / "last.pth"] == after[run / "last.pth"]
    filler.unlink()
    train(table_path, *longer, output="disk/run", extra=("--resume",))
    assert Checkpoint.load(run / "last.pth").epoch == 2


def test_a_read_only_folder_is_refused_before_the_work(train, refused, table_path, disk, capsys):
    run = train(table_path, *SHORT, output="disk/run")
    before = whole(run)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for extra in (("--resume",), ("--overwrite",)):
        said = refused(table_path, *SHORT, output="disk/run", extra=extra)
        assert said.startswith(f"{run}: cannot be written: Read-only file system; look at the disk")
    said = refused(table_path, output="disk/new")
    assert said.startswith(f"{disk}/new: cannot be written: Read-only file system")
    assert whole(run) == before


def test_a_limit_of_file_sizes_is_a_full_disk_without_one(train, refused, table_path, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        said = refused(table_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot be written: File too large; raise the limit of file sizes (ulimit -f), " in said
    assert said.endswith("then start anew with --overwrite")
    whole(tmp_path / "run")
    train(table_path, *SHORT, extra=("--overwrite",))


def test_a_folder_that_is_removed_under_the_run_is_one_line_and_stays_removed(
    refused, table_path, tmp_path, monkeypatch
):
    loss_sum = loop.loss_sum

    def removing(*arguments):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        return loss_sum(*arguments)

    monkeypatch.setattr(loop, "loss_sum", removing)
    said = refused(table_path, "training.ensemble=2", "logging.tensorboard=true")
    assert said == (
        f"{tmp_path}/run/history.csv: cannot be written: No such file or directory; "
        "the folder was removed or moved, then start anew"
    )
    assert not (tmp_path / "run").exists()


HOLDER = """
import sys, time
from yeast_get.run_dir import RunDir
run = RunDir(sys.argv[1])
run.start()
print(flush=True)
time.sleep(600)
"""


def test_a_second_run_in_a_folder_is_refused_until_the_first_is_gone(
    root, train, evaluate, refused, table_path, tmp_path, capsys
):
    """Also where the first is killed."""
    other = train(table_path, *SHORT, output="other")
    first = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")],
        stdout=subprocess.PIPE, text=True, cwd=root,
    )  # fmt: skip
    first.stdout.readline()
    for extra in ((), ("--overwrite",)):
        said = refused(table_path, extra=extra)
        assert said.startswith(f"{tmp_path}/run: is being written by process {first.pid} on ")
        assert said.endswith("; wait for it, or give another --output")
    with pytest.raises(SystemExit):
        evaluate(other, table_path, output="run")
    assert "is being written by process" in capsys.readouterr().err
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    first.stdout.close()
    whole(train(table_path, *SHORT))


def test_pictures_and_tensorboard_that_fail_are_warnings(train, table_path, monkeypatch, tmp_path):
    def broken(*arguments):
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(plots, "_draw_scatter", broken)
    run = train(table_path, *SHORT, "logging.tensorboard=true", "report.formats=[png,pdf]")
    said = (run / "train.log").read_text()
    assert f"{run}/plots/scatter.png: no picture could be made (ZeroDivisionError: a bug" in said
    assert said.count("no more is written for TensorBoard (ZeroDivisionError: a bug of ours)") == 1
    page = (run / "report.html").read_text()
    assert page.count("<img") == len(list(run.glob("plots/*.png"))) == 4
    assert not list(run.glob("plots/scatter.*"))
