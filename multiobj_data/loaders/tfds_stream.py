"""Prepared data sets of TensorFlow Datasets as a stream of scenes, read without TensorFlow.

What is read of a record:

* ``image``: uint8 ``[H, W, C]``.
* The label map, uint8 ``[H, W, 1]``, from the first of ``segments``, ``segmentations``, ``segmentation``, ``mask`` and
  ``label_map``: 0 is background, then one label an object. Where there is ``background_segments``, as `mobj export`
  writes it, all labels below that are background.
* Factors: the numbers in ``factors`` (as `mobj export` writes them) or ``objects``, one row an object.

Films (Kubric's MOVi) are not read: their features need TensorFlow itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from multiobj_data.errors import DataError, UsageError
from multiobj_data.files import sha256_of
from multiobj_data.loaders.preparing import Prepared, prepare
from multiobj_data.loaders.raw import Raw
from multiobj_data.loaders.sets import PublicSet
from multiobj_data.loaders.streams import Request

PREFIX = "tfds:"
LABEL_MAPS = ("segments", "segmentations", "segmentation", "mask", "label_map")
OBJECTS = ("factors", "objects")
_MOST = 64  # objects in a scene, where the data set does not say
_SPLITS = {"validation": "val"}
_RECORDS = 1 << 40  # places a split: more than any has records


class Prebuilt:
    """A data set that tfds has prepared.

    Args:
        name: Its name; an empty one takes what is there.
        folder: Where ``dataset_info.json`` and the array_record files lie.

    Raises:
        DataError: If there is none, it has another name, or no pictures or label maps.
        UsageError: If tensorflow-datasets is not installed, or it is a set of films.
    """

    def __init__(self, name: str, folder: Path) -> None:
        if name.startswith("movi_"):
            raise _films(name)
        self.folder = folder
        self.builder = _open(folder)
        self.name = self.builder.info.name
        if name not in ("", self.name):
            raise DataError(f"{folder}: expected the data set {name}, got {self.name}; name that one.")
        self.features = dict(self.builder.info.features)
        if "video" in self.features:
            raise _films(self.name)
        self.pictures = self._first(("image",), "pictures")
        self.labels = self._first(LABEL_MAPS, "label maps")

    def _first(self, names: Sequence[str], what: str) -> str:
        for name in names:
            if name in self.features:
                return name
        raise DataError(
            f"{PREFIX}{self.name} has no {what}, which scenes of objects need: expected the feature "
            f"{' or '.join(names)}, got {', '.join(sorted(self.features))}."
        )

    def public(self) -> PublicSet:
        """Describe it as a public set."""
        height, width = self.features[self.pictures].shape[:2]
        version = str(self.builder.info.version).partition(".")[0]
        about = f"{self.name}, prepared by TensorFlow Datasets"
        slots = self.features["boxes"].shape[0] if "boxes" in self.features else None
        shape = (height or 0, width or 0)
        return PublicSet(PREFIX + self.name, f"{self.name}-v{version}", "tfds", about, slots or _MOST, shape)

    @cached_property
    def splits(self) -> dict[str, Any]:
        """Split -> records by index."""
        try:
            return {split: self.builder.as_data_source(split) for split in self.builder.info.splits}
        except Exception as error:  # of whatever kind tfds raises where a format cannot be read at random
            raise DataError(
                f"{self.folder}: expected array_record files, which are read without TensorFlow "
                f"({_first_line(error)})."
            ) from error

    def sources(self) -> dict[str, str]:
        """Return the SHA-256 of each file of records."""
        return {path.name: sha256_of(path) for path in sorted(self.folder.glob("*.array_record*"))}

    def raw(self, split: str, index: int) -> Raw:
        """Read a record.

        Raises:
            DataError: If it is damaged, or its label map does not fit.
        """
        where = f"{self.folder}: record {index} of {split}"
        try:
            record = self.splits[split][index]
        except DataError:
            raise
        except Exception as error:  # of whatever kind array_record and tfds raise for damage
            raise DataError(f"{where} cannot be read ({_first_line(error)}); get the files again.") from error
        image, labels = record[self.pictures], record[self.labels]
        labels = labels[..., 0] if labels.ndim == 3 else labels
        if image.dtype != np.uint8 or labels.dtype != np.uint8 or labels.shape != image.shape[:2]:
            raise DataError(
                f"{where}: expected a uint8 picture and label map of one size, got {image.dtype} {image.shape} and "
                f"{labels.dtype} {labels.shape}."
            )
        return _raw(image, labels, record, self.folder.name, index)


class TfdsStream:
    """The scenes of a prepared data set.

    Args:
        request: What is to be made of them.
        data: The data set.
    """

    unit = "records"

    def __init__(self, request: Request, data: Prebuilt) -> None:
        self.request, self.data = request, data
        self.name, self.id, self.slots = request.public.name, request.public.id, request.slots
        self.scene_bytes = request.scene_bytes
        self._sources: dict[str, str] | None = None

    @property
    def config(self) -> dict[str, Any]:
        """Return everything that decides the shards, besides the files."""
        return self.request.config

    @property
    def size(self) -> int:
        """Records to be read."""
        return sum(self._stop(records) for records in self.data.splits.values())

    def _stop(self, records: Any) -> int:
        return min(len(records), self.request.limit or len(records))

    def sources(self) -> dict[str, str]:
        """Return the SHA-256 of each file of records."""
        if self._sources is None:
            self._sources = self.data.sources()
        return self._sources

    def notes(self) -> list[str]:
        """Return what whoever uses the data must know."""
        return self.request.notes()

    def mark(self) -> dict[str, Any]:
        """Return nothing: the files are to stay as they are."""
        return {}

    def holds(self, marks: Sequence[Mapping[str, Any]], sources: Mapping[str, str]) -> int:
        """Return how many marks are true: none of other files."""
        return len(marks) if dict(sources) == self.sources() else 0

    def scenes(
        self, start: int, on_progress: Callable[[int], None]
    ) -> Generator[tuple[int, str, Prepared], None, None]:
        """Yield place, split and content of each scene that is kept, from place ``start``."""
        for number, (split, records) in enumerate(self.data.splits.items()):
            stop = self._stop(records)
            first = min(max(start - number * _RECORDS, 0), stop)
            on_progress(first)
            for index in range(first, stop):
                raw = self.data.raw(split, index)
                scene = prepare(raw, self.request.protocol, self.request.selection, cropped=False)
                if scene:
                    yield number * _RECORDS + index, _SPLITS.get(split, split), scene
                on_progress(1)


def _raw(image: np.ndarray, labels: np.ndarray, record: Mapping[str, Any], name: str, index: int) -> Raw:
    background = int(record.get("background_segments", 1))
    factors: Mapping[str, Any] = next(
        (record[group] for group in OBJECTS if isinstance(record.get(group), Mapping)), {}
    )
    tables = {key: values for key, values in factors.items() if np.asarray(values).dtype.kind in "iufb"}
    tables = {key: np.asarray(values) for key, values in tables.items() if np.ndim(values)}
    shown = max(int(labels.max()) + 1 - background, 0)
    rows = max(map(len, tables.values()), default=shown)
    count = int(record.get("count", rows))
    entities = background + max(shown, rows, count)
    padded = {}
    for key, values in tables.items():
        if values.dtype.kind in "ub":  # so that -1 can say that there is none, as of the background
            signed = np.promote_types(values.dtype, np.int16)
            values = values.astype(
                signed if signed.kind == "i" else np.int64
            )  # no type has all of uint64 and -1
        missing = np.nan if values.dtype.kind == "f" else -1
        padded[key] = np.full((entities, *values.shape[1:]), missing, values.dtype)
        padded[key][background : background + len(values)] = values
    there = np.arange(entities) < background + count
    return Raw(image, labels, entities, background, there, padded, name=name, index=index)


def _open(folder: Path) -> Any:
    logging.getLogger("absl").setLevel(logging.ERROR)  # that OpenCV would be faster
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UsageError(
            f"{PREFIX}NAME: expected the package tensorflow-datasets ({error}); pip install 'mobj[tfds]'."
        ) from error
    try:
        return tfds.builder_from_directory(str(folder))
    except ModuleNotFoundError as error:
        raise DataError(
            f"{folder}: a feature of this data set cannot be read without TensorFlow ({_first_line(error)})."
        ) from error
    except Exception as error:  # of whatever kind tfds raises for folders that hold something else
        raise DataError(
            f"{folder}: expected a data set prepared by TensorFlow Datasets, with dataset_info.json and features.json "
            f"({_first_line(error)})."
        ) from error


def _films(name: str) -> UsageError:
    return UsageError(
        f"{PREFIX}{name}: films (Kubric's MOVi) are not read, since tensorflow-datasets needs TensorFlow for them; "
        "store their frames as a data set of pictures first, with the features image and segmentations."
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
