"""The factor model of the training cells, and what it tells a model of conditions and regions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from yeast_get.batch import CONDITION_FIELDS
from yeast_get.config import Settings, settings_from_dict
from yeast_get.data.expression_data import ExpressionData, load_expression_data
from yeast_get.data.features import FeatureSchema
from yeast_get.data.yeast_dataset import YeastDataset
from yeast_get.evaluation.inference import evaluating, predict
from yeast_get.model.yeast_model import YeastModel
from yeast_get.training import factors
from yeast_get.training.factors import LEAST_NOISE, Cells, FactorModel, Knowledge, times

# -------------------------------------------------------------------------- the factor model alone


@dataclass
class Planted:
    """Cells [P,S] that are a level, two factors and noise of a size of its own per sample."""

    level: np.ndarray
    loadings: np.ndarray
    noise: np.ndarray
    y: np.ndarray
    seen: np.ndarray

    @classmethod
    def make(cls, regions: int = 500, samples: int = 24) -> Planted:
        rng = np.random.default_rng(0)
        level, loadings = rng.normal(size=samples), rng.normal(size=(samples, 2))
        noise = np.linspace(0.3, 0.8, samples) ** 2
        clean = level + rng.normal(size=(regions, 2)) @ loadings.T
        y = clean + rng.normal(size=clean.shape) * np.sqrt(noise)
        return cls(level, loadings, noise, y, rng.random(y.shape) < 0.75)

    def cells(self, seen: np.ndarray | None = None) -> Cells:
        seen = self.seen if seen is None else seen
        y = self.y * seen
        count, total = sparse.csr_array(seen.astype(float)), sparse.csr_array(y)
        return Cells(count, total, (y**2).sum(axis=0), *map(np.arange, y.shape))

    def predicted(self, model: FactorModel) -> np.ndarray:
        mean = times(*model.posterior(self.seen.astype(float), self.y * self.seen))
        return model.level + mean @ model.loadings.T


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted.make()


@pytest.fixture(scope="module")
def fitted(planted) -> FactorModel:
    return FactorModel.fit(planted.cells(), 2)


def test_a_planted_factor_model_is_found(planted, fitted):
    np.testing.assert_allclose(fitted.noise, planted.noise, rtol=0.25)
    np.testing.assert_allclose(fitted.level, planted.level, atol=0.25)
    shared, found = (each.loadings @ each.loadings.T for each in (planted, fitted))
    assert np.corrcoef(shared.ravel(), found.ravel())[0, 1] > 0.99  # whatever the rotation


def test_cells_that_were_held_out_are_predicted_but_for_their_noise(planted, fitted):
    held = ~planted.seen
    by_means = np.nanmean(np.where(planted.seen, planted.y, np.nan), axis=0)
    error = ((planted.predicted(fitted) - planted.y) ** 2)[held].mean()
    assert error < 0.25 * ((by_means - planted.y) ** 2)[held].mean()
    truth = FactorModel(planted.level, planted.loadings, planted.noise)
    assert error < 1.02 * ((planted.predicted(truth) - planted.y) ** 2)[held].mean()


def test_what_a_cell_that_was_not_seen_holds_is_of_no_matter(planted, fitted):
    other = replace(planted, y=np.where(planted.seen, planted.y, 1e6))
    again = FactorModel.fit(other.cells(), 2)
    for name in ("level", "loadings", "noise"):
        np.testing.assert_array_equal(getattr(again, name), getattr(fitted, name))


def by_conditioning(
    model: FactorModel, count: np.ndarray, total: np.ndarray, prior: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Covariance and mean of the factors of one region, from the dense covariance of all it has.

    Each of the observations of a cell stands for itself, all with the mean of the cell.
    """
    at = np.repeat(np.arange(len(count)), count.astype(int))
    loadings, seen = model.loadings[at], (total / np.maximum(count, 1))[at]
    covariance = loadings @ loadings.T + np.diag(model.noise[at])
    gain = np.linalg.solve(covariance, loadings).T
    mean = prior + gain @ (seen - model.level[at] - loadings @ prior)
    return np.eye(len(prior)) - gain @ loadings, mean


@pytest.mark.parametrize("with_prior", [False, True])
def test_the_posterior_is_that_of_gaussian_conditioning(with_prior):
    rng = np.random.default_rng(1)
    model = FactorModel(rng.normal(size=6), rng.normal(size=(6, 3)), rng.uniform(0.1, 2, 6))
    count = rng.integers(0, 4, (5, 6)).astype(float)
    count[0] = 0  # nothing is known of it
    total = rng.normal(size=(5, 6)) * count
    prior = rng.normal(size=(5, 3)) * with_prior
    covariances, said = model.posterior(count, total)
    got = covariances, times(covariances, said + prior)
    for i in range(5):
        covariance, mean = by_conditioning(model, count[i], total[i], prior[i])
        np.testing.assert_allclose(got[0][i], covariance, atol=1e-10)
        np.testing.assert_allclose(got[1][i], mean, atol=1e-10)
    np.testing.assert_allclose(got[1][0], prior[0], atol=1e-12)


def test_blocks_of_regions_change_nothing(planted, fitted, monkeypatch):
    monkeypatch.setattr(factors, "AT_ONCE", 24 * 7)  # seven regions at a time, of 500
    cells = planted.cells()
    rows, counts, totals = zip(*cells.blocks(2), strict=True)
    assert [each.start for each in rows] == list(range(0, 500, 7))
    np.testing.assert_array_equal(np.concatenate(counts), planted.seen)
    np.testing.assert_array_equal(np.concatenate(totals), planted.y * planted.seen)
    again = FactorModel.fit(cells, 2)
    for name in ("level", "loadings", "noise"):
        np.testing.assert_allclose(getattr(again, name), getattr(fitted, name), atol=1e-9)


def test_a_round_regresses_each_sample_on_the_factors_with_a_ridge():
    """As many regions as make the ridge count; moments of the factors as the posterior has them."""
    few = Planted.make(regions=8, samples=5)
    seen, y = few.seen, few.y
    model = FactorModel(few.level, few.loadings, few.noise)
    better = model._better(few.cells(), seen.sum(axis=0))
    covariance, said = model.posterior(seen.astype(float), y * seen)
    mean = times(covariance, said)
    for s in range(5):
        at = np.flatnonzero(seen[:, s])
        design = np.column_stack((mean[at], np.ones(len(at))))
        square = design.T @ design + np.diag([few.noise[s], few.noise[s], 0])
        square[:2, :2] += covariance[at].sum(axis=0)
        found = np.linalg.solve(square, design.T @ y[at, s])
        np.testing.assert_allclose(better.loadings[s], found[:2], atol=1e-10)
        np.testing.assert_allclose(better.level[s], found[2], atol=1e-10)
        left = ((y[at, s] ** 2).sum() - found @ design.T @ y[at, s]) / len(at)
        np.testing.assert_allclose(better.noise[s], max(left, LEAST_NOISE), atol=1e-10)


def test_a_sample_with_one_cell_says_next_to_nothing(planted):
    seen = planted.seen.copy()
    seen[1:, 3] = False
    seen[0, 3] = True
    model = FactorModel.fit(planted.cells(seen), 2)
    assert np.abs(model.loadings[3]).max() < 0.2 * np.abs(planted.loadings[3]).max()
    assert np.isfinite(model.loadings).all()
    assert (model.noise >= LEAST_NOISE).all()


def test_noise_is_never_nothing(planted):
    clean = replace(planted, y=planted.level + np.zeros_like(planted.y))
    assert (FactorModel.fit(clean.cells(), 2).noise == LEAST_NOISE).all()


# ------------------------------------------------------------------------- conditions of a table

SAMPLES = pd.DataFrame(
    [
        # name, temperature, drug, hours of it, medium
        ("base", 30.0, "none", None, "YPD"),
        ("again", 30.0, "none", None, "YPD"),  # a replicate
        ("heat", 37.0, "none", None, "YPD"),
        ("minimal", 30.0, "none", None, "SC"),
        ("early", 30.0, "H2O2", 0.5, "YPD"),
        ("late", 30.0, "H2O2", 2.0, "YPD"),
        ("other", 30.0, "CHX", 1.0, "YPD"),
        ("both", 30.0, "CHX", 1.0, "SC"),
    ],
    columns=["sample_id", "temperature", "drug", "drug_time", "medium"],
)
REGIONS = 60
SMALL = {"transformer": {"embed_dim": 8, "num_heads": 2}}


def make_table(samples: pd.DataFrame, targets: int) -> pd.DataFrame:
    """Regions of one chromosome, whose targets are level + loadings . factors + noise."""
    rng = np.random.default_rng(0)
    names = ["motif_a", "motif_b", "motif_c", "accessibility"]
    features = pd.DataFrame(rng.uniform(0, 1, (REGIONS, 4)).round(3), columns=names)
    features["region_id"] = [f"chrI_{1000 * i + 1}_{1000 * i + 501}" for i in range(REGIONS)]
    table = samples.merge(features, how="cross")
    of_region = np.tile(rng.normal(size=(REGIONS, 3)), (len(samples), 1))
    hours = table["drug_time"].fillna(0).to_numpy()
    heat, peroxide, other = (
        (table[name] == value).to_numpy()
        for name, value in (("temperature", 37), ("drug", "H2O2"), ("drug", "CHX"))
    )
    loadings = np.column_stack((1 + heat, peroxide * (1 + hours), 2 * other))
    for j, name in enumerate(["target_plus", "target_minus"][:targets]):
        rate = (loadings * of_region * (1 + j)).sum(axis=1) + 3 * j
        table[name] = rate + rng.normal(0, 0.3, len(table))
        table.loc[j :: 9 + j, name] = np.nan
    return table if targets == 2 else table.rename(columns={"target_plus": "target"})


@dataclass
class World:
    """A table, of which the last ten regions are not for training, and what is known of it."""

    settings: Settings
    data: ExpressionData
    schema: FeatureSchema
    train: np.ndarray
    knowledge: Knowledge

    def model(self) -> YeastModel:
        torch.manual_seed(0)
        model = YeastModel(self.settings.model, self.schema.sizes())
        self.knowledge.give_conditions(model)
        return model

    def loadings(self, model: YeastModel, samples: np.ndarray | None = None) -> np.ndarray:
        """What a model says of samples of the table [S,T,K+1]."""
        at = torch.from_numpy(np.arange(self.data.num_samples) if samples is None else samples)
        return model.by_factors.loadings.of(self.knowledge.dataset.conditions_of(at)).numpy()

    def of(self, model: YeastModel, path, **changed) -> np.ndarray:
        """What it says of one sample [T*(K+1)] that is as `base` but for its name and changes."""
        row = SAMPLES.iloc[:1].assign(sample_id="new", **changed)
        make_table(row, len(self.data.target_names)).to_csv(path, index=False)
        data = load_expression_data(made_of(path))
        dataset = YeastDataset(data, self.schema)
        assert dataset.sample_vocab.tolist() == [0]
        fields = dataset.conditions_of(torch.zeros(1, dtype=torch.int64))
        return model.by_factors.loadings.of(fields).numpy().ravel()


KNOWN = {"region_identity": {"enabled": True}}
"""Regions of training are known by name."""


def made_of(path, **sections) -> Settings:
    told = {"path": str(path), "drop_missing_target": True}
    return settings_from_dict({**sections, "data": told}, "x")


@pytest.fixture(scope="module")
def make_world(tmp_path_factory):
    def make(
        targets: int = 1, window: int = 1, most: int = 3, table: pd.DataFrame | None = None
    ) -> World:
        path = tmp_path_factory.mktemp("world") / "t.csv"
        table = make_table(SAMPLES, targets) if table is None else table
        table.to_csv(path, index=False)
        settings = made_of(path, model=SMALL | {"fusion": {"factors": most}, **KNOWN})
        data = load_expression_data(settings)
        train = data.measured & (data.region_index < REGIONS - 10)
        schema = FeatureSchema.fit(data, train, settings)
        dataset = YeastDataset(data, schema, window)
        return World(settings, data, schema, train, Knowledge.of(dataset, train, most))

    return make


@pytest.fixture(scope="module")
def world(make_world) -> World:
    return make_world()


@pytest.fixture(scope="module")
def told(world) -> YeastModel:
    """A model of that world that knows its conditions; not to be changed."""
    return world.model()


@pytest.mark.parametrize("targets", [1, 2])
def test_cells_are_the_measured_targets_of_training_rows(make_world, targets):
    world = make_world(targets)
    data = world.data
    keep = world.train & (data.sample_index != 2)  # a sample that is not for training
    cells = Cells.of(world.knowledge.dataset, keep)
    assert cells.samples.tolist() == [0, 1, 3, 4, 5, 6, 7]
    y = world.schema.to_model(data.target)
    dense = np.full((data.num_regions, data.num_samples, targets), np.nan)
    dense[data.region_index[keep], data.sample_index[keep]] = y[keep]
    dense = dense[:, cells.samples].reshape(data.num_regions, -1)
    assert cells.regions.tolist() == list(range(50))
    np.testing.assert_array_equal(cells.count.toarray(), ~np.isnan(dense[:50]))
    np.testing.assert_allclose(cells.total.toarray(), np.nan_to_num(dense[:50]))
    np.testing.assert_allclose(cells.squares, np.nansum(dense**2, axis=0))
    assert np.isnan(dense[:50]).any()
    few = Cells.of(world.knowledge.dataset, keep & (data.region_index % 2 == 1))
    assert few.regions.tolist() == list(range(1, 50, 2))
    np.testing.assert_array_equal(few.count.toarray(), cells.count[1::2].toarray())


@pytest.mark.parametrize("targets", [1, 2])
def test_there_are_no_more_factors_than_samples_and_targets(make_world, targets):
    world = make_world(targets, most=70)
    assert world.knowledge.model.loadings.shape == (8 * targets, 8 * targets)
    assert world.loadings(world.model()).shape == (8, targets, 8 * targets + 1)


@pytest.mark.parametrize("targets", [1, 2])
def test_a_training_sample_has_its_own_loadings(make_world, targets):
    world = make_world(targets)
    found = world.knowledge.model
    own = np.column_stack((found.loadings, found.level)).reshape(8, targets, 4)
    assert np.abs(own[0] - own[1]).max() > 1e-2  # as replicates have, too
    np.testing.assert_allclose(world.loadings(world.model()), own, atol=1e-5)


def test_a_sample_of_another_name_has_the_mean_of_its_condition(world, told, tmp_path):
    own = world.loadings(told).reshape(8, -1)
    got = world.of(told, tmp_path / "t.csv")
    apart = np.abs(own[0] - own[1]).max()
    np.testing.assert_allclose(got, own[:2].mean(axis=0), atol=0.05 * apart + 2e-3)
    alone = world.of(told, tmp_path / "t.csv", temperature=37.0)
    np.testing.assert_allclose(alone, own[2], atol=1e-2)


def share_of_the_way(start: np.ndarray, end: np.ndarray, here: np.ndarray) -> float:
    return (here - start) @ (end - start) / ((end - start) @ (end - start))


def test_a_time_between_two_of_training_lies_between_them(make_world, tmp_path):
    times = [0.25, 0.5, 1.0, 4.0, 8.0]
    course = SAMPLES.iloc[[4] * 5].assign(sample_id=list("abcde"), drug_time=times)
    world = make_world(table=make_table(course, 1))
    model = world.model()
    early, late = world.loadings(model).reshape(5, -1)[2:4]
    shares = [
        share_of_the_way(
            early, late, world.of(model, tmp_path / "t.csv", drug="H2O2", drug_time=hours)
        )
        for hours in (1.3, 2.0, 3.0)
    ]
    assert 0 < shares[1] < 1
    assert shares[0] < shares[1] - 0.1 < shares[2] - 0.2


def test_what_is_all_but_a_condition_has_not_what_is_its_own(world, told, tmp_path):
    own = world.loadings(told).reshape(8, -1)
    same, near = (
        world.of(told, tmp_path / "t.csv", drug="H2O2", drug_time=hours) for hours in (0.5, 0.505)
    )
    assert np.linalg.norm(near - own[4]) > 5 * np.linalg.norm(same - own[4])


def test_a_drug_at_another_time_is_more_like_itself_than_a_drug_never_heard_of(
    world, told, tmp_path
):
    itself = world.loadings(told).reshape(8, -1)[4:6].mean(axis=0)
    known, novel = (
        world.of(told, tmp_path / "t.csv", drug=drug, drug_time=1.0) for drug in ("H2O2", "novel")
    )
    assert np.linalg.norm(known - itself) < 0.8 * np.linalg.norm(novel - itself)


def test_a_drug_never_heard_of_has_what_drugs_did(world, told, tmp_path):
    own = world.loadings(told).reshape(8, -1)
    none, drugs = own[:2].mean(axis=0), own[4:7].mean(axis=0)
    got = world.of(told, tmp_path / "t.csv", drug="novel", drug_time=1.0)
    assert 0.3 < share_of_the_way(none, drugs, got) < 1.3
    assert np.linalg.norm(got - drugs) < 0.7 * np.linalg.norm(none - drugs)
    untimed = world.of(told, tmp_path / "t.csv", drug="novel")  # known by being a drug alone
    medium = world.of(told, tmp_path / "t.csv", medium="novel")
    way = [share_of_the_way(none, drugs, each) for each in (medium, untimed)]
    assert way[0] < way[1] - 0.1


@pytest.mark.parametrize(
    ("left", "meant"),
    [
        ({"temperature": None}, {}),
        ({"drug": "H2O2", "temperature": None}, {"drug": "H2O2", "temperature": 30.0}),
        ({"drug": "H2O2", "drug_time": None}, {"drug": "H2O2", "drug_time": 0.0}),
    ],
)
def test_a_blank_number_is_taken_for_the_usual_one(world, told, tmp_path, left, meant):
    path = tmp_path / "t.csv"
    np.testing.assert_allclose(
        world.of(told, path, **left), world.of(told, path, **meant), atol=1e-5
    )
    other = world.of(told, path, **meant | {"temperature": 37.0})
    assert np.abs(world.of(told, path, **left) - other).max() > 0.1


def test_a_step_between_other_temperatures_has_what_steps_did(make_world, tmp_path):
    """Without the step itself, cultures of one temperature would all be the same."""
    pairs = [(20.0, 20.0), (25.0, 25.0), (30.0, 30.0), (35.0, 35.0), (20.0, 25.0), (30.0, 35.0)]
    steps = SAMPLES.iloc[[0] * 6].assign(
        sample_id=list("abcdef"),
        preculture_temperature=[before for before, _ in pairs],
        temperature=[after for _, after in pairs],
        drug=["none"] * 4 + ["H2O2"] * 2,  # by which the table has an effect of the step
        drug_time=1.0,
    )
    table = make_table(steps, 1).assign(drug="none", drug_time=None)
    world = make_world(table=table)
    model = world.model()
    own = world.loadings(model).reshape(6, -1)
    effect = own[4:].mean(axis=0) - own[[1, 3]].mean(axis=0)
    path = tmp_path / "t.csv"
    still = world.of(model, path, preculture_temperature=40.0, temperature=40.0)
    stepped = world.of(model, path, preculture_temperature=35.0, temperature=40.0)
    assert 0.3 < share_of_the_way(still, still + effect, stepped) < 1.5
    unknown = world.of(model, path, preculture_temperature=None, temperature=40.0)
    np.testing.assert_allclose(unknown, still, atol=1e-5)  # no step that is known


def test_what_is_remembered_travels_with_the_weights(world, told):
    other = YeastModel(world.settings.model, world.schema.sizes())
    before = world.loadings(other)
    other.load_state_dict(told.state_dict())
    np.testing.assert_array_equal(world.loadings(other), world.loadings(told))
    assert not before.any()


# ----------------------------------------------------------------------------------------- regions


def cells_of(world: World, model: YeastModel) -> np.ndarray:
    """Predictions of every row [N]."""
    dataset, everything = world.knowledge.dataset, np.ones(len(world.train), dtype=bool)
    return predict(model, dataset, everything, 64)[:, 0]


def by_features(world: World, model: YeastModel) -> np.ndarray:
    """The factors [P,K] of every region by its features, from the windows of one sample."""
    dataset = world.knowledge.dataset
    dataset.use(world.data.sample_index == 4)
    with evaluating(model):
        batch = dataset[np.arange(len(dataset))]
        batch = batch.of_windows(torch.arange(len(batch)))
        found = model.factors(batch).numpy()
    out = np.full((REGIONS, found.shape[-1]), np.nan)
    out[batch.region_index[batch.region_mask]] = found[batch.region_mask]
    return out


@pytest.fixture(scope="module")
def windows_world(make_world) -> World:
    return make_world(window=8)


@pytest.mark.parametrize("name", ["world", "windows_world"])
def test_cells_of_training_are_predicted_as_by_the_factor_model(request, name):
    world = request.getfixturevalue(name)
    model, known = world.model(), world.knowledge
    prior = by_features(world, model)
    before = cells_of(world, model)
    known.give_regions(model, 3)  # windows of a region are in different batches
    got = cells_of(world, model)
    cells = known.cells
    covariance, said = known.model.posterior(cells.count.toarray(), cells.total.toarray())
    mean = times(covariance, said + prior[cells.regions])
    expected = known.model.level + mean @ known.model.loadings.T
    data = world.data
    unknown = data.region_index >= REGIONS - 10
    at = data.region_index[~unknown], data.sample_index[~unknown]
    np.testing.assert_allclose(got[~unknown], expected[at], atol=1e-4)
    y = world.schema.to_model(data.target)[:, 0]
    worse, better = (((each - y)[world.train] ** 2).mean() for each in (before, got))
    assert better < 0.3 * worse
    np.testing.assert_array_equal(got[unknown], before[unknown])  # by their features alone


def test_where_accessibility_differs_by_sample_the_prior_of_a_region_is_the_mean_over_them(
    make_world,
):
    table = make_table(SAMPLES, 1)
    table["accessibility"] = np.random.default_rng(1).uniform(0, 1, len(table)).round(3)
    world = make_world(table=table)
    model, known = world.model(), world.knowledge
    dataset = known.dataset
    dataset.use(world.train)
    with evaluating(model):
        factors = model.factors(dataset[np.arange(len(dataset))])[:, 0].numpy()
    region = world.data.region_index[world.train]
    expected = np.stack([factors[region == i].mean(axis=0) for i in range(REGIONS - 10)])
    assert np.ptp(factors[region == 0], axis=0).max() > 1e-3
    np.testing.assert_allclose(known._by_features(model, 7)[: REGIONS - 10], expected, atol=1e-5)


def test_what_the_cells_say_is_found_once_for_all_weights(world, monkeypatch):
    known = replace(world.knowledge, kept=[])
    model, other = world.model(), world.model()
    with torch.no_grad():
        other.by_factors.from_encoder.bias += 1
    known.give_regions(model, 64)
    again = replace(world.knowledge, kept=[])
    again.give_regions(other, 64)
    monkeypatch.setattr(FactorModel, "posterior", None)
    wanted = other.by_factors.known.clone()
    known.give_regions(other, 64)
    assert torch.equal(other.by_factors.known, wanted)
    assert not torch.equal(wanted, model.by_factors.known)


def test_a_region_that_is_not_known_has_nothing_added(world):
    model = world.model()
    world.knowledge.give_regions(model, 64)
    known = model.by_factors.known
    assert known.shape == (REGIONS - 10 + 1, 3)
    assert not known[0].any()
    assert known[1:].any(dim=1).all()
    more = Knowledge.of(world.knowledge.dataset, world.data.measured, 3)  # of regions not known
    more.give_regions(model, 64)
    assert known[1:].any(dim=1).all()
    assert not known[0].any()


def test_in_training_only_the_features_speak(world):
    model = world.model()
    for each in model.modules():
        if isinstance(each, torch.nn.Dropout):
            each.p = 0.0
    dataset = world.knowledge.dataset
    dataset.use(world.train)
    batch = dataset[np.arange(32)]
    before = model.train()(batch)
    world.knowledge.give_regions(model, 64)
    assert model.training  # as it was
    assert torch.equal(model(batch), before)
    assert not torch.allclose(model.eval()(batch), before, atol=0.1)


def test_to_be_told_twice_changes_nothing(world):
    model = world.model()
    world.knowledge.give_regions(model, 64)
    first = {name: each.clone() for name, each in model.state_dict().items()}
    world.knowledge.give_conditions(model)
    world.knowledge.give_regions(model, 64)
    assert first.keys() >= {"by_factors.known", "by_factors.loadings.own"}
    for name, each in model.state_dict().items():
        assert torch.equal(each, first[name]), name


def test_regions_are_told_alike_in_blocks_and_batches_of_any_size(world, monkeypatch):
    model = world.model()
    world.knowledge.give_regions(model, 64)
    at_once = model.by_factors.known.clone()
    monkeypatch.setattr(factors, "AT_ONCE", 9 * 4)  # four regions at a time
    world.knowledge.give_regions(model, 7)
    np.testing.assert_allclose(model.by_factors.known, at_once, atol=1e-5)


def test_condition_fields_are_all_that_loadings_need(world, told):
    """Whatever the batch, its rows of conditions are those of the table."""
    dataset = world.knowledge.dataset
    dataset.use(world.train)
    batch = dataset[np.arange(0, len(dataset), 5)]
    fields = {name: getattr(batch, name) for name in CONDITION_FIELDS}
    assert len(fields["dose"]) == 8
    got = told.by_factors.loadings(batch)
    assert torch.equal(got, told.by_factors.loadings.of(fields))
    np.testing.assert_allclose(got, world.loadings(told), atol=1e-6)
