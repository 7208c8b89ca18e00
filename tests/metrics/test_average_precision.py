"""Average precision, against COCO's own code, scikit-learn and hand-made sets."""

import numpy as np
import pytest
import torch

from metrics import AveragePrecision, average_precision
from metrics.boxes.average_precision import COCO_THRESHOLDS


def draw(rng, b=30, k=4, s=6):
    """True boxes, predictions near some of them, and confidences without ties."""
    corner = rng.uniform(0, 30, (b, k, 2))
    true = np.concatenate([corner, corner + rng.uniform(3, 12, (b, k, 2))], -1)
    near = true[:, np.arange(s) % k] + rng.normal(0, 0.8, (b, s, 4))
    near[..., 2:] = np.maximum(near[..., 2:], near[..., :2] + 0.5)
    return true, rng.choice([0, 2, k - 1, k, k], b), near, rng.random((b, s))


@pytest.fixture
def drawn(rng):
    return draw(rng)


def coco(true, count, predicted, confidence, most=100):
    """Score with COCO's code: precision [T, 101]."""
    tools = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    def listed(box):
        return [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]

    objects = [
        {
            "id": 1 + i * 100 + j,
            "image_id": i,
            "category_id": 1,
            "bbox": listed(true[i, j]),
            "area": 1,
            "iscrowd": 0,
        }
        for i, n in enumerate(count)
        for j in range(n)
    ]
    found = [
        {
            "id": 1 + i * 100 + j,
            "image_id": i,
            "category_id": 1,
            "bbox": listed(box),
            "area": 1,
            "score": score,
        }
        for i in range(len(count))
        for j, (box, score) in enumerate(zip(predicted[i], confidence[i].tolist(), strict=True))
    ]
    sets = []
    for entries in (objects, found):
        data = tools.COCO()
        data.dataset = {"images": [{"id": i} for i in range(len(count))], "annotations": entries}
        data.dataset["categories"] = [{"id": 1}]
        data.createIndex()
        sets.append(data)
    run = COCOeval(*sets, "bbox")
    run.params.maxDets, run.params.areaRng, run.params.areaRngLbl = [most], [[0, 1e10]], ["all"]
    run.evaluate()
    run.accumulate()
    return run.eval["precision"][:, :, 0, 0, 0].mean(1)


@pytest.mark.parametrize("most", [100, 3])
def test_figures_are_those_of_coco(drawn, most, capsys):
    want = coco(*drawn, most=most)
    np.testing.assert_allclose(average_precision(*drawn, most=most), want, atol=1e-12)
    assert 0.05 < want.mean() < 0.95


def test_the_area_is_that_of_scikit_learn_where_every_object_is_found(rng):
    from sklearn.metrics import average_precision_score

    true = np.tile([[[0.0, 0, 9, 9]]], (50, 1, 1))
    hit = rng.random((50, 1)) < 0.7
    predicted = np.where(hit[..., None], true, true + 20)
    confidence = np.round(rng.random((50, 1)), 1)  # with ties
    got = average_precision(
        true, hit[:, 0].astype(int), predicted, confidence, thresholds=[0.5], interpolation="all-point"
    )
    step = average_precision_score(hit[:, 0], confidence[:, 0])
    assert got >= step - 1e-12  # its precision is not made monotone
    precisions = [hit[confidence >= c].mean() for c in np.unique(confidence)]
    recalls = [hit[confidence >= c].sum() / hit.sum() for c in np.unique(confidence)]
    area, before = 0.0, 0.0
    for r in np.unique(recalls):
        best = max(p for p, other in zip(precisions, recalls, strict=True) if other >= r)
        area, before = area + (r - before) * best, r
    assert got == pytest.approx(area)


def test_by_hand():
    true, predicted = np.array([[[0.0, 0, 10, 10], [20, 20, 30, 30]]]), np.zeros((1, 3, 4))
    predicted[0] = [[0, 0, 10, 10], [50, 50, 60, 60], [20, 20, 30, 26]]  # right, wrong, IoU .6
    confidence = np.array([[0.9, 0.8, 0.7]])
    two = np.array([2])
    half, strict = average_precision(
        true, two, predicted, confidence, thresholds=[0.5, 0.75], interpolation="all-point"
    )
    assert half == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert strict == pytest.approx(0.5)
    eleven = average_precision(true, two, predicted, confidence, thresholds=[0.5])
    assert eleven == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)


def test_a_second_box_on_the_same_object_is_wrong():
    true, one = np.array([[[0.0, 0, 10, 10]]]), np.array([1])
    twice = np.repeat(true, 2, 1)
    after = average_precision(true, one, twice, np.array([[0.9, 0.8]]), thresholds=[0.5])
    tied = average_precision(true, one, twice, np.array([[0.9, 0.9]]), thresholds=[0.5])
    assert after == 1
    assert tied == pytest.approx(0.5)


def parts(drawn, rows, settings=None, ids=None):
    precision = AveragePrecision(**settings or {})
    precision.update(*(array[rows] for array in drawn), None if ids is None else ids[rows])
    return precision


@pytest.mark.parametrize("levels", [1000, 3, 1])
def test_merged_parts_equal_one_pass_bit_for_bit(rng, levels):
    true, count, predicted, confidence = draw(rng)
    drawn = true, count, predicted, np.round(confidence * levels) / levels  # saturated, so tied
    whole = parts(drawn, slice(None))
    merged = AveragePrecision()
    for rows in np.array_split(rng.permutation(30), 7):
        merged.merge(parts(drawn, rows))
    np.testing.assert_array_equal(merged.per_threshold(), whole.per_threshold())
    assert merged.summary() == whole.summary()


def test_an_image_counts_once(drawn):
    ids = np.arange(30) + 100
    precision = parts(drawn, np.arange(20), ids=ids)
    precision.merge(parts(drawn, np.arange(12, 30), ids=ids))
    assert precision.summary() == parts(drawn, slice(None)).summary()


def test_perfect_boxes_score_one_and_confidence_is_all_that_counts(drawn):
    true, count, predicted, confidence = drawn
    present = np.arange(4) < count[:, None]
    np.testing.assert_array_equal(average_precision(true, count, true, present.astype(float)), 1)
    np.testing.assert_array_equal(
        average_precision(*drawn), average_precision(true, count, predicted, 5 * confidence**3 - 7)
    )
    assert (np.diff(average_precision(*drawn)) <= 0).all()  # stricter thresholds


def test_boxes_that_are_none_and_images_that_are_unknown(drawn):
    true, count, predicted, confidence = (array.copy() for array in drawn)
    more = np.concatenate([predicted, np.full((30, 2, 4), np.nan)], 1)
    surer = np.concatenate([confidence, np.full((30, 2), np.nan)], 1)
    np.testing.assert_array_equal(average_precision(true, count, more, surer), average_precision(*drawn))
    known = count != 4
    true[~known, 0] = np.nan
    precision = parts((true, count, predicted, confidence), slice(None))
    assert precision.summary() == parts(drawn, known).summary() | {"skipped": int((~known).sum())}
    assert precision.summary()["skipped"] > 0


def test_without_objects_there_is_nothing_to_say_and_without_boxes_it_is_zero():
    boxes, none = np.zeros((2, 1, 4)), np.zeros(2, int)
    square = boxes + np.array([0, 0, 1, 1])
    assert np.isnan(average_precision(boxes, none, square, np.ones((2, 1)))).all()
    assert np.isnan(AveragePrecision().per_threshold()).all()
    assert AveragePrecision().summary()["n"] == 0
    one = np.ones(2, int)
    assert (average_precision(square, one, boxes[:, :0], np.ones((2, 0))) == 0).all()
    assert (average_precision(boxes[:, :0], none, boxes, np.ones((2, 1)), thresholds=[0.5])).shape == (1,)


def test_tensors_are_answered_with_tensors(drawn):
    got = average_precision(*map(torch.tensor, drawn))
    assert isinstance(got, torch.Tensor)
    np.testing.assert_array_equal(got.numpy(), average_precision(*drawn))
    assert len(got) == len(COCO_THRESHOLDS)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda d: AveragePrecision(thresholds=[0.0]), r"IoUs in \(0, 1\]"),
        (lambda d: AveragePrecision(thresholds=[]), "one IoU or more"),
        (lambda d: AveragePrecision(interpolation="voc"), "'coco' or 'all-point', got 'voc'"),
        (lambda d: AveragePrecision(most=0), "most: expected 1 or more"),
        (lambda d: average_precision(*d[:3], d[3][:, :2]), r"confidence: expected shape"),
        (
            lambda d: average_precision(*d[:3], np.where(d[3] > 0.5, np.nan, d[3])),
            "confidence: expected finite",
        ),
        (lambda d: average_precision(d[0], d[1], d[2][..., [2, 3, 0, 1]], d[3]), "x0 <= x1"),
        (lambda d: parts(d, slice(2)).merge(parts(d, slice(2), {"thresholds": [0.5]})), "equal settings"),
        (lambda d: parts(d, slice(2)).merge(parts(d, slice(2), ids=np.arange(30))), "on both sides"),
        (lambda d: parts(d, slice(2)).update(*(a[:2] for a in d), np.arange(2)), "every update or in none"),
    ],
)
def test_what_does_not_fit_is_refused(drawn, call, says):
    with pytest.raises(ValueError, match=says):
        call(drawn)
