"""`mobj export`: a data set in other people's formats."""

from __future__ import annotations

import click

from cli.console import (
    emit_json,
    interruptible,
    progress,
    refuse_empty_options,
    same_command,
    say,
    start_logging,
)
from cli.options import json_option
from multiobj_data.exports.names import FORMATS

_LINES = "\n".join(f"{name:<11} {about}" for name, about in FORMATS.items())
_HELP = f"""Write the data set in FOLDER in another format, with a card (README.md) and Croissant metadata.

The folder appears once it is whole. parquet and tfds need `pip install 'mobj[export]'`.

\b
{_LINES}

\b
mobj export data/digits --to parquet --out data/digits-parquet
"""


@click.command("export", help=_HELP, short_help="Write a data set in another format.")
@click.argument("folder", type=click.Path(path_type=str))
@click.option(
    "--to",
    "format_name",
    required=True,
    type=click.Choice(list(FORMATS)),
    help="The format.",
)
@click.option(
    "--out", metavar="DIR", help="Folder to write; only croissant has a default, the data set's own."
)
@click.option(
    "--split", "splits", multiple=True, metavar="NAME", help="Which split (repeatable).  [default: all]"
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many scenes a split.")
@click.option(
    "--license",
    "licence",
    metavar="ID",
    help="The data's licence, as an SPDX identifier.  [default: what is known of the source images]",
)
@json_option
def export_command(
    folder: str,
    format_name: str,
    out: str | None,
    splits: tuple[str, ...],
    limit: int | None,
    licence: str | None,
    as_json: bool,
) -> None:
    """Write a data set in another format; the help text is above, since it lists the formats."""
    from pathlib import Path

    from multiobj_data.exports.formats import export
    from multiobj_data.exports.subset import Subset

    start_logging()
    refuse_empty_options({"out": out, "license": licence})
    total = Subset.of(Path(folder), splits, limit).total
    consequence = f"the unfinished export was removed. To start again: {same_command()}"
    with interruptible(consequence), progress("export", total, "scenes") as advance:
        done = export(
            folder, format_name, out, splits=splits, limit=limit, licence=licence, on_progress=advance
        )
    if done.request["licence"] is None:
        say("NOTE: the data's licence is not known; name it with --license before you publish.")
    if format_name == "croissant" and out:
        say("NOTE: it names the shards as files beside it: publish both in one folder.")
    if as_json:
        emit_json({"schema_version": 1, **done.document()})
        return
    state = "" if done.fresh else ", already there and whole"
    click.echo(f"{format_name} in {done.folder}: {total:,} scenes, {len(done.files):,} files{state}")
