"""`mobj generate`: scenes into shards."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import click

from cli.console import (
    emit_json,
    emit_table,
    parse_range,
    progress,
    refuse_empty_options,
    resumable,
    same_command,
    say,
    start_logging,
)
from cli.options import json_option
from cli.request import plan_of_request


class _WithPresets(click.Command):
    """Lists the presets, with their papers, at the end of ``--help``."""

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the presets."""
        from multiobj_data.presets import presets

        with formatter.section("Presets (--preset)"):
            formatter.write_dl([(name, preset.about) for name, preset in presets().items()])


@click.command("generate", cls=_WithPresets, short_help="Draw scenes into HDF5 shards.")
@click.argument("name", required=False)
@click.option(
    "--preset",
    metavar="NAME",
    help="Settings of a published data set (see below); other options override it, and NAME may be left out.",
)
@click.option(
    "--counts",
    metavar="TEXT",
    help="Objects a scene: 2,4 (equal shares), 0-2, or weights 1:3,2:1.  [default: the generator's]",
)
@click.option(
    "--canvas",
    type=click.IntRange(min=1),
    metavar="N",
    help="Side of a scene in pixels.  [default: the generator's]",
)
@click.option(
    "--scale",
    metavar="TEXT",
    help="Size of objects: 0.75, 0.6..0.9; digits also divisor:1.3,0.1; dSprites also 0.5..1/6 (six values).  "
    "[default: the generator's]",
)
@click.option(
    "--overlap/--no-overlap",
    default=None,
    help="Whether objects may overlap freely.  [default: they may; sprites: not]",
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
    "--background",
    metavar="TEXT",
    help="plain, noise or grid (SuPAIR's), or with constants: noise:0.8,0.1,0.2, grid:5,0.4.  [default: plain]",
)
@click.option(
    "--holdout",
    metavar="TEXT",
    help="Objects that train, val and test never show, e.g. 'shape=heart & colour=red'; every scene of the split "
    "ood holds one. `mobj ls settings NAME` lists the factors.",
)
@click.option(
    "--ood-set",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting that differs in the split ood, e.g. counts=4-6 (repeatable).",
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
    help="Any other setting of the generator (repeatable); `mobj ls settings NAME` lists them.",
)
@click.option(
    "--train",
    type=click.IntRange(min=0),
    metavar="N",
    help="Training scenes.  [default: 10000, or the preset's]",
)
@click.option(
    "--val",
    type=click.IntRange(min=0),
    metavar="N",
    help="Validation scenes (from the training digits).  [default: 0, or the preset's: some bring 5,000 or 10,000]",
)
@click.option(
    "--test", type=click.IntRange(min=0), metavar="N", help="Test scenes.  [default: 1000, or the preset's]"
)
@click.option(
    "--ood",
    type=click.IntRange(min=0),
    metavar="N",
    help="Scenes out of distribution; needs --holdout or --ood-set.  [default: as many as --test, with these]",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Decides every scene.")
@click.option("--out", metavar="DIR", help="Folder of the data set.  [default: data/NAME]")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="W",
    help="Processes.  [default: one a core and one, since one waits for the disk]",
)
@click.option(
    "--scheduler",
    metavar="tcp://HOST:PORT",
    help="Let the workers of this Dask cluster write the shards, instead of processes here; they share --out.",
)
@click.option(
    "--shard-range",
    default="0/1",
    metavar="i/n",
    help="Write only every n-th shard from the i-th: array jobs into one folder (or several: see `mobj merge`).",
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
def generate_command(name: str | None, **options: Any) -> None:
    """Draw scenes with the generator NAME into HDF5 shards with a manifest.

    The same settings and seed give the same bytes for any number of workers. An interrupted run is continued
    by the same command.

    \b
    mobj generate multi-mnist --counts 2,4 --no-overlap --train 40000 --test 2000 --out data/digits
    mobj generate --preset supair-grid
    mobj generate multi-dsprites --holdout "shape=heart & colour=red" --ood-set counts=5,6
    """
    import os
    from pathlib import Path

    from multiobj_data.composition.memory import keep_freed_memory
    from multiobj_data.generation.executors import in_processes, on_cluster
    from multiobj_data.generation.running import generate, tasks_of

    start_logging()
    refuse_empty_options({key: value for key, value in options.items() if key != "settings"})
    shard_range = parse_range(options["shard_range"])
    plan = plan_of_request(name, options)
    folder = Path(options["out"] or f"data/{(options['preset'] or plan.name).replace(':', '-')}")
    _refuse_two_places(options)
    workers = options["workers"] or (os.cpu_count() or 1) + 1
    if options["dry_run"]:
        from multiobj_data.generation.forecast import forecast

        _print_forecast(forecast(plan, workers, shard_range), shard_range, options["as_json"])
        return
    total = sum(task.rows for task in tasks_of(plan, shard_range))
    scheduler = options["scheduler"]
    place = on_cluster(scheduler) if scheduler else nullcontext(in_processes(workers))
    with resumable(same_command()), place as run, progress("generate", total, "scenes") as advance:
        keep_freed_memory()  # this process draws too, where --workers is 1
        manifest = generate(plan, folder, run=run, shard_range=shard_range, on_progress=advance)
    if manifest is None:
        say(
            f"range {_range_text(shard_range)} is done; the manifest is written when the other ranges are. Ranges in "
            "folders of their own become one data set by `mobj merge`."
        )
        if options["as_json"]:
            emit_json({"schema_version": 1, "folder": str(folder), "complete": False})
        return
    sheet = _draw_sheet(folder, manifest) if options["sheet"] else None
    _print_result(folder, manifest, sheet, options["as_json"])


def _refuse_two_places(options: dict[str, Any]) -> None:
    from multiobj_data.errors import UsageError

    if options["scheduler"] is not None and options["workers"] is not None:
        raise UsageError(
            f"--scheduler {options['scheduler']} lets a cluster write the shards, --workers {options['workers']} "
            "processes on this machine; give one of the two."
        )


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


def _range_text(shard_range: tuple[int, int]) -> str:
    return "/".join(map(str, shard_range))


def _print_forecast(prospect: Any, shard_range: tuple[int, int], as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        emit_json({"schema_version": 1, **asdict(prospect)})
        return
    if shard_range != (0, 1):
        click.echo(f"range {_range_text(shard_range)} of the shards:")
    for name, rows in prospect.splits.items():
        click.echo(f"{name}: {rows:,} scenes")
    click.echo(f"shards: {prospect.shards}, about {prospect.bytes / 1e6:,.0f} MB")
    for split, shares in (("", prospect.acceptance), ("ood, ", prospect.ood_acceptance)):
        for count, share in shares.items():
            click.echo(f"{split}{count} objects: about {share:.2g} of candidate scenes accepted")
    click.echo(f"about {prospect.seconds:,.0f} s with {prospect.workers} workers")
