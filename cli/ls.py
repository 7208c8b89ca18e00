"""`mobj ls`: what there is to generate, train and measure."""

from __future__ import annotations

import click

from cli.console import emit_json, emit_table
from cli.options import json_option

KINDS = ("generators", "presets", "models", "metrics")


@click.command("ls", short_help="List generators, presets, models and metrics.")
@click.argument("kind", required=False, type=click.Choice(KINDS))
@json_option
def ls_command(kind: str | None, as_json: bool) -> None:
    """List what can be named on the command line, installed plug-ins included.

    \b
    mobj ls presets
    """
    listing = {name: _rows(name) for name in ([kind] if kind else KINDS)}
    if as_json:
        emit_json({"schema_version": 1, **listing})
        return
    for name, rows in listing.items():
        emit_table(list(rows.items()), (name, ""))


def _rows(kind: str) -> dict[str, str]:
    if kind == "presets":
        from multiobj_data.presets import presets

        return {name: f"{preset.about} ({preset.generator})" for name, preset in presets().items()}
    from multiobj_data.plugins import names

    rows = names(kind)
    if kind == "metrics":
        from metrics import METRICS

        rows = {name: spec.description for name, spec in METRICS.items()} | rows
    return rows
