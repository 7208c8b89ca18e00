import numpy as np
import pytest

from multiobj_data import Prediction, Scenes
from multiobj_data.scenes import expect


def make_scenes(**changes):
    b, k, h, w = 3, 2, 6, 5
    fields = {
        "image": np.zeros((b, h, w, 1), np.uint8),
        "count": np.array([0, 1, 2]),
        "segments": np.zeros((b, h, w), np.uint8),
        "boxes": np.zeros((b, k, 4), np.float32),
        "factors": {"class": np.zeros((b, k), np.int16)},
        "scene_factors": {"light": np.arange(b)},
        "amodal": np.zeros((b, k, h, w), bool),
    }
    return Scenes(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": np.zeros((3, 6, 5, 1), np.float32)}, "image: expected unsigned integers, got float32"),
        (
            {"image": np.zeros((3, 6, 5), np.uint8)},
            r"image: expected shape \[any, any, any, any\], got \[3, 6, 5\]",
        ),
        ({"count": np.array([0, 1, 3])}, r"count: expected values in 0\.\.2, got 0\.\.3"),
        ({"segments": np.full((3, 6, 5), 3, np.uint8)}, r"segments: expected labels 0\.\.2 .* got 3"),
        (
            {"segments": np.zeros((3, 5, 6), np.uint8)},
            r"segments: expected shape \[3, 6, 5\], got \[3, 5, 6\]",
        ),
        ({"boxes": np.zeros((3, 2, 4), int)}, "boxes: expected floats, got int64"),
        ({"factors": {"class": np.zeros((3, 4))}}, r"factors/class: expected \[3, 2, ...\], got \[3, 4\]"),
        ({"scene_factors": {"light": np.zeros(2)}}, "scene_factors/light"),
        ({"amodal": np.zeros((3, 2, 6, 5), np.uint8)}, "amodal: expected bool, got uint8"),
        ({"image": [[1]]}, "image: expected an array, got list"),
    ],
)
def test_scenes_refuse_what_does_not_fit_and_name_it(changes, message):
    with pytest.raises(ValueError, match=message):
        make_scenes(**changes)


def test_slices_joined_again_are_the_whole():
    scenes = make_scenes()
    joined = Scenes.concatenate([scenes[:1], scenes[1:]])
    for name in ("image", "count", "segments", "boxes", "amodal"):
        assert np.array_equal(getattr(joined, name), getattr(scenes, name))
    assert np.array_equal(joined.scene_factors["light"], [0, 1, 2])
    assert scenes.present.tolist() == [[False, False], [True, False], [True, True]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "at least one field"),
        ({"presence": np.full((2, 3), 1.5)}, r"presence: expected values in \[0, 1\], got 1\.5\.\.1\.5"),
        ({"presence": np.full((2, 3), np.nan)}, r"presence: expected values in \[0, 1\]"),
        ({"count": np.array([1, -1])}, "count: expected 0 or more, got -1"),
        (
            {"count": np.array([1.0, 2.0])},
            "count: expected signed integers or unsigned integers, got float64",
        ),
        ({"masks": np.ones((2, 3, 4, 4))}, "masks: expected to sum to 1 over slots"),
        (
            {"masks": np.full((1, 2, 4, 4), 0.5), "background_slots": (2,)},
            "background_slots: expected indices below 2",
        ),
        ({"presence": np.zeros((2, 3)), "boxes": np.zeros((2, 4, 4))}, r"boxes: expected shape \[2, 3, 4\]"),
        ({"log_likelihood": np.zeros(2)}, "log_likelihood and likelihood_kind: expected both or neither"),
        (
            {"log_likelihood": np.zeros(2), "likelihood_kind": "guess"},
            "likelihood_kind: expected one of .* got 'guess'",
        ),
        ({"slots": np.zeros((2, 3))}, r"slots: expected shape \[any, any, any\], got \[2, 3\]"),
        ({"slots": np.zeros((2, 3, 4), int)}, "slots: expected floats, got int64"),
        (
            {"slots": np.zeros((2, 2, 4)), "presence": np.zeros((2, 3))},
            "slots: expected one row for each of 3 presence, got 2",
        ),
        (
            {
                "slots": np.zeros((2, 3, 4)),
                "presence": np.zeros((2, 3)),
                "masks": np.full((2, 4, 5, 5), 0.25),
            },
            "slots: expected one row for each of 4 masks, got 3",
        ),
        ({"slots": np.full((2, 3, 4), np.nan)}, "slots: expected finite codes, got NaN"),
        ({"slots": np.full((2, 3, 4), -np.inf)}, "slots: expected finite codes, got NaN or infinity"),
    ],
)
def test_predictions_refuse_what_does_not_fit_and_name_it(fields, message):
    with pytest.raises(ValueError, match=message):
        Prediction(**fields)


def test_only_background_slots_may_have_no_code():
    codes = np.zeros((2, 3, 4))
    codes[:, 1] = np.nan
    masks = np.full((2, 3, 5, 5), 1 / 3)
    assert Prediction(slots=codes, masks=masks, background_slots=(1,)).slots is codes
    for wrong in ((), (0,), (0, 2)):
        with pytest.raises(ValueError, match="in a slot that is not background"):
            Prediction(slots=codes, masks=masks, background_slots=wrong)


def test_predictions_take_torch_tensors():
    import torch

    assert len(Prediction(count=torch.tensor([1, 2]), presence=torch.zeros(2, 3))) == 2
    assert len(Prediction(slots=torch.zeros(2, 3, 4, dtype=torch.bfloat16))) == 2
    with pytest.raises(ValueError, match="slots: expected finite"):
        Prediction(slots=torch.full((2, 3, 4), torch.inf))
    with pytest.raises(ValueError, match="got torch.float32"):
        Prediction(count=torch.zeros(2))


def test_expect_lets_none_stand_for_any_size():
    expect("x", np.zeros((2, 7)), (2, None))
    with pytest.raises(ValueError, match=r"x: expected shape \[any, 3\], got \[2, 7\]"):
        expect("x", np.zeros((2, 7)), (None, 3))
