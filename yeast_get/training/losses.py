"""Losses over the measured targets of a batch, in model space."""

from __future__ import annotations

import torch
from torch.nn import functional as F

HUBER_DELTA = 1.0
"""Where the Huber loss turns linear, in SDs of the training targets."""


def loss_sum(
    name: str, prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Sum of the loss over the targets where `mask` is True.

    A sum and not a mean, so that batches of different numbers of valid targets weigh as they
    should when gradients are accumulated.

    Args:
        name: `mse`, `huber` or `poisson` (negative log likelihood without the term of the target
            alone; the prediction is a rate above zero, as GET's softplus gives it).
        prediction: [B,R,T].
        target: [B,R,T].
        mask: [B,R,T] bool.
    """
    prediction = prediction.to(torch.promote_types(prediction.dtype, torch.float32))
    target = target.to(prediction.dtype).masked_fill(~mask, 1.0)  # whatever stands there, even NaN
    if name == "mse":
        loss = F.mse_loss(prediction, target, reduction="none")
    elif name == "huber":
        loss = F.huber_loss(prediction, target, reduction="none", delta=HUBER_DELTA)
    else:
        loss = F.poisson_nll_loss(prediction, target, log_input=False, reduction="none")
    return loss.masked_fill(~mask, 0.0).sum()
