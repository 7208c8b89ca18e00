import math
import pickle

import numpy as np
import pytest

from multiobj_data.errors import UsageError
from multiobj_data.factors.colours import COLOUR_WORDS, colour_code
from multiobj_data.factors.regions import Region

SHAPES = {"square": 0, "ellipse": 1, "heart": 2, "light star": 5}
VOCABULARY = {
    "shape": SHAPES,
    "colour": COLOUR_WORDS,
    "scale": None,
    "orientation": None,
    "class": {"a": 3, "b": 4},
}


def values(n=4000, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "shape": rng.choice([0, 1, 2, 5], n).astype(np.int16),
        "scale": rng.choice(np.linspace(0.5, 1, 6), n).astype(np.float32),
        "orientation": rng.uniform(0, 2 * math.pi, n).astype(np.float32),
        "colour": rng.choice([0, 0.5, 1], (n, 3)).astype(np.float32),
        "class": rng.choice([3, 4], n),
        "unused": rng.random((n, 7)),
    }


CASES = {
    "shape=heart": lambda v, c: v["shape"] == 2,
    "shape!=heart": lambda v, c: v["shape"] != 2,
    "shape=heart,square": lambda v, c: np.isin(v["shape"], [0, 2]),
    "shape!=heart,square": lambda v, c: ~np.isin(v["shape"], [0, 2]),
    "shape=light star": lambda v, c: v["shape"] == 5,
    "shape=1..2": lambda v, c: np.isin(v["shape"], [1, 2]),
    "scale=0.6": lambda v, c: np.isclose(v["scale"], 0.6),
    "scale=0.6..0.8": lambda v, c: (v["scale"] > 0.55) & (v["scale"] < 0.85),
    "scale!=0.6,0.8..1": lambda v, c: np.isclose(v["scale"], 0.5) | np.isclose(v["scale"], 0.7),
    "orientation=0.5pi..pi": lambda v, c: (v["orientation"] >= math.pi / 2) & (v["orientation"] <= math.pi),
    "colour=red": lambda v, c: c == COLOUR_WORDS["red"],
    "colour!=red,3..5": lambda v, c: ~np.isin(c, [3, 4, 5]),
    "class=3": lambda v, c: v["class"] == 3,
    "shape=heart & colour=red | scale=0.5..0.6": lambda v, c: (
        ((v["shape"] == 2) & (c == 3)) | (v["scale"] < 0.65)
    ),
    "scale=0.5|shape=0&scale=1|class=a&shape!=heart&colour=black": lambda v, c: (
        (v["scale"] < 0.55)
        | ((v["shape"] == 0) & (v["scale"] > 0.95))
        | ((v["class"] == 3) & (v["shape"] != 2) & (c == 0))
    ),
}


@pytest.mark.parametrize("text", CASES)
def test_a_region_contains_what_its_text_says(text):
    drawn = values()
    inside = Region.parse(text, VOCABULARY).contains(drawn)
    assert inside.dtype == bool
    assert 0 < inside.sum() < len(inside)
    assert np.array_equal(inside, CASES[text](drawn, colour_code(drawn["colour"])))


@pytest.mark.parametrize("text", CASES)
def test_text_survives_and_spaces_do_not_matter(text):
    region = Region.parse(text, VOCABULARY)
    again = Region.parse(str(region), VOCABULARY)
    spaced = Region.parse(
        text.replace("=", " = ").replace("! =", " !=").replace("..", " .. ").replace(",", " , "), VOCABULARY
    )
    assert region == again == spaced == pickle.loads(pickle.dumps(region))
    assert len({region, again, spaced}) == 1
    assert str(again) == str(region)


def test_text_is_normalised():
    region = Region.parse(
        " shape=2&colour =red,4| scale= .50.. 0.6|orientation!=pi,0.25pi..2pi,1e-3 ", VOCABULARY
    )
    text = "shape=heart & colour=red,yellow | scale=0.5..0.6 | orientation!=pi,0.25pi..2pi,0.001"
    assert str(region) == text
    assert region.names == ("shape", "colour", "scale", "orientation")


def test_random_numbers_survive_their_text():
    for number in [
        *np.random.default_rng(0).normal(size=50).tolist(),
        0.0,
        -3.0,
        1e-9,
        1e20,
        math.pi / 3,
        11 * math.pi,
        -math.pi,
    ]:
        region = Region.parse(f"scale={number!r}", {"scale": None})
        assert Region.parse(str(region), {"scale": None}) == region


def test_both_ends_of_a_range_are_inside_in_float32():
    region = Region.parse("scale=0.6..0.7,50.3", VOCABULARY)
    ends = np.array([0.6, 0.7, 50.3, 0.59999, 0.70001, 50.31], np.float32)
    assert region.contains({"scale": ends}).tolist() == [True] * 3 + [False] * 3
    assert region.contains({"scale": ends.astype(np.float64)}).tolist() == [True] * 3 + [False] * 3


def test_a_missing_object_is_inside_nothing():
    drawn = {"scale": np.array([np.nan, 0.5]), "colour": np.array([[np.nan] * 3, [1, 0, 0]], np.float32)}
    for text in ("scale=0..9", "scale!=0.9", "colour=red", "colour!=blue"):
        assert Region.parse(text, VOCABULARY).contains(drawn).tolist() == [False, True]


def test_colours_may_be_codes_and_factors_may_have_a_batch_axis():
    region = Region.parse("colour=red & scale=0.5..1", VOCABULARY)
    codes = {"colour": np.array([[3, 4, 3]]), "scale": np.array([[0.5, 0.5, 0.2]])}
    assert region.contains(codes).tolist() == [[True, False, False]]
    rgb = np.eye(3, dtype=np.float32)[None]
    assert region.contains({**codes, "colour": rgb}).tolist() == [[True, False, False]]


def test_words_of_ones_own_are_no_colours():
    region = Region.parse("paint=red", {"paint": {"red": 0, "blue": 1}})
    assert region.contains({"paint": np.array([[0.0, 1.0, 0.0]])}).tolist() == [[True, False, True]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "shap=heart",
            "no factor is called 'shap'. Did you mean 'shape'. Known: class, colour, orientation, scale, shape",
        ),
        ("banana=1", "Known: class, colour"),
        (
            "shape=hart",
            "no shape is called 'hart'. Did you mean 'heart'. Known: ellipse, heart, light star, square",
        ),
        ("shape=Heart", "Did you mean 'heart'"),
        ("shape=3", "no shape has the code 3; codes: square 0, ellipse 1"),
        ("shape=2.5", "no shape has the code 2.5"),
        ("shape=3..4", "no shape has a code in 3..4"),
        ("shape=square..heart", "written in codes"),
        ("scale=big", "scale takes numbers and ranges.*'big'"),
        ("scale=0.6..0.5", "increasing"),
        ("scale=0.5..", "got '0.5..'"),
        ("scale=0.5,,0.6", "got ''"),
        ("scale=1..2..3", "got '1..2..3'"),
        ("scale=nan", "takes numbers"),
        ("(shape=heart | shape=square) & scale=1", "parentheses are not supported"),
        ("", "expected terms"),
        ("shape", "expected terms.*got 'shape'"),
        ("shape=", "expected terms"),
        ("=heart", "expected terms"),
        ("shape==heart", "expected terms"),
        ("scale<0.5", "expected terms"),
        ("scale>=0.5", "expected terms"),
        ("shape=heart &", "expected terms"),
        ("shape=heart && scale=1", "expected terms"),
        ("| shape=heart", "expected terms"),
        ("shape=heart and scale=1", "expected terms"),
    ],
)
def test_a_malformed_region_is_refused(text, said):
    with pytest.raises(UsageError, match=said):
        Region.parse(text, VOCABULARY)


def test_values_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="values of 'scale', got 'shape'"):
        Region.parse("scale=1", VOCABULARY).contains({"shape": np.zeros(3)})
    with pytest.raises(UsageError, match="shape .n."):
        Region.parse("scale=1", VOCABULARY).contains({"scale": np.float32(1)})
