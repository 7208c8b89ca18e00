"""`mobj metrics explain`: one example under every project's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli.console import emit_json, emit_table, refuse_empty_options
from cli.options import json_option

if TYPE_CHECKING:
    from metrics.segmentation.explain import Explanation


@click.command("explain", short_help="Score an example under all conventions, and say why they differ.")
@click.option("--true", "true_file", metavar="FILE", help="True label map: .npy, .npz or .png.")
@click.option("--predicted", "predicted_file", metavar="FILE", help="Predicted label map of the same size.")
@click.option(
    "--index",
    type=click.IntRange(min=0),
    metavar="I",
    help="Which image, where files hold label maps [B, H, W].",
)
@click.option(
    "--background", metavar="LABELS", help="True labels that are background, e.g. 0,1,2,3.  [default: 0]"
)
@click.option("--case", "case_name", metavar="NAME", help="A built-in example; `list` lists them.")
@json_option
def explain_command(
    true_file: str | None,
    predicted_file: str | None,
    index: int | None,
    background: str | None,
    case_name: str | None,
    as_json: bool,
) -> None:
    """Score one example by every segmentation metric under every convention, and say why they differ.

    Without files and case: ARI-FG of all built-in examples.

    \b
    mobj metrics explain
    mobj metrics explain --case one-exact
    mobj metrics explain --true true.png --predicted predicted.png
    """
    from metrics.segmentation.explain import CASES, explain, find_case
    from multiobj_data.errors import DataError, UsageError

    refuse_empty_options(
        {"true": true_file, "predicted": predicted_file, "case": case_name, "background": background}
    )
    files = [name for name in (true_file, predicted_file) if name is not None]
    if files and case_name is not None:
        raise UsageError("--case: expected without --true and --predicted; an example is built in, or yours.")
    if len(files) == 1:
        raise UsageError("--true and --predicted: expected both files, or none of them.")
    if not files and (index is not None or background is not None):
        raise UsageError(
            "--index and --background: expected with --true and --predicted; built-in examples need none."
        )
    if files:
        from metrics.segmentation.label_files import read_label_map

        true, predicted = (read_label_map(name, index) for name in files)
        try:
            found = explain(true, predicted, background=_labels(background))
        except ValueError as error:
            raise DataError(f"{' and '.join(files)}: {error}") from error
        _show({"true": files[0], "predicted": files[1]}, found, as_json)
    elif case_name is None or case_name == "list":
        _show_cases(CASES, as_json, scored=case_name is None)
    else:
        case = find_case(case_name)
        _show(
            {"case": case_name, "description": case.description}, explain(case.true, case.predicted), as_json
        )


def _labels(text: str | None) -> tuple[int, ...]:
    from multiobj_data.errors import UsageError, quoted

    parts = [part.strip() for part in (text or "0").split(",")]
    if not all(part.isdecimal() and len(part) < 10 for part in parts):
        raise UsageError(f"--background: expected labels such as 0 or 0,1,2,3, got {quoted(text)}.")
    return tuple(int(part) for part in parts)


def _show(about: dict[str, Any], found: Explanation, as_json: bool) -> None:
    from metrics.segmentation.conventions import CONVENTIONS
    from metrics.segmentation.explain import spoken

    if as_json:
        emit_json({"schema_version": 1, **about, **found.to_json()})
        return
    click.echo(f"{', '.join(str(value) for value in about.values())}: {found.situation}\n")
    rows = [
        [line.metric, *(spoken(line.values[name]) if name in line.values else "-" for name in CONVENTIONS)]
        for line in found.lines
    ]
    emit_table(rows, ("", *CONVENTIONS))
    click.echo("\nNaN: skipped, and counted as skipped. -: the project has no such metric.")
    for line in found.lines:
        if line.reasons:
            click.echo(f"\n{line.metric}:")
            for reason in line.reasons:
                click.echo(f"  {reason}")
    if not any(line.reasons for line in found.lines):
        click.echo("\nAll conventions agree.")


def _show_cases(cases: Any, as_json: bool, *, scored: bool) -> None:
    from metrics.segmentation.conventions import CONVENTIONS
    from metrics.segmentation.explain import explain, spoken

    if not scored:
        rows = [(name, case.description) for name, case in cases.items()]
        if as_json:
            emit_json({"schema_version": 1, "cases": dict(rows)})
        else:
            emit_table(rows, ("case", ""))
        return
    found = {name: explain(case.true, case.predicted) for name, case in cases.items()}
    if as_json:
        documents = {
            name: {"description": cases[name].description, **explanation.to_json()}
            for name, explanation in found.items()
        }
        emit_json({"schema_version": 1, "cases": documents})
        return
    table = []
    for name, explanation in found.items():
        (line,) = (line for line in explanation.lines if line.metric == "ari_fg")
        table.append(
            [name, *(spoken(line.values[convention]) for convention in CONVENTIONS), cases[name].description]
        )
    click.echo("ARI-FG of built-in examples; --case NAME shows all metrics, and why.\n")
    emit_table(table, ("case", *CONVENTIONS, ""))
    click.echo("\nNaN: skipped, and counted as skipped.")
    click.echo("\nWhere each is from, and which true labels it scores as foreground by itself:\n")
    emit_table(
        [(each.name, each.source, each.foreground) for each in CONVENTIONS.values()],
        ("", "from", "foreground"),
    )
