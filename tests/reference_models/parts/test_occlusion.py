from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from reference_models.parts.objects.occlusion import (
    Orders,
    Query,
    any_objects,
    first_objects,
    uncovered,
    visibility,
    visible_parts,
)
from reference_models.parts.objects.rectangles import Profiles, Rectangles

H, W, A = 12, 10, 5


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rectangles(b: int, k: int) -> Rectangles:
    corner = torch.rand(b, k, 2, dtype=torch.float64, generator=rng()) * 7 - 1
    sides = torch.rand(b, k, 2, dtype=torch.float64, generator=rng(1)) * 5 + 1
    return Rectangles(corner, sides)


def some_orders(b: int, k: int) -> Tensor:
    return torch.stack([torch.randperm(k, generator=rng(i)) for i in range(b)])


def test_shares_of_a_pixel_sum_to_one() -> None:
    parts = visible_parts(rectangles(5, 4).coverage(H, W).pixels, some_orders(5, 4))
    assert parts.min() >= 0
    torch.testing.assert_close(parts.sum(1), torch.ones(5, H, W, dtype=torch.float64))


def test_whole_pixels_show_what_a_painter_paints_last() -> None:
    boxes = torch.randint(0, 8, (6, 4, 2), generator=rng())
    sides = torch.randint(1, 6, (6, 4, 2), generator=rng(1))
    order = some_orders(6, 4)
    parts = visible_parts(Rectangles(boxes.double(), sides.double()).coverage(H, W).pixels, order)
    for b in range(6):
        canvas = torch.zeros(H, W, dtype=torch.long)
        for i in reversed(order[b].tolist()):
            (y, x), (h, w) = boxes[b, i].tolist(), sides[b, i].tolist()
            canvas[y : y + h, x : x + w] = i + 1
        assert torch.equal(parts[b].argmax(0), canvas)
        assert (parts[b].amax(0) == 1).all()


def test_the_background_is_what_no_object_covers() -> None:
    pixels = rectangles(3, 3).coverage(H, W).pixels
    free = uncovered(pixels, first_objects(3))
    assert (free[:, 0] == 1).all()
    torch.testing.assert_close(free[:, 2], (1 - pixels[:, 0]) * (1 - pixels[:, 1]))
    in_order = torch.arange(3).expand(3, 3)
    torch.testing.assert_close(free[:, 3], visible_parts(pixels, in_order)[:, 0])


def test_visibility_is_what_the_samples_read_of_the_uncovered_canvas() -> None:
    found = rectangles(6, 3)
    sampling, covered = found.sampling(A, H, W), found.coverage(H, W)
    queries = [Query(0, frozenset()), Query(1, frozenset({0})), Query(0, frozenset({2}))]
    seen = visibility(queries, sampling, sampling.read_profiles(covered))
    for place, (item, front) in enumerate(queries):
        free = torch.ones(6, H, W, dtype=torch.float64)
        for j in front:
            free = free * (1 - covered.pixels[:, j])
        expected = sampling.inside[:, item] * sampling.read(free[:, None])[:, item, 0]
        torch.testing.assert_close(seen[:, place], expected)


def test_an_object_is_hidden_by_all_in_front_of_it() -> None:
    found = Rectangles(
        torch.tensor([[[1.0, 1], [3, 2], [1, 1]]]).double(),
        torch.tensor([[[2.0, 2], [3, 3], [4, 4]]]).double(),
    )
    sampling = found.sampling(A, H, W)
    covering = sampling.read_profiles(found.coverage(H, W))
    one, other, both = visibility(
        [Query(2, frozenset({0})), Query(2, frozenset({1})), Query(2, frozenset({0, 1}))], sampling, covering
    )[0]
    assert 0 < both.sum() < min(one.sum(), other.sum())
    torch.testing.assert_close(both, one * other)  # nothing of it is off the canvas


def test_in_one_order_every_object_is_asked_for_once() -> None:
    orders = Orders(first_objects(3), every=False)
    assert orders.queries == [
        Query(0, frozenset()),
        Query(1, frozenset({0})),
        Query(2, frozenset({0, 1})),
    ]
    values = torch.randn(4, 3, dtype=torch.float64, generator=rng())
    counts = torch.rand(4, 4, dtype=torch.float64, generator=rng(1)).softmax(-1)
    posterior = orders.posterior(values)
    at_least = counts.flip(-1).cumsum(-1).flip(-1)[:, 1:]
    torch.testing.assert_close(orders.shares(counts, posterior), at_least)
    assert (orders.surprise(posterior) == 0).all()


def test_sum_over_orders_against_all_permutations() -> None:
    orders = Orders(first_objects(3), every=True)
    assert len(orders.queries) == 12
    values = torch.randn(2, 12, dtype=torch.float64, generator=rng()) * 3
    posterior, surprise = orders.posterior(values), orders.surprise(orders.posterior(values))
    value_of = dict(zip(orders.queries, values.unbind(-1), strict=True))
    for n in range(4):
        counts = torch.zeros(2, 4, dtype=torch.float64)
        counts[:, n] = 1
        explained = (orders.shares(counts, posterior) * values).sum(-1) - surprise[:, n]
        totals = [
            sum((value_of[Query(i, frozenset(p[:d]))] for d, i in enumerate(p)), torch.zeros(2).double())
            for p in itertools.permutations(range(n))
        ]
        marginal = torch.stack(totals).logsumexp(0) - math.log(math.factorial(n))
        torch.testing.assert_close(explained, marginal)
        best = [list(itertools.permutations(range(n)))[i] for i in torch.stack(totals).argmax(0)]
        found = orders.best(posterior, torch.full((2,), n))
        assert [tuple(row[:n]) for row in found.tolist()] == best
        assert [sorted(row) for row in found.tolist()] == [[0, 1, 2]] * 2


@pytest.mark.parametrize("every", [False, True])
def test_sum_over_orders_of_every_set(every: bool) -> None:
    orders = Orders(any_objects(3), every)
    assert orders.sets == [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    assert orders.members.sum(-1).tolist() == orders.counts.tolist() == [0, 1, 1, 1, 2, 2, 2, 3]
    assert orders.alike.tolist() == [1, 3, 3, 3, 3, 3, 3, 1]
    values = torch.randn(2, len(orders.queries), dtype=torch.float64, generator=rng()) * 3
    value_of = dict(zip(orders.queries, values.unbind(-1), strict=True))
    evidence, posterior = orders.evidence(values), orders.posterior(values)
    for place, those in enumerate(orders.sets):
        possible = list(itertools.permutations(those)) if every else [those]
        totals = torch.stack(
            [
                sum((value_of[Query(i, frozenset(p[:d]))] for d, i in enumerate(p)), torch.zeros(2).double())
                for p in possible
            ]
        )
        torch.testing.assert_close(evidence[:, place], totals.logsumexp(0) - math.log(len(possible)))
        found = orders.best(posterior, torch.full((2,), place))
        assert [tuple(row[: len(those)]) for row in found.tolist()] == [possible[i] for i in totals.argmax(0)]


def test_each_set_hides_the_background_by_itself() -> None:
    pixels = rectangles(3, 3).coverage(H, W).pixels
    free = uncovered(pixels, any_objects(3))
    for place, those in enumerate(any_objects(3)):
        torch.testing.assert_close(free[:, place], (1 - pixels[:, list(those)]).prod(1))


def test_profiles_multiply_to_pixels() -> None:
    profiles = Profiles(torch.tensor([[[0.5, 1.0]]]), torch.tensor([[[1.0, 0.2, 0.0]]]))
    torch.testing.assert_close(profiles.pixels, torch.tensor([[[[0.5, 0.1, 0.0], [1.0, 0.2, 0.0]]]]))
