"""LightGBM as a baseline: what it sees, what it says, what is kept of it."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from tests.conftest import long_table
from yeast_get.config import load_settings
from yeast_get.data.expression_data import load_expression_data
from yeast_get.data.features import FeatureSchema
from yeast_get.evaluation import boosting
from yeast_get.evaluation.metrics import score
from yeast_get.evaluation.rivals import Rivals

pytest.importorskip("lightgbm", reason="the extra [baselines] is not installed")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    path = tmp_path_factory.mktemp("boosting") / "table.csv"
    long_table(regions=300).to_csv(path, index=False)
    settings = load_settings(None, named={"data.path": str(path)})
    data = load_expression_data(settings)
    train = data.region_index < 200
    schema = FeatureSchema.fit(data, train, settings)
    return data, schema, train, Rivals.fit(data, schema, train, settings.split)


def said_of(fitted, rivals):
    data, schema, train, _ = fitted
    return dict(rivals.predict(data, schema, ~train, data.signature, train))


def test_it_finds_the_planted_rule_in_new_regions_and_knows_the_conditions(fitted):
    data, _, train, rivals = fitted
    pred = said_of(fitted, rivals)[boosting.NAME]
    assert score(data.target[~train], pred)["pearson"] > 0.9
    for sample in range(data.num_samples):  # also within each condition: the motifs
        rows = data.sample_index[~train] == sample
        assert score(data.target[~train][rows], pred[rows])["pearson"] > 0.8


def test_it_is_in_the_unit_of_the_input_and_travels_in_a_checkpoint(fitted):
    pred = said_of(fitted, fitted[3])[boosting.NAME]
    file = io.BytesIO()
    torch.save(fitted[3].to_dict(), file)
    file.seek(0)
    again = Rivals.from_dict(torch.load(file, weights_only=True))
    np.testing.assert_allclose(said_of(fitted, again)[boosting.NAME], pred)


def test_where_the_package_is_gone_it_says_so(fitted, monkeypatch):
    monkeypatch.setattr(boosting, "is_installed", lambda: False)
    assert said_of(fitted, fitted[3])[boosting.NAME] == "the package lightgbm is not installed here"


def test_without_the_package_nothing_is_fitted(fitted, monkeypatch):
    data, schema, train, _ = fitted
    monkeypatch.setattr(boosting, "is_installed", lambda: False)
    rivals = Rivals.fit(data, schema, train, load_settings(None).split)
    assert boosting.NAME not in said_of(fitted, rivals)


def test_blank_targets_teach_nothing(fitted):
    data, schema, train, _ = fitted
    y = schema.to_model(data.target[train])
    blank = y.copy()
    blank[::2] = np.nan
    some = train.copy()
    some[np.flatnonzero(train)[::2]] = False
    one = boosting.Boosted.fit(data, schema, train, blank).predict(data, schema, ~train)
    other = boosting.Boosted.fit(data, schema, some, y[1::2]).predict(data, schema, ~train)
    np.testing.assert_allclose(one, other)


def test_what_is_kept_of_the_text_predicts_the_same_to_the_last_bit(fitted, monkeypatch):
    import lightgbm

    data, schema, train, _ = fitted
    y, texts = schema.to_model(data.target[train]), []
    checked = boosting._checked
    monkeypatch.setattr(boosting, "_checked", lambda text: texts.append(text) or checked(text))
    kept = boosting.Boosted.fit(data, schema, train, y)
    inputs = boosting._Inputs(data, schema)
    assert inputs.categories > 0
    assert "cat_threshold=" in kept.models[0]
    features = inputs.of(np.arange(len(data.target)))
    features[::7] = np.nan
    features[::5] *= 100
    one, other = (lightgbm.Booster(model_str=text) for text in (texts[0], kept.models[0]))
    np.testing.assert_array_equal(one.predict(features), other.predict(features))
    assert boosting.Boosted.from_list(kept.models) == kept


def test_trees_of_another_table_say_so_and_do_not_end_the_evaluation(fitted):
    data, schema, train, rivals = fitted
    other = rivals.boosted.models[0].replace("max_feature_idx=", "max_feature_idx=1")
    said = boosting.Boosted.from_list([other]).predict(data, schema, ~train)
    assert said.startswith("its trees are of 1")


def test_rows_that_are_predicted_in_blocks_get_the_same_numbers(fitted, monkeypatch):
    whole = said_of(fitted, fitted[3])[boosting.NAME]
    monkeypatch.setattr(boosting, "AT_ONCE", 500)
    np.testing.assert_array_equal(said_of(fitted, fitted[3])[boosting.NAME], whole)
