"""Seconds of an epoch of SuPAIR, and how far its training step is from the floor.

    python benchmarks/supair_epoch.py [--preset multi-mnist] [--batch-size 256] [--device cuda] [--threads 1]

A step is what `mobj train supair` does: loss, gradients, Adam, denormals flushed, freed memory kept. Two floors, both
at speeds measured in the same run: its operations (products and convolutions) at the speed of a matrix product, and the
bytes that its operators are given and return at the speed of a copy. Only fused operators can beat the second.
Images are on the device; scenes are drawn from the digits bundled with scikit-learn, whose shapes cost what others do.
"""

from __future__ import annotations

import argparse
from statistics import median

import numpy as np
import torch
from floors import Work, bytes_per_second, products_per_second, step_of, timed

from multiobj_data.composition.memory import keep_freed_memory
from multiobj_data.generation.plan import Plan
from multiobj_data.loading import GeneratedScenes
from multiobj_data.presets import find_preset
from reference_models.checkpoints import build_model
from reference_models.denormals import flushed_denormals
from reference_models.presets import model_presets

DATA = {
    "multi-mnist": "supair-mnist", "sprites": "supair-sprites", "noisy-mnist": "supair-noisy",
    "grid-mnist": "supair-grid",
}  # fmt: skip


def images_of(preset: str, n: int) -> np.ndarray:
    """Return uint8 ``[n, H, W, C]``, the first scenes of a preset."""
    found = find_preset(DATA[preset])
    settings = dict(found.settings) | ({"digits": "bundled"} if found.generator == "multi-mnist" else {})
    plan = Plan.create(found.generator, settings, splits={"train": n})
    return GeneratedScenes(plan, "train", length=n).scenes(np.arange(n)).image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=DATA, default="multi-mnist")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--images", type=int, default=60_000, help="of an epoch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    images = torch.from_numpy(images_of(options.preset, options.batch_size)).to(options.device)
    model = build_model("supair", model_presets("supair")[options.preset].settings, images.shape[1:], seed=0)
    model = model.to(options.device).train()
    generator = torch.Generator(options.device).manual_seed(0)
    optimiser = torch.optim.Adam(model.parameter_groups(), fused=True)
    step = step_of(model, lambda: model.loss(images, generator).total, optimiser)
    with flushed_denormals():
        for _ in range(6):  # warms up: pages, too
            step()
        seconds = median(timed(step) for _ in range(options.turns))
        with Work() as work:
            step()
    steps = options.images / options.batch_size
    print(f"step   {1e3 * seconds:9.2f} ms, an epoch of {options.images:,} images {steps * seconds:.1f} s")
    for name, floor, amount in (
        (
            "products",
            work.operations / products_per_second(model.device),
            f"{work.operations / 1e9:.1f} GFLOP",
        ),
        ("bytes", work.bytes / bytes_per_second(model.device), f"{work.bytes / 1e9:.2f} GB"),
    ):
        print(f"{name:9s}{1e3 * floor:7.2f} ms: {amount}; the step is {seconds / floor:.1f} times this floor")


if __name__ == "__main__":
    main()
