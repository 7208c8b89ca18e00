"""Is a folder still what its manifest says? Every byte, every file, and scenes drawn anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multiobj_data.files import sha256_of
from multiobj_data.generation.plan import Plan, draw_scenes
from multiobj_data.randomness import BLOCK
from multiobj_data.scenes import Scenes
from multiobj_data.shards.hdf5 import ImageLayout, open_shard, read_scenes
from multiobj_data.shards.journal import stray_shards
from multiobj_data.shards.manifest import Manifest


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a folder.

    ``kind`` is ``"missing"``, ``"changed"``, ``"short"`` (other rows than the manifest says, since it was written),
    ``"foreign"`` or ``"differs"`` (drawn anew, the scene differs).
    """

    kind: str
    file: str
    detail: str

    @property
    def repairable(self) -> bool:
        """Whether writing the shard again mends it."""
        return self.kind in ("missing", "changed")


def verify(
    folder: Path, manifest: Manifest, on_progress: Callable[[int], None] = lambda n: None
) -> list[Problem]:
    """Compare every file with the manifest, byte by byte and row by row; return what is wrong."""
    problems = []
    records = [shard for split in manifest.splits.values() for shard in split.shards]
    for shard in records:
        path = folder / shard.file
        if not path.is_file():
            problems.append(Problem("missing", shard.file, f"{shard.rows} scenes are gone"))
        elif (got := sha256_of(path)) != shard.sha256:
            problems.append(
                Problem("changed", shard.file, f"SHA-256 {got[:12]}..., expected {shard.sha256[:12]}...")
            )
        elif (rows := ImageLayout.of(path).rows) != shard.rows:
            detail = f"holds {rows} scenes, the manifest says {shard.rows}; generate the data set again"
            problems.append(Problem("short", shard.file, detail))
        on_progress(shard.rows)
    for name in stray_shards(folder, {shard.file for shard in records}):
        problems.append(Problem("foreign", name, "no part of this data set; move it away"))
    return problems


def regenerate(
    folder: Path, manifest: Manifest, plan: Plan, share: float, rng: np.random.Generator
) -> tuple[int, list[Problem]]:
    """Draw a share of the scenes anew and compare them with the stored ones.

    Args:
        folder: The data set.
        manifest: Its manifest.
        plan: Its plan, as `multiobj_data.generation.plan.plan_of` returns it.
        share: Share of blocks of 256 scenes, in (0, 1]; at least one block a split.
        rng: Chooses the blocks.

    Returns:
        How many scenes were compared, and the shards where some differ.
    """
    compared, problems = 0, []
    for name, split in manifest.splits.items():
        blocks = -(-split.rows // BLOCK)
        chosen = rng.choice(blocks, size=max(1, round(share * blocks)), replace=False)
        for shard in split.shards:
            first, last = shard.first_index, shard.first_index + shard.rows
            with open_shard(folder / shard.file) as file:
                for block in sorted(chosen):
                    start, stop = max(block * BLOCK, first), min((block + 1) * BLOCK, last)
                    if start < stop:
                        stored = read_scenes(file, slice(start - first, stop - first))
                        drawn = draw_scenes(plan.generator, plan.seed, name, int(start), int(stop - start))
                        compared += len(stored)
                        if bad := differences(stored, drawn):
                            problems.append(
                                Problem(
                                    "differs", shard.file, f"scenes {start}..{stop - 1}: {', '.join(bad)}"
                                )
                            )
    return compared, problems


def differences(a: Scenes, b: Scenes) -> list[str]:
    """Return the names of the fields in which two batches differ."""
    fields = {
        name: (getattr(a, name), getattr(b, name))
        for name in ("image", "count", "segments", "boxes", "amodal")
    }
    for group in ("factors", "scene_factors"):
        ours, theirs = getattr(a, group), getattr(b, group)
        fields |= {name: (ours.get(name), theirs.get(name)) for name in sorted({*ours, *theirs})}
    return [name for name, (x, y) in fields.items() if not _same(x, y)]


def _same(x: np.ndarray | None, y: np.ndarray | None) -> bool:
    if x is None or y is None:
        return x is y
    return x.dtype == y.dtype and np.array_equal(x, y, equal_nan=x.dtype.kind == "f")
