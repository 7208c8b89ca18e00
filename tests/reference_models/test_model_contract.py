from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from multiobj_data import plugins
from multiobj_data.errors import VerificationError
from multiobj_data.scenes import Prediction
from reference_models.air import AIR, AIRConfig
from reference_models.base import Loss
from reference_models.checks import check_model

SHAPES = [(50, 50, 1), (20, 24, 3)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("model_id", plugins.names("models"))
def test_every_registered_model_keeps_the_contract(model_id: str, shape: tuple[int, int, int]) -> None:
    kind = plugins.resolve("models", model_id)
    check_model(lambda: kind.from_config({}, shape), shape, model_id)


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
