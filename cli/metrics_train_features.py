"""`mobj metrics train-features`: a feature network of one's own data, for FID and KID."""

from __future__ import annotations

from typing import Any

import click

from cli.console import emit_json, emit_table, interruptible, progress, refuse_empty_options, start_logging
from cli.options import device_option, json_option


@click.command("train-features", short_help="Train features for FID on the labels of a data set.")
@click.option("--data", required=True, metavar="DIR", help="Data set with a train split.")
@click.option("--out", required=True, metavar="FILE", help="Where the features go, e.g. features.pt.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="First weights and order."
)
@click.option(
    "--steps", type=click.IntRange(min=1), default=2000, show_default=True, metavar="N", help="Of 64 images."
)
@click.option(
    "--split",
    default="train",
    show_default=True,
    help="What to learn from; accuracy is measured on another split.",
)
@device_option
@json_option
def train_features_command(**options: Any) -> None:
    """Train a small network to tell how many objects of which kind an image holds.

    What it sees before it answers are the features. A few minutes on a CPU; no network access; the file records the
    data, the seed, and the accuracy on scenes that it was not trained on.

    \b
    mobj metrics train-features --data data/digits --out features.pt
    mobj metrics fid data/digits samples/ --features features.pt
    """
    start_logging()
    refuse_empty_options(options)
    with interruptible("nothing was written; run the same command again."):
        training = _train(options)
    if options["as_json"]:
        emit_json({"schema_version": 1, "out": options["out"], **training})
        return
    rows = [
        (name, f"{row['accuracy']:.1%}", f"{row['chance']:.1%}", f"{row['n']:,}")
        for name, row in training["accuracy"].items()
    ]
    emit_table(rows, ("how many, of each", "right", "always the usual", "scenes"))
    click.echo(f"features: {options['out']}")


def _train(options: dict[str, Any]) -> dict[str, Any]:
    from pathlib import Path

    from metrics.generation.features.training import train_domain_features
    from metrics.generation.image_sets import SceneImages
    from multiobj_data.errors import UsageError
    from multiobj_data.loading import open_dataset

    out = Path(options["out"])
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: expected an existing folder; create it first.")
    if out.is_dir():
        raise UsageError(
            f"--out {out}: expected a file, that is a folder; give a name in it, such as {out}/features.pt."
        )
    source = open_dataset(options["data"], options["split"])
    others = [
        name
        for name in ("val", "test", "train")
        if name in source.manifest.splits and name != options["split"]
    ]
    if not others:
        raise UsageError(
            f"{options['data']}: expected a second split to measure accuracy on, got only {options['split']}."
        )
    held_out = open_dataset(options["data"], others[0])
    data = SceneImages(source).stamp | {"held_out": others[0]}
    with progress("train features", options["steps"], "steps") as advance:
        return train_domain_features(
            source,
            held_out,
            options["out"],
            data=data,
            seed=options["seed"],
            steps=options["steps"],
            device=options["device"],
            on_progress=lambda step, loss: advance(1, f"loss {loss:.3f}"),
        )
