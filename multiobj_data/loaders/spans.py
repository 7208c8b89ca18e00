"""A stretch of a buffer, not copied: NumPy for arithmetic on it, ``bytes`` for searching at memory's speed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Span(NamedTuple):
    """Bytes ``start .. stop - 1`` of a buffer."""

    buffer: bytes
    start: int
    stop: int

    @classmethod
    def of(cls, data: bytes | np.ndarray) -> Span:
        """Return all of some bytes, copied unless they are ``bytes``."""
        data = data if isinstance(data, bytes) else data.tobytes()
        return cls(data, 0, len(data))

    @property
    def size(self) -> int:
        """How many bytes."""
        return self.stop - self.start

    def array(self) -> np.ndarray:
        """Return a view: uint8 ``[size]``, read-only."""
        return np.frombuffer(self.buffer, np.uint8, self.size, self.start)

    def tobytes(self) -> bytes:
        """Return a copy."""
        return self.buffer[self.start : self.stop]

    def cut(self, first: int, last: int) -> Span:
        """Return a part, counted from this one's start."""
        return Span(self.buffer, self.start + first, self.start + last)
