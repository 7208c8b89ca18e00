"""Run-length masks as COCO's tools write them: column by column, packed into printable characters."""

from __future__ import annotations

import numpy as np

_BITS = 5  # of a number in one character; the sixth bit says that more follow
_MORE = 1 << _BITS
_SIGN = 1 << (_BITS - 1)
_FIRST = ord("0")


def encode(mask: np.ndarray) -> dict[str, object]:
    """Return ``{"size": [H, W], "counts": text}``, which ``pycocotools.mask`` decodes.

    Args:
        mask: bool ``[H, W]``.
    """
    return {"size": list(mask.shape), "counts": _pack(run_lengths(mask))}


def run_lengths(mask: np.ndarray) -> np.ndarray:
    """Return the lengths of runs down the columns, from left to right; the first run is of background."""
    flat = np.asarray(mask, bool).T.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], changes, [flat.size]]))
    return np.concatenate([[0], runs]) if flat.size and flat[0] else runs


def _pack(runs: np.ndarray) -> str:
    """Write each run as its difference from the last one of its kind, low bits first, signed."""
    rest = runs.astype(np.int64)
    rest[3:] -= runs[1:-2]  # the first three stand alone
    characters = []  # one array a position, -1 where a number has ended
    going = np.ones(len(rest), bool)
    while going.any():
        low = rest & (_MORE - 1)
        rest = rest >> _BITS
        more = np.where(low & _SIGN, rest != -1, rest != 0)
        characters.append(np.where(going, low + _MORE * more + _FIRST, -1))
        going = going & more
    columns = np.stack(characters, axis=1)  # [runs, positions]
    return columns[columns >= 0].astype(np.uint8).tobytes().decode("ascii")
