"""`mobj inspect`: what is in a data set, or in a checkpoint."""

from __future__ import annotations

from typing import Any

import click

from cli.console import emit_json, emit_table
from cli.options import json_option


@click.command("inspect", short_help="Show what is in a data set or a checkpoint.")
@click.argument("path", type=click.Path(path_type=str))
@json_option
def inspect_command(path: str, as_json: bool) -> None:
    """Show the settings, splits, fields and sources of the data set (a folder) or checkpoint at PATH.

    \b
    mobj inspect data/digits
    """
    from pathlib import Path

    document = _checkpoint(path) if Path(path).is_file() else _dataset(Path(path))
    if as_json:
        emit_json({"schema_version": 1, **document})
        return
    for name, value in document.items():
        if isinstance(value, dict) and value:
            click.echo(f"{name}:")
            emit_table([(key, _short(item)) for key, item in value.items()], ("", ""))
        else:
            click.echo(f"{name}: {_short(value) or 'none'}")


def _dataset(folder: Any) -> dict[str, Any]:
    from multiobj_data.manifest import Manifest
    from multiobj_data.shards import open_shard

    manifest = Manifest.read(folder)
    shard = next(shard for split in manifest.splits.values() for shard in split.shards)
    fields: dict[str, str] = {}
    with open_shard(folder / shard.file) as file:
        file.visititems(lambda name, item: fields.update(_field(name, item)))
    return {
        "data set": manifest.dataset,
        "made by": f"mobj {manifest.toolkit}, generator {manifest.generator}, seed {manifest.seed}",
        "image shape": list(manifest.image_shape),
        "splits": {
            name: f"{split.rows:,} scenes, shards: {len(split.shards)}"
            for name, split in manifest.splits.items()
        },
        "acceptance": {
            f"{name}, {count} objects": f"{row['acceptance']:.4g} ({row['attempts']:,} candidates)"
            for name, split in manifest.splits.items()
            for count, row in split.acceptance.items()
        },
        "settings": manifest.config,
        "fields": fields,
        "sources (SHA-256)": manifest.sources,
        "notes": manifest.notes,
    }


def _field(name: str, item: Any) -> dict[str, str]:
    if not hasattr(item, "dtype"):
        return {}
    shape = ", ".join(map(str, item.shape[1:]))
    packed = f", {item.compression}" if item.compression else ""
    return {name: f"{item.dtype} [n{', ' + shape if shape else ''}]{packed}"}


def _checkpoint(path: str) -> dict[str, Any]:
    from reference_models.checkpoints import read_checkpoint

    content = read_checkpoint(path)
    manifest = content["data"].get("manifest", {})
    return {
        "model": content["model_id"],
        "steps": content["step"],
        "seed": content["seed"],
        "image shape": content["image_shape"],
        "weights": sum(weights.numel() for weights in content["weights"].values()),
        "settings": content["config"],
        "trained on": ", ".join(map(str, (manifest.get("dataset"), content["data"].get("folder")))),
    }


def _short(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
