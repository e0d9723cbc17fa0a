"""Variants of a training step, each in a process of its own, that take turns.

Whatever else the machine does then slows all of them alike, so that their ratios hold, and the peak
of memory of each is its own.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from results import of_this_process, peak_megabytes
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

Step = Callable[[], object]


@dataclass
class Variant:
    """One way to train.

    Attributes:
        make: Called in its process; gives what takes some steps of training.
        arguments: Of `make`.
        rows: Rows of a table per step.
        steps: That a call of what is made takes.
        half: Whether its products are in bfloat16.
    """

    make: Callable[..., Step]
    arguments: tuple[Any, ...]
    rows: int
    steps: int = 1
    half: bool = False


def measure(variants: Mapping[str, Variant], rounds: int) -> dict[str, dict[str, float]]:
    """Time all variants in turn; the first round warms up.

    Returns:
        Of each: ms per step (the median), steps and rows per second, peak memory in MB beyond what
        its process had before the model was made, GFLOP/s, and their share of the rate of a large
        product, in percent.

    Raises:
        RuntimeError: Where a process fails; it has shown its traceback.
    """
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
    pipes = {}
    for name, variant in variants.items():
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, variant), daemon=True)
        process.start()
        there.close()
        pipes[name] = here
        _ask(name, here, None)  # one after the other, until it is made
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    products: dict[bool, list[float]] = {half: [] for half in (False, True)}
    wanted = {variant.half for variant in variants.values()}
    for _ in range(rounds + 1):
        for name, pipe in pipes.items():
            seconds[name].append(_ask(name, pipe, "step"))
        for half in wanted:
            products[half].append(product_rate(half))
    found = {}
    for name, variant in variants.items():
        each = statistics.median(seconds[name][1:]) / variant.steps
        peak, flops = _ask(name, pipes[name], "end")
        rate = flops / variant.steps / each
        found[name] = {
            "ms per step": 1e3 * each,
            "steps/s": 1 / each,
            "rows/s": variant.rows / each,
            "peak, MB": peak,
            "GFLOP/s": rate / 1e9,
            "% of a large product": 100 * rate / statistics.median(products[variant.half][1:]),
        }
    return found


def _ask(name: str, pipe: Connection, what: str | None) -> Any:
    try:
        if what is not None:
            pipe.send(what)
        return pipe.recv()
    except EOFError:
        raise RuntimeError(f"the process of {name!r} has ended") from None


def _serve(pipe: Connection, variant: Variant) -> None:
    """Do what the parent asks for: `step` gives seconds, `end` the peak in MB and the FLOP."""
    _import_what_steps_import()
    before = 0 if DEVICE.type == "cuda" else of_this_process("VmRSS") or 0
    step = variant.make(*variant.arguments)
    pipe.send(None)
    while pipe.recv() == "step":
        if DEVICE.type == "cuda":
            step()  # takes again what the last turn gave back
        seconds = _seconds_of(step)
        if DEVICE.type == "cuda":
            torch.cuda.empty_cache()  # for the others
        pipe.send(seconds)
    peak = peak_megabytes() - before
    gc.collect()
    # the fused attention of the CPU is not counted
    plain = sdpa_kernel(SDPBackend.MATH) if DEVICE.type == "cpu" else contextlib.nullcontext()
    with plain, FlopCounterMode(display=False) as counter:
        step()
    pipe.send((peak, counter.get_total_flops()))


def _import_what_steps_import() -> None:
    """So that its memory is no variant's: PEFT, and what PyTorch imports with an optimizer."""
    if importlib.util.find_spec("peft") is not None:
        importlib.import_module("peft")
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.sum().backward()
    torch.optim.AdamW([weight], fused=True).step()


def _seconds_of(step: Step) -> float:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def product_rate(half: bool) -> float:
    """FLOP/s of the product of two large square matrices."""
    side = 8192 if DEVICE.type == "cuda" else 4096
    dtype = torch.bfloat16 if half else torch.float32
    a, b = torch.randn(2, side, side, device=DEVICE).to(dtype)
    seconds = []
    for _ in range(2 if DEVICE.type == "cpu" else 10):
        started = time.perf_counter()
        a @ b
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / statistics.median(seconds[1:])
