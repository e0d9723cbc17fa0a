"""The questions that `evaluate_yeast` answers besides its scores: `--sweep` and `--knockout`."""

from __future__ import annotations

from yeast_get.errors import ConfigError, Problem
from yeast_get.evaluation.evaluation import Evaluation
from yeast_get.evaluation.knockout import Knockout, read_knockout
from yeast_get.evaluation.sweep import Sweep, read_sweep


def read_questions(
    evaluation: Evaluation,
    sweep: tuple[str, ...] = (),
    knockout: str | None = None,
    regions: str | None = None,
    base_sample: str | None = None,
) -> list[Sweep | Knockout]:
    """The questions of the options; whatever is wrong with one is found here.

    Raises:
        ConfigError: Naming the option.
    """
    for name, given in (("--regions", regions), ("--base-sample", base_sample)):
        if given is not None and not sweep:
            raise ConfigError(Problem(f"{name} says where to --sweep", "give --sweep too"))
    questions: list[Sweep | Knockout] = []
    if sweep:
        questions.append(read_sweep(evaluation, sweep, regions, base_sample))
    if knockout is not None:
        questions.append(read_knockout(evaluation, knockout))
    return questions
