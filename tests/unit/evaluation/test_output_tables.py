"""Tables that are written as a stream have the bytes that pandas would have written."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from yeast_get.evaluation import output_tables


@pytest.mark.parametrize("at_once", [3, 1 << 16])
def test_a_stream_has_the_bytes_of_pandas(monkeypatch, tmp_path, at_once):
    monkeypatch.setattr(output_tables, "_AT_ONCE", at_once)
    rng = np.random.default_rng(0)
    names = np.array(["a", 'b "c", d', "", None, "e\nf", "μ 无", " g ", 7], dtype=object)
    index = rng.integers(0, len(names), 50).astype(np.int32)
    number = rng.normal(size=50).astype(np.float32) * 10.0 ** rng.integers(-9, 9, 50)
    number[[2, 3, 49]] = np.nan, np.inf, -0.0
    words = output_tables._words(names, index)
    output_tables._write_rows(
        lambda rows: {"x, y": words(rows), "z": output_tables._numbers(number[rows])},
        50,
        tmp_path / "ours.csv",
    )
    texts = pd.Series([None if each is None else str(each) for each in names], dtype=object)
    frame = pd.DataFrame({"x, y": texts[index].to_numpy(), "z": number})
    frame.to_csv(tmp_path / "theirs.csv", index=False, float_format="%.9g")
    assert (tmp_path / "ours.csv").read_bytes() == (tmp_path / "theirs.csv").read_bytes()


def test_a_table_without_rows_has_its_header(tmp_path):
    output_tables._write_rows(lambda rows: {"a": [], "b": []}, 0, tmp_path / "empty.csv")
    assert (tmp_path / "empty.csv").read_bytes() == b"a,b\n"
