"""Train a model on a table of motifs, accessibility and growth conditions, and test it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click

from yeast_get import __version__
from yeast_get.command_line import DEVICE_HELP, Command, log, run_command

GROUPS = {
    "What most runs need": ["config", "data", "output", "device"],
    "Settings": ["overrides", "interpret"],
    "Runs that exist already": ["resume", "overwrite"],
    "Looking without training": ["check", "debug"],
}
EPILOG = """\b
The two commands that most people need:
  train_yeast    --config config/yeast_training.yaml --data TABLE --output output/run
  evaluate_yeast --model output/run/best_model.pth --data TABLE --output output/eval"""


@click.command("train_yeast", cls=Command, groups=GROUPS, epilog=EPILOG)
@click.option("--config", type=click.Path(), help="The training YAML; defaults without.")
@click.option("--data", type=click.Path(), help="A long table, data folder or workbook.")
@click.option("--output", type=click.Path(), help="The run folder to write.")
@click.option("--device", default="auto", show_default=True, help=DEVICE_HELP)
@click.option(
    "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE",
    help="Override one key of the YAML; may be repeated.",
)  # fmt: skip
@click.option("--interpret", is_flag=True, help="Importance and attributions after training.")
@click.option("--check", is_flag=True, help="Read and report everything, then stop.")
@click.option("--resume", is_flag=True, help="Continue the run in --output.")
@click.option("--overwrite", is_flag=True, help="Replace the run in --output.")
@click.option("--debug", is_flag=True, help="Show tracebacks and more log lines.")
@click.version_option(__version__)
def main(debug: bool, **options: Any) -> None:
    """Train a model on a table of motifs, accessibility and growth conditions, and test it.

    The table is split into training, validation and test parts; the model that does best on the
    validation part is kept and scored on the test part beside simple baselines.
    """
    run_command(lambda: train(**options), debug)


def train(
    config: str | None,
    data: str | None,
    output: str | None,
    device: str,
    overrides: tuple[str, ...],
    interpret: bool,
    check: bool,
    resume: bool,
    overwrite: bool,
) -> None:
    """Do what the command says, from the settings to the plots."""
    import time

    from yeast_get.command_line import choose_device, command_text, log_to_file, run_folder
    from yeast_get.config import load_settings
    from yeast_get.distributed import is_writer
    from yeast_get.errors import Problem, RunError
    from yeast_get.run_dir import TRAIN_FILES

    started = time.monotonic()
    named = {"data.path": data, "task.interpret": interpret or None}
    settings = load_settings(config, overrides, named)
    where = choose_device(device)
    if not check and output is None:
        raise RunError(Problem("no run folder is named", "give --output"))
    run, resume, overwrite = run_folder(output, TRAIN_FILES, check, resume, overwrite)
    if overwrite:
        run.check_keeps(settings.finetune.checkpoint, "finetune.checkpoint")
    from yeast_get.data.splits import TRAIN
    from yeast_get.training.check import finish_check, reporting_errors, try_one_batch
    from yeast_get.training.checkpoint import saying_how_to_go_on
    from yeast_get.training.prepare import Prepared, prepare, train_and_test
    from yeast_get.training.pretrain import PreparedPretraining, prepare_pretraining, pretrain
    from yeast_get.training.transfer import look_at

    if check and settings.data.path is None and settings.finetune.checkpoint is not None:
        look_at(settings.finetune)
        return
    last = run.last if resume else None
    report_to = run if check and run.takes_a_report() else None
    ready: Prepared | PreparedPretraining
    work: Callable[[], object]
    with reporting_errors(report_to):
        if settings.task.stage == "pretrain":
            ready = regions = prepare_pretraining(settings, where, last)
            work = partial(pretrain, regions, where, run)
        else:
            ready = rows = prepare(settings, where, last)
            work = partial(train_and_test, rows, where, run, command_text())
    if check:
        stage = ready.stage
        taught = stage.part == TRAIN
        try_one_batch(ready.model, stage.train_set, taught, stage.settings, stage.data.source)
        finish_check(ready.described, stage.data, report_to)
        return
    if is_writer():
        run.start(overwrite=overwrite)
        log_to_file(run.train_log)
    with saying_how_to_go_on(run):
        work()
    log.info("done in %.0f s; everything is in %s", time.monotonic() - started, run.path)


if __name__ == "__main__":
    main()
