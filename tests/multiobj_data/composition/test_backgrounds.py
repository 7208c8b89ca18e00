from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from multiobj_data.composition.backgrounds import Background
from multiobj_data.errors import UsageError
from multiobj_data.generation.plan import draw_scenes
from multiobj_data.generation.verification import differences
from multiobj_data.generators.multi_dsprites import MultiDSprites
from multiobj_data.generators.multi_mnist import MultiMNIST
from multiobj_data.generators.sprites import Sprites

DIGITS = MultiMNIST(counts="0-2", digits="bundled")
RGB = Sprites(colours="rgb")


def pictures(generator, background, n=200):
    """The same scenes before their plain canvas and before a background: backgrounds are drawn last."""
    return [
        draw_scenes(replace(generator, background=text), 0, "train", 0, n) for text in ("plain", background)
    ]


def clipped_moments(mean, deviation):
    """Mean and deviation of N(mean, deviation) clipped to [0, 1], by numbers."""
    law = stats.norm(mean, deviation)
    x = np.linspace(0, 1, 20_001)
    first = law.sf(1) + np.trapezoid(x * law.pdf(x), x)
    second = law.sf(1) + np.trapezoid(x * x * law.pdf(x), x)
    return first, np.sqrt(second - first**2)


@pytest.mark.parametrize("background", ["noise", "grid"])
@pytest.mark.parametrize("generator", [DIGITS, RGB], ids=["digits", "rgb"])
def test_a_background_changes_nothing_but_the_picture(generator, background):
    plain, changed = pictures(generator, background)
    assert [name for name in differences(changed, plain) if "grid_offset" not in name] == ["image"]


@pytest.mark.parametrize(
    ("generator", "text", "mean", "deviation"),
    [
        (replace(DIGITS, counts="0"), "noise", 0.1, 0.2),
        (replace(DIGITS, counts="0", polarity="black-on-white"), "noise", 0.9, 0.2),
        (replace(DIGITS, counts="0"), "noise:0.5,0.3,0.05", 0.3, 0.05),
        (replace(DIGITS, counts="0", polarity="black-on-white"), "noise:0.5,.3,0.05", 0.8, 0.05),
        (replace(RGB, counts="0"), "noise", 0.1, 0.2),
    ],
)
def test_noise_has_the_moments_of_the_published_law(generator, text, mean, deviation):
    scenes = draw_scenes(replace(generator, background=text), 0, "train", 0, 200)
    value = scenes.image / 255
    first, second = clipped_moments(mean, deviation)
    assert abs(value.mean() - first) < 5 * second / np.sqrt(value.size)
    assert abs(value.std() - second) < 5 * second / np.sqrt(value.size)  # its error is smaller still
    assert abs((value == 0).mean() - stats.norm(mean, deviation).cdf(0.5 / 255)) < 5 * 0.5 / np.sqrt(
        value.size
    )


def test_noise_is_gaussian_and_shrinks_the_scene():
    plain, noisy = pictures(DIGITS, "noise")
    before, after = plain.image / 255, noisy.image / 255
    for level in np.unique(plain.image)[[0, 40, 100, 200, -1]] / 255:
        here = after[before == level]
        low, high = stats.norm(0.8 * level + 0.1, 0.2).cdf([0.3, 0.6])
        assert (
            abs(((here > 0.3) & (here <= 0.6)).mean() - (high - low)) < 5 * 0.5 / np.sqrt(len(here)) + 0.004
        )


def test_noise_is_independent_between_pixels_channels_and_scenes():
    value = draw_scenes(replace(RGB, counts="0", background="noise"), 0, "train", 0, 400).image / 255
    pairs = {
        "rows": (value[:, 1:], value[:, :-1]),
        "columns": (value[:, :, 1:], value[:, :, :-1]),
        "channels": (value[..., 1:], value[..., :-1]),
        "scenes": (value[1:], value[:-1]),
        "blocks": (value[256:], value[:144]),
    }
    for name, (a, b) in pairs.items():
        correlation = np.corrcoef(a.ravel(), b.ravel())[0, 1]
        assert abs(correlation) < 5 / np.sqrt(a.size), name


@pytest.mark.parametrize(("text", "spacing", "grey"), [("grid", 5, 102), ("grid:7,0.25", 7, 64)])
@pytest.mark.parametrize("generator", [DIGITS, RGB], ids=["digits", "rgb"])
def test_dark_pixels_on_lines_become_the_line(generator, text, spacing, grey):
    plain, lined = pictures(generator, text, 60)
    for b, (x0, y0) in enumerate(lined.scene_factors["grid_offset"]):
        expected = plain.image[b].copy()
        for y in range(50):
            for x in range(50):
                if ((x - x0) % spacing == 0 or (y - y0) % spacing == 0) and max(expected[y, x]) < grey:
                    expected[y, x] = grey
        assert np.array_equal(lined.image[b], expected)
    if generator is DIGITS:  # one channel: the published maximum
        assert (lined.image >= plain.image).all()
        assert ((plain.image > 0) & (plain.image < grey) & (lined.image == grey)).any()


def test_offsets_of_the_grid_are_uniform():
    scenes = draw_scenes(replace(DIGITS, counts="0", background="grid"), 0, "train", 0, 2000)
    offset = scenes.scene_factors["grid_offset"]
    assert stats.chisquare(np.bincount(offset @ [1, 5], minlength=25)).pvalue > 1e-4
    lit = scenes.image[..., 0] == 102
    assert np.array_equal(np.unique(scenes.image), [0, 102])
    assert (lit.sum((1, 2)) == 2500 - 40 * 40).all()  # every fifth row and column of 50


def test_the_same_background_lies_behind_a_scene_however_it_is_asked_for():
    for text in ("noise", "grid"):
        generator = replace(DIGITS, background=text)
        whole = draw_scenes(generator, 0, "train", 0, 600)
        assert differences(draw_scenes(generator, 0, "train", 250, 20), whole[250:270]) == []
        assert differences(draw_scenes(generator, 1, "train", 0, 20), whole[:20]) != []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Noise",
        "noise:",
        "noise:0.8,0.1",
        "noise:0.8,0.1,nan",
        "noise:0.8,0.1,0.2,1",
        "noise:1e3,0,0",
        "grid:5",
        "grid:5,0.4 ",
        "stripes",
    ],
)
def test_nonsense_is_refused(text):
    with pytest.raises(UsageError, match=r"background: expected 'plain', 'noise'"):
        Background(text)
    with pytest.raises(UsageError, match="background"):
        replace(DIGITS, background=text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("noise:0.8,0.1,-0.2", "a deviation between 0 and 1000, got -0.2 in 'noise"),
        ("noise:-1,0,0", "a gain between 0 and 1000, got -1"),
        ("noise:1,-.5,0", "an offset between 0 and 1000, got -0.5"),
        ("grid:1,0.4", "a spacing of 2 to 1000 whole pixels, got 1 in 'grid:1,0.4'"),
        ("grid:0,0.4", "a spacing of 2 to 1000 whole pixels, got 0"),
        ("grid:2.5,0.4", "a spacing of 2 to 1000 whole pixels, got 2.5"),
        ("grid:5,1.1", "a grey level between 0 and 1, got 1.1"),
        ("grid:5,4", "a grey level between 0 and 1, got 4"),
        ("grid:5,-1", "a grey level between 0 and 1, got -1"),
    ],
)
def test_a_constant_out_of_range_is_named(text, message):
    with pytest.raises(UsageError, match=message):
        Background(text)


@pytest.mark.parametrize("text", ["noise:1,1,0", "noise:0.8,1.5,0.1", "noise:0,0.1,0.2", "noise:0.003,0,0"])
def test_noise_that_leaves_nothing_to_be_seen_is_refused(text):
    with pytest.raises(UsageError, match="expected a gain .* through which nothing can be seen"):
        Background(text)


def test_a_grid_wider_than_the_canvas_is_refused():
    with pytest.raises(UsageError, match="a spacing of at most the canvas, 50 pixels, got 51"):
        replace(DIGITS, background="grid:51,0.4")
    lit = draw_scenes(replace(DIGITS, counts="0", background="grid:50,0.4"), 0, "train", 0, 20).image > 0
    assert (lit.sum((1, 2, 3)) == 99).all()  # one row and one column


@pytest.mark.parametrize(
    ("generator", "text", "where"),
    [
        (DIGITS, "grid", None),
        (replace(DIGITS, polarity="black-on-white"), "grid", "no ground"),
        (replace(DIGITS, value_range=(120, 255)), "grid:5,0.4", "no ground"),
        (replace(DIGITS, value_range=(120, 255)), "grid:5,0.6", None),
        (MultiDSprites(ground="#101010"), "grid", None),
        (MultiDSprites(ground="#101070"), "grid", "no ground"),
        (MultiDSprites(ground="grey"), "grid:5,0.5", "%"),
        (MultiDSprites(ground="white"), "noise", None),
    ],
)
def test_a_grid_whose_lines_do_not_show_is_noted(generator, text, where):
    generator = replace(generator, background=text)
    notes = [note for note in generator.notes() if "lines show only" in note]
    plain, lined = pictures(replace(generator, counts="0"), text)
    changed = (plain.image != lined.image).any((1, 2, 3)).mean()  # share of grounds with lines
    assert (notes == []) == (where is None)
    if where == "%":
        assert int(notes[0].partition("%")[0][-2:]) / 100 == pytest.approx(changed, abs=0.1)
    elif where:
        assert where in notes[0]
        assert changed == 0
    else:
        assert changed == 1
