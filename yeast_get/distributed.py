"""Several processes as one: what torchrun started, and the few words they exchange.

Every process ("rank") reads the table and holds the model; of each batch it computes its share.
Rank 0 is the writer: it alone keeps files and logs. Without torchrun there is one rank, the
writer, and every function here does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from yeast_get.errors import Problem, RunError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


def _launched() -> bool:
    """Whether torchrun, or whoever speaks as it does, started this process among others."""
    named = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= set(os.environ)
    return named and int(os.environ["WORLD_SIZE"]) > 1


def rank() -> int:
    """The number of this process, 0 for the writer."""
    return int(os.environ["RANK"]) if _launched() else 0


def local_rank() -> int:
    """The number of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", rank())) if _launched() else 0


def local_world_size() -> int:
    """How many processes run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if _launched() else 1


def is_writer() -> bool:
    """Whether this process keeps files and logs."""
    return rank() == 0


def size() -> int:
    """How many processes are joined; 1 before `join` and after `leave`."""
    if not _launched():
        return 1
    from torch import distributed

    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_restarted() -> bool:
    """Whether torchrun starts the command again, since a process of it had died."""
    return _launched() and _restarts() > 0


def _restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


def join(device: torch.device) -> None:
    """Meet the other ranks: by NCCL on GPUs, by gloo elsewhere.

    torchrun's store outlives a restart, and holds the addresses of the ranks that were: those of
    each start are kept apart, or a new rank may look for an old one.
    """
    if not _launched():
        return
    import torch
    from torch import distributed
    from torch.distributed.rendezvous import rendezvous

    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        store, number, ranks = next(rendezvous("env://"))
        store = distributed.PrefixStore(f"start {_restarts()}", store)
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, store=store, rank=number, world_size=ranks)


def leave() -> bool:
    """Part from the other ranks; what follows is the writer's alone.

    Returns:
        Whether this rank is the writer.
    """
    if size() > 1:
        from torch import distributed

        distributed.destroy_process_group()
    return is_writer()


@contextmanager
def telling_of_lost_ranks() -> Iterator[None]:
    """Turn what NCCL and gloo raise, where another rank has died, into one line."""
    try:
        yield
    except RuntimeError as error:
        said = str(error)
        if size() == 1 or not any(name in said for name in ("gloo", "NCCL")):
            raise
        what = f"another process of this run is gone ({' '.join(said.split())[:120]})"
        fix = "see its last lines; last.pth holds the run as it was last saved"
        raise RunError(Problem(what, fix)) from error


def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over the ranks, the same on each; in place."""
    if size() > 1:
        from torch import distributed

        distributed.all_reduce(values)
    return values


def of_every_rank(value: T) -> list[T]:
    """The value of each rank, in their order; plain Python and tensors of the CPU."""
    if size() == 1:
        return [value]
    from torch import distributed

    values: list[T] = [value] * size()
    distributed.all_gather_object(values, value)
    return values


def from_writer(make: Callable[[], T]) -> T:
    """What the writer makes, on every rank; so that the others need none of its files."""
    if size() == 1:
        return make()
    from torch import distributed

    made = [make() if is_writer() else None]
    distributed.broadcast_object_list(made)
    return made[0]  # type: ignore[return-value]
