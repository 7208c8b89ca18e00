"""Keeping freed memory at hand: drawing reuses the same megabytes for every block of scenes."""

from __future__ import annotations

import ctypes
import platform
from functools import cache

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # glibc's malloc.h
_KEPT = 1 << 30  # bytes
_MOST_IN_OLD_GLIBC = 1 << 25  # of the first threshold; it refuses more


@cache
def keep_freed_memory() -> None:
    """Let this process keep what it frees (up to 1 GiB) for its next large arrays.

    glibc hands arrays of megabytes back to the system at once and asks for them anew, page by page; for scenes,
    which are drawn in blocks of equal size, that costs about as much as the drawing. What the process holds is at
    most what it held at its peak. Does nothing where the C library is another one.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        if not libc.mallopt(_MMAP_THRESHOLD, _KEPT):
            libc.mallopt(_MMAP_THRESHOLD, _MOST_IN_OLD_GLIBC)
        libc.mallopt(_TRIM_THRESHOLD, _KEPT)
