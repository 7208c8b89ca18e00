"""What a model learns without gradients, and the rise of the step size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from multiobj_data.errors import MobjError
from reference_models.air import AIR
from reference_models.base import Loss
from reference_models.batches import Batches
from reference_models.checkpoints import load_checkpoint
from reference_models.recording import TrainingLog
from reference_models.training import Progress, TrainingResult, open_run


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainingLog, "draw", lambda log: None)  # a second each


def weights_of(result: TrainingResult) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = torch.load(result.checkpoint, weights_only=True)["weights"]
    return weights


def test_it_is_called_after_every_step_with_the_mean_of_every_term(
    run: Callable[..., TrainingResult], governed: type[AIR], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, float]] = []

    def note(model: AIR, means: dict[str, Tensor]) -> None:
        assert not torch.is_grad_enabled()
        assert model.first.grad is not None  # so the optimiser has made its step
        told.append({name: mean.item() for name, mean in means.items()})

    monkeypatch.setattr(governed, "after_step", note)
    result = run(steps=3, evaluate_every=1)
    lines = map(json.loads, (result.checkpoint.parent / "log.jsonl").read_text().splitlines())
    assert [line["terms"] for line in lines if "total" in line] == told
    assert len(told) == 3


@pytest.mark.usefixtures("governed")
@pytest.mark.parametrize("step", [6, 10])
def test_what_it_has_learnt_is_there_bit_for_bit_after_a_resume(
    run: Callable[..., TrainingResult], step: int
) -> None:
    def stop(progress: Progress) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("resumed", steps=12, on_progress=stop)
    straight, resumed = (
        weights_of(run("straight", steps=12)),
        weights_of(run("resumed", steps=12, resume=True)),
    )
    assert straight["log_weight"].abs() > 0.1
    for name, weight in straight.items():
        assert torch.equal(weight, resumed[name]), name


def test_a_step_that_is_not_finite_changes_nothing(
    source: Any, small: dict[str, Any], governed: type[AIR], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    objective = governed.objective

    def diverging(model: AIR, images: Tensor, noise: Any) -> Loss:
        loss = objective(model, images, noise)
        factor = torch.nan if model.training_step == 3 else 1.0
        return Loss({name: term * factor for name, term in loss.terms.items()}, loss.weights)

    monkeypatch.setattr(governed, "objective", diverging)
    batches = Batches(source, 8, 5, torch.device("cpu"))
    with open_run("air", batches, tmp_path, small, None, resume=False) as run:
        run.advance()
        run.advance()
        before = {name: value.clone() for name, value in run.model.state_dict().items()}
        with pytest.raises(MobjError, match="not finite at step 3"):
            run.advance()
        assert before["log_weight"] != 0
        for name, value in run.model.state_dict().items():
            assert torch.equal(value, before[name]), name


def test_step_size_rises_to_what_it_would_be(
    run: Callable[..., TrainingResult], small: dict[str, Any]
) -> None:
    def rate(steps: int, warm_up: int) -> float:
        config = small | {"half_life": 5, "learning_rate": 0.01, "warm_up": warm_up}
        result = run(f"{steps} {warm_up}", steps=steps, config=config, validation=None)
        (group,) = load_checkpoint(result.checkpoint).extras["optimiser"]["param_groups"]
        return float(group["lr"])

    assert rate(1, 4) == pytest.approx(rate(1, 0) / 4)
    assert rate(3, 4) == pytest.approx(rate(3, 0) * 3 / 4)
    assert rate(4, 4) == rate(4, 0)
    assert rate(6, 4) == rate(6, 0)
