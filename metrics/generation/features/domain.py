"""Features of a small network trained on the labels of one's own data: FID without network access, and for digits.

Inception was trained on photographs; what it sees in a sprite is chance. This network was trained, by
`mobj metrics train-features`, to tell how many objects of which kind an image of the data set holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, silu

from metrics.generation.features.protocols import to_bytes
from metrics.generation.features.weights import (
    exact_arithmetic,
    read_trained,
    refuse_other_weights,
    write_trained,
)
from multiobj_data.devices import resolve_device
from multiobj_data.errors import DataError
from multiobj_data.files import sha256_of

SCHEMA = 1
DIMENSIONS = 128
_LARGEST_SIDE = 64  # pixels; larger images are averaged down to it
_AT_ONCE = 256  # images
_WHAT = "feature network of this toolkit; make one with `mobj metrics train-features`"


class DomainNetwork(nn.Module):
    """Four convolutions, one layer of features, and a head for each target.

    Args:
        image_shape: H, W, C.
        most: Largest number that a head can answer.
        heads: Target -> how many numbers it consists of.
    """

    def __init__(self, image_shape: tuple[int, int, int], most: int, heads: Mapping[str, int]) -> None:
        super().__init__()
        height, width, channels = image_shape
        self.size = min(height, _LARGEST_SIDE), min(width, _LARGEST_SIDE)
        self.answers = most + 1
        self.heads = dict(heads)
        widths = (channels, 16, 32, 64, 128)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], 5 if i == 0 else 3, 1 if i == 3 else 2, 2 if i == 0 else 1)
            for i in range(4)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in widths[1:])
        self.features = nn.Linear(4 * 4 * widths[-1], DIMENSIONS)
        self.answer = nn.Linear(DIMENSIONS, sum(heads.values()) * self.answers)
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(()))  # standard deviation of a feature, after training

    def embed(self, pixels: Tensor) -> Tensor:
        """Return features ``[B, 128]`` of bytes ``[B, H, W, C]``."""
        x = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        if x.shape[2:] != self.size:
            x = adaptive_avg_pool2d(x, self.size)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = silu(norm(convolution(x)))  # [B, 16..128, H/2.., W/2..]
        return silu(self.features(adaptive_avg_pool2d(x, 4).flatten(1)))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits of how many, ``[B, A, most + 1]``, answers in the order of the heads."""
        return self.answer(self.embed(pixels)).unflatten(1, (-1, self.answers))


class DomainFeatures:
    """An extractor (see `metrics.generation.features`): the layer before the heads, in units of its standard deviation.

    So features vary by 128 in all on the images trained on. Figures of different files compare with each other no more
    than those of different networks do.

    Args:
        network: Trained.
        image_shape: H, W, C of the only images that it takes.
        stamp: What it is and how it was made; JSON values.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
    """

    def __init__(
        self,
        network: DomainNetwork,
        image_shape: tuple[int, int, int],
        stamp: Mapping[str, Any] | None = None,
        device: str = "auto",
    ) -> None:
        self.device = resolve_device(device)
        self.network = network.to(self.device).eval()
        self.image_shape = image_shape
        self.stamp: dict[str, Any] = {"network": "domain", "dimensions": DIMENSIONS, **(stamp or {})}

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> DomainFeatures:
        """Load what `save_domain` wrote.

        Raises:
            DataError: If there is no such file, or it is another one, or damaged.
            UsageError: If there is no such device.
        """
        content = read_trained(path, SCHEMA, _WHAT)
        config = content["config"]
        try:
            height, width, channels = config["image_shape"]
            with torch.device("meta"):
                network = DomainNetwork((height, width, channels), config["most"], config["heads"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, ZeroDivisionError) as error:
            raise DataError(f"{path}: the network of its config cannot be built: {error}") from error
        refuse_other_weights(path, network.state_dict(), content["weights"], "its own config")
        network.load_state_dict(content["weights"], assign=True)
        stamp = {
            "weights_sha256": sha256_of(Path(path)),
            "image_shape": [height, width, channels],
            "trained_on": content["data"],
            "training": content["training"],
        }
        return cls(network, (height, width, channels), stamp, device)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return features, float32 ``[B, 128]``, of uint8 ``[B, H, W, C]`` of the size trained on."""
        pixels = np.array(to_bytes(images))  # a copy: arrays may be read-only
        if pixels.shape[1:] != self.image_shape:
            raise ValueError(
                f"images: expected {list(self.image_shape)} (height, width, channels) as the feature network was "
                f"trained on, got {list(pixels.shape[1:])}; train one on data of this size."
            )
        parts = [torch.empty(0, DIMENSIONS)]
        with exact_arithmetic():
            for chunk in torch.from_numpy(pixels).split(_AT_ONCE):
                parts.append((self.network.embed(chunk.to(self.device)) / self.network.scale).cpu())
        return torch.cat(parts).numpy()


def save_domain(
    path: str | Path,
    network: DomainNetwork,
    image_shape: tuple[int, int, int],
    data: Mapping[str, Any],
    training: Mapping[str, Any],
) -> None:
    """Write a network with its config, what it was trained on, and how well it does.

    Raises:
        UsageError: If the folder does not exist.
        MobjError: If the file cannot be written.
    """
    config = {"image_shape": list(image_shape), "most": network.answers - 1, "heads": network.heads}
    write_trained(path, SCHEMA, network, config, data, training)
