"""Where a figure was made: versions of what computed it."""

from __future__ import annotations

import platform
import sys

import numpy as np

from multiobj_data.version import __version__


def environment() -> dict[str, str]:
    """Return versions by name; ``torch`` only if it is loaded."""
    found = {
        "mobj": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
    }
    if "torch" in sys.modules:
        found["torch"] = str(sys.modules["torch"].__version__)
    return found
