"""The sets of ``multi_object_datasets``: CLEVR with masks, Objects Room, Multi-dSprites, Tetrominoes.

Each is one TFRecord file, mostly gzip, of ``tf.train.Example``: image and masks as one string of one byte per
element, the factors as floats (CLEVR's codes as one-byte strings). Multi-dSprites stores masks ``[H, W, N, 1]``, the
others ``[N, H, W, 1]``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import nullcontext
from math import prod

import numpy as np

from multiobj_data.errors import DataError, UsageError, did_you_mean
from multiobj_data.loaders import objects_room
from multiobj_data.loaders.alike import Alike, present_from, seen_in
from multiobj_data.loaders.example import (
    BYTES,
    KINDS,
    Feature,
    MalformedError,
    Places,
    one_byte_strings,
)
from multiobj_data.loaders.inflate import ByteStream, open_stream
from multiobj_data.loaders.layouts import NAMES, Layout, detect
from multiobj_data.loaders.masks import WHOLE, Crop, label_map, wire_label_map
from multiobj_data.loaders.raw import Raw
from multiobj_data.loaders.tfrecord import Record, Run, checks_data, runs

Wanted = Callable[[int, "np.ndarray | None"], bool]
_LONGEST = 1 << 26  # bytes; the largest real record, of CLEVR, has 3.2 MB


def read(
    source: str | os.PathLike[str] | ByteStream,
    which: str | None = None,
    *,
    crop: Crop | None = None,
    start: int = 0,
    stop: int | None = None,
    wanted: Wanted | None = None,
    check_data: bool | None = None,
    on_progress: Callable[[int], None] = lambda position: None,
) -> Generator[Raw, None, None]:
    """Read a set's scenes.

    An entity is present where ``visibility`` is positive. Objects Room has none: there it is present if it or a
    later one has a pixel, since masks are filled from the left and an object without a pixel is hidden by others.
    Label maps: see `masks` for pixels of no or several masks, counted in the scene factor ``unclear_pixels``, and
    `objects_room` for the scene factor ``background_repaired``.

    Args:
        source: A file, or a stream at its beginning, which stays open.
        which: One of `NAMES`; by default told from the first record read.
        crop: Rows and columns to keep, e.g. ``(slice(29, 221), slice(64, 256))``. Factors and ``present`` are of the
            whole image.
        start: How many records to skip first.
        stop: Index of the first record not to read; by default all are read.
        wanted: Told a record's index and, where ``visibility`` says it, ``present``; scenes for which it returns
            false are left out, and most of what they would cost with them: their pixels are not looked at.
        check_data: See `tfrecord.runs`.
        on_progress: Called with every record, left out or not: how many of the file's bytes have been used.

    Yields:
        Each scene; every array is its own.

    Raises:
        DataError: If the file cannot be read, is damaged or of another set, or a record misses a feature or has one
            of another shape; names the file and the record. Scenes before it have been handed out.
        UsageError: If ``which`` is not known or the crop is not inside the image.
    """
    if which is not None and which not in NAMES:
        raise UsageError(f"expected the name of a set, got {which!r}.{did_you_mean(which, NAMES)}")
    if start < 0:
        raise UsageError(f"start: expected 0 or more, got {start}.")
    opened = nullcontext(source) if isinstance(source, ByteStream) else open_records(source, check_data)
    with opened as stream:
        decoder = _Decoder(stream, which, crop, wanted)
        for run in runs(stream, start=start, stop=stop, check_data=check_data, limit=_LONGEST):
            for number, scene in enumerate(decoder.scenes(run), 1):
                on_progress(stream.position if stream.compressed else run.offset + number * run.frame)
                if scene is not None:
                    yield scene


def open_records(
    source: str | os.PathLike[str],
    check_data: bool | None = None,
    *,
    inflater: str | None = None,
    ahead: bool = False,
) -> ByteStream:
    """Open a file for `read`, whose own checks, where data are checked, make gzip's needless.

    Args:
        source: The file.
        check_data: As `read` will be told.
        inflater: See `multiobj_data.loaders.inflate.open_stream`.
        ahead: The same.
    """
    checked = checks_data() if check_data is None else check_data
    return open_stream(source, inflater=inflater, checksum=not checked, ahead=ahead)


class _Decoder:
    """Makes scenes of records: together where they are written alike, else one by one."""

    def __init__(
        self, stream: ByteStream, which: str | None, crop: Crop | None, wanted: Wanted | None
    ) -> None:
        self._stream, self._which, self._crop, self._wanted = stream, which, crop, wanted
        self._layout: Layout | None = None
        self._places = Places()
        self._alike: Alike | None = None

    def scenes(self, run: Run) -> Iterator[Raw | None]:
        """Yield a run's scenes, ``None`` for those that are not wanted."""
        done, payloads = 0, run.payloads()
        while done < len(run):
            if self._alike is not None and (n := self._alike.count(payloads[done:])):
                yield from self._together(self._alike, run, done, n)
                done += n
            else:
                yield self._alone(run.record(done))
                done += 1

    def _together(self, alike: Alike, run: Run, first: int, n: int) -> Iterator[Raw | None]:
        wanted = self._wanted_of(alike, run, first, n)
        if not any(wanted):
            yield from [None] * n
            return
        scenes = alike.scenes(run, first, n, self._crop or WHOLE, self._stream.path.name)
        for i, (scene, is_wanted) in enumerate(zip(scenes, wanted, strict=True), first):
            yield None if not is_wanted else self._alone(run.record(i)) if scene is None else scene

    def _wanted_of(self, alike: Alike, run: Run, first: int, n: int) -> list[bool]:
        if self._wanted is None:
            return [True] * n
        visibility = alike.factors(run.payloads()[first : first + n]).get("visibility")
        present = [None] * n if visibility is None else visibility > 0
        return [self._wanted(run.number + i, present[i - first]) for i in range(first, first + n)]

    def _alone(self, record: Record) -> Raw | None:
        try:
            found = self._places.features(record.payload)
            if self._layout is None:
                self._layout = _layout(found, self._which)
                _check_crop(self._crop, self._layout)
            scene = _scene(self._layout, found, self._crop or WHOLE, record, self._stream)
            self._alike = Alike.of(self._layout, record.payload, found)
        except DataError as error:
            raise DataError(f"{self._stream.path}: record {record.number}: {error}") from error
        known = None if self._layout.name == "objects-room" else scene.present
        return scene if self._wanted is None or self._wanted(record.number, known) else None


def _layout(found: Mapping[str, Feature], which: str | None) -> Layout:
    layout = detect(found)
    if layout is None:
        raise DataError(
            f"expected one of the sets {', '.join(NAMES)}, got an Example with {_describe(found)}; "
            "check that this is the right file."
        )
    if which is not None and layout.name != which:
        raise DataError(f"expected {which}, got a file that looks like {layout}; name that set instead.")
    return layout


def _describe(found: Mapping[str, Feature]) -> str:
    if not found:
        return "no features"
    names = sorted(found)
    parts = []
    for name in names[:8]:
        try:
            values = found[name].values()
        except MalformedError:
            parts.append(f"{name[:40]!r} (malformed)")
            continue
        kind = "one-byte strings" if values.dtype == np.uint8 else KINDS[found[name].kind]
        parts.append(f"{name[:40]!r} ({len(values):,} {kind})")
    return ", ".join(parts) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _check_crop(crop: Crop | None, layout: Layout) -> None:
    for part, size in zip(crop or (), layout.image, strict=False):
        if (
            part.step not in (None, 1)
            or not 0 <= (part.start or 0) < (size if part.stop is None else part.stop) <= size
        ):
            raise UsageError(
                f"crop: expected rows and columns inside {layout.image[:2]} of {layout}, got {crop}."
            )


def _scene(
    layout: Layout, found: Mapping[str, Feature], crop: Crop, record: Record, stream: ByteStream
) -> Raw:
    factors = _factors(layout, found)
    image = _image(layout, _feature(found, "image", layout), crop)
    room = layout.name == "objects-room"
    segments, seen, unclear = _segments(layout, _feature(found, "mask", layout), WHOLE if room else crop)
    scene_factors: dict[str, np.generic] = {"unclear_pixels": np.int32(unclear)}
    if room:
        segments, verdict = objects_room.repair_background(segments, layout.entities)
        seen = seen_in(segments, layout.entities)
        scene_factors["background_repaired"] = np.int8(verdict)
        segments = segments[crop]
    return Raw(
        image=image,
        segments=segments,
        entities=layout.entities,
        background=layout.background,
        present=factors["visibility"] > 0
        if "visibility" in factors
        else present_from(seen, layout.background),
        factors=factors,
        scene_factors=scene_factors,
        name=stream.path.name,
        index=record.number,
    )


def _feature(found: Mapping[str, Feature], name: str, layout: Layout) -> Feature:
    feature = found.get(name)
    if feature is None:
        raise DataError(f"expected the feature {name!r} of {layout}, got only {_describe(found)}.")
    kind = layout.sizes[name][0]
    if feature.kind != kind:
        raise DataError(f"{name}: expected {KINDS[kind]} of {layout}, got {KINDS[feature.kind]}.")
    return feature


def _values(layout: Layout, found: Mapping[str, Feature], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return a feature's values, uint8 or float32, in its shape; uint8 may be a view of the payload."""
    feature = _feature(found, name, layout)
    values = one_byte_strings(feature.body.array()) if feature.kind == BYTES else feature.values()
    if values is None:
        raise DataError(f"{name}: expected strings of one byte, got others.")
    if len(values) != prod(shape):
        raise DataError(
            f"{name}: expected {list(shape)} of {layout}, which is {prod(shape):,} values, got {len(values):,}."
        )
    return values.reshape(shape)


def _factors(layout: Layout, found: Mapping[str, Feature]) -> dict[str, np.ndarray]:
    return {
        name: np.ascontiguousarray(
            _values(layout, found, name, (layout.entities, *shape))
        )  # codes: every third byte
        for name, shape in (*layout.codes.items(), *layout.floats.items())
    }


def _image(layout: Layout, image: Feature, crop: Crop) -> np.ndarray:
    return np.ascontiguousarray(_values(layout, {"image": image}, "image", layout.image)[crop])


def _segments(layout: Layout, mask: Feature, crop: Crop) -> tuple[np.ndarray, np.ndarray, int]:
    height, width, _ = layout.image
    n = layout.entities
    if not layout.masks_last and (fast := wire_label_map(mask, n, height, width, crop)):
        return fast
    shape = (height, width, n) if layout.masks_last else (n, height, width)
    values = _values(layout, {"mask": mask}, "mask", shape)
    return label_map(np.moveaxis(values, -1, 0) if layout.masks_last else values, crop)
