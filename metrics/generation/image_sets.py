"""Sets of images to be compared as sets: a data set's split, a folder of pictures, an array, a model's samples.

Each has ``len()``, ``images(indices)`` (uint8 ``[n, H, W, C]``) and a ``stamp`` that says which images they are.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from metrics.generation.features.protocols import to_bytes
from multiobj_data.arrays import Array
from multiobj_data.errors import DataError, UsageError
from multiobj_data.files import sha256_of
from multiobj_data.loading import Indices, SceneSource, open_dataset
from multiobj_data.shards.manifest import MANIFEST

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp")


class ImageSet(Protocol):
    """Images by index."""

    @property
    def stamp(self) -> dict[str, Any]:
        """Which images they are; JSON values."""
        ...

    def __len__(self) -> int: ...

    def images(self, indices: Indices) -> np.ndarray:
        """Return uint8 ``[n, H, W, C]``."""
        ...


class ArrayImages:
    """Images at hand.

    Args:
        array: ``[N, H, W, C]``, or grey ``[N, H, W]``; uint8, or floats in [0, 1].
        stamp: What they are; the SHA-256 of their bytes is added.

    Raises:
        ValueError: If they are no such images.
    """

    def __init__(self, array: Array, stamp: Mapping[str, Any] | None = None) -> None:
        array = array[..., None] if len(getattr(array, "shape", ())) == 3 else array
        self._images = to_bytes(array)
        digest = hashlib.sha256(
            str(self._images.shape).encode() + np.ascontiguousarray(self._images).tobytes()
        )
        self.stamp: dict[str, Any] = {"kind": "array", **(stamp or {}), "sha256": digest.hexdigest()}

    def __len__(self) -> int:
        return len(self._images)

    def images(self, indices: Indices) -> np.ndarray:
        """Return uint8 ``[n, H, W, C]``."""
        return self._images[np.asarray(indices)]


class SceneImages:
    """The images of scenes, stored or drawn on the spot."""

    def __init__(self, source: SceneSource) -> None:
        self._source = source
        reference = source.reference
        manifest = reference.get("manifest")
        stamp: dict[str, Any] = {"kind": "data set", "split": reference.get("split")}
        if manifest is not None:  # its checksum covers the SHA-256 of every shard
            stamp |= {"id": manifest["dataset"], "checksum": manifest["checksum"], "notes": manifest["notes"]}
        else:
            identity = json.dumps(reference.get("identity", {}), sort_keys=True, default=str)
            stamp["identity_sha256"] = hashlib.sha256(identity.encode()).hexdigest()
        self.stamp = stamp

    def __len__(self) -> int:
        return len(self._source)

    def images(self, indices: Indices) -> np.ndarray:
        """Return uint8 ``[n, H, W, C]``."""
        return self._source.images(indices)


class FolderImages:
    """The pictures of a folder, by name; all of one size. They are hashed when they are first asked for.

    Raises:
        DataError: If there is none.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _PICTURES)
        if not self._paths:
            raise DataError(
                f"{folder}: expected a data set ({MANIFEST}) or pictures ({', '.join(_PICTURES)}), found none."
            )
        self._folder = folder
        self._shape: tuple[int, ...] | None = None

    @cached_property
    def stamp(self) -> dict[str, Any]:
        """``kind``, ``folder`` and a SHA-256 over names and files."""
        digest = hashlib.sha256()
        for path in self._paths:
            digest.update(f"{path.name} {sha256_of(path)}\n".encode())
        return {"kind": "folder of pictures", "folder": self._folder.name, "sha256": digest.hexdigest()}

    def __len__(self) -> int:
        return len(self._paths)

    def images(self, indices: Indices) -> np.ndarray:
        """Return uint8 ``[n, H, W, C]``."""
        return np.stack([self._read(self._paths[int(i)]) for i in indices])

    def _read(self, path: Path) -> np.ndarray:
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(path) as picture:
                picture.load()
                grey = picture.mode in ("L", "1")
                pixels = np.asarray(picture.convert("L" if grey else "RGB"))
                deep = picture.mode.startswith(("I", "F"))
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
            raise DataError(f"{path}: cannot be read as a picture; it may be cut short.") from error
        if deep:
            raise DataError(f"{path}: expected 8 bits a channel, got a picture of mode {picture.mode}.")
        pixels = pixels[..., None] if grey else pixels
        if self._shape is None:
            self._shape = pixels.shape
        if pixels.shape != self._shape:
            raise DataError(
                f"{path}: expected {list(self._shape)} (height, width, channels) like the pictures before it, got "
                f"{list(pixels.shape)}."
            )
        return pixels


@dataclass(frozen=True)
class Samples:
    """Images that a model draws, as many as are asked for.

    Attributes:
        draw: How many -> that many images ``[n, H, W, C]``, uint8 or floats in [0, 1]; other ones at each call.
        stamp: Which model, seed, temperature, ...; JSON values.
    """

    draw: Callable[[int], Array]
    stamp: dict[str, Any]

    @classmethod
    def of(cls, model: Any, seed: int, device: str = "cpu", **facts: Any) -> Samples:
        """Return the samples of a model with ``sample(n, generator)``, drawn from a torch generator of this seed."""
        import torch

        generator = torch.Generator(device).manual_seed(seed)

        def draw(n: int) -> Array:
            with torch.inference_mode():
                return model.sample(n, generator)

        return cls(draw, {"kind": "samples", "seed": seed, **facts})

    def batches(self, n: int, size: int) -> Iterator[np.ndarray]:
        """Yield ``n`` images, uint8, ``size`` at a time.

        Raises:
            DataError: If the model draws another number, or no images.
        """
        for start in range(0, n, size):
            wanted = min(size, n - start)
            drawn = self.draw(wanted)
            try:
                images = to_bytes(drawn)
            except ValueError as error:
                raise DataError(f"samples: {error}") from error
            if len(images) != wanted:
                raise DataError(f"samples: expected {wanted} images, the model drew {len(images)}.")
            yield images


def batches_of(images: ImageSet, indices: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yield the images of these indices, uint8, ``size`` at a time."""
    for start in range(0, len(indices), size):
        yield images.images(indices[start : start + size])


def open_images(path: str | Path, split: str = "test") -> ImageSet:
    """Open a data set of ours, a folder of pictures, or an ``.npy`` or ``.npz`` file of images.

    An ``.npz`` may hold one array, or several of which one is called ``images``, ``image`` or ``arr_0``.

    Raises:
        DataError: If there is nothing, or no images.
        UsageError: If a data set has no such split.
    """
    path = Path(path)
    if path.is_dir():
        if (path / MANIFEST).exists():
            return SceneImages(open_dataset(path, split))
        return FolderImages(path)
    if path.suffix not in (".npy", ".npz"):
        what = "is none of these" if path.exists() else "there is no such file or folder"
        raise DataError(
            f"{path}: {what}; expected a data set, a folder of pictures, or images as .npy or .npz."
        )
    try:
        return ArrayImages(_array_in(path), {"kind": "file", "file": path.name})
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file.") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as images: {error}") from error


def holds_statistics(path: str | Path) -> bool:
    """Tell whether a path is an ``.npz`` of feature statistics rather than of images."""
    path = Path(path)
    if path.suffix != ".npz" or not path.is_file():
        return False
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {"mu", "sigma"} <= set(file.files)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return False


def _array_in(path: Path) -> np.ndarray:
    with open(path, "rb") as opened:
        content = np.load(opened, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content
        names = [name for name in ("images", "image", "arr_0") if name in content.files] or content.files
        if names == content.files and len(names) != 1:
            raise UsageError(
                f"{path}: expected one array of images, or one called 'images'; it holds {', '.join(names) or 'none'}."
            )
        return content[names[0]]
