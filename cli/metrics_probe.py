"""`mobj metrics probe`: what can be read off a model's slots about the objects that they stand for."""

from __future__ import annotations

import math
import sys
from contextlib import redirect_stdout
from typing import Any

import click

from cli.console import emit_json, emit_table, progress, refuse_empty_options, start_logging
from cli.options import device_option, json_option


@click.command("probe", short_help="Predict objects' properties from the codes of slots.")
@click.argument("checkpoint", required=False)
@click.option("--checkpoint", "weights", metavar="FILE", help="With --model: what its loader is given.")
@click.option("--model", metavar="MODULE:LOADER", help="Your own, as for mobj evaluate.")
@click.option("--predictions", metavar="FILE", help="An HDF5 file of predictions with slots.")
@click.option(
    "--data", metavar="DIR", help="Data set.  [default: the one that the checkpoint was trained on]"
)
@click.option(
    "--split", default="test", show_default=True, help="Which split; its images train and test probes."
)
@device_option
@click.option(
    "--factor",
    multiple=True,
    metavar="NAME",
    help="Only these factors (repeatable).  [default: all]",
)
@click.option(
    "--quantity",
    multiple=True,
    metavar="NAME",
    help="A factor of whole numbers that is a quantity.",
)
@click.option(
    "--probe",
    multiple=True,
    type=click.Choice(["linear", "mlp"]),
    help="Only these probes (repeatable).  [default: both]",
)
@click.option(
    "--dci",
    type=click.Choice(["forest", "boosting", "lasso"]),
    help="Also disentanglement, completeness, informativeness of the codes by this estimator.",
)
@click.option(
    "--min-pixels",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    metavar="N",
    help="Leave out objects of fewer visible pixels.",
)
@click.option(
    "--min-iou",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.1,
    show_default=True,
    metavar="X",
    help="Do not probe an object whose slot overlaps less.",
)
@click.option(
    "--most-objects",
    type=click.IntRange(min=1),
    default=20_000,
    show_default=True,
    metavar="N",
    help="Stop collecting after so many.",
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
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Of the split and the probes.",
)
@click.option(
    "--digits-root",
    metavar="DIR",
    envvar="MOBJ_DIGITS_ROOT",
    help="MNIST's idx files, should the data have to be drawn again.",
)
@json_option
def probe_command(checkpoint: str | None, **options: Any) -> None:
    """Match the slots of CHECKPOINT to true objects and predict the objects' factors from the slots' codes.

    Half the images train the probes, the other half test them; no image is on both sides. Beside each score stands
    chance, which knows no code, and the ceiling, which is given the true factors.

    \b
    mobj metrics probe runs/air/seed-0/checkpoint.pt
    mobj metrics probe --predictions predictions.h5 --data data/sprites --dci forest
    """
    start_logging()
    refuse_empty_options(options)
    with redirect_stdout(sys.stderr):  # stdout carries the result alone, whatever a model prints
        result = _probe(checkpoint, options)
    if options["as_json"]:
        emit_json(result.to_json())
    else:
        _print(result)


def _probe(checkpoint: str | None, options: dict[str, Any]) -> Any:
    from cli.evaluation_data import evaluation_data, refuse_damage, refuse_other_size
    from cli.subjects import find_subject
    from metrics.slots.probing import PROBES, probe_slots
    from multiobj_data.loading import batches

    subject = find_subject(checkpoint, options)
    with evaluation_data(subject.reference, options) as source:
        refuse_damage(source)
        refuse_other_size(subject.predictor, source, options)
        total = min(options["limit"] or len(source), len(source))
        with progress("probe", total, "scenes") as advance:
            return probe_slots(
                subject.predictor,
                batches(source, options["batch_size"], options["limit"]),
                factors=options["factor"] or None,
                kinds=dict.fromkeys(options["quantity"], "regression"),
                probes=options["probe"] or PROBES,
                dci=options["dci"],
                min_pixels=options["min_pixels"],
                min_iou=options["min_iou"],
                most_objects=options["most_objects"],
                seed=options["seed"],
                model=subject.name,
                on_progress=advance,
            )


def _print(result: Any) -> None:
    probes = [name for name in next(iter(result.scores.values())) if name != "chance"]
    units = {"regression": "R²", "classification": "accuracy"}
    rows = []
    for factor, scores in result.scores.items():
        best = max(result.ceiling[factor].values())
        figures = (_text(value) for value in (*(scores[name] for name in probes), scores["chance"], best))
        rows.append((factor, units[result.kinds[factor]], *figures, f"{result.rows[factor][1]:,}"))
    rows += [(name, f"n/a ({reason})", *[""] * (len(probes) + 3)) for name, reason in result.skipped.items()]
    emit_table(rows, ("factor", "score", *probes, "chance", "ceiling", "objects"))
    emit_table(
        [
            (name, *(_text(row[part]) for part in ("where", "what", "joint")))
            for name, row in result.where_and_what.items()
        ],
        ("probe", "where", "what", "joint"),
    )
    if result.dci is not None:
        d = result.dci
        dci = (d.disentanglement, d.completeness, d.informativeness)
        emit_table([(d.estimator, *(_text(value) for value in dci))], ("importance by", "D", "C", "I"))
    counts = result.objects
    click.echo(
        f"{counts['objects']:,} objects of {counts['images']:,} images: {counts['probed']:,} matched by "
        f"{result.protocol['matched_by']} and probed, {counts['unmatched']:,} without a slot, and "
        f"{counts['too_small']:,} more too small."
    )


def _text(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
