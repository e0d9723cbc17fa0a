"""Training steps of this package beside those of the same network in other hands.

    python benchmarks/training_speed.py [--only default|get] [--batch 4 16] [--rounds 3]

prints a table for the default model on gasch2000 (`$YEAST_GET_DATA` or `../shared/data`), and for
each batch size one for a model of GET's published size (12 blocks, 768 wide, 283 columns, windows
of 200 regions, random numbers). Figures go to `results.csv`. The lines of HF PEFT need it
installed. On a GPU: `--only get --batch 512 --half --compile`.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import itertools
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import show
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from turns import DEVICE, Step, Variant, measure

from yeast_get.batch import Batch, InputSizes
from yeast_get.config import (
    EncoderConfig,
    FusionConfig,
    HeadConfig,
    ModelConfig,
    RegionEmbedConfig,
    Settings,
    TransformerConfig,
    load_settings,
)
from yeast_get.data.splits import TRAIN
from yeast_get.data.yeast_dataset import EpochSampler, batches
from yeast_get.model import lora
from yeast_get.model.get_backbone import without_dropout
from yeast_get.model.yeast_model import YeastModel
from yeast_get.run_dir import RunDir
from yeast_get.training import loop
from yeast_get.training.finetune import Finetune
from yeast_get.training.interruption import StopSignal
from yeast_get.training.losses import loss_sum
from yeast_get.training.optim import make_optimizer
from yeast_get.training.prepare import prepare

ROOT = Path(__file__).resolve().parent.parent
FEATURES, REGIONS = 283, 200
IN_MEMORY = 20
"""Batches of the default model that are held in memory."""

ADAPTED = ["encoder", "head_exp"]
PEFT = importlib.util.find_spec("peft") is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=["default", "get"])
    parser.add_argument("--batch", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--half", action="store_true", help="the published size in bfloat16 alone")
    parser.add_argument("--compile", action="store_true", help="the published size compiled")
    options = parser.parse_args()
    if not PEFT:
        print("without the lines of HF PEFT: `pip install peft` was not run here")
    if options.only != "get":
        default_model(options.rounds)
    if options.only != "default":
        for windows in options.batch:
            published_size(windows, options)


def default_model(rounds: int) -> None:
    """The table of the shipped default of `train_yeast`, one member, on gasch2000."""
    data = Path(os.environ.get("YEAST_GET_DATA", ROOT.parent / "shared" / "data")) / "gasch2000"
    example = ROOT / "docs" / "examples" / "gasch2000.yaml"
    more = ["training.ensemble=1", "training.max_epochs=1000", "logging.tensorboard=false"]
    settings = load_settings(example, more, {"data.path": str(data)})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ready.pt"
        ready = prepare(settings, DEVICE)
        torch.save((ready.stage, ready.model), file)
        rows = ready.stage.settings.training.batch_size
        epoch = -(-int((ready.stage.part == TRAIN).sum()) // rows)
        held = {
            "on batches in memory": None,
            "LoRA, in memory": "lora",
            "LoRA by PEFT, in memory": "peft",
        }
        variants = {
            "train_yeast": Variant(make_loop, (file, Path(folder)), rows, epoch),
            "preparing batches alone": Variant(make_batches_alone, (file,), rows, epoch),
        }
        for name, kind in held.items():
            if kind != "peft" or PEFT:
                variants[name] = Variant(make_in_memory, (file, kind), rows, 3 * IN_MEMORY)
        variants["usual loop over rows"] = Variant(make_usual_rows, (file,), rows)
        found = measure(variants, rounds)
    ours = found["train_yeast"]["ms per step"]
    for row in found.values():
        row["x train_yeast"] = row["ms per step"] / ours
    show("way to train", found, f"gasch2000, {rows:,} rows per step")


def published_size(windows: int, options: argparse.Namespace) -> None:
    """The table of GET's size; the last columns are shares of full fine-tuning."""
    ours = functools.partial(_get_variant, windows, options)
    variants = {"full fine-tuning": ours("full"), "LoRA": ours("lora")}
    variants["LoRA, activation checkpointing"] = ours("lora", checkpointing=True)
    if PEFT:
        variants["LoRA by PEFT"] = ours("peft")
    variants["usual loop, plain attention"] = ours("usual")
    if not options.half:
        variants["full fine-tuning, bf16"] = ours("full", half=True)
        variants["LoRA, bf16"] = ours("lora", half=True)
    found = measure(variants, options.rounds)
    full = dict(found["full fine-tuning"])
    for row in found.values():
        row["x full, time"] = row["ms per step"] / full["ms per step"]
        row["x full, memory"] = row["peak, MB"] / full["peak, MB"]
    how = f"{', bf16' * options.half}{', compiled' * options.compile}"
    show("way to train", found, f"{windows} x {REGIONS} regions, 12 blocks of 768{how}")


def _get_variant(
    windows: int,
    options: argparse.Namespace,
    kind: str,
    half: bool = False,
    checkpointing: bool = False,
) -> Variant:
    half = half or options.half
    steps = 10 if DEVICE.type == "cuda" else 1
    arguments = (kind, windows, steps, half, checkpointing, options.compile)
    return Variant(make_get, arguments, windows * REGIONS, steps, half)


# ------------------------------------------------------------------------- the default model


def make_loop(file: Path, folder: Path) -> Step:
    """An epoch of the package's own loop, without validation."""
    stage, model = _read(file)
    run = loop._start(model, stage, RunDir(str(folder)), DEVICE, StopSignal())
    progress = loop.Progress()
    return lambda: loop._train_one_epoch(run, progress)


def make_batches_alone(file: Path) -> Step:
    """The batches of an epoch, with the shuffling before them."""
    stage, _ = _read(file)
    return lambda: sum(len(batch) for batch in _batches_of(stage))


def make_in_memory(file: Path, kind: str | None) -> Step:
    """Steps on the first batches of an epoch, in turn."""
    stage, model = _read(file)
    held = list(itertools.islice(_batches_of(stage), IN_MEMORY))
    if kind is not None:
        model = adapted(model, kind)
    settings = stage.settings
    step = _step_of(model, _optimizer(model, kind, settings), settings.training.loss)
    return lambda: [step(batch) for batch in held * 3]


def make_usual_rows(file: Path) -> Step:
    """The usual loop: every row of the table is its own, and torch collates them one by one."""
    stage, model = _read(file)
    _plain_attention()
    train = stage.train_set
    train.use(stage.part == TRAIN)
    every = np.array_split(np.arange(len(train)), 50)
    parts = [dict(train[at].of_windows(torch.arange(len(at))).tensors()) for at in every]
    names = list(parts[0])
    rows = TensorDataset(*(torch.cat([part.pop(name) for part in parts]) for name in names))
    settings = stage.settings
    step = _step_of(model, _optimizer(model, "usual", settings), settings.training.loss)
    loader = DataLoader(rows, batch_size=settings.training.batch_size, shuffle=True)
    usual = _for_ever(loader)
    return lambda: step(Batch(**dict(zip(names, next(usual), strict=True))).to(DEVICE))


def _read(file: Path) -> tuple[Finetune, YeastModel]:
    stage, model = torch.load(file, weights_only=False)
    return stage, model.train()


def _batches_of(stage: Finetune) -> Iterable[Batch]:
    train = stage.train_set
    train.use(stage.part == TRAIN, 1, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    size = stage.settings.training.batch_size
    return batches(train, EpochSampler(train.windows.place, size, rng))


def _for_ever(loader: DataLoader[Any]) -> Iterator[Any]:
    while True:
        yield from loader


# ------------------------------------------------------------------------ the published size


def make_get(
    kind: str, windows: int, steps: int, half: bool, checkpointing: bool, compiled: bool
) -> Step:
    """Steps of a model of the published size; `kind` as in `adapted`, or `full` or `usual`."""
    torch.manual_seed(0)
    model = _get_model(checkpointing)
    if kind in ("lora", "peft"):
        model = adapted(model, kind)
    model = model.to(DEVICE).train()
    optimizer = _optimizer(model, kind, Settings())
    step = _step_of(torch.compile(model) if compiled else model, optimizer, "poisson", half)
    if kind != "usual":
        batch = _get_batch(windows).to(DEVICE)
        return lambda: [step(batch) for _ in range(steps)]
    _plain_attention()
    names, tensors = zip(*_get_batch(4 * windows).tensors(), strict=True)
    usual = _for_ever(DataLoader(TensorDataset(*tensors), batch_size=windows, shuffle=True))
    return lambda: [
        step(Batch(**dict(zip(names, next(usual), strict=True))).to(DEVICE)) for _ in range(steps)
    ]


def _get_model(checkpointing: bool) -> YeastModel:
    config = ModelConfig(
        transformer=TransformerConfig(num_layers=12, num_heads=12, embed_dim=768),
        fusion=FusionConfig(kind="film", hidden_dim=128),
        region_embed=RegionEmbedConfig(bins=0, feature_dropout=0, dropout=0),
        encoder=EncoderConfig(drop_rate=0, drop_path_rate=0.1),
        head=HeadConfig(kind="get"),
    )
    sizes = InputSizes(FEATURES - 1, 1, ["temperature"], {"medium": 4}, ["drug"], 4, 2, 0)
    model = YeastModel(config, sizes)
    model.encoder.checkpointing = checkpointing
    return model


def _get_batch(windows: int) -> Batch:
    return Batch(
        motif=torch.rand(windows, REGIONS, FEATURES - 1),
        accessibility=torch.rand(windows, REGIONS, 1),
        region_mask=torch.ones(windows, REGIONS, dtype=torch.bool),
        region_index=torch.zeros(windows, REGIONS, dtype=torch.int64),
        region_vocab=torch.zeros(windows, REGIONS, dtype=torch.int64),
        sample_vocab=torch.zeros(windows, dtype=torch.int64),
        condition_number=torch.randn(windows, 1),
        condition_present=torch.ones(windows, 1),
        condition_category=torch.ones(windows, 1, dtype=torch.int64),
        condition_other=torch.zeros(windows, 2),
        drug=torch.full((windows, 1), 3),
        dose=torch.ones(windows, 1),
        target=torch.rand(windows, REGIONS, 2),
        target_mask=torch.ones(windows, REGIONS, 2, dtype=torch.bool),
        observation_index=torch.zeros(windows, REGIONS, dtype=torch.int64),
    )


# --------------------------------------------------------------------------------- what both do


def adapted(model: YeastModel, kind: str) -> Any:
    """Adapters of rank 8 on every linear map of encoder and head, ours or those of HF PEFT.

    What else of the model is GET's is frozen; conditions and other heads train in full.
    """
    paths = lora.find(model, ADAPTED)
    ours = ("region_embed.", "encoder.", "cls_token", "head_exp.")
    new = [name for name, _ in model.named_parameters() if not name.startswith(ours)]
    without_dropout(model.encoder)
    if kind == "peft":
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=paths)
        wrapped = get_peft_model(model, config)
        for name in new:
            model.get_parameter(name).requires_grad_(True)
        return wrapped
    lora.inject(model, paths, rank=8, alpha=16)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in new or name.endswith(("lora_A", "lora_B")))
    return model


def _step_of(
    model: Any, optimizer: torch.optim.Optimizer, loss: str, half: bool = False
) -> Callable[[Batch], None]:
    """What takes a step on a batch, as anyone would write it."""
    trained = [each for each in model.parameters() if each.requires_grad]

    def step(batch: Batch) -> None:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=half):
            value = loss_sum(loss, model(batch), batch.target, batch.target_mask)
        (value / batch.target_mask.sum()).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _optimizer(model: Any, kind: str | None, settings: Settings) -> torch.optim.Optimizer:
    """The package's, or for the usual loop what torch gives by default."""
    if kind == "usual":
        return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    return make_optimizer(model, settings)


def _plain_attention() -> None:
    """In this process: attention that holds its matrix of weights."""

    def plain(q: Any, k: Any, v: Any, mask: Any = None, drop_rate: float = 0.0) -> Any:
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return functional.dropout(scores.softmax(dim=-1), drop_rate) @ v

    functional.scaled_dot_product_attention = plain


if __name__ == "__main__":
    main()
