from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from multiobj_data.errors import UsageError
from reference_models.parts.spn import SumProductNetwork
from reference_models.supair import SuPAIR
from tests.reference_models.models.small_supair import SHAPE, SMALL, VARIANTS, decide, images, rng, supair

PARTS = ("object", "background")


def test_prior_is_uniform_over_widths_and_heights(monkeypatch: pytest.MonkeyPatch) -> None:
    model = supair((50, 50, 1), occlusion_rate=1e-9)
    monkeypatch.setattr("reference_models.supair.LAYOUTS", 1)
    there = torch.ones(4000, 3, dtype=torch.bool)
    wide, high, left, top = model._sample_layout(there, rng()).unbind(-1)
    wider = 2 / 3 * (30**3 - 15**3) / (30**2 - 15**2)  # widths have more heights to go with
    assert abs(wide.mean() - wider) < 0.2
    density = math.exp(-model.poses.log_volume)
    for w, h, x, y in ((20, 20, 10, 30), (26, 25, 10, 12)):
        near = (
            (wide - w).abs().lt(2) & (high - h).abs().lt(2) & (left - x).abs().lt(9) & (top - y).abs().lt(9)
        )
        expected = density * 4 * 4 * 18 * 18 * near.numel()
        assert abs(near.sum().item() - expected) < 5 * math.sqrt(expected)


def test_sampled_layouts_hide_little() -> None:
    model = supair((50, 50, 1), side_range="0.2,0.4")
    there = torch.tensor([True, True, False]).expand(50, 3)
    hidden = -model._log_occlusion(model._sample_layout(there, rng()))[:, :2] / 120
    blind = -model._log_occlusion(
        model.poses.spread(torch.rand(200, 3, 4, dtype=torch.float64, generator=rng()))
    )
    assert hidden.mean() < 0.25 * blind[:, :2].mean() / 120


def test_samples_hold_as_many_objects_as_asked() -> None:
    sharp = {
        f"{name}_{end}_variance": 1e-8 * (1 + (end == "max")) for name in PARTS for end in ("min", "max")
    }
    model = supair((30, 30, 3), **sharp)
    assert isinstance(model.background, SumProductNetwork)
    with torch.no_grad():
        model.background.leaves.mean.fill_(0.1)
        model.looks(0).leaves.mean.fill_(0.9)
    count = torch.tensor([0, 1, 3] * 20)
    sampled = model.sample(60, rng(), count)
    assert sampled.shape == (60, 30, 30, 3)
    area = ((sampled - 0.1) / 0.8).mean(-1).sum((1, 2))  # that objects cover
    assert area[count == 0].abs().max() < 1
    assert area[count == 1].min() > 0.3**2 * 30**2 * 0.5
    assert area[count == 3].mean() > 2 * area[count == 1].mean()
    drawn = ((model.sample(300, rng()) - 0.1) / 0.8).mean(-1).sum((1, 2)) < 1
    assert abs(drawn.double().mean() - model.prior_count().probs[0]) < 0.12


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_prediction_shows_only_the_objects_it_counts(config: dict[str, Any]) -> None:
    none = decide(supair(**{**config, "count": "guided"}), -60.0).predict(images())
    assert (none.count == 0).all()
    assert (none.masks[:, 0] == 1).all()
    every = decide(supair(**{**config, "count": "guided"}), 60.0).predict(images())
    assert (every.count == 3).all()
    assert (every.masks[:, 1:].amax((2, 3)) > 0.5).any(1).all()
    assert (every.reconstruction != none.reconstruction).any()


def test_objects_and_background_are_completed_from_what_is_seen_of_them() -> None:
    model = decide(
        supair(count="guided", max_objects=2), 60.0
    )  # both at the same place: 4 x 4 pixels at (3, 2)
    place = torch.tensor([(0.4 - 0.3) / 0.3, 0.5, 3 / 9, 2 / 10.8], dtype=torch.float64)
    with torch.no_grad():
        last = model.guide.find[-1]
        assert isinstance(last, torch.nn.Linear)
        last.weight.zero_()
        last.bias[1:5] = torch.logit(place)
    prediction = model.predict(images(20))
    x = model.as_float(images(20))
    seen = torch.ones(20, 12, 10, dtype=torch.float64)
    seen[:, 2:6, 3:7] = 0
    torch.testing.assert_close(prediction.masks, torch.stack([seen, 1 - seen, 0 * seen], dim=1))
    expected = model.background.mpe(x.flatten(1), seen.flatten(1)).view(20, 12, 10)
    patch = x[:, 0, 2:6, 3:7].flatten(1)
    expected[:, 2:6, 3:7] = model.looks(0).mpe(patch).view(20, 4, 4)
    torch.testing.assert_close(prediction.reconstruction[..., 0], expected.clamp(0, 1))
    assert len(expected.unique(dim=0)) > 1  # the networks take the images for different ones
    torch.testing.assert_close(prediction.boxes[0, 0], torch.tensor([3, 2, 7, 6]).double())


def test_without_objects_the_background_is_completed() -> None:
    model = decide(supair(count="guided"), -60.0)
    reconstruction = model.predict(images()).reconstruction
    with torch.no_grad():
        expected = model.background.mpe(model.as_float(images()).flatten(1)).clamp(0, 1)
    torch.testing.assert_close(reconstruction.flatten(1), expected)


def test_inferred_order_decides_what_is_painted_in_front() -> None:
    model = supair(order="inferred", max_objects=2)
    x = torch.rand(40, 1, 12, 10, dtype=torch.float64, generator=rng())
    with torch.no_grad():
        scores = model.score(x, model.poses.sample((40, 2), rng()).double())
        total = scores.objects + scores.occlusion
        places = {(query.item, tuple(query.front)): i for i, query in enumerate(model.orders.queries)}
        first = total[:, places[0, ()]] + total[:, places[1, (0,)]]
        second = total[:, places[1, ()]] + total[:, places[0, (1,)]]
        order = model._order(scores, torch.full((40,), model.orders.sets.index((0, 1))))
    assert torch.equal(order[:, 0] == 0, first >= second)
    assert 0 < (first < second).sum() < 40


def test_counting_rules_differ_where_the_paper_rounds_each_step() -> None:
    images_, counts = images(1), {}
    for rule in ("mode", "rounded"):
        model = decide(supair(count="guided", count_rule=rule, max_objects=3), 0.3)  # p = .574 at each step
        prediction = model.predict(images_)
        counts[rule] = prediction.count.item()
        assert (prediction.presence >= 0.5).sum().item() == counts[rule]
    p = torch.sigmoid(torch.tensor(0.3))
    assert counts["rounded"] == 3
    assert counts["mode"] == torch.stack([1 - p, (1 - p) * p, (1 - p) * p**2, p**3]).argmax().item() == 0


def test_tight_boxes_lie_within_the_windows() -> None:
    tight, window = supair(boxes="tight", mask_level=0.01), supair()
    tight.load_state_dict(window.state_dict())
    inner, outer = tight.predict(images()).boxes, window.predict(images()).boxes
    assert (inner[..., :2] >= outer[..., :2].floor() - 1e-9).logical_or(outer[..., :2] < 0).all()
    assert (inner[..., 2:] <= outer[..., 2:].ceil() + 1e-9).all()
    assert (inner != outer).any()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"max_objects": 0}, "max_objects must be a positive number, got 0"),
        ({"object_min_variance": 0.4}, "object_min_variance must be below object_max_variance, got 0.4 and"),
        ({"background_min_variance": 0.2}, "background_min_variance must be below"),
        ({"background_max_variance": -1}, "background_max_variance must be a positive number"),
        ({"side_range": "0.5,0.2"}, "side_range: expected 0 < low < high, got 0.5, 0.2"),
        ({"aspect_range": "1,1"}, "aspect_range: expected 0 < low < high"),
        ({"order": "inferred", "max_objects": 5}, "max_objects is 5; use order fixed"),
        ({"count_prior": "categorical", "count_weights": "0,0"}, "not all 0"),
        ({"count_rule": "rounded"}, "set count=guided, or count_rule=mode"),
        ({"max_objects": 6}, "max_objects is 6; set count=guided"),
        ({"occlusion_rate": math.nan}, "occlusion_rate must be a positive number"),
        ({"object_depth": 5}, "16 pixels cannot be split into 32"),
        ({"mask": "hard"}, "mask must be one of soft, scatter"),
        ({"max_object": 2}, "Did you mean 'max_objects'"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        SuPAIR.from_config({**SMALL, **settings}, SHAPE)


def test_images_that_do_not_fit_are_refused() -> None:
    model = supair()
    with pytest.raises(UsageError, match=r"expected images \[B, 12, 10, 1\], got \[2, 13, 10, 1\]"):
        model.predict(np.zeros((2, 13, 10, 1), np.uint8))
    with pytest.raises(UsageError, match="expected uint8"):
        model.predict(np.full((2, *SHAPE), np.nan, np.float32))
