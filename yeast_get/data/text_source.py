"""The bytes of a text file, unpacked and as UTF-8, block by block and never all at once."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from yeast_get.errors import DataError, Problem

BLOCK = 8 << 20
"""How many bytes are read at once."""

MOST_UNPACKED = 64 << 30
"""How many bytes a packed file may unpack to."""

_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


class NotUtf8(Exception):
    """A file that was taken for UTF-8 and is none.

    Attributes:
        byte: The first byte that shows it.
        row: The row that holds it, once somebody has counted.
    """

    def __init__(self, byte: int) -> None:
        super().__init__(byte)
        self.byte = byte
        self.row = 1


class _OtherEncoding(DataError):
    """A file that is not in the encoding it was taken for."""


_WESTERN_UNITS = "礛礸癈癋"
"""What µM, µg, °C and °F of a Western encoding become in GB18030."""


@dataclass(frozen=True)
class TextSource:
    """A text file, and how it is packed and encoded.

    Attributes:
        path: The file.
        packed: Whether it is gzip.
        encoding: How its text is encoded.
        bom: Whether it begins with a byte-order mark.
    """

    path: Path
    packed: bool
    encoding: Literal["UTF-8", "UTF-16", "GB18030"]
    bom: bool

    def blocks(self, size: int = 0) -> Iterator[bytes]:
        """The text as UTF-8 without byte-order mark.

        Args:
            size: How many bytes are read at once; 0 = as many as usual.

        Raises:
            NotUtf8: Where it was to be UTF-8, after all that is.
            DataError: Where it cannot be read, or not in another encoding.
        """
        raw = _raw_blocks(self.path, self.packed, size)
        return _checked(raw, self.path) if self.encoding == "UTF-8" else self._recoded(raw)

    def open(self, without: Sequence[int] = ()) -> io.BufferedReader:
        """The text as UTF-8 in a file to read once.

        Args:
            without: Where bytes begin and end that are left out: begin, end, begin, end, ...
        """
        return io.BufferedReader(_Blocks(_without(self.blocks(), without)), 1 << 20)

    def example(self) -> str:
        """Some letters of the text that are not ASCII, after a look at all of it."""
        found = ""
        for block in self.blocks():
            if not found and (match := re.search("[^\x00-\x7f]{1,20}", block.decode())):
                found = match[0]
        return found

    def _recoded(self, raw: Iterator[bytes]) -> Iterator[bytes]:
        decoder = codecs.getincrementaldecoder(self.encoding)()
        first = True
        for block, last in _with_end(raw):
            try:
                text = decoder.decode(block, last)
            except UnicodeDecodeError:
                raise self._no_text() from None
            if "\0" in text:
                raise _holds_nul(self.path)
            if _is_nonsense(text):
                raise self._no_text()
            yield (text.removeprefix("\ufeff") if first else text).encode()
            first = False

    def _no_text(self) -> DataError:
        what = f"is no valid {self.encoding} text"
        return _OtherEncoding(Problem(what, "save it as UTF-8", str(self.path)))


def find_source(path: Path) -> TextSource:
    """How a file is packed and encoded, by its first bytes; UTF-8 until shown otherwise.

    Raises:
        DataError: Where it cannot be read.
    """
    try:
        with path.open("rb") as handle:
            packed = handle.read(2) == b"\x1f\x8b"
    except OSError as error:
        raise _unreadable(path, error) from None
    start = next(_raw_blocks(path, packed, 3), b"")
    if start[:2] in _UTF16_BOMS:
        return TextSource(path, packed, "UTF-16", True)
    return TextSource(path, packed, "UTF-8", start == _BOM)


def as_gb18030(source: TextSource, bad: NotUtf8) -> tuple[TextSource, str]:
    """A file that is no UTF-8 as GB18030, and some letters of it.

    Raises:
        DataError: Where it is not that either.
    """
    source = replace(source, encoding="GB18030")
    try:
        for block in source.blocks():
            if any(letter in block.decode() for letter in _WESTERN_UNITS):
                what = "looks like Windows-1252 text, with units such as µM or °C"
                raise DataError(Problem(what, "save it as UTF-8", str(source.path)))
        return source, source.example()
    except _OtherEncoding:
        what = f"is neither UTF-8 nor GB18030 text (byte 0x{bad.byte:02x} in row {bad.row})"
        raise DataError(Problem(what, "save it as UTF-8", str(source.path))) from None


def _raw_blocks(path: Path, packed: bool, size: int = 0) -> Iterator[bytes]:
    total = 0
    try:
        with gzip.open(path, "rb") if packed else path.open("rb") as handle:
            while block := handle.read(size or BLOCK):
                total += len(block)
                if packed and total > MOST_UNPACKED:
                    what = f"unpacks to more than {MOST_UNPACKED >> 30} GiB"
                    raise DataError(Problem(what, "unpack it and split it", str(path)))
                yield block
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error, packed) from None


def _checked(raw: Iterator[bytes], path: Path) -> Iterator[bytes]:
    """Blocks of UTF-8 as they are; what is valid of a block that is not, then the error."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    first = True
    for block, last in _with_end(raw):
        block = block.removeprefix(_BOM) if first else block
        first = False
        if b"\0" in block:
            raise _holds_nul(path)
        pending = len(decoder.getstate()[0])
        if pending or last or not block.isascii():
            try:
                decoder.decode(block, last)
            except UnicodeDecodeError as error:
                yield block[: max(0, error.start - pending)]
                raise NotUtf8(error.object[error.start]) from None
        yield block


def _without(blocks: Iterator[bytes], cuts: Sequence[int]) -> Iterator[bytes]:
    """Blocks less some of their bytes; see `TextSource.open`."""
    start, cut = 0, 0
    for block in blocks:
        kept, at = [], 0
        while cut < len(cuts) and cuts[cut] < start + len(block):
            kept.append(block[at : max(at, cuts[cut] - start)])
            at = cuts[cut + 1] - start
            if at > len(block):
                break
            cut += 2
        start += len(block)
        yield b"".join([*kept, block[at:]])


def _with_end(raw: Iterator[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Blocks, then an empty one that is the last."""
    for block in raw:
        yield block, False
    yield b"", True


def _is_nonsense(text: str) -> bool:
    """Whether a text holds what no text holds: most bytes decode to something in GB18030."""
    return any(
        unicodedata.category(letter) in ("Cc", "Co", "Cn", "Cs") and letter not in "\t\r\n"
        for letter in set(text)
    )


def _holds_nul(path: Path) -> DataError:
    what = "holds NUL bytes: it is no text table, or UTF-16 without its byte-order mark"
    return DataError(Problem(what, "save it as UTF-8", str(path)))


def _unreadable(path: Path, error: Exception, packed: bool = False) -> DataError:
    said = getattr(error, "strerror", None) or str(error)
    if packed:
        return DataError(
            Problem(f"cannot be unpacked: {said}", "copy or download it again", str(path))
        )
    return DataError(Problem(f"cannot be read: {said}", "check the file", str(path)))


class _Blocks(io.RawIOBase):
    """Blocks as a raw file."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not len(self._left):
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._left = memoryview(block)
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size
