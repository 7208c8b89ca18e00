"""The cells of a table: one model, trained one way on one data set with one seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from cli.reproduction.tables import FORMS, Row, Scale, Table
from multiobj_data.errors import UsageError, did_you_mean, quoted

EVALUATION, FAILURE = "evaluation.json", "failure.json"


@dataclass(frozen=True)
class Cell:
    """One run of a table.

    Attributes:
        column: Key of the column.
        row: Name of the row.
        form: How it is trained: one of `tables.FORMS`.
        seed: Of the run.
        model: The model's id.
        settings: The model's settings that are not its defaults.
        steps: Training steps.
        batch_size: Images a step.
    """

    column: str
    row: str
    form: str
    seed: int
    model: str
    settings: Mapping[str, Any]
    steps: int
    batch_size: int

    @property
    def name(self) -> str:
        """What the user calls it."""
        return f"{self.column} {self.row} {self.form} seed-{self.seed}"

    @property
    def group(self) -> tuple[str, str, str]:
        """Column, row and form: what the seeds share."""
        return self.column, self.row, self.form

    def runs(self, out: Path) -> Path:
        """Return the folder of all its seeds."""
        return runs_folder(out, *self.group)

    def folder(self, out: Path) -> Path:
        """Return the folder of the run."""
        return self.runs(out) / f"seed-{self.seed}"

    def identity(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a finished result must agree with, as JSON values.

        Args:
            data: Identity of the data set.
        """
        names = ("column", "row", "form", "seed", "model", "settings", "steps", "batch_size")
        return {name: getattr(self, name) for name in names} | {"data": data}


def runs_folder(out: Path, column: str, row: str, form: str) -> Path:
    """Return the folder of all seeds of a model in one form on one data set."""
    return out / "runs" / column.lower() / f"{row.lower()}-{form}"


def cells_of(
    table: Table,
    scale: Scale,
    *,
    seeds: Iterable[int],
    forms: Sequence[str] = FORMS,
    steps: int | None = None,
) -> list[Cell]:
    """Return the cells of a table, column by column, of the columns that its scale has.

    Args:
        table: The table.
        scale: How much is trained.
        seeds: Seeds of each.
        forms: Which forms.
        steps: Instead of the scale's.
    """
    return [
        Cell(
            column=column,
            row=row.name,
            form=form,
            seed=seed,
            model=row.model,
            settings=settings_of(table, scale, row, form, column),
            steps=steps or scale.steps_of({column.lower(), row.name.lower(), form}),
            batch_size=scale.batch_size,
        )
        for column, row, form, seed in product(table.columns_of(scale), table.rows, FORMS, seeds)
        if form in forms and form in row.forms and (not row.only or column in row.only)
    ]


def settings_of(table: Table, scale: Scale, row: Row, form: str, column: str) -> dict[str, Any]:
    """Return what a model is trained with: preset, table, form, scale, row and column, later ones first."""
    from reference_models.presets import preset_settings

    chosen = row.forms[form]
    preset = chosen.preset_of(column)
    parts = (
        preset_settings(row.model, preset) if preset else {},
        table.settings,
        chosen.settings,
        scale.settings,
        scale.models.get(row.model, {}),
        scale.exact if form == "exact" else {},
        row.settings,
        row.columns.get(column, {}),
    )
    return {name: value for part in parts for name, value in part.items()}


def chosen(cells: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    """Return the cells that one of the texts of ``--only`` names: every word of it is a part of the cell's name.

    Raises:
        UsageError: A word is part of no cell's name, or nothing is left.
    """
    if not only:
        return list(cells)
    wanted = [text.lower().split() for text in only]
    known = {part for cell in cells for part in _parts(cell)}
    for word in (word for words in wanted for word in words):
        if word not in known:
            raise UsageError(f"--only: no cell has {quoted(word)} in its name.{did_you_mean(word, known)}")
    left = [cell for cell in cells if any(set(words) <= _parts(cell) for words in wanted if words)]
    if not left:
        raise UsageError(f"--only: no cell is all of {quoted(' '.join(only))}; --dry-run lists the cells.")
    return left


def _parts(cell: Cell) -> set[str]:
    return set(cell.name.lower().split())
