"""Structure accuracy: hand-made stacks, laws, closed forms for rectangles, brute force, and real label maps."""

import json
import os
import re
import tracemalloc
from math import pi

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from metrics import structure_accuracy, structure_report
from metrics.structure import contacts
from metrics.structure import verdicts as structure_module
from metrics.structure.samples import structure_of_samples, wilson_interval
from metrics.structure.verdicts import REASONS, StructureRule
from multiobj_data.errors import DataError
from multiobj_data.generators.towers import Towers
from multiobj_data.scenes import Prediction

SIDE = 64
ANY = StructureRule(blocks=None)


def draw(*rectangles, side=SIDE):
    """A label map of rectangles (x, y, width, height), y downwards; later ones hide earlier ones."""
    labels = np.zeros((side, side), np.int64)
    for number, (x, y, w, h) in enumerate(rectangles, 1):
        labels[y : y + h, x : x + w] = number
    return labels


def ball(labels, number, x, bottom, radius):
    yy, xx = np.mgrid[: labels.shape[0], : labels.shape[1]] + 0.5
    labels[(xx - x) ** 2 + (yy - (bottom - radius)) ** 2 <= radius**2] = number
    return labels


def verdict(labels, **options):
    return REASONS[int(structure_report(labels[None], **options).reason[0])]


BASE = (20, 48, 20, 10)
ON_IT = (22, 36, 16, 12)


# -- known answers


@pytest.mark.parametrize(
    ("labels", "expected", "strictly"),
    [
        (draw(BASE, ON_IT), "plausible", "plausible"),
        (draw(), "no block", "no block"),
        (draw((20, 48, 3, 3)), "no block", "no block"),  # 9 pixels
        (draw(BASE), "number of blocks", "number of blocks"),
        (draw(*[(20, 56 - 6 * k, 12, 6) for k in range(7)]), "number of blocks", "number of blocks"),
        (draw(BASE, ON_IT, (0, 40, 64, 2)), "block in pieces", "block in pieces"),  # a bar across block 2
        (draw(BASE, (22, 35, 16, 12)), "plausible", "plausible"),  # one pixel of background between
        (draw(BASE, (22, 34, 16, 12)), "blocks apart", "blocks apart"),
        (draw(BASE, ON_IT, (50, 46, 8, 12)), "blocks apart", "blocks apart"),  # on the ground, but elsewhere
        (draw(BASE, ON_IT, (38, 26, 10, 12)), "block without support", "block without support"),  # glued on
        (draw(BASE, (40, 48, 10, 10)), "plausible", "plausible"),  # side by side on the ground
        (draw(BASE, (40, 47, 10, 10)), "plausible", "plausible"),  # the ground is as uneven as a gap may be
        (draw(BASE, (40, 46, 10, 10)), "block without support", "block without support"),
        (draw(BASE, (35, 36, 16, 12)), "plausible", "part not balanced"),
        (
            draw((20, 50, 20, 8), (20, 40, 8, 10), (14, 32, 12, 8), (6, 24, 12, 8)),
            "plausible",
            "part not balanced",
        ),
    ],
)
def test_hand_made_scenes(labels, expected, strictly):
    assert verdict(labels) == expected
    assert verdict(labels, strict=True) == strictly


def test_a_block_that_balances_alone_may_fail_with_what_it_carries():
    pair = draw((20, 48, 12, 10), (25, 40, 12, 8))
    assert verdict(pair, strict=True) == "plausible"
    assert (
        verdict(draw((20, 48, 12, 10), (25, 40, 12, 8), (30, 20, 12, 20)), strict=True) == "part not balanced"
    )


@pytest.mark.parametrize("radius", [4, 5.5, 8, 11])
def test_a_ball_carries_nothing_but_may_lie_on_top(radius):
    below = ball(draw((20, 20, 24, 12)), 2, 32 + radius % 1, 32 + 2 * radius, radius)
    assert verdict(below) == "plausible"
    assert verdict(below, strict=True) == "part on a round block"
    above = ball(draw((20, 48, 24, 12)), 2, 32 + radius % 1, 48, radius)
    assert verdict(above, strict=True) == "plausible"


def test_a_ball_half_hidden_by_what_it_carries_is_still_one():
    labels = ball(np.zeros((SIDE, SIDE), int), 1, 32, 56, 10)
    labels[20:44, 18:46] = 2  # hides the upper part
    assert verdict(labels, strict=True) == "part on a round block"


@pytest.mark.parametrize("side", range(3, 16))
def test_a_square_is_no_ball(side):
    labels = draw((30, 50 - side, side, side), (28, 30 - side, side + 4, 20))
    assert structure_report(labels[None], rule=StructureRule(smallest=1)).flat.all()


def test_a_block_in_front_may_hide_the_contact():
    hidden = draw((20, 44, 24, 14), (16, 30, 24, 20))  # the upper one hangs over, in front of the lower one
    assert verdict(hidden, strict=True) == "plausible"


def test_small_pieces_are_ignored_and_do_not_touch():
    labels = draw(BASE, (22, 34, 16, 12))
    labels[46:48, 30:32] = 2  # a stray stroke between two blocks that are apart
    assert verdict(labels) == "plausible"  # ... as long as it belongs to the upper one's piece
    labels[46] = 0
    assert verdict(labels) == "blocks apart"


def test_the_report_says_what_was_found():
    labels = draw(BASE, ON_IT, (2, 2, 3, 3), (60, 60, 2, 2))
    report = structure_report(labels[None])
    assert (report.blocks[0], report.dropped[0], report.split[0]) == (2, 2, 0)
    tests = (report.connected, report.supported, report.balanced, report.flat)
    assert all(test.tolist() == [True] for test in tests)
    batch = structure_report(np.stack([labels, draw(), draw(BASE)]))
    assert batch.count_reasons() == {"plausible": 1, "no block": 1, "number of blocks": 1}
    np.testing.assert_array_equal(batch.plausible, [1, np.nan, 0])


def test_the_number_of_blocks_is_a_choice():
    assert verdict(draw(BASE), rule=ANY) == "plausible"
    assert verdict(draw(BASE, ON_IT), rule=StructureRule(blocks=(3, 3))) == "number of blocks"


# -- closed forms: towers of rectangles

widths = st.integers(4, 14)


@st.composite
def chains(draw_from):
    """Rectangles bottom to top (x, y, w, h), each sharing two columns at least with the one below."""
    n = draw_from(st.integers(2, 6))
    x, y, w = 26, 60, draw_from(widths)
    found = []
    for _ in range(n):
        h = draw_from(st.integers(4, 8))
        y -= h
        found.append((x, y, w, h))
        w_next = draw_from(widths)
        x = draw_from(st.integers(max(0, x - w_next + 2), min(SIDE - w_next, x + w - 2)))
        w = w_next
    return found


def balanced(chain):
    """Whether rectangles stand, from their sizes alone."""
    for k in range(len(chain)):
        part = chain[k:]
        area = sum(w * h for _, _, w, h in part)
        moment = sum(w * h * (2 * x + w) for x, _, w, h in part)  # twice
        (x, _, w, _), (x0, _, w0, _) = chain[k], chain[max(k - 1, 0)]
        if not 2 * max(x, x0) * area <= moment <= 2 * min(x + w, x0 + w0) * area:
            return False
    return True


@settings(max_examples=150, deadline=None)
@given(chain=chains())
def test_stacked_rectangles_pass_and_balance_as_their_sizes_say(chain):
    report = structure_report(draw(*chain)[None])
    assert report.plausible[0] == 1
    assert bool(report.balanced[0]) == balanced(chain)
    assert report.blocks[0] == len(chain)


@settings(max_examples=60, deadline=None)
@given(chain=chains(), level=st.integers(1, 5), gap=st.integers(0, 3), lift=st.integers(0, 6))
def test_a_gap_fails_as_soon_as_it_is_wider_than_allowed(chain, level, gap, lift):
    level = min(level, len(chain) - 1)
    moved = [(x, y - (lift if k >= level else 0) + 8, w, h) for k, (x, y, w, h) in enumerate(chain)]
    labels = draw(*moved, side=SIDE + 8)
    assert structure_accuracy(labels[None], rule=StructureRule(gap=gap))[0] == (lift <= gap)


@settings(max_examples=60, deadline=None)
@given(w=st.integers(4, 20), shift=st.integers(0, 22), left=st.booleans())
def test_a_sideways_shift_fails_strictly_beyond_half_the_width_and_plainly_without_contact(w, shift, left):
    x = 24 - shift if left else 24 + shift
    labels = draw((24, 50, w, 8), (x, 42, w, 8))[None]
    assert structure_accuracy(labels)[0] == (w - shift >= 2)
    assert structure_accuracy(labels, strict=True)[0] == (w - shift >= 2 and 2 * shift <= w)


# -- laws

scattered = st.lists(
    st.tuples(st.integers(6, 40), st.integers(6, 40), st.integers(2, 14), st.integers(2, 14)), max_size=6
)


def same(first, second):
    for name in first.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


@settings(max_examples=80, deadline=None)
@given(rectangles=scattered, right=st.integers(-6, 8), down=st.integers(-6, 8), seed=st.integers(0, 99))
def test_a_verdict_does_not_depend_on_place_or_names_or_side(rectangles, right, down, seed):
    labels = draw(*rectangles)[None]
    report = structure_report(labels, strict=True, rule=ANY)
    shifted = np.roll(labels, (right, down), axis=(2, 1))  # 6 pixels of background all round
    same(report, structure_report(shifted, strict=True, rule=ANY))
    names = np.random.default_rng(seed).permutation(7)
    renamed = structure_report(names[labels], background=(int(names[0]),), strict=True, rule=ANY)
    same(report, renamed)
    mirrored = structure_report(labels[:, :, ::-1], strict=True, rule=StructureRule(blocks=None, whole=0.6))
    same(structure_report(labels, strict=True, rule=StructureRule(blocks=None, whole=0.6)), mirrored)


@settings(max_examples=40, deadline=None)
@given(rectangles=scattered)
def test_strict_passes_are_plain_passes(rectangles):
    labels = draw(*rectangles)[None]
    plain, strict = (structure_accuracy(labels, strict=s, rule=ANY) for s in (False, True))
    assert np.isnan(plain) == np.isnan(strict)
    assert np.isnan(plain) or strict <= plain


@pytest.fixture(scope="module")
def towers():
    return Towers(counts="2-5").scenes(np.random.default_rng(5), 48)


def test_images_are_judged_one_by_one_whatever_the_batch(towers, monkeypatch):
    whole = structure_report(towers.segments, strict=True)
    for i in (0, 7, 30):
        one = structure_report(towers.segments[i : i + 1], strict=True)
        assert all(getattr(one, name)[0] == getattr(whole, name)[i] for name in one.__dataclass_fields__)
    monkeypatch.setattr(structure_module, "_CHUNK", 3 * 64 * 64)
    same(whole, structure_report(towers.segments, strict=True))


@pytest.mark.parametrize("kind", [np.int16, np.int64, np.uint16, np.uint64])
def test_any_whole_numbers_are_labels(towers, kind):
    same(structure_report(towers.segments), structure_report(towers.segments.astype(kind)))
    spread = np.where(towers.segments == 0, 0, towers.segments.astype(kind) * 5000)
    same(structure_report(towers.segments), structure_report(spread))


def test_maps_of_very_many_labels_take_no_more_memory(rng):
    noise = rng.integers(0, 2**60, (192, 64, 64))
    tracemalloc.start()
    assert structure_report(noise).count_reasons() == {"no block": 192}
    assert tracemalloc.get_traced_memory()[1] < 300e6  # a table of images by labels takes 1.2 GB
    tracemalloc.stop()


def test_negative_labels_are_not_scored(towers):
    signed = towers.segments.astype(int)
    same(structure_report(signed), structure_report(np.where(signed == 0, -1, signed), background=()))


def test_tensors_are_answered_in_kind(towers):
    report = structure_report(torch.as_tensor(towers.segments), strict=True)
    assert isinstance(report.plausible, torch.Tensor)
    assert report.plausible.dtype == torch.float64
    same(structure_report(towers.segments, strict=True), report)


def test_no_image_gives_no_answer():
    assert structure_accuracy(np.zeros((0, 8, 8), int)).shape == (0,)


def test_background_that_lies_at_two_borders_is_found():
    labels = draw((0, 0, 64, 30), (0, 30, 20, 34), (20, 30, 44, 34), (24, 40, 20, 12), (26, 30, 16, 10)) - 1
    assert verdict(labels, background="borders") == "plausible"
    assert verdict(labels, background=(0, 1, 2)) == "plausible"
    assert structure_report(labels[None], background="borders").blocks[0] == 2


# -- brute force for the parts


def random_masks(rng, k=4, side=14):
    labels = rng.integers(0, k + 1, (3, side, side)) * (rng.random((3, side, side)) < 0.3)
    return labels[:, None] == np.arange(1, k + 1)[:, None, None]


@pytest.mark.parametrize("gap", [0, 1, 3])
def test_touching_and_columns_are_those_of_pixel_pairs(rng, gap):
    masks = random_masks(rng)
    touch, columns = contacts.touching(masks, gap), contacts.contact_columns(masks, gap)
    for b in range(3):
        for i in range(4):
            for j in range(4):
                p, q = np.argwhere(masks[b, i]), np.argwhere(masks[b, j])
                far = np.abs(p[:, None] - q[None]).max(-1)  # [pixels of i, pixels of j]
                assert touch[b, i, j] == (far <= gap + 1).any(0).sum()
                down = q[None, :, 0] - p[:, None, 0]
                below = (p[:, None, 1] == q[None, :, 1]) & (down >= 1) & (down <= gap + 1)
                assert set(np.flatnonzero(columns[b, i, j])) == set(q[below.any(0), 1])


def flood(mask):
    left, best = {tuple(p) for p in np.argwhere(mask)}, set()
    while left:
        piece, front = set(), [min(left)]
        while front:
            y, x = front.pop()
            if (y, x) in left:
                left.remove((y, x))
                piece.add((y, x))
                front += [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        best = piece if len(piece) > len(best) else best
    return best


def test_the_largest_piece_is_that_of_a_flood_fill(rng):
    masks = random_masks(rng)
    pieces = contacts.largest_pieces(masks)
    for b in range(3):
        for k in range(4):
            found, expected = {tuple(p) for p in np.argwhere(pieces[b, k])}, flood(masks[b, k])
            assert len(found) == len(expected)
            assert found == expected


def test_ways_of_any_length_are_followed(rng):
    for k in (1, 2, 5, 9):
        edges = rng.random((6, k, k)) < 1.2 / k
        chain = np.eye(k, k=1, dtype=bool)[None]
        assert contacts.reachable(chain)[0].tolist() == np.triu(np.ones((k, k), bool)).tolist()
        steps = np.linalg.matrix_power(edges + np.eye(k), k) > 0
        np.testing.assert_array_equal(contacts.reachable(edges), steps)


def test_roundness_of_a_disc_is_one_and_of_a_square_that_of_geometry():
    disc = ball(np.zeros((200, 200), int), 1, 100, 160, 60) == 1
    square = draw((50, 50, 100, 100), side=200) == 1
    empty = np.zeros_like(disc)
    found = (
        contacts.roundness(np.stack([disc])[None])[0, 0],
        contacts.roundness(np.stack([square, empty])[None])[0],
    )
    assert found[0] == pytest.approx(1, abs=1e-3)
    assert found[1][0] == pytest.approx(pi / 4, abs=5e-3)
    assert np.isnan(found[1][1])


# -- true label maps


def test_true_towers_touch_and_the_strict_tests_know_some_that_fall(towers):
    plain, strict = (structure_accuracy(towers.segments, strict=s) for s in (False, True))
    stable = towers.scene_factors["stable"] == 1
    assert plain.mean() > 0.97
    assert strict[stable].mean() > 0.75
    assert strict[~stable].mean() < 0.7


def test_real_recordings_of_shapestacks_are_plausible():
    folder = os.environ.get("MOBJ_TEST_SHAPESTACKS")
    if not folder:
        pytest.skip("real ShapeStacks recordings are not at hand (set MOBJ_TEST_SHAPESTACKS to their folder)")
    from multiobj_data.loaders.shapestacks import ShapeStacks, decode

    maps = np.stack([decode(item).segments for item in ShapeStacks(folder, split="all", maps="vseg").items()])
    report = structure_report(maps)
    assert (report.plausible == 1).all()
    assert (report.blocks == 4).all()  # roles: the two highest of five blocks share a label
    lifted = maps.copy()
    lifted[:, :-6] = np.where(maps[:, 6:] == 4, 4, np.where(maps[:, :-6] == 4, 0, maps[:, :-6]))
    assert (structure_report(lifted).plausible == 0).all()


# -- samples


class Segmenter:
    def __init__(self, labels, slots=4, background_slots=()):
        self.labels, self.slots, self.background_slots = labels, slots, background_slots

    def predict(self, images):
        rows = images[:, 0, 0, 0]  # each image says which one it is
        masks = (self.labels[rows][:, None] == np.arange(self.slots)[:, None, None]).astype(np.float32)
        return Prediction(masks=masks, background_slots=self.background_slots)


@pytest.fixture
def samples():
    maps = [draw(BASE, ON_IT), draw(BASE, ON_IT), draw(BASE, (22, 30, 16, 12)), draw(), draw(BASE)]
    images = np.zeros((5, SIDE, SIDE, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(5)
    return np.stack(maps), images


@pytest.mark.parametrize("named", [(), (0,)])
def test_samples_are_segmented_and_judged(samples, named):
    labels, images = samples
    found = structure_of_samples(Segmenter(labels, background_slots=named), images, batch_size=2)
    assert (found.accuracy, found.n, found.without_blocks) == (0.4, 5, 1)
    assert found.reasons == {"plausible": 2, "no block": 1, "number of blocks": 1, "blocks apart": 1}
    assert found.reason.tolist() == [0, 0, 4, 1, 2]
    reference = binomtest(2, 5).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_a_slot_that_is_background_is_no_block(samples):
    labels, images = samples
    found = structure_of_samples(Segmenter(labels, background_slots=(0, 2)), images)
    assert found.reasons == {"number of blocks": 4, "no block": 1}
    asked = structure_of_samples(Segmenter(labels, background_slots=(0, 2)), images, background=(0,))
    assert (asked.accuracy, asked.protocol["background"]) == (0.4, [0])


def test_a_function_may_give_label_maps(samples):
    labels, images = samples
    found = structure_of_samples(lambda x: torch.as_tensor(labels[x[:, 0, 0, 0]]), images, strict=True)
    assert found.accuracy == 0.4
    assert found.protocol["strict"] is True
    assert found.protocol["rule"]["gap"] == 1
    written = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert (written["accuracy"], written["protocol"]["background"]) == (0.4, "as predicted")


def test_no_sample_has_no_share():
    found = structure_of_samples(lambda x: x[..., 0], np.zeros((0, 8, 8, 3), np.uint8))
    assert np.isnan([found.accuracy, found.low, found.high]).all()
    assert found.to_json()["accuracy"] is None


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (81, 100), (242, 300), (1, 1)])
def test_wilson_intervals_are_those_of_scipy(k, n):
    for level in (0.5, 0.95, 0.999):
        reference = binomtest(k, n).proportion_ci(level, method="wilson")
        assert wilson_interval(k, n, level) == pytest.approx((reference.low, reference.high), abs=1e-12)


# -- bad input


@pytest.mark.parametrize(
    ("labels", "options", "words"),
    [
        (np.zeros((2, 8, 8)), {}, "labels: expected signed integers or unsigned integers, got float64"),
        (np.zeros((8, 8), int), {}, "labels: expected shape [any, any, any], got [8, 8]"),
        ([[1]], {}, "labels: expected an array, got list"),
        (np.zeros((2, 0, 8), int), {}, "labels: expected maps of at least one pixel, got [2, 0, 8]"),
        (
            np.zeros((1, 8, 8), int),
            {"background": "auto"},
            "background: expected labels or 'borders', got 'auto'",
        ),
        (np.zeros((1, 8, 8), int), {"background": 0}, "background: expected a sequence of labels"),
    ],
)
def test_what_is_no_label_map_is_refused(labels, options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        structure_report(labels, **options)


@pytest.mark.parametrize(
    "setting",
    [
        {"blocks": (3, 2)},
        {"blocks": (0, 2)},
        {"smallest": 0},
        {"gap": -1},
        {"gap": 0.5},
        {"contact": 0},
        {"whole": 1.2},
        {"round_from": -0.1},
        {"slack": float("nan")},
    ],
)
def test_rules_that_make_no_sense_are_refused(setting):
    with pytest.raises(ValueError, match=f"^{next(iter(setting))}: expected"):
        StructureRule(**setting)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            lambda x: Prediction(count=np.zeros(len(x), int)),
            "expected a Prediction with masks, got one without",
        ),
        (lambda x: np.zeros((len(x), 8, 8)), "got an array of float64"),
        (lambda x: None, "got NoneType"),
        (
            lambda x: np.zeros((len(x), 4, 4), int),
            "expected label maps [3, 8, 8], one of each image, got [3, 4, 4]",
        ),
    ],
)
def test_answers_that_are_no_segmentation_are_refused(answer, words):
    with pytest.raises(DataError, match=re.escape(words)):
        structure_of_samples(answer, np.zeros((3, 8, 8, 3), np.uint8))


def test_tensors_are_judged_as_arrays_are():
    images = np.random.default_rng(0).integers(0, 2, (4, 8, 8, 3)).astype(np.uint8)
    of_array, of_tensor = (
        structure_of_samples(lambda x: np.asarray(x)[..., 0], each)
        for each in (images, torch.from_numpy(images))
    )
    assert of_array.to_json() == of_tensor.to_json()


def test_requests_for_samples_that_make_no_sense_are_refused():
    images = np.zeros((3, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="segment: expected a model"):
        structure_of_samples(3, images)
    with pytest.raises(ValueError, match="batch_size: expected 1 or more"):
        structure_of_samples(lambda x: x, images, batch_size=0)
    with pytest.raises(ValueError, match="images: expected unsigned integers"):
        structure_of_samples(lambda x: x, images.astype(float))
    with pytest.raises(ValueError, match="level: expected a number between 0 and 1"):
        wilson_interval(1, 2, 1.0)
    with pytest.raises(ValueError, match="successes: expected 0..2, got 3"):
        wilson_interval(3, 2)
