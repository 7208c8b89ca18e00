"""ShapeStacks as a stream of prepared scenes; its PNGs are decoded by several processes."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

from multiobj_data.files import sha256_of
from multiobj_data.generation.executors import killed_workers_explained
from multiobj_data.loaders.prefixes import Prefix
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
        self._sources: dict[str, str] | None = None
        self._read: dict[str, int] = {}
        self._prefixes: dict[str, Prefix] = {}

    @property
    def config(self) -> dict[str, Any]:
        """Return everything that decides the shards, besides the files."""
        chosen = {"release_split": self.stacks.split, "maps": self.stacks.maps}
        return {**self.request.config, **chosen, **({"blacklists": True} if self.stacks.blacklists else {})}

    @property
    def size(self) -> int:
        """Pictures to be read, at most; 0 if nobody knows before they have been."""
        limit = self.request.limit
        listed = 16 * sum(len(scenarios) for scenarios in self.stacks.scenarios.values())
        return listed if limit is None else min(limit, listed or limit)

    def sources(self) -> dict[str, str]:
        """Return the SHA-256 of the list of scenarios, and of the archives if these are read."""
        if self._sources is None:
            stacks = self.stacks
            archives, folders = stacks.source.contents(stacks.maps)
            names = [f"{part}/{each.name}" for part, listed in stacks.scenarios.items() for each in listed]
            digest = hashlib.sha256("\n".join(names if stacks.split != "all" else folders).encode())
            self._sources = {path.name: sha256_of(path) for path in archives}
            if stacks.split != "all" or not archives:
                self._sources[f"scenarios of {stacks.split}"] = digest.hexdigest()
        return self._sources

    def notes(self) -> list[str]:
        """Return what whoever uses the data must know."""
        roles = (
            ["labels are roles in the violation (vseg), not instances"] if self.stacks.maps == "vseg" else []
        )
        return [*self.request.notes(), *roles]

    def mark(self) -> dict[str, Any]:
        """Return how far each archive has been read, and the SHA-256 of that part; nothing for files in a folder."""
        paths = {path.name: path for path in self.stacks.source.contents(self.stacks.maps)[0]}
        for name, path in paths.items():
            self._prefixes.setdefault(name, Prefix(path))
        return {
            name: {"bytes": size, "sha256": self._prefixes[name].sha256(size)}
            for name, size in self._read.items()
        }

    def holds(self, marks: Sequence[Mapping[str, Any]], sources: Mapping[str, str]) -> int:
        """Return how many marks are true of the archives that are here now; none of other scenarios.

        An archive that broke a run off may have been mended behind a mark.
        """
        paths = {path.name: path for path in self.stacks.source.contents(self.stacks.maps)[0]}
        here = self.sources()
        if sources.keys() != here.keys() or any(
            sources[name] != here[name] for name in here.keys() - paths.keys()
        ):
            return 0
        prefixes = {name: Prefix(path) for name, path in paths.items() if sources[name] != here[name]}
        for number, mark in enumerate(marks):
            for name, prefix in prefixes.items():
                if name not in mark or prefix.sha256(mark[name]["bytes"]) != mark[name]["sha256"]:
                    return number
        return len(marks)

    def scenes(
        self, start: int, on_progress: Callable[[int], None]
    ) -> Generator[tuple[int, str, Prepared], None, None]:
        """Yield place, split and content of each scene that is kept, from place ``start``."""
        import joblib

        request = self.request
        positions: deque[dict[str, int]] = deque()

        def items() -> Iterator[Item]:
            for item in self.stacks.items(start):
                if request.limit is not None and item.index >= request.limit:
                    return
                positions.append(self.stacks.source.positions())
                yield item

        with joblib.parallel_config(backend="loky", n_jobs=self.workers, inner_max_num_threads=1):
            pool = joblib.Parallel(return_as="generator", batch_size=16, pre_dispatch=f"{64 * self.workers}")
            tasks = (joblib.delayed(_read)(item, request.protocol, request.selection) for item in items())
            with killed_workers_explained():
                for index, part, scene in pool(tasks):
                    self._read = positions.popleft()  # results come in the order of the tasks
                    on_progress(1)
                    if scene is not None:
                        yield index, _SPLITS[part], scene


def _read(item: Item, protocol: Protocol, selection: Selection) -> tuple[int, str, Prepared | None]:
    cut_early = selection.rule != "visible-before-crop"
    raw = decode(item, crop=protocol.crop if cut_early else None)
    return item.index, item.part, prepare(raw, protocol, selection, cropped=cut_early)
