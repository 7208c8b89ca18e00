"""What lies behind or over a scene: plain, noisy, or a grid of lines (SuPAIR, section 4.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from multiobj_data.errors import UsageError, quoted

_NUMBER = r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))"
_FORMS = "'plain', 'noise', 'noise:0.8,0.1,0.2' (gain, offset, deviation), 'grid' or 'grid:5,0.4' (spacing, grey level)"


_LARGEST = 1000  # far beyond what can be told apart


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
            constants = tuple(map(float, match.groups(default=""))) if match[1] else (0.8, 0.1, 0.2)
            for name, value in zip(("a gain", "an offset", "a deviation"), constants, strict=True):
                self._require(0 <= value <= _LARGEST, f"{name} between 0 and {_LARGEST}", value)
            self._refuse_blank(*constants)
            return "noise", constants
        if match := re.fullmatch(rf"grid(?::{_NUMBER},{_NUMBER})?", self.text):
            spacing, level = (float(match[1]), float(match[2])) if match[1] else (5.0, 0.4)
            whole = spacing == spacing // 1 and 2 <= spacing <= _LARGEST
            self._require(whole, f"a spacing of 2 to {_LARGEST} whole pixels", spacing)
            self._require(0 <= level <= 1, "a grey level between 0 and 1", level)
            return "grid", (spacing, level)
        raise UsageError(f"background: expected {_FORMS}, got {quoted(self.text)}.")

    def _refuse_blank(self, gain: float, offset: float, deviation: float) -> None:
        white = offset >= 1 + 4 * deviation  # but for 1 in 30,000 pixels
        if white or gain < 1 / 255:  # less than a grey level
            raise UsageError(
                f"background: expected a gain of at least 1/255 and an offset below 1, such as 0.8 and 0.1, got "
                f"{quoted(self.text)}, through which nothing can be seen."
            )

    def check(self, canvas: int) -> None:
        """Refuse a grid whose lines may lie outside a canvas of this side.

        Raises:
            UsageError: Its spacing is larger than the canvas.
        """
        kind, constants = self._parse()
        if kind == "grid":
            self._require(
                constants[0] <= canvas, f"a spacing of at most the canvas, {canvas} pixels", constants[0]
            )

    def notes(self, grounds: np.ndarray) -> list[str]:
        """Return what to say of a grid whose lines do not show, being at least as dark as the ground.

        Args:
            grounds: uint8 ``[m]``, the brightest channel of some grounds.
        """
        kind, constants = self._parse()
        share = float((grounds < round(255 * constants[1])).mean()) if kind == "grid" else 1.0
        if share == 1:
            return []
        where = f"{share:.0%} of the grounds" if share else "no ground"
        return [
            f"background {self.text}: lines show only where a scene is darker than their grey ({constants[1]:g}): on "
            f"{where}, and over dark objects"
        ]

    def _require(self, holds: bool, what: str, value: float) -> None:
        if not holds:
            raise UsageError(f"background: expected {what}, got {value:g} in {quoted(self.text)}.")

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
