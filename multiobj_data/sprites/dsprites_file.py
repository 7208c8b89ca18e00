"""dSprites' own pictures (Matthey et al. 2017), from its published file or a subset in the same layout.

Unpacked, the file is 3 GB, nearly all of it black. So it is read in a stream, once, into one bit a pixel (0.4 GB),
kept in the user's cache; every process maps that file and shares its memory.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO

import numpy as np

from multiobj_data.composition.overlap import Placed
from multiobj_data.errors import DataError, UsageError
from multiobj_data.factors.laws import Condition, Law, Values, close, column
from multiobj_data.files import explain_os_errors, replacing, sha256_of
from multiobj_data.sprites.bank import Sprites, tight_boxes
from multiobj_data.sprites.dsprites_archive import CANVAS, LATENTS, NAME, NOT_NPY, WHERE, Archive, read_header
from multiobj_data.sprites.rendered import ColouredShapes

logger = logging.getLogger(__name__)

VARIABLE = "MOBJ_DSPRITES_FILE"
"""Environment variable that names the file."""

_BYTES = CANVAS * CANVAS // 8  # of a packed picture
_CACHE_ADVICE = "set XDG_CACHE_HOME to a folder with room for 0.4 GB."


@dataclass(frozen=True, eq=False)
class DSpritesFile:
    """N pictures of one shape each, with their factors.

    Attributes:
        path: Where the file is.
        bits: uint8 ``[N, 512]``: 64 rows of 8 bytes, of which bit c (the lowest first) of byte b is the pixel in
            column ``8 b + c``; mapped from a file, read-only.
        latents: ``shape`` int16 ``[N]`` (1 square, 2 ellipse, 3 heart); ``scale``, ``orientation`` (radians),
            ``pos_x`` and ``pos_y`` (0..1 of the middle half of the frame), float32 ``[N]``.
        boxes: uint8 ``[N, 4]``, ``x0 y0 x1 y1`` tight around each shape, half-open.
        sha256: File name -> SHA-256.
    """

    path: Path
    bits: np.ndarray
    latents: Mapping[str, np.ndarray]
    boxes: np.ndarray
    sha256: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.boxes)

    def __reduce__(self) -> tuple[Callable[[str], DSpritesFile], tuple[str]]:
        return load_dsprites, (str(self.path),)  # another process maps the file instead of getting a copy

    @cached_property
    def extent(self) -> int:
        """Largest side of a shape's tight box, in pixels."""
        return int((self.boxes[:, 2:] - self.boxes[:, :2]).max())

    def images(self, rows: np.ndarray) -> np.ndarray:
        """Return pictures.

        Args:
            rows: int ``[n]``.

        Returns:
            uint8 ``[n, 64, 64]``, 255 inside the shape.
        """
        packed = np.asarray(self.bits[rows]).reshape(-1, CANVAS, CANVAS // 8)
        return np.unpackbits(packed, axis=-1, bitorder="little") * np.uint8(255)

    def rows_where(self, law: Condition) -> np.ndarray:
        """Return the rows inside a law (or region) over the latents, int32 ``[m]``, in order.

        Raises:
            UsageError: There is none.
        """
        return _rows_where(self, law)  # type: ignore[arg-type]  # laws are hashable

    def sprites(self, rows: np.ndarray) -> Sprites:
        """Return the shapes in some rows, int ``[n]``, cut out; their patch is the whole picture."""
        n, size = len(rows), self.extent
        sprites = Sprites.empty(size, n)
        box = self.boxes[rows].astype(np.int64)
        left, top = box[:, :1].astype(np.uint64), box[:, 1:2]
        lines = np.zeros((n, CANVAS + size), np.uint64)  # a row of pixels is a number, bit c for column c
        lines[:, :CANVAS] = np.asarray(self.bits[rows]).view("<u8")
        ink = np.take_along_axis(lines, top + np.arange(size), 1) >> left  # [n, P], from the box's corner on
        pixels = np.unpackbits(ink.astype("<u8").view(np.uint8), axis=-1, bitorder="little")
        sprites.tile[:] = pixels.reshape(n, size, 64)[..., :size] * np.uint8(255)
        assert sprites.ink_rows is not None  # P <= 64
        sprites.ink_rows[:n, size:] = ink
        sprites.ink_box[:] = box
        sprites.side[:] = CANVAS
        sprites.n = n
        return sprites


@lru_cache(maxsize=64)  # a generator asks anew for every block of scenes
def _rows_where(file: DSpritesFile, law: Condition) -> np.ndarray:
    rows = np.flatnonzero(law.contains(file.latents)).astype(np.int32)
    if not len(rows):
        there = ", ".join(f"{name} {_values(values)}" for name, values in file.latents.items())
        raise UsageError(
            f"none of the {len(file):,} pictures in {file.path} has the factors asked for; it has {there}."
        )
    rows.setflags(write=False)
    return rows


def _values(values: np.ndarray) -> str:
    different = np.unique(values)
    if len(different) > 6:
        return f"{different[0]:g}..{different[-1]:g}"
    return " ".join(f"{value:g}" for value in different)


@dataclass(frozen=True, eq=False)
class FileLaw:
    """The law of a picture picked from some rows of a file, each as likely as the next.

    It draws ``shape``, ``scale``, ``orientation``, ``pos_x``, ``pos_y`` and ``source_index`` int32, the row.

    Args:
        file: The pictures.
        rows: int ``[m]``, without repetition.

    Raises:
        UsageError: There are no rows, one comes twice, or one is not in the file.
    """

    file: DSpritesFile
    rows: np.ndarray

    def __post_init__(self) -> None:
        rows = np.array(self.rows)
        if rows.ndim != 1 or rows.dtype.kind not in "iu" or not len(rows):
            raise UsageError(
                f"rows: expected whole numbers [m], at least one, got {rows.dtype} {list(rows.shape)}."
            )
        if rows.min() < 0 or rows.max() >= len(self.file):
            raise UsageError(f"rows: expected 0 to {len(self.file) - 1:,}, got {rows.min()} to {rows.max()}.")
        rows = rows.astype(np.int32)
        if np.bincount(rows).max() > 1:
            raise UsageError(
                "rows: expected each row once, since each is as likely as the next; remove doubles."
            )
        rows.setflags(write=False)
        object.__setattr__(self, "rows", rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FileLaw) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[frozenset[str], bytes]:
        return frozenset(self.file.sha256.values()), self.rows.tobytes()

    @property
    def names(self) -> tuple[str, ...]:
        """The factors that it draws."""
        return (*LATENTS, "source_index")

    def sample(self, rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
        """Return ``n`` rows, drawn with replacement."""
        rows = self.rows[rng.integers(len(self.rows), size=n)]
        return {**{name: values[rows] for name, values in self.file.latents.items()}, "source_index": rows}

    def contains(self, values: Values) -> np.ndarray:
        """Return where ``source_index`` is one of the rows and the other factors are those of that row."""
        index = column(values, "source_index")
        with np.errstate(invalid="ignore"):
            known = (index >= 0) & (index < len(self.file)) & (index % 1 == 0)  # NaN is neither
        row = np.where(known, index, 0).astype(np.int64)
        inside = known & self._chosen[row]
        for name in LATENTS:
            inside &= close(column(values, name), self.file.latents[name][row])
        return inside

    @cached_property
    def _chosen(self) -> np.ndarray:
        chosen = np.zeros(len(self.file), bool)
        chosen[self.rows] = True
        return chosen


@dataclass(frozen=True, eq=False)
class PlacedFromFile(ColouredShapes):
    """Proposes shapes where their pictures in dSprites' file show them.

    Args:
        law: Draws what `FileLaw` draws, and ``colour``.
        file: The pictures.
        channels: 1 or 3.
    """

    law: Law
    file: DSpritesFile
    channels: int

    def propose(self, rng: np.random.Generator, n: int) -> Placed:
        """Propose a shape and its place in each of ``n`` scenes."""
        table = self.law.sample(rng, n)
        for axis in ("x", "y"):  # the centre, in pixels
            table[axis] = np.float32(CANVAS / 4) + np.float32(CANVAS / 2) * table[f"pos_{axis}"]
        sprites = self.file.sprites(table["source_index"])
        box = sprites.ink_box
        return Placed(sprites, np.arange(n), box[:, 0], box[:, 1], np.arange(n), table, box)

    def nothing(self) -> Placed:
        """Return the shapes of no scene."""
        return Placed.nowhere(Sprites.empty(self.file.extent, 0))

    def factors(self, placed: Placed) -> dict[str, np.ndarray]:
        """Return what is stored of every shape, and ``source_index``, the picture's row in the file."""
        index = placed.values("source_index") if placed.table else np.zeros(0, np.int32)
        return {**super().factors(placed), "source_index": index}


# -- opening


def load_dsprites(path: str | os.PathLike[str] | None = None) -> DSpritesFile:
    """Open dSprites' file; a process reads it once, and packs it if no other has done so.

    Args:
        path: The ``.npz`` file, with ``imgs`` uint8 ``[N, 64, 64]`` of 0 and 1 and ``latents_values`` ``[N, 6]``, for
            any N >= 1. Its ``metadata``, pickled, are never read. Default: the environment variable
            ``MOBJ_DSPRITES_FILE``.

    Raises:
        DataError: It is missing, damaged, or of another layout.
        MobjError: The cache cannot be written.
    """
    path = path or os.environ.get(VARIABLE)
    how = f"give --set dsprites_file=FILE, or set {VARIABLE}"
    if not path:
        raise DataError(f"dSprites: no file was named; {WHERE}: {how}.")
    path = Path(path).expanduser().absolute()
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"dSprites: {path} cannot be read ({reason}); {WHERE}: {how}.") from error
    if not path.is_file():
        raise DataError(f"dSprites: expected a file, {path} is none; give the path of {NAME}.")
    return _load(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=8)
def _load(path: Path, size: int, modified: int) -> DSpritesFile:
    """Load a file; if its size or time of change is another, it is another file to the cache."""
    sha256 = sha256_of(path)
    packed = _cache_file(sha256)
    table, bits, boxes = _open_packed(packed) or _pack_alone(path, packed)
    latents = {name: table[:, i].copy() for i, name in enumerate(LATENTS)}
    latents["shape"] = latents["shape"].astype(np.int16)
    for values in (*latents.values(), boxes):
        values.setflags(write=False)
    return DSpritesFile(path, bits, latents, boxes, {path.name: sha256})


_Packed = tuple[
    np.ndarray, np.ndarray, np.ndarray
]  # latents float32 [N, 5], bits uint8 [N, 512], boxes uint8 [N, 4]


def _cache_file(sha256: str) -> Path:
    import pooch

    return Path(pooch.os_cache("mobj")) / "dsprites" / f"{sha256}-v1.npys"


def _open_packed(packed: Path) -> _Packed | None:
    """Return the arrays of a packed file, the bits mapped; ``None`` if it is absent or not whole."""
    try:
        with open(packed, "rb") as file:
            table = np.lib.format.read_array(file, allow_pickle=False)
            n = len(table)
            read_header(file)
            start = file.tell()
            file.seek(start + n * _BYTES)
            boxes = np.lib.format.read_array(file, allow_pickle=False)
            if table.shape != (n, len(LATENTS)) or boxes.shape != (n, 4) or file.read(1):
                return None
        return table, np.memmap(packed, np.uint8, "r", start, (n, _BYTES)), boxes
    except (OSError, *NOT_NPY):
        return None


def _pack_alone(path: Path, packed: Path) -> _Packed:
    """Pack a file, or wait until another process has done so."""
    from filelock import FileLock

    with explain_os_errors(packed, _CACHE_ADVICE):
        packed.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(packed.with_suffix(".lock"))
        lock.acquire()
    try:
        found = _open_packed(packed)
        if found is None:
            for torn in packed.parent.glob(f".{packed.name}.tmp-*"):  # by a process that was killed
                torn.unlink(missing_ok=True)
            logger.info("dSprites: packing %s into the cache; this is done once.", path)
            _pack(Archive.open(path), packed)
            found = _open_packed(packed)
    finally:
        lock.release()
    if found is None:
        raise DataError(f"dSprites: {packed} was written but cannot be read back; check that disk.")
    return found


def _pack(archive: Archive, packed: Path) -> None:
    """Write latents, bits and boxes, each as in an ``.npy`` file, one after the other."""
    table, boxes = archive.latents(), np.zeros((archive.n, 4), np.uint8)
    with replacing(packed, _CACHE_ADVICE) as temporary, open(temporary, "wb") as out:
        _write_header(out, "<f4", table.shape)
        out.write(table.astype("<f4").data)  # not NumPy's own writing, which does not say that a disk is full
        _write_header(out, "|u1", (archive.n, _BYTES))
        for first, pictures in archive.pictures():
            out.write(np.packbits(pictures, axis=-1, bitorder="little").data)  # [m, 64, 8]
            boxes[first : first + len(pictures)] = tight_boxes(pictures.view(bool))
        _write_header(out, "|u1", boxes.shape)
        out.write(boxes.data)


def _write_header(out: IO[bytes], kind: str, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(out, {"descr": kind, "fortran_order": False, "shape": shape})
