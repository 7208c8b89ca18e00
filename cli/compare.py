"""`mobj compare`: evaluations side by side, if they were scored alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.console import emit_json, emit_table, refuse_empty_options, say, start_logging
from cli.options import json_option

if TYPE_CHECKING:
    from metrics.comparison.paired import Comparison

_BY_ENDING = {".md": "markdown", ".tex": "latex", ".json": "json"}


@click.command("compare", short_help="Put evaluations side by side, image by image.")
@click.argument("evaluations", nargs=-1, required=True, metavar="EVALUATION...")
@click.option(
    "--metric", "metric_names", multiple=True, metavar="NAME", help="Only these metrics (repeatable)."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "markdown", "latex", "json"]),
    help="How to print.  [default: table, or by the ending of --out]",
)
@click.option("--out", metavar="FILE", help="Write to a file that ends in .md, .tex or .json instead.")
@click.option(
    "--interval", type=float, default=0.95, show_default=True, metavar="LEVEL", help="Level of the intervals."
)
@click.option(
    "--seeds/--no-seeds",
    default=True,
    show_default=True,
    help="Put seed-0, seed-1, ... of one model into one column, mean ± standard deviation.",
)
@click.option(
    "--force", is_flag=True, help="Compare although the runs were not scored alike; says so in the table."
)
@json_option
def compare_command(evaluations: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Compare EVALUATIONs: the evaluation.json of `mobj evaluate`, or the folders they lie in.

    Differences are taken image by image to the first one, with bootstrap intervals over images (and seeds). Runs
    whose protocol stamps differ - other scenes, crop, metric version, convention, kind of likelihood - are refused.

    Exit codes: 2 if runs were not scored alike, 3 if a file is missing or damaged.

    \b
    mobj compare runs/air/seed-*/evaluation-test runs/supair/seed-*/evaluation-test
    mobj compare a/evaluation.json b/evaluation.json --metric count_accuracy --out table.tex
    """
    from metrics.comparison.paired import compare
    from metrics.comparison.recorded import read_evaluation

    start_logging()
    refuse_empty_options(options)
    form = _form(options["form"], options["out"], as_json)
    comparison = compare(
        [read_evaluation(path) for path in evaluations],
        metrics=options["metric_names"] or None,
        level=options["interval"],
        force=options["force"],
        by_seed=options["seeds"],
    )
    if comparison.unequal:
        say(f"WARNING: not scored alike: {'; '.join(comparison.unequal)}.")
    _emit(comparison, form, options["out"])


def _form(form: str | None, out: str | None, as_json: bool) -> str:
    """Return the format that the options agree on."""
    from multiobj_data.errors import UsageError

    if as_json and form not in (None, "json"):
        raise UsageError(f"--json and --format {form} contradict each other; give one of the two.")
    asked = "json" if as_json else form
    if out is None:
        return asked or "table"
    by_ending = _BY_ENDING.get(Path(out).suffix.lower())
    if by_ending is None or asked not in (None, by_ending):
        raise UsageError(
            f"--out {out}: expected a name that ends in "
            + (
                ".md, .tex or .json."
                if by_ending is None or asked == "table"
                else f"what --format {asked} is."
            )
        )
    return by_ending


def _emit(comparison: Comparison, form: str, out: str | None) -> None:
    from multiobj_data.files import to_json, write_atomically

    if form == "table":
        _print(comparison)
        return
    if form == "json" and out is None:
        emit_json(comparison.to_json())
        return
    text = to_json(comparison.to_json()) if form == "json" else _text(comparison, form)
    if out is None:
        click.echo(text, nl=False)
    else:
        write_atomically(Path(out), text.encode())
        click.echo(out)


def _text(comparison: Comparison, form: str) -> str:
    from metrics.comparison.tables import to_latex, to_markdown

    return to_markdown(comparison) if form == "markdown" else to_latex(comparison)


def _print(comparison: Comparison) -> None:
    from metrics.comparison.tables import differences, figures, legend

    header, rows = figures(comparison, lambda text: f"{text} *")
    emit_table(rows, header)
    header, rows = differences(comparison)
    if rows:
        emit_table(rows, header)
    for line in legend(comparison, "*"):
        click.echo(line)
