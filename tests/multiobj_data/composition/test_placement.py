import itertools

import numpy as np
import pytest
from scipy.stats import chisquare

from multiobj_data.composition.overlap import Overlap, Placed
from multiobj_data.composition.placement import Rules, estimate_acceptance, lay_out, place
from multiobj_data.errors import InfeasibleError
from multiobj_data.sprites.bank import Sprites

CORNER = Sprites.cut(np.array([[[9, 9], [9, 0]]], np.uint8))  # three pixels: an L


class Corners:
    """Proposes L-shaped objects anywhere on a canvas."""

    def __init__(self, canvas):
        self.canvas = canvas

    def nothing(self):
        return Placed.nowhere(CORNER)

    def propose(self, rng, n):
        return place(rng, CORNER, np.zeros(n, np.int64), self.canvas, {"letter": rng.integers(3, size=n)})


PIXELS = Rules(Overlap("pixels"))


def valid_layouts(canvas, count):
    """Enumerate every layout of L-shaped objects that share no pixel."""
    places = list(itertools.product(range(canvas - 1), repeat=2))
    ink = {(x, y): {(x, y), (x + 1, y), (x, y + 1)} for x, y in places}
    return [
        layout
        for layout in itertools.product(places, repeat=count)
        if len(set().union(*(ink[place] for place in layout))) == 3 * count
    ], len(places) ** count


def test_accepted_layouts_are_uniform_over_the_valid_ones():
    layouts, candidates = valid_layouts(4, 3)
    n = 40 * len(layouts)
    found = lay_out(np.random.default_rng(0), Corners(4), 3, PIXELS, n)
    keys = [tuple(zip(p.x.tolist(), p.y.tolist(), strict=True)) for p in found.objects]
    seen = dict.fromkeys(layouts, 0)
    for layout in zip(*keys, strict=True):
        seen[layout] += 1  # a KeyError is an invalid layout
    assert chisquare(list(seen.values())).pvalue > 1e-4
    assert found.attempts.sum() / n == pytest.approx(candidates / len(layouts), rel=0.05)
    assert found.attempts.min() >= 1


def test_acceptance_is_estimated_from_one_down_to_the_impossible():
    rng = np.random.default_rng(0)
    for count in (2, 3):
        layouts, candidates = valid_layouts(4, count)
        assert estimate_acceptance(rng, Corners(4), count, PIXELS) == pytest.approx(
            len(layouts) / candidates, rel=0.1
        )
    assert estimate_acceptance(rng, Corners(4), 9, PIXELS) == 0
    assert estimate_acceptance(rng, Corners(4), 9, Rules()) == 1


def test_the_impossible_ends_with_an_error():
    with pytest.raises(InfeasibleError, match="9 objects: .* candidates gave only 0 of 1"):
        lay_out(np.random.default_rng(0), Corners(4), 9, PIXELS, 1)


def test_scenes_without_objects_need_one_attempt():
    layouts = lay_out(np.random.default_rng(0), Corners(4), 0, PIXELS, 5)
    assert layouts.objects == []
    assert layouts.attempts.tolist() == [1] * 5


class Letters:
    """The objects of one letter."""

    names = ("letter",)

    def contains(self, values):
        return values["letter"] == 2


def test_objects_asked_to_differ_are_uniform_over_the_ways_to_differ():
    rules = Rules(distinct=("letter",))
    layouts = lay_out(np.random.default_rng(0), Corners(9), 2, rules, 6000)
    first, second = (placed.values("letter") for placed in layouts.objects)
    counts = np.histogram2d(first, second, bins=3)[0]
    assert (np.diag(counts) == 0).all()
    assert chisquare(counts[~np.eye(3, dtype=bool)]).pvalue > 1e-4
    assert layouts.attempts.mean() == pytest.approx(3 / 2, rel=0.05)
    assert estimate_acceptance(np.random.default_rng(0), Corners(9), 4, rules) == 0


def test_scenes_that_must_include_an_object_follow_the_law_given_that_they_do():
    rules = Rules(include=Letters())
    layouts = lay_out(np.random.default_rng(0), Corners(9), 2, rules, 5000)
    first, second = (placed.values("letter") for placed in layouts.objects)
    counts = np.histogram2d(first, second, bins=3)[0]
    wanted = np.zeros((3, 3), bool)
    wanted[2] = wanted[:, 2] = True
    assert (counts[~wanted] == 0).all()
    assert chisquare(counts[wanted]).pvalue > 1e-4
    share = estimate_acceptance(np.random.default_rng(0), Corners(9), 2, rules)
    assert share == pytest.approx(5 / 9, rel=0.1)
