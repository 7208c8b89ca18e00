"""From a public set's files to a folder of shards: streamed, resumable, atomic.

Scenes come in the order of the source and go to their splits one by one, so that nobody knows beforehand how many
shards there will be. Shards are therefore written as ``part-SPLIT-NNNNN.h5`` and get their names (``...-of-NNNNN``)
when the source has been read to its end; the manifest is last. What an interrupted run left: `shelves`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from multiobj_data.composition.memory import keep_freed_memory
from multiobj_data.errors import DataError
from multiobj_data.files import explain_os_errors, make_folder, write_atomically
from multiobj_data.loaders.preparing import Prepared, collect
from multiobj_data.loaders.shelves import Shelf, part_name, resume
from multiobj_data.shards.hdf5 import config_attributes, encode_shard, open_shard, shard_name
from multiobj_data.shards.journal import Journal, hold_lock, is_whole, refuse_difference, remove_journals
from multiobj_data.shards.manifest import CONVERTED, MANIFEST, Manifest, ShardRecord, SplitRecord
from multiobj_data.version import __version__

MOST_ROWS = 4096
_SHARD_BYTES = 1 << 25  # a shard is in memory, several times, while it is written, and every split has one
_CHUNK = 32  # `multiobj_data.shards.hdf5` compresses label maps by so many scenes
_BATCH = 256  # scenes joined at a time

Progress = Callable[[int], None]
"""Called with how much of the source was just read, in the stream's unit."""


class SceneStream(Protocol):
    """The scenes of a public set, in an order that never changes."""

    name: str
    """``clevr6``, ``objects-room``, ...: the command's name for it."""

    id: str
    """Id with version, e.g. ``clevr6-v1``."""

    slots: int
    """K: most objects in a scene."""

    scene_bytes: int
    """Bytes of a scene's picture and label maps, about."""

    @property
    def config(self) -> dict[str, Any]:
        """Everything that decides the shards, besides the files' bytes; JSON-ready."""
        ...

    def sources(self) -> dict[str, str]:
        """Return the SHA-256 of each source file."""
        ...

    def notes(self) -> list[str]:
        """Return what whoever uses the data must know."""
        ...

    def scenes(self, start: int, on_progress: Progress) -> Generator[tuple[int, str, Prepared], None, None]:
        """Yield place in the source, split and content of each scene that is kept, from place ``start``."""
        ...

    def mark(self) -> dict[str, Any]:
        """Return how much of the source has been read, JSON-ready; for `holds`."""
        ...

    def holds(self, marks: Sequence[Mapping[str, Any]], sources: Mapping[str, str]) -> int:
        """Return how many marks, made in this order of files with these SHA-256, are true of those here now."""
        ...


def rows_a_shard(scene_bytes: int) -> int:
    """Return how many scenes of this size make a shard of about 32 MB: a power of two, 32 to 4096."""
    fit = max(_SHARD_BYTES // max(scene_bytes, 1), _CHUNK)
    return min(1 << (fit.bit_length() - 1), MOST_ROWS)


def convert(
    stream: SceneStream,
    folder: Path,
    *,
    shard_rows: int | None = None,
    on_progress: Progress = lambda n: None,
) -> Manifest:
    """Write a data set from a stream, or the rest of it if an earlier run was interrupted.

    A finished data set of the same stream is left as it is if it is whole, and made anew if it is not.

    Args:
        stream: The scenes.
        folder: Where; created if need be.
        shard_rows: Scenes a shard; by default `rows_a_shard`.
        on_progress: Called with how much was read.

    Raises:
        DataError: The source is damaged; what was written before stays, and once the file is mended the same command
            goes on from there.
        UsageError: The folder holds another data set, or one of other source files.
        MobjError: Another run is writing to the folder, or the disk is full.
    """
    identity = {
        "dataset": stream.id,
        "generator": CONVERTED + stream.name,
        "config": stream.config,
        "seed": 0,
        "shard_rows": shard_rows or rows_a_shard(stream.scene_bytes),
        "sources": stream.sources(),
    }
    make_folder(folder)
    keep_freed_memory()  # records are megabytes, one after another
    with hold_lock(folder, (0, 1)):
        if (manifest := _finished(folder, identity)) is None:
            shelves, start = resume(folder, identity, stream.notes(), stream.holds)
            with Journal(folder, (0, 1), identity, stream.notes()) as journal:
                _fill(shelves, start, _Press(stream, folder, identity, journal), on_progress)
            manifest = _manifest(stream, identity, shelves, folder)
            manifest.write(folder)
        remove_journals(folder)
        return manifest


def _finished(folder: Path, identity: Mapping[str, Any]) -> Manifest | None:
    """Return the manifest of a data set that is there and whole; of one that is not, nothing is left."""
    if not (folder / MANIFEST).exists():
        return None
    manifest = Manifest.read(folder)
    there = {name: value for name, value in manifest.identity.items() if name != "splits"}
    refuse_difference(folder, there, identity)
    if all(is_whole(folder, shard) for split in manifest.splits.values() for shard in split.shards):
        return manifest
    with explain_os_errors(folder / MANIFEST):
        for split in manifest.splits.values():
            for shard in split.shards:
                (folder / shard.file).unlink(missing_ok=True)
        (folder / MANIFEST).unlink()
    return None


@dataclass(frozen=True)
class _Press:
    """What turns the scenes that wait on a shelf into a shard."""

    stream: SceneStream
    folder: Path
    identity: Mapping[str, Any]
    journal: Journal

    def write(self, shelf: Shelf, shelves: Mapping[str, Shelf]) -> None:
        """Write them, and say so in the journal."""
        scenes = [scene for _, scene in shelf.waiting]
        slots, attributes = self.stream.slots, self.identity
        parts = [collect(scenes[start : start + _BATCH], slots) for start in range(0, len(scenes), _BATCH)]
        shelf.through, shelf.waiting = shelf.waiting[-1][0], []
        scenes.clear()  # `parts` holds copies
        about = config_attributes(attributes["dataset"], shelf.name, shelf.rows, attributes["config"])
        content = encode_shard(parts, {**about, "seed": 0})
        rows = sum(len(part) for part in parts)
        file = part_name(shelf.name, len(shelf.shards))
        write_atomically(self.folder / file, content)
        record = ShardRecord(file, shelf.rows, rows, hashlib.sha256(content).hexdigest())
        shelf.shards.append(record)
        others = [other.waiting[0][0] for other in shelves.values() if other.waiting]
        line = {
            "record": asdict(record),
            "split": shelf.name,
            "through": shelf.through,
            "continue": min([shelf.through + 1, *others]),  # nothing before it waits to be written
            "read": self.stream.mark(),
        }
        self.journal.append(line)


def _fill(shelves: dict[str, Shelf], start: int, press: _Press, on_progress: Progress) -> None:
    """Read the source from place ``start`` to its end and write every shard."""
    full = press.identity["shard_rows"]
    try:
        with closing(press.stream.scenes(start, on_progress)) as scenes:
            for place, split, scene in scenes:
                shelf = shelves.setdefault(split, Shelf(split))
                if place <= shelf.through:
                    continue
                shelf.waiting.append((place, scene))
                if len(shelf.waiting) == full:
                    press.write(shelf, shelves)
    except DataError as error:
        if done := sum(shelf.rows for shelf in shelves.values()):
            raise DataError(
                f"{error} The {done:,} scenes in the shards written before it stay in {press.folder}: with the file "
                "mended, the same command goes on from there."
            ) from error
        raise
    for shelf in shelves.values():
        if shelf.waiting:
            press.write(shelf, shelves)


def _manifest(
    stream: SceneStream, identity: Mapping[str, Any], shelves: Mapping[str, Shelf], folder: Path
) -> Manifest:
    """Give the shards their final names and say what there is."""
    splits = {}
    for name, shelf in sorted(shelves.items()):
        total = len(shelf.shards)
        finals = [shard_name(name, number, total) for number in range(total)]
        for shard, final in zip(shelf.shards, finals, strict=True):
            with explain_os_errors(folder / final):
                os.replace(folder / shard.file, folder / final)
        shards = [replace(shard, file=final) for shard, final in zip(shelf.shards, finals, strict=True)]
        if shards:
            splits[name] = SplitRecord(shelf.rows, shards)
    if not splits:
        remove_journals(folder)
        raise DataError(
            "no scene of the source is kept by these settings, so that there is nothing to write; look at --protocol, "
            "--count-rule, --min-objects, --max-objects and --limit."
        )
    first = next(iter(splits.values())).shards[0]
    with open_shard(folder / first.file) as file:
        height, width, channels = file["image"].shape[1:]
    return Manifest(
        **{name: identity[name] for name in identity},
        image_shape=(height, width, channels),
        max_objects=stream.slots,
        splits=splits,
        toolkit=__version__,
        notes=stream.notes(),
    )
