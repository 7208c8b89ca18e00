from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from multiobj_data import plugins
from multiobj_data.errors import UsageError, VerificationError
from multiobj_data.scenes import Prediction
from reference_models.air import AIR, AIRConfig
from reference_models.base import Loss
from reference_models.checkpoints import build_model
from reference_models.checks import check_model
from reference_models.genesis_v2 import GenesisV2Config
from reference_models.supair import SuPAIRConfig

SHAPES = [(50, 50, 1), (20, 24, 3)]
SLOTS = {"slots": 3, "slot_size": 8, "width": 8}
FORMS: dict[str, tuple[dict[str, Any], list[tuple[int, int, int]]]] = {
    "genesis": (SLOTS, [(32, 32, 1), (20, 24, 3)]),
    "genesis-v2": (SLOTS, [(32, 32, 1), (16, 48, 3)]),
    "emorl": (
        {"slots": 3, "slot_size": 8, "encoder_channels": 8, "encoder_layers": 2, "decoder_channels": 8},
        [(20, 18, 1), (12, 16, 3)],
    ),
    "sri": (SLOTS, [(32, 32, 1), (16, 48, 3)]),
    "sri-sa": (SLOTS, [(32, 32, 1), (16, 48, 3)]),
}
"""Settings and image shapes of the models that are slow by default or cannot make any shape."""

CASES = [
    (model_id, settings, shape)
    for model_id in plugins.names("models")
    for settings, shapes in [FORMS.get(model_id, ({}, SHAPES))]
    for shape in shapes
]


@pytest.mark.parametrize(("model_id", "settings", "shape"), CASES, ids=lambda value: str(value)[:20])
def test_every_registered_model_keeps_the_contract(
    model_id: str, settings: dict[str, Any], shape: tuple[int, int, int]
) -> None:
    kind = plugins.resolve("models", model_id)
    check_model(lambda: kind.from_config(settings, shape), shape, model_id)


@pytest.mark.parametrize("model_id", plugins.names("models"))
def test_answers_are_the_same_in_inference_mode(model_id: str) -> None:
    settings, shapes = FORMS.get(model_id, ({"lstm_size": 8, "hidden_size": 8}, SHAPES))
    model = build_model(model_id, settings, shapes[-1], seed=0)
    images = np.random.default_rng(0).integers(0, 256, (2, *shapes[-1]), np.uint8)
    with torch.inference_mode():
        inside = model.predict(torch.as_tensor(images))
    for name, array in model.predict(torch.as_tensor(images)).arrays().items():
        torch.testing.assert_close(inside.arrays()[name], array, equal_nan=True)


@pytest.mark.parametrize(
    ("kind", "settings", "sentence"),
    [
        (
            AIRConfig,
            {"estimator": "enumerat"},
            "air: estimator: expected one of .* Did you mean 'enumerate'",
        ),
        (GenesisV2Config, {"kernel": "gausian"}, "kernel: expected one of .*, got 'gausian'"),
        (SuPAIRConfig, {"warm_up": -5}, "supair: warm_up must be 0 or more, got -5"),
    ],
)
def test_settings_given_in_python_are_checked_like_those_of_the_command(
    kind: Callable[..., Any], settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        kind(**settings)


def test_building_a_model_leaves_the_generators_of_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    monkeypatch.setattr(torch.cuda, "manual_seed", seeded.append)
    before = torch.get_rng_state()
    build_model("air", {"lstm_size": 8, "hidden_size": 8}, (10, 12, 1), seed=7)
    assert seeded == []
    assert torch.equal(torch.get_rng_state(), before)


class Moody(AIR):
    """Answers differently on every call."""

    def predict_batch(self, images: torch.Tensor) -> Prediction:
        return Prediction(presence=torch.rand(len(images), 3))


class Unmoved(AIR):
    """Has a parameter that the loss does not depend on."""

    def __init__(self, config: AIRConfig, image_shape: tuple[int, int, int]) -> None:
        super().__init__(config, image_shape)
        self.unused = torch.nn.Parameter(torch.zeros(1))


class BatchBound(AIR):
    """Lets the images of a batch decide about each other."""

    def predict_batch(self, images: torch.Tensor) -> Prediction:
        return Prediction(presence=images.float().mean().div(255).expand(len(images), 3))


class Diverged(AIR):
    """Has a loss that is not a number."""

    def loss(self, images: torch.Tensor, generator: torch.Generator) -> Loss:
        return Loss({"nll": super().loss(images, generator).per_image * torch.nan})


class Dazzling(AIR):
    """Paints brighter than white."""

    def sample(self, n: int, generator: torch.Generator, count: torch.Tensor | None = None) -> torch.Tensor:
        return super().sample(n, generator, count) + 2


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        (Moody, "two calls"),
        (Unmoved, "gradient, not so unused"),
        (BatchBound, "a part of it"),
        (Diverged, "nll must be finite"),
        (Dazzling, r"\[0, 1\]"),
    ],
)
def test_breach_of_contract_is_found(kind: Callable[..., AIR], complaint: str) -> None:
    shape = (10, 12, 1)
    with pytest.raises(VerificationError, match=complaint):
        check_model(kind(AIRConfig(lstm_size=8, hidden_size=8, what_size=2, window_size=4), shape), shape)
