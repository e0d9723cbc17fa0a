"""Predict and score a table with a trained model."""

from __future__ import annotations

from typing import Any

import click

from yeast_get import __version__
from yeast_get.command_line import DEVICE_HELP, QUESTIONS, Command, asking, log, run_command

GROUPS = {
    "What most runs need": ["model", "data", "output", "device"],
    "What is scored": ["split", "batch_size", "interpret"],
    "Asking questions": list(QUESTIONS),
    "LoRA and GET": ["base", "export", "export_get"],
    "Settings": ["config", "overrides"],
    "Runs that exist already": ["overwrite"],
    "Looking without evaluating": ["check", "debug"],
}
EPILOG = """\b
The two commands that most people need:
  train_yeast    --config config/yeast_training.yaml --data TABLE --output output/run
  evaluate_yeast --model output/run/best_model.pth --data TABLE --output output/eval"""


@click.command("evaluate_yeast", cls=Command, groups=GROUPS, epilog=EPILOG)
@click.option(
    "--model", required=True, type=click.Path(), help="A best_model.pth, or an adapter.pth."
)
@click.option("--data", type=click.Path(), help="A long table, data folder or workbook.")
@click.option("--output", type=click.Path(), help="The folder to write.")
@click.option("--device", default="auto", show_default=True, help=DEVICE_HELP)
@click.option(
    "--split", type=click.Choice(["train", "val", "test", "new", "all"]),
    help="The part that the headline speaks of; new: rows that the training table did not hold.  "
    "[default: where the table holds rows that were trained on, test or else new; otherwise all]",
)  # fmt: skip
@click.option(
    "--batch-size", type=click.IntRange(1), help="Windows per batch; does not change the answer."
)
@click.option("--interpret", is_flag=True, help="Attribute predictions to motifs, too.")
@asking
@click.option(
    "--base", type=click.Path(), help="The pretrained file that an adapter.pth was trained from."
)
@click.option(
    "--export", type=click.Path(), help="Write a model with its adapters merged; may stand alone."
)
@click.option(
    "--export-get", type=click.Path(), help="Write GET's part of it in GET's layout; likewise."
)
@click.option(
    "--config", type=click.Path(), help="A YAML; data, conditions, task and report are read."
)
@click.option(
    "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE",
    help="Override one key of these sections; may be repeated.",
)  # fmt: skip
@click.option("--check", is_flag=True, help="Read and report everything, then stop.")
@click.option("--overwrite", is_flag=True, help="Replace the evaluation in --output.")
@click.option("--debug", is_flag=True, help="Show tracebacks and more log lines.")
@click.version_option(__version__)
def main(debug: bool, **options: Any) -> None:
    """Predict and score a table with a trained model; the checkpoint and the table are enough.

    Rows that the model was trained on are recognised, counted, and never mixed with the others
    into one score.
    """
    run_command(lambda: evaluate(**options), debug)


def evaluate(
    model: str,
    data: str | None,
    output: str | None,
    device: str,
    split: str | None,
    batch_size: int | None,
    interpret: bool,
    questions: dict[str, Any],
    base: str | None,
    export: str | None,
    export_get: str | None,
    config: str | None,
    overrides: tuple[str, ...],
    check: bool,
    overwrite: bool,
) -> None:
    """Do what the command says, from the checkpoint to the plots."""
    import time

    from yeast_get.command_line import choose_device, command_text, log_to_file, run_folder
    from yeast_get.config import settings_for_evaluation
    from yeast_get.data.data_report import describe
    from yeast_get.distributed import is_writer
    from yeast_get.errors import Problem, RunError
    from yeast_get.evaluation.questions import read_questions
    from yeast_get.run_dir import EVALUATE_FILES, check_new_files
    from yeast_get.training.check import finish_check, reporting_errors, try_one_batch
    from yeast_get.training.checkpoint import Checkpoint, export_model
    from yeast_get.training.prepare import (
        evaluate_and_answer,
        prepare_evaluation,
        write_findings,
    )

    started = time.monotonic()
    where = choose_device(device)
    checkpoint = Checkpoint.load(model).with_base(base)
    _, schema, network = checkpoint.build()
    named = {"data.path": data, "task.interpret": interpret or None}
    settings = settings_for_evaluation(checkpoint.settings, config, overrides, named)
    nothing_to_read = output is None and settings.data.path is None and not check and not questions
    exports_only = bool(export or export_get) and nothing_to_read
    if not exports_only and output is None and not check:
        raise RunError(Problem("no folder is named", "give --output"))
    run, _, overwrite = run_folder(output, EVALUATE_FILES, check, False, overwrite)
    if is_writer():
        check_new_files([p for p in (export, export_get) if p], [model, base], overwrite)
    if exports_only:
        if is_writer():
            export_model(checkpoint, export, export_get)
        return
    log.info("%s: epoch %d, trained by version %s", model, checkpoint.epoch, checkpoint.software)
    report_to = run if check and run.takes_a_report() else None
    with reporting_errors(report_to):
        evaluation = prepare_evaluation(
            checkpoint, schema, network.to(where), settings, split, batch_size
        )
    asked = read_questions(evaluation, **questions)
    described = describe(evaluation.data, settings) | {"overlap_with_training": evaluation.overlap}
    if check:
        every, source = evaluation.in_part("all"), evaluation.data.source
        try_one_batch(evaluation.model, evaluation.dataset, every, settings, source)
        finish_check(described, evaluation.data, report_to)
        return
    if is_writer():
        run.start(overwrite=overwrite)
        log_to_file(run.evaluate_log)
        export_model(checkpoint, export, export_get)
        write_findings(described, evaluation.data, run)
    evaluate_and_answer(evaluation, asked, checkpoint, run, command_text())
    log.info("done in %.0f s; everything is in %s", time.monotonic() - started, run.path)


if __name__ == "__main__":
    main()
