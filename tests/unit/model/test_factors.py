"""What regions and conditions are made of where they meet in a product of factors."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from yeast_get.batch import DOSE_NOT_RECORDED, NONE, InputSizes
from yeast_get.model.factors import ConditionLoadings, RegionEncoding

SIZES = InputSizes(
    region_features=0,
    accessibility=0,
    numbers=["temperature"],
    categories={"medium": 4},
    drugs=["drug"],
    drug_vocabulary=5,
    targets=1,
    known_regions=0,
    number_scales=[[30.0, 5.0, 0.0]],
)
TWO_SLOTS = replace(SIZES, drugs=["drug", "drug_2"])


def conditions(number, medium=1, drug=NONE, dose=0.0, sample=0, present=1.0, other=(0.0, 0.0)):
    """Condition fields of one row per number; each of the others is one value or one per row."""
    rows = len(number)

    def column(value, dtype):
        value = torch.as_tensor(value, dtype=dtype)
        return value.expand(rows).unsqueeze(1) if value.dim() == 0 else value.view(rows, -1)

    return {
        "sample_vocab": column(sample, torch.int64)[:, 0],
        "condition_number": column(number, torch.float32),
        "condition_present": column(present, torch.float32),
        "condition_category": column(medium, torch.int64),
        "condition_other": torch.tensor(other).expand(rows, -1),
        "drug": column(drug, torch.int64),
        "dose": column(dose, torch.float32),
    }


def trained(fields, loadings, code=None, sizes=SIZES):
    """Loadings of one factor and a level [samples,2], remembered of samples in conditions."""
    loadings = torch.as_tensor(loadings).unsqueeze(1)
    known = len(fields["drug"])
    code = torch.arange(known) if code is None else torch.tensor(code)
    sizes = replace(sizes, known_conditions=known, known_samples=len(code))
    made = ConditionLoadings(sizes, 1)
    made.remember(fields, code, torch.arange(1, len(code) + 1), loadings)
    return made


# ------------------------------------------------------------------------------- regions


def test_a_feature_is_how_far_it_reaches_into_each_bin():
    encode = RegionEncoding([[1, 0.0, 2.0, 0.0, 1.0], [0, 1.0, 3.0, 0.5, 0.25]])
    features = torch.tensor([[2.0, 1.0], [9.0, -1.0], [-9.0, 7.0]])
    expected = torch.tensor([[0.5, 0.0], [0.0, 2.0], [1.0, -2.0]])
    torch.testing.assert_close(encode(features), expected)
    with torch.no_grad():
        encode.gate.copy_(torch.tensor([3.0, 0.0]))
    torch.testing.assert_close(encode(features), expected * torch.tensor([3.0, 0.0]))


# ---------------------------------------------------------------------------- conditions


def test_samples_of_training_get_their_own_loadings_back():
    loadings = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    of = trained(conditions([-1.0, 0.5, 2.0]), loadings, [0, 0, 1, 2, 2])
    again = conditions([-1.0, -1.0, 0.5, 2.0, 2.0], sample=[1, 2, 3, 4, 5])
    torch.testing.assert_close(of.of(again)[:, 0], loadings)


def test_another_sample_of_a_known_condition_gets_the_mean_of_its_samples():
    loadings = torch.tensor([[1.0, 2.0], [3.0, -2.0], [5.0, 1.0]])
    of = trained(conditions([-1.0, 1.0]), loadings, [0, 0, 1])
    found = of.of(conditions([-1.0, 1.0]))[:, 0]
    torch.testing.assert_close(found, torch.tensor([[2.0, 0.0], [5.0, 1.0]]), rtol=0, atol=0.01)


def test_a_number_between_those_of_training_is_interpolated():
    number = torch.linspace(-2, 2, 9)
    of = trained(conditions(number), torch.stack((number, number.abs()), dim=1))
    between = torch.tensor([-1.75, -0.75, 0.25, 1.25])
    line, bend = of.of(conditions(between))[:, 0].unbind(1)
    torch.testing.assert_close(line, between, rtol=0, atol=0.25)
    assert bend.argsort().tolist() == [2, 1, 3, 0]
    left, spread = bend - between.abs(), number.abs().mean() - between.abs()
    assert left.square().sum() < spread.square().sum() / 2


def test_a_new_drug_has_what_any_drug_did():
    """In training two drugs did the same; of a third nothing is known but that it is a drug."""
    drug, other = [NONE, 2, 3, NONE], torch.tensor([[0.0, 0.0], [0, 1], [0, 1], [0, 0]])
    fields = conditions([0.0, 0.0, 0.0, 1.0], drug=drug, dose=[0.0, 1.0, 1.0, 0.0])
    fields["condition_other"] = other
    of = trained(fields, [[0.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    new = conditions([0.0], drug=4, dose=1.0, other=(0.0, 1.0))
    assert of.of(new)[0, 0, 0] > 1
    assert of.of(conditions([0.0]))[0, 0, 0] < 0.1


def treated(drug, dose, **more):
    return conditions([0.0] * len(dose), drug=drug, dose=dose, other=(0.0, 0.0), **more)


def test_what_a_drug_does_at_a_dose_holds_where_all_else_is_different():
    """Heat and another medium are far from all of training, whose dose curve still counts."""
    doses = torch.linspace(0, 1, 6)
    of = trained(treated([NONE] + [2] * 5, doses), torch.stack((doses, 0 * doses), dim=1))
    elsewhere = {"number": [9.0] * 3, "medium": 3, "dose": [0.2, 0.5, 0.9]}
    curve = of.of(conditions(drug=2, **elsewhere))[:, 0, 0]
    assert (curve.diff() > 0.1).all()
    other = of.of(conditions(drug=3, **elsewhere))[:, 0, 0]
    assert np.ptp(other.numpy()) < np.ptp(curve.numpy()) / 3


def test_a_drug_is_the_same_in_whichever_slot_and_beside_whatever():
    slots = [[NONE, NONE], [2, NONE], [3, NONE], [4, NONE]]
    doses = [[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]
    fields = treated(slots, doses) | {"condition_other": torch.zeros(4, 3)}
    of = trained(fields, [[0.0, 0.0], [4.0, 0.0], [0.0, 0.0], [0.0, 0.0]], sizes=TWO_SLOTS)
    both = treated([[3, 2], [2, 3], [3, 4]], [[1.0, 1.0]] * 3, medium=3)
    both |= {"condition_other": torch.zeros(3, 3)}
    with_it, again, without = of.of(both)[:, 0, 0]
    assert with_it == again
    assert with_it > without + 1


def test_a_time_since_a_treatment_has_no_trend_of_its_own():
    """Far beyond the times of training nothing is said, where a number that lasts has a trend."""
    time = torch.linspace(-1, 1, 5)
    loadings = torch.stack((time, 0 * time), dim=1)
    ends = [
        trained(conditions(time), loadings, sizes=sizes).of(conditions([9.0]))[0, 0, 0]
        for sizes in (SIZES, replace(SIZES, since=[0]))
    ]
    assert ends[0] > 1.5
    assert abs(ends[1]) < 0.01


def test_a_trend_ends_far_from_the_conditions_of_training():
    time = torch.linspace(-1, 1, 5)  # of SD 0.7
    of = trained(conditions(time), torch.stack((time, 0 * time), dim=1))
    found = of.of(conditions([1.5, 2.0, 3.0, 30.0]))[:, 0, 0].tolist()
    assert found[0] < found[1] < found[2] - 0.2
    assert found[3] == pytest.approx(found[2], abs=0.05)


def test_a_model_goes_on_with_the_constants_that_it_was_trained_with(monkeypatch):
    fields = conditions([-1.0, 0.0, 2.0], drug=3, dose=[0.0, 0.3, 0.6])
    loadings = [[1.0, 0.0], [0.5, 0.0], [3.0, 1.0]]
    of = trained(fields, loadings)
    for name in ("TRENDS", "SMOOTH", "SAME_DRUG", "WORDS_APART", "FAR"):
        monkeypatch.setattr(f"yeast_get.model.factors.{name}", 0.3)
    later = trained(fields, loadings)
    asked = conditions([1.0, 9.0], medium=2, drug=3, dose=0.5)
    assert (later.of(asked) - of.of(asked)).abs().min() > 1e-3
    later.load_state_dict(of.state_dict())
    assert (later.of(asked) == of.of(asked)).all()


def test_the_mean_is_of_samples_and_not_of_conditions():
    of = trained(
        conditions([-1.0, 1.0], medium=[1, 2]), [[1.0, 0.0]] * 3 + [[5.0, 0.0]], [0] * 3 + [1]
    )
    assert of.centre.tolist() == [2.0, 0.0]


def test_a_condition_like_none_of_training_has_their_mean():
    of = trained(conditions([-1.0, 1.0], medium=[1, 2]), [[1.0, 4.0], [3.0, 0.0]])
    found = of.of(conditions([0.0], medium=3))[0, 0]
    torch.testing.assert_close(found, torch.tensor([2.0, 2.0]), rtol=0, atol=0.05)


def test_a_blank_number_is_taken_for_the_usual_one():
    sizes = replace(SIZES, number_scales=[[30.0, 5.0, 1.0]])
    of = trained(conditions([-1.0, 1.0]), [[1.0, 0.0], [3.0, 0.0]], sizes=sizes)
    blank = of.of(conditions([0.0], present=0.0))
    assert torch.equal(blank, of.of(conditions([1.0])))
    assert not torch.allclose(blank, of.of(conditions([0.0])))


def test_a_step_is_the_difference_in_units_of_the_table():
    sizes = replace(
        SIZES, numbers=["temperature", "preculture_temperature"], steps=[[0, 1]],
        number_scales=[[30.0, 5.0, 0.0], [28.0, 2.0, 0.0]],
    )  # fmt: skip
    made = ConditionLoadings(sizes, 1)
    fields = conditions(torch.tensor([[1.0, 0.5], [0.0, 1.0], [1.0, 1.0]]), present=1.0)
    fields["condition_present"] = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    linear, smooth, _ = made._describe(fields)
    assert linear[:, :2].tolist() == [[1.0, 6.0], [0.0, 0.0], [1.0, 0.0]]  # 35 - 29, 30 - 30, ?
    assert torch.equal(smooth[:, :2], linear[:, :2])


def test_a_condition_is_known_again_in_another_precision():
    """A step is a difference of two large numbers, whose last digits are those of a processor."""
    sizes = replace(
        SIZES, numbers=["temperature", "preculture_temperature"], steps=[[0, 1]],
        number_scales=[[30.1, 5.3, 0.0], [28.7, 2.9, 0.0]],
    )  # fmt: skip
    g = torch.Generator().manual_seed(1)
    fields = conditions(torch.randn(20, 2, generator=g))
    fields["condition_present"] = torch.ones(20, 2)
    of = trained(fields, torch.randn(20, 2, generator=g), sizes=sizes)
    found = of.of(fields)
    again = of.double().of(
        {k: v.double() if v.is_floating_point() else v for k, v in fields.items()}
    )
    torch.testing.assert_close(again.float(), found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dose", [0.5, DOSE_NOT_RECORDED])
def test_a_drug_that_is_not_known_is_a_drug_in_whichever_slot(dose):
    """Its slot must not be that of "no drug", or nothing of a treatment would be left."""
    made = ConditionLoadings(TWO_SLOTS, 1)
    one, other = (
        made._describe(conditions([0.0], drug=[drug], dose=[doses], other=(0.0, *flags)))
        for drug, doses, flags in (
            ([0, NONE], [dose, 0.0], (1.0, 0.0)),
            ([NONE, 0], [0.0, dose], (0.0, 1.0)),
        )
    )
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    known = made._describe(
        conditions([0.0], drug=[[3, NONE]], dose=[[dose, 0.0]], other=(0.0, 1.0, 0.0))
    )
    assert torch.equal(known[0], one[0])


def test_loadings_keep_their_precision_under_autocast():
    loadings = torch.randn(9, 2, generator=torch.Generator().manual_seed(1))
    fields = conditions(torch.linspace(-2, 2, 9))
    of = trained(fields, loadings)
    with torch.autocast("cpu", torch.bfloat16):
        found = of.of(fields)
    assert torch.equal(found, of.of(fields))


def test_conditions_that_do_not_vary_divide_by_nothing():
    of = trained(conditions([0.5], medium=2), [[1.0, 2.0], [3.0, 4.0]], [0, 0])
    assert of.of(conditions([0.5, 4.0], medium=[2, 3])).isfinite().all()
    torch.testing.assert_close(of.of(conditions([0.5], medium=2))[0, 0], torch.tensor([2.0, 3.0]))


def test_a_number_that_was_the_same_in_training_is_not_the_same_elsewhere():
    of = trained(conditions([0.5, 0.5], medium=[1, 2]), [[1.0, 0.0], [3.0, 0.0]])
    here, elsewhere = of.of(conditions([0.5, 4.0]))[:, 0, 0].tolist()
    assert here == pytest.approx(1, abs=0.01)
    assert here + 0.1 < elsewhere < 2  # nearer to the mean of training


def test_many_conditions_are_compared_some_at_a_time(monkeypatch):
    """So that memory grows with conditions times those of training, not with their columns too."""
    fields = conditions([20.0, 25.0, 37.0])
    of = trained(fields, [[1.0, 0.1], [2.0, 0.2], [4.0, 0.4]])
    together, sizes = of.of(fields), []
    some = ConditionLoadings._likeness
    monkeypatch.setattr(
        ConditionLoadings, "_likeness", lambda self, *f: sizes.append(len(f[0])) or some(self, *f)
    )
    monkeypatch.setattr("yeast_get.model.factors.AT_ONCE", 2 * 3 * 3)
    assert torch.equal(of.of(fields), together)
    assert sizes == [2, 1]


def test_loadings_are_computed_anew_whenever_anything_changed(monkeypatch):
    fields = conditions([20.0, 25.0, 37.0])
    first = trained(fields, [[1.0, 0.1], [2.0, 0.2], [4.0, 0.4]])
    other = trained(fields, [[3.0, 0.1], [1.0, 0.3], [0.0, 0.0]])
    asked = []
    described = ConditionLoadings._describe
    monkeypatch.setattr(
        ConditionLoadings, "_describe", lambda *given: asked.append(1) or described(*given)
    )

    def said(batch):
        asked.clear()
        found = first(SimpleNamespace(**batch))
        assert torch.equal(found, first.of(batch))
        return len(asked) - 1  # without that of the comparison

    assert said(fields) == 1
    assert said(fields) == 0
    assert said(conditions([20.0, 25.0, 38.0])) == 1
    assert said(fields) == 1
    fields["condition_number"] += 1
    assert said(fields) == 1
    first.load_state_dict(other.state_dict())
    assert said(fields) == 1
    first.double()
    assert said({name: x.double() if x.is_floating_point() else x for name, x in fields.items()})
