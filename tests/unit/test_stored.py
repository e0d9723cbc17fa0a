"""What a file stored is held against the annotations of the class that it is to be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import pytest
import torch

from yeast_get.stored import Sizes, build, check_plain


@dataclass
class Part:
    keys: Annotated[np.ndarray, Sizes("P", "i")]
    values: Annotated[np.ndarray, Sizes("P,K+1", odd="nan")]
    weights: Annotated[np.ndarray, Sizes("K")] | None
    names: Annotated[list[str], Sizes("P")]
    at: Annotated[list[int], Sizes("W", below="P")] = field(default_factory=list)


GOOD = {
    "keys": torch.tensor([5, 6]),
    "values": torch.tensor([[1.0, float("nan")], [2.0, 3.0]]),
    "weights": torch.tensor([0.5]),
    "names": ["a", "b"],
    "at": [0, 1],
}


def test_tensors_become_arrays_and_what_has_a_default_may_be_missing():
    part = build(Part, GOOD)
    assert isinstance(part.values, np.ndarray)
    assert part.names == ["a", "b"]
    short = {name: value for name, value in GOOD.items() if name != "at"}
    assert build(Part, short | {"weights": None}).at == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"keys": torch.tensor([5])}, "values has the sizes"),
        ({"keys": torch.tensor([5.0, 6.0])}, "keys is of float32"),
        ({"keys": [5, 6]}, "keys: Input should be an instance of ndarray"),
        ({"values": torch.zeros(2)}, "values has 1 dimensions, not 2"),
        ({"values": torch.full((2, 2), float("inf"))}, "values holds a number"),
        ({"weights": torch.tensor([float("nan")])}, "weights holds a number"),
        ({"weights": torch.zeros(2)}, "where K is 1"),
        ({"weights": torch.tensor([1e37])}, "weights holds a number"),
        ({"names": ["a"]}, "names has the sizes"),
        ({"names": ["a", 1]}, r"names\.1: Input should be a valid string"),
        ({"names": "ab"}, "names: Input should be a valid list"),
        ({"at": [2]}, "at names a place that is not there"),
        ({"at": [-1]}, "at names a place that is not there"),
        ({"at": [10**30]}, "at holds a whole number of 100 bits"),
        ({"at": [True]}, r"at\.0: Input should be a valid integer"),
        ({"more": 1}, "Part: unknown more"),
        ({"weights": torch.zeros(1, dtype=torch.bfloat16)}, "weights: .* BFloat16"),
        ({"weights": torch.zeros(1).to_sparse()}, "weights: .* [Ss]parse"),
        ({"weights": torch.zeros(1, requires_grad=True)}, "weights: .* requires grad"),
    ],
)
def test_what_does_not_fit_is_named(change, said):
    with pytest.raises(ValueError, match=said):
        build(Part, GOOD | change)


@pytest.mark.parametrize("stored", [None, 3, [], "x", {}])
def test_what_is_no_part_at_all_is_refused(stored):
    with pytest.raises(ValueError, match="Part"):
        build(Part, stored)


def test_plain_values_have_an_end():
    assert check_plain({"a": [1, 2.5, None, "x", (True, float("inf"))]}, "it") == []
    endless: list = []
    endless.append(endless)
    for value in (endless, {"a": 1e300}, [-(2**70)]):
        with pytest.raises(ValueError, match="^it "):
            check_plain(value, "it")
