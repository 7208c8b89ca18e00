"""Keeping memory at hand: drawing and training reuse the same megabytes again and again, and digits once resized."""

from __future__ import annotations

import ctypes
import platform
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""

_MOST, _MOST_BEFORE_2_35 = 2**31 - 1, 2**25
"""Bytes up to which a block may come from memory that is kept: as many as an int holds, or as glibc once allowed."""


@cache
def keep_freed_memory() -> bool:
    """Let this process keep what it frees for its next large arrays; for one that draws, trains or answers.

    glibc hands blocks of megabytes back to the system at once, which clears them page by page before they are had
    again. For scenes, which are drawn in blocks of equal size, that costs about as much as the drawing; in training,
    what only adds or multiplies takes three times as long for it, and a step a tenth to a third longer. What the
    process holds is at most what it held at its peak.

    Returns:
        Whether the C library can be told so: only glibc can.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    large_blocks = any(libc.mallopt(_MMAP_THRESHOLD, most) for most in (_MOST, _MOST_BEFORE_2_35))
    return large_blocks and bool(libc.mallopt(_TRIM_THRESHOLD, _MOST))


@cache
def keep_workers_that_grow() -> None:
    """Keep loky from ending this worker because its memory has grown.

    Where psutil is installed, loky takes growth by 300 MB for a leak and starts a new worker. Ours grow to a bound,
    by the digits that they have resized; a new worker would begin that anew, again and again.
    """
    from joblib.externals.loky import process_executor

    process_executor._USE_PSUTIL = False
