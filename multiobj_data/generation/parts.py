"""The parts of one data set, each in a folder of its own, as array jobs without a shared disk leave them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multiobj_data.errors import DataError, UsageError
from multiobj_data.files import sha256_of
from multiobj_data.generation.plan import Finished, Task, shard_tasks
from multiobj_data.shards.journal import first_difference, read_whole_journals, stray_shards
from multiobj_data.shards.manifest import MANIFEST, Manifest

_IDENTITY = {
    "dataset": str, "generator": str, "config": dict, "seed": int, "splits": dict, "shard_rows": int, "sources": dict
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A folder with some shards of a data set, finished or not.

    Attributes:
        folder: Where it is.
        identity: Which data set, as `multiobj_data.generation.plan.Plan.identity`.
        finished: File name -> what the journal or the manifest says of the shard.
        toolkit: Version of mobj that drew it.
        ranges: The ranges ``(i, n)`` that were begun here.
        notes: What the manifest is to note.
        manifest: Of a finished data set.
    """

    folder: Path
    identity: dict[str, Any]
    finished: dict[str, Finished]
    toolkit: str
    ranges: tuple[tuple[int, int], ...] = ()
    notes: tuple[str, ...] = ()
    manifest: Manifest | None = None

    def tasks(self) -> Iterable[Task]:
        """Yield all shards of the whole data set."""
        return shard_tasks(self.identity["splits"], self.identity["shard_rows"])


def read_part(folder: Path) -> Part:
    """Read what a folder holds; no shard is opened.

    Raises:
        DataError: If it is no folder of this toolkit, or its journal is damaged.
        UsageError: If it holds shards that are no part of its data set.
    """
    part = _of_manifest(folder) if (folder / MANIFEST).exists() else _of_journals(folder)
    expected = {task.file: task for task in part.tasks()}
    for file, finished in part.finished.items():
        task, record = expected.get(file), finished.record
        if task is None or (record.first_index, record.rows) != (task.first, task.rows):
            raise DataError(
                f"{folder} says that it holds {file}, which is no shard of its data set: it is damaged."
            )
    if stray := stray_shards(folder, set(expected)):
        raise UsageError(f"{folder / stray[0]} is no part of the data set in {folder}; move it away.")
    return part


def _of_manifest(folder: Path) -> Part:
    manifest = Manifest.read(folder)
    finished = {
        record.file: Finished(record, name, {})
        for name, split in manifest.splits.items()
        for record in split.shards
    }
    return Part(folder, manifest.identity, finished, manifest.toolkit, manifest=manifest)


def _of_journals(folder: Path) -> Part:
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder; expected one that `mobj generate --shard-range i/n` wrote."
        )
    journals = read_whole_journals(folder)
    if not journals:
        raise DataError(
            f"{folder} has neither a whole journal (.progress*.jsonl) nor {MANIFEST}: it is no part of a data set; "
            "copy hidden files, too."
        )
    headers = [lines[0] for lines in journals.values()]
    finished = {}
    try:
        for header in headers:
            for name, kind in _IDENTITY.items():
                if not isinstance(header["identity"][name], kind):
                    raise TypeError(f"{name} is {header['identity'][name]!r}")
            refuse_mixture(folder, header["identity"], folder, headers[0]["identity"])
            _refuse_mixed_versions(folder, header["toolkit"], folder, headers[0]["toolkit"])
        if headers[0]["identity"]["shard_rows"] < 1:
            raise ValueError("shard_rows is below 1")
        for lines in journals.values():
            for line in lines[1:]:
                each = Finished.of(line)
                finished[each.record.file] = each
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"the journal in {folder} is damaged ({type(error).__name__}: {error}); delete it and run the `mobj "
            "generate` command again."
        ) from error
    notes = tuple(headers[0].get("notes", ()))
    return Part(folder, headers[0]["identity"], finished, headers[0]["toolkit"], tuple(journals), notes)


def refuse_mixture(folder: Path, there: Mapping[str, Any], other: Path, here: Mapping[str, Any]) -> None:
    """Raise ``UsageError``, naming a setting that differs, unless both folders are of one data set."""
    if difference := first_difference(there, here):
        name, value_there, value_here = difference
        raise UsageError(
            f"{folder} and {other} are of different data sets: {name} is {value_there!r} and {value_here!r}; merge "
            "only what the same `mobj generate` command made."
        )


def _refuse_mixed_versions(folder: Path, there: str, other: Path, here: str) -> None:
    if there != here:
        raise UsageError(
            f"{folder} was made by mobj {there} and {other} by {here}, and two versions may draw other scenes; make "
            "one of them again with the other's version."
        )


@dataclass
class Inventory:
    """What the parts hold together.

    Attributes:
        parts: All of them, of one data set.
        found: File name -> a whole shard and what is known of it.
        duplicates: Further copies of found shards, byte for byte the same.
        damaged: Files that are not what their journal or manifest says.
        missing: Shards of which no whole copy was found.
    """

    parts: Sequence[Part]
    found: dict[str, tuple[Path, Finished]] = field(default_factory=dict)
    duplicates: int = 0
    damaged: list[Path] = field(default_factory=list)
    missing: list[Task] = field(default_factory=list)

    @property
    def identity(self) -> dict[str, Any]:
        """Which data set this is."""
        return self.parts[0].identity

    @property
    def manifest(self) -> Manifest | None:
        """The manifest of the first part that is a finished data set."""
        return next((part.manifest for part in self.parts if part.manifest is not None), None)

    @property
    def scenes(self) -> int:
        """Number of scenes of the whole data set."""
        return sum(self.identity["splits"].values())


def take_inventory(
    parts: Sequence[Part], on_progress: Callable[[int], None] = lambda scenes: None
) -> Inventory:
    """Read every byte of every part; decide which shard to take from where.

    Args:
        parts: At least one; where several hold the same shard, the first whole copy counts.
        on_progress: Called after each shard of the data set with its number of scenes.

    Raises:
        UsageError: If the parts are of different data sets or made by different versions, or two of them hold different
            bytes under one name.
    """
    for part in parts[1:]:
        refuse_mixture(part.folder, part.identity, parts[0].folder, parts[0].identity)
        _refuse_mixed_versions(part.folder, part.toolkit, parts[0].folder, parts[0].toolkit)
    inventory = Inventory(parts)
    for task in parts[0].tasks():
        holders = [part for part in parts if task.file in part.finished]
        whole = [part for part in holders if _is_whole(inventory, part, task.file)]
        binding = [part for part in holders if part in whole or part.manifest is not None]
        _refuse_different_bytes(task.file, binding)
        if whole:
            inventory.found[task.file] = whole[0].folder / task.file, whole[0].finished[task.file]
            inventory.duplicates += len(whole) - 1
        else:
            inventory.missing.append(task)
        on_progress(task.rows)
    return inventory


def _is_whole(inventory: Inventory, part: Part, file: str) -> bool:
    """Return whether a part has the bytes that it says; note a damaged file. One that is gone is just not there."""
    path = part.folder / file
    if not path.is_file():
        return False
    if sha256_of(path) != part.finished[file].record.sha256:
        inventory.damaged.append(path)
        return False
    return True


def _refuse_different_bytes(file: str, parts: Sequence[Part]) -> None:
    for part in parts[1:]:
        if part.finished[file].record.sha256 != parts[0].finished[file].record.sha256:
            raise UsageError(
                f"{parts[0].folder / file} and {part.folder / file} are the same shard with different bytes: they were "
                "made by different versions of a library. Leave one of these parts out."
            )
