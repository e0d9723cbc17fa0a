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
from contextlib import suppress
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from yeast_get.distributed import (
    from_writer,
    is_writer,
    join,
    leave,
    local_rank,
    local_world_size,
    rank,
    telling_of_lost_ranks,
)
from yeast_get.errors import (
    ConfigError,
    DataError,
    Problem,
    RunError,
    Stopped,
    UserError,
    printable,
)
from yeast_get.run_dir import RunDir, writing

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
        """Remember the command line for `command_text`: what makes the run anew, from the start."""
        again = [each for each in args if each not in ("--resume", "--overwrite")]
        said = shlex.join([str(self.name), *again])
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
    Of several ranks the first of each machine speaks.
    """
    signal.signal(signal.SIGTERM, _end_by_signal)
    start_logging(debug)
    try:
        with telling_of_lost_ranks():
            work()
        leave()
    except UserError as error:
        if debug:
            raise
        _say(*error.lines(), alone=not isinstance(error, ConfigError | DataError))
        sys.exit(2)
    except Stopped as stopped:
        _say(f"stopped by {_SIGNALS[stopped.number]} {stopped}")
        sys.exit(128 + stopped.number)
    except KeyboardInterrupt:
        _say("stopped by Ctrl-C; files that were written are whole")
        sys.exit(130)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        end_logging()


_SIGNALS = {int(signal.SIGINT): "Ctrl-C", int(signal.SIGTERM): "SIGTERM"}


def _end_by_signal(number: int, frame: Any) -> None:
    _say("stopped by SIGTERM; files that were written are whole")
    sys.exit(128 + number)


def _say(*lines: str, alone: bool = False) -> None:
    """Print lines on stderr; of other ranks the first one, where it may be theirs alone."""
    if local_rank():
        lines = tuple(f"rank {rank()}: {line}" for line in lines[:alone])
    for line in lines:
        click.echo(printable(line), err=True)


def run_folder(
    output: str | None, writes: tuple[str, ...], check: bool, resume: bool, overwrite: bool
) -> tuple[RunDir, bool, bool]:
    """The folder of `--output`, for this process alone until the command ends.

    Where one process dies, torchrun starts the same command again on all ranks: the folder then
    holds what they had written so far, to be resumed or else overwritten.

    Args:
        output: The folder; None where none was named.
        writes: What the command writes there: `TRAIN_FILES` or `EVALUATE_FILES`.
        check: Whether no run is started.
        resume: Whether to continue the run that it holds, as asked.
        overwrite: Whether to replace it, as asked.

    Returns:
        It, and whether to resume and to overwrite.

    Raises:
        RunError: Where the folder cannot be used so.
    """
    run = RunDir(output or "", writes)
    click.get_current_context().call_on_close(run.release)
    if from_writer(run.is_of_this_launch):
        resume = from_writer(run.last.is_file)
        overwrite = not resume
    if output is not None and is_writer():
        run.check(resume=resume, overwrite=overwrite, lock=not check)
    return run, resume, overwrite


class _Plain(logging.Formatter):
    """A record on one line that a terminal does not obey: ids may hold anything."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """As logging does."""
        record.message = printable(record.message)
        return super().formatMessage(record)


def start_logging(debug: bool) -> None:
    """Log to the screen, and keep the records for the file that `log_to_file` names."""
    end_logging()
    wanted = logging.DEBUG if debug else logging.INFO
    log.setLevel(wanted if is_writer() else logging.CRITICAL)
    log.propagate = False
    screen = _Screen(sys.stdout)
    screen.name = "the screen"
    screen.setFormatter(_Plain("%(message)s"))
    log.addHandler(screen)
    log.addHandler(MemoryHandler(capacity=sys.maxsize, flushLevel=sys.maxsize))
    warnings.filterwarnings("ignore", message="The PyTorch API of nested tensors")


def end_logging() -> None:
    """Close the log."""
    for handler in list(log.handlers):
        log.removeHandler(handler)
        with suppress(OSError):
            handler.close()


class _Lasting(logging.Handler):
    """A handler that gives up where nothing more can be written, as on a full disk, and says so."""

    def handleError(self, record: logging.LogRecord) -> None:
        """End this handler; the others say why."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        self.addFilter(lambda _: False)  # not even what was kept for the file is written any more
        log.removeHandler(self)
        log.warning("warning: no more is logged to %s: %s", self.name, error.strerror)
        with suppress(OSError):
            self.close()


class _Screen(_Lasting, logging.StreamHandler):
    pass


class _File(_Lasting, logging.FileHandler):
    pass


def log_to_file(path: Path) -> None:
    """Append what was logged so far to a file of the run, with times, and all that follows."""
    with writing(path):
        file = _File(path, encoding="utf-8")
    file.name = str(path)
    file.setFormatter(_Plain("%(asctime)s  %(levelname)-7s %(message)s"))
    log.addHandler(file)
    for handler in list(log.handlers):
        if isinstance(handler, MemoryHandler):
            handler.setTarget(file)
            log.removeHandler(handler)
            handler.close()  # hands its records on


def choose_device(name: str) -> torch.device:
    """The device of `--device`; `auto` takes CUDA, else MPS, else the CPU.

    Under torchrun each rank of a machine takes a GPU of its own, and the ranks are joined.

    Raises:
        RunError: Where it is not there, naming those that are.
    """
    import torch

    device = _find_device(name)
    if device.type == "cuda" and local_world_size() > 1:
        if local_world_size() > torch.cuda.device_count():
            what = f"has {torch.cuda.device_count()} GPUs for {local_world_size()} processes"
            fix = "lower --nproc-per-node, or give --device cpu"
            raise RunError(Problem(f"this machine {what}", fix))
        device = torch.device("cuda", local_rank())
    join(device)
    return device


def _find_device(name: str) -> torch.device:
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
