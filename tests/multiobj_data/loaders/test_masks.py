import numpy as np
import pytest

from multiobj_data.errors import DataError
from multiobj_data.loaders.example import BYTES, Feature
from multiobj_data.loaders.masks import label_map, wire_label_map
from multiobj_data.loaders.spans import Span

CROPS = [(slice(None), slice(None)), (slice(3, 17), slice(5, 29)), (slice(0, 1), slice(39, 40))]


def scene(rng, n, height=20, width=40):
    """Boxes over a background, later ones in front; some slots stay empty: label map and masks."""
    labels = np.zeros((height, width), np.uint8)
    for entity in range(1, n):
        y, x, h, w = rng.integers(0, [height, width, height // 2, width // 2])
        labels[y : y + h, x : x + w] = entity
    return labels, np.where(labels == np.arange(n)[:, None, None], 255, 0).astype(np.uint8)


def on_wire(masks):
    """The masks as one-byte strings, somewhere in a buffer."""
    body = np.full((masks.size, 3), (10, 1, 0), np.uint8)
    body[:, 2] = masks.reshape(-1)
    return Feature(BYTES, Span(b"abc" + body.tobytes() + b"\n\x01\xff", 3, 3 + body.size))


def both(masks, crop):
    return wire_label_map(on_wire(masks), *masks.shape, crop), label_map(masks, crop)


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("n", [1, 2, 5, 11])
def test_a_partition_gives_its_label_map(crop, n):
    rng = np.random.default_rng(n)
    for _ in range(30):
        labels, masks = scene(rng, n)
        for segments, seen, unclear in both(masks, crop):
            assert segments.dtype == np.uint8
            assert np.array_equal(segments, labels[crop])
            assert np.array_equal(seen, np.isin(np.arange(n), labels))
            assert unclear == 0


def test_a_background_that_is_empty_or_begins_elsewhere():
    labels = np.ones((6, 5), np.uint8)
    labels[2, 3] = 0
    for holes in (labels, np.where(labels == 0, 1, labels)):
        masks = np.where(holes == np.arange(3)[:, None, None], 255, 0).astype(np.uint8)
        for segments, seen, _ in both(masks, CROPS[0]):
            assert np.array_equal(segments, holes)
            assert seen.tolist() == [0 in holes, True, False]


@pytest.mark.parametrize("crop", CROPS)
def test_unclear_pixels_follow_the_rule_and_are_counted(crop):
    rng = np.random.default_rng(0)
    masks = np.where(rng.random((6, 20, 40)) < 0.2, 255, 0).astype(np.uint8)
    fast, (segments, seen, unclear) = both(masks, crop)
    claims = (masks > 0)[:, crop[0], crop[1]]
    last = [
        [max([k for k in range(6) if claims[k, i, j]], default=0) for j in range(claims.shape[2])]
        for i in range(claims.shape[1])
    ]
    assert np.array_equal(segments, last)
    assert unclear == (claims.sum(0) != 1).sum()
    assert seen.all()
    assert fast is None or unclear == 0


@pytest.mark.parametrize("n", [3, 11])
def test_two_masks_that_are_all_full_are_not_taken_for_one(n):
    masks = np.full((n, 20, 40), 255, np.uint8)
    fast, (segments, _, unclear) = both(masks, CROPS[0])
    assert fast is None
    assert (segments == n - 1).all()
    assert unclear == 800


@pytest.mark.parametrize("value", [1, 127, 128, 254])
def test_other_values_are_refused_wherever_they_are(value):
    rng = np.random.default_rng(value)
    for _ in range(40):
        _, masks = scene(rng, 4)
        masks.reshape(-1)[rng.integers(masks.size)] = value
        assert wire_label_map(on_wire(masks), *masks.shape, CROPS[1]) is None
        with pytest.raises(DataError, match="expected values 0 and 255"):
            label_map(masks, CROPS[1])


def test_two_values_that_sum_to_one_claim_are_refused():
    _, masks = scene(np.random.default_rng(0), 4)
    masks[:, 9, 9] = (0x80, 0x7F, 0, 0)
    assert wire_label_map(on_wire(masks), *masks.shape) is None


def test_wrong_tags_are_seen_wherever_they_are():
    rng = np.random.default_rng(0)
    _, masks = scene(rng, 3, 6, 7)
    good = on_wire(masks)
    assert wire_label_map(good, *masks.shape) is not None
    for place in range(good.body.size):
        if place % 3 == 2:
            continue
        for bits in (1, 0xF5, 0xFE, rng.integers(1, 256)):
            wire = bytearray(good.body.buffer)
            wire[3 + place] ^= int(bits)
            wrong = Feature(BYTES, Span(bytes(wire), *good.body[1:]))
            assert wire_label_map(wrong, *masks.shape, (slice(2, 4), slice(2, 3))) is None


def test_the_wrong_size_is_seen():
    _, masks = scene(np.random.default_rng(0), 3)
    assert wire_label_map(on_wire(masks), 3, 20, 41) is None
