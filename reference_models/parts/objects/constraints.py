"""What a user knows about the scenes: constraints ``F(q) <= 0`` on the posterior, as terms of the loss.

Amortized structural regularisation (Xu et al., "Multi-objects Generation with Amortized Structural
Regularization", NeurIPS 2019, sec. 4) adds ``coefficient * max(F(q), 0)`` to the negative ELBO, so that the
posterior, and with it the model that learns from it, keeps to what is known of the scenes.

A constraint of your own is a function from a `Layout` to ``[B]``. Objects on a horizontal line::

    def on_a_line(layout):
        mean = layout.mean_over_objects(layout.y)  # [B, 1]
        return (layout.exists * (layout.y - mean).square()).sum(-1) - 1.0  # F <= 0: within a pixel or so

    mobj train air-asr --data D --out O --set "constraints=overlap*1,my_package.constraints:on_a_line*0.5"
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Categorical
from torch.nn.functional import logsigmoid

from multiobj_data.errors import UsageError, quoted
from reference_models.parts.objects.counts import stick_breaking
from reference_models.parts.objects.windows import Windows


@dataclass(frozen=True)
class Layout:
    """Where the posterior puts the objects of B images.

    Attributes:
        windows: Their windows, ``[B, K]``, in pixels of the canvas.
        exists: How far each exists, ``[B, K]`` in [0, 1].
        canvas: ``(H, W)``.
        size_range: Sides that objects may have, in pixels; ``None``: any.
        size_tolerance: By how much the sides of two objects may differ, in pixels.
    """

    windows: Windows
    exists: Tensor
    canvas: tuple[int, int]
    size_range: tuple[float, float] | None = None
    size_tolerance: float = 0.0

    @property
    def x(self) -> Tensor:
        """Centres, ``[B, K]``."""
        return self.windows.x

    @property
    def y(self) -> Tensor:
        """Centres, ``[B, K]``."""
        return self.windows.y

    @property
    def side(self) -> Tensor:
        """Sides, ``[B, K]``."""
        return self.windows.side

    def over_objects(self, values: Tensor) -> Tensor:
        """Return the expected sum over the objects of ``values [B, K]``: ``[B]``."""
        return (self.exists * values).sum(-1)

    def mean_over_objects(self, values: Tensor) -> Tensor:
        """Return the mean over the objects of ``values [B, K]``: ``[B, 1]``; 0 without objects."""
        n = self.exists.sum(-1, keepdim=True)
        return self.over_objects(values)[:, None] / n.clamp(min=1e-6)

    def over_pairs(self, values: Tensor) -> Tensor:
        """Return the expected sum over ordered pairs of different objects of ``values [B, K, K]``: ``[B]``.

        Object t exists only if those before it do, so that a pair exists as far as its later one.
        """
        both = torch.minimum(self.exists[:, :, None], self.exists[:, None, :])  # [B, K, K]
        different = 1 - torch.eye(values.shape[-1], device=values.device, dtype=values.dtype)
        return (both * different * values).sum((-2, -1))


Constraint = Callable[[Layout], Tensor]
"""F: a layout of B images to ``[B]``, satisfied where 0 or less; found by `multiobj_data.plugins.resolve`."""


def overlap(layout: Layout) -> Tensor:
    """By how many pixels windows overlap on both axes, over ordered pairs (F1)."""
    between = torch.maximum(
        (layout.x[:, :, None] - layout.x[:, None]).abs(), (layout.y[:, :, None] - layout.y[:, None]).abs()
    )  # [B, K, K]: centres are apart on the axis that separates them best
    reach = (layout.side[:, :, None] + layout.side[:, None]) / 2
    return layout.over_pairs((reach - between).relu())


def inside(layout: Layout) -> Tensor:
    """By how many pixels windows leave the canvas, summed over its four edges (F2 to F5)."""
    height, width = layout.canvas
    half = layout.side / 2
    out = [half - layout.x, layout.x + half - width, half - layout.y, layout.y + half - height]
    return layout.over_objects(torch.stack([edge.relu() for edge in out]).sum(0))


def size(layout: Layout) -> Tensor:
    """By how many pixels sides leave their range (F6)."""
    if layout.size_range is None:
        raise UsageError(
            "constraint size: expected a size_range, least and largest side in pixels, got none."
        )
    low, high = layout.size_range
    return layout.over_objects((low - layout.side).relu() + (layout.side - high).relu())


def same_size(layout: Layout) -> Tensor:
    """By how many pixels the sides of two objects differ beyond the tolerance, over ordered pairs (F7)."""
    difference = (layout.side[:, :, None] - layout.side[:, None]).abs()
    return layout.over_pairs((difference - layout.size_tolerance).relu())


def parse_constraint(text: str) -> tuple[str, float]:
    """Read ``name*coefficient``; without a coefficient it is 1.

    Raises:
        UsageError: The coefficient is no positive number.
    """
    name, _, number = text.partition("*")
    try:
        coefficient = float(number) if number else 1.0
    except ValueError:
        coefficient = math.nan
    if not coefficient > 0 or not math.isfinite(coefficient):
        raise UsageError(f"constraint {quoted(text)}: expected name*coefficient, such as overlap*1.")
    return name.strip(), coefficient


# --- the number of objects (sec. 4.1) -----------------------------------------------------------------


def disallowed_count(count: Categorical, allowed: tuple[int, ...]) -> Tensor:
    """Return ``min over n in L of KL(N = n || q(N | x))``, that is ``-log max q(n | x)``: ``[B]``."""
    return -count.logits[..., list(allowed)].amax(-1)


def uneven_counts(count: Categorical, allowed: tuple[int, ...]) -> Tensor:
    """Return KL(uniform over L || mean over the batch of q(N | x)): a scalar."""
    mean = count.probs.mean(0)[list(allowed)]  # [|L|]
    return -(mean.clamp(min=torch.finfo(mean.dtype).tiny).log().mean() + math.log(len(allowed)))


def disallowed_decisions(logits: Tensor, allowed: tuple[int, ...]) -> Tensor:
    """Return the released code's form of `disallowed_count`, decision by decision: ``[B]``.

    ``min over n in L of sum_t BCE(t <= n, p_t)``, with every p_t as if the objects before t were there.
    """
    targets = _decisions(allowed, logits)  # [|L|, K]
    cross_entropy = -(
        targets * logsigmoid(logits[:, None]) + (1 - targets) * logsigmoid(-logits[:, None])
    ).sum(-1)
    return cross_entropy.amin(-1)


def uneven_decisions(logits: Tensor, allowed: tuple[int, ...]) -> Tensor:
    """Return the released code's form of `uneven_counts`: ``sum_t BCE(mean target, mean p_t)``, a scalar."""
    target = _decisions(allowed, logits).mean(0)  # [K]
    p = torch.sigmoid(logits).mean(0).clamp(1e-7, 1 - 1e-7)
    return -(target * p.log() + (1 - target) * (1 - p).log()).sum()


def _decisions(allowed: tuple[int, ...], like: Tensor) -> Tensor:
    """Return what each allowed count's decisions are: ``[|L|, K]`` of 0 and 1."""
    steps = torch.arange(like.shape[-1], device=like.device)
    return (steps < torch.as_tensor(allowed, device=like.device)[:, None]).to(like.dtype)


def number_terms(decisions: Tensor, allowed: tuple[int, ...], form: str) -> tuple[Tensor, Tensor]:
    """Return both parts of the regulariser of the number, an image's ``[B]`` and the batch's, a scalar.

    Args:
        decisions: The posterior's logits, ``[B, K]``.
        allowed: L, the counts that occur.
        form: ``"exact"``, from the enumerated q(N | x), or ``"per-step"``, as the released code has it.
    """
    if form == "per-step":
        return disallowed_decisions(decisions, allowed), uneven_decisions(decisions, allowed)
    count = stick_breaking(decisions)
    return disallowed_count(count, allowed), uneven_counts(count, allowed)
