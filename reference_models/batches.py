"""Training batches whose content is a function of (seed, step) alone.

Every epoch runs through the data once, in a permutation drawn from a stream of its own. A run that resumes
at step 7,000 therefore sees what it would have seen, without any state to store.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from multiobj_data.errors import UsageError
from multiobj_data.loading import SceneSource

RESIDENT_BYTES = 2_000_000_000
"""Images up to this size are kept on the device; larger sets are read batch by batch."""

_ORDER, _NOISE = 0, 1  # what a stream of a run is for


def noise_generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    """Return the stream of the noise of one training step."""
    key = np.random.SeedSequence(seed, spawn_key=(_NOISE, step)).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(key) >> 1)  # torch takes 63 bits


class Batches:
    """The batches of a run.

    Args:
        source: Where the images come from.
        batch_size: Images a batch; an epoch drops the last ones that fill no batch.
        seed: Of the run.
        device: Where batches go.
        part: ``(i, n)``: of each batch, the i-th of n equal parts alone is fetched.

    Raises:
        UsageError: There are fewer scenes than one batch takes, or a batch has no n equal parts.
    """

    def __init__(
        self,
        source: SceneSource,
        batch_size: int,
        seed: int,
        device: torch.device,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        if not 1 <= batch_size <= len(source):
            raise UsageError(
                f"train: the batch size must be between 1 and the {len(source)} scenes of the data, "
                f"got {batch_size}."
            )
        i, n = part
        if batch_size % n:
            raise UsageError(
                f"train: the batch size is that of all {n} processes together and must be a multiple of {n}, "
                f"got {batch_size}."
            )
        self.source, self.batch_size, self.seed, self.device = source, batch_size, seed, device
        self._part = slice(i * batch_size // n, (i + 1) * batch_size // n)
        self.in_epoch = len(source) // batch_size
        self._epoch = -1
        self._order = np.empty(0, np.int64)
        self._resident: Tensor | None = None
        if len(source) * math.prod(source.image_shape) <= RESIDENT_BYTES:
            self._resident = torch.as_tensor(source.images(np.arange(len(source)))).to(device)

    def of_seed(self, seed: int) -> Batches:
        """Return the batches of another seed over the same data, which is held once."""
        other = copy.copy(self)
        other.seed, other._epoch = seed, -1
        return other

    def indices(self, step: int) -> np.ndarray:
        """Return which scenes step ``step`` (from 1) trains on: int64 ``[batch_size]``."""
        epoch, position = divmod(step - 1, self.in_epoch)
        if epoch != self._epoch:
            stream = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(_ORDER, epoch)))
            self._epoch, self._order = epoch, stream.permutation(len(self.source))
        return self._order[position * self.batch_size :][: self.batch_size]

    def own_rows(self, noise: Any) -> Any:
        """Return this part's rows of the noise of a whole batch (see `SceneModel.draw`).

        Raises:
            UsageError: A tensor of it has not the same number of rows for each image.
        """
        return pytree.tree_map_only(Tensor, self._rows, noise)

    def _rows(self, noise: Tensor) -> Tensor:
        if noise.dim() == 0:
            return noise
        per_image, rest = divmod(len(noise), self.batch_size)
        if rest:
            raise UsageError(
                f"train: expected noise with rows for each of {self.batch_size} images, image by image, got "
                f"{tuple(noise.shape)}; train this model in one process."
            )
        return noise[self._part.start * per_image : self._part.stop * per_image]

    def __getitem__(self, step: int) -> Tensor:
        """Return this part's images of step ``step`` (from 1): uint8 ``[batch_size / n, H, W, C]`` on the device."""
        indices = self.indices(step)[self._part]
        if self._resident is not None:
            return self._resident[torch.as_tensor(indices, device=self.device)]
        return torch.as_tensor(self.source.images(indices)).to(self.device)
