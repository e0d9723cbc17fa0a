"""The loss sums what was measured; the learning rate is a function of the step."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional as F

from yeast_get.batch import InputSizes
from yeast_get.config import Settings, load_settings
from yeast_get.model.yeast_model import YeastModel
from yeast_get.training.losses import loss_sum
from yeast_get.training.optim import learning_rate, make_optimizer


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mse", lambda p, y: (p - y) ** 2),
        ("huber", lambda p, y: F.huber_loss(p, y, reduction="none")),
        ("poisson", lambda p, y: p - y * torch.log(p + 1e-8)),
    ],
)
def test_a_loss_is_the_sum_over_measured_targets(name, expected):
    prediction = torch.rand(4, 3, 2) * 3 + 0.1
    target = torch.rand(4, 3, 2) * 3
    mask = torch.rand(4, 3, 2) > 0.4
    value = loss_sum(name, prediction, target, mask)
    assert value == pytest.approx(float(expected(prediction, target)[mask].sum()), rel=1e-5)


def test_a_masked_target_has_no_gradient_even_where_it_is_wild():
    prediction = torch.tensor([[[1.0], [2.0]]], requires_grad=True)
    target = torch.tensor([[[float("nan")], [1.0]]])
    loss = loss_sum("mse", prediction, target, torch.tensor([[[False], [True]]]))
    loss.backward()
    assert loss == 1.0
    assert prediction.grad.flatten().tolist() == [0.0, 2.0]


def test_the_rate_is_that_of_the_published_recipe(data_dir):
    """Warm-up from min_lr to the peak, then cosine: the reference's own numbers."""
    fixture = json.loads((data_dir / "get_fixtures" / "get_lr_schedule_fixture.json").read_text())
    args = fixture["args"]
    settings = load_settings(
        None,
        [
            f"training.learning_rate={args['base']}", f"scheduler.min_lr={args['final']}",
            f"training.max_epochs={args['epochs']}",
            f"training.warmup_epochs={args['warmup_epochs']}",
        ],
    )  # fmt: skip
    steps = args["niter"]
    ours = [learning_rate(i, steps, settings) for i in range(args["epochs"] * steps)]
    assert ours == pytest.approx(fixture["values"], rel=1e-9)


def test_a_constant_rate_stays_after_the_warm_up():
    settings = load_settings(None, ["scheduler.name=constant", "training.warmup_epochs=2"])
    rates = [learning_rate(i, 5, settings) for i in range(100)]
    assert rates[0] == settings.scheduler.min_lr
    assert rates[9:] == [settings.training.learning_rate] * 91
    assert rates[:10] == sorted(rates[:10])


def test_no_warm_up_starts_at_the_peak():
    settings = load_settings(None, ["training.warmup_epochs=0"])
    assert learning_rate(0, 5, settings) == settings.training.learning_rate


def optimizer(*overrides: str) -> torch.optim.Optimizer:
    settings: Settings = load_settings(None, overrides)
    sizes = InputSizes(3, 1, ["temperature"], {"medium": 3}, [], 2, 1, 0)
    return make_optimizer(YeastModel(settings.model, sizes), settings)


def test_the_optimizer_is_the_one_asked_for():
    made = optimizer(
        "optimizer.name=adam",
        "training.weight_decay=0",
        "optimizer.betas=[0.8, 0.99]",
        "optimizer.eps=1e-6",
    )
    assert type(made) is torch.optim.Adam
    assert type(optimizer()) is torch.optim.AdamW
    for group in made.param_groups:
        assert group["betas"] == (0.8, 0.99)
        assert group["eps"] == 1e-6


def test_weight_decay_reaches_linear_weights_only():
    groups = {g["name"]: g for g in optimizer("training.weight_decay=0.3").param_groups}
    assert groups["decay"]["weight_decay"] == 0.3
    assert groups["no_decay"]["weight_decay"] == 0.0
    assert all(p.dim() == 2 for p in groups["decay"]["params"])
