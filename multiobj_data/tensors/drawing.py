"""Drawing on a GPU: the pictures of `Arrangement.paint`, bit for bit, as tensors that never leave the device.

>>> scenes = paint_on(generator.arrange(rng, 256), "cuda")  # doctest: +SKIP
>>> scenes.image.device, scenes.factors["class"]  # doctest: +SKIP

What is random was decided before (on the CPU, noise included), and every operation here is either on whole
numbers or one that IEEE 754 rounds in one way only (float32 product, sum and quotient, one at a time), so that
the result is NumPy's on any device. Nothing races: layers are painted one after another, and within a layer
no two objects are in one scene. No step waits for the device, since all shapes are known beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from multiobj_data.composition.arrangement import Arrangement
from multiobj_data.composition.drawing import Blend, Layer
from multiobj_data.scenes import Scenes
from multiobj_data.tensors.parcel import Parcel

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class TorchScenes:
    """`Scenes` as tensors on one device.

    Attributes:
        image: uint8 ``[B, H, W, C]``.
        count: int64 ``[B]``.
        segments: uint8 ``[B, H, W]``, visible pixels: ``0 .. background_segments - 1`` are background.
        boxes: float32 ``[B, K, 4]``; NaN where absent.
        background_segments: How many labels are background.
        factors: Name -> ``[B, K, ...]``.
        scene_factors: Name -> ``[B, ...]``.
        amodal: bool ``[B, K, H, W]``, or ``None`` if not kept.
    """

    image: torch.Tensor
    count: torch.Tensor
    segments: torch.Tensor
    boxes: torch.Tensor
    background_segments: int = 1
    factors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    scene_factors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    amodal: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.image)

    @property
    def present(self) -> torch.Tensor:
        """Which of the K places hold an object: bool ``[B, K]``."""
        return torch.arange(self.boxes.shape[1], device=self.count.device) < self.count[:, None]

    def numpy(self) -> Scenes:
        """Return the scenes as arrays; waits for the device."""
        return Scenes(
            image=_array(self.image),
            count=_array(self.count),
            segments=_array(self.segments),
            boxes=_array(self.boxes),
            background_segments=self.background_segments,
            factors={name: _array(values) for name, values in self.factors.items()},
            scene_factors={name: _array(values) for name, values in self.scene_factors.items()},
            amodal=None if self.amodal is None else _array(self.amodal),
        )


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.cpu().numpy()


def paint_on(arrangement: Arrangement, device: torch.device | str) -> TorchScenes:
    """Paint on a device; equal to ``arrangement.paint()`` in every bit.

    Args:
        arrangement: What is in the scenes.
        device: Where to; on a CPU, `Arrangement.paint` is faster.

    Returns:
        The scenes. The call may return before the device is done, as is usual with CUDA.

    Raises:
        ValueError: If an object's tile begins outside the canvas.
    """
    return unpainted(arrangement).on(torch.device(device))


@dataclass(frozen=True)
class Painted:
    """Scenes that are painted already, in one piece of memory: from generators that cannot be asked to wait.

    Attributes:
        parcel: The arrays of `Scenes`, by the paths of their fields.
        background_segments: As in `Scenes`.
    """

    parcel: Parcel
    background_segments: int = 1

    def on(self, device: torch.device) -> TorchScenes:
        """Upload the scenes."""
        return _unpack(self.parcel.on(device), self.background_segments)

    def pin_memory(self) -> Painted:
        """Return them in page-locked memory."""
        return replace(self, parcel=self.parcel.pin_memory())


def painted(scenes: Scenes, *, amodal: bool = True) -> Painted:
    """Pack scenes for their way to a device; ``amodal=False`` leaves those masks behind."""
    arrays = {name: getattr(scenes, name) for name in ("image", "count", "segments", "boxes")}
    if scenes.amodal is not None and amodal:
        arrays["amodal"] = scenes.amodal
    return Painted(Parcel.of(arrays | _factors(scenes)), scenes.background_segments)


@dataclass(frozen=True)
class Unpainted:
    """An arrangement in one piece of memory, without the sprites that it does not show.

    N objects lie one after another, layer by layer. Tiles may reach beyond the right and lower edge of the
    canvas (with zeros), so scenes are painted on a canvas that is wider by one tile, and cut.

    Attributes:
        parcel: ``tile`` uint8 ``[N, P, P]``; ``scene``, ``corner`` int64 ``[N]``: its scene, and its first pixel
            among those of all the wider canvases; ``colour`` uint8 ``[N, C]``; ``ground``, ``tone``, ``noise``
            and ``grid`` as in `Arrangement` and `Backdrop`; ``count``, ``boxes``, factors.
        layers: The rows of each layer.
        coloured: Which layers are painted in ``colour``; the others in their tiles' grey levels.
        canvas: Side of the canvas in pixels.
        blend: As in `Arrangement`.
        amodal: Whether to keep each object's own pixels.
        gain: Of the noise, for pixels in 0..255.
        offset: Of the noise.
        level: Grey level of the grid.
    """

    parcel: Parcel
    layers: tuple[slice, ...]
    coloured: tuple[bool, ...]
    canvas: int
    blend: Blend
    amodal: bool
    gain: float = 1.0
    offset: float = 0.0
    level: int = 0

    def pin_memory(self) -> Unpainted:
        """Return it in page-locked memory."""
        return replace(self, parcel=self.parcel.pin_memory())

    def on(self, device: torch.device) -> TorchScenes:
        """Upload and paint."""
        arrays = self.parcel.on(device)
        canvas = _Canvas(self, arrays)
        for number in range(len(self.layers)):
            canvas.add(number)
        drawn = {
            "image": self._finish(canvas.cut(canvas.image), arrays),
            "segments": canvas.cut(canvas.segments),
            "factors/visible_fraction": canvas.visible(),
        }
        if canvas.amodal is not None:
            drawn["amodal"] = canvas.amodal
        return _unpack(arrays | drawn)

    def _finish(self, image: torch.Tensor, arrays: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Apply tone and backdrop, as `Arrangement.paint` and `Backdrop.apply` do."""
        if "tone" in arrays:
            image = arrays["tone"][image.long()]
        if "noise" in arrays:
            value = image.float().mul_(self.gain).add_(self.offset).add_(arrays["noise"])
            return value.clamp_(0, 1).mul_(255).round_().byte()
        if "grid" in arrays:
            dark = arrays["grid"] & (image.amax(-1) < self.level)
            return torch.where(dark[..., None], self.level, image)
        return image


def unpainted(arrangement: Arrangement, *, amodal: bool = True) -> Unpainted:
    """Pack an arrangement for its way to a device.

    Args:
        arrangement: What is in the scenes.
        amodal: ``False`` leaves each object's own pixels out, even if the arrangement would keep them.

    Raises:
        ValueError: If an object's tile begins outside the canvas.
    """
    n, k = len(arrangement.count), len(arrangement.layers)
    ends = np.cumsum([len(layer.scene) for layer in arrangement.layers], dtype=int).tolist()
    boxes = np.full((n, k, 4), np.nan, np.float32)
    for number, layer in enumerate(arrangement.layers):
        boxes[layer.scene, number] = layer.placed.box
    arrays = {"count": arrangement.count, "ground": arrangement.ground, "boxes": boxes}
    arrays |= _objects(arrangement.layers, arrangement.canvas, arrangement.ground.shape[1])
    more = {"tone": arrangement.tone}
    constants: dict[str, float] = {}
    if (backdrop := arrangement.backdrop) is not None:
        more |= {"noise": backdrop.noise, "grid": backdrop.grid}
        constants = {
            "gain": float(np.float32(backdrop.gain / 255)),  # as Backdrop.apply rounds it
            "offset": float(np.float32(backdrop.offset)),
        }
    arrays |= {name: array for name, array in more.items() if array is not None}
    return Unpainted(
        Parcel.of(arrays | _factors(arrangement)),
        layers=tuple(slice(start, end) for start, end in zip([0, *ends], ends, strict=False)),
        coloured=tuple(layer.colour is not None for layer in arrangement.layers),
        canvas=arrangement.canvas,
        blend=arrangement.blend,
        amodal=amodal and arrangement.amodal,
        level=0 if backdrop is None else backdrop.level,
        **constants,
    )


def _objects(layers: list[Layer], canvas: int, channels: int) -> Arrays:
    """Gather all objects' tiles, places and colours, layer by layer; see `Unpainted.parcel`."""
    p = max((layer.placed.sprites.tile.shape[1] for layer in layers), default=1)
    n = sum(len(layer.scene) for layer in layers)
    tile, colour = np.zeros((n, p, p), np.uint8), np.zeros((n, channels), np.uint8)
    scene, corner = np.zeros((2, n), np.int64)
    end = 0
    for layer in layers:
        placed = layer.placed
        rows = slice(end, end := end + len(placed))
        first = np.stack([placed.x, placed.y])
        if first.min(initial=0) < 0 or first.max(initial=0) >= canvas:
            raise ValueError(f"expected objects inside the canvas of {canvas} pixels; place them there.")
        size = placed.sprites.tile.shape[1]
        tile[rows, :size, :size] = placed.sprites.tile[placed.index]
        scene[rows] = layer.scene
        corner[rows] = (scene[rows] * (canvas + p) + placed.y) * (canvas + p) + placed.x
        if layer.colour is not None:
            colour[rows] = np.rint(
                np.float32(255) * layer.colour
            )  # as multiobj_data.composition.drawing rounds it
    return {"tile": tile, "scene": scene, "corner": corner, "colour": colour}


class _Canvas:
    """What is painted so far; pixels of all the wider canvases in a row, ``[B * wide * wide]``."""

    def __init__(self, of: Unpainted, arrays: Mapping[str, torch.Tensor]) -> None:
        self.of, self.scene, self.corner = of, arrays["scene"], arrays["corner"]
        self.b, self.tile, self.colour = len(arrays["count"]), arrays["tile"], arrays["colour"]
        p, self.device = self.tile.shape[1], self.tile.device
        self.wide = of.canvas + p
        along = torch.arange(p, device=self.device)
        self.step = along[:, None] * self.wide + along  # [P, P], offset of a tile's pixels from its first
        ground = arrays["ground"]  # [B, C]
        self.image = ground.repeat_interleave(self.wide**2, 0)  # [B * wide * wide, C]
        self.segments = self._blank(torch.uint8)
        self.amodal = None
        if of.amodal:
            shape = (self.b, len(of.layers), of.canvas, of.canvas)
            self.amodal = torch.zeros(shape, dtype=torch.bool, device=self.device)

    def _blank(self, dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(self.b * self.wide**2, dtype=dtype, device=self.device)

    def cut(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return ``[B, H, W, ...]`` from ``[B * wide * wide, ...]``."""
        size = self.of.canvas
        return pixels.view(self.b, self.wide, self.wide, *pixels.shape[1:])[:, :size, :size].contiguous()

    def _window(self, rows: slice) -> torch.Tensor:
        """Return where each pixel of these objects' tiles lies on the canvases, int64 ``[M, P, P]``."""
        return self.corner[rows, None, None] + self.step

    def add(self, number: int) -> None:
        """Paint layer ``number``. Its windows are disjoint: each scene has its own canvas."""
        rows = self.of.layers[number]
        window, tile = self._window(rows), self.tile[rows]
        lit = tile != 0
        under = self.image[window]  # [M, P, P, C]
        paint = self.colour[rows, None, None] if self.of.coloured[number] else tile[..., None]
        if self.of.blend == "add":
            paint = paint + under  # wraps where it overflows, and is then smaller than either
            paint = paint.masked_fill_(paint < under, 255)
        self.image[window] = torch.where(lit[..., None], paint, under)
        self.segments[window] = torch.where(lit, number + 1, self.segments[window])
        if self.amodal is not None:
            own = self._blank(torch.bool)
            own[window] = lit
            self.amodal[:, number] = self.cut(own)

    def visible(self) -> torch.Tensor:
        """Return the share of each object's own pixels that are not hidden, float32 ``[B, K]``."""
        shape = (self.b, len(self.of.layers))
        share = torch.full(shape, torch.nan, dtype=torch.float32, device=self.device)
        for number, rows in enumerate(self.of.layers):
            lit = self.tile[rows] != 0
            seen = lit & (self.segments[self._window(rows)] == number + 1)
            share[self.scene[rows], number] = seen.sum((1, 2)).float() / lit.sum((1, 2)).float()
        return share


def _factors(of: Arrangement | Scenes) -> Arrays:
    both = {"factors": of.factors, "scene_factors": of.scene_factors}
    return {f"{kind}/{name}": values for kind, table in both.items() for name, values in table.items()}


def _unpack(arrays: Mapping[str, torch.Tensor], background_segments: int = 1) -> TorchScenes:
    def table(kind: str) -> dict[str, torch.Tensor]:
        return {name[len(kind) :]: values for name, values in arrays.items() if name.startswith(kind)}

    return TorchScenes(
        image=arrays["image"],
        count=arrays["count"],
        segments=arrays["segments"],
        boxes=arrays["boxes"],
        background_segments=background_segments,
        factors=table("factors/"),
        scene_factors=table("scene_factors/"),
        amodal=arrays.get("amodal"),
    )
