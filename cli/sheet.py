"""`mobj sheet`: a contact sheet of a data set, or of what a slot model makes of it."""

from __future__ import annotations

from collections.abc import Iterable

import click

from cli.console import refuse_empty_options, say
from cli.options import device_option


@click.command("sheet", short_help="Draw a contact sheet of a data set, or of a slot model.")
@click.argument("folder", type=click.Path(path_type=str), metavar="FOLDER|CHECKPOINT")
@click.option(
    "--split",
    metavar="NAME",
    help="Which split.  [default: train, or else the first; of a checkpoint's data, test]",
)
@click.option(
    "--first",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="I",
    help="Index of the first scene shown.",
)
@click.option(
    "--out",
    metavar="FILE|DIR",
    help="The picture.  [default: FOLDER/sheet-SPLIT.png]  Of a checkpoint, the folder of its pictures.  "
    "[default: beside it]",
)
@click.option("--data", metavar="DIR", help="Of a checkpoint: images from there.  [default: its own data]")
@device_option
def sheet_command(
    folder: str, split: str | None, first: int, out: str | None, data: str | None, device: str
) -> None:
    """Draw 64 scenes of FOLDER (16 if large) with boxes and label maps, and histograms of counts and overlap, as PNG.

    Of the CHECKPOINT of a slot model, draw reconstructions with every slot in order, and samples; of SRI also
    rollouts; and of one with a scene variable, a walk through it as GIF.

    \b
    mobj sheet data/digits --split test
    mobj sheet runs/sri/seed-0/checkpoint.pt
    """
    from pathlib import Path

    from multiobj_data.errors import UsageError
    from multiobj_data.shards.manifest import MANIFEST

    refuse_empty_options({"split": split, "out": out, "data": data})
    if Path(folder).is_file() and Path(folder).name != MANIFEST:
        from cli.model_sheet import draw_model_sheet

        request = {"data": data, "split": split or "test", "device": device, "digits_root": None}
        draw_model_sheet(folder, first, out, request)
        return
    if data is not None:
        raise UsageError("--data belongs to a checkpoint; a data set is its own.")
    if out is not None and Path(out).suffix.lower() != ".png":
        raise UsageError(f"--out {out}: expected a name that ends in .png, which the picture is.")
    from multiobj_data.loading import open_dataset
    from multiobj_data.shards.manifest import Manifest
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
