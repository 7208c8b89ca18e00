from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical

from multiobj_data.errors import UsageError
from multiobj_data.plugins import resolve
from reference_models.parts.objects import constraints
from reference_models.parts.objects.windows import Windows


def layout(
    boxes: list[tuple[float, float, float]], exists: list[float] | None = None, **limits: Any
) -> constraints.Layout:
    """Return one image of 50 x 40 pixels (wide x high) with windows ``(x, y, side)``."""
    x, y, side = (torch.tensor([values], dtype=torch.float64) for values in zip(*boxes, strict=True))
    there = torch.ones_like(x) if exists is None else torch.tensor([exists], dtype=torch.float64)
    return constraints.Layout(Windows(x, y, side), there, (40, 50), **limits)


def value(function: constraints.Constraint, *args: Any, **kwargs: Any) -> float:
    found: Tensor = function(layout(*args, **kwargs))
    assert found.shape == (1,)
    return found.item()


def test_windows_apart_on_one_axis_do_not_overlap() -> None:
    assert value(constraints.overlap, [(10, 10, 8), (18, 10, 8)]) == 0
    assert value(constraints.overlap, [(10, 10, 8), (11, 30, 8)]) == 0


def test_overlap_counts_pixels_of_each_ordered_pair() -> None:
    assert value(constraints.overlap, [(10, 10, 8), (15, 12, 8)]) == pytest.approx(2 * 3)
    assert value(constraints.overlap, [(10, 10, 8), (15, 12, 8), (40, 30, 4)]) == pytest.approx(2 * 3)
    assert value(constraints.overlap, [(10, 10, 8)]) == 0


def test_a_pair_exists_as_far_as_its_later_object() -> None:
    pair = [(10, 10, 8), (15, 12, 8)]
    assert value(constraints.overlap, pair, [1.0, 0.25]) == pytest.approx(2 * 3 * 0.25)
    assert value(constraints.overlap, pair, [1.0, 0.0]) == 0


@pytest.mark.parametrize(
    ("box", "out"),
    [
        ((4, 20, 8), 0),
        ((3, 20, 8), 1),
        ((47, 20, 8), 1),
        ((20, 2, 8), 2),
        ((20, 38, 8), 2),
        ((25, 20, 50), 10),
    ],
)
def test_inside_counts_pixels_beyond_each_edge(box: tuple[float, float, float], out: float) -> None:
    assert value(constraints.inside, [box]) == pytest.approx(out)


def test_sizes_have_a_range_and_a_tolerance() -> None:
    boxes = [(10, 10, 8), (30, 10, 14), (30, 30, 20)]
    assert value(constraints.size, boxes, size_range=(10, 16)) == pytest.approx(2 + 4)
    with pytest.raises(UsageError, match="constraint size: expected a size_range"):
        value(constraints.size, boxes)
    assert value(constraints.same_size, boxes, size_tolerance=5) == pytest.approx(2 * (1 + 7 + 1))
    assert value(constraints.same_size, boxes, [1, 1, 0], size_tolerance=5) == pytest.approx(2 * 1)


def test_number_terms_vanish_only_for_sure_and_even_counts() -> None:
    sure = torch.tensor([[60.0, -60, -60], [60, 60, 60]], dtype=torch.float64)  # 1 and 3 objects
    for form in ("exact", "per-step"):
        number, margin = constraints.number_terms(sure, (1, 3), form)
        assert number.abs().max() < 1e-9
        floor = 0 if form == "exact" else 2 * math.log(2)  # the code's form has a floor
        assert margin.item() == pytest.approx(floor, abs=1e-4)
        unsure, _ = constraints.number_terms(sure * 0.01, (1, 3), form)
        assert (unsure > 0.5).all()
        _, uneven = constraints.number_terms(sure[[0, 0]], (1, 3), form)
        assert uneven.item() > floor + 1
        other, _ = constraints.number_terms(sure, (2,), form)
        assert (other > 10).all()


def test_exact_number_terms_are_kl_divergences() -> None:
    q = Categorical(logits=torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    point = [[1.0 if i == n else 0.0 for i in range(4)] for n in (0, 2)]
    kl = torch.stack(
        [torch.distributions.kl_divergence(Categorical(probs=torch.tensor(p).double()), q) for p in point]
    )
    torch.testing.assert_close(constraints.disallowed_count(q, (0, 2)), kl.amin(0), rtol=1e-6, atol=1e-6)
    mean = Categorical(probs=q.probs.mean(0))
    uniform = Categorical(probs=torch.tensor([0.5, 0, 0.5, 0], dtype=torch.float64))
    expected = torch.distributions.kl_divergence(uniform, mean)
    torch.testing.assert_close(constraints.uneven_counts(q, (0, 2)), expected)


def test_names_resolve_and_bad_ones_say_so() -> None:
    assert resolve("constraints", "same-size") is constraints.same_size
    assert constraints.parse_constraint("overlap*2.5") == ("overlap", 2.5)
    assert constraints.parse_constraint("a.b:c") == ("a.b:c", 1.0)
    for text in ("overlap*", "overlap*x", "overlap*-1", "overlap*inf"):
        if text != "overlap*":
            with pytest.raises(UsageError, match=r"expected name\*coefficient"):
                constraints.parse_constraint(text)
    with pytest.raises(UsageError, match="no constraint named 'overlaps'"):
        resolve("constraints", "overlaps")
