"""`mobj sheet`: a contact sheet of a data set."""

from __future__ import annotations

from collections.abc import Iterable

import click

from cli.console import say


@click.command("sheet", short_help="Draw a contact sheet of a data set.")
@click.argument("folder", type=click.Path(path_type=str))
@click.option("--split", metavar="NAME", help="Which split.  [default: train, or else the first]")
@click.option(
    "--first",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="I",
    help="Index of the first scene shown.",
)
@click.option("--out", metavar="FILE", help="The picture.  [default: FOLDER/sheet-SPLIT.png]")
def sheet_command(folder: str, split: str | None, first: int, out: str | None) -> None:
    """Draw 64 scenes of FOLDER (16 if large) with boxes and label maps, and histograms of counts and overlap, as PNG.

    \b
    mobj sheet data/digits --split test
    """
    from pathlib import Path

    from multiobj_data.errors import UsageError
    from multiobj_data.loading import open_dataset
    from multiobj_data.manifest import Manifest
    from multiobj_data.sheet import sheet_of

    if split is None:
        split = _default_split(Manifest.read(Path(folder)).splits)
    source = open_dataset(folder, split)
    if first >= len(source):
        raise UsageError(f"--first: the split {split} has {len(source)} scenes, got {first}.")
    path = Path(out or Path(folder) / f"sheet-{split}.png")
    say(f"drawing {path}")
    sheet_of(source, path, f"{source.manifest.dataset}, {split} split, from scene {first}", first)
    click.echo(str(path))


def _default_split(splits: Iterable[str]) -> str:
    names = list(splits)
    return "train" if "train" in names else names[0]
