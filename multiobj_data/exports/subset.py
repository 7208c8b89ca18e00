"""What is exported: some splits of a stored data set, in batches, as named columns and pictures."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from multiobj_data.errors import DataError, UsageError, VerificationError, did_you_mean, repair_hint
from multiobj_data.files import sha256_of
from multiobj_data.loading import StoredScenes, open_dataset
from multiobj_data.scenes import Scenes
from multiobj_data.shards.manifest import Manifest

BATCH = 128  # scenes in memory at a time
PNG_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Part:
    """One file of a split: scenes ``first .. first + rows - 1``; files hold as many scenes as shards do."""

    split: str
    number: int
    total: int
    first: int
    rows: int

    def file(self, ending: str) -> str:
        """Return e.g. ``train-00000-of-00008.tar``."""
        return f"{word(self.split)}-{self.number:05d}-of-{self.total:05d}.{ending}"


@dataclass(frozen=True)
class Subset:
    """Some splits of a data set.

    Attributes:
        folder: The data set.
        manifest: Its manifest.
        splits: Which splits, in the manifest's order.
        limit: At most so many scenes a split, or ``None``.
    """

    folder: Path
    manifest: Manifest
    splits: tuple[str, ...]
    limit: int | None = None

    @classmethod
    def of(cls, folder: Path, splits: Sequence[str] = (), limit: int | None = None) -> Subset:
        """Choose splits (all if none is named).

        Raises:
            UsageError: If there is no such split, the limit is below 1, or nothing is left to export.
            DataError: If there is no data set.
        """
        manifest = Manifest.read(folder)
        for split in splits:
            if split not in manifest.splits:
                raise UsageError(f"{folder} has no split {split!r}.{did_you_mean(split, manifest.splits)}")
        if limit is not None and limit < 1:
            raise UsageError(f"limit: expected at least 1 scene a split, got {limit}.")
        chosen = tuple(
            name for name, record in manifest.splits.items() if record.rows and (not splits or name in splits)
        )
        if not chosen:
            raise UsageError(f"{folder}: the chosen splits hold no scenes; choose others with --split.")
        return cls(folder, manifest, chosen, limit)

    @property
    def request(self) -> dict[str, Any]:
        """What identifies the exported data; JSON-ready."""
        return {
            "source": self.manifest.document()["checksum"],
            "dataset": self.manifest.dataset,
            "splits": {split: self.rows(split) for split in self.splits},
        }

    def rows(self, split: str) -> int:
        """Return how many scenes of a split are exported."""
        rows = self.manifest.splits[split].rows
        return rows if self.limit is None else min(rows, self.limit)

    @property
    def total(self) -> int:
        """Scenes in all."""
        return sum(self.rows(split) for split in self.splits)

    def parts(self, split: str) -> list[Part]:
        """Return the files that a split is cut into."""
        rows, step = self.rows(split), self.manifest.shard_rows
        total = -(-rows // step)
        return [Part(split, i, total, i * step, min(step, rows - i * step)) for i in range(total)]

    def batches(self, part: Part) -> Iterator[tuple[np.ndarray, Scenes]]:
        """Yield ``(indices [b], Scenes)`` of a file, in order."""
        source, end = self._source(part.split), part.first + part.rows
        for start in range(part.first, end, BATCH):
            indices = np.arange(start, min(start + BATCH, end))
            yield indices, _with_some_masks(source.scenes(indices))

    def whole(self, split: str) -> Part:
        """Return a split as one file."""
        return Part(split, 0, 1, 0, self.rows(split))

    def check_shards(self) -> None:
        """Compare the shards that are exported with the manifest: damage must not travel on.

        Raises:
            DataError: If one is missing.
            VerificationError: If one has other bytes than were written.
        """
        for split in self.splits:
            self._source(split)
            for shard in self.manifest.splits[split].shards:
                path = self.folder / shard.file
                if shard.first_index < self.rows(split) and sha256_of(path) != shard.sha256:
                    raise VerificationError(
                        f"{path} is not what the manifest says (another SHA-256); {repair_hint(self.folder)}."
                    )

    @cached_property
    def nothing(self) -> Scenes:
        """A batch of no scenes, with the data set's shapes, dtypes and names."""
        return _with_some_masks(self._source(self.splits[0]).scenes([]))

    @cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """Names of `columns_of`, each with an array of no rows: its dtype and shape."""
        return columns_of(np.zeros(0, np.int64), self.nothing)

    @property
    def has_amodal(self) -> bool:
        """Whether each object's own pixels are kept."""
        return self.nothing.amodal is not None

    def _source(self, split: str) -> StoredScenes:
        opened: dict[str, StoredScenes] = self.__dict__.setdefault("_opened", {})
        if split not in opened:
            opened[split] = open_dataset(self.folder, split)
        return opened[split]


def _with_some_masks(scenes: Scenes) -> Scenes:
    """Leave the masks of no objects out: a picture without pixels cannot be written."""
    return scenes if scenes.boxes.shape[1] else replace(scenes, amodal=None)


def columns_of(indices: np.ndarray, scenes: Scenes) -> dict[str, np.ndarray]:
    """Return all truth that is numbers, by name, each ``[b, ...]``.

    ``index`` (of the scene in its split), ``count``, ``background_segments``, ``boxes``, ``factors/NAME``,
    ``scene_factors/NAME``.

    Raises:
        DataError: If a factor is not numeric.
    """
    columns = {
        "index": indices,
        "count": scenes.count,
        "background_segments": np.full(len(indices), scenes.background_segments, np.int64),
        "boxes": scenes.boxes,
    }
    for group in ("factors", "scene_factors"):
        for name, values in sorted(getattr(scenes, group).items()):
            if values.dtype.kind not in "iufb":
                raise DataError(f"{group}/{name}: expected numbers, got {values.dtype}; it has no export.")
            columns[f"{group}/{name}"] = values
    return columns


def nested(row: dict[str, Any]) -> dict[str, Any]:
    """Turn ``{"factors/x": 1}`` into ``{"factors": {"x": 1}}``."""
    out: dict[str, Any] = {}
    for name, value in row.items():
        group, sign, rest = name.partition("/")
        if sign:
            out.setdefault(group, {})[rest] = value
        else:
            out[name] = value
    return out


def png(pixels: np.ndarray) -> bytes:
    """Return a PNG file of an image.

    Args:
        pixels: uint8 ``[H, W]``, ``[H, W, C]`` (C of 1 to 4), or bool ``[H, W]`` (one bit a pixel).

    Raises:
        DataError: If there are more than four channels.
    """
    from PIL import Image

    if pixels.ndim == 3:
        if pixels.shape[-1] not in PNG_MODES:
            raise DataError(
                f"image: a PNG has 1 to 4 channels, these scenes have {pixels.shape[-1]}; use --to npz."
            )
        pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
    return file.getvalue()


def word(split: str) -> str:
    """Return a split's name in letters, digits and underscores, as readers of other formats want it."""
    return re.sub(r"\W", "_", split)


def json_values(values: np.ndarray) -> Any:
    """Return an array as nested lists (a scalar as a number), NaN and infinities as ``None``."""
    if values.dtype.kind == "f":
        out = np.asarray(values).astype(object)  # a scalar too becomes an array, which can be assigned to
        out[~np.isfinite(values)] = None
        return out.tolist()
    return values.tolist()
