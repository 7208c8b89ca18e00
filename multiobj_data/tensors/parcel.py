"""`Parcel`: named arrays in one piece of memory, for one copy between processes and one upload to a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

_ALIGNED = 64  # bytes; arrays begin at multiples, so that each can be viewed in its own dtype


@dataclass(frozen=True)
class Parcel:
    """Arrays packed end to end.

    Dozens of small tensors would cost a file descriptor each on their way out of a worker process, and an
    upload each.

    Attributes:
        memory: uint8 ``[bytes]``.
        table: Name -> (dtype, shape, where it begins).
    """

    memory: torch.Tensor
    table: Mapping[str, tuple[torch.dtype, tuple[int, ...], int]]

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Parcel:
        """Pack arrays of numbers or bools.

        Raises:
            TypeError: An array's dtype has no like in PyTorch (text, for one).
        """
        table, end = {}, 0
        for name, array in arrays.items():
            table[name] = (torch.from_numpy(np.empty(0, array.dtype)).dtype, array.shape, end)
            end += -(-array.nbytes // _ALIGNED) * _ALIGNED
        memory = torch.zeros(end, dtype=torch.uint8)
        content = memory.numpy()
        for name, array in arrays.items():
            start = table[name][2]
            content[start : start + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return cls(memory, table)

    def on(self, device: torch.device) -> dict[str, torch.Tensor]:
        """Unpack on a device; the tensors share the parcel's memory there."""
        if device.type == "cuda":  # out of page-locked memory the copy runs while the CPU goes on
            memory = self.pin_memory().memory.to(device, non_blocking=True)
        else:
            memory = self.memory.to(device)
        tensors = {}
        for name, (dtype, shape, start) in self.table.items():
            size = int(np.prod(shape)) * dtype.itemsize
            tensors[name] = memory[start : start + size].view(dtype).view(shape)
        return tensors

    def pin_memory(self) -> Parcel:
        """Return the parcel in page-locked memory; `torch.utils.data.DataLoader` calls this by itself."""
        return self if self.memory.is_pinned() else replace(self, memory=self.memory.pin_memory())
