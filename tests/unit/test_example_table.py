"""The shipped example is what its generator and its README say it is."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

INPUT_DIR = Path(__file__).parents[2] / "input"
CSV_PATH = INPUT_DIR / "gsm_example_with_condition.csv"
CONDITION_COLUMNS = [
    "medium",
    "temperature",
    "preculture_time",
    "drug",
    "drug_concentration",
    "drug_time",
]


@pytest.fixture(scope="module")
def make_example():
    spec = importlib.util.spec_from_file_location("make_example", INPUT_DIR / "make_example.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def table(make_example):
    return make_example.read_table(CSV_PATH)


@pytest.fixture(scope="module")
def readme():
    return (INPUT_DIR / "README.md").read_text(encoding="utf-8")


def test_committed_file_is_what_the_generator_writes(make_example, tmp_path):
    path = tmp_path / "example.csv"
    make_example.main([str(path)])
    assert path.read_bytes() == CSV_PATH.read_bytes()


def test_file_is_small_enough_for_git(table):
    assert CSV_PATH.stat().st_size <= 1_000_000
    assert 2_000 <= len(table) <= 6_000


def test_conditions_are_distinct_and_some_have_replicates(table):
    samples = table[["sample_id", *CONDITION_COLUMNS]].drop_duplicates()
    assert samples["sample_id"].is_unique
    num_replicates = samples.groupby(CONDITION_COLUMNS, dropna=False).size()
    assert 10 <= len(num_replicates) <= 20
    assert (num_replicates > 1).sum() >= 2
    assert not table.duplicated(["peak_id", "sample_id"]).any()


def test_drug_and_dose_agree(table):
    without_drug = table[table["drug"] == "none"]
    with_drug = table[table["drug"] == "H2O2"]
    assert len(without_drug) + len(with_drug) == len(table)
    assert without_drug[["drug_concentration", "drug_time"]].isna().all(axis=None)
    assert (with_drug["drug_concentration"] > 0).all()


def test_regions_do_not_overlap_and_have_features_of_their_own(make_example, table):
    features = [*make_example.MOTIFS, "accessibility"]
    regions = table[["peak_id", *features]].drop_duplicates()
    assert regions["peak_id"].is_unique
    assert not regions[features].duplicated().any()

    place = regions["peak_id"].str.extract(r"^(chr[IVX]+)_(\d+)_(\d+)$")
    assert place.notna().all(axis=None)
    place = place.astype({1: int, 2: int}).sort_values([0, 1])
    previous_end = place.groupby(0)[2].shift().fillna(0)
    assert (place[1] > previous_end).all()
    assert (place[2] <= place[0].map(make_example.CHROMOSOME_BP)).all()


def test_residual_is_the_documented_noise(make_example, table, readme):
    residual = table["target"] - make_example.expected_target(table)
    assert residual.std() == pytest.approx(make_example.NOISE_SD, rel=0.03)
    assert f"SD {make_example.NOISE_SD:g}," in readme


def test_expected_target_of_one_row_by_hand(make_example, table):
    row = table.head(1).copy()
    row[make_example.MOTIFS] = 0.0
    row[make_example.RAP1] = 15.0  # present in full
    row[make_example.HSF1] = 6.0  # present by half
    row[make_example.YAP1] = 12.0
    row = row.assign(
        accessibility=0.5,
        medium="YPD",
        temperature=36.0,
        drug="H2O2",
        drug_concentration=0.0006,
    )
    by_hand = 5 + 2 * 0.5 + 0.85 * (2 + 3.5 * 0.5 * 0.5 + 3 * 0.75)
    assert make_example.expected_target(row).item() == pytest.approx(by_hand)


def test_inert_columns_do_not_enter_the_rule(make_example, table):
    changed = table.copy()
    changed[make_example.DECOY_MOTIFS] = 12.0
    changed[["preculture_time", "drug_time"]] = 1.0
    expected = make_example.expected_target(table)
    np.testing.assert_array_equal(make_example.expected_target(changed), expected)


def test_readme_states_the_best_possible_score(make_example, table, readme):
    stated = re.search(r"Best possible Pearson r: \*\*(0\.\d+)\*\*", readme)
    assert stated is not None
    assert float(stated[1]) == pytest.approx(make_example.best_possible_pearson(table), abs=0.002)


def test_readme_names_every_planted_motif_and_condition_column(make_example, readme):
    for name in [*make_example.PLANTED_MOTIFS, *CONDITION_COLUMNS]:
        assert f"`{name}`" in readme
