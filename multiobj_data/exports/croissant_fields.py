"""Croissant's record sets and fields (version 1.1), as JSON-LD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from multiobj_data.exports.about import field_text

_TYPES = {"i": "cr:Int", "u": "cr:UInt", "f": "cr:Float"}


def field_id(records: str, name: str) -> str:
    """Return the id of a field of a record set, e.g. ``train/factors/class``."""
    return f"{records}/{name}"


def record_set(name: str, fields: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Return a record set; ``more`` are further properties."""
    return {"@type": "cr:RecordSet", "@id": name, "name": name, **more, "field": list(fields)}


def field(name: str, data_type: str, source: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a field.

    Args:
        name: Its id: record set, slash, name.
        data_type: Croissant's or schema.org's name of a type.
        source: Where its values are.
        **more: Further properties.
    """
    text = field_text(name.partition("/")[2])
    return {
        "@type": "cr:Field",
        "@id": name,
        "name": name,
        "description": text,
        "dataType": data_type,
        "source": source,
        **more,
    }


def image_field(records: str, name: str, source: dict[str, Any]) -> dict[str, Any]:
    """Return a field of pictures."""
    return field(field_id(records, name), "sc:ImageObject", source)


def column_field(records: str, name: str, values: np.ndarray, source: dict[str, Any]) -> dict[str, Any]:
    """Return a field of numbers.

    Args:
        records: Id of the record set.
        name: Name of the field.
        values: An array ``[b, ...]`` that has its dtype and shape.
        source: Where its values are.
    """
    shape = values.shape[1:]
    array = {"isArray": True, "arrayShape": ",".join(map(str, shape))} if shape else {}
    return field(field_id(records, name), _data_type(values.dtype), source, **array)


def _data_type(dtype: np.dtype) -> str:
    if dtype.kind == "b":
        return "sc:Boolean"
    return f"{_TYPES[dtype.kind]}{8 * dtype.itemsize}"
