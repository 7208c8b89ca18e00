"""Multi-MNIST: handwritten digits on a plain canvas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import ClassVar, Literal

import numpy as np

from multiobj_data.composition.drawing import Blend
from multiobj_data.composition.overlap import Placed
from multiobj_data.composition.placement import place
from multiobj_data.composition.resize import Filter
from multiobj_data.composition.scale import Scale
from multiobj_data.configuration import UNRECORDED
from multiobj_data.errors import UsageError
from multiobj_data.factors import Law, Minus
from multiobj_data.factors.laws import Condition
from multiobj_data.generators.flat import FlatGenerator
from multiobj_data.sprites.bank import tight_boxes
from multiobj_data.sprites.digits import DigitSource, load_digits
from multiobj_data.sprites.scaled import ScaledSprites

FRAME = 28  # side of an MNIST image
INK = 20  # side of the box in which MNIST's digits lie
SMALLEST = 4  # pixels a digit must have at least to be one

Part = Literal["train", "test"]


@dataclass(frozen=True)
class MultiMNIST(FlatGenerator):
    """Scenes of digits, as in AIR (Eslami et al. 2016), SuPAIR and AIR-ASR; every convention is a setting.

    `FlatGenerator` has the settings that all flat generators share.

    Args:
        scale: ``"0.75"``, ``"0.6..0.9"`` or ``"divisor:1.3,0.1"``; see `Scale`.
        crop: What the scale refers to, and what must lie inside the canvas: MNIST's whole ``frame`` of 28 pixels
            with its empty margin, or the digit's ``square``, the smallest square of pixels (20) that holds its
            ink (as AIR-ASR).
        resize_filter: bilinear or bicubic (Pillow's, antialiased), or nearest.
        polarity: white-on-black or black-on-white.
        value_range: Grey levels of empty and of full ink (before polarity).
        digits: mnist, bundled, or auto (MNIST where it can be had).
        digits_root: Folder with MNIST's files on this machine; not part of the data set.
    """

    id: ClassVar[str] = "multi-mnist-v1"
    noun: ClassVar[str] = "digits"
    per_machine: ClassVar[tuple[str, ...]] = ("digits", "digits_root")
    blend: ClassVar[Blend] = "add"

    counts: str = "0-2"  # AIR: 0, 1 or 2 digits
    canvas: int = 50  # AIR, SuPAIR, ASR: 50x50
    scale: str = "divisor:1.3,0.1"  # AIR report, data
    crop: Literal["frame", "square"] = "frame"
    resize_filter: Filter = "bilinear"  # as `observations`' imresize; Pyro's depends on the Pillow version
    polarity: Literal["white-on-black", "black-on-white"] = "white-on-black"
    value_range: tuple[int, int] = (0, 255)
    digits: DigitSource = "auto"
    digits_root: str | None = field(default=None, metadata=UNRECORDED)

    def __post_init__(self) -> None:
        smallest = Scale(self.scale).sides(self._frame)[0]
        if smallest < SMALLEST:
            raise UsageError(
                f"scale {self.scale!r} makes digits as small as {smallest} pixel(s); use one that leaves at least "
                f"{SMALLEST}."
            )
        low, high = self.value_range
        if not 0 <= low < high <= 255:
            raise UsageError(
                f"value_range: expected two grey levels 0 <= low < high <= 255, got {low},{high}."
            )
        super().__post_init__()

    # -- optional parts of the generator protocol

    def resolved(self) -> MultiMNIST:
        """Return the same data set with ``digits`` named: what ``auto`` stands for here and now."""
        return replace(self, digits=load_digits("train", self.digits, self.digits_root).source)

    def sources(self) -> dict[str, str]:
        """Return the SHA-256 of each file of digits."""
        parts = (load_digits(part, self.digits, self.digits_root) for part in ("train", "test"))
        return {name: sha for part in parts for name, sha in part.sha256.items()}

    def notes(self) -> list[str]:
        """Return what whoever uses the data must know."""
        bundled = "digits are the 1,797 bundled with scikit-learn, not MNIST: figures are not comparable with papers"
        return [*([bundled] if self.digits == "bundled" else []), *super().notes()]

    # -- what a flat generator says of its own

    @property
    def channels(self) -> int:
        """1: digits are grey."""
        return 1

    @property
    def vocabulary(self) -> Mapping[str, Mapping[str, int] | None]:
        """The class, and the side of the patch in pixels or as a factor."""
        return {"class": None, "side": None, "scale": None}

    @property
    def distinguishable(self) -> tuple[str, ...]:
        """The factors in which digits can be asked to differ."""
        return ("class", "source_index", "side")

    @property
    def largest_side(self) -> int:
        """Upper bound on the side of a digit's patch."""
        return Scale(self.scale).sides(self._frame)[-1]

    @property
    def tone(self) -> np.ndarray | None:
        """Ink -> grey level."""
        low, high = self.value_range
        ink = np.arange(256)
        grey = low + -(-ink * (high - low) // 255)  # rounded up: ink never looks like the canvas
        table = (grey if self.polarity == "white-on-black" else 255 - grey).astype(np.uint8)
        return None if np.array_equal(table, ink) else table

    def _ground(
        self, rng: np.random.Generator, factors: Mapping[str, np.ndarray], n: int
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        return np.zeros((n, 1), np.uint8), {}

    @property
    def _frame(self) -> int:
        return FRAME if self.crop == "frame" else INK

    def _source(self, part: str, without: Condition | None) -> PlacedDigits:
        """Return test digits for the test split (and ood), train digits for every other."""
        half: Part = "test" if part in ("test", "ood") else "train"
        sprites = _sprites(half, self.digits, self.digits_root, self.crop, self.scale, self.resize_filter)
        labels = load_digits(half, self.digits, self.digits_root).labels.astype(np.int16)
        law: Law = DigitLaw(labels, Scale(self.scale), self._frame)
        if without is not None:
            law = Minus(law, without)
        return PlacedDigits(law, sprites, self.canvas)


@dataclass(frozen=True, eq=False)
class DigitLaw:
    """A law over ``class``, ``source_index``, ``side`` and ``scale`` of digits: each image is as likely.

    Args:
        labels: int16 ``[N]``, the class of each image.
        size: Distribution of the side.
        frame: Side of the images before scaling, in pixels.
    """

    labels: np.ndarray
    size: Scale
    frame: int

    @property
    def names(self) -> tuple[str, ...]:
        """Return the factors."""
        return ("class", "source_index", "side", "scale")

    def sample(self, rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
        """Draw n digits: name -> ``[n]``."""
        picture = rng.integers(len(self.labels), size=n)
        side = self.size.draw(rng, n, self.frame)
        return {
            "class": self.labels[picture],
            "source_index": picture,
            "side": side,
            "scale": (side / self.frame).astype(np.float32),
        }

    def contains(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return which digits can be drawn, bool ``[n]``."""
        picture, side, sides = values["source_index"], values["side"], self.size.sides(self.frame)
        known = (picture >= 0) & (picture < len(self.labels))
        of_class = self.labels[np.where(known, picture, 0)] == values["class"]
        scaled = np.isclose(values["scale"], side / self.frame)
        return known & of_class & scaled & (side >= sides[0]) & (side <= sides[-1])


@dataclass(frozen=True, eq=False)
class PlacedDigits:
    """Proposes digits, each anywhere inside the frame.

    Args:
        law: What is drawn.
        sprites: The digits at every size.
        canvas: Side of the frame in pixels.
    """

    law: Law
    sprites: ScaledSprites
    canvas: int

    def propose(self, rng: np.random.Generator, n: int) -> Placed:
        """Propose a digit and its place in each of ``n`` scenes."""
        values = self.law.sample(rng, n)
        sprites, index = self.sprites.find(values["source_index"], values["side"])
        return place(rng, sprites, index, self.canvas, values)

    def nothing(self) -> Placed:
        """Return the digits of no scene."""
        return Placed.nowhere(self.sprites.sprites)

    def factors(self, placed: Placed) -> dict[str, np.ndarray]:
        """Return class, image, size and the centre of each patch."""
        side = placed.sprites.side[placed.index]
        corner = placed.box[:, :2] - placed.sprites.ink_box[placed.index, :2]  # of the patch, [M, 2]
        x, y = (corner + side[:, None] / 2).astype(np.float32).T
        kinds = {"class": np.int16, "source_index": np.int32, "side": np.int16, "scale": np.float32}
        drawn = {name: _column(placed, name).astype(kind) for name, kind in kinds.items()}
        return {**drawn, "x": x, "y": y}

    def colour(self, placed: Placed) -> None:
        """Digits are painted as they are."""
        return


def _column(placed: Placed, name: str) -> np.ndarray:
    return placed.values(name) if name in placed.table else np.zeros(0)


@cache
def _sprites(
    part: Part, source: DigitSource, root: str | None, crop: str, scale: str, kind: Filter
) -> ScaledSprites:
    images = load_digits(part, source, root).images
    return ScaledSprites(squares(images) if crop == "square" else images, Scale(scale), kind)


def squares(images: np.ndarray) -> np.ndarray:
    """Cut the square of `INK` pixels around each digit's ink: uint8 ``[N, 20, 20]`` from ``[N, 28, 28]``."""
    box = tight_boxes(images != 0)
    corner = np.clip((box[:, :2] + box[:, 2:] - INK) // 2, 0, images.shape[1] - INK)
    windows = np.lib.stride_tricks.sliding_window_view(images, (INK, INK), axis=(1, 2))
    return windows[np.arange(len(images)), corner[:, 1], corner[:, 0]]
