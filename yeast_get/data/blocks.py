"""Rows of a large table, a block at a time, so that no copy of a column is made for all at once."""

from __future__ import annotations

from collections.abc import Iterator

ROWS = 1 << 20
"""Rows of a block; smaller tables are one."""


def blocks(rows: int, size: int | None = None) -> Iterator[slice]:
    """Slices of at most `size` that together are all rows; one that is empty where there are none.

    Args:
        rows: How many there are.
        size: The most of one block; `ROWS` without.
    """
    step = size or ROWS
    for start in range(0, max(rows, 1), step):
        yield slice(start, min(start + step, rows))
