"""One judge for all models: a segmenter learnt from the true label maps of stacks.

A model's own segmentation mixes up two things, how it draws and how it segments. This network says of each pixel to
which block of the stack it belongs, counted from below, or that it is background; samples of every model are then
judged by the same eyes. It has seen good stacks alone: what it makes of a bad sample is its guess.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, silu

from metrics.generation.features.protocols import to_bytes
from metrics.generation.features.training import shuffled_rows
from metrics.generation.features.weights import (
    exact_arithmetic,
    one_thread,
    read_trained,
    refuse_other_weights,
    write_trained,
)
from multiobj_data.devices import resolve_device
from multiobj_data.errors import DataError, UsageError
from multiobj_data.files import sha256_of
from multiobj_data.loading import SceneSource, batches
from multiobj_data.scenes import Scenes

SCHEMA = 1
STEPS = 1500
_WHAT = "judge of this toolkit; make one with `metrics.structure.judge.train_judge`"
_WIDTHS = (16, 32, 48)
_BATCH = 16
_LEARNING_RATE = 3e-3
_HELD_OUT = 1000  # scenes at most that accuracy is measured on
_AT_ONCE = 128  # images


class JudgeNetwork(nn.Module):
    """A small U-Net: images to the logits of every pixel's class.

    Args:
        channels: Of the image.
        classes: Background, then the blocks from below.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        first, second, third = _WIDTHS
        self.down = nn.ModuleList([_conv(channels, first), _conv(first, second), _conv(second, third)])
        self.bottom = _conv(third, third)
        self.up = nn.ModuleList([_conv(third + second, second), _conv(second + first, first)])
        self.answer = nn.Conv2d(first, classes, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits ``[B, classes, H, W]`` of bytes ``[B, H, W, C]``."""
        x = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        skips = []
        for i, layer in enumerate(self.down):
            x = silu(layer(x if i == 0 else x[:, :, ::2, ::2]))  # [B, 16..48, H / 1..4, W / 1..4]
            skips.append(x)
        x = silu(self.bottom(x))
        for layer, skip in zip(self.up, skips[-2::-1], strict=True):
            x = silu(layer(torch.cat([interpolate(x, skip.shape[-2:], mode="nearest"), skip], dim=1)))
        logits: Tensor = self.answer(x)
        return logits


def _conv(size_in: int, size_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(size_in, size_out, 3, padding=1), nn.GroupNorm(8, size_out))


class Judge:
    """Segments pictures of stacks: a function of images for `metrics.structure_of_samples`, with background 0.

    Args:
        network: Trained.
        image_shape: H, W, C of the only images that it takes.
        stamp: How it was made; JSON values.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
    """

    def __init__(
        self,
        network: JudgeNetwork,
        image_shape: tuple[int, int, int],
        stamp: Mapping[str, Any] | None = None,
        device: str = "auto",
    ) -> None:
        self.device = resolve_device(device)
        self.network = network.to(self.device).eval()
        self.image_shape = image_shape
        self.stamp = dict(stamp or {})

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> Judge:
        """Load what `train_judge` wrote.

        Raises:
            DataError: If there is no such file, or it is another one, or damaged.
            UsageError: If there is no such device.
        """
        content = read_trained(path, SCHEMA, _WHAT)
        try:
            height, width, channels = content["config"]["image_shape"]
            with torch.device("meta"):
                network = JudgeNetwork(channels, content["config"]["classes"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"{path}: the network of its config cannot be built: {error}") from error
        refuse_other_weights(path, network.state_dict(), content["weights"], "its own config")
        network.load_state_dict(content["weights"], assign=True)
        stamp = {
            "weights_sha256": sha256_of(Path(path)),
            "trained_on": content["data"],
            "training": content["training"],
        }
        return cls(network, (height, width, channels), stamp, device)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return label maps, int64 ``[B, H, W]``, of uint8 ``[B, H, W, C]`` of the size trained on."""
        pixels = np.array(to_bytes(images))  # a copy: arrays may be read-only
        if pixels.shape[1:] != self.image_shape:
            raise ValueError(
                f"images: expected {list(self.image_shape)} (height, width, channels) as the judge was trained on, "
                f"got {list(pixels.shape[1:])}; train one on data of this size."
            )
        parts = [torch.empty(0, *self.image_shape[:2], dtype=torch.int64)]
        with exact_arithmetic():
            for chunk in torch.from_numpy(pixels).split(_AT_ONCE):
                parts.append(self.network(chunk.to(self.device)).argmax(1).cpu())
        return torch.cat(parts).numpy()


def train_judge(
    source: SceneSource,
    held_out: SceneSource,
    out: str | Path,
    *,
    data: dict[str, Any],
    factor: str = "level",
    seed: int = 0,
    steps: int = STEPS,
    device: str = "auto",
    on_progress: Callable[[int, float], None] = lambda step, loss: None,
) -> dict[str, Any]:
    """Train a network to tell which block of its stack a pixel belongs to; write it to ``out``.

    Args:
        source: Scenes to learn from.
        held_out: Scenes to measure accuracy on: none of ``source``.
        out: The file.
        data: What the file says about the data; JSON values.
        factor: Of the objects, a whole number from 0: which block of the stack it is.
        seed: Decides first weights and order; the same seed gives the same weights on a CPU.
        steps: Of 16 images each.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        on_progress: Called after every step with its number and the loss in nats a pixel.

    Returns:
        ``seed``, ``steps``, ``factor``, and of held-out scenes ``accuracy``, the share of the pixels of blocks with the
        right answer.

    Raises:
        UsageError: If a setting is out of range.
        DataError: If a split is empty, or its objects have no such factor.
        MobjError: If the file cannot be written.
    """
    if steps < 1 or seed < 0:
        raise UsageError(f"judge: expected steps >= 1 and seed >= 0, got {steps} and {seed}.")
    if len(source) == 0 or len(held_out) == 0:
        raise DataError("judge: expected at least one scene to learn from and one held out, got none.")
    classes = 1 + max(int(_classes(scenes, factor).max()) for _, scenes in batches(source, 512))
    where = resolve_device(device)
    with one_thread():
        network = _trained(source, classes, factor, where, seed, steps, on_progress)
        judge = Judge(network, source.image_shape, device=device)
        accuracy = _accuracy(judge, held_out, factor)
    training = {"seed": seed, "steps": steps, "factor": factor, "accuracy": accuracy}
    config = {"image_shape": list(source.image_shape), "classes": classes}
    write_trained(out, SCHEMA, network, config, data, training)
    return training


def _trained(
    source: SceneSource,
    classes: int,
    factor: str,
    where: torch.device,
    seed: int,
    steps: int,
    on_progress: Callable[[int, float], None],
) -> JudgeNetwork:
    with torch.random.fork_rng(devices=[]):  # layers draw their first weights from torch's global generator
        torch.manual_seed(seed)
        network = JudgeNetwork(source.image_shape[-1], classes).to(where)
    optimiser = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _LEARNING_RATE, total_steps=steps + 1)
    order = shuffled_rows(len(source), _BATCH, np.random.default_rng(seed))
    for step in range(1, steps + 1):
        scenes = source.scenes(np.sort(next(order)))
        logits = network(torch.from_numpy(scenes.image).to(where))
        loss = cross_entropy(logits, torch.from_numpy(_classes(scenes, factor)).to(where))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        on_progress(step, loss.item())
    return network


def _classes(scenes: Scenes, factor: str) -> np.ndarray:
    """Return int64 ``[B, H, W]``: 0 for background, 1 and up for the blocks from below."""
    if factor not in scenes.factors:
        raise DataError(
            f"judge: expected objects with the factor {factor}, the data set has {', '.join(scenes.factors) or 'none'}."
        )
    levels = scenes.factors[factor].astype(np.int64) + 1  # [B, K]
    of_label = np.concatenate([np.zeros((len(levels), scenes.background_segments), np.int64), levels], axis=1)
    flat = scenes.segments.reshape(len(levels), -1).astype(np.int64)
    return np.take_along_axis(of_label, flat, axis=1).reshape(scenes.segments.shape)


def _accuracy(judge: Judge, source: SceneSource, factor: str) -> float:
    right = total = 0
    for _, scenes in batches(source, _AT_ONCE, _HELD_OUT):
        true, given = _classes(scenes, factor), judge(scenes.image)
        right += int(((given == true) & (true > 0)).sum())
        total += int((true > 0).sum())
    return right / max(total, 1)
