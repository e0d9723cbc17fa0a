"""TensorBoard's files, and that they end no run."""

from __future__ import annotations

import logging
import shutil
import sys

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from yeast_get.training.board import Board


@pytest.fixture
def warned(caplog, monkeypatch):
    """Counts the warnings that TensorBoard is given up."""
    monkeypatch.setattr(logging.getLogger("yeast_get"), "propagate", True)
    return lambda: caplog.text.count("warning: no more is written for TensorBoard (")


def write_some(board):
    board.add_scalar("train/loss", 0.5, 7)
    scores = {"val_loss": 0.25, "val_pearson": None}
    board.add_validation(2, scores, lambda: np.full((4, 6, 3), 200, dtype=np.uint8))


def test_tensorboard_reads_what_was_written(tmp_path, warned):
    write_some(Board(tmp_path / "tensorboard"))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == ["train/loss", "val/loss"]
    (loss,) = events.Scalars("train/loss")
    assert (loss.step, loss.value) == (7, 0.5)
    (picture,) = events.Images("val/scatter")
    assert (picture.step, picture.height, picture.width) == (2, 4, 6)
    assert picture.encoded_image_string.startswith(b"\x89PNG")
    assert warned() == 0


def test_off_it_writes_and_draws_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def draw():
        raise AssertionError

    Board(None).add_validation(1, {"val_loss": 1.0}, draw)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_gone_is_one_warning_and_stays_gone(tmp_path, warned):
    board = Board(tmp_path / "tensorboard")
    shutil.rmtree(tmp_path / "tensorboard")
    write_some(board)
    write_some(board)
    assert warned() == 1
    assert not (tmp_path / "tensorboard").exists()


def test_a_package_that_is_broken_is_one_warning(tmp_path, warned, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    write_some(Board(tmp_path / "tensorboard"))
    assert warned() == 1
