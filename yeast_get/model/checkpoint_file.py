"""Opening a checkpoint file without running any code that it holds.

torch's own `weights_only` reader does the reading: it builds tensors and plain containers, and
calls nothing that is not on its list. To that list come the classes that GET's files are known to
hold beside their weights (the namespace of arguments, a numpy scalar, OmegaConf settings, the
leftovers of Lightning); none of them is built: each is read as a `Dropped`, which only keeps what
the file says of it. Whatever else a file wants to import is refused by name.
"""

from __future__ import annotations

import argparse
import pickletools
import warnings
import zipfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from yeast_get.errors import CheckpointError, Problem

HARMLESS = {
    "argparse.Namespace",
    "collections.defaultdict",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib.Path",
    "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath",
    "torch.torch_version.TorchVersion",
    *(
        f"builtins.{name}"
        for name in ("dict", "list", "tuple", "str", "int", "float", "bool", "object")
    ),
}
HARMLESS_PACKAGES = {
    "get_model", "omegaconf", "lightning", "lightning_fabric", "lightning_utilities",
    "pytorch_lightning", "torchmetrics", "typing",
}  # fmt: skip
"""Names, and packages, that GET's files hold and that no weight depends on."""

LONGEST_PICKLE = 64 << 20
LONGEST_HASH = 100_000
MOST_STEPS = 5_000_000
"""The part of a file that is no tensor is small and flat; a file beyond these is no checkpoint."""


class Dropped:
    """Stands for an object of a class that is not built: only what the file says of it is kept."""

    state: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.state = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


def is_whole(value: Any) -> bool:
    """Whether a value is a plain tensor, as large in the file as it claims to be."""
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        return False
    claimed = value.numel() * value.element_size()
    return (
        value.device.type == "cpu"
        and not value.is_quantized
        and claimed <= value.untyped_storage().nbytes()
    )


def find_setting(values: Any, name: str, kind: type) -> Any:
    """The first value of that name and kind among the settings of a file, wherever they stand.

    Args:
        values: Anything that `open_checkpoint` gave; OmegaConf's nodes are looked into.
        name: The key, such as `num_heads`.
        kind: Its type.

    Returns:
        The value, or None.
    """
    waiting, seen = deque([values]), set()
    while waiting:
        value = waiting.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        inside = value.state if isinstance(value, Dropped) else value
        if isinstance(value, argparse.Namespace):  # built, where the file is trusted
            inside = vars(value)
        if isinstance(inside, dict):
            found = inside.get(name)
            if isinstance(found, Dropped) and isinstance(found.state, dict):
                found = found.state.get("_val")  # a node of OmegaConf's
            if type(found) is kind:
                return found
            waiting += inside.values()
        elif isinstance(inside, list | tuple):
            waiting += inside
    return None


def _empty(*args: Any) -> dict[Any, Any]:
    """Stands for `collections.defaultdict`, whose items follow in the file."""
    return {}


def open_checkpoint(path: str | Path, *, trust: bool = False) -> Any:
    """The content of a checkpoint file, with its tensors on the CPU and mapped from the disk.

    Args:
        path: A file that `torch.save` wrote.
        trust: Unpickle whatever the file holds. This runs any code that it brings.

    Raises:
        CheckpointError: With one line, where the file is missing, damaged or of another kind, or
            where it would import what is not harmless and is not trusted.
    """
    file = Path(path)
    if not file.is_file():
        raise _refused(file, "there is no such file", "check the path")
    if trust:
        return _load(file, weights_only=False)
    _check_archive(file)
    try:
        wanted = sorted(get_unsafe_globals_in_checkpoint(file))
    except Exception as error:  # torch raises many kinds for damaged files
        raise _damaged(file, error) from None
    foreign = [name for name in wanted if not _is_harmless(name)]
    if foreign:
        some = ", ".join(foreign[:8]) + (f" and {len(foreign) - 8} more" if foreign[8:] else "")
        raise _refused(
            file,
            f"wants to import {some}, which may run code, and was not read",
            "ask for a file with weights only; finetune.trust_checkpoint: true runs such code, and "
            "is only for files that you made yourself",
        )
    with safe_globals([(_stand_in(name), name) for name in wanted]):
        return _load(file, weights_only=True)


def _stand_in(name: str) -> Callable[..., Any]:
    """A class of its own per name, since torch's reader knows the allowed classes by identity."""
    if name == "collections.defaultdict":
        return _empty
    if name.endswith(".AttributeDict"):  # Lightning's; torch's reader fills only plain ones
        return type("AttributeDict", (dict,), {"__new__": lambda cls, *args: {}})
    return type("Dropped", (Dropped,), {"name": name})


def _is_harmless(name: str) -> bool:
    return name in HARMLESS or name.partition(".")[0] in HARMLESS_PACKAGES


def _load(file: Path, *, weights_only: bool) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols and typed storages
            return torch.load(file, map_location="cpu", weights_only=weights_only, mmap=True)
    except Exception as error:  # torch raises many kinds for damaged files
        raise _damaged(file, error) from None


_OF_DAMAGED_ARCHIVES = (
    zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError, LookupError,
)  # fmt: skip
"""What zipfile and pickletools raise."""


def _check_archive(file: Path) -> None:
    """Refuse what is no archive of `torch.save`, is damaged, or was made to fill memory or time."""
    try:
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
            pickles = [each for each in records if each.filename.endswith("/data.pkl")]
            if len(pickles) != 1:
                what = "is a zip archive, and not one that torch.save wrote"
                raise _refused(file, what, "give a .pth or .ckpt file")
            if len({each.filename for each in records}) < len(records):
                raise _refused(file, "holds two records of one name", "do not use it")
            if any(each.compress_type != zipfile.ZIP_STORED for each in records):
                what = "holds compressed records, which torch.save never writes"
                raise _refused(file, what, "give the file as it was saved")
            if pickles[0].file_size > LONGEST_PICKLE:
                what = f"holds {pickles[0].file_size >> 20} MiB beside its tensors"
                raise _refused(file, what, "give a file with weights only")
            if not any(each.CRC for each in records):
                what = "was saved without checksums (torch.serialization.set_crc32_options)"
                raise _refused(file, what, "save it anew with them")
            wrong = archive.testzip()
            if wrong is not None:
                what = f"is damaged or cut off (the checksum of {wrong} is another)"
                raise _refused(file, what, "copy it again")
            steps = _longest_hash(archive.read(pickles[0]))
    except _OF_DAMAGED_ARCHIVES as error:
        raise _damaged(file, error) from None
    if steps > LONGEST_HASH:
        what = "nests tuples so that reading never ends, as files do that are made to hang a reader"
        raise _refused(file, what, "do not use it")


def _longest_hash(pickled: bytes) -> int:
    """Steps to hash the worst tuple of a pickle: (t, t) of t = (u, u) of ... takes 2 ** depth.

    Follows the stack of the unpickler with the steps of each tuple in the place of each object.
    """
    stack: list[int | None] = []
    memo: dict[int, int] = {}
    longest = 0
    for count, (code, argument, _) in enumerate(pickletools.genops(pickled)):
        if count > MOST_STEPS:
            raise ValueError(f"more than {MOST_STEPS:,} values beside the tensors")
        if code.name == "MARK":
            stack.append(None)
        elif code.name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo.get(int(argument or 0), 0))
        elif code.name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            memo[len(memo) if argument is None else int(argument)] = stack[-1] or 0
        else:
            popped: list[int] = []
            if pickletools.markobject in code.stack_before:
                while (steps := stack.pop()) is not None:
                    popped.append(steps)
                below = code.stack_before.index(pickletools.markobject)
            else:
                below = len(code.stack_before)
            popped += [stack.pop() or 0 for _ in range(below)]
            is_tuple = code.name.startswith("TUPLE")
            made = 1 + sum(popped) if is_tuple else 0
            longest = max(longest, made)
            stack += [made] * len(code.stack_after)
    return longest


def _damaged(file: Path, error: Exception) -> CheckpointError:
    with file.open("rb") as handle:
        start = handle.read(256)
    if not start:
        return _refused(file, "is empty", "copy it again")
    said = " ".join(str(error).split())[:120]
    if start[:4] != b"PK\x03\x04":
        if start.isascii():
            return _refused(file, "is text, and no checkpoint", "give a .pth or .ckpt file")
        what = "is not a file that torch.save of torch 1.6 or later wrote"
        return _refused(file, what, "give a .pth or .ckpt file, or save it anew")
    if "Unsupported operand" in said:
        what = "was pickled in another way than torch.save does by default (protocol 2)"
        return _refused(file, what, "save it anew with torch.save")
    what = f"is damaged or cut off ({type(error).__name__}: {said})"
    return _refused(file, what, "copy it again")


def _refused(file: Path, what: str, fix: str) -> CheckpointError:
    return CheckpointError(Problem(what, fix, file=str(file)))
