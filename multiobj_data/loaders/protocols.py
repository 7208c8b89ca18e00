"""How a public set is filtered, cut, resized and split: named, recorded, and by whom. Data: ``protocols.toml``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

import numpy as np

from multiobj_data.errors import UsageError, did_you_mean

CountRule = Literal["none", "source", "source-with-background", "visible-before-crop", "visible"]
"""What is counted where scenes are chosen by their number of objects: nothing; the objects that the source names;
these and its background; or those with enough visible pixels, in the whole picture or in the part that is kept."""

SplitOf = Callable[[int], str | None]
"""Index of a record in its file -> split; ``None`` for records that belong to none."""


@dataclass(frozen=True)
class Protocol:
    """What is done to each scene of a public set.

    Attributes:
        name: E.g. ``iodine``.
        about: Whose it is, in one line.
        image_filter: How pictures are resized; see `multiobj_data.loaders.resampling`.
        mask_filter: How label maps are.
        value_range: The range to which the project scales pixels; shards hold bytes, so this is only recorded.
        count_rule: What is counted, see `CountRule`.
        split: ``all``, ``cycle:18,1,1`` (of every 20 records: train, val, test), ``ranges:test=0-10000,...``,
            ``permutation:SEED;train=N,...``, or ``source`` (the source says).
        rows: Rows kept, half-open; ``None`` keeps all.
        columns: Columns kept.
        size: Side of the pictures in pixels; 0 leaves them as they were cut.
        keep_labels: Whether to keep the label map of the cut, before it is resized, as scene factor
            ``segments_source``.
        differs: In what this cannot be exactly that project's data.
    """

    name: str
    about: str
    image_filter: str
    mask_filter: str
    value_range: str
    count_rule: CountRule
    split: str
    rows: tuple[int, int] | None = None
    columns: tuple[int, int] | None = None
    size: int = 0
    keep_labels: bool = False
    differs: str = ""

    @property
    def crop(self) -> tuple[slice, slice] | None:
        """Rows and columns kept."""
        if self.rows is None or self.columns is None:
            return None
        return slice(*self.rows), slice(*self.columns)


@cache
def protocols(source: str) -> dict[str, Protocol]:
    """Return the protocols for a public set (``clevr``, ``objects-room``, ...), by name."""
    tables = tomllib.loads((files("multiobj_data.loaders") / "protocols.toml").read_text())
    found = {}
    for name, table in tables[source].items():
        pairs = {key: tuple(table[key]) for key in ("rows", "columns") if key in table}
        found[name] = Protocol(name=name, **{**table, **pairs})
    return found


def find_protocol(source: str, name: str) -> Protocol:
    """Return a protocol by name.

    Raises:
        UsageError: If there is none.
    """
    known = protocols(source)
    if name not in known:
        raise UsageError(f"{source} has no protocol {name!r}.{did_you_mean(name, known)}")
    return known[name]


def splitter(text: str) -> SplitOf:
    """Return the rule by which records go to splits.

    Raises:
        UsageError: If the text is no rule.
    """
    kind, _, rest = text.partition(":")
    if text in ("all", "source"):
        return lambda index: "train"
    if kind == "cycle" and re.fullmatch(r"\d+,\d+,\d+", rest):
        shares = [int(n) for n in rest.split(",")]
        cycle = ["train"] * shares[0] + ["val"] * shares[1] + ["test"] * shares[2]
        return lambda index: cycle[index % len(cycle)]
    if kind == "ranges" and re.fullmatch(r"\w+=\d+-\d*(,\w+=\d+-\d*)*", rest):
        return _by_ranges(rest)
    if kind == "permutation" and re.fullmatch(r"\d+;\w+=\d+(,\w+=\d+)*", rest):
        return _by_permutation(rest)
    raise UsageError(
        f"split: expected all, source, cycle:18,1,1, ranges:test=0-100,train=100- or permutation:SEED;train=N, "
        f"got {text!r}."
    )


def _by_ranges(text: str) -> SplitOf:
    parts = []
    for item in text.split(","):
        name, span = item.split("=")
        low, high = span.split("-")
        parts.append((name, int(low), int(high) if high else 1 << 62))

    def split_of(index: int) -> str | None:
        return next((name for name, low, high in parts if low <= index < high), None)

    return split_of


def _by_permutation(text: str) -> SplitOf:
    seed, _, shares = text.partition(";")
    sizes = {name: int(n) for name, n in (item.split("=") for item in shares.split(","))}
    order = np.random.RandomState(int(seed)).permutation(sum(sizes.values()))  # theirs
    split = np.repeat(np.array(list(sizes)), list(sizes.values()))
    of_index = np.empty(len(order), split.dtype)
    of_index[order] = split
    return lambda index: str(of_index[index]) if index < len(of_index) else None
