from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from multiobj_data.scenes import Scenes
from reference_models.air import AIR, AIRConfig
from reference_models.base import Loss
from reference_models.training import TrainingResult, train
from reference_models.validation import Validation

SMALL = {"max_objects": 2, "lstm_size": 16, "hidden_size": 16, "what_size": 4, "window_size": 6}
"""Settings of a small AIR."""


class InMemory:
    """Scenes of 0-2 bright squares on 16 x 16 pixels, as a source of training data."""

    image_shape = (16, 16, 1)

    def __init__(self, n: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.reference: dict[str, Any] = {"squares": n, "seed": seed, "folder": "/somewhere"}
        self.count = rng.integers(0, 3, n)
        self.image = np.zeros((n, *self.image_shape), np.uint8)
        for image, count in zip(self.image, self.count, strict=True):
            for y, x in rng.integers(0, 12, (count, 2)):
                image[y : y + 4, x : x + 4] = 200

    def __len__(self) -> int:
        return len(self.image)

    def images(self, indices: np.ndarray) -> np.ndarray:
        return self.image[indices]

    def scenes(self, indices: np.ndarray) -> Scenes:
        image = self.image[indices]
        boxes = np.full((len(image), 2, 4), np.nan, np.float32)
        return Scenes(image, self.count[indices], np.zeros(image.shape[:3], np.uint8), boxes)


class Governed(AIR):
    """Keeps the weight of its first term in a buffer and changes it after each step, as GECO does."""

    log_weight: Tensor

    def __init__(self, config: AIRConfig, image_shape: tuple[int, int, int]) -> None:
        super().__init__(config, image_shape)
        self.register_buffer("log_weight", torch.zeros(()))

    def objective(self, images: Tensor, noise: Any) -> Loss:
        loss = super().objective(images, noise)
        return Loss(loss.terms, {next(iter(loss.terms)): self.log_weight.exp()})

    def after_step(self, means: Mapping[str, Tensor]) -> None:
        self.log_weight += 1e-3 * (next(iter(means.values())) + 300)


@pytest.fixture
def governed(monkeypatch: pytest.MonkeyPatch) -> type[Governed]:
    """Let `air` be a model that learns something without gradients."""
    monkeypatch.setattr("reference_models.air.AIR", Governed)
    return Governed


@pytest.fixture
def source() -> InMemory:
    return InMemory(40, seed=0)


@pytest.fixture
def small() -> dict[str, Any]:
    return dict(SMALL)


@pytest.fixture
def run(source: Any, small: dict[str, Any], tmp_path: Path) -> Callable[..., TrainingResult]:
    """Train a small AIR for 20 steps on 40 images, with what the test changes."""

    def train_with(out: str = "run", **changes: Any) -> TrainingResult:
        settings = {
            "seed": 5,
            "steps": 20,
            "batch_size": 8,
            "device": "cpu",
            "config": small,
            "validation": Validation(source),
            "checkpoint_every": 7,
            "evaluate_every": 4,
        }
        return train("air", changes.pop("source", source), tmp_path / out, **{**settings, **changes})

    return train_with
