"""From a plan to a folder of shards: resumable, repairable, the same bytes however it is run."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np

from multiobj_data.errors import MobjError, UsageError, VerificationError
from multiobj_data.files import make_folder
from multiobj_data.generators.base import call_optional
from multiobj_data.journal import (
    Journal,
    hold_lock,
    is_whole,
    read_journals,
    refuse_difference,
    remove_journals,
    stray_shards,
)
from multiobj_data.manifest import MANIFEST, Manifest, ShardRecord
from multiobj_data.plan import Finished, Plan, Task
from multiobj_data.version import __version__

Progress = Callable[[int], None]
"""Called with the number of scenes just written."""


def generate(
    plan: Plan,
    folder: Path,
    *,
    workers: int = 1,
    shard_range: tuple[int, int] = (0, 1),
    on_progress: Progress = lambda scenes: None,
) -> Manifest | None:
    """Write a data set, or the rest of it if an earlier run was interrupted.

    Args:
        plan: What to generate.
        folder: Where; created if need be.
        workers: Processes.
        shard_range: ``(i, n)``: only every n-th shard from the i-th, for array jobs into one folder.
        on_progress: Called after each shard.

    Returns:
        The manifest, or ``None`` if shards of other ranges are still missing.

    Raises:
        InfeasibleError: If the overlap contract cannot be met.
        UsageError: If the folder holds another data set or another run is writing to it.
    """
    call_optional(plan.generator, "acceptance", np.random.default_rng(0), default={})
    make_folder(folder)
    with hold_lock(folder, shard_range):
        if (folder / MANIFEST).exists():
            return _repair(plan, Manifest.read(folder), folder, workers, on_progress)
        done = _resume(plan, folder)
        mine = [task for number, task in enumerate(plan.tasks()) if number % shard_range[1] == shard_range[0]]
        on_progress(sum(task.rows for task in mine if task.file in done))
        with Journal(folder, shard_range, plan.identity) as journal:
            for finished in _run(plan, [task for task in mine if task.file not in done], folder, workers):
                journal.append(asdict(finished))
                done[finished.record.file] = finished
                on_progress(finished.record.rows)
        if len(done) < len(list(plan.tasks())):
            done = _resume(plan, folder)  # other ranges may have finished meanwhile
        if len(done) < len(list(plan.tasks())):
            return None
        manifest = plan.manifest(done)
        manifest.write(folder)
        remove_journals(folder)
        return manifest


def _resume(plan: Plan, folder: Path) -> dict[str, Finished]:
    """Return the shards that earlier runs finished; refuse a folder that holds something else."""
    stray = stray_shards(folder, {task.file for task in plan.tasks()})
    documents = read_journals(folder, plan.identity)
    if stray:
        raise UsageError(
            f"{folder} holds {stray[0]}, which is no part of this data set; choose another --out."
        )
    finished = [
        Finished(ShardRecord(**document["record"]), document["split"], document["attempts"])
        for document in documents
    ]
    return {part.record.file: part for part in finished if is_whole(folder, part.record)}


def _repair(plan: Plan, manifest: Manifest, folder: Path, workers: int, on_progress: Progress) -> Manifest:
    """Write again what a finished data set has lost; the manifest says what must come out."""
    refuse_difference(folder, manifest.identity, plan.identity)
    records = {shard.file: shard for split in manifest.splits.values() for shard in split.shards}
    damaged = [task for task in plan.tasks() if not is_whole(folder, records[task.file])]
    on_progress(sum(shard.rows for shard in records.values()) - sum(task.rows for task in damaged))
    for finished in _run(plan, damaged, folder, workers):
        if finished.record != records[finished.record.file]:
            raise VerificationError(
                f"{finished.record.file} came out with SHA-256 {finished.record.sha256[:12]}..., the manifest says "
                f"{records[finished.record.file].sha256[:12]}...: the toolkit or a library changed "
                f"(made with mobj {manifest.toolkit}, this is {__version__})."
            )
        on_progress(finished.record.rows)
    return manifest


def _run(plan: Plan, tasks: list[Task], folder: Path, workers: int) -> Iterator[Finished]:
    """Write shards in this process, or in several; yield each as it is finished."""
    if workers == 1 or len(tasks) < 2:
        for task in tasks:
            yield plan.write_shard(task, folder)
        return
    import joblib

    with joblib.parallel_config(backend="loky", n_jobs=min(workers, len(tasks)), inner_max_num_threads=1):
        pool = joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")
        try:
            yield from pool(joblib.delayed(_write_in_worker)(plan, task, folder) for task in tasks)
        except BrokenProcessPool as error:
            raise MobjError(
                "a worker process was killed (out of memory?); run the same command with fewer --workers, it continues "
                "where it stopped."
            ) from error


def _write_in_worker(plan: Plan, task: Task, folder: Path) -> Finished:
    _leave_with_parent(os.getppid())
    return plan.write_shard(task, folder)


@cache
def _leave_with_parent(parent: int) -> None:
    """End this worker soon after its parent was killed; it would wait for work for minutes otherwise."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
