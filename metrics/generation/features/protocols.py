"""How images become the input of the FID Inception network: four traditions, each with its own figures.

On 64x64 images, resizing alone moves FID by more than papers differ by; a figure is nothing without its protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from multiobj_data.arrays import Array, to_numpy
from multiobj_data.errors import UsageError, did_you_mean, quoted
from multiobj_data.scenes import dtype_kind, expect

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 299  # pixels, what the network was trained on
QUANTISATION = "clamp to [0, 1], floor(255 x)"
_FARTHEST = 1.0  # how far outside [0, 1] a model's images may reach before they are taken for another range

Resize = Literal["bilinear", "bilinear, antialiased", "bilinear, TensorFlow 1", "bicubic, Pillow"]


@dataclass(frozen=True)
class FidProtocol:
    """One tradition.

    Attributes:
        name: Its name here.
        resize: How images come to 299x299; of float pixels, not rounded afterwards.
        normalise: What the network is fed, of pixels x in 0..255.
        images: How many of each set its figures compare, where the tradition says so.
        source: Where it comes from.
    """

    name: str
    resize: Resize
    normalise: Literal["2x/255 - 1", "(x - 128)/128"]
    images: int | None
    source: str

    def input(self, images: Tensor) -> Tensor:
        """Return what the network is fed: float32 ``[B, 3, 299, 299]`` for uint8 ``[B, H, W, C]``.

        Grey images (C = 1) are repeated to three channels.
        """
        pixels = images.permute(0, 3, 1, 2).float()
        resized = _RESIZERS[self.resize](pixels)
        fed = resized * (2 / 255) - 1 if self.normalise == "2x/255 - 1" else (resized - 128) / 128
        return fed.expand(-1, 3, -1, -1)

    def stamp(self) -> dict[str, str | int]:
        """Return the protocol as JSON values."""
        return {"name": self.name, "resize": self.resize, "normalise": self.normalise, "side": SIDE}


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        FidProtocol(
            "genesis", "bilinear", "2x/255 - 1", 10_000, "GENESIS(-v2), SRI: pytorch-fid, on the test set"
        ),
        FidProtocol("clean-fid", "bicubic, Pillow", "(x - 128)/128", None, "Parmar et al. 2022"),
        FidProtocol(
            "torchmetrics", "bilinear, antialiased", "(x - 128)/128", None, "torchmetrics from 1.8 on"
        ),
        FidProtocol(
            "torch-fidelity",
            "bilinear, TensorFlow 1",
            "(x - 128)/128",
            None,
            "torch-fidelity; torchmetrics before 1.8; the original code of Heusel et al. 2017",
        ),
    )
}


def find_protocol(name: str) -> FidProtocol:
    """Return a protocol by name.

    Raises:
        UsageError: If there is none of this name.
    """
    if name not in PROTOCOLS:
        raise UsageError(f"no FID protocol {quoted(name)}.{did_you_mean(name, PROTOCOLS)}")
    return PROTOCOLS[name]


def to_bytes(images: Array) -> np.ndarray:
    """Return images as uint8 ``[B, H, W, C]``, as all protocols store them: clamped, then ``floor(255 x)``.

    Without the clamp, which published code leaves out, 1.004 becomes black.

    Args:
        images: uint8, kept as they are; or floats in [0, 1], which a model may overshoot.

    Raises:
        ValueError: If the shape is another, C is neither 1 nor 3, or floats are not in about [0, 1].
    """
    expect("images", images, (None, None, None, None))
    if images.shape[3] not in (1, 3) or 0 in images.shape[1:3]:
        raise ValueError(f"images: expected [B, H, W, C] with C = 1 or 3, got {list(images.shape)}.")
    array = to_numpy(images)
    if array.dtype == np.uint8:
        return array
    if dtype_kind(images) != "f":
        raise ValueError(f"images: expected uint8, or floats in [0, 1], got {images.dtype}.")
    pixels = array.astype(np.float32)  # as published code computes
    low, high = (float(pixels.min()), float(pixels.max())) if pixels.size else (0.0, 1.0)
    if not (low >= -_FARTHEST and high <= 1 + _FARTHEST):
        raise ValueError(
            f"images: expected floats in [0, 1], got {low:.4g}..{high:.4g}; divide pixels in 0..255 by 255."
        )
    return np.floor(np.clip(pixels, 0, 1) * np.float32(255)).astype(np.uint8)


# -- resizing: float [B, C, H, W] in 0..255 -> [B, C, 299, 299]


def _bilinear(pixels: Tensor) -> Tensor:
    from torch.nn.functional import interpolate

    return interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", align_corners=False)


def _antialiased(pixels: Tensor) -> Tensor:
    from torch.nn.functional import interpolate

    return interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)


def _as_tensorflow_1(pixels: Tensor) -> Tensor:
    """Pixel i of the result looks at i H/299 of the source: corners, not centres, are laid on each other."""
    rows, columns = (_corner_weights(size).to(pixels) for size in pixels.shape[2:])
    return rows @ pixels @ columns.T


def _corner_weights(size: int) -> Tensor:
    import torch

    place = torch.arange(SIDE, dtype=torch.float64) * (size / SIDE)
    below = place.long().clamp(max=size - 1)
    above, share = (below + 1).clamp(max=size - 1), place - below
    weights = torch.zeros(SIDE, size, dtype=torch.float64)
    row = torch.arange(SIDE)
    weights.index_put_((row, below), 1 - share, accumulate=True)
    weights.index_put_((row, above), share, accumulate=True)
    return weights


def _bicubic_by_pillow(pixels: Tensor) -> Tensor:
    """Each channel as a float picture, so that nothing is rounded; overshoot is clipped."""
    import torch
    from PIL import Image

    planes = [
        np.asarray(Image.fromarray(plane).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        for plane in to_numpy(pixels).reshape(-1, *pixels.shape[2:])
    ]
    resized = torch.from_numpy(np.stack(planes)).clamp(0, 255)
    return resized.reshape(*pixels.shape[:2], SIDE, SIDE).to(pixels.device)


_RESIZERS = {
    "bilinear": _bilinear,
    "bilinear, antialiased": _antialiased,
    "bilinear, TensorFlow 1": _as_tensorflow_1,
    "bicubic, Pillow": _bicubic_by_pillow,
}
