"""TFRecord files: length, its checksum, payload, its checksum; no TensorFlow.

The format (TensorFlow's documentation of TFRecord): ``u64 length | u32 crc(length) | payload | u32 crc(payload)``,
little-endian, where crc is CRC-32C, rotated right by 15 bits, plus 0xa282ead8.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
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
_BLOCK = 1 << 21  # bytes of records that are read together


Checksum = Callable[[bytes | np.ndarray], int]


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


@dataclass(frozen=True)
class Run:
    """Records of one length, one behind another.

    Attributes:
        number: The first one's index in the file, from 0.
        offset: Where it begins in the inflated stream.
        frames: All of them, with lengths and checksums.
        frame: Bytes of one.
    """

    number: int
    offset: int
    frames: Span
    frame: int

    def __len__(self) -> int:
        return self.frames.size // self.frame

    def payloads(self) -> np.ndarray:
        """Return their data, a view: uint8 ``[n, length]``."""
        return self.frames.array().reshape(-1, self.frame)[:, _HEADER.size : -_FOOTER.size]

    def record(self, i: int) -> Record:
        """Return one of them."""
        start = i * self.frame
        payload = self.frames.cut(start + _HEADER.size, start + self.frame - _FOOTER.size)
        return Record(self.number + i, self.offset + start, payload)


def records(
    stream: ByteStream, *, start: int = 0, check_data: bool | None = None, limit: int = LIMIT
) -> Iterator[Record]:
    """Read the records of a stream one by one; arguments and errors as of `runs`.

    Yields:
        Each `Record`, in order.
    """
    for run in runs(stream, start=start, check_data=check_data, limit=limit):
        for i in range(len(run)):
            yield run.record(i)


def runs(
    stream: ByteStream,
    *,
    start: int = 0,
    stop: int | None = None,
    check_data: bool | None = None,
    limit: int = LIMIT,
) -> Iterator[Run]:
    """Read the records of a stream, those together that are as long as one another and lie in one block of it.

    Args:
        stream: At its beginning.
        start: How many records to skip first; see `skip`.
        stop: Index of the first record not to read; by default all are read.
        check_data: Whether to check the payload's checksum. The length's is always checked. By default where
            google-crc32c's compiled code is installed (0.1 ms a MB); without it a check takes about 200 ms a MB.
        limit: The most bytes that a record may claim.

    Yields:
        Each `Run`, in order.

    Raises:
        DataError: If a checksum is wrong, a record is cut off or claims more than ``limit``; names the file, the
            record and where it begins. The records before it have been handed out.
    """
    crc = fast_crc32c() or crc32c
    check = crc if check_data or (check_data is None and checks_data()) else None
    skip(stream, start, limit=limit)
    number = start
    while stop is None or number < stop:
        run = _next_record(stream, number, crc, check, limit)
        if run is None:
            return
        yield run
        number += 1
        most = max(1, _BLOCK // run.frame)
        stream.block = run.frame * most
        while run := _alike(stream, number, run, most if stop is None else min(most, stop - number), check):
            yield run
            number += len(run)


def checks_data() -> bool:
    """Return whether data's checksums are checked unless somebody asks for something else."""
    return fast_crc32c() is not None


def _next_record(
    stream: ByteStream, number: int, crc: Checksum, check: Checksum | None, limit: int
) -> Run | None:
    """Read one record of any length; ``None`` at the end of the stream."""
    offset = stream.offset
    length = _length(stream, number, crc, limit, use=False)
    if length is None:
        return None
    frame = stream.take(length + FRAME)
    if frame.size < length + FRAME:
        rest = frame.size - _HEADER.size
        raise _wrong(stream, number, offset, f"is cut off: {rest:,} of {length + 4:,} bytes")
    run = Run(number, offset, frame, length + FRAME)
    if check and not _data_are_right(run, 1, check):
        raise _wrong(stream, number, offset, "has a wrong checksum of its data")
    return run


def _alike(stream: ByteStream, number: int, last: Run, most: int, check: Checksum | None) -> Run | None:
    """Read up to ``most`` whole and right records as long as the last one; ``None`` if the next is not like that."""
    ready = stream.peek(last.frame * most)
    run = Run(number, stream.offset, ready.cut(0, ready.size // last.frame * last.frame), last.frame)
    if not len(run):
        return None
    frames = run.frames.array().reshape(-1, run.frame)
    header = last.frames.array()[: _HEADER.size]
    n = _leading((frames[:, : _HEADER.size] == header).all(1))
    if check:
        n = _data_are_right(run, n, check)
    return replace(run, frames=stream.take(n * run.frame)) if n else None


def _data_are_right(run: Run, n: int, check: Checksum) -> int:
    """Return how many of the first n records there are before one whose data have another checksum."""
    frames = run.frames.array().reshape(-1, run.frame)
    expected = np.ascontiguousarray(frames[:, -_FOOTER.size :]).view("<u4")[:, 0].tolist()
    data = frames[:, _HEADER.size : -_FOOTER.size]
    return next((i for i in range(n) if _masked(check(data[i])) != expected[i]), n)


def _leading(good: np.ndarray) -> int:
    """Return how many there are before the first that is false."""
    return len(good) if good.all() else int(good.argmin())


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
def fast_crc32c() -> Checksum | None:
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


def _length(stream: ByteStream, number: int, crc: Checksum, limit: int, *, use: bool = True) -> int | None:
    """Read a record's header, and use it up: its payload's length, or ``None`` at the end of the stream."""
    offset = stream.offset
    header = stream.peek(_HEADER.size).tobytes()
    if len(header) < _HEADER.size or use:
        stream.take(_HEADER.size)  # or say what ended the stream
    if not header:
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
