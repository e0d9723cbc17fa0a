"""Trainings that are killed at a chosen moment, each a fork of a process that has imported all.

A job is a line of JSON on stdin: `folder` to work in, `arguments` of `train_yeast`, and `kill`:
null, `["time", SECONDS]`, or `[STEP, NUMBER]`, the so manieth step of that kind of the writer. The
answer is a line too: the exit code (-9 where it was killed), seconds, and how many steps it made.
"""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

import matplotlib.backends.backend_agg
import matplotlib.backends.backend_pdf
import matplotlib.font_manager
import torch
import torch._dynamo  # which every optimizer imports

import train_yeast
from yeast_get import run_dir
from yeast_get.training import check, prepare, pretrain

IMPORTED_ONCE = (matplotlib, torch, check, prepare, pretrain)
"""For all forks: importing takes longer than such a training."""

STEPS = ("write", "replace", "fsync", "open", "fsync folder")
"""What the writer does, each of which may be the last that it did."""


class Injector:
    """Counts the steps of the writer, and kills the process at one of them."""

    def __init__(self, kill: tuple[str, int] | None) -> None:
        self.kill, self.done = kill, Counter()
        fsync, replace = os.fsync, os.replace

        def counted_fsync(file: int) -> None:
            self.step("fsync folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "fsync")
            fsync(file)

        def counted_replace(old: Path, new: Path) -> None:
            self.step("replace")
            replace(old, new)

        def counted_open(path: Path, mode: str) -> io.FileIO:
            self.step("open")
            return CountedFile(path, mode, self)

        os.fsync, os.replace, run_dir.open = counted_fsync, counted_replace, counted_open

    def step(self, kind: str, half: object = None) -> None:
        """Count a step, or do half of it and die."""
        self.done[kind] += 1
        if (kind, self.done[kind]) == self.kill:
            if half is not None:
                half()
            os.kill(os.getpid(), signal.SIGKILL)


class CountedFile(io.FileIO):
    """A file whose writes are steps."""

    def __init__(self, path: Path, mode: str, injector: Injector) -> None:
        super().__init__(path, mode)
        self.injector = injector

    def write(self, data: object) -> int:
        part = memoryview(data).cast("B")
        self.injector.step("write", lambda: super(CountedFile, self).write(part[: len(part) // 2]))
        return super().write(part)


def train(folder: str, arguments: list[str], kill: tuple[str, float] | None) -> None:
    """Do the work of a fork, which ends here."""
    os.chdir(folder)
    said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    injector = Injector(kill if kill and kill[0] in STEPS else None)
    code = 0
    try:
        train_yeast.main(arguments, standalone_mode=False)
    except SystemExit as stopped:
        code = stopped.code
    except BaseException:
        traceback.print_exc()
        code = 1
    Path("steps.json").write_text(json.dumps(injector.done))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def serve() -> None:
    """Answer one job after the other."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        job = json.loads(line)
        kill = tuple(job["kill"]) if job["kill"] else None
        steps = Path(job["folder"], "steps.json")
        steps.unlink(missing_ok=True)
        started = time.monotonic()
        child = os.fork()
        if not child:
            train(job["folder"], job["arguments"], kill)
        if kill and kill[0] == "time":
            time.sleep(kill[1])
            os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        answer = {"code": code, "seconds": time.monotonic() - started}
        answer["steps"] = json.loads(steps.read_text()) if steps.exists() else {}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
