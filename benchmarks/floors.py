"""What a training step cannot be faster than: its operations and its bytes, at the speeds that this machine has."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from reference_models.base import SceneModel


def step_of(
    model: SceneModel, loss: Callable[[], Tensor], optimiser: torch.optim.Optimizer
) -> Callable[[], None]:
    """Return a training step with this loss."""

    def step() -> None:
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
        if model.device.type != "cpu":
            torch.cuda.synchronize()

    return step


def timed(function: Callable[[], object]) -> float:
    """Return the seconds a call takes: of one thread's own work, where there is only one, else on the wall."""
    alone = torch.get_num_threads() == 1 and not torch.cuda.is_initialized()
    clock = time.thread_time if alone else time.perf_counter
    start = clock()
    function()
    return clock() - start


class Work(TorchDispatchMode):
    """Counts the floating-point operations of products and convolutions, and the bytes of all operators.

    `FlopCounterMode` counts the first, too, but cannot be used where a loss takes gradients of its own. Bytes are those
    that an operator is given and returns, views not counted: what passes through memory if operators are not fused.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.operations += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        if not any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns):
            seen = tree_leaves((args, kwargs, out))
            self.bytes += sum(_bytes_of(each) for each in seen if isinstance(each, Tensor))
        return out


def _bytes_of(tensor: Tensor) -> int:
    """Return the bytes of a tensor's numbers, each once, however often it is expanded."""
    if tensor.numel() == 0:
        return 0
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    count = 1
    for size, stride in sizes:
        count *= size if stride else 1
    return count * tensor.element_size()


def products_per_second(device: torch.device) -> float:
    """Return the floating-point operations a second of a large matrix product."""
    n = 1024 if device.type == "cpu" else 8192
    a = torch.rand(n, n, device=device)

    def product() -> None:
        a @ a
        if device.type != "cpu":
            torch.cuda.synchronize()

    return 2 * n**3 / min(timed(product) for _ in range(10))


def bytes_per_second(device: torch.device) -> float:
    """Return the bytes a second that a large copy reads and writes."""
    a = torch.rand(2**26 if device.type == "cpu" else 2**29, device=device)
    b = torch.empty_like(a)

    def copy() -> None:
        b.copy_(a)
        if device.type != "cpu":
            torch.cuda.synchronize()

    return 2 * a.nbytes / min(timed(copy) for _ in range(10))
