"""Keeping memory at hand: drawing reuses the same megabytes for every block, and digits once resized."""

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


@cache
def keep_workers_that_grow() -> None:
    """Keep loky from ending this worker because its memory has grown.

    Where psutil is installed, loky takes growth by 300 MB for a leak and starts a new worker. Ours grow to a bound,
    by the digits that they have resized; a new worker would begin that anew, again and again.
    """
    from joblib.externals.loky import process_executor

    process_executor._USE_PSUTIL = False
