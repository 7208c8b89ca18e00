"""The data sets of a table: drawn once into the folder of the reproduction, or the user's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.console import progress
from cli.reproduction.tables import Scale
from multiobj_data.errors import UsageError

if TYPE_CHECKING:
    from multiobj_data.manifest import Manifest
    from multiobj_data.plan import Plan

_SCENES_A_WORKER = 2048  # below that, starting a process costs more than it saves
_ONLY_SOURCE = ("digits", "digits_root")


def plan_of(preset_name: str, scale: Scale, options: Mapping[str, Any]) -> Plan:
    """Return the plan of a preset's data set at a scale.

    Args:
        preset_name: As in `multiobj_data.presets`.
        scale: Gives the number of scenes.
        options: ``digits`` and ``digits_root``, or ``None``.
    """
    from cli.request import has_setting
    from multiobj_data.plan import Plan
    from multiobj_data.presets import find_preset

    preset = find_preset(preset_name)
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
    from multiobj_data.generation import generate
    from multiobj_data.memory import keep_freed_memory

    total = sum(plan.splits.values())
    workers = min((os.cpu_count() or 1) + 1, 1 + total // _SCENES_A_WORKER)
    with progress(f"data {label}", total, "scenes") as advance:
        keep_freed_memory()
        manifest = generate(plan, folder, workers=workers, on_progress=advance)
    assert manifest is not None  # the only range
    return manifest


def own(folder: Path, preset_name: str, plan: Plan) -> tuple[Path, Manifest]:
    """Return the user's data set for a preset: ``folder/PRESET``, or ``folder`` itself.

    Raises:
        DataError: There is none.
        UsageError: Its scenes follow other settings than the preset's, or it has no train or test split.
    """
    from multiobj_data.manifest import MANIFEST, Manifest

    path = folder if (folder / MANIFEST).exists() else folder / preset_name
    manifest = Manifest.read(path)
    wanted = plan.identity["config"]
    for name, value in wanted.items():
        if name not in _ONLY_SOURCE and manifest.config.get(name) != value:
            raise UsageError(
                f"--data: {path} is not {preset_name}: {name} is {manifest.config.get(name)!r} there, {value!r} in the "
                f"preset; make it with: mobj generate --preset {preset_name} --out {path}."
            )
    if missing := {"train", "test"} - manifest.splits.keys():
        raise UsageError(f"--data: {path} has no {min(missing)} split; generate it anew.")
    return path, manifest
