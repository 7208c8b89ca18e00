"""What can go wrong, one class per exit code of the command line.

Every message says what was expected, what came, and what to do next.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable
from pathlib import Path

_LONGEST = 80  # characters of what the user gave that an error repeats


class MobjError(Exception):
    """A failure whose message is meant for the user; the command line prints it without a traceback."""

    exit_code = 1


class UsageError(MobjError):
    """The request itself is malformed: an unknown name, a value out of range, contradictory options."""

    exit_code = 2


class DataError(MobjError):
    """Data are missing, unreadable, truncated or of another format."""

    exit_code = 3


class VerificationError(MobjError):
    """Data can be read but are not what their manifest says."""

    exit_code = 4


class InfeasibleError(MobjError):
    """The request is well formed but cannot be met, e.g. nine digits without overlap in 50x50."""

    exit_code = 5


def repair_hint(folder: Path) -> str:
    """Return what to type to have a data set repaired."""
    return f"run `mobj verify --repair {shlex.quote(str(folder))}`"


def quoted(value: object) -> str:
    """Return ``repr(value)``, cut where it is long: what the user gave, as errors show it."""
    return shortened(repr(value))


def shortened(text: str) -> str:
    """Return a text, cut where it is long."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"``, or the list of known names where none is close."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f" Did you mean {close[0]!r}?"
    return f" Known: {', '.join(known)}." if known else ""
