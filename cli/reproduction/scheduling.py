"""Cells one after the other in this process, or several side by side in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from cli.reproduction.running import Tell, Work, run_cell
from multiobj_data.errors import MobjError

Ended = Callable[[Work, str | None], None]
"""Is told of a cell that ended, with the reason if it failed."""

_GRACE = 60.0  # seconds that an interrupted process has for its checkpoint


def run_here(works: Sequence[Work], tell: Callable[[Work], Tell], ended: Ended) -> None:
    """Run cells in this process; one that fails does not keep the others."""
    for work in works:
        ended(work, _outcome(work, tell(work)))


def _outcome(work: Work, tell: Tell) -> str | None:
    """Run a cell; return why it failed, if it did."""
    try:
        run_cell(work, tell)
    except MobjError as error:
        return str(error)
    except Exception as error:  # a bug, or out of memory: the other cells go on
        if os.environ.get("MOBJ_DEBUG"):
            traceback.print_exc()
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return None


def run_in_processes(works: Sequence[Work], jobs: int, tell: Callable[[Work], Tell], ended: Ended) -> None:
    """Run up to ``jobs`` cells at a time, each in a process of its own, which ends with this one.

    Raises:
        KeyboardInterrupt: On Ctrl-C; the cells in training have left checkpoints.
    """
    waiting = deque(works)
    running: dict[Connection, _Child] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                child = _Child(waiting.popleft())
                running[child.connection] = child
            for ready in wait(list(running)):
                child = running[ready]  # type: ignore[index]
                if child.listen(tell(child.work)):
                    del running[child.connection]
                    ended(child.work, child.failure)
    finally:
        _end(list(running.values()))


class _Child:
    """A process with one cell."""

    def __init__(self, work: Work) -> None:
        context = multiprocessing.get_context("spawn")
        self.work, self.failure = work, "its process was killed (out of memory?)"
        self.connection, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=_work, args=(work, theirs), daemon=True)
        self.process.start()
        theirs.close()  # so that the end of the process is the end of the pipe

    def listen(self, tell: Tell) -> bool:
        """Take one message; return whether the process is done."""
        try:
            kind, *content = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            return True
        if kind == "progress":
            tell(*content)
        else:
            (self.failure,) = content
        return False


def _end(children: Sequence[_Child]) -> None:
    for child in children:
        child.process.terminate()  # SIGTERM: training saves first
    for child in children:
        child.process.join(_GRACE)
        child.process.kill()


def _work(work: Work, connection: Connection) -> None:
    """Run a cell in this process, and say so through the connection."""
    from cli.console import start_logging

    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # the terminal sends it to all: the parent decides, by SIGTERM
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    start_logging()

    def send(*message: Any) -> None:
        with suppress(OSError):  # the parent has gone: training is about to be told to stop
            connection.send(message)

    with suppress(KeyboardInterrupt):
        send("ended", _outcome(work, lambda steps, note: send("progress", steps, note)))


def _leave_with_parent() -> None:
    parent: Any = multiprocessing.parent_process()
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)  # training saves first; whatever else is done again
