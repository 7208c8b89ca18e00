"""`mobj import-weights`: weights that a model's authors published, as a checkpoint that `mobj evaluate` scores."""

from __future__ import annotations

from pathlib import Path

import click

from cli.console import emit_json, refuse_empty_options
from cli.options import json_option


@click.command("import-weights", short_help="Make a checkpoint of weights that authors published.")
@click.argument("model")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", required=True, metavar="CKPT", help="Where the checkpoint goes.")
@click.option(
    "--image-size",
    default="64",
    show_default=True,
    metavar="SIDE|HxW",
    help="Of the images that the weights were trained on, in pixels.",
)
@click.option(
    "--preset", metavar="NAME", help="Settings of a paper or its code; `mobj ls model-presets` lists them."
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting that the file does not tell, such as slots=9 (repeatable).",
)
@json_option
def import_weights_command(
    model: str,
    file: Path,
    out: str,
    image_size: str,
    preset: str | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Read FILE, which the authors' code of MODEL saved, and write a checkpoint of ours.

    Models: genesis, genesis-v2, sri (on GENESIS-v2) and emorl. Of the file, only tensors are read; weights of another
    architecture are refused, with the names that are missing or too many and the shapes that differ.

    \b
    mobj import-weights genesis-v2 model.ckpt-FINAL --image-size 64 --set slots=9 --out genesis-v2.pt
    mobj evaluate genesis-v2.pt --data data/shapestacks
    """
    from multiobj_data.configuration import parse_assignments
    from multiobj_data.errors import UsageError
    from reference_models.checkpoints import save_checkpoint
    from reference_models.presets import preset_settings
    from reference_models.released import import_weights

    refuse_empty_options({"out": out, "image_size": image_size, "preset": preset})
    if Path(out).exists():
        raise UsageError(f"--out {out}: is there already; give another path, or remove it first.")
    height, width = _sides(image_size)
    chosen = {**(preset_settings(model, preset) if preset else {}), **parse_assignments(settings)}
    checkpoint = import_weights(model, file, (height, width, 3), chosen)
    save_checkpoint(Path(out), checkpoint)
    numbers = sum(parameter.numel() for parameter in checkpoint.model.parameters())
    if as_json:
        emit_json({"schema_version": 1, "model": model, "file": str(file), "out": out, "parameters": numbers})
        return
    click.echo(f"{out}: {model} with {numbers:,} parameters; score it with mobj evaluate {out} --data DIR")


def _sides(text: str) -> tuple[int, int]:
    from multiobj_data.errors import UsageError, quoted

    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise UsageError(f"--image-size: expected pixels such as 64 or 64x96, got {quoted(text)}.")
    return int(sides[0]), int(sides[-1])
