"""The kernel against counting by hand, whatever the labels' type, size and library."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.cluster import contingency_matrix

from metrics import compact_labels, contingency_table
from metrics.segmentation import contingency as kernel
from metrics.segmentation.pairing import NO_LABEL

NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DTYPES = [np.uint8, np.int8, np.uint16, np.int32, np.int64, np.uint64]


def by_hand(true, predicted, g, k, counts=None):
    table = np.zeros((len(true), g, k))
    for b in range(len(true)):
        for where in np.ndindex(true[b].shape):
            if counts is None or counts[b][where]:
                table[b, true[b][where], predicted[b][where]] += 1
    return table


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 1, 1), (5, 4, 7), (2, 3, 4, 5), (40, 33, 17), (1, 200, 150)])
def test_counts_are_those_of_counting_by_hand(rng, dtype, shape):
    true, predicted = rng.integers(0, 5, shape).astype(dtype), rng.integers(0, 7, shape)
    table = contingency_table(true, predicted, num_labels=(5, 7))
    assert table.dtype == np.float64
    np.testing.assert_array_equal(table, by_hand(true, predicted, 5, 7))


def test_codes_do_not_run_over_at_the_ends_of_their_types(rng):
    for g, k in [(15, 17), (16, 16), (16, 17), (1, 256), (256, 1), (255, 257), (256, 256), (300, 300)]:
        true, predicted = rng.integers(0, g, (2, 30, 30)), rng.integers(0, k, (2, 30, 30))
        true[:, 0, 0], predicted[:, 0, 0] = g - 1, k - 1
        want = [
            np.bincount(t.ravel() * k + p.ravel(), minlength=g * k).reshape(g, k)
            for t, p in zip(true, predicted, strict=True)
        ]
        np.testing.assert_array_equal(contingency_table(true, predicted), want)
        small = contingency_table(true.astype(np.uint16), predicted.astype(np.uint16))
        np.testing.assert_array_equal(small, want)


def test_scikit_learn_counts_the_same(rng):
    true, predicted = rng.integers(0, 6, (4, 20, 20)), rng.integers(0, 4, (4, 20, 20))
    for table, t, p in zip(contingency_table(true, predicted), true, predicted, strict=True):
        np.testing.assert_array_equal(table, contingency_matrix(t.ravel(), p.ravel()))


def test_what_is_ignored_or_negative_is_not_counted(rng):
    true, predicted = rng.integers(-1, 4, (6, 9, 9)), rng.integers(0, 3, (6, 9, 9))
    ignore = rng.random(true.shape) < 0.2
    table = contingency_table(true, predicted, ignore=ignore, num_labels=(4, 3))
    counts = ~ignore & (true >= 0)
    np.testing.assert_array_equal(table, by_hand(true, predicted, 4, 3, counts))
    void, anything = np.where(counts, true, 255), np.where(counts, predicted, -7)
    again = contingency_table(void, anything, ignore=~counts, num_labels=(4, 3))
    np.testing.assert_array_equal(again, table)


def test_a_pixel_in_no_slot_is_refused_only_where_it_counts(rng):
    true, predicted = np.array([[[0, 1, -1]]]), np.array([[[0, 1, -1]]])
    np.testing.assert_array_equal(contingency_table(true, predicted), [[[1, 0], [0, 1]]])
    with pytest.raises(ValueError, match="a pixel in no slot"):
        contingency_table(abs(true), predicted)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)])
def test_tensors_are_counted_where_they_are(rng, device):
    true, predicted = rng.integers(0, 5, (7, 12, 12)), rng.integers(0, 9, (7, 12, 12)).astype(np.uint8)
    table = contingency_table(torch.tensor(true), torch.tensor(predicted, device=device))
    assert table.device.type == device
    assert table.dtype == torch.float64
    np.testing.assert_array_equal(table.cpu().numpy(), contingency_table(true, predicted))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)])
@pytest.mark.parametrize("pixels", [1, 31, 32, 500])
def test_the_kernel_for_accelerators_counts_the_same(rng, device, pixels):
    true, predicted = rng.integers(0, 5, (6, pixels)), rng.integers(0, 9, (6, pixels))
    on_device = [torch.tensor(codes, device=device, dtype=torch.uint8) for codes in (true, predicted)]
    table = kernel.count_pairs(*on_device, 5, 9)
    np.testing.assert_array_equal(table.cpu().numpy(), kernel.count_pairs(true, predicted, 5, 9))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_chunks_put_together_are_the_whole(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    b, p, top = (
        data.draw(st.integers(1, 9)),
        data.draw(st.integers(1, 30)),
        data.draw(st.sampled_from([3, 10**9])),
    )
    values = rng.integers(-1, top, 4)
    true, predicted = values[rng.integers(0, 4, (2, b, 1, p))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "_PIXELS", data.draw(st.integers(1, 60)))
        patch.setattr(kernel, "_CELLS", data.draw(st.integers(1, 60)))
        patch.setattr(kernel, "_CACHE", data.draw(st.integers(1, 60)))
        seen = []
        for part in kernel.overlaps(true, predicted):
            for row, table in enumerate(part.table):
                image = np.arange(b)[part.rows][row]
                seen.append(image)
                names = [np.broadcast_to(n, (len(part.table), n.shape[1]))[row] for n in part[2:]]
                cells = {
                    (int(names[0][i]), int(names[1][j])): table[i, j]
                    for i, j in zip(*table.nonzero(), strict=True)
                }
                want = {}
                for t, q in zip(true[image].ravel(), predicted[image].ravel(), strict=True):
                    pair = tuple(int(x) if x >= 0 else NO_LABEL for x in (t, q))
                    want[pair] = want.get(pair, 0) + 1
                assert cells == want
    assert seen == list(range(b))


def test_labels_are_numbered_anew_image_by_image(rng):
    labels = np.array([[[7, 7], [-3, 10**12]], [[5, 5], [5, 5]]])
    for maps in (labels, torch.tensor(labels)):
        compact, meaning = (np.asarray(part) for part in compact_labels(maps))
        np.testing.assert_array_equal(compact, [[[1, 1], [0, 2]], [[0, 0], [0, 0]]])
        np.testing.assert_array_equal(meaning, [[-3, 7, 10**12], [5, NO_LABEL, NO_LABEL]])


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([[1]], "labels: expected an array, got list"),
        (np.ones((1, 2, 2)), "labels: expected whole numbers"),
        (np.ones((0, 2, 2), int), "at least one image and one pixel"),
        (np.ones((2, 0, 2), int), "at least one image and one pixel"),
        (np.ones(2, int), r"got int64 \[2\]"),
        (np.full((1, 2, 2), 2**64 - 1, np.uint64), "expected labels below 2"),
    ],
)
def test_what_is_no_label_map_is_not_numbered_anew(labels, says):
    with pytest.raises(ValueError, match=says):
        compact_labels(labels)


@pytest.mark.parametrize(
    ("true", "options", "says"),
    [
        (np.full((2, 3, 3), 10**6), {}, "too large; number each image's labels anew"),
        (
            np.full((2, 3, 3), 7),
            {"num_labels": (7, 1)},
            "true: expected labels below the declared number of 7, got 7",
        ),
        (np.zeros((2, 3, 3), int), {"num_labels": (0, 1)}, "num_labels: expected numbers"),
        ([np.zeros((3, 3), int)] * 2, {}, "expected an array"),
    ],
)
def test_what_makes_no_table_is_refused(true, options, says):
    with pytest.raises(ValueError, match=says):
        contingency_table(
            true, np.full((2, 3, 3), 10**4) if not options else np.zeros((2, 3, 3), int), **options
        )


def test_an_image_of_nothing_but_names_is_refused():
    names = np.arange(9000 * 2).reshape(1, 100, 180)
    with pytest.raises(ValueError, match="18000 x 18000 different labels in one image"):
        list(kernel.overlaps(names, names))
