"""Public sets as streams of prepared scenes, in an order that never changes: what `conversion.convert` writes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from multiobj_data.files import sha256_of
from multiobj_data.loaders.inflate import open_stream
from multiobj_data.loaders.multi_object_datasets import read
from multiobj_data.loaders.preparing import Prepared, Selection, prepare
from multiobj_data.loaders.protocols import Protocol, splitter
from multiobj_data.loaders.raw import Raw
from multiobj_data.loaders.sets import PublicSet

_FILE = 1 << 40  # places a file: more than any has records


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
    """

    unit = "bytes"

    def __init__(self, request: Request, files: list[tuple[Path, str | None]]) -> None:
        self.request, self.files = request, files
        self.name, self.id, self.slots = request.public.name, request.public.id, request.slots
        self.scene_bytes = request.scene_bytes
        self._sources: dict[str, str] | None = None
        self._read = (0, 0)  # which file, and how many of its bytes
        self._prefix = _Prefix(None)

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
            self._prefix = _Prefix(path)
        return {"file": path.name, "bytes": size, "sha256": self._prefix.sha256(size)}

    def holds(self, marks: Sequence[Mapping[str, Any]], sources: Mapping[str, str]) -> int:
        """Return how many marks, made in this order, are true of the files that are here now.

        A file that broke a run off may have been mended behind them; those before it must be the same.
        """
        held = 0
        for path, _ in self.files:
            prefix = _Prefix(path)
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
        request, protocol = self.request, self.request.protocol
        cut_early = request.selection.rule != "visible-before-crop"
        split_of = splitter(protocol.split)
        for number, (path, fixed) in enumerate(self.files):
            first, before = max(start - number * _FILE, 0), 0
            for raw, position in self._records(path, first) if first < _FILE else ():
                self._read = number, position
                if position > before:
                    on_progress(position - before)
                    before = position
                split = fixed or split_of(raw.index)
                scene = prepare(raw, protocol, request.selection, cropped=cut_early) if split else None
                if split and scene:
                    yield number * _FILE + raw.index, split, scene
            if (rest := path.stat().st_size - before) > 0:
                on_progress(rest)

    def _records(self, path: Path, first: int) -> Iterator[tuple[Raw, int]]:
        """Yield the records of a file from the ``first``, with how many of its bytes have been used."""
        request = self.request
        crop = request.protocol.crop if request.selection.rule != "visible-before-crop" else None
        if request.limit is not None and first >= request.limit:
            return
        with open_stream(path) as file:
            for raw in read(file, request.public.source, crop=crop, start=first):
                yield raw, file.position
                if request.limit is not None and raw.index + 1 >= request.limit:
                    return


class _Prefix:
    """The SHA-256 of a file's beginning, which grows."""

    def __init__(self, path: Path | None) -> None:
        self.path, self._at, self._digest = path, 0, hashlib.sha256()

    def sha256(self, size: int) -> str:
        """Return it for the first ``size`` bytes, no fewer than were asked for before."""
        if self.path is not None:
            with open(self.path, "rb") as file:
                file.seek(self._at)
                while self._at < size and (block := file.read(min(size - self._at, 1 << 20))):
                    self._digest.update(block)
                    self._at += len(block)
        return self._digest.hexdigest() if self._at == size else "shorter"
