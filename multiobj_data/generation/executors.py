"""Where shards are written: in this process, in several, or by a Dask cluster. Three ways, one call.

A task names scenes that depend on nothing but the plan, and a shard appears whole or not at all. So a task may be
run anywhere, twice, or again after its worker was killed: the bytes are the same.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import socket
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from functools import cache, lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

from multiobj_data.composition.memory import keep_freed_memory, keep_workers_that_grow
from multiobj_data.errors import DataError, MobjError, UsageError
from multiobj_data.files import explain_os_errors
from multiobj_data.generation.plan import Finished, Plan, Task
from multiobj_data.generators.base import call_optional
from multiobj_data.plugins import foreign_code
from multiobj_data.version import __version__

logger = logging.getLogger(__name__)

Run = Callable[[Plan, Iterable[Task], Path], Generator[Finished, None, None]]
"""Writes the tasks' shards into a folder and yields each as it is finished, in any order; closing it stops the work."""

CONNECT_SECONDS = 6.0
_LEAST_WAITING = 16  # tasks handed to a cluster that has no workers yet: an adaptive one starts some for them


# -- this machine


def in_processes(workers: int) -> Run:
    """Return a `Run` of this many processes; one means this process."""

    def run(plan: Plan, tasks: Iterable[Task], folder: Path) -> Generator[Finished, None, None]:
        tasks = iter(tasks)
        first = list(islice(tasks, workers))
        if len(first) < 2:
            for task in chain(first, tasks):
                yield plan.write_shard(task, folder)
            return
        import joblib

        with joblib.parallel_config(backend="loky", n_jobs=len(first), inner_max_num_threads=1):
            pool = joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")
            calls = (joblib.delayed(_write_in_process)(plan, task, folder) for task in chain(first, tasks))
            results = pool(calls)
            try:
                with killed_workers_explained():
                    for done in results:  # noqa: UP028 `yield from` would close them itself
                        yield done
            except GeneratorExit:
                # We were told to stop: joblib need not say that work was for nothing.
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    results.close()
                raise

    return run


@contextmanager
def killed_workers_explained() -> Iterator[None]:
    """Turn the loss of a process of a pool into one sentence."""
    try:
        yield
    except BrokenProcessPool as error:
        raise MobjError(
            "a worker process was killed (out of memory?); run the same command with fewer --workers, it continues "
            "where it stopped."
        ) from error


def _write_in_process(plan: Plan, task: Task, folder: Path) -> Finished:
    _leave_with_parent(os.getppid())
    keep_freed_memory()
    keep_workers_that_grow()
    return plan.write_shard(task, folder)


@cache
def _leave_with_parent(parent: int) -> None:
    """End this worker soon after its parent was killed; it would wait for work for minutes otherwise."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# -- a Dask cluster


@contextmanager
def on_cluster(address: str) -> Iterator[Run]:
    """Connect to a Dask scheduler and yield a `Run` whose shards are written by its workers.

    Every worker needs this toolkit in the same version, the generator's source files, and the folder itself under
    the same path. A worker that is killed loses nothing: Dask hands its task to another one, until a task has
    lost more workers than the scheduler's setting ``distributed.scheduler.allowed-failures``.

    Args:
        address: ``tcp://host:port`` (or ``tls://``, with the certificates of Dask's own configuration).

    Raises:
        UsageError: If this is no address.
        MobjError: If ``distributed`` is not installed, or no scheduler answers within about 10 s.
    """
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise MobjError("--scheduler needs Dask; type `pip install 'mobj[cluster]'`.") from error
    _check_scheduler(address)
    with _quiet_client():
        try:
            client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, TimeoutError) as error:
            raise _lost(address) from error
        try:
            yield _Cluster(client, address)
        finally:
            with suppress(OSError, TimeoutError):  # of a scheduler that is gone
                client.close()


@contextmanager
def _quiet_client() -> Iterator[None]:
    """Keep Dask's client from logging tracebacks: what goes wrong comes back as a sentence of ours."""
    log = logging.getLogger("distributed.client")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


def _check_scheduler(address: str) -> None:
    """Ask who is there, for a limited time: a client that meets another server would wait for ever."""
    from distributed.core import rpc
    from distributed.security import Security

    async def ask() -> Any:
        remote = rpc(address, connection_args=Security().get_connection_args("client"))
        try:
            return await remote.identity()
        finally:
            await remote.close_rpc()

    try:
        who = asyncio.run(asyncio.wait_for(ask(), CONNECT_SECONDS))
    except (ValueError, TypeError) as error:  # what Dask raises for texts that are no address
        raise UsageError(f"--scheduler: expected tcp://host:port, got {address!r} ({error}).") from error
    except Exception as error:  # every library below has errors of its own
        raise MobjError(
            f"no Dask scheduler answers at {address} within {CONNECT_SECONDS:.0f} s; start one with `dask scheduler`, "
            "it prints its address."
        ) from error
    if not isinstance(who, dict) or who.get("type") != "Scheduler":
        raise UsageError(
            f"--scheduler: {address} is a Dask worker; give the address that `dask scheduler` prints."
        )


@dataclass(frozen=True)
class _Cluster:
    """The `Run` of a connected Dask client."""

    client: Any
    address: str

    def __call__(self, plan: Plan, tasks: Iterable[Task], folder: Path) -> Generator[Finished, None, None]:
        tasks = iter(tasks)
        waiting: set[Future[Any]] = set()
        # `pure=False`: Dask must not answer with the result of an earlier run, whose file may be gone.
        executor = self.client.get_executor(pure=False)
        with _token_in(folder) as token:
            order = _Order.of(plan, folder, token)
            try:
                while True:
                    for task in islice(tasks, max(0, self._most_waiting() - len(waiting))):
                        waiting.add(executor.submit(pickle.loads, order.call(task)))
                    if not waiting:
                        return
                    finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in finished:
                        yield self._result(future)
            finally:
                with suppress(OSError, TimeoutError):
                    executor.shutdown(wait=False)  # cancels what is outstanding

    def _most_waiting(self) -> int:
        """Enough tasks to keep every worker busy; not all of them, so that memory stays what it is."""
        try:
            threads = self.client.nthreads()
        except (OSError, TimeoutError, ValueError) as error:
            raise _lost(self.address) from error
        if not threads:
            logger.warning("the cluster at %s has no workers; waiting for some.", self.address)
        return max(_LEAST_WAITING, 2 * sum(threads.values()))

    def _result(self, future: Future[Any]) -> Finished:
        from distributed import KilledWorker

        try:
            return future.result()
        except MobjError:
            raise
        except KilledWorker as error:
            raise MobjError(
                f"{error.allowed_failures + 1} workers of the cluster were killed while they wrote the same shard (out "
                "of memory?); run the same command again, it continues where it stopped."
            ) from error
        except CancelledError as error:
            raise _lost(self.address) from error
        except (ModuleNotFoundError, AttributeError) as error:  # the call could not even be unpickled
            raise MobjError(
                f"a worker of the cluster at {self.address} lacks mobj {__version__} ({error}); install the same "
                "version in the environment of every worker."
            ) from error
        except Exception as error:
            raise MobjError(
                f"a worker of the cluster at {self.address} failed: {type(error).__name__}: {error}"
            ) from error


def _lost(address: str) -> MobjError:
    return MobjError(
        f"the Dask scheduler at {address} went away; start it, and run the same command again: it continues where it "
        "stopped."
    )


@contextmanager
def _token_in(folder: Path) -> Iterator[str]:
    """Put a file into the folder by which a worker knows that its folder of that name is the same one."""
    path = folder / f".shared.tmp-{uuid.uuid4().hex}"  # as a temporary file, it is tidied up after a crash
    with explain_os_errors(path):
        path.touch()
    try:
        yield path.name
    finally:
        with suppress(OSError):
            path.unlink()


@dataclass(frozen=True)
class _Order:
    """What all tasks of a run share, as one picklable value that a worker unpacks once."""

    plan: bytes
    sources: tuple[tuple[str, str], ...]
    folder: str
    token: str
    toolkit: str

    @classmethod
    def of(cls, plan: Plan, folder: Path, token: str) -> _Order:
        import cloudpickle  # comes with Dask; also takes generators of the script that is being run

        sources = tuple(sorted(plan.sources.items()))
        return cls(cloudpickle.dumps(plan), sources, str(folder.absolute()), token, __version__)

    def call(self, task: Task) -> bytes:
        """Return a pickle whose loading writes the shard and gives its `Finished`.

        A worker (or scheduler) without the toolkit drops a function of ours in silence; `pickle.loads` it has,
        and what fails inside is the task's own error, which comes back.
        """
        return pickle.dumps(_Call((astuple(self), astuple(task))))


@dataclass(frozen=True)
class _Call:
    arguments: tuple[Any, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return _write_on_worker, self.arguments


_one_at_a_time = threading.Lock()  # generators need not be safe for threads, nor is HDF5's driver in memory


def _write_on_worker(order: tuple[Any, ...], task: tuple[Any, ...]) -> Finished:
    keep_freed_memory()
    with _one_at_a_time:
        try:
            plan = _accept(order)
            with foreign_code(f"the generator {plan.name}"):
                return plan.write_shard(Task(*task), Path(order[2]))
        except MobjError as error:
            raise type(error)(f"worker on {socket.gethostname()}: {error}") from error


@lru_cache(maxsize=1)
def _accept(order: tuple[Any, ...]) -> Plan:
    """Unpack the plan, once a run and worker, unless this worker would write something else or elsewhere."""
    packed, sources, folder, token, toolkit = order
    if toolkit != __version__:
        raise MobjError(f"it has mobj {__version__}, expected {toolkit}; install that version there.")
    if not (Path(folder) / token).exists():
        raise DataError(
            f"it does not see {folder} of the machine that runs this command; give an --out on a file system that all "
            "workers share under the same path."
        )
    plan: Plan = _unpack(packed)
    with foreign_code(f"the generator {plan.name}"):
        there = call_optional(plan.generator, "sources", default={})
    for name, sha256 in sources:
        if there.get(name) != sha256:
            raise DataError(
                f"source {name} differs: expected SHA-256 {sha256[:12]}..., it has {there.get(name, 'none')[:12]}...; "
                "give all workers the same files."
            )
    return plan


def _unpack(packed: bytes) -> Any:
    try:
        return pickle.loads(packed)
    except (ImportError, AttributeError) as error:
        raise MobjError(f"it cannot import the generator ({error}); install that package there.") from error
