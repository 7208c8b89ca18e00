"""Images that a trained model draws: what is in them, and how many of them keep their objects apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from reference_models.air import AIR

_CHUNK = 250  # images drawn at once
_SEED = 0


@dataclass(frozen=True)
class Drawn:
    """Images from a model, with their objects.

    Attributes:
        images: float ``[n, H, W, C]`` in [0, 1].
        windows: Boxes of the objects' windows, ``[n, K, 4]`` in pixels.
        ink: Where each object paints brighter than the model's ``mask_level``, bool ``[n, K, H, W]``.
        count: ``[n]``; later objects are not there.
    """

    images: np.ndarray
    windows: np.ndarray
    ink: np.ndarray
    count: np.ndarray


def drawn(model: AIR, n: int, counts: np.ndarray | None = None, seed: int = _SEED) -> Iterator[Drawn]:
    """Draw ``n`` images from a model of the AIR family, some hundred at a time.

    Args:
        model: The model.
        n: How many.
        counts: How many objects each image has, ``[n]``; drawn from p(N) if not given.
        seed: Of the randomness.
    """
    import torch

    model.eval()
    generator = torch.Generator(model.device).manual_seed(seed)
    for start in range(0, n, _CHUNK):
        rows = min(_CHUNK, n - start)
        with torch.no_grad():
            z, number = model.sample_objects(rows, generator)
            if counts is not None:
                number = torch.as_tensor(counts[start : start + rows], device=z.device)
            z_where, z_what = model.split(z)
            there = torch.arange(z.shape[1], device=z.device) < number[:, None]  # [n, K]
            objects = model.render(z_where, z_what) * there[:, :, None, None, None]  # [n, K, C, H, W]
            yield Drawn(
                images=objects.sum(1).clamp(0, 1).movedim(1, -1).cpu().numpy(),
                windows=model.windows(z_where).boxes().cpu().numpy(),
                ink=(objects.amax(2) > model.config.mask_level).cpu().numpy(),
                count=number.cpu().numpy(),
            )


def drawn_at_once(model: Any, n: int, counts: np.ndarray | None = None, seed: int = _SEED) -> Drawn:
    """Draw a few images from any model that counts; one that does not tell its samples' windows has none.

    Args:
        model: The model.
        n: How many, at most a chunk of `drawn`.
        counts: How many objects each image has, ``[n]``; drawn from p(N) if not given.
        seed: Of the randomness.
    """
    import torch

    if hasattr(model, "sample_objects"):
        (part,) = drawn(model, n, counts, seed)
        return part
    model.eval()
    given = None if counts is None else torch.as_tensor(counts, device=model.device)
    images = model.sample(n, torch.Generator(model.device).manual_seed(seed), given).cpu().numpy()
    count = np.zeros(n, int) if counts is None else counts
    return Drawn(images, np.zeros((n, 0, 4)), np.zeros((n, 0, *images.shape[1:3]), bool), count)


def overlap_of_samples(model: AIR, n: int) -> dict[str, Any]:
    """Count the drawn images in which no two objects overlap: by their windows, and by their ink.

    Windows overlap where they share area; ink where a pixel is brighter than ``mask_level`` in two objects. An image
    of fewer than two objects cannot overlap and is left out; for ink, one of fewer than two objects with any ink.

    Returns:
        ``samples``; ``with_windows`` (images of two objects or more), of these ``windows_apart``; ``with_ink`` (of two
        objects or more that paint), of these ``ink_apart``.
    """
    found = {"samples": n, "with_windows": 0, "windows_apart": 0, "with_ink": 0, "ink_apart": 0}
    for part in drawn(model, n):
        several = part.count >= 2
        painted = part.ink.any((-2, -1)).sum(-1) >= 2
        found["with_windows"] += int(several.sum())
        found["with_ink"] += int(painted.sum())
        found["windows_apart"] += int((several & ~windows_overlap(part.windows, part.count)).sum())
        found["ink_apart"] += int((painted & ~ink_overlaps(part.ink)).sum())
    return found


def windows_overlap(boxes: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return whether any two of the first ``count [n]`` boxes ``[n, K, 4]`` share area: bool ``[n]``."""
    first, second = np.triu_indices(boxes.shape[1], k=1)
    a, b = boxes[:, first], boxes[:, second]  # [n, pairs, 4]
    shared = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])  # [n, pairs, 2]
    result: np.ndarray = ((shared > 0).all(-1) & (second < count[:, None])).any(-1)
    return result


def ink_overlaps(ink: np.ndarray) -> np.ndarray:
    """Return whether any pixel belongs to two objects of ``ink [n, K, H, W]``: bool ``[n]``."""
    result: np.ndarray = (ink.sum(1) > 1).any((-2, -1))
    return result
