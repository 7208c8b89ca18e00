"""What becomes of the memory that PyTorch frees on the CPU.

The C library hands large blocks back to the system, which clears them before the next layer gets them again: what only
adds or multiplies takes three times as long for it, and a training step a tenth to a third longer.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""

_MOST, _MOST_BEFORE_2_35 = 2**31 - 1, 2**25
"""Bytes up to which a block may come from memory that is kept: as many as an int holds, or as glibc once allowed."""


def keep_freed_memory() -> bool:
    """Let this process keep memory that it frees, to use it again; for a process that trains or answers.

    Returns:
        Whether the C library can be told so. glibc can; with others a process goes on as it is.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    large_blocks = any(mallopt(_M_MMAP_THRESHOLD, most) for most in (_MOST, _MOST_BEFORE_2_35))
    return large_blocks and bool(mallopt(_M_TRIM_THRESHOLD, _MOST))
