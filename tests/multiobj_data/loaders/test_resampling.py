import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from multiobj_data.loaders.resampling import resize_image, resize_labels

SIZES = [((192, 192), 128), ((192, 192), 96), ((35, 35), 32), ((196, 196), 64), ((30, 50), 41), ((7, 9), 64)]


def picture(shape, channels=3):
    return np.random.default_rng(sum(shape)).integers(0, 256, (*shape, channels), np.uint8)


def by_torch(image, size, **options):
    values = torch.from_numpy(image.astype(np.float64)).permute(2, 0, 1)[None]
    return interpolate(values, (size, size), **options)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("shape", "size"), SIZES)
def test_bilinear_is_torchs_without_antialias(shape, size):
    image = picture(shape)
    theirs = by_torch(image, size, mode="bilinear", align_corners=False, antialias=False)
    assert (
        np.abs(resize_image(image, size, "bilinear") - theirs).max() < 0.6
    )  # one rounding, weights to 1/2048


def corner_bilinear(image, size):
    """TensorFlow 1's resize: source = i * scale, no half pixel; written as its definition, pixel by pixel."""
    h, w, c = image.shape
    out = np.empty((size, size, c))
    for i in range(size):
        for j in range(size):
            y, x = i * h / size, j * w / size
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            top = image[y0, x0] * (1 - (x - x0)) + image[y0, x1] * (x - x0)
            bottom = image[y1, x0] * (1 - (x - x0)) + image[y1, x1] * (x - x0)
            out[i, j] = top * (1 - (y - y0)) + bottom * (y - y0)
    return out


@pytest.mark.parametrize(("shape", "size"), [((192, 192), 128), ((30, 50), 41), ((7, 9), 20)])
def test_bilinear_on_the_corner_grid_is_tensorflow_1s(shape, size):
    image = picture(shape)
    ours = resize_image(image, size, "bilinear-corner")
    assert np.abs(ours - corner_bilinear(image, size)).max() < 0.6
    assert np.abs(ours.astype(int) - resize_image(image, size, "bilinear")).max() > 20  # not the other one


@pytest.mark.parametrize(("shape", "size"), SIZES)
def test_nearest_is_torchs(shape, size):
    image = picture(shape)
    assert np.array_equal(resize_image(image, size, "nearest"), by_torch(image, size, mode="nearest"))
    for kind in ("nearest", "nearest-exact"):
        theirs = by_torch(image, size, mode=kind)[..., 0]
        assert np.array_equal(resize_labels(image[..., 0], size, kind), theirs), kind


def test_the_two_nearest_differ():
    ramp = np.arange(192, dtype=np.uint8) * np.ones((192, 1), np.uint8)
    assert not np.array_equal(*(resize_labels(ramp, 128, kind) for kind in ("nearest", "nearest-exact")))


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pillows_filters_are_pillows(kind, channels):
    image = picture((192, 192), channels)
    method = Image.Resampling[kind.upper()]
    theirs = [np.asarray(Image.fromarray(image[..., c]).resize((96, 96), method)) for c in range(channels)]
    assert np.array_equal(resize_image(image, 96, f"pillow-{kind}"), np.stack(theirs, -1))


@pytest.mark.parametrize(
    "kind", ["bilinear", "bilinear-corner", "nearest", "pillow-bilinear", "pillow-bicubic"]
)
def test_a_flat_picture_stays_flat_and_an_equal_size_is_left_alone(kind):
    flat = np.full((192, 192, 3), 201, np.uint8)
    assert (resize_image(flat, 128, kind) == 201).all()
    image = picture((64, 64))
    assert np.array_equal(resize_image(image, 64, kind), image)
    assert np.array_equal(resize_image(picture((24, 32)), 0, kind), picture((24, 32)))


def test_what_is_no_filter_is_named():
    with pytest.raises(ValueError, match="got 'area'"):
        resize_image(picture((8, 8)), 4, "area")
    with pytest.raises(ValueError, match="got 'pillow-area'"):
        resize_image(picture((8, 8)), 4, "pillow-area")
    with pytest.raises(ValueError, match="got 'bilinear'"):  # a label map has nothing in between
        resize_labels(picture((8, 8))[..., 0], 4, "bilinear")
