"""NumPy arrays and torch tensors alike: what comes as a tensor is answered as a tensor, on its device.

torch is never imported here; whoever hands in a tensor has imported it.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

Array = Any
"""``numpy.ndarray`` or ``torch.Tensor``."""


def is_tensor(array: Array) -> bool:
    """Tell whether ``array`` is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def to_numpy(array: Array) -> np.ndarray:
    """Return ``array`` as a NumPy array; bfloat16, which NumPy lacks, becomes float32."""
    if not is_tensor(array):
        return np.asarray(array)
    array = array.detach().cpu()
    return (array.float() if str(array.dtype) == "torch.bfloat16" else array).numpy()


def like(values: Array, reference: Array) -> Array:
    """Return ``values`` in the library and on the device of ``reference``."""
    if is_tensor(reference):
        return sys.modules["torch"].as_tensor(_shareable(values), device=reference.device)
    return to_numpy(values)


def _shareable(values: Array) -> Array:
    """Return ``values`` so that torch can take them: it knows no read-only, mirrored or byte-swapped memory."""
    if not isinstance(values, np.ndarray):
        return values
    if values.flags.writeable and values.dtype.isnative and min(values.strides, default=0) >= 0:
        return values
    return values.astype(values.dtype.newbyteorder("="), order="C")


def as_double(array: Array, reference: Array) -> Array:
    """Return ``array`` as float64 in the library and on the device of ``reference``."""
    array = like(array, reference)
    return array.detach().double() if is_tensor(array) else array.astype(np.float64)
