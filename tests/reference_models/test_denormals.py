"""Numbers below the smallest normal float count as zero while models train and answer, and only then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from reference_models import base
from reference_models.air import AIR
from reference_models.denormals import flushed_denormals
from reference_models.supair import SuPAIR
from reference_models.training import TrainingResult


def denormal() -> float:
    """Compute a number below 1e-38."""
    return (torch.tensor([1e-30]) * 1e-10).item()


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormals")
    torch.set_flush_denormal(False)
    yield
    torch.set_flush_denormal(False)


def test_denormals_are_flushed_within() -> None:
    assert denormal() > 0
    with flushed_denormals():
        assert denormal() == 0
    assert denormal() > 0


def test_a_thread_that_flushes_goes_on_flushing() -> None:
    torch.set_flush_denormal(True)
    with flushed_denormals():
        assert denormal() == 0
    assert denormal() == 0


def test_errors_bring_denormals_back() -> None:
    with pytest.raises(RuntimeError, match="lost"), flushed_denormals():
        raise RuntimeError("lost")
    assert denormal() > 0


def test_training_flushes(monkeypatch: pytest.MonkeyPatch, run: Callable[..., TrainingResult]) -> None:
    seen: list[float] = []
    objective = AIR.objective

    def watched(self: AIR, images: Tensor, noise: Any) -> base.Loss:
        seen.append(denormal())
        return objective(self, images, noise)

    monkeypatch.setattr(AIR, "objective", watched)
    run(steps=2)
    assert seen == [0, 0]
    assert denormal() > 0


def test_predicting_flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    answer = SuPAIR.predict_batch

    def watched(self: SuPAIR, images: Tensor) -> Any:
        seen.append(denormal())
        return answer(self, images)

    monkeypatch.setattr(SuPAIR, "predict_batch", watched)
    model = SuPAIR.from_config({}, (12, 12, 1))
    model.predict(torch.zeros(1, 12, 12, 1, dtype=torch.uint8))
    assert seen == [0]
    assert denormal() > 0
