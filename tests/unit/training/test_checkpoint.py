"""How a checkpoint is written: by values alone, and whatever interrupts it is told as it is."""

from __future__ import annotations

import io

import pytest
import torch

from yeast_get import run_dir
from yeast_get.errors import WriteError
from yeast_get.training.checkpoint import Checkpoint


def checkpoint(name="medium"):
    return Checkpoint(
        settings={"column": name, "columns": ["medium", "drug"]},
        schema={"medium": name},
        model={"weight": torch.arange(50_000.0)},
        trained_rows={},
        baselines={},
        data_fingerprint="x",
    )


def test_equal_checkpoints_have_equal_bytes_whatever_they_were_made_of(tmp_path):
    written = []
    for name in ("medium", "".join(["med", "ium"])):  # one object with the literals, and another
        path = tmp_path / f"{len(written)}.pth"
        checkpoint(name).save(path)
        again = tmp_path / "again.pth"
        Checkpoint.load(path).save(again)
        written += [path.read_bytes(), again.read_bytes()]
    assert len(set(written)) == 1


@pytest.mark.parametrize("ended_by", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_what_ends_the_writing_is_told_and_the_old_file_stays(tmp_path, monkeypatch, ended_by):
    path = tmp_path / "last.pth"
    checkpoint().save(path)
    before = path.read_bytes()

    class Ending(io.FileIO):
        def write(self, data):
            if self.tell() > 100:
                raise ended_by
            return super().write(data)

    monkeypatch.setattr(run_dir, "open", Ending, raising=False)
    expected = WriteError if isinstance(ended_by, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        checkpoint("other").save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
