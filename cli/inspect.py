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

    from multiobj_data.shards.manifest import MANIFEST

    kind = "checkpoint" if Path(path).is_file() and Path(path).name != MANIFEST else "dataset"
    document = _checkpoint(path) if kind == "checkpoint" else _dataset(Path(path))
    if as_json:
        emit_json({"schema_version": 1, "kind": kind, **document})
        return
    for name, value in (_checkpoint_lines if kind == "checkpoint" else _dataset_lines)(document).items():
        if isinstance(value, dict) and value:
            click.echo(f"{name}:")
            emit_table([(key, _short(item)) for key, item in value.items()], ("", ""))
        elif name == "notes" and len(value) > 1:  # sentences
            click.echo("\n- ".join([f"{name}:", *value]))
        elif value != {}:
            click.echo(f"{name}: {_short(value) or 'none'}")


def _dataset(folder: Any) -> dict[str, Any]:
    from multiobj_data.shards.hdf5 import open_shard
    from multiobj_data.shards.manifest import Manifest

    manifest = Manifest.read(folder)
    shard = next(shard for split in manifest.splits.values() for shard in split.shards)
    fields: dict[str, dict[str, Any]] = {}
    with open_shard(folder / shard.file) as file:
        file.visititems(lambda name, item: fields.update(_field(name, item)))
    return {
        "dataset": manifest.dataset,
        "generator": manifest.generator,
        "toolkit": manifest.toolkit,
        "seed": manifest.seed,
        "image_shape": list(manifest.image_shape),
        "max_objects": manifest.max_objects,
        "shard_rows": manifest.shard_rows,
        "splits": {
            name: {"rows": split.rows, "shards": len(split.shards), "acceptance": split.acceptance}
            for name, split in manifest.splits.items()
        },
        "config": manifest.config,
        "fields": fields,
        "sources": manifest.sources,
        "notes": manifest.notes,
    }


def _dataset_lines(document: dict[str, Any]) -> dict[str, Any]:
    """Return the same for people: title -> text, list, or a table's rows."""
    splits = document["splits"]
    return {
        "data set": document["dataset"],
        "made by": f"mobj {document['toolkit']}, {_maker(document)}",
        "image shape": document["image_shape"],
        "splits": {
            name: f"{split['rows']:,} scenes, shards: {split['shards']}" for name, split in splits.items()
        },
        "acceptance": {
            f"{name}, {count} objects": f"{row['acceptance']:.4g} ({row['attempts']:,} candidates)"
            for name, split in splits.items()
            for count, row in split["acceptance"].items()
        },
        "settings": _flat(document["config"]),
        "fields": {name: _field_line(field) for name, field in document["fields"].items()},
        "sources (SHA-256)": document["sources"],
        "notes": document["notes"],
    }


def _maker(document: dict[str, Any]) -> str:
    from multiobj_data.shards.manifest import CONVERTED

    if document["generator"].startswith(CONVERTED):
        return f"converted by `mobj convert {document['generator'].removeprefix(CONVERTED)}`"
    return f"generator {document['generator']}, seed {document['seed']}"


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings, those within one as ``protocol.size``."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        inner = _flat(value) if isinstance(value, dict) and value else None
        flat |= {name: value} if inner is None else {f"{name}.{key}": item for key, item in inner.items()}
    return flat


def _field(name: str, item: Any) -> dict[str, dict[str, Any]]:
    if not hasattr(item, "dtype"):
        return {}
    shape = [int(size) for size in item.shape[1:]]  # of one scene
    return {name: {"dtype": str(item.dtype), "shape": shape, "compression": item.compression}}


def _field_line(field: dict[str, Any]) -> str:
    packed = f", {field['compression']}" if field["compression"] else ""
    return f"{field['dtype']} [{', '.join(['n', *map(str, field['shape'])])}]{packed}"


def _checkpoint(path: str) -> dict[str, Any]:
    from reference_models.checkpoints import read_checkpoint

    content = read_checkpoint(path)
    manifest = content["data"].get("manifest", {})
    return {
        "model": content["model_id"],
        "steps": content["step"],
        "seed": content["seed"],
        "image_shape": list(content["image_shape"]),
        "weights": sum(weights.numel() for weights in content["weights"].values()),
        "config": content["config"],
        "dataset": manifest.get("dataset"),
        "folder": content["data"].get("folder"),
    }


def _checkpoint_lines(document: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": document["model"],
        "steps": document["steps"],
        "seed": document["seed"],
        "image shape": document["image_shape"],
        "weights": document["weights"],
        "settings": document["config"],
        "trained on": f"{document['dataset']}, {document['folder']}",
    }


def _short(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
