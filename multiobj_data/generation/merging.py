"""Many folders to one data set: what `mobj merge` does."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from multiobj_data.errors import DataError, MobjError, UsageError
from multiobj_data.files import explain_os_errors, make_folder, replacing, temporary_of
from multiobj_data.generation.parts import Inventory, Part, read_part, refuse_mixture, take_inventory
from multiobj_data.generation.plan import split_records
from multiobj_data.generators.flat import OOD
from multiobj_data.plugins import resolve
from multiobj_data.shards.hdf5 import damage_explained, open_shard
from multiobj_data.shards.journal import Journal, hold_lock, is_whole, remove_journals
from multiobj_data.shards.manifest import MANIFEST, Manifest, ShardRecord

Progress = Callable[[int], None]
"""Called with the number of scenes just dealt with."""

_ADVICE = "mend that, and run the same command again; it continues where it stopped."


@dataclass(frozen=True)
class Merged:
    """How the shards came into the new folder."""

    manifest: Manifest
    linked: int
    copied: int
    kept: int  # already there, from a merge that was interrupted


def survey(
    folders: Sequence[Path], out: Path | None = None, on_progress: Progress = lambda scenes: None
) -> Inventory:
    """Check the parts of a data set, and what an interrupted merge left in ``out``; write nothing.

    Raises:
        UsageError: If they are of different data sets, disagree on a shard, or hold foreign ones.
        DataError: If one of them is no part of a data set at all.
    """
    parts = [read_part(folder) for folder in _once(folders)]
    if out is not None:
        _refuse_inside(out, parts)
    if out is not None and out.exists():
        if any(out.samefile(part.folder) for part in parts):
            raise UsageError(
                f"--out {out} is one of the parts; choose another --out, the parts are left as they are."
            )
        if not out.is_dir():
            raise UsageError(f"--out {out} is a file; choose another --out.")
        if (out / MANIFEST).exists() or list(out.glob(".progress*.jsonl")):
            begun = read_part(out)
            refuse_mixture(out, begun.identity, parts[0].folder, parts[0].identity)
            parts.append(begun)  # last: what is damaged there comes anew from the parts
        elif strange := sorted(out.glob("*.h5")):
            raise UsageError(f"--out {out} holds {strange[0].name}, of unknown origin; choose another --out.")
    return take_inventory(parts, on_progress)


def _refuse_inside(out: Path, parts: Sequence[Part]) -> None:
    for part in parts:
        if part.folder.resolve() in out.resolve().parents:
            raise UsageError(
                f"--out {out} lies inside the part {part.folder}; choose another --out, the parts are left as they are."
            )


def _once(folders: Sequence[Path]) -> list[Path]:
    seen: dict[Path, Path] = {}
    for folder in folders:
        seen.setdefault(folder.resolve(), folder)
    return list(seen.values())


def merge(
    inventory: Inventory, out: Path, *, link: bool = True, on_progress: Progress = lambda scenes: None
) -> Merged:
    """Bring all shards into one folder and write its manifest, last.

    The same call goes on after an interruption. The parts are only read.

    Args:
        inventory: Of `survey`; nothing may be missing.
        out: The new folder; created if need be.
        link: Whether to make hard links where the file system can; otherwise all is copied.
        on_progress: Called after each shard.

    Raises:
        DataError: If shards are missing or damaged, or a part changed since it was surveyed.
        MobjError: If another run writes to ``out``, or it cannot be written.
    """
    if inventory.missing:
        raise DataError(f"{len(inventory.missing)} shards are missing; first {inventory.missing[0].file}.")
    make_folder(out)
    with hold_lock(out, (0, 1)):
        manifest, ways = _manifest_of(inventory), Counter[str]()
        with Journal(out, (0, 1), inventory.identity, _notes(inventory)) as journal:
            for source, finished in inventory.found.values():
                ways[_bring(source, out / finished.record.file, finished.record, link)] += 1
                if inventory.manifest is None:  # else the attempts of single shards are not known
                    journal.append(asdict(finished))
                on_progress(finished.record.rows)
        manifest.write(out)
        remove_journals(out)
    return Merged(manifest, ways["linked"], ways["copied"], ways["kept"])


def _bring(source: Path, target: Path, record: ShardRecord, link: bool) -> str:
    """Make ``target`` the recorded shard; return how: kept, linked or copied."""
    if is_whole(target.parent, record):
        return "kept"
    if link and _link(source, target):
        return "linked"
    digest = hashlib.sha256()
    with replacing(target, _ADVICE) as temporary:
        try:
            with open(source, "rb") as reader, open(temporary, "wb") as writer:
                while block := reader.read(1 << 22):
                    digest.update(block)
                    writer.write(block)
        except PermissionError as error:
            raise MobjError(
                f"{source} or {temporary.parent} is not accessible: {error.strerror}; {_ADVICE}"
            ) from error
        if digest.hexdigest() != record.sha256:
            raise DataError(f"{source} changed while it was copied; run the same command again.")
    return "copied"


def _link(source: Path, target: Path) -> bool:
    """Make a hard link, atomically; return whether the file system could."""
    temporary = temporary_of(target)
    try:
        temporary.unlink(missing_ok=True)
        os.link(source.resolve(), temporary)
        with explain_os_errors(target, _ADVICE):
            os.replace(temporary, target)
        return True
    except OSError:  # another disk, too many links, no links at all here, someone else's file
        return False
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


# -- the manifest


def _manifest_of(inventory: Inventory) -> Manifest:
    """Return the manifest that one run of the whole plan would have written; needs neither generator nor sources."""
    if inventory.manifest is not None:
        return inventory.manifest
    identity = inventory.identity
    finished = {file: known for file, (_, known) in inventory.found.items()}
    path, _ = next(iter(inventory.found.values()))
    with open_shard(path) as file, damage_explained(path):
        (height, width, channels), max_objects = file["image"].shape[1:], file["boxes"].shape[1]
    return Manifest(
        dataset=identity["dataset"],
        generator=identity["generator"],
        config=identity["config"],
        seed=identity["seed"],
        image_shape=(int(height), int(width), int(channels)),
        max_objects=int(max_objects),
        sources=identity["sources"],
        shard_rows=identity["shard_rows"],
        splits=split_records(identity["splits"], identity["shard_rows"], finished),
        toolkit=inventory.parts[0].toolkit,
        notes=_notes(inventory),
    )


def _notes(inventory: Inventory) -> list[str]:
    return list(dict.fromkeys(note for part in inventory.parts for note in part.notes))


# -- what to type for what is missing


def commands_for_missing(inventory: Inventory) -> list[str]:
    """Return the commands that make the missing shards, one a range; each into the folder where it belongs."""
    tasks = {task.file: number for number, task in enumerate(inventory.parts[0].tasks())}
    missing = [tasks[task.file] for task in inventory.missing]
    homes = {pair: part.folder for part in inventory.parts for pair in part.ranges}
    parts = max((n for _, n in homes), default=1)
    if parts == 1:  # no array job: single shards are ranges, too
        parts = len(tasks)
    base = _command(inventory.identity)
    commands = []
    for i in sorted({number % parts for number in missing}):
        beside = inventory.parts[0].folder.parent / f"part-{i}-of-{parts}"
        home = homes.get((i, parts), beside)
        commands.append(shlex.join([*base, "--shard-range", f"{i}/{parts}", "--out", str(home)]))
    return commands


def _command(identity: dict[str, Any]) -> list[str]:
    """Return the `mobj generate` command of a data set; settings that are defaults are left out."""
    command = ["mobj", "generate", identity["generator"]]
    defaults = _defaults(identity["generator"])
    for name, value in identity["config"].items():
        if name not in defaults or _text(defaults[name]) != _text(value):
            command += ["--set", f"{name}={_text(value)}"]
    # With either of them `mobj generate` adds the split ood, unless it is told how many scenes it has.
    shifted = any(identity["config"].get(name) for name in ("holdout", "ood"))
    for split in dict.fromkeys(("train", "val", "test", *[OOD] * shifted, *identity["splits"])):
        command += [f"--{split}", str(identity["splits"].get(split, 0))]
    command += ["--seed", str(identity["seed"]), "--shard-rows", str(identity["shard_rows"])]
    return command


def _defaults(generator: str) -> dict[str, Any]:
    try:
        return {
            f.name: f.default for f in fields(resolve("generators", generator)) if f.default is not MISSING
        }
    except (MobjError, TypeError):  # not installed here: name every setting
        return {}


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)
