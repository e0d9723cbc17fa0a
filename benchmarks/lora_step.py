"""One training step of a model of GET's published size: with LoRA, and with all weights trained.

    python benchmarks/lora_step.py [--batch 4] [--regions 200] [--precision bf16] [--compile]

12 blocks, 768 wide, 283 input columns, windows of 200 regions, on random numbers. Each variant runs
in a process of its own, so that its peak memory is its own. Its rate is that of the products that
PyTorch counts in a step, as a share of one large product in the same precision and process.
Figures go to benchmarks/results.csv.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from results import peak_megabytes, record
from torch.utils.flop_counter import FlopCounterMode

from yeast_get.batch import Batch, InputSizes
from yeast_get.config import (
    EncoderConfig,
    FusionConfig,
    HeadConfig,
    ModelConfig,
    RegionEmbedConfig,
    TransformerConfig,
)
from yeast_get.model import lora
from yeast_get.model.get_backbone import without_dropout
from yeast_get.model.yeast_model import YeastModel
from yeast_get.training.losses import loss_sum

FEATURES = 283


def make_model(kind: str) -> YeastModel:
    """The published size, conditions by film; `lora`: rank 8 on every map of encoder and head."""
    config = ModelConfig(
        transformer=TransformerConfig(num_layers=12, num_heads=12, embed_dim=768),
        fusion=FusionConfig(kind="film", hidden_dim=128),
        region_embed=RegionEmbedConfig(bins=0, feature_dropout=0, dropout=0),
        encoder=EncoderConfig(drop_rate=0, drop_path_rate=0.1),
        head=HeadConfig(kind="get"),
    )
    sizes = InputSizes(FEATURES - 1, 1, ["temperature"], {"medium": 4}, ["drug"], 4, 2, 0)
    model = YeastModel(config, sizes)
    if kind == "lora":
        lora.inject(model, ["encoder", "head_exp"], rank=8, alpha=16)
        for part in (model.region_embed, model.encoder):
            for name, parameter in part.named_parameters():
                if not name.endswith(("lora_A", "lora_B")):
                    parameter.requires_grad_(False)
        model.cls_token.requires_grad_(False)
        without_dropout(model.encoder)
    return model


def make_batch(windows: int, regions: int) -> Batch:
    """Random windows."""
    return Batch(
        motif=torch.rand(windows, regions, FEATURES - 1),
        accessibility=torch.rand(windows, regions, 1),
        region_mask=torch.ones(windows, regions, dtype=torch.bool),
        region_index=torch.zeros(windows, regions, dtype=torch.int64),
        region_vocab=torch.zeros(windows, regions, dtype=torch.int64),
        sample_vocab=torch.zeros(windows, dtype=torch.int64),
        condition_number=torch.randn(windows, 1),
        condition_present=torch.ones(windows, 1),
        condition_category=torch.ones(windows, 1, dtype=torch.int64),
        condition_other=torch.zeros(windows, 2),
        drug=torch.full((windows, 1), 3),
        dose=torch.ones(windows, 1),
        target=torch.rand(windows, regions, 2),
        target_mask=torch.ones(windows, regions, 2, dtype=torch.bool),
        observation_index=torch.zeros(windows, regions, dtype=torch.int64),
    )


def measure(kind: str, args: argparse.Namespace) -> dict[str, float]:
    """Median time of a step, and the peak of memory of this process."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = make_model(kind).to(device).train()
    forward = torch.compile(model) if args.compile else model
    optimizer = torch.optim.AdamW(model.parameter_groups(0.05), lr=1e-4)
    batch = make_batch(args.batch, args.regions).to(device)
    dtype = torch.bfloat16 if args.precision == "bf16" else None

    def step(forward: Callable[[Batch], torch.Tensor]) -> None:
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            loss = loss_sum("poisson", forward(batch), batch.target, batch.target_mask)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    median = median_seconds(lambda: step(forward), args.steps, device)
    memory = peak_megabytes()
    with FlopCounterMode(display=False) as counter:
        step(model)
    rate = counter.get_total_flops() / median
    return {
        f"{kind}: one step, ms": 1e3 * median,
        f"{kind}: peak memory, MB": memory,
        f"{kind}: TFLOP/s": rate / 1e12,
        f"{kind}: percent of a large product's rate": 100 * rate / product_rate(dtype, device),
        f"{kind}: trainable parameters, thousands": sum(
            p.numel() / 1e3 for p in model.parameters() if p.requires_grad
        ),
    }


def median_seconds(work: Callable[[], object], times: int, device: torch.device) -> float:
    """Median wall time of some work, after once or, on a GPU, five times to warm up."""
    on_gpu = device.type == "cuda"
    seconds = []
    for _ in range(times + (5 if on_gpu else 1)):
        started = time.perf_counter()
        work()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[-times:])


def product_rate(dtype: torch.dtype | None, device: torch.device) -> float:
    """FLOP/s of the product of two large square matrices."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = torch.randn(2, side, side, device=device, dtype=dtype or torch.float32)
    return 2 * side**3 / median_seconds(lambda: a @ b, 5, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--regions", type=int, default=200)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--only", choices=["lora", "full"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(args.only, args)))
        return
    figures: dict[str, float] = {}
    for kind in ("full", "lora"):
        command = [sys.executable, __file__, "--only", kind, *sys.argv[1:]]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        figures |= json.loads(result.stdout)
    for what in ("one step, ms", "peak memory, MB"):
        share = figures[f"lora: {what}"] / figures[f"full: {what}"]
        figures[f"lora over full, percent of {what.partition(',')[0]}"] = 100 * share
    compiled = ", compiled" if args.compile else ""
    record(figures, f"{args.batch} x {args.regions} regions, {args.precision}{compiled}")


if __name__ == "__main__":
    main()
