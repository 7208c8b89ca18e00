"""dSprites' ``.npz`` file, read in a stream and checked, so that its 3 GB are never in memory at once."""

from __future__ import annotations

import math
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from multiobj_data.errors import DataError

CANVAS = 64
"""Side of the pictures, in pixels."""

LATENTS = ("shape", "scale", "orientation", "pos_x", "pos_y")
"""Columns 1 to 5 of ``latents_values``; column 0, the colour, is always 1."""

NAME = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
WHERE = f"{NAME} is published at github.com/google-deepmind/dsprites-dataset"

NOT_NPY = (ValueError, EOFError, SyntaxError, tokenize.TokenError)
"""What NumPy raises on an ``.npy`` header that is none."""

_NOT_ZIP = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)  # the last: encrypted
_LARGEST = 1 << 31  # bytes of the factors
_CHUNK = 2048  # pictures at a time, 8 MB
_ALLOWED = {  # lowest and highest value
    "shape": (1, 3),
    "scale": (0.01, 10),
    "orientation": (-100, 100),
    "pos_x": (0, 1),
    "pos_y": (0, 1),
}


@dataclass(frozen=True)
class Member:
    """An array in the archive: its name, shape, dtype and memory order, and at which byte its values start."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    start: int

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {list(self.shape)}"


@dataclass(frozen=True)
class Archive:
    """A file in dSprites' layout, of which only the headers have been read.

    Attributes:
        path: The file.
        imgs: Pictures, uint8 ``[N, 64, 64]`` of 0 and 1.
        values: Factors, numbers ``[N, 6]``.
    """

    path: Path
    imgs: Member
    values: Member

    @classmethod
    def open(cls, path: Path) -> Archive:
        """Read the headers.

        Raises:
            DataError: The file is damaged, or of another layout.
        """
        with _reading(path) as archive:
            imgs, values = _member(path, archive, "imgs"), _member(path, archive, "latents_values")
            n = _count(path, imgs)
            tables = [values]
            if "latents_classes.npy" in archive.namelist():  # not used, but of another N it tells of a mix-up
                tables.append(_member(path, archive, "latents_classes"))
        for table in tables:
            if table.dtype.kind not in "iuf" or table.shape != (n, 6):
                raise DataError(
                    f"dSprites: {path}: expected {table.name}, numbers [{n}, 6], a row for each picture in imgs, got "
                    f"{table}."
                )
        return cls(path, imgs, values)

    @property
    def n(self) -> int:
        """Number of pictures."""
        return self.imgs.shape[0]

    def latents(self) -> np.ndarray:
        """Return the factors, float32 ``[N, 5]``.

        Raises:
            DataError: The file is damaged, or a value is none of dSprites'.
        """
        member = self.values
        with _reading(self.path) as archive, archive.open(f"{member.name}.npy") as file:
            file.read(member.start)
            raw = file.read(_LARGEST)
            values = np.frombuffer(raw, member.dtype).reshape(
                member.shape, order="F" if member.fortran else "C"
            )
        table = values[:, 1:].astype(np.float32)
        for name, found in zip(LATENTS, table.T, strict=True):
            _check_factor(self.path, name, found)
        return np.ascontiguousarray(table)

    def pictures(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the first row and uint8 ``[m, 64, 64]`` of 0 and 1, until all N pictures have come.

        Raises:
            DataError: The file is damaged, or a picture is empty or has other values.
        """
        with _reading(self.path) as archive, archive.open(f"{self.imgs.name}.npy") as file:
            file.read(self.imgs.start)
            for first in range(0, self.n, _CHUNK):
                m = min(_CHUNK, self.n - first)
                raw = file.read(m * CANVAS * CANVAS)
                pictures = np.frombuffer(raw, np.uint8).reshape(
                    m, CANVAS, CANVAS
                )  # ValueError if it ends early
                _check_pictures(self.path, first, pictures)
                yield first, pictures


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, memory order (True: Fortran's) and dtype of an ``.npy`` file; leave it where the values start."""
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"unknown array format {version}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy remarks on headers by Python 2, as dSprites' are
        return readers[version](file)


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> Member:
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError:
        there = ", ".join(file.removesuffix(".npy") for file in archive.namelist()[:9]) or "nothing"
        raise DataError(f"dSprites: {path} has no array {name!r}, it has: {there}; {WHERE}.") from None
    with archive.open(info) as file:
        shape, fortran, dtype = read_header(file)
        start = file.tell()
    expected = start + dtype.itemsize * math.prod(shape)
    if info.file_size != expected:
        raise DataError(
            f"dSprites: {path}: {name} takes {info.file_size:,} bytes, expected {expected:,} by its header; download "
            "the file again."
        )
    return Member(name, shape, dtype, fortran, start)


def _count(path: Path, imgs: Member) -> int:
    n = imgs.shape[0] if imgs.shape else 0
    if imgs.shape != (n, CANVAS, CANVAS) or imgs.dtype != np.uint8 or not n:
        raise DataError(
            f"dSprites: {path}: expected imgs uint8 [N, 64, 64] with N >= 1, got {imgs}; {WHERE}."
        )
    if imgs.fortran:
        raise DataError(f"dSprites: {path}: expected imgs in C order; save np.ascontiguousarray(imgs).")
    return n


def _check_factor(path: Path, name: str, found: np.ndarray) -> None:
    low, high = _ALLOWED[name]
    right = (found >= low) & (found <= high)  # not NaN
    if name == "shape":
        right &= found == np.rint(found)
    if not right.all():
        row = int(right.argmin())
        range_ = "1, 2 or 3" if name == "shape" else f"{low:g} to {high:g}"
        raise DataError(
            f"dSprites: {path} is not dSprites' file: expected {name} (in latents_values) {range_}, got {found[row]:g} "
            f"in row {row:,}; {WHERE}."
        )


def _check_pictures(path: Path, first: int, pictures: np.ndarray) -> None:
    if pictures.max() > 1:
        row = int((pictures > 1).any((1, 2)).argmax())
        raise DataError(
            f"dSprites: {path}: expected pixels of 0 and 1 in imgs, got {pictures[row].max()} in row {first + row:,}; "
            "save (imgs > 0).astype(np.uint8)."
        )
    lit = pictures.reshape(len(pictures), -1).any(1)
    if not lit.all():
        row = first + int(lit.argmin())
        raise DataError(
            f"dSprites: {path} is not dSprites' file: row {row:,} of imgs is an empty picture; {WHERE} (or leave that "
            "row out)."
        )


@contextmanager
def _reading(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (*_NOT_ZIP, *NOT_NPY) as error:
        raise DataError(
            f"dSprites: {path} is no whole .npz file in dSprites' layout ({error}); it may be truncated: download it "
            f"again. {WHERE}."
        ) from error
    except OSError as error:
        raise DataError(f"dSprites: {path} cannot be read: {error.strerror or error}.") from error
