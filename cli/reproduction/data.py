"""The data sets of a table: drawn once into the folder of the reproduction, or the user's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.console import progress
from cli.reproduction.tables import Column, Scale
from multiobj_data.errors import UsageError

if TYPE_CHECKING:
    from multiobj_data.generation.plan import Plan
    from multiobj_data.shards.manifest import Manifest

_SCENES_A_WORKER = 2048  # below that, starting a process costs more than it saves
_ONLY_SOURCE = ("digits", "digits_root")


def plan_of(column: Column, scale: Scale, options: Mapping[str, Any]) -> Plan:
    """Return the plan of a column's data set at a scale.

    Args:
        column: The column, of no public set.
        scale: Gives the number of scenes.
        options: ``digits`` and ``digits_root``, or ``None``.
    """
    from cli.request import has_setting
    from multiobj_data.generation.plan import Plan

    preset = column.preset
    splits = dict(preset.splits) | {
        name: n for name, n in (("train", scale.train), ("test", scale.test)) if n
    }
    given = {
        name: options[name]
        for name in _ONLY_SOURCE
        if options.get(name) is not None and has_setting(preset.generator, name)
    }
    return Plan.create(preset.generator, {**preset.settings, **given}, splits=splits)


def draw(plan: Plan, folder: Path, label: str) -> Manifest:
    """Write a data set, or what is left of it to write."""
    from multiobj_data.composition.memory import keep_freed_memory
    from multiobj_data.generation.running import generate

    total = sum(plan.splits.values())
    workers = min((os.cpu_count() or 1) + 1, 1 + total // _SCENES_A_WORKER)
    with progress(f"data {label}", total, "scenes") as advance:
        keep_freed_memory()
        manifest = generate(plan, folder, workers=workers, on_progress=advance)
    assert manifest is not None  # the only range
    return manifest


def converted(folder: Path, column: Column) -> tuple[Path, Manifest]:
    """Return the user's conversion of a public set: ``folder/NAME``, or ``folder`` itself.

    Raises:
        DataError: There is none.
        UsageError: It is another set, of another size, or has no train or test split.
    """
    from multiobj_data.shards.manifest import CONVERTED

    path, manifest = _found(folder, column.data)
    if manifest.generator != CONVERTED + column.data:
        raise UsageError(
            f"--data: {path} holds {manifest.dataset}, not {column.data}; make it with: mobj convert {column.convert} "
            f"--out {path}."
        )
    if manifest.image_shape != tuple(column.image_shape):
        raise UsageError(
            f"--data: {path} has images of {tuple(manifest.image_shape)}, the table's are {tuple(column.image_shape)}; "
            f"make it with: mobj convert {column.convert} --out {path}."
        )
    _refuse_missing_splits(path, manifest)
    return path, manifest


def own(folder: Path, column: Column, plan: Plan) -> tuple[Path, Manifest]:
    """Return the user's data set for a column: ``folder/DATA``, or ``folder`` itself.

    Raises:
        DataError: There is none.
        UsageError: Its scenes follow other settings than the column's, or it has no train or test split.
    """
    path, manifest = _found(folder, column.data)
    wanted = plan.identity["config"]
    for name, value in wanted.items():
        if name not in _ONLY_SOURCE and manifest.config.get(name) != value:
            raise UsageError(
                f"--data: {path} is not {column.data}: {name} is {manifest.config.get(name)!r} there, {value!r} in the "
                f"table; make it with: mobj generate {_arguments(column)} --out {path}."
            )
    _refuse_missing_splits(path, manifest)
    return path, manifest


def _arguments(column: Column) -> str:
    """Return what `mobj generate` is given to make a column's data."""
    if not column.generator:
        return f"--preset {column.data}"
    return " ".join([column.generator, *(f"--set {name}={value}" for name, value in column.settings.items())])


def _found(folder: Path, name: str) -> tuple[Path, Manifest]:
    from multiobj_data.shards.manifest import MANIFEST, Manifest

    path = folder if (folder / MANIFEST).exists() else folder / name
    return path, Manifest.read(path)


def _refuse_missing_splits(path: Path, manifest: Manifest) -> None:
    if missing := {"train", "test"} - manifest.splits.keys():
        raise UsageError(f"--data: {path} has no {min(missing)} split; make it anew.")
