"""`mobj generate`: scenes into shards."""

from __future__ import annotations

from typing import Any

import click

from cli.console import (
    emit_json,
    emit_table,
    parse_range,
    progress,
    resumable,
    same_command,
    say,
    start_logging,
)
from cli.options import json_option


@click.command("generate", short_help="Draw scenes into HDF5 shards.")
@click.argument("name")
@click.option(
    "--preset",
    metavar="NAME",
    help="Settings of a published data set; other options override it. See `mobj ls presets`.",
)
@click.option(
    "--counts",
    metavar="TEXT",
    help="Objects a scene: 2,4 (equal shares), 0-2, or weights 1:3,2:1.  [default: 0-2]",
)
@click.option(
    "--canvas", type=click.IntRange(min=1), metavar="N", help="Side of a scene in pixels.  [default: 50]"
)
@click.option(
    "--scale",
    metavar="TEXT",
    help="Size of objects: 0.75, 0.6..0.9, or divisor:1.3,0.1.  [default: divisor:1.3,0.1]",
)
@click.option(
    "--overlap/--no-overlap", default=None, help="Whether objects may overlap freely.  [default: overlap]"
)
@click.option(
    "--overlap-rule",
    type=click.Choice(["pixels", "boxes", "rows-and-columns", "legacy"]),
    help="What counts as overlap; implies --no-overlap.  [default: pixels]",
)
@click.option(
    "--max-iou", type=click.FloatRange(0, 1), help="Rule boxes: largest IoU of two tight boxes.  [default: 0]"
)
@click.option(
    "--margin", type=click.IntRange(min=0), help="Rule boxes: least distance in pixels.  [default: 0]"
)
@click.option(
    "--digits",
    type=click.Choice(["auto", "mnist", "bundled"]),
    help="Source of digits; auto is MNIST where it can be had.  [default: auto]",
)
@click.option(
    "--digits-root",
    metavar="DIR",
    envvar="MOBJ_DIGITS_ROOT",
    help="Folder with MNIST's idx files; otherwise they are downloaded.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any other setting of the generator (repeatable).",
)
@click.option("--train", type=click.IntRange(min=0), metavar="N", help="Training scenes.  [default: 10000]")
@click.option(
    "--val",
    type=click.IntRange(min=0),
    metavar="N",
    help="Validation scenes (from the training digits).  [default: 0]",
)
@click.option("--test", type=click.IntRange(min=0), metavar="N", help="Test scenes.  [default: 1000]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Decides every scene.")
@click.option("--out", metavar="DIR", help="Folder of the data set.  [default: data/NAME]")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="W",
    help="Processes.  [default: one a core and one, since one waits for the disk]",
)
@click.option(
    "--shard-range",
    default="0/1",
    metavar="i/n",
    help="Write only every n-th shard from the i-th: array jobs into one folder.",
)
@click.option(
    "--shard-rows",
    type=click.IntRange(min=1),
    default=4096,
    show_default=True,
    metavar="N",
    help="Scenes a shard.",
)
@click.option("--sheet/--no-sheet", default=True, show_default=True, help="Draw a contact sheet at the end.")
@click.option(
    "--dry-run", is_flag=True, help="Only say what would be written: shards, bytes, acceptance, time."
)
@json_option
def generate_command(name: str, **options: Any) -> None:
    """Draw scenes with the generator NAME into HDF5 shards with a manifest.

    The same settings and seed give the same bytes for any number of workers. An interrupted run is continued
    by the same command.

    \b
    mobj generate multi-mnist --counts 2,4 --no-overlap --train 40000 --test 2000 --out data/digits
    """
    import os
    from pathlib import Path

    from multiobj_data.generation import generate

    start_logging()
    plan = _plan(name, options)
    folder = Path(options["out"] or f"data/{name.replace(':', '-')}")
    workers = options["workers"] or (os.cpu_count() or 1) + 1
    if options["dry_run"]:
        from multiobj_data.forecast import forecast

        _print_forecast(forecast(plan, workers), options["as_json"])
        return
    part, parts = parse_range(options["shard_range"])
    total = sum(task.rows for number, task in enumerate(plan.tasks()) if number % parts == part)
    with resumable(same_command()), progress("generate", total, "scenes") as advance:
        manifest = generate(plan, folder, workers=workers, shard_range=(part, parts), on_progress=advance)
    if manifest is None:
        say(f"range {part}/{parts} is done; the manifest is written when the other ranges are.")
        if options["as_json"]:
            emit_json({"schema_version": 1, "folder": str(folder), "complete": False})
        return
    sheet = _draw_sheet(folder, manifest) if options["sheet"] else None
    _print_result(folder, manifest, sheet, options["as_json"])


def _plan(name: str, options: dict[str, Any]) -> Any:
    from multiobj_data.configuration import parse_assignments
    from multiobj_data.errors import UsageError
    from multiobj_data.plan import Plan
    from multiobj_data.presets import find_preset

    preset = find_preset(options["preset"], name) if options["preset"] else None
    settings: dict[str, Any] = dict(preset.settings) if preset else {}
    splits = {"train": 10000, "val": 0, "test": 1000} | (dict(preset.splits) if preset else {})
    for key in (
        "counts",
        "canvas",
        "scale",
        "overlap",
        "overlap_rule",
        "max_iou",
        "margin",
        "digits",
        "digits_root",
    ):
        if options[key] is not None:
            settings[key] = options[key]
    settings |= parse_assignments(options["settings"])
    by_boxes = options["max_iou"] is not None or options["margin"] is not None
    if options["overlap_rule"] or by_boxes:
        if options["overlap"]:
            raise UsageError(
                "--overlap lets objects overlap freely; --overlap-rule, --max-iou and --margin say how they may not. "
                "Give one of the two."
            )
        settings["overlap"] = False
    if by_boxes:
        settings.setdefault("overlap_rule", "boxes")
    splits |= {split: options[split] for split in splits if options[split] is not None}
    return Plan.create(name, settings, seed=options["seed"], splits=splits, shard_rows=options["shard_rows"])


def _draw_sheet(folder: Any, manifest: Any) -> str:
    from multiobj_data.loading import open_dataset
    from multiobj_data.sheet import sheet_of

    split = next(iter(manifest.splits))
    path = folder / "sheet.png"
    sheet_of(open_dataset(folder, split), path, f"{manifest.dataset}, {split} split, seed {manifest.seed}")
    return str(path)


def _print_result(folder: Any, manifest: Any, sheet: str | None, as_json: bool) -> None:
    if as_json:
        splits = {
            name: {"rows": split.rows, "shards": len(split.shards), "acceptance": split.acceptance}
            for name, split in manifest.splits.items()
        }
        document = {
            "dataset": manifest.dataset,
            "config": manifest.config,
            "splits": splits,
            "notes": manifest.notes,
        }
        emit_json({"schema_version": 1, "folder": str(folder), "complete": True, **document, "sheet": sheet})
        return
    rows = []
    for name, split in manifest.splits.items():
        shares = ", ".join(f"{count}: {row['acceptance']:.3g}" for count, row in split.acceptance.items())
        rows.append((name, f"{split.rows:,}", str(len(split.shards)), shares))
    emit_table(rows, ("split", "scenes", "shards", "accepted share of candidates, by count"))
    for note in manifest.notes:
        say(f"NOTE: {note}")
    click.echo(f"{manifest.dataset} in {folder}" + (f"; look at {sheet}" if sheet else ""))


def _print_forecast(prospect: Any, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        emit_json({"schema_version": 1, **asdict(prospect)})
        return
    for name, rows in prospect.splits.items():
        click.echo(f"{name}: {rows:,} scenes")
    click.echo(f"shards: {prospect.shards}, about {prospect.bytes / 1e6:,.0f} MB")
    for count, share in prospect.acceptance.items():
        click.echo(f"{count} objects: about {share:.2g} of candidate scenes accepted")
    click.echo(f"about {prospect.seconds:,.0f} s with {prospect.workers} workers")
