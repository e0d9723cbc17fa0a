"""FeatureSchema: fitted on training rows alone, applied to any table by name."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
import torch

from yeast_get.config import settings_from_dict
from yeast_get.data.expression_data import load_expression_data
from yeast_get.data.features import FeatureSchema, _bins
from yeast_get.errors import DataError

# Four regions in two samples; the last region and the second sample are not for training.
TABLE = pd.DataFrame(
    {
        "region_id": ["c_0_9", "c_10_19", "c_20_29", "c_30_39"] * 2,
        "motif_a": [1.0, 2.0, 6.0, 50.0] * 2,
        "motif_b": [np.nan, 4.0, 8.0, 70.0] * 2,
        "motif_c": [5.0, 5.0, 5.0, 9.0] * 2,
        "gc": [0.2, 0.4, 0.6, 0.9] * 2,
        "accessibility": [0.1, 0.2, 0.6, 0.9] * 2,
        "sample_id": ["s1"] * 4 + ["s2"] * 4,
        "medium": ["YPD"] * 4 + ["SC"] * 4,
        "temperature": [30.0] * 4 + [40.0] * 4,
        "drug": ["H2O2"] * 4 + ["CHX"] * 4,
        "drug_concentration": [1e-3] * 4 + [1e-6] * 4,
        "drug_time": [0.5] * 4 + [2.0] * 4,
        "target": [1.0, 2.0, 6.0, 100.0, 200.0, 300.0, 400.0, 500.0],
    }
)
TRAIN = np.array([True, True, True, False, False, False, False, False])


@pytest.fixture
def load(tmp_path):
    def load(table=TABLE, need_target=True, **sections):
        path = tmp_path / "t.csv"
        table.to_csv(path, index=False)
        sections["data"] = {
            "path": str(path), "drop_missing_target": True, "region_feature_columns": ["gc"],
            **sections.get("data", {}),
        }  # fmt: skip
        settings = settings_from_dict(sections, "x")
        return load_expression_data(settings, need_target), settings

    return load


@pytest.fixture
def fit(load):
    """A schema and its table."""

    def fit(table=TABLE, train=TRAIN, **sections):
        data, settings = load(table, **sections)
        return FeatureSchema.fit(data, train, settings), data

    return fit


# ------------------------------------------------------------------------------ training rows only


def test_nothing_of_a_row_that_is_not_for_training_enters_the_schema(fit):
    changed = TABLE.copy()
    held_out = changed["region_id"] == "c_30_39"
    numbers = ["motif_a", "motif_b", "motif_c", "gc", "accessibility"]
    changed.loc[held_out, numbers] = [-9, np.nan, 3, np.nan, np.nan]
    second = changed["sample_id"] == "s2"
    changed.loc[second, ["medium", "temperature", "drug"]] = ["other", 22.0, "new"]
    changed.loc[second, ["drug_concentration", "drug_time"]] = [0.5, 9.0]
    changed.loc[~TRAIN, "target"] = 1e4
    known = {"model": {"region_identity": {"enabled": True}}}
    schema, _ = fit(**known)
    assert schema == fit(changed, **known)[0]
    assert all((schema.known_regions, schema.known_samples, schema.encoding, schema.usual))
    changed.loc[0, "target"] = 3.0
    assert fit()[0] != fit(changed)[0]


def test_vocabularies_are_those_of_training_samples(fit):
    schema, _ = fit()
    assert schema.categories == {"medium": ["YPD"]}  # what is recorded nowhere has no vocabulary
    assert schema.drug_vocabulary == ["H2O2"]
    schema, _ = fit(train=np.ones(8, dtype=bool))
    assert schema.categories["medium"] == ["SC", "YPD"]
    assert schema.drug_vocabulary == ["CHX", "H2O2"]


def test_sizes_are_what_the_schema_holds(fit):
    schema, _ = fit(model={"region_identity": {"enabled": True}})
    sizes = schema.sizes()
    assert sizes.region_features == 4 + 1  # and the presence bit of motif_b
    assert sizes.accessibility == 1
    assert sizes.numbers == ["temperature", "drug_time", "elapsed time"]  # what was recorded
    assert sizes.categories == {"medium": 2}
    assert (sizes.drugs, sizes.drug_vocabulary) == (["drug"], 3)
    assert (sizes.targets, sizes.known_regions) == (1, 3)
    assert (sizes.known_conditions, sizes.known_samples) == (1, 1)
    assert sizes.encoding == schema.encoding
    assert sizes.steps == []


# ---------------------------------------------------------------------------------- regions

SD = np.std([1, 2, 6])  # around a mean of 3


@pytest.mark.parametrize(
    ("scale", "motif_a", "motif_b", "motif_c", "accessibility"),
    [
        ("none", [1, 2, 6, 50], [6, 4, 8, 70], [0, 0, 0, 0], [0.1, 0.2, 0.6, 0.9]),
        ("max", [1 / 6, 1 / 3, 1, 50 / 6], [0.75, 0.5, 1, 8.75], [0, 0, 0, 0],
         [1 / 6, 1 / 3, 1, 1.5]),
        ("standard", [-2 / SD, -1 / SD, 3 / SD, 47 / SD], [0, -1, 1, 32], [0, 0, 0, 0],
         np.array([-2, -1, 3, 6]) / SD),
    ],
)  # fmt: skip
def test_region_features_are_scaled_by_hand(fit, scale, motif_a, motif_b, motif_c, accessibility):
    """motif_c did not vary in training, which could teach nothing about it: always 0."""
    schema, data = fit(data={"motif_scale": scale})
    got = schema.region_inputs(data)
    gc = (np.array([0.2, 0.4, 0.6, 0.9]) - 0.4) / np.std([0.2, 0.4, 0.6])  # always standardised
    present = [0, 1, 1, 1]  # of motif_b, whose gap is filled by the mean
    expected = np.array([motif_a, motif_b, motif_c, gc, present]).T
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6)
    got = schema.accessibility_inputs(data)
    assert got.shape == (4, 1, 1)
    np.testing.assert_allclose(got[:, 0, 0], accessibility, rtol=2e-5, atol=2e-6)


def test_a_gap_that_training_did_not_have_is_the_mean_without_a_presence_column(fit, load):
    schema, _ = fit()
    gap = TABLE.copy()
    gap.loc[[0, 4], ["motif_a", "accessibility"]] = np.nan
    data, _ = load(gap)
    assert schema.region_inputs(data)[0, 0] == pytest.approx(0, abs=1e-6)
    assert schema.accessibility_inputs(data)[0].tolist() == [[pytest.approx(0, abs=1e-6)]]
    assert schema.region_inputs(data).shape == (4, 5)


def test_accessibility_per_cell_with_gaps_has_a_presence_bit_before_the_value(fit):
    table = TABLE.copy()
    table["accessibility"] = [np.nan, 1.0, 3.0, 9.0, 5.0, 3.0, 3.0, 7.0]
    schema, data = fit(table, data={"motif_scale": "none"})
    got = schema.accessibility_inputs(data)
    assert got.shape == (4, 2, 2)
    assert got[:, :, 0].tolist() == [[0, 1], [1, 1], [1, 1], [1, 1]]
    assert got[:, :, 1].tolist() == [
        [2, 5],
        [1, 3],
        [3, 3],
        [9, 7],
    ]  # the gap: the mean of what is trained on
    assert schema.sizes().accessibility == 2


def test_a_table_without_accessibility_has_an_input_without_columns(fit):
    schema, data = fit(TABLE.drop(columns="accessibility"))
    assert schema.accessibility_inputs(data).shape == (4, 1, 0)
    assert schema.sizes().accessibility == 0


def test_the_absent_motif_is_what_a_score_of_zero_becomes(fit, load):
    zero = TABLE.assign(motif_a=0.0, motif_b=0.0, motif_c=0.0)
    for scale in ("none", "max", "standard"):
        schema, _ = fit(data={"motif_scale": scale})
        absent = schema.absent_motif()
        np.testing.assert_allclose(
            absent[:2], schema.region_inputs(load(zero)[0])[0, :2], rtol=1e-5
        )
        # motif_c did not vary in training; gc and the presence bit are no motifs
        assert np.isnan(absent[2:]).all()


def test_features_are_matched_by_name_and_not_by_order(fit, load):
    schema, data = fit()
    shuffled, _ = load(TABLE[list(reversed(TABLE.columns))].assign(motif_new=1.0))
    assert shuffled.motif_names == ["motif_c", "motif_b", "motif_a", "motif_new"]
    assert schema.region_inputs(shuffled).tolist() == schema.region_inputs(data).tolist()


def test_a_table_that_lacks_a_feature_of_the_model_is_refused(fit, load):
    schema, _ = fit()
    data, _ = load(TABLE.drop(columns=["motif_a", "gc", "accessibility"]).assign(motif_x=1))
    with pytest.raises(DataError) as caught:
        schema.need_columns(data)
    assert [str(each).split("t.csv: ")[1] for each in caught.value.problems] == [
        "lacks 2 of the 4 region features, which the model was trained on: motif_a, gc; add these "
        "columns; it has motif_x, which the model does not know",
        "has no accessibility, which the model was trained on; add the column accessibility",
    ]


@pytest.mark.parametrize(
    "model",
    [
        {"region_identity": {"enabled": True}},
        {"region_identity": {"enabled": True}, "fusion": {"kind": "film"}},
    ],
)
def test_known_regions_have_an_identity_and_others_are_zero(fit, load, model):
    schema, data = fit(model=model)
    assert schema.region_vocab(data).tolist() == [1, 2, 3, 0]
    backwards, _ = load(TABLE.iloc[::-1])
    assert schema.region_vocab(backwards).tolist() == [0, 3, 2, 1]
    for by in ("region", "chromosome", "region_and_condition", "random", "condition"):
        again = by in ("random", "condition")  # where factors meet known regions again
        assert any(fit(split={"by": by})[0].region_vocab(data)) == again
        assert not any(fit(split={"by": by}, model={"fusion": {"kind": "film"}})[0].known_regions)
        never = {"region_identity": {"enabled": False}}
        assert not fit(split={"by": by}, model=never)[0].known_regions


# --------------------------------------------------------------------------------- encoding

VARIED = pd.DataFrame(
    {
        "region_id": [f"c_{100 * i}_{100 * i + 9}" for i in range(80)],
        "motif_a": np.random.default_rng(0).normal(size=80).round(3),
        "motif_b": np.where(np.arange(80) < 40, 0.0, np.arange(80) / 10),  # half of it is absent
        "motif_c": 5.0,
        "gc": np.arange(80) % 2 / 2,
        "accessibility": np.linspace(0.1, 0.9, 80),
        "target": np.arange(80.0),
    }
)
ALL = np.ones(80, dtype=bool)


def bins_of(schema: FeatureSchema, column: int) -> np.ndarray:
    """Lower and upper end, mean and SD of the bins of a column [n,4]."""
    return np.array([row[1:] for row in schema.encoding if row[0] == column])


def test_a_column_is_encoded_as_a_whole_and_by_its_quantiles(fit):
    schema, data = fit(VARIED, ALL, model={"region_embed": {"bins": 4}})
    values = schema.region_inputs(data)[:, 0].astype(np.float64)
    bins = bins_of(schema, 0)
    ends = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(bins[0, :2], [values.min(), values.max()], rtol=1e-6)
    np.testing.assert_allclose(bins[1:, 0], ends[:-1], rtol=1e-5)
    np.testing.assert_allclose(bins[1:, 1], ends[1:], rtol=1e-5)
    reach = np.clip((values[:, None] - bins[:, 0]) / (bins[:, 1] - bins[:, 0]), 0, 1)
    np.testing.assert_allclose(bins[:, 2], reach.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(bins[:, 3], reach.std(axis=0), rtol=1e-6)
    access = bins_of(schema, 4)  # after the four region features, since there is no presence bit
    np.testing.assert_allclose(access[:2, :2], [[-1.7109, 1.7109], [-1.7109, -0.8555]], rtol=1e-3)


def test_a_sparse_column_has_a_bin_for_the_step_from_its_smallest_value(fit):
    schema, data = fit(VARIED, ALL, model={"region_embed": {"bins": 16}})
    values = schema.region_inputs(data)[:, 1].astype(np.float64)
    absent, least, most = values[0], values[40], values[79]
    middle = np.median(values[40:])
    expected = [[absent, most], [absent, least], [least, middle], [middle, most]]
    np.testing.assert_allclose(bins_of(schema, 1)[:, :2], expected, rtol=1e-5)
    assert len(bins_of(schema, 0)) == 17  # what is not sparse has them all
    few = VARIED.assign(motif_b=np.where(np.arange(80) < 20, 0.0, VARIED["motif_a"] + 5))
    assert len(bins_of(fit(few, ALL, model={"region_embed": {"bins": 16}})[0], 1)) > 10


def test_two_values_are_one_bin_and_one_value_is_none(fit):
    schema, data = fit(VARIED, ALL)
    values = schema.region_inputs(data)
    low, high = values[:2, 3]
    np.testing.assert_allclose(bins_of(schema, 3), [[low, high, 0.5, 0.5]], rtol=1e-6)
    assert not len(bins_of(schema, 2))


def test_a_bin_in_which_next_to_nothing_varies_is_left_out():
    rare = np.zeros(2_000_000)
    rare[:1] = 1.0
    assert _bins(0, rare, 24) == []
    rare[:4] = 1.0
    assert _bins(0, rare, 24) == [[0.0, 0.0, 1.0, 2e-6, pytest.approx(2e-6**0.5, rel=1e-5)]]


def test_no_bins_and_no_accessibility_need_no_encoding_of_them(fit):
    assert fit(VARIED, ALL, model={"region_embed": {"bins": 0}})[0].encoding == []
    schema, _ = fit(VARIED.drop(columns="accessibility"), ALL)
    assert {row[0] for row in schema.encoding} == {0, 1, 3}


def test_the_bins_of_accessibility_per_cell_come_from_cells_that_are_trained_on(fit):
    table = TABLE.assign(accessibility=[0.1, 0.2, 0.6, 0.9, 0.3, 0.3, 0.3, 0.3])
    train = np.array([True, True, True, False, True, False, False, False])
    changed = table.copy()
    changed.loc[[3, 5, 6, 7], "accessibility"] = [50.0, 60.0, 70.0, 80.0]
    schema, _ = fit(table, train)
    assert max(row[0] for row in schema.encoding) == schema.sizes().region_features
    assert schema.encoding == fit(changed, train)[0].encoding
    changed.loc[4, "accessibility"] = 0.5
    assert schema.encoding != fit(changed, train)[0].encoding


# ------------------------------------------------------------------------------- conditions


def make_samples(**columns) -> pd.DataFrame:
    """Two regions in a sample per word of each column, without replicates that are unasked for."""
    number = len(next(iter(columns.values())))
    names = columns.pop("sample_id", [f"s{i}" for i in range(number)])
    rows = pd.DataFrame({"sample_id": names, **columns})
    regions = TABLE.loc[:1, ["region_id", "motif_a", "motif_b", "motif_c", "gc"]]
    table = rows.merge(regions, how="cross")
    return table.assign(target=np.arange(len(table)) + 1.0)


def trained_on(*samples: int, of: int) -> np.ndarray:
    return np.repeat(np.isin(np.arange(of), samples), 2)


def test_the_usual_is_the_commonest_of_training_samples(fit):
    table = make_samples(
        medium=["SC", "SC", "YPD", "YPD", "YPD"],
        temperature=[30.0, 30.0, 37.0, 42.0, 42.0],
        drug_time=[1.0, 1.0, 1.0, 2.0, 2.0],
    )
    schema, _ = fit(table, trained_on(0, 1, 2, of=5))
    assert schema.usual == {"medium": "SC"}
    temperature, time, _ = schema.numbers
    assert (temperature["usual"], time["usual"]) == (30.0, 0.0)  # no time at all is usual
    scales = schema.sizes().number_scales[:2]
    mean, sd = np.mean([30, 30, 37]), np.std([30, 30, 37])
    np.testing.assert_allclose(scales, [[mean, sd, (30 - mean) / sd], [np.log10(61), 0, 0]])


def test_other_than_usual_is_another_word_or_any_drug_and_no_blank(fit):
    drugs = ["none", "H2O2", "CHX", None, "H2O2"]
    table = make_samples(medium=["YPD", "YPD", "ypd ", "SC", None], drug=drugs)
    schema, data = fit(table, trained_on(0, 1, of=5))
    assert schema.sample_inputs(data).other.tolist() == [[0, 0], [0, 1], [0, 1], [1, 0], [0, 1]]


def test_a_step_is_from_a_number_of_the_pre_culture_to_that_of_the_culture(fit):
    table = make_samples(
        preculture_temperature=[25.0, 30.0], temperature=[30.0, 37.0], preculture_time=[1.0, 2.0],
        drug_time=[1.0, 3.0],
    )  # fmt: skip
    sizes = fit(table, trained_on(0, 1, of=2))[0].sizes()
    named = [[sizes.numbers[i] for i in pair] for pair in sizes.steps]
    assert named == [["temperature", "preculture_temperature"]]
    alone = fit(table.drop(columns="temperature"), trained_on(0, 1, of=2))[0].sizes()
    assert alone.steps == []


def test_a_time_since_a_treatment_is_not_one_of_the_pre_culture(fit):
    table = make_samples(preculture_time=[1.0, 2.0], temperature=[30.0, 37.0], drug_time=[1.0, 3.0])
    sizes = fit(table, trained_on(0, 1, of=2))[0].sizes()
    assert [sizes.numbers[j] for j in sizes.since] == ["drug_time"]


TIMES = make_samples(
    preculture_time=[1.0, None, 3.0, 72.0, 1.0],
    drug_time=[None, None, None, 0.5, 9.0],
    rest_time=[None, None, None, None, 9.0],
)
REST = {"extra": {"rest_time": {"kind": "time"}}}


def test_the_elapsed_time_is_that_of_a_treatment_or_else_of_the_pre_culture(fit):
    """It is read of fields that training lacks too, on the scale of those that it has."""
    schema, data = fit(TIMES, trained_on(0, 1, 2, of=5), conditions=REST)
    assert schema.time_fields == ["drug_time", "rest_time", "preculture_time"]
    assert [each["name"] for each in schema.numbers] == ["preculture_time", "elapsed time"]
    inputs = schema.sample_inputs(data)
    minutes = np.log10(1 + 60 * np.array([1.0, np.nan, 3.0, 0.5, 9.0]))
    known = minutes[[0, 2]]
    expected = np.nan_to_num((minutes - known.mean()) / known.std())
    np.testing.assert_allclose(inputs.number[:, 1], expected, rtol=1e-6)
    assert inputs.present[:, 1].tolist() == [1, 0, 1, 1, 1]


def test_a_table_without_times_or_a_model_that_reads_fields_apart_has_no_elapsed_time(fit):
    assert fit(TABLE.drop(columns="drug_time"))[0].time_fields == []
    assert fit(model={"fusion": {"kind": "film"}})[0].time_fields == []
    normalized = {"drug_time": {"unit": "normalized"}}
    assert fit(conditions=normalized)[0].time_fields == []


def test_a_time_outside_training_is_flagged_once_by_the_field_that_it_stands_in(fit):
    schema, data = fit(TIMES, trained_on(0, 1, 2, of=5), conditions=REST)
    assert schema.flags(data).tolist() == [
        "", "", "", "preculture_time outside training: 72; drug_time outside training: 0.5",
        "drug_time outside training: 9",
    ]  # fmt: skip
    assert schema.unseen(data) == [
        "preculture_time is outside the 1 to 3 of training in 1 sample",
        "drug_time was recorded nowhere in training and counts as elapsed time alone",
        "rest_time was recorded nowhere in training and counts as elapsed time alone",
    ]
    schema, data = fit(TIMES, trained_on(0, 1, 3, of=5), conditions=REST)
    assert schema.flags(data)[4] == "drug_time outside training: 9"


def test_a_table_needs_the_fields_of_times_that_were_trained_on_and_no_elapsed_time(fit, load):
    schema, _ = fit(TIMES, trained_on(0, 1, 2, of=5), conditions=REST)
    schema.need_columns(load(TIMES.drop(columns=["drug_time", "rest_time"]))[0])
    without = TIMES.drop(columns=["preculture_time", "rest_time"])
    with pytest.raises(DataError, match="no column preculture_time, which"):
        schema.need_columns(load(without)[0])


def test_the_fields_that_numbers_are_made_of_are_learned_where_one_of_them_varied(fit):
    table = TIMES.assign(temperature=[30.0] * 8 + [37.0] * 2)
    schema, _ = fit(table, trained_on(0, 1, 2, of=5), conditions=REST)
    times = dict.fromkeys(schema.time_fields, True)
    assert schema.fields_of_numbers() == {"temperature": False, **times}


REPLICATES = make_samples(
    medium=["YPD", "YPD", "SC", "SC", "YPD"], temperature=[30.0, 30.0, 30.0, 30.0, 37.0]
)


def test_a_sample_is_known_by_its_name_in_its_condition(fit, load):
    schema, data = fit(REPLICATES, trained_on(0, 2, 4, of=5))
    assert schema.sample_vocab(data, schema.sample_inputs(data)).tolist() == [1, 0, 2, 0, 3]
    assert (schema.known_conditions, len(schema.known_samples)) == (3, 3)
    other = make_samples(
        sample_id=["s4", "s0", "s2", "new"],
        medium=["YPD", "SC", "SC", "YPD"],
        temperature=[37.0, 30.0, 30.0, 30.0],
    )
    again = load(other)[0]
    assert schema.sample_vocab(again, schema.sample_inputs(again)).tolist() == [3, 0, 2, 0]
    film, _ = fit(REPLICATES, trained_on(0, 2, of=5), model={"fusion": {"kind": "film"}})
    assert film.sample_vocab(data, film.sample_inputs(data)).tolist() == [0] * 5
    assert (film.known_conditions, film.known_samples) == (0, [])


def test_distinct_conditions_are_those_of_some_samples_and_code_all_of_them(fit):
    schema, data = fit(REPLICATES, trained_on(0, 1, 2, 3, 4, of=5))
    inputs = schema.sample_inputs(data)
    first, code = inputs.distinct(np.array([1, 3, 0]))
    assert first.tolist() == [1, 3]
    assert code.tolist() == [0, 0, 1, 1, -1]
    assert schema.known_conditions == 3
    rows = inputs.rows()
    assert rows.dtype == np.float64
    parts = (inputs.number, inputs.present, inputs.category, inputs.other, inputs.drug, inputs.dose)
    assert rows.shape == (5, sum(each.shape[1] for each in parts))
    assert (rows[0] == rows[1]).all()
    assert [(rows[0] != row).any() for row in rows[2:]] == [True] * 3


@pytest.mark.parametrize("field", ["number", "present", "category", "other", "drug", "dose"])
def test_conditions_that_differ_in_any_part_are_distinct(fit, field):
    inputs = fit(TABLE, np.ones(8, dtype=bool))[0].sample_inputs(fit()[1])
    for name in ("number", "present", "category", "other", "drug", "dose"):
        getattr(inputs, name)[:] = 1
    assert inputs.distinct(np.arange(2))[1].tolist() == [0, 0]
    getattr(inputs, field)[1, 0] = 2
    assert inputs.distinct(np.arange(2))[1].tolist() == [0, 1]


def test_numbers_are_standardised_and_times_enter_as_log_minutes(fit):
    schema, data = fit(train=np.ones(8, dtype=bool))
    inputs = schema.sample_inputs(data)
    at = schema.sizes().numbers.index
    np.testing.assert_allclose(inputs.number[:, at("temperature")], [-1, 1])  # mean 35, SD 5
    np.testing.assert_allclose(inputs.number[:, at("drug_time")], [-1, 1], rtol=1e-6)
    (time,) = [each for each in schema.numbers if each["name"] == "drug_time"]
    assert time["mean"] == pytest.approx((np.log10(31) + np.log10(121)) / 2)
    assert time["sd"] == pytest.approx((np.log10(121) - np.log10(31)) / 2)


def test_normalized_times_may_be_negative_and_are_not_put_on_a_log_scale(fit):
    table = TABLE.assign(drug_time=[-1.5] * 4 + [0.5] * 4)
    conditions = {"drug_time": {"unit": "normalized"}}
    schema, data = fit(table, np.ones(8, dtype=bool), conditions=conditions)
    at = schema.sizes().numbers.index("drug_time")
    assert schema.sample_inputs(data).number[:, at].tolist() == [-1, 1]


def test_what_was_not_recorded_is_zero_and_absent(fit, load):
    schema, _ = fit(train=np.ones(8, dtype=bool))
    table = TABLE.copy()
    table.loc[:3, ["temperature", "medium", "drug", "drug_concentration"]] = None
    inputs = schema.sample_inputs(load(table)[0])
    at = schema.sizes().numbers.index("temperature")
    assert inputs.number[:, at].tolist() == [0, 1]
    assert inputs.present[:, at].tolist() == [0, 1]
    assert inputs.category[:, 0].tolist() == [0, 1]
    assert inputs.drug[:, 0].tolist() == [0, 2]
    assert inputs.dose[0, 0] == -1
    other = [i for i, name in enumerate(schema.sizes().numbers) if name.startswith("preculture")]
    assert inputs.present[:, other].sum() == 0
    no_columns = schema.sample_inputs(load(TABLE.drop(columns=["temperature", "medium"]))[0])
    assert no_columns.present[:, at].tolist() == [0, 0]
    assert no_columns.category[:, 0].tolist() == [0, 0]


def test_a_number_that_is_constant_in_training_is_ignored_and_said(fit):
    schema, data = fit()  # only 30 degrees in training
    at = schema.sizes().numbers.index("temperature")
    assert schema.sample_inputs(data).number[:, at].tolist() == [0, 0]
    assert (
        "temperature was 30 throughout training; that it differs in 1 sample is ignored"
        in schema.unseen(data)
    )


def test_numbers_outside_the_training_range_and_fields_new_to_the_model_are_said(fit, load):
    schema, _ = fit(train=np.ones(8, dtype=bool))
    other, _ = load(TABLE.assign(temperature=45.0, preculture_time=3.0, carbon_source="glucose"))
    assert schema.unseen(other) == [
        "temperature is outside the 30 to 40 of training in 2 samples",
        "preculture_time was recorded nowhere in training and counts as elapsed time alone",
        "carbon_source was recorded nowhere in training and is ignored",
    ]


def test_the_scale_of_accessibility_per_cell_comes_from_cells_that_are_trained_on(fit):
    table = TABLE.assign(accessibility=[0.1, 0.2, 0.6, 0.9, 0.3, 0.3, 0.3, 0.3])
    changed = table.copy()
    changed.loc[4:, "accessibility"] = [50.0, np.nan, 70.0, 80.0]
    assert fit(table)[0].accessibility == fit(changed)[0].accessibility


def test_a_normalized_dose_enters_as_it_is(fit):
    conditions = {"drug_concentration": {"unit": "normalized"}}
    table = TABLE.assign(drug="H2O2", drug_concentration=[0.3] * 4 + [0.7] * 4)
    schema, data = fit(table, conditions=conditions)
    assert schema.sample_inputs(data).dose[:, 0].tolist() == pytest.approx([0.3, 0.7])


def test_categories_and_drugs_that_training_did_not_have_are_unknown_and_named(fit):
    schema, data = fit()
    inputs = schema.sample_inputs(data)
    assert inputs.category[:, 0].tolist() == [1, 0]
    assert inputs.drug[:, 0].tolist() == [2, 0]
    assert inputs.dose[:, 0].tolist()[1] == -1  # a dose of a drug that means nothing
    assert [line for line in schema.unseen(data) if "unknown" in line] == [
        "medium: SC in 1 sample was never seen in training and counts as unknown",
        "drug: CHX in 1 sample was never seen in training and counts as unknown",
    ]
    assert fit(train=np.ones(8, dtype=bool))[0].unseen(data) == []


def test_words_of_another_table_match_whatever_their_case(fit, load):
    schema, data = fit(train=np.ones(8, dtype=bool))
    lower = TABLE.assign(medium=TABLE["medium"].str.lower(), drug=TABLE["drug"].str.lower())
    other, _ = load(lower)
    for name in ("category", "drug", "dose", "other"):
        got, expected = (getattr(schema.sample_inputs(each), name) for each in (other, data))
        assert got.tolist() == expected.tolist()
    assert schema.unseen(other) == []


def test_the_usual_word_is_usual_whatever_its_case(fit, load):
    schema, _ = fit(
        make_samples(carbon_source=["Mine", "Mine", "Yours"]), trained_on(0, 1, 2, of=3)
    )
    other, _ = load(make_samples(carbon_source=["mine", "yours", "MINE"]))
    assert schema.sample_inputs(other).other[:, 0].tolist() == [0, 1, 0]


def dose_by_hand(molar: float, c0: float) -> float:
    return np.log10(1 + molar / c0) / np.log10(1 + 1 / c0)


@pytest.mark.parametrize(
    ("c0", "references"),
    [(None, (1e-9, 1e-9)), (1e-6, (1e-6, 1e-6)), ({"H2O2": 1e-3}, (1e-3, 1e-9)),
     ({"h2o2": 1e-3, "CHX": 1e-7}, (1e-3, 1e-7))],
)  # fmt: skip
def test_doses_are_encoded_by_the_formula_with_the_reference_of_their_drug(fit, c0, references):
    conditions = {} if c0 is None else {"drug_concentration": {"c0": c0}}
    schema, data = fit(train=np.ones(8, dtype=bool), conditions=conditions)
    got = schema.sample_inputs(data).dose[:, 0]
    expected = [dose_by_hand(c, ref) for c, ref in zip((1e-3, 1e-6), references, strict=True)]
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_one_molar_is_dose_one_and_no_drug_is_dose_zero(fit):
    table = TABLE.assign(drug=["H2O2"] * 4 + ["none"] * 4, drug_concentration=[1.0] * 4 + [0.0] * 4)
    schema, data = fit(table)
    inputs = schema.sample_inputs(data)
    assert inputs.drug[:, 0].tolist() == [2, 1]
    assert inputs.dose[:, 0].tolist() == [1, 0]
    assert not any(line.startswith("drug:") for line in schema.unseen(data))  # "none" is no word


@pytest.mark.parametrize("drop", [False, True])
def test_no_drug_is_dose_zero_also_where_there_is_no_dose_column_or_field(fit, drop):
    table = TABLE.drop(columns="drug_concentration").assign(drug=["H2O2"] * 4 + ["none"] * 4)
    schema, data = fit(table, conditions={"drug_concentration": {"drop": drop}})
    assert schema.sample_inputs(data).dose[:, 0].tolist() == [-1, 0]


# --------------------------------------------------------------------------------- targets

TRANSFORMS = {
    "none": lambda y: y, "log1p": np.log1p, "log2p1": lambda y: np.log2(1 + y),
    "log10p1": lambda y: np.log10(1 + y),
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMS)
def test_targets_are_transformed_standardised_and_brought_back(fit, name):
    schema, data = fit(data={"target_transform": name})
    z = schema.to_model(data.target)
    transformed = TRANSFORMS[name](data.target.astype(np.float64))
    train = transformed[:3]
    np.testing.assert_allclose(z, (transformed - train.mean()) / train.std(), rtol=1e-5)
    assert z.dtype == np.float32
    np.testing.assert_allclose(schema.to_input_units(z), data.target, rtol=1e-4)


def test_targets_that_were_not_measured_stay_so_and_are_left_out_of_the_fit(fit):
    table = TABLE.copy()
    table.loc[2, "target"] = np.nan
    schema, data = fit(table)
    assert schema.target_mean == [1.5]
    assert schema.target_sd == [0.5]
    assert np.isnan(schema.to_model(data.target)[2, 0])


def test_each_strand_has_a_scale_of_its_own(fit):
    table = TABLE.rename(columns={"target": "target_plus"}).assign(
        target_minus=[0.0, 10, 20] + [5] * 5
    )
    schema, data = fit(table)
    assert schema.target_names == ["plus", "minus"]
    assert schema.target_mean == [3, 10]
    np.testing.assert_allclose(schema.to_model(data.target)[:3].mean(axis=0), 0, atol=1e-6)
    back = schema.to_input_units(schema.to_model(data.target))
    np.testing.assert_allclose(back, data.target, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("loss", ["mse", "poisson"])
def test_rates_are_not_standardised(fit, loss):
    sections = {
        "model": {"head": {"kind": "get"}, "fusion": {"kind": "film"}},
        "training": {"loss": loss},
    }
    schema, data = fit(**sections)
    assert (schema.target_mean, schema.target_sd) == ([0], [1])
    np.testing.assert_array_equal(schema.to_model(data.target), data.target)


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"data": {"target_transform": "log1p"}}, "data.target_transform: log1p"),
        ({"model": {"head": {"kind": "get"}, "fusion": {"kind": "film"}}}, "model.head.kind: get"),
    ],
)
def test_negative_targets_are_refused_where_they_cannot_be_taken(fit, sections, reason):
    table = TABLE.copy()
    table.loc[[5, 6], "target"] = [-2.5, -1.0]  # also where they are not for training
    said = (
        rf"t.csv, row 7: 2 targets are below zero \(the first is -2.5\), which {reason} cannot take"
    )
    with pytest.raises(DataError, match=said):
        fit(table, **sections)
    assert fit(table)[0].target_mean == [3]


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_targets_that_are_all_alike_are_refused(fit, value):
    with pytest.raises(DataError, match=r"t.csv: all training targets are the same number"):
        fit(TABLE.assign(target=value))


# -------------------------------------------------------------------------------- travelling


def test_a_schema_travels_through_a_weights_only_checkpoint(fit):
    schema, data = fit(
        train=np.ones(8, dtype=bool),
        model={"region_identity": {"enabled": True}},
        conditions={"drug_concentration": {"c0": {"H2O2": 1e-3}}},
        data={"target_transform": "log1p"},
    )
    file = io.BytesIO()
    torch.save(schema.to_dict(), file)
    file.seek(0)
    back = FeatureSchema.from_dict(torch.load(file, weights_only=True))
    assert back == schema
    assert len(back.known_samples) == back.known_conditions == 2
    assert back.encoding
    assert back.usual == {"medium": "SC"}
    assert back.region_inputs(data).tolist() == schema.region_inputs(data).tolist()
    assert back.sample_inputs(data).dose.tolist() == schema.sample_inputs(data).dose.tolist()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("encoding", [[0.0, 0.0, 1.0, 0.5]], "encoding.0: List should have at least 5 items"),
        ("encoding", [[0.0, 0.0, 1.0, 0.5, 0.1, 9.0]], "encoding.0: List should have at most 5"),
        ("encoding", [[6.0, 0.0, 1.0, 0.5, 0.1]], "a column that is not there"),
        ("encoding", [[-1.0, 0.0, 1.0, 0.5, 0.1]], "a column that is not there"),
        ("encoding", [[0.0, 1.0, 1.0, 0.5, 0.1]], "or has no width"),
        ("encoding", [[0.0, 0.0, 1.0, 0.5, 0.0]], "a scale is not above zero"),
        ("encoding", [[0.0, 0.0, 1.0, float("nan"), 0.1]], "not finite"),
        ("encoding", [["motif_a", 0.0, 1.0, 0.5, 0.1]], "encoding.0.0: "),
        ("known_conditions", -1, "known_conditions: "),
        ("known_conditions", 10**12, "more known conditions than known samples"),
        ("known_samples", ["s1"], "known_samples.0: "),
        ("usual", {"strain": "BY4741"}, "usual words are of other fields"),
        ("usual", {"medium": 3}, "usual.medium: "),
    ],
)
def test_what_no_table_teaches_is_refused(fit, name, value, said):
    stored = fit()[0].to_dict()
    FeatureSchema.from_dict(stored)
    with pytest.raises(ValueError, match=said):
        FeatureSchema.from_dict(stored | {name: value})


@pytest.mark.parametrize("usual", [float("nan"), float("inf"), "30"])
def test_a_usual_number_that_is_none_is_refused(fit, usual):
    stored = fit()[0].to_dict()
    stored["numbers"][0]["usual"] = usual
    with pytest.raises(ValueError, match="finite|usual"):
        FeatureSchema.from_dict(stored)


def test_a_schema_of_before_the_factors_has_none_of_their_fields(fit):
    stored = fit()[0].to_dict()
    for name in ("encoding", "known_conditions", "known_samples", "usual"):
        del stored[name]
    for each in stored["numbers"]:
        del each["usual"]
    sizes = FeatureSchema.from_dict(stored).sizes()
    assert (sizes.encoding, sizes.known_conditions, sizes.known_samples) == ([], 0, 0)
    assert sizes.region_features == 5


def test_accessibility_that_did_not_vary_in_training_is_ignored_and_said(fit, load):
    schema, _ = fit(TABLE.assign(accessibility=0.5))
    other, _ = load(TABLE.drop(columns="motif_c"))
    with pytest.raises(DataError, match="lacks 1 of the 4 region features"):
        schema.need_columns(other)
    said = schema.unseen(other)  # the constant column that is missing is no reason to fail
    assert "the same throughout training, though not here: accessibility" in said[0]
    assert not schema.accessibility_inputs(other).any()


# ------------------------------------------------------------------- from a pretrained model

INHERITED = {
    "names": ["MOTIF_A", "gc", "motif_b (present)", "accessibility", "motif_c"],
    "center": [3.0, 0.5, 0.0, 0.25, 1.0],
    "offset": [1.0, 0.5, 0.0, 0.1, 0.0],
    "scale": [2.0, 0.1, 1.0, 0.5, float("inf")],
}


def test_the_input_columns_are_those_of_the_batch_in_its_order(fit):
    table = TABLE.copy()
    table.loc[[1, 5], "accessibility"] = np.nan
    schema, data = fit(table)
    columns = schema.input_columns()
    assert columns["names"] == [
        "motif_a", "motif_b", "motif_c", "gc", "motif_b (present)", "accessibility (present)",
        "accessibility",
    ]  # fmt: skip
    inputs = np.concatenate(
        [schema.region_inputs(data), schema.accessibility_inputs(data)[:, 0]], axis=1
    )
    assert len(columns["scale"]) == inputs.shape[1]
    offset, scale = np.array(columns["offset"]), np.array(columns["scale"])
    raw = np.column_stack([data.motif, inputs[:, 4:6], data.accessibility])
    known = ~np.isnan(raw)
    np.testing.assert_allclose(inputs[known], ((raw - offset) / scale)[known], rtol=1e-5, atol=1e-6)


def test_columns_of_a_pretrained_model_keep_its_scales(load):
    data, settings = load()
    plain = FeatureSchema.fit(data, TRAIN, settings)
    schema = FeatureSchema.fit(data, TRAIN, settings, INHERITED)
    assert schema.offset == [1.0, plain.offset[1], 0.0, 0.5]
    assert schema.scale == [2.0, plain.scale[1], float("inf"), 0.1]
    assert schema.center == [3.0, plain.center[1], 1.0, 0.5]
    assert schema.accessibility == {"center": 0.25, "offset": 0.1, "scale": 0.5, "presence": 0.0}
    assert schema.constant == plain.constant == ["motif_c"]


def test_a_presence_column_of_a_pretrained_model_comes_back_without_gaps(load):
    data, settings = load(TABLE.fillna({"motif_b": 1.0}))
    assert FeatureSchema.fit(data, TRAIN, settings).with_presence == []
    schema = FeatureSchema.fit(data, TRAIN, settings, INHERITED)
    assert schema.with_presence == [1]
    assert (schema.region_inputs(data)[:, -1] == 1).all()


@pytest.mark.parametrize(
    ("motif_scale", "seen"), [("max", [1.0, 1.0]), ("none", [5.0, 0.7]), ("standard", [0.0, 0.0])]
)
def test_a_constant_column_is_worth_something_to_a_model_that_knows_its_name(
    load, motif_scale, seen
):
    """GET calls an accessibility of 1 everywhere binary, and its weights use it."""
    data, settings = load(TABLE.assign(accessibility=0.7), data={"motif_scale": motif_scale})
    names = {"names": ["motif_c", "accessibility"]}
    schema = FeatureSchema.fit(data, TRAIN, settings, names)
    shown = [schema.region_inputs(data)[0, 2], schema.accessibility_inputs(data)[0, 0, 0]]
    np.testing.assert_allclose(shown, seen, rtol=1e-6)
    unknown = FeatureSchema.fit(data, TRAIN, settings)
    assert unknown.region_inputs(data)[0, 2] == unknown.accessibility_inputs(data)[0, 0, 0] == 0
    assert schema.constant == unknown.constant == ["motif_c", "accessibility"]


def test_without_targets_a_schema_is_fitted_all_the_same(load):
    data, settings = load(TABLE.drop(columns="target"), need_target=False)
    schema = FeatureSchema.fit(data, TRAIN, settings, with_target=False)
    assert (schema.target_mean, schema.target_sd) == ([0.0], [1.0])
    assert schema.motif_names == ["motif_a", "motif_b", "motif_c"]
