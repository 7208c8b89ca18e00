"""Label maps in files of users: .npy, .npz, .png."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from multiobj_data.errors import DataError

_MODES = {"1": bool, "L": np.uint8, "P": np.uint8, "I": np.int32, "I;16": np.uint16}
"""What Pillow calls pictures of one whole number a pixel; of a palette, the number, not the colour, is the label."""


def read_label_map(path: str | os.PathLike[str], index: int | None = None) -> np.ndarray:
    """Read one label map.

    Args:
        path: ``.npy``; ``.npz`` with one array, or with one named ``labels``; or ``.png`` of one channel.
        index: Which image of a file that holds several, ``[B, H, W]``.

    Returns:
        Whole numbers ``[1, H, W]``.

    Raises:
        DataError: If the file is missing, damaged, of another kind, or holds no such image.
    """
    readers = {".npy": _npy, ".npz": _npz, ".png": _png}
    kind = Path(path).suffix.lower()
    if kind not in readers:
        raise DataError(f"{path}: expected a label map as .npy, .npz or .png.")
    if not Path(path).is_file():
        raise DataError(f"{path}: there is no such file.")
    try:
        labels = readers[kind](path)
    except DataError:
        raise
    except Exception as error:  # NumPy and Pillow raise what they like at damaged files
        raise DataError(f"{path}: cannot be read as {kind}: {error}") from error
    return _one(path, labels, index)


def _npy(path: Any) -> np.ndarray:
    found = np.load(path, allow_pickle=False)
    if not isinstance(found, np.ndarray):
        found.close()
        raise DataError(f"{path}: expected one array, got an archive; name it .npz.")
    return found


def _npz(path: Any) -> np.ndarray:
    found = np.load(path, allow_pickle=False)
    if isinstance(found, np.ndarray):
        return found
    with found as archive:
        names = archive.files
        name = "labels" if "labels" in names else names[0] if len(names) == 1 else None
        if name is None:
            raise DataError(
                f"{path}: expected one array, or one named labels, got {', '.join(names) or 'none'}."
            )
        return archive[name]


def _png(path: Any) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as picture:
        if picture.mode not in _MODES:
            raise DataError(
                f"{path}: expected a picture of one channel that holds labels, got mode {picture.mode}; save the label "
                "map itself, not its colours."
            )
        return np.array(picture).astype(_MODES[picture.mode])


def _one(path: Any, labels: np.ndarray, index: int | None) -> np.ndarray:
    shape = list(labels.shape)
    if labels.ndim == 2:
        if index is not None:
            raise DataError(f"{path}: holds one label map, {shape}; leave the index out.")
        return labels[None]
    if labels.ndim != 3:
        raise DataError(f"{path}: expected a label map [H, W] or several [B, H, W], got shape {shape}.")
    if index is None and len(labels) != 1:
        raise DataError(f"{path}: holds {len(labels)} label maps; say which one by --index.")
    if (index or 0) >= len(labels):
        raise DataError(
            f"{path}: holds {len(labels)} label maps, the last has index {len(labels) - 1}; got {index}."
        )
    return labels[index or 0][None]
