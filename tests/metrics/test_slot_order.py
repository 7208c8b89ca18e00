"""Order of slots: constructed orders score what they must, against loops over all pairs of images."""

import itertools
import math

import numpy as np
import pytest
import torch

from metrics.evaluation.baselines import Truth, truth_prediction
from metrics.slots.order import order_consistency, slot_order
from multiobj_data.errors import DataError, UsageError
from multiobj_data.scenes import Prediction, Scenes

S = 5


def objects(orders):
    """Images that each list the kinds in their slots, -1 for an empty one."""
    rows = [(s, k, i) for i, order in enumerate(orders) for s, k in enumerate(order) if k >= 0]
    return tuple(np.array(column) for column in zip(*rows, strict=True))


def by_hand(place, kind, image, slots):
    """The definition, pair of images by pair of images."""
    at = {}
    for p, k, i in zip(place, kind, image, strict=True):
        at.setdefault(k, {}).setdefault(i, []).append(p)
    places, befores = [], []
    for seen in at.values():
        pairs = [
            np.mean([p == q for p in seen[i] for q in seen[j]]) for i, j in itertools.permutations(seen, 2)
        ]
        if pairs:
            places.append((len(seen), (np.mean(pairs) - 1 / slots) / (1 - 1 / slots)))
    for a, b in itertools.combinations(at, 2):
        both = at[a].keys() & at[b].keys()
        sign = {i: np.mean([np.sign(q - p) for p in at[a][i] for q in at[b][i]]) for i in both}
        if len(both) > 1:
            befores.append(
                (len(both), np.mean([sign[i] * sign[j] for i, j in itertools.permutations(both, 2)]))
            )

    def mean(rows):
        return np.average([v for _, v in rows], weights=[n for n, _ in rows]) if rows else math.nan

    return mean(places), mean(befores)


def test_the_same_order_everywhere_is_perfect():
    found = order_consistency(*objects([[3, 1, 0, -1, 2]] * 4), slots=S)
    assert (found.place, found.before) == (1, 1)
    assert found.by_kind == dict.fromkeys(range(4), 1)
    assert (found.images, found.slots) == (4, S)


def test_a_shift_changes_places_but_not_who_comes_first():
    found = order_consistency(*objects([[0, 1, 2, -1, -1], [-1, 0, 1, 2, -1], [-1, -1, 0, 1, 2]]), slots=S)
    assert found.before == 1
    assert found.place == pytest.approx(-1 / 4)  # never the same: below chance


def test_a_reversed_order_disagrees_with_the_first():
    found = order_consistency(*objects([[0, 1, -1, -1, -1], [1, 0, -1, -1, -1]]), slots=S)
    assert found.before == -1


def test_random_orders_score_nothing_on_average_however_few_images():
    rng = np.random.default_rng(0)
    found = [
        order_consistency(*objects([rng.permutation([0, 1, 2, 2, -1]) for _ in range(4)]), slots=S)
        for _ in range(300)
    ]
    for figure in ("place", "before"):
        values = np.array([getattr(each, figure) for each in found])
        assert abs(values.mean()) < 4 * values.std() / math.sqrt(len(values))
        assert values.std() > 0.05


def test_figures_are_those_of_all_pairs_of_images():
    rng = np.random.default_rng(1)
    for _ in range(20):
        image = rng.integers(0, 6, 25)
        kind = rng.integers(3, 7, 25)
        place = rng.integers(0, S, 25)
        found = order_consistency(place, kind, image, S)
        expected = by_hand(place, kind, image, S)
        np.testing.assert_allclose((found.place, found.before), expected, atol=1e-12)


def test_images_kinds_and_rows_may_have_any_names_and_order():
    place, kind, image = objects([[0, 1, 2, -1, 2], [0, 2, 1, -1, -1], [1, 0, 2, -1, -1]])
    expected = order_consistency(place, kind, image, S)
    shuffled = np.random.default_rng(2).permutation(len(place))
    other = order_consistency(*(torch.tensor(x[shuffled]) for x in (place, 7 - kind, 1000 - 3 * image)), S)
    assert (other.place, other.before) == pytest.approx((expected.place, expected.before))


@pytest.mark.parametrize(
    ("orders", "slots"),
    [([[0, 1]], 2), ([[0, -1], [-1, 1]], 2), ([[0], [0]], 1)],
    ids=["one image", "no kind twice", "one slot"],
)
def test_what_cannot_be_said_is_nan(orders, slots):
    found = order_consistency(*objects(orders), slots=slots)
    assert math.isnan(found.place)
    assert math.isnan(found.before)
    assert found.to_json()["place"] is None


def test_one_kind_alone_has_a_place_but_no_neighbour():
    found = order_consistency(*objects([[-1, 0], [-1, 0]]), slots=2)
    assert found.place == 1
    assert math.isnan(found.before)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (([0, 5], [0, 0], [0, 1]), "expected slots 0 to 4"),
        (([0, -1], [0, 0], [0, 1]), "expected slots 0 to 4"),
        (([0, 1], [0, 0], [0]), "got 2, 2 and 1"),
        (([0.5], [0], [0]), "place"),
    ],
)
def test_bad_columns_are_refused(columns, says):
    with pytest.raises(ValueError, match=says):
        order_consistency(*map(np.array, columns), slots=S)


# --- a model's slots


@pytest.fixture
def scenes():
    """Two stripes of background, and 1 to 3 blocks in the first; level is the number from the bottom."""
    n, size = 12, 16
    count = 1 + np.arange(n) % 3
    segments = np.zeros((n, size, size), np.uint8)
    segments[:, size - 4 :] = 1
    boxes = np.full((n, 3, 4), np.nan, np.float32)
    level = np.full((n, 3), -1, np.int16)
    for i in range(n):
        for k in range(count[i]):
            y = 8 - 4 * k
            segments[i, y : y + 4, 4:8] = 2 + k
            boxes[i, k] = 4, y, 8, y + 4
            level[i, k] = k
    factors = {"level": level, "x": boxes[..., 0].copy()}
    image = np.zeros((n, size, size, 3), np.uint8)
    return Scenes(
        image=image, count=count, segments=segments, boxes=boxes, background_segments=2, factors=factors
    )


class Orders(Truth):
    """The true masks, its slots in an order of its own in each image."""

    def __init__(self, orders):
        self.orders = orders

    def predict_scenes(self, scenes):
        masks = truth_prediction(scenes).masks
        order = self.orders(len(scenes), masks.shape[1])
        return Prediction(masks=np.take_along_axis(masks, order[:, :, None, None], axis=1))


def cut(scenes):
    return [(np.arange(i, i + 4), scenes[i : i + 4]) for i in range(0, len(scenes), 4)]


def test_a_model_that_keeps_an_order_is_told_from_one_that_does_not(scenes):
    fixed = slot_order(Orders(lambda n, s: np.tile(np.arange(s)[::-1], (n, 1))), cut(scenes), kind="level")
    assert (fixed.place, fixed.before) == (1, 1)
    assert set(fixed.by_kind) == {"background 0", "background 1", "level 0", "level 1", "level 2"}
    assert (fixed.images, fixed.slots) == (12, 5)
    rng = np.random.default_rng(0)
    shuffled = slot_order(
        Orders(lambda n, s: np.array([rng.permutation(s) for _ in range(n)])), cut(scenes), kind="level"
    )
    assert shuffled.place < 0.3
    assert shuffled.before < 0.4


def test_without_a_factor_all_objects_are_one_kind(scenes):
    found = slot_order(Orders(lambda n, s: np.tile(np.arange(s), (n, 1))), cut(scenes))
    assert found.by_kind["object"] < 1 == found.by_kind["background 0"]


def test_small_things_and_things_in_no_slot_are_left_out(scenes):
    def blind(scenes):
        return Prediction(masks=np.ones((len(scenes), 1, 16, 16), np.float32))

    class Blind(Truth):
        predict_scenes = staticmethod(blind)

    found = slot_order(Blind(), cut(scenes), kind="level")
    assert set(found.by_kind) == {"background 0"}  # one slot, given to what it meets best
    few = slot_order(
        Orders(lambda n, s: np.tile(np.arange(s), (n, 1))), cut(scenes), kind="level", min_pixels=17
    )
    assert set(few.by_kind) == {"background 0", "background 1"}  # a block has 16 pixels


def test_what_cannot_be_asked_gets_one_sentence(scenes):
    keeps = Orders(lambda n, s: np.tile(np.arange(s), (n, 1)))
    with pytest.raises(UsageError, match="no factor named 'levle'. Did you mean 'level'"):
        slot_order(keeps, cut(scenes), kind="levle")
    with pytest.raises(UsageError, match="x: expected a factor of whole numbers"):
        slot_order(keeps, cut(scenes), kind="x")
    with pytest.raises(DataError, match="the model: expected masks"):
        slot_order(lambda images: Prediction(count=np.zeros(len(images), np.int64)), cut(scenes))
    with pytest.raises(DataError, match="at least one scene"):
        slot_order(keeps, [])
