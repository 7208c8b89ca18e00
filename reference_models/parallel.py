"""One run by several processes, as a launcher such as ``torchrun`` starts them.

Each process takes its part of every batch, with the noise that the whole batch's draw gives to its images; the
gradients and the means of the loss are averaged. So N processes compute what one computes, up to the rounding of
the sums, and all hold the same weights. What a model computes over its batch (BatchNorm, running moments, the
`number_margin` of AIR-ASR) each process computes over its own part, as `DistributedDataParallel` has it.

The gradients travel in one vector after the backward pass, not bucket by bucket during it: an objective may
take gradients of its own, and may leave parameters out.

PyTorch is imported where there is more than one process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from multiobj_data.errors import MobjError, UsageError, shortened

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")

_LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher says to each process that it starts."""


class LostProcessError(MobjError):
    """Another process of the run is gone; this one cannot go on without it."""


@dataclass(frozen=True)
class Workers:
    """The processes of a run, seen by one of them.

    What is said of "all" here must be called by all, in the same order.

    Attributes:
        rank: Which one this is, from 0; the first one alone writes files.
        size: How many there are.
        local_rank: Which one this is on its machine: the number of its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes the files and speaks to the user."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.size == 1

    def device(self, name: str) -> torch.device:
        """Return this process's device for ``"auto"``, ``"cpu"`` or ``"cuda"``: a GPU each.

        Raises:
            UsageError: No such device, or fewer GPUs than processes on this machine.
        """
        from multiobj_data.devices import resolve_device

        device = resolve_device(name)
        if self.alone or device.type != "cuda":
            return device
        import torch

        if self.local_rank >= torch.cuda.device_count() or device.index is not None:
            raise UsageError(
                f"device: each process needs a GPU of its own, and there are {torch.cuda.device_count()} for process "
                f"{self.local_rank} of this machine; start fewer processes, or take --device cpu."
            )
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace floating tensors of one device by their means over all processes, in place."""
        if self.alone:
            return
        import torch
        import torch.distributed as dist

        flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
        with _telling_of_loss():
            dist.all_reduce(flat)
        flat /= self.size
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.detach().copy_(mean.view_as(tensor))

    def any(self, this: bool) -> bool:
        """Return whether any process says so, on all."""
        if self.alone:
            return this
        import torch
        import torch.distributed as dist

        flag = torch.tensor([this], dtype=torch.int32)
        with _telling_of_loss():
            dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())

    def gather(self, value: T) -> list[T]:
        """Return the value of each process, on all."""
        if self.alone:
            return [value]
        import torch.distributed as dist

        values: list[T | None] = [None] * self.size
        with _telling_of_loss():
            dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def on_first(self, work: Callable[[], T]) -> T:
        """Do work in the first process; return its result, or raise its error, in all."""
        if self.alone:
            return work()
        import torch.distributed as dist

        outcome: list[T | MobjError | None] = [None]
        if self.first:
            try:
                outcome = [work()]
            except MobjError as error:
                outcome = [error]
        with _telling_of_loss():
            dist.broadcast_object_list(outcome)
        if isinstance(outcome[0], MobjError):
            raise outcome[0]
        return outcome[0]  # type: ignore[return-value]

    @contextmanager
    def unanimous(self) -> Iterator[None]:
        """Raise an error of one process in all, so that none waits for another for ever.

        What is done inside may not wait for other processes itself.

        Raises:
            MobjError: That of the lowest rank that has one.
        """
        error: MobjError | None = None
        try:
            yield
        except MobjError as raised:
            if self.alone:
                raise
            error = raised
        if not self.alone and self.any(error is not None):
            errors = self.gather(error)
            raise next(error for error in errors if error is not None)


ALONE = Workers()
"""One process, as without a launcher."""


@contextmanager
def launched() -> Iterator[Workers]:
    """Yield the processes that a launcher has started for this command; `ALONE` where none has.

    Raises:
        MobjError: They do not find each other.
    """
    size = int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in _LAUNCHED) else 1
    if size == 1:
        yield ALONE
        return
    import torch
    import torch.distributed as dist

    gpus = torch.cuda.is_available() and dist.is_nccl_available()
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo")  # flags and objects go by CPU
    except (RuntimeError, ValueError) as error:
        raise MobjError(
            f"the {size} processes do not find each other ({shortened(str(error))}); start them with torchrun."
        ) from error
    try:
        yield Workers(dist.get_rank(), size, int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        dist.destroy_process_group()


@contextmanager
def _telling_of_loss() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError(
            "another process of this run has ended or cannot be reached; what it wrote says why; go on with --resume."
        ) from error
