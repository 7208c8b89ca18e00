"""`mobj evaluate`: any model, or a file of predictions, on the data it belongs to."""

from __future__ import annotations

import math
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click

from cli.console import emit_json, emit_table, progress, say, start_logging
from cli.options import device_option, json_option
from cli.request import digits_root_for
from cli.subjects import Subject, find_subject

_ADVICE = (
    "the figures printed above are whole, older files are unchanged; make room, or choose another --out."
)


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
@device_option
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
@json_option
def evaluate_command(checkpoint: str | None, **options: Any) -> None:
    """Score CHECKPOINT on the test split of the data that it was trained on.

    If that folder is gone, the split is drawn again and must come out with the recorded SHA-256.

    \b
    mobj evaluate runs/air/seed-0/checkpoint.pt
    mobj evaluate --model my_package.model:load --checkpoint w.pt --data data/digits
    mobj evaluate --predictions predictions.h5 --data data/digits
    """
    start_logging()
    if options["per_image"]:
        _ready_for_csv(options["per_image"])
    with redirect_stdout(sys.stderr):  # stdout carries the result alone, whatever a model prints
        subject = find_subject(checkpoint, options)
        with _source(subject.reference, options) as source:
            _refuse_damage(source)
            _refuse_other_size(subject.predictor, source, options)
            out = _ready_folder(subject, source, options)
            result = _score(subject, source, options)
    if options["as_json"]:
        emit_json(result.to_json())
    else:
        _print_tables(result)
    _write(result, out, options["per_image"])
    if not options["as_json"]:
        click.echo(f"report: {out / 'report.html'}")


def _score(subject: Subject, source: Any, options: dict[str, Any]) -> Any:
    from metrics import evaluate
    from multiobj_data.loading import batches

    total = min(options["limit"] or len(source), len(source))
    with progress("evaluate", total, "scenes") as advance:
        return evaluate(
            subject.predictor,
            batches(source, options["batch_size"], options["limit"]),
            metrics=options["metric_names"] or None,
            model=subject.name,
            dataset=_about(source),
            protocol={"split": options["split"], "limit": options["limit"]},
            on_progress=advance,
        )


# -- on which data


def _source(reference: dict[str, Any] | None, options: dict[str, Any]) -> Any:
    from contextlib import nullcontext

    from multiobj_data.loading import find_split, open_dataset

    if options["data"]:
        return nullcontext(open_dataset(options["data"], options["split"]))
    manifest = (reference or {}).get("manifest")
    generator = manifest.get("generator") if isinstance(manifest, dict) else None
    root = digits_root_for(str(generator), options["digits_root"])
    return find_split(reference or {}, options["split"], say, digits_root=root)


def _refuse_damage(source: Any) -> None:
    """Compare the split's bytes with the manifest: figures of damaged scenes look like any others."""
    from multiobj_data.errors import VerificationError, repair_hint
    from multiobj_data.journal import is_whole

    for shard in source.shards:
        if not is_whole(source.folder, shard):
            raise VerificationError(
                f"{source.folder / shard.file}: expected the bytes that the manifest records, got others; "
                f"{repair_hint(source.folder)}."
            )


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


# -- where results go


def _ready_folder(subject: Subject, source: Any, options: dict[str, Any]) -> Path:
    """Create the folder of results before anything is computed for it; part of a split gets another one."""
    from multiobj_data.files import make_folder

    limit = options["limit"]
    first = f"-first-{limit}" if limit and limit < len(source) else ""
    out = Path(options["out"] or f"{subject.beside}-{options['split']}{first}")
    make_folder(out)
    _expect_writable(out)
    return out


def _ready_for_csv(path: str) -> None:
    from metrics.evaluation import expect_csv
    from multiobj_data.errors import UsageError

    expect_csv(path)
    folder = Path(path).parent
    if not folder.is_dir():
        raise UsageError(
            f"--per-image {path}: expected an existing folder, {folder} is none; create it first."
        )
    _expect_writable(folder)


def _expect_writable(folder: Path) -> None:
    from tempfile import TemporaryFile

    from multiobj_data.files import explain_os_errors

    with explain_os_errors(folder / "results", "choose another folder."), TemporaryFile(dir=folder):
        pass


def _write(result: Any, out: Path, per_image: str | None) -> None:
    """Write all files; evaluation.json and report.html are renamed into place once both are whole."""
    from metrics.report import render_report
    from multiobj_data.files import replacing, to_json

    files = (out / "evaluation.json", out / "report.html")
    with replacing(files[0], _ADVICE) as figures, replacing(files[1], _ADVICE) as report:
        figures.write_text(to_json(result.to_json()), encoding="utf-8")
        report.write_text(render_report(result), encoding="utf-8")
    if per_image:
        result.write_per_image(per_image)


def _print_tables(result: Any) -> None:
    rows = [
        (name, _text(row["mean"], 5), _text(row["stderr"], 2), f"{row['n']:,}", f"{row['skipped']:,}")
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


def _text(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}g}"
