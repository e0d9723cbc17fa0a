"""Predictions of a model for any observations of a table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from yeast_get.data.blocks import blocks
from yeast_get.data.features import FeatureSchema
from yeast_get.data.yeast_dataset import EpochSampler, YeastDataset, batches
from yeast_get.distributed import rank, size, sum_over_ranks
from yeast_get.model.yeast_model import Ensemble, YeastModel, members_of


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The reduced precision to compute in, None for float32.

    `auto` is bfloat16 on a GPU that has it and float32 elsewhere. In `fp64` the weights themselves
    are double.
    """
    if precision == "auto":
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if has_bf16 else None
    return {"fp32": None, "fp64": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode without gradients; the mode is given back as it was, even after an error."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def predict(
    model: YeastModel | Ensemble,
    dataset: YeastDataset,
    wanted: np.ndarray,
    batch_size: int,
    precision: str = "fp32",
) -> np.ndarray:
    """Predict each wanted observation once.

    Args:
        model: On the device to compute on.
        dataset: Without augmentation.
        wanted: [N] bool.
        batch_size: Windows per batch.
        precision: As in `training.precision`.

    Returns:
        [N,T] float32 in model space, NaN where not wanted.
    """
    dataset.use(wanted)
    return run(model, dataset, batch_size, precision)


def predict_members(
    model: YeastModel | Ensemble,
    dataset: YeastDataset,
    wanted: np.ndarray,
    batch_size: int,
    precision: str = "fp32",
) -> np.ndarray:
    """As `predict`, for every member of an ensemble apart [K,N,T]; K = 1 for a single model."""
    said = [predict(each, dataset, wanted, batch_size, precision) for each in members_of(model)]
    return np.stack(said) if len(said) > 1 else said[0][None]


def mean_and_spread(members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of members [K,...] in model space -> their mean and SD; 0 for a single model."""
    if len(members) == 1:
        return members[0], np.zeros_like(members[0])
    return members.mean(axis=0), members.std(axis=0, ddof=1)


def in_input_units(
    schema: FeatureSchema, members: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Predictions of members [K,N,T] in model space -> mean and SD [N,T] in units of the input.

    The mean is taken in model space, as an ensemble does; a single model has no SD.
    """
    y_pred = np.empty(members.shape[1:], dtype=np.float32)
    for rows in blocks(len(y_pred)):
        y_pred[rows] = schema.to_input_units(members[:, rows].mean(axis=0))
    y_std = schema.to_input_units(members).std(axis=0, ddof=1) if len(members) > 1 else None
    return y_pred, y_std


def run(
    model: YeastModel | Ensemble, dataset: YeastDataset, batch_size: int, precision: str = "fp32"
) -> np.ndarray:
    """Predict the observations that the dataset is set to; see `predict`.

    Of several ranks each predicts its share of every batch, and all know all predictions.
    """
    weight = next(model.parameters())
    device, dtype = weight.device, autocast_dtype(precision, weight.device)
    out = np.full(tuple(dataset.target.shape), np.nan, dtype=np.float32)
    sampler = EpochSampler(dataset.windows.place, batch_size, shard=(rank(), size()))
    with evaluating(model), torch.autocast(device.type, dtype, enabled=dtype is not None):
        for batch in batches(dataset, sampler):
            prediction = model(batch.to(device, weight.dtype)).float()
            scored = batch.observation_index >= 0
            at = batch.observation_index[scored].cpu().numpy()
            out[at] = prediction[scored.to(device)].cpu().numpy()
    return out if size() == 1 else _joined(out, device)


def _joined(mine: np.ndarray, device: torch.device) -> np.ndarray:
    """Predictions of all ranks [N,T]: each row from the one that predicted it, NaN from none."""
    known = torch.from_numpy(~np.isnan(mine)).to(device, torch.float32)
    said = torch.from_numpy(np.nan_to_num(mine, posinf=np.inf, neginf=-np.inf)).to(device)
    said, known = sum_over_ranks(said), sum_over_ranks(known)
    return torch.where(known > 0, said, torch.nan).cpu().numpy()
