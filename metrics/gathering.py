"""Bringing together what the processes of a distributed evaluation have seen; torch is imported late."""

from __future__ import annotations

from typing import Any, TypeVar

T = TypeVar("T")


def gather_objects(own: T, group: Any = None) -> list[T]:
    """Return every process's ``own``, by rank, in every process: a collective call, so that all must make it.

    Args:
        own: Anything that can be pickled.
        group: A ``torch.distributed`` group; the default one for ``None``. Where torch has no process group, the
            answer is ``[own]``.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return [own]
    parts: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(parts, own, group=group)
    return parts
