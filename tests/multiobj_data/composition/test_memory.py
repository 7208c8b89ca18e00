"""A process that trains keeps the memory that it frees."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_FREE_100_MB = """
import os
import sys
from pathlib import Path

import numpy as np

from multiobj_data.composition.memory import keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

if "keep" in sys.argv:
    assert keep_freed_memory()
before = resident()
block = np.ones(100_000_000, np.uint8)
del block
print((resident() - before) / 1e6)
"""


def megabytes_kept(*arguments: str) -> float:
    """Return how much of 100 MB that a new process has allocated and freed it still holds."""
    command = [sys.executable, "-c", _FREE_100_MB, *arguments]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone can be told to keep memory")
def test_freed_memory_is_kept() -> None:
    assert megabytes_kept() < 50
    assert megabytes_kept("keep") > 90
