"""Columns are shuffled together and given back as they were."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from yeast_get.evaluation.importance import _numbers, _shuffled, _varies


class _StopHere(Exception):
    pass


def test_columns_of_one_input_are_shuffled_together_and_restored_even_after_an_error():
    first = torch.arange(40.0).reshape(10, 4)
    second = torch.arange(10.0).reshape(10, 1) * 4
    before = first.clone(), second.clone()
    try:
        with _shuffled([(first, [0, 2]), (second, [0])], np.random.default_rng(0)):
            assert (first[:, [1, 3]] == before[0][:, [1, 3]]).all()
            assert (first[:, 0] != before[0][:, 0]).any()
            assert (first[:, 0] == second[:, 0]).all()  # rows moved together
            assert sorted(first[:, 2].tolist()) == before[0][:, 2].tolist()
            raise _StopHere
    except _StopHere:
        pass
    assert (first == before[0]).all()
    assert (second == before[1]).all()


def test_a_constant_input_does_not_vary():
    table = torch.tensor([[1.0, 2.0], [1.0, 3.0]])
    assert not _varies([(table, [0])])
    assert _varies([(table, [0, 1])])


def test_times_that_are_also_read_as_one_are_one_input():
    names = ["drug_time", "temperature", "preculture_time", "rest_time"]
    numbers = [{"name": name} for name in names]
    of = ["drug_time", "preculture_time"]
    schema = SimpleNamespace(numbers=numbers, time_fields=[])
    assert list(_numbers(schema)) == [([name], [j]) for j, name in enumerate(names)]
    schema = SimpleNamespace(numbers=[*numbers, {"name": "elapsed", "of": of}], time_fields=of)
    assert list(_numbers(schema)) == [
        (["drug_time", "preculture_time"], [0, 2, 4]),
        (["temperature"], [1]),
        (["rest_time"], [3]),
    ]
