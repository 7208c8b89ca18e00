"""Predictions as a file: score any model without importing it.

An HDF5 file, schema 1: ``index [N]`` holds the scenes' indices, in any order, and any of ``presence``,
``count``, ``masks``, ``boxes``, ``reconstruction``, ``log_likelihood`` and ``slots`` holds the answers, row by
row, as `Prediction` has them. Attributes: ``schema`` = 1, optional ``background_slots`` and, with ``log_likelihood``,
``likelihood_kind``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from multiobj_data.arrays import to_numpy
from multiobj_data.errors import DataError, did_you_mean
from multiobj_data.files import replacing
from multiobj_data.scenes import Prediction, expect
from multiobj_data.shards.hdf5 import DAMAGE

if TYPE_CHECKING:
    import h5py

SCHEMA = 1
STORED = {
    "presence": np.float32,
    "count": np.int64,
    "masks": np.float32,
    "boxes": np.float32,
    "reconstruction": np.float32,
    "log_likelihood": np.float64,
    "slots": np.float32,
}
"""Field of `Prediction` -> the dtype in which it is written."""

_RANKS = {
    "index": 1,
    "presence": 2,
    "count": 1,
    "masks": 4,
    "boxes": 3,
    "reconstruction": 4,
    "log_likelihood": 1,
    "slots": 3,
}
_ROWS_A_CHUNK = 1024  # of small fields; masks and reconstructions are read scene by scene
_BYTES_A_CHUNK = 2**20  # at most, of small fields: codes can be long


def write_predictions(path: str | os.PathLike[str], batches: Iterable[tuple[np.ndarray, Prediction]]) -> None:
    """Write predictions batch by batch; the file appears when the last one is on the disk.

    Args:
        path: The file; an older one is replaced.
        batches: Pairs of scene indices, whole numbers ``[B]``, and predictions. All batches must have the
            same fields, sizes, background slots and likelihood kind.

    Raises:
        DataError: If there is no batch, batches differ in form, or an index comes twice.
    """
    import h5py

    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        for indices, prediction in batches:
            try:
                _append(file, to_numpy(indices), prediction)
            except ValueError as error:
                raise DataError(f"{path}: {error}") from error
        if "index" not in file:
            raise DataError(f"{path}: expected at least one batch of predictions, got none.")
        _refuse_repeats(path, file["index"][:])


class PredictionFile:
    """A file of predictions, joined to scenes by index; `metrics.evaluate` takes it like a model.

    The file is opened for each reading, so that the object can be pickled and handed to worker processes.

    Args:
        path: A file written by `write_predictions`, or by any program that keeps to the schema.

    Raises:
        DataError: If the file is missing, truncated, of another schema, or its fields do not fit together.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with self._open() as file:
            self.fields = _fields(self.path, file)
            self.index = file["index"][:].astype(np.int64)
            self.background_slots, self.likelihood_kind = _about(self.path, file)
        _refuse_repeats(self.path, self.index)
        self._order = np.argsort(self.index)

    def __len__(self) -> int:
        return len(self.index)

    def predict_indices(self, indices: np.ndarray) -> Prediction:
        """Return the predictions for the scenes with these indices, whole numbers ``[B]``.

        Raises:
            DataError: If a scene has no prediction, or what is stored is not a valid `Prediction`.
        """
        rows = self._rows(np.asarray(indices))
        with self._open() as file:
            arrays = {name: _read(file[name], rows) for name in self.fields}
        try:
            return Prediction(
                **arrays, background_slots=self.background_slots, likelihood_kind=self.likelihood_kind
            )
        except ValueError as error:
            raise DataError(f"{self.path}: {error}") from error

    def _rows(self, indices: np.ndarray) -> np.ndarray:
        place = np.searchsorted(self.index, indices, sorter=self._order)
        rows = self._order[np.minimum(place, len(self) - 1)]
        missing = indices[self.index[rows] != indices]
        if len(missing):
            more = f" and {len(missing) - 1} more of this batch" if len(missing) > 1 else ""
            raise DataError(
                f"{self.path}: no prediction for scene {missing[0]}{more}; the file holds {len(self)} scenes "
                f"from {self.index.min()} to {self.index.max()}. Predict the whole split, or use --limit."
            )
        return rows

    @contextmanager
    def _open(self) -> Iterator[h5py.File]:
        import h5py

        try:
            with open(self.path, "rb"), h5py.File(self.path, "r") as file:
                yield file
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise DataError(f"{self.path}: expected a file of predictions, there is none.") from error
        except PermissionError as error:
            raise DataError(
                f"{self.path}: cannot be read: permission denied; ask its owner for read access."
            ) from error
        except DAMAGE as error:
            raise DataError(
                f"{self.path}: cannot be read as HDF5 ({error}); is it complete? Write it again."
            ) from error


def _append(file: h5py.File, indices: np.ndarray, prediction: Prediction) -> None:
    expect("index", indices, (len(prediction),), "iu")
    columns = {"index": indices.astype(np.int64)} | {
        name: to_numpy(array).astype(STORED[name]) for name, array in prediction.arrays().items()
    }
    about = {
        "schema": SCHEMA,
        "background_slots": list(prediction.background_slots),
        "likelihood_kind": prediction.likelihood_kind or "",
    }
    if "index" not in file:
        file.attrs.update(about)
        for name, values in columns.items():
            _create(file, name, values)
    got = {name: values.shape[1:] for name, values in columns.items()}
    first = {name: file[name].shape[1:] for name in file}
    if got != first or any(
        not np.array_equal(file.attrs[name], np.asarray(value)) for name, value in about.items()
    ):
        raise ValueError(
            f"expected every batch to have the fields and sizes of the first, {first}, got {got}."
        )
    for name, values in columns.items():
        dataset = file[name]
        dataset.resize(len(dataset) + len(values), axis=0)
        dataset[len(dataset) - len(values) :] = values


def _create(file: h5py.File, name: str, values: np.ndarray) -> None:
    row = values.shape[1:]
    pictures = {"compression": "gzip", "compression_opts": 1, "shuffle": True} if len(row) > 2 else {}
    whole = np.maximum(1, row).astype(int)
    rows = min(_ROWS_A_CHUNK, max(1, _BYTES_A_CHUNK // (int(whole.prod()) * values.itemsize)))
    chunk = (1 if pictures else rows, *whole.tolist())
    file.create_dataset(name, (0, *row), values.dtype, maxshape=(None, *row), chunks=chunk, **pictures)


def _fields(path: Path, file: h5py.File) -> list[str]:
    """Check the form of a file that anyone may have written; return the fields that it has."""
    schema = file.attrs.get("schema")
    if not np.array_equal(schema, SCHEMA):
        raise DataError(
            f"{path}: expected attribute schema = {SCHEMA}, got {schema}; is this a file of predictions?"
        )
    fields = [name for name in file if name != "index"]
    for name in fields:
        if name not in STORED:
            raise DataError(f"{path}: unknown field {name!r}.{did_you_mean(name, STORED)}")
    if not fields:
        raise DataError(f"{path}: expected at least one of {', '.join(STORED)}, got none.")
    n = len(_plain(path, file, "index", "iu", None))
    if not n:
        raise DataError(f"{path}: expected at least one prediction, got none.")
    for name in fields:
        _plain(path, file, name, np.dtype(STORED[name]).kind.replace("i", "iu"), n)
    return fields


def _about(path: Path, file: h5py.File) -> tuple[tuple[int, ...], str | None]:
    """Return the background slots and the likelihood kind; an empty kind stands for none."""
    slots, kind = np.ravel(file.attrs.get("background_slots", ())), file.attrs.get("likelihood_kind", "")
    if len(slots) and slots.dtype.kind not in "iu":
        raise DataError(f"{path}: background_slots: expected whole numbers, got {slots.dtype}.")
    return tuple(slots.astype(int).tolist()), (
        kind.decode() if isinstance(kind, bytes) else str(kind)
    ) or None


def _plain(path: Path, file: h5py.File, name: str, kinds: str, rows: int | None) -> h5py.Dataset:
    """Return a data set after checking that its bytes lie in this file and that it has the right form."""
    import h5py

    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset) or not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise DataError(f"{path}: expected a data set {name!r} stored in the file itself, there is none.")
    if dataset.is_virtual or dataset.external:
        raise DataError(f"{path}: {name} refers to other files; store its values in this one.")
    try:
        expect(name, dataset, (rows, *[None] * (_RANKS[name] - 1)), kinds)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    return dataset


def _read(dataset: h5py.Dataset, rows: np.ndarray) -> np.ndarray:
    """Read rows in any order as runs of neighbours: h5py's own list indexing costs milliseconds a row."""
    if not len(rows):
        return dataset[:0]
    runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    return np.concatenate([dataset[run[0] : run[-1] + 1] for run in runs])


def _refuse_repeats(path: str | os.PathLike[str], index: np.ndarray) -> None:
    values, counts = np.unique(index, return_counts=True)
    if len(repeated := values[counts > 1]):
        raise DataError(f"{path}: expected one prediction a scene, scene {repeated[0]} has {counts.max()}.")
