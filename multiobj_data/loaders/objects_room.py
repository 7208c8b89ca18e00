"""Objects Room: tell scenes with three background masks from those with four.

Its masks are sky, floor, wall, wall, then objects; where only one wall is in view there is no fourth background mask,
and the objects begin one place earlier (noted by users of the set; the files do not say it). The rule goes by
geometry. Of the first three masks, the *top* is the one with most of the first row and the *bottom* the one with
most of the last; the third is a wall. Mask 3 *looks like a wall* if it meets the top in at least 3 pixels and reaches
the left or the right column. Then:

* mask 3 is empty, or looks like a wall while the third does not reach both sides: four masks, nothing to do;
* mask 3 does not look like a wall, and the third reaches both sides: three masks, repaired;
* anything else is doubtful: left as stored, and flagged.
"""

from __future__ import annotations

import numpy as np

from multiobj_data.loaders.raw import count_rows

BACKGROUND = 4
_CONTACT = 3  # pixels
STORED, REPAIRED, DOUBTFUL = 0, 1, -1


def repair_background(segments: np.ndarray, n: int) -> tuple[np.ndarray, int]:
    """Move objects up by one where only three masks are background.

    Args:
        segments: uint8 ``[H, W]``, the label map of the whole image.
        n: How many masks there are.

    Returns:
        The label map, in which label 3 has no pixel where it was repaired, and `STORED`, `REPAIRED` or `DOUBTFUL`.
    """
    repaired, verdict = repair_backgrounds(segments[None], n)
    return (repaired[0] if verdict[0] == REPAIRED else segments), int(verdict[0])


def repair_backgrounds(segments: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Do what `repair_background` does to many: uint8 ``[B, H, W]``; the verdicts are int8 ``[B]``."""
    verdict = _verdicts(segments)
    full = (segments.max((1, 2)) == n - 1) & (verdict == REPAIRED)  # the last mask would have no place
    verdict[full] = DOUBTFUL
    if (move := verdict == REPAIRED).any():
        segments = segments.copy()
        segments[move] += segments[move] >= BACKGROUND - 1
    return segments, verdict


def _verdicts(segments: np.ndarray) -> np.ndarray:
    fourth = segments == BACKGROUND - 1
    verdict = np.full(len(segments), STORED, np.int8)
    some = np.flatnonzero(fourth.any((1, 2)))
    segments, fourth = segments[some], fourth[some]
    top, bottom = (_most_frequent(segments[:, row]) for row in (0, -1))
    through = _sides(segments == (3 - top - bottom)[:, None, None]).all(1)
    wall = _sides(fourth).any(1) & (_contact(fourth, segments == top[:, None, None]) >= _CONTACT)
    verdict[some] = np.where((top == bottom) | (wall == through), DOUBTFUL, np.where(wall, STORED, REPAIRED))
    return verdict


def _most_frequent(rows: np.ndarray) -> np.ndarray:
    """Return which of the labels 0, 1 and 2 each row has most of, the first of equals: ``[B, W]`` to ``[B]``."""
    return np.stack([(rows == label).sum(1) for label in range(3)], 1).argmax(1)


def _sides(masks: np.ndarray) -> np.ndarray:
    """Return whether masks reach the left and the right column: bool ``[B, 2]``."""
    return np.logical_or.reduce(masks[:, :, [0, -1]], 1)


def _contact(masks: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return how many pairs of neighbouring pixels, one above or beside the other, two masks have: ``[B]``."""

    def pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.add.reduce(count_rows(first & second), 1, dtype=np.int64)

    above = pairs(masks[:, 1:], others[:, :-1]) + pairs(masks[:, :-1], others[:, 1:])
    beside = pairs(masks[:, :, 1:], others[:, :, :-1]) + pairs(masks[:, :, :-1], others[:, :, 1:])
    return above + beside
