"""The data-dependent baseline of the score function: what the cost from each decision on will be."""

from __future__ import annotations

from torch import Tensor, nn

from reference_models.parts.nets import mlp
from reference_models.parts.recurrent import SharedInputLSTM


class NeuralBaseline(nn.Module):
    """An LSTM of the guide's shape that sees the image and the objects before (Drelich's report, sec. 3).

    Its inputs are detached: it learns what to expect, and teaches the model nothing. What it answers for
    decision t depends on nothing that is decided at t or later, so that it cannot bias the gradient.

    Args:
        pixels: Size of an image.
        latents: Size of an object's z.
        size: Of the LSTM's state.
        hidden: Of the network that reads it.
        typical: Where its answers begin and in which unit they move, in nats.
    """

    def __init__(self, pixels: int, latents: int, size: int, hidden: int, typical: float) -> None:
        super().__init__()
        self.lstm = SharedInputLSTM(pixels, latents, size)
        self.read = mlp(size, [hidden], 1)
        self.typical = typical

    def forward(self, images: Tensor, before: Tensor) -> Tensor:
        """Return the expected cost of each decision and all that follows, in nats: ``[B, K]``.

        Args:
            images: ``[B, pixels]``.
            before: The object before each decision, ``[B, K, latents]``.
        """
        hidden = self.lstm.unroll(images.detach(), before.detach())
        return self.typical * self.read(hidden).squeeze(-1)
