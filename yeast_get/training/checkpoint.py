"""Checkpoint files: what is in them, and how they are written and read.

Tensors and plain Python only, so that `torch.load(weights_only=True)` reads them and no code of
theirs is ever run. They hold no target of the user's: the training rows are kept as hashes, the
baselines as fitted numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from yeast_get import __version__
from yeast_get.config import Settings, settings_from_dict
from yeast_get.data.features import FeatureSchema
from yeast_get.data.splits import TrainedRows
from yeast_get.errors import CheckpointError, Problem, UserError
from yeast_get.evaluation.baselines import Baselines
from yeast_get.model.yeast_model import YeastModel
from yeast_get.run_dir import atomic

FORMAT = 1
"""Version of the layout below; a file of a later version is refused by name."""


@dataclass
class Checkpoint:
    """Everything that an evaluation needs besides a table, and what a resume needs besides.

    Attributes:
        settings: `Settings.to_dict()`.
        schema: `FeatureSchema.to_dict()`.
        model: State dict of the weights that were validated.
        trained_rows: `TrainedRows.to_dict()`.
        baselines: `Baselines.to_dict()`.
        data_fingerprint: SHA-256 of the training table.
        epoch: Epoch of the weights.
        scores: Validation scores of the weights.
        resume: What `last.pth` holds beyond that; empty in `best_model.pth`.
        software: Version that wrote the file.
        file: Where it was read from; not written.
    """

    settings: dict[str, Any]
    schema: dict[str, Any]
    model: dict[str, torch.Tensor]
    trained_rows: dict[str, Any]
    baselines: dict[str, Any]
    data_fingerprint: str
    epoch: int = 0
    scores: dict[str, Any] = field(default_factory=dict)
    resume: dict[str, Any] = field(default_factory=dict)
    software: str = __version__
    file: str = "the checkpoint"

    def save(self, path: Path) -> None:
        """Write atomically: a crash leaves the old file or the new one, whole."""
        values = {name: getattr(self, name) for name in self._stored()}
        with atomic(path) as temporary:
            torch.save({"format": FORMAT, **values}, temporary)

    @classmethod
    def _stored(cls) -> list[str]:
        return [name for name in cls.__dataclass_fields__ if name != "file"]

    @classmethod
    def load(cls, path: str | Path) -> Checkpoint:
        """Read a checkpoint of this software.

        Raises:
            CheckpointError: Where the file is missing, damaged, of another kind, or newer.
        """
        file = str(path)
        if not Path(path).is_file():
            raise CheckpointError(Problem("there is no such file", "check --model", file=file))
        try:
            values = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for damaged and foreign files
            said = str(error).strip().partition("\n")[0][:120]
            what = f"cannot be read as a checkpoint ({type(error).__name__}: {said})"
            fix = "give the best_model.pth of a train_yeast run"
            raise CheckpointError(Problem(what, fix, file=file)) from None
        wanted = {"format", *cls._stored()}
        if not isinstance(values, dict) or not wanted <= set(values):
            what = "is not a checkpoint that train_yeast wrote"
            fix = "give the best_model.pth of a train_yeast run"
            raise CheckpointError(Problem(what, fix, file=file))
        if values["format"] != FORMAT:
            what = f"has layout {values['format']}, and this version reads layout {FORMAT}"
            fix = (
                f"use the version of yeast_get that wrote it ({values['software']}) or a later one"
            )
            raise CheckpointError(Problem(what, fix, file=file))
        return cls(**{name: values[name] for name in cls._stored()}, file=file)

    def build(self) -> tuple[Settings, FeatureSchema, YeastModel]:
        """The settings, the schema, and the model with its weights, in eval mode.

        Raises:
            CheckpointError: Where this version cannot make them of what the file holds.
        """
        with self._reading("the model"):
            settings = settings_from_dict(self.settings, "the checkpoint")
            schema = FeatureSchema.from_dict(self.schema)
            window = settings.data.regions_per_window
            model = YeastModel(settings.model, schema.sizes(), max_regions=window)
            model.load_state_dict(self.model)
        return settings, schema, model.eval()

    def rows(self) -> TrainedRows:
        """The training table's rows, as hashes."""
        with self._reading("the rows that were trained on"):
            return TrainedRows.from_dict(self.trained_rows)

    def fitted_baselines(self) -> Baselines:
        """The baselines that were fitted on the training rows."""
        with self._reading("the baselines"):
            return Baselines.from_dict(self.baselines)

    @contextmanager
    def _reading(self, part: str) -> Iterator[None]:
        """One line for whatever goes wrong with a part that another version wrote."""
        try:
            yield
        except (UserError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            said = " ".join(str(error).split())[:200]
            what = f"this version ({__version__}) cannot build {part} ({said})"
            fix = f"use the version of yeast_get that wrote it ({self.software})"
            raise CheckpointError(Problem(what, fix, file=self.file)) from error
