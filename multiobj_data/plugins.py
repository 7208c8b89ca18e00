"""Names to things: built-in id, then ``module:attribute``, then an installed entry point.

Nothing is imported until it is asked for by name. A built-in id cannot be shadowed.
"""

from __future__ import annotations

import importlib
import os
import sys
import textwrap
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from importlib.metadata import entry_points
from typing import Any

from multiobj_data.errors import MobjError, UsageError, did_you_mean, quoted

BUILT_IN: dict[str, dict[str, str]] = {
    "generators": {
        "multi-mnist": "multiobj_data.generators.multi_mnist:MultiMNIST",
        "multi-dsprites": "multiobj_data.generators.multi_dsprites:MultiDSprites",
        "sprites": "multiobj_data.generators.sprites:Sprites",
        "towers": "multiobj_data.generators.towers:Towers",
        "rooms": "multiobj_data.generators.rooms:Rooms",
    },
    "models": {
        "air": "reference_models.air:AIR",
        "air-pprior": "reference_models.air_pprior:AIRpPrior",
        "air-asr": "reference_models.air_asr:AIRASR",
        "supair": "reference_models.supair:SuPAIR",
        "genesis": "reference_models.genesis:Genesis",
        "genesis-v2": "reference_models.genesis_v2:GenesisV2",
        "emorl": "reference_models.emorl:EfficientMORL",
        "sri": "reference_models.sri:SRI",
        "sri-sa": "reference_models.sri_sa:SRISA",
    },
    "metrics": {},
    "constraints": {
        "overlap": "reference_models.parts.objects.constraints:overlap",
        "inside": "reference_models.parts.objects.constraints:inside",
        "size": "reference_models.parts.objects.constraints:size",
        "same-size": "reference_models.parts.objects.constraints:same_size",
    },
}
"""Kind -> id -> ``module:attribute``. The entry-point groups are ``mobj.`` + kind."""


def names(kind: str) -> dict[str, str]:
    """Return every known id of a kind with where it comes from, importing none of them."""
    installed = {point.name: point.value for point in entry_points(group=f"mobj.{kind}")}
    return installed | BUILT_IN[kind]


def resolve(kind: str, name: str) -> Any:
    """Return the generator class, model class or metric called ``name``.

    Args:
        kind: ``"generators"``, ``"models"``, ``"metrics"`` or ``"constraints"``.
        name: A built-in id, ``"package.module:attribute"`` (the package may lie in the current folder), or
            the name of an entry point in the group ``mobj.<kind>``.

    Raises:
        UsageError: If there is no such kind or name, the module has no such attribute, or a generator's is none.
        MobjError: If the module exists, but importing it raises.
    """
    if kind not in BUILT_IN:
        raise UsageError(f"kind: expected one of {', '.join(BUILT_IN)}, got {quoted(kind)}.")
    found = _find(kind, name)
    if kind == "generators":
        _require_generator(name, found)
    return found


def _find(kind: str, name: str) -> Any:
    target = BUILT_IN[kind].get(name)
    if target is not None:
        return _load(kind, target)
    if ":" in name:
        target = name
        _search_current_folder()
    else:
        target = names(kind).get(name)
    if target is None:
        raise UsageError(
            f"no {kind.rstrip('s')} named {name!r}.{did_you_mean(name, names(kind))} "
            "Your own: give package.module:attribute."
        )
    return _load(kind, target)


def _require_generator(name: str, found: Any) -> None:
    """Refuse what is no class of generators before it fails somewhere else; see `multiobj_data.checks` for the rest."""
    if not isinstance(found, type):
        lack = f"a class, got {quoted(found)}"
    elif not is_dataclass(found):
        lack = f"a dataclass (@dataclass(frozen=True)), {found.__name__} is none"
    elif not isinstance(getattr(found, "id", None), str):
        lack = f"a class attribute `id` such as 'fruits-v1', {found.__name__} has none"
    elif not callable(getattr(found, "scenes", None)):
        lack = f"a method `scenes(rng, n, *, split, first)`, {found.__name__} has none"
    else:
        return
    raise UsageError(f"the generator {name}: expected {lack}; multiobj_data.check_generator tests the rest.")


def _search_current_folder() -> None:
    """Find modules as `python -m` does; for good, since plug-ins import late, and worker processes again."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


@contextmanager
def foreign_code(who: str) -> Iterator[None]:
    """Turn whatever code of other people raises, ``sys.exit`` included, into one sentence that names it.

    Raises:
        MobjError: With the error's type, message and place; what already is one passes.
    """
    try:
        yield
    except MobjError:
        raise
    except (Exception, SystemExit) as error:
        what = textwrap.shorten(f"{type(error).__name__}: {error}", 300, placeholder=" ...")
        raise MobjError(
            f"{who} raised {what} ({_place(error)}); MOBJ_DEBUG=1 shows the traceback."
        ) from error


def _place(error: BaseException) -> str:
    if isinstance(error, SyntaxError):  # raised by the importer, about another file
        return f"{error.filename}:{error.lineno}"
    innermost = traceback.extract_tb(error.__traceback__)[-1]
    return f"{innermost.filename}:{innermost.lineno}"


def _load(kind: str, target: str) -> Any:
    module_name, _, attribute = target.partition(":")
    if not (attribute and all(part.isidentifier() for part in module_name.split("."))):
        raise UsageError(f"{kind}: expected package.module:attribute, got {target!r}.")
    module = _import(kind, target, module_name)
    try:
        return getattr(module, attribute)
    except AttributeError:
        public = [name for name in vars(module) if not name.startswith("_")]
        raise UsageError(
            f"{kind}: {module_name} has no attribute {attribute!r}.{did_you_mean(attribute, public)}"
        ) from None


def _import(kind: str, target: str, module_name: str) -> Any:
    with foreign_code(f"{kind.rstrip('s')} {target}"):
        try:
            return importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and module_name.split(".")[0] != error.name.split(".")[0]:
                raise  # the plug-in exists, but something that it needs is missing: say that
            raise UsageError(f"{kind}: cannot import {module_name!r} ({error}); is it installed?") from error
