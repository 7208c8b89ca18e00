"""Numbers too small for a normal float, which processors compute with a hundred times slower.

Models that sum over alternatives make them by the million: of two trees, or two counts, whose log likelihoods are 90
to 103 nats apart, the worse gets a gradient of 1e-39 to 1e-45. Half of a step of SuPAIR and more went into them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Count numbers below 1e-38 as zero on the CPU, and as before again afterwards.

    It is a register of each thread: of this one, and of threads that it starts from now on. Those of PyTorch's pool
    that run already keep theirs. Processors without the register (`torch.set_flush_denormal`) go on as they are.
    """
    before = _flushes()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _flushes() -> bool:
    """Return whether this thread flushes; PyTorch tells it nowhere."""
    return bool(torch.tensor([1e-30]).mul(1e-10).item() == 0)
