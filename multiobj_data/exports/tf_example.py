"""``tf.train.Example`` in protocol buffers' wire format: all that array_record files for tfds need, no TensorFlow.

An Example holds Features (field 1), a map (field 1) of names (field 1) to a Feature (field 2): a list of bytes
(field 1), floats (2) or whole numbers (3), whose values are field 1.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

_LENGTH_DELIMITED = 2  # wire type


def example(features: Mapping[str, bytes | np.ndarray]) -> bytes:
    """Return the bytes of an Example.

    Args:
        features: Name -> bytes (one value), or an array of any shape: float32 as floats, bool and whole numbers
            as int64.
    """
    entries = (_field(1, name.encode()) + _field(2, _feature(value)) for name, value in features.items())
    return _field(1, b"".join(_field(1, entry) for entry in entries))


def _feature(value: bytes | np.ndarray) -> bytes:
    if isinstance(value, bytes):
        return _field(1, _field(1, value))
    if value.dtype.kind == "f":
        return _field(2, _field(1, value.astype("<f4").tobytes()))
    return _field(3, _field(1, b"".join(map(_varint, value.ravel().tolist()))))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Return seven bits a byte, low ones first; a negative number is its 64-bit complement."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
