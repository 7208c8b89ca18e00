"""PyTorch datasets over a `SceneSource`: map-style with batched fetch, and endless streams.

>>> loader = DataLoader(SceneDataset(source), batch_size=64, shuffle=True, collate_fn=stack)  # doctest: +SKIP

Each item is a dictionary; ``"image"`` is uint8 ``[H, W, C]``. Ask for the truth by name: ``fields=("image",
"count")``. A whole batch is fetched at once (``__getitems__``); both kinds work with forked or spawned
workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from multiobj_data.errors import UsageError
from multiobj_data.loading import GeneratedScenes, Indices, SceneSource
from multiobj_data.plan import Plan
from multiobj_data.randomness import BLOCK
from multiobj_data.scenes import Scenes

FIELDS = ("image", "count", "segments", "boxes", "present", "amodal")

Item = dict[str, np.ndarray]


def _fields_of(source: SceneSource, indices: Indices, fields: Sequence[str]) -> Item:
    """Fetch a batch: field -> ``[n, ...]``; images alone never touch HDF5."""
    if tuple(fields) == ("image",):
        return {"image": source.images(indices)}
    scenes = source.scenes(indices)
    return {name: _field(scenes, name) for name in fields}


def _field(scenes: Scenes, name: str) -> np.ndarray:
    values = scenes.factors.get(name, scenes.scene_factors.get(name))
    if values is None and name in FIELDS:
        values = getattr(scenes, name)
    if values is None:
        known = sorted({*FIELDS, *scenes.factors, *scenes.scene_factors})
        raise UsageError(f"these scenes have no field {name!r}; they have: {', '.join(known)}.")
    return values


def _split(batch: Item) -> list[Item]:
    n = len(next(iter(batch.values())))
    return [{name: values[row] for name, values in batch.items()} for row in range(n)]


def stack(items: Sequence[Item]) -> dict[str, torch.Tensor]:
    """Collate items into tensors: field -> ``[B, ...]``."""
    return {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in items[0]}


class SceneDataset(Dataset[Item]):
    """Map-style: ``dataset[i]``, and ``dataset.__getitems__([i, j, ...])`` in one read.

    Args:
        source: Stored or generated scenes.
        fields: What an item holds: ``image``, ``count``, ``segments``, ``boxes``, ``present``, ``amodal``, or
            any factor's name.
    """

    def __init__(self, source: SceneSource, fields: Sequence[str] = ("image",)) -> None:
        self.source, self.fields = source, tuple(fields)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Item:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """Fetch several items at once; `torch.utils.data.DataLoader` calls this by itself."""
        return _split(_fields_of(self.source, indices, self.fields))


class SceneStream(IterableDataset[Item]):
    """An endless stream of scenes that are drawn on the spot, never the same one twice.

    It begins with the very scenes that ``mobj generate`` stores for the same plan. Several workers share the
    stream out block by block, so that together they yield each scene once.

    Args:
        plan: The data set.
        split: Whose scenes to draw.
        fields: As for `SceneDataset`.
        start: Index of the first scene, e.g. to resume.
    """

    def __init__(
        self, plan: Plan, split: str = "train", fields: Sequence[str] = ("image",), start: int = 0
    ) -> None:
        self.plan, self.split, self.fields, self.start = plan, split, tuple(fields), start

    def __iter__(self) -> Iterator[Item]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        source = GeneratedScenes(self.plan, self.split, length=2**62)
        block = self.start // BLOCK + number
        while True:
            indices = np.arange(max(block * BLOCK, self.start), (block + 1) * BLOCK)
            yield from _split(_fields_of(source, indices, self.fields))
            block += workers
