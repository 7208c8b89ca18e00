"""`mobj convert`: a public set into shards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from cli.console import (
    emit_json,
    emit_table,
    progress,
    refuse_empty_options,
    resumable,
    same_command,
    say,
    start_logging,
)
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
    metavar="N",
    help="Pixels from which an object counts as visible (rules visible*).  [default: 1]",
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
@click.option("--downloads", metavar="DIR", help="Where downloads are kept.  [default: the user's cache]")
@click.option(
    "--mirror",
    "mirrors",
    multiple=True,
    metavar="ADDRESS",
    help="A folder of the same files elsewhere, asked for what the first address does not give (repeatable).",
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
    """Convert the public set NAME into HDF5 shards.

    SOURCE is its file or folder; the word `download`, which gets the files from their publisher; or the address of a
    file, or of a folder of them (ending in /). Downloads are kept, and go on where they broke off. TensorFlow is not
    needed. An interrupted run is continued by the same command. NAME may also be tfds:SET, with the folder of a data
    set that TensorFlow Datasets has prepared as array_record files (pip install 'mobj[tfds]').

    \b
    mobj convert clevr6 clevr_with_masks_train.tfrecords --out data/clevr6
    mobj convert objects-room download --protocol genesis
    """
    from pathlib import Path

    from multiobj_data.errors import UsageError
    from multiobj_data.loaders.conversion import convert

    start_logging()
    refuse_empty_options(options)
    if not source.strip():
        raise UsageError(
            "SOURCE: expected a file, a folder, an address or the word download, got an empty text."
        )
    with resumable(same_command()):
        here = _here(name, source, options["downloads"], options["mirrors"])
        with _naming_download(source, here):
            with _explaining(source):
                stream = _open(name, here, options)
            folder = Path(options["out"] or f"data/{stream.name.rpartition(':')[2]}")
            with progress("convert", stream.size, stream.unit) as advance:
                manifest = convert(stream, folder, shard_rows=options["shard_rows"], on_progress=advance)
    _print_result(folder, manifest, options)


@contextmanager
def _explaining(source: str) -> Iterator[None]:
    """Say in a sentence why a source cannot be looked at: no permission, a name that is too long."""
    from multiobj_data.errors import DataError, shortened

    try:
        yield
    except OSError as error:
        raise DataError(
            f"{shortened(str(error.filename or source))} cannot be read: {error.strerror or error}."
        ) from error


@contextmanager
def _naming_download(source: str, here: Any) -> Iterator[None]:
    """Say of damaged data that were downloaded how to get them again: what is there is not asked for."""
    from multiobj_data.errors import DataError
    from multiobj_data.loaders.download import is_address

    try:
        yield
    except DataError as error:
        if str(here) == source or not (is_address(source) or source == "download"):
            raise
        raise DataError(
            f"{error} What was downloaded is kept in {here}: delete what is damaged, and the same command gets it "
            "again."
        ) from error


def _here(name: str, source: str, downloads: str | None, mirrors: tuple[str, ...]) -> Any:
    """Return where the files are, downloaded if need be."""
    from contextlib import ExitStack
    from pathlib import Path

    from multiobj_data.errors import UsageError, quoted
    from multiobj_data.loaders.download import default_cache, is_address
    from multiobj_data.loaders.sets import DOWNLOAD, download, find_set

    for mirror in mirrors:
        if not is_address(mirror):
            raise UsageError(
                f"--mirror: expected an address (http://... or https://...), got {quoted(mirror)}."
            )
    if not is_address(source) and (source != DOWNLOAD or Path(source).exists()):
        return Path(source)
    if name.startswith("tfds:"):
        raise UsageError(
            f"{name} cannot be downloaded by mobj: prepare it with tensorflow-datasets (tfds build "
            "--file_format=array_record), and give the folder of the version as SOURCE."
        )
    bars: dict[str, Any] = {}
    shown: dict[str, int] = {}
    with ExitStack() as stack:

        def on_bytes(file: str, done: int, total: int) -> None:
            if file not in bars:
                stack.close()  # the bar of the file before
                bars[file] = stack.enter_context(progress(f"download {file}", total, "bytes"))
            bars[file](done - shown.get(file, 0))
            shown[file] = done

        folder = Path(downloads) if downloads else default_cache()
        return download(find_set(name), source, folder, on_bytes, mirrors)


def _open(name: str, source: Any, options: dict[str, Any]) -> Any:
    """Return the stream that the options describe."""
    import os

    from multiobj_data.loaders.protocols import find_protocol
    from multiobj_data.loaders.sets import find_files, find_set
    from multiobj_data.loaders.streams import RecordStream, Request

    if name.startswith("tfds:"):
        return _open_tfds(name, source, options)
    public = find_set(name)
    protocol = find_protocol(public.source, options["protocol"])
    request = Request(public, protocol, _selection(options, protocol, public.most), options["limit"])
    if name != "shapestacks":
        _refuse(name, options, "release_split", "maps", "blacklists", "workers")
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


def _open_tfds(name: str, source: Any, options: dict[str, Any]) -> Any:
    from multiobj_data.loaders.protocols import find_protocol
    from multiobj_data.loaders.streams import Request
    from multiobj_data.loaders.tfds_stream import PREFIX, Prebuilt, TfdsStream

    _refuse(name, options, "release_split", "maps", "blacklists", "workers")
    data = Prebuilt(name.removeprefix(PREFIX), source)
    protocol = find_protocol("tfds", options["protocol"])
    request = Request(data.public(), protocol, _selection(options, protocol, None), options["limit"])
    return TfdsStream(request, data)


def _selection(options: dict[str, Any], protocol: Any, most: int | None) -> Any:
    """Return which scenes are kept; ``most`` is the set's own bound."""
    from multiobj_data.loaders.preparing import Selection

    selection = Selection(
        rule=options["count_rule"] or _rule(protocol.count_rule, options, most),
        least=options["min_objects"] or 0,
        most=most if options["max_objects"] is None else options["max_objects"],
        min_pixels=options["min_pixels"] or 1,
    )
    _refuse_contradictions(selection, options, most)
    return selection


def _refuse_contradictions(selection: Any, options: dict[str, Any], most: int | None) -> None:
    """Refuse options that would be recorded, and change nothing or another thing than they say."""
    from multiobj_data.errors import UsageError

    rule, wanted = selection.rule, selection.most
    asked = [f"--{side}-objects" for side in ("min", "max") if options[f"{side}_objects"] is not None]
    if rule == "none" and asked:
        raise UsageError(
            f"{asked[0]} counts objects and --count-rule none counts nothing; leave one of them out."
        )
    if options["min_pixels"] is not None and not rule.startswith("visible"):
        raise UsageError(
            f"--min-pixels belongs to --count-rule visible or visible-before-crop, the rule is {rule}; leave it out."
        )
    if wanted is not None and selection.least > wanted:
        raise UsageError(
            f"expected no more than the most objects, {wanted}, as the fewest; got {selection.least}."
        )
    bound = None if most is None else most + (rule == "source-with-background")
    if bound is not None and (rule == "none" or wanted > bound):
        raise UsageError(
            f"this set is of scenes of at most {most} objects, which --count-rule none would not look at and "
            "--max-objects cannot raise; convert the whole set instead (clevr, not clevr6)."
        )


def _refuse(name: str, options: dict[str, Any], *foreign: str) -> None:
    from multiobj_data.errors import UsageError

    for option in foreign:
        if options[option]:
            raise UsageError(f"--{option.replace('_', '-')} does not belong to {name}; leave it out.")


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
        title = f"{manifest.dataset}, {split} split"
        sheet_of(open_dataset(folder, split), Path(sheets[-1]), title)
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
