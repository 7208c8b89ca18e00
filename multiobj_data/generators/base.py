"""What a generator is, as a protocol: third parties need nothing else."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from multiobj_data.plugins import foreign_code
from multiobj_data.scenes import Scenes


@runtime_checkable
class Generator(Protocol):
    """A frozen dataclass whose fields are the data set's whole configuration.

    `multiobj_data.checks.check_generator` tests everything that is said here. Besides ``scenes``, a generator
    may define:

    - ``resolved() -> Self``: settings such as ``auto`` replaced by what they stand for on this machine;
    - ``sources() -> dict[str, str]``: SHA-256 of every file that it reads;
    - ``notes() -> list[str]``: what whoever uses the data must know;
    - ``acceptance(rng) -> dict[int, float]``: share of accepted candidates per count, estimated; raises
      `InfeasibleError` for what cannot be drawn;
    - ``ood_acceptance(rng) -> dict[int, float]``: likewise for a split ``ood`` of another law.
    """

    id: ClassVar[str]
    """Name with version, e.g. ``multi-mnist-v1``; any change to pixels bumps it."""

    def scenes(self, rng: np.random.Generator, n: int, *, split: str, first: int) -> Scenes:
        """Draw ``n`` scenes.

        Args:
            rng: The only source of randomness.
            n: How many.
            split: ``"train"``, ``"val"`` or ``"test"``: which part of the source images to use.
            first: Index of the first scene in its split, for what is balanced over a split (equal shares).
        """
        ...


def call_optional(generator: Generator, name: str, *arguments: Any, default: Any) -> Any:
    """Call one of a generator's optional methods, or return ``default`` if it has none.

    Raises:
        MobjError: Names the generator, if its own code raises.
    """
    method = getattr(generator, name, None)
    if method is None:
        return default
    with foreign_code(f"the generator {generator.id}"):
        return method(*arguments)
