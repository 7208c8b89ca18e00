"""Public sets as streams of prepared scenes, in an order that never changes: what `conversion.convert` writes."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from multiobj_data.errors import DataError
from multiobj_data.files import sha256_of
from multiobj_data.loaders.multi_object_datasets import open_records, read
from multiobj_data.loaders.prefixes import Prefix
from multiobj_data.loaders.preparing import Prepared, Selection, prepare_all
from multiobj_data.loaders.protocols import Protocol, SplitOf, splitter
from multiobj_data.loaders.raw import Raw
from multiobj_data.loaders.sets import PublicSet

_FILE = 1 << 40  # places a file: more than any has records
_TOGETHER = 1 << 18  # bytes of pictures that are prepared together
_BACKGROUND = 1  # leading entities of the sets whose `visibility` tells what is there


@dataclass(frozen=True)
class Request:
    """What is to be made of a public set.

    Attributes:
        public: The set.
        protocol: How scenes are cut, resized and split.
        selection: Which scenes are kept.
        limit: Most records read of each file; ``None`` reads all.
    """

    public: PublicSet
    protocol: Protocol
    selection: Selection
    limit: int | None = None

    @property
    def config(self) -> dict[str, Any]:
        """Return everything that decides the shards, besides the files; JSON-ready."""
        protocol = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self.protocol).items()}
        for prose in ("about", "differs"):  # another wording makes no other data set
            del protocol[prose]
        return {"protocol": protocol, "selection": asdict(self.selection), "limit": self.limit}

    @property
    def slots(self) -> int:
        """K."""
        return self.selection.bound(self.public.slots)

    @property
    def scene_bytes(self) -> int:
        """Bytes of a scene's picture and label maps, about."""
        crop, size = self.protocol.crop, self.protocol.size
        height, width = self.public.shape if crop is None else (part.stop - part.start for part in crop)
        kept = height * width if self.protocol.keep_labels else 0
        return 4 * (size * size if size else height * width) + kept

    def notes(self) -> list[str]:
        """Return what whoever uses the data must know."""
        notes = [
            f"protocol {self.protocol.name}: {self.protocol.about}",
            "counts and boxes are of what is visible in the pictures as stored; the scene factor source_count has the "
            "source's own count",
        ]
        if self.protocol.differs:
            notes.append(f"differs from that project: {self.protocol.differs}")
        return notes


class RecordStream:
    """The scenes of TFRecord files.

    Args:
        request: What is to be made of them.
        files: Path and fixed split of each.
        inflater: See `multiobj_data.loaders.inflate.open_stream`.
        ahead: Whether a thread inflates ahead; by default where there is a second core for it.
    """

    unit = "bytes"

    def __init__(
        self,
        request: Request,
        files: list[tuple[Path, str | None]],
        *,
        inflater: str | None = None,
        ahead: bool | None = None,
    ) -> None:
        self.request, self.files = request, files
        self.name, self.id, self.slots = request.public.name, request.public.id, request.slots
        self.scene_bytes = request.scene_bytes
        self._sources: dict[str, str] | None = None
        self._read = (0, 0)  # which file, and how many of its bytes
        self._prefix = Prefix(None)
        self._inflater, self._ahead = inflater, cores() > 1 if ahead is None else ahead

    @property
    def config(self) -> dict[str, Any]:
        """Return everything that decides the shards, besides the files."""
        return self.request.config

    @property
    def size(self) -> int:
        """Bytes to be read."""
        return sum(path.stat().st_size for path, _ in self.files)

    def sources(self) -> dict[str, str]:
        """Return the SHA-256 of each file."""
        if self._sources is None:
            self._sources = {path.name: sha256_of(path) for path, _ in self.files}
        return self._sources

    def notes(self) -> list[str]:
        """Return what whoever uses the data must know."""
        return self.request.notes()

    def mark(self) -> dict[str, Any]:
        """Return which file has been read how far, and the SHA-256 of that part."""
        number, size = self._read
        path = self.files[number][0]
        if self._prefix.path != path:
            self._prefix = Prefix(path)
        return {"file": path.name, "bytes": size, "sha256": self._prefix.sha256(size)}

    def holds(self, marks: Sequence[Mapping[str, Any]], sources: Mapping[str, str]) -> int:
        """Return how many marks, made in this order, are true of the files that are here now.

        A file that broke a run off may have been mended behind them; those before it must be the same.
        """
        held = 0
        for path, _ in self.files:
            prefix = Prefix(path)
            for mark in marks[held:]:
                if mark.get("file") != path.name:
                    break
                if prefix.sha256(mark["bytes"]) != mark["sha256"]:
                    return held
                held += 1
            if self.sources()[path.name] != sources.get(path.name):
                break
        return held

    def scenes(
        self, start: int, on_progress: Callable[[int], None]
    ) -> Generator[tuple[int, str, Prepared], None, None]:
        """Yield place, split and content of each scene that is kept, from place ``start``."""
        split_of = splitter(self.request.protocol.split)
        for number, (path, fixed) in enumerate(self.files):
            first, before = max(start - number * _FILE, 0), 0

            def report(position: int) -> None:
                nonlocal before
                if position > before:
                    on_progress(position - before)
                    before = position

            def split(index: int, fixed: str | None = fixed) -> str | None:
                return fixed or split_of(index)

            for raw, position, scene in self._prepared(path, first, split, report) if first < _FILE else ():
                self._read = number, position
                if scene and (name := split(raw.index)):
                    yield number * _FILE + raw.index, name, scene
            if (rest := path.stat().st_size - before) > 0:
                on_progress(rest)

    def _prepared(
        self, path: Path, first: int, split: SplitOf, report: Callable[[int], None]
    ) -> Iterator[tuple[Raw, int, Prepared | None]]:
        """Prepare the records of a file from the ``first``, small ones together.

        Yields:
            Record, how many of the file's bytes it and those before it took, and what was made of it.
        """
        request, cut_early = self.request, self.request.selection.rule != "visible-before-crop"
        waiting: list[Raw] = []
        positions: list[int] = []
        read = 0

        def note(position: int) -> None:
            nonlocal read
            read = position
            report(position)

        def done() -> Iterator[tuple[Raw, int, Prepared | None]]:
            scenes = prepare_all(waiting, request.protocol, request.selection, cropped=cut_early)
            yield from zip(waiting, positions, scenes, strict=True)
            waiting.clear()
            positions.clear()

        try:
            for raw in self._records(path, first, split, note):
                waiting.append(raw)
                positions.append(read)
                if len(waiting) * raw.image.nbytes >= _TOGETHER:
                    yield from done()
        except DataError:  # those before it are good
            yield from done()
            raise
        yield from done()

    def _records(
        self, path: Path, first: int, split: SplitOf, report: Callable[[int], None]
    ) -> Iterator[Raw]:
        """Yield the records of a file from the ``first`` that may be kept."""
        request, selection = self.request, self.request.selection
        crop = request.protocol.crop if selection.rule != "visible-before-crop" else None
        if request.limit is not None and first >= request.limit:
            return

        def wanted(index: int, present: np.ndarray | None) -> bool:
            return bool(split(index)) and (present is None or selection.may_keep(present, _BACKGROUND))

        with open_records(path, inflater=self._inflater, ahead=self._ahead) as file:
            yield from read(
                file,
                request.public.source,
                crop=crop,
                start=first,
                stop=request.limit,
                wanted=wanted,
                on_progress=report,
            )
            if not file.offset:
                raise DataError(f"{path}: expected records, got an empty file; get it again.")


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
