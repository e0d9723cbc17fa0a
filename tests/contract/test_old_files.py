"""Files of every layout so far are read, and predict what they did when they were made.

`tests/fixtures/make_checkpoints.py` made them, each with the version of its layout.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from yeast_get.config import settings_for_evaluation
from yeast_get.training.checkpoint import FORMAT, Checkpoint
from yeast_get.training.prepare import prepare_evaluation

TOLERANCE = 1e-4
"""Of predictions of about 1, in float32: other processors add in another order."""

FILES = {
    "layout1": 1, "layout2": 2, "layout2_adapter": 2,
    "layout3": 3, "layout3_adapter": 3, "layout3_ensemble": 3,
}  # fmt: skip


@pytest.fixture
def folder(root):
    return root / "tests" / "fixtures" / "checkpoints"


def test_a_file_of_every_layout_is_kept(folder):
    layouts = {
        name: torch.load(folder / f"{name}.pth", weights_only=True)["format"] for name in FILES
    }
    assert layouts == FILES
    assert set(FILES.values()) >= set(range(1, min(FORMAT, 4)))


@pytest.mark.parametrize(("name", "kept"), [("layout2", 0.05), ("layout3", 0.25)])
def test_max_skipped_is_kept_from_when_it_was_a_share(folder, tmp_path, name, kept):
    values = torch.load(folder / f"{name}.pth", weights_only=True)
    values["settings"]["data"]["max_skipped"] = 0.25 if name == "layout3" else 100
    torch.save(values, tmp_path / "old.pth")
    settings, *_ = Checkpoint.load(tmp_path / "old.pth").build()
    assert settings.data.max_skipped == kept


@pytest.mark.parametrize("name", FILES)
def test_an_old_file_predicts_what_it_did(folder, name):
    base = folder / f"{name.partition('_')[0]}_base.pth" if name.endswith("adapter") else None
    checkpoint = Checkpoint.load(folder / f"{name}.pth").with_base(base)
    _, schema, model = checkpoint.build()
    named = {"data.path": str(folder / "table.csv")}
    settings = settings_for_evaluation(checkpoint.settings, named=named)
    evaluation = prepare_evaluation(checkpoint, schema, model, settings)
    said, data = evaluation.predict(), evaluation.data
    expected = pd.read_csv(folder / f"{name}.csv")
    assert list(data.region_id[data.region_index]) == list(expected["region_id"])
    assert list(data.sample_id[data.sample_index]) == list(expected["sample_id"])
    found = {"y_pred": said.y_pred[:, 0]}
    if "y_std" in expected:
        found["y_std"] = said.y_std[:, 0]
    if "y_low" in expected:
        found["y_low"], found["y_high"] = (end[:, 0] for end in evaluation.interval(said))
    assert set(found) == set(expected.columns[2:])
    for column, values in found.items():
        np.testing.assert_allclose(values, expected[column], rtol=TOLERANCE, atol=TOLERANCE)
    assert expected["y_pred"].std() > 0.3
    assert (evaluation.part < 3).all()  # every row is known again
