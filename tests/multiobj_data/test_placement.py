import itertools

import numpy as np
import pytest
from scipy.stats import chisquare

from multiobj_data.errors import InfeasibleError
from multiobj_data.overlap import Overlap
from multiobj_data.placement import estimate_acceptance, lay_out
from multiobj_data.sprites.bank import Sprites

CORNER = Sprites.cut(np.array([[[9, 9], [9, 0]]], np.uint8))  # three pixels: an L


def draw_corner(rng, n):
    return CORNER, np.zeros(n, np.int64)


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
    found = lay_out(np.random.default_rng(0), draw_corner, 3, 4, Overlap("pixels"), n)
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
        assert estimate_acceptance(rng, draw_corner, count, 4, Overlap("pixels")) == pytest.approx(
            len(layouts) / candidates, rel=0.1
        )
    assert estimate_acceptance(rng, draw_corner, 9, 4, Overlap("pixels")) == 0
    assert estimate_acceptance(rng, draw_corner, 9, 4, None) == 1


def test_the_impossible_ends_with_an_error():
    with pytest.raises(InfeasibleError, match="9 objects: .* candidates gave only 0 of 1"):
        lay_out(np.random.default_rng(0), draw_corner, 9, 4, Overlap("pixels"), 1)


def test_scenes_without_objects_need_one_attempt():
    layouts = lay_out(np.random.default_rng(0), draw_corner, 0, 4, Overlap("pixels"), 5)
    assert layouts.objects == []
    assert layouts.attempts.tolist() == [1] * 5
