"""Integrated gradients are exact where the answer is known by hand, and add up."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import long_table
from yeast_get.config import settings_from_dict
from yeast_get.data.expression_data import load_expression_data
from yeast_get.data.features import FeatureSchema
from yeast_get.evaluation.attributions import attribute, condition_effects, top_rows
from yeast_get.evaluation.evaluation import Evaluation

SCORES = ["motif_a", "motif_b", "motif_c"]


class Formula(torch.nn.Module):
    """A formula of the model's input in the place of a network."""

    def __init__(self, formula):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.formula = formula

    def forward(self, batch):
        return self.scale * self.formula(batch)


@pytest.fixture
def evaluation(tmp_path):
    def build(formula, table=None, **sections):
        table = long_table(regions=12) if table is None else table
        table.to_csv(tmp_path / "t.csv", index=False)
        data = {"path": str(tmp_path / "t.csv"), **sections.pop("data", {})}
        settings = settings_from_dict({"data": data, **sections}, "x")
        data = load_expression_data(settings, True)
        every = np.ones(data.num_observations, dtype=bool)
        schema = FeatureSchema.fit(data, every, settings)
        part = np.full(data.num_observations, 2)
        return Evaluation(
            Formula(formula),
            data,
            schema,
            settings,
            None,
            part,
            data.signature,
            "test",
            {},
            None,
            None,
            5,
        )

    return build


def everything(built):
    return np.ones(built.data.num_observations, dtype=bool)


def raw_over_sd(built, attributed):
    """The scores of the table in SDs of training, so that 0 is "absent" [K,3]."""
    scores = built.data.motif.astype(np.float64)
    return (scores / scores.std(axis=0))[built.data.region_index[attributed.observation]]


def test_of_a_linear_model_both_are_weight_times_score_in_units_of_the_target(evaluation):
    weight = torch.tensor([2.0, -1.0, 0.5])
    built = evaluation(lambda b: (b.motif @ weight + 3 * b.accessibility[..., 0])[..., None])
    got = attribute(built, everything(built))
    assert len(got.observation) == 12 * 3  # replicates count once
    sd = built.data.target.std()
    expected = raw_over_sd(built, got) * weight.numpy() * sd
    np.testing.assert_allclose(got.integrated[:, :3], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got.gradient_x_input[:, :3], expected, rtol=1e-4, atol=1e-5)
    access = built.data.accessibility
    z = (access - access.mean()) / access.std()
    np.testing.assert_allclose(
        got.integrated[:, 3], 3 * sd * z[built.data.region_index[got.observation]], atol=1e-5
    )
    assert np.ptp(got.baseline) < 1e-5  # one baseline region for all
    np.testing.assert_allclose(got.prediction - got.baseline, got.integrated.sum(axis=1), atol=1e-4)


def test_of_a_product_they_are_the_integral_by_hand_and_the_gradient_is_not(evaluation):
    """f = a b: from (a0,b0), integrated gradients give a (a - a0) (b0 + (b - b0) / 2)."""
    built = evaluation(lambda b: (b.motif[..., 0] * b.motif[..., 1])[..., None])
    got = attribute(built, everything(built))
    scores, sd = built.data.motif.astype(np.float64), built.data.target.std()
    a0, b0 = (-scores.mean(axis=0) / scores.std(axis=0))[:2]
    da, db = raw_over_sd(built, got)[:, :2].T
    np.testing.assert_allclose(got.integrated[:, 0], da * (b0 + db / 2) * sd, atol=1e-4)
    np.testing.assert_allclose(got.integrated[:, 1], db * (a0 + da / 2) * sd, atol=1e-4)
    np.testing.assert_allclose(got.gradient_x_input[:, 0], da * (b0 + db) * sd, atol=1e-4)
    total = got.prediction - got.baseline
    np.testing.assert_allclose(got.integrated.sum(axis=1), total, atol=1e-4)


def test_a_kink_gets_the_points_that_it_needs_and_a_step_is_owned_up_to(evaluation, caplog):
    caplog.set_level(logging.INFO)
    built = evaluation(lambda b: torch.relu(7 * b.motif[..., :1] - 3 * b.motif[..., 1:2] - 0.1))
    got = attribute(built, everything(built))
    change = got.prediction - got.baseline
    floor = 0.1 * built.data.target.std()
    error = np.abs(got.integrated.sum(axis=1) - change) / np.maximum(np.abs(change), floor)
    assert error.max() <= 0.01
    assert "rough" not in caplog.text
    built.model.formula = lambda b: (b.motif[..., :1] > 0) + 0 * b.motif[..., :1]
    attribute(built, everything(built))
    assert "attributions are rough" in caplog.text


def test_in_a_window_a_region_answers_for_its_own_features_alone(evaluation):
    table = long_table(regions=12)
    alone = lambda b: 2 * b.motif[..., :1] + b.motif[..., :1].sum(dim=1, keepdim=True)  # noqa: E731
    built = evaluation(alone, table, data={"regions_per_window": 4})
    got = attribute(built, everything(built))
    expected = 3 * raw_over_sd(built, got)[:, 0] * built.data.target.std()
    np.testing.assert_allclose(got.integrated[:, 0], expected, atol=1e-4)
    assert np.abs(got.integrated[:, 1:]).max() == 0


def test_a_missing_score_counts_with_the_bit_that_says_so(evaluation):
    table = long_table(regions=12)
    table.loc[table["region_id"] == table["region_id"].iloc[0], "motif_b"] = np.nan
    built = evaluation(lambda b: (b.motif[..., 1] + 5 * b.motif[..., 3])[..., None], table)
    got = attribute(built, everything(built))
    scores = table.drop_duplicates("region_id")["motif_b"]
    z0 = -scores.mean() / scores.std(ddof=0)
    missing = built.data.region_index[got.observation] == 0
    expected = (0 - z0 - 5) * built.data.target.std()  # at the mean, and not recorded
    np.testing.assert_allclose(got.integrated[missing, 1], expected, rtol=1e-4)
    assert got.integrated.shape[1] == 4  # three motifs and accessibility: no bits
    top = top_rows(built, got)
    row = top[(top["feature"] == "motif_b") & (top["region_id"] == table["region_id"].iloc[0])]
    assert len(row) == 3
    assert row["value"].isna().all()


def test_two_strands_are_averaged_and_a_transformed_target_stays_transformed(evaluation):
    table = long_table(regions=12).rename(columns={"target": "target_plus"})
    table["target_plus"] = table["target_plus"].abs()
    table["target_minus"] = 3 * table["target_plus"]
    built = evaluation(
        lambda b: b.motif[..., :1] * torch.tensor([1.0, 2.0]), table,
        data={"target_transform": "log1p"},
    )  # fmt: skip
    got = attribute(built, everything(built))
    one, two = (np.log1p(table[f"target_{name}"]) for name in ("plus", "minus"))
    each = (one.std(ddof=0) + 2 * two.std(ddof=0)) / 2
    np.testing.assert_allclose(
        got.integrated[:, 0], each * raw_over_sd(built, got)[:, 0], rtol=1e-3
    )


def test_neither_weights_nor_mode_change_and_the_rows_are_bounded(evaluation):
    built = evaluation(lambda b: b.motif[..., :1], task={"importance_rows": 7})
    built.model.train()
    got = attribute(built, everything(built))
    assert built.model.training
    assert built.model.scale.grad is None
    assert built.model.scale.requires_grad
    assert len(got.observation) == 7
    regions = built.data.region_index[got.observation]
    assert len(np.unique(regions)) == 3  # two regions under all three conditions, and one more


def test_the_effect_of_a_factor_is_its_weight_under_each_condition(evaluation):
    """motif_a acts everywhere, motif_b only at 37 °C; two versions of one factor are summed."""
    table = long_table(regions=12).rename(
        columns={"motif_a": "MA0001.1.XYZ", "motif_c": "XYZ_MA0001.2"}
    )
    table.loc[table.index % 12 != 3, "motif_b"] = 0.0
    weight = torch.tensor([2.0, 0.0, 0.5])

    def formula(b):
        hot = (b.condition_number[:, :1, None] > 0) * b.motif[..., 1:2]
        return (b.motif @ weight)[..., None] + 4 * hot

    built = evaluation(formula, table)
    effects = condition_effects(built, attribute(built, everything(built)))
    assert list(effects.columns) == ["factor", "condition", "effect", "regions"]
    assert len(effects) == 2 * 3
    wide = effects.pivot(index="factor", columns="condition", values="effect")
    sd = built.data.target.std()
    np.testing.assert_allclose(wide.loc["XYZ"], 2.5 * sd, rtol=1e-4)
    assert wide.loc["motif_b", "37 °C"] == pytest.approx(4 * sd, rel=1e-4)
    np.testing.assert_allclose(wide.loc["motif_b"].drop("37 °C"), 0, atol=1e-6)
    assert set(effects.loc[effects["factor"] == "motif_b", "regions"]) == {1}
    built.data.motif[:, built.data.motif_names.index("motif_b")] = 0
    bare = Evaluation(
        built.model, built.data, built.schema, built.settings, None, built.part,
        built.data.signature, "test", {}, None, None, 5,
    )  # fmt: skip
    effects = condition_effects(bare, attribute(bare, everything(bare)))
    assert effects.loc[effects["factor"] == "motif_b", "effect"].isna().all()
    assert effects.loc[effects["factor"] == "XYZ", "effect"].notna().all()


def test_the_top_rows_hold_the_largest_shares_with_raw_scores(evaluation, monkeypatch):
    monkeypatch.setattr("yeast_get.evaluation.attributions.TOP", 2)
    weight = torch.tensor([2.0, -1.0, 0.01])
    built = evaluation(lambda b: (b.motif @ weight)[..., None])
    got = attribute(built, everything(built))
    rows = top_rows(built, got)
    assert len(rows) == 2 * len(got.observation)
    size = rows["integrated_gradients"].abs().to_numpy().reshape(-1, 2)
    assert (size[:, 0] >= size[:, 1]).all()
    assert set(rows["feature"]) <= {"motif_a", "motif_b"}
    table = long_table(regions=12).drop_duplicates("region_id").set_index("region_id")
    expected = [table.loc[r, f] for r, f in zip(rows["region_id"], rows["feature"], strict=True)]
    np.testing.assert_allclose(rows["value"], expected, rtol=1e-6)
    assert pd.Series(rows["condition"].unique()).is_unique
