"""The settings of a sum-product network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from multiobj_data.errors import UsageError, did_you_mean, quoted

Structure = Literal["random", "structured"]
"""How regions are split: at random, or by straight cuts through the image."""


@dataclass(frozen=True)
class SPNConfig:
    """Size and structure of a sum-product network.

    Attributes:
        pixels: P.
        replicas: R, independent region graphs whose products the root mixes.
        depth: How often each replica halves the image: it has ``2 ** depth`` leaf regions.
        leaves: I, Gaussians of a leaf region; each is a product of one Gaussian a pixel.
        sums: S, sum nodes of a region between the leaves and the root; without effect at depth 1.
        min_variance: Lower bound of the Gaussians' variance.
        max_variance: Upper bound.
        channels: C.
        structure: ``"random"``, or ``"structured"``: rectangles, as Poon & Domingos (2011, sec. 4) split images.
        canvas: ``(H, W)`` with ``H W = pixels``; only for ``"structured"``.
        seed: Of the structure, together with the sizes above; initial weights come from torch's generator.

    Raises:
        UsageError: Values that make no network.
    """

    pixels: int
    replicas: int
    depth: int
    leaves: int
    sums: int
    min_variance: float
    max_variance: float
    channels: int = 1
    structure: Structure = "random"
    canvas: tuple[int, int] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("pixels", "replicas", "depth", "leaves", "sums", "channels"):
            if getattr(self, name) < 1:
                raise UsageError(f"SPN: expected {name} to be at least 1, got {getattr(self, name)}.")
        if not 0 < self.min_variance < self.max_variance < float("inf"):
            raise UsageError(
                f"SPN: expected 0 < min_variance < max_variance, got {self.min_variance} and {self.max_variance}."
            )
        if self.regions > self.pixels:
            raise UsageError(
                f"SPN: {self.pixels} pixels cannot be split into {self.regions} leaf regions; "
                f"lower depth={self.depth} to at most {self.pixels.bit_length() - 1}."
            )
        if self.seed < 0:
            raise UsageError(f"SPN: expected a seed of 0 or more, got {self.seed}.")
        self._check_structure()

    def _check_structure(self) -> None:
        if self.structure not in get_args(Structure):
            known = did_you_mean(self.structure, get_args(Structure))
            raise UsageError(f"SPN: there is no structure {quoted(self.structure)}.{known}")
        if self.structure == "structured" and self.canvas is None:
            raise UsageError("SPN: a structured network cuts images; give its canvas=(height, width).")
        if self.canvas is not None:
            height, width = self.canvas
            if min(height, width) < 1 or height * width != self.pixels:
                raise UsageError(f"SPN: expected a canvas of {self.pixels} pixels, got {height} x {width}.")

    @property
    def regions(self) -> int:
        """K, leaf regions of a replica."""
        return 2**self.depth

    @property
    def values(self) -> int:
        """D, values of an image."""
        return self.channels * self.pixels
