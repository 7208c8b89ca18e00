"""Region graphs: how each replica splits the image in two, and the halves again, down to its leaf regions.

A replica is told whole by the leaf region of every pixel. Leaf regions are numbered so that the bits of the
number, the highest first, are the turns taken from the root: leaf regions 2q and 2q + 1 are the halves of
region q one level up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np

from multiobj_data.errors import UsageError
from reference_models.parts.spn.config import SPNConfig

CENTRAL = 0.25
"""Straight cuts lie within this share of a side from its middle, where they can."""

Draw = Callable[[int], np.ndarray]
Cut = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def region_graph(config: SPNConfig) -> np.ndarray:
    """Return the leaf region of every pixel in every replica: int64 ``[R, P]``, values ``0..K-1``.

    It depends on the seed, the number of pixels (or the canvas), the depth and the structure alone; replica r is the
    same however many there are.

    Raises:
        UsageError: No sequence of straight cuts yields that many rectangles.
    """
    replicas = np.empty((config.replicas, config.pixels), np.int64)
    for index, replica in enumerate(replicas):
        # Raw bits, because numpy promises to keep them in all its versions, and its permutations not.
        seed = np.random.SeedSequence(config.seed, spawn_key=(index,))
        draw = np.random.PCG64(seed).random_raw
        split = _straight if config.structure == "structured" else _random
        for region, pixels in enumerate(split(config, draw)):
            replica[pixels] = region
    return replicas


def _random(config: SPNConfig, draw: Draw) -> Iterator[np.ndarray]:
    """Halve a random order of the pixels; halves differ by at most one pixel."""
    order = np.argsort(draw(config.pixels), kind="stable")
    return _leaf_regions(
        order, config.depth, lambda pixels, _: (pixels[: len(pixels) // 2], pixels[len(pixels) // 2 :])
    )


def _straight(config: SPNConfig, draw: Draw) -> Iterator[np.ndarray]:
    """Cut the image into rectangles, each at a random place near the middle of a random side."""
    assert config.canvas is not None  # the settings see to it
    if not splittable(*config.canvas, config.depth):
        raise UsageError(
            f"SPN: straight cuts cannot split {config.canvas[0]} x {config.canvas[1]} pixels into {config.regions} "
            f"rectangles at depth {config.depth}; lower depth."
        )

    def cut(rectangle: np.ndarray, below: int) -> tuple[np.ndarray, np.ndarray]:
        height, width = rectangle.shape
        cuts = list(_cuts(height, width, below))
        central = [cut for cut in cuts if abs(cut[1] / rectangle.shape[cut[0]] - 0.5) <= CENTRAL]
        options = central or cuts
        axis, at = options[int(draw(1)[0] % len(options))]
        return (rectangle[:at], rectangle[at:]) if axis == 0 else (rectangle[:, :at], rectangle[:, at:])

    return _leaf_regions(np.arange(config.pixels).reshape(config.canvas), config.depth, cut)


def _leaf_regions(pixels: np.ndarray, depth: int, cut: Cut) -> Iterator[np.ndarray]:
    """Yield the pixels of each leaf region; ``cut(pixels, levels below)`` halves a region."""
    if depth == 0:
        yield pixels
        return
    for half in cut(pixels, depth - 1):
        yield from _leaf_regions(half, depth - 1, cut)


@cache
def splittable(height: int, width: int, depth: int) -> bool:
    """Whether ``depth`` levels of straight cuts can split a rectangle, every part at every level."""
    return depth == 0 or any(True for _ in _cuts(height, width, depth - 1))


def _cuts(height: int, width: int, below: int) -> Iterator[tuple[int, int]]:
    """Yield the cuts ``(axis, position)`` after which both halves can be split ``below`` times more."""
    for at in range(1, height):
        if splittable(at, width, below) and splittable(height - at, width, below):
            yield 0, at
    for at in range(1, width):
        if splittable(height, at, below) and splittable(height, width - at, below):
            yield 1, at
