"""Several processes as one: what torchrun started, and the few words they exchange.

Every process ("rank") reads the table and holds the model; of each batch it computes its share.
Rank 0 is the writer: it alone keeps files and logs. Without torchrun there is one rank, the
writer, and every function here does nothing.
"""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

from yeast_get.errors import Problem, RunError

if TYPE_CHECKING:
    import torch
    from torch.distributed import Store

T = TypeVar("T")


def _launched() -> bool:
    """Whether torchrun, or whoever speaks as it does, started this process among others."""
    named = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # asked at every step
    return all(name in os.environ for name in named) and int(os.environ["WORLD_SIZE"]) > 1


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


def launch() -> str:
    """A name of the torchrun that started this process; the same where it starts it again."""
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    return "" if name is None else f"{name} {platform.node()} {os.getppid()}"


def join(device: torch.device) -> None:
    """Meet the other ranks: by NCCL on GPUs, by gloo elsewhere."""
    if not _launched():
        return
    import torch
    from torch import distributed
    from torch.distributed.rendezvous import rendezvous

    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        store, number, ranks = next(rendezvous("env://"))
        store = distributed.PrefixStore(meeting(store, number, ranks), store)
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, store=store, rank=number, world_size=ranks)


def meeting(store: Store, number: int, ranks: int) -> str:
    """A name that the ranks of one start agree on, and those of no other.

    torchrun's store outlives a restart and holds the addresses of ranks that died: a rank that read
    one before it was written anew would look for the dead one, and give up. No count of restarts
    tells the starts apart, since each machine counts its own.

    Args:
        store: That all of them share.
        number: Of this rank.
        ranks: How many there are.
    """
    me = uuid4().hex
    store.set(f"here {number}", me)
    while True:
        if number == 0:
            present = [store.get(f"here {each}").decode() for each in range(ranks)]
            name = uuid4().hex
            store.set("meeting", " ".join([name, *present]))
            wanted = [f"{name} {each}" for each in range(1, ranks)]  # that each of them comes
        else:
            name, *present = store.get("meeting").decode().split()
            if me not in present:  # of an earlier start, or before this rank was heard
                time.sleep(0.05)
                continue
            store.set(f"{name} {number}", "")
            wanted = [f"{name} 0"]  # that rank 0 has heard all
        with suppress(RuntimeError):  # not in time: one of those present is of an earlier start
            store.wait(wanted, timedelta(seconds=2))
            store.set(f"{name} {number}", "")
            return name


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
        if size() == 1 or not _OF_LOST_RANKS.search(said):
            raise
        what = f"another process of this run is gone ({' '.join(said.split())[:120]})"
        fix = "see its last lines; last.pth holds the run as it was last saved"
        raise RunError(Problem(what, fix)) from error


_OF_LOST_RANKS = re.compile(
    "(?=.*(gloo|NCCL)).*(closed by peer|reset by peer|broken pipe|refused|timed out|exited|abort)",
    re.IGNORECASE | re.DOTALL,
)


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


def refuse_other_tables(fingerprint: str, source: str) -> None:
    """Refuse to go on where the ranks read different tables.

    Raises:
        RunError: On every rank.
    """
    read = of_every_rank(fingerprint)
    others = [number for number, each in enumerate(read) if each != read[0]]
    if others:
        what = f"is another table for process {others[0]} than for the first"
        raise RunError(Problem(what, "give all machines the same files", file=source))
