"""All baselines on a table: which features the regressions get, in which units they are fitted."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import long_table
from yeast_get.config import settings_from_dict
from yeast_get.data.expression_data import load_expression_data
from yeast_get.data.features import FeatureSchema
from yeast_get.evaluation import baselines, ridge
from yeast_get.evaluation.rivals import NAMES, Rivals, _condition_features, _groups


@pytest.fixture
def fit(tmp_path):
    """Fit on the rows of a table that are wanted; gives the baselines and what they need."""

    def fit(table, train=None, **sections):
        path = tmp_path / "t.csv"
        table.to_csv(path, index=False)
        sections["data"] = {"path": str(path), **sections.get("data", {})}
        settings = settings_from_dict(sections, "x")
        data = load_expression_data(settings)
        wanted = np.ones(data.num_observations, bool) if train is None else train(data)
        schema = FeatureSchema.fit(data, wanted, settings)
        return Rivals.fit(data, schema, wanted, settings.split), data, schema, wanted

    return fit


def test_all_speak_of_new_rows_or_say_why_not(fit):
    rivals, data, schema, wanted = fit(long_table(), lambda data: data.region_index < 30)
    said = dict(rivals.predict(data, schema, ~wanted, data.signature, wanted))
    assert tuple(said)[: len(NAMES)] == NAMES  # LightGBM follows where it is installed
    assert said["region mean"] == "none of the regions was trained on"
    assert said["low rank"] == "no row has its region and its sample in training"
    assert said["ridge per region"] == "none of the regions was trained on often enough"
    assert said["ridge per condition"].shape == said["additive"].shape == (60, 1)
    nothing = dict(
        rivals.predict(data, schema, np.zeros(len(wanted), bool), data.signature, wanted)
    )
    assert set(nothing.values()) == {"the part has no measured row"}
    stored = rivals.to_dict()
    again = dict(Rivals.from_dict(stored).predict(data, schema, ~wanted, data.signature, wanted))
    for name, value in said.items():
        np.testing.assert_array_equal(again[name], value)
    del stored["ridge"], stored["usual"]  # as checkpoints were before
    old = dict(Rivals.from_dict(stored).predict(data, schema, ~wanted, data.signature, wanted))
    np.testing.assert_array_equal(old["additive"], said["additive"])
    assert {old[name] for name in ridge.NAMES} == {"was not fitted for this model"}


def test_conditions_enter_with_numbers_other_words_drugs_and_doses(fit):
    table = long_table().assign(sample_id=lambda frame: np.repeat(np.arange(6), len(frame) // 6))
    rivals, data, schema, _ = fit(table)
    assert rivals.usual == {"medium": data.conditions["medium"].mode()[0]}
    features = _condition_features(data, schema, rivals.usual)
    numbers = len(schema.numbers)
    assert features.shape == (6, 2 * numbers + 1 + 2)
    other = (data.conditions["medium"] != rivals.usual["medium"]).to_numpy()
    drug = (data.conditions["drug"] != "none").to_numpy()
    np.testing.assert_array_equal(features[:, -3] == 1, other)
    np.testing.assert_array_equal(features[:, -2] == 1, drug)
    assert (features[:, -1] > 0).tolist() == drug.tolist()
    data.conditions.loc[0, "medium"] = "a word that training did not have"
    assert _condition_features(data, schema, rivals.usual)[0, -3] == 1
    data.conditions.loc[0, "medium"] = None
    assert _condition_features(data, schema, rivals.usual)[0, -3] == 0


def test_regressions_are_fitted_in_the_units_of_the_model(fit):
    table = long_table()
    table["target"] = np.expm1(table["target"] - table["target"].min())
    rivals, data, schema, wanted = fit(table, data={"target_transform": "log1p"})
    said = dict(rivals.predict(data, schema, wanted, data.signature, wanted))["ridge per condition"]
    linear = dict(fit(table)[0].predict(data, schema, wanted, data.signature, wanted))
    y = np.log1p(data.target)
    error = np.mean((np.log1p(np.maximum(said, 0)) - y) ** 2)
    assert error < 0.1 * np.mean((np.log1p(np.maximum(linear["ridge per condition"], 0)) - y) ** 2)


def test_rows_of_one_group_are_left_out_together_where_the_split_does_so(fit, monkeypatch):
    seen = []
    monkeypatch.setattr(ridge, "fit", lambda table, y: seen.append(table))
    table = long_table()
    table["batch"] = np.where(table["temperature"] == 30, "a", "b")
    split = {"by": "column", "column": "batch"}
    _, data, _, _ = fit(table, split=split, data={"description_columns": ["batch"]})
    (given,) = seen
    temperature = dict(zip(data.signature, data.conditions["temperature"], strict=True))
    of_condition = [temperature[key] == 30 for key in given.condition_keys]
    assert len(set(zip(given.condition_groups, of_condition, strict=True))) == 2
    assert given.region_groups.tolist() == list(range(data.num_regions))
    fit(table, split={"by": "chromosome"}, data={"description_columns": ["batch"]})
    assert len(set(zip(seen[1].region_groups, data.chrom, strict=True))) == len(set(data.chrom))


def test_a_group_is_one_only_where_all_rows_agree():
    member, default = np.array([0, 0, 1]), np.array([5, 6])
    assert _groups(np.array([3, 3, 4]), member, default).tolist() == [3, 4]
    assert _groups(np.array([3, 4, 4]), member, default).tolist() == [5, 6]


def test_the_names_are_those_of_both_kinds():
    assert (*baselines.NAMES, "low rank", *ridge.NAMES) == NAMES
