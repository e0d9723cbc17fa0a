"""`--check`: everything that a run does before it trains, and one batch through the model."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from yeast_get.config import Settings
from yeast_get.data.data_report import describe_findings, problem_table, report_lines
from yeast_get.data.expression_data import ExpressionData
from yeast_get.data.findings import Findings
from yeast_get.data.yeast_dataset import EpochSampler, YeastDataset, batches
from yeast_get.errors import DataError, Problem, RunError
from yeast_get.evaluation.output_tables import write_data_report
from yeast_get.model.yeast_model import YeastTransformer
from yeast_get.run_dir import RunDir
from yeast_get.training.loop import training_dtype
from yeast_get.training.losses import loss_sum
from yeast_get.training.prepare import write_findings

log = logging.getLogger(__name__)


@contextmanager
def reporting_errors(run: RunDir | None) -> Iterator[None]:
    """Where a table is refused inside, write the findings to the folder of a check, if any."""
    try:
        yield
    except DataError as error:
        if run is not None:
            findings = error.findings or Findings()
            described = {"refused": True, **describe_findings(findings)}
            run.start_check()
            write_data_report(described, problem_table(error.findings, error.problems), run)
        raise


def finish_check(described: dict[str, Any], data: ExpressionData, run: RunDir | None) -> None:
    """Print the data report of a table that is fit for use, and write it where asked."""
    for line in report_lines(described):
        log.info("%s", line)
    if run is None:
        log.info("checked: nothing was written")
        return
    run.start_check()
    write_findings(described, data, run)
    log.info("checked: %s and %s are in %s",
             run.data_report.name, run.data_problems.name, run.path)  # fmt: skip


def try_one_batch(
    model: YeastTransformer,
    dataset: YeastDataset,
    wanted: np.ndarray,
    settings: Settings,
    source: str,
) -> None:
    """Send one batch forward and its gradient backward, and say so; no weight changes.

    Args:
        model: On its device.
        dataset: Gathers the batch.
        wanted: [N] bool: of which observations.
        settings: Of the run.
        source: What the table is, for messages.

    Raises:
        RunError: Where the loss or a gradient is not finite.
    """
    started = time.monotonic()
    training = settings.training
    device = next(model.parameters()).device
    dtype = training_dtype(settings, device)
    dataset.use(wanted)
    batch = next(iter(batches(dataset, EpochSampler(len(dataset), training.batch_size))))
    batch = batch.to(device)
    with torch.autocast(device.type, dtype, enabled=dtype is not None):
        prediction = model(batch)
        loss = loss_sum(training.loss, prediction, batch.target, batch.target_mask)
    count = int(batch.target_mask.sum())
    loss = loss if count else prediction.float().sum()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, trained, allow_unused=True)
    finite = all(bool(torch.isfinite(each).all()) for each in gradients if each is not None)
    if not finite or not bool(torch.isfinite(loss)):
        what = "the loss or a gradient of the first batch is not a finite number"
        fix = "look for absurd numbers in the table, or use training.precision: fp32"
        raise RunError(Problem(what, fix, file=source))
    said = f"loss {float(loss.detach()) / count:.4g}" if count else "nothing measured"
    log.info("one batch of %d windows went forward and backward: %s, %.1f s",
             len(batch), said, time.monotonic() - started)  # fmt: skip
