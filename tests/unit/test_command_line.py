"""What the commands share: the log, and the folder that it stands in."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest

from yeast_get.command_line import end_logging, log, log_to_file, start_logging
from yeast_get.errors import WriteError

FULL = Path("/dev/full")


@pytest.fixture(autouse=True)
def _log():
    yield
    end_logging()


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("early", [True, False])
def test_a_log_on_a_full_disk_ends_with_one_warning_and_no_traceback(capsys, early):
    start_logging(debug=False)
    for number in range(3 * early):
        log.info("early %d", number)
    log_to_file(FULL)
    for number in range(3):
        log.info("late %d", number)
    out, err = capsys.readouterr()
    assert out.count("warning: no more is logged to /dev/full: No space left on device") == 1
    assert "late 2" in out
    assert err == ""


class Closed:
    def write(self, text):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_a_screen_that_takes_no_more_ends_no_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Closed())
    start_logging(debug=False)
    monkeypatch.undo()
    log_to_file(tmp_path / "train.log")
    log.info("one")
    log.info("two")
    said = (tmp_path / "train.log").read_text()
    assert said.count("no more is logged to the screen: Broken pipe") == 1
    assert "two" in said
    assert capsys.readouterr().err == ""


def test_a_log_that_cannot_be_opened_is_one_line(tmp_path):
    start_logging(debug=False)
    with pytest.raises(WriteError, match="train.log: cannot be written: No such file"):
        log_to_file(tmp_path / "gone" / "train.log")
    assert not (tmp_path / "gone").exists()
