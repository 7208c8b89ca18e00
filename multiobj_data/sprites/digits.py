"""Digit images: MNIST (downloaded, or from a folder), or the digits bundled with scikit-learn."""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from multiobj_data.composition.resize import resize
from multiobj_data.errors import DataError, UsageError

logger = logging.getLogger(__name__)

DigitSource = Literal["auto", "mnist", "bundled"]

_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_MNIST_FILES = {  # split -> (images, labels), with the SHA-256 of the published files
    "train": (
        ("train-images-idx3-ubyte.gz", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        ("train-labels-idx1-ubyte.gz", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    ),
    "test": (
        ("t10k-images-idx3-ubyte.gz", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        ("t10k-labels-idx1-ubyte.gz", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    ),
}
_BUNDLED_TRAIN = 1437  # of 1,797: the first four fifths; the rest is for test scenes


@dataclass(frozen=True)
class Digits:
    """Digit images of one part, train or test.

    Attributes:
        images: uint8 ``[N, 28, 28]``, white on black.
        labels: int64 ``[N]``, the class 0..9.
        source: ``"mnist"`` or ``"bundled"``.
        sha256: File name -> SHA-256 of what was read.
    """

    images: np.ndarray
    labels: np.ndarray
    source: Literal["mnist", "bundled"]
    sha256: Mapping[str, str] = field(default_factory=dict)


@cache
def load_digits(
    part: Literal["train", "test"], source: DigitSource = "auto", root: str | None = None
) -> Digits:
    """Return the train or the test digits; the two share no image.

    Args:
        part: ``"train"`` or ``"test"``.
        source: ``"mnist"`` reads or downloads MNIST; ``"bundled"`` takes the 8x8 digits that come with
            scikit-learn, enlarged to MNIST's frame; ``"auto"`` takes MNIST where it can be had and otherwise
            the bundled digits, with a warning.
        root: A folder with MNIST's files (``raw/`` or ``MNIST/raw/`` below it will do). Default: the
            environment variable ``MOBJ_DIGITS_ROOT``, then the user's cache.

    Raises:
        UsageError: Unknown source.
        DataError: A file is missing, truncated or not the published one.
    """
    if source not in get_args(DigitSource):
        raise UsageError(f"digits: expected one of {', '.join(get_args(DigitSource))}, got {source!r}.")
    if source == "bundled":
        return _bundled(part)
    root = root or os.environ.get("MOBJ_DIGITS_ROOT")
    if source == "mnist" or root:
        return _mnist(part, root)
    try:
        return _mnist(part, None)
    except DataError as error:
        logger.warning(
            "%s Using the 1,797 digits BUNDLED with scikit-learn instead: fine for trying "
            "things out, not comparable with published numbers. The manifest records it. "
            "For MNIST: --digits mnist --digits-root DIR.",
            error,
        )
        return _bundled(part)


def _mnist(part: str, root: str | None) -> Digits:
    folder = _folder_of(Path(root)) if root else None
    (images_name, images_sha), (labels_name, labels_sha) = _MNIST_FILES[part]
    images, got_images = _read_idx(_find(images_name, images_sha, folder), images_sha, dimensions=3)
    labels, got_labels = _read_idx(_find(labels_name, labels_sha, folder), labels_sha, dimensions=1)
    return Digits(
        images, labels.astype(np.int64), "mnist", {images_name: got_images, labels_name: got_labels}
    )


def _folder_of(root: Path) -> Path:
    for folder in (root, root / "raw", root / "MNIST" / "raw"):
        if any((folder / name).exists() for pair in _MNIST_FILES.values() for name, _ in pair):
            return folder
    raise DataError(
        f"MNIST: found no idx file in {root} (nor in raw/ or MNIST/raw/ below it); expected e.g. "
        "train-images-idx3-ubyte.gz. Give the right --digits-root (MOBJ_DIGITS_ROOT), or none, to download."
    )


def _find(name: str, sha256: str, folder: Path | None) -> Path:
    if folder is not None:
        path = folder / name
        if not path.exists():
            raise DataError(
                f"MNIST: {path} is missing; put the published file there, or leave out --digits-root."
            )
        return path
    return _download(name, sha256)


def _download(name: str, sha256: str) -> Path:
    import pooch

    cache_folder = Path(pooch.os_cache("mobj")) / "MNIST" / "raw"
    if (cache_folder / name).exists():
        return cache_folder / name
    failures = []
    for mirror in _MIRRORS:
        try:
            pooch.get_logger().setLevel("WARNING")
            downloader = pooch.HTTPDownloader(progressbar=os.isatty(2), timeout=15)
            return Path(
                pooch.retrieve(mirror + name, f"sha256:{sha256}", name, cache_folder, downloader=downloader)
            )
        except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong hash is a ValueError
            failures.append(f"{mirror.split('/')[2]}: {type(error).__name__}")
    raise DataError(
        f"MNIST: {name} could not be downloaded ({'; '.join(failures)}); if you have it, give --digits-root."
    )


def _read_idx(path: Path, sha256: str, dimensions: int) -> tuple[np.ndarray, str]:
    """Read a gzipped IDX file of bytes; return the array and the file's SHA-256."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"MNIST: {path} cannot be read: {error.strerror}.") from error
    got = hashlib.sha256(raw).hexdigest()
    if got != sha256:
        raise DataError(
            f"MNIST: {path} is not the published file ({len(raw):,} bytes, SHA-256 {got[:12]}..., expected "
            f"{sha256[:12]}...); it may be truncated. Delete it and download it again."
        )
    return parse_idx(raw, str(path), dimensions), got


def parse_idx(raw: bytes, name: str, dimensions: int) -> np.ndarray:
    """Decode a gzipped IDX file of unsigned bytes (the format is described on MNIST's page).

    Raises:
        DataError: If it is no gzip stream, or its header and length do not agree.
    """
    try:
        data = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name}: not a whole gzip file ({error}); download it again.") from error
    header = 4 + 4 * dimensions
    if len(data) < header or data[:4] != bytes([0, 0, 8, dimensions]):
        raise DataError(
            f"{name}: expected an IDX file of bytes with {dimensions} dimensions, got other content."
        )
    shape = struct.unpack(f">{dimensions}I", data[4:header])
    if len(data) - header != int(np.prod(shape)):
        raise DataError(
            f"{name}: expected {int(np.prod(shape)):,} values after the header, got {len(data) - header:,}."
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _bundled(part: str) -> Digits:
    from sklearn.datasets import load_digits as load_bundled

    bundle = load_bundled()
    small = np.rint(bundle.images * (255 / 16)).astype(np.uint8)  # values 0..16 -> 0..255
    chosen = slice(None, _BUNDLED_TRAIN) if part == "train" else slice(_BUNDLED_TRAIN, None)
    images = np.zeros((len(small[chosen]), 28, 28), np.uint8)
    images[:, 4:24, 4:24] = resize(small[chosen], 20, "bicubic")  # MNIST: 20x20 digits in a frame of 28x28
    images[images < 32] = 0  # bicubic ringing: faint specks that nobody would call ink
    content = hashlib.sha256(small.tobytes() + bundle.target.astype(np.int64).tobytes()).hexdigest()
    return Digits(
        images, bundle.target[chosen].astype(np.int64), "bundled", {"sklearn.datasets.load_digits": content}
    )
