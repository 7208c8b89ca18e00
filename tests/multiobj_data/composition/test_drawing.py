import itertools

import numpy as np
import pytest

from multiobj_data.composition.drawing import Layer, draw
from multiobj_data.composition.placement import place
from multiobj_data.sprites.bank import Sprites


def random_layers(rng, scenes, k, canvas, coloured):
    patches = rng.integers(1, 256, (20, 7, 7), dtype=np.uint8) * (rng.random((20, 7, 7)) < 0.6)
    patches[:, 3, 3] = 255
    sprites = Sprites.cut(patches.astype(np.uint8))
    layers = []
    for _ in range(k):
        scene = np.flatnonzero(rng.random(scenes) < 0.7)
        placed = place(rng, sprites, rng.integers(20, size=len(scene)), canvas)
        colour = rng.random((len(scene), 3)).astype(np.float32) if coloured else None
        layers.append(Layer(scene, placed, colour))
    return layers


def paint_by_hand(layers, background, blend):
    """Paint pixel by pixel, back to front."""
    image = background.astype(int)
    b, h, w, c = background.shape
    segments = np.zeros((b, h, w), int)
    amodal = np.zeros((b, len(layers), h, w), bool)
    for k, layer in enumerate(layers):
        for i, scene in enumerate(layer.scene):
            tile = layer.placed.sprites.tile[layer.placed.index[i]]
            for r, q in zip(*np.nonzero(tile), strict=True):
                y, x = layer.placed.y[i] + r, layer.placed.x[i] + q
                flat = None if layer.colour is None else np.rint(255 * layer.colour[i]).astype(int)
                paint = np.repeat(int(tile[r, q]), c) if flat is None else flat
                image[scene, y, x] = np.minimum(image[scene, y, x] + paint, 255) if blend == "add" else paint
                segments[scene, y, x] = k + 1
                amodal[scene, k, y, x] = True
    return image, segments, amodal


@pytest.mark.parametrize("blend", ["add", "over"])
@pytest.mark.parametrize("coloured", [False, True])
def test_drawing_equals_painting_by_hand(blend, coloured):
    rng = np.random.default_rng(0)
    layers = random_layers(rng, 12, 3, 16, coloured)
    background = rng.integers(0, 100, (12, 16, 16, 3 if coloured else 1), dtype=np.uint8)
    image, segments, amodal = paint_by_hand(layers, background, blend)
    drawing = draw(layers, background, blend=blend, amodal=True)
    assert np.array_equal(drawing.image, image)
    assert np.array_equal(drawing.segments, segments)
    assert np.array_equal(drawing.amodal, amodal)
    present = amodal.any((2, 3))
    with np.errstate(invalid="ignore"):
        visible = (segments[:, None] == np.arange(1, 4)[:, None, None]).sum((2, 3)) / amodal.sum((2, 3))
    assert np.allclose(drawing.visible, visible, equal_nan=True)
    assert 0 < (drawing.visible[present] < 1).mean() < 1
    assert np.isnan(drawing.boxes[~present]).all()
    for b, k in zip(*np.nonzero(present), strict=True):
        y, x = np.nonzero(amodal[b, k])
        assert drawing.boxes[b, k].tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_sprites_keep_every_lit_pixel_where_it_was():
    rng = np.random.default_rng(1)
    patches = rng.integers(0, 256, (50, 70, 70), dtype=np.uint8) * (rng.random((50, 70, 70)) < 0.01)
    patches[:, 10, 60] = 1
    patches = patches.astype(np.uint8)
    sprites = Sprites.cut(patches)
    for i, patch in enumerate(patches):
        x0, y0, x1, y1 = sprites.ink_box[i]
        assert np.array_equal(sprites.tile[i, : y1 - y0, : x1 - x0], patch[y0:y1, x0:x1])
        assert np.count_nonzero(sprites.tile[i]) == np.count_nonzero(patch)
    assert sprites.ink_rows is None


def test_ink_rows_are_the_lit_pixels_and_empty_beyond_the_sprite():
    rng = np.random.default_rng(2)
    patches = rng.integers(0, 2, (9, 13, 13), dtype=np.uint8)
    patches[:, 0, 5] = patches[:, 12, 0] = 1
    whole = Sprites.cut(patches)
    sprites = Sprites.gather([(whole, np.arange(4)), (Sprites.cut(patches[4:]), np.arange(5))])
    assert np.array_equal(sprites.tile, whole.tile)
    for i, first in itertools.product(range(9), range(-13, 14)):
        rows = sprites.rows_from(np.array([i]), np.array([first]))[0]
        lit = (rows[:, None] >> np.arange(13, dtype=np.uint64)) & np.uint64(1)
        padded = np.pad(sprites.tile[i] > 0, ((13, 13), (0, 0)))
        assert np.array_equal(lit, padded[13 + first : 26 + first])
