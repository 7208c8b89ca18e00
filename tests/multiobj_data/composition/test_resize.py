import numpy as np
import pytest
from PIL import Image

from multiobj_data.composition.resize import resize


@pytest.mark.parametrize("kind", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("side", [1, 9, 16, 21, 28, 31, 56])
def test_resize_equals_pillow_bit_for_bit(kind, side):
    rng = np.random.default_rng(side)
    images = rng.integers(0, 256, (40, 28, 28), dtype=np.uint8)
    images[:20] *= rng.random((20, 28, 28)) < 0.3  # sparse ones, as digits are
    expected = [
        np.asarray(Image.fromarray(i).resize((side, side), Image.Resampling[kind.upper()])) for i in images
    ]
    assert np.array_equal(resize(images, side, kind), np.stack(expected))


@pytest.mark.parametrize("kind", ["nearest", "bilinear", "bicubic"])
def test_each_image_may_have_a_side_of_its_own(kind):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (600, 28, 28), dtype=np.uint8)
    sides = rng.integers(14, 33, 600)
    mixed = resize(images, sides, kind)
    for side in np.unique(sides):
        chosen = sides == side
        assert np.array_equal(mixed[chosen, :side, :side], resize(images[chosen], int(side), kind))
        assert not mixed[chosen, side:].any()
        assert not mixed[chosen, :, side:].any()
