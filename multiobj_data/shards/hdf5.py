"""One HDF5 shard, schema 1: write it as bytes, read it back, map its images.

A shard holds ``image`` (contiguous, so that it can be memory-mapped), ``segments`` (compressed with HDF5's
built-in gzip), ``count``, ``boxes``, ``factors/NAME``, ``scene_factors/NAME`` and, where kept, ``amodal``
(bits packed along the width). The same scenes give the same bytes.
"""

from __future__ import annotations

import errno
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from multiobj_data.errors import DataError, MobjError, repair_hint
from multiobj_data.scenes import Scenes, known

SCHEMA = 1

DAMAGE = (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, IndexError)
"""What h5py raises for a file whose bytes are not what was written."""

_CHUNK = 32  # scenes in a compressed chunk: small enough for random access, large enough to compress
_CORE_BLOCK = 1 << 24  # bytes by which the file grows in memory; small steps would copy it again and again
_SMALL = 1 << 20  # bytes of a dataset that are gathered before they are written


def shard_name(split: str, number: int, total: int) -> str:
    """Return e.g. ``train-00000-of-00008.h5``."""
    return f"{split}-{number:05d}-of-{total:05d}.h5"


def encode_shard(parts: Sequence[Scenes], attributes: Mapping[str, Any]) -> bytes:
    """Return the bytes of a shard that holds these scenes.

    Args:
        parts: The scenes, in order, in batches of any size.
        attributes: ``dataset``, ``split``, ``first_index``, ``config`` (as JSON) and the like.
    """
    first = parts[0]
    with h5py.File("shard", "w", driver="core", backing_store=False, block_size=_CORE_BLOCK) as file:
        file.attrs["schema"] = SCHEMA
        file.attrs["background_segments"] = first.background_segments
        for name, value in attributes.items():
            file.attrs[name] = value
        _write(file, "image", [p.image for p in parts])
        _write_compressed(file, "segments", [p.segments for p in parts])
        if first.amodal is not None:
            packed = _write_compressed(file, "amodal", [_packed(known(p.amodal)) for p in parts])
            packed.attrs["width"] = first.amodal.shape[-1]
        _write(file, "count", [p.count for p in parts])
        _write(file, "boxes", [p.boxes for p in parts])
        for group in ("factors", "scene_factors"):
            for name in sorted(getattr(first, group)):
                _write(file, f"{group}/{name}", [getattr(p, group)[name] for p in parts])
        file.flush()
        return file.id.get_file_image()


def _write(file: h5py.File, name: str, parts: Sequence[np.ndarray]) -> None:
    """Write batches one after another into one contiguous dataset."""
    rows = sum(len(part) for part in parts)
    dataset = file.create_dataset(name, (rows, *parts[0].shape[1:]), parts[0].dtype)
    if sum(part.nbytes for part in parts) < _SMALL:  # a call costs more than such a copy
        parts = [np.concatenate(parts)]
    start = 0
    for part in parts:
        dataset[start : start + len(part)] = part
        start += len(part)


def _write_compressed(file: h5py.File, name: str, parts: Sequence[np.ndarray]) -> h5py.Dataset:
    """Write chunks that we compress ourselves: what HDF5's gzip filter reads, without its copies.

    Run-length matching is both the fastest strategy and, on label maps, the one that packs tightest.
    """
    values = np.concatenate(parts)
    if 0 in values.shape[1:]:  # no objects: HDF5 has no chunks without extent
        return file.create_dataset(name, values.shape, values.dtype)
    rows = min(_CHUNK, max(len(values), 1))
    dataset = file.create_dataset(
        name, values.shape, values.dtype, chunks=(rows, *values.shape[1:]), compression="gzip"
    )
    tail = (0,) * (values.ndim - 1)
    for start in range(0, len(values), rows):
        chunk = values[start : start + rows]
        if len(chunk) < rows:  # a chunk is always stored whole
            chunk = np.concatenate([chunk, np.zeros((rows - len(chunk), *chunk.shape[1:]), chunk.dtype)])
        packer = zlib.compressobj(strategy=zlib.Z_RLE)
        packed = packer.compress(np.ascontiguousarray(chunk).data) + packer.flush()
        dataset.id.write_direct_chunk((start, *tail), packed)
    return dataset


def _packed(masks: np.ndarray) -> np.ndarray:
    """Pack the bits of masks along the width; where rows fill bytes, in one go, which is several times faster."""
    width = masks.shape[-1]
    if width % 8 or not masks.size:
        return np.packbits(masks, axis=-1)
    return np.packbits(masks).reshape(*masks.shape[:-1], width // 8)


def open_shard(path: Path) -> h5py.File:
    """Open a shard for reading.

    Raises:
        DataError: If it is missing, truncated, or no shard of this schema.
    """
    if not path.exists():
        raise DataError(f"{path} is missing; {repair_hint(path.parent)}.")
    try:
        file = h5py.File(path, "r")
    except PermissionError as error:
        raise DataError(f"{path} cannot be read: permission denied.") from error
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise MobjError(
                f"{path} cannot be opened: too many files are open; allow more (`ulimit -n`)."
            ) from error
        raise DataError(
            f"{path} is no readable HDF5 file (truncated?); {repair_hint(path.parent)}."
        ) from error
    with damage_explained(path):
        found = file.attrs.get("schema")
    if found != SCHEMA:
        file.close()
        raise DataError(
            f"{path}: expected shard schema {SCHEMA}, got {found}; it was written by another tool or version."
        )
    return file


@contextmanager
def damage_explained(path: Path) -> Iterator[None]:
    """Turn what h5py and `Scenes` raise for damaged content of a shard into one sentence."""
    try:
        yield
    except DAMAGE as error:
        raise DataError(f"{path} is damaged ({error}); {repair_hint(path.parent)}.") from error


def read_scenes(file: h5py.File, rows: np.ndarray | slice) -> Scenes:
    """Read scenes from an open shard.

    Args:
        file: As `open_shard` returns it.
        rows: A slice, or whole numbers in any order, repeats allowed.

    Raises:
        DataError: If what is stored cannot be decoded or does not fit together.
    """
    with damage_explained(Path(file.filename)):
        return _read_scenes(file, rows)


def _read_scenes(file: h5py.File, rows: np.ndarray | slice) -> Scenes:
    amodal = None
    if "amodal" in file:
        dataset = file["amodal"]
        packed = _rows(dataset, rows)
        amodal = np.unpackbits(packed, axis=-1, count=int(dataset.attrs["width"])).astype(bool)
    return Scenes(
        image=_rows(file["image"], rows),
        count=_rows(file["count"], rows),
        segments=_rows(file["segments"], rows),
        boxes=_rows(file["boxes"], rows),
        background_segments=int(file.attrs["background_segments"]),
        factors={name: _rows(values, rows) for name, values in file.get("factors", {}).items()},
        scene_factors={name: _rows(values, rows) for name, values in file.get("scene_factors", {}).items()},
        amodal=amodal,
    )


def _rows(dataset: h5py.Dataset, rows: np.ndarray | slice) -> np.ndarray:
    """Read rows; h5py's own list indexing costs milliseconds a row, so read the span or row by row."""
    if isinstance(rows, slice):
        return dataset[rows]
    if len(rows) == 0:
        return dataset[:0]
    low, high = int(rows.min()), int(rows.max()) + 1
    if high - low <= 4 * len(rows):
        return dataset[low:high][rows - low]
    out = np.empty((len(rows), *dataset.shape[1:]), dataset.dtype)
    for place in np.argsort(rows):
        out[place] = dataset[int(rows[place])]
    return out


@dataclass(frozen=True)
class ImageLayout:
    """Where a shard's images lie in its file: enough to map them without HDF5."""

    path: Path
    offset: int
    rows: int
    shape: tuple[int, int, int]  # H, W, C

    @classmethod
    def of(cls, path: Path) -> ImageLayout:
        """Read the layout from a shard's header.

        Raises:
            DataError: If it is damaged, or the images are not stored contiguously as bytes.
        """
        with open_shard(path) as file, damage_explained(path):
            dataset = file["image"]
            offset = dataset.id.get_offset()
            rows, *shape = dataset.shape
            if dataset.dtype != np.uint8 or (offset is None and rows):
                raise DataError(f"{path}: expected contiguous uint8 images, got {dataset.dtype} in chunks.")
        return cls(path, offset or 0, rows, (shape[0], shape[1], shape[2]))


def config_attributes(
    dataset: str, split: str, first_index: int, config: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the attributes that every shard carries."""
    return {
        "dataset": dataset,
        "split": split,
        "first_index": first_index,
        "config": json.dumps(dict(config), sort_keys=True),
    }
