"""How long cells will take, from some steps on random images here and now."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from cli.reproduction.cells import Cell

_STEPS = 3


def seconds_a_step(cell: Cell, image_shape: tuple[int, int, int], device: str) -> float:
    """Return the seconds that a training step takes, without anything else that a run does."""
    import torch

    from multiobj_data.devices import resolve_device
    from reference_models.checkpoints import build_model
    from reference_models.denormals import flushed_denormals

    place = resolve_device(device)
    model: Any = build_model(cell.model, cell.settings, image_shape, seed=0).to(place)
    optimiser = torch.optim.Adam(model.parameter_groups(), fused=True)
    noise = torch.Generator(place).manual_seed(0)
    images = torch.zeros((cell.batch_size, *image_shape), dtype=torch.uint8, device=place)
    with flushed_denormals():
        for step in range(_STEPS + 1):
            if step == 1:  # the first one warms up
                start = time.perf_counter()
            optimiser.zero_grad()
            model.training_step = 1
            loss = model.loss(images, noise).total
            loss.backward()
            optimiser.step()
            loss.item()
    return (time.perf_counter() - start) / _STEPS


def forecast(cells: Sequence[Cell], shapes: dict[str, tuple[int, int, int]], device: str) -> dict[Any, float]:
    """Return the seconds of training of each group of cells, by `Cell.group`."""
    first = {cell.group: cell for cell in reversed(cells)}
    return {
        group: cell.steps * seconds_a_step(cell, shapes[cell.column], device) for group, cell in first.items()
    }
