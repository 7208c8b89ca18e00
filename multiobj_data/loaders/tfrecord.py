"""TFRecord files: length, its checksum, payload, its checksum; no TensorFlow.

The format (TensorFlow's documentation of TFRecord): ``u64 length | u32 crc(length) | payload | u32 crc(payload)``,
little-endian, where crc is CRC-32C, rotated right by 15 bits, plus 0xa282ead8.
"""

from __future__ import annotations

import itertools
import struct
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

from multiobj_data.errors import DataError
from multiobj_data.loaders.inflate import ByteStream
from multiobj_data.loaders.spans import Span

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
FRAME = _HEADER.size + _FOOTER.size  # bytes of a record that are no payload
LIMIT = 1 << 30  # a longer claim is damage: TensorFlow itself cannot parse an Example of 2 GB
_BLOCK = 1 << 20


class Record(NamedTuple):
    """One record.

    Attributes:
        number: Its index in the file, from 0.
        offset: Where it begins in the inflated stream.
        payload: Its data.
    """

    number: int
    offset: int
    payload: Span


def records(
    stream: ByteStream, *, start: int = 0, check_data: bool | None = None, limit: int = LIMIT
) -> Iterator[Record]:
    """Read the records of a stream.

    Args:
        stream: At its beginning.
        start: How many records to skip first; see `skip`.
        check_data: Whether to check the payload's checksum. The length's is always checked. By default where
            google-crc32c's compiled code is installed (0.1 ms a MB); without it a check takes about 200 ms a MB.
        limit: The most bytes that a record may claim.

    Yields:
        Each `Record`, in order.

    Raises:
        DataError: If a checksum is wrong, a record is cut off or claims more than ``limit``; names the file, the
            record and where it begins.
    """
    crc = fast_crc32c() or crc32c
    if check_data is None:
        check_data = fast_crc32c() is not None
    skip(stream, start, limit=limit)
    for number in itertools.count(start):
        offset = stream.offset
        length = _length(stream, number, crc, limit)
        if length is None:
            return
        framed = stream.take(length + _FOOTER.size)
        if framed.size < length + _FOOTER.size:
            raise _wrong(stream, number, offset, f"is cut off: {framed.size:,} of {length + 4:,} bytes")
        payload, footer = framed.cut(0, length), framed.cut(length, framed.size)
        if check_data and _masked(crc(payload.array())) != _FOOTER.unpack(footer.tobytes())[0]:
            raise _wrong(stream, number, offset, "has a wrong checksum of its data")
        stream.block = (length + FRAME) * max(1, _BLOCK // (length + FRAME))
        yield Record(number, offset, payload)


def skip(stream: ByteStream, n: int, *, limit: int = LIMIT) -> None:
    """Pass over n records, checking lengths alone: in a gzip file at the speed of inflating, else at once.

    Raises:
        DataError: If a length's checksum is wrong or the file has fewer records.
    """
    crc = fast_crc32c() or crc32c
    for number in range(n):
        offset = stream.offset
        length = _length(stream, number, crc, limit)
        if length is None:
            raise DataError(f"{stream.path}: expected more than {n} records, got {number}.")
        if stream.skip(length + _FOOTER.size) < length + _FOOTER.size:
            raise _wrong(stream, number, offset, "is cut off")


def crc32c(data: bytes | np.ndarray) -> int:
    """Return the CRC-32C (Castagnoli) of some bytes, in plain Python: slow, about 5 MB/s."""
    table, value = _table(), 0xFFFFFFFF
    for byte in bytes(data):
        value = value >> 8 ^ table[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


@cache
def fast_crc32c() -> Callable[[bytes | np.ndarray], int] | None:
    """Return google-crc32c's function if its compiled code is installed, else ``None``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that its compiled code is missing
        try:
            import google_crc32c
        except ImportError:
            return None
    return google_crc32c.value if google_crc32c.implementation == "c" else None


@cache
def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)  # the polynomial, bits reversed
        table.append(value)
    return table


def _masked(crc: int) -> int:
    return (crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF


def _length(
    stream: ByteStream, number: int, crc: Callable[[bytes | np.ndarray], int], limit: int
) -> int | None:
    """Read a record's header: its payload's length, or ``None`` at the end of the stream."""
    offset = stream.offset
    header = stream.read(_HEADER.size)
    if not len(header):
        return None
    if len(header) < _HEADER.size:
        raise _wrong(stream, number, offset, f"is cut off: {len(header)} of 12 bytes of its header")
    length, checksum = _HEADER.unpack(header)
    if _masked(crc(header[:8])) != checksum:
        hint = " (is the file a TFRecord?)" if number == 0 else ""
        raise _wrong(stream, number, offset, f"has a wrong checksum of its length{hint}")
    if length > limit:
        raise _wrong(stream, number, offset, f"claims {length:,} bytes, more than the limit of {limit:,}")
    return length


def _wrong(stream: ByteStream, number: int, offset: int, what: str) -> DataError:
    return DataError(
        f"{stream.path}: record {number} (at byte {offset:,}{' inflated' if stream.compressed else ''}) {what}; "
        "get the file again."
    )
