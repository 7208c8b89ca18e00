"""What a slot model makes of images and draws by itself, as pictures: reconstructions, samples, rollouts, a walk.

SRI's figures 3 to 5 and 12 to 18 show the same. Pictures are uint8 ``[H, W, 3]``, tiles of equal size side by side.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multiobj_data.files import write_atomically

if TYPE_CHECKING:
    from torch import Tensor

    from reference_models.base import SceneModel

_SIDE = 64  # pixels that a tile has at least
_GAP, _GREY = 2, 96  # between tiles; and where a slot has nothing
_SAMPLES, _COLUMNS = 24, 8
_WALKS, _ANCHORS, _FRAMES, _MILLISECONDS = 4, 4, 12, 80  # frames from one anchor to the next
_SEED = 0


def draw_slot_model(model: Any, images: np.ndarray, folder: Path) -> list[Path]:
    """Write all pictures that a model can give.

    Args:
        model: A model with ``predict`` and ``sample``.
        images: uint8 ``[n, H, W, C]``, what is reconstructed and imagined anew.
        folder: Where they go: ``reconstructions.png`` (image, reconstruction, who owns each pixel, then each slot in
            order), ``samples.png``; of SRI also ``rollouts.png`` (image, what it imagines given the scene
            alone), and where there is a scene variable ``walk.gif``.

    Returns:
        The files.

    Raises:
        MobjError: A file cannot be written.
    """
    model.eval()
    pictures = {
        "reconstructions.png": mosaic(reconstruction_rows(images, model.predict(images))),
        "samples.png": mosaic(_in_rows(_bytes(model.sample(_SAMPLES, _generator(model))))),
    }
    if hasattr(model, "imagine"):
        pictures["rollouts.png"] = mosaic(np.stack([images, _bytes(_imagined(model, images))]))
    written = [_write_png(folder / name, picture) for name, picture in pictures.items()]
    if can_walk(model):
        frames = [mosaic(frame[None]) for frame in walk(model)]
        written.append(_write_gif(folder / "walk.gif", frames))
    return written


def reconstruction_rows(images: np.ndarray, prediction: Any) -> np.ndarray:
    """Return a row an image: image, reconstruction, who owns each pixel, and the image within each slot's mask.

    Args:
        images: uint8 ``[n, H, W, C]``.
        prediction: Of these; with ``reconstruction``, and ``masks [n, S, H, W]`` if there are slots.

    Returns:
        uint8 ``[n, tiles, H, W, 3]``.
    """
    tiles = [_rgb(images), _rgb(_bytes(prediction.reconstruction))]
    if prediction.masks is not None:
        masks = prediction.masks[..., None]  # [n, S, H, W, 1]
        tiles.append(_palette()[masks.argmax(1)[..., 0] % 10])
        parts = masks * _rgb(images)[:, None] + (1 - masks) * _GREY
        tiles += list(np.rint(parts).astype(np.uint8).swapaxes(0, 1))
    return np.stack(tiles, axis=1)


def can_walk(model: Any) -> bool:
    """Tell whether a model draws slots for a given scene variable."""
    return bool(getattr(model, "scene_size", 0))


def walk(model: Any, walks: int = _WALKS, anchors: int = _ANCHORS, frames: int = _FRAMES) -> np.ndarray:
    """Walk through scenes: from one drawn scene variable to the next and back to the first, slots at their means.

    Args:
        model: One that `can_walk`.
        walks: How many, side by side.
        anchors: Scene variables of each, drawn from the prior.
        frames: Steps from one to the next.

    Returns:
        uint8 ``[anchors * frames, walks, H, W, C]``.
    """
    import torch

    generator = _generator(model)
    like = next(model.parameters())
    ends = torch.randn(
        (anchors, walks, model.scene_size), generator=generator, device=like.device, dtype=like.dtype
    )
    path = _around(ends, frames)  # [T, walks, scene_size]
    with torch.inference_mode():
        images = model.sample(path[:, :, 0].numel(), generator, temperature=0.0, scene=path.flatten(0, 1))
    return _bytes(images).reshape(len(path), walks, *images.shape[1:])


def _around(ends: Tensor, frames: int) -> Tensor:
    """Return points on arcs from each of ``ends [A, ...]`` to the next: ``[A * frames, ...]``.

    Cosine and sine keep the length that is typical of the prior, which a straight line would not.
    """
    import torch

    share = torch.arange(frames, dtype=ends.dtype, device=ends.device) / frames * (torch.pi / 2)
    share = share.reshape(1, -1, *[1] * (ends.dim() - 1))  # [1, frames, 1, ...]
    here, there = ends[:, None], ends.roll(-1, dims=0)[:, None]
    return (share.cos() * here + share.sin() * there).flatten(0, 1)


def mosaic(rows: np.ndarray) -> np.ndarray:
    """Put tiles ``[rows, columns, H, W, C]`` into one picture, small ones enlarged: uint8 ``[.., .., 3]``."""
    down, across, height, width, _ = rows.shape
    factor = -(-_SIDE // max(height, width))
    tall, wide = factor * height + _GAP, factor * width + _GAP
    page = np.full((down, tall, across, wide, 3), 255, np.uint8)
    large = _rgb(rows).repeat(factor, axis=2).repeat(factor, axis=3)
    page[:, : tall - _GAP, :, : wide - _GAP] = large.transpose(0, 2, 1, 3, 4)
    return page.reshape(down * tall, across * wide, 3)[:-_GAP, :-_GAP]


def _imagined(model: Any, images: np.ndarray) -> Tensor:
    import torch

    imagined: Tensor = model.imagine(torch.as_tensor(images, device=model.device))
    return imagined


def _in_rows(images: np.ndarray) -> np.ndarray:
    return images.reshape(-1, _COLUMNS, *images.shape[1:])


def _generator(model: SceneModel) -> Any:
    import torch

    return torch.Generator(model.device).manual_seed(_SEED)


def _bytes(images: Any) -> np.ndarray:
    from metrics.generation.features.protocols import to_bytes

    return to_bytes(images)


def _rgb(images: np.ndarray) -> np.ndarray:
    return images if images.shape[-1] == 3 else images.repeat(3, axis=-1)


def _palette() -> np.ndarray:
    from matplotlib import colormaps

    colours = np.array([colormaps["tab10"](i)[:3] for i in range(10)])
    return np.rint(255 * colours).astype(np.uint8)


def _write_png(path: Path, picture: np.ndarray) -> Path:
    return _write(path, [picture], "PNG")


def _write_gif(path: Path, frames: Sequence[np.ndarray]) -> Path:
    return _write(
        path, frames, "GIF", save_all=True, duration=_MILLISECONDS, loop=0, optimize=False, disposal=1
    )


def _write(path: Path, frames: Sequence[np.ndarray], form: str, **options: Any) -> Path:
    from PIL import Image

    first, *others = (Image.fromarray(frame) for frame in frames)
    buffer = io.BytesIO()
    more = {"append_images": others, **options} if others else {}
    first.save(buffer, form, **more)
    write_atomically(path, buffer.getvalue())
    return path
