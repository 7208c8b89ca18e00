"""What the names of ShapeStacks' folders and files say (Groth et al. 2018).

A scenario is a stack of blocks, seen by 16 cameras; its folder holds the recordings. Everything that is known of a
scene but its pixels is in these two names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

COLOUR_MODES = ("original", "shuffle", "random", "unique")
"""Ways in which the blocks were coloured, by code; any other has code -1."""

LARGEST_STACK = 6
"""Blocks of the highest stack."""

_SCENARIO = re.compile(
    r"env_(blocks|ccs)-(easy|hard)-h=([1-6])-vcom=([0-6])-vpsf=([0-6])-v=([0-9]{1,6})(?![0-9])"
)
_RECORDING = re.compile(
    r"(rgb|iseg|vseg)-w=([0-9]{1,4})-f=([0-9]{1,4})-l=([0-9]{1,4})-c=([a-z_]{1,20})"
    r"-cam_([0-9]{1,4})-mono-([0-9]{1,4})\.(png|map)"
)


@dataclass(frozen=True)
class Scenario:
    """A stack of blocks; its folder is `name`.

    Attributes:
        name: As released, ``env_...``.
        curved: Whether cylinders and spheres are among the blocks (``ccs``), or cuboids alone (``blocks``).
        hard: Whether it is of the hard variant.
        height: How many blocks, 1..6.
        com_violation: Which block, from 1 at the bottom, violates the stability of the centre of mass; 0: none.
        surface_violation: Which block violates the stability of planar surfaces; 0: none.
        number: Running number among scenarios of the same kind.
    """

    name: str
    curved: bool
    hard: bool
    height: int
    com_violation: int
    surface_violation: int
    number: int

    @property
    def stable(self) -> bool:
        """Whether the stack stands: no violation of either kind."""
        return self.com_violation == 0 and self.surface_violation == 0

    @classmethod
    def parse(cls, name: str) -> Scenario | None:
        """Return what a folder's name says; ``None`` if it is no scenario's name."""
        match = _SCENARIO.fullmatch(name)
        return None if match is None else cls._of(match)

    @classmethod
    def within(cls, line: str) -> Scenario | None:
        """Return the scenario that a line of text names somewhere, e.g. within a path; ``None`` if none."""
        match = _SCENARIO.search(line)
        return None if match is None else cls._of(match)

    @classmethod
    def _of(cls, match: re.Match[str]) -> Scenario | None:
        kind, level, *numbers = match.groups()
        height, com, surface, number = map(int, numbers)
        if max(com, surface) > height:
            return None
        return cls(match[0], kind == "ccs", level == "hard", height, com, surface, number)

    def factors(self) -> dict[str, np.generic]:
        """Return the scenario's scene factors."""
        return {
            "stable": np.int8(self.stable),
            "height": np.int8(self.height),
            "com_violation": np.int8(self.com_violation),
            "surface_violation": np.int8(self.surface_violation),
            "curved": np.int8(self.curved),
            "hard": np.int8(self.hard),
            "variant": np.int32(self.number),
        }

    def roles(self) -> np.ndarray:
        """Return what each block is to the stack's stability, as ``vseg`` maps label it.

        Returns:
            int8 ``[7]``, by block from the bottom (0: background): 1 below the violation, 2 violating, 3 directly
            above, 4 further above; every block of a stable stack is 1; -1 where there is no block, or if two
            different blocks violate and the names do not tell which of them ``vseg`` shows.
        """
        block = np.arange(LARGEST_STACK + 1)
        violating = {self.com_violation, self.surface_violation} - {0}
        at = violating.pop() if violating else self.height + 1
        roles = np.where(block < at, 1, np.minimum(2 + block - at, 4))
        if violating:  # one more
            roles[:] = -1
        roles[block > self.height] = -1
        roles[0] = 0
        return roles.astype(np.int8)


@dataclass(frozen=True)
class Recording:
    """A picture of a scenario; `name` is its file.

    Attributes:
        name: As released.
        modality: ``rgb``, ``iseg`` (label map of instances) or ``vseg`` (of roles in the violation).
        wall: Number of the walls' texture.
        floor: Number of the floor's texture.
        light: Number of the lighting.
        colour_mode: How the blocks are coloured.
        camera: Number of the camera, from 1.
        frame: Number of the frame; 0 is all that is released.
        suffix: ``png`` or ``map``.
    """

    name: str
    modality: str
    wall: int
    floor: int
    light: int
    colour_mode: str
    camera: int
    frame: int
    suffix: str

    @classmethod
    def parse(cls, name: str) -> Recording | None:
        """Return what a file's name says; ``None`` if it is no recording's name."""
        match = _RECORDING.fullmatch(name)
        if match is None:
            return None
        modality, wall, floor, light, colour_mode, camera, frame, suffix = match.groups()
        if modality == "rgb" and suffix != "png":
            return None
        numbers = int(wall), int(floor), int(light)
        return cls(name, modality, *numbers, colour_mode, int(camera), int(frame), suffix)

    @property
    def view(self) -> tuple[int, int]:
        """Camera and frame: a picture and its label map have them in common, and nothing else."""
        return self.camera, self.frame

    def factors(self) -> dict[str, np.generic]:
        """Return the recording's scene factors."""
        known = self.colour_mode in COLOUR_MODES
        return {
            "camera": np.int16(self.camera),
            "frame": np.int16(self.frame),
            "wall_texture": np.int16(self.wall),
            "floor_texture": np.int16(self.floor),
            "light": np.int16(self.light),
            "colour_mode": np.int8(COLOUR_MODES.index(self.colour_mode) if known else -1),
        }
