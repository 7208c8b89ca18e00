"""A real Dask cluster of worker processes: killed, lacking things, or not there at all."""

import os
import signal
import socket
import sys
import threading
import time
import warnings
from contextlib import nullcontext

import joblib
import pytest

from multiobj_data.errors import DataError, MobjError, UsageError
from multiobj_data.generation import executors
from multiobj_data.generation.executors import in_processes, on_cluster
from multiobj_data.generation.plan import Plan
from multiobj_data.generation.running import generate, tasks_of
from multiobj_data.generation.verification import verify
from multiobj_data.shards.manifest import MANIFEST, Manifest

distributed = pytest.importorskip("distributed")

WAITING = '''
import os, time
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from multiobj_data.configuration import UNRECORDED
from multiobj_data.generators.multi_mnist import MultiMNIST


@dataclass(frozen=True)
class Waiting:
    """Writes the process's id and waits, at the first block in another process, until it may go on."""

    id: ClassVar[str] = "waiting-v1"
    signals: str = field(default="", metadata=UNRECORDED)
    home: int = field(default=0, metadata=UNRECORDED)
    secret: str = field(default="", metadata=UNRECORDED)  # file that it needs

    def sources(self):
        return {"secret": Path(self.secret).read_text()} if self.secret else {}

    def scenes(self, rng, n, *, split, first):
        signals = Path(self.signals)
        while os.getpid() != self.home and first == 0 and not (signals / "go").exists():
            (signals / f"{os.getpid()}.pid").touch()
            time.sleep(0.02)
        return MultiMNIST(counts="1", scale="1", digits="bundled").scenes(rng, n, split=split, first=first)
'''


@pytest.fixture(scope="module")
def waiting(tmp_path_factory):
    """The class Waiting, importable here and in the workers."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "waiting_generator.py").write_text(WAITING)
    sys.path.insert(0, str(folder))
    from waiting_generator import Waiting

    yield Waiting
    sys.path.remove(str(folder))
    del sys.modules["waiting_generator"]


@pytest.fixture(scope="module")
def cluster(waiting):
    """Two worker processes with two threads each."""
    import logging

    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=2,
        processes=True,
        dashboard_address=None,
        host="127.0.0.1",
        silence_logs=logging.CRITICAL,
    ) as cluster:
        yield cluster


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_cluster_writes_the_same_bytes_though_a_worker_is_killed_at_its_task(waiting, cluster, tmp_path):
    splits = {"train": 1500, "test": 500}
    signals = tmp_path / "signals"
    signals.mkdir()
    plan = Plan("waiting", waiting(str(signals), os.getpid()), 3, splits, shard_rows=128)
    generate(plan, tmp_path / "local")
    killed = []

    def kill():
        wait_for(lambda: list(signals.glob("*.pid")))
        victim = int(next(signals.glob("*.pid")).stem)
        os.kill(victim, signal.SIGKILL)
        killed.append(victim)
        (signals / "go").touch()

    killer = threading.Thread(target=kill)
    killer.start()
    with on_cluster(cluster.scheduler_address) as run:
        generate(plan, tmp_path / "cluster", run=run)
    killer.join()
    assert killed
    assert killed[0] != os.getpid()
    assert files_of(tmp_path / "cluster") == files_of(tmp_path / "local")


def test_on_ctrl_c_outstanding_tasks_are_cancelled_and_the_rest_is_written_later(waiting, cluster, tmp_path):
    signals = tmp_path / "signals"
    signals.mkdir()
    plan = Plan("waiting", waiting(str(signals), os.getpid()), 3, {"train": 10240}, shard_rows=256)

    def interrupt(scenes):
        if scenes and list(signals.glob("*.pid")):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), on_cluster(cluster.scheduler_address) as run:
        generate(plan, tmp_path / "d", run=run, on_progress=interrupt)
    (signals / "go").touch()
    wait_for(lambda: not cluster.scheduler.tasks)
    written = len(list((tmp_path / "d").glob("*.h5")))
    assert 0 < written < 40
    assert not (tmp_path / "d" / MANIFEST).exists()
    with on_cluster(cluster.scheduler_address) as run:
        manifest = generate(plan, tmp_path / "d", run=run)
    assert verify(tmp_path / "d", manifest) == []


def test_a_cluster_repairs_a_shard(waiting, cluster, small_plan, small_dataset, tmp_path):
    with on_cluster(cluster.scheduler_address) as run:
        generate(small_plan, tmp_path, run=run)
        next(tmp_path.glob("*.h5")).unlink()
        generate(small_plan, tmp_path, run=run)
    assert files_of(tmp_path) == files_of(small_dataset)


@pytest.mark.parametrize(
    ("lacking", "kind", "sentence"),
    [
        ("toolkit", MobjError, "lacks mobj .*install the same version in the environment of every worker"),
        (
            "version",
            MobjError,
            "worker on .*: it has mobj .*, expected 0.0.0.other; install that version there",
        ),
        (
            "folder",
            DataError,
            "worker on .*: it does not see .* give an --out on a file system that all workers share",
        ),
        ("sources", DataError, "worker on .*: source secret differs"),
        (
            "plugin",
            MobjError,
            "worker on .*: it cannot import the generator .*waiting_generator",
        ),
    ],
)
def test_what_a_worker_lacks_is_said_in_one_sentence(
    waiting, cluster, tmp_path, monkeypatch, lacking, kind, sentence
):
    (tmp_path / "secret").write_text("here")
    generator = waiting(str(tmp_path), secret=str(tmp_path / "secret"))
    (tmp_path / "go").touch()
    plan = Plan("waiting", generator, 3, {"train": 300}, shard_rows=128)
    client = distributed.Client(cluster, set_as_default=False)
    if lacking == "version":
        monkeypatch.setattr(executors, "__version__", "0.0.0.other")
    elif lacking == "folder":  # another machine's disk: there is a folder of this name, but not this one
        monkeypatch.setattr(executors, "_token_in", lambda folder: nullcontext(".shared.tmp-elsewhere"))
    elif lacking == "sources":
        assert plan.sources == {"secret": "here"}
        (tmp_path / "secret").write_text("there")
    else:
        client.run(
            _hide, {"toolkit": "multiobj_data.generation.executors", "plugin": "waiting_generator"}[lacking]
        )
    try:
        with on_cluster(cluster.scheduler_address) as run, pytest.raises(kind, match=sentence):
            generate(plan, tmp_path / "d", run=run)
    finally:
        client.run(_show)
        client.close()
    assert not list((tmp_path / "d").glob("*.h5"))


def _hide(module):
    sys.modules[module] = None  # what Python takes for "cannot be imported"


def _show():
    for module in [name for name, loaded in sys.modules.items() if loaded is None]:
        del sys.modules[module]


def test_where_nobody_answers_there_is_one_sentence_in_time(monkeypatch):
    monkeypatch.setattr(executors, "CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, never speaks
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(MobjError, match=f"no Dask scheduler answers at {address}"), on_cluster(address):
            pass
    with pytest.raises(MobjError, match="no Dask scheduler answers"), on_cluster(address):
        pass


@pytest.mark.parametrize("text", ["nonsense", "foo://x:1", "", "tcp://", "tcp://x:port"])
def test_what_is_no_address_is_a_usage_error(text):
    with pytest.raises(UsageError, match="expected tcp://host:port"), on_cluster(text):
        pass


def test_a_worker_is_no_scheduler(cluster):
    worker = next(iter(cluster.scheduler.workers))
    with pytest.raises(UsageError, match="is a Dask worker"), on_cluster(worker):
        pass


def test_tasks_are_taken_one_after_another(small_plan, tmp_path):
    """Memory must not grow with the number of shards: no way to run takes all tasks at once."""
    taken = []

    def tasks():
        for task in tasks_of(small_plan, (0, 1)):
            taken.append(task)
            yield task

    run = in_processes(1)(small_plan, tasks(), tmp_path)
    next(run)
    assert len(taken) == 1
    run.close()


def test_a_range_of_a_finished_set_reports_and_repairs_its_own_shards(small_plan, small_dataset, tmp_path):
    generate(small_plan, tmp_path)
    mine = list(tasks_of(small_plan, (1, 2)))
    for path in tmp_path.glob("*.h5"):
        path.unlink()
    scenes = []
    manifest = generate(small_plan, tmp_path, shard_range=(1, 2), on_progress=scenes.append)
    assert sum(scenes) == sum(task.rows for task in mine)
    assert {path.name for path in tmp_path.glob("*.h5")} == {task.file for task in mine}
    generate(small_plan, tmp_path, shard_range=(0, 2))
    assert files_of(tmp_path) == files_of(small_dataset)
    assert manifest == Manifest.read(tmp_path)


def test_workers_may_grow_by_what_they_keep():
    from joblib.externals.loky import process_executor

    assert isinstance(
        process_executor._USE_PSUTIL, bool
    )  # what loky's loop asks before it ends a grown worker
    flag = joblib.Parallel(n_jobs=2)(joblib.delayed(_flag_after_a_shard)() for _ in range(2))
    assert flag == [False, False]


def _flag_after_a_shard():
    from joblib.externals.loky import process_executor

    from multiobj_data.composition.memory import keep_workers_that_grow

    keep_workers_that_grow()
    return process_executor._USE_PSUTIL


def test_stopping_processes_in_the_middle_says_nothing(tmp_path):
    plan = Plan.create("multi-dsprites", {"canvas": 32}, splits={"train": 20_000}, shard_rows=500)
    finished = in_processes(2)(plan, plan.tasks(), tmp_path)
    next(finished)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        finished.close()
    assert not said
