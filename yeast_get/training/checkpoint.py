"""Checkpoint files: what is in them, and how they are written and read.

Tensors and plain Python only, so that `torch.load(weights_only=True)` reads them and no code of
theirs is ever run. They hold no target of the user's: the training rows are kept as hashes, the
baselines as fitted numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from yeast_get import __version__
from yeast_get.config import Settings, settings_from_dict
from yeast_get.data.features import FeatureSchema
from yeast_get.data.splits import TrainedRows
from yeast_get.errors import CheckpointError, Problem
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

    def save(self, path: Path) -> None:
        """Write atomically: a crash leaves the old file or the new one, whole."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        with atomic(path) as temporary:
            torch.save({"format": FORMAT, **values}, temporary)

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
        wanted = {"format", *cls.__dataclass_fields__}
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
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})

    def build(self) -> tuple[Settings, FeatureSchema, YeastModel]:
        """The settings, the schema, and the model with its weights, in eval mode."""
        settings = settings_from_dict(self.settings, "the checkpoint")
        schema = FeatureSchema.from_dict(self.schema)
        model = YeastModel(settings.model, schema.sizes())
        model.load_state_dict(self.model)
        return settings, schema, model.eval()

    def rows(self) -> TrainedRows:
        """The training table's rows, as hashes."""
        return TrainedRows.from_dict(self.trained_rows)

    def fitted_baselines(self) -> Baselines:
        """The baselines that were fitted on the training rows."""
        return Baselines.from_dict(self.baselines)
