"""The readers, given bytes of all kinds: a table, or one-line errors; in bounded memory.

`YEAST_GET_FUZZ_SECONDS` sets how long (`make nightly`).
"""

from __future__ import annotations

import gzip
import io
import os
import random
import resource
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pytest

from yeast_get.config import settings_from_dict
from yeast_get.data.expression_data import load_expression_data
from yeast_get.errors import DataError

SECONDS = float(os.environ.get("YEAST_GET_FUZZ_SECONDS", "4"))
HEADER = ["region_id", "motif_a", "accessibility", "temperature", "drug", "target"]
ROWS = [[f"r{i % 9}", i % 9 + 0.5, 0.5, 30, "none", i / 7] for i in range(40)]
WORDS = (
    b",", b";", b"\t", b"\n", b"\r\n", b"\r", b'"', b'""', b"\0", b"\xff\xfe", b"\xef\xbb\xbf",
    b"1e400", b"1,5", b"NA", "无".encode("gb18030"), "℃".encode(), b"=1+1", b"30", b"-",
    b"region_id", b"target",
)  # fmt: skip


def text() -> bytes:
    return "\n".join(",".join(map(str, row)) for row in [HEADER, *ROWS]).encode()


def book() -> bytes:
    made = openpyxl.Workbook()
    for row in [HEADER, *ROWS]:
        made.active.append(row)
    made.active.merge_cells("E5:E6")
    raw = io.BytesIO()
    made.save(raw)
    return raw.getvalue()


def flipped(raw: bytes, rng: random.Random) -> bytes:
    """Some bytes replaced, cut out, doubled, or words put in."""
    out = bytearray(raw)
    for _ in range(rng.randint(1, 12)):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            out[at : at + 1] = rng.randbytes(1)
        elif kind == 1:
            del out[at : at + rng.randint(1, 40)]
        elif kind == 2:
            out[at:at] = out[at : at + rng.randint(1, 60)]
        else:
            out[at:at] = rng.choice(WORDS)
    return bytes(out)


def cut(raw: bytes, rng: random.Random) -> bytes:
    return raw[: rng.randrange(len(raw) + 1)]


def unzipped(raw: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def rezipped(raw: bytes, rng: random.Random) -> bytes:
    """A workbook with members left out, damaged or swapped."""
    members = unzipped(raw)
    names = list(members)
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(names)
        kind = rng.randrange(4)
        if kind == 0:
            members.pop(name, None)
        elif kind == 1 and name in members:
            members[name] = flipped(members[name], rng)
        elif kind == 2 and name in members:
            members[name] = cut(members[name], rng)
        else:
            members[name] = members.get(rng.choice(names), b"")
    return zipped(members)


def far_cell(raw: bytes, rng: random.Random) -> bytes:
    """A workbook with cells at odd places."""
    members = unzipped(raw)
    sheet = "xl/worksheets/sheet1.xml"
    place = rng.choice([b"XFD1048576", b"A1048576", b"XFD2", b"ZZZZ9", b"A0", b"B99999999999"])
    members[sheet] = members[sheet].replace(b'r="B7"', b'r="%s"' % place, 1)
    return zipped(members)


def noise(raw: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.randint(0, 3000))


def words(raw: bytes, rng: random.Random) -> bytes:
    return b"".join(rng.choice(WORDS) for _ in range(rng.randint(1, 400)))


MAKERS: list[tuple[Callable[[], bytes], Callable[[bytes, random.Random], bytes]]] = [
    (text, noise), (text, words), (text, flipped), (text, cut), (book, flipped), (book, cut),
    (book, rezipped), (book, rezipped), (book, far_cell),
    (lambda: gzip.compress(text()), flipped), (lambda: gzip.compress(text()), cut),
]  # fmt: skip


def outcome(path: Path) -> bool:
    """Whether a file loads; else every line of its refusal is one line."""
    try:
        load_expression_data(settings_from_dict({"data": {"path": str(path)}}, "x"))
    except DataError as error:
        lines = error.lines()
    else:
        return True
    assert lines
    assert all(line and "\n" not in line for line in lines)
    return False


def test_whatever_the_bytes_there_is_a_table_or_one_line_each(tmp_path):
    good = [(make(), damage) for make, damage in MAKERS]
    path = tmp_path / "t.bin"
    path.write_bytes(text())
    assert outcome(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    end, seed, loaded = time.monotonic() + SECONDS, 0, 0
    while time.monotonic() < end:
        rng = random.Random(seed)
        raw, damage = good[seed % len(good)]
        path.write_bytes(damage(raw, rng))
        try:
            loaded += outcome(path)
        except Exception as error:
            raise AssertionError(f"seed {seed}, {damage.__name__}") from error
        seed += 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 500, f"{grown:.0f} MB"
    print(f"{seed} files, of which {loaded} load")  # noqa: T201
    assert seed > 20


@pytest.mark.parametrize("declared", [5 << 30, (1 << 32) - 2])
def test_a_workbook_that_unpacks_to_too_much_is_refused_by_its_declared_size(tmp_path, declared):
    raw = bytearray(book())
    path = tmp_path / "t.xlsx"
    size = min(declared, (1 << 32) - 2).to_bytes(4, "little")
    at = raw.rindex(b"xl/worksheets/sheet1.xml")  # in the directory at the end
    raw[at - 46 + 24 : at - 46 + 28] = size
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"t\.xlsx: .*unpacks to .*save it as CSV"):
        load_expression_data(settings_from_dict({"data": {"path": str(path)}}, "x"))
