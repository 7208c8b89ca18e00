"""Several runs as one: their weights and Adam's moments stacked, a step of all of them computed at once.

The runs differ in their seed alone. What belongs to a seed stays its own: initial weights, order of the images,
noise, clipping. Adam works number by number, so that one step of it on the stack is a step of each run. What
comes out is what each run alone would come to, up to the rounding of larger matrix products.

Letters: S seeds, B images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.utils import _pytree as pytree

from multiobj_data.errors import MobjError, UsageError
from reference_models.base import Loss, SceneModel
from reference_models.batches import noise_generator
from reference_models.runs import Run

_MOMENTS = ("exp_avg", "exp_avg_sq")
"""What Adam remembers of each number."""


class Stack:
    """Runs that are at the same step, and their next steps.

    The runs' own models and optimisers stay as they were until `write_back`.

    Args:
        runs: Of the same model and settings, at the same step; the model has an `objective`.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = tuple(runs)
        self.step = self.runs[0].step
        self._config = self.runs[0].model.config
        self._objectives = [_Objective(run.model) for run in self.runs]
        for objective in self._objectives:
            objective.train()
        stacked, self.buffers = stack_module_state(list(self._objectives))
        self.parameters = {
            name: _turned(parameter.detach()).contiguous().requires_grad_(parameter.requires_grad)
            for name, parameter in stacked.items()
        }
        self.optimiser = self._stack_optimisers()

    def advance(self) -> dict[Run, MobjError]:
        """Do one training step of every run.

        Returns:
            The runs whose loss or gradient is not finite, with the error; they are not to be written back.

        Raises:
            UsageError: The model's objective cannot be computed for several seeds at once.
        """
        step = self.step + 1
        self._objectives[0].model.training_step = step
        totals, means = self._losses(step)  # [S], [S, terms]
        for group, rate in zip(self.optimiser.param_groups, self._rates(step), strict=True):
            group["lr"] = rate
        self.optimiser.zero_grad()
        totals.sum().backward()  # no run's loss depends on another's weights
        norms = self._clip()
        rows = torch.cat([torch.stack([totals.detach(), norms], dim=1), means], dim=1).tolist()
        self.optimiser.step()  # spoils the rows that are not finite, and no other
        if self._objectives[0].model.has_after_step:
            self._after_step(means)
        self.step = step
        return dict(self._count_step(rows))

    def write_back(self, runs: Sequence[Run] | None = None) -> None:
        """Bring the models and optimisers of the runs (all, if not said otherwise) up to date."""
        for i, (run, objective) in enumerate(zip(self.runs, self._objectives, strict=True)):
            if runs is None or run in runs:
                self._write(i, run, objective)

    @torch.no_grad()
    def _write(self, i: int, run: Run, objective: _Objective) -> None:
        for name, parameter in objective.named_parameters():
            parameter.copy_(_turned(self.parameters[name])[i])
        for name, buffer in objective.named_buffers():
            buffer.copy_(self.buffers[name][i])
        for single, stacked in zip(_parameters(run.optimiser), _parameters(self.optimiser), strict=True):
            if state := self.optimiser.state.get(stacked):
                # Clones: a view would carry the whole stack into the checkpoint.
                moments = {
                    name: _turned(state[name])[i].clone(memory_format=torch.contiguous_format)
                    for name in _MOMENTS
                }
                run.optimiser.state[single] = {"step": state["step"].clone(), **moments}
        run.set_learning_rate(self.step)

    def _losses(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the loss of each run ``[S]``, and the means of its terms ``[S, terms]``."""
        images = torch.stack([run.batches[step] for run in self.runs])  # [S, B, H, W, C]
        first = self._objectives[0]
        drawn = [
            first.model.draw(images.shape[1], noise_generator(run.batches.seed, step, run.batches.device))
            for run in self.runs
        ]
        noise = _StackedNoise(drawn)

        def loss_of(parameters: Any, buffers: Any, images: Tensor, leaves: list[Tensor]) -> Any:
            return functional_call(first, (parameters, buffers), (images, noise.of_one(leaves)))

        parameters = {name: _turned(parameter) for name, parameter in self.parameters.items()}
        with self._refusal_of("objective"):
            totals, means = vmap(loss_of)(parameters, self.buffers, images, noise.leaves)
        return totals, means

    @torch.no_grad()
    def _after_step(self, means: Tensor) -> None:
        """Let the model change each run's buffers by the means of its terms, ``[S, terms]``."""
        first = _AfterStep(self._objectives[0])

        def changed(buffers: Any, means: Tensor) -> Any:
            return functional_call(first, {f"objective.{name}": b for name, b in buffers.items()}, (means,))

        with self._refusal_of("after_step"):
            after = vmap(changed)(self.buffers, means)
        for name, buffer in self.buffers.items():
            buffer.copy_(after[name])

    @contextmanager
    def _refusal_of(self, method: str) -> Iterator[None]:
        """Turn what vmap cannot do into the error that ends the command."""
        try:
            yield
        except RuntimeError as error:
            if "vmap" not in str(error):
                raise
            reason = str(error).partition("\n")[0].partition(". ")[0]
            raise UsageError(
                f"{self.runs[0].model_id}: its {method} cannot be computed for several seeds at once: {reason}; "
                "train the seeds one after the other."
            ) from error

    def _rates(self, step: int) -> list[float]:
        """Return the learning rate of each group of parameters."""
        self.runs[0].set_learning_rate(step)
        return [group["lr"] for group in self.runs[0].optimiser.param_groups]

    @torch.no_grad()
    def _clip(self) -> Tensor:
        """Shorten long gradients of each run as `Run` does; return the longest norm found, ``[S]``."""
        parts = [group["params"] for group in self.optimiser.param_groups]
        if self._config.clip_each:
            parts = [[parameter] for part in parts for parameter in part]
        norms = [
            _clip([p.grad for p in part if p.grad is not None], self._config.gradient_clip) for part in parts
        ]
        return torch.stack([norm for norm in norms if norm is not None]).amax(0)

    def _count_step(self, rows: list[list[float]]) -> Iterator[tuple[Run, MobjError]]:
        for run, (total, norm, *means) in zip(self.runs, rows, strict=True):
            try:
                run.refuse_infinite(self.step, loss=total, gradient=norm)
            except MobjError as error:
                yield run, error
            else:
                terms = dict(zip(self._objectives[0].terms, means, strict=True))
                run.count_step(self.step, {"total": total, **terms})

    def _stack_optimisers(self) -> torch.optim.Adam:
        names = {id(parameter): name for name, parameter in self._objectives[0].named_parameters()}
        groups = [
            {**group, "params": [self.parameters[names[id(parameter)]] for parameter in group["params"]]}
            for group in self.runs[0].optimiser.param_groups
        ]
        optimiser = torch.optim.Adam(groups, fused=True)
        singles = zip(*(_parameters(run.optimiser) for run in self.runs), strict=True)
        for stacked, parameters in zip(_parameters(optimiser), singles, strict=True):
            states = [
                run.optimiser.state.get(parameter, {})
                for run, parameter in zip(self.runs, parameters, strict=True)
            ]
            if all(states):
                moments = {
                    name: _turned(torch.stack([state[name] for state in states])).contiguous()
                    for name in _MOMENTS
                }
                optimiser.state[stacked] = {"step": states[0]["step"].clone(), **moments}
        return optimiser


class _Objective(nn.Module):
    """A model's objective as a module, whose state can be stacked and swapped.

    Attributes:
        terms: Names of the loss's terms, once it was computed.
    """

    def __init__(self, model: SceneModel) -> None:
        super().__init__()
        self.model = model
        self.terms: tuple[str, ...] = ()

    def forward(self, images: Tensor, noise: Any) -> tuple[Tensor, Tensor]:
        """Return the total, a scalar, and the means of the terms, ``[terms]``."""
        loss: Loss = self.model.objective(self.model.as_float(images), noise)
        self.terms = tuple(loss.terms)
        return loss.total, loss.means()


class _AfterStep(nn.Module):
    """What a model changes after a step as a module, whose buffers can be stacked and swapped."""

    def __init__(self, objective: _Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, means: Tensor) -> dict[str, Tensor]:
        """Return the buffers as the means of the terms, ``[terms]``, leave them, changed in place or set anew."""
        self.objective.model.after_step(dict(zip(self.objective.terms, means.unbind(), strict=True)))
        return dict(self.objective.named_buffers())


class _StackedNoise:
    """The noise of several runs, tensor by tensor; what is no tensor is the same for all."""

    def __init__(self, noises: Sequence[Any]) -> None:
        flat = [pytree.tree_flatten(noise) for noise in noises]
        self._first, self._structure = flat[0]
        columns = zip(*(leaves for leaves, _ in flat), strict=True)
        self.leaves = [torch.stack(column) for column in columns if isinstance(column[0], Tensor)]

    def of_one(self, leaves: list[Tensor]) -> Any:
        """Return the noise of one run in the form in which it was drawn, from its tensors."""
        tensors = iter(leaves)
        values = [next(tensors) if isinstance(leaf, Tensor) else leaf for leaf in self._first]
        return pytree.tree_unflatten(values, self._structure)


def _turned(stacked: Tensor) -> Tensor:
    """Return a stacked parameter (or moment) with its matrices transposed; the others as they are.

    The stack holds matrices transposed: the gradient of a batched product lies in memory so, and would be copied
    in every step otherwise.
    """
    return stacked.mT if stacked.dim() == 3 else stacked


def _parameters(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def _clip(gradients: list[Tensor], longest: float) -> Tensor | None:
    """Shorten each run's gradients ``[S, ...]`` as `torch.nn.utils.clip_grad_norm_` does; return the norms."""
    if not gradients:
        return None
    norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)  # [S]
    factors = (longest / (norms + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factors.view(-1, *[1] * (gradient.dim() - 1)))
    return norms
