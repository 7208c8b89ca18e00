"""ShapeStacks' label maps: from colours to labels, and what the renderer's antialiasing left in them.

Two forms are released. The renderer's own PNG shows each label in a colour of 30 % brightness, blended at edges. A
``.map`` is a PNG too, of grey 32 * label, made from the former by the nearest colour. A blend of two labels can be
nearest to a third one, so that both forms have *stray* pixels (a blend of yellow and cyan is nearest to green).
"""

from __future__ import annotations

import numpy as np

from multiobj_data.errors import DataError
from multiobj_data.loaders.png import read_png

LABELS = 8
"""Corners of the colour cube: background and seven colours, of which instances use six and roles four."""

STRAY_BELOW = 4
"""A component (8-connected) of fewer pixels of one label is counted as stray."""

# Label of each corner: red + 2 green + 4 blue -> label, i.e. of black, r, g, rg, b, rb, gb, white
_CORNERS = {
    "iseg": np.array([0, 1, 2, 4, 3, 6, 5, 7], np.uint8),  # red, green, blue, yellow, cyan, magenta, white
    "vseg": np.array([0, 2, 1, 3, 4, 6, 5, 7], np.uint8),  # green, red, yellow, blue, cyan, magenta, white
}
_BRIGHT = 76  # of 255, 30 %
_SLACK = 4  # the weakest blend is an eighth of _BRIGHT away from a corner


def read_labels(data: bytes, name: str, modality: str, suffix: str) -> tuple[np.ndarray, int]:
    """Decode a label map.

    Args:
        data: The file's bytes.
        name: What messages call it.
        modality: ``iseg`` or ``vseg``, which colour their labels differently.
        suffix: ``map`` or ``png``.

    Returns:
        uint8 ``[H, W]``, labels 0..7, and how many pixels are a blend of colours: -1 for a ``.map``, which has lost
        this.

    Raises:
        DataError: If it is no such map.
    """
    pixels = read_png(data, name)[:, :, :3]  # opacity says nothing
    if suffix == "map":
        return _from_grey(pixels, name), -1
    return _from_colours(pixels, name, modality)


def _from_grey(pixels: np.ndarray, name: str) -> np.ndarray:
    """Return labels ``[H, W]`` of grey 32 * label, ``[H, W, 1 or 3]``."""
    grey = pixels[:, :, 0]
    if (pixels != grey[:, :, None]).any() or (grey % 32).any():
        raise DataError(
            f"{name}: expected a label map of greys that are multiples of 32, got other colours; a segmentation in "
            "colours is read as .png."
        )
    return grey // 32


def _from_colours(pixels: np.ndarray, name: str, modality: str) -> tuple[np.ndarray, int]:
    """Return the labels ``[H, W]`` of the nearest colours of ``[H, W, 3]``, and the number of blends."""
    if pixels.shape[2] != 3 or pixels.max() > _BRIGHT + _SLACK:
        raise DataError(
            f"{name}: expected a segmentation in colours of 30 % brightness (at most {_BRIGHT} of 255), got "
            f"{'grey' if pixels.shape[2] != 3 else f'up to {pixels.max()}'}; a map in greys is read as .map."
        )
    # The eight colours are the corners of a cube: the nearest one is found channel by channel, without ties.
    planes = np.ascontiguousarray(
        pixels.transpose(2, 0, 1)
    )  # [3, H, W], several times faster channel by channel
    red, green, blue = (planes > _BRIGHT / 2).view(np.uint8)
    blends = ((planes > _SLACK) & (planes < _BRIGHT - _SLACK)).any(0)
    return _CORNERS[modality][red | green << 1 | blue << 2], int(blends.sum())


def small_components(labels: np.ndarray) -> np.ndarray:
    """Return which pixels belong to components of fewer than `STRAY_BELOW` pixels.

    Holes of background count as well: blends of dark colours are nearest to black.

    Args:
        labels: uint8 ``[H, W]``, 0 is background.

    Returns:
        bool ``[H, W]``.
    """
    from scipy import ndimage

    small = np.zeros(labels.shape, bool)
    window = _window(labels)
    for label in np.unique(labels[window]):
        component, _ = ndimage.label(labels[window] == label, np.ones((3, 3)))
        size = np.bincount(component.ravel())
        size[0] = STRAY_BELOW  # what has other labels
        small[window] |= (size < STRAY_BELOW)[component]
    return small


def _window(labels: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns of all labels but 0, with a margin of one pixel (components stay whole)."""
    shown = labels != 0
    spans = [np.flatnonzero(shown.any(axis)) for axis in (1, 0)]
    if not len(spans[0]):
        return slice(0, 0), slice(0, 0)
    rows, columns = (slice(max(0, span[0] - 1), span[-1] + 2) for span in spans)
    return rows, columns


def mend(labels: np.ndarray, possible: int, name: str) -> tuple[np.ndarray, int]:
    """Give pixels of labels that are not in the scene the label of the nearest other pixel.

    A label is not in the scene if it is above ``possible``, or if all its pixels are in `small_components`. Other
    stray pixels stay as they are: their label is in the scene.

    Args:
        labels: uint8 ``[H, W]``.
        possible: The highest label that the scene can have.
        name: What messages call the map.

    Returns:
        uint8 ``[H, W]``, and how many pixels were stray: small components and impossible labels, mended or not.

    Raises:
        DataError: If an impossible label has a whole component: then the map belongs to another scene.
    """
    from scipy import ndimage

    small = small_components(labels)
    seen = np.bincount(labels[~small], minlength=LABELS) > 0
    if seen[possible + 1 :].any():
        raise DataError(
            f"{name}: expected labels up to {possible}, as the scenario's name says, got "
            f"{np.flatnonzero(seen)[-1]}; this is another scene's map, or not of this kind."
        )
    wrong = ~seen[labels]
    if not seen.any():
        raise DataError(f"{name}: expected a label map, got scattered pixels alone.")
    if wrong.any():
        nearest = ndimage.distance_transform_edt(wrong, return_distances=False, return_indices=True)
        labels = labels[tuple(nearest)]
    return labels, int(small.sum())
