"""One training step of AIR, ours beside a plain one, in the same process on the same images.

    python benchmarks/air_step.py [--batch-size 64] [--threads 1] [--turns 12] [--device cpu]

The plain AIR is written as the common implementations are: an `LSTMCell` that reads the whole image again in
every step, `grid_sample` to crop and to paste, a decoder call and a canvas a step, PyTorch's default Adam.
It comes with two estimators: ``score function``, with a second LSTM on the same inputs as its data-dependent
baseline (that is the AIR that people run: Eslami et al. 2016, Pyro's example), and ``enumeration``, the one
that ours has. Sizes are equal (LSTM 256, hidden 200, code 50, window 28, three objects, 50 x 50 pixels).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.nn.functional import affine_grid, grid_sample, softplus

from reference_models.air import AIR

CANVAS, WINDOW, STEPS, WHAT, LSTM, HIDDEN = 50, 28, 3, 50, 256, 200

TURN = 6
"""Steps of one model before it is the next one's turn."""


def perceptron(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outputs))


class PlainAIR(nn.Module):
    """AIR step by step, with nothing shared between the steps."""

    def __init__(self, score_function: bool) -> None:
        super().__init__()
        inputs = CANVAS**2 + 3 + WHAT + 1  # image, z_where, z_what, z_pres
        self.score_function = score_function
        self.lstm, self.find = nn.LSTMCell(inputs, LSTM), perceptron(LSTM, 7)
        self.encode, self.decode = perceptron(WINDOW**2, 2 * WHAT), perceptron(WHAT, WINDOW**2)
        if score_function:
            self.baseline_lstm, self.baseline = nn.LSTMCell(inputs, LSTM), perceptron(LSTM, 1)

    def loss(self, x: Tensor) -> Tensor:
        """Return the surrogate loss of images in [0, 1], ``[B, 1, H, W]``."""
        b = len(x)
        canvas = torch.zeros_like(x)
        state = baseline_state = None
        z_where, z_what, present = x.new_zeros(b, 3), x.new_zeros(b, WHAT), x.new_ones(b)
        log_likelihoods, kls, logits, scores, baselines = [log_normal(x, canvas)], [], [], [], []
        for _ in range(STEPS):
            inputs = torch.cat([x.flatten(1), z_where, z_what, present[:, None]], dim=1)
            state = self.lstm(inputs, state)
            logit, loc, raw_sd = self.find(state[0]).split([1, 3, 3], dim=1)
            logit = logit[:, 0] + 2
            q_where = Normal(loc * 0.1, softplus(raw_sd - 2))
            z_where = q_where.rsample()
            loc, raw_sd = self.encode(crop(x, z_where)).chunk(2, dim=1)
            q_what = Normal(loc, softplus(raw_sd))
            z_what = q_what.rsample()
            before, logits = present, [*logits, logit]
            if self.score_function:
                q_present = Bernoulli(logits=logit)
                present = q_present.sample() * before
                scores.append(q_present.log_prob(present) * before)
                baseline_state = self.baseline_lstm(inputs.detach(), baseline_state)
                baselines.append(self.baseline(baseline_state[0])[:, 0] * before)
            canvas = (
                canvas + paste(torch.sigmoid(self.decode(z_what) - 2), z_where) * present[:, None, None, None]
            )
            log_likelihoods.append(log_normal(x, canvas))
            kls.append(kl_to_standard(q_where) + kl_to_standard(q_what))
        if self.score_function:
            return sampled(log_likelihoods[-1], kls, logits, scores, baselines)
        return enumerated(log_likelihoods, kls, logits)


def crop(x: Tensor, z_where: Tensor) -> Tensor:
    scale, centre = torch.exp(0.2 * z_where[:, 0]) / 3, 0.5 * z_where[:, 1:]
    grid = affine_grid(matrix(scale, centre), [len(x), 1, WINDOW, WINDOW], align_corners=False)
    return grid_sample(x, grid, align_corners=False).flatten(1)


def paste(glimpse: Tensor, z_where: Tensor) -> Tensor:
    scale, centre = torch.exp(0.2 * z_where[:, 0]) / 3, 0.5 * z_where[:, 1:]
    inverse = matrix(1 / scale, -centre / scale[:, None])
    grid = affine_grid(inverse, [len(glimpse), 1, CANVAS, CANVAS], align_corners=False)
    return grid_sample(glimpse.view(-1, 1, WINDOW, WINDOW), grid, align_corners=False)


def matrix(scale: Tensor, shift: Tensor) -> Tensor:
    zero = torch.zeros_like(scale)
    rows = [torch.stack([scale, zero, shift[:, 0]], 1), torch.stack([zero, scale, shift[:, 1]], 1)]
    return torch.stack(rows, dim=1)


def log_normal(x: Tensor, canvas: Tensor) -> Tensor:
    return Normal(canvas, 0.3).log_prob(x).sum((1, 2, 3))


def kl_to_standard(q: Normal) -> Tensor:
    return kl_divergence(q, Normal(torch.zeros_like(q.loc), torch.ones_like(q.scale))).sum(1)


def sampled(
    log_likelihood: Tensor,
    kls: list[Tensor],
    logits: list[Tensor],
    scores: list[Tensor],
    baselines: list[Tensor],
) -> Tensor:
    cost = sum(kls) - log_likelihood
    advantage = [
        (cost - baseline).detach() * score for baseline, score in zip(baselines, scores, strict=True)
    ]
    fit = [(cost.detach() - baseline) ** 2 for baseline in baselines]
    return (cost + sum(advantage) + sum(fit)).mean()


def enumerated(log_likelihoods: list[Tensor], kls: list[Tensor], logits: list[Tensor]) -> Tensor:
    cost, reach = torch.zeros_like(kls[0]), torch.ones_like(kls[0])
    for n, log_likelihood in enumerate(log_likelihoods):
        p = torch.sigmoid(logits[n]) if n < STEPS else torch.zeros_like(reach)
        weight = reach * (1 - p)
        cost = cost + weight * (torch.log(weight + 1e-20) + 4.6 * n - log_likelihood)
        if n < STEPS:
            reach = reach * p
            cost = cost + reach * kls[n]
    return cost.mean()


def plain_step(images: Tensor, score_function: bool) -> Callable[[], None]:
    model = PlainAIR(score_function).to(images.device)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> None:
        optimiser.zero_grad()
        model.loss(images.movedim(-1, 1).float() / 255).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 100.0)
        optimiser.step()

    return step


def our_step(images: Tensor) -> Callable[[], None]:
    model = AIR.from_config({}, (CANVAS, CANVAS, 1)).to(images.device)
    optimiser = torch.optim.Adam(model.parameter_groups(), fused=True)
    generator = torch.Generator(images.device).manual_seed(0)

    def step() -> None:
        optimiser.zero_grad()
        model.loss(images, generator).total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 100.0)
        optimiser.step()

    return step


def measure(steps: dict[str, Callable[[], None]], turns: int, device: str) -> dict[str, float]:
    """Return the median seconds of each step.

    The models take turns of `TURN` steps, so that a busy machine slows all alike; the first step of a turn is
    left out, because a training run does not find another model's weights in the caches.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(turns + 1):
        for name, step in steps.items():
            seconds = [timed(step, device) for _ in range(TURN)]
            if turn > 0:  # the first one allocates
                times[name] += seconds[1:]
    return {name: median(values) for name, values in times.items()}


def timed(step: Callable[[], None], device: str) -> float:
    start = time.perf_counter()
    step()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    images = torch.randint(0, 256, (options.batch_size, CANVAS, CANVAS, 1), dtype=torch.uint8).to(
        options.device
    )
    steps = {
        "ours (enumeration)": our_step(images),
        "plain, score function": plain_step(images, score_function=True),
        "plain, enumeration": plain_step(images, score_function=False),
    }
    medians = measure(steps, options.turns, options.device)
    ours = medians["ours (enumeration)"]
    for name, seconds in medians.items():
        print(f"{name:24s} {1e3 * seconds:7.1f} ms a step  {seconds / ours:5.2f} x ours")


if __name__ == "__main__":
    main()
