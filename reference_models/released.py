"""Weights that authors published, as checkpoints of this toolkit.

A released file holds a *state dict*: names and tensors of a network that its authors' code built. Ours has the same
layers under other names, sometimes joined (two linear layers that read the same as one) or laid out otherwise.
``released.toml`` says for each of our tensors which of theirs it is made of and how; here it is applied, and a state
dict of another architecture is refused by naming what is missing, what is too much, and which shapes differ.

Only tensors and plain values are read (``weights_only=True``): a file can run no code.
"""

from __future__ import annotations

import io
import pickle
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multiobj_data.errors import DataError, UsageError, did_you_mean, quoted
from reference_models.base import ImageShape, SceneModel
from reference_models.checkpoints import DAMAGE, Checkpoint, build_model
from reference_models.released_layouts import ANY, LAYOUTS, Layout, Shape

_SHOWN = 3
"""How many names an error lists of each kind."""


@dataclass(frozen=True)
class Rule:
    """Where one of our tensors, or a family of them, comes from.

    Attributes:
        ours: Its name. ``{i}`` stands for any number, ``*`` for a last name such as ``weight``; in ``theirs`` they
            are the same, and ``{i+1}`` is the next number.
        theirs: Names of the tensors that it is made of.
        layout: How, by name: see `reference_models.released_layouts`.
    """

    ours: str
    theirs: tuple[str, ...]
    layout: str = "same"

    def sources(self, name: str) -> tuple[str, ...] | None:
        """Return their names for our tensor ``name``; ``None`` if the rule is not about it."""
        pattern = re.escape(self.ours).replace(r"\{i\}", r"(?P<i>\d+)").replace(r"\*", r"(?P<last>\w+)")
        match = re.fullmatch(pattern, name)
        if match is None:
            return None
        found = match.groupdict()
        return tuple(
            _NEXT.sub(lambda step: str(int(found["i"]) + int(step["add"] or 0)), text).replace(
                "*", found.get("last") or "*"
            )
            for text in self.theirs
        )


_NEXT = re.compile(r"\{i(?:\+(?P<add>\d+))?\}")


@dataclass(frozen=True)
class ReleasedFormat:
    """How authors save a model.

    Attributes:
        about: Whose code, and what is known of its files.
        keys: Under which of these the state dict lies in the file, if not at its top.
        rules: Ours to theirs; the first that fits a name counts.
        ignored: Patterns of names of theirs that hold nothing learnt.
        initial: Patterns of names of ours that they do not save; such keep their first value.
        aliases: Older beginnings of their names -> the ones used in the rules.
        settings: Settings of ours that their architecture needs, where they are not the defaults.
    """

    about: str
    keys: tuple[str, ...]
    rules: tuple[Rule, ...]
    ignored: tuple[str, ...] = ()
    initial: tuple[str, ...] = ()
    aliases: Mapping[str, str] | None = None
    settings: Mapping[str, Any] | None = None


def released_formats() -> dict[str, ReleasedFormat]:
    """Return the known formats by model."""
    table = tomllib.loads((files("reference_models") / "released.toml").read_text(encoding="utf-8"))
    groups = table.pop("groups")
    return {model: _format(values, groups) for model, values in table.items()}


def _format(values: Mapping[str, Any], groups: Mapping[str, Any]) -> ReleasedFormat:
    rules = [_rule(ours, how) for ours, how in values.get("names", {}).items()]
    for use in values.get("uses", []):
        for ours, how in groups[use["group"]].items():
            rule = _rule(ours, how)
            theirs = tuple(use.get("theirs", "") + name for name in rule.theirs)
            rules.append(Rule(use.get("ours", "") + rule.ours, theirs, rule.layout))
    return ReleasedFormat(
        about=values["about"],
        keys=tuple(values["keys"]),
        rules=tuple(rules),
        ignored=tuple(values.get("ignored", ())),
        initial=tuple(values.get("initial", ())),
        aliases=values.get("aliases"),
        settings=values.get("settings"),
    )


def _rule(ours: str, how: str | Mapping[str, Any]) -> Rule:
    if isinstance(how, str):
        return Rule(ours, (how,))
    return Rule(ours, tuple(how["from"]), how["layout"])


def import_weights(
    model_id: str, path: str | Path, image_shape: ImageShape, config: Mapping[str, Any] | None = None
) -> Checkpoint:
    """Build a model of ours with the weights of a released file.

    Args:
        model_id: Which model; see `released_formats`.
        path: The file, as the authors' code saved it with ``torch.save``.
        image_shape: ``(H, W, C)`` of the images that it was trained on.
        config: Settings that the file does not tell, e.g. the number of slots.

    Returns:
        A checkpoint at step 0 without data, to be saved and evaluated; it cannot be resumed.

    Raises:
        UsageError: No released weights are known of the model, or a setting is malformed.
        DataError: The file cannot be read, or holds the weights of another architecture.
    """
    known = released_formats()
    if model_id not in known:
        raise UsageError(
            f"no released weights are known of {quoted(model_id)}.{did_you_mean(model_id, known)}"
        )
    released = known[model_id]
    theirs = _state_dict(path, released)
    model = build_model(model_id, {**(released.settings or {}), **(config or {})}, image_shape, seed=0)
    model.load_state_dict(_translated(path, model_id, model, theirs, released))
    return Checkpoint(model_id, model.eval(), data={}, step=0, seed=0)


def _state_dict(path: str | Path, released: ReleasedFormat) -> dict[str, Tensor]:
    """Return their tensors by name, without the prefix that data-parallel training puts before each."""
    content = _read(path)
    for key in released.keys:
        if isinstance(content, dict) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise DataError(
            f"{path}: holds no state dict, neither at the top nor under {', '.join(released.keys)}."
        )
    wrong = [
        str(name)
        for name, value in content.items()
        if not (isinstance(name, str) and isinstance(value, Tensor))
    ]
    if wrong:
        raise DataError(
            f"{path}: expected a state dict of tensors, at the top or under {', '.join(released.keys)}; "
            f"{_listed(wrong)} is none."
        )
    prefix = "module." if all(name.startswith("module.") for name in content) else ""
    named = {name.removeprefix(prefix): value for name, value in content.items()}
    for old, new in (released.aliases or {}).items():
        named = {
            new + name.removeprefix(old) if name.startswith(old) else name: t for name, t in named.items()
        }
    return {name: t for name, t in named.items() if not any(fnmatchcase(name, p) for p in released.ignored)}


def _read(path: str | Path) -> Any:
    try:
        return torch.load(io.BytesIO(Path(path).read_bytes()), map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; give the path of the released weights.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path}: is no file of weights, or holds more than tensors and plain values, which is not read because "
            "it could run code."
        ) from error
    except DAMAGE as error:
        raise DataError(f"{path}: is no file that torch.save wrote, or is damaged; fetch it anew.") from error


def _translated(
    path: str | Path, model_id: str, model: SceneModel, theirs: dict[str, Tensor], released: ReleasedFormat
) -> dict[str, Tensor]:
    ours = model.state_dict()
    learnt = [name for name in ours if not any(fnmatchcase(name, pattern) for pattern in released.initial)]
    plan = {name: _source(name, released) for name in learnt}
    expected: dict[str, Shape] = {}
    for name, (layout, parts) in plan.items():
        expected |= dict(zip(parts, layout.shapes(ours[name].shape), strict=True))
    _refuse_other_architecture(path, model_id, expected, theirs)
    made = {name: layout.join([theirs[part] for part in parts]) for name, (layout, parts) in plan.items()}
    for name, tensor in made.items():
        if tensor.numel() != ours[name].numel():  # of another image size
            raise DataError(
                f"{path}: is not the state dict of a {model_id} with these settings and image size; of another "
                f"shape: {plan[name][1][0]} {_size(theirs[plan[name][1][0]].shape)}."
            )
    return {**ours, **{name: tensor.reshape(ours[name].shape) for name, tensor in made.items()}}


def _source(name: str, released: ReleasedFormat) -> tuple[Layout, tuple[str, ...]]:
    """Return how our tensor ``name`` is made, and of what."""
    for rule in released.rules:
        sources = rule.sources(name)
        if sources is not None:
            return LAYOUTS[rule.layout], sources
    raise UsageError(
        f"released weights: nothing is known of where {name} comes from; with these settings the model is not the "
        "published one: give those that it was trained with."
    )


def _refuse_other_architecture(
    path: str | Path, model_id: str, expected: Mapping[str, Shape], found: Mapping[str, Tensor]
) -> None:
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    other = [
        f"{name} {_size(found[name].shape)} instead of {_size(shape)}"
        for name, shape in expected.items()
        if name in found and not _fits(found[name].shape, shape)
    ]
    complaints = [
        f"{what}: {_listed(names)}"
        for what, names in (("missing", missing), ("unknown", extra), ("of another shape", other))
        if names
    ]
    if complaints:
        raise DataError(
            f"{path}: is not the state dict of a {model_id} with these settings and image size; "
            f"{'; '.join(complaints)}."
        )


def _fits(shape: torch.Size, wanted: Shape) -> bool:
    return len(shape) == len(wanted) and all(w in (ANY, size) for size, w in zip(shape, wanted, strict=True))


def _size(shape: Iterable[int]) -> str:
    return "x".join("?" if size == ANY else str(size) for size in shape) or "a number"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
