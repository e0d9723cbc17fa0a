"""Windows and batches: everything once, nothing across chromosomes, noise that repeats."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import long_table
from yeast_get.batch import CONDITION_FIELDS, Batch, rows_of
from yeast_get.config import AugmentationConfig, settings_from_dict
from yeast_get.data.expression_data import load_expression_data, regions_only
from yeast_get.data.features import FeatureSchema
from yeast_get.data.yeast_dataset import (
    EpochSampler,
    MaskedRegionDataset,
    WindowPlan,
    YeastDataset,
    batches,
)
from yeast_get.errors import DataError


@pytest.fixture
def load(tmp_path):
    """A table and a schema fitted on all of its rows."""

    def load(table: pd.DataFrame, **sections):
        path = tmp_path / "t.csv"
        table.to_csv(path, index=False)
        told = {"path": str(path), "drop_missing_target": True}
        settings = settings_from_dict({**sections, "data": told}, "x")
        data = load_expression_data(settings)
        return data, FeatureSchema.fit(data, data.measured, settings)

    return load


@pytest.fixture
def made(load):
    """40 regions on two chromosomes in 6 samples, with unmeasured and absent cells, shuffled."""
    return load(make_table())


@pytest.fixture
def made_per_region(load):
    """The same, with one accessibility per region."""
    return load(make_table(per_cell=False))


def make_table(per_cell: bool = True) -> pd.DataFrame:
    table = long_table().assign(sample_id=np.repeat([f"s{i}" for i in range(6)], 40))
    table.loc[::7, "target"] = np.nan
    if per_cell:
        table.loc[::11, "accessibility"] += 0.001
    return table.drop(index=table.index[5::13]).sample(frac=1, random_state=0)


def make_augmentation(**values) -> AugmentationConfig:
    return AugmentationConfig.model_validate({"condition_dropout": 0.0, **values})


def all_batches(dataset: YeastDataset, size: int = 16, rng=None, workers: int = 0) -> list[Batch]:
    sampler = EpochSampler(len(dataset), size, rng)
    return [whole(batch) for batch in batches(dataset, sampler, workers)]


def whole(batch: Batch) -> Batch:
    """The same batch, each window with rows of its own."""
    return batch.of_windows(torch.arange(len(batch)))


def by_cell(data, parts: list[Batch], name: str) -> dict:
    """A field of every real region, by region and sample."""
    out = {}
    for batch in parts:
        values = getattr(batch, name)
        for b, r in batch.region_mask.nonzero().tolist():
            observation = int(batch.observation_index[b, r])
            out[observation] = values[b, r].tolist() if values.ndim > 2 else values[b].tolist()
    return out


# ----------------------------------------------------------------------------- one region each


def test_a_batch_of_single_regions_is_the_direct_look_up(made):
    data, schema = made
    dataset = YeastDataset(data, schema)
    wanted = np.arange(data.num_observations) % 3 > 0
    dataset.use(wanted)
    at = np.flatnonzero(wanted)[[5, 0, 40]]
    batch = whole(dataset[np.array([5, 0, 40])])
    region, sample, inputs = (
        data.region_index[at],
        data.sample_index[at],
        schema.sample_inputs(data),
    )
    measured = ~np.isnan(data.target[at])
    expected = {
        "motif": schema.region_inputs(data)[region][:, None],
        "accessibility": schema.accessibility_inputs(data)[region, sample][:, None],
        "region_mask": np.ones((3, 1), bool),
        "region_index": region[:, None],
        "region_vocab": schema.region_vocab(data)[region][:, None],
        "condition_number": inputs.number[sample],
        "condition_present": inputs.present[sample],
        "condition_category": inputs.category[sample],
        "condition_other": inputs.other[sample],
        "sample_vocab": schema.sample_vocab(data, schema.sample_inputs(data))[sample],
        "drug": inputs.drug[sample],
        "dose": inputs.dose[sample],
        "target": np.where(measured, schema.to_model(data.target[at]), 0)[:, None],
        "target_mask": measured[:, None],
        "observation_index": at[:, None],
    }
    assert data.accessibility.shape == (40, 6)
    assert {name for name, _ in batch.tensors()} == expected.keys()
    for name, value in batch.tensors():
        np.testing.assert_array_equal(value.numpy(), expected[name], err_msg=name)


def test_accessibility_per_region_is_the_same_in_every_sample(load):
    data, schema = load(long_table())
    dataset = YeastDataset(data, schema)
    dataset.use(data.measured)
    got = whole(dataset[np.arange(240)]).accessibility[:, 0]
    np.testing.assert_array_equal(got, schema.accessibility_inputs(data)[data.region_index, 0])


@pytest.mark.parametrize("regions_per_window", [1, 3, 8, 50])
@pytest.mark.parametrize("offset", [False, True])
def test_every_wanted_observation_stands_in_exactly_one_window(made, regions_per_window, offset):
    data, schema = made
    dataset = YeastDataset(data, schema, regions_per_window)
    wanted = np.random.default_rng(0).random(data.num_observations) < 0.4
    dataset.use(wanted, rng=np.random.default_rng(1) if offset else None)
    seen = torch.cat([b.observation_index.flatten() for b in all_batches(dataset)])
    assert sorted(seen[seen >= 0].tolist()) == np.flatnonzero(wanted).tolist()


def test_nothing_wanted_is_no_batch(made):
    data, schema = made
    for regions_per_window in (1, 4):
        dataset = YeastDataset(data, schema, regions_per_window)
        dataset.use(np.zeros(data.num_observations, bool))
        assert (len(dataset), all_batches(dataset)) == (0, [])


# ------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_windows_are_neighbours_of_one_chromosome_in_the_order_of_their_starts(made, seed):
    data, _ = made
    plan = WindowPlan(data, 8)
    rng = None if seed is None else np.random.default_rng(seed)
    windows = plan.windows(np.ones(data.num_observations, bool), rng)
    assert windows.region.shape[1] == 8
    for regions in windows.region:
        real = regions[regions >= 0]
        assert len(real)
        assert len(set(data.chrom[real])) == 1
        assert (np.diff(data.start[real]) == 1000).all()  # sorted, and none left out
        at = np.flatnonzero(regions >= 0)
        assert (np.diff(at) == 1).all()  # padding only at the ends
    cells = windows.region * 6 + windows.sample[:, None]
    assert len(np.unique(cells[windows.region >= 0])) == 240  # every region in every sample once


def test_an_observation_in_a_window_is_that_of_its_region_and_sample(made):
    data, _ = made
    windows = WindowPlan(data, 8).windows(np.ones(data.num_observations, bool))
    sample = np.repeat(windows.sample[:, None], 8, axis=1)
    there = windows.observation >= 0
    assert (
        there.sum() == data.num_observations < (windows.region >= 0).sum()
    )  # some cells are absent
    assert (data.region_index[windows.observation[there]] == windows.region[there]).all()
    assert (data.sample_index[windows.observation[there]] == sample[there]).all()


def test_without_an_offset_windows_are_cut_from_the_first_region_of_a_chromosome(load):
    data, _ = load(long_table(10))  # five regions on each chromosome, in order
    windows = WindowPlan(data, 4).windows(np.ones(60, bool))
    first_sample = windows.region[windows.sample == 0].tolist()
    assert first_sample == [[0, 1, 2, 3], [4, -1, -1, -1], [5, 6, 7, 8], [9, -1, -1, -1]]


def test_without_an_offset_no_window_is_longer_than_the_longest_chromosome(made):
    data, _ = made
    plan, wanted = WindowPlan(data, 50), np.ones(data.num_observations, bool)
    assert (plan.windows(wanted).region >= 0).all()  # 20 regions on each
    assert plan.windows(wanted, np.random.default_rng(0)).region.shape[1] == 50


def test_the_offset_shifts_the_cut_within_the_window(load):
    data, _ = load(long_table(10))
    plan, wanted = WindowPlan(data, 4), np.ones(60, bool)
    cuts = set()
    for seed in range(20):
        windows = plan.windows(wanted, np.random.default_rng(seed))
        cuts |= {tuple(row) for row in windows.region.tolist() if 0 in row}
    assert cuts == {(0, 1, 2, 3), (-1, 0, 1, 2), (-1, -1, 0, 1), (-1, -1, -1, 0)}


def test_windows_without_a_wanted_observation_are_left_out(load):
    data, _ = load(long_table(10))
    wanted = np.zeros(60, bool)
    wanted[np.flatnonzero((data.region_index == 4) & (data.sample_index == 2))] = True
    windows = WindowPlan(data, 4).windows(wanted)
    assert windows.region.tolist() == [[4, -1, -1, -1]]
    assert windows.sample.tolist() == [2]


def test_regions_without_coordinates_are_refused_in_windows_only(load):
    table = long_table(6)
    table["region_id"] = table["region_id"].replace({"chrI_1_501": "YAL001C"})
    data, _ = load(table)
    said = (
        r"t.csv: 1 regions have no chromosome or start \(YAL001C\); data.regions_per_window above 1"
    )
    with pytest.raises(DataError, match=said):
        WindowPlan(data, 2)
    assert len(WindowPlan(data, 1).windows(data.measured)) == 36


@pytest.mark.parametrize("regions_per_window", [1, 4])
@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("one_offset", [False, True])
def test_windows_of_one_place_have_the_same_regions(made, regions_per_window, seed, one_offset):
    data, _ = made
    rng = None if seed is None else np.random.default_rng(seed)
    windows = WindowPlan(data, regions_per_window, one_offset).windows(data.measured, rng)
    pairs = {(int(at), *row) for at, row in zip(windows.place, windows.region, strict=True)}
    assert len(windows) == len(windows.place)
    assert len({at for at, *_ in pairs}) == len(pairs)
    if regions_per_window == 1 or seed is None or one_offset:  # all samples are cut alike
        assert len({tuple(regions) for _, *regions in pairs}) == len(pairs) < len(windows)


def test_one_offset_is_that_of_all_samples_and_each_chromosome_has_its_own(load):
    table = long_table().assign(sample_id=np.repeat([f"s{i}" for i in range(6)], 40))
    data, _ = load(table)
    wanted, found = np.ones(data.num_observations, bool), set()
    for seed in range(8):
        windows = WindowPlan(data, 8, one_offset=True).windows(wanted, np.random.default_rng(seed))
        cuts = [windows.region[windows.sample == each].tolist() for each in range(6)]
        assert cuts.count(cuts[0]) == 6
        found.add(tuple((np.array(cuts[0]) >= 0).sum(axis=1)))
    assert len(found) > 4
    assert any(lengths != lengths[: len(lengths) // 2] * 2 for lengths in found)
    own = WindowPlan(data, 8).windows(wanted, np.random.default_rng(0))
    cuts = [own.region[own.sample == each].tolist() for each in range(6)]
    assert cuts.count(cuts[0]) < 6


@pytest.mark.parametrize(
    ("regions_per_window", "rows", "expected"),
    [(1, 100, 32), (1, 6400, 100), (1, 2_000_000, 16384), (4, 18000, 4500 // 64),
     (4, 6000, 32), (1024, 18000, 16), (20000, 18000, 1)],
)  # fmt: skip
def test_an_automatic_batch_is_a_64th_of_the_training_windows_within_bounds(
    big, regions_per_window, rows, expected
):
    _, data, _ = big  # 3,000 regions on two chromosomes in 6 samples, one sample after the other
    train = np.arange(rows if regions_per_window == 1 else data.num_observations) < rows
    assert WindowPlan(data, regions_per_window).batch_size(train) == expected


# ---------------------------------------------------------------------------- rows that are shared


def test_windows_of_one_region_or_sample_share_a_row(made_per_region):
    data, schema = made_per_region
    dataset = YeastDataset(data, schema)
    dataset.use(np.ones(data.num_observations, bool))
    batch = dataset[np.arange(len(dataset))]
    assert (len(batch), len(batch.motif), len(batch.dose)) == (data.num_observations, 40, 6)
    assert {len(value) for name, value in batch.tensors() if "region_" in name} == {
        40, data.num_observations,
    }  # fmt: skip
    region = rows_of(batch.region_index, batch.region_row)[:, 0].numpy()
    sample = rows_of(batch.sample_vocab, batch.condition_row).numpy() - 1
    assert (region == data.region_index).all()
    assert (sample == data.sample_index).all()
    one, other = whole(batch), whole(dataset[np.arange(7)])
    for (name, a), (_, b) in zip(one.tensors(), other.tensors(), strict=True):
        assert torch.equal(a[:7], b), name
    alone = dataset[np.array([3])]
    assert (alone.region_row, alone.condition_row) == (None, None)


def test_batches_as_large_as_the_table_has_samples_hold_the_same_conditions(made_per_region):
    """So that what a model makes of them is made once, whichever cells are missing."""
    data, schema = made_per_region
    dataset = YeastDataset(data, schema)
    dataset.use(np.ones(data.num_observations, bool))
    every = np.arange(len(dataset))
    gaps = every[dataset.windows.sample != 2][::-1]
    one, other = dataset[every], dataset[gaps]
    few = dataset[every[dataset.windows.sample == 1][:5]]
    for name in CONDITION_FIELDS:
        assert getattr(one, name) is getattr(other, name)
        assert torch.equal(getattr(few, name), getattr(one, name)[1:2])
    assert (other.condition_row.numpy() == dataset.windows.sample[gaps]).all()
    dataset.dose[:] = 0.5  # as where its importance is measured
    assert (dataset[every].dose == 0.5).all()


def test_regions_whose_accessibility_differs_by_sample_share_no_row(made):
    data, schema = made
    dataset = YeastDataset(data, schema, by_region=True)
    dataset.use(np.ones(data.num_observations, bool))
    batch = dataset[np.arange(len(dataset))]
    assert (len(batch.motif), len(batch.dose)) == (data.num_observations, 6)
    got = rows_of(batch.accessibility, batch.region_row)[:, 0].numpy()
    expected = schema.accessibility_inputs(data)[data.region_index, data.sample_index]
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("regions_per_window", [1, 8])
def test_a_window_of_padding_alone_is_empty_and_changes_no_other(
    made_per_region, regions_per_window
):
    data, schema = made_per_region
    dataset = YeastDataset(data, schema, regions_per_window)
    dataset.use(np.ones(data.num_observations, bool))
    last = len(dataset) - 1  # whose place in an array is -1, too
    batch, plain = whole(dataset[np.array([last, -1, 0, -1])]), whole(dataset[np.array([last, 0])])
    for name in ("region_mask", "target", "target_mask", "region_vocab"):
        assert not getattr(batch, name)[[1, 3]].any(), name
    assert (batch.observation_index[[1, 3]] == -1).all()
    assert (batch.region_index[[1, 3]] == -1).all()
    for (name, a), (_, b) in zip(
        batch.of_windows(torch.tensor([0, 2])).tensors(), plain.tensors(), strict=True
    ):
        assert torch.equal(a, b), name


# ------------------------------------------------------------------------------ masks in windows


def test_padding_is_masked_and_empty(load):
    data, schema = load(long_table(10), model={"region_identity": {"enabled": True}})
    dataset = YeastDataset(data, schema, 4)
    dataset.use(data.measured)
    batch = whole(dataset[np.arange(len(dataset))])
    padding = batch.region_index < 0
    assert padding.sum() == 6 * 2 * 3
    assert (batch.region_mask == ~padding).all()
    for name in ("motif", "accessibility", "target", "target_mask", "region_vocab"):
        values = getattr(batch, name)
        assert not values[padding].any(), name
        assert values[~padding].any(), name
    assert (batch.observation_index[padding] == -1).all()


def test_regions_of_other_parts_are_context_and_are_not_scored(made):
    data, schema = made
    wanted = data.region_index % 2 == 0
    dataset = YeastDataset(data, schema, 8)
    dataset.use(wanted)
    batch = whole(dataset[np.arange(len(dataset))])
    context = batch.region_mask & (batch.region_index % 2 == 1)
    assert context.sum() > 50
    assert not batch.target_mask[context].any()
    assert not batch.target[context].any()
    assert (batch.observation_index[context] == -1).all()
    inputs = torch.from_numpy(schema.region_inputs(data))
    assert (batch.motif[context] == inputs[batch.region_index[context]]).all()  # but it is seen
    assert int(batch.target_mask.sum()) == int((wanted & data.measured).sum())


def test_wanted_rows_without_a_measured_target_are_predicted_and_not_scored(made):
    data, schema = made
    dataset = YeastDataset(data, schema)
    dataset.use(np.ones(data.num_observations, bool))
    (batch,) = all_batches(dataset, 1000)
    assert (batch.observation_index[:, 0].numpy() == np.arange(data.num_observations)).all()
    assert (batch.target_mask[:, 0, 0].numpy() == data.measured).all()
    assert not torch.isnan(batch.target).any()


def test_targets_of_another_number_than_the_models_are_refused_and_none_at_all_are_blank(load):
    table = long_table(6)
    _, two = load(
        table.rename(columns={"target": "target_plus"}).assign(target_minus=table["target"] + 1)
    )
    one, _ = load(table)
    with pytest.raises(DataError, match=r"t.csv: has 1 targets, and the model was trained on 2"):
        one.match_targets(two.target_names)
    one.target[:] = np.nan
    one.match_targets(two.target_names)
    assert one.target_names == ["plus", "minus"]
    dataset = YeastDataset(one, two)
    dataset.use(np.ones(36, bool))
    batch = dataset[np.arange(36)]
    assert batch.target.shape == batch.target_mask.shape == (36, 1, 2)
    assert not batch.target_mask.any()


# ----------------------------------------------------------------------------- order and workers


def test_batches_shuffle_by_seed_hold_everything_once_and_can_be_taken_up_again():
    def taken(seed, first=0):
        rng = None if seed is None else np.random.default_rng(seed)
        return [batch.tolist() for batch in EpochSampler(10, 4, rng, first)]

    assert taken(None) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert taken(1) == taken(1) != taken(2)
    assert sorted(sum(taken(1), [])) == list(range(10))
    assert taken(1, first=2) == taken(1)[2:]
    assert len(EpochSampler(10, 4, None, 1)) == 2


PLACES = np.random.default_rng(0).integers(0, 40, 200) * 3  # about five windows of each


def by_places(seed, first=0, shard=(0, 1), size=16) -> list[list[int]]:
    rng = None if seed is None else np.random.default_rng(seed)
    return [each.tolist() for each in EpochSampler(PLACES, size, rng, first, shard)]


@pytest.mark.parametrize("size", [16 * 9, 16])
def test_windows_of_one_place_stay_together_and_everything_else_is_shuffled(size):
    """In batches of few places their windows are shuffled too."""
    order = np.concatenate(by_places(1, size=size))
    assert sorted(order) == list(range(200))
    visited = PLACES[order]
    ends = np.flatnonzero(np.diff(visited)) + 1
    assert len(ends) + 1 == len(set(PLACES))  # each place once, all of it
    turns = visited[np.append(0, ends)]
    assert (np.diff(turns) < 0).any()
    mixed = any((np.diff(each) < 0).any() for each in np.split(order, ends))
    assert mixed == (size < 16 * np.bincount(PLACES).max())
    assert by_places(1) == by_places(1) != by_places(2)
    assert [len(each) for each in by_places(1)] == [16] * 12 + [8]


def test_the_order_is_the_same_whatever_the_numbers_of_the_places():
    far = EpochSampler(PLACES * 1000, 16, np.random.default_rng(1))  # beyond 16 bits
    assert [each.tolist() for each in far] == by_places(1)


def test_places_in_order_are_gone_through_from_the_first_to_the_last():
    assert np.concatenate(by_places(None)).tolist() == sorted(range(200), key=lambda i: PLACES[i])


def test_an_epoch_by_places_is_taken_up_again_where_it_was_left():
    assert by_places(1, first=5) == by_places(1)[5:]
    assert len(EpochSampler(PLACES, 16, None, 5)) == 8


@pytest.mark.parametrize("ranks", [2, 3])
def test_every_rank_has_its_share_of_each_batch_exactly_once(ranks):
    shares = [by_places(1, shard=(rank, ranks)) for rank in range(ranks)]
    for of_ranks, batch in zip(zip(*shares, strict=True), by_places(1), strict=True):
        assert len({len(each) for each in of_ranks}) == 1  # filled up to one length
        joined = sum(of_ranks, [])
        assert joined[: len(batch)] == batch  # neighbours stay on one rank
        assert joined[len(batch) :] == [-1] * (-len(batch) % ranks)


def test_no_place_at_all_is_no_batch():
    assert list(EpochSampler(PLACES[:0], 16, np.random.default_rng(0))) == []


def test_the_offset_changes_with_its_generator_and_repeats_with_its_seed(made):
    data, schema = made
    dataset = YeastDataset(data, schema, 8)

    def cut(seed):
        dataset.use(data.measured, rng=np.random.default_rng(seed))
        return dataset.windows.region.tolist()

    assert cut(1) == cut(1) != cut(2)


@pytest.mark.parametrize("regions_per_window", [1, 8])
def test_workers_give_the_same_batches(made, regions_per_window):
    data, schema = made
    noise = make_augmentation(motif_noise=0.3, condition_dropout=0.3)
    dataset = YeastDataset(data, schema, regions_per_window, augmentation=noise)
    dataset.use(data.measured, epoch=3, rng=np.random.default_rng(0))
    here = all_batches(dataset, 32, np.random.default_rng(1))
    there = all_batches(dataset, 32, np.random.default_rng(1), workers=2)
    assert len(here) == len(there) > 1
    for one, two in zip(here, there, strict=True):
        for (name, a), (_, b) in zip(one.tensors(), two.tensors(), strict=True):
            assert torch.equal(a, b), name


def test_going_through_a_loader_leaves_the_global_random_state_alone(made):
    data, schema = made
    dataset = YeastDataset(data, schema, augmentation=make_augmentation(motif_noise=0.1))
    dataset.use(data.measured)
    state = torch.get_rng_state()
    all_batches(dataset)
    assert torch.equal(torch.get_rng_state(), state)


# ----------------------------------------------------------------------------------- augmentation

ALL_NOISE = {
    "motif_noise": 0.2, "accessibility_noise": 0.2, "motif_dropout": 0.2, "condition_dropout": 0.2,
}  # fmt: skip
NOISY = ("motif", "accessibility", "condition_number", "condition_category", "drug", "dose")


@pytest.fixture
def noisy(made):
    """All observations as one field of a training batch, under some noise."""
    data, schema = made
    everything = np.ones(data.num_observations, bool)

    def noisy(name, epoch=0, seed=0, size=16, rng=None, regions=1, **noise):
        augmentation = make_augmentation(**noise)
        dataset = YeastDataset(data, schema, regions, augmentation=augmentation, seed=seed)
        dataset.use(everything, epoch)
        return by_cell(data, all_batches(dataset, size, rng), name)

    return noisy


@pytest.mark.parametrize("name", NOISY)
def test_noise_depends_on_seed_epoch_and_observation_and_on_nothing_else(noisy, name):
    first = noisy(name, **ALL_NOISE)
    assert noisy(name, **ALL_NOISE) == first
    assert noisy(name, size=7, rng=np.random.default_rng(5), **ALL_NOISE) == first
    assert noisy(name, epoch=1, **ALL_NOISE) != first
    assert noisy(name, seed=1, **ALL_NOISE) != first
    assert noisy(name) != first


@pytest.mark.parametrize("name", ["condition_number", "condition_category", "drug", "dose"])
def test_dropped_conditions_are_those_of_a_cell_in_whichever_batch_it_is(made_per_region, name):
    """Also where there is no noise on the regions, whose rows might be shared."""
    data, schema = made_per_region
    config = make_augmentation(condition_dropout=0.3)
    dataset = YeastDataset(data, schema, augmentation=config)
    dataset.use(np.ones(data.num_observations, bool))
    first = by_cell(data, all_batches(dataset, 256), name)
    assert by_cell(data, all_batches(dataset, 7, np.random.default_rng(5)), name) == first
    said = {}
    for at, value in first.items():
        said.setdefault(data.region_index[at], set()).add(tuple(value))
    plain = set(map(tuple, by_cell(data, all_batches(dataset.without_noise()), name).values()))
    assert max(map(len, said.values())) > len(plain)  # samples of a region lose different ones


@pytest.mark.parametrize("regions_per_window", [1, 8])
def test_by_region_all_samples_have_the_same_noise_and_offset(made_per_region, regions_per_window):
    data, schema = made_per_region
    noise = make_augmentation(motif_noise=0.3, accessibility_noise=0.1, motif_dropout=0.2)
    dataset = YeastDataset(
        data, schema, regions_per_window, augmentation=noise, seed=3, by_region=True
    )
    wanted = np.ones(data.num_observations, bool)

    def seen(epoch: int) -> tuple[Batch, dict[int, set]]:
        dataset.use(wanted, epoch, np.random.default_rng(epoch))
        batch = dataset[np.arange(len(dataset))]
        inputs: dict[int, set] = {}
        for one in (whole(batch), *all_batches(dataset, 7)):  # samples of a region apart, too
            for b, r in one.region_mask.nonzero().tolist():
                features = torch.cat((one.motif[b, r], one.accessibility[b, r])).tolist()
                inputs.setdefault(int(one.region_index[b, r]), set()).add(tuple(features))
        return batch, inputs

    batch, inputs = seen(epoch=1)
    places = len(np.unique(dataset.windows.place))
    assert len(batch.motif) == places < len(batch)
    assert [len(each) for each in inputs.values()] == [1] * 40
    clean = np.hstack([schema.region_inputs(data), schema.accessibility_inputs(data)[:, 0]])
    added = np.array([list(*inputs[i]) for i in range(40)]) - clean
    assert len(np.unique(added[:, 0])) > 30  # regions have noise of their own
    assert added[:, -1].std() == pytest.approx(0.1, rel=0.4)
    assert seen(epoch=2)[1] != inputs
    assert seen(epoch=1)[1] == inputs


def test_without_noise_is_the_same_table_and_leaves_the_noise_of_the_other(made):
    data, schema = made
    noisy = YeastDataset(data, schema, augmentation=make_augmentation(motif_noise=0.3))
    plain, clean = noisy.without_noise(), YeastDataset(data, schema)
    for dataset in (noisy, plain, clean):
        dataset.use(data.measured)
    at = np.arange(9)
    assert torch.equal(whole(plain[at]).motif, whole(clean[at]).motif)
    assert not torch.equal(whole(noisy[at]).motif, whole(clean[at]).motif)
    assert plain.target is noisy.target


def test_noise_on_regions_is_the_same_in_windows(noisy):
    single, windows = (noisy("motif", regions=r, motif_noise=0.2) for r in (1, 8))
    del windows[-1]  # cells without an observation
    assert windows == single


def test_an_evaluation_has_no_noise(made):
    data, schema = made
    clean = YeastDataset(data, schema)
    silent = YeastDataset(data, schema, augmentation=make_augmentation())
    for dataset in (clean, silent):
        dataset.use(data.measured)
    for (name, a), (_, b) in zip(
        all_batches(clean, 999)[0].tensors(), all_batches(silent, 999)[0].tensors(), strict=True
    ):
        assert torch.equal(a, b), name


@pytest.fixture
def big(load):
    """3,000 regions with 3 motifs, a region feature's gap, accessibility with a gap; 6 samples."""
    table = long_table(3000)
    table.loc[table["region_id"] == "chrI_1_501", ["motif_c", "accessibility"]] = np.nan
    data, schema = load(table)
    return YeastDataset(data, schema), data, schema


def one_batch(big, **noise):
    _, data, schema = big
    dataset = YeastDataset(data, schema, augmentation=make_augmentation(**noise))
    dataset.use(data.measured)
    return whole(dataset[np.arange(data.num_observations)])


def test_noise_has_the_asked_size_and_leaves_presence_bits_alone(big):
    clean, noisy = one_batch(big), one_batch(big, motif_noise=0.3, accessibility_noise=0.1)
    motif = (noisy.motif - clean.motif)[:, 0]
    assert motif.shape[1] == 4  # three motifs and the presence bit of the one with a gap
    assert not motif[:, 3].any()
    assert motif[:, :3].std().item() == pytest.approx(0.3, rel=0.02)
    assert motif[:, :3].mean().item() == pytest.approx(0, abs=0.01)
    assert np.abs(np.corrcoef(motif[:, :3].T.numpy()) - np.eye(3)).max() < 0.05
    access = (noisy.accessibility - clean.accessibility)[:, 0]
    assert not access[:, 0].any()  # the presence bit
    assert access[:, 1].std().item() == pytest.approx(0.1, rel=0.03)


def test_replicates_of_one_region_get_noise_of_their_own(big):
    motif = one_batch(big, motif_noise=0.3).motif[:, 0, 0] - one_batch(big).motif[:, 0, 0]
    first, second = motif[:3000].numpy(), motif[3000:6000].numpy()
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.06


def test_motif_dropout_sets_the_asked_share_to_what_absent_looks_like(big):
    _, _, schema = big
    clean, noisy = one_batch(big).motif[:, 0], one_batch(big, motif_dropout=0.25).motif[:, 0]
    changed = noisy != clean
    absent = torch.from_numpy(schema.absent_motif())
    for j in range(3):
        assert (noisy[changed[:, j], j] == absent[j]).all()
        assert changed[:, j].float().mean().item() == pytest.approx(0.25, abs=0.015)
    assert not changed[:, 3].any()


def test_dropped_conditions_look_like_conditions_that_were_not_recorded(big):
    clean, noisy = one_batch(big), one_batch(big, condition_dropout=0.3)
    at = torch.flatten(clean.condition_present.any(dim=0).nonzero())
    gone = noisy.condition_present[:, at] != clean.condition_present[:, at]
    assert gone.float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert not noisy.condition_number[:, at][gone].any()
    kept = ~gone
    assert (noisy.condition_number[:, at][kept] == clean.condition_number[:, at][kept]).all()

    gone = noisy.condition_category != clean.condition_category
    assert not noisy.condition_category[gone].any()  # UNKNOWN
    assert gone[:, 0].float().mean().item() == pytest.approx(0.3, abs=0.02)

    gone = noisy.drug != clean.drug
    assert gone.float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert not noisy.drug[gone].any()
    assert (noisy.dose[gone] == -1).all()
    assert set(clean.drug[gone].tolist()) == {1, 2}  # no drug may be forgotten, too
    alone = (noisy.dose == -1) & ~gone  # the dose of a drug may be forgotten, and its name not
    assert alone[clean.drug == 2].float().mean().item() == pytest.approx(0.7 * 0.3, abs=0.03)
    assert not alone[clean.drug == 1].any()  # no drug has no dose to forget
    assert (noisy.dose[~gone & ~alone] == clean.dose[~gone & ~alone]).all()

    known = torch.cat((noisy.condition_category, noisy.drug), dim=1) != 0
    assert clean.condition_other[~known].any()  # what is forgotten is not another than the usual
    assert torch.equal(noisy.condition_other, clean.condition_other * known)


def test_conditions_are_dropped_one_by_one(big):
    noisy = one_batch(big, condition_dropout=0.3)
    clean = one_batch(big)
    medium = (noisy.condition_category != clean.condition_category)[:, 0]
    drug = (noisy.drug != clean.drug)[:, 0]
    assert (medium & drug).float().mean().item() == pytest.approx(0.09, abs=0.015)


def test_noise_leaves_alone_what_did_not_vary_in_training(load):
    table = long_table(30).assign(motif_b=3.0, accessibility=0.5)
    data, schema = load(table)
    config = AugmentationConfig(motif_noise=0.5, accessibility_noise=0.5, motif_dropout=0.5)
    dataset = YeastDataset(data, schema, augmentation=config)
    dataset.use(np.ones(data.num_observations, bool), epoch=1)
    batch = dataset[np.arange(data.num_observations)]
    assert not batch.motif[..., 1].any()
    assert not batch.accessibility.any()
    assert batch.motif[..., 0].any()


# ---------------------------------------------------------------------------- masked regions


@pytest.fixture
def masked(load):
    """Regions for pretraining, in windows of 8, with a share of them to hide."""

    def make(ratio=0.5, seed=0, augmentation=None, wanted=None):
        data, _ = load(long_table())
        data = regions_only(data)
        settings = settings_from_dict({}, "x")
        schema = FeatureSchema.fit(data, data.measured, settings, with_target=False)
        dataset = MaskedRegionDataset(data, ratio, schema, 8, "cpu", augmentation, seed)
        dataset.use(data.measured if wanted is None else wanted(data))
        return data, schema, dataset

    return make


def test_what_is_hidden_is_the_target_and_nothing_else(masked):
    data, schema, dataset = masked()
    inputs = np.concatenate(
        [schema.region_inputs(data), schema.accessibility_inputs(data)[:, 0]], axis=1
    )
    hidden = 0
    for batch in all_batches(dataset):
        assert (batch.target_mask.any(-1) == batch.target_mask.all(-1)).all()
        for b, r in batch.region_mask.nonzero().tolist():
            region = int(batch.region_index[b, r])
            seen = torch.cat((batch.motif[b, r], batch.accessibility[b, r])).numpy()
            np.testing.assert_array_equal(seen, inputs[region])  # the model hides it, not the batch
            if batch.target_mask[b, r].any():
                hidden += 1
                np.testing.assert_array_equal(batch.target[b, r].numpy(), inputs[region])
            else:
                assert not batch.target[b, r].any()
    assert 8 < hidden < 32  # of 40


def test_only_wanted_regions_are_hidden_and_padding_never(masked):
    _, _, dataset = masked(ratio=0.999, wanted=lambda data: data.region_index % 3 == 0)
    for batch in all_batches(dataset):
        hidden = batch.target_mask.any(-1)
        assert not (hidden & ~batch.region_mask).any()
        assert (batch.region_index[hidden] % 3 == 0).all()
    assert all_batches(dataset)[0].target_mask.any()


def test_hiding_is_a_function_of_seed_epoch_and_region(masked):
    data, _, dataset = masked()

    def hidden(dataset, epoch, size):
        dataset.use(data.measured, epoch)
        parts = all_batches(dataset, size)
        regions = [b.region_index[b.target_mask.any(-1)] for b in parts]
        return sorted(torch.cat(regions).tolist())

    assert hidden(dataset, 1, 4) == hidden(dataset, 1, 2)
    assert hidden(dataset, 1, 4) != hidden(dataset, 2, 4)
    assert hidden(dataset, 1, 4) != hidden(masked(seed=1)[2], 1, 4)
    few, many = masked(ratio=0.1)[2], masked(ratio=0.9)[2]
    assert len(hidden(few, 1, 4)) < len(hidden(many, 1, 4))


def test_noise_is_on_what_is_seen_and_never_on_the_target(masked):
    plain = all_batches(masked()[2])
    noisy = all_batches(masked(augmentation=make_augmentation(motif_noise=0.5))[2])
    for one, other in zip(plain, noisy, strict=True):
        assert torch.equal(one.target, other.target)
        assert not torch.equal(one.motif, other.motif)


def test_regions_only_are_one_observation_each_or_one_per_sample(load):
    table = long_table()
    data, _ = load(table)
    alone = regions_only(data)
    assert (alone.num_observations, alone.num_samples, alone.is_grid) == (40, 1, True)
    assert alone.measured.all()
    assert alone.row.tolist() == list(range(2, 42))
    table["accessibility"] += table["temperature"] / 100
    varying, _ = load(table)
    alone = regions_only(varying)
    assert alone.num_observations == 40 * varying.num_samples
    first, second = alone.region_index[:2].tolist(), alone.sample_index[:2].tolist()
    assert (first, second) == ([0, 0], [0, 1])
