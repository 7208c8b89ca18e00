"""How the records of each set of ``multi_object_datasets`` look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from multiobj_data.loaders import objects_room
from multiobj_data.loaders.example import BYTES, FLOATS, Feature


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
