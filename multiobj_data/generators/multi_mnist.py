"""Multi-MNIST: handwritten digits on a plain canvas."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from typing import ClassVar, Literal

import numpy as np

from multiobj_data.configuration import UNRECORDED
from multiobj_data.counts import Counts
from multiobj_data.drawing import Layer, draw
from multiobj_data.errors import InfeasibleError, UsageError
from multiobj_data.overlap import Overlap, Placed, Rule
from multiobj_data.placement import MIN_ACCEPTANCE, Layouts, estimate_acceptance, lay_out
from multiobj_data.randomness import BLOCK
from multiobj_data.resize import Filter
from multiobj_data.scale import Scale
from multiobj_data.scenes import Scenes
from multiobj_data.sprites.digits import DigitSource, load_digits
from multiobj_data.sprites.scaled import ScaledSprites

FRAME = 28  # side of an MNIST image
SMALLEST = 4  # pixels a digit must have at least to be one


@dataclass(frozen=True)
class MultiMNIST:
    """Scenes of digits, as in AIR (Eslami et al. 2016), SuPAIR and AIR-ASR; every convention is a setting.

    Args:
        counts: Digits a scene: ``"2,4"`` (equal shares, exact), ``"0-2"``, weights ``"1:3,2:1"``.
        canvas: Side of the scene in pixels.
        scale: ``"0.75"``, ``"0.6..0.9"`` or ``"divisor:1.3,0.1"``; see `Scale`.
        overlap: Whether digits may overlap freely.
        overlap_rule: The contract where they may not: pixels, boxes, rows-and-columns or legacy; see
            `multiobj_data.overlap`.
        max_iou: For boxes: largest intersection over union of two tight boxes.
        margin: For boxes: least distance in pixels.
        resize_filter: bilinear or bicubic (Pillow's, antialiased), or nearest.
        polarity: white-on-black or black-on-white.
        value_range: Grey levels of empty and of full ink (before polarity).
        digits: mnist, bundled, or auto (MNIST where it can be had).
        amodal: Whether to keep each digit's own pixels beside the label map; none: where digits may overlap.
        digits_root: Folder with MNIST's files on this machine; not part of the data set.
    """

    id: ClassVar[str] = "multi-mnist-v1"

    counts: str = "0-2"  # AIR: 0, 1 or 2 digits
    canvas: int = 50  # AIR, SuPAIR, ASR: 50x50
    scale: str = "divisor:1.3,0.1"  # AIR report, data
    overlap: bool = True
    overlap_rule: Rule = "pixels"
    max_iou: float = 0.0
    margin: int = 0
    resize_filter: Filter = "bilinear"  # as `observations`' imresize; Pyro's depends on the Pillow version
    polarity: Literal["white-on-black", "black-on-white"] = "white-on-black"
    value_range: tuple[int, int] = (0, 255)
    digits: DigitSource = "auto"
    amodal: bool | None = None
    digits_root: str | None = field(default=None, metadata=UNRECORDED)

    def __post_init__(self) -> None:
        largest = Scale(self.scale).sides(FRAME)[-1]
        if Counts(self.counts).largest and largest > self.canvas:
            raise UsageError(
                f"canvas {self.canvas} is too small: digits are up to {largest} pixels wide at scale "
                f"{self.scale!r}. Use --canvas {largest} or more, or a smaller --scale."
            )
        if Scale(self.scale).sides(FRAME)[0] < SMALLEST:
            raise UsageError(
                f"scale {self.scale!r} makes digits as small as {Scale(self.scale).sides(FRAME)[0]} pixel(s); "
                f"use one that leaves at least {SMALLEST}."
            )
        self._refuse_beyond_memory()
        low, high = self.value_range
        if not 0 <= low < high <= 255:
            raise UsageError(
                f"value_range: expected two grey levels 0 <= low < high <= 255, got {low},{high}."
            )
        if not self.overlap:
            self._contract  # noqa: B018  # validate now

    def _refuse_beyond_memory(self) -> None:
        """Scenes are drawn 256 at a time: refuse what would take many gigabytes."""
        if self.canvas > 1024:
            raise UsageError(f"canvas: expected at most 1024 pixels, got {self.canvas}.")
        size = BLOCK * Counts(self.counts).largest * self.canvas**2
        if self._keeps_amodal and size > 4 << 30:
            raise UsageError(
                f"a mask for each of {Counts(self.counts).largest} objects would take {size / 1e9:.0f} GB for {BLOCK} "
                "scenes; use fewer objects, a smaller --canvas, or --set amodal=false."
            )

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
        if self.digits == "bundled":
            return [
                "digits are the 1,797 bundled with scikit-learn, not MNIST: figures are not comparable with papers"
            ]
        return []

    def acceptance(self, rng: np.random.Generator) -> dict[int, float]:
        """Estimate per count which share of candidate scenes the overlap contract accepts.

        Raises:
            InfeasibleError: If one is below `MIN_ACCEPTANCE`; the message says what would do.
        """
        shares = {}
        for count in Counts(self.counts).weights:
            shares[count] = self._estimate(rng, count)
            if shares[count] < MIN_ACCEPTANCE:
                raise InfeasibleError(self._infeasible(rng, count, shares[count]))
        return shares

    # -- the scenes

    def scenes(self, rng: np.random.Generator, n: int, *, split: str = "train", first: int = 0) -> Scenes:
        """Draw ``n`` scenes; test digits for the test split, train digits for every other."""
        part: Literal["train", "test"] = "test" if split == "test" else "train"
        digits = self._sprites(part)
        counts = Counts(self.counts)
        count = counts.draw(rng, n, first)  # [n]
        attempts = np.zeros(n, np.int64)
        groups: list[tuple[np.ndarray, Layouts]] = []
        for number in np.unique(count):
            scene = np.flatnonzero(count == number)
            layouts = lay_out(rng, digits.draw, int(number), self.canvas, self._contract, len(scene))
            attempts[scene] = layouts.attempts
            groups.append((scene, layouts))
        layers = [_layer(groups, number, Placed.nowhere(digits.sprites)) for number in range(counts.largest)]
        return self._draw(layers, count, attempts, part)

    def _draw(
        self, layers: list[Layer], count: np.ndarray, attempts: np.ndarray, part: Literal["train", "test"]
    ) -> Scenes:
        n, k = len(count), len(layers)
        factors: dict[str, np.ndarray] = {
            "class": np.full((n, k), -1, np.int16),
            "source_index": np.full((n, k), -1, np.int32),
            "x": np.full((n, k), np.nan, np.float32),
            "y": np.full((n, k), np.nan, np.float32),
            "side": np.full((n, k), -1, np.int16),
            "scale": np.full((n, k), np.nan, np.float32),
            "depth_order": np.full((n, k), -1, np.int16),
        }
        labels = load_digits(part, self.digits, self.digits_root).labels
        for number, layer in enumerate(layers):
            at = layer.scene, number
            placed = layer.placed
            source, side = placed.sprites.source[placed.index], placed.sprites.side[placed.index]
            corner = placed.box[:, :2] - placed.sprites.ink_box[placed.index, :2]  # of the patch, [M, 2]
            factors["class"][at] = labels[source]
            factors["source_index"][at] = source
            factors["x"][at], factors["y"][at] = (corner + side[:, None] / 2).T
            factors["side"][at] = side
            factors["scale"][at] = side / FRAME
            factors["depth_order"][at] = count[layer.scene] - 1 - number  # 0 is in front
        background = np.zeros((n, self.canvas, self.canvas, 1), np.uint8)
        drawing = draw(layers, background, blend="add", amodal=self._keeps_amodal)
        return Scenes(
            image=self._grey_levels(drawing.image),
            count=count,
            segments=drawing.segments,
            boxes=drawing.boxes,
            factors=factors | {"visible_fraction": drawing.visible},
            scene_factors={"attempts": attempts},
            amodal=drawing.amodal,
        )

    def _grey_levels(self, image: np.ndarray) -> np.ndarray:
        low, high = self.value_range
        if (low, high) != (0, 255):
            table = low + -(
                -np.arange(256) * (high - low) // 255
            )  # rounded up: ink never looks like the canvas
            image = table.astype(np.uint8)[image]
        return 255 - image if self.polarity == "black-on-white" else image

    @property
    def _contract(self) -> Overlap | None:
        return None if self.overlap else Overlap(self.overlap_rule, self.max_iou, self.margin)

    @property
    def _keeps_amodal(self) -> bool:
        if self.amodal is not None:
            return self.amodal
        return Counts(self.counts).largest > 1 and (self.overlap or self.overlap_rule in ("legacy", "boxes"))

    def _sprites(self, part: Literal["train", "test"]) -> ScaledSprites:
        return _sprites(part, self.digits, self.digits_root, self.scale, self.resize_filter)

    def _estimate(self, rng: np.random.Generator, count: int) -> float:
        return estimate_acceptance(rng, self._sprites("train").draw, count, self.canvas, self._contract)

    def _infeasible(self, rng: np.random.Generator, count: int, share: float) -> str:
        rate = f"about {share:.0e} of random scenes" if share else "none of the random scenes tried"
        larger = self.canvas
        enough = 0.0
        while enough < 1e-3 and larger < 4 * self.canvas:
            larger = int(larger * 1.15) + 1
            enough = replace(self, canvas=larger)._estimate(rng, count)
        fewer = next((c for c in range(count - 1, 0, -1) if self._estimate(rng, c) >= 1e-3), 1)
        return (
            f"{count} digits without overlap (rule {self.overlap_rule!r}) in {self.canvas}x{self.canvas}: {rate} "
            f"would be accepted, fewer than 1 in {1 / MIN_ACCEPTANCE:,.0f}. Use at most {fewer} digits, "
            f"--canvas {larger} or more, a smaller --scale than {self.scale!r}, or --overlap."
        )


def _layer(groups: list[tuple[np.ndarray, Layouts]], number: int, nothing: Placed) -> Layer:
    """Gather object ``number`` of all scenes that have one; often none has, if large counts are rare."""
    having = [(scene, layouts.objects[number]) for scene, layouts in groups if len(layouts.objects) > number]
    scenes, placed = zip(*having, strict=True) if having else ([np.zeros(0, np.int64)], [nothing])
    return Layer(np.concatenate(scenes), Placed.concatenate(placed))


@cache
def _sprites(
    part: Literal["train", "test"], source: DigitSource, root: str | None, scale: str, kind: Filter
) -> ScaledSprites:
    return ScaledSprites(load_digits(part, source, root).images, Scale(scale), kind)
