"""How noisy a gradient estimator is, over repeated draws at fixed parameters on one fixed batch.

Drelich ("Attend, Infer, Repeat" report, table 1) reports the variance of the *norm* of the gradient. That is not the
estimator's variance: the norm of a gradient with many independent components hardly varies, however noisy they
are. The true one is the trace of the covariance matrix, ``E |g|^2 - |E g|^2``. Both are computed here.

    def loss(generator):  # one draw: everything random comes from `generator`
        return model.loss(images, generator).total

    groups = parameters_by_prefix(model, {"theta": ["decoder"], "phi": ["encoder", "rnn"]})
    for name, found in gradient_variance(loss, groups, draws=1000).items():
        print(name, found.variance_of_norm, found.trace)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Generator, Tensor, device, nn


@dataclass(frozen=True)
class GradientVariance:
    """How much the gradient of one group of parameters varies from draw to draw.

    Standard errors are asymptotic. Gradients of score-function estimators have heavy tails: a standard error that is
    no small part of its figure says that there are too few draws, not how far the figure is off.

    Attributes:
        variance_of_norm: Sample variance of ``|g|`` (ddof 1): Drelich, table 1.
        variance_of_norm_stderr: Its standard error.
        trace: Unbiased estimate of the trace of the covariance of g, ``E |g|^2 - |E g|^2`` (ddof 1).
        trace_stderr: Its standard error.
        mean_norm: Mean of ``|g|``.
        norm_of_mean: Norm of the mean gradient.
        draws: Number of draws.
        size: Number of components of g.
    """

    variance_of_norm: float
    variance_of_norm_stderr: float
    trace: float
    trace_stderr: float
    mean_norm: float
    norm_of_mean: float
    draws: int
    size: int


def gradient_variance(
    loss: Callable[[Generator], Tensor],
    parameters: Mapping[str, Sequence[Tensor]],
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, GradientVariance]:
    """Measure the variance of an estimator's gradient, by group of parameters.

    Draw i depends on ``seed`` and i alone, so that two estimators can be compared on the same draws. Both figures
    scale with the square of the loss: a loss that sums over B images gives B^2 times what their mean gives.
    Say which one you report, and B; the trace of a mean over independent images falls as 1 / B besides.

    The loss is run as it is: put the model into the mode (train, eval) that you mean. Parameters and their ``grad``
    are left alone, and so are torch's global random streams. Kept between draws: one float64 mean for each
    component, and two numbers a draw and group.

    Args:
        loss: Returns the scalar to differentiate, for one draw. Its generator is on the device of the parameters;
            torch's global streams are seeded too, for layers that take no generator, as dropout.
        parameters: Name -> tensors, as of `parameters_by_prefix`. Groups may overlap. A tensor on which the loss does
            not depend in some draw has gradient 0 there.
        draws: Number of draws, 2 or more.
        seed: Whole number, 0 or more.

    Returns:
        Name -> figures, in the order of ``parameters``.

    Raises:
        ValueError: If a group is empty or none of it has ever a gradient, the loss is no scalar that can be
            differentiated, or a gradient is not finite.
    """
    import torch

    _check(parameters, draws, seed)
    unique = list({id(p): p for group in parameters.values() for p in group}.values())
    place = {id(p): i for i, p in enumerate(unique)}
    running: dict[str, tuple[_Running, _Running]] = {}
    for name, group in parameters.items():
        start = torch.zeros(sum(p.numel() for p in group), dtype=torch.float64, device=group[0].device)
        running[name] = (_Running(start), _Running(start.new_zeros(1)))
    touched = dict.fromkeys(parameters, False)
    for draw in range(draws):
        gradients = _gradients(loss, unique, (seed, draw))
        for name, group in parameters.items():
            found = [gradients[place[id(p)]] for p in group]
            touched[name] |= any(g is not None for g in found)
            parts = [torch.zeros_like(p) if g is None else g for p, g in zip(group, found, strict=True)]
            vector = torch.cat([part.detach().reshape(-1).double() for part in parts])
            if not bool(vector.isfinite().all()):
                raise ValueError(
                    f"loss: expected finite gradients, got NaN or infinity for {name!r} in draw {draw}."
                )
            whole, norm = running[name]
            whole.add(vector)
            norm.add(vector.norm().reshape(1))
    if missing := [name for name, ever in touched.items() if not ever]:
        raise ValueError(f"loss: expected it to depend on every group, got no gradient for {missing[0]!r}.")
    return {name: _figures(*running[name]) for name in parameters}


def parameters_by_prefix(
    module: nn.Module, prefixes: Mapping[str, str | Sequence[str]]
) -> dict[str, list[Tensor]]:
    """Return a module's trainable parameters by group, for `gradient_variance`.

    Args:
        module: Any module.
        prefixes: Group -> beginnings of parameters' names, whole parts: ``"decoder"`` takes ``decoder.weight`` but not
            ``decoder2.weight``; ``""`` takes all.

    Raises:
        ValueError: If no trainable parameter's name begins so.
    """
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    groups: dict[str, list[Tensor]] = {}
    for group, given in prefixes.items():
        chosen: dict[str, Tensor] = {}
        for prefix in [given] if isinstance(given, str) else given:
            found = {
                n: p for n, p in named.items() if not prefix or n == prefix or n.startswith(f"{prefix}.")
            }
            if not found:
                known = sorted({name.split(".")[0] for name in named})
                raise ValueError(
                    f"prefixes: no trainable parameter begins with {prefix!r}; there are {', '.join(known) or 'none'}."
                )
            chosen |= found
        groups[group] = list(chosen.values())
    return groups


class _Running:
    """Mean and variance of vectors by Welford's method, in float64.

    The n-th vector adds ``(n - 1) / n |x - mean of those before|^2`` to the sum of squares. Each of these terms has the
    trace of the covariance as its expectation, and they are uncorrelated up to the fourth cumulant over n: their
    mean is the unbiased estimate, and their own spread gives its standard error.
    """

    def __init__(self, start: Tensor) -> None:
        self.mean = start  # float64, zeros
        self.terms: list[float] = []
        self.n = 0

    def add(self, x: Tensor) -> None:
        self.n += 1
        difference = x - self.mean
        if self.n > 1:
            self.terms.append(float(difference.square().sum()) * (self.n - 1) / self.n)
        self.mean += difference / self.n

    def variance(self) -> tuple[float, float]:
        """Return trace of the covariance and its standard error, NaN for two vectors."""
        k = len(self.terms)
        trace = math.fsum(self.terms) / k
        if k == 1:
            return trace, math.nan
        spread = math.fsum((term - trace) ** 2 for term in self.terms) / (k - 1)
        return trace, math.sqrt(spread / k)


def _figures(vectors: _Running, norms: _Running) -> GradientVariance:
    variance_of_norm, variance_of_norm_stderr = norms.variance()
    trace, trace_stderr = vectors.variance()
    return GradientVariance(
        variance_of_norm=variance_of_norm,
        variance_of_norm_stderr=variance_of_norm_stderr,
        trace=trace,
        trace_stderr=trace_stderr,
        mean_norm=float(norms.mean),
        norm_of_mean=float(vectors.mean.norm()),
        draws=vectors.n,
        size=len(vectors.mean),
    )


def _gradients(
    loss: Callable[[Generator], Tensor], parameters: Sequence[Tensor], key: tuple[int, int]
) -> tuple[Tensor | None, ...]:
    """Return the gradients of one draw; ``None`` for a tensor on which the loss does not depend."""
    import torch

    device = parameters[0].device
    number = int(np.random.SeedSequence(key).generate_state(1, np.uint32)[0])
    with _seeded(device, number), torch.enable_grad():
        value = loss(torch.Generator(device).manual_seed(number))
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            got = f"shape {list(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
            raise ValueError(f"loss: expected a tensor of one number, got {got}.")
        if not value.requires_grad:
            raise ValueError(
                "loss: expected a value that depends on the parameters, got one without gradient."
            )
        return torch.autograd.grad(value.reshape(()), parameters, allow_unused=True)


@contextmanager
def _seeded(device: device, number: int) -> Iterator[None]:
    """Seed torch's global streams inside, and put them back after."""
    import torch

    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(number)  # `torch.manual_seed` would seed every other device too
        for one in cuda:
            torch.cuda.default_generators[one.index].manual_seed(number)
        yield


def _check(parameters: Mapping[str, Sequence[Tensor]], draws: int, seed: int) -> None:
    if not parameters:
        raise ValueError("parameters: expected at least one group, got none.")
    for name, group in parameters.items():
        if not isinstance(group, list | tuple) or not group:
            raise ValueError(
                f"parameters[{name!r}]: expected a sequence of tensors, at least one, got {group!r:.60}."
            )
        if not all(getattr(p, "requires_grad", False) for p in group):
            raise ValueError(
                f"parameters[{name!r}]: expected tensors that require a gradient, got one that does not."
            )
    if draws < 2:
        raise ValueError(f"draws: expected 2 or more, got {draws}.")
    if seed < 0:
        raise ValueError(f"seed: expected 0 or more, got {seed}.")
