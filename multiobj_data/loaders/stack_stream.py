"""ShapeStacks as a stream of prepared scenes; its PNGs are decoded by several processes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from multiobj_data.files import sha256_of
from multiobj_data.loaders.preparing import Prepared, Selection, prepare
from multiobj_data.loaders.protocols import Protocol
from multiobj_data.loaders.shapestacks import Item, ShapeStacks, decode
from multiobj_data.loaders.streams import Request

_SPLITS = {"train": "train", "eval": "val", "test": "test", "all": "train"}


class StackStream:
    """The pictures of ShapeStacks, in the order of `ShapeStacks.items`.

    Args:
        request: What is to be made of them.
        stacks: Which are read.
        workers: Processes.
    """

    unit = "pictures"

    def __init__(self, request: Request, stacks: ShapeStacks, workers: int) -> None:
        self.request, self.stacks, self.workers = request, stacks, workers
        self.name, self.id, self.slots = request.public.name, request.public.id, request.slots
        self.scene_bytes = request.scene_bytes

    @property
    def config(self) -> dict[str, Any]:
        """Return everything that decides the shards, besides the files."""
        return {**self.request.config, "release_split": self.stacks.split, "maps": self.stacks.maps}

    @property
    def size(self) -> int:
        """Pictures to be read, at most; 0 if nobody knows before they have been."""
        limit = self.request.limit
        listed = 16 * sum(len(scenarios) for scenarios in self.stacks.scenarios.values())
        return listed if limit is None else min(limit, listed or limit)

    def sources(self) -> dict[str, str]:
        """Return the SHA-256 of the list of scenarios, and of the archive of the pictures if it is one."""
        path = self.stacks.source.path
        archive = {path.name: sha256_of(path)} if path.is_file() else {}
        names = [f"{part}/{each.name}" for part, listed in self.stacks.scenarios.items() for each in listed]
        return archive | {
            f"scenarios of {self.stacks.split}": hashlib.sha256("\n".join(names).encode()).hexdigest()
        }

    def notes(self) -> list[str]:
        """Return what whoever uses the data must know."""
        roles = (
            ["labels are roles in the violation (vseg), not instances"] if self.stacks.maps == "vseg" else []
        )
        return [*self.request.notes(), *roles]

    def mark(self) -> dict[str, Any]:
        """Return nothing: pictures are files of their own, or in an archive that is to stay as it is."""
        return {}

    def holds(self, marks: Sequence[Mapping[str, Any]], sources: Mapping[str, str]) -> int:
        """Return how many marks are true: none of other pictures."""
        return len(marks) if dict(sources) == self.sources() else 0

    def scenes(
        self, start: int, on_progress: Callable[[int], None]
    ) -> Generator[tuple[int, str, Prepared], None, None]:
        """Yield place, split and content of each scene that is kept, from place ``start``."""
        import joblib

        request = self.request
        items = (i for i in self.stacks.items(start) if request.limit is None or i.index < request.limit)
        with joblib.parallel_config(backend="loky", n_jobs=self.workers, inner_max_num_threads=1):
            pool = joblib.Parallel(return_as="generator", batch_size=16, pre_dispatch=f"{64 * self.workers}")
            tasks = (joblib.delayed(_read)(item, request.protocol, request.selection) for item in items)
            for index, part, scene in pool(tasks):
                on_progress(1)
                if scene is not None:
                    yield index, _SPLITS[part], scene


def _read(item: Item, protocol: Protocol, selection: Selection) -> tuple[int, str, Prepared | None]:
    cut_early = selection.rule != "visible-before-crop"
    raw = decode(item, crop=protocol.crop if cut_early else None)
    return item.index, item.part, prepare(raw, protocol, selection, cropped=cut_early)
