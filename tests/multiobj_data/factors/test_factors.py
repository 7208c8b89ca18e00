import math
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

from multiobj_data.errors import InfeasibleError, UsageError
from multiobj_data.factors import Choice, Minus, Mixture, Only, Product, Uniform, check_law, parse_law
from multiobj_data.factors.colours import HSV, Grey, parse_colours
from multiobj_data.factors.regions import Region

SHAPE = Choice("shape", (0, 1, 2))
SCALE = Choice("scale", (0.5, 0.6, 0.7, 0.8), weights=(1, 2, 3, 4))
BOTH = Product((SHAPE, SCALE, Uniform("position", (0, -1), (1, 1))))
HELD_OUT = Region.parse("shape=2 & scale=0.5..0.6 | scale=0.8", {"shape": None, "scale": None})
LAWS = [
    Uniform("x", -0.1, 0.7),
    Uniform("x", 3, 3),
    Uniform("position", (0, 5.5), (1, 7)),
    SHAPE,
    SCALE,
    Choice("pair", ((1, 2), (1, 3), (2, 2))),
    Choice("orientation", tuple(np.linspace(0, 2 * np.pi, 40))),
    BOTH,
    Mixture((Uniform("x", 0, 1), Uniform("x", 4, 5)), (1, 3)),
    Mixture((BOTH, Only(BOTH, HELD_OUT))),
    Minus(BOTH, HELD_OUT),
    Only(BOTH, HELD_OUT),
    Minus(Minus(BOTH, HELD_OUT), Uniform("position", (0, -1), (0.5, 0))),
    HSV(),
    HSV((-1 / 12, 0.5, 0.1), (1 / 12, 1, 0.9)),
    Grey(0.2, 0.4),
    *(
        parse_colours(text)
        for text in ("rgb", "levels:5", "named", "white", "grey", "hsv:0.9..1.2,0..1,0..1")
    ),
    *(parse_law("s", text) for text in ("0.75", "0.5..1", "0.5..1/6", "0.5:2,1:1", "0..2pi/40")),
]


def draw(law, n=10_000, seed=0):
    return law.sample(np.random.default_rng(seed), n)


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_every_law_keeps_the_contract(law):
    check_law(law)


@dataclass(frozen=True)
class Broken:
    fault: str
    names = ("x",)

    def sample(self, rng, n):
        if self.fault == "global":
            rng = np.random
        if self.fault == "entropy":
            rng = np.random.default_rng()
        x = rng.normal(size=n).astype("f8" if self.fault == "dtype" and n > 1 else "f4")
        return {"y" if self.fault == "names" else "x": x[None] if self.fault == "shape" else x}

    def contains(self, values):
        x = values["x"]
        inside = np.abs(x) < (0.1 if self.fault == "narrow" else 10)
        return inside | np.isnan(x) if self.fault == "nan" else inside | (self.fault == "wide")


def test_check_law_accepts_an_outsiders_law():
    check_law(Broken("none"))


@pytest.mark.parametrize("fault", ["global", "entropy", "dtype", "names", "shape", "narrow", "nan", "wide"])
def test_check_law_finds_each_fault(fault):
    with pytest.raises(AssertionError, match="expected that"):
        check_law(Broken(fault))


def test_uniform_is_uniform_and_float32():
    x = draw(Uniform("x", -2, 3))["x"]
    assert x.dtype == np.float32
    assert stats.kstest(x, stats.uniform(-2, 5).cdf).pvalue > 1e-4


class Highest:
    """Always draws the largest number below 1."""

    def random(self, shape, dtype):
        return np.full(shape, np.nextafter(dtype(1), dtype(0)))


def test_uniform_never_leaves_its_bounds_in_float32():
    ends = np.random.default_rng(0).normal(size=(2, 2000)) * 10.0 ** np.repeat([0, -4, -9, 4], 500)
    ends[1, ::2] *= 1e-6  # of very different sizes, too
    ends = np.sort(ends, 0).astype(np.float32)
    for low, high in ends.T.tolist():
        law = Uniform("x", low, high)
        assert law.contains(law.sample(Highest(), 1)).all()


def test_a_uniform_vector_has_independent_axes():
    v = draw(Uniform("v", (0, 10), (1, 20)))["v"]
    assert v.shape == (10_000, 2)
    assert abs(np.corrcoef(v.T)[0, 1]) < 0.05
    assert stats.kstest(v[:, 1], stats.uniform(10, 10).cdf).pvalue > 1e-4


def test_choice_follows_its_weights():
    values, seen = np.unique(draw(SCALE)["scale"], return_counts=True)
    np.testing.assert_allclose(values, SCALE.values, rtol=1e-6)
    assert stats.chisquare(seen, [1000, 2000, 3000, 4000]).pvalue > 1e-4


@pytest.mark.parametrize(
    ("values", "dtype", "shape"),
    [((1, 2), "int16", (5,)), ((1, 2.5), "float32", (5,)), (((1, 2), (3, 4)), "int16", (5, 2))],
)
def test_whole_numbers_are_int16_and_others_float32(values, dtype, shape):
    found = draw(Choice("x", values), 5)["x"]
    assert found.dtype == dtype
    assert found.shape == shape


@pytest.mark.parametrize("d", [1, 3, 8])
def test_choice_contains_as_brute_force_says(d):
    rng = np.random.default_rng(0)
    table = np.unique(rng.integers(0, 3, (40, d)) / 7, axis=0)
    found = (rng.integers(0, 3, (3000, d)) / 7).astype(np.float32)
    found[:500] = table[rng.integers(len(table), size=500)]
    found[::3, -1] += 1e-3
    found[7, 0] = np.nan
    law = Choice("x", tuple(map(tuple, table)))
    expected = (np.abs(found[:, None] - table) < 1e-5).all(-1).any(1)
    assert 0 < expected.sum() < len(expected)
    assert np.array_equal(law.contains({"x": found}), expected)


def test_factors_that_come_as_float64_or_integers_are_recognised():
    assert SCALE.contains({"scale": np.array([0.6, 0.65])}).tolist() == [True, False]
    assert Uniform("x", 0, 0.6).contains({"x": np.array([0, 1])}).tolist() == [True, False]
    assert Uniform("x", 0, 0.6).contains({"x": np.array([0.6, 0.6001, 1e300])}).tolist() == [
        True,
        False,
        False,
    ]


def test_a_mixture_picks_by_its_weights():
    x = draw(Mixture((Uniform("x", 0, 1), Uniform("x", 4, 5)), (1, 3)))["x"]
    assert stats.binomtest(int((x > 2).sum()), len(x), 0.75).pvalue > 1e-4
    assert stats.kstest(x[x > 2], stats.uniform(4, 1).cdf).pvalue > 1e-4
    assert abs(np.corrcoef(x[1:], x[:-1])[0, 1]) < 0.05  # row by row, not one law after the other


def test_a_mixture_keeps_rows_together():
    corners = [Product((Choice("a", (i,)), Choice("b", (i,)))) for i in range(3)]
    values = draw(Mixture(corners))
    assert np.array_equal(values["a"], values["b"])
    assert set(values["a"]) == {0, 1, 2}


def test_minus_and_only_split_a_law_in_two():
    values = draw(BOTH)
    train, test = Minus(BOTH, HELD_OUT), Only(BOTH, HELD_OUT)
    assert np.array_equal(train.contains(values), ~test.contains(values))
    assert not test.contains(draw(train)).any()
    assert not train.contains(draw(test)).any()


def test_rejection_draws_from_the_law_given_the_condition():
    values = draw(Minus(BOTH, HELD_OUT), 20_000)
    seen = np.array(
        [
            [np.sum((values["shape"] == s) & np.isclose(values["scale"], c)) for c in SCALE.values]
            for s in range(3)
        ]
    )
    share = np.array([[1, 2, 3, 0], [1, 2, 3, 0], [0, 0, 3, 0]])
    assert not seen[share == 0].any()
    expected = share[share > 0] * 20_000 / share.sum()
    assert stats.chisquare(seen[share > 0], expected).pvalue > 1e-4
    assert stats.kstest(values["position"][:, 1], stats.uniform(-1, 2).cdf).pvalue > 1e-4


@pytest.mark.parametrize("n", [1, 300, 3000])
def test_a_rare_region_is_found(n):
    x = draw(Only(Uniform("x", 0, 1), Uniform("x", 0.5, 0.5002)), n)["x"]
    assert x.shape == (n,)
    assert ((x >= 0.5) & (x <= np.float32(0.5002))).all()


@pytest.mark.parametrize(
    "law", [Only(SHAPE, Choice("shape", (7,))), Minus(BOTH, SHAPE)], ids=["only", "minus"]
)
@pytest.mark.parametrize("n", [1, 5000])
def test_an_empty_law_is_infeasible(law, n):
    with pytest.raises(InfeasibleError, match="leaves nothing to draw"):
        draw(law, n)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Product((SHAPE, SCALE, SHAPE)), "'shape' is drawn by two"),
        (lambda: Product(()), "at least one law"),
        (lambda: Mixture((SHAPE, SCALE)), "same factors"),
        (lambda: Mixture((SHAPE, Choice("shape", (0.5,)))), "int16.*float32"),
        (lambda: Mixture((SHAPE, SHAPE), (1,)), "2 weights"),
        (lambda: Minus(SHAPE, SCALE), "'scale', which is not drawn here: shape"),
        (lambda: Only(SHAPE, HELD_OUT), "'scale'"),
        (lambda: Uniform("x", 1, 0), "increasing"),
        (lambda: Uniform("x", (0, 1), 1), "one length"),
        (lambda: Uniform("x", 0, math.nan), "expected a number"),
        (lambda: Uniform("x", "0", "1"), "expected a number"),
        (lambda: Choice("x", ()), "at least one value"),
        (lambda: Choice("x", (1, (1, 2))), "one length"),
        (lambda: Choice("x", (1, 2, 1)), "each value once"),
        (lambda: Choice("x", (1, 70_000)), "int16"),
        (lambda: Choice("x", (1, 2), (1, 0)), "2 weights above 0"),
        (lambda: SHAPE.contains({"scale": np.zeros(3)}), "values of 'shape', got 'scale'"),
        (lambda: Grey().contains({"colour": np.zeros(3)}), "shape .n, 3."),
    ],
)
def test_what_makes_no_sense_is_refused(make, said):
    with pytest.raises(UsageError, match=said):
        make()


def test_laws_are_values():
    assert Choice("x", [1, 2]) == Choice("x", (1, 2))
    assert len({Uniform("v", [0, 0], np.ones(2)), Uniform("v", (0, 0), (1, 1))}) == 1
    assert Choice("x", (1, 2), np.array([1, 2])).weights == (1.0, 2.0)


@pytest.mark.parametrize(
    ("text", "law"),
    [
        ("0.5..1", Uniform("s", 0.5, 1)),
        (".5 .. 1", Uniform("s", 0.5, 1)),
        ("-pi..0.5pi", Uniform("s", -math.pi, math.pi / 2)),
        ("1e-3..1", Uniform("s", 0.001, 1)),
        ("0.5..1/6", Choice("s", (0.5, 0.6, 0.7, 0.8, 0.9, 1.0))),
        ("0..2pi/3", Choice("s", (0.0, math.pi, 2 * math.pi))),
        ("0.5,0.6, 1", Choice("s", (0.5, 0.6, 1.0))),
        ("0.5:2,1:1", Choice("s", (0.5, 1.0), (2, 1))),
        ("0.75", Choice("s", (0.75,))),
        ("pi", Choice("s", (math.pi,))),
    ],
)
def test_texts_of_laws(text, law):
    assert parse_law("s", text) == law


def test_a_law_from_text_is_float32_however_its_numbers_are_written():
    assert draw(parse_law("s", "1,2"))["s"].dtype == np.float32
    assert draw(parse_law("s", "0..4/5"))["s"].dtype == np.float32


@pytest.mark.parametrize(
    "text",
    [
        "",
        "big",
        "0.5..",
        "..1",
        "1..0.5",
        "0.5..1..2",
        "0.5..1/",
        "0.5..1/1",
        "0.5..1/2.5",
        "0.5..1/99999",
        "1,,2",
        "1:2,3",
        "1:2:3",
        "1:0",
        "1:-1",
        "nan",
        "inf",
        "1e999",
        "pi2",
        "2*pi",
        "0.5-1",
        "1,1",
        "0x10",
        "1_0",
        "\u0661",
    ],
)
def test_nonsense_is_refused_with_the_name_and_what_came(text):
    with pytest.raises(UsageError, match="^scale: expected"):
        parse_law("scale", text)
