"""From a pretrained checkpoint to a model that is ready to train: load, adapt, freeze, and say so.

The order matters: the model is built in the file's size, the file is loaded, adapters are put in,
and only then is frozen what came from the file.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from yeast_get.batch import InputSizes
from yeast_get.config import FinetuneConfig, LoraConfig, ModelConfig, Settings
from yeast_get.data.expression_data import ExpressionData
from yeast_get.data.features import FeatureSchema
from yeast_get.data.splits import TRAIN, VAL, TrainedRows
from yeast_get.errors import CheckpointError, ConfigError, Problem
from yeast_get.model import lora
from yeast_get.model.checkpoint_file import is_whole
from yeast_get.model.get_backbone import without_dropout
from yeast_get.model.pretrained import GetWeights, LoadReport, adopt, load_get, read_get
from yeast_get.model.yeast_model import YeastTransformer
from yeast_get.stored import check_plain

log = logging.getLogger(__name__)


Model = TypeVar("Model", bound=YeastTransformer)


def fresh(
    kind: Callable[[ModelConfig, InputSizes, int], Model], settings: Settings, schema: FeatureSchema
) -> Model:
    """A freshly initialised model of the settings' size.

    Raises:
        ConfigError: Where its weights alone are more than the memory of this machine.
    """

    def make() -> Model:
        window = settings.data.regions_per_window
        return kind(settings.model, schema.sizes(), window)

    with torch.device("meta"):
        needed = sum(each.numel() * each.element_size() for each in make().parameters())
    if hasattr(os, "sysconf"):  # not on Windows
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if needed > there:
            what = f"model: its weights take {needed / 2**30:,.0f} GiB, and this machine has "
            what += f"{there / 2**30:,.0f} GiB of memory"
            fix = "lower model.transformer.embed_dim, num_layers, or a hidden_dim"
            raise ConfigError(Problem(what, fix))
    return make()


# ------------------------------------------------------------------------------------- loading


@dataclass
class Pretrained:
    """A checkpoint to start from.

    Attributes:
        weights: What it holds of GET.
        names: Of its input columns, in its order; empty where neither the file nor the YAML tells.
    """

    weights: GetWeights
    names: list[str]

    def columns(self, schema: FeatureSchema) -> list[int] | None:
        """For each input column of the model its column in the file, -1 where it is new."""
        if not self.names:
            return None
        at = {name.casefold(): i for i, name in enumerate(self.names)}
        return [at.get(name.casefold(), -1) for name in schema.input_columns()["names"]]

    def inherited(self) -> dict[str, list[Any]]:
        """Names of the file's columns, and their scales where it has them, for the schema."""
        return dict(self.weights.features) or {"names": self.names}


def read_pretrained(config: FinetuneConfig) -> Pretrained | None:
    """The checkpoint that `finetune.checkpoint` names, if any.

    Raises:
        CheckpointError: As `read_get`, and where the names of the features do not fit.
    """
    if config.checkpoint is None:
        return None
    weights = read_get(
        config.checkpoint,
        num_heads=config.num_heads,
        lora_scale=config.lora_scale,
        trust=config.trust_checkpoint,
    )
    if config.trust_checkpoint:
        log.warning("warning: finetune.trust_checkpoint: whatever code %s holds was run",
                    config.checkpoint)  # fmt: skip
    try:
        if weights.trained_rows:
            if not all(map(is_whole, check_plain(weights.trained_rows, "trained_rows"))):
                raise ValueError("trained_rows are larger than they are in the file")
            TrainedRows.from_dict(weights.trained_rows)
    except ValueError as error:
        what = f"holds what no checkpoint holds ({error})"
        raise CheckpointError(Problem(what, "do not use it", file=weights.file)) from None
    names = list(weights.features.get("names", []))
    if config.feature_names is not None:
        names = _names_in(Path(config.feature_names), weights)
    return Pretrained(weights, names)


def _names_in(path: Path, weights: GetWeights) -> list[str]:
    """A text file of one name per line, in the order of the checkpoint's input columns.

    GET's own list holds the motifs alone; accessibility is its last column.
    """
    file = str(path)
    try:
        names = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        what = f"finetune.feature_names cannot be read: {error}"
        raise ConfigError(Problem(what, "give a text file, one name per line", file)) from None
    names = [name for name in names if name]
    wanted = weights.num_features or 0
    if len(names) == wanted - 1:
        names.append("accessibility")
    twice = sorted({name for name in names if names.count(name) > 1})
    if len(names) != wanted or twice:
        what = f"holds {len(names)} names, and the checkpoint has {wanted} input columns"
        if twice:
            what = f"holds {', '.join(twice[:5])} more than once"
        fix = "list every column of the checkpoint in its order, accessibility last"
        raise ConfigError(Problem(what, fix, file=file))
    return names


def with_sizes_of(settings: Settings, weights: GetWeights) -> Settings:
    """The settings with the encoder's sizes as the checkpoint has them.

    Raises:
        ConfigError: Where the YAML gives another size.
    """
    sizes: list[tuple[str, str, Any]] = [
        ("transformer", "embed_dim", weights.embed_dim),
        ("transformer", "num_layers", weights.num_layers),
        ("transformer", "num_heads", weights.num_heads),
        ("encoder", "mlp_ratio", weights.mlp_ratio),
        ("encoder", "layer_norm_eps", weights.layer_norm_eps),
    ]
    problems = []
    model = settings.model.model_copy()
    for section, key, value in sizes:
        block = getattr(model, section)
        asked = getattr(block, key)
        if key in block.model_fields_set and asked not in (value, None):
            what = f"model.{section}.{key} is {asked:g}, and {weights.file} has {value:g}"
            problems.append(Problem(what, f"write {value:g}, or leave it out"))
        setattr(model, section, block.model_copy(update={key: value}))
    if problems:
        raise ConfigError(problems)
    if model.region_embed.bins:
        log.info("region features enter as the checkpoint takes them, without bins")
        model.region_embed = model.region_embed.model_copy(update={"bins": 0})
    return settings.model_copy(update={"model": model})


def load_into(
    model: YeastTransformer, pretrained: Pretrained, schema: FeatureSchema, config: FinetuneConfig
) -> LoadReport:
    """Load a checkpoint into a model and refuse a load that is none.

    Raises:
        CheckpointError: Where too little of it fits.
    """
    why = "no feature name of the table is among the file's"
    if not pretrained.names:
        why = (
            "the file does not name its features; a motif of another table is not a motif of "
            "this one (finetune.feature_names)"
        )
    report = adopt(model, pretrained.weights, pretrained.columns(schema), why)
    report.check(strict=config.strict, min_loaded_fraction=config.min_loaded_fraction)
    state = model.state_dict()
    report.sha256 = digest({name: state[name] for name in report.loaded})
    theirs, ours = pretrained.weights.positions, model.positional_encoding
    if theirs not in (None, ours):
        log.warning("warning: %s was trained with positional_encoding: %s, and the model has %s",
                    report.file, theirs, ours)  # fmt: skip
    if report.columns:
        report.notes += _scale_notes(pretrained, schema)
    return report


def _scale_notes(pretrained: Pretrained, schema: FeatureSchema) -> list[str]:
    """How the kept columns are scaled, and which of them are the same everywhere."""
    notes = ["these columns are scaled as in the file, whatever data.motif_scale says"]
    if "scale" not in pretrained.weights.features:
        notes = [
            "the file holds no scales of its features; GET divides each motif by its largest "
            "score, as data.motif_scale: max does"
        ]
    if schema.constant:
        notes.append(
            f"{len(schema.constant)} input columns are the same in every training row: "
            f"{', '.join(schema.constant[:8])}{', ...' if len(schema.constant) > 8 else ''}"
        )
    return notes


def log_what_was_seen(weights: GetWeights, data: ExpressionData, test: np.ndarray) -> None:
    """Say how much of the test part [N] the checkpoint had learned from before this run."""
    if weights.trained_rows:
        part = TrainedRows.from_dict(weights.trained_rows).parts_of(data)
        seen = int((test & np.isin(part, (TRAIN, VAL))).sum())
        say = log.warning if seen else log.info
        say("%s%d of the %d test rows were trained or validated on when the file was made, with "
            "their expression", "warning: " if seen else "  ", seen, int(test.sum()))  # fmt: skip
    elif weights.trained_regions is not None:
        regions = np.unique(data.region_index[test])
        seen = int(np.isin(data.region_hash[regions], weights.trained_regions.numpy()).sum())
        log.info("  of the %d test regions, %d were learned from in its pretraining (features "
                 "alone, no expression)", len(regions), seen)  # fmt: skip
    else:
        log.info("  the file does not tell which regions it was trained on")


def look_at(config: FinetuneConfig) -> None:
    """Print what `finetune.checkpoint` holds, as a whole GET model, without any table.

    Raises:
        CheckpointError: As `load_get`.
    """
    _, report = load_get(
        config.checkpoint or "",
        config.num_heads,
        lora_scale=config.lora_scale,
        strict=config.strict,
        min_loaded_fraction=config.min_loaded_fraction,
        trust=config.trust_checkpoint,
    )
    for line in report.lines():
        log.info("%s", line)
    log.info("checked the checkpoint alone; give --data to see what of it fits a table")


# -------------------------------------------------------------------------- adapters, freezing


def adapt(model: YeastTransformer, report: LoadReport, settings: Settings) -> dict[str, Any]:
    """With LoRA: put in adapters, and freeze what came whole from the checkpoint.

    Returns:
        What a checkpoint records of it; empty without LoRA.

    Raises:
        ConfigError: Where no linear map is left for adapters.
    """
    config = settings.lora
    if not config.enabled:
        return {}
    loaded = set(report.loaded)
    new = {
        path
        for path, part in model.named_modules()
        for name, _ in part.named_parameters(recurse=False)
        if path and f"{path}.{name}" not in loaded
    }
    base = [name for name in report.loaded if name.rpartition(".")[0] not in new]
    try:
        modules = lora.inject(
            model, config.targets, rank=config.rank, alpha=config.alpha,
            dropout=config.dropout, rslora=config.rslora, exclude=config.exclude, new=new,
        )  # fmt: skip
    except (ValueError, re.error) as error:
        fix = "name modules of the encoder, such as encoder or attn.qkv"
        raise ConfigError(Problem(f"lora.targets: {error}", fix)) from None
    _say_what_is_idle(model, modules, config)
    for name in base:
        model.get_parameter(name).requires_grad_(False)
    if config.freeze_dropout:
        without_dropout(model.encoder)
    sha256 = report.sha256
    if base != report.loaded:
        state = model.state_dict()
        sha256 = digest({name: state[name] for name in base})
    return {
        "modules": modules,
        "base": base,
        "base_file": Path(report.file).name,
        "base_sha256": sha256,
    }


def freeze(model: nn.Module, patterns: Iterable[str]) -> None:
    """Hold modules or parameters as they are; adapters that come later are not among them.

    Raises:
        ConfigError: Where a pattern names nothing.
    """
    for pattern in patterns:
        named = [p for name, p in model.named_parameters() if lora.is_meant(name, [pattern])]
        if not named:
            what = f"finetune.freeze: no parameter of the model is in {pattern!r}"
            parts = ", ".join(dict.fromkeys(name.partition(".")[0] for name in model.state_dict()))
            raise ConfigError(Problem(what, f"its parts are {parts}"))
        for parameter in named:
            parameter.requires_grad_(False)


def _say_what_is_idle(model: nn.Module, modules: list[str], config: LoraConfig) -> None:
    """Name the entries of the lists that match nothing; no match at all is an error before."""
    linear = [path for path, part in model.named_modules() if isinstance(part, nn.Linear)]
    for name in config.targets if isinstance(config.targets, list) else []:
        if not any(lora.is_meant(path, [name]) for path in modules):
            log.info("no adapter is at %s: no linear map there came from the checkpoint", name)
    for name in config.exclude if isinstance(config.exclude, list) else []:
        if not any(lora.is_meant(path, [name]) for path in linear):
            log.warning("warning: lora.exclude: there is no linear map at %s", name)


def put_adapters(model: nn.Module, record: Mapping[str, Any], settings: Settings) -> None:
    """Put adapters where a checkpoint records them, for its weights to be loaded into.

    Raises:
        ValueError: Where the model has no such maps.
    """
    if record:
        named = dict(model.named_modules())
        if not all(isinstance(named.get(path), nn.Linear) for path in record["modules"]):
            raise ValueError("adapters of maps that the model does not have")
        lora.inject(
            model,
            "|".join(map(re.escape, record["modules"])),
            rank=settings.lora.rank,
            alpha=settings.lora.alpha,
            dropout=settings.lora.dropout,
            rslora=settings.lora.rslora,
        )


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors, their names and shapes."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        sha.update(value.view(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def base_tensors(
    record: Mapping[str, Any],
    columns: list[int],
    settings: Settings,
    path: str | Path,
    make: Callable[[], nn.Module],
) -> dict[str, Tensor]:
    """The frozen tensors of an adapter, from the file that it was trained from.

    Args:
        record: `Checkpoint.lora`.
        columns: `LoadReport.columns` of its training.
        settings: Of its training.
        path: The base.
        make: Makes a model of the adapter's size; called where the base is of that size.

    Raises:
        CheckpointError: Where the file is not the one that the adapter was trained from.
    """
    config = settings.finetune  # whether to trust a file is never taken from another file
    weights = read_get(path, num_heads=config.num_heads, lora_scale=config.lora_scale)
    size = settings.model.transformer
    fits = max(columns, default=-1) < (weights.num_features or 0)
    fits &= (size.embed_dim, size.num_layers) == (weights.embed_dim, weights.num_layers)
    fits &= settings.model.encoder.mlp_ratio == weights.mlp_ratio
    found = {}
    if fits:
        model = make()
        adopt(model, weights, columns or None)
        state = model.state_dict()
        found = {name: state[name].clone() for name in record["base"] if name in state}
    if not fits or digest(found) != record["base_sha256"]:
        what = "is not the base that the adapter was trained from"
        fix = f"give {record['base_file']} (the SHA-256 of its tensors is another)"
        raise CheckpointError(Problem(what, fix, file=str(path)))
    return found


# -------------------------------------------------------------------------------- what trains


def trainable_table(model: nn.Module) -> list[dict[str, Any]]:
    """Parameters per top-level part of a model, and in total: all, trainable, LoRA, frozen."""
    rows: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        part = name.partition(".")[0]
        row = rows.setdefault(part, _row(part))
        for key in _kinds(name, parameter.requires_grad):
            row[key] += parameter.numel()
    total = _row("total")
    for row in rows.values():
        for key in ("parameters", "trainable", "lora", "frozen"):
            total[key] += row[key]
    return [*rows.values(), total]


def _row(part: str) -> dict[str, Any]:
    return {"module": part, "parameters": 0, "trainable": 0, "lora": 0, "frozen": 0}


def _kinds(name: str, trains: bool) -> Iterable[str]:
    yield "parameters"
    yield "trainable" if trains else "frozen"
    if name.rpartition(".")[2] in ("lora_A", "lora_B"):
        yield "lora"


def log_trainable(model: nn.Module) -> None:
    """Print the table.

    Raises:
        ConfigError: Where nothing is left to train.
    """
    rows = trainable_table(model)
    if not rows[-1]["trainable"]:
        raise ConfigError(Problem("finetune.freeze leaves nothing to train", "name less there"))
    line = "  %-16s %12s %12s %12s %12s"
    log.info(line, "module", "parameters", "trainable", "LoRA", "frozen")
    for row in rows:
        counts = [row[key] for key in ("parameters", "trainable", "lora", "frozen")]
        log.info(line, row["module"], *(f"{count:,}" for count in counts))
