"""From counts and objects to scenes: the one way that all flat (2-D) generators go.

`arrange` decides what is in each scene and where; `Arrangement.paint` turns that into pictures and truth.
Between the two nothing is random, so that painting may as well be done on a GPU
(`multiobj_data.tensors.drawing`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from multiobj_data.composition.backgrounds import Backdrop
from multiobj_data.composition.counts import Counts
from multiobj_data.composition.drawing import Blend, Drawing, Layer, draw, plain_canvas
from multiobj_data.composition.overlap import Placed
from multiobj_data.composition.placement import Layouts, Rules, Source, lay_out
from multiobj_data.scenes import Scenes


@dataclass(frozen=True)
class Arrangement:
    """N scenes, decided but not painted.

    Attributes:
        count: int64 ``[N]``.
        layers: Object k of those scenes that have one, K of them, back to front.
        factors: What is stored of the objects: name -> ``[N, K, ...]``, NaN or -1 where absent.
        scene_factors: What is stored of the scenes: name -> ``[N, ...]``.
        ground: uint8 ``[N, C]``, the colour behind the objects.
        canvas: Side in pixels.
        blend: How objects are put on the canvas; see `multiobj_data.composition.drawing.draw`.
        amodal: Whether to keep each object's own pixels.
        tone: uint8 ``[256]``, applied to the painted objects; ``None`` leaves them as they are.
        backdrop: What the background does to the painted scene.
    """

    count: np.ndarray
    layers: list[Layer]
    factors: Mapping[str, np.ndarray]
    scene_factors: Mapping[str, np.ndarray]
    ground: np.ndarray
    canvas: int
    blend: Blend
    amodal: bool
    tone: np.ndarray | None = None
    backdrop: Backdrop | None = None

    def paint(self) -> Scenes:
        """Paint the scenes."""
        canvas = plain_canvas(self.ground, self.canvas)
        drawing = draw(self.layers, canvas, blend=self.blend, amodal=self.amodal)
        return self.with_pictures(drawing, self._finish(drawing.image))

    def _finish(self, image: np.ndarray) -> np.ndarray:
        if self.tone is not None:
            image = self.tone[image]
        return image if self.backdrop is None else self.backdrop.apply(image)

    def with_pictures(self, drawing: Drawing, image: np.ndarray) -> Scenes:
        """Return the scenes, given what was painted."""
        return Scenes(
            image=image,
            count=self.count,
            segments=drawing.segments,
            boxes=drawing.boxes,
            factors={**self.factors, "visible_fraction": drawing.visible},
            scene_factors=self.scene_factors,
            amodal=drawing.amodal,
        )


@dataclass(frozen=True)
class Stage:
    """What every flat scene has, whatever its objects.

    Attributes:
        counts: Objects a scene.
        slots: K; at least the largest count.
        source: Proposes objects.
        rules: What is rejected.
    """

    counts: Counts
    slots: int
    source: Source
    rules: Rules = field(default_factory=Rules)

    def set(
        self, rng: np.random.Generator, n: int, first: int
    ) -> tuple[np.ndarray, list[Layer], dict[str, np.ndarray], np.ndarray]:
        """Decide what is in scenes ``first .. first + n - 1``: count, layers, factors, attempts."""
        count = self.counts.draw(rng, n, first)  # [n]
        if self.rules.never_reject(self.counts.largest):
            attempts, layers = np.ones(n, np.int64), self._place_freely(rng, count)
        else:
            attempts, layers = self._place_by_rules(rng, count)
        return count, layers, self._factors(layers, count), attempts

    def _place_freely(self, rng: np.random.Generator, count: np.ndarray) -> list[Layer]:
        """Draw all objects of all scenes at once, scene by scene."""
        everything = self.source.propose(rng, int(count.sum())).settle(rng)
        first = np.cumsum(count) - count
        layers = []
        for number in range(self.slots):
            scene = np.flatnonzero(count > number)
            layers.append(self._layer(scene, everything[first[scene] + number]))
        return layers

    def _place_by_rules(self, rng: np.random.Generator, count: np.ndarray) -> tuple[np.ndarray, list[Layer]]:
        """Lay the scenes of each count out together."""
        attempts = np.zeros(len(count), np.int64)
        groups: list[tuple[np.ndarray, Layouts]] = []
        for number in np.unique(count):
            scene = np.flatnonzero(count == number)
            layouts = lay_out(rng, self.source, int(number), self.rules, len(scene))
            attempts[scene] = layouts.attempts
            groups.append((scene, layouts))
        return attempts, [self._gather(groups, number) for number in range(self.slots)]

    def _gather(self, groups: list[tuple[np.ndarray, Layouts]], number: int) -> Layer:
        """Gather object ``number`` of all scenes that have one; often none has, if large counts are rare."""
        having = [
            (scene, layouts.objects[number]) for scene, layouts in groups if len(layouts.objects) > number
        ]
        scenes, placed = zip(*having, strict=True) if having else ([_NO_SCENE], [self.source.nothing()])
        return self._layer(np.concatenate(scenes), Placed.concatenate(placed))

    def _layer(self, scene: np.ndarray, placed: Placed) -> Layer:
        return Layer(scene, placed, self.source.colour(placed) if len(scene) else None)

    def _factors(self, layers: list[Layer], count: np.ndarray) -> dict[str, np.ndarray]:
        n = len(count)
        factors: dict[str, np.ndarray] = {"depth_order": np.full((n, self.slots), -1, np.int16)}
        template = self.source.factors(self.source.nothing())
        for name, values in template.items():
            missing = np.nan if values.dtype.kind == "f" else -1
            factors[name] = np.full((n, self.slots, *values.shape[1:]), missing, values.dtype)
        for number, layer in enumerate(layers):
            factors["depth_order"][layer.scene, number] = count[layer.scene] - 1 - number  # 0 is in front
            if len(layer.scene):
                for name, values in self.source.factors(layer.placed).items():
                    factors[name][layer.scene, number] = values
        return factors


_NO_SCENE = np.zeros(0, np.int64)
