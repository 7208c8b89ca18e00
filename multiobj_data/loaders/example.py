"""``tf.train.Example`` read from protocol buffers' wire format: no TensorFlow, no protobuf.

An Example holds Features (field 1), a map (field 1) of names (field 1) to a Feature (field 2), which is a list of
bytes (field 1), floats (2) or whole numbers (3), whose values are field 1. The last of repeated map keys wins; parts
of a repeated message are joined, which on the wire is to put them one after the other; unknown fields are skipped
(Protocol Buffers' encoding guide), but in an entry of the map, where nobody writes any, they are refused.

The public multi-object sets store *one string of one byte per pixel*: three bytes on the wire, ``0a 01 xx``. Their
values are a strided view of the payload; the others are walked value by value, in time and memory linear in them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

from multiobj_data.errors import DataError
from multiobj_data.loaders.spans import Span

BYTES, FLOATS, INTS = 1, 2, 3
KINDS = {BYTES: "strings", FLOATS: "floats", INTS: "whole numbers"}
_VARINT, _FIXED64, _LENGTH, _GROUP, _GROUP_END, _FIXED32 = range(6)  # wire types
_DEEPEST = 100  # groups in groups, as protobuf itself allows
_FIRST = 1 << 3 | _LENGTH  # the tag of field 1, length-delimited
_BYTE_STRING = np.array([_FIRST, 1], np.uint8)  # then the length, 1
_BETWEEN = 1 << 16  # most bytes outside lists of a record that `Places` compares
_ROW = 1024  # one-byte strings a row, at least, when the tags of many are checked


class MalformedError(DataError):
    """The bytes are no ``tf.train.Example``."""


class Feature(NamedTuple):
    """One feature, its values not yet parsed.

    Attributes:
        kind: `BYTES`, `FLOATS` or `INTS`.
        body: The list's bytes on the wire.
    """

    kind: int
    body: Span

    def values(self) -> np.ndarray:
        """Return float32 or int64 ``[n]``; of strings, uint8 ``[n]`` (a view) if each has one byte, else objects.

        Raises:
            MalformedError: If the bytes are malformed.
        """
        if self.kind == BYTES:
            pixels = one_byte_strings(self.body.array())
            return pixels if pixels is not None else _strings(self.body)
        return _floats(self.body) if self.kind == FLOATS else _ints(self.body)


def parse_example(payload: Span | bytes, wanted: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Return an Example's values by feature name.

    Args:
        payload: The Example.
        wanted: Names to parse; all by default. Those that are absent, or hold no list, are left out.

    Returns:
        Name -> values, see `Feature.values`.

    Raises:
        MalformedError: If the bytes are no Example; a `DataError`.
    """
    found = features(payload)
    return {name: found[name].values() for name in (found if wanted is None else wanted) if name in found}


def features(payload: Span | bytes) -> dict[str, Feature]:
    """Return where an Example's features are, their values not yet parsed.

    Raises:
        MalformedError: If the bytes are no Example.
    """
    payload = payload if isinstance(payload, Span) else Span.of(payload)
    found: dict[str, Feature | None] = {}
    for entry in _messages(_joined(payload, 1), 1):
        name, feature = _entry(entry)
        found[name] = feature
    return {name: feature for name, feature in found.items() if feature is not None}


def one_byte_strings(body: np.ndarray) -> np.ndarray | None:
    """Return the values of a list of one-byte strings: uint8 ``[n]``, a view of every third byte.

    ``None`` if any string has another length.
    """
    return body[2::3] if len(body) % 3 == 0 and have_one_byte(body[None]) else None


def have_one_byte(bodies: np.ndarray) -> bool:
    """Return whether all strings in lists, uint8 ``[B, 3 n]``, have one byte each.

    Exact and cheap: in columns that hold one tag, AND and OR over the rows both equal the tag just where all of them
    do, and neither needs room for more than a row.
    """
    n = bodies.shape[1] // 3
    row = longest_row(n)
    if row < _ROW < n:  # an awkward number of strings
        head = 3 * (n // _ROW * _ROW)
        return have_one_byte(bodies[:, :head]) and have_one_byte(bodies[:, head:])
    rows = bodies.reshape(len(bodies), -1, 3 * row)
    return not n or all(
        bool((fold.reduce(rows, axis=(0, 1)).reshape(row, 3)[:, :2] == _BYTE_STRING).all())
        for fold in (np.bitwise_and, np.bitwise_or)
    )


@cache
def longest_row(n: int) -> int:
    """Return the greatest divisor of n that is at most 4096: arrays are folded fastest in long rows."""
    return next((k for k in range(min(n, 4096), 0, -1) if n % k == 0), 1)


def packed_floats(body: Span) -> int | None:
    """Return where in its buffer the values of a list of floats begin, if it is one block, as everybody writes them.

    Raises:
        MalformedError: If the bytes are malformed.
    """
    if body.size > 2 and body.buffer[body.start] == _FIRST:
        size, at = _varint(body.buffer, body.start + 1, body.stop, 5)
        if at + size == body.stop and not size % 4:
            return at
    return None


class Places:
    """Where features are in records, found once for all records that are written alike.

    A record is if it is as long as the last one and no byte differs but those of lists: then every tag and length on
    the way to them is the same, so that the lists lie where they did.
    """

    def __init__(self) -> None:
        self._last: dict[str, Feature] = {}
        self._size = -1
        self._between = self._bytes = np.zeros(0, np.int64)

    def features(self, payload: Span) -> dict[str, Feature]:
        """Do what `features` does."""
        if payload.size != self._size or not np.array_equal(payload.array()[self._between], self._bytes):
            found = features(payload)
            self._remember(payload, found)
            return found
        return {
            name: Feature(kind, payload.cut(body.start, body.stop))
            for name, (kind, body) in self._last.items()
        }

    def _remember(self, payload: Span, found: dict[str, Feature]) -> None:
        self._size = -1
        bodies = sorted(feature.body for feature in found.values())
        if any(body.buffer is not payload.buffer for body in bodies):
            return  # joined from several parts
        starts = [0, *(body.stop - payload.start for body in bodies)]
        stops = [*(body.start - payload.start for body in bodies), payload.size]
        if sum(stops) - sum(starts) > _BETWEEN:
            return  # mostly what is no feature
        self._between = np.concatenate([np.arange(*ends) for ends in zip(starts, stops, strict=True)])
        self._bytes, self._size = payload.array()[self._between], payload.size
        self._last = {
            name: Feature(kind, Span(b"", body.start - payload.start, body.stop - payload.start))
            for name, (kind, body) in found.items()
        }


def _entry(entry: Span) -> tuple[str, Feature | None]:
    """Return a map entry's name and feature; ``None`` for a feature without a list."""
    name, features_of = "", []
    for number, wire, start, stop in _walk(entry):
        is_known = wire == _LENGTH and number in (1, 2)
        if not is_known:  # protobuf's implementations differ in what they make of it
            raise MalformedError(
                f"expected a name and a feature in an entry, got type {wire} of field {number}."
            )
        part = Span(entry.buffer, start, stop)
        if number == 1:
            name = _name(part)  # the last wins, but every one must be a name
        else:
            features_of.append(part)
    kind = 0
    parts: list[Span] = []
    for number, body in _fields(_join(features_of)):
        if number in KINDS:  # one of the three lists: the last kind wins, its parts are joined
            if kind not in (0, number):
                Feature(kind, _join(parts)).values()  # must be whole all the same
                parts = []
            parts.append(body)
            kind = number
    return name, Feature(kind, _join(parts)) if kind else None


def _name(text: Span) -> str:
    try:
        return text.tobytes().decode()
    except UnicodeDecodeError:
        raise MalformedError("expected feature names in UTF-8, got other bytes.") from None


def _messages(body: Span, wanted: int) -> Iterator[Span]:
    return (part for number, part in _fields(body) if number == wanted)


def _joined(body: Span, wanted: int) -> Span:
    return _join(list(_messages(body, wanted)))


def _join(parts: list[Span]) -> Span:
    if len(parts) == 1:
        return parts[0]
    for part in parts:  # each must be whole by itself: halves of fields could fit together
        for _ in _walk(part):
            pass
    return Span.of(b"".join(part.tobytes() for part in parts))


def _fields(body: Span) -> Iterator[tuple[int, Span]]:
    """Walk a message: number and content of each length-delimited field; others are checked and skipped."""
    for number, wire, start, stop in _walk(body):
        if wire == _LENGTH:
            yield number, Span(body.buffer, start, stop)


def _walk(body: Span) -> Iterator[tuple[int, int, int, int]]:
    """Walk a message: number, wire type, and where the content is of each field that is in no group.

    Of a group, which nothing here has, its beginning.
    """
    buffer, at, end = body
    groups: list[int] = []  # open ones, the innermost last
    while at < end:
        tag, at = _varint(buffer, at, end, 5)
        number, wire = tag >> 3, tag & 7
        if not number or tag > 0xFFFFFFFF:
            raise MalformedError(f"expected field numbers of 1 to 536,870,911, got {number}.")
        start = at
        if wire == _VARINT:
            at = _varint(buffer, at, end, 10)[1]
        elif wire == _LENGTH:
            size, start = _varint(buffer, at, end, 5)
            at = start + size
        elif wire in (_FIXED32, _FIXED64):
            at += 4 if wire == _FIXED32 else 8
        elif wire == _GROUP and len(groups) < _DEEPEST:
            groups.append(number)
        elif wire == _GROUP_END and groups and groups[-1] == number:
            groups.pop()
            continue
        else:
            raise MalformedError(f"expected a field of a known type, got type {wire} of field {number}.")
        if at > end:
            raise MalformedError(
                f"expected {at - start:,} bytes of field {number}, got {max(0, end - start):,}."
            )
        if len(groups) == (wire == _GROUP):
            yield number, wire, start, at
    if groups:
        raise MalformedError(f"expected the end of group {groups[-1]}, got the end of its message.")


def _varint(buffer: bytes, at: int, end: int, longest: int) -> tuple[int, int]:
    """Return a number of at most 64 bits and where it ends: seven bits a byte, low ones first."""
    value = 0
    for shift in range(0, 7 * longest, 7):
        if at >= end:
            raise MalformedError("expected the rest of a number, got the end of its message.")
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise MalformedError(f"expected a number of at most {longest} bytes, got a longer one.")


def _strings(body: Span) -> np.ndarray:
    strings = [part.tobytes() for part in _messages(body, 1)]
    out = np.empty(len(strings), object)
    out[:] = strings
    return out


def _floats(body: Span) -> np.ndarray:
    """Packed (one block) or not (a tag each), or both: float32 ``[n]``."""
    if (at := packed_floats(body)) is not None:
        return np.frombuffer(body.buffer, "<f4", (body.stop - at) // 4, at).astype(np.float32)
    parts = []
    for number, wire, start, stop in _walk(body):
        if number == 1 and wire in (_LENGTH, _FIXED32):
            if (stop - start) % 4:
                raise MalformedError(f"expected floats of 4 bytes, got a block of {stop - start}.")
            parts.append(body.buffer[start:stop])
    return np.frombuffer(b"".join(parts), "<f4").astype(np.float32)


def _ints(body: Span) -> np.ndarray:
    """Packed or not, or both: int64 ``[n]``."""
    out: list[int] = []
    for number, wire, at, stop in _walk(body):
        if number == 1 and wire in (_LENGTH, _VARINT):
            while at < stop:
                value, at = _varint(body.buffer, at, stop, 10)
                out.append(value)
    return np.array(out, np.uint64).view(np.int64)  # negative: the 64-bit complement
