"""`mobj convert`: a public set into shards."""

from __future__ import annotations

from typing import Any

import click

from cli.console import emit_json, emit_table, progress, resumable, same_command, say, start_logging
from cli.options import json_option

RULES = ("none", "source", "source-with-background", "visible-before-crop", "visible")


class _WithSets(click.Command):
    """Lists the public sets and their protocols at the end of ``--help``."""

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sets and protocols."""
        from multiobj_data.loaders.protocols import protocols
        from multiobj_data.loaders.sets import PUBLIC_SETS

        with formatter.section("Public sets (NAME)"):
            formatter.write_dl([(name, each.about) for name, each in PUBLIC_SETS.items()])
        for source in dict.fromkeys(each.source for each in PUBLIC_SETS.values()):
            with formatter.section(f"Protocols for {source} (--protocol)"):
                formatter.write_dl([(name, each.about) for name, each in protocols(source).items()])


@click.command("convert", cls=_WithSets, short_help="Convert a public set into HDF5 shards.")
@click.argument("name")
@click.argument("source")
@click.option("--out", metavar="DIR", help="Folder of the data set.  [default: data/NAME]")
@click.option(
    "--protocol",
    default="default",
    show_default=True,
    metavar="NAME",
    help="Whose filter, crop, resize and split; see below.",
)
@click.option(
    "--count-rule",
    type=click.Choice(RULES),
    help="What is counted where scenes are chosen by their number of objects.  [default: the protocol's]",
)
@click.option(
    "--min-objects",
    type=click.IntRange(min=0),
    metavar="N",
    help="Fewest objects of a scene that is kept.  [default: 0]",
)
@click.option(
    "--max-objects",
    type=click.IntRange(min=0),
    metavar="N",
    help="Most objects.  [default: 6 for clevr6, no bound for others]",
)
@click.option(
    "--min-pixels",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Pixels from which an object counts as visible (rules visible*).",
)
@click.option(
    "--release-split",
    metavar="NAME",
    help="ShapeStacks: default, blocks_all, ccs_all, or all for whatever is there.  [default: default]",
)
@click.option(
    "--maps",
    type=click.Choice(["iseg", "vseg"]),
    help="ShapeStacks: label maps of instances, or of roles in the violation.  [default: iseg]",
)
@click.option("--blacklists", is_flag=True, help="ShapeStacks: leave out what its blacklists name.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="W",
    help="ShapeStacks: processes.  [default: one a core]",
)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Read only the first N records of each file."
)
@click.option(
    "--shard-rows",
    type=click.IntRange(min=1),
    metavar="N",
    help="Scenes a shard.  [default: what takes about 32 MB]",
)
@click.option(
    "--sheet/--no-sheet",
    default=True,
    show_default=True,
    help="Draw a contact sheet of each split at the end.",
)
@json_option
def convert_command(name: str, source: str, **options: Any) -> None:
    """Convert the public set NAME, whose files are at SOURCE (a file or a folder), into HDF5 shards.

    TensorFlow is not needed. An interrupted run is continued by the same command.

    \b
    mobj convert clevr6 clevr_with_masks_train.tfrecords --out data/clevr6
    mobj convert objects-room downloads/objects_room --protocol genesis
    """
    from pathlib import Path

    from multiobj_data.conversion import convert

    start_logging()
    stream = _open(name, Path(source), options)
    folder = Path(options["out"] or f"data/{name}")
    with resumable(same_command()), progress("convert", stream.size, stream.unit) as advance:
        manifest = convert(stream, folder, shard_rows=options["shard_rows"], on_progress=advance)
    _print_result(folder, manifest, options)


def _open(name: str, source: Any, options: dict[str, Any]) -> Any:
    """Return the stream that the options describe."""
    import os

    from multiobj_data.loaders.preparing import Selection
    from multiobj_data.loaders.protocols import find_protocol
    from multiobj_data.loaders.sets import find_files, find_set
    from multiobj_data.loaders.streams import RecordStream, Request

    public = find_set(name)
    protocol = find_protocol(public.source, options["protocol"])
    selection = Selection(
        rule=options["count_rule"] or _rule(protocol.count_rule, options, public.most),
        least=options["min_objects"] or 0,
        most=public.most if options["max_objects"] is None else options["max_objects"],
        min_pixels=options["min_pixels"],
    )
    request = Request(public, protocol, selection, options["limit"])
    if name != "shapestacks":
        _refuse(name, options, "release_split", "maps", "blacklists")
        return RecordStream(request, find_files(public, source))
    from multiobj_data.loaders.shapestacks import PARTS, ShapeStacks
    from multiobj_data.loaders.stack_stream import StackStream

    stacks = ShapeStacks(
        source,
        split=options["release_split"] or "default",
        parts=PARTS,
        maps=options["maps"] or "iseg",
        blacklists=options["blacklists"],
    )
    return StackStream(request, stacks, options["workers"] or os.cpu_count() or 1)


def _refuse(name: str, options: dict[str, Any], *only_shapestacks: str) -> None:
    from multiobj_data.errors import UsageError

    for option in only_shapestacks:
        if options[option]:
            raise UsageError(
                f"--{option.replace('_', '-')} belongs to shapestacks, not to {name}; leave it out."
            )


def _rule(rule: str, options: dict[str, Any], most: int | None) -> Any:
    """Return what is counted; who asks for a number of objects wants some counted."""
    asked = options["min_objects"] is not None or options["max_objects"] is not None
    return "source" if rule == "none" and (asked or most is not None) else rule


def _print_result(folder: Any, manifest: Any, options: dict[str, Any]) -> None:
    from pathlib import Path

    from multiobj_data.loading import open_dataset
    from multiobj_data.sheet import sheet_of

    sheets = []
    for split in manifest.splits if options["sheet"] else ():
        sheets.append(str(folder / f"sheet-{split}.png"))
        sheet_of(open_dataset(folder, split), Path(sheets[-1]), f"{manifest.dataset}, {split} split")
    rows = {
        name: {"rows": split.rows, "shards": len(split.shards)} for name, split in manifest.splits.items()
    }
    if options["as_json"]:
        document = {
            "dataset": manifest.dataset,
            "config": manifest.config,
            "splits": rows,
            "notes": manifest.notes,
        }
        emit_json(
            {"schema_version": 1, "folder": str(folder), "complete": True, **document, "sheets": sheets}
        )
        return
    emit_table(
        [(name, f"{row['rows']:,}", str(row["shards"])) for name, row in rows.items()],
        ("split", "scenes", "shards"),
    )
    for note in manifest.notes:
        say(f"NOTE: {note}")
    click.echo(f"{manifest.dataset} in {folder}" + (f"; look at {sheets[0]}" if sheets else ""))
