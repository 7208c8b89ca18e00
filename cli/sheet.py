"""`mobj sheet`: a contact sheet of a data set."""

from __future__ import annotations

import click

from cli.console import say


@click.command("sheet", short_help="Draw a contact sheet of a data set.")
@click.argument("folder", type=click.Path(path_type=str))
@click.option("--split", default="train", show_default=True, help="Which split.")
@click.option(
    "--first",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="I",
    help="Index of the first scene shown.",
)
@click.option("--out", metavar="FILE", help="The picture.  [default: FOLDER/sheet-SPLIT.png]")
def sheet_command(folder: str, split: str, first: int, out: str | None) -> None:
    """Draw 64 scenes of FOLDER with boxes and label maps, and histograms of counts and overlap, as a PNG.

    \b
    mobj sheet data/digits --split test
    """
    from pathlib import Path

    import numpy as np

    from multiobj_data.errors import UsageError
    from multiobj_data.loading import open_dataset
    from multiobj_data.sheet import contact_sheet

    source = open_dataset(folder, split)
    if first >= len(source):
        raise UsageError(f"--first: the split {split} has {len(source)} scenes, got {first}.")
    path = Path(out or Path(folder) / f"sheet-{split}.png")
    scenes = source.scenes(np.arange(first, min(first + 2048, len(source))))
    say(f"drawing {path}")
    contact_sheet(scenes, path, f"{source.manifest.dataset}, {split} split, from scene {first}")
    click.echo(str(path))
