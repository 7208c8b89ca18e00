"""Records of one set that are written alike, decoded together: no walk over each one's bytes, no call a feature.

A record is written like another if it is as long and no byte differs but pixels, masks and numbers: then every tag
and length on the way to them is the same, so that they lie where they do in the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import NamedTuple

import numpy as np

from multiobj_data.loaders import objects_room
from multiobj_data.loaders.example import BYTES, Feature, have_one_byte, one_byte_strings, packed_floats
from multiobj_data.loaders.layouts import Layout
from multiobj_data.loaders.masks import MOST, WHOLE, Crop, wire_label_map, wire_label_maps
from multiobj_data.loaders.raw import Raw
from multiobj_data.loaders.spans import Span
from multiobj_data.loaders.tfrecord import Run

_BETWEEN = 1 << 16  # most bytes outside values that are compared
_LARGE = 1 << 15  # pixels from which one picture is work enough for a call


class _Place(NamedTuple):
    """Where a factor's values are among all that are gathered."""

    start: int
    stop: int
    dtype: str
    shape: tuple[int, ...]


class Alike:
    """The way to decode records that are written like one of them.

    Args:
        layout: Of which set.
        payload: The record.
        found: Its features.
    """

    def __init__(self, layout: Layout, payload: Span, found: Mapping[str, Feature]) -> None:
        self.layout, self.size = layout, payload.size
        height, width, channels = layout.image
        is_value = np.zeros(payload.size, bool)
        for name, n in (("image", height * width * channels), ("mask", layout.entities * height * width)):
            start = found[name].body.start - payload.start
            is_value[start : start + 3 * n] = True
        self._places: dict[str, _Place] = {}
        gathered: list[np.ndarray] = []
        for name, shape in (*layout.codes.items(), *layout.floats.items()):
            at = _values_at(found[name], layout.entities * prod(shape)) - payload.start
            start = sum(map(len, gathered))
            dtype = "u1" if found[name].kind == BYTES else "<f4"
            self._places[name] = _Place(start, start + len(at), dtype, (layout.entities, *shape))
            gathered.append(at)
            is_value[at] = True
        self._gathered = np.concatenate(gathered) if gathered else np.zeros(0, np.int64)
        self._between = np.flatnonzero(~is_value)
        self._expected = payload.array()[self._between]
        self._image, self._mask = (found[name].body.start - payload.start for name in ("image", "mask"))

    @classmethod
    def of(cls, layout: Layout, payload: Span, found: Mapping[str, Feature]) -> Alike | None:
        """Return it, or ``None`` for a record that has to be read in some other way."""
        if layout.entities > MOST:
            return None
        for name, (kind, n) in layout.sizes.items():
            if name not in found or found[name].kind != kind or found[name].body.buffer is not payload.buffer:
                return None  # missing, or joined from several parts
            if name in ("image", "mask"):
                if found[name].body.size != 3 * n:
                    return None
            elif len(_values_at(found[name], n)) != (n if kind == BYTES else 4 * n):
                return None
        plan = cls(layout, payload, found)
        return plan if len(plan._between) <= _BETWEEN else None

    def count(self, payloads: np.ndarray) -> int:
        """Return how many of these, uint8 ``[n, size]``, are written like it before one that is not."""
        if payloads.shape[1] != self.size:
            return 0
        same = (payloads.take(self._between, 1) == self._expected).all(1)
        return len(same) if same.all() else int(same.argmin())

    def factors(self, payloads: np.ndarray) -> dict[str, np.ndarray]:
        """Return the factors of records that are written like it: name -> ``[n, N, ...]``."""
        values = payloads.take(self._gathered, 1)
        return {
            name: values[:, place.start : place.stop].view(place.dtype).reshape(len(values), *place.shape)
            for name, place in self._places.items()
        }

    def images(self, payloads: np.ndarray, crop: Crop) -> np.ndarray | None:
        """Return their pictures, uint8 ``[n, h, w, C]``; ``None`` if any string has not one byte."""
        height, width, channels = self.layout.image
        wire = payloads[:, self._image : self._image + 3 * height * width * channels]
        if not have_one_byte(wire):
            return None
        values = wire.reshape(len(wire), height, width, channels, 3)[..., 2]
        return np.ascontiguousarray(values[(slice(None), *crop)])

    def label_maps(self, run: Run, first: int, n: int, crop: Crop) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the label maps of n records, uint8 ``[n, h, w]``, and which of them are right: bool ``[n]``.

        ``None`` if it takes a closer look to tell.
        """
        layout = self.layout
        height, width, _ = layout.image
        size = 3 * layout.entities * height * width
        if height * width < _LARGE or layout.masks_last:
            wire = run.payloads()[first : first + n, self._mask : self._mask + size]
            maps = wire_label_maps(wire, layout.entities, height, width, layout.masks_last)
            return None if maps is None else (maps[0][(slice(None), *crop)], maps[1])
        segments, right = [], np.ones(n, bool)
        for i in range(n):
            mask = Feature(BYTES, run.record(first + i).payload.cut(self._mask, self._mask + size))
            found = wire_label_map(mask, layout.entities, height, width, crop)
            if found is None:
                return None
            segments.append(found[0])
        return np.stack(segments) if n > 1 else segments[0][None], right

    def scenes(self, run: Run, first: int, n: int, crop: Crop, name: str) -> list[Raw | None]:
        """Return n scenes of file ``name``; ``None`` for one that has to be read in some other way."""
        layout, payloads = self.layout, run.payloads()[first : first + n]
        room = layout.name == "objects-room"
        images = self.images(payloads, crop)
        maps = None if images is None else self.label_maps(run, first, n, WHOLE if room else crop)
        if images is None or maps is None:
            return [None] * n
        segments, right = maps
        factors = self.factors(payloads)
        scene_factors: dict[str, np.ndarray] = {"unclear_pixels": np.zeros(n, np.int32)}
        if room:
            segments, scene_factors["background_repaired"] = objects_room.repair_backgrounds(
                segments, layout.entities
            )
            present = present_from(seen_in(segments, layout.entities), layout.background)
            segments = np.ascontiguousarray(segments[(slice(None), *crop)])
        else:
            present = factors["visibility"] > 0
        return [
            Raw(
                image=images[i],
                segments=segments[i],
                entities=layout.entities,
                background=layout.background,
                present=present[i],
                factors={factor: values[i] for factor, values in factors.items()},
                scene_factors={factor: values[i] for factor, values in scene_factors.items()},
                name=name,
                index=run.number + first + i,
            )
            if right[i]
            else None
            for i in range(n)
        ]


def seen_in(segments: np.ndarray, n: int) -> np.ndarray:
    """Return which of n labels label maps have, uint8 ``[..., H, W]``: bool ``[..., n]``."""
    return np.stack([(segments == label).any((-2, -1)) for label in range(n)], -1)


def present_from(seen: np.ndarray, background: int) -> np.ndarray:
    """Return which entities are there, bool ``[..., N]``, where only pixels tell.

    An object is if it or a later one has a pixel, since masks are filled from the left.
    """
    later = np.logical_or.accumulate(seen[..., ::-1], -1)[..., ::-1]
    return np.where(np.arange(seen.shape[-1]) < background, seen, later)


def _values_at(feature: Feature, n: int) -> np.ndarray:
    """Return where in its buffer the bytes of a feature's n values are; none if they are not written as usual."""
    body = feature.body
    if feature.kind == BYTES:
        usual = body.size == 3 * n and one_byte_strings(body.array()) is not None
        return body.start + np.arange(2, 3 * n if usual else 2, 3)
    start = packed_floats(body)
    usual = start is not None and body.stop - start == 4 * n
    return np.arange(start or 0, body.stop) if usual else np.zeros(0, np.int64)
