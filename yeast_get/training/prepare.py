"""One training run in the order of its work: table, split, schema, model, fit, test."""

from __future__ import annotations

import logging
import os
import platform
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from yeast_get import __version__
from yeast_get.config import Settings, write_settings
from yeast_get.data.data_report import describe, describe_findings, problem_table
from yeast_get.data.expression_data import ExpressionData, load_expression_data
from yeast_get.data.features import FeatureSchema
from yeast_get.data.seen_regions import SeenRegions
from yeast_get.data.splits import TEST, TRAIN, TrainedRows, make_split, shuffle_targets, split_line
from yeast_get.data.yeast_dataset import WindowPlan
from yeast_get.distributed import from_writer, is_writer, leave, refuse_other_tables, size
from yeast_get.errors import ConfigError, Problem
from yeast_get.evaluation import plots, report
from yeast_get.evaluation.canvas import draw
from yeast_get.evaluation.evaluation import Evaluation, choose_headline
from yeast_get.evaluation.knockout import Knockout
from yeast_get.evaluation.output_tables import part_counts, write_data_report, write_splits
from yeast_get.evaluation.page import write_page
from yeast_get.evaluation.rivals import Rivals
from yeast_get.evaluation.scorecard import headline_lines, log_overlap
from yeast_get.evaluation.sweep import Sweep
from yeast_get.model.pretrained import LoadReport
from yeast_get.model.yeast_model import Ensemble, YeastModel, YeastTransformer
from yeast_get.run_dir import RunDir, write_json, write_text
from yeast_get.training.checkpoint import Checkpoint
from yeast_get.training.ensemble import finish, train_other_members
from yeast_get.training.finetune import Finetune
from yeast_get.training.loop import Progress, Stage, fit, training_dtype
from yeast_get.training.resuming import resumable
from yeast_get.training.transfer import (
    Pretrained,
    adapt,
    freeze,
    fresh,
    load_into,
    log_trainable,
    log_what_was_seen,
    read_pretrained,
    trainable_table,
    with_sizes_of,
)

log = logging.getLogger(__name__)


@dataclass
class Prepared:
    """All that training needs.

    Attributes:
        stage: What is trained: table, parts, settings, and all of the checkpoint but its weights.
        schema: Fitted on the training part.
        model: Freshly initialised, loaded and adapted as the settings ask; on its device.
        another: Makes such a model from another seed, for an ensemble.
        split: The line that says what is held out.
        described: The content of `data_report.json`.
        last: The checkpoint of the run to continue; None for a new one.
    """

    stage: Finetune
    schema: FeatureSchema
    model: YeastModel
    another: Callable[[int], YeastModel]
    split: str
    described: dict[str, Any]
    last: Checkpoint | None


def prepare(settings: Settings, device: torch.device, last: Path | None = None) -> Prepared:
    """Read the table, split it, fit the schema, build the model, and say what was found.

    Whatever can be wrong with the table, the settings or a pretrained checkpoint is found here,
    before a file is written.

    Args:
        settings: The run's.
        device: Where to compute.
        last: The `last.pth` to continue from.
    """
    settings, pretrained = start_from(settings, device)
    data = load_expression_data(settings)
    refuse_other_tables(data.fingerprint, data.source)
    data.log_summary()
    part = make_split(data, settings.split)
    split = split_line(data, part, settings.split)
    log.info("%s", split)
    described = describe(data, settings)
    described["split"] = {"rows": part_counts(part), "said": split}
    if settings.training.shuffle_targets:
        shuffle_targets(data, part, settings.experiment.seed)
        log.warning("warning: training.shuffle_targets: targets of the training and the validation "
                    "part are shuffled; this run is a control, and predicts nothing")  # fmt: skip
    inherited = None if pretrained is None else pretrained.inherited()
    schema = FeatureSchema.fit(data, part == TRAIN, settings, inherited)
    for line in schema.unseen(data):
        log.warning("warning: %s", line)
    plan = WindowPlan(data, settings.data.regions_per_window)  # refuses regions without a place
    settings = with_batch_size(settings, plan, part == TRAIN)
    model = fresh(YeastModel, settings, schema)
    load_report = begin(model, pretrained, schema, settings)
    record: dict[str, Any] = {}
    if pretrained is not None and load_report is not None:
        log_what_was_seen(pretrained.weights, data, part == TEST)
        record = adapt(model, load_report, settings)
    log_trainable(model)
    log_device(settings, device)
    if size() > 1:
        log.info("%d processes share every batch", size())
    trained = np.unique(data.region_index[part == TRAIN])
    seen = SeenRegions.fit(schema.region_inputs(data)[trained])
    checkpoint = Checkpoint(
        settings=settings.to_dict(),
        schema=schema.to_dict(),
        model={},
        trained_rows=TrainedRows.of(data, part).to_dict(),
        baselines={},
        data_fingerprint=data.fingerprint,
        features=schema.input_columns(),
        lora=record,
        load_report={} if load_report is None else load_report.to_dict(),
        seen_regions={} if seen is None else seen.to_dict(),
    )

    def another(seed: int) -> YeastModel:
        seed_everything(seed)
        member = fresh(YeastModel, settings, schema)
        if pretrained is not None:
            adapt(member, load(member, pretrained, schema, settings), settings)
        stage.prepare(member)
        return member.to(device)

    held = None if last is None else from_writer(lambda: resumable(last, checkpoint))
    stage = Finetune(data, part, schema, settings, device, checkpoint)
    stage.prepare(model)
    return Prepared(stage, schema, model.to(device), another, split, described, held)


def start_from(settings: Settings, device: torch.device) -> tuple[Settings, Pretrained | None]:
    """The settings, in the sizes of the pretrained checkpoint, and the checkpoint if there is one.

    Raises:
        UserError: Where the device cannot compute as asked, or the checkpoint cannot be used.
    """
    if settings.training.precision == "fp16" and device.type != "cuda":
        what = f"training.precision: fp16 needs a CUDA device, and this is {device}"
        raise ConfigError(Problem(what, "use auto, bf16 or fp32"))
    if settings.training.precision == "fp64" and device.type == "mps":
        what = "training.precision: fp64 is not to be had on mps"
        raise ConfigError(Problem(what, "use auto or fp32, or --device cpu"))
    pretrained = read_pretrained(settings.finetune)
    if pretrained is not None:
        settings = with_sizes_of(settings, pretrained.weights)
    seed_everything(settings.experiment.seed)
    return settings, pretrained


def log_device(settings: Settings, device: torch.device) -> None:
    """Say where and in which precision the training computes."""
    number = torch.float64 if settings.training.precision == "fp64" else torch.float32
    precision = training_dtype(settings, device) or number
    log.info("device %s, %s", device, str(precision).removeprefix("torch."))


def with_batch_size(settings: Settings, plan: WindowPlan, train: np.ndarray) -> Settings:
    """The settings with the number of windows per batch that `training.batch_size: 0` means."""
    if settings.training.batch_size:
        return settings
    training = settings.training.model_copy(update={"batch_size": plan.batch_size(train)})
    return settings.model_copy(update={"training": training})


def seed_everything(seed: int) -> None:
    """Seed every generator: that of torch, and those that a library may draw from."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002


def begin(
    model: YeastTransformer,
    pretrained: Pretrained | None,
    schema: FeatureSchema,
    settings: Settings,
) -> LoadReport | None:
    """Load the pretrained checkpoint into a fresh model, say so, and freeze what is named."""
    if pretrained is None:
        return None
    load_report = load(model, pretrained, schema, settings)
    for line in load_report.lines():
        log.info("%s", line)
    return load_report


def load(
    model: YeastTransformer, pretrained: Pretrained, schema: FeatureSchema, settings: Settings
) -> LoadReport:
    """Load the pretrained checkpoint into a fresh model, and freeze what is named."""
    load_report = load_into(model, pretrained, schema, settings.finetune)
    freeze(model, settings.finetune.freeze)
    return load_report


def train_and_test(
    ready: Prepared, device: torch.device, run: RunDir, command: str
) -> dict[str, Any]:
    """Train, take the best weights, and evaluate them on the test part.

    Args:
        ready: The run.
        device: Where to compute.
        run: Where to write.
        command: The command line that asked for it, for the page.

    Returns:
        The content of `metrics.json`; empty on other ranks than the writer.
    """
    started = time.monotonic()
    stage, settings = ready.stage, ready.stage.settings
    data, part = stage.data, stage.part
    if is_writer():
        write_text(run.config, write_settings(settings))
        write_splits(data, part, run)
        write_findings(ready.described, data, run)
    baselines = Rivals.fit(data, ready.schema, part == TRAIN, settings.split)
    stage.checkpoint.baselines = baselines.to_dict()
    with deterministic(settings.training.deterministic):
        progress = fit(ready.model, stage, run, device, ready.last)
        if is_writer():
            formats = settings.report.formats
            draw(plots.plot_history, run.history, run.history_plot, formats, progress.monitor)
        members = [from_writer(lambda: Checkpoint.load(run.best_model))]
        members += train_other_members(
            stage, ready.another, run, device, resume=ready.last is not None
        )
        best, model = finish(members, stage, run, device)
        epochs = ", ".join(str(each.epoch) for each in members)
        log.info("testing the weights of epoch %s", epochs)
        evaluation = Evaluation(
            model=model,
            data=data,
            schema=ready.schema,
            settings=settings,
            baselines=baselines,
            part=part,
            condition_key=data.signature,
            headline="test",
            overlap=best.rows().overlap(data, part),
            calibration=best.calibrated(),
            seen=best.regions_seen(),
            batch_size=settings.training.batch_size,
        )
        predictions = evaluation.predict()
        if not leave():
            return {}
        interprets = settings.task.interprets
        metrics = report.evaluate(evaluation, predictions, run, tables=False, importance=interprets)
    for line in headline_lines(metrics) if metrics else []:
        log.info("%s", line)
    said = manifest(settings, device, stage, ready.model, progress, time.monotonic() - started)
    said["split"]["said"] = ready.split
    said["training"] |= {"best_epoch": best.epoch, "scores_of_best": best.scores}
    said["training"]["members"] = [
        {"best_epoch": each.epoch, "scores_of_best": each.scores} for each in members
    ]
    write_json(run.manifest, said)
    if settings.report.enabled:
        write_page(run, settings, said, command)
    return metrics


def prepare_evaluation(
    checkpoint: Checkpoint,
    schema: FeatureSchema,
    model: YeastModel | Ensemble,
    settings: Settings,
    split: str | None = None,
    batch_size: int | None = None,
) -> Evaluation:
    """Read a table for a trained model, and say what was found and how much it was trained on.

    Args:
        checkpoint: Of the model.
        schema: Of the checkpoint.
        model: On its device.
        settings: The checkpoint's, with what the evaluation says of its table.
        split: The part that the headline speaks of; None to choose.
        batch_size: Windows per batch; None for the checkpoint's.

    Raises:
        DataError: Also where the table lacks what the model was trained on.
    """
    if settings.training.shuffle_targets:
        log.warning("warning: the model is a control, trained on shuffled targets")
    asked = settings.training.ensemble
    if len(checkpoint.members) + 1 < asked:
        log.warning("warning: %s holds %d of the %d members of its ensemble: training has not come "
                    "to its end", checkpoint.file, len(checkpoint.members) + 1, asked)  # fmt: skip
    data = load_expression_data(settings, need_target=False)
    refuse_other_tables(data.fingerprint, data.source)
    data.match_targets(schema.target_names)
    schema.need_columns(data)
    data.log_summary()
    for line in schema.unseen(data):
        log.warning("warning: %s", line)
    rows = checkpoint.rows()
    part = rows.parts_of(data)
    overlap = rows.overlap(data, part)
    log_overlap(overlap)
    return Evaluation(
        model=model,
        data=data,
        schema=schema,
        settings=settings,
        baselines=checkpoint.fitted_baselines(),
        part=part,
        condition_key=rows.condition_key(data),
        headline=choose_headline(part, data.measured, split),
        overlap=overlap,
        calibration=checkpoint.calibrated(),
        seen=checkpoint.regions_seen(),
        batch_size=batch_size or settings.training.batch_size,
    )


def evaluate_and_answer(
    evaluation: Evaluation,
    questions: Sequence[Sweep | Knockout],
    checkpoint: Checkpoint,
    run: RunDir,
    command: str,
) -> None:
    """Predict and score a table, answer the questions, say it in words, and put it on a page.

    The ranks of torchrun share the prediction of the table; the rest is the writer's.

    Args:
        evaluation: From `prepare_evaluation`.
        questions: From `read_questions`.
        checkpoint: Of the model.
        run: Where to write.
        command: The command line, for the page.
    """
    predictions = evaluation.predict()
    if not leave():
        return
    metrics = report.evaluate(evaluation, predictions, run, tables=True, importance=True)
    for question in questions:
        question.answer(evaluation, run)
    for line in headline_lines(metrics) if metrics else []:
        log.info("%s", line)
    if evaluation.settings.report.enabled:
        write_page(run, evaluation.settings, checkpoint.summary(), command)


def write_findings(described: dict[str, Any], data: ExpressionData, run: RunDir) -> None:
    """What a table that is fit for use holds, and what was found in it."""
    findings = data.findings
    write_data_report(described | describe_findings(findings), problem_table(findings), run)


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Only deterministic algorithms of torch, where wanted; the flag is given back as it was."""
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def manifest(
    settings: Settings,
    device: torch.device,
    stage: Stage,
    model: YeastTransformer,
    progress: Progress,
    seconds: float,
) -> dict[str, Any]:
    """What happened, as against what was asked for (that is `config.yaml`)."""
    data = stage.data
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    rows = trainable_table(model)
    return {
        "software": __version__,
        "name": settings.experiment.name,
        "stage": settings.task.stage,
        "seed": settings.experiment.seed,
        "data": {
            "source": data.source,
            "sha256": data.fingerprint,
            "regions": data.num_regions,
            "samples": data.num_samples,
            "conditions": len(data.condition_first),
            "observations": data.num_observations,
            "measured": int(data.measured.sum()),
            "roles": data.roles,
            "warnings": data.warnings,
        },
        "split": {"observations": part_counts(stage.part)},
        "model": {
            "modules": rows[:-1],
            "parameters": rows[-1]["parameters"],
            "trainable": rows[-1]["trainable"],
            "lora": rows[-1]["lora"],
            "frozen": rows[-1]["frozen"],
        },
        "pretrained": stage.checkpoint.load_report or None,
        "lora": stage.checkpoint.lora or None,
        "training": {
            "epochs": progress.epoch,
            "steps": progress.step,
            "best_epoch": progress.best_epoch,
            "last_loss": progress.loss / progress.targets if progress.targets else None,
            "seconds": round(seconds, 1),
        },
        "device": {"kind": str(device), "gpu": gpu, "threads": torch.get_num_threads()},
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": np.__version__,
        },
    }
