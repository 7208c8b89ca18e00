"""`mobj reproduce --dry-run`: which cells there are, and how long they will take here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import click

from cli.console import emit_json, emit_table
from cli.reproduction import data as data_sets
from cli.reproduction.cells import Cell
from cli.reproduction.results import duration
from cli.reproduction.tables import Column, Scale, Table


def print_forecast(table: Table, scale: Scale, cells: Sequence[Cell], options: Mapping[str, Any]) -> None:
    """Print each cell's steps and the time of its training."""
    from cli.reproduction.estimate import forecast

    shapes = {
        name: _image_shape(table.columns[name], scale, options) for name in {cell.column for cell in cells}
    }
    seconds = forecast(cells, shapes, options["device"])
    if options["as_json"]:
        rows = [
            {"cell": cell.name, "steps": cell.steps, "seconds": round(seconds[cell.group], 1)}
            for cell in cells
        ]
        emit_json({"schema_version": 1, "table": table.name, "cells": rows})
        return
    emit_table(
        [(cell.name, f"{cell.steps:,}", f"about {duration(seconds[cell.group])}") for cell in cells],
        ("cell", "steps", "training"),
    )
    total = sum(seconds[cell.group] for cell in cells)
    click.echo(
        f"{len(cells)} cells, about {duration(total)} of training one after the other; drawing the data not counted."
    )


def _image_shape(column: Column, scale: Scale, options: Mapping[str, Any]) -> tuple[int, int, int]:
    from multiobj_data.generation.plan import draw_scenes

    if column.convert:
        height, width, channels = column.image_shape
        return height, width, channels
    tiny = replace(scale, train=1, test=1)
    plan = data_sets.plan_of(column, tiny, {**options, "digits": "bundled"})
    height, width, channels = draw_scenes(plan.generator, 0, "train", 0, 1).image.shape[1:]
    return height, width, channels
