"""A tar archive read once from front to back, for archives too large to unpack.

The standard library's reader keeps an entry for every member (300,000 of them are 0.3 GB), and takes an archive that
ends between two members for a whole one. This one keeps nothing and insists on the end mark.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Protocol

from multiobj_data.errors import DataError

LARGEST_NAME = 1 << 16
"""Bytes of an extended header (a long name) above which the archive is taken for damaged."""

_BLOCK = 512
_CHUNK = 1 << 20


class Stream(Protocol):
    """What is read: a binary stream, already decompressed."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, fewer or none at the end."""


@dataclass
class Member:
    """A regular file in an archive.

    Attributes:
        name: Path within the archive, relative and without ``..``.
        size: In bytes.
    """

    name: str
    size: int
    _reader: _Reader
    _unread: bool = True

    def read(self, at_most: int) -> bytes:
        """Return the content; once, and before the next member is asked for.

        Raises:
            DataError: If it is larger than ``at_most`` bytes, or the archive ends before it does.
        """
        if self.size > at_most:
            raise DataError(
                f"{self._reader.name}: {self.name} claims {self.size} bytes, expected at most {at_most}."
            )
        if not self._unread:
            raise ValueError(f"{self.name} was read before; a stream does not go back.")
        self._unread = False
        return self._reader.body(self.size)

    def skip(self) -> None:
        """Go past the content, if it was not read."""
        if self._unread:
            self._unread = False
            self._reader.skip(self.size)


def members(stream: Stream | IO[bytes], name: str) -> Iterator[Member]:
    """Yield the regular files of an archive in its order; memory does not grow.

    Args:
        stream: The archive, decompressed.
        name: What messages call it.

    Raises:
        DataError: If it is no tar archive, damaged, or truncated; if it holds a link, a device, an absolute name or
            one with ``..``.
    """
    reader = _Reader(stream, name)
    extended: dict[str, str] = {}
    while (header := reader.header()) is not None:
        if header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE):
            extended |= _extended(reader, header)
            continue
        if header.type == tarfile.XGLTYPE:
            _extended(reader, header)  # of all members: comments and the like
            continue
        path = extended.get("path", header.name)
        size = _size(extended.get("size", header.size), reader)
        extended = {}
        _refuse(path, header, reader.name)
        if header.isdir():
            reader.skip(size)
            continue
        member = Member(path, size, reader)
        yield member
        member.skip()


def _extended(reader: _Reader, header: tarfile.TarInfo) -> dict[str, str]:
    """Return what a header says of the member after it: ``path`` or other names of the pax format."""
    if not 0 <= header.size <= LARGEST_NAME:
        raise DataError(f"{reader.name}: damaged, an entry claims a name of {header.size} bytes.")
    body = reader.body(header.size)
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": body.split(b"\0")[0].decode("utf-8", "replace")}
    if header.type == tarfile.GNUTYPE_LONGLINK:
        return {}  # the link itself is refused
    found = {}
    while body:  # records "length key=value\n", the length being that of the record
        digits, _, _ = body[:20].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        record = body[len(digits) + 1 : length - 1] if length <= len(body) else b""
        key, equals, value = record.partition(b"=")
        if not (length and equals):
            raise DataError(
                f"{reader.name}: damaged, an extended header of {header.size} bytes is malformed."
            )
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
        body = body[length:]
    return found


def _size(size: int | str, reader: _Reader) -> int:
    text = str(size)
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise DataError(f"{reader.name}: damaged, an entry claims {text[:40]} bytes.")
    return int(text)


def _refuse(path: str, header: tarfile.TarInfo, name: str) -> None:
    """Refuse what an archive of data has no need of, and what an attack would use."""
    if path.startswith(("/", "\\")) or ".." in path.replace("\\", "/").split("/"):
        raise DataError(
            f"{name}: expected relative names, got {path[:200]!r}; this archive is not as released."
        )
    if header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.DIRTYPE):
        raise DataError(
            f"{name}: expected files and folders, but {path[:200]!r} is a link or a device; this archive is not as "
            "released."
        )


class _Reader:
    """Blocks of a stream, with the errors that they may hold."""

    def __init__(self, stream: Stream | IO[bytes], name: str) -> None:
        self.stream, self.name, self.position = stream, name, 0

    def header(self) -> tarfile.TarInfo | None:
        """Return the next header; ``None`` at the end mark."""
        block = self._exactly(_BLOCK)
        try:
            return tarfile.TarInfo.frombuf(block, "utf-8", "replace")
        except tarfile.HeaderError as error:
            if not block.strip(b"\0"):  # the end mark: two blocks of zeros, of which some writers forget one
                while self.stream.read(_CHUNK):  # so that a checksum at the very end is compared
                    pass
                return None
            at = self.position - _BLOCK
            what = "is no tar archive" if at == 0 else f"is damaged at byte {at}"
            raise DataError(f"{self.name} {what} ({error}).") from error

    def body(self, size: int) -> bytes:
        content = self._exactly(size)
        self.skip(-size % _BLOCK, padded=True)
        return content

    def skip(self, size: int, *, padded: bool = False) -> None:
        left = size if padded else size + -size % _BLOCK
        while left:
            left -= len(self._exactly(min(left, _CHUNK)))

    def _exactly(self, size: int) -> bytes:
        """Return ``size`` bytes; never asks for more than a chunk at once, so that a lie costs no memory."""
        parts, left = [], size
        while left:
            part = self.stream.read(min(left, _CHUNK))
            if not part:
                raise DataError(
                    f"{self.name} is truncated: the archive ends after {self.position} bytes without its end mark."
                )
            parts.append(part)
            left -= len(part)
            self.position += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
