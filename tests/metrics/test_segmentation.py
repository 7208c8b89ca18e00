"""Segmentation metrics against scikit-learn, pixel pairs, permutations and loops over masks; and their laws."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from metrics import (
    adjusted_rand_index,
    matched_mask_iou,
    mean_best_overlap,
    mean_segmentation_covering,
    segmentation_covering,
)
from metrics.segmentation.scores import DENOMINATORS

NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
METRICS = [
    adjusted_rand_index,
    segmentation_covering,
    mean_segmentation_covering,
    mean_best_overlap,
    matched_mask_iou,
]
SEEDS = st.integers(0, 2**32)


def random_maps(seed, b=4, most_labels=5):
    """Label maps of few pixels, so that all that is rare in large ones is common; some are equal or constant."""
    rng = np.random.default_rng(seed)
    shape = (b, *rng.integers(1, 6, 2))
    true, predicted = (rng.integers(0, rng.integers(1, most_labels + 1), shape) for _ in range(2))
    predicted[0] = true[0] if rng.random() < 0.5 else 0
    return true, predicted


# references, written another way


def ari_of_pairs(true, predicted):
    """From every pair of pixels; NaN without a pair, 1 where chance cannot be told from agreement."""
    pairs = list(itertools.combinations(range(len(true)), 2))
    if not pairs:
        return math.nan
    a = [true[i] == true[j] for i, j in pairs]
    b = [predicted[i] == predicted[j] for i, j in pairs]
    both, expected = sum(x and y for x, y in zip(a, b, strict=True)), sum(a) * sum(b) / len(pairs)
    largest = (sum(a) + sum(b)) / 2
    return 1.0 if largest == expected else (both - expected) / (largest - expected)


def masks_of(labels):
    return [labels == label for label in np.unique(labels) if label >= 0]


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def coverings(true, predicted, background=()):
    """SC and mSC by masks."""
    scored = true >= 0
    segments = [s for s in masks_of(true) if true[s][0] not in background]
    best = [
        max([iou(s, p & scored) for p in masks_of(predicted) if (p & scored).any()] or [0]) for s in segments
    ]
    if not segments:
        return math.nan, math.nan
    return np.average(best, weights=[s.sum() for s in segments]), np.mean(best)


def best_matching(objects, slots):
    """Summed IoU, and number of pairs that overlap, over all ways to pair objects with slots."""
    few, many = sorted([objects, slots], key=len)
    table = [[iou(a, b) for b in many] for a in few]
    ways = itertools.permutations(range(len(many)), len(few))
    scores = [[table[i][j] for i, j in enumerate(way)] for way in ways]
    return max((round(sum(found), 11), sum(value > 0 for value in found)) for found in scores)


# equality with them


@settings(max_examples=80, deadline=None)
@given(SEEDS)
def test_ari_is_that_of_pixel_pairs(seed):
    true, predicted = random_maps(seed)
    want = [ari_of_pairs(t.ravel(), p.ravel()) for t, p in zip(true, predicted, strict=True)]
    np.testing.assert_allclose(adjusted_rand_index(true, predicted), want, atol=1e-12)
    want = [ari_of_pairs(t[t > 0], p[t > 0]) for t, p in zip(true, predicted, strict=True)]
    np.testing.assert_allclose(adjusted_rand_index(true, predicted, foreground_only=True), want, atol=1e-12)


@pytest.mark.parametrize("background", [(0,), (0, 2, 3), range(4), ()])
def test_ari_is_that_of_scikit_learn(rng, background):
    true, predicted = rng.integers(0, 7, (20, 64, 64)), rng.integers(0, 9, (20, 64, 64))
    predicted = np.where(rng.random(true.shape) < 0.6, true, predicted)
    got = adjusted_rand_index(true, predicted, background=background, foreground_only=True)
    keep = ~np.isin(true, list(background))
    want = [adjusted_rand_score(t[k], p[k]) for t, p, k in zip(true, predicted, keep, strict=True)]
    np.testing.assert_allclose(got, want, rtol=1e-12)
    want = [adjusted_rand_score(t.ravel(), p.ravel()) for t, p in zip(true, predicted, strict=True)]
    np.testing.assert_allclose(adjusted_rand_index(true, predicted), want, rtol=1e-12)


def test_ari_keeps_its_digits_where_products_of_pairs_are_huge():
    n = 900
    true, predicted = np.zeros((2, 1, n, n), np.uint8)
    true[0, 0, 0] = predicted[0, 0, :2] = 1
    both, total = math.comb(n * n - 1, 2), math.comb(n * n, 2)
    a, b = both, math.comb(n * n - 2, 2) + 1
    together = math.comb(n * n - 2, 2)
    exact = (together * total - a * b) / (
        (a + b) * total / 2 - a * b
    )  # numerators are whole numbers of any size
    assert adjusted_rand_index(true, predicted)[0] == pytest.approx(exact, abs=1e-9)
    assert adjusted_rand_score(true.ravel(), predicted.ravel()) == pytest.approx(exact, abs=1e-9)


@settings(max_examples=80, deadline=None)
@given(SEEDS, st.sampled_from([(), (0,), (1, 2)]))
def test_coverings_are_those_of_masks(seed, background):
    true, predicted = random_maps(seed)
    true, predicted = true - (seed % 2), predicted - (seed // 2 % 2)  # with and without negative labels
    for only, behind in ((False, ()), (True, background)):
        want = np.array([coverings(t, p, behind) for t, p in zip(true, predicted, strict=True)])
        options = {"background": background, "foreground_only": only}
        np.testing.assert_allclose(segmentation_covering(true, predicted, **options), want[:, 0], atol=1e-12)
        np.testing.assert_allclose(
            mean_segmentation_covering(true, predicted, **options), want[:, 1], atol=1e-12
        )
        np.testing.assert_allclose(mean_best_overlap(true, predicted, **options), want[:, 1], atol=1e-12)


@settings(max_examples=80, deadline=None)
@given(SEEDS, st.sampled_from(DENOMINATORS), st.sampled_from([(), (0,), (1, 3)]))
def test_matched_mask_iou_is_that_of_permutations(seed, denominator, behind):
    true, predicted = random_maps(seed)
    got = matched_mask_iou(true, predicted, denominator=denominator, predicted_background=behind)
    for value, t, p in zip(got, true, predicted, strict=True):
        objects = [m for m in masks_of(t) if t[m][0] != 0]
        slots = [m for m in masks_of(p) if p[m][0] not in behind]
        total, pairs = best_matching(objects, slots)
        over = {
            "larger": max(len(objects), len(slots)),
            "true": len(objects),
            "highest_label": t.max(),
            "either": len(objects) + len(slots) - pairs,
        }[denominator]
        assert value == pytest.approx(total / over, abs=1e-10) if over else math.isnan(value)


def test_either_counts_pairs_of_which_one_side_is_there():
    true = np.array([[[1, 1, 2, 2, 3, 3, 0, 0]]])
    predicted = np.array([[[1, 1, 2, 0, 0, 0, 4, 4]]])
    score = 1 + 1 / 2 + 2 / 3  # slot 0 covers object 3 and a pixel of 2; slot 4 meets none: a fourth pair
    options = {"predicted_background": ()}
    assert matched_mask_iou(true, predicted, denominator="either", **options) == pytest.approx(score / 4)
    assert matched_mask_iou(true, predicted, denominator="larger", **options) == pytest.approx(score / 4)
    assert matched_mask_iou(true, predicted, denominator="true", **options) == pytest.approx(score / 3)
    true[true == 3] = 6
    assert matched_mask_iou(true, predicted, denominator="highest_label", **options) == pytest.approx(
        score / 6
    )
    behind = {"background": (0, 4), "denominator": "highest_label"}
    assert matched_mask_iou(true, predicted, **behind, **options) == pytest.approx(score / 5)


def test_the_slot_of_the_background_is_no_surplus_object():
    true = np.array([[[0, 0, 0, 1, 1, 2, 2, 2]]])
    predicted = np.array([[[5, 5, 5, 1, 1, 0, 0, 0]]])
    assert matched_mask_iou(true, predicted) == 1
    assert matched_mask_iou(true, predicted, predicted_background=(5,)) == 1
    assert matched_mask_iou(true, predicted, predicted_background=()) == pytest.approx(2 / 3)
    assert matched_mask_iou(true, predicted, predicted_background=(0,)) == pytest.approx(1 / 2)
    assert matched_mask_iou(true, predicted, foreground_only=False) == 1
    # The only slot suits an object as well as the background: the object gets it.
    assert matched_mask_iou(true, predicted * 0) == pytest.approx(3 / 8 / 2)
    assert matched_mask_iou(true, predicted * 0, predicted_background=()) == pytest.approx(3 / 8 / 2)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from(DENOMINATORS))
def test_ties_between_slots_are_not_left_to_the_solver(seed, denominator):
    rng = np.random.default_rng(seed)
    true, predicted = rng.integers(0, 4, (2, 6, 1, 8))
    background = (0,) if seed % 2 else (0, 3)
    options = {"denominator": denominator, "background": background}
    names = np.array([0, *1 + rng.permutation(2), 3])
    if denominator == "highest_label":
        names = np.arange(4)
    got = matched_mask_iou(names[true], rng.permutation(4)[predicted], **options)
    np.testing.assert_allclose(got, matched_mask_iou(true, predicted, **options), rtol=1e-13)


def test_of_equal_matchings_that_with_more_pairs_counts():
    """Two pairs of IoU 1/2 are as much as three of 1/2, 1/3 and 1/6."""
    true, predicted = np.array([[[0, 2, 2, 1, 0, 1, 1, 3]]]), np.array([[[2, 0, 2, 3, 2, 3, 2, 3]]])
    objects, slots = masks_of(true)[1:], masks_of(predicted)
    total, pairs = best_matching(objects, slots)
    got = matched_mask_iou(true, predicted, denominator="either", predicted_background=())
    assert got == pytest.approx(total / (6 - pairs))


def test_background_segments_may_have_a_slot_each_or_one_together():
    true = np.array([[[0, 0, 1, 1, 2, 3, 4, 4]]])
    options = {"background": range(4)}
    assert matched_mask_iou(true, true, **options) == 1
    assert matched_mask_iou(true, np.array([[[7, 7, 7, 7, 7, 7, 1, 1]]]), **options) == 1
    assert matched_mask_iou(true, np.array([[[7, 7, 7, 7, 7, 7, 1, 2]]]), **options) == pytest.approx(
        1 / 2 / 2
    )
    torn = np.array(
        [[[7, 8, 7, 7, 2, 3, 1, 1]]]
    )  # four slots besides the object's, one of them in a torn segment
    assert matched_mask_iou(true, torn, **options) == 1
    assert matched_mask_iou(true * 0, torn) == pytest.approx(0)


def test_background_that_leaks_is_free_in_ari_alone():
    """Two half planes, an object in each."""
    true = np.zeros((1, 10, 10), int)
    true[0, 4:6, 2:4], true[0, 4:6, 6:8] = 1, 2
    predicted = np.repeat([[[0] * 5 + [1] * 5]], 10, 1)
    assert adjusted_rand_index(true, predicted, foreground_only=True) == 1
    assert mean_segmentation_covering(true, predicted, foreground_only=True) == pytest.approx(4 / 50)
    assert matched_mask_iou(true, predicted, predicted_background=()) == pytest.approx(4 / 50)


# laws


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from(METRICS), st.booleans(), st.sampled_from([1, 10**12]))
def test_names_of_segments_do_not_matter(seed, metric, only, scale):
    true, predicted = random_maps(seed)
    rng = np.random.default_rng(seed)
    names, slots = rng.permutation(6) * scale, rng.permutation(6) * scale
    options = {"foreground_only": only}
    want = metric(true, predicted, background=(0, 2), **options)
    got = metric(names[true], slots[predicted], background=names[[0, 2]].tolist(), **options)
    np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-15)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from(METRICS), st.booleans())
def test_pixels_have_no_order_and_batches_no_meaning(seed, metric, only):
    true, predicted = random_maps(seed)
    order = np.random.default_rng(seed).permutation(true[0].size)
    want = metric(true, predicted, foreground_only=only)
    mixed = [maps.reshape(len(maps), 1, -1)[:, :, order] for maps in (true, predicted)]
    np.testing.assert_array_equal(metric(*mixed, foreground_only=only), want)
    alone = [metric(true[i : i + 1], predicted[i : i + 1], foreground_only=only)[0] for i in range(len(true))]
    np.testing.assert_array_equal(alone, want)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_ari_is_symmetric_and_bounded(seed):
    true, predicted = random_maps(seed)
    ari = adjusted_rand_index(true, predicted)
    np.testing.assert_array_equal(adjusted_rand_index(predicted, true), ari)
    assert all(-0.5 <= value <= 1 for value in ari[~np.isnan(ari)])


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from(METRICS), st.booleans())
def test_scores_are_at_most_1_and_the_truth_scores_1(seed, metric, only):
    true, predicted = random_maps(seed)
    score = metric(true, predicted, foreground_only=only)
    assert not (score > 1 + 1e-12).any()
    best = metric(true, true, foreground_only=only)
    np.testing.assert_allclose(best[~np.isnan(best)], 1, atol=1e-12)
    if metric is not matched_mask_iou:  # which is 0, not NaN, for objects on one side only
        np.testing.assert_array_equal(np.isnan(best), np.isnan(score))


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_matching_never_beats_repeating(seed):
    true, predicted = random_maps(seed)
    matched = matched_mask_iou(true, predicted, denominator="true", predicted_background=())
    repeated = mean_best_overlap(true, predicted)
    np.testing.assert_array_equal(np.isnan(matched), np.isnan(repeated))
    assert not (matched > repeated + 1e-12).any()
    larger = matched_mask_iou(true, predicted, predicted_background=())
    assert not (larger > matched + 1e-12).any()


@pytest.mark.parametrize("metric", METRICS)
def test_spoiling_a_perfect_answer_pixel_by_pixel_never_helps(metric):
    true = np.zeros((1, 9, 9), int)
    true[0, 1:5, 1:5], true[0, 5:8, 4:9] = 1, 2
    spoilt, scores = true.copy(), []
    for y, x in [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)]:
        scores.append(metric(true, spoilt)[0])
        spoilt[0, y, x] = 2
    assert scores[0] == 1
    assert all(later < earlier for earlier, later in itertools.pairwise(scores))


# what is scored


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("only", [False, True])
def test_ignored_pixels_might_as_well_not_be_there(rng, metric, only):
    true, predicted = rng.integers(0, 4, (5, 6, 9)), rng.integers(0, 4, (5, 6, 9))
    want = metric(true[:, :, :7], predicted[:, :, :7], foreground_only=only)
    ignore = np.zeros(true.shape, bool)
    ignore[:, :, 7:] = True
    got = metric(true, predicted, ignore=ignore, foreground_only=only)
    np.testing.assert_array_equal(got, want)
    padded, junk = np.where(ignore, -1, true), np.where(ignore, -5, predicted)
    np.testing.assert_array_equal(metric(padded, junk, foreground_only=only), want)
    np.testing.assert_array_equal(
        metric(np.where(ignore, 2, padded), junk, ignore=ignore, foreground_only=only), want
    )
    junk[ignore] = 10**9
    np.testing.assert_array_equal(metric(padded, junk, foreground_only=only), want)


@pytest.mark.parametrize("metric", METRICS)
def test_lists_of_maps_of_many_sizes_are_scored_one_by_one(rng, metric):
    sizes = [(4, 5), (3, 3), (4, 5), (2, 7), (3, 3)]
    true, predicted = ([rng.integers(0, 4, size) for size in sizes] for _ in range(2))
    want = [metric(t[None], p[None])[0] for t, p in zip(true, predicted, strict=True)]
    np.testing.assert_array_equal(metric(true, predicted), want)
    got = metric([torch.tensor(t) for t in true], [torch.tensor(p) for p in predicted])
    assert isinstance(got, torch.Tensor)
    np.testing.assert_array_equal(got.numpy(), want)
    ignore = [t == 3 for t in true]
    masked = [np.where(t == 3, -1, t) for t in true]
    np.testing.assert_array_equal(metric(true, predicted, ignore=ignore), metric(masked, predicted))


@pytest.mark.parametrize("metric", METRICS)
def test_a_video_is_one_thing(rng, metric):
    true, predicted = rng.integers(0, 4, (3, 5, 4, 4)), rng.integers(0, 4, (3, 5, 4, 4))
    flat = [maps.reshape(3, 20, 4) for maps in (true, predicted)]
    np.testing.assert_array_equal(metric(true, predicted), metric(*flat))


def test_pixels_in_no_slot_cost_in_overlaps_and_are_no_partition():
    true = np.array([[[0, 0, 1, 1, 1, 1]]])
    predicted = np.array([[[-1, -1, 2, 2, 2, -1]]])
    for metric in (mean_best_overlap, matched_mask_iou):
        assert metric(true, predicted) == 3 / 4
    for metric in (segmentation_covering, mean_segmentation_covering):
        assert metric(true, predicted, foreground_only=True) == 3 / 4
    with pytest.raises(ValueError, match="a pixel in no slot"):
        adjusted_rand_index(true, predicted, foreground_only=True)
    assert math.isnan(matched_mask_iou(true * 0, predicted * 0 - 1)[0])
    assert matched_mask_iou(true, predicted * 0 - 1) == 0


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.uint16, torch.bool])
def test_tensors_are_answered_with_tensors_of_equal_values(rng, metric, device, dtype):
    true, predicted = rng.integers(0, 2, (6, 8, 8)), rng.integers(0, 7, (6, 8, 8))
    want = metric(true, predicted)
    got = metric(torch.tensor(true, device=device).to(dtype), torch.tensor(predicted, device=device))
    assert isinstance(got, torch.Tensor)
    assert (got.dtype, got.device.type) == (torch.float64, device)
    np.testing.assert_allclose(got.cpu().numpy(), want, rtol=1e-13)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("only", [False, True])
@pytest.mark.parametrize("scale", [1, 10**9])
def test_the_path_of_accelerators_scores_the_same(rng, metric, only, scale, monkeypatch):
    """On the CPU, tensors go through NumPy; here they stay tensors, as on a device."""
    true, predicted = rng.integers(-1, 4, (6, 8, 8)) * scale, rng.integers(0, 7, (6, 8, 8)) * scale
    ignore = rng.random(true.shape) < 0.1
    want = metric(true, predicted, ignore=ignore, foreground_only=only)
    monkeypatch.setattr("metrics.segmentation.pairing.to_numpy", lambda tensor: tensor)
    got = metric(*map(torch.tensor, (true, predicted)), ignore=torch.tensor(ignore), foreground_only=only)
    assert isinstance(got, torch.Tensor)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-13)


def test_the_answer_follows_the_prediction(rng):
    true, predicted = rng.integers(0, 3, (2, 5, 5)), torch.tensor(rng.integers(0, 3, (2, 5, 5)))
    assert isinstance(adjusted_rand_index(true, predicted), torch.Tensor)
    assert isinstance(adjusted_rand_index(torch.tensor(true), predicted.numpy()), np.ndarray)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"background": 0}, r"background: expected a sequence of whole numbers, as in \(0,\), got 0"),
        ({"background": (0.5,)}, "background: expected a sequence of whole numbers"),
        ({"background": "sky"}, "background: expected a sequence of whole numbers"),
        ({"predicted_background": 1}, "predicted_background: expected a sequence"),
        (
            {"denominator": "union"},
            "denominator: expected one of larger, true, either, highest_label, got 'union'",
        ),
    ],
)
def test_options_are_checked(options, says):
    with pytest.raises(ValueError, match=says):
        matched_mask_iou(np.zeros((1, 2, 2), int), np.zeros((1, 2, 2), int), **options)
