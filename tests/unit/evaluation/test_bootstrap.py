"""The cluster bootstrap: its sums equal the scores, and its intervals cover what they should."""

from __future__ import annotations

import numpy as np
import pytest

from yeast_get.evaluation import bootstrap
from yeast_get.evaluation.bootstrap import FEWEST, Resampler, choose_over, interval
from yeast_get.evaluation.metrics import score, summarise

SCORES = ("pearson", "spearman", "concordance", "r2", "rmse", "mae")
REGIONS, CONDITIONS = 40, 12


def table(seed=0, strands=1, gaps=0.0):
    """Measured values [n,T], predictions and codes of a table of regions by conditions."""
    rng = np.random.default_rng(seed)
    region, condition = np.divmod(np.arange(REGIONS * CONDITIONS), CONDITIONS)
    level = (
        rng.normal(size=(REGIONS, strands))[region] + rng.normal(size=CONDITIONS)[condition, None]
    )
    true = level + rng.normal(size=(len(region), strands))
    pred = 0.5 * level + rng.normal(size=true.shape)
    true[rng.random(true.shape) < gaps] = np.nan
    return true, pred, region, condition


def drawn_once(monkeypatch, resampler):
    """Every region and condition drawn exactly once."""
    once = tuple(np.ones((size * resampler._strands, 1)) for size in resampler._shape)
    monkeypatch.setattr(resampler, "_weights", lambda: [once])


@pytest.mark.parametrize("strands", [1, 2])
@pytest.mark.parametrize("gaps", [0.0, 0.3, 0.95])
def test_a_resample_of_everything_once_has_the_scores_of_the_table(monkeypatch, strands, gaps):
    true, pred, region, condition = table(1, strands, gaps)
    resampler = Resampler(true, region, condition, "both")
    drawn_once(monkeypatch, resampler)
    got = {name: values.tolist() for name, values in resampler.scores(pred).items()}
    wanted = summarise(true, pred, region, condition)
    for name in SCORES:
        assert got[name] == [pytest.approx(wanted["overall"][name], rel=1e-9)], name
    for name in ("across_region_pearson", "within_region_pearson"):
        value = np.nan if wanted[name] is None else wanted[name]
        assert got[name] == [pytest.approx(value, rel=1e-9, nan_ok=True)], name


@pytest.mark.parametrize("over", ["regions", "conditions", "both"])
def test_a_resample_has_the_scores_of_its_rows_drawn_so_often(over):
    true, pred, region, condition = table(2, gaps=0.2)
    resampler = Resampler(true, region, condition, over, resamples=3, seed=7)
    got = resampler.scores(pred)
    ((of_region, of_condition),) = resampler._weights()
    for b in range(3):
        often = np.ones((len(true), 2), dtype=int)
        if of_region.shape[1] > 1:
            often[:, 0] = of_region[region, b]
        if of_condition.shape[1] > 1:
            often[:, 1] = of_condition[condition, b]
        rows = np.repeat(np.arange(len(true)), often.prod(axis=1))
        wanted = score(true[rows], pred[rows])
        for name in SCORES:
            if name != "spearman":
                assert got[name][b] == pytest.approx(wanted[name], rel=1e-9), name
            else:
                assert got[name][b] == pytest.approx(wanted[name], abs=0.02)
    drawn = [
        (of_region, REGIONS, over != "conditions"),
        (of_condition, CONDITIONS, over != "regions"),
    ]
    for weights, number, is_drawn in drawn:
        assert weights.shape == (number, 3 if is_drawn else 1)
        assert (weights.sum(axis=0) == number).all()


def test_means_over_groups_of_a_resample():
    true, pred, region, condition = table(3)
    resampler = Resampler(true, region, condition, "regions", resamples=2)
    got = resampler.scores(pred)
    ((often, _),) = resampler._weights()
    each = np.array([
        score(true[region == r], pred[region == r])["pearson"] for r in range(REGIONS)
    ])  # fmt: skip
    wanted = [np.average(each, weights=often[:, b]) for b in range(2)]
    np.testing.assert_allclose(got["within_region_pearson"], wanted)
    rows = [np.repeat(np.arange(len(true)), often[region, b].astype(int)) for b in range(2)]
    across = [summarise(true[at], pred[at], region[at], condition[at]) for at in rows]
    wanted = [each["across_region_pearson"] for each in across]
    np.testing.assert_allclose(got["across_region_pearson"], wanted)


def test_two_predictions_are_scored_on_the_same_resamples():
    true, pred, region, condition = table(4)
    resampler = Resampler(true, region, condition, "both", resamples=50)
    first, second = resampler.scores(pred), resampler.scores(2 * pred)
    np.testing.assert_allclose(first["pearson"], second["pearson"])
    again = Resampler(true, region, condition, "both", resamples=50).scores(pred)
    assert all((again[name] == first[name]).all() for name in first)


@pytest.mark.parametrize(
    ("region_known", "condition_known", "sizes", "over"),
    [
        (0.1, 0.9, (50, 50), "regions"), (0.9, 0.0, (50, 50), "conditions"),
        (0.1, 0.1, (50, 50), "both"), (1.0, 1.0, (50, 50), "both"),
        (0.1, 0.9, (4, 50), "conditions"), (1.0, 0.0, (50, 4), "regions"),
        (0.1, 0.9, (4, 3), "regions"),
    ],
)  # fmt: skip
def test_what_is_new_is_drawn(region_known, condition_known, sizes, over):
    known = [np.arange(100) < 100 * share for share in (region_known, condition_known)]
    assert choose_over(*known, *sizes) == over


@pytest.mark.parametrize("over", ["regions", "conditions", "both"])
def test_too_few_clusters_have_no_interval(over):
    true, pred, region, condition = table(5)
    few = (region < FEWEST - 1) if over == "regions" else (condition < FEWEST - 1)
    resampler = Resampler(true[few], region[few], condition[few], over)
    word = "regions" if over == "regions" else "conditions"
    assert resampler.reason == f"an interval needs at least {FEWEST} {word}, and there are 4"
    with pytest.raises(ValueError, match="at least"):
        resampler.scores(pred[few])


def test_constant_predictions_have_no_correlation_in_any_resample():
    true, pred, region, condition = table(6)
    got = Resampler(true, region, condition, "regions", resamples=20).scores(np.ones_like(pred))
    assert interval(got["pearson"]) is None
    assert interval(got["across_region_pearson"]) is None
    assert interval(got["rmse"]) is not None


def test_an_interval_leaves_two_and_a_half_percent_on_each_side():
    assert interval(np.arange(1001.0)) == [25, 975]
    values = np.arange(100.0)
    values[:6] = np.nan
    assert interval(values) is None


@pytest.mark.parametrize("over", ["regions", "both"])
def test_intervals_cover_the_truth(over):
    """Of simulated tables of new regions, 90 to 99 % of the 95 % intervals hold the true r."""
    rng = np.random.default_rng(0)
    covered, tables, regions, conditions = 0, 200, 60, 30
    true_r = 1 / np.sqrt(1.5 * 3)
    for i in range(tables):
        shared = rng.normal(size=(regions, 1))  # a region's rows are far from independent
        of_condition = rng.normal(size=conditions) * np.sqrt(0.5) if over == "both" else 0.0
        noise = np.sqrt(0.5) if over == "regions" else 0.0
        true = shared + of_condition + noise * rng.normal(size=(regions, conditions))
        pred = shared + np.sqrt(2) * rng.normal(size=(regions, 1)) + np.zeros((1, conditions))
        region, condition = np.divmod(np.arange(true.size), conditions)
        resampler = Resampler(true.reshape(-1), region, condition, over, resamples=200, seed=i)
        low, high = interval(resampler.scores(pred.reshape(-1))["pearson"])
        covered += low <= true_r <= high
    assert 0.90 <= covered / tables <= 0.99


@pytest.mark.parametrize("over", ["regions", "conditions", "both"])
def test_pearson_alone_is_that_of_all_scores_on_the_same_resamples(over):
    true, pred, region, condition = table(2, strands=2, gaps=0.2)
    resampler = Resampler(true, region, condition, over, resamples=150)
    many = np.stack([pred, -pred, 2 + pred**2, np.ones_like(pred)])
    for one, got in zip(many, resampler.pearson(many), strict=True):
        np.testing.assert_allclose(got, resampler.scores(one)["pearson"], atol=1e-12)


@pytest.mark.parametrize("over", ["regions", "conditions", "both"])
@pytest.mark.parametrize(("strands", "gaps"), [(1, 0.0), (2, 0.3), (1, 0.95)])
def test_blocks_of_regions_give_the_scores_of_the_whole(monkeypatch, over, strands, gaps):
    true, pred, region, condition = table(4, strands, gaps)
    order = np.random.default_rng(0).permutation(len(true))
    rows = true[order], region[order], condition[order]
    whole = Resampler(*rows, over, resamples=150).scores(pred[order])
    monkeypatch.setattr(bootstrap, "_CELLS", 7 * CONDITIONS * strands)
    blocks = Resampler(*rows, over, resamples=150)
    assert len(list(blocks._blocks())) >= 3
    for name, values in blocks.scores(pred[order]).items():
        np.testing.assert_allclose(values, whole[name], rtol=1e-9, atol=1e-12, err_msg=name)
