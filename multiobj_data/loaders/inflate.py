"""A file as one stream of bytes, inflated if it is gzip; memory stays constant at any size."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from multiobj_data.errors import DataError
from multiobj_data.loaders.gunzip import MAGIC, Ahead, Gunzip, Plain, choose_inflater
from multiobj_data.loaders.spans import Span

_SKIP = 1 << 19  # bytes passed over at a time
_MOST = 1 << 24  # bytes to make room for at once, whatever length a damaged record claims


class ByteStream:
    """Bytes of a plain or a gzip file, front to back; gzip is told by its first two bytes, never by the name.

    A gzip file may have several members and zeros after any of them; see `gunzip`.

    Attributes:
        path: The file.
        total: Its bytes on the disk.
        offset: How many (inflated) bytes have been handed out.
        position: How many of the file's ``total`` bytes have been used: for progress.
        compressed: Whether it is gzip.
        inflater: ``"isal"`` (igzip, where installed), ``"zlib"`` or ``"none"``.
        block: How many bytes to fetch at once. A reader of equal records sets it to a multiple of their size: no
            record then lies across two blocks, and none has to be copied.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        inflater: str | None = None,
        checksum: bool = True,
        ahead: bool = False,
    ) -> None:
        self.path = Path(path)
        name, library = choose_inflater(inflater)
        self._file: Plain | Gunzip = Plain(self.path)
        self.total, self.compressed = self._file.total, self._file.starts_with(MAGIC)
        self.inflater = name if self.compressed else "none"
        if self.compressed:
            self._file = Gunzip(self._file, library, checksum)
        self.offset = self.position = self.block = 0
        self._block_left = 0
        self._ready = Span.of(b"")  # inflated, not yet handed out
        self._error: DataError | None = (
            None  # what ended the stream, told when the bytes before it are used up
        )
        self._may_go_ahead = ahead and self.compressed
        self._ahead: Ahead | None = None

    def read(self, n: int, /) -> bytes:
        """Return the next n bytes, fewer only at the end; raises what `take` does."""
        return self.take(n).tobytes()

    def take(self, n: int) -> Span:
        """Return the next n bytes, fewer only at the end; not copied where they lie in one block.

        Raises:
            DataError: If the gzip data are damaged or cut off; what lies before a cut has been handed out. Where
                damage shows, up to `block` bytes before it are lost with it.
        """
        part = self.peek(n)
        if part.size < n and self._error is not None:
            raise self._error
        self.offset += part.size
        self._ready = self._ready.cut(part.size, self._ready.size)
        return part

    def peek(self, n: int) -> Span:
        """Return what `take` would, but use nothing up; fewer bytes also before what `take` raises an error for."""
        if self._ready.size < n and self._error is None:
            parts, have = [self._ready.tobytes()] if self._ready.size else [], self._ready.size
            try:
                while have < n and (part := self._fetch(max(n - have, self._block_left or self.block))):
                    parts.append(part)
                    have += len(part)
            except DataError as error:
                self._error = error
            self._ready = Span.of(parts[0] if len(parts) == 1 else b"".join(parts))
        return self._ready.cut(0, min(n, self._ready.size))

    def skip(self, n: int) -> int:
        """Pass over n bytes as fast as the file allows; return how many there were."""
        begin = self.offset
        if isinstance(self._file, Plain):
            passed = min(n, self._ready.size)
            self._ready = self._ready.cut(passed, self._ready.size)
            if n > passed:
                passed += self._file.skip(n - passed)
                self._block_left = 0
            self.offset, n = self.offset + passed, n - passed
            self.position = self._file.position
        while n > 0 and (passed := self.take(min(n, _SKIP)).size):
            n -= passed
        return self.offset - begin

    def _fetch(self, wanted: int) -> bytes:
        """Return 1 to ``wanted`` new bytes, or a whole block of what was inflated ahead; none at the end."""
        if self._may_go_ahead and self.block:
            self._ahead = self._ahead or Ahead(self._file, min(self.block, _MOST))
            part, self.position = self._ahead.next_block()
            return part
        wanted = min(wanted, _MOST)
        part = self._file.fetch(wanted)
        self._block_left = wanted - len(part)
        self.position = self._file.position
        return part

    def close(self) -> None:
        """Close the file."""
        if self._ahead is not None:
            self._ahead.close()
        self._file.close()

    def __enter__(self) -> ByteStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_stream(
    path: str | os.PathLike[str], *, inflater: str | None = None, checksum: bool = True, ahead: bool = False
) -> ByteStream:
    """Open a plain or gzip file as a `ByteStream`.

    Args:
        path: The file.
        inflater: ``"isal"`` or ``"zlib"``; by default isal where it is installed (about twice as fast).
        checksum: Whether gzip's own checksums must hold. Where the content has checksums of its own, zlib need not
            spend a fifth of its time on them.
        ahead: Whether a thread inflates what comes next while the caller works on what it has; it starts once
            ``block`` is set.

    Raises:
        DataError: If the file cannot be read.
        UsageError: If the inflater is not installed or there is none of that name.
    """
    return ByteStream(path, inflater, checksum, ahead)
