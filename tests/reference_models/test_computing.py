"""Compiled and bfloat16 losses: the same up to rounding, noted in the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multiobj_data.errors import UsageError
from multiobj_data.scenes import Prediction
from reference_models import computing
from reference_models.air import AIR
from reference_models.base import Loss, ModelConfig, SceneModel
from reference_models.batches import Batches
from reference_models.checkpoints import build_model
from reference_models.computing import PLAIN, Computing, StepLoss
from reference_models.parallel import ALONE
from reference_models.parts.objects.occlusion import Orders, any_objects
from reference_models.training import TrainingResult

CPU = torch.device("cpu")


class Line(SceneModel):
    """A linear code of noisy images, with a weight that depends on the step."""

    config_type = ModelConfig

    def __init__(self, config: ModelConfig, image_shape: tuple[int, int, int]) -> None:
        super().__init__(config, image_shape)
        height, width, channels = image_shape
        self.code = nn.Linear(height * width * channels, 3)

    @torch.compiler.disable
    def annealed(self) -> Tensor:
        return torch.tensor(1 / self.training_step)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 3, generator=generator)

    def objective(self, images: Tensor, noise: Tensor) -> Loss:
        code = self.code(images.flatten(1))
        error = ((code + noise) @ self.code.weight - images.flatten(1)).float().square().mean(-1)
        return Loss({"error": error, "size": code.float().square().sum(-1)}, {"size": self.annealed()})

    def predict_batch(self, images: Tensor) -> Prediction:
        raise NotImplementedError

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        raise NotImplementedError


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Compile to what is run as it is; collect what was compiled."""
    compiled: list[Any] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(computing, "BACKEND", backend)
    torch.compiler.reset()
    yield compiled
    torch.compiler.reset()


def losses(source: Any, how: Computing, steps: int = 4) -> list[dict[str, float]]:
    """Return the means and gradients of a model's first steps, without learning."""
    torch.manual_seed(0)
    model = Line(ModelConfig(learning_rate=1e-3, half_life=1e3, gradient_clip=1.0), (16, 16, 1))
    step_loss = StepLoss(model, Batches(source, 8, 5, CPU), how, ALONE, "line")
    rows = []
    for step in range(1, steps + 1):
        model.training_step = step
        model.zero_grad()
        loss = step_loss(step)
        loss.total.backward()
        norms = {name: float(parameter.grad.norm()) for name, parameter in model.named_parameters()}
        rows.append(
            {"total": loss.total.item(), **dict(zip(loss.terms, loss.means().tolist(), strict=True)), **norms}
        )
    return rows


def test_a_compiled_loss_is_the_same_and_compiled_once(source: Any, compilations: list[Any]) -> None:
    plain = losses(source, PLAIN)
    for row, expected in zip(losses(source, Computing(compile=True)), plain, strict=True):
        assert row == pytest.approx(expected, rel=1e-4)
    once = len(compilations)
    assert once > 0
    torch.compiler.reset()
    losses(source, Computing(compile=True), steps=1)
    assert len(compilations) == 2 * once  # no later step was compiled anew


def test_bfloat16_is_close_and_not_the_same(source: Any) -> None:
    for row, expected in zip(losses(source, Computing(precision="bf16")), losses(source, PLAIN), strict=True):
        assert row == pytest.approx(expected, rel=0.03)
        assert row != expected


@pytest.mark.parametrize("model_id", ["air", "supair"])
def test_counts_and_poses_keep_single_precision(model_id: str) -> None:
    model = build_model(model_id, {"lstm_size": 8, "hidden_size": 8}, (20, 20, 1), seed=0)
    x = torch.rand(2, 1, 20, 20)
    noise = model.draw(2, torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        q = model.infer(x, getattr(noise, "z", noise))  # type: ignore[operator]
        assert q.z.dtype == q.decisions.dtype == q.count.logits.dtype == torch.float32


def test_orders_weigh_the_same_whatever_the_precision_elsewhere() -> None:
    orders = Orders(any_objects(3), every=True)
    values = 500 * torch.randn(4, len(orders.items), generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        inside = orders.evidence(values)
    assert torch.equal(inside, orders.evidence(values))


def test_how_losses_were_computed_is_noted_and_kept(run: Callable[..., TrainingResult]) -> None:
    path = run(steps=2, computing=Computing(precision="bf16"), checkpoint_every=2).checkpoint
    saved = torch.load(path, weights_only=True)
    assert (saved["extras"]["compile"], saved["extras"]["precision"]) == (False, "bf16")
    assert all(weight.dtype == torch.float32 for weight in saved["weights"].values())
    with pytest.raises(UsageError, match="precision bf16, not fp32"):
        run(steps=3, resume=True)
    with pytest.raises(UsageError, match="compile False, not True"):
        run(steps=3, resume=True, computing=Computing(compile=True, precision="bf16"))
    assert run(steps=3, resume=True, computing=Computing(precision="bf16")).steps == 3


def test_a_checkpoint_from_before_is_one_in_single_precision(run: Callable[..., TrainingResult]) -> None:
    path = run(steps=2).checkpoint
    content = torch.load(path, weights_only=True)
    del content["extras"]["compile"], content["extras"]["precision"]
    torch.save(content, path)
    with pytest.raises(UsageError, match="precision fp32, not bf16"):
        run(steps=3, resume=True, computing=Computing(precision="bf16"))
    assert run(steps=3, resume=True).steps == 3


class OwnLoss(AIR):
    """Draws its noise where it computes its loss."""

    def loss(self, images: Tensor, generator: torch.Generator) -> Loss:
        return Loss({"doubled": 2 * super().loss(images, generator).per_image})


def test_what_cannot_be_computed_so_is_refused(
    run: Callable[..., TrainingResult], source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="expected fp32 or bf16, got 'fp8'"):
        Computing(precision="fp8")
    with monkeypatch.context() as patch:
        patch.setattr("reference_models.air.AIR", OwnLoss)
        with pytest.raises(UsageError, match="noise is not apart from its loss"):
            run(computing=Computing(precision="bf16"))

    def failing(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        raise RuntimeError("there is no compiler")

    monkeypatch.setattr(computing, "BACKEND", failing)
    with pytest.raises(UsageError, match="line: its objective cannot be compiled: .*without --compile"):
        losses(source, Computing(compile=True))
