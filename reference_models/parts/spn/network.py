"""The network: leaves, sums of products above them, one root over the products of all replicas."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from multiobj_data.errors import UsageError
from reference_models.parts.spn import decoding
from reference_models.parts.spn.config import SPNConfig
from reference_models.parts.spn.layers import log_einsum_exp
from reference_models.parts.spn.leaves import GaussianLeaves

Mix = Callable[[Tensor, Tensor, Tensor], Tensor]
"""What a region does with its halves' channels: `log_einsum_exp`, or `max_product`."""


class SumProductNetwork(nn.Module):
    """A random sum-product network with Gaussian leaves (RAT-SPN): a density whose marginals are exact.

    Every replica halves the image ``depth`` times. A leaf region has I Gaussians; a region above has S sums over
    all products of its halves' channels; the root is one sum over all products of the halves of all replicas.

    Args:
        config: Size and structure. Weights come from torch's generator, as those of its own layers do.

    Attributes:
        leaves: The Gaussians.
        logits: Of the sums' weights, from the leaves up: ``[R, regions, S, children^2]`` a level.
        root_logits: ``[R, children^2]``, one distribution over all replicas.
    """

    def __init__(self, config: SPNConfig) -> None:
        super().__init__()
        self.config = config
        self.leaves = GaussianLeaves(config)
        levels = [
            (config.replicas, 2**level, config.sums, self._children(level) ** 2)
            for level in reversed(range(1, config.depth))
        ]
        self.logits = nn.ParameterList(nn.Parameter(torch.empty(shape)) for shape in levels)
        self.root_logits = nn.Parameter(torch.empty(config.replicas, self._children(0) ** 2))
        for logits in (*self.logits, self.root_logits):
            nn.init.normal_(logits, std=0.5)  # SuPAIR code

    def _children(self, level: int) -> int:
        """Return the channels of a region one level below ``level``; the root is at level 0."""
        return self.config.leaves if level == self.config.depth - 1 else self.config.sums

    def log_likelihood(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """Return the exact log density of the visible pixels, the hidden ones integrated out.

        Args:
            x: ``[B, D]``; what stands in hidden pixels, NaN included, changes neither result nor gradient.
            visible: In [0, 1], ``[B, P]``; between 0 and 1 the leaves' log density of a pixel is scaled (SuPAIR
                blends at edges). A pixel at 0 has no gradient with respect to it. ``None``: all are visible.

        Returns:
            Nats, ``[B]``.

        Raises:
            UsageError: Another number of pixels; see `check` for NaN.
        """
        self._check_sizes(x, visible)
        return self.mix(self.leaves(x, visible), self.log_weights())

    def mpe(self, x: Tensor, visible: Tensor | None = None, *, maximise_hidden: bool = False) -> Tensor:
        """Return what the most probable tree given the visible pixels paints: its leaves' means, ``[B, D]``.

        All pixels are painted, the visible ones too; see `decoding.mpe`.

        Args:
            x: See `log_likelihood`.
            visible: See `log_likelihood`.
            maximise_hidden: Choose tree and hidden pixels together (Poon & Domingos 2011, sec. 2), instead of the
                tree with the hidden pixels integrated out. It favours leaves of low variance.
        """
        self._check_sizes(x, visible)
        return decoding.mpe(self, x, visible, maximise_hidden=maximise_hidden)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw ``n`` images, ``[n, D]``, not limited to [0, 1]."""
        return decoding.sample(self, n, generator)

    def sample_given(self, x: Tensor, visible: Tensor, generator: torch.Generator) -> Tensor:
        """Draw the hidden pixels given the visible ones, which stay as they are: ``[B, D]``.

        Args:
            x: See `log_likelihood`.
            visible: See there; a pixel that is visible in part is that share of ``x`` and the rest drawn.
            generator: On the network's device.
        """
        self._check_sizes(x, visible)
        return decoding.sample_given(self, x, visible, generator)

    def log_weights(self) -> list[Tensor]:
        """Return the normalised log weights of every level from the leaves up, the root's last.

        Returns:
            ``[R, regions, S, children^2]`` each; the root's ``[R, 1, 1, children^2]`` sum to 1 over all replicas.
        """
        root = self.root_logits.flatten().log_softmax(0).view(len(self.root_logits), 1, 1, -1)
        return [*(logits.log_softmax(-1) for logits in self.logits), root]

    def mix(self, leaves: Tensor, log_weights: Sequence[Tensor]) -> Tensor:
        """Return the root's log density ``[B]`` for the leaves' ``[R, K, I, B]``, which may be of any kind."""
        *_, replicas = self.levels(leaves, log_weights)
        return replicas[:, 0, 0].logsumexp(0)

    def levels(
        self, leaves: Tensor, log_weights: Sequence[Tensor], mix: Mix = log_einsum_exp
    ) -> list[Tensor]:
        """Return the log values of all regions, level by level.

        Args:
            leaves: ``[R, K, I, B]``.
            log_weights: As `log_weights` returns them.
            mix: What a region does with its halves.

        Returns:
            Leaves first, ``[R, regions, channels, B]`` each; last the replicas' shares of the root, ``[R, 1, 1, B]``.
        """
        levels = [leaves]
        for weights in log_weights:
            left, right = (levels[-1][:, side::2].flatten(0, 1) for side in (0, 1))  # [R * regions, I, B]
            levels.append(mix(left, right, weights.flatten(0, 1)).unflatten(0, weights.shape[:2]))
        return levels

    def check(self, x: Tensor, visible: Tensor | None = None) -> None:
        """Refuse bad input. It looks at every value, so that it is not done on every step.

        Raises:
            UsageError: Another number of pixels, NaN or infinity in visible pixels, or visibility outside [0, 1].
        """
        self._check_sizes(x, visible)
        if visible is None:
            visible = x.new_ones(len(x), self.config.pixels)
        if not bool(((visible >= 0) & (visible <= 1)).all()):
            raise UsageError("SPN: expected visible to be within [0, 1]; clamp it, and look for NaN in it.")
        bad = ~x.isfinite() & (visible > 0).repeat(1, self.config.channels)
        if bool(bad.any()):
            raise UsageError(
                f"SPN: {int(bad.sum())} visible values are NaN or infinite; hide those pixels (visible = 0)."
            )

    def _check_sizes(self, x: Tensor, visible: Tensor | None) -> None:
        config = self.config
        if x.ndim != 2 or x.shape[1] != config.values:
            raise UsageError(
                f"SPN: expected images [B, {config.values}] ({config.pixels} pixels of {config.channels} channels), "
                f"got {list(x.shape)}; scale them to the network's canvas, and flatten them."
            )
        if visible is not None and tuple(visible.shape) != (len(x), config.pixels):
            raise UsageError(
                f"SPN: expected visible [B, pixels] = [{len(x)}, {config.pixels}], got {list(visible.shape)}."
            )
