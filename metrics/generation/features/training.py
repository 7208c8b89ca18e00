"""Training of the domain network: seeded, a few minutes on a CPU, with its accuracy on scenes it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from metrics.generation.features.domain import DomainNetwork, save_domain
from metrics.generation.features.domain_targets import Targets
from metrics.generation.features.weights import one_thread
from multiobj_data.devices import resolve_device
from multiobj_data.errors import DataError, UsageError
from multiobj_data.loading import SceneSource, batches

STEPS = 2000
_BATCH = 64
_LEARNING_RATE = 2e-3
_HELD_OUT = 2000  # scenes at most that accuracy is measured on
_READ = 512  # scenes at a time


def train_domain_features(
    source: SceneSource,
    held_out: SceneSource,
    out: str | Path,
    *,
    data: dict[str, Any],
    seed: int = 0,
    steps: int = STEPS,
    device: str = "auto",
    on_progress: Callable[[int, float], None] = lambda step, loss: None,
) -> dict[str, Any]:
    """Train a network to tell how many objects of which kind an image holds; write it to ``out``.

    Args:
        source: Scenes to learn from.
        held_out: Scenes to measure accuracy on: none of ``source``.
        out: The file.
        data: What the file says about the data; JSON values.
        seed: Decides first weights and order; the same seed gives the same weights on a CPU.
        steps: Of 64 images each.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        on_progress: Called after every step with its number and the loss in nats an answer.

    Returns:
        ``seed``, ``steps``, ``targets``, and ``accuracy``: target -> share of held-out scenes with every number right
        (``accuracy``), and what always answering the most frequent numbers gets (``chance``).

    Raises:
        UsageError: If a setting is out of range.
        DataError: If a split is empty, or there is nothing to learn.
        MobjError: If the file cannot be written.
    """
    if steps < 1 or seed < 0:
        raise UsageError(f"train-features: expected steps >= 1 and seed >= 0, got {steps} and {seed}.")
    if len(source) == 0 or len(held_out) == 0:
        raise DataError(
            "train-features: expected at least one scene to learn from and one held out, got none."
        )
    targets = Targets.found_in(scenes for _, scenes in batches(source, _READ))
    answers = _answers(targets, source, len(source))
    where = resolve_device(device)
    with one_thread():
        network = _trained(targets, source, answers, where, seed, steps, on_progress)
        network.scale.fill_(_spread(network.eval(), source, where))
        accuracy = _accuracy(network, targets, held_out, where)
    training = {
        "seed": seed,
        "steps": steps,
        "batch_size": _BATCH,
        "targets": {name: list(values) for name, values in targets.values.items()},
        "accuracy": accuracy,
    }
    save_domain(out, network, source.image_shape, data, training)
    return training


def _trained(
    targets: Targets,
    source: SceneSource,
    answers: Tensor,
    where: torch.device,
    seed: int,
    steps: int,
    on_progress: Callable[[int, float], None],
) -> DomainNetwork:
    with torch.random.fork_rng(devices=[]):  # layers draw their first weights from torch's global generator
        torch.manual_seed(seed)
        network = DomainNetwork(source.image_shape, targets.most, targets.heads).to(where)
    optimiser = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _LEARNING_RATE, total_steps=steps + 1)
    order = shuffled_rows(len(source), _BATCH, np.random.default_rng(seed))
    for step in range(1, steps + 1):
        rows = np.sort(next(order))
        images = torch.from_numpy(source.images(rows)).to(where)
        loss = _loss(network(images), answers[rows].to(where))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        on_progress(step, loss.item())
    return network


def _answers(targets: Targets, source: SceneSource, n: int) -> Tensor:
    """Return int64 ``[N, A]``."""
    return torch.from_numpy(np.concatenate([targets.of(scenes) for _, scenes in batches(source, _READ, n)]))


def shuffled_rows(n: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield batches of ``size`` of ``n`` rows without end, each epoch in another order."""
    left = np.zeros(0, np.int64)
    while True:
        while len(left) < size:
            left = np.concatenate([left, rng.permutation(n)])
        yield left[:size]
        left = left[size:]


def _loss(logits: Tensor, answers: Tensor) -> Tensor:
    return cross_entropy(logits.flatten(0, 1), answers.flatten())  # [B A, most + 1] against [B A]


def _spread(network: DomainNetwork, source: SceneSource, where: torch.device) -> float:
    """Return the standard deviation of a feature over training images, on average over features."""
    images = source.images(np.arange(min(len(source), _HELD_OUT)))
    with torch.inference_mode():
        features = torch.cat(
            [network.embed(chunk.to(where)) for chunk in torch.from_numpy(images).split(_READ)]
        )
    return max(features.double().var(0, correction=0).mean().sqrt().item(), 1e-12)


def _accuracy(
    network: DomainNetwork, targets: Targets, source: SceneSource, where: torch.device
) -> dict[str, dict[str, float]]:
    n = min(len(source), _HELD_OUT)
    right = _answers(targets, source, n)  # [N, A]
    with torch.inference_mode():
        given = torch.cat(
            [
                network(torch.from_numpy(scenes.image).to(where)).argmax(-1).cpu()
                for _, scenes in batches(source, _READ, n)
            ]
        )
    figures, start = {}, 0
    for name, size in targets.heads.items():
        here = slice(start, start + size)
        usual = right[:, here].mode(0).values  # [size], the most frequent numbers
        figures[name] = {
            "accuracy": (given[:, here] == right[:, here]).all(1).double().mean().item(),
            "chance": (right[:, here] == usual).all(1).double().mean().item(),
            "n": n,
        }
        start += size
    return figures
