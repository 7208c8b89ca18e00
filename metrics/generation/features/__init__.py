"""What turns images into the features that FID and KID compare.

An extractor is any callable from uint8 images ``[B, H, W, C]`` to floats ``[B, D]``, with a dictionary ``stamp`` that
says what it is. Two come with the toolkit: the FID Inception network (`features.inception`), for published figures,
and a small network trained on the labels of one's own data (`features.domain`). Importing this package loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from metrics.generation.features.protocols import PROTOCOLS, find_protocol
from multiobj_data.arrays import Array, to_numpy
from multiobj_data.errors import DataError, UsageError

__all__ = ["PROTOCOLS", "FeatureExtractor", "extract", "find_extractor"]


class FeatureExtractor(Protocol):
    """A callable from images to features, which says what it is."""

    @property
    def stamp(self) -> dict[str, Any]:
        """Network, SHA-256 of its weights, resize, normalisation, ...; JSON values."""
        ...

    def __call__(self, images: np.ndarray) -> Array:
        """Return floats ``[B, D]`` for uint8 ``[B, H, W, C]``."""
        ...


def find_extractor(
    name: str, *, protocol: str | None = None, weights: str | Path | None = None, device: str = "auto"
) -> FeatureExtractor:
    """Return an extractor by name.

    Args:
        name: ``"inception"``, or the path of what `mobj metrics train-features` wrote.
        protocol: Of Inception: a name in `PROTOCOLS`; by default ``"genesis"``.
        weights: Of Inception: a local file instead of the download.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Raises:
        UsageError: If the protocol is unknown, or options of Inception are given for a file.
        DataError: If a file is missing, damaged, or cannot be downloaded.
    """
    if name == "inception":
        from metrics.generation.features.inception import InceptionFeatures

        return InceptionFeatures.load(weights, find_protocol(protocol or "genesis"), device)
    if protocol is not None or weights is not None:
        raise UsageError(
            f"protocol and weights belong to the features 'inception'; {name} is a file that has its own of both."
        )
    from metrics.generation.features.domain import DomainFeatures

    return DomainFeatures.load(name, device)


def extract(
    extractor: Callable[[np.ndarray], Array],
    batches: Iterable[np.ndarray],
    on_progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Return the features of all images, float32 ``[N, D]``.

    Args:
        extractor: See the module's text.
        batches: uint8 ``[B, H, W, C]`` each.
        on_progress: Called after each batch with its number of images.

    Raises:
        DataError: If an answer is no finite ``[B, D]``, with D as before.
    """
    parts: list[np.ndarray] = []
    for images in batches:
        features = to_numpy(extractor(images))
        wanted = (len(images), parts[0].shape[1] if parts else features.shape[-1] if features.ndim else 0)
        if features.shape != wanted or features.dtype.kind != "f":
            raise DataError(
                f"features: expected floats [{wanted[0]}, {wanted[1] if parts else 'D'}] for {len(images)} images, "
                f"got {features.dtype} of shape {list(features.shape)}."
            )
        if not np.isfinite(features).all():
            raise DataError("features: expected finite values, got NaN or infinity; are the weights whole?")
        parts.append(features.astype(np.float32))
        if on_progress is not None:
            on_progress(len(images))
    if not parts:
        raise DataError("features: expected at least one image, got none.")
    return np.concatenate(parts)
