"""Scenes by index, from shards or drawn on the spot: the same scenes, through the same two methods.

`StoredScenes` and `GeneratedScenes` both have ``len()``, ``images(indices)``, ``scenes(indices)`` and
``reference``. For PyTorch see `multiobj_data.tensors.datasets`.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np

from multiobj_data.errors import DataError, UsageError, did_you_mean, quoted, repair_hint
from multiobj_data.generation.plan import Plan, draw_scenes, plan_of
from multiobj_data.generation.running import generate
from multiobj_data.randomness import BLOCK
from multiobj_data.scenes import Scenes
from multiobj_data.shards.hdf5 import ImageLayout, open_shard, read_scenes
from multiobj_data.shards.manifest import CONVERTED, MANIFEST, Manifest

Indices = Sequence[int] | np.ndarray

_OPEN = 128
"""Shards that a process holds open at once, of each split twice: systems allow some 1,000 files."""


class SceneSource(Protocol):
    """Scenes by index."""

    @property
    def reference(self) -> dict[str, Any]:
        """What evaluation needs in order to find or draw the same scenes again; JSON-ready."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """H, W, C."""
        ...

    def __len__(self) -> int: ...

    def images(self, indices: Indices) -> np.ndarray:
        """Return uint8 ``[n, H, W, C]``, in the order asked for."""
        ...

    def scenes(self, indices: Indices) -> Scenes:
        """Return the scenes, in the order asked for."""
        ...


def open_dataset(folder: str | Path, split: str) -> StoredScenes:
    """Open one split of a stored data set.

    Raises:
        DataError: If there is no data set, or a shard is missing or unreadable.
        UsageError: If it has no such split.
    """
    return StoredScenes(Path(folder), split)


class StoredScenes:
    """A split of a folder of shards; memory does not grow with the data set.

    Images are read through a memory map; the rest through HDF5. Files are opened on first use in each
    process, so that workers may be forked or spawned and the object may be pickled.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self.folder, self.split = folder, split
        self.manifest = Manifest.read(folder)
        if split not in self.manifest.splits:
            raise UsageError(f"{folder} has no split {split!r}.{did_you_mean(split, self.manifest.splits)}")
        self.shards = self.manifest.splits[split].shards
        self.first = np.array([shard.first_index for shard in self.shards])
        for shard in self.shards:
            if not (folder / shard.file).exists():
                raise DataError(f"{folder / shard.file} is missing; {repair_hint(folder)}.")

    @property
    def reference(self) -> dict[str, Any]:
        """The manifest, the split and the folder."""
        return {
            "manifest": self.manifest.document(),
            "split": self.split,
            "folder": str(self.folder.resolve()),
        }

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """H, W, C."""
        return self.manifest.image_shape

    def __len__(self) -> int:
        return self.manifest.splits[self.split].rows

    def images(self, indices: Indices) -> np.ndarray:
        """Return uint8 ``[n, H, W, C]``, in the order asked for; writable."""
        index = _checked(indices, len(self)).tolist()  # plain numbers are faster here
        # As many at a time as maps are kept, so that slices do not keep more of them open.
        parts = [self._joined(index[start : start + _OPEN]) for start in range(0, len(index), _OPEN)]
        joined = parts[0] if len(parts) == 1 else bytearray().join(parts)
        return np.frombuffer(joined, np.uint8).reshape(-1, *self.image_shape)

    def _joined(self, index: list[int]) -> bytearray:
        """Join slices of the maps: a NumPy fancy index for each shard costs several times as much."""
        layouts, maps, rows = self._layouts, self._maps, self.manifest.shard_rows
        size = math.prod(self.image_shape)
        parts = []
        for i in index:
            shard, row = divmod(i, rows)
            start = layouts[shard].offset + row * size
            parts.append(maps(shard)[start : start + size])
        return bytearray().join(parts)

    def scenes(self, indices: Indices) -> Scenes:
        """Return the scenes, in the order asked for."""
        index = _checked(indices, len(self))
        shards, rows = np.divmod(index, self.manifest.shard_rows)
        if len(index) == 0:
            return self._read(0, np.zeros(0, np.int64))
        order = np.argsort(shards, kind="stable")
        parts = [self._read(int(s), rows[shards == s]) for s in np.unique(shards)]
        return Scenes.concatenate(parts)[np.argsort(order)]

    def _read(self, shard: int, rows: np.ndarray) -> Scenes:
        return read_scenes(self._files(os.getpid(), shard), rows)

    # -- files, opened on first use; of many the last ones stay open

    @cached_property
    def _layouts(self) -> list[ImageLayout]:
        """Where each shard's images lie."""
        layouts = [ImageLayout.of(self.folder / shard.file) for shard in self.shards]
        for shard, layout in zip(self.shards, layouts, strict=True):
            if layout.rows != shard.rows or layout.shape != self.image_shape:
                raise DataError(
                    f"{layout.path}: expected {shard.rows} images of {self.image_shape}, got {layout.rows} of "
                    f"{layout.shape}; {repair_hint(self.folder)}."
                )
        return layouts

    @cached_property
    def _maps(self) -> Callable[[int], memoryview]:
        """Shard -> its file as memory."""
        return lru_cache(_OPEN)(partial(_mapped, [layout.path for layout in self._layouts]))

    @cached_property
    def _files(self) -> Callable[[int, int], Any]:
        """Process, shard -> the shard opened by HDF5, whose handles must not cross a fork."""
        return lru_cache(_OPEN)(partial(_opened, [self.folder / shard.file for shard in self.shards]))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_maps", "_files")}


def _mapped(paths: Sequence[Path], shard: int) -> memoryview:
    with open(paths[shard], "rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _opened(paths: Sequence[Path], process: int, shard: int) -> Any:
    return open_shard(paths[shard])


class GeneratedScenes:
    """Scenes drawn when they are asked for; equal to the stored ones of the same plan.

    Args:
        plan: The data set.
        split: Which split. It is as long as the plan says, or endless in effect with ``length``.
        length: Number of scenes, if another than the plan's.

    Raises:
        UsageError: The plan has no such split, or the length is negative.
    """

    def __init__(self, plan: Plan, split: str, length: int | None = None) -> None:
        self.plan, self.split = plan, plan.require_split(split)
        self.length = plan.splits[split] if length is None else length
        if self.length < 0:
            raise UsageError(f"length: expected 0 or more scenes, got {length}.")
        self._kept: tuple[int, Scenes] | None = None

    @classmethod
    def of(cls, manifest: Manifest, split: str, **not_recorded: Any) -> GeneratedScenes:
        """Draw the scenes that a manifest describes."""
        return cls(plan_of(manifest, **not_recorded), split)

    @cached_property
    def image_shape(self) -> tuple[int, int, int]:
        """H, W, C."""
        return self._block(0).image.shape[1:]

    @property
    def reference(self) -> dict[str, Any]:
        """The plan's identity and the split."""
        return {"identity": self.plan.identity, "split": self.split}

    def __len__(self) -> int:
        return self.length

    def images(self, indices: Indices) -> np.ndarray:
        """Return uint8 ``[n, H, W, C]``, in the order asked for."""
        return self.scenes(indices).image

    def scenes(self, indices: Indices) -> Scenes:
        """Return the scenes, in the order asked for."""
        index = _checked(indices, self.length)
        if len(index) == 0:
            return self._block(0)[:0]
        blocks = index // BLOCK
        order = np.argsort(blocks, kind="stable")
        parts = [self._block(int(b))[index[blocks == b] - b * BLOCK] for b in np.unique(blocks)]
        return Scenes.concatenate(parts)[np.argsort(order)]

    def _block(self, block: int) -> Scenes:
        """Draw a block; the last one is kept, since neighbours are often asked for next."""
        kept = self._kept  # once: another thread may put another block there
        if kept is None or kept[0] != block:
            scenes = draw_scenes(self.plan.generator, self.plan.seed, self.split, block * BLOCK, BLOCK)
            kept = self._kept = (block, scenes)
        return kept[1]


def _checked(indices: Indices, length: int) -> np.ndarray:
    """Return the indices, int64 ``[n]``.

    Raises:
        UsageError: They are no sequence of whole numbers.
        IndexError: One is out of range.
    """
    try:
        index = np.asarray(indices)
    except ValueError:  # a ragged list
        index = np.asarray(None)
    if index.ndim != 1 or (index.dtype.kind not in "iu" and index.size):  # an empty list has no type
        hint = "of a mask, take np.flatnonzero" if index.dtype == bool else "one scene is [i]"
        raise UsageError(f"indices: expected a list of whole numbers, got {quoted(indices)}; {hint}.")
    if index.size and not (index.min() >= 0 and index.max() < length):
        raise IndexError(f"expected scene indices in 0..{length - 1}, got {index.min()}..{index.max()}.")
    return index.astype(np.int64, copy=False)


def batches(source: SceneSource, size: int, limit: int | None = None) -> Iterator[tuple[np.ndarray, Scenes]]:
    """Yield ``(indices [b], Scenes)`` in order, the last batch smaller if need be."""
    n = len(source) if limit is None else min(limit, len(source))
    for start in range(0, n, size):
        indices = np.arange(start, min(start + size, n))
        yield indices, source.scenes(indices)


@contextmanager
def find_split(
    reference: Mapping[str, Any], split: str, tell: Callable[[str], None], **not_recorded: Any
) -> Iterator[StoredScenes]:
    """Open a split of the data set that a model was trained on; if it is gone, draw it again meanwhile.

    Args:
        reference: `StoredScenes.reference`, as a checkpoint keeps it.
        split: Which split; it need not be the one trained on.
        tell: Is told when the folder is gone and the split is drawn again.
        not_recorded: Settings that no manifest holds, such as ``digits_root``.

    Raises:
        DataError: If the reference is damaged, or source files are not to be had.
        VerificationError: If the scenes do not come out as recorded.
    """
    if "manifest" not in reference:
        raise DataError("the checkpoint does not say which data it was trained on; give --data DIR.")
    manifest = Manifest.from_document(reference["manifest"], "the checkpoint's data reference")
    folder = Path(reference.get("folder", ""))
    if (reason := _why_not(folder, manifest)) is None:
        yield StoredScenes(folder, split)
        return
    if manifest.generator.startswith(CONVERTED):
        name = manifest.generator.removeprefix(CONVERTED)
        raise DataError(
            f"{reason}; it was converted from the files of {name}, so that it cannot be drawn again: give --data DIR, "
            f"or run `mobj convert {name} SOURCE --out DIR` with the same options first."
        )
    tell(f"{reason}; drawing its {split} split again (if it was moved, give --data).")
    if split not in manifest.splits:
        raise UsageError(f"the data set has no split {split!r}.{did_you_mean(split, manifest.splits)}")
    with TemporaryDirectory(prefix="mobj-") as temporary:
        only = replace(manifest, splits={split: manifest.splits[split]})
        only.write(Path(temporary))
        generate(plan_of(only, **not_recorded), Path(temporary))  # compares the bytes with the manifest
        yield StoredScenes(Path(temporary), split)


def _why_not(folder: Path, manifest: Manifest) -> str | None:
    """Say why a folder cannot serve as the data set of a manifest; ``None`` if it can."""
    if not (folder / MANIFEST).exists():
        return f"the data set at {folder} is gone"
    try:
        there = Manifest.read(folder)
    except DataError as error:  # damaged, or newer than this toolkit
        return str(error).rstrip(".")
    return None if there.identity == manifest.identity else f"{folder} now holds another data set"
