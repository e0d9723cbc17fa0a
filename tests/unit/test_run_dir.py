"""The rules for a folder that holds a run, and files that are whole or not there."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import shutil
import stat
from pathlib import Path

import pytest

from yeast_get.errors import RunError, WriteError
from yeast_get.run_dir import EVALUATE_FILES, TRAIN_FILES, RunDir, atomic, write_json, write_text


@pytest.fixture
def run(tmp_path):
    """A folder that holds a finished run and a file of the user's own."""
    run = RunDir(tmp_path / "out")
    run.start()
    run.best_model.write_bytes(b"weights")
    run.last.write_bytes(b"state")
    run.history.write_text("epoch\n1\n")
    run.scatter_plot.write_bytes(b"png")
    (run.path / "notes.txt").write_text("mine")
    return run


def test_a_new_folder_is_made_with_its_parents_and_not_before_the_start(tmp_path):
    run = RunDir(tmp_path / "a" / "b")
    run.check()
    assert not (tmp_path / "a").exists()
    run.start()
    assert run.plots.is_dir()


def test_a_folder_with_other_files_is_used_as_it_is(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    run = RunDir(tmp_path)
    run.check()
    run.start()
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_folder_in_which_nothing_was_written_can_be_used_again(tmp_path):
    run = RunDir(tmp_path / "out")
    run.start()
    run.train_log.write_text("one line")
    run.check()
    assert run.train_log.read_text() == "one line"


def test_a_folder_that_holds_a_run_is_refused_and_left_alone(run):
    held = r"already holds a run \(best_model.pth, history.csv, last.pth, plots/scatter.png\); "
    with pytest.raises(RunError, match=held + "give another --output, or --overwrite, or --resume"):
        run.check()
    assert run.best_model.read_bytes() == b"weights"


def test_resume_is_only_offered_where_there_is_something_to_resume(run):
    run.last.unlink()
    with pytest.raises(RunError) as caught:
        run.check()
    assert str(caught.value).endswith("give another --output, or --overwrite")


def test_resume_keeps_every_file(run):
    before = sorted(run.path.rglob("*"))
    run.check(resume=True)
    run.start()
    assert sorted(run.path.rglob("*")) == before


def test_resume_without_a_last_checkpoint_is_refused(tmp_path):
    path = tmp_path / "out"
    with pytest.raises(RunError, match=rf"^{re.escape(str(path))}: holds no last.pth to resume"):
        RunDir(path).check(resume=True)
    assert not path.exists()


def test_overwrite_deletes_the_files_of_a_run_and_nothing_else(run):
    mine = {run.path / "notes.txt"}
    for name in ("plots/mine.png", "checkpoints/mine.pth", "tensorboard/mine", "evaluate.log"):
        mine.add(run.path / name)
    theirs = ("checkpoints/epoch_0002.pth", "tensorboard/events.out.tfevents.1.host", "train.log")
    for path in (*mine, *(run.path / name for name in theirs)):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    before = set(run.path.rglob("*"))
    run.check(overwrite=True)
    assert set(run.path.rglob("*")) == before  # nothing is deleted before the start
    run.start(overwrite=True)
    run.release()
    assert {path for path in run.path.rglob("*") if path.is_file()} == mine


def test_an_evaluation_never_enters_a_training_run(run):
    evaluation = RunDir(run.path, EVALUATE_FILES)
    for overwrite in (False, True):
        with pytest.raises(RunError, match="holds a training run; give another --output"):
            evaluation.check(overwrite=overwrite)
    run.best_model.unlink()
    with pytest.raises(RunError, match="holds a training run"):
        evaluation.check(overwrite=True)


def test_every_path_is_written_by_one_of_the_commands(tmp_path):
    run = RunDir(tmp_path)
    paths = [path for path in vars(run).values() if isinstance(path, type(tmp_path))]
    patterns = {*TRAIN_FILES, *EVALUATE_FILES}
    for path in paths:
        name = path.relative_to(tmp_path).as_posix()
        assert name == "." or any(f"{each}/".startswith(f"{name}/") for each in patterns), name


def test_resume_and_overwrite_together_are_refused(run):
    with pytest.raises(RunError, match="--resume and --overwrite contradict"):
        run.check(resume=True, overwrite=True)
    assert run.last.is_file()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    path = tmp_path / "out"
    path.write_text("a file")
    with pytest.raises(RunError, match="is a file; name a folder"):
        RunDir(path).check()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="out: cannot be written: "):
        RunDir(tmp_path / "file" / "out").start()


def test_periodic_checkpoints_sort_by_epoch(run):
    paths = [run.periodic_checkpoint(epoch) for epoch in (2, 10)]
    assert [path.name for path in paths] == ["epoch_0002.pth", "epoch_0010.pth"]
    assert paths[0].parent.is_dir()


def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "metrics.json"
    write_text(path, "old")

    def interrupted():
        with atomic(path) as file:
            assert Path(file.name).parent == path.parent  # replaced within one file system
            file.write(b"half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_on_disk_before_it_gets_its_name_and_the_folder_after(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace

    def noted_fsync(file):
        folder = stat.S_ISDIR(os.fstat(file).st_mode)
        done.append(("flush", "folder" if folder else os.fstat(file).st_size))
        fsync(file)

    def noted_replace(old, new):
        done.append(("replace", new.name))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    write_text(tmp_path / "a.csv", "six by")
    assert done == [("flush", 6), ("replace", "a.csv"), ("flush", "folder")]


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EIO, "look at the disk and at the rights to its folder"),
    ],
)
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_whatever_the_system_refuses_is_one_line_and_the_old_file_stays(
    tmp_path, monkeypatch, number, advice, step
):
    path = tmp_path / "metrics.json"
    write_text(path, "old")

    def refused(*arguments):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, step, refused)
        with pytest.raises(WriteError) as caught:
            write_text(path, "new")
    said = f"error: {path}: cannot be written: {os.strerror(number)}; {advice}"
    assert caught.value.lines() == [said]
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_run_was_writing_is_removed_by_the_next_and_nothing_else(tmp_path):
    run = RunDir(tmp_path)
    left = [".last.pth.123.tmp", "plots/.scatter.png.9.tmp", "members/2/.best_model.pth.77.tmp"]
    mine = [".notes.txt.123.tmp", "plots/.mine.png.9.tmp", "last.tmp", ".last.pth.tmp.txt"]
    for name in (*left, *mine):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    run.check()
    assert all((tmp_path / name).exists() for name in left)
    run.start()
    run.release()
    kept = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert kept == set(mine)


def test_a_run_that_came_into_a_new_folder_meanwhile_is_kept(tmp_path):
    late = RunDir(tmp_path / "out")
    late.check()
    first = RunDir(tmp_path / "out")
    first.start()
    first.best_model.write_bytes(b"weights")
    first.release()
    with pytest.raises(RunError, match="already holds a run"):
        late.start()
    assert first.best_model.read_bytes() == b"weights"


def test_where_nothing_can_be_locked_there_is_a_warning(run, monkeypatch, caplog):
    def refused(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    run.release()
    monkeypatch.setattr(fcntl, "lockf", refused)
    monkeypatch.setattr(logging.getLogger("yeast_get"), "propagate", True)
    run.check(resume=True)
    assert "cannot be locked (No locks available): nothing keeps another run" in caplog.text
    run.start()


def test_the_last_checkpoint_goes_first_so_that_nobody_resumes_half_a_run(run, monkeypatch):
    def killed(path, **options):
        unlink(path, **options)
        raise KeyboardInterrupt

    unlink = Path.unlink
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            run.start(overwrite=True)
    assert not run.last.exists()
    with pytest.raises(RunError, match="holds no last.pth to resume from; start anew with --over"):
        run.check(resume=True)


def test_a_folder_that_is_gone_is_not_made_again(run):
    shutil.rmtree(run.path)
    gone = "cannot be written: No such file or directory; the folder was removed or moved"
    for work in (run.start, lambda: run.member(2), lambda: run.periodic_checkpoint(1)):
        with pytest.raises(WriteError, match=gone):
            work()
    assert not run.path.exists()


def test_a_whole_write_replaces_the_old_file(tmp_path):
    path = tmp_path / "metrics.json"
    write_text(path, "old")
    write_text(path, "new, with °C")
    assert path.read_bytes() == "new, with °C".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_read_back_as_it_was_and_stays_readable(tmp_path):
    path = tmp_path / "metrics.json"
    values = {"pearson": 0.5, "why": None, "培养基": ["YPD"]}
    write_json(path, values)
    assert json.loads(path.read_text(encoding="utf-8")) == values
    assert "培养基" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_refuses_what_json_does_not_have_and_keeps_the_old_file(tmp_path, value):
    path = tmp_path / "metrics.json"
    write_json(path, {"r2": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"r2": value})
    assert json.loads(path.read_text()) == {"r2": 1}
