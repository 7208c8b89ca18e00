"""Devices by name, for everything that runs on PyTorch."""

from __future__ import annotations

import torch

from multiobj_data.errors import UsageError


def resolve_device(name: str) -> torch.device:
    """Return the device called ``name``; ``"auto"`` is CUDA where there is one.

    Raises:
        UsageError: No such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"device: expected auto, cpu or cuda, got {name!r}.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device: this machine has no CUDA device {str(device)!r} that PyTorch can use; take --device cpu."
        )
    return device
