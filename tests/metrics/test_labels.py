"""Masks to label maps, and the sentence for everything that is none."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metrics import adjusted_rand_index, label_maps, labels_of_one_hot, labels_of_soft_masks
from metrics.segmentation.pairing import pairs

NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
LIBRARIES = [np.asarray, torch.tensor]


def one_hot(labels, slots, axis=1):
    return np.moveaxis(np.eye(slots, dtype=np.uint8)[labels], -1, axis)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
@pytest.mark.parametrize("axis", [1, -1, 2])
def test_one_hot_masks_go_there_and_back(rng, library, dtype, axis):
    labels = rng.integers(0, 5, (4, 6, 7))
    got = labels_of_one_hot(library(one_hot(labels, 5, axis).astype(dtype)), axis)
    assert isinstance(got, type(library(labels)))
    np.testing.assert_array_equal(got, labels)


def test_masks_with_a_channel_axis_are_masks(rng):
    labels = rng.integers(0, 3, (2, 1, 5, 5))
    np.testing.assert_array_equal(labels_of_one_hot(one_hot(labels, 3)), labels)


@pytest.mark.parametrize("library", LIBRARIES)
def test_soft_masks_go_to_the_largest_slot_and_of_equal_ones_to_the_first(library):
    masks = np.array([[0.5, 0.2, 1 / 3, 0.0], [0.5, 0.4, 1 / 3, 1.0], [0.0, 0.4, 1 / 3, 0.0]])[None, :, None]
    labels = labels_of_soft_masks(library(masks))
    np.testing.assert_array_equal(labels, [[[0, 1, 0, 1]]])
    np.testing.assert_array_equal(labels_of_soft_masks(library(masks), threshold=0.4), [[[0, -1, -1, 1]]])


@pytest.mark.parametrize("device", ["meta-free cpu", pytest.param("cuda", marks=NEEDS_CUDA)])
def test_ties_on_a_device_go_to_the_first_slot(device, monkeypatch):
    masks = torch.full((2, 4, 3, 3), 0.25, device=device.split()[-1])
    assert not labels_of_soft_masks(masks).any()


@given(st.integers(0, 2**32))
def test_half_precision_masks_are_masks(seed):
    rng = np.random.default_rng(seed)
    masks = rng.dirichlet(np.ones(9), (2, 6, 6)).transpose(0, 3, 1, 2)
    half = masks.astype(np.float16)
    np.testing.assert_array_equal(labels_of_soft_masks(half), half.argmax(1))
    np.testing.assert_array_equal(labels_of_soft_masks(torch.tensor(masks).bfloat16()).shape, (2, 6, 6))


def test_uncovered_pixels_are_unscored_if_said_so():
    masks = np.zeros((1, 2, 1, 3), np.uint8)
    masks[0, 1, 0, :2] = 1
    np.testing.assert_array_equal(labels_of_one_hot(masks, uncovered="unscored"), [[[1, 1, -1]]])


HOT = one_hot(np.zeros((2, 3, 3), int), 2)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("masks", "says"),
    [
        (255 * HOT, "got 0 and 255, as DeepMind's readers give them"),
        (HOT | 1, "a pixel in 2; they overlap"),
        (HOT * 0, "a pixel in none"),
        (HOT * 0.5, "got 0.5; soft masks go through metrics.labels_of_soft_masks"),
        (HOT * 3, "got 3; label maps need no masks"),
        (np.where(HOT == 0, np.nan, 1.0), "expected finite values"),
        (HOT[0], r"expected \[B, K, H, W\], got shape \[2, 3, 3\]"),
        (HOT[:0], "at least one image, mask and pixel"),
    ],
)
def test_what_is_not_one_hot_is_refused(library, masks, says):
    with pytest.raises(ValueError, match=f"masks: .*{says}|masks: {says}"):
        labels_of_one_hot(library(masks))


SOFT = np.full((2, 4, 3, 3), 0.25)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("masks", "says"),
    [
        (SOFT * 0.99, "sums off by up to 0.01"),
        (SOFT - [[[[0.5]], [[-0.5]], [[0]], [[0]]]], r"in \[0, 1\], got -0.25..0.75"),
        (np.log(SOFT), "exponentiate logarithms"),
        (np.where(np.arange(3) == 1, np.nan, SOFT), "expected finite"),
        (np.where(np.arange(3) == 1, np.inf, SOFT), "expected finite"),
        (HOT, "expected floats, got .*uint8; masks of 0 and 1 go through metrics.labels_of_one_hot"),
        (SOFT[:0], "at least one image"),
        (SOFT[0], "expected"),
    ],
)
def test_what_are_no_soft_masks_is_refused(library, masks, says):
    with pytest.raises(ValueError, match=f"masks: .*{says}"):
        labels_of_soft_masks(library(masks))


def test_options_are_checked():
    with pytest.raises(ValueError, match=r"threshold: expected a number in \[0, 1\), got 1.5"):
        labels_of_soft_masks(SOFT, threshold=1.5)
    with pytest.raises(ValueError, match="axis: expected one of the axes 1..3"):
        labels_of_soft_masks(SOFT, axis=0)
    with pytest.raises(ValueError, match="uncovered: expected 'refuse' or 'unscored', got 'keep'"):
        labels_of_one_hot(HOT, uncovered="keep")


MAP = np.zeros((2, 4, 4), int)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (MAP[0], r"expected label maps \[B, H, W\], got shape \[4, 4\]; one image is labels\[None\]"),
        (MAP[0, 0], r"expected label maps \[B, H, W\], got shape \[4\]"),
        (MAP.astype(float), "expected label maps of whole numbers, got .*float64"),
        (MAP[:0], "at least one image with at least one pixel, .* is the set empty"),
        (MAP[:, :0], "at least one pixel"),
        (MAP + 2**53, r"below 2\*\*53"),
        (HOT, "looks like one-hot masks"),
        (MAP + 7, "below the declared number of 7, got 7"),
    ],
)
def test_what_are_no_label_maps_is_refused(library, labels, says):
    with pytest.raises(ValueError, match=f"labels: .*{says}"):
        label_maps(library(labels), num_labels=7)


def test_label_maps_of_any_form_are_label_maps(rng):
    for maps in (
        MAP,
        MAP.astype(bool),
        MAP - 1,
        MAP[:, None],
        rng.integers(0, 2, (2, 3, 4, 4)),
        MAP.astype(np.uint64),
    ):
        assert label_maps(maps, num_labels=7) is maps


def test_lists_are_told_what_is_wrong_with_which():
    maps = [np.zeros((3, 4), int), np.zeros((5, 2), int)]
    for true, predicted, says in [
        (maps, np.zeros((2, 3, 4), int), "expected lists of label maps for all of them or for none"),
        (maps, maps[:1], "predicted: expected 2 maps"),
        (maps, maps[::-1], r"predicted\[0\]: expected the size of the true map, \[3, 4\], got \[5, 2\]"),
        ([], [], "got an empty list"),
        ([maps[0][0]], [maps[0][0]], r"true\[0\]: expected a label map \[H, W\], got shape \[4\]"),
        ([maps[0], 3], maps, r"true\[1\]: expected an array, got int"),
        ([maps[0] * 1.0], [maps[0]], "expected label maps of whole numbers"),
    ]:
        with pytest.raises(ValueError, match=says):
            list(pairs(true, predicted))


@pytest.mark.parametrize(
    ("predicted", "ignore", "says"),
    [
        (
            MAP[:, :3],
            None,
            r"predicted: expected label maps of the size of the true ones, \[2, 4, 4\], got \[2, 3, 4\]",
        ),
        (MAP, MAP, r"ignore: expected bool \[2, 4, 4\]"),
        (MAP, MAP[0] == 0, r"ignore: expected bool \[2, 4, 4\] .*got bool \[4, 4\]"),
        (MAP.tolist(), None, "expected lists"),
        ("maps", None, "predicted: expected an array, got str"),
    ],
)
def test_maps_that_do_not_fit_each_other_are_refused(predicted, ignore, says):
    with pytest.raises(ValueError, match=says):
        adjusted_rand_index(MAP, predicted, ignore=ignore)


SOFT = np.full((1, 2, 3, 3), 0.5)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: labels_of_soft_masks(SOFT, threshold="x"),
            r"threshold: expected a number in \[0, 1\), got 'x'",
        ),
        (lambda: labels_of_soft_masks(SOFT, axis=1.0), r"axis: expected one of the axes 1\.\.3 .*got 1\.0"),
        (lambda: labels_of_one_hot(SOFT, axis=None), "axis: .*got None"),
        (lambda: labels_of_one_hot(SOFT, axis=True), "axis: .*got True"),
        (
            lambda: label_maps(MAP, num_labels="3"),
            "num_labels: expected a whole number of 1 or more, got '3'",
        ),
        (lambda: label_maps(MAP, num_labels=2.5), "num_labels: .*got 2.5"),
        (lambda: label_maps(np.ma.masked_equal(MAP, 1)), "labels: expected a plain array, got a masked one"),
        (lambda: labels_of_soft_masks(np.ma.masked_less(SOFT, 1)), "masks: expected a plain array"),
        (
            lambda: labels_of_soft_masks(torch.tensor(SOFT).to(torch.complex64)),
            "expected floats, got torch.comp",
        ),
        (
            lambda: labels_of_soft_masks(torch.tensor(SOFT).to(torch.float8_e4m3fn)),
            "expected floats, got torch.f",
        ),
    ],
)
def test_arguments_of_other_types_are_refused_in_a_sentence(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_masks_that_carry_gradients_are_taken_without_a_warning():
    masks = torch.tensor(SOFT, requires_grad=True)
    assert not labels_of_soft_masks(masks, threshold=0.6).requires_grad
    assert labels_of_one_hot(torch.eye(3, requires_grad=True).reshape(1, 3, 1, 3)).tolist() == [[[0, 1, 2]]]
