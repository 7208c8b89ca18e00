"""Forward and backward pass of SuPAIR's sum-product networks against a plain implementation and a public package.

    python benchmarks/spn.py [--batch-size 256] [--turns 12] [--network object]

All on one core, in one run, taking turns; every time is that core's, the best of all turns. Memory is the largest that
a process of its own needed for its steps beyond the network itself (on Linux). ``plain`` is what the formulas say when
they are written down: a density for every pixel, Gaussian and replica, ``[B, R, I, D]``; every product of every sum in
a dense logsumexp. It has the same numbers, which is checked. ``spflow`` is the einsum network of that package (of the
same sizes, with its own random splits) if it is installed: ``pip install spflow``. It can hide a pixel, by NaN, but
not half of it, so that the comparison with it is on whole images.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.distributions import Normal

from reference_models.parts.spn import SPNConfig, SumProductNetwork

NETWORKS = {
    "object": SPNConfig(784, 6, 2, 20, 20, 0.12, 0.35),
    "background": SPNConfig(2500, 3, 1, 6, 3, 0.002, 0.12),
}
GOALS = {"plain": 5.0, "spflow": 1.5}

Step = Callable[[], Tensor]


def plain_log_likelihood(network: SumProductNetwork, x: Tensor, visible: Tensor | None) -> Tensor:
    """Return the same as `SumProductNetwork.log_likelihood`, with nothing contracted before its time."""
    leaves, regions = network.leaves, network.config.regions
    order = leaves.region_of.argsort(
        dim=1, stable=True
    )  # [R, D]: regions one after the other, all of one size
    mean, sd = (
        each.gather(2, order[:, None].expand_as(each)) for each in (leaves.mean, leaves.variance.sqrt())
    )
    each = Normal(mean, sd, validate_args=False).log_prob(x[:, order][:, :, None])  # [B, R, I, D]
    if visible is not None:
        each = each * visible[:, order][:, :, None]
    values = each.unflatten(3, (regions, -1)).sum(-1).transpose(2, 3)  # [B, R, K, I]
    for log_weights in network.log_weights():
        left, right = values[:, :, 0::2], values[:, :, 1::2]  # [B, R, regions, I]
        pairs = (left[..., :, None] + right[..., None, :]).flatten(3)  # [B, R, regions, I * I]
        values = (log_weights + pairs[:, :, :, None]).logsumexp(-1)
    return values[:, :, 0, 0].logsumexp(1)


def our_step(config: SPNConfig, x: Tensor, visible: Tensor | None) -> Step:
    network = our_network(config)
    return stepper(network, lambda: network.log_likelihood(x, visible), x)


def plain_step(config: SPNConfig, x: Tensor, visible: Tensor | None) -> Step:
    network = our_network(config)
    return stepper(network, lambda: plain_log_likelihood(network, x, visible), x)


def spflow_step(config: SPNConfig, x: Tensor, visible: Tensor | None) -> Step:
    from spflow.meta.data.scope import Scope
    from spflow.modules.leaves.normal import Normal as NormalLeaves
    from spflow.zoo.einet.einet import Einet

    leaves = NormalLeaves(
        Scope(list(range(config.values))), out_channels=config.leaves, num_repetitions=config.replicas
    )
    network = Einet(
        [leaves],
        num_sums=config.sums,
        num_leaves=config.leaves,
        depth=config.depth,
        num_repetitions=config.replicas,
        layer_type="einsum",
    )
    return stepper(network, lambda: network.log_likelihood(x), x)


def our_network(config: SPNConfig) -> SumProductNetwork:
    torch.manual_seed(0)
    return SumProductNetwork(config)


def stepper(network: torch.nn.Module, log_likelihood: Step, x: Tensor) -> Step:
    """Return a step: gradients for the parameters and for the images, as SuPAIR needs them for its windows."""

    def step() -> Tensor:
        network.zero_grad()
        x.grad = None
        value = log_likelihood()
        value.sum().backward()
        return value.detach().flatten()

    return step


WAYS = {"ours": our_step, "plain": plain_step, "spflow": spflow_step}


def images(config: SPNConfig, batch: int, masked: bool) -> tuple[Tensor, Tensor | None]:
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(batch, config.values, generator=rng).requires_grad_()
    visible = torch.rand(batch, config.pixels, generator=rng).mul(2).clamp(max=1).requires_grad_()
    return x, visible if masked else None


def megabytes(way: str, config: SPNConfig, batch: int, masked: bool, found: multiprocessing.Queue) -> None:
    torch.set_num_threads(1)
    WAYS[way](config, *images(config, 1, masked))()
    step = WAYS[way](config, *images(config, batch, masked))
    Path("/proc/self/clear_refs").write_text("5")  # from here on the largest counts, not that of the imports
    before = resident("VmRSS")
    for _ in range(3):
        step()
    found.put(resident("VmHWM") - before)


def resident(name: str) -> float:
    """Return what Linux knows of this process's memory, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def peak(way: str, *arguments: object) -> float:
    """Return the memory that steps of one way need, measured in a fresh process, in MiB."""
    context = multiprocessing.get_context("spawn")
    found = context.Queue()
    process = context.Process(target=megabytes, args=(way, *arguments, found))
    process.start()
    result = found.get()
    process.join()
    return result


def best_times(steps: dict[str, Step], turns: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(turns):
        for name, step in steps.items():
            step()  # another way's data are in the caches
            start = time.process_time()
            step()
            times[name].append(time.process_time() - start)
    return {name: min(values) for name, values in times.items()}


def compare(name: str, config: SPNConfig, batch: int, turns: int, *, masked: bool) -> None:
    ways = ["ours", "plain"] + ["spflow"] * (not masked and find_spec("spflow") is not None)
    steps = {way: WAYS[way](config, *images(config, batch, masked)) for way in ways}
    torch.testing.assert_close(steps["ours"](), steps["plain"](), rtol=1e-4, atol=0.1)
    times = best_times(steps, turns)
    print(f"{name}, batch {batch}, {'soft masks' if masked else 'whole images'}")
    for way, seconds in times.items():
        goal = f"  goal {GOALS[way]}" if way in GOALS else ""
        memory = peak(way, config, batch, masked)
        print(
            f"  {way:7s}{1e3 * seconds:8.1f} ms {seconds / times['ours']:6.2f} x ours{memory:8.0f} MiB{goal}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--network", choices=NETWORKS, action="append")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.network or NETWORKS:
        for masked in (True, False):
            compare(name, NETWORKS[name], options.batch_size, options.turns, masked=masked)


if __name__ == "__main__":
    main()
