"""What a file stored, back as a dataclass whose fields hold what their annotations say.

A checkpoint comes from anywhere. Whatever is built of one goes through `build`, so that a wrong
type, size or number is found where it is read, and said, and not met by some line that trusted it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

T = TypeVar("T")

LARGEST = 1e36
"""No number in a file is larger: squares of it, and sums of them, are still numbers."""

DEEPEST, MOST_VALUES = 30, 20_000_000
"""How deep, and how many, the values of a file may be."""

_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)


@dataclass(frozen=True)
class Sizes:
    """What an annotation says of an array or list: `Annotated[np.ndarray, Sizes("P,K+1,T")]`.

    Attributes:
        of: Its sizes: numbers, or letters that stand for the same number in all fields of a class.
        kinds: Kinds of numbers that an array may hold, as numpy's `dtype.kind`.
        odd: Which of "nan" and "inf" it may hold.
        below: Where given, whole numbers from 0 to below the size of that letter.
    """

    of: str
    kinds: str = "f"
    odd: str = ""
    below: str = ""


def build(cls: type[T], stored: Any) -> T:
    """A dataclass of what a file stored of it; tensors become arrays where arrays are wanted.

    Raises:
        ValueError: Naming the first field that is missing, not known, or holds what it cannot.
    """
    if not isinstance(stored, Mapping):
        raise ValueError(f"{cls.__name__} is a {type(stored).__name__}")
    hints = get_type_hints(cls, include_extras=True)
    given = {str(name): value for name, value in stored.items()}
    needed = {each.name for each in fields(cls) if each.default is each.default_factory is MISSING}  # type: ignore[arg-type]
    odd = [f"unknown {name}" for name in given if name not in hints]
    odd += [f"no {name}" for name in sorted(needed - set(given))]
    if odd:
        raise ValueError(f"{cls.__name__}: {', '.join(odd[:3])}")
    known: dict[str, int] = {}
    later = []
    for name, value in given.items():
        hint = hints[name]
        if np.ndarray in (hint, *_parts(hint)) and hasattr(value, "numpy"):
            try:
                given[name] = value = value.numpy()
            except (TypeError, RuntimeError) as error:  # bfloat16, sparse, on another device
                raise ValueError(f"{name}: {error}") from None
        check(hint, value, name)
        if value is not None:
            sizes = [each for each in _parts(hint) if isinstance(each, Sizes)]
            later += [(name, value, each) for each in sizes]
    for name, value, each in later:
        _check_size(name, value, each, known)
    for name, value, each in later:
        _check_numbers(name, value, each, known)
    return cls(**given)


def check(hint: Any, value: Any, name: str) -> None:
    """Hold a value against a type, without turning anything into it.

    Raises:
        ValueError: Naming what it is, and where in it.
    """
    try:
        TypeAdapter(hint, config=_STRICT).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join([name, *map(str, first["loc"])])
        raise ValueError(f"{place[:80]}: {first['msg']}") from None
    check_plain(value, name)


def check_plain(values: Any, name: str) -> list[Any]:
    """Refuse what is nested without end, too much, or beyond all sense.

    Returns:
        What is neither a container nor plain Python.

    Raises:
        ValueError: Naming what.
    """
    waiting, count, others = deque([(values, 0)]), 0, []
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if depth > DEEPEST or count > MOST_VALUES:
            raise ValueError(f"{name} is nested without end")
        if isinstance(value, Mapping):
            waiting += [(each, depth + 1) for pair in value.items() for each in pair]
        elif isinstance(value, list | tuple):
            waiting += [(each, depth + 1) for each in value]
        elif isinstance(value, int):
            if value.bit_length() > 64:
                raise ValueError(f"{name} holds a whole number of {value.bit_length()} bits")
        elif isinstance(value, float):
            if LARGEST < abs(value) < np.inf:
                raise ValueError(f"{name} holds {value:g}")
        elif value is not None and not isinstance(value, str):
            others.append(value)
    return others


def _parts(hint: Any) -> tuple[Any, ...]:
    """What stands in an annotation: the members of a union, and of `Annotated`."""
    parts: list[Any] = []
    for each in get_args(hint) if get_origin(hint) is not Annotated else (hint,):
        parts += get_args(each) if get_origin(each) is Annotated else [each]
    return tuple(parts)


def _check_size(name: str, value: Any, sizes: Sizes, known: dict[str, int]) -> None:
    shape = value.shape if isinstance(value, np.ndarray) else (len(value),)
    letters = sizes.of.split(",")
    if len(shape) != len(letters):
        raise ValueError(f"{name} has {len(shape)} dimensions, not {len(letters)}")
    for letter, size in zip(letters, shape, strict=True):
        symbol, _, more = letter.partition("+")
        size -= int(more or 0)
        wanted = int(symbol) if symbol.isdigit() else known.setdefault(symbol, size)
        if size != wanted:
            raise ValueError(f"{name} has the sizes {list(shape)}, where {letter} is {wanted}")


def _check_numbers(name: str, value: Any, sizes: Sizes, known: dict[str, int]) -> None:
    if isinstance(value, np.ndarray) and value.dtype.kind not in sizes.kinds:
        raise ValueError(f"{name} is of {value.dtype}")
    array = np.asarray(value) if len(value) else np.zeros(0)
    if array.dtype.kind == "f":
        fine = np.abs(np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0)) <= LARGEST
        fine &= ~np.isnan(array) | ("nan" in sizes.odd)
        fine &= ~np.isinf(array) | ("inf" in sizes.odd)
        if not fine.all():
            raise ValueError(f"{name} holds a number that it cannot hold")
    if sizes.below and array.size and not 0 <= array.min() <= array.max() < known[sizes.below]:
        raise ValueError(f"{name} names a place that is not there")
