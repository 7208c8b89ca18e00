"""One row an image, in files that any tool reads: CSV, gzipped CSV, Parquet."""

from __future__ import annotations

import csv
import gzip
import io
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from multiobj_data.errors import DataError, UsageError
from multiobj_data.files import replacing

Columns = Mapping[str, np.ndarray]
"""Name -> values of all images ``[N]``, whole numbers or floats; NaN for what does not exist."""

PER_IMAGE = "per_image.csv.gz"
"""The table that lies beside every ``evaluation.json``."""

_ADVICE = "what was there is unchanged; make room, or choose another file."
_ENDINGS = (".csv", ".csv.gz", ".parquet")
_WHOLE = ("index", "true_count", "predicted_count")


def expect_table_name(path: str | os.PathLike[str]) -> str:
    """Return how ``path`` ends, of the three known ways.

    Raises:
        UsageError: It ends otherwise, or in ``.parquet`` without pyarrow at hand.
    """
    ending = next((end for end in _ENDINGS if Path(path).name.lower().endswith(end)), None)
    if ending is None:
        raise UsageError(
            f"{path}: expected a name that ends in {', '.join(_ENDINGS[:-1])} or {_ENDINGS[-1]}."
        )
    if ending == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise UsageError(
                f"{path}: Parquet needs pyarrow: pip install 'mobj[export]', or choose a name that ends in .csv."
            ) from error
    return ending


def write_table(columns: Columns, path: str | os.PathLike[str]) -> None:
    """Write one row an image; a missing value is an empty cell (null in Parquet), floats read back exactly.

    Raises:
        UsageError: See `expect_table_name`; or the folder does not exist.
    """
    ending = expect_table_name(path)
    with replacing(path, _ADVICE) as temporary:
        if ending == ".parquet":
            _write_parquet(columns, temporary)
        else:
            text = csv_bytes(columns)
            temporary.write_bytes(text if ending == ".csv" else compressed(text))


def csv_bytes(columns: Columns) -> bytes:
    """Return the table as CSV."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    for row in zip(*(values.tolist() for values in columns.values()), strict=True):
        writer.writerow("" if value != value else value for value in row)
    return text.getvalue().encode()


def compressed(content: bytes) -> bytes:
    """Return a gzip file without a time in it: the same content gives the same bytes."""
    return gzip.compress(content, 6, mtime=0)


def _write_parquet(columns: Columns, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    table = pa.table(
        {name: pa.array(values, from_pandas=True) for name, values in columns.items()}
    )  # NaN: null
    parquet.write_table(table, path)


def read_table(path: Path, content: bytes) -> dict[str, np.ndarray]:
    """Parse a gzipped CSV of `csv_bytes`: whole numbers for indices and counts, else float64, all ``[N]``.

    Raises:
        DataError: It is damaged; ``path`` names it.
    """
    try:
        reader = csv.reader(io.StringIO(gzip.decompress(content).decode()))
        header = next(reader)
        rows = list(reader)
        cells = np.array(rows, dtype=object).reshape(len(rows), len(header))
        return {name: _column(name, cells[:, i]) for i, name in enumerate(header)}
    except (OSError, EOFError, ValueError, StopIteration, csv.Error) as error:
        raise DataError(f"{path} is damaged ({error}); run `mobj evaluate` again.") from error


def _column(name: str, cells: np.ndarray) -> np.ndarray:
    if name in _WHOLE:
        return cells.astype(np.int64)
    return np.array([float(cell) if cell else np.nan for cell in cells])
