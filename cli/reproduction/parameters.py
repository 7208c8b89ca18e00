"""How many parameters the models of a table have, part by part; nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cli.reproduction.cells import settings_of
from cli.reproduction.results import DASH
from cli.reproduction.tables import Table

TOTAL = "total"


@dataclass(frozen=True)
class Counted:
    """The parameters of one model.

    Attributes:
        row: Name of the row.
        form: One of `tables.FORMS`.
        parts: Part -> number of parameters.
        published: The same in the paper; empty if it has none.
    """

    row: str
    form: str
    parts: Mapping[str, int]
    published: Mapping[str, int]


def count_parameters(table: Table) -> list[Counted]:
    """Count the parameters of every row in every form, at the paper's sizes whatever the scale.

    Args:
        table: One with ``parameters``.

    Raises:
        ValueError: A model has a parameter that belongs to no part of the table, or to two.
    """
    about = table.parameters
    return [
        Counted(row.name, form, _parts(table, row.model, settings), about["published"].get(row.name, {}))
        for row in table.rows
        for form in row.forms
        for settings in [settings_of(table, table.scales["paper"], row, form, column="")]
    ]


def _parts(table: Table, model_id: str, settings: Mapping[str, Any]) -> dict[str, int]:
    from reference_models.checkpoints import build_model

    height, width, channels = table.parameters["image_shape"]
    model = build_model(model_id, settings, (height, width, channels), seed=0)
    counts = dict.fromkeys(table.parameters["parts"], 0)
    for name, parameter in model.named_parameters():
        counts[_part_of(name, table.parameters["parts"])] += parameter.numel()
    return counts


def _part_of(name: str, parts: Mapping[str, list[str]]) -> str:
    found = [part for part, beginnings in parts.items() if name.partition(".")[0] in beginnings]
    if len(found) != 1:
        raise ValueError(f"{name}: expected to be in one part of {', '.join(parts)}, is in {len(found)}.")
    return found[0]


def parameter_rows(table: Table, counted: Sequence[Counted]) -> tuple[list[str], list[list[str]]]:
    """Return header and lines: the paper's numbers, below them ours by form, each with what it has more."""
    parts = (*table.parameters["parts"], TOTAL)
    lines: list[list[str]] = []
    for each in counted:
        paper, ours = ([_of(numbers, part) for part in parts] for numbers in (each.published, each.parts))
        paper_line = [each.row, "paper", *map(_figure, paper)]
        if paper_line not in lines:
            lines.append(paper_line)
        lines.append([each.row, f"ours, {each.form}", *map(_figure, ours)])
        lines.append([each.row, f"ours, {each.form}: more", *map(_difference, ours, paper)])
    return ["method", "", *parts], lines


def _of(parts: Mapping[str, int], part: str) -> int | None:
    if part == TOTAL:
        return sum(parts.values()) if parts else None
    return parts.get(part)


def _figure(number: int | None) -> str:
    return DASH if number is None else f"{number:,}"


def _difference(ours: int | None, paper: int | None) -> str:
    return DASH if ours is None or paper is None else f"{ours - paper:+,}"


def parameter_document(counted: Sequence[Counted]) -> list[dict[str, Any]]:
    """Return the numbers as JSON values."""
    return [
        {
            "method": each.row,
            "form": each.form,
            "parameters": {**each.parts, TOTAL: _of(each.parts, TOTAL)},
            "paper": {**each.published, TOTAL: _of(each.published, TOTAL)} if each.published else None,
        }
        for each in counted
    ]
