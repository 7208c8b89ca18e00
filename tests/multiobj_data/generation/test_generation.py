import errno
import json
import os
import shutil
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from multiobj_data.configuration import UNRECORDED
from multiobj_data.errors import DataError, MobjError, UsageError, VerificationError
from multiobj_data.generation import plan as plan_module
from multiobj_data.generation import running
from multiobj_data.generation.plan import Plan, draw_blocks, plan_of
from multiobj_data.generation.running import generate
from multiobj_data.generation.verification import differences, regenerate, verify
from multiobj_data.generators.multi_mnist import MultiMNIST
from multiobj_data.loading import open_dataset
from multiobj_data.shards.journal import hold_lock
from multiobj_data.shards.manifest import Manifest
from multiobj_data.version import __version__


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def copy(small_dataset, tmp_path):
    """A copy of the small data set that a test may damage."""
    return shutil.copytree(small_dataset, tmp_path / "copy")


def test_any_number_of_workers_gives_the_same_bytes(small_plan, small_dataset, tmp_path):
    generate(small_plan, tmp_path, workers=2)
    assert files_of(tmp_path) == files_of(small_dataset)


def test_ranges_of_an_array_job_give_the_same_bytes(small_plan, small_dataset, tmp_path):
    assert generate(small_plan, tmp_path, shard_range=(1, 3)) is None
    assert generate(small_plan, tmp_path, shard_range=(0, 3)) is None
    assert generate(small_plan, tmp_path, shard_range=(2, 3)) is not None
    assert files_of(tmp_path) == files_of(small_dataset)


def test_shard_size_does_not_change_the_scenes(small_plan, small_dataset, tmp_path):
    other = Plan(small_plan.name, small_plan.generator, small_plan.seed, small_plan.splits, shard_rows=190)
    generate(other, tmp_path)
    for split in ("train", "test"):
        ours, theirs = open_dataset(tmp_path, split), open_dataset(small_dataset, split)
        everything = np.arange(len(ours))
        assert differences(ours.scenes(everything), theirs.scenes(everything)) == []


@pytest.mark.parametrize("shards", [0, 1, 3])
def test_an_interrupted_run_is_finished_by_the_same_command(
    small_plan, small_dataset, tmp_path, monkeypatch, shards
):
    write = Plan.write_shard
    written = []

    def interrupted(self, task, folder):
        if len(written) == shards:
            (folder / f".{task.file}.tmp-123").write_bytes(b"half")
            raise KeyboardInterrupt
        written.append(task.file)
        return write(self, task, folder)

    monkeypatch.setattr(Plan, "write_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate(small_plan, tmp_path)
    assert not (tmp_path / "dataset.json").exists()
    with pytest.raises(DataError, match="unfinished data set"):
        open_dataset(tmp_path, "train")
    again = []
    monkeypatch.setattr(
        Plan, "write_shard", lambda self, task, folder: again.append(task.file) or write(self, task, folder)
    )
    generate(small_plan, tmp_path)
    assert not set(again) & set(written)
    assert files_of(tmp_path) == files_of(small_dataset)


def test_a_shard_damaged_before_the_run_is_resumed_is_written_again(small_plan, small_dataset, tmp_path):
    generate(small_plan, tmp_path, shard_range=(0, 2))
    shard = next(tmp_path.glob("*.h5"))
    shard.write_bytes(shard.read_bytes()[:-100])
    journal = next(tmp_path.glob(".progress*"))
    journal.write_text(journal.read_text() + '{"torn')
    generate(small_plan, tmp_path)
    assert files_of(tmp_path) == files_of(small_dataset)


def test_a_folder_of_another_configuration_is_refused(small_plan, copy):
    before = files_of(copy)
    other = Plan.create("multi-mnist", {"digits": "bundled"}, seed=5, splits={"train": 700})
    with pytest.raises(
        UsageError, match="another data set: config.counts is '2,4' there, '0-2' in this command"
    ):
        generate(other, copy)
    (copy / "dataset.json").unlink()
    with pytest.raises(UsageError, match="no part of this data set|another data set"):
        generate(other, copy)
    before.pop("dataset.json")
    assert files_of(copy) == before


def test_an_unfinished_run_of_another_seed_is_refused(small_plan, tmp_path):
    generate(small_plan, tmp_path, shard_range=(0, 2))
    other = Plan(small_plan.name, small_plan.generator, 6, small_plan.splits, small_plan.shard_rows)
    with pytest.raises(UsageError, match="seed is 5 there, 6 in this command"):
        generate(other, tmp_path)


def test_an_unfinished_run_of_another_version_is_refused(small_plan, tmp_path):
    generate(small_plan, tmp_path, shard_range=(0, 2))
    journal = next(tmp_path.glob(".progress*"))
    journal.write_text(journal.read_text().replace(f'"toolkit": "{__version__}"', '"toolkit": "0.0.1"'))
    with pytest.raises(UsageError, match=r"was begun by mobj 0\.0\.1, this is .*delete the folder"):
        generate(small_plan, tmp_path, shard_range=(1, 2))


def test_a_journal_of_other_lines_is_named(small_plan, tmp_path):
    generate(small_plan, tmp_path, shard_range=(0, 2))
    journal = next(tmp_path.glob(".progress*"))
    journal.write_text(journal.read_text() + "{}\n")
    with pytest.raises(DataError, match="damaged journal"):
        generate(small_plan, tmp_path, shard_range=(1, 2))


def test_ranges_that_finish_together_make_one_manifest(small_plan, small_dataset, tmp_path, monkeypatch):
    finish, write, ready = running._finish, Manifest.write, []

    def slowly(manifest, folder):
        write(manifest, folder)
        time.sleep(0.2)

    with monkeypatch.context() as before:
        before.setattr(running, "_finish", lambda *arguments: ready.append(arguments))
        for part in range(2):
            generate(small_plan, tmp_path, shard_range=(part, 2))
    monkeypatch.setattr(Manifest, "write", slowly)
    with ThreadPoolExecutor(2) as pool:
        manifests = list(pool.map(lambda arguments: finish(*arguments), ready))
    assert manifests[0] == manifests[1] is not None
    assert files_of(tmp_path) == files_of(small_dataset)


def test_what_the_manifest_cannot_hold_is_refused_before_anything_is_drawn():
    with pytest.raises(UsageError, match="expected settings that JSON can hold"):
        Plan.create(f"{__name__}:Unbounded", {}, splits={"train": 1})


@dataclass(frozen=True)
class Unbounded:
    reach: float = float("inf")

    id = "unbounded"

    def scenes(self, rng, n, *, split="train", first=0):
        raise AssertionError


def test_two_runs_into_one_folder_do_not_mix(small_plan, tmp_path):
    with hold_lock(tmp_path, (0, 1)), pytest.raises(MobjError, match="another mobj run is writing"):
        generate(small_plan, tmp_path)
    generate(small_plan, tmp_path)  # the lock is free again


def test_a_full_disk_leaves_nothing_half_written(small_plan, small_dataset, tmp_path, monkeypatch):
    fsync = os.fsync
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MobjError, match="no space left on the disk"):
        generate(small_plan, tmp_path)
    assert not list(tmp_path.glob(".*.tmp-*"))
    monkeypatch.undo()
    generate(small_plan, tmp_path)
    assert files_of(tmp_path) == files_of(small_dataset)


@dataclass(frozen=True)
class Fatal:
    """A generator that kills the process it runs in, unless that is the one that made it."""

    id = "fatal-v1"
    home: int = field(default_factory=os.getpid, metadata=UNRECORDED)

    def scenes(self, rng, n, *, split, first):
        if os.getpid() != self.home:
            os.kill(os.getpid(), signal.SIGKILL)
        return MultiMNIST(counts="1", digits="bundled").scenes(rng, n, split=split, first=first)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_killed_worker_is_explained_and_the_run_can_go_on(tmp_path):
    plan = Plan("fatal", Fatal(), 0, {"train": 600}, shard_rows=256)
    with pytest.raises(MobjError, match="a worker process was killed"):
        generate(plan, tmp_path, workers=2)
    assert generate(plan, tmp_path, workers=1) is not None


def test_a_file_in_the_way_is_named(small_plan, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MobjError, match="a file is in the way"):
        generate(small_plan, tmp_path / "file")
    with pytest.raises(MobjError, match="a file is in the way"):
        generate(small_plan, tmp_path / "file" / "deeper")


def test_any_flipped_byte_is_found_and_repaired(copy, small_plan, small_dataset):
    rng = np.random.default_rng(0)
    for name in sorted(path.name for path in copy.glob("*.h5")):
        content = bytearray((copy / name).read_bytes())
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        (copy / name).write_bytes(content)
        problems = verify(copy, Manifest.read(copy))
        assert [(p.kind, p.file) for p in problems] == [("changed", name)]
        others = {path.name: path.stat().st_mtime_ns for path in copy.glob("*.h5") if path.name != name}
        generate(plan_of(Manifest.read(copy)), copy)
        assert files_of(copy) == files_of(small_dataset)
        assert others == {
            path.name: path.stat().st_mtime_ns for path in copy.glob("*.h5") if path.name != name
        }


def test_a_changed_manifest_is_found(copy):
    path = copy / "dataset.json"
    path.write_text(path.read_text().replace('"seed": 5', '"seed": 6'))
    with pytest.raises(VerificationError, match="was changed after it was written"):
        Manifest.read(copy)
    path.write_text("{")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        Manifest.read(copy)
    path.write_text(json.dumps({"schema_version": 99}))
    with pytest.raises(DataError, match="no manifest of version 1"):
        Manifest.read(copy)


def test_missing_and_foreign_shards_are_found(copy):
    missing = sorted(copy.glob("*.h5"))[1]
    missing.unlink()
    (copy / "train-00009-of-00010.h5").write_bytes(b"x")
    problems = {(p.kind, p.file) for p in verify(copy, Manifest.read(copy))}
    assert problems == {("missing", missing.name), ("foreign", "train-00009-of-00010.h5")}


def test_scenes_drawn_anew_equal_the_stored_ones_and_expose_others(copy, small_plan):
    manifest = Manifest.read(copy)
    rng = np.random.default_rng(0)
    compared, problems = regenerate(copy, manifest, small_plan, 1.0, rng)
    assert (compared, problems) == (1000, [])
    other = Plan(small_plan.name, small_plan.generator, 6, small_plan.splits, small_plan.shard_rows)
    _, problems = regenerate(copy, manifest, other, 0.01, rng)
    assert problems
    assert all(problem.kind == "differs" for problem in problems)


def test_a_toolkit_that_draws_otherwise_cannot_repair(copy, monkeypatch):
    next(copy.glob("*.h5")).unlink()
    monkeypatch.setattr(
        plan_module, "draw_blocks", lambda *args: [scenes[::-1] for scenes in draw_blocks(*args)]
    )
    with pytest.raises(VerificationError, match="the toolkit or a library changed"):
        generate(plan_of(Manifest.read(copy)), copy)


def test_other_source_files_are_refused(copy, monkeypatch):
    from multiobj_data.generators.multi_mnist import MultiMNIST

    monkeypatch.setattr(MultiMNIST, "sources", lambda self: {"sklearn.datasets.load_digits": "0" * 64})
    with pytest.raises(DataError, match="source sklearn.datasets.load_digits differs"):
        plan_of(Manifest.read(copy))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"splits": {"train": 2.5}}, r"splits\['train'\]: expected a whole number, got 2.5"),
        ({"splits": {"train": True}}, "expected a whole number, got True"),
        ({"splits": {"tr/ain": 3}}, "expected names of letters, .*got 'tr/ain'"),
        ({"splits": {"": 3}}, "expected names"),
        ({"splits": {"../x": 3}}, "expected names"),
        ({"splits": {1: 3}}, "expected names .*got 1"),
        ({"splits": {"train": 3}, "seed": "a"}, "seed: expected a whole number, got 'a'"),
        ({"splits": {"train": 3}, "shard_rows": 1.5}, "shard_rows: expected a whole number, got 1.5"),
        ({"splits": {"train": 3}, "shard_rows": 0}, "must not be negative|at least"),
    ],
)
def test_a_plan_is_made_of_names_and_whole_numbers(arguments, message):
    with pytest.raises(UsageError, match=message):
        Plan.create("sprites", {}, **arguments)


def test_numbers_of_numpy_make_the_same_plan():
    made = Plan.create(
        "sprites", {}, seed=np.int64(3), splits={"test-ood": np.int32(5)}, shard_rows=np.uint8(9)
    )
    assert json.dumps(made.identity) == json.dumps(
        Plan.create("sprites", {}, seed=3, splits={"test-ood": 5}, shard_rows=9).identity
    )


def test_shards_that_are_shorter_than_the_manifest_says_are_found(copy):
    manifest = Manifest.read(copy)
    record = manifest.splits["test"].shards[1]
    manifest.splits["test"].shards[1] = replace(record, rows=record.rows + 1)
    (problem,) = verify(copy, manifest)
    assert (problem.kind, problem.file, problem.repairable) == ("short", record.file, False)
    assert "holds 44 scenes, the manifest says 45" in problem.detail


def test_nothing_to_generate_is_a_usage_error():
    with pytest.raises(UsageError, match="nothing to generate"):
        Plan.create("multi-mnist", {"digits": "bundled"}, splits={"train": 0})


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_a_lock_file_that_cannot_be_opened_is_named(tmp_path, monkeypatch):
    (tmp_path / ".lock").touch()
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / ".lock" and allowed(path, mode))
    monkeypatch.setattr("filelock.FileLock.acquire", refuse_permission)
    with pytest.raises(MobjError, match=r"\.lock is a file of another user, or read-only.*delete it"):
        hold_lock(tmp_path, (0, 1)).__enter__()


def refuse_permission(self):
    raise PermissionError(errno.EACCES, "Permission denied")
