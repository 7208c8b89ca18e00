"""ShapeStacks' archives as released, read without unpacking.

They are gzip streams of up to 33 GB, which go forward only, so each is read in one pass, and the pairs come in the
order of the archive of pictures. The archive of label maps is read just as far as the present picture needs; maps that
come before their picture wait in memory. Where both archives have the same order, that is next to nothing; in the
worst case all maps asked for wait (about 1.3 kB each, 0.4 GB for the whole release).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from multiobj_data.loaders.inflate import ByteStream, open_stream
from multiobj_data.loaders.shapestacks_files import LARGEST_FILE, Blob, Folder, Pair, Tally, missing_map
from multiobj_data.loaders.shapestacks_names import Recording, Scenario
from multiobj_data.loaders.tar_stream import Member, members

SUFFIXES = (".tar.gz", ".tgz", ".tar")
"""Of archives that are read."""

_RECENT = 128  # label maps kept after their picture, for a second picture by the same camera


def archive(folder: Path, kind: str) -> Path | None:
    """Return the archive of a kind (``rgb``, ``iseg``, ``vseg``, ``meta``) in a folder; ``None`` if there is none."""
    return next((p for s in SUFFIXES if (p := folder / f"shapestacks-{kind}{s}").is_file()), None)


_BLOCK = 1 << 18  # inflated bytes to fetch at once: members' headers are small


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Iterator[Member], ByteStream]]:
    """Yield an archive's members, and the stream that they come from."""
    with open_stream(path) as stream:
        stream.block = _BLOCK
        yield members(stream, str(path)), stream


class Archives:
    """``shapestacks-rgb.tar.gz`` and its siblings in a folder."""

    def __init__(self, path: Path, pictures: Path) -> None:
        self.path, self.pictures = path, pictures
        self._done = 0.0
        self._streams: list[ByteStream] = []
        self._meta: dict[str, bytes] | None = None

    def text(self, name: str) -> bytes | None:
        """See `Source.text`: of a file beside the archives if there is one, else of the meta archive."""
        beside = Folder(self.path).text(name)
        return self._texts().get(name) if beside is None else beside

    def texts(self, folder: str) -> list[str]:
        """See `Source.texts`."""
        start = folder + "/"
        packed = {name.removeprefix(start).split("/")[0] for name in self._texts() if name.startswith(start)}
        return sorted(packed | set(Folder(self.path).texts(folder)))

    def _texts(self) -> dict[str, bytes]:
        """Return the lists in the meta archive by name, e.g. ``splits/default/train.txt``; empty without it."""
        path = archive(self.path, "meta")
        if self._meta is None and path is not None:
            self._meta = {}
            with _opened(path) as (files, _):
                for member in files:
                    parts = PurePosixPath(member.name).parts
                    start = next((parts.index(top) for top in ("splits", "meta") if top in parts), None)
                    if start is not None and member.name.endswith(".txt"):
                        self._meta["/".join(parts[start:])] = member.read(LARGEST_FILE)
        return self._meta or {}

    def progress(self) -> float:
        """See `Source.progress`; counts bytes of the archive of pictures."""
        return self._done

    def contents(self, modality: str) -> tuple[list[Path], list[str]]:
        """See `Source.contents`."""
        return [path for path in (self.pictures, archive(self.path, modality)) if path is not None], []

    def positions(self) -> dict[str, int]:
        """See `Source.positions`."""
        return {stream.path.name: stream.position for stream in self._streams}

    def pairs(self, wanted: Sequence[Scenario] | None, modality: str, tally: Tally) -> Iterator[Pair]:
        """See `Source.pairs`: in the order of the archive of pictures."""
        names = None if wanted is None else {scenario.name for scenario in wanted}
        path = archive(self.path, modality)
        if path is None:
            raise missing_map(str(self.pictures), modality, archive(self.path, "vseg") is not None)
        seen = set()
        with _opened(self.pictures) as (pictures, stream), _opened(path) as (maps, other):
            self._streams = [stream, other]
            labels = _EarlyMaps(maps, modality, names)
            for member, scenario, picture in _recordings(pictures, names, tally):
                if picture.modality != "rgb":
                    continue
                self._done = stream.position / stream.total
                seen.add(scenario.name)
                image = Blob(f"{self.pictures}: {member.name}", data=member.read(LARGEST_FILE))
                found = labels.take(scenario, picture)
                if found is None:
                    raise missing_map(image.name, modality, other=False)
                suffix, data = found
                tally.pairs += 1
                name = (
                    f"{path}: {scenario.name}/{modality}-*-cam_{picture.camera}-mono-{picture.frame}.{suffix}"
                )
                yield Pair(scenario, picture, suffix, image, Blob(name, data=data))
        self._done = 1.0
        tally.missing += [scenario.name for scenario in wanted or () if scenario.name not in seen]


def _recordings(
    files: Iterator[Member], names: set[str] | None, tally: Tally
) -> Iterator[tuple[Member, Scenario, Recording]]:
    """Yield what an archive holds of the scenarios ``names`` (``None``: of all)."""
    for member in files:
        *_, folder, file = ("", "", *PurePosixPath(member.name).parts)
        scenario, recording = Scenario.parse(folder), Recording.parse(file)
        if names is not None and folder not in names:
            continue
        if scenario is not None and recording is not None:
            yield member, scenario, recording
        elif file.startswith("rgb"):
            tally.unparsed.append(f"{folder}/{file}")


class _EarlyMaps:
    """Label maps of an archive, found by scenario, camera and frame; holds those that came too early.

    An archive may have each map in both forms; the form of its first map is the one that is read.
    """

    def __init__(self, files: Iterator[Member], modality: str, names: set[str] | None) -> None:
        self._found = (
            (member, scenario, one)
            for member, scenario, one in _recordings(files, names, Tally())
            if one.modality == modality
        )
        self._suffix = ""
        self._early: dict[tuple[str, int, int], bytes] = {}
        self._recent: OrderedDict[tuple[str, int, int], bytes] = OrderedDict()

    def take(self, scenario: Scenario, picture: Recording) -> tuple[str, bytes] | None:
        """Return suffix and content of a picture's label map; ``None`` if the archive has none."""
        key = scenario.name, *picture.view
        if key in self._recent:
            return self._suffix, self._recent[key]
        while key not in self._early:
            if not self._read_one():
                return None
        data = self._recent[key] = self._early.pop(key)
        if len(self._recent) > _RECENT:
            self._recent.popitem(last=False)
        return self._suffix, data

    def _read_one(self) -> bool:
        """Read on to the next map; tell whether there was one."""
        for member, scenario, one in self._found:
            self._suffix = self._suffix or one.suffix
            if one.suffix == self._suffix:
                self._early[scenario.name, *one.view] = member.read(LARGEST_FILE)
                return True
        return False
