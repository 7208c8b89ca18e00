"""What lies behind or over a scene: plain, noisy, or a grid of lines (SuPAIR, section 4.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from multiobj_data.errors import UsageError

_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)"
_FORMS = "'plain', 'noise', 'noise:0.8,0.1,0.2' (gain, offset, deviation), 'grid' or 'grid:5,0.4' (spacing, grey level)"


@dataclass(frozen=True)
class Backdrop:
    """What a background did to B scenes: enough to do it again, on any device.

    Attributes:
        noise: float32 ``[B, H, W, C]`` in grey levels of 0..1, added after ``gain`` and ``offset``; or ``None``.
        grid: bool ``[B, H, W]``, the lines; or ``None``.
        gain: Factor on the scene.
        offset: Added to the scene.
        level: Grey level of the lines, uint8.
        factors: What is stored of it, name -> ``[B, ...]``.
    """

    factors: dict[str, np.ndarray]
    noise: np.ndarray | None = None
    grid: np.ndarray | None = None
    gain: float = 1.0
    offset: float = 0.0
    level: int = 0

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Return uint8 ``[B, H, W, C]``: the scenes with their background."""
        if self.noise is not None:
            gain, offset = np.float32(self.gain / 255), np.float32(self.offset)
            value = np.clip(image * gain + offset + self.noise, 0, 1)
            return np.rint(value * np.float32(255)).astype(np.uint8)
        if self.grid is not None:
            dark = self.grid & (image.max(-1) < self.level)
            return np.where(dark[..., None], np.uint8(self.level), image)
        return image


@dataclass(frozen=True)
class Background:
    """A kind of background, written as text.

    Args:
        text: ``"plain"``. ``"noise"``: ``clip(0.8 x + 0.1 + N(0, 0.2), 0, 1)`` over the scene x in [0, 1].
            ``"grid"``: every fifth row and column, from offsets drawn a scene, at least grey 0.4: a pixel whose
            brightest channel is darker becomes the line (as the authors' code; their text has digits on top).
            Other constants: ``"noise:gain,offset,deviation"``, ``"grid:spacing,level"``.
    """

    text: str = "plain"

    def __post_init__(self) -> None:
        self._parse()

    def _parse(self) -> tuple[str, tuple[float, ...]]:
        if self.text == "plain":
            return "plain", ()
        if match := re.fullmatch(rf"noise(?::{_NUMBER},{_NUMBER},{_NUMBER})?", self.text):
            return "noise", tuple(map(float, match.groups(default=""))) if match[1] else (0.8, 0.1, 0.2)
        if match := re.fullmatch(rf"grid(?::(\d+),{_NUMBER})?", self.text):
            spacing, level = (int(match[1]), float(match[2])) if match[1] else (5, 0.4)
            if spacing >= 2 and level <= 1:
                return "grid", (spacing, level)
        raise UsageError(f"background: expected {_FORMS}, got {self.text!r}.")

    def draw(self, rng: np.random.Generator, n: int, canvas: int, channels: int) -> Backdrop | None:
        """Draw the background of ``n`` scenes; ``None`` if it is plain."""
        kind, constants = self._parse()
        if kind == "noise":
            gain, offset, deviation = constants
            noise = rng.standard_normal((n, canvas, canvas, channels), np.float32)
            return Backdrop({}, noise=noise * np.float32(deviation), gain=gain, offset=offset)
        if kind == "grid":
            spacing, level = int(constants[0]), constants[1]
            offset_xy = rng.integers(spacing, size=(n, 2)).astype(np.int16)
            column, row = (np.arange(canvas) % spacing == offset_xy[:, axis, None] for axis in (0, 1))
            lines = row[:, :, None] | column[:, None, :]  # [n, H, W]
            return Backdrop({"grid_offset": offset_xy}, grid=lines, level=round(255 * level))
        return None
