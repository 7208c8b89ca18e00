"""Frozen dataclasses as configurations: from ``key=value`` texts and JSON, with errors that name the field."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from multiobj_data.errors import UsageError, did_you_mean, quoted, shortened

T = TypeVar("T")

UNRECORDED: Mapping[str, Any] = {"recorded": False}
"""Field metadata for what does not define the data: where files lie on this machine."""


def parse_assignments(assignments: Iterable[str], option: str = "--set") -> dict[str, str]:
    """Return ``{"key": "value"}`` from texts ``key=value``; errors name the option that gave them.

    Raises:
        UsageError: A text is none, or two set the same key.
    """
    values: dict[str, str] = {}
    for text in assignments:
        key, sign, value = (part.strip() for part in text.partition("="))
        if not sign or not key:
            raise UsageError(f"{option}: expected key=value, got {quoted(text)}.")
        if key in values:
            both = (f"{option} {shortened(f'{key}={text}')}" for text in (values[key], value))
            raise UsageError(f"{' and '.join(both)} set the same; give one of the two.")
        values[key] = value
    return values


def build(cls: type[T], values: Mapping[str, Any], owner: str = "") -> T:
    """Return ``cls(**values)``, with texts converted to each field's type.

    Args:
        cls: A dataclass.
        values: Field name -> value; a text is read as the field's type (``"none"`` where that may be None).
        owner: Whose settings they are, for errors; the dataclass if not given.

    Raises:
        UsageError: Unknown field, or a value that cannot be read as its type.
    """
    owner = owner or cls.__name__
    hints = typing.get_type_hints(cls)
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    known = [field.name for field in dataclasses.fields(cls) if field.init]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise UsageError(f"{owner} has no setting {quoted(key)}.{did_you_mean(key, known)}")
    return cls(
        **{key: _convert(owner, key, value, hints[key], defaults[key]) for key, value in values.items()}
    )


def recorded(config: Any) -> dict[str, Any]:
    """Return the fields that define the data, JSON-ready."""
    return {
        field.name: _plain(getattr(config, field.name))
        for field in dataclasses.fields(config)
        if field.metadata.get("recorded", True)
    }


def _plain(value: Any) -> Any:
    return list(map(_plain, value)) if isinstance(value, list | tuple) else value


def _convert(owner: str, key: str, value: Any, hint: Any, default: Any) -> Any:
    wanted = typing.get_args(hint) if _is_union(hint) else (hint,)
    for kind in wanted:
        try:
            return _read(value, kind)
        except (ValueError, TypeError, OverflowError):
            continue
    raise UsageError(f"{owner}: {key} must be {_describe(hint, default)}, got {quoted(value)}.")


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _read(value: Any, kind: Any) -> Any:
    origin = typing.get_origin(kind)
    if kind is type(None):
        if value is None or (isinstance(value, str) and value.lower() in ("none", "null")):
            return None
    elif origin is typing.Literal:
        if value in typing.get_args(kind):
            return value
    elif origin is tuple:
        kinds = typing.get_args(kind)
        parts = _parts(value, of_texts=kinds[0] is str) if isinstance(value, str) else list(value)
        kinds = kinds[:1] * len(parts) if kinds[1:] == (...,) else kinds
        if len(kinds) == len(parts):
            return tuple(_read(part, k) for part, k in zip(parts, kinds, strict=True))
    elif kind is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if isinstance(value, bool):
            return value
        if str(value).lower() in words:
            return words[str(value).lower()]
    elif kind is int:
        if not isinstance(value, bool) and float(value) == int(float(value)):
            return (
                int(float(value))
                if isinstance(value, str) and not value.lstrip("+-").isdigit()
                else int(value)
            )
    elif kind is float:
        if not isinstance(value, bool):
            return float(value)
    elif kind is str and isinstance(value, str):
        return value
    raise ValueError


def _parts(text: str, *, of_texts: bool) -> list[Any]:
    """Return what stands between the commas."""
    inner = text.strip("()[]")
    if of_texts:
        return [part.strip() for part in inner.split(",") if part.strip()]
    parts: list[Any] = json.loads(f"[{inner}]")
    return parts


def _describe(hint: Any, default: Any) -> str:
    if _is_union(hint):
        return " or ".join(_describe(kind, default) for kind in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    names = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a text",
        type(None): "none",
    }
    if typing.get_origin(hint) is tuple:
        example = default if isinstance(default, tuple) else [0 for _ in typing.get_args(hint)]
        return "numbers such as " + ",".join(map(str, example))  # the default is surely valid
    return names.get(hint, str(hint))
