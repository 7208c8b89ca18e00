"""`mobj ls`: what there is to generate, train, measure and reproduce."""

from __future__ import annotations

from typing import Any

import click

from cli.console import emit_json, emit_table
from cli.options import json_option

KINDS = ("generators", "presets", "sets", "models", "model-presets", "metrics", "tables")
SETTINGS = "settings"
_HOLDOUT = "holdout"


@click.command(
    "ls", short_help="List generators, presets, sets, models, metrics and tables, or the settings of one."
)
@click.argument("kind", required=False, type=click.Choice([*KINDS, SETTINGS]))
@click.argument("name", required=False)
@json_option
def ls_command(kind: str | None, name: str | None, as_json: bool) -> None:
    """List what can be named on the command line, installed plug-ins included; or the settings of NAME.

    \b
    mobj ls presets
    mobj ls settings multi-dsprites
    """
    if (kind == SETTINGS) != (name is not None):
        raise click.UsageError(
            f"`mobj ls {SETTINGS} NAME` takes the name of a generator or model, the others none."
        )
    if name is not None:
        listing = {name: _settings(name)}
    else:
        listing = {each: _rows(each) for each in ([kind] if kind else KINDS)}
    factors = _holdout(name) if name is not None else {}
    if as_json:
        emit_json({"schema_version": 1, **listing, **({_HOLDOUT: factors} if factors else {})})
        return
    for title, rows in listing.items():
        emit_table(list(rows.items()), (title, ""))
    if name is not None and factors:
        _print_holdout(name, factors)


def _rows(kind: str) -> dict[str, str]:
    if kind == "presets":
        from multiobj_data.presets import presets

        return {name: f"{preset.about} ({preset.generator})" for name, preset in presets().items()}
    if kind == "sets":
        from multiobj_data.loaders.sets import PUBLIC_SETS

        return {name: each.about for name, each in PUBLIC_SETS.items()}
    if kind == "tables":
        from cli.reproduction.tables import find_table, table_names

        tables = map(find_table, table_names())
        return {table.name: f"{table.title}: {table.source}" for table in tables}
    from multiobj_data.plugins import names

    if kind == "model-presets":
        from reference_models.presets import model_presets

        return {
            f"{model} {name}": preset.about
            for model in names("models")
            for name, preset in model_presets(model).items()
        }
    rows = names(kind)
    if kind == "metrics":
        from metrics import METRICS

        rows = {name: spec.description for name, spec in METRICS.items()} | rows
    return rows


def _find(name: str) -> Any:
    """Return the generator or model of a name."""
    from multiobj_data.errors import UsageError, did_you_mean, quoted
    from multiobj_data.plugins import names, resolve

    known = {each: kind for kind in ("generators", "models") for each in names(kind)}
    if name not in known and ":" not in name:
        raise UsageError(f"no generator or model named {quoted(name)}.{did_you_mean(name, known)}")
    return resolve(known.get(name, "models"), name)  # of module:attribute, it may as well be a generator


def _settings(name: str) -> dict[str, str]:
    """Return the settings of a generator or a model: name -> default, values and meaning."""
    import dataclasses

    from multiobj_data.settings import choices, settings_of

    thing = _find(name)
    config = thing if dataclasses.is_dataclass(thing) else getattr(thing, "config_type", None)
    if not isinstance(config, type):
        return {}
    rows = {}
    for setting in settings_of(config):
        values = "|".join(map(str, choices(config, setting.name)))
        rows[setting.name] = f"[{setting.default!r}{': ' + values if values else ''}] {setting.about}"
    return rows


def _holdout(name: str) -> dict[str, list[str] | None]:
    """Return by which factors `--holdout` can name objects of a generator: factor -> words, ``None`` for numbers."""
    generator = _find(name)
    if _HOLDOUT not in getattr(generator, "__dataclass_fields__", {}):
        return {}
    vocabulary = generator().vocabulary
    return {factor: None if words is None else list(words) for factor, words in vocabulary.items()}


def _print_holdout(name: str, factors: dict[str, list[str] | None]) -> None:
    import inspect

    rows = [(factor, "numbers" if words is None else ", ".join(words)) for factor, words in factors.items()]
    click.echo()
    emit_table(rows, ("--holdout", inspect.getdoc(_find(name).vocabulary) or ""))
