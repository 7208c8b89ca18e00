"""k-means on the colours and positions of pixels, a batch of images at a time."""

from __future__ import annotations

import zlib

import numpy as np

_POSITION_WEIGHT = (
    0.2  # of the side against black to white: more cuts plain grounds up, less joins digits of one grey
)
_MOST_ROUNDS = 30


def cluster_pixels(images: np.ndarray, clusters: int) -> np.ndarray:
    """Return Lloyd's k-means of each image's pixels, begun by k-means++ that the image's bytes key.

    Args:
        images: uint8 ``[B, H, W, C]``.
        clusters: How many; in an image of fewer different pixels some stay empty.

    Returns:
        int64 ``[B, H, W]`` in ``0..clusters - 1``; an image's labels depend on no other image.
    """
    pixels = _features(images)  # [B, P, F]
    centres = _first_centres(pixels, _keyed_numbers(images, clusters))  # [B, K, F]
    labels = _nearest(pixels, centres)  # [B, P]
    for _ in range(_MOST_ROUNDS):
        centres = _means(pixels, labels, centres)
        before, labels = labels, _nearest(pixels, centres)
        if (labels == before).all():  # every image has settled; one that has is not moved by further rounds
            break
    return labels.reshape(images.shape[:3])


def _features(images: np.ndarray) -> np.ndarray:
    """Return colour in [0, 1] and weighted position of every pixel, float32 ``[B, P, C + 2]``."""
    b, height, width, _ = images.shape
    yx = np.indices((height, width)).transpose(1, 2, 0) / max(height, width)  # [H, W, 2]
    places = np.broadcast_to(_POSITION_WEIGHT * yx, (b, height, width, 2))
    return np.concatenate([images / 255, places], axis=-1).reshape(b, height * width, -1).astype(np.float32)


def _keyed_numbers(images: np.ndarray, n: int) -> np.ndarray:
    """Return ``n`` uniform numbers an image, keyed by its bytes: ``[B, n]``."""
    keys = (zlib.crc32(image.tobytes()) for image in images)
    return np.array([np.random.default_rng(key).random(n) for key in keys]).reshape(len(images), n)


def _first_centres(pixels: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Choose pixels as centres, each with a probability as its squared distance from those before it."""
    rows = np.arange(len(pixels))
    weights = np.ones(pixels.shape[:2])  # [B, P]: the first is any pixel
    centres = []
    for u in uniform.T:
        total = weights.cumsum(1)
        chosen = (total < u[:, None] * total[:, -1:]).sum(1)  # [B]
        centres.append(pixels[rows, chosen])
        distances = ((pixels - centres[-1][:, None]) ** 2).sum(-1)
        weights = distances if len(centres) == 1 else np.minimum(weights, distances)
    return np.stack(centres, axis=1)


def _nearest(pixels: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return each pixel's nearest centre ``[B, P]``, the first of several: x x is the same for all, left out."""
    products = pixels @ centres.transpose(0, 2, 1)  # [B, P, K]
    return ((centres**2).sum(-1)[:, None] - 2 * products).argmin(-1)


def _means(pixels: np.ndarray, labels: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the mean of each cluster ``[B, K, F]``; one without pixels stays where it was."""
    members = (labels[:, None] == np.arange(centres.shape[1])[:, None]).astype(np.float32)  # [B, K, P]
    sizes = members.sum(-1, keepdims=True)
    return np.where(sizes > 0, (members @ pixels) / np.maximum(sizes, 1), centres)
