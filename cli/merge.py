"""`mobj merge`: the parts of an array job become one data set."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from cli.console import emit_json, progress, refuse_empty_options, resumable, same_command, say, start_logging
from cli.options import json_option

if TYPE_CHECKING:
    from multiobj_data.generation.parts import Inventory

_MOST_NAMED = 5


@click.command("merge", short_help="Make one data set of the folders of an array job.")
@click.argument("parts", nargs=-1, required=True, metavar="PART...")
@click.option("--out", required=True, metavar="DIR", help="Folder of the whole data set; none of the parts.")
@click.option("--copy", is_flag=True, help="Copy every shard, even where a hard link would do.")
@click.option("--dry-run", is_flag=True, help="Only check the parts.")
@json_option
def merge_command(parts: tuple[str, ...], out: str, copy: bool, dry_run: bool, as_json: bool) -> None:
    """Bring the shards of all PARTs into one folder and write its manifest.

    A PART is a folder that `mobj generate --shard-range i/n` wrote where jobs share no disk, or a finished data
    set. Every byte is checked. The parts are left as they are; shards are hard links where the file system can.
    A merge that was interrupted is continued by the same command.

    Exit codes: 3 if shards are missing or damaged, 2 if a part is of another data set.

    \b
    mobj merge part-0 part-1 part-2 --out data/digits
    """
    from pathlib import Path

    from multiobj_data.generation.merging import merge, survey

    start_logging()
    refuse_empty_options({"out": out})
    folders, target = [Path(part) for part in parts], Path(out)
    with resumable(same_command()):
        with progress("check", _scenes(folders[0]), "scenes") as advance:
            inventory = survey(folders, target, advance)
        facts = _facts(inventory)
        if inventory.missing:
            if as_json:
                emit_json({"schema_version": 1, "folder": out, "complete": False, **facts})
            raise _incomplete(inventory, facts)
        for path in facts["damaged"]:
            say(f"{path} is damaged; another part has the shard whole.")
        if dry_run:
            _finish(
                as_json, {"folder": out, "complete": False, **facts}, f"nothing is missing: {_counts(facts)}."
            )
            return
        with progress("merge", inventory.scenes, "scenes") as advance:
            merged = merge(inventory, target, link=not copy, on_progress=advance)
    facts |= {"linked": merged.linked, "copied": merged.copied, "kept": merged.kept}
    how = f"{merged.linked} linked, {merged.copied} copied, {merged.kept} already there"
    _finish(
        as_json,
        {"folder": out, "complete": True, **facts},
        f"{merged.manifest.dataset} in {target}: {_counts(facts)}; {how}. Look at it: mobj sheet "
        f"{shlex.quote(str(target))}",
    )


def _scenes(folder: Any) -> int:
    from multiobj_data.generation.parts import read_part

    return sum(read_part(folder).identity["splits"].values())


def _facts(inventory: Inventory) -> dict[str, Any]:
    from multiobj_data.generation.merging import commands_for_missing

    return {
        "dataset": inventory.identity["dataset"],
        "scenes": inventory.scenes,
        "shards": len(inventory.found) + len(inventory.missing),
        "duplicates": inventory.duplicates,
        "damaged": [str(path) for path in inventory.damaged],
        "missing": [task.file for task in inventory.missing],
        "commands": commands_for_missing(inventory) if inventory.missing else [],
    }


def _counts(facts: dict[str, Any]) -> str:
    return f"{facts['scenes']:,} scenes in {facts['shards']:,} shards, {facts['duplicates']} duplicates"


def _finish(as_json: bool, document: dict[str, Any], sentence: str) -> None:
    if as_json:
        emit_json({"schema_version": 1, **document})
    else:
        click.echo(sentence)


def _incomplete(inventory: Inventory, facts: dict[str, Any]) -> Exception:
    from multiobj_data.errors import DataError

    missing, damaged, commands = facts["missing"], facts["damaged"], facts["commands"]
    because = f"; damaged: {_some(damaged)}" if damaged else ""
    lines = commands[:_MOST_NAMED]
    if len(commands) > len(lines):
        lines.append(f"... and {len(commands) - len(lines)} more: --json lists them all")
    return DataError(
        f"{len(missing)} of {facts['shards']} shards are missing: {_some(missing)}{because}. What makes them, before "
        "the merge is run again:\n  " + "\n  ".join(lines)
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
