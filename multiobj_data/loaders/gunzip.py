"""Where a stream's bytes come from: a plain file, gzip (RFC 1952) inflated, or either read ahead by a thread."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from types import ModuleType
from typing import Any

from multiobj_data.errors import DataError, UsageError

MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 19  # file bytes a read
_LOW = (
    1 << 18
)  # bytes in hand below which more are read: a record (CLEVR's take 105 KB) then lies in one piece
_GZIP, _DEFLATE = 31, -15  # zlib's numbers for "a gzip header and trailer, checked" and for neither
_TRAILER = struct.Struct("<II")  # CRC-32 and length (modulo 2^32) of a member's content
_BLOCKS = 4  # inflated ahead, at most


class Plain:
    """A file's bytes.

    Attributes:
        path: The file.
        total: How many.
        position: How many have been handed out.
        ended: Whether that is all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed by `close`)
            self.total = os.fstat(self._file.fileno()).st_size
            self._begin = self._file.read(len(MAGIC))
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.") from error
        self.position = 0
        self.ended = not self.total

    def starts_with(self, magic: bytes) -> bool:
        """Return whether the file begins with these two bytes."""
        return self._begin == magic

    def fetch(self, wanted: int) -> bytes:
        """Return 1 to ``wanted`` new bytes; none at the end of the file."""
        try:
            part, self._begin = self._begin[:wanted], self._begin[wanted:]
            part += self._file.read(wanted - len(part))
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror}.") from error
        self.position += len(part)
        self.ended = self.position >= self.total or not part  # it may have become shorter
        return part

    def skip(self, n: int) -> int:
        """Jump over n bytes; return how many there were."""
        n = min(n, self.total - self.position)
        self.position += n
        self.ended = self.position >= self.total
        self._begin = b""
        self._file.seek(self.position)
        return n

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Gunzip:
    """A gzip file's bytes, inflated; of any number of members, with zeros after any of them.

    Args:
        file: The file, at its beginning.
        library: ``zlib`` or ``isal.isal_zlib``.
        checksum: Whether members' CRC-32 must hold. Their length must in any case.
    """

    def __init__(self, file: Plain, library: ModuleType, checksum: bool) -> None:
        self._file, self._library = file, library
        self._raw = not checksum and library is zlib  # isal's checksum costs next to nothing
        self._input = b""
        self._member: Any = None  # the decompressor inside a gzip member; None between members
        self._inflated = self._member_start = 0
        self._trailer_due = False

    @property
    def position(self) -> int:
        """How many of the file's bytes have been used."""
        return self._file.position - len(self._input)

    def fetch(self, wanted: int) -> bytes:
        """Return 1 to ``wanted`` new bytes; none at the end of the file.

        Raises:
            DataError: If the data are damaged or cut off.
        """
        while True:
            if self._trailer_due:
                self._check_length(self._inflated - self._member_start)
            if len(self._input) < _LOW:
                self._input += self._file.fetch(_CHUNK)
            if self._member is None:
                self._input = self._input.lstrip(b"\0")  # gzip allows padding after a member
            at_end = self._file.ended
            if not self._input and not at_end:
                continue
            if not self._input and self._member is None:
                return b""
            if self._member is None and not self._begin_member(at_end):
                continue
            if part := self._inflate(wanted, at_end):  # without input: what the decompressor holds back
                self._inflated += len(part)
                return part
            if not self._input and self._member is not None and at_end:
                raise self._cut_off()

    def _begin_member(self, at_end: bool) -> bool:
        """Make a decompressor; return whether there was enough of a header for it."""
        if self._raw:
            try:
                length = header_length(self._input)
            except ValueError as error:
                raise self._damaged(f"the gzip data are damaged ({error})") from None
            if length is None:
                if at_end:
                    raise self._cut_off()
                self._input += self._file.fetch(_CHUNK)
                return False
            self._input = self._input[length:]
        self._member = self._library.decompressobj(_DEFLATE if self._raw else _GZIP)
        self._member_start = self._inflated
        return True

    def _inflate(self, wanted: int, at_end: bool) -> bytes:
        try:
            part = self._member.decompress(self._input, wanted)
        except self._library.error as error:
            raise self._damaged(f"the gzip data are damaged ({error})") from error
        if self._member.eof:
            self._input, self._member = self._member.unused_data, None
            self._trailer_due = self._raw
        else:
            self._input = self._member.unconsumed_tail
        return part

    def _check_length(self, length: int) -> None:
        """Read a member's trailer."""
        self._trailer_due = False
        while len(self._input) < _TRAILER.size and (more := self._file.fetch(_CHUNK)):
            self._input += more
        if len(self._input) < _TRAILER.size:
            raise self._cut_off()
        if _TRAILER.unpack_from(self._input)[1] != length % (1 << 32):
            raise self._damaged("the gzip data are damaged (a member has another length than it says)")
        self._input = self._input[_TRAILER.size :]

    def _cut_off(self) -> DataError:
        return self._damaged("the gzip data end too early; the file is cut off")

    def _damaged(self, what: str) -> DataError:
        return DataError(
            f"{self._file.path}: {what}, after byte {self._inflated:,} of the inflated stream; get the file again."
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Ahead:
    """Blocks of a file, fetched by a thread of their own: inflating leaves Python's lock to others.

    Args:
        file: What is read; nobody else may, until `close`.
        block: Bytes a block.
    """

    def __init__(self, file: Plain | Gunzip, block: int) -> None:
        self._file, self._block, self._stop = file, block, False
        self._queue: Queue[tuple[bytes, int] | BaseException] = Queue(_BLOCKS)
        self._last: tuple[bytes, int] | BaseException | None = None
        self._thread = Thread(target=self._run, name=f"inflate {block}", daemon=True)
        self._thread.start()

    def next_block(self) -> tuple[bytes, int]:
        """Return a block and the file's position behind it; no bytes at the end, and ever after.

        Raises:
            BaseException: What reading raised, after the bytes before it.
        """
        item = self._queue.get() if self._last is None else self._last
        if isinstance(item, BaseException):
            self._last = item
            raise item
        if not item[0]:
            self._last = item
        return item

    def _run(self) -> None:
        while not self._stop:
            parts, have = [], 0
            try:
                while have < self._block and (part := self._file.fetch(self._block - have)):
                    parts.append(part)
                    have += len(part)
            except BaseException as error:  # handed on to whoever asks for the next block
                if parts:
                    self._queue.put((b"".join(parts), self._file.position))
                self._queue.put(error)
                return
            self._queue.put((parts[0] if len(parts) == 1 else b"".join(parts), self._file.position))
            if not parts:
                return

    def close(self) -> None:
        """End the thread."""
        self._stop = True
        while self._thread.is_alive():
            try:  # it may wait for room
                self._queue.get(timeout=0.01)
            except Empty:
                continue
        self._thread.join()


def header_length(data: bytes) -> int | None:
    """Return how many bytes a gzip member's header has; ``None`` if there is not all of it.

    Raises:
        ValueError: If it is none.
    """
    start = data[:4]
    if start != (MAGIC + bytes([8]) + start[3:4])[: len(start)] or (len(start) == 4 and start[3] & 0xE0):
        raise ValueError("no gzip header where one should be")
    if len(data) < 10:
        return None
    flags, at = data[3], 10
    if flags & 4:  # more, with its length before it
        at += 2 + int.from_bytes(data[at : at + 2], "little")
    for flag in (8, 16):  # a name and a comment, each with a zero behind it
        if flags & flag:
            at = data.find(b"\0", at) + 1
            if at == 0:
                return None
    at += 2 if flags & 2 else 0  # a checksum of the header
    return at if at <= len(data) else None


def choose_inflater(name: str | None) -> tuple[str, ModuleType]:
    """Return ``isal`` or ``zlib``, by default the first that is installed, with its module.

    Raises:
        UsageError: If it is not installed or there is none of that name.
    """
    if name not in (None, "isal", "zlib"):
        raise UsageError(f"inflater: expected 'isal' or 'zlib', got {name!r}.")
    if name != "zlib":
        try:
            from isal import isal_zlib

            return "isal", isal_zlib
        except ImportError as error:
            if name == "isal":
                raise UsageError("inflater isal: expected the package isal; pip install isal.") from error
    return "zlib", zlib
