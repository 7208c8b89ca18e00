import numpy as np
import pytest

from multiobj_data.sprites import shapes
from multiobj_data.sprites.shapes import CODES, cos_sin, rasterise

SIZE = 44
NAMES = sorted(CODES)


def random_shapes(name, n, seed=0, low=0.2, high=1.3):
    """Code, scale, orientation and centre of n shapes that lie inside patches of SIZE."""
    rng = np.random.default_rng(seed)
    scale = rng.uniform(low, high, n).astype(np.float32)
    orientation = rng.uniform(-7, 14, n).astype(np.float32)
    centre = (SIZE / 2 + rng.uniform(-2, 2, (n, 2))).astype(np.float32)
    return np.full(n, CODES[name], np.int16), scale, orientation, centre


@pytest.mark.parametrize("name", NAMES)
def test_a_pixel_is_lit_if_its_centre_lies_in_the_outline(name, geometry):
    code, scale, orientation, centre = random_shapes(name, 80)
    patches = rasterise(code, scale, orientation, centre, SIZE)
    assert set(np.unique(patches)) == {0, 255}
    unclear_ones = 0
    for patch, s, r, (x, y) in zip(patches, scale, orientation, centre, strict=True):
        lit, unclear = geometry.inside(code[0], s, r, x, y, range(SIZE), range(SIZE))
        assert not (((patch > 0) != lit) & ~unclear).any()
        unclear_ones += unclear.sum()
    assert unclear_ones < 30  # of 80 outlines: nearly every pixel was compared


@pytest.mark.parametrize(("name", "published"), [("square", 368), ("ellipse", 289), ("heart", 225)])
def test_areas_are_those_measured_on_dsprites(name, published, geometry):
    n = 4000
    code, _, orientation, _ = random_shapes(name, n)
    centre = (SIZE / 2 + np.random.default_rng(1).random((n, 2))).astype(np.float32)
    patches = rasterise(code, np.ones(n, np.float32), orientation, centre, SIZE)
    area = (patches > 0).sum((1, 2))  # its mean over places within a pixel is the area, exactly
    assert abs(area.mean() - geometry.area(code[0])) < 4 * area.std() / np.sqrt(n)
    assert abs(area.mean() - published) < 0.01 * published


def test_an_upright_square_is_as_wide_as_in_dsprites():
    one = np.ones(1, np.float32)
    patch = rasterise(np.array([1]), one, 0 * one, np.array([[16, 16]], np.float32), 32)[0]
    assert np.array_equal(
        np.argwhere(patch)[[0, -1]], [[6, 6], [25, 25]]
    )  # 20 pixels: its centres lie on pixel edges
    assert (patch > 0).sum() == 400


@pytest.mark.parametrize("name", NAMES)
def test_shapes_turn_counter_clockwise_on_the_screen(name):
    scale = np.linspace(0.3, 1.2, 50).astype(np.float32)
    code = np.full(50, CODES[name])
    centre = np.full((50, 2), SIZE / 2, np.float32)
    upright = rasterise(code, scale, np.zeros(50, np.float32), centre, SIZE)
    for quarters in range(1, 4):
        angle = np.full(50, quarters * np.pi / 2, np.float32)
        turned = rasterise(code, scale, angle, centre, SIZE)
        assert (turned != np.rot90(upright, quarters, (1, 2))).sum() <= 4  # ties on the outline, in float32
    if name == "heart":  # its tip points down
        above, below = (
            half.sum((1, 2)) for half in (upright[:, : SIZE // 2] > 0, upright[:, SIZE // 2 :] > 0)
        )
        assert (above > 1.3 * below).all()


@pytest.mark.parametrize("name", NAMES)
def test_extents_are_those_of_the_outline_and_bound_the_pixels(name, geometry):
    code, scale, orientation, centre = random_shapes(name, 300)
    found = shapes.extents(code, scale, orientation)
    expected = [geometry.extents(*each) for each in zip(code, scale, orientation, strict=True)]
    assert np.abs(found - expected).max() < 0.01
    for patch, (left, up, right, down), (x, y) in zip(
        rasterise(code, scale, orientation, centre, SIZE), found, centre, strict=True
    ):
        row, column = np.nonzero(patch)
        assert x - left - 0.01 < column.min() + 0.5 < x - left + 3  # tips may miss a few centres
        assert column.max() + 0.5 < x + right + 0.01
        assert y - up - 0.01 < row.min() + 0.5
        assert row.max() + 0.5 < y + down + 0.01
    assert np.hypot(*geometry.outlines[CODES[name]].T).max() < shapes.REACH + 1e-9


@pytest.mark.parametrize("name", NAMES)
def test_the_core_is_the_largest_disc_inside(name, geometry):
    code, scale, orientation, centre = random_shapes(name, 300)
    core = shapes.core_radius(code, scale)
    corners = np.concatenate([geometry.outlines[CODES[name]], geometry.outlines[CODES[name]][:1]])
    steps = np.linspace(0, 1, 50)[:, None, None]
    outline = (corners[:-1] * (1 - steps) + corners[1:] * steps).reshape(-1, 2)
    assert np.allclose(core, np.hypot(*outline.T).min() * scale, rtol=1e-2)
    at = np.arange(SIZE) + 0.5
    away = np.hypot(at - centre[:, :1, None], at[:, None] - centre[:, 1:, None])  # [n, row, column]
    disc = away < core[:, None, None] - 1e-3
    assert disc.any((1, 2)).all()
    assert (rasterise(code, scale, orientation, centre, SIZE)[disc] == 255).all()


@pytest.mark.parametrize("name", NAMES)
def test_discs_lie_inside_and_none_is_too_small_to_hold_a_pixel(name, geometry):
    code, scale, orientation, _ = random_shapes(name, 100)
    dx, dy, radius = shapes.discs(code, scale, orientation)  # [D, n] each
    for b in range(100):
        corners = geometry.turned(code[b], scale[b], orientation[b])
        steps = np.linspace(0, 1, 400 if name == "square" else 4)[:, None, None]
        outline = (corners * (1 - steps) + np.roll(corners, -1, 0) * steps).reshape(-1, 2)
        for disc in range(len(dx)):
            distance = np.hypot(outline[:, 0] - dx[disc, b], outline[:, 1] - dy[disc, b]).min()
            assert distance > radius[disc, b] - 0.02
            lit, _ = geometry.inside(
                code[b], scale[b], orientation[b], -dx[disc, b], -dy[disc, b], [-0.5], [-0.5]
            )
            assert lit.all()  # its centre, too, is inside
    assert (radius / scale).min() * 0.2 > np.sqrt(0.5)  # at the smallest scale; see Overlap.surely_rejects


def test_cosine_and_sine_are_exact_to_float32():
    angle = np.concatenate([np.linspace(-20, 20, 200_001), np.arange(-40, 40) * np.pi / 20])
    cos, sin = cos_sin(angle)
    assert cos.dtype == sin.dtype == np.float32
    assert np.abs(cos - np.cos(angle)).max() < 2**-24
    assert np.abs(sin - np.sin(angle)).max() < 2**-24


@pytest.mark.parametrize("name", NAMES)
def test_a_shift_by_whole_pixels_moves_the_picture(name):
    code, scale, orientation, centre = random_shapes(name, 200, high=0.9)
    centre = (np.rint(centre * 1024) / 1024).astype(np.float32)  # so that sums are exact
    here = rasterise(code, scale, orientation, centre, SIZE)
    there = rasterise(code, scale, orientation, centre + np.float32([3, -5]), SIZE)
    assert np.array_equal(there, np.roll(here, (-5, 3), (1, 2)))


def test_a_shape_is_drawn_alike_in_any_company():
    parts = [random_shapes(name, 100, seed=7) for name in NAMES]
    together = [
        np.concatenate(values)[np.random.default_rng(2).permutation(300)]
        for values in zip(*parts, strict=True)
    ]
    patches = rasterise(*together, SIZE)
    for chosen in (np.arange(0, 300, 7), np.array([299]), np.arange(299, 100, -1)):
        assert np.array_equal(rasterise(*(values[chosen] for values in together), SIZE), patches[chosen])
    assert rasterise(*(values[:0] for values in together), SIZE).shape == (0, SIZE, SIZE)


@pytest.mark.parametrize("name", NAMES)
def test_patches_hold_every_shape(name):
    for scale in (0.2, 0.5, 0.77, 1.0):
        side = shapes.patch_side(scale)
        n = 400
        code, _, orientation, _ = random_shapes(name, n)
        for middle in (side / 2, (side + 1) / 2 - 0.01):
            centre = np.full((n, 2), middle, np.float32)
            wide = rasterise(code, np.full(n, scale, np.float32), orientation, centre + 4, side + 8)
            assert not wide[:, :3].any()
            assert not wide[:, :, -3:].any()
    assert shapes.patch_side(1.0) == 28
