"""Names to things: built-in id, then ``module:attribute``, then an installed entry point.

Nothing is imported until it is asked for by name. A built-in id cannot be shadowed.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import Any

from multiobj_data.errors import UsageError, did_you_mean

BUILT_IN: dict[str, dict[str, str]] = {
    "generators": {"multi-mnist": "multiobj_data.generators.multi_mnist:MultiMNIST"},
    "models": {"air": "reference_models.air:AIR"},
    "metrics": {},
}
"""Kind -> id -> ``module:attribute``. The entry-point groups are ``mobj.`` + kind."""


def names(kind: str) -> dict[str, str]:
    """Return every known id of a kind with where it comes from, importing none of them."""
    installed = {point.name: point.value for point in entry_points(group=f"mobj.{kind}")}
    return installed | BUILT_IN[kind]


def resolve(kind: str, name: str) -> Any:
    """Return the generator class, model class or metric called ``name``.

    Args:
        kind: ``"generators"``, ``"models"`` or ``"metrics"``.
        name: A built-in id, ``"package.module:attribute"``, or the name of an entry point in the group
            ``mobj.<kind>``.

    Raises:
        UsageError: If there is no such name, or the module has no such attribute.
    """
    target = BUILT_IN[kind].get(name)
    if target is None and ":" in name:
        target = name
    if target is None:
        target = names(kind).get(name)
    if target is None:
        raise UsageError(
            f"no {kind.rstrip('s')} named {name!r}.{did_you_mean(name, names(kind))} "
            "Your own: give package.module:attribute."
        )
    return _load(kind, target)


def _load(kind: str, target: str) -> Any:
    module_name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.split(".")[0] != error.name.split(".")[0]:
            raise  # the plug-in exists, but something that it needs is missing: say that
        raise UsageError(f"{kind}: cannot import {module_name!r} ({error}); is it installed?") from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        public = [name for name in vars(module) if not name.startswith("_")]
        raise UsageError(
            f"{kind}: {module_name} has no attribute {attribute!r}.{did_you_mean(attribute, public)}"
        ) from None
