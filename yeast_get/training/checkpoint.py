"""Checkpoint files: what is in them, and how they are written and read.

Tensors and plain Python only, so that `torch.load(weights_only=True)` reads them and no code of
theirs is ever run. They hold no target of the user's: the training rows are kept as hashes, the
baselines as fitted numbers.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from yeast_get import __version__, stored
from yeast_get.config import LoraConfig, Settings, settings_from_dict
from yeast_get.data.features import FeatureSchema
from yeast_get.data.seen_regions import SeenRegions
from yeast_get.data.splits import TrainedRows
from yeast_get.errors import CheckpointError, Problem, UserError, WriteError
from yeast_get.evaluation.conformal import Calibration
from yeast_get.evaluation.rivals import Rivals
from yeast_get.model.checkpoint_file import is_whole, open_checkpoint
from yeast_get.model.get_backbone import LAYER_NORM_EPS
from yeast_get.model.lora import merged_state
from yeast_get.model.pretrained import GET_PARTS, LoadReport
from yeast_get.model.yeast_model import Ensemble, YeastModel
from yeast_get.run_dir import RunDir, atomic
from yeast_get.training.transfer import base_tensors, put_adapters

log = logging.getLogger(__name__)

_OF_WRONG_PARTS = (
    LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError, MemoryError,
)  # fmt: skip
"""What comes of a part that holds what it should not, where no check has a name for it."""

FORMAT = 4
"""Version of the layout below; a file of a later version is refused by name."""

_SINCE: dict[int, dict[str, Any]] = {
    2: {"features": {}, "lora": {}, "load_report": {}},
    3: {"members": [], "calibration": {}, "seen_regions": {}},
    4: {},
}
"""What files of an earlier layout than each do not hold."""


def _current(values: dict[str, Any], layout: int) -> dict[str, Any]:
    """The content of a file of an earlier layout as a file of this one holds it."""
    for later in range(layout + 1, FORMAT + 1):
        values = values | _SINCE[later]
    settings = values.get("settings")
    if isinstance(settings, dict):
        values = values | {"settings": _current_settings(settings, layout)}
    return values


def _current_settings(settings: dict[str, Any], layout: int) -> dict[str, Any]:
    data, model = settings.get("data"), settings.get("model")
    if layout < 3 and isinstance(data, dict):  # max_skipped was a number of rows, not a share
        data = {name: value for name, value in data.items() if name != "max_skipped"}
        settings = settings | {"data": data}
    embed = model.get("region_embed") if isinstance(model, dict) else None
    if layout < 4 and isinstance(model, dict) and isinstance(embed, dict):
        model = model | {"region_embed": embed | {"bins": 0}}  # features entered straight
        settings = settings | {"model": model}
    return settings


@dataclass
class _Adapters:
    """What `Checkpoint.lora` holds."""

    modules: list[str]
    base: list[str]
    base_file: str
    base_sha256: str


@dataclass
class Checkpoint:
    """Everything that an evaluation needs besides a table, and what a resume needs besides.

    Attributes:
        settings: `Settings.to_dict()`.
        schema: `FeatureSchema.to_dict()`.
        model: State dict of the weights that were validated.
        trained_rows: `TrainedRows.to_dict()`.
        baselines: `Rivals.to_dict()`, from when training begins.
        data_fingerprint: SHA-256 of the training table.
        features: `FeatureSchema.input_columns()`, for whoever starts from this file.
        lora: With adapters: "modules" that have one; "base", the names of the frozen tensors;
            "base_file" and "base_sha256". Empty without.
        load_report: `LoadReport.to_dict()`; empty where nothing was loaded.
        members: With `training.ensemble`: state dicts of the other members, without the frozen
            tensors of a base, which they share.
        calibration: `Calibration.to_dict()`; empty until training is done.
        seen_regions: `SeenRegions.to_dict()`.
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
    features: dict[str, Any] = field(default_factory=dict)
    lora: dict[str, Any] = field(default_factory=dict)
    load_report: dict[str, Any] = field(default_factory=dict)
    members: list[dict[str, torch.Tensor]] = field(default_factory=list)
    calibration: dict[str, Any] = field(default_factory=dict)
    seen_regions: dict[str, Any] = field(default_factory=dict)
    epoch: int = 0
    scores: dict[str, Any] = field(default_factory=dict)
    resume: dict[str, Any] = field(default_factory=dict)
    software: str = __version__
    file: str = "the checkpoint"

    def summary(self) -> dict[str, Any]:
        """What was loaded and trained, in the words of `manifest.json`."""
        return {
            "software": self.software,
            "model": {"parameters": sum(each.numel() for each in self.model.values())},
            "pretrained": self.load_report or None,
            "lora": self.lora or None,
            "training": {"best_epoch": self.epoch},
        }

    def save(self, path: Path) -> None:
        """Write atomically: a crash leaves the old file or the new one, whole."""
        values = {name: getattr(self, name) for name in self._stored()}
        _save({"format": FORMAT, **values}, path)

    @classmethod
    def _stored(cls) -> list[str]:
        return [name for name in cls.__dataclass_fields__ if name != "file"]

    @classmethod
    def load(cls, path: str | Path) -> Checkpoint:
        """Read a checkpoint of this software.

        Raises:
            CheckpointError: Where the file is missing, damaged, of another kind, or newer, or where
                a part is of another type, or claims to be larger than the file.
        """
        file = str(path)
        values = open_checkpoint(path)
        layout = values.get("format") if isinstance(values, dict) else None
        software = values.get("software") if isinstance(values, dict) else None
        if isinstance(layout, int) and 0 < layout < FORMAT:
            values, layout = _current(values, layout), FORMAT
        if not isinstance(layout, int) or not isinstance(software, str):
            what = "is not a checkpoint that train_yeast wrote"
            fix = (
                "give the best_model.pth of a train_yeast run; a backbone alone goes into "
                "finetune.checkpoint"
            )
            raise CheckpointError(Problem(what, fix, file=file))
        if layout != FORMAT or not set(cls._stored()) <= set(values):
            what = f"has layout {layout}, and this version reads layouts 1 to {FORMAT}"
            fix = f"use the version of yeast_get that wrote it ({software}) or a later one"
            raise CheckpointError(Problem(what, fix, file=file))
        parts = {name: values[name] for name in cls._stored()}
        try:
            tensors = stored.check_plain(parts, "it")
            if not all(map(is_whole, tensors)):
                raise ValueError("it holds what is no tensor, or is larger than it is in the file")
            if sum(each.nbytes for each in tensors) > Path(path).stat().st_size:
                raise ValueError("its tensors claim more bytes than the file has")
            checkpoint = stored.build(cls, parts | {"file": file})
            if checkpoint.lora:
                stored.build(_Adapters, checkpoint.lora)
        except ValueError as error:
            what = f"holds what no checkpoint holds ({error})"
            raise CheckpointError(Problem(what, "do not use it", file=file)) from None
        return checkpoint

    # ----------------------------------------------------------------------------- adapters

    def adapter(self) -> Checkpoint:
        """The same without the frozen tensors of the base: what `adapter.pth` holds."""
        return dataclasses.replace(self, model=self.without_base())

    def without_base(self) -> dict[str, torch.Tensor]:
        """The tensors of the model that are not those of a frozen base."""
        base = set(self.lora.get("base", []))
        return {name: value for name, value in self.model.items() if name not in base}

    @property
    def is_adapter(self) -> bool:
        """Whether the frozen tensors of the base are not in it."""
        return any(name not in self.model for name in self.lora.get("base", []))

    def with_base(self, path: str | Path | None) -> Checkpoint:
        """An adapter made whole with the tensors of the file that it was trained from.

        Args:
            path: That file; None where none was given.

        Raises:
            CheckpointError: Where a base is lacking, another one, or not asked for.
        """
        if not self.is_adapter:
            if path is not None:
                what = "is whole and needs no base"
                raise CheckpointError(Problem(what, "leave --base out", file=self.file))
            return self
        if path is None:
            what = "is an adapter, and holds no backbone"
            fix = f"give --base, the file that it was trained from ({self.lora['base_file']})"
            raise CheckpointError(Problem(what, fix, file=self.file))
        with self.reading("the adapter"):
            settings, _ = self._check_weights()
            columns = self.load_report.get("columns", [])
            base = base_tensors(self.lora, columns, settings, path, lambda: self._empty_model()[-1])
        return dataclasses.replace(self, model=self.model | base)

    def merged(self) -> Checkpoint:
        """The same with the adapters in the weights, and no LoRA."""
        if not self.lora:
            return self
        settings = {**self.settings, "lora": LoraConfig().model_dump()}
        with self.reading("the model"):
            first, *others = (merged_state(each) for each in self._build_members())
        return dataclasses.replace(
            self, model=first, members=others, lora={}, settings=settings, resume={}
        )

    def save_get(self, path: Path) -> list[str]:
        """Write GET's own part in GET's layout, adapters merged, with the feature names beside it.

        Returns:
            The parts of the model that have no place there.
        """
        state = self.merged().model
        parts = {name.partition(".")[0] for name in state} - set(GET_PARTS)
        if "encoding" in parts:  # its columns are bins, and GET's are features
            parts.add("region_embed")
        state = {k: v for k, v in state.items() if k.partition(".")[0] not in parts}
        heads = self.settings["model"]["transformer"]["num_heads"]
        eps = self.settings["model"]["encoder"].get("layer_norm_eps") or LAYER_NORM_EPS
        positions = self.settings["model"]["transformer"]["positional_encoding"]
        told = {"trained_rows": self.trained_rows, "positional_encoding": positions}
        write_get(path, state, self.features, num_heads=heads, layer_norm_eps=eps, told=told)
        return sorted(parts)

    # ----------------------------------------------------------------------------- building

    def _empty_model(self) -> tuple[Settings, FeatureSchema, YeastModel]:
        settings = settings_from_dict(self.settings, "the checkpoint")
        if settings.task.stage == "pretrain":
            what = "is of masked pretraining, and predicts no expression"
            fix = "fine-tune from it: finetune.checkpoint"
            raise CheckpointError(Problem(what, fix, file=self.file))
        schema = FeatureSchema.from_dict(self.schema)
        window = settings.data.regions_per_window
        return settings, schema, YeastModel(settings.model, schema.sizes(), max_regions=window)

    def build(self) -> tuple[Settings, FeatureSchema, YeastModel | Ensemble]:
        """The settings, the schema, and the model with its weights, in eval mode.

        Raises:
            CheckpointError: Where this version cannot make them of what the file holds.
        """
        with self.reading("the model"):
            settings, schema = self._check_weights()
            members = self._build_members()
        self._check_parts(schema)
        return settings, schema, Ensemble(members) if len(members) > 1 else members[0]

    def _check_weights(self) -> tuple[Settings, FeatureSchema]:
        """Hold the names and sizes of all weights against the model, before that takes memory.

        Raises:
            ValueError: Where they are not the model's, or not finite.
        """
        if self.load_report:
            pairs = {key: tuple(self.load_report[key]) for key in ("backbone", "encoder")}
            stored.build(LoadReport, self.load_report | pairs)
        with torch.device("meta"):
            settings, schema, model = self._empty_model()
            put_adapters(model, self.lora, settings)
        if not settings.training.batch_size:
            raise ValueError("it does not know the size of its batches")
        wanted, base = model.state_dict(), set(self.lora.get("base", []))
        if not base <= set(wanted):
            raise ValueError("the base has tensors that the model does not have")
        for state in (self.model, *self.members):
            if wanted.keys() - base - state.keys() or state.keys() - wanted.keys():
                odd = sorted((wanted.keys() - base) ^ (state.keys() - base))
                raise ValueError(f"its weights are of another model: {', '.join(odd[:3])}")
            for name, value in state.items():
                if (value.shape, value.dtype) != (wanted[name].shape, wanted[name].dtype):
                    raise ValueError(f"{name} has another size or kind than the model's")
                if not value.isfinite().all():
                    raise ValueError(f"{name} is not finite")
        return settings, schema

    def _check_parts(self, schema: FeatureSchema) -> None:
        """Read every other part, and hold it against the schema.

        Raises:
            CheckpointError: Where one cannot be read, or is of another table.
        """
        targets, columns = len(schema.target_names), schema.sizes().region_features
        self.rows()
        baselines, calibration, seen = (
            self.fitted_baselines(),
            self.calibrated(),
            self.regions_seen(),
        )
        with self.reading("the baselines"):
            baselines.check_fits(schema)
        with self.reading("the calibration"):
            if calibration is not None and len(calibration.scale) != targets:
                raise ValueError(f"not of {targets} targets")
        with self.reading("the range of the training regions"):
            if seen is not None and len(seen.center) != columns:
                raise ValueError(f"not of {columns} columns")

    def _build_members(self) -> list[YeastModel]:
        """The model and, of an ensemble, the others, in eval mode."""
        base = {name: self.model[name] for name in self.lora.get("base", [])}
        built = []
        for state in [self.model, *self.members]:
            settings, _, model = self._empty_model()
            put_adapters(model, self.lora, settings)
            model.load_state_dict(base | state)
            built.append(model.eval())
        return built

    def rows(self) -> TrainedRows:
        """The training table's rows, as hashes."""
        with self.reading("the rows that were trained on"):
            return TrainedRows.from_dict(self.trained_rows)

    def fitted_baselines(self) -> Rivals:
        """The baselines that were fitted on the training rows."""
        with self.reading("the baselines"):
            return Rivals.from_dict(self.baselines)

    def calibrated(self) -> Calibration | None:
        """How wide the intervals of its predictions are; None where it was not calibrated."""
        with self.reading("the calibration"):
            return Calibration.from_dict(self.calibration)

    def regions_seen(self) -> SeenRegions | None:
        """Where the training regions lie; None in a file of before it was kept."""
        with self.reading("the range of the training regions"):
            return SeenRegions.from_dict(self.seen_regions)

    @contextmanager
    def reading(self, part: str) -> Iterator[None]:
        """One line for whatever goes wrong with a part that another version, or no one, wrote."""
        try:
            yield
        except CheckpointError:
            raise
        except (UserError, *_OF_WRONG_PARTS) as error:
            said = " ".join(str(error).split())[:200]
            what = f"this version ({__version__}) cannot build {part} ({said})"
            fix = f"use the version of yeast_get that wrote it ({self.software})"
            raise CheckpointError(Problem(what, fix, file=self.file)) from error


@contextmanager
def saying_how_to_go_on(run: RunDir) -> Iterator[None]:
    """Where something cannot be written inside, also say what the training run is left with.

    Raises:
        WriteError: The same, with the way on.
    """
    try:
        yield
    except WriteError as error:
        problem = error.problems[0]
        way = "then look at what is left there"
        with suppress(UserError, OSError):
            if run.last.is_file():
                held = f"{run.last.name} holds epoch {Checkpoint.load(run.last).epoch}"
                way = f"then go on with --resume ({held})"
            else:
                way = "then start anew" + (" with --overwrite" if run.holds_a_run() else "")
        fix = f"{problem.fix}, {way}"
        raise WriteError(dataclasses.replace(problem, fix=fix)) from error


def export_model(checkpoint: Checkpoint, merged: str | None, get: str | None) -> None:
    """Write the files that `--export` and `--export-get` name, and say what they hold."""
    if merged is not None:
        checkpoint.merged().save(Path(merged))
        adapters = len(checkpoint.lora.get("modules", []))
        log.info("%s: the model with %d adapters merged into its weights", merged, adapters)
    if get is not None:
        if checkpoint.members:
            log.warning("warning: %s: GET's layout has room for one model; it is the first of the "
                        "%d members", get, len(checkpoint.members) + 1)  # fmt: skip
        lost = checkpoint.save_get(Path(get))
        log.info("%s: GET's part of the model, in GET's layout", get)
        if lost:
            log.warning("warning: %s have no place in GET's layout and are not in it; without them "
                        "it does not know the growth conditions", ", ".join(lost))  # fmt: skip


def write_get(
    path: Path,
    state: Mapping[str, torch.Tensor],
    features: Mapping[str, Any],
    *,
    num_heads: int,
    layer_norm_eps: float,
    told: Mapping[str, Any],
) -> None:
    """Write a checkpoint in GET's layout (current names, under `state_dict`), atomically.

    Args:
        path: Where.
        state: Of a model; only GET's own parts are written.
        features: `FeatureSchema.input_columns()`.
        num_heads: Of the attention, which no shape shows.
        layer_norm_eps: Of the norms.
        told: What else the file tells: which rows or regions it learned from.
    """
    weights = {k: v.cpu() for k, v in state.items() if k.partition(".")[0] in GET_PARTS}
    values = {
        "state_dict": weights,
        "features": dict(features),
        "num_heads": num_heads,
        "layer_norm_eps": layer_norm_eps,
        "software": f"yeast_get {__version__}",
        **told,
    }
    _save(values, path)


def _save(values: dict[str, Any], path: Path) -> None:
    """Write with torch, atomically; to an open file, since torch would keep the name of a path."""
    with atomic(path) as file:
        try:
            torch.save(_with_equal_texts_as_one(values), file)
        except RuntimeError as error:  # "unexpected pos", whatever ended it: a full disk, Ctrl-C
            raise error.__context__ or error from None


def _with_equal_texts_as_one(value: Any) -> Any:
    """Dicts, lists and tuples anew, in which equal texts are one object.

    Pickle writes an object once and then points to it. Texts that were read from a file are objects
    of their own, so that a resumed run would write other bytes than one that never stopped.
    """
    if type(value) is str:
        return sys.intern(value)
    if isinstance(value, dict):
        return dict(map(_with_equal_texts_as_one, value.items()))
    if isinstance(value, list | tuple):
        return type(value)(map(_with_equal_texts_as_one, value))
    return value
