"""SIGTERM and Ctrl-C while training: noted at once, obeyed at the end of the optimizer step."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

from yeast_get.distributed import size


class StopSignal:
    """Takes the two signals while training runs, and gives them back after.

    A second Ctrl-C ends a run at once, as it would elsewhere; not under torchrun, which sends
    every signal on to processes that have had it already.

    Attributes:
        number: Of the signal that came; 0 for none.
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for each in (signal.SIGTERM, signal.SIGINT):
                self._before[each] = signal.signal(each, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)
        if self.number and error == (None, None, None):  # came after the last step
            os.kill(os.getpid(), self.number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number and number == signal.SIGINT and size() == 1:
            raise KeyboardInterrupt
        self.number = number
