"""Baselines: every answer is a valid one, depends on its image alone, and is what its rule says."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.cluster import KMeans

from metrics.evaluation.baselines import (
    BASELINES,
    colour_components,
    prediction_of_labels,
    truth_prediction,
)
from metrics.evaluation.clusters import _features, cluster_pixels
from metrics.evaluation.floors import baseline_predictor
from metrics.harness import evaluate
from multiobj_data.errors import UsageError
from multiobj_data.scenes import Scenes


def noise(rng, b=5, h=9, w=13, c=3):
    return rng.integers(0, 256, (b, h, w, c), dtype=np.uint8)


@pytest.fixture
def blocks():
    """Two images: a red and a blue square on grey that do not touch, and one that touches the border."""
    image = np.full((2, 16, 16, 3), 90, np.uint8)
    image[0, 2:6, 2:6] = 220, 0, 0
    image[0, 9:14, 8:15] = 0, 0, 220
    image[1, 0:5, 4:9] = 0, 200, 0
    return image


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_answer_is_whole_and_fits_together(name, channels, rng):
    images = noise(rng, c=channels)
    answer = BASELINES[name].predict(images)  # Prediction checks ranges and sums
    labels = BASELINES[name].labels(images)
    assert answer.masks.shape == (5, BASELINES[name].slots, 9, 13)
    np.testing.assert_array_equal(answer.masks.argmax(1), labels)
    for i, slot in itertools.product(range(5), range(1, BASELINES[name].slots)):
        y, x = np.nonzero(labels[i] == slot)
        assert answer.presence[i, slot - 1] == (len(x) > 0)
        if len(x):
            assert answer.boxes[i, slot - 1].tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
    np.testing.assert_array_equal(answer.count, answer.presence.sum(1))
    for i, label in itertools.product(range(5), range(BASELINES[name].slots)):
        own = labels[i] == label
        if own.any():
            colour = images[i][own].mean(0) / 255
            np.testing.assert_allclose(
                answer.reconstruction[i][own], np.tile(colour, (own.sum(), 1)), atol=1e-6
            )


@pytest.mark.parametrize("name", BASELINES)
def test_an_answer_depends_on_its_image_alone(name, rng, monkeypatch):
    images = noise(rng, b=6, h=20, w=20)
    whole = BASELINES[name].labels(images)
    np.testing.assert_array_equal(BASELINES[name].labels(images), whole)
    np.testing.assert_array_equal(BASELINES[name].labels(images[[4, 1]]), whole[[4, 1]])
    monkeypatch.setattr("metrics.evaluation.baselines._CHUNK_PIXELS", 900)  # two images at a time
    np.testing.assert_array_equal(BASELINES[name].labels(images), whole)


@pytest.mark.parametrize("name", ["chance", "kmeans"])
def test_slot_0_is_the_segment_with_most_border(name, rng):
    for labels in BASELINES[name].labels(noise(rng, b=20, h=12, w=12)):
        inner = labels.copy()
        inner[1:-1, 1:-1] = 255
        counts = np.bincount(inner[inner < 255], minlength=2)
        assert counts[0] == counts.max()


@pytest.mark.parametrize("name", BASELINES)
def test_no_image_and_one_pixel_are_answered(name):
    assert len(BASELINES[name].predict(np.zeros((0, 8, 8, 1), np.uint8))) == 0
    assert BASELINES[name].predict(np.full((1, 1, 1, 1), 7, np.uint8)).count.shape == (1,)


@pytest.mark.parametrize("name", BASELINES)
def test_tensors_are_answered_by_tensors(name, rng):
    images = noise(rng)
    expected = BASELINES[name].predict(images)
    got = BASELINES[name].predict(torch.as_tensor(images))
    for field, array in expected.arrays().items():
        assert isinstance(getattr(got, field), torch.Tensor)
        np.testing.assert_array_equal(getattr(got, field).numpy(), array)


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (np.zeros((2, 8, 8), np.uint8), r"images: expected shape \[any, any, any, any\], got \[2, 8, 8\]"),
        (np.zeros((2, 8, 8, 3)), "images: expected unsigned integers, got float64"),
        (np.zeros((2, 8, 8, 3), np.uint16), "images: expected uint8, got uint16"),
    ],
)
def test_other_images_are_refused(images, says):
    with pytest.raises(ValueError, match=says):
        BASELINES["kmeans"].predict(images)


def test_names_and_numbers_are_checked():
    assert baseline_predictor("kmeans") is BASELINES["kmeans"]
    with pytest.raises(UsageError, match="no baseline named 'kmean'. Did you mean 'kmeans'"):
        baseline_predictor("kmean")
    for slots in (0, 257, 2.5):
        with pytest.raises(UsageError, match="slots: expected a whole number from 1 to 256"):
            replace(BASELINES["kmeans"], slots=slots)


def test_one_slot_sees_one_segment_and_nothing_in_it(rng):
    images = noise(rng)
    answer = BASELINES["one-slot"].predict(images)
    assert (answer.masks == 1).all()
    assert (answer.count == 0).all()
    np.testing.assert_allclose(answer.reconstruction[:, 0, 0], images.mean((1, 2)) / 255, atol=1e-6)


def test_chance_draws_every_number_of_cells_and_cells_are_nearest_points(rng):
    labels = BASELINES["chance"].labels(noise(rng, b=300, h=24, w=24, c=1))
    counts = np.array([len(np.unique(one)) for one in labels])
    assert set(counts.tolist()) == {1, 2, 3, 4, 5, 6, 7}
    for one in labels[:40]:  # Voronoi cells are convex: in one piece, and so is the rest of each row
        for label in np.unique(one):
            assert ndimage.label(one == label, np.ones((3, 3)))[1] == 1
            for line in (*(one == label), *(one == label).T):
                assert (np.diff(line.astype(int)) == 1).sum() + line[0] <= 1


def test_chance_says_nothing_of_the_image(rng):
    """Two independent labellings agree no more than chance: the adjusted Rand index is about 0."""
    from sklearn.metrics import adjusted_rand_score

    first, second = (BASELINES["chance"].labels(noise(rng, b=200, h=16, w=16)) for _ in range(2))
    scores = [
        adjusted_rand_score(a.ravel(), b.ravel())
        for a, b in zip(first, second, strict=True)
        if len({*a.flat}) > 1
    ]
    same = [adjusted_rand_score(a.ravel(), a.ravel()) for a in first]
    assert np.mean(same) == 1
    assert np.mean(scores) < 0.3  # not 0: both hang together in space


def test_components_finds_separate_objects_and_the_border_colour(blocks):
    labels = BASELINES["components"].labels(blocks)
    expected = np.zeros((2, 16, 16), int)
    expected[0, 2:6, 2:6] = 2  # the larger piece comes first
    expected[0, 9:14, 8:15] = 1
    expected[1, 0:5, 4:9] = 1
    np.testing.assert_array_equal(labels, expected)
    assert BASELINES["components"].predict(blocks).count.tolist() == [2, 1]


def test_components_are_those_of_scipy_image_by_image(rng):
    """Against one call an image; binary images, whose background is exactly 0."""
    images = ((rng.random((8, 20, 20, 1)) < 0.25) * 255).astype(np.uint8)
    images[:, [0, -1]] = images[:, :, [0, -1]] = 0
    for got, image in zip(colour_components(images, 256), images, strict=True):
        pieces, n = ndimage.label(image[..., 0] > 0, np.ones((3, 3)))
        assert got.max() == n
        pairs = {*zip(pieces.flat, got.flat, strict=True)}
        assert len(pairs) == n + 1  # one to one
        sizes = np.bincount(got.ravel())[1:]
        assert (np.diff(sizes) <= 0).all()


def test_components_keep_the_largest_pieces_if_slots_are_few(blocks):
    labels = replace(BASELINES["components"], slots=2).labels(blocks)
    assert (labels[0, 9:14, 8:15] == 1).all()
    assert (labels[0, 2:6, 2:6] == 0).all()


def test_clusters_are_a_fixed_point_of_lloyds_rounds(rng):
    images = noise(rng, b=4, h=8, w=8)
    labels = cluster_pixels(images, 3).reshape(4, -1)
    for pixels, own in zip(_features(images), labels, strict=True):
        centres = np.stack([pixels[own == k].mean(0) for k in np.unique(own)])
        again = KMeans(len(centres), init=centres, n_init=1, max_iter=1).fit(pixels)
        np.testing.assert_array_equal(np.unique(own)[again.predict(pixels)], own)


def test_clusters_separate_what_differs_in_colour(blocks):
    labels = replace(BASELINES["kmeans"], slots=3).labels(blocks)[0]
    assert len(np.unique(labels[2:6, 2:6])) == len(np.unique(labels[9:14, 8:15])) == 1
    assert len({labels[0, 0], labels[3, 3], labels[12, 12]}) == 3
    assert labels[0, 0] == 0  # the background, which the border shows


def test_a_plain_image_has_clusters_by_position_alone():
    labels = BASELINES["kmeans"].labels(np.full((1, 12, 12, 3), 40, np.uint8))[0]
    assert len(np.unique(labels)) == 5
    for label in range(5):
        assert ndimage.label(labels == label)[1] == 1


def test_the_truth_scores_what_a_perfect_model_scores(scenes, batches):
    class Truth:
        def predict_indices(self, indices):
            return truth_prediction(scenes[indices - 100])

    result = evaluate(Truth(), batches(7))
    for name, best in {"count_accuracy": 1, "box_miou": 1, "mse": 0, "count_error": 0}.items():
        assert result.metrics[name]["mean"] == pytest.approx(best, abs=1e-12)


def test_the_truth_names_all_background_and_needs_no_box():
    segments = np.array([[[0, 1, 2, 3]]], np.uint8)
    scenes = Scenes(
        image=np.zeros((1, 1, 4, 3), np.uint8),
        count=np.array([2]),
        segments=segments,
        boxes=np.full((1, 3, 4), np.nan, np.float32),
        background_segments=2,
    )
    answer = truth_prediction(scenes)
    assert answer.background_slots == (0, 1)
    assert answer.masks.shape == (1, 5, 1, 4)
    np.testing.assert_array_equal(answer.masks.argmax(1), segments)
    assert np.isfinite(answer.boxes).all()
    assert answer.presence.tolist() == [[1, 1, 0]]


def test_a_label_map_says_everything():
    labels = np.array([[[0, 0, 2], [0, 2, 2]]])
    image = np.arange(6, dtype=np.uint8).reshape(1, 2, 3, 1) * 10
    answer = prediction_of_labels(labels, 4, image)
    assert answer.presence.tolist() == [[0, 1, 0]]
    assert answer.boxes[0].tolist() == [[0, 0, 0, 0], [1, 0, 3, 2], [0, 0, 0, 0]]
    np.testing.assert_allclose(
        answer.reconstruction[0, :, :, 0] * 255,
        [[40 / 3, 40 / 3, 110 / 3], [40 / 3, 110 / 3, 110 / 3]],
        rtol=1e-6,
    )
