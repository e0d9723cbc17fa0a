"""What the two commands share: grouped help, exit codes, logging, the device.

Nothing heavy is imported here at the top, so that `--help` answers at once.
"""

from __future__ import annotations

import functools
import logging
import shlex
import signal
import sys
import warnings
from collections.abc import Callable
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from yeast_get.errors import Problem, RunError, UserError, printable

if TYPE_CHECKING:
    import torch

log = logging.getLogger("yeast_get")


class Command(click.Command):
    """A command whose help shows its options in groups.

    Args:
        groups: Heading -> names of parameters.
        **kwargs: As `click.Command`.
    """

    def __init__(self, *args: Any, groups: dict[str, list[str]], **kwargs: Any) -> None:
        self.groups = groups
        super().__init__(*args, **kwargs)

    def make_context(
        self, info_name: str | None, args: list[str], *more: Any, **options: Any
    ) -> click.Context:
        """Remember the whole command line, for `command_text`."""
        said = shlex.join([str(self.name), *args])
        context = super().make_context(info_name, args, *more, **options)
        context.meta[_SAID] = said
        return context

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section per group; what is in no group comes last."""
        records = {p.name: p.get_help_record(ctx) for p in self.get_params(ctx)}
        named = {name for names in self.groups.values() for name in names}
        rest = [name for name in records if name not in named]
        for heading, names in {**self.groups, "Other": rest}.items():
            rows = [record for name in names if (record := records.get(name)) is not None]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


_SAID = f"{__name__}.said"


def command_text() -> str:
    """The command line that is being carried out, as a shell reads it."""
    said: str = click.get_current_context().meta[_SAID]
    return said


QUESTIONS = {
    "sweep": click.option(
        "--sweep", multiple=True, metavar="FIELD=LOW:HIGH:lin|log:N | FIELD=A,B | FIELD=all",
        help="Predict over a range of a growth condition, such as temperature=25:42:lin:18; "
        "given twice: over both.",
    ),
    "regions": click.option(
        "--regions", metavar="FILE|ID,ID",
        help="Regions or genes to sweep, or a file with one per line.  [default: all of --data]",
    ),
    "base_sample": click.option(
        "--base-sample", metavar="ID",
        help="Sample of --data that all else of the sweep is taken from.  "
        "[default: of the most frequent condition of the training part]",
    ),
    "knockout": click.option(
        "--knockout", metavar="MOTIF,...",
        help="Predict with these motifs, or all of these factors, set to absent.",
    ),
}  # fmt: skip
"""The options of questions, by parameter."""


def asking(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of questions to a command, which gets those given as `questions`."""

    @functools.wraps(command)
    def collected(**options: Any) -> None:
        asked = {name: options.pop(name) for name in QUESTIONS}
        given = {name: value for name, value in asked.items() if value not in (None, ())}
        command(questions=given, **options)

    for option in reversed(QUESTIONS.values()):
        collected = option(collected)
    return collected


def run_command(work: Callable[[], None], debug: bool) -> None:
    """Do the work of a command and end the process with the right exit code.

    A mistake of the user's is one line each on stderr and 2; Ctrl-C is 130 and SIGTERM 143;
    anything else is a bug of ours: its traceback and 1. `debug` shows the traceback of all.
    """
    signal.signal(signal.SIGTERM, _end_by_signal)
    try:
        work()
    except UserError as error:
        if debug:
            raise
        for line in error.lines():
            click.echo(printable(line), err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        click.echo("stopped by Ctrl-C; files that were written are whole", err=True)
        sys.exit(130)


def _end_by_signal(number: int, frame: Any) -> None:
    click.echo("stopped by SIGTERM; files that were written are whole", err=True)
    sys.exit(128 + number)


class _Plain(logging.Formatter):
    """A record on one line that a terminal does not obey: ids may hold anything."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """As logging does."""
        record.message = printable(record.message)
        return super().formatMessage(record)


def start_logging(debug: bool) -> None:
    """Log to the screen, and keep the records for the file that `log_to_file` names."""
    root = logging.getLogger("yeast_get")
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    root.propagate = False
    screen = logging.StreamHandler(sys.stdout)
    screen.setFormatter(_Plain("%(message)s"))
    root.addHandler(screen)
    root.addHandler(MemoryHandler(capacity=sys.maxsize, flushLevel=sys.maxsize))
    warnings.filterwarnings("ignore", message="The PyTorch API of nested tensors")


def log_to_file(path: Path) -> None:
    """Append what was logged so far to a file of the run, with times, and all that follows."""
    root = logging.getLogger("yeast_get")
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(_Plain("%(asctime)s  %(levelname)-7s %(message)s"))
    for handler in list(root.handlers):
        if isinstance(handler, MemoryHandler):
            handler.setTarget(file)
            root.removeHandler(handler)
            handler.close()  # hands its records on
    root.addHandler(file)


def choose_device(name: str) -> torch.device:
    """The device of `--device`; `auto` takes CUDA, else MPS, else the CPU.

    Raises:
        RunError: Where it is not there, naming those that are.
    """
    import torch

    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = ["cpu", *(f"cuda:{i}" for i in range(cuda))]
    if torch.backends.mps.is_available():
        there.append("mps")
    if name == "auto":
        best = "cuda" if cuda else ("mps" if "mps" in there else "cpu")
        return torch.device(best)
    known = [*there, *(["cuda"] if cuda else [])]
    if name not in known:
        what = f"--device {name} is not on this machine"
        raise RunError(Problem(what, f"it has {', '.join(there)}"))
    return torch.device(name)


DEVICE_HELP = "auto, cpu, cuda, cuda:N or mps."
