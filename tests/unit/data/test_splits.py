"""Splits: groups never straddle, shares are met, and a checkpoint remembers its rows."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
import torch

from yeast_get.config import settings_from_dict
from yeast_get.data.expression_data import load_expression_data
from yeast_get.data.splits import (
    NEW,
    TEST,
    TRAIN,
    UNUSED,
    VAL,
    TrainedRows,
    conditions_line,
    make_split,
    region_groups,
    region_parts,
    split_line,
)
from yeast_get.errors import DataError

KINDS = ["region", "condition", "region_and_condition", "chromosome", "column", "random"]


def big_table(regions: int = 60, conditions: int = 24, replicates: int = 2) -> pd.DataFrame:
    """Regions on 12 chromosomes in replicated conditions, every region unlike the others."""
    region = np.arange(regions)
    chrom = [f"chr{i % 12:02d}" for i in region]
    each = pd.DataFrame(
        {
            "region_id": [f"{c}_{1000 * i + 1}_{1000 * i + 501}" for i, c in enumerate(chrom)],
            "motif_a": region / 10.0,
            "batch": [f"b{i % 10}" for i in region],
        }
    )
    samples = [
        each.assign(temperature=20.0 + c, sample_id=f"s{c}_{k}", target=each["motif_a"] + c)
        for c in range(conditions)
        for k in range(replicates)
    ]
    return pd.concat(samples, ignore_index=True)


@pytest.fixture
def load(tmp_path):
    """Load a table or a folder of tables with the description column `batch`."""

    def load(frame: pd.DataFrame, **data):
        path = tmp_path / "t.csv"
        frame.to_csv(path, index=False)
        values = {
            "path": str(path),
            "drop_missing_target": True,
            "description_columns": ["batch"],
            **data,
        }
        return load_expression_data(settings_from_dict({"data": values}, "x"))

    return load


@pytest.fixture
def data(load):
    return load(big_table())


def config(by: str = "region", **split):
    if by == "column":
        split.setdefault("column", "batch")
    return settings_from_dict({"split": {"by": by, **split}}, "x").split


def group_of(data, by: str) -> list[np.ndarray]:
    """What must not straddle two parts, per observation."""
    region, signature = data.region_index, data.signature[data.sample_index]
    pair = np.array([f"{r}/{s}" for r, s in zip(region, signature, strict=True)])
    return {
        "region": [region], "condition": [signature], "random": [pair],
        "region_and_condition": [pair, region, signature],
        "chromosome": [data.chrom[region].astype(str)],
        "column": [data.column("batch").astype(str)],
    }[by]  # fmt: skip


def parts_by_group(group: np.ndarray, part: np.ndarray) -> pd.Series:
    """The set of parts that each group has rows in, `unused` left out."""
    used = part != UNUSED
    return pd.Series(part[used]).groupby(group[used]).agg(set)


# --------------------------------------------------------------------------------- every kind


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("by", KINDS)
def test_no_group_is_in_two_parts(data, by, seed):
    part = make_split(data, config(by, seed=seed))
    for group in group_of(data, by):
        assert parts_by_group(group, part).map(len).max() == 1
    assert {TRAIN, VAL, TEST} <= set(part.tolist())


@pytest.mark.parametrize("fractions", [[0.7, 0.15, 0.15], [0.5, 0.2, 0.3]])
@pytest.mark.parametrize("by", ["region", "condition", "chromosome", "column", "random"])
def test_every_part_comes_near_its_share(data, by, fractions):
    part = make_split(data, config(by, fractions=fractions))
    largest = max(np.unique(group_of(data, by)[0], return_counts=True)[1]) / len(part)
    got = np.bincount(part, minlength=5) / len(part)
    np.testing.assert_allclose(got[:3], fractions, atol=1.01 * largest)
    assert got[3:].sum() == 0


@pytest.mark.parametrize("by", KINDS)
def test_the_same_seed_gives_the_same_split_and_another_seed_another(data, by):
    splits = [make_split(data, config(by, seed=seed)).tolist() for seed in (3, 3, 4)]
    assert splits[0] == splits[1] != splits[2]


def test_the_global_random_state_is_neither_used_nor_moved(data):
    np.random.seed(1)  # noqa: NPY002
    first = make_split(data, config())
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    assert make_split(data, config()).tolist() == first.tolist()
    np.random.seed(1)  # noqa: NPY002
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


def test_groups_of_unequal_size_fill_the_shares_in_observations(load):
    table = big_table()
    keep = (table["region_id"].str.slice(0, 5) != "chr00") | table["sample_id"].isin(["s0_0"])
    part = make_split(load(table[keep]), config("region"))
    np.testing.assert_allclose(np.bincount(part) / len(part), [0.7, 0.15, 0.15], atol=0.02)


def test_test_cells_of_region_and_condition_are_new_in_both(data):
    part = make_split(data, config("region_and_condition"))
    for code in (VAL, TEST):
        for of in (data.region_index, data.signature[data.sample_index]):
            assert not set(of[part == TRAIN]) & set(of[part == code])
    assert (part == UNUSED).any()
    both = (part != UNUSED).mean()
    assert both == pytest.approx(0.7**2 + 2 * 0.15**2, abs=0.06)


@pytest.mark.parametrize("by", KINDS)
def test_rows_without_a_measured_target_are_unused(load, by):
    table = big_table()
    blank = np.arange(len(table)) % 3 == 0
    table.loc[blank, "target"] = np.nan
    part = make_split(load(table), config(by))
    assert (part[blank] == UNUSED).all()
    if by != "region_and_condition":
        assert (part[~blank] != UNUSED).all()


@pytest.mark.parametrize(
    ("by", "rows", "said"),
    [
        (
            "region",
            lambda t: t["motif_a"] < 0.15,
            "split.by: region leaves test without a measured",
        ),
        (
            "condition",
            lambda t: t["temperature"] < 21,
            "split.by: condition leaves val and test with",
        ),
        ("chromosome", lambda t: t["region_id"] < "chr02", "chromosome leaves test without"),
        ("column", lambda t: t["batch"] == "b0", "split.by: column leaves val and test without"),
        ("random", lambda t: (t["motif_a"] < 0.15) & (t["temperature"] < 21), "random leaves test"),
        ("region_and_condition", lambda t: t["motif_a"] < 0.15, "leaves test without a measured"),
    ],
)
def test_too_few_groups_are_an_error(load, by, rows, said):
    table = big_table()
    data = load(table[rows(table)])
    with pytest.raises(
        DataError, match=rf"t.csv: .*{said}.*too few groups for it; split in another"
    ):
        make_split(data, config(by))


# ------------------------------------------------------------------------------- region groups


def test_regions_with_identical_feature_rows_are_one_group(load):
    table = big_table()
    number = table["region_id"].str.extract(r"_(\d+)_")[0].astype(int) // 1000
    twin = table.assign(motif_a=(number // 2) / 10.0)
    data = load(twin)
    groups = region_groups(data)
    assert len(set(groups)) == 30
    assert (groups[0::2] == groups[1::2]).all()
    part = make_split(data, config())
    assert parts_by_group(groups[data.region_index], part).map(len).max() == 1
    by_access = load(twin.assign(accessibility=number / 100.0))
    assert len(set(region_groups(by_access))) == 60  # alike in motifs, not in accessibility


def test_missing_scores_are_alike(load):
    table = big_table(4, 3)
    table.loc[table["motif_a"] < 0.15, "motif_a"] = np.nan
    groups = region_groups(load(table))
    assert groups[0] == groups[1]
    assert len(set(groups)) == 3


@pytest.mark.parametrize(
    ("places", "together"),
    [
        (["c_100_200", "c_140_300"], True),  # 60 of 100
        (["c_100_200", "c_150_300"], False),  # exactly half
        (["c_100_200", "c_160_300"], False),
        (["c_100_200", "d_100_200"], False),  # another chromosome
        (["c_0_1000", "c_400_420"], True),  # all of the shorter
        (["c_140_300", "c_100_200"], True),  # in any order of rows
        (["c_0_1000", "c_100_110", "c_900_1100"], False),  # the third by half only
    ],
)
def test_regions_that_overlap_by_more_than_half_of_the_shorter_are_one_group(
    load, places, together
):
    table = pd.DataFrame(
        {"region_id": places, "motif_a": np.arange(len(places)), "target": 1.0, "batch": "b"}
    )
    groups = region_groups(load(table))
    assert (groups[0] == groups[-1]) is np.bool_(together)


def test_overlaps_chain(load):
    places = ["c_0_100", "c_40_140", "c_80_180", "c_500_600"]
    table = pd.DataFrame({"region_id": places, "motif_a": range(4), "target": 1.0, "batch": "b"})
    groups = region_groups(load(table))
    assert groups[0] == groups[1] == groups[2] != groups[3]


# --------------------------------------------------------------------------------- named groups


@pytest.mark.parametrize("by", ["chromosome", "column"])
def test_groups_named_for_test_and_val_are_exactly_those(data, by):
    names, values = (data.chrom[data.region_index], ["chr03", "chr07", "chr01"])
    if by == "column":
        names, values = data.column("batch"), ["b3", "b7", "b1"]
    part = make_split(data, config(by, test=values[:2], val=values[2:]))
    assert set(names[part == TEST]) == set(values[:2])
    assert set(names[part == VAL]) == set(values[2:])
    assert not (part == UNUSED).any()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("named", ["test", "val"])
def test_where_one_part_is_named_the_other_is_dealt_out_of_the_rest(data, named, seed):
    code, other = (TEST, VAL) if named == "test" else (VAL, TEST)
    part = make_split(data, config("chromosome", seed=seed, **{named: ["chr03"]}))
    chrom = data.chrom[data.region_index]
    assert set(chrom[part == code]) == {"chr03"}
    assert len(set(chrom[part == other])) in (2, 3)  # 0.15 / 0.85 of 11
    assert parts_by_group(chrom.astype(str), part).map(len).max() == 1


def test_a_named_group_that_is_not_there_is_refused(data):
    said = (
        r"t.csv, column chrom: split names chrX, which chrom does not hold; it holds chr00, chr01"
    )
    with pytest.raises(DataError, match=said):
        make_split(data, config("chromosome", test=["chr03", "chrX"]))


def test_a_column_of_parts_is_the_split(load):
    table = big_table()
    words = np.array(["train", "val", "test", "unused"])[np.arange(len(table)) % 4]
    part = make_split(load(table.assign(batch=words)), config("column"))
    assert part.tolist() == [i % 4 for i in range(len(table))]
    named = make_split(
        load(table.assign(batch=words)), config("column", test=["train"], val=["val"])
    )
    assert set(words[named == TEST]) == {"train"}  # names that are given outright win


def test_a_condition_can_be_the_column(data):
    part = make_split(data, config("column", column="temperature", test=["20"], val=["21"]))
    temperature = data.conditions["temperature"].to_numpy()[data.sample_index]
    assert set(temperature[part == TEST]) == {20.0}
    assert set(temperature[part == VAL]) == {21.0}


def test_a_column_with_blank_cells_or_that_is_not_there_is_refused(load):
    table = big_table()
    table.loc[:4, "batch"] = None
    with pytest.raises(DataError, match=r"column batch: 5 observations have no batch, by which"):
        make_split(load(table), config("column"))
    with pytest.raises(DataError, match=r"t.csv: has no column 'nix'; known: batch"):
        make_split(load(table), config("column", column="nix"))
    table["region_id"] = "r" + table["region_id"].str.replace("_", "")
    with pytest.raises(DataError, match=r"2880 observations have no chrom"):
        make_split(load(table), config("chromosome"))


# ------------------------------------------------------------------------------------ sentences


@pytest.mark.parametrize(
    ("by", "shares"),
    [("region", ("0.0%", "100.0%", "0.0%")), ("condition", ("100.0%", "0.0%", "0.0%")),
     ("region_and_condition", ("0.0%", "0.0%", "0.0%")), ("random", ("100.0%", "100.0%", "0.0%"))],
)  # fmt: skip
def test_the_line_says_what_of_the_test_rows_is_known_from_training(data, by, shares):
    line = split_line(data, make_split(data, config(by)), config(by))
    assert line.startswith(f"split by {by}: train ")
    assert "48 samples of 24 conditions" in line
    expected = "{} have their region in training, {} their condition, {} the very pair of the two"
    assert line.endswith(expected.format(*shares))
    assert ("left out" in line) is (by == "region_and_condition")


def test_samples_without_conditions_are_counted_apart(load):
    table = big_table(4, 3)
    table.loc[table["sample_id"].str.startswith("s0"), "temperature"] = np.nan
    said = "6 samples of 2 conditions (2 samples without a recorded one)"
    assert conditions_line(load(table)) == said


# ----------------------------------------------------------------------------------- TrainedRows


def as_folder(tmp_path, table):
    """The table as a data folder, loaded."""
    folder = tmp_path / "folder"
    folder.mkdir()
    table[["region_id", "motif_a"]].drop_duplicates().to_csv(folder / "regions.csv", index=False)
    table[["sample_id", "temperature"]].drop_duplicates().to_csv(
        folder / "samples.csv", index=False
    )
    wide = table.pivot(index="region_id", columns="sample_id", values="target").reset_index()
    wide.to_csv(folder / "expression.csv", index=False)
    return load_expression_data(settings_from_dict({"data": {"path": str(folder)}}, "x"))


def key(data) -> list[tuple]:
    return list(
        zip(data.region_id[data.region_index], data.sample_id[data.sample_index], strict=True)
    )


@pytest.mark.parametrize("by", KINDS)
def test_the_parts_of_a_shuffled_table_are_those_of_the_split(load, data, by):
    part = make_split(data, config(by))
    trained = TrainedRows.of(data, part)
    assert trained.parts_of(data).tolist() == part.tolist()
    shuffled = load(big_table().sample(frac=1, random_state=0))
    remembered = dict(zip(key(data), part.tolist(), strict=True))
    assert trained.parts_of(shuffled).tolist() == [remembered[each] for each in key(shuffled)]


def test_the_parts_of_a_folder_are_found_in_a_long_table_and_back(load, data, tmp_path):
    folder = as_folder(tmp_path, big_table())
    assert folder.is_grid
    part = make_split(folder, config("random"))
    trained = TrainedRows.of(folder, part)
    assert trained.cell is None
    remembered = dict(zip(key(folder), part.tolist(), strict=True))
    assert trained.parts_of(data).tolist() == [remembered[each] for each in key(data)]
    assert trained.parts_of(folder).tolist() == part.tolist()


def test_relabelled_samples_are_known_by_their_signature(load, data):
    part = make_split(data, config("condition"))
    table = big_table()
    other = load(table.assign(sample_id="x" + table["sample_id"]))
    assert TrainedRows.of(data, part).parts_of(other).tolist() == part.tolist()


def test_a_replicate_of_a_trained_row_counts_as_trained(load, data):
    part = np.full(data.num_observations, TEST, dtype=np.uint8)
    part[0] = TRAIN  # one replicate of the first region in the first condition
    other = load(big_table().head(60).assign(sample_id="x"))
    got = TrainedRows.of(data, part).parts_of(other)
    assert got.tolist() == [TRAIN] + [TEST] * 59


def test_new_regions_and_new_conditions_are_new(load, data):
    part = make_split(data, config())
    table = big_table().head(60)
    table.loc[0, "region_id"] = "chr00_7_8"
    table.loc[10:, ["temperature", "sample_id"]] = [55.0, "x"]
    got = TrainedRows.of(data, part).parts_of(load(table))
    assert got.tolist() == [NEW, *part[1:10].tolist(), *[NEW] * 50]


def test_the_overlap_is_counted_in_rows_regions_and_conditions(load, data):
    part = np.where(data.region_index < 40, TRAIN, TEST).astype(np.uint8)
    part[data.sample_index == 0] = VAL
    part[data.sample_index == 1] = VAL  # so that the first condition is not trained on
    table = big_table()
    table.loc[table["sample_id"] == "s2_0", ["temperature", "sample_id"]] = [59.0, "x"]
    other, rows = load(table), TrainedRows.of(data, part)
    overlap = rows.overlap(other, rows.parts_of(other))
    assert overlap == {
        "rows": 2880,
        "rows_by_part": {"train": 45 * 40, "val": 120, "test": 45 * 20, "unused": 0, "new": 60},
        "regions": 60,
        "regions_in_training": 40,
        "conditions": 25,
        "conditions_in_training": 23,
        "conditions_compared_by": ["temperature"],
    }


def test_one_more_or_one_fewer_condition_column_hides_no_training_row(load, data):
    part = make_split(data, config())
    rows = TrainedRows.of(data, part)
    more = load(big_table().assign(carbon_source="glucose", drug="none", drug_concentration=0))
    assert rows.parts_of(more).tolist() == part.tolist()
    fewer = rows.parts_of(load(big_table().drop(columns="temperature")))
    assert (fewer[part == TRAIN] == TRAIN).all()


def test_the_same_sample_id_under_other_conditions_is_another_sample(load, data):
    part = make_split(data, config())
    table = big_table()
    table["temperature"] = 59.5
    assert (TrainedRows.of(data, part).parts_of(load(table)) == NEW).all()


def test_a_blank_cell_that_is_filled_in_later_is_what_its_replicates_are(load):
    table = big_table()
    filled = load(table)
    table.loc[:4, "target"] = np.nan
    blank = load(table)
    rows = TrainedRows.of(blank, make_split(blank, config("condition")))
    assert (rows.parts_of(blank)[:5] == UNUSED).all()
    later = rows.parts_of(filled)
    expected = make_split(blank, config("condition"))
    assert UNUSED not in later
    assert (later[5:] == expected[5:]).all()


@pytest.mark.parametrize("grid", [False, True])
def test_trained_rows_travel_through_a_weights_only_checkpoint(data, tmp_path, grid):
    if grid:
        data = as_folder(tmp_path, big_table())
    part = make_split(data, config())
    file = io.BytesIO()
    torch.save(TrainedRows.of(data, part).to_dict(), file)
    file.seek(0)
    back = TrainedRows.from_dict(torch.load(file, weights_only=True))
    assert back.parts_of(data).tolist() == part.tolist()
    assert (back.cell is None) is grid


def test_few_rows_of_many_regions_and_samples_take_memory_for_the_rows(data):
    """10 ** 12 places, of which the table fills a few hundred."""
    part, more = make_split(data, config()), torch.arange(10**6)
    values = TrainedRows.of(data, part).to_dict()
    blank = torch.zeros(len(more), values["field_hash"].shape[1], dtype=torch.int64)
    region, sample = values["cell"] // data.num_samples, values["cell"] % data.num_samples
    values |= {
        "region_hash": torch.cat([values["region_hash"], more]),
        "sample_hash": torch.cat([values["sample_hash"], more]),
        "field_hash": torch.cat([values["field_hash"], blank]),
        "cell": region * (data.num_samples + len(more)) + sample,
    }
    assert TrainedRows.from_dict(values).parts_of(data).tolist() == part.tolist()


def test_remembered_rows_hold_no_targets_and_no_names(data):
    values = TrainedRows.of(data, make_split(data, config())).to_dict()
    assert set(values) == {
        "region_hash", "sample_hash", "field_names", "field_hash", "part", "cell",
    }  # fmt: skip
    assert values.pop("field_names") == list(data.conditions.columns)
    assert all(not value.is_floating_point() for value in values.values())


def test_baselines_know_a_condition_that_fits_only_one_of_training(load, data):
    rows = TrainedRows.of(data, make_split(data, config()))
    more = load(big_table().assign(carbon_source="glucose"))
    assert (rows.condition_key(more) == data.signature).all()
    assert (more.signature != data.signature).all()


# ------------------------------------------------------------------- regions for pretraining


@pytest.mark.parametrize("by", ["region", "region_and_condition", "chromosome"])
def test_regions_have_the_part_that_a_later_training_gives_them(load, by):
    data = load(big_table())
    config = settings_from_dict({"split": {"by": by, "seed": 3}}, "x").split
    parts, later = region_parts(data, config), make_split(data, config)
    known = later != UNUSED
    assert (parts[data.region_index][known] == later[known]).all()
    assert set(parts.tolist()) == {TRAIN, VAL, TEST}


def test_a_column_of_regions_holds_them_out_and_one_of_samples_does_not(load):
    data = load(big_table())
    values = {"by": "column", "column": "batch", "test": ["b3"], "val": ["b4"]}
    config = settings_from_dict({"split": values}, "x").split
    batch = np.array([f"b{i % 10}" for i in range(60)])
    parts = region_parts(data, config)
    assert (parts == TEST).tolist() == (batch == "b3").tolist()
    assert (parts == VAL).tolist() == (batch == "b4").tolist()
    for split in ({"by": "condition"}, {"by": "random"}, {"by": "column", "column": "sample_id"}):
        of_samples = settings_from_dict({"split": split}, "x").split
        of_regions = settings_from_dict({"split": {"by": "region"}}, "x").split
        assert (region_parts(data, of_samples) == region_parts(data, of_regions)).all()


def test_regions_without_expression_have_a_part_too(load):
    table = big_table()
    table["target"] = np.nan
    data = load(table.drop(columns="target").assign(target=np.nan))
    parts = region_parts(data, settings_from_dict({}, "x").split)
    assert set(parts.tolist()) == {TRAIN, VAL, TEST}
