"""What is to be generated, shard by shard; and the scenes themselves, block by block."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from multiobj_data.configuration import build, recorded
from multiobj_data.errors import DataError, MobjError, UsageError, did_you_mean, quoted
from multiobj_data.files import to_json, write_atomically
from multiobj_data.generators.base import Generator, call_optional
from multiobj_data.plugins import foreign_code, resolve
from multiobj_data.randomness import BLOCK, block_rng
from multiobj_data.scenes import Scenes
from multiobj_data.shards.hdf5 import config_attributes, encode_shard, shard_name
from multiobj_data.shards.manifest import CONVERTED, Manifest, ShardRecord, SplitRecord
from multiobj_data.version import __version__

SHARD_ROWS = 16 * BLOCK
MOST_SCENES = 10**9


def draw_blocks(generator: Generator, seed: int, split: str, first: int, n: int) -> list[Scenes]:
    """Draw scenes ``first .. first + n - 1`` of a split, block by block."""
    parts = []
    for block in range(first // BLOCK, -(-(first + n) // BLOCK)):
        start = block * BLOCK
        scenes = draw_block(generator, seed, split, block)
        cut = slice(max(first - start, 0), min(first + n - start, BLOCK))
        parts.append(scenes if cut == slice(0, BLOCK) else scenes[cut])
    return parts


def draw_block(generator: Generator, seed: int, split: str, block: int) -> Scenes:
    """Draw block ``block`` of a split, 256 scenes; a generator that gives anything else is refused.

    Raises:
        MobjError: The generator raises, or does not give that many scenes.
    """
    who = f"the generator {generator.id}"
    with foreign_code(who):
        scenes: Any = generator.scenes(block_rng(seed, split, block), BLOCK, split=split, first=block * BLOCK)
    if not isinstance(scenes, Scenes):
        raise MobjError(
            f"{who} was asked for {BLOCK} scenes, gave {type(scenes).__name__}; expected multiobj_data.Scenes."
        )
    if len(scenes) != BLOCK:  # unnoticed, shards would be shorter than the manifest says
        raise MobjError(
            f"{who} was asked for {BLOCK} scenes, gave {len(scenes)}; multiobj_data.check_generator tests it."
        )
    return scenes


def draw_scenes(generator: Generator, seed: int, split: str, first: int, n: int) -> Scenes:
    """Draw scenes ``first .. first + n - 1`` of a split: the same ones, however they are asked for."""
    return Scenes.concatenate(draw_blocks(generator, seed, split, first, max(n, 1)))[:n]


@dataclass(frozen=True)
class Task:
    """One shard to write."""

    split: str
    number: int
    total: int
    first: int
    rows: int

    @property
    def file(self) -> str:
        """The shard's file name."""
        return shard_name(self.split, self.number, self.total)


def shard_tasks(splits: Mapping[str, int], shard_rows: int) -> Iterator[Task]:
    """Yield the shards of a data set in order: split by split."""
    for split, n in splits.items():
        total = -(-n // shard_rows)
        for number in range(total):
            first = number * shard_rows
            yield Task(split, number, total, first, min(shard_rows, n - first))


@dataclass(frozen=True)
class Finished:
    """A written shard and what rejection cost: count -> (scenes, attempts)."""

    record: ShardRecord
    split: str
    attempts: dict[str, tuple[int, int]]

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Finished:
        """Read a line of a journal.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: It is none.
        """
        attempts = {str(count): (int(n), int(of)) for count, (n, of) in line["attempts"].items()}
        return cls(ShardRecord(**line["record"]), str(line["split"]), attempts)


@dataclass(frozen=True)
class Plan:
    """A data set to be generated.

    Args:
        name: The generator's name, as `resolve` understands it.
        generator: The generator, already resolved (no ``auto`` left).
        seed: Seed of every stream.
        splits: Split -> number of scenes.
        shard_rows: Scenes a shard.
    """

    name: str
    generator: Generator
    seed: int
    splits: Mapping[str, int]
    shard_rows: int = SHARD_ROWS

    @classmethod
    def create(
        cls,
        name: str,
        settings: Mapping[str, Any],
        *,
        seed: int = 0,
        splits: Mapping[str, int],
        shard_rows: int = SHARD_ROWS,
    ) -> Plan:
        """Look the generator up, build and resolve it.

        Raises:
            UsageError: Unknown generator or setting, a number out of range, or nothing to generate.
            MobjError: The generator's own code raises.
        """
        seed, shard_rows = _whole("seed", seed), _whole("shard_rows", shard_rows)
        splits = {_split_name(split): _whole(f"splits[{split!r}]", n) for split, n in splits.items()}
        if seed < 0 or shard_rows < 1 or any(n < 0 for n in splits.values()):
            raise UsageError(
                f"seed, shard rows and split sizes must not be negative; got {seed}, {shard_rows}, {splits}."
            )
        if seed >= 2**63 or sum(splits.values()) > MOST_SCENES:
            raise UsageError(
                f"expected a seed below 2^63 and at most {MOST_SCENES:,} scenes, "
                f"got {seed} and {sum(splits.values()):,}."
            )
        if not any(splits.values()):
            raise UsageError("nothing to generate: every split has 0 scenes; give --train, --val or --test.")
        kind = resolve("generators", name)
        with foreign_code(f"the generator {name}"):
            generator = build(kind, settings, name)
        generator = call_optional(generator, "resolved", default=generator)
        _require_json(name, recorded(generator))
        return cls(name, generator, seed, {split: n for split, n in splits.items() if n}, shard_rows)

    def require_split(self, split: str) -> str:
        """Return a split's name.

        Raises:
            UsageError: If the plan has no such split.
        """
        if split not in self.splits:
            raise UsageError(f"the plan has no split {quoted(split)}.{did_you_mean(str(split), self.splits)}")
        return split

    def tasks(self) -> Iterator[Task]:
        """Yield the shards, in order."""
        return shard_tasks(self.splits, self.shard_rows)

    @cached_property
    def sources(self) -> dict[str, str]:
        """SHA-256 of every source file."""
        return call_optional(self.generator, "sources", default={})

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the bytes of the shards, JSON-ready."""
        return {
            "dataset": self.generator.id,
            "generator": self.name,
            "config": recorded(self.generator),
            "seed": self.seed,
            "splits": dict(self.splits),
            "shard_rows": self.shard_rows,
            "sources": self.sources,
        }

    def write_shard(self, task: Task, folder: Path) -> Finished:
        """Draw one shard and write it, atomically."""
        parts = draw_blocks(self.generator, self.seed, task.split, task.first, task.rows)
        attributes = config_attributes(self.generator.id, task.split, task.first, recorded(self.generator))
        content = encode_shard(parts, {**attributes, "seed": self.seed})
        write_atomically(folder / task.file, content)
        record = ShardRecord(task.file, task.first, task.rows, hashlib.sha256(content).hexdigest())
        return Finished(record, task.split, _attempts(parts))

    def manifest(self, finished: Mapping[str, Finished]) -> Manifest:
        """Assemble the manifest from all finished shards, by file name."""
        probe = draw_scenes(self.generator, self.seed, next(iter(self.splits)), 0, 1)
        return Manifest(
            dataset=self.generator.id,
            generator=self.name,
            config=recorded(self.generator),
            seed=self.seed,
            image_shape=probe.image.shape[1:],
            max_objects=probe.boxes.shape[1],
            sources=self.sources,
            shard_rows=self.shard_rows,
            splits=split_records(self.splits, self.shard_rows, finished),
            toolkit=__version__,
            notes=call_optional(self.generator, "notes", default=[]),
        )


def _require_json(name: str, config: Mapping[str, Any]) -> None:
    try:
        to_json(config)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{name}: expected settings that JSON can hold (finite numbers, texts, lists), got {config}: {error}."
        ) from error


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise UsageError(f"{name}: expected a whole number, got {quoted(value)}.")
    return int(value)


def _split_name(name: Any) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w-]*", name):
        raise UsageError(
            f"splits: expected names of letters, digits, _ and - such as 'train' (files are called by them), got "
            f"{quoted(name)}."
        )
    return name


def split_records(
    splits: Mapping[str, int], shard_rows: int, finished: Mapping[str, Finished]
) -> dict[str, SplitRecord]:
    """Return what a manifest says of each split, from all finished shards by file name."""
    records = {}
    for split, n in splits.items():
        parts = [finished[task.file] for task in shard_tasks({split: n}, shard_rows)]
        records[split] = SplitRecord(n, [part.record for part in parts], _acceptance(parts))
    return records


def plan_of(manifest: Manifest, **not_recorded: Any) -> Plan:
    """Return the plan by which a manifest's data set was made, on this machine.

    Args:
        manifest: The manifest.
        not_recorded: Settings that no manifest holds, such as ``digits_root``; ``None`` values are ignored.

    Raises:
        DataError: If source files here differ from those recorded.
    """
    if manifest.generator.startswith(CONVERTED):
        name = manifest.generator.removeprefix(CONVERTED)
        raise UsageError(
            f"this data set was converted from the files of {name}, not generated; to write it again, run the same "
            f"`mobj convert {name} SOURCE --out FOLDER`."
        )
    extra = {name: value for name, value in not_recorded.items() if value is not None}
    plan = Plan.create(
        manifest.generator,
        manifest.config | extra,
        seed=manifest.seed,
        splits={name: split.rows for name, split in manifest.splits.items()},
        shard_rows=manifest.shard_rows,
    )
    if plan.generator.id != manifest.dataset:
        raise DataError(
            f"the data set is {manifest.dataset}, this toolkit makes {plan.generator.id}; use mobj {manifest.toolkit}."
        )
    for name, sha in manifest.sources.items():
        if plan.sources.get(name) != sha:
            raise DataError(
                f"source {name} differs: the data set was made from SHA-256 {sha[:12]}..., here is "
                f"{plan.sources.get(name, 'none')[:12]}...; give the original (digits: --digits-root; dSprites: "
                "MOBJ_DSPRITES_FILE)."
            )
    return plan


def _attempts(parts: list[Scenes]) -> dict[str, tuple[int, int]]:
    if "attempts" not in parts[0].scene_factors:
        return {}
    count = np.concatenate([part.count for part in parts])
    attempts = np.concatenate([part.scene_factors["attempts"] for part in parts])
    if len(attempts) and attempts.min() < 1:
        raise MobjError(
            f"the generator: scene factor attempts: expected 1 or more candidates a scene, got {attempts.min()}; "
            "leave it out where nothing is rejected."
        )
    return {str(n): (int((count == n).sum()), int(attempts[count == n].sum())) for n in np.unique(count)}


def _acceptance(parts: list[Finished]) -> dict[str, dict[str, float]]:
    counts = sorted({count for part in parts for count in part.attempts}, key=int)
    table = {}
    for count in counts:
        scenes, attempts = np.sum([part.attempts.get(count, (0, 0)) for part in parts], axis=0).tolist()
        table[count] = {
            "scenes": scenes,
            "attempts": attempts,
            "acceptance": scenes / attempts,
        }
    return table
