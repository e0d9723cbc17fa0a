"""Sweeps and knockouts: the grid is the table that a user would have written by hand."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import long_table
from yeast_get.config import settings_from_dict
from yeast_get.data.expression_data import load_expression_data
from yeast_get.data.features import FeatureSchema
from yeast_get.data.splits import NEW, TRAIN
from yeast_get.errors import ConfigError
from yeast_get.evaluation.condition_words import condition_words
from yeast_get.evaluation.evaluation import Evaluation
from yeast_get.evaluation.inference import predict
from yeast_get.evaluation.knockout import read_knockout, short_name
from yeast_get.evaluation.questions import read_questions
from yeast_get.evaluation.sweep import read_regions, read_sweep
from yeast_get.model.yeast_model import Ensemble, YeastModel
from yeast_get.run_dir import EVALUATE_FILES, RunDir

SMALL_MODEL = {
    "transformer": {"embed_dim": 16, "num_layers": 2, "num_heads": 2},
    "feature_encoders": {"embed_dim": 4},
    "fusion": {"kind": "film", "hidden_dim": 16},
    "head": {"hidden_dim": 16},
}


def six_samples(regions=12):
    table = long_table(regions)
    return table.assign(sample_id=np.repeat([f"s{k}" for k in range(6)], regions))


@pytest.fixture
def load(tmp_path):
    """Read a table as settings say."""

    def load(table, **sections):
        path = tmp_path / "t.csv"
        table.to_csv(path, index=False)
        sections["data"] = {"path": str(path), **sections.get("data", {})}
        settings = settings_from_dict({"model": SMALL_MODEL, **sections}, "x")
        return settings, load_expression_data(settings, need_target=False)

    return load


def random_model(settings, schema, seed=0):
    """A model in which every input counts."""
    model = YeastModel(settings.model, schema.sizes(), settings.data.regions_per_window)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.3)
    return model.eval()


@pytest.fixture
def asked(load):
    """A random model on a table, all of which it was trained on unless `part` says otherwise."""

    def asked(table=None, part=None, model=None, train=None, **sections):
        settings, data = load(six_samples() if table is None else table, **sections)
        everything = np.ones(data.num_observations, dtype=bool)
        schema = FeatureSchema.fit(data, everything if train is None else train(data), settings)
        return Evaluation(
            model=model or random_model(settings, schema),
            data=data,
            schema=schema,
            settings=settings,
            baselines=None,
            part=np.full(data.num_observations, TRAIN) if part is None else part(data),
            condition_key=data.signature,
            headline="all",
            overlap={},
            calibration=None,
            seen=None,
            batch_size=64,
        )

    return asked


@pytest.fixture
def run(tmp_path):
    run = RunDir(tmp_path / "eval", EVALUATE_FILES)
    run.start()
    return run


def axis(evaluation, *texts, base="s0", regions=None):
    return read_sweep(evaluation, texts, regions, base)


# --------------------------------------------------------------------------------------- parsing


@pytest.mark.parametrize(
    ("text", "base", "values"),
    [
        ("temperature=25:42:lin:18", "s0", np.linspace(25, 42, 18)),
        ("Temp = 25℃:315.15 K:lin:3", "s0", [25, 33.5, 42]),
        ("温度=77 °F:42:lin:2", "s0", [25, 42]),
        ("drug_concentration=1uM:10mM:log:5", "s4", [1e-6, 1e-5, 1e-4, 1e-3, 1e-2]),
        ("浓度=1e-6:0.01:log:5", "s4", [1e-6, 1e-5, 1e-4, 1e-3, 1e-2]),
        ("dose=0:2 mM:lin:3", "s4", [0, 1e-3, 2e-3]),
    ],
)
def test_a_range_is_read_as_cells_of_a_table_are(asked, text, base, values):
    (found,) = axis(asked(), text, base=base).axes
    np.testing.assert_allclose(found.values, values, rtol=1e-12)


def test_a_mass_per_volume_becomes_molar_by_the_drug_of_the_base(asked):
    molar_mass = {"drug_concentration": {"molar_mass": {"H2O2": 34.0}}}
    sweep = axis(asked(conditions=molar_mass), "dose=34mg/L:340mg/L:log:2", base="s4")
    np.testing.assert_allclose(sweep.axes[0].values, [1e-3, 1e-2])


def test_words_have_the_spelling_of_training(asked):
    evaluation = asked()
    assert axis(evaluation, "medium=all").axes[0].values.tolist() == ["SC", "YPD"]
    assert axis(evaluation, "medium=yepd,sc,YPD").axes[0].values.tolist() == ["YPD", "SC"]
    assert axis(evaluation, "drug=all").axes[0].values.tolist() == ["none", "H2O2"]
    both = axis(evaluation, "drug=all", "dose=1mM:2mM:lin:2")
    assert both.axes[0].values.tolist() == ["H2O2"]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["temperature"], "says no values"),
        (["temprature=25:42:lin:3"], "no growth condition; did you mean temperature?"),
        (["carbon_source=all"], "same or blank throughout training"),
        (["temperature=all"], "'all' is no range; write LOW:HIGH:lin:N"),
        (["temperature=25:42:sqrt:3"], "is no range"),
        (["temperature=25:42:lin:1"], "1 points; take 2 to 1000"),
        (["temperature=25:42:lin:100000"], "take 2 to 1000"),
        (["temperature=42:25:lin:3"], "42 is not below 25"),
        (["temperature=25:99:lin:3"], "99 degC is outside 0 to 60"),
        (["temperature=0:40:log:3"], "a log scale cannot begin at 0"),
        (["temperature=25mM:42:lin:3"], "is no unit of temperature"),
        (["temperature=x:42:lin:3"], "'x' is not a number for temperature"),
        (["temperature=NA:42:lin:3"], "an end of the range is blank"),
        (["temperature=20:40:lin:9", "temp=20:40:lin:3"], "both --sweep are of temperature"),
        (["medium=YPG"], "never seen the medium YPG; did you mean YPD?"),
        (["dose=1e-6:1e-2:log:5"], "give --base-sample of a sample with a drug, or --sweep drug="),
        (["drug=none", "dose=1e-6:1e-2:log:5"], "none has no dose"),
        (["drug=H2O2", "dose=1g/L:2g/L:log:5"], "molar mass"),
        (["medium=all", "drug=all", "temp=2:3:lin:2"], "--sweep is given 3 times"),
        (["temperature=20:40:lin:1000", "drug=all"], None),
        (["temperature=20:40:lin:1000", "preculture_time=1:3:lin:900"], "too many"),
    ],
)
def test_what_makes_no_sense_is_one_clear_line(asked, texts, said):
    table = six_samples()
    table["preculture_time"] = np.where(table["medium"] == "SC", 3.0, 4.0)
    evaluation = asked(table)
    if said is None:
        assert len(axis(evaluation, *texts).points) == 2000
        return
    with pytest.raises(ConfigError) as caught:
        axis(evaluation, *texts)
    assert len(caught.value.problems) == 1
    assert said in str(caught.value)


def test_a_number_that_never_varied_is_refused(asked):
    with pytest.raises(ConfigError, match="temperature was the same or blank throughout training"):
        axis(asked(six_samples().assign(temperature=30.0)), "temperature=25:42:lin:3")


def test_options_that_need_a_sweep(asked):
    with pytest.raises(ConfigError, match="--regions says where to --sweep"):
        read_questions(asked(), regions="chrI_1_501", knockout="a")
    with pytest.raises(ConfigError, match="--base-sample says where to --sweep"):
        read_questions(asked(), base_sample="s0")
    assert read_questions(asked()) == []


def test_regions_by_id_gene_or_file(load, tmp_path):
    table = six_samples()
    names = list(dict.fromkeys(table["region_id"]))
    table["gene_id"] = table["region_id"].map({n: f"Y{i // 2}" for i, n in enumerate(names)})
    _, data = load(table)
    assert read_regions(None, data).tolist() == list(range(12))
    assert read_regions(f"{names[3]}, Y0", data).tolist() == [0, 1, 3]
    file = tmp_path / "regions.txt"
    file.write_text(f"# of interest\n\n{names[7]}\n  Y1  \n")
    assert read_regions(str(file), data).tolist() == [2, 3, 7]
    with pytest.raises(ConfigError, match=r"holds no region or gene chrI_1_50; did you mean chrI_"):
        read_regions("chrI_1_50,Y1", data)
    file.write_text("# none\n")
    with pytest.raises(ConfigError, match="names no region"):
        read_regions(str(file), data)


def test_the_base_is_the_most_frequent_condition_of_the_training_rows(asked, caplog):
    """s0 and s1 are one condition, s2 and s3, s4 and s5; most training rows are of the last."""

    def mostly_last(data):
        train = (data.sample_index >= 4) | (data.region_index == 0)
        return np.where(train, TRAIN, NEW)

    def none(data):
        return np.full(data.num_observations, NEW)

    caplog.set_level(logging.INFO)
    table = six_samples()
    assert axis(asked(table, mostly_last), "medium=all", base=None).base == 4
    assert "training rows" in caplog.text
    assert "SC" not in caplog.messages[-1]  # the swept field is no part of the base
    assert "all else as in sample s4: 30 °C, H2O2 1 mM" in caplog.text
    fewer = table.drop(index=table.index[table["sample_id"].isin(["s1", "s4", "s5"])])
    assert axis(asked(fewer, none), "medium=all", base=None).base == 1  # s2, with its replicate
    with pytest.raises(ConfigError, match="holds no s9"):
        axis(asked(), "medium=all", base="s9")


# ---------------------------------------------------------------------------------------- grids


POINTS = [
    {"temperature": t, "medium": medium} for t in (28.0, 33.0, 38.0) for medium in ("SC", "YPD")
]


def by_hand(table, points, base):
    """The rows of a sweep as a user would have written them: region by region, all points."""
    rows = table[table["sample_id"] == base].drop(columns=["target", "sample_id"])
    points = pd.DataFrame(points).assign(sample_id=[f"p{k}" for k in range(len(points))])
    return rows.drop(columns=[c for c in points if c in rows]).merge(points, how="cross")


def predicted(evaluation, data):
    """The predictions of a table [N] in units of the input."""
    again = replace(evaluation, data=data, part=np.full(data.num_observations, NEW))
    y = predict(again.model, again.dataset, np.ones(data.num_observations, dtype=bool), 64)
    return evaluation.schema.to_input_units(y)[:, 0].astype(np.float32)


@pytest.mark.parametrize("window", [1, 4])
def test_a_sweep_equals_the_predictions_of_a_table_written_by_hand(asked, run, load, window):
    windows = {"regions_per_window": window}
    evaluation = asked(data=windows)
    axis(evaluation, "temperature=28:38:lin:3", "medium=all").answer(evaluation, run)
    said = pd.read_csv(run.sweep, dtype={"y_pred": np.float32})
    assert list(said) == [
        "region_id",
        "gene_id",
        "temperature",
        "medium",
        "y_pred",
        "extrapolated",
        "flags",
    ]
    _, data = load(by_hand(six_samples(), POINTS, "s0"), data=windows)
    assert said["region_id"].tolist() == data.region_id[data.region_index].tolist()
    for name in ("temperature", "medium"):
        assert said[name].tolist() == data.conditions[name].iloc[data.sample_index].tolist()
    np.testing.assert_array_equal(said["y_pred"], predicted(evaluation, data))
    assert said["y_pred"].nunique() == len(said) == 72


@pytest.mark.parametrize("window", [1, 4])
def test_chosen_regions_are_predicted_as_among_all(asked, run, window):
    evaluation = asked(data={"regions_per_window": window})
    axis(evaluation, "temperature=28:38:lin:3").answer(evaluation, run)
    everything = pd.read_csv(run.sweep)
    chosen = evaluation.data.region_id[[9, 2]]
    axis(evaluation, "temperature=28:38:lin:3", regions=",".join(chosen)).answer(evaluation, run)
    some = pd.read_csv(run.sweep)
    expected = everything[everything["region_id"].isin(chosen)]
    assert some["region_id"].tolist() == expected["region_id"].tolist()
    np.testing.assert_allclose(some["y_pred"], expected["y_pred"], rtol=1e-5)


def test_accessibility_is_that_of_the_base_sample(asked, run, load):
    table = six_samples()
    table["accessibility"] = np.random.default_rng(1).uniform(size=len(table)).round(3)
    evaluation = asked(table)
    axis(evaluation, "temperature=28:38:lin:3", base="s3").answer(evaluation, run)
    points = [{"temperature": t} for t in (28.0, 33.0, 38.0)]
    _, data = load(by_hand(table, points, "s3"))
    said = pd.read_csv(run.sweep, dtype={"y_pred": np.float32})
    np.testing.assert_array_equal(said["y_pred"], predicted(evaluation, data))


def test_flags_begin_right_outside_of_what_training_has_seen(asked, run, caplog):
    """Training has seen 30 to 37 °C, and H2O2 at 1 mM alone."""
    caplog.set_level(logging.INFO)
    evaluation = asked()
    axis(evaluation, "temperature=29:38:lin:10").answer(evaluation, run)
    said = pd.read_csv(run.sweep, keep_default_na=False)
    inside = said["temperature"].between(30, 37)
    assert (said["flags"][inside] == "").all()
    assert sorted(set(said["flags"][~inside])) == [
        "temperature outside training: 29", "temperature outside training: 38",
    ]  # fmt: skip
    assert "sweep: 2 of 10 points are outside of what training has seen" in caplog.text
    axis(evaluation, "dose=0:2mM:lin:3", base="s4").answer(evaluation, run)
    said = pd.read_csv(run.sweep, keep_default_na=False)
    flags = said.groupby("drug_concentration")["flags"].first().tolist()
    assert flags == ["", "", "drug_concentration outside training: 0.002"]


def test_drug_and_dose_agree_at_every_point(asked):
    """No drug is dose 0, dose 0 is no drug, and a drug in the place of none has no known dose."""
    evaluation = asked()
    instead_of_none = axis(evaluation, "drug=all").conditions
    assert instead_of_none["drug"].tolist() == ["none", "H2O2"]
    np.testing.assert_array_equal(instead_of_none["drug_concentration"], [0.0, np.nan])
    at_its_dose = axis(evaluation, "drug=all", base="s4").conditions
    np.testing.assert_array_equal(at_its_dose["drug_concentration"], [0.0, 1e-3])
    from_zero = axis(evaluation, "dose=0:1mM:lin:2", base="s4").conditions
    assert from_zero["drug"].tolist() == ["none", "H2O2"]


def test_of_an_ensemble_the_mean_and_the_spread_of_its_members(asked, run):
    single = asked()
    members = [random_model(single.settings, single.schema, seed) for seed in (1, 2, 3)]
    alone = []
    for member in members:
        each = replace(single, model=member)
        axis(each, "temperature=30:37:lin:2").answer(each, run)
        alone.append(pd.read_csv(run.sweep)["y_pred"])
    several = replace(single, model=Ensemble(members))
    axis(several, "temperature=30:37:lin:2").answer(several, run)
    said = pd.read_csv(run.sweep)
    np.testing.assert_allclose(said["y_pred"], np.mean(alone, axis=0), rtol=1e-5)
    np.testing.assert_allclose(said["y_std"], np.std(alone, axis=0, ddof=1), rtol=1e-4)


# ------------------------------------------------------------------------------------- knockouts


def test_a_knockout_equals_the_predictions_of_a_table_without_the_motif(asked, run, load):
    """Of a motif with gaps too: a score of zero is a score."""
    table = six_samples()
    first = table["region_id"].iloc[0]
    table.loc[table["region_id"] == first, "motif_b"] = np.nan
    evaluation = asked(table)
    before = evaluation.dataset.motif.clone()
    read_knockout(evaluation, "motif_a, B").answer(evaluation, run)
    assert torch.equal(evaluation.dataset.motif, before)
    said = pd.read_csv(run.knockout, dtype={"y_pred": np.float32, "y_knockout": np.float32})
    first_samples = ["s0", "s2", "s4"]
    rows = table[table["sample_id"].isin(first_samples)]
    keys = ["region_id", "sample_id"]
    for column, without in (("y_pred", {}), ("y_knockout", {"motif_a": 0.0, "motif_b": 0.0})):
        _, data = load(rows.assign(**without))
        expected = pd.DataFrame({
            "region_id": data.region_id[data.region_index],
            "sample_id": data.sample_id[data.sample_index], "y": predicted(evaluation, data),
        })  # fmt: skip
        both = said.rename(columns={"first_sample_id": "sample_id"}).merge(expected, on=keys)
        assert len(both) == len(said) == 36
        np.testing.assert_allclose(both[column], both["y"], rtol=1e-5)
    np.testing.assert_allclose(said["change"], said["y_knockout"] - said["y_pred"], atol=1e-6)
    assert (said["change"].abs() > 1e-4).all()
    words = said.groupby("first_sample_id")["condition"].first().tolist()
    assert words == ["30 °C, YPD", "37 °C", "H2O2 1 mM, SC"]


def test_regions_that_have_the_motif(asked):
    table = six_samples()
    names = list(dict.fromkeys(table["region_id"]))
    table["motif_a"] = table["region_id"].map({n: float(i in (2, 5)) for i, n in enumerate(names)})
    table["motif_b"] = table["region_id"].map({n: i + 1.0 for i, n in enumerate(names)})
    evaluation = asked(table)
    has, rule = read_knockout(evaluation, "A").carriers(evaluation)
    assert np.flatnonzero(has).tolist() == [2, 5]
    assert rule == "a score above 0"
    has, rule = read_knockout(evaluation, "motif_b").carriers(evaluation)
    assert np.flatnonzero(has).tolist() == [6, 7, 8, 9, 10, 11]
    assert "median" in rule


@pytest.mark.parametrize(
    ("motif", "factor"),
    [
        ("MA0415.1.YAP1", "YAP1"), ("MA0415.1_YAP1", "YAP1"), ("YAP1_MA0415.3", "YAP1"),
        ("motif_YAP1", "YAP1"), ("virtual_motif_7", "7"), ("score", "score"),
    ],
)  # fmt: skip
def test_the_factor_in_the_name_of_a_motif(motif, factor):
    assert short_name(motif) == factor


def test_a_factor_stands_for_all_versions_of_its_motif(asked):
    names = {"motif_a": "MA0341.1.MSN2", "motif_b": "MSN2_MA0341.2", "motif_c": "MA0342.1.MSN4"}
    evaluation = asked(six_samples().rename(columns=names))
    assert read_knockout(evaluation, "msn2").columns == [0, 1]
    assert read_knockout(evaluation, "MSN2_MA0341.2").columns == [1]
    assert read_knockout(evaluation, "MSN4,MSN2").columns == [0, 1, 2]
    with pytest.raises(ConfigError, match="no motif MSM4; did you mean MSN4?"):
        read_knockout(evaluation, "MSM4")
    with pytest.raises(ConfigError, match="names no motif"):
        read_knockout(evaluation, " ,")


def test_a_motif_that_training_could_not_learn_from_is_refused(asked):
    with pytest.raises(ConfigError, match="motif_c did not vary in training"):
        read_knockout(asked(six_samples().assign(motif_c=1.0)), "c")


# ----------------------------------------------------------------------------------------- words


def test_conditions_in_words(load):
    table = six_samples().assign(drug_time=1 / 3, ph=5.5, preculture_time=3.0, strain="BY4741")
    table.loc[table["sample_id"] == "s1", ["medium", "temperature"]] = None
    table.loc[table["sample_id"] == "s5", "strain"] = "W303"
    extra = {"ph": {"kind": "number"}, "strain": {"kind": "category"}}
    _, data = load(table, conditions={"extra": extra})
    words = condition_words(data.conditions, data.fields)
    assert words[4] == "SC, 30 °C, preculture 3 h, H2O2 1 mM, for 20 min, ph 5.5, BY4741"
    assert words[1] == "preculture 3 h, no drug, for 20 min, ph 5.5, BY4741"
    assert condition_words(data.conditions, data.fields[1:2])[1] == "nothing recorded"


def test_regions_by_a_long_list_an_id_with_a_comma_and_a_file_that_is_no_text(load, tmp_path):
    _, data = load(six_samples())
    every = [*data.region_id] * 30
    assert len(read_regions(",".join(every), data)) == data.num_regions
    data.region_id[0] = "chrI:1,000-2,000"
    assert read_regions("chrI:1,000-2,000", data).tolist() == [0]
    (tmp_path / "ids.txt").write_bytes("区域一\n".encode("gbk"))
    with pytest.raises(ConfigError, match="ids.txt: cannot be read as text"):
        read_regions(str(tmp_path / "ids.txt"), data)


def test_doses_of_nanomolar_are_told_apart_where_drugs_weigh_differently(load):
    molar = {"drug_concentration": {"molar_mass": {"A": 900, "H2O2": 6600}}}
    table = six_samples()
    table.loc[table["sample_id"] == "s3", ["drug", "drug_concentration"]] = ["A", 1e-3]
    settings, data = load(table, conditions=molar)
    schema = FeatureSchema.fit(data, np.ones(data.num_observations, dtype=bool), settings)
    evaluation = Evaluation(
        random_model(settings, schema), data, schema, settings, None,
        np.full(data.num_observations, TRAIN), data.signature, "all", {}, None, None, 64,
    )  # fmt: skip
    sweeps = ("drug=A,H2O2", "drug_concentration=1 ng/mL:5 ng/mL:lin:5")
    with pytest.raises(ConfigError, match="another dose for every drug"):
        read_sweep(evaluation, sweeps, None, None)
