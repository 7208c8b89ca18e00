"""What `mobj sheet CHECKPOINT` does: pictures of a slot model on images of its data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli.console import say
from cli.evaluation_data import evaluation_data, refuse_other_size
from multiobj_data.errors import UsageError

_SHOWN = 8


def draw_model_sheet(checkpoint: str, first: int, out: str | None, options: dict[str, Any]) -> None:
    """Write the pictures and print their names.

    Args:
        checkpoint: File of `mobj train`.
        first: Index of the first image that is reconstructed.
        out: Folder; beside the checkpoint if not given.
        options: ``data``, ``split``, ``device``, ``digits_root``, as `mobj evaluate` has them.

    Raises:
        UsageError: The model has no slots, or the split no such image.
        DataError: A file is missing or damaged.
    """
    import numpy as np

    from cli.slot_pictures import draw_slot_model
    from multiobj_data.devices import resolve_device
    from multiobj_data.files import make_folder
    from reference_models.checkpoints import load_checkpoint
    from reference_models.slot_vae_settings import SlotVAEConfig

    loaded = load_checkpoint(Path(checkpoint), resolve_device(options["device"]))
    if not isinstance(loaded.model.config, SlotVAEConfig):
        raise UsageError(
            f"{checkpoint}: {loaded.model_id} has no slots to draw; sheet takes a data set or a slot model."
        )
    with evaluation_data(loaded.data, options) as source:
        refuse_other_size(loaded.model, source, options)
        if first >= len(source):
            raise UsageError(f"--first: the split {options['split']} has {len(source)} scenes, got {first}.")
        images = source.images(np.arange(first, min(first + _SHOWN, len(source))))
    folder = Path(checkpoint).parent if out is None else Path(out)
    make_folder(folder)
    say(f"drawing {loaded.model_id}, {loaded.step:,} steps")
    for path in draw_slot_model(loaded.model, images, folder):
        click.echo(str(path))
