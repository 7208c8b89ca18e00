"""Pictures at every size that a scale allows, each resized when it is first drawn."""

from __future__ import annotations

import numpy as np

from multiobj_data.composition.resize import Filter, resize
from multiobj_data.composition.scale import Scale
from multiobj_data.errors import UsageError
from multiobj_data.sprites.bank import Sprites, tight_boxes

_MEMORY = 1 << 30  # bytes of sprites to keep; beyond that all are forgotten and the collection begins anew
_CHUNK = 512  # pictures to resize at a time, so that the working set stays in the cache
_BULK = 0.5  # share of a size's pictures from which it pays to resize the rest of them in one go


class ScaledSprites:
    """Pictures at given sizes, as `Sprites`.

    Resizing costs more than all the rest of placing an object, and one that is rejected has to be resized as
    well; so every result is kept.

    Args:
        images: uint8 ``[N, H, H]``.
        scale: Distribution of the side.
        kind: How to resize.
    """

    def __init__(self, images: np.ndarray, scale: Scale, kind: Filter) -> None:
        self.images, self.scale, self.kind = images, scale, kind
        self.frame = images.shape[1]
        self.sides = scale.sides(self.frame)
        self._forget(0)

    def find(self, picture: np.ndarray, side: np.ndarray) -> tuple[Sprites, np.ndarray]:
        """Return where pictures lie at these sizes.

        Args:
            picture: int64 ``[n]``.
            side: int64 ``[n]``, pixels; among ``sides``.

        Returns:
            The sprites, and the indices ``[n]`` of those asked for.

        Raises:
            ValueError: A side is not among ``sides``.
        """
        if len(side) and not (self.sides[0] <= side.min() and side.max() <= self.sides[-1]):
            raise ValueError(
                f"sides: expected {self.sides[0]} to {self.sides[-1]}, got {side.min()} to {side.max()}."
            )
        wanted = (side - self.sides[0]) * len(self.images) + picture
        index = self.sprite_of[wanted]
        if index.min(initial=0) < 0:
            self._keep(wanted)
            index = self.sprite_of[wanted]
        return self.sprites, index

    def _forget(self, least: int) -> None:
        """Begin anew, with room for at least so many sprites."""
        all_of_them = len(self.images) * len(self.sides)
        tile = _largest_ink(self.images, self.sides[-1])
        self.sprites = Sprites.empty(tile, min(all_of_them, max(_MEMORY // tile**2, 1 << 14, least)))
        self.sprite_of = np.full(all_of_them, -1, np.int32)  # [size, picture] -> sprite
        self.known = np.zeros(len(self.sides), np.int64)

    def _keep(self, wanted: np.ndarray) -> None:
        """Resize what is not there yet; should there be no more room, begin anew."""
        missing = np.unique(wanted[self.sprite_of[wanted] < 0])
        missing = self._with_rest_of_common_sizes(missing)
        if len(missing) > self.sprites.room - self.sprites.n:
            missing = np.unique(wanted)
            self._forget(len(missing))
        for start in range(0, len(missing), _CHUNK):
            self._resize(missing[start : start + _CHUNK])

    def _resize(self, missing: np.ndarray) -> None:
        size, picture = np.divmod(missing, len(self.images))
        side = size + self.sides[0]
        patches = resize(self.images[picture], side, self.kind)
        blank = ~patches.any((1, 2))
        if blank.any():
            raise UsageError(
                f"scale: at {side[blank][0]} pixels picture {picture[blank][0]} has none left that shows anything; "
                f"use a larger --scale, or another resize_filter than {self.kind}."
            )
        sprite = self.sprites.append(patches, side)
        self.sprite_of[missing] = sprite
        self.known += np.bincount(size, minlength=len(self.sides))

    def _with_rest_of_common_sizes(self, missing: np.ndarray) -> np.ndarray:
        n = len(self.images)
        for size in np.unique(missing // n):
            if _BULK * n < self.known[size] < n and n * len(self.sides) == self.sprites.room:
                rest = np.flatnonzero(self.sprite_of[size * n : (size + 1) * n] < 0) + size * n
                missing = np.union1d(missing, rest)
        return missing


def _largest_ink(images: np.ndarray, side: int) -> int:
    """Bound the extent of a resized picture's own pixels: ink, stretched, plus the filter's reach."""
    box = tight_boxes(images != 0)
    extent = int((box[:, 2:] - box[:, :2]).max())
    return min(side, extent * side // images.shape[1] + 2 + 4 * max(side // images.shape[1], 1))
