"""Presets of models: the settings of a paper or of its released code, by one word. Data: ``presets.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from multiobj_data.errors import UsageError, did_you_mean, quoted


@dataclass(frozen=True)
class ModelPreset:
    """Named settings of a model.

    Attributes:
        about: What they are, with their source.
        settings: Setting -> value; what is absent has the model's default.
    """

    about: str
    settings: Mapping[str, Any]


def model_presets(model: str) -> dict[str, ModelPreset]:
    """Return the presets of a model, by name; none for a model that has none."""
    table = tomllib.loads((files("reference_models") / "presets.toml").read_text(encoding="utf-8"))
    return {
        name: ModelPreset(values["about"], {key: value for key, value in values.items() if key != "about"})
        for name, values in table.get(model, {}).items()
    }


def preset_settings(model: str, name: str) -> Mapping[str, Any]:
    """Return the settings of a model's preset.

    Raises:
        UsageError: The model has no such preset.
    """
    known = model_presets(model)
    if name not in known:
        hint = did_you_mean(name, known) if known else " It has none."
        raise UsageError(f"{model} has no preset named {quoted(name)}.{hint}")
    return known[name].settings
