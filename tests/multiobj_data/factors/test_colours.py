import colorsys

import numpy as np
import pytest
from scipy import stats

from multiobj_data.errors import UsageError
from multiobj_data.factors import Choice, Uniform
from multiobj_data.factors.colours import (
    COLOUR_WORDS,
    HSV,
    Grey,
    colour_code,
    hsv_to_rgb,
    parse_colours,
    rgb_to_hsv,
)

TRIPLES = np.concatenate(
    [
        np.random.default_rng(0).random((2000, 3)),
        np.stack(np.meshgrid(*[[0, 0.25, 0.5, 1]] * 3), -1).reshape(-1, 3),
        np.repeat(np.linspace(0, 1, 11)[:, None], 3, 1),
        [[1, 0, 1e-9], [1, 0, 1e-4], [1, 0.9999, 1]],
    ]
).astype(np.float32)


def draw(law, n=20_000):
    return law.sample(np.random.default_rng(0), n)["colour"]


def test_to_rgb_as_the_standard_library():
    expected = [colorsys.hsv_to_rgb(*map(float, row)) for row in TRIPLES]
    found = hsv_to_rgb(TRIPLES)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=3e-6)


def test_to_hsv_as_the_standard_library():
    expected = np.array([colorsys.rgb_to_hsv(*map(float, row)) for row in TRIPLES])
    found = rgb_to_hsv(TRIPLES)
    assert found.dtype == np.float32
    assert (found >= 0).all()
    assert (found[:, 0] < 1).all()
    turn = np.abs(found[:, 0] - expected[:, 0])
    assert np.minimum(turn, 1 - turn).max() < 3e-6
    np.testing.assert_allclose(found[:, 1:], expected[:, 1:], atol=3e-6)


@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 5, 3)])
def test_any_leading_shape(shape):
    triples = np.random.default_rng(1).random(shape)
    assert hsv_to_rgb(triples).shape == rgb_to_hsv(triples).shape == shape
    assert colour_code(triples).shape == shape[:-1]
    np.testing.assert_allclose(hsv_to_rgb(rgb_to_hsv(triples)), triples, atol=3e-6)


@pytest.mark.parametrize("convert", [hsv_to_rgb, rgb_to_hsv, colour_code])
@pytest.mark.parametrize("bad", [np.full((4, 3), 255, np.uint8), [[0.5, -0.1, 0.5]], np.zeros((4, 2)), 0.5])
def test_what_is_no_colour_is_refused(convert, bad):
    with pytest.raises(UsageError, match="expected (RGB|HSV)"):
        convert(bad)


def word(rgb):
    """Name a colour by the definition, one at a time."""
    hue, saturation, value = colorsys.rgb_to_hsv(*map(float, rgb))
    if value < 0.2:
        return "black"
    if saturation < 0.2:
        return "white" if value > 0.85 else "grey"
    hues = ("red", "yellow", "green", "cyan", "blue", "magenta")
    return min(hues, key=lambda h: abs((hue - hues.index(h) / 6 + 0.5) % 1 - 0.5))


def test_words_as_defined():
    rgb = np.random.default_rng(2).random((5000, 3)).astype(np.float32)
    rgb[:1500] = rgb[:1500, :1] * (1 - 0.3 * rgb[:1500])  # pale ones
    codes = colour_code(rgb)
    assert codes.dtype == np.int8
    assert codes.tolist() == [COLOUR_WORDS[word(row)] for row in rgb]
    assert set(codes.tolist()) == set(COLOUR_WORDS.values())


def test_pure_colours_have_their_names_and_a_missing_one_has_none():
    names = ["black", "grey", "white", "red", "yellow", "green", "cyan", "blue", "magenta"]
    pure = ["000", "888", "fff", "f00", "ff0", "0f0", "0ff", "00f", "f0f"]
    rgb = np.array([[int(c, 16) / 15 for c in text] for text in pure] + [[np.nan] * 3, [1, np.nan, 0]])
    assert colour_code(rgb).tolist() == [COLOUR_WORDS[name] for name in names] + [-1, -1]


def test_hsv_is_uniform_in_each_coordinate():
    hsv = rgb_to_hsv(draw(HSV((0.1, 0.4, 0.3), (0.6, 1, 0.9))))
    for axis, (low, high) in enumerate([(0.1, 0.6), (0.4, 1), (0.3, 0.9)]):
        assert stats.kstest(hsv[:, axis], stats.uniform(low, high - low).cdf).pvalue > 1e-4


@pytest.mark.parametrize(
    "law",
    [
        HSV(),
        HSV((0.2, 0, 0), (0.2, 1, 1)),
        HSV((0.2, 0, 0), (0.2, 1e-5, 1e-5)),
        HSV((0.9, 1, 1), (1.9, 1, 1)),
        HSV((0.2, 0.5, 0), (0.3, 1, 0)),
    ],
    ids=str,
)
def test_hsv_contains_what_it_draws_however_dark_or_pale(law):
    assert law.contains({"colour": draw(law, 300_000)}).all()


def test_hsv_contains_by_its_bounds():
    law = HSV((-1 / 12, 0.5, 0.5), (1 / 12, 1, 0.9))
    hues = np.array([0, 0.08, 0.92, 0.09, 0.91, 0.5])
    assert law.contains({"colour": hsv_to_rgb(np.stack([hues, [0.7] * 6, [0.8] * 6], -1))}).tolist() == [
        1,
        1,
        1,
        0,
        0,
        0,
    ]
    others = [[0, 0.49, 0.8], [0, 0.51, 0.8], [0, 0.7, 0.49], [0, 0.7, 0.91], [0, 0, 0.8]]
    assert law.contains({"colour": hsv_to_rgb(np.array(others))}).tolist() == [0, 1, 0, 0, 0]
    wild = np.array([[255, 0, 0], [0.8, -0.1, 0.1], [np.nan, 0, 0]])
    assert not HSV().contains({"colour": wild}).any()


def test_greys_have_equal_channels():
    rgb = draw(Grey(0.25, 0.75))
    assert (rgb == rgb[:, :1]).all()
    assert stats.kstest(rgb[:, 0], stats.uniform(0.25, 0.5).cdf).pvalue > 1e-4
    others = np.array([[0.5, 0.5, 0.5], [0.2, 0.2, 0.2], [0.5, 0.5, 0.51]])
    assert Grey(0.25, 0.75).contains({"colour": others}).tolist() == [True, False, False]


def test_levels_are_those_of_the_literature():
    law = parse_colours("levels:5")
    levels = np.unique(np.rint(draw(law) * 255).astype(int))
    assert levels.tolist() == [0, 63, 127, 191, 255]
    assert len(np.unique(draw(law), axis=0)) == 125


@pytest.mark.parametrize(
    ("text", "law"),
    [
        ("white", Choice("colour", ((1, 1, 1),))),
        ("grey", Grey()),
        ("grey:0.25..1", Grey(0.25, 1)),
        ("grey:0.5", Grey(0.5, 0.5)),
        ("hsv", HSV()),
        ("hsv:-0.1..0.1,0.5..1,1", HSV((-0.1, 0.5, 1), (0.1, 1, 1))),
        ("rgb", Uniform("colour", (0, 0, 0), (1, 1, 1))),
        ("#ff0000, #00Ff00", Choice("colour", ((1, 0, 0), (0, 1, 0)))),
        ("red,#000033", Choice("colour", ((1, 0, 0), (0, 0, 0.2)))),
    ],
)
def test_texts_of_colours(text, law):
    assert parse_colours(text) == law


def test_named_are_seven_different_words():
    codes = np.unique(colour_code(np.array(parse_colours("named").values)))
    assert codes.tolist() == [code for name, code in COLOUR_WORDS.items() if name not in ("black", "grey")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "purple",
        "#ff00",
        "#gg0000",
        "ff0000",
        "levels",
        "levels:1",
        "levels:99",
        "levels:x",
        "grey:",
        "grey:0.5..2",
        "grey:1..0",
        "hsv:0..1",
        "hsv:0..1.5,0..1,0..1",
        "hsv:0..1,0..2,0..1",
        "rgb:1",
        "named:3",
        "red,,blue",
        "red,red",
    ],
)
def test_nonsense_is_refused(text):
    with pytest.raises(UsageError, match="^colours?: expected"):
        parse_colours(text)


def test_a_near_miss_is_named():
    with pytest.raises(UsageError, match="Did you mean 'white'"):
        parse_colours("whit")


@pytest.mark.parametrize(
    "make", [lambda: HSV((0, 0, 0), (1.2, 1, 1)), lambda: HSV((0, 0), (1, 1)), lambda: Grey(-1, 1)]
)
def test_laws_out_of_range_are_refused(make):
    with pytest.raises(UsageError, match="^colour: expected"):
        make()
