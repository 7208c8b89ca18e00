"""The sets of ``multi_object_datasets``: CLEVR with masks, Objects Room, Multi-dSprites, Tetrominoes.

Each is one TFRecord file, mostly gzip, of ``tf.train.Example``: image and masks as one string of one byte per
element, the factors as floats (CLEVR's codes as one-byte strings). Multi-dSprites stores masks ``[H, W, N, 1]``, the
others ``[N, H, W, 1]``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from math import prod

import numpy as np

from multiobj_data.errors import DataError, UsageError, did_you_mean
from multiobj_data.loaders import objects_room
from multiobj_data.loaders.example import (
    BYTES,
    FLOATS,
    KINDS,
    Feature,
    MalformedError,
    Places,
    one_byte_strings,
)
from multiobj_data.loaders.inflate import ByteStream, open_stream
from multiobj_data.loaders.masks import WHOLE, Crop, label_map, wire_label_map
from multiobj_data.loaders.raw import Raw
from multiobj_data.loaders.tfrecord import Record, records

_LONGEST = 1 << 26  # bytes; the largest real record, of CLEVR, has 3.2 MB


@dataclass(frozen=True)
class Layout:
    """How a set's records look.

    Attributes:
        name: The set's id.
        variant: Which of its files, where they differ.
        image: ``(H, W, C)``.
        entities: How many masks.
        background: How many leading entities are background.
        masks_last: Whether the mask is ``[H, W, N, 1]`` rather than ``[N, H, W, 1]``.
        codes: Factors that are one-byte strings: name -> shape of an entity's value.
        floats: Factors that are floats.
    """

    name: str
    variant: str
    image: tuple[int, int, int]
    entities: int
    background: int = 1
    masks_last: bool = False
    codes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    floats: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Every feature's kind and number of values."""
        h, w, c = self.image
        n = self.entities
        return {
            "image": (BYTES, h * w * c),
            "mask": (BYTES, n * h * w),
            **{name: (BYTES, n * prod(shape)) for name, shape in self.codes.items()},
            **{name: (FLOATS, n * prod(shape)) for name, shape in self.floats.items()},
        }

    def __str__(self) -> str:
        return f"{self.name} ({self.variant})" if self.variant else self.name


def _sprites(variant: str, entities: int, channels: int) -> Layout:
    scalars = ("x", "y", "shape", "orientation", "scale", "visibility")
    floats = {**dict.fromkeys(scalars, ()), "color": (channels,)}
    return Layout("multi-dsprites-mod", variant, (64, 64, channels), entities, masks_last=True, floats=floats)


def _room(variant: str, entities: int) -> Layout:
    return Layout("objects-room", variant, (64, 64, 3), entities, background=objects_room.BACKGROUND)


LAYOUTS = (
    Layout(
        "clevr",
        "",
        (240, 320, 3),
        11,
        codes=dict.fromkeys(("size", "material", "shape", "color"), ()),
        floats={**dict.fromkeys(("x", "y", "z", "rotation", "visibility"), ()), "pixel_coords": (3,)},
    ),
    _room("train", 7),
    _room("empty_room", 4),
    _room("six_objects or identical_color", 10),  # these two differ in nothing but their content
    _sprites("binarized", 4, 1),
    _sprites("colored_on_grayscale", 6, 3),
    _sprites("colored_on_colored", 5, 3),
    Layout(
        "tetrominoes",
        "",
        (35, 35, 3),
        4,
        floats={**dict.fromkeys(("x", "y", "shape", "visibility"), ()), "color": (3,)},
    ),
)
NAMES = tuple(dict.fromkeys(layout.name for layout in LAYOUTS))


def read(
    source: str | os.PathLike[str] | ByteStream,
    which: str | None = None,
    *,
    crop: Crop | None = None,
    start: int = 0,
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
        check_data: See `tfrecord.records`.
        on_progress: Called with every record: how many of the file's bytes have been used.

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
    with nullcontext(source) if isinstance(source, ByteStream) else open_stream(source) as stream:
        layout, places = None, Places()
        for record in records(stream, start=start, check_data=check_data, limit=_LONGEST):
            try:
                found = places.features(record.payload)
                if layout is None:
                    layout = _layout(found, which)
                    _check_crop(crop, layout)
                scene = _scene(layout, found, crop or WHOLE, record, stream)
            except DataError as error:
                raise DataError(f"{stream.path}: record {record.number}: {error}") from error
            on_progress(stream.position)
            yield scene


def detect(found: Mapping[str, Feature]) -> Layout | None:
    """Return the layout that a record has, or ``None``."""
    return next(
        (layout for layout in LAYOUTS if all(_fits(found, n, *s) for n, s in layout.sizes.items())), None
    )


def _fits(found: Mapping[str, Feature], name: str, kind: int, n: int) -> bool:
    feature = found.get(name)
    if feature is None or feature.kind != kind:
        return False
    return feature.body.size == 3 * n if kind == BYTES else len(feature.values()) == n


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
        seen = np.bincount(segments.reshape(-1), minlength=layout.entities) > 0
        scene_factors["background_repaired"] = np.int8(verdict)
        segments = segments[crop]
    return Raw(
        image=image,
        segments=segments,
        entities=layout.entities,
        background=layout.background,
        present=_present(layout, factors, seen),
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


def _present(layout: Layout, factors: Mapping[str, np.ndarray], seen: np.ndarray) -> np.ndarray:
    if "visibility" in factors:
        return factors["visibility"] > 0
    later = np.logical_or.accumulate(seen[::-1])[::-1]
    return np.where(np.arange(len(seen)) < layout.background, seen, later)
