"""Presets: the settings of published data sets, by one word. Data, not code: ``presets.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from multiobj_data.errors import UsageError, did_you_mean, quoted


@dataclass(frozen=True)
class Preset:
    """Settings of a published data set.

    Attributes:
        generator: Id of the generator.
        about: One line with the source.
        splits: Split -> scenes.
        settings: The generator's settings; what is absent has its default.
    """

    generator: str
    about: str
    splits: Mapping[str, int]
    settings: Mapping[str, Any]


@cache
def presets() -> dict[str, Preset]:
    """Return all presets, by name."""
    text = (files("multiobj_data") / "presets.toml").read_text()
    return {name: Preset(**table) for name, table in tomllib.loads(text).items()}


def find_preset(name: str, generator: str | None = None) -> Preset:
    """Return the preset called ``name``.

    Raises:
        UsageError: If there is none, or it belongs to another generator than the one given.
    """
    preset = presets().get(name)
    if preset is None:
        raise UsageError(f"no preset named {quoted(name)}.{did_you_mean(name, presets())}")
    if generator not in (None, preset.generator):
        raise UsageError(
            f"preset {name!r} belongs to {preset.generator}, not to {generator}: mobj generate --preset {name}"
        )
    return preset
