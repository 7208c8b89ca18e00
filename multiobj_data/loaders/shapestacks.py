"""ShapeStacks (Groth et al. 2018): stacks of 2 to 6 blocks, stable or not, each seen by 16 cameras.

The renderer gives 224 x 224 pictures and a label map for each; everything else is in the files' names. Two steps, so
that a pool of processes can do the costly one: `ShapeStacks.items` finds the pictures, `decode` reads one.

    stacks = ShapeStacks("shapestacks/", split="default", parts=("train",))
    for raw in map(decode, stacks.items()):
        raw.image, raw.segments, raw.scene_factors["stable"]
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from multiobj_data.errors import DataError, UsageError, did_you_mean
from multiobj_data.loaders.png import read_png
from multiobj_data.loaders.raw import Raw
from multiobj_data.loaders.shapestacks_archives import SUFFIXES, Archives, archive
from multiobj_data.loaders.shapestacks_files import Folder, Pair, Source, Tally
from multiobj_data.loaders.shapestacks_labels import LABELS, mend, read_labels, small_components
from multiobj_data.loaders.shapestacks_names import LARGEST_STACK, Scenario

logger = logging.getLogger(__name__)

PARTS = ("train", "eval", "test")
"""Of every split, as released."""

MAPS = ("iseg", "vseg")
"""Kinds of label maps: instances, and roles in the violation."""

ROLES = 4
"""Highest label of ``vseg``: 1 below the violation, 2 violating, 3 directly above, 4 further above."""

CROP = slice(14, 210), slice(14, 210)
"""Rows and columns that GENESIS and SRI keep: the 196 x 196 pixels in the middle."""

_WHERE = (
    "expected a folder with recordings/ in it, as ShapeStacks' archives unpack, or with the archives themselves "
    "(shapestacks-rgb.tar.gz, shapestacks-iseg.tar.gz, shapestacks-meta.tar.gz)"
)


@dataclass(frozen=True)
class Item:
    """A picture that can be decoded, in any process.

    Attributes:
        index: Place in the iteration, from 0.
        part: ``train``, ``eval``, ``test``; ``all`` without a split.
        modality: Kind of its label map, one of `MAPS`.
        pair: Its files and what their names say.
    """

    index: int
    part: str
    modality: str
    pair: Pair

    @property
    def name(self) -> str:
        """Scenario and file."""
        return f"{self.pair.scenario.name}/{self.pair.recording.name}"


class ShapeStacks:
    """The recordings of a split, in a folder or in the release's archives.

    Attributes:
        source: Where the files are.
        blacklists: Whether what the blacklists name is left out.
        scenarios: Part -> scenarios, in the order of the split's file; empty for ``split="all"``.
        tally: What the running iteration met: scenarios missing, names not understood.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        split: str = "default",
        parts: Sequence[str] = ("train",),
        maps: str = "iseg",
        blacklists: bool = False,
    ) -> None:
        """Read the lists; no picture yet.

        Args:
            path: Folder with ``recordings/``, folder with the archives, or the archive of the pictures.
            split: ``default``, ``blocks_all``, ``ccs_all``, or ``all`` for whatever is there, without any list.
            parts: Which of `PARTS`.
            maps: Kind of label maps; ``vseg`` labels roles in the violation, not instances.
            blacklists: Whether to leave out what ``meta/blacklist_*.txt`` name; the release itself does not.

        Raises:
            DataError: If there is no such data set or list.
            UsageError: If an argument is none of the above.
        """
        for name, value, known in [("maps", maps, MAPS)] + [("parts", part, PARTS) for part in parts]:
            if value not in known:
                raise UsageError(f"{name}: expected {' or '.join(known)}, got {value!r}.")
        if not parts:
            raise UsageError(f"parts: expected at least one of {', '.join(PARTS)}, got none.")
        self.source = open_source(path)
        self.split, self.maps, self.blacklists = split, maps, blacklists
        self.tally = self._listed = Tally()
        self._blacklist = _read_blacklists(self.source) if blacklists else frozenset[str]()
        self.scenarios: dict[str, tuple[Scenario, ...]] = {}
        if split != "all":
            self.scenarios = {part: self._list(part) for part in dict.fromkeys(parts)}
        self._parts: dict[Scenario, list[str]] = {}  # one each, but nothing keeps the lists from overlapping
        for part, listed in self.scenarios.items():
            for scenario in listed:
                self._parts.setdefault(scenario, []).append(part)
        self._listed.shared = sum(len(found) > 1 for found in self._parts.values())

    def _list(self, part: str) -> tuple[Scenario, ...]:
        """Return the scenarios of a part, each once, less the blacklisted."""
        chosen: dict[str, Scenario] = {}
        for line in _read_list(self.source, self.split, part):
            scenario = Scenario.parse(line)
            if scenario is None:
                self._listed.unparsed.append(line[:200])
            elif line in chosen:
                self._listed.repeated += 1
            elif line in self._blacklist:
                self._listed.blacklisted.append(line)
            else:
                chosen[line] = scenario
        return tuple(chosen.values())

    def items(self, start: int = 0) -> Iterator[Item]:
        """Find the pictures, without decoding any.

        In a folder they come part by part, scenario by scenario in the order of the split's file (sorted for
        ``all``), then by camera. In archives they come in the archive's order, whatever their part, and hold their
        bytes. Either order is the same every time.

        Args:
            start: How many to pass over, to go on after an interruption.

        Raises:
            DataError: If a picture has no label map, an archive is damaged, or there is no picture at all.
        """
        return islice(self._all_items(), start, None)

    def _all_items(self) -> Iterator[Item]:
        self.tally = tally = deepcopy(self._listed)
        index = 0
        for pair in self.source.pairs(self._wanted(), self.maps, tally):
            if self.split == "all" and pair.scenario.name in self._blacklist:
                if pair.scenario.name not in tally.blacklisted:
                    tally.blacklisted.append(pair.scenario.name)
                continue
            for part in self._parts[pair.scenario] if self.split != "all" else ("all",):
                yield Item(index, part, self.maps, pair)
                index += 1
        for sentence in tally.sentences():
            logger.warning("%s: %s", self.source.path, sentence)
        if not index:
            raise DataError(f"{self.source.path}: expected pictures of split {self.split!r}, found none.")

    def _wanted(self) -> list[Scenario] | None:
        """Return the scenarios of all parts in order, each once; ``None``: no list, whatever is there."""
        return None if self.split == "all" else list(self._parts)


def open_source(path: str | os.PathLike[str]) -> Source:
    """Return the copy of ShapeStacks at a path; see `ShapeStacks`."""
    path = Path(path)
    if path.is_file():
        if not path.name.endswith(SUFFIXES):
            raise DataError(f"{path}: {_WHERE}, got a file.")
        return Archives(path.parent, path)
    if not path.is_dir():
        raise DataError(f"{path}: {_WHERE}, found nothing there.")
    for root in (path, path / "shapestacks"):
        if (root / "recordings").is_dir():
            return Folder(root)
    pictures = archive(path, "rgb")
    if pictures is None:
        raise DataError(f"{path}: {_WHERE}, found neither.")
    return Archives(path, pictures)


def _read_list(source: Source, split: str, part: str) -> list[str]:
    known = source.texts("splits")
    if not known:
        raise DataError(
            f"{source.path}: expected splits/{split}/{part}.txt, found no splits; unpack shapestacks-meta.tar.gz too, "
            "or ask for split=all."
        )
    if split not in known:
        raise UsageError(
            f"split: {source.path} has no split {split!r}.{did_you_mean(split, [*known, 'all'])}"
        )
    content = source.text(f"splits/{split}/{part}.txt")
    if content is None:
        raise DataError(
            f"{source.path}: expected splits/{split}/{part}.txt, found none; unpack shapestacks-meta.tar.gz again."
        )
    return _lines(content, f"{source.path}: splits/{split}/{part}.txt")


def _lines(content: bytes, name: str) -> list[str]:
    """Return the lines of a list that are not blank, whatever ends them, the last one too."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: expected text, got bytes that are none (at byte {error.start}).") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _read_blacklists(source: Source) -> frozenset[str]:
    """Return the scenarios that the lists name, wherever in a line."""
    files = [n for n in source.texts("meta") if n.startswith("blacklist_") and n.endswith(".txt")]
    if not files:
        raise DataError(
            f"{source.path}: expected meta/blacklist_*.txt, found none; unpack shapestacks-meta.tar.gz too."
        )
    named = set()
    for file in files:
        for line in _lines(source.text(f"meta/{file}") or b"", f"{source.path}: meta/{file}"):
            scenario = Scenario.within(line)
            named |= {scenario.name} if scenario else set()
    return frozenset(named)


def decode(item: Item, *, crop: tuple[slice, slice] | None = None, stray: str = "mend") -> Raw:
    """Read a picture and its label map.

    With ``iseg``, entity k is block k from the bottom (7 entities); with ``vseg`` it is a role (5). The factors
    ``level`` (0 for background) and ``role`` of an entity are -1 where it has none.

    Scene factors beside those in the names: ``stray_pixels``, see `shapestacks_labels`; ``blended_pixels``, those
    between two colours (-1 for a ``.map``, which does not tell); ``labels_are_roles``.

    Args:
        item: From `ShapeStacks.items`.
        crop: Rows and columns to keep, e.g. `CROP`. Stray pixels are found, and ``present`` is told, before.
        stray: ``mend`` (labels that are not in the scene take the nearest other one, see `shapestacks_labels.mend`)
            or ``keep`` (the released labels, all 8).

    Raises:
        DataError: If a file is damaged, or the two do not belong together; the message names it.
        UsageError: If ``crop`` reaches beyond the picture, or ``stray`` is neither.
    """
    if stray not in ("mend", "keep"):
        raise UsageError(f"stray: expected mend or keep, got {stray!r}.")
    pair, roles = item.pair, item.modality == "vseg"
    image = _read_image(pair)
    name = pair.labels.name
    labels, blended = read_labels(pair.labels.read(), name, item.modality, pair.map_suffix)
    if labels.shape != image.shape[:2]:
        height, width = labels.shape
        raise DataError(
            f"{name}: expected the size of its picture, {image.shape[1]} x {image.shape[0]}, got {width} x {height}."
        )
    if stray == "mend":
        entities = 1 + (ROLES if roles else LARGEST_STACK)
        labels, strays = mend(labels, _highest_label(pair.scenario, roles), name)
    else:
        entities, strays = LABELS, int(small_components(labels).sum())
    rows, columns = _inside(crop, labels.shape)
    return Raw(
        image=image[rows, columns],
        segments=labels[rows, columns],
        entities=entities,
        background=1,
        present=np.bincount(labels.ravel(), minlength=entities) > 0,
        factors=_entity_factors(pair.scenario, roles, entities),
        scene_factors={
            **pair.scenario.factors(),
            **pair.recording.factors(),
            "stray_pixels": np.int32(strays),
            "blended_pixels": np.int32(blended),
            "labels_are_roles": np.int8(roles),
        },
        name=item.name,
        index=item.index,
    )


def _read_image(pair: Pair) -> np.ndarray:
    """Return the picture, uint8 ``[H, W, 3]``."""
    pixels = read_png(pair.image.read(), pair.image.name)
    if pixels.shape[2] < 3:
        raise DataError(f"{pair.image.name}: expected a picture in colour, got one in grey.")
    return pixels[:, :, :3]


def _highest_label(scenario: Scenario, roles: bool) -> int:
    if not roles:
        return scenario.height
    return 1 if scenario.stable else ROLES


def _entity_factors(scenario: Scenario, roles: bool, entities: int) -> dict[str, np.ndarray]:
    """Return what is known of each entity, int8 ``[entities]``; -1: nothing."""
    level, role = np.full((2, entities), -1, np.int8)
    if roles:
        role[: ROLES + 1] = np.arange(ROLES + 1)
        level[0] = 0
    else:
        level[: scenario.height + 1] = np.arange(scenario.height + 1)
        role[: LARGEST_STACK + 1] = scenario.roles()
    return {"level": level, "role": role}


def _inside(crop: tuple[slice, slice] | None, shape: tuple[int, ...]) -> tuple[slice, slice]:
    if crop is None:
        return slice(None), slice(None)
    for span, size in zip(crop, shape, strict=True):
        if not 0 <= (span.start or 0) < (size if span.stop is None else span.stop) <= size:
            raise UsageError(f"crop: expected rows and columns within {shape[0]} x {shape[1]}, got {crop}.")
    return crop
