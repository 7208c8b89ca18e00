"""How the loss of a step is computed, whatever the model: compiled or not, in which precision, by whom."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from multiobj_data.errors import UsageError
from reference_models.base import Loss, SceneModel
from reference_models.batches import Batches, noise_generator
from reference_models.parallel import Workers

logger = logging.getLogger(__name__)

BACKEND = "inductor"
"""What compiles."""

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class Computing:
    """How a run computes its losses; a resumed run must compute them in the same way.

    Attributes:
        compile: Compile the objective with `torch.compile`. Its first steps take minutes for a large model.
            PyTorch cannot compile an objective through whose inner gradients the loss is differentiated.
        precision: ``"fp32"``, or ``"bf16"``: PyTorch's autocast chooses what is computed in bfloat16. Weights,
            gradients and the optimiser's state stay in single precision.
    """

    compile: bool = False
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(f"precision: expected {' or '.join(PRECISIONS)}, got {self.precision!r}.")

    @property
    def is_plain(self) -> bool:
        """Whether the objective is computed as the model has written it."""
        return self == PLAIN

    def facts(self) -> dict[str, Any]:
        """Return what a checkpoint notes."""
        return asdict(self)


PLAIN = Computing()
"""As the model is written, in single precision."""


class StepLoss:
    """The loss of each training step of a run, of this process's part of the batch.

    Args:
        model: The model.
        batches: Its data.
        computing: How to compute.
        workers: The processes of the run.
        model_id: Names the model in errors.

    Raises:
        UsageError: The model's noise is not apart from its loss, and has to be.
    """

    def __init__(
        self, model: SceneModel, batches: Batches, computing: Computing, workers: Workers, model_id: str
    ) -> None:
        self._model, self._batches, self._id = model, batches, model_id
        self._plain = computing.is_plain and workers.alone
        if not self._plain and not model.has_objective:
            raise UsageError(
                f"{model_id}: its noise is not apart from its loss, as several processes, --compile and "
                "--precision bf16 need it (`draw` and `objective`); train it without them."
            )
        self._objective = self._prepared(computing)
        self._workers = workers
        self._before: dict[str, Tensor] | None = None
        self._moments: list[str] | None = None

    def __call__(self, step: int) -> Loss:
        """Return the loss of step ``step``, from 1.

        Raises:
            UsageError: The objective cannot be compiled.
        """
        images = self._batches[step]  # uint8 [B / processes, H, W, C]
        generator = noise_generator(self._batches.seed, step, self._batches.device)
        if self._plain:
            return self._model.loss(images, generator)
        noise = self._batches.own_rows(self._model.draw(self._batches.batch_size, generator))
        if self._moments is None and not self._workers.alone:
            self._before = {name: buffer.clone() for name, buffer in self._buffers().items()}
        return self._objective(self._model.as_float(images), noise)

    def moments(self) -> list[Tensor]:
        """Return the buffers in which the objective keeps what it sees of its batch, if any; asked by all processes.

        Known from the first step of this process on: they are those that it has changed.
        """
        buffers = self._buffers()
        if self._moments is None:
            before = self._before or {}
            changed = [name for name, value in before.items() if not value.equal(buffers[name])]
            self._moments = sorted({name for names in self._workers.gather(changed) for name in names})
            self._before = None
            if self._moments and self._workers.first:
                logger.warning(
                    "%s keeps moments of its batches (%s): each of the %d processes sees its own part of a batch, and "
                    "the average is kept, which is not what one process would see.",
                    self._id,
                    ", ".join(self._moments),
                    self._workers.size,
                )
        return [buffers[name] for name in self._moments]

    def _buffers(self) -> dict[str, Tensor]:
        return {name: b for name, b in self._model.named_buffers() if b.is_floating_point()}

    def _prepared(self, computing: Computing) -> Callable[[Tensor, Any], Loss]:
        objective: Callable[[Tensor, Any], Loss] = self._model.objective
        if computing.precision == "bf16":
            objective = _in_bfloat16(objective, self._batches.device)
        return self._compiled(objective) if computing.compile else objective

    def _compiled(self, objective: Callable[[Tensor, Any], Loss]) -> Callable[[Tensor, Any], Loss]:
        compiled = torch.compile(objective, backend=BACKEND)

        def compute(images: Tensor, noise: Any) -> Loss:
            try:
                with warnings.catch_warnings():  # of PyTorch itself, where a disabled method parts the graph
                    warnings.filterwarnings("ignore", message=r"The \.grad attribute of a Tensor")
                    return compiled(images, noise)
            except torch._dynamo.exc.TorchDynamoException as error:
                reason = str(error).strip().partition("\n")[0]
                raise UsageError(
                    f"{self._id}: its objective cannot be compiled: {reason}; train without --compile."
                ) from error

        return compute


def _in_bfloat16(
    objective: Callable[[Tensor, Any], Loss], device: torch.device
) -> Callable[[Tensor, Any], Loss]:
    def compute(images: Tensor, noise: Any) -> Loss:
        with torch.autocast(device.type, torch.bfloat16):
            return objective(images, noise)

    return compute
