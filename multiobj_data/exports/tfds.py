"""TensorFlow Datasets, without TensorFlow: array_record files that ``tfds.builder_from_directory`` reads."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from multiobj_data.errors import MobjError
from multiobj_data.exports.about import About
from multiobj_data.exports.subset import Part, Subset, columns_of, nested, png, word
from multiobj_data.exports.tf_example import example
from multiobj_data.files import to_json, write_atomically
from multiobj_data.scenes import Scenes

_FEATURES = "tensorflow_datasets.core.features."
_OPTIONS = "group_size:1"  # one record a chunk, as tfds writes: random access


def write(subset: Subset, about: About, folder: Path, advance: Callable[[int], None]) -> None:
    """Write ``NAME-SPLIT.array_record-00000-of-00008`` with ``features.json`` and ``dataset_info.json``."""
    splits = []
    for split in subset.splits:
        parts, size = subset.parts(split), 0
        for part in parts:
            with _writer(folder / _file(subset, part)) as add:
                for indices, scenes in subset.batches(part):
                    for record in _records(indices, scenes):
                        add(record)
                        size += len(record)
                    advance(len(indices))
        splits.append(_split_info(split, parts, size))
    write_atomically(folder / "features.json", to_json(_features(subset)).encode())
    write_atomically(folder / "dataset_info.json", to_json(_information(subset, about, splits)).encode())


@contextmanager
def _writer(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Yield what adds a record to a file; the library reports a full disk as a ``RuntimeError``."""
    from array_record.python.array_record_module import ArrayRecordWriter

    try:
        writer = ArrayRecordWriter(str(path), _OPTIONS)
        try:
            yield writer.write
        finally:
            writer.close()
    except RuntimeError as error:
        raise MobjError(
            f"cannot write {path.name}: {error}; free some space, or choose another --out."
        ) from error


def reading(subset: Subset) -> str:
    """See `multiobj_data.exports.formats.Format`."""
    return f"""
```python
import tensorflow_datasets as tfds  # TensorFlow need not be installed

source = tfds.builder_from_directory("path/of/this/folder").as_data_source("{word(subset.splits[0])}")
row = source[0]
row["image"], row["segments"][..., 0], row["count"], row["boxes"], row["factors"]
```

All of the truth is here, in its own dtypes. The files are array_record files of `tf.train.Example`, so Grain reads
them too.
"""


def front_matter(subset: Subset) -> Mapping[str, Any]:
    """See `multiobj_data.exports.formats.Format`."""
    return {}


def croissant(subset: Subset) -> Mapping[str, list[dict[str, Any]]]:
    """Croissant knows no array_record files: they are listed, their records are not."""
    return {}


def _name(subset: Subset) -> str:
    """Return the data set's id as tfds wants names: a letter, then letters, digits, underscores."""
    name = re.sub(r"-v[0-9]+$", "", subset.manifest.dataset).lower()
    name = re.sub(r"[^a-z0-9_]+", "_", name).strip("_")
    return name if name[:1].isalpha() else f"scenes_{name}"


def _file(subset: Subset, part: Part) -> str:
    number = f"{part.number:05d}-of-{part.total:05d}"
    return f"{_name(subset)}-{word(part.split)}.array_record-{number}"


def _is_raw(values: np.ndarray) -> bool:
    """Whether an array travels as bytes: tf.train.Example knows float32 and int64 alone."""
    return values.dtype in (np.float64, np.uint64)


def _records(indices: np.ndarray, scenes: Scenes) -> Iterator[bytes]:
    columns = columns_of(indices, scenes)
    for row in range(len(indices)):
        record: dict[str, bytes | np.ndarray] = {
            "image": png(scenes.image[row]),
            "segments": png(scenes.segments[row]),
        }
        if scenes.amodal is not None:
            record["amodal"] = zlib.compress(np.ascontiguousarray(scenes.amodal[row]).tobytes())
        for name, values in columns.items():
            value = np.asarray(values[row])
            record[name] = value.astype(value.dtype.newbyteorder("<")).tobytes() if _is_raw(value) else value
        yield example(record)


def _features(subset: Subset) -> dict[str, Any]:
    """Return ``features.json``: tfds' features as protocol buffers' JSON, where 64-bit numbers are texts."""
    h, w, c = subset.manifest.image_shape
    features: dict[str, Any] = {"image": _image((h, w, c)), "segments": _image((h, w, 1))}
    if subset.has_amodal:
        features["amodal"] = _tensor((subset.nothing.boxes.shape[1], h, w), "bool", "zlib")
    leaves = {
        name: _tensor(values.shape[1:], values.dtype.name, "bytes" if _is_raw(values) else "none")
        for name, values in subset.columns.items()
    }
    for name, leaf in nested(leaves).items():
        features[name] = leaf if "/" not in name and name in leaves else _dictionary(leaf)
    return _dictionary(features)


def _image(shape: tuple[int, ...]) -> dict[str, Any]:
    content = {"shape": _shape(shape), "dtype": "uint8", "encodingFormat": "png"}
    return {"pythonClassName": f"{_FEATURES}image_feature.Image", "image": content}


def _tensor(shape: tuple[int, ...], dtype: str, encoding: str) -> dict[str, Any]:
    content = {"shape": _shape(shape), "dtype": dtype, "encoding": encoding}
    return {"pythonClassName": f"{_FEATURES}tensor_feature.Tensor", "tensor": content}


def _dictionary(features: Mapping[str, Any]) -> dict[str, Any]:
    content = {"features": dict(features)}
    return {"pythonClassName": f"{_FEATURES}features_dict.FeaturesDict", "featuresDict": content}


def _shape(shape: tuple[int, ...]) -> dict[str, Any]:
    return {"dimensions": [str(size) for size in shape]} if shape else {}


def _split_info(split: str, parts: list[Part], size: int) -> dict[str, Any]:
    return {
        "name": word(split),
        "shardLengths": [str(part.rows) for part in parts],
        "numBytes": str(size),
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    }


def _information(subset: Subset, about: About, splits: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": _name(subset),
        "version": about.version,
        "description": about.description,
        "citation": about.citation,
        "fileFormat": "array_record",
        **({"redistributionInfo": {"license": about.licence}} if about.licence else {}),
        "splits": splits,
    }
