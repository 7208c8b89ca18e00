"""`mobj evaluate`: any model, or a file of predictions, on the data it belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli.console import emit_json, emit_table, progress, say, start_logging


@click.command("evaluate", short_help="Score a checkpoint, any model, or a file of predictions.")
@click.argument("checkpoint", required=False)
@click.option("--checkpoint", "weights", metavar="FILE", help="With --model: what its loader is given.")
@click.option(
    "--model",
    metavar="MODULE:LOADER",
    help="Your own: loader(checkpoint, device) -> object with predict(images).",
)
@click.option("--predictions", metavar="FILE", help="Score an HDF5 file of predictions instead of a model.")
@click.option(
    "--data", metavar="DIR", help="Data set.  [default: the one that the checkpoint was trained on]"
)
@click.option("--split", default="test", show_default=True, help="Which split.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute.",
)
@click.option(
    "--metric",
    "metric_names",
    multiple=True,
    metavar="NAME",
    help="Only these metrics (repeatable), or module:attribute.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=250,
    show_default=True,
    metavar="B",
    help="Images at a time.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N scenes.")
@click.option("--per-image", metavar="FILE", help="Also write one row an image (CSV).")
@click.option(
    "--out",
    metavar="DIR",
    help="Folder of evaluation.json and report.html.  [default: beside the checkpoint]",
)
@click.option(
    "--digits-root",
    metavar="DIR",
    envvar="MOBJ_DIGITS_ROOT",
    help="MNIST's idx files, should the data have to be drawn again.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def evaluate_command(checkpoint: str | None, **options: Any) -> None:
    """Score CHECKPOINT on the test split of the data that it was trained on.

    If that folder is gone, the split is drawn again and must come out with the recorded SHA-256.

    \b
    mobj evaluate runs/air/seed-0/checkpoint.pt
    mobj evaluate --model my_package.model:load --checkpoint w.pt --data data/digits
    mobj evaluate --predictions predictions.h5 --data data/digits
    """
    from metrics import evaluate, write_report
    from multiobj_data.files import make_folder, to_json, write_atomically
    from multiobj_data.loading import batches

    start_logging()
    predictor, name, reference, beside = _predictor(checkpoint, options)
    with _source(reference, options) as source:
        _refuse_other_size(predictor, source, options)
        total = min(options["limit"] or len(source), len(source))
        with progress("evaluate", total, "scenes") as advance:
            result = evaluate(
                predictor,
                batches(source, options["batch_size"], options["limit"]),
                metrics=options["metric_names"] or None,
                model=name,
                dataset=_about(source),
                protocol={"split": options["split"], "limit": options["limit"]},
                on_progress=advance,
            )
    out = Path(options["out"] or f"{beside}-{options['split']}")
    make_folder(out)
    write_atomically(out / "evaluation.json", to_json(result.to_json()).encode())
    write_report(result, out / "report.html")
    if options["per_image"]:
        result.write_per_image(options["per_image"])
    if options["as_json"]:
        emit_json(result.to_json())
    else:
        _print_tables(result)
        click.echo(f"report: {out / 'report.html'}")


def _predictor(
    checkpoint: str | None, options: dict[str, Any]
) -> tuple[Any, str, dict[str, Any] | None, Path]:
    """Return what predicts, its name, the data it was trained on, and where results go by default."""
    from multiobj_data.errors import UsageError

    chosen = [what for what in (checkpoint, options["model"], options["predictions"]) if what]
    if len(chosen) != 1:
        raise UsageError(
            "give one of: a CHECKPOINT of `mobj train`, --model MODULE:LOADER, or --predictions FILE."
        )
    if not checkpoint and not options["data"]:
        raise UsageError("which data? Give --data DIR; only checkpoints of `mobj train` know theirs.")
    if options["predictions"]:
        from multiobj_data.predictions import PredictionFile

        path = Path(options["predictions"])
        return (
            PredictionFile(path),
            path.name,
            None,
            path.with_suffix("").with_name(path.stem + "-evaluation"),
        )
    from reference_models.training import resolve_device

    device = resolve_device(options["device"])
    if options["model"]:
        from multiobj_data.plugins import resolve

        model = resolve("models", options["model"])(options["weights"], str(device))
        return (
            model,
            options["model"],
            None,
            Path(options["model"].replace(":", "-").replace(".", "-") + "-evaluation"),
        )
    from reference_models.checkpoints import load_checkpoint

    loaded = load_checkpoint(chosen[0], device)
    name = f"{loaded.model_id}, seed {loaded.seed}, {loaded.step:,} steps"
    return loaded.model, name, loaded.data, Path(chosen[0]).parent / "evaluation"


def _source(reference: dict[str, Any] | None, options: dict[str, Any]) -> Any:
    from contextlib import nullcontext

    from multiobj_data.loading import find_split, open_dataset

    if options["data"]:
        return nullcontext(open_dataset(options["data"], options["split"]))
    return find_split(reference or {}, options["split"], say, digits_root=options["digits_root"])


def _refuse_other_size(predictor: Any, source: Any, options: dict[str, Any]) -> None:
    from multiobj_data.errors import UsageError

    wanted = getattr(predictor, "image_shape", None)
    if wanted is not None and tuple(wanted) != tuple(source.image_shape):
        raise UsageError(
            f"the model was trained on images of {tuple(wanted)}, {options['data']} has {tuple(source.image_shape)} "
            "(height, width, channels); evaluate it on data of its own size."
        )


def _about(source: Any) -> dict[str, Any]:
    manifest = source.manifest
    return {
        "id": manifest.dataset,
        "folder": str(source.folder),
        "split": source.split,
        "scenes": len(source),
        "seed": manifest.seed,
        "config": manifest.config,
        "sources": manifest.sources,
        "sha256": [shard.sha256 for shard in source.shards],
        "notes": manifest.notes,
    }


def _print_tables(result: Any) -> None:
    rows = [
        (name, f"{row['mean']:.5g}", f"{row['stderr']:.2g}", f"{row['n']:,}", f"{row['skipped']:,}")
        for name, row in result.metrics.items()
    ]
    rows += [(name, f"n/a ({reason})", "", "", "") for name, reason in result.not_available.items()]
    emit_table(rows, ("metric", "mean", "std. error", "scored", "skipped"))
    if result.confusion:
        labels = [str(label) for label in result.confusion["predicted"]]
        table = [
            (str(label), *(f"{n:,}" for n in row))
            for label, row in zip(result.confusion["true"], result.confusion["table"], strict=True)
        ]
        emit_table(table, ("true count", *(f"inferred {label}" for label in labels)))
