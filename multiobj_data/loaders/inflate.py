"""A file as one stream of bytes, inflated if it is gzip; memory stays constant at any size."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from multiobj_data.errors import DataError, UsageError
from multiobj_data.loaders.spans import Span

_CHUNK = 1 << 19  # file bytes a read
_LOW = (
    1 << 18
)  # bytes in hand below which more are read: a record (CLEVR's take 105 KB) then lies in one piece
_MOST = 1 << 24  # bytes to make room for at once, whatever length a damaged record claims
_GZIP = b"\x1f\x8b"
_GZIP_WINDOW = 31  # zlib's number for "a gzip header and trailer, checked"


class ByteStream:
    """Bytes of a plain or a gzip file, front to back; gzip is told by its first two bytes, never by the name.

    A gzip file may have several members and zeros after any of them. Its own checksums are checked at the end of
    each member.

    Attributes:
        path: The file.
        total: Its bytes on the disk.
        offset: How many (inflated) bytes have been handed out.
        compressed: Whether it is gzip.
        inflater: ``"isal"`` (igzip, where installed), ``"zlib"`` or ``"none"``.
        block: How many bytes to fetch at once. A reader of equal records sets it to a multiple of their size: no
            record then lies across two blocks, and none has to be copied.
    """

    def __init__(self, path: str | os.PathLike[str], inflater: str | None = None) -> None:
        self.path = Path(path)
        name, library = _inflater(inflater)
        try:
            self._file = open(self.path, "rb", buffering=0)  # noqa: SIM115 (closed by `close`)
            self.total = os.fstat(self._file.fileno()).st_size
            self._input = self._file.read(_CHUNK)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.") from error
        self.compressed = self._input.startswith(_GZIP)
        self.inflater, self._library = name if self.compressed else "none", library
        self._member: Any = None  # the decompressor inside a gzip member; None between members
        self._inflated = 0
        self.offset = 0
        self.block = 0
        self._block_left = 0
        self._ready = Span.of(b"")  # inflated, not yet handed out

    @property
    def position(self) -> int:
        """How many of the file's `total` bytes have been used: for progress."""
        return self._file.tell() - len(self._input)

    def read(self, n: int, /) -> bytes:
        """Return the next n bytes, fewer only at the end; raises what `take` does."""
        return self.take(n).tobytes()

    def take(self, n: int) -> Span:
        """Return the next n bytes, fewer only at the end; not copied where they lie in one block.

        Raises:
            DataError: If the gzip data are damaged or cut off; what lies before a cut has been handed out. Where
                damage shows, up to `block` bytes before it are lost with it.
        """
        ready = self._ready
        if ready.size < n:
            parts, have = [ready.tobytes()], ready.size
            while have < n and (part := self._fetch(max(n - have, self._block_left or self.block))):
                parts.append(part)
                have += len(part)
            ready = Span.of(parts[1] if len(parts) == 2 and not parts[0] else b"".join(parts))
        n = min(n, ready.size)
        self._ready = ready.cut(n, ready.size)
        self.offset += n
        return ready.cut(0, n)

    def skip(self, n: int) -> int:
        """Pass over n bytes as fast as the file allows; return how many there were."""
        begin = self.offset
        if not self.compressed:
            n = self._seek(n)
        while n > 0 and (passed := self.take(min(n, _CHUNK)).size):
            n -= passed
        return self.offset - begin

    def _seek(self, n: int) -> int:
        """Jump over what is neither inflated nor read of n bytes to skip; return what is left of n."""
        far = min(n, self.total - self.offset) - self._ready.size - len(self._input)
        if far <= 0:
            return n
        self._file.seek(far, os.SEEK_CUR)
        passed = far + self._ready.size + len(self._input)
        self._ready, self._input, self._block_left = Span.of(b""), b"", 0
        self.offset += passed
        return n - passed

    def _fetch(self, wanted: int) -> bytes:
        """Return 1 to ``wanted`` new bytes; none at the end of the file."""
        wanted = min(wanted, _MOST)
        part = self._inflate(wanted) if self.compressed else self._plain(wanted)
        self._block_left = wanted - len(part)
        self._inflated += len(part)
        return part

    def _plain(self, wanted: int) -> bytes:
        if not self._input:
            return self._read_file(wanted)
        part, self._input = self._input[:wanted], self._input[wanted:]
        return part

    def _inflate(self, wanted: int) -> bytes:
        while True:
            if len(self._input) < _LOW:
                self._input += self._read_file(_CHUNK)
            if self._member is None:
                self._input = self._input.lstrip(b"\0")  # gzip allows padding after a member
            if not self._input:
                if self._file.tell() < self.total:
                    continue
                if self._member is not None and (part := self._inflate_input(wanted)):
                    return part  # held back inside the decompressor
                if self._member is not None:
                    raise self._damaged("the gzip data end too early; the file is cut off")
                return b""
            if part := self._inflate_input(wanted):
                return part

    def _inflate_input(self, wanted: int) -> bytes:
        self._member = self._member or self._library.decompressobj(_GZIP_WINDOW)
        try:
            part = self._member.decompress(self._input, wanted)
        except self._library.error as error:
            raise self._damaged(f"the gzip data are damaged ({error})") from error
        if self._member.eof:
            self._input, self._member = self._member.unused_data, None
        else:
            self._input = self._member.unconsumed_tail
        return part

    def _read_file(self, n: int) -> bytes:
        try:
            return self._file.read(n)
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror}.") from error

    def _damaged(self, what: str) -> DataError:
        return DataError(
            f"{self.path}: {what}, after byte {self._inflated:,} of the inflated stream; get the file again."
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> ByteStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_stream(path: str | os.PathLike[str], *, inflater: str | None = None) -> ByteStream:
    """Open a plain or gzip file as a `ByteStream`.

    Args:
        path: The file.
        inflater: ``"isal"`` or ``"zlib"``; by default isal where it is installed (about twice as fast).

    Raises:
        DataError: If the file cannot be read.
        UsageError: If the inflater is not installed or there is none of that name.
    """
    return ByteStream(path, inflater)


def _inflater(name: str | None) -> tuple[str, ModuleType]:
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
