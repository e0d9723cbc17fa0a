"""The optimizer, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math

import torch

from yeast_get.config import Settings
from yeast_get.model.yeast_model import YeastTransformer


def make_optimizer(model: YeastTransformer, settings: Settings) -> torch.optim.Optimizer:
    """AdamW or Adam over the model's parameter groups (no decay on biases, norms, embeddings)."""
    groups = model.parameter_groups(settings.training.weight_decay)
    name = settings.optimizer.name
    make = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    beta1, beta2 = settings.optimizer.betas
    return make(
        groups,
        lr=settings.training.learning_rate,
        betas=(beta1, beta2),
        eps=settings.optimizer.eps,
        fused=True,  # all parameters in one pass
    )


def learning_rate(step: int, steps_per_epoch: int, settings: Settings) -> float:
    """Rate of one optimizer step, counted from 0: linear warm-up, then cosine or constant.

    The warm-up starts at `min_lr` and reaches `learning_rate` on its last step; the cosine starts
    there and would reach `min_lr` on the step after the last.
    """
    high, low = settings.training.learning_rate, settings.scheduler.min_lr
    warmup = round(settings.training.warmup_epochs * steps_per_epoch)
    total = settings.training.max_epochs * steps_per_epoch
    if step < warmup:
        return high if warmup == 1 else low + (high - low) * step / (warmup - 1)
    if settings.scheduler.name == "constant":
        return high
    done = min((step - warmup) / max(total - warmup, 1), 1.0)
    return low + (high - low) * (1 + math.cos(math.pi * done)) / 2
