"""Multi-object scenes: what may be in them, drawing them, storing them, reading others' sets.

The types are `Scenes` (truth) and `Prediction` (a model's answer). Loading a stored data set:

>>> from multiobj_data import open_dataset  # doctest: +SKIP
>>> test = open_dataset("data/multi-mnist", "test")  # doctest: +SKIP
>>> test.images([0, 1, 2]).shape  # doctest: +SKIP
(3, 50, 50, 1)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from multiobj_data.version import __version__

if TYPE_CHECKING:
    from multiobj_data.checks import check_generator
    from multiobj_data.generation.plan import Plan
    from multiobj_data.generation.running import generate
    from multiobj_data.loading import GeneratedScenes, StoredScenes, open_dataset
    from multiobj_data.plugins import resolve
    from multiobj_data.scenes import Prediction, Scenes

_HOMES = {
    "GeneratedScenes": "loading",
    "Plan": "generation.plan",
    "Prediction": "scenes",
    "Scenes": "scenes",
    "StoredScenes": "loading",
    "check_generator": "checks",
    "generate": "generation.running",
    "open_dataset": "loading",
    "resolve": "plugins",
}

__all__ = [
    "GeneratedScenes",
    "Plan",
    "Prediction",
    "Scenes",
    "StoredScenes",
    "__version__",
    "check_generator",
    "generate",
    "open_dataset",
    "resolve",
]


def __getattr__(name: str) -> object:
    """Import each name when it is first used, so that ``import multiobj_data`` costs nothing."""
    if name in _HOMES:
        return getattr(import_module(f"multiobj_data.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'multiobj_data' has no attribute {name!r}")
