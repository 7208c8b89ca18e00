"""How much of a source file has been read, told by the checksum of that part: a mended file still begins like this."""

from __future__ import annotations

import hashlib
from pathlib import Path


class Prefix:
    """The SHA-256 of a file's beginning, which grows."""

    def __init__(self, path: Path | None) -> None:
        self.path, self._at, self._digest = path, 0, hashlib.sha256()

    def sha256(self, size: int) -> str:
        """Return it for the first ``size`` bytes, no fewer than were asked for before."""
        if self.path is not None:
            with open(self.path, "rb") as file:
                file.seek(self._at)
                while self._at < size and (block := file.read(min(size - self._at, 1 << 20))):
                    self._digest.update(block)
                    self._at += len(block)
        return self._digest.hexdigest() if self._at == size else "shorter"
