"""Parquet for Hugging Face ``datasets``: ``load_dataset(folder)`` decodes images, label maps and masks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multiobj_data.exports.about import About
from multiobj_data.exports.croissant_fields import column_field, field, field_id, image_field, record_set
from multiobj_data.exports.subset import Part, Subset, columns_of, nested, png, word
from multiobj_data.scenes import Scenes, known

if TYPE_CHECKING:
    import pyarrow as pa

_IMAGE = {"_type": "Image"}


def write(subset: Subset, about: About, folder: Path, advance: Callable[[int], None]) -> None:
    """Write ``data/SPLIT-00000-of-00008.parquet``; a row group is a batch."""
    import pyarrow.parquet as pq

    schema = _schema(subset)
    (folder / "data").mkdir()
    for split in subset.splits:
        for part in subset.parts(split):
            with pq.ParquetWriter(folder / _file(part), schema, compression="snappy") as writer:
                for indices, scenes in subset.batches(part):
                    writer.write_table(_table(indices, scenes, schema))
                    advance(len(indices))


def reading(subset: Subset) -> str:
    """See `multiobj_data.exports.formats.Format`."""
    amodal = (
        "`amodal` holds one mask an object, as 1-bit images: `np.stack(row['amodal'])` is bool `[K, H, W]`.\n"
    )
    return f"""
```python
import datasets, numpy as np

data = datasets.load_dataset("path/of/this/folder", split="{word(subset.splits[0])}")
row = data[0]
row["image"], np.asarray(row["segments"]), row["count"], row["boxes"], row["factors"]
```

Images and label maps are lossless PNG. Numbers are lists of fixed length, one place for each of the
{subset.manifest.max_objects} possible objects; `data.with_format("numpy")` gives arrays.
{amodal if subset.has_amodal else ""}"""


def front_matter(subset: Subset) -> Mapping[str, Any]:
    """See `multiobj_data.exports.formats.Format`."""
    files = [{"split": word(split), "path": f"data/{word(split)}-*.parquet"} for split in subset.splits]
    return {"configs": [{"config_name": "default", "data_files": files}]}


def croissant(subset: Subset) -> Mapping[str, list[dict[str, Any]]]:
    """Describe each split's files as one record set."""
    file_sets, record_sets = [], []
    for split in subset.splits:
        name = f"{split}-files"
        file_sets.append(
            {
                "@type": "cr:FileSet",
                "@id": name,
                "encodingFormat": "application/x-parquet",
                "includes": f"data/{word(split)}-*.parquet",
            }
        )
        record_sets.append(record_set(split, _fields(subset, split, name)))
    return {"file_sets": file_sets, "record_sets": record_sets}


def _fields(subset: Subset, split: str, files: str) -> list[dict[str, Any]]:
    def source(name: str, path: str | None = None) -> dict[str, Any]:
        column: dict[str, Any] = {"fileSet": {"@id": files}, "extract": {"column": name}}
        return column | ({"transform": {"jsonPath": path}} if path else {})

    fields = [image_field(split, name, source(name, "bytes")) for name in ("image", "segments")]
    for name, values in subset.columns.items():
        group, _, factor = name.partition("/")
        fields.append(column_field(split, name, values, source(group, factor or None)))
    if subset.has_amodal:
        many = {"repeated": True}
        fields.append(field(field_id(split, "amodal"), "sc:ImageObject", source("amodal", "bytes"), **many))
    return fields


def _file(part: Part) -> Path:
    return Path("data") / part.file("parquet")


def _schema(subset: Subset) -> pa.Schema:
    """Return the columns with the metadata from which ``datasets`` knows what is an image."""
    import pyarrow as pa

    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    types: dict[str, Any] = {"image": picture, "segments": picture}
    features: dict[str, Any] = {"image": _IMAGE, "segments": _IMAGE}
    if subset.has_amodal:
        types["amodal"] = pa.list_(picture)
        features["amodal"] = {"feature": _IMAGE, "length": -1, "_type": "Sequence"}
    columns = subset.columns
    for name, kind in nested({name: _type(values) for name, values in columns.items()}).items():
        types[name] = pa.struct(list(kind.items())) if isinstance(kind, dict) else kind
    features |= nested({name: _feature(values) for name, values in columns.items()})
    information = json.dumps({"info": {"features": features}})
    return pa.schema(list(types.items()), metadata={"huggingface": information})


def _type(values: np.ndarray) -> pa.DataType:
    import pyarrow as pa

    kind = pa.from_numpy_dtype(values.dtype)
    for size in reversed(values.shape[1:]):
        kind = pa.list_(
            kind, size or -1
        )  # Arrow has no lists of fixed size 0: scenes that never hold objects
    return kind


def _feature(values: np.ndarray) -> dict[str, Any]:
    feature: dict[str, Any] = {"dtype": values.dtype.name, "_type": "Value"}
    for size in reversed(values.shape[1:]):
        feature = {"feature": feature, "length": size or -1, "_type": "Sequence"}
    return feature


def _table(indices: np.ndarray, scenes: Scenes, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    columns: dict[str, Any] = {
        "image": [_picture(image) for image in scenes.image],
        "segments": [_picture(labels) for labels in scenes.segments],
    }
    if scenes.amodal is not None:
        columns["amodal"] = [[_picture(mask) for mask in masks] for masks in known(scenes.amodal)]
    arrays = nested({name: _array(values) for name, values in columns_of(indices, scenes).items()})
    for name, value in arrays.items():
        columns[name] = (
            pa.StructArray.from_arrays(value.values(), value) if isinstance(value, dict) else value
        )
    return pa.table(columns, schema=schema)


def _array(values: np.ndarray) -> pa.Array:
    """Return ``[b, ...]`` as nested lists of fixed sizes; NaN stays NaN."""
    import pyarrow as pa

    array = pa.array(np.ascontiguousarray(values).reshape(-1))
    for axis in reversed(range(1, values.ndim)):
        size = values.shape[axis]
        rows = int(np.prod(values.shape[:axis]))
        empty = np.zeros(rows + 1, np.int32)
        array = (
            pa.FixedSizeListArray.from_arrays(array, size) if size else pa.ListArray.from_arrays(empty, array)
        )
    return array


def _picture(pixels: np.ndarray) -> dict[str, Any]:
    return {"bytes": png(pixels), "path": None}
