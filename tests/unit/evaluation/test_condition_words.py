"""Labels of conditions are short, and tell every condition from every other."""

from __future__ import annotations

import pandas as pd

from yeast_get.config import settings_from_dict
from yeast_get.data.expression_data import load_expression_data
from yeast_get.evaluation.condition_words import condition_labels

SAMPLES = pd.DataFrame(
    {
        "sample_id": ["a", "b", "c", "d", "e", "f", "g"],
        "medium": ["YPD", "YPD", "YPD", "SC", "YPD", "YPD", "YPD"],
        "temperature": [30.0, 30.0, 37.0, 30.0, 30.0, 30.0, 30.0],
        "drug": ["none", "none", "none", "none", "H2O2", "H2O2", "none"],
        "drug_concentration": [0, 0, 0, 0, 4e-4, None, 0],
        "drug_time": [None, None, None, None, 0.5, 2.0, None],
        "preculture_time": [3.0, 3.0, 3.0, 3.0, 3.0, 3.0, None],
    }
)


def test_labels_say_what_is_special_and_are_alike_for_replicates_alone(tmp_path):
    table = SAMPLES.assign(region_id="chrI_1_9", motif_a=1.0, target=1.0)
    table.to_csv(tmp_path / "t.csv", index=False)
    settings = settings_from_dict({"data": {"path": str(tmp_path / "t.csv")}}, "x")
    labels = condition_labels(load_expression_data(settings, True)).tolist()
    assert labels == [
        "30 °C, YPD (a)", "30 °C, YPD (a)", "37 °C", "SC", "H2O2 400 µM, for 30 min",
        "H2O2, for 2 h", "30 °C, YPD (g)",
    ]  # fmt: skip


def test_a_dose_series_without_a_control_is_told_by_its_doses(tmp_path):
    table = SAMPLES.iloc[:3].assign(
        drug="H2O2", drug_concentration=[1e-4, 1e-3, 1e-2], temperature=30.0, drug_time=0.5,
        region_id="chrI_1_9", motif_a=1.0, target=1.0,
    )  # fmt: skip
    table.to_csv(tmp_path / "t.csv", index=False)
    settings = settings_from_dict({"data": {"path": str(tmp_path / "t.csv")}}, "x")
    labels = condition_labels(load_expression_data(settings, True)).tolist()
    assert labels == ["H2O2 100 µM", "H2O2 1 mM", "H2O2 10 mM"]
