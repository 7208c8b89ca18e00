"""Probes: slots are joined to the right objects, images stay apart, and scores are what they are called."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from metrics.evaluation.baselines import Truth, truth_prediction
from metrics.slots.objects import collect_slots
from metrics.slots.probes import Column, columns_of, fit, guess, r_squared, score
from metrics.slots.probing import _right, probe_slots
from multiobj_data.errors import DataError, UsageError
from multiobj_data.scenes import Prediction, Scenes

N, SIZE, MOST = 120, 16, 3


@pytest.fixture(scope="module")
def scenes():
    """0 to 3 squares a scene that do not meet, each in a quarter of its own; two backgrounds, objects from 2 on."""
    rng = np.random.default_rng(1)
    count = np.arange(N) % (MOST + 1)
    image = np.zeros((N, SIZE, SIZE, 1), np.uint8)
    segments = np.zeros((N, SIZE, SIZE), np.uint8)
    segments[:, SIZE - 1] = 1
    boxes = np.full((N, MOST, 4), np.nan, np.float32)
    factors = {
        "x": np.full((N, MOST), np.nan, np.float32),
        "shade": np.full((N, MOST), np.nan, np.float32),
        "turn": np.full((N, MOST), np.nan, np.float32),
        "class": np.full((N, MOST), -1, np.int16),
        "source_index": np.full((N, MOST), -1, np.int32),
    }
    for i in range(N):
        for k, quarter in enumerate(rng.permutation(4)[: count[i]]):
            side = rng.integers(3, 7)
            x, y = (quarter % 2) * 8, (quarter // 2) * 8
            segments[i, y : y + side, x : x + side] = 2 + k
            boxes[i, k] = x, y, x + side, y + side
            factors["x"][i, k] = x + side / 2
            factors["shade"][i, k] = rng.random()
            factors["turn"][i, k] = rng.random() * 2 * np.pi
            factors["class"][i, k] = rng.integers(0, 3)
            factors["source_index"][i, k] = rng.integers(0, 1000)
    return Scenes(
        image=image, count=count, segments=segments, boxes=boxes, background_segments=2, factors=factors
    )


def cut(scenes, size=50, first=1000):
    return [(first + np.arange(i, min(i + size, N)), scenes[i : i + size]) for i in range(0, N, size)]


def codes_of(scenes, noise=0.0):
    """True factors as codes of the true segments; nothing for the two backgrounds."""
    rng = np.random.default_rng(0)
    f = scenes.factors
    rows = [f["x"], f["shade"], np.cos(f["turn"]), np.sin(f["turn"]), *(f["class"] == c for c in range(3))]
    codes = np.nan_to_num(np.stack(rows, axis=-1)).astype(np.float32)
    codes += noise * rng.normal(size=codes.shape).astype(np.float32)
    return np.concatenate([np.full((len(scenes), 2, codes.shape[-1]), np.nan, np.float32), codes], axis=1)


class Knows(Truth):
    """Answers with the truth, or a part of it, slots shuffled in every image."""

    def __init__(self, scenes, noise=0.0, shuffle=True, boxes=False, spoil=lambda answer: answer, seed=0):
        self.arguments = noise, shuffle, boxes, spoil, seed
        self.calls = 0

    def predict_scenes(self, scenes):
        noise, shuffle, boxes, spoil, seed = self.arguments
        self.calls += 1
        answer = truth_prediction(scenes)
        codes = codes_of(scenes, noise)
        if boxes:
            return spoil(
                Prediction(
                    slots=codes[:, 2:], boxes=answer.boxes, presence=answer.presence, count=answer.count
                )
            )
        masks = answer.masks
        if shuffle:
            rng = np.random.default_rng(seed)
            order = np.stack([2 + rng.permutation(MOST) for _ in range(len(scenes))])
            order = np.concatenate([np.tile([0, 1], (len(scenes), 1)), order], axis=1)
            masks = np.take_along_axis(masks, order[:, :, None, None], 1)
            codes = np.take_along_axis(codes, order[:, :, None], 1)
        return spoil(Prediction(slots=codes, masks=masks, background_slots=(0, 1)))


# -- which slot is which object


@pytest.mark.parametrize("boxes", [False, True])
def test_codes_are_those_of_the_objects_however_slots_are_ordered(scenes, boxes):
    found = collect_slots(Knows(scenes, boxes=boxes), cut(scenes), min_pixels=1)
    expected = codes_of(scenes)[:, 2:][scenes.present]
    np.testing.assert_array_equal(found.codes, expected)
    np.testing.assert_array_equal(found.image, 1000 + np.nonzero(scenes.present)[0])
    np.testing.assert_array_equal(found.factors["class"], scenes.factors["class"][scenes.present])
    assert (found.iou == 1).all()
    assert (found.images, found.too_small) == (N, 0)
    assert found.matched_by == ("boxes" if boxes else "masks")


def test_the_matching_is_the_best_of_all(scenes):
    """Against brute force over assignments, with masks of noise."""

    def spoil(answer):
        rng = np.random.default_rng(5)
        masks = rng.dirichlet(np.full(6, 0.3), answer.masks.shape[:1] + answer.masks.shape[2:])
        codes = np.tile(np.arange(6.0)[:, None], (len(masks), 1, 1))
        return Prediction(slots=codes, masks=np.moveaxis(masks, -1, 1), background_slots=(3,))

    model = Knows(scenes, spoil=spoil)
    found = collect_slots(model, [(np.arange(20), scenes[:20])], min_pixels=1)
    labels = spoil(truth_prediction(scenes[:20])).masks.argmax(1)
    for i in range(20):
        iou = np.zeros((scenes.count[i], 6))
        for k, s in itertools.product(range(scenes.count[i]), (0, 1, 2, 4, 5)):
            a, b = scenes.segments[i] == 2 + k, labels[i] == s
            iou[k, s] = (a & b).sum() / (a | b).sum()
        best = max(
            (
                iou[range(len(iou)), list(slots)].sum()
                for slots in itertools.permutations((0, 1, 2, 4, 5), len(iou))
            ),
            default=0,
        )
        mine = found.image == i
        assert found.iou[mine].sum() == pytest.approx(best, abs=1e-12)
        for k, (code, value) in enumerate(zip(found.codes[mine][:, 0], found.iou[mine], strict=True)):
            assert (np.isnan(code) and value == 0) or iou[k, int(code)] == pytest.approx(value)


def test_objects_without_slot_or_too_small_are_counted_not_probed(scenes):
    def lose_first_object(answer):
        masks = answer.masks.copy()
        masks[:, 0] += masks[:, 2]
        masks[:, 2] = 0
        return replace(answer, masks=masks)

    sizes = np.array([[(s == 2 + k).sum() for k in range(MOST)] for s in scenes.segments])
    model = Knows(scenes, shuffle=False, spoil=lose_first_object)
    counts = probe_slots(model, cut(scenes), min_pixels=16, probes=["linear"]).objects
    large = (sizes >= 16) & scenes.present
    assert counts["objects"] == large.sum()
    assert counts["too_small"] == (scenes.present & ~large).sum()
    assert counts["unmatched"] == large[:, 0].sum()
    assert counts["probed"] == large[:, 1:].sum()
    assert counts["images"] == N


def test_absent_boxes_are_no_candidates(scenes):
    def absent(answer):
        return replace(answer, presence=np.zeros_like(answer.presence), boxes=answer.boxes)

    found = collect_slots(Knows(scenes, boxes=True, spoil=absent), cut(scenes))
    assert (found.iou == 0).all()
    assert np.isnan(found.codes).all()


def test_a_scene_that_comes_twice_counts_once(scenes):
    once = collect_slots(Knows(scenes), cut(scenes))
    again = collect_slots(Knows(scenes), cut(scenes) + cut(scenes, 30))
    inside = [
        (np.concatenate([index, index]), Scenes.concatenate([part, part])) for index, part in cut(scenes)
    ]
    within = collect_slots(Knows(scenes), inside)
    for other in (again, within):
        np.testing.assert_array_equal(other.image, once.image)
        np.testing.assert_array_equal(other.codes, once.codes)
        assert other.images == N


def test_collecting_stops_when_there_are_enough(scenes):
    model = Knows(scenes)
    found = collect_slots(model, cut(scenes, 10), most_objects=20)
    assert model.calls == 2
    assert 20 <= len(found.iou) < 40


# -- what is predicted


def test_true_factors_are_read_off_and_the_ceiling_is_one(scenes):
    result = probe_slots(Knows(scenes), cut(scenes), periods={"turn": 2 * np.pi}, min_pixels=1)
    assert set(result.scores) == {"x", "shade", "turn", "class"}  # and not source_index
    for name, scores in result.scores.items():
        assert scores["linear"] > 0.98, name
        assert scores["mlp"] > 0.9, name
        assert result.ceiling[name]["linear"] > 0.98
    assert result.kinds == {
        "x": "regression",
        "shade": "regression",
        "turn": "regression",
        "class": "classification",
    }
    assert result.where_and_what["linear"]["joint"] > 0.97
    assert result.where_and_what["chance"]["where"] == 1
    assert result.where_and_what["chance"]["joint"] < 0.5
    json.dumps(result.to_json(), allow_nan=False)


def test_a_circle_stays_one_where_its_kind_is_said_too(scenes):
    result = probe_slots(
        *(Knows(scenes), cut(scenes)),
        factors=["turn"],
        kinds={"turn": "regression"},
        periods={"turn": 2 * np.pi},
    )
    assert result.protocol["periods"] == {"turn": 2 * np.pi}
    assert result.scores["turn"]["linear"] > 0.98


def test_codes_of_noise_score_what_chance_scores(scenes):
    result = probe_slots(Knows(scenes, noise=1e4), cut(scenes), min_pixels=1)
    for name, scores in result.scores.items():
        for probe in ("linear", "mlp"):
            assert scores[probe] < scores["chance"] + 0.15, (name, probe)
            assert result.ceiling[name][probe] > 0.9


def test_no_image_is_on_both_sides(scenes, monkeypatch):
    """Spied on where probes learn: rows of training and of test have no image in common."""
    seen = []

    def spy(name, column, train, codes, seed):
        seen.append(train)
        return fit(name, column, train, codes, seed)

    monkeypatch.setattr("metrics.slots.probing.fit", spy)
    result = probe_slots(Knows(scenes), cut(scenes), min_pixels=1, probes=["linear"])
    image = collect_slots(Knows(scenes), cut(scenes), min_pixels=1).image
    for train in seen:
        assert not set(image[train]) & set(image[~train])
    assert result.objects["test_images"] == len(set(image[~seen[0]]))
    assert result.rows["x"] == (seen[0].sum(), (~seen[0]).sum())


def test_where_and_what_of_half_the_objects(scenes):
    """The first object of every image is lost: what is left is right, and joint is the product."""

    def lose(answer):
        masks = answer.masks.copy()
        masks[:, 0] += masks[:, 2]
        masks[:, 2] = 0
        return replace(answer, masks=masks)

    result = probe_slots(
        Knows(scenes, shuffle=False, spoil=lose),
        cut(scenes),
        min_pixels=1,
        probes=["linear"],
        factors=["class", "x"],
    )
    row = result.where_and_what["linear"]
    assert row["what"] == 1  # x is a place, it does not count
    assert 0.3 < row["where"] < 0.7
    assert row["joint"] == pytest.approx(row["where"])
    only_places = probe_slots(Knows(scenes), cut(scenes), probes=["linear"], factors=["x"]).where_and_what[
        "linear"
    ]
    assert only_places["where"] == 1
    assert math.isnan(only_places["what"])
    assert math.isnan(only_places["joint"])


def test_disentanglement_of_the_same_codes(scenes):
    result = probe_slots(
        Knows(scenes), cut(scenes), probes=["linear"], factors=["x", "shade"], dci="lasso", min_pixels=1
    )
    assert result.dci.factors == ("x", "shade")
    assert result.dci.importance[:2].diagonal().min() > 0.9
    assert result.to_json()["dci"]["disentanglement"] > 0.8


def test_angles_are_judged_round_the_circle():
    near, far = np.array([0.05, np.pi]), np.array([2 * np.pi - 0.05, 0.0])
    column = Column("turn", "regression", near, 2 * np.pi, "turn")
    np.testing.assert_allclose(column.decode(column.targets), near, atol=1e-12)
    opposite = Column("turn", "regression", far, 2 * np.pi, "turn").targets
    rows = np.ones(2, bool)
    assert score(column, rows, column.targets) == 1
    assert ((column.targets - opposite) ** 2).sum(1) == pytest.approx([0.01, 4], rel=1e-2)


def test_an_angle_is_right_within_a_tenth_of_a_turn_either_way():
    true = np.array([0.1, 0.1, 0.1, 6.2, 1.0])
    column = Column("turn", "regression", true, 2 * np.pi, "turn")
    angle = np.array([6.2, 0.5, 1.0, 0.3, 4.0])
    answer = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    rows = np.ones(5, bool)
    assert _right(column, rows, rows, answer).tolist() == [1, 1, 0, 1, 0]


def test_scores_are_scikit_learns(rng):
    from sklearn.metrics import accuracy_score, r2_score

    true, answer = rng.normal(size=(50, 1)), rng.normal(size=(50, 1))
    assert r_squared(true, answer) == pytest.approx(r2_score(true, answer))
    assert math.isnan(r_squared(np.ones((3, 1)), np.zeros((3, 1))))
    classes, guessed = rng.integers(0, 3, 50), rng.integers(0, 3, 50)
    column = Column("c", "classification", classes, None, "c")
    assert score(column, np.ones(50, bool), guessed) == accuracy_score(classes, guessed)
    train = np.arange(50) < 30
    assert (guess(column, train, ~train) == np.bincount(classes[:30]).argmax()).all()


def test_columns_know_what_is_unknown():
    columns = {
        c.name: c for c in columns_of({"a": np.array([1.5, np.nan]), "b": np.array([-1, 2]), "c": np.eye(2)})
    }
    assert {name: column.known.tolist() for name, column in columns.items()} == {
        "a": [True, False], "b": [False, True], "c[0]": [True, True], "c[1]": [True, True]
    }  # fmt: skip
    (whole,) = columns_of({"b": np.array([-1, 2])}, kinds={"b": "regression"})
    assert whole.known.tolist() == [False, True]


# -- bad input


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"factors": ["clas"]}, "no factor named 'clas'. Did you mean 'class'"),
        ({"kinds": {"clas": "regression"}}, "no factor named 'clas'. Did you mean 'class'"),
        ({"factors": []}, "factors: expected at least one name"),
        ({"probes": ["mlpp"]}, "no probe named 'mlpp'. Did you mean 'mlp'"),
        ({"probes": []}, "probes: expected at least one"),
        ({"min_iou": 0.0}, "min_iou: expected a value above 0"),
        ({"test_share": 1.5}, "test_share: expected a value above 0 and below 1"),
        ({"min_pixels": 0}, "min_pixels, most_objects: expected 1 or more"),
        ({"dci": "trees"}, "estimator: expected one of forest, boosting, lasso, got 'trees'"),
        ({"periods": {"class": 3.0}}, "factor class: expected a period above 0 of a quantity"),
    ],
)
def test_bad_arguments_are_refused(scenes, arguments, says):
    with pytest.raises(UsageError, match=says):
        probe_slots(Knows(scenes), cut(scenes), **arguments)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda a: replace(a, slots=None), "the codes of its slots to probe, its answers have none; fill in"),
        (
            lambda a: Prediction(slots=a.slots[:, 2:]),
            "masks, or boxes and presence, to tell which slot is which",
        ),
        (lambda a: a.masks, "expected predict to return a Prediction, got ndarray"),
        (lambda a: replace(a, masks=a.masks[:, :, :8]), "does not fit images"),
    ],
)
def test_answers_that_cannot_be_probed_are_refused(scenes, spoil, says):
    with pytest.raises(DataError, match=says) as caught:
        probe_slots(Knows(scenes, spoil=spoil), cut(scenes), model="m")
    assert "model 'm'" in str(caught.value)


def test_scenes_with_nothing_to_probe_are_refused(scenes):
    with pytest.raises(DataError, match="no factors to predict"):
        probe_slots(Knows(scenes), cut(replace(scenes, factors={})))
    with pytest.raises(DataError, match="got none of 99 visible pixels or more in 120 images"):
        probe_slots(Knows(scenes), cut(scenes), min_pixels=99)
    with pytest.raises(
        DataError, match="no factor can be probed: x, shade, turn, class: known for .* fewer than 10"
    ):
        probe_slots(Knows(scenes), [(np.arange(8), scenes[:8])], probes=["linear"])
    with pytest.raises(DataError, match="expected objects to probe"):
        probe_slots(Knows(scenes), [])


def test_tensors_are_taken(scenes):
    class Torch(Truth):
        def predict_scenes(self, part):
            answer = Knows(scenes).predict_scenes(part)
            return replace(
                answer, **{name: torch.as_tensor(array) for name, array in answer.arrays().items()}
            )

    one, other = (probe_slots(model, cut(scenes), probes=["linear"]) for model in (Torch(), Knows(scenes)))
    assert one.to_json() == other.to_json()
