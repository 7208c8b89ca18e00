"""`mobj evaluate`: any model, or a file of predictions, on the data it belongs to."""

from __future__ import annotations

import sys
import warnings
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any

import click

from cli.console import emit_json, progress, refuse_empty_options, say, start_logging
from cli.evaluation_data import evaluation_data, refuse_damage, refuse_other_size
from cli.options import device_option, json_option
from cli.results import (
    print_by,
    print_tables,
    ready_folder,
    ready_for_table,
    refuse_other_data,
    whole_document,
    write_results,
)
from cli.samples import print_samples, ready_samples
from cli.subjects import Subject, find_subject
from multiobj_data.composition.memory import keep_freed_memory


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
    "--baseline",
    metavar="NAME",
    help="Score a baseline instead of a model: one-slot, chance, kmeans, components or truth.",
)
@click.option(
    "--data", metavar="DIR", help="Data set.  [default: the one that the checkpoint was trained on]"
)
@click.option("--split", default="test", show_default=True, help="Which split.")
@device_option
@click.option(
    "--metric",
    "metric_names",
    multiple=True,
    metavar="NAME",
    help="Only these metrics (repeatable), or module:attribute.",
)
@click.option(
    "--convention",
    metavar="NAME",
    help="By whose rules to score where projects differ: deepmind, sklearn, genesis, savi, emorl, sri, ocl "
    "(mobj metrics explain).  [default: ours]",
)
@click.option(
    "--interval", type=float, metavar="LEVEL", help="Add bootstrap intervals of the means, e.g. 0.95."
)
@click.option(
    "--baselines/--no-baselines",
    default=True,
    show_default=True,
    help="Score baselines that need no training beside the model, on the first 320 images.",
)
@click.option(
    "--by",
    metavar="NAME",
    help="Also print the scores by how hard scenes are, e.g. true_count, smallest_visible_fraction, "
    "smallest_distance, smallest_contrast.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=250,
    show_default=True,
    metavar="B",
    help="Images at a time.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=2),
    metavar="N",
    help="Also let the model draw N images and compare them with N of the split (FID, KID).",
)
@click.option(
    "--features",
    metavar="inception|FILE",
    help="With --samples: by what; FID's Inception network, or a file of `mobj metrics train-features`.  "
    "[default: inception]",
)
@click.option(
    "--weights",
    "inception_weights",
    metavar="FILE",
    help="With --features inception: its weights.  [default: downloaded once]",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N scenes.")
@click.option(
    "--per-image",
    metavar="FILE",
    help="Also write one row an image, scores and difficulty: .parquet, .csv or .csv.gz.",
)
@click.option(
    "--out",
    metavar="DIR",
    help="Folder of evaluation.json, per_image.csv.gz and report.html.  [default: beside the checkpoint, the "
    "predictions or the weights; of a baseline, or a model without weights, here]",
)
@click.option(
    "--digits-root",
    metavar="DIR",
    envvar="MOBJ_DIGITS_ROOT",
    help="MNIST's idx files, should the data have to be drawn again.",
)
@json_option
def evaluate_command(checkpoint: str | None, **options: Any) -> None:
    """Score CHECKPOINT on the test split of the data that it was trained on.

    If that folder is gone, the split is drawn again and must come out with the recorded SHA-256. What
    evaluation.json and per_image.csv.gz hold is what `mobj compare` needs.

    \b
    mobj evaluate runs/air/seed-0/checkpoint.pt
    mobj evaluate --model my_package.model:load --checkpoint w.pt --data data/digits
    mobj evaluate --predictions predictions.h5 --data data/digits --per-image scores.parquet
    mobj evaluate --baseline kmeans --data data/digits --by smallest_distance
    """
    start_logging()
    refuse_empty_options(options)
    _refuse_early(options)
    keep_freed_memory()
    with redirect_stdout(sys.stderr):  # stdout carries the result alone, whatever a model prints
        subject = find_subject(checkpoint, options)
        with evaluation_data(subject.reference, options) as source:
            refuse_damage(source)
            refuse_other_size(subject.predictor, source, options)
            score_samples = ready_samples(subject, source, options)
            out = ready_folder(subject.beside, len(source), options)
            refuse_other_data(out, _about(source))
            result = _score(subject, source, options)
            if (drawn := score_samples()) is not None:
                result = replace(result, generation=drawn.to_json())
    for warning in result.warnings:
        say(f"WARNING: {warning}")
    document, table = whole_document(result, options["by"])
    try:  # figures first, should the disk be full; but whoever reads them may stop reading
        if options["as_json"]:
            emit_json(document)
        else:
            print_tables(result)
            print_by(result, options["by"])
            print_samples(result.generation)
    finally:
        write_results(result, document, table, out, options["per_image"])
    if not options["as_json"]:
        click.echo(f"report: {out / 'report.html'}")


def _refuse_early(options: dict[str, Any]) -> None:
    """Raise for what cannot work before a model is loaded."""
    from metrics.evaluation.difficulty import DIFFICULTIES
    from metrics.segmentation.conventions import CONVENTIONS
    from metrics.table import find_metrics
    from multiobj_data.errors import UsageError, did_you_mean

    if (by := options["by"]) is not None and by not in DIFFICULTIES:
        raise UsageError(f"--by: no difficulty named {by!r}.{did_you_mean(by, DIFFICULTIES)}")
    if (level := options["interval"]) is not None and not 0 < level < 1:
        raise UsageError(f"--interval: expected a level above 0 and below 1, e.g. 0.95, got {level}.")
    if (name := options["convention"]) is not None and name not in CONVENTIONS:
        raise UsageError(f"--convention: no convention {name!r}.{did_you_mean(name, CONVENTIONS)}")
    find_metrics(options["metric_names"] or None)
    if options["per_image"]:
        ready_for_table(options["per_image"])


def _score(subject: Subject, source: Any, options: dict[str, Any]) -> Any:
    from metrics import evaluate
    from metrics.evaluation.floors import BASELINE_NAMES
    from metrics.evaluation.suspicion import SuspiciousDataWarning
    from multiobj_data.loading import batches

    total = min(options["limit"] or len(source), len(source))
    baselines = BASELINE_NAMES if options["baselines"] and not options["baseline"] else ()
    with progress("evaluate", total, "scenes") as advance, warnings.catch_warnings():
        warnings.simplefilter("ignore", SuspiciousDataWarning)  # said in one sentence later
        return evaluate(
            subject.predictor,
            batches(source, options["batch_size"], options["limit"]),
            metrics=options["metric_names"] or None,
            convention=options["convention"],
            interval=options["interval"],
            baselines=baselines,
            model=subject.name,
            dataset=_about(source),
            protocol={"split": options["split"], "limit": options["limit"]},
            on_progress=advance,
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
