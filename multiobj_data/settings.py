"""What can be set: a dataclass's fields with their defaults and what its docstring says of them."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from typing import Any


@dataclasses.dataclass(frozen=True)
class Setting:
    """One field.

    Attributes:
        name: The field.
        default: Its default, JSON-ready.
        about: What the docstring says.
    """

    name: str
    default: Any
    about: str


def settings_of(cls: type) -> list[Setting]:
    """Return the settings of a dataclass, in order; those of its base classes are described there."""
    about: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        about |= _arguments(base.__dict__.get("__doc__") or "")
    return [
        Setting(field.name, _default(field), about.get(field.name, ""))
        for field in dataclasses.fields(cls)
        if field.init
    ]


def choices(cls: type, name: str) -> tuple[Any, ...]:
    """Return the values among which a field must be, or nothing if it is free."""
    hint = typing.get_type_hints(cls)[name]
    return typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return None if field.default_factory is dataclasses.MISSING else field.default_factory()


def _arguments(docstring: str) -> dict[str, str]:
    """Read the section ``Args:`` of a Google docstring: name -> one line of text."""
    section = re.search(
        r"^(?:Args|Attributes):\n((?:[ \t]+.*\n?|\n)+)", inspect.cleandoc(docstring) + "\n", re.M
    )
    if section is None:
        return {}
    entries: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(" \n" + section[1]).splitlines():
        if match := re.match(r"(\w+): (.*)", line):
            name = match[1]
            entries[name] = match[2]
        elif name and line.strip():
            entries[name] += " " + line.strip()
    return {name: " ".join(text.replace("``", "").split()) for name, text in entries.items()}
