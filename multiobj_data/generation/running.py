"""From a plan to a folder of shards: resumable, repairable, the same bytes however it is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np

from multiobj_data.errors import DataError, UsageError, VerificationError
from multiobj_data.files import make_folder
from multiobj_data.generation.executors import Run, in_processes
from multiobj_data.generation.plan import Finished, Plan, Task
from multiobj_data.generators.base import call_optional
from multiobj_data.shards.journal import (
    Journal,
    hold_lock,
    is_whole,
    read_journals,
    refuse_difference,
    remove_journals,
    stray_shards,
    wait_to_finish,
)
from multiobj_data.shards.manifest import MANIFEST, Manifest
from multiobj_data.version import __version__

Progress = Callable[[int], None]
"""Called with the number of scenes just written."""


def generate(
    plan: Plan,
    folder: Path,
    *,
    workers: int = 1,
    run: Run | None = None,
    shard_range: tuple[int, int] = (0, 1),
    on_progress: Progress = lambda scenes: None,
) -> Manifest | None:
    """Write a data set, or the rest of it if an earlier run was interrupted.

    Args:
        plan: What to generate.
        folder: Where; created if need be.
        workers: Processes.
        run: What writes the shards, e.g. of `executors.on_cluster`; default: ``workers`` processes.
        shard_range: ``(i, n)``: only every n-th shard from the i-th, for array jobs into one folder.
        on_progress: Called after each shard.

    Returns:
        The manifest, or ``None`` if shards of other ranges are still missing.

    Raises:
        InfeasibleError: If the overlap contract cannot be met.
        UsageError: If the folder holds another data set.
        DataError: If it holds a damaged journal.
        MobjError: If another run is writing to it, or it cannot be written to.
    """
    call_optional(plan.generator, "acceptance", np.random.default_rng(0), default={})
    run = run or in_processes(workers)
    make_folder(folder)
    with hold_lock(folder, shard_range):
        if (folder / MANIFEST).exists():
            return _repair(plan, Manifest.read(folder), folder, run, shard_range, on_progress)
        done = _resume(plan, folder)
        on_progress(sum(task.rows for task in tasks_of(plan, shard_range) if task.file in done))
        rest = (task for task in tasks_of(plan, shard_range) if task.file not in done)
        notes = call_optional(plan.generator, "notes", default=[])
        written = run(plan, rest, folder)
        with Journal(folder, shard_range, plan.identity, notes) as journal, closing(written):
            for finished in written:  # closed at once after an error or Ctrl-C, so that all work stops
                journal.append(asdict(finished))
                done[finished.record.file] = finished
                on_progress(finished.record.rows)
        return _finish(plan, folder, done)


def _finish(plan: Plan, folder: Path, done: Mapping[str, Finished]) -> Manifest | None:
    """Write the manifest, if the shards of all ranges are there."""
    total = sum(1 for _ in plan.tasks())
    with wait_to_finish(folder):
        if (folder / MANIFEST).exists():  # by another range, which has seen ours
            remove_journals(folder)
            return Manifest.read(folder)
        if len(done) < total:
            done = _resume(plan, folder)  # other ranges may have finished meanwhile
        if len(done) < total:
            return None
        manifest = plan.manifest(done)
        manifest.write(folder)
        remove_journals(folder)
        return manifest


def tasks_of(plan: Plan, shard_range: tuple[int, int]) -> Iterator[Task]:
    """Yield every n-th task from the i-th, for the range ``(i, n)``."""
    part, parts = shard_range
    return islice(plan.tasks(), part, None, parts)


def _resume(plan: Plan, folder: Path) -> dict[str, Finished]:
    """Return the shards that earlier runs finished; refuse a folder that holds something else."""
    stray = stray_shards(folder, {task.file for task in plan.tasks()})
    documents = read_journals(folder, plan.identity)
    if stray:
        raise UsageError(
            f"{folder} holds {stray[0]}, which is no part of this data set; choose another --out."
        )
    try:
        finished = [Finished.of(document) for document in documents]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{folder} holds a damaged journal (.progress*.jsonl) of an unfinished run ({type(error).__name__}: "
            f"{error}); delete it and run the same command again."
        ) from error
    return {part.record.file: part for part in finished if is_whole(folder, part.record)}


def _repair(
    plan: Plan,
    manifest: Manifest,
    folder: Path,
    run: Run,
    shard_range: tuple[int, int],
    on_progress: Progress,
) -> Manifest:
    """Write again what a finished data set has lost; the manifest says what must come out."""
    refuse_difference(folder, manifest.identity, plan.identity)
    records = {shard.file: shard for split in manifest.splits.values() for shard in split.shards}
    mine = list(tasks_of(plan, shard_range))
    damaged = [task for task in mine if not is_whole(folder, records[task.file])]
    on_progress(sum(task.rows for task in mine) - sum(task.rows for task in damaged))
    with closing(run(plan, damaged, folder)) as written:
        for finished in written:
            if finished.record != records[finished.record.file]:
                raise VerificationError(
                    f"{finished.record.file} came out with SHA-256 {finished.record.sha256[:12]}..., the manifest says "
                    f"{records[finished.record.file].sha256[:12]}...: the toolkit or a library changed "
                    f"(made with mobj {manifest.toolkit}, this is {__version__})."
                )
            on_progress(finished.record.rows)
    return manifest
