"""What an interrupted conversion left behind, and from where it goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multiobj_data.errors import DataError, UsageError
from multiobj_data.files import explain_os_errors, write_atomically
from multiobj_data.loaders.preparing import Prepared
from multiobj_data.shards.journal import (
    Journal,
    is_whole,
    read_whole_journals,
    refuse_difference,
    stray_shards,
)
from multiobj_data.shards.manifest import CONVERTED, ShardRecord

Holds = Callable[[Sequence[Mapping[str, Any]], Mapping[str, str]], int]


@dataclass
class Shelf:
    """One split while it is written."""

    name: str
    shards: list[ShardRecord] = field(default_factory=list)
    through: int = -1  # place in the source of the last scene in the shards
    waiting: list[tuple[int, Prepared]] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Scenes in the shards."""
        return sum(shard.rows for shard in self.shards)


def part_name(split: str, number: int) -> str:
    """Return a shard's name while nobody knows how many there will be."""
    return f"part-{split}-{number:05d}.h5"


def resume(
    folder: Path, identity: Mapping[str, Any], notes: Sequence[str], holds: Holds
) -> tuple[dict[str, Shelf], int]:
    """Return the splits as an earlier run left them, and the place in the source from which to go on.

    Damaged shards and those behind them are deleted, to be written again.

    Args:
        folder: The data set's folder, locked.
        identity: What is converted; see `multiobj_data.loaders.conversion.convert`.
        notes: As in the journal.
        holds: `multiobj_data.loaders.conversion.SceneStream.holds`.

    Raises:
        DataError: If the journal of the earlier run is damaged.
        UsageError: If the folder holds something else; nothing in it has been changed then.
    """
    lines = _journal(folder, identity, holds)
    shelves: dict[str, Shelf] = {}
    for line in lines:
        shelves.setdefault(line["split"], Shelf(line["split"]))
    with explain_os_errors(folder / "shard"):
        _undo_renaming(folder, shelves)
        kept = _keep_whole(folder, lines, shelves)
        known = {shard.file for shelf in shelves.values() for shard in shelf.shards}
        strays = stray_shards(folder, known)
        if foreign := [name for name in strays if not name.startswith("part-")]:
            raise UsageError(
                f"{folder} holds {foreign[0]}, which is no part of this data set; choose another --out."
            )
        for name in strays:  # written, but not yet in the journal; or behind a damaged one
            (folder / name).unlink()
    journal = Journal(folder, (0, 1), identity, notes)
    if journal.path.exists():  # what it says is now what is there, of the files that are there now
        text = "".join(json.dumps(line) + "\n" for line in [journal.header, *kept])
        write_atomically(journal.path, text.encode())
    whole = len(kept) == len(lines)
    return shelves, kept[-1]["continue"] if kept and whole else 0


def _journal(folder: Path, identity: Mapping[str, Any], holds: Holds) -> list[dict[str, Any]]:
    """Return the finished shards of an earlier run, as far as they come of what the source files now hold."""
    journals = read_whole_journals(folder)
    _check(folder, journals)
    for header, *lines in journals.values():
        there = header.get("identity", {})
        if lines or not there.get("generator", "").startswith(CONVERTED):  # else there is nothing to lose
            refuse_difference(folder, {**there, "sources": identity["sources"]}, identity)
    header, *lines = journals.get((0, 1), [{}])
    sources = header.get("identity", {}).get("sources", identity["sources"])
    if not lines or sources == identity["sources"]:
        return lines
    if not (held := holds([line["read"] for line in lines], sources)):
        raise UsageError(
            f"{folder} holds part of a data set of other source files (another SHA-256; what was read of them is not "
            "how these begin). Choose another --out, or delete the folder and run the same command again."
        )
    return lines[:held]


def _check(folder: Path, journals: Mapping[tuple[int, int], list[dict[str, Any]]]) -> None:
    """Refuse journals that are JSON, but not as a run writes them."""
    try:
        for header, *lines in journals.values():
            is_ours = header.get("identity", {}).get("generator", "").startswith(CONVERTED)
            for line in lines if is_ours else ():
                ShardRecord(**line["record"])
                for name, kind in (("split", str), ("through", int), ("continue", int), ("read", dict)):
                    if not isinstance(line[name], kind):
                        raise TypeError(name)
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder} holds a damaged journal (.progress.jsonl) of an unfinished run; delete the folder and run the "
            "same command again."
        ) from error


def _keep_whole(folder: Path, lines: list[dict[str, Any]], shelves: dict[str, Shelf]) -> list[dict[str, Any]]:
    """Put the whole shards on their shelves, up to the first damaged one of each; return their lines."""
    kept, damaged = [], set()
    for line in lines:
        shelf, record = shelves[line["split"]], ShardRecord(**line["record"])
        if shelf.name in damaged or not is_whole(folder, record):
            damaged.add(shelf.name)
            continue
        shelf.shards.append(record)
        shelf.through = line["through"]
        kept.append(line)
    return kept


def _undo_renaming(folder: Path, splits: Mapping[str, Shelf]) -> None:
    """Give shards their first names back, should a run have been killed while it gave them the final ones."""
    for split in splits:
        for path in folder.glob(f"{split}-?????-of-?????.h5"):
            number = path.name.rsplit("-of-", 1)[0].rsplit("-", 1)[1]
            if number.isdecimal():
                path.rename(folder / part_name(split, int(number)))
