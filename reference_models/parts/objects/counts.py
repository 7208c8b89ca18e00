"""How many objects: the count prior, and the posterior enumerated from AIR's stop-or-go decisions.

AIR's posterior over N = 0..K is a chain of decisions: given that objects 1..t-1 are there, object t is
there with probability p_t. Enumerating its K + 1 outcomes gives the exact expectation over N, so that no
score-function estimator (with its variance and its collapses) is needed.

Both distributions are plain `Categorical` over n = 0..K: another prior or another posterior is another
function that returns one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Categorical
from torch.nn.functional import logsigmoid, pad

from reference_models.parts.precision import full_precision


def geometric_prior(k: int, ratio: float) -> Categorical:
    """Return p(n) ∝ ``ratio ** n`` for n = 0..k, as float64.

    Every object costs ``-log(ratio)`` nats (Eslami et al. 2016: a geometric prior).
    """
    return Categorical(logits=math.log(ratio) * torch.arange(k + 1, dtype=torch.float64), validate_args=False)


@full_precision
def stick_breaking(logits: Tensor) -> Categorical:
    """Return q(N = n) for n = 0..K from the decisions ``p_t = sigmoid(logits[..., t - 1])``.

    ``q(n) = (1 - p_{n+1}) p_1 ... p_n`` for n < K and ``q(K) = p_1 ... p_K``, in log space throughout
    (the sequential posterior of Eslami et al. 2016: it stops at the first object that is absent).

    Args:
        logits: float ``[..., K]``.
    """
    go = pad(logsigmoid(logits).cumsum(-1), (1, 0))  # log p_1...p_n, n = 0..K: [..., K + 1]
    stop = pad(logsigmoid(-logits), (0, 1))  # log(1 - p_{n+1}); nothing to stop after K
    return Categorical(logits=go + stop, validate_args=False)


def doubting(decisions: Tensor, doubt: Tensor) -> Tensor:
    """Return the logits of decisions that turn into their opposite with probability ``doubt``.

    Each answer to "is there one more?" keeps at least that probability, so that every number of first objects has a
    share in the posterior, and is taught to explain the image as well as so many can.

    Args:
        decisions: Logits ``[..., K]``.
        doubt: Below 1/2, ``[]``; 0 returns the decisions as they are.
    """
    kept, turned = torch.log1p(-doubt), torch.log(doubt)
    yes, no = logsigmoid(decisions), logsigmoid(-decisions)
    return torch.logaddexp(yes + kept, no + turned) - torch.logaddexp(no + kept, yes + turned)


def at_least(count: Categorical) -> Tensor:
    """Return P(N >= t) for t = 1..K as ``[..., K]``; it never increases with t."""
    return count.probs.flip(-1).cumsum(-1).flip(-1)[..., 1:]


def presence_of(count: Categorical) -> tuple[Tensor, Tensor]:
    """Return the most probable count ``[...]`` and a presence ``[..., K]`` that agrees with it.

    Presence is P(N >= t), moved as in `presence_among`.

    Args:
        count: N = 0..K; the first N objects are there.
    """
    k = count.probs.shape[-1] - 1
    first = torch.ones(k + 1, k, device=count.probs.device).tril(-1)
    _, number, presence = presence_among(count.probs, first)
    return number, presence


def presence_among(sets: Tensor, members: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the most probable set of the most probable count, that count, and a presence that agrees with both.

    Presence is the probability that an object is there. Where it is so uncertain that the chosen set and the presence
    fall on different sides (N = 0, 1, 2 with probabilities .4, .3, .3: the mode is 0, P(N >= 1) is .6), it is moved to
    the set's side of 1/2, so that exactly the set's objects have presence >= 1/2.

    Args:
        sets: Probabilities ``[..., S]``.
        members: Which objects are in which set, 0 or 1, ``[S, K]``.

    Returns:
        Place of the set among all ``[...]``, its number of objects ``[...]``, presence ``[..., K]``.
    """
    sizes = members.sum(-1).long()  # [S]
    of_count = sets.new_zeros(*sets.shape[:-1], members.shape[-1] + 1)
    of_count = of_count.index_add(-1, sizes, sets)  # [..., K + 1]
    number = of_count.argmax(-1)
    chosen = torch.where(sizes == number[..., None], sets, -1).argmax(-1)
    presence = sets @ members.to(sets)
    below_half = 0.5 - torch.finfo(presence.dtype).eps
    there = members[chosen] > 0
    return chosen, number, torch.where(there, presence.clamp(min=0.5), presence.clamp(max=below_half))
