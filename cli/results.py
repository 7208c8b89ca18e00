"""Where `mobj evaluate` puts its results, and how it prints them."""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import click

from cli.console import emit_table

_ADVICE = (
    "the figures printed above are whole, older files are unchanged; make room, or choose another --out."
)
_LONGEST = 60  # characters that a choice of metrics adds to a folder's name


def ready_folder(beside: Path, scenes: int, options: dict[str, Any]) -> Path:
    """Create the folder of results before anything is computed for it.

    What is not the whole evaluation of a split (fewer scenes, chosen metrics, another convention) gets a folder of its
    own by default, so that it never replaces the whole.
    """
    from multiobj_data.files import make_folder

    limit = options["limit"]
    parts = [f"first-{limit}"] if limit and limit < scenes else []
    parts += [_only(options["metric_names"])] if options["metric_names"] else []
    parts += [_plain(options["convention"])] if options["convention"] else []
    out = Path(options["out"] or "-".join([f"{beside}-{options['split']}", *parts]))
    make_folder(out)
    _expect_writable(out)
    return out


def refuse_other_data(out: Path, about: dict[str, Any]) -> None:
    """Raise if there is an evaluation on other data in ``out``, which this one would replace."""
    from metrics.evaluation.stamp import facts_of_data
    from multiobj_data.errors import UsageError
    from multiobj_data.shards.journal import first_difference

    try:
        there = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))["stamp"]["facts"]["data"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # none, or none that could be told from another
    if difference := first_difference(there, facts_of_data(about)):
        name, value_there, value_here = difference
        raise UsageError(
            f"{out} holds an evaluation on other data ({name} is {value_there!r} there, {value_here!r} here); choose "
            "another --out."
        )


def _only(names: tuple[str, ...]) -> str:
    """Name a choice of metrics; the same choice in another order is the same."""
    text = "only-" + "+".join(sorted({_plain(name) for name in names}))
    return (
        text
        if len(text) <= _LONGEST
        else f"{text[:_LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    )


def _plain(name: str) -> str:
    return re.sub(r"[^\w+-]", "-", name)


def ready_for_table(path: str) -> None:
    """Raise unless ``path`` can be written as a table of images."""
    from metrics.evaluation.per_image import expect_table_name
    from multiobj_data.errors import UsageError

    try:
        expect_table_name(path)
    except UsageError as error:
        raise UsageError(f"--per-image {error}") from error
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


def whole_document(result: Any, by: str | None) -> tuple[dict[str, Any], bytes]:
    """Return what evaluation.json holds, and the bytes of per_image.csv.gz, which it names by their SHA-256."""
    from metrics.evaluation.per_image import PER_IMAGE, compressed, csv_bytes
    from metrics.evaluation.result import strict

    table = compressed(csv_bytes(result.columns))
    document = result.to_json()
    document["per_image"] = {"file": PER_IMAGE, "sha256": hashlib.sha256(table).hexdigest()}
    if by:
        document["by_difficulty"] = strict({by: [each.to_json() for each in result.by_difficulty(by)]})
    return document, table


def write_results(
    result: Any, document: dict[str, Any], table: bytes, out: Path, per_image: str | None
) -> None:
    """Write all files; those of the folder are renamed into place once all are whole."""
    from metrics.evaluation.per_image import PER_IMAGE
    from metrics.evaluation.report import render_report
    from multiobj_data.files import replacing, to_json

    files = (out / "evaluation.json", out / PER_IMAGE, out / "report.html")
    with (
        replacing(files[0], _ADVICE) as figures,
        replacing(files[1], _ADVICE) as rows,
        replacing(files[2], _ADVICE) as report,
    ):
        figures.write_text(to_json(document), encoding="utf-8")
        rows.write_bytes(table)
        report.write_text(render_report(result), encoding="utf-8")
    if per_image:
        result.write_per_image(per_image)


def print_tables(result: Any) -> None:
    """Print the scores with the baselines' beside them, and the confusion of counts."""
    baselines = result.baselines.metrics if result.baselines else {}
    with_interval = result.protocol["interval"] is not None
    header = ["metric", "mean", "std. error", "scored", "skipped", *baselines]
    if with_interval:
        header.insert(3, f"{100 * result.protocol['interval']:g} % interval")
    rows = [_row(name, row, baselines, with_interval) for name, row in result.metrics.items()]
    rows += [
        (name, f"n/a ({reason})", *[""] * (len(header) - 2)) for name, reason in result.not_available.items()
    ]
    emit_table(rows, header)
    if baselines and result.baselines.images < result.protocol["images"]:
        click.echo(f"baselines: on the first {result.baselines.images:,} images")
    if result.confusion:
        labels = [str(label) for label in result.confusion["predicted"]]
        table = [
            (str(label), *(f"{n:,}" for n in row))
            for label, row in zip(result.confusion["true"], result.confusion["table"], strict=True)
        ]
        emit_table(table, ("true count", *(f"inferred {label}" for label in labels)))


def _row(name: str, row: Any, baselines: Any, with_interval: bool) -> tuple[str, ...]:
    interval = [f"{_text(row['low'], 5)} to {_text(row['high'], 5)}"] if with_interval else []
    floors = [_text(scores[name]["mean"], 3) if name in scores else "" for scores in baselines.values()]
    return (
        name,
        _text(row["mean"], 5),
        _text(row["stderr"], 2),
        *interval,
        f"{row['n']:,}",
        f"{row['skipped']:,}",
        *floors,
    )


def print_by(result: Any, by: str | None) -> None:
    """Print each metric by how hard the scenes are in one respect; nothing for ``None``."""
    from metrics.evaluation.report import figure

    if by is None:
        return
    bins = result.by_difficulty(by)
    if not bins:
        click.echo(f"{by}: no scene has a value, so that there is nothing to sort them by.")
        return
    rows = [(name, *(figure(each.metrics[name]) for each in bins)) for name in result.metrics]
    rows.append(("images", *(f"{each.images:,}" for each in bins)))
    emit_table(rows, (by, *(each.label for each in bins)))
    if left := result.protocol["images"] - sum(each.images for each in bins):
        click.echo(f"{left:,} images have no {by}.")


def _text(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}g}"
