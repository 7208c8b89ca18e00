"""PyTorch datasets over a `SceneSource`: map-style with batched fetch, and endless streams.

>>> loader = DataLoader(SceneDataset(source), batch_size=64, shuffle=True, collate_fn=stack)  # doctest: +SKIP

Each item is a dictionary; ``"image"`` is uint8 ``[H, W, C]``. Ask for the truth by name: ``fields=("image",
"count")``. A whole batch is fetched at once (``__getitems__``); both kinds work with forked or spawned
workers. `TensorStream` goes further and draws on the GPU: it gives batches of tensors that are there already.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.util import Finalize
from typing import Any, TypeGuard

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from multiobj_data.devices import resolve_device
from multiobj_data.errors import UsageError
from multiobj_data.generation.plan import Plan, draw_block
from multiobj_data.generators.base import Generator
from multiobj_data.generators.flat import FlatGenerator
from multiobj_data.loading import GeneratedScenes, Indices, SceneSource
from multiobj_data.randomness import BLOCK, block_rng
from multiobj_data.scenes import Scenes
from multiobj_data.tensors.drawing import Painted, TorchScenes, Unpainted, painted, unpainted

FIELDS = ("image", "count", "segments", "boxes", "present", "amodal")

Item = dict[str, np.ndarray]


def _fields_of(source: SceneSource, indices: Indices, fields: Sequence[str]) -> Item:
    """Fetch a batch: field -> ``[n, ...]``; images alone never touch HDF5."""
    if tuple(fields) == ("image",):
        return {"image": source.images(indices)}
    scenes = source.scenes(indices)
    return {name: _field(scenes, name) for name in fields}


def _field(scenes: Scenes | TorchScenes, name: str) -> Any:
    values = scenes.factors.get(name, scenes.scene_factors.get(name))
    if values is None and name in FIELDS:
        values = getattr(scenes, name)
    if values is None:
        known = sorted({*FIELDS, *scenes.factors, *scenes.scene_factors} - {name})  # amodal may not be kept
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

    Raises:
        UsageError: The plan has no such split, or ``start`` is negative.
    """

    def __init__(
        self, plan: Plan, split: str = "train", fields: Sequence[str] = ("image",), start: int = 0
    ) -> None:
        if start < 0:
            raise UsageError(f"start: expected the index of a scene, 0 or more, got {start}.")
        self.plan, self.split, self.fields, self.start = plan, plan.require_split(split), tuple(fields), start

    def __iter__(self) -> Iterator[Item]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        source = GeneratedScenes(self.plan, self.split, length=2**62)
        block = self.start // BLOCK + number
        while True:
            indices = np.arange(max(block * BLOCK, self.start), (block + 1) * BLOCK)
            yield from _split(_fields_of(source, indices, self.fields))
            block += workers


Batch = dict[str, torch.Tensor]


class TensorStream:
    """Batches of scenes without end, as tensors on a device, drawn there; never the same scene twice.

    What is in the scenes is decided on the CPU, if wanted in worker processes, so that a GPU need not wait;
    pictures, label maps and masks are painted on the GPU. The stream is the same, in the same order, for any
    device and any number of workers, and begins with the very scenes that ``mobj generate`` stores for the
    same plan. Scenes of generators that are no `FlatGenerator` are painted on the CPU and uploaded.

    >>> plan = Plan.create("multi-dsprites", {"background": "noise"}, splits={"train": 60_000})  # doctest: +SKIP
    >>> stream = TensorStream(plan, fields=("image", "count"), batch_size=64, device="cuda")  # doctest: +SKIP
    >>> for step, batch in enumerate(stream):  # doctest: +SKIP
    ...     loss = model.loss(batch["image"])  # uint8 [64, 64, 64, 3], on the GPU

    To resume after ``steps`` batches, give ``start=steps * batch_size``. On several GPUs give each process its
    ``rank`` of ``ranks``: together they see each scene once.

    Args:
        plan: The data set; its splits' lengths do not matter here.
        split: Whose scenes to draw.
        fields: What a batch holds, as for `SceneDataset`.
        batch_size: Scenes a batch, B.
        device: Where the tensors are to be.
        start: Scenes (of this rank) to pass over.
        length: Scenes to yield, the last batch smaller if need be; none: without end.
        workers: Processes that decide what is in the scenes; 0: this one. They are spawned, so that a script
            needs its ``if __name__ == "__main__":``, and take seconds to start.
        rank: Which share of the blocks of scenes is this process's.
        ranks: How many shares there are.

    Raises:
        UsageError: An unknown split, a number out of range, or no such device. An unknown field is refused
            when the first batch is asked for.
    """

    def __init__(
        self,
        plan: Plan,
        split: str = "train",
        fields: Sequence[str] = ("image",),
        *,
        batch_size: int = 64,
        device: torch.device | str = "cpu",
        start: int = 0,
        length: int | None = None,
        workers: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        plan.require_split(split)
        if isinstance(fields, str) or not fields:
            raise UsageError(f"fields: expected a sequence of names such as ('image',), got {fields!r}.")
        if batch_size < 1 or min(start, workers, length or 0) < 0 or not 0 <= rank < ranks:
            raise UsageError(
                "expected batch_size >= 1, start, length and workers >= 0, and 0 <= rank < ranks; got "
                f"{batch_size}, {start}, {length}, {workers}, {rank} and {ranks}."
            )
        self.plan, self.split, self.fields = plan, split, tuple(fields)
        self.batch_size, self.device, self.start, self.length = (
            batch_size,
            resolve_device(str(device)),
            start,
            length,
        )
        self.workers, self.rank, self.ranks = workers, rank, ranks

    def __iter__(self) -> Iterator[Batch]:
        skip = self.start % BLOCK
        end = None if self.length is None else skip + self.length  # both within the blocks that are drawn
        blocks = (self._chosen(block) for block in self._blocks(end))
        yield from _rebatch(_cut(blocks, skip, end), self.batch_size)

    def _chosen(self, block: Unpainted | Painted) -> Batch:
        scenes = block.on(self.device)
        return {name: _field(scenes, name) for name in self.fields}

    def _blocks(self, end: int | None) -> Iterator[Unpainted | Painted]:
        """Yield the blocks that are needed, in order."""
        with_numpy = self.device.type == "cpu"  # where it is faster than PyTorch
        source = _Blocks(self.plan, self.split, "amodal" in self.fields, with_numpy)
        ordinals = itertools.count(self.start // BLOCK)  # among the blocks of this rank
        needed = ordinals if end is None else itertools.islice(ordinals, -(-end // BLOCK))
        numbers = (ordinal * self.ranks + self.rank for ordinal in needed)
        # Mistakes come to light in the first block: it is drawn here, where they read better than from a worker.
        here = itertools.islice(numbers, 1) if self.workers else numbers
        yield from map(source.__getitem__, here)
        if self.workers:
            yield from self._loader(source, numbers)

    def _loader(self, source: _Blocks, numbers: Iterable[int]) -> DataLoader[Unpainted | Painted]:
        return DataLoader(
            source,
            batch_size=None,
            sampler=numbers,
            collate_fn=_unchanged,
            num_workers=self.workers,
            multiprocessing_context="spawn",
            worker_init_fn=_leave_quickly,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # it draws the workers' seeds, which are not used, from the global one
        )


class _Blocks(Dataset[Unpainted | Painted]):
    """The blocks of a split by number, packed; painted already if wanted, or if that cannot wait."""

    def __init__(self, plan: Plan, split: str, amodal: bool, with_numpy: bool) -> None:
        self.plan, self.split, self.amodal, self.with_numpy = plan, split, amodal, with_numpy

    def __getitem__(self, block: int) -> Unpainted | Painted:
        generator = self.plan.generator
        if not self.with_numpy and _only_paints(generator):
            rng, first = block_rng(self.plan.seed, self.split, block), block * BLOCK
            arrangement = generator.arrange(rng, BLOCK, split=self.split, first=first)
            return unpainted(arrangement, amodal=self.amodal)
        return painted(draw_block(generator, self.plan.seed, self.split, block), amodal=self.amodal)


def _only_paints(generator: Generator) -> TypeGuard[FlatGenerator]:
    """Whether the scenes are what is arranged, painted; those of a subclass with `scenes` of its own may be more."""
    return isinstance(generator, FlatGenerator) and type(generator).scenes is FlatGenerator.scenes


def _leave_quickly(worker: int) -> None:
    """End a worker as a forked one ends, once its queues are flushed: without C++'s destructors.

    Cut off in the middle of a stream, these abort now and then, which PyTorch reports in the parent.
    """
    Finalize(None, os._exit, args=(0,), exitpriority=-1000)


def _unchanged(block: Any) -> Any:
    return block


def _cut(parts: Iterable[Batch], start: int, end: int | None) -> Iterator[Batch]:
    """Yield items ``start .. end - 1`` of a sequence that comes in parts."""
    at = 0
    for part in parts:
        size = _size(part)
        rows = slice(max(start - at, 0), size if end is None else min(end - at, size))
        yield part if rows == slice(0, size) else _rows(part, rows)
        at += size


def _rebatch(parts: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Yield the same items in batches of ``size``, the last one smaller if need be."""
    held: list[Batch] = []
    for part in parts:
        held.append(part)
        whole = sum(map(_size, held)) // size * size
        if whole:
            joined = _join(held)
            for start in range(0, whole, size):
                yield _rows(joined, slice(start, start + size))
            held = [_rows(joined, slice(whole, None))]
    rest = _join(held) if held else {}
    if rest and _size(rest):
        yield rest


def _join(parts: Sequence[Batch]) -> Batch:
    return parts[0] if len(parts) == 1 else {name: torch.cat([p[name] for p in parts]) for name in parts[0]}


def _rows(batch: Batch, rows: slice) -> Batch:
    return {name: values[rows] for name, values in batch.items()}


def _size(batch: Batch) -> int:
    return len(next(iter(batch.values())))
