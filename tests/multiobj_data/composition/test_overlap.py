import itertools

import numpy as np
import pytest

from multiobj_data.composition.overlap import Overlap
from multiobj_data.composition.placement import place
from multiobj_data.errors import UsageError
from multiobj_data.sprites.bank import Sprites


def random_sprites(rng, side, n=30, density=0.2):
    patches = rng.integers(1, 256, (n, side, side), dtype=np.uint8) * (rng.random((n, side, side)) < density)
    blank = ~patches.reshape(n, -1).any(1)
    patches[blank, side // 2, side // 2] = 200
    return Sprites.cut(patches)


def canvases(placed, size):
    """Paste each object alone, pixel by pixel: uint8 [N, size, size]."""
    out = np.zeros((len(placed), size, size), np.uint8)
    for i, (index, x, y) in enumerate(zip(placed.index, placed.x, placed.y, strict=True)):
        tile = placed.sprites.tile[index]
        for r, c in zip(*np.nonzero(tile), strict=True):
            out[i, y + r, x + c] = tile[r, c]
    return out


def boxes_of(layers):
    """Tight boxes from pixels: [N, 4]."""
    rows, columns = layers.any(2), layers.any(1)
    return np.stack(
        [
            columns.argmax(1),
            rows.argmax(1),
            columns.shape[1] - columns[:, ::-1].argmax(1),
            rows.shape[1] - rows[:, ::-1].argmax(1),
        ],
        1,
    )


def breaks(rule, layers, **options):
    """Decide from whole canvases whether a scene of several objects breaks the rule."""
    if rule == "pixels":
        return (sum((layer > 0).astype(int) for layer in layers) > 1).any((1, 2))
    if rule == "legacy":
        return (sum(layer.astype(int) for layer in layers) > 255).any((1, 2))
    bad = np.zeros(len(layers[0]), bool)
    for a, b in itertools.combinations([boxes_of(layer) for layer in layers], 2):
        gap = np.maximum(a[:, :2] - b[:, 2:], b[:, :2] - a[:, 2:])
        if rule == "rows-and-columns":
            bad |= (gap < 0).any(1)
        elif options.get("max_iou"):
            shared = np.maximum(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0).prod(1)
            union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - shared
            bad |= shared / union > options["max_iou"]
        else:
            bad |= (gap < options.get("margin", 0)).all(1)
    return bad


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ("pixels", {}),
        ("legacy", {}),
        ("rows-and-columns", {}),
        ("boxes", {}),
        ("boxes", {"margin": 3}),
        ("boxes", {"max_iou": 0.2}),
    ],
)
@pytest.mark.parametrize(("side", "canvas", "density"), [(9, 30, 0.3), (5, 18, 0.9), (70, 180, 0.004)])
def test_rules_agree_with_whole_canvases(rule, options, side, canvas, density):
    rng = np.random.default_rng(side)
    sprites = random_sprites(rng, side, density=density)
    n = 400
    contract = Overlap(rule, **options)
    objects, bad = [], np.zeros(n, bool)
    for number in range(3):
        new = place(rng, sprites, rng.integers(30, size=n), canvas)
        bad |= contract.rejects(objects, new)
        objects.append(new)
        expected = breaks(rule, [canvases(placed, canvas) for placed in objects], **options)
        assert np.array_equal(bad, expected)
        assert number != 1 or 0.01 < expected.mean() < 0.99


@pytest.mark.parametrize(
    "options",
    [
        {"rule": "pixel"},
        {"rule": "pixels", "margin": 2},
        {"rule": "boxes", "max_iou": 1.5},
        {"rule": "boxes", "margin": -1},
    ],
)
def test_contradictory_contracts_are_refused(options):
    with pytest.raises(UsageError, match="expected|belong"):
        Overlap(**options)
