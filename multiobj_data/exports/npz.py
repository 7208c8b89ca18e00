"""NumPy: one compressed ``SPLIT.npz`` a split, without pickles, written in bounded memory."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import numpy as np

from multiobj_data.exports.about import About
from multiobj_data.exports.subset import Subset, columns_of, word
from multiobj_data.scenes import Scenes

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file knows: the same scenes give the same bytes
_BLOCK = 1 << 20


def write(subset: Subset, about: About, folder: Path, advance: Callable[[int], None]) -> None:
    """Write a file a split: the arrays grow side by side in temporary files, then go into it one by one."""
    for split in subset.splits:
        with TemporaryDirectory(dir=folder, prefix=".") as spool:
            rows = subset.rows(split)
            arrays = _spool(subset, split, Path(spool), advance)
            with zipfile.ZipFile(folder / f"{word(split)}.npz", "w", zipfile.ZIP_DEFLATED) as archive:
                for number, (name, dtype, shape) in enumerate(arrays):
                    _add(archive, name, dtype, (rows, *shape), Path(spool) / str(number))


def reading(subset: Subset) -> str:
    """See `multiobj_data.exports.formats.Format`."""
    return f"""
```python
import numpy as np

data = np.load("{word(subset.splits[0])}.npz")  # no pickles; an array is read when it is asked for
data["image"], data["count"], data["boxes"], data["segments"], data["factors/x"]
```

All of the truth is here, as it is stored: scenes are the first axis of every array.
"""


def front_matter(subset: Subset) -> Mapping[str, Any]:
    """See `multiobj_data.exports.formats.Format`."""
    return {}


def croissant(subset: Subset) -> Mapping[str, list[dict[str, Any]]]:
    """Croissant knows no NumPy archives: the files are listed, their records are not."""
    return {}


def _arrays(indices: np.ndarray, scenes: Scenes) -> Iterator[tuple[str, np.ndarray]]:
    yield "image", scenes.image
    yield "segments", scenes.segments
    if scenes.amodal is not None:
        yield "amodal", scenes.amodal
    yield from columns_of(indices, scenes).items()


def _spool(
    subset: Subset, split: str, spool: Path, advance: Callable[[int], None]
) -> list[tuple[str, np.dtype, tuple[int, ...]]]:
    """Write each array's bytes into ``spool/NUMBER``; return names, dtypes and shapes of a row."""
    kinds = [
        (name, values.dtype, values.shape[1:])
        for name, values in _arrays(np.zeros(0, np.int64), subset.nothing)
    ]
    with ExitStack() as stack:
        files: list[IO[bytes]] = [
            stack.enter_context(open(spool / str(number), "wb")) for number in range(len(kinds))
        ]
        for indices, scenes in subset.batches(subset.whole(split)):
            for file, (_, values) in zip(files, _arrays(indices, scenes), strict=True):
                file.write(np.ascontiguousarray(values).data)
            advance(len(indices))
    return kinds


def _add(archive: zipfile.ZipFile, name: str, dtype: np.dtype, shape: tuple[int, ...], content: Path) -> None:
    """Add one array as ``NAME.npy`` and delete its temporary file."""
    member = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
    member.compress_type = zipfile.ZIP_DEFLATED
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with archive.open(member, "w", force_zip64=True) as file, open(content, "rb") as source:
        np.lib.format.write_array_header_1_0(file, header)
        while block := source.read(_BLOCK):
            file.write(block)
    content.unlink()
