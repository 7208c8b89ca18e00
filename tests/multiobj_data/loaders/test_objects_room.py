import numpy as np
import pytest

from multiobj_data.loaders.objects_room import DOUBTFUL, REPAIRED, STORED, repair_background


def room(rng, walls, objects):
    """Sky, floor, one or two walls, then objects on the floor, in front of each other: 64 x 64."""
    row, column = np.mgrid[:64, :64]
    horizon = rng.integers(12, 24)
    corner = rng.integers(8, 56)
    depth = rng.integers(36, 46)
    ground = depth + (abs(column - corner) * rng.uniform(0.05, 0.3)).astype(int)
    labels = np.where(row < horizon, 0, np.where(row >= ground, 1, 2))
    if walls == 2:
        labels[(labels == 2) & (column >= corner)] = 3
    first = 2 + walls
    for k in range(objects):
        y, x, r = rng.integers(38, 58), rng.integers(0, 64), rng.integers(3, 8)
        labels[(row - y) ** 2 + (column - x) ** 2 < r * r] = first + k
    return labels.astype(np.uint8)


@pytest.mark.parametrize("objects", [0, 1, 3])
def test_four_background_masks_stay(objects):
    rng = np.random.default_rng(objects)
    for _ in range(100):
        labels = room(rng, 2, objects)
        segments, verdict = repair_background(labels, 7)
        assert verdict == STORED
        assert segments is labels


@pytest.mark.parametrize("objects", [1, 2, 3])
def test_three_background_masks_are_found_and_objects_moved(objects):
    rng = np.random.default_rng(objects)
    for _ in range(100):
        labels = room(rng, 1, objects)
        segments, verdict = repair_background(labels, 7)
        assert (verdict == REPAIRED) == (3 in labels)
        assert np.array_equal(segments, np.where(labels >= 3, labels + 1, labels))


def test_an_empty_room_with_one_wall_needs_nothing():
    labels = room(np.random.default_rng(0), 1, 0)
    segments, verdict = repair_background(labels, 4)
    assert (segments is labels, verdict) == (True, STORED)


def test_what_does_not_fit_either_way_is_left_and_flagged():
    labels = room(np.random.default_rng(0), 1, 0)
    labels[5:30, 50:] = 3  # reaches sky and side, beside a wall that reaches both sides
    assert repair_background(labels, 7)[1] == DOUBTFUL
    labels = room(np.random.default_rng(0), 2, 0)
    labels[labels == 3] = 1  # the second wall is missing, the first reaches one side
    labels[40:44, 30:34] = 3
    assert repair_background(labels, 7)[1] == DOUBTFUL
    labels = np.ones((64, 64), np.uint8)  # no sky
    labels[40:44, 30:34] = 3
    assert repair_background(labels, 7)[1] == DOUBTFUL


def test_without_a_place_for_the_last_object_nothing_is_moved():
    labels = room(np.random.default_rng(0), 1, 2)
    assert labels.max() == 4
    segments, verdict = repair_background(labels, 5)
    assert (segments is labels, verdict) == (True, DOUBTFUL)
    assert repair_background(labels, 6)[1] == REPAIRED


def test_sky_and_floor_are_told_by_their_place():
    labels = room(np.random.default_rng(0), 1, 2)
    swapped = np.array([2, 0, 1, 3, 4], np.uint8)[labels]
    assert repair_background(swapped, 7)[1] == REPAIRED
