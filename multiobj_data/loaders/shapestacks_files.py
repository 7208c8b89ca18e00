"""ShapeStacks' files, unpacked in a folder; `shapestacks_archives` has them still packed.

Both kinds of source answer the same two questions: what does a text file of the release say, and which pictures and
label maps do these scenarios have.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from multiobj_data.errors import DataError
from multiobj_data.loaders.shapestacks_names import Recording, Scenario

LARGEST_FILE = 16 << 20
"""Bytes above which a picture, a label map or a list of names is refused."""


@dataclass(frozen=True)
class Blob:
    """A file, or a member of an archive: what messages call it, and its bytes or where they are."""

    name: str
    path: Path | None = None
    data: bytes | None = None

    def read(self) -> bytes:
        """Return the content.

        Raises:
            DataError: If it cannot be read, or has more than `LARGEST_FILE` bytes.
        """
        if self.data is not None:
            return self.data
        return read_file(self.path or Path(self.name))


@dataclass(frozen=True)
class Pair:
    """A picture of a scenario and its label map."""

    scenario: Scenario
    recording: Recording
    map_suffix: str
    image: Blob
    labels: Blob


@dataclass
class Tally:
    """What was met on the way and is not an error; grows while pairs are read.

    Attributes:
        pairs: Pictures found with their label map.
        missing: Scenarios asked for of which the source has no picture.
        unparsed: Names of pictures or scenarios that do not read as such; they are passed over.
        blacklisted: Scenarios left out because a blacklist names them.
        repeated: Names that a list has more than once.
        shared: Scenarios that several of the chosen parts list.
    """

    pairs: int = 0
    missing: list[str] = field(default_factory=list)
    unparsed: list[str] = field(default_factory=list)
    blacklisted: list[str] = field(default_factory=list)
    repeated: int = 0
    shared: int = 0

    def sentences(self) -> list[str]:
        """Return what a user should know, a sentence each; empty if all is well."""
        found = []
        if self.missing:
            found.append(f"{len(self.missing)} scenarios of the list are not there: {_some(self.missing)}.")
        if self.unparsed:
            found.append(
                f"{len(self.unparsed)} names were not understood and left out: {_some(self.unparsed)}."
            )
        if self.repeated:
            found.append(f"{self.repeated} names are listed more than once; each was read once.")
        if self.shared:
            found.append(f"{self.shared} scenarios are in several parts of the split; each part has them.")
        return found


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")


class Source(Protocol):
    """A copy of ShapeStacks, unpacked or not."""

    path: Path

    def text(self, name: str) -> bytes | None:
        """Return the content of e.g. ``splits/default/train.txt``; ``None`` if there is no such file."""

    def texts(self, folder: str) -> list[str]:
        """Return the names below a folder, e.g. of ``splits``; empty if there is no such folder."""

    def pairs(self, wanted: Sequence[Scenario] | None, modality: str, tally: Tally) -> Iterator[Pair]:
        """Yield what these scenarios hold (``None``: all that there are); `Folder` in their order."""

    def progress(self) -> float:
        """Return how much of the running iteration is done, 0..1."""

    def contents(self, modality: str) -> tuple[list[Path], list[str]]:
        """Return what there is: the archives of pictures and label maps, or the names of the folders of scenarios."""

    def positions(self) -> dict[str, int]:
        """Return how many bytes of each archive the running iteration has used; empty for a folder."""


def read_file(path: Path) -> bytes:
    """Return a small file's content; see `Blob.read`."""
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    if len(content) > LARGEST_FILE:
        raise DataError(f"{path}: expected at most {LARGEST_FILE} bytes, the file is larger.")
    return content


def names_in(folder: Path) -> list[str]:
    """Return the names in a folder; none if there is no such folder.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}.") from error


def missing_map(picture: str, modality: str, other: bool) -> DataError:
    """Return the error of a picture without a label map.

    Args:
        picture: Its name.
        modality: What was asked for, ``iseg`` or ``vseg``.
        other: Whether there is a map of the other kind.
    """
    if modality == "iseg" and other:
        return DataError(
            f"{picture}: expected its iseg label map (of instances), found vseg alone, whose labels are roles in the "
            "violation, not instances; unpack shapestacks-iseg.tar.gz too, or ask for maps=vseg."
        )
    return DataError(
        f"{picture}: expected its {modality} label map, found none; unpack shapestacks-{modality}.tar.gz again."
    )


class Folder:
    """ShapeStacks unpacked: ``recordings/env_.../``, and label maps there or in ``iseg/env_.../``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._done = 0.0

    def text(self, name: str) -> bytes | None:
        """See `Source.text`."""
        file = self.path / name
        return read_file(file) if file.is_file() else None

    def texts(self, folder: str) -> list[str]:
        """See `Source.texts`."""
        return sorted(names_in(self.path / folder))

    def progress(self) -> float:
        """See `Source.progress`; counts scenarios."""
        return self._done

    def pairs(self, wanted: Sequence[Scenario] | None, modality: str, tally: Tally) -> Iterator[Pair]:
        """See `Source.pairs`: scenarios in the order given, or sorted; in each, by camera and frame."""
        scenarios = self._all(tally) if wanted is None else wanted
        for done, scenario in enumerate(scenarios):
            self._done = done / len(scenarios)
            before = tally.pairs
            yield from self._paired(scenario, modality, tally)
            if tally.pairs == before:
                tally.missing.append(scenario.name)
        self._done = 1.0

    def contents(self, modality: str) -> tuple[list[Path], list[str]]:
        """See `Source.contents`; the pictures themselves are too many to be read beforehand."""
        return [], sorted(names_in(self.path / "recordings"))

    def positions(self) -> dict[str, int]:
        """See `Source.positions`."""
        return {}

    def _all(self, tally: Tally) -> list[Scenario]:
        found = []
        for name in sorted(names_in(self.path / "recordings")):
            scenario = Scenario.parse(name)
            if scenario is not None:
                found.append(scenario)
            elif name.startswith("env_"):
                tally.unparsed.append(name)
        return found

    def _files(self, folder: str, scenario: Scenario) -> list[str]:
        return names_in(self.path / folder / scenario.name)

    def _paired(self, scenario: Scenario, modality: str, tally: Tally) -> Iterator[Pair]:
        files = self._files("recordings", scenario)
        pictures, labels = [], self._labels(scenario, files)
        for name in files:
            recording = Recording.parse(name)
            if recording is not None and recording.modality == "rgb":
                pictures.append(recording)
            elif name.startswith("rgb"):
                tally.unparsed.append(f"{scenario.name}/{name}")
        for picture in sorted(pictures, key=lambda p: (p.view, p.name)):
            path = self.path / "recordings" / scenario.name / picture.name
            if (modality, *picture.view) not in labels:
                raise missing_map(str(path), modality, ("vseg", *picture.view) in labels)
            suffix, labels_path = labels[modality, *picture.view]
            tally.pairs += 1
            yield Pair(scenario, picture, suffix, Blob(str(path), path), Blob(str(labels_path), labels_path))

    def _labels(self, scenario: Scenario, files: list[str]) -> dict[tuple[str, int, int], tuple[str, Path]]:
        """Return (modality, camera, frame) -> (suffix, file); ``.map`` before ``.png``, recordings/ first."""
        found: dict[tuple[str, int, int], tuple[str, Path]] = {}
        folders = [("recordings", files)]
        folders += [(name, self._files(name, scenario)) for name in ("iseg", "vseg")]
        for suffix in ("map", "png"):
            for folder, names in folders:
                for name in sorted(names):
                    one = Recording.parse(name)
                    if one is not None and one.modality != "rgb" and one.suffix == suffix:
                        path = self.path / folder / scenario.name / name
                        found.setdefault((one.modality, *one.view), (suffix, path))
        return found
