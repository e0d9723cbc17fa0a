"""TensorBoard's files. They never end a run: what cannot be written is a warning."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

log = logging.getLogger(__name__)


class Board:
    """Scalars and pictures for TensorBoard; nothing where it is off, or after a failure.

    Each record is written at once. `SummaryWriter` has a thread for it, whose failure is a
    traceback on the screen.

    Args:
        folder: Where its file is made; None where it is off.
    """

    def __init__(self, folder: Path | None) -> None:
        self._file: Path | None = None
        if folder is not None:
            self._surely(lambda: self._open(folder))

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """A number at a step."""
        if self._file is not None:
            self._surely(lambda: self._write({"tag": name, "simple_value": value}, step))

    def add_validation(
        self, epoch: int, scores: Mapping[str, float | None], draw: Callable[[], np.ndarray] | None
    ) -> None:
        """The scores of an epoch that are defined, `val_NAME` each, and a picture.

        Args:
            epoch: The epoch.
            scores: The scores.
            draw: Makes the picture [H,W,3] uint8; None where there is none.
        """
        for name, value in scores.items():
            if value is not None:
                self.add_scalar(f"val/{name.removeprefix('val_')}", value, epoch)
        if self._file is not None and draw is not None:
            self._surely(lambda: self._write(_image("val/scatter", draw()), epoch))

    def _surely(self, work: Callable[[], object]) -> None:
        """Do it; where that fails, say so and write no more."""
        try:
            work()
        except Exception as error:
            log.warning("warning: no more is written for TensorBoard (%s: %s)",
                        type(error).__name__, error)  # fmt: skip
            log.debug("the way there", exc_info=True)
            self._file = None

    def _open(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time():.0f}.{platform.node()}.{os.getpid()}"
        self._file = folder / name
        self._record(file_version="brain.Event:2")

    def _write(self, value: dict[str, Any], step: int) -> None:
        self._record(summary={"value": [value]}, step=step)

    def _record(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        if self._file is not None:
            with self._file.open("ab") as file:
                event = Event(wall_time=time.time(), **content)
                RecordWriter(file).write(event.SerializeToString())


def _image(name: str, pixels: np.ndarray) -> dict[str, Any]:
    """A picture [H,W,3] uint8 as a value of TensorBoard."""
    from io import BytesIO

    from PIL import Image

    png = BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    height, width, colours = pixels.shape
    image = {
        "height": height, "width": width, "colorspace": colours,
        "encoded_image_string": png.getvalue(),
    }  # fmt: skip
    return {"tag": name, "image": image}
