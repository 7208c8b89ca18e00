"""What makes a run resumable and alone: a lock, and a journal of finished shards.

A shard is renamed into place, then its line is appended to the journal. A run that is killed between the two
writes that one shard again. Each range of an array job has a lock and a journal of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from multiobj_data.errors import MobjError, UsageError
from multiobj_data.files import explain_os_errors, sha256_of
from multiobj_data.manifest import ShardRecord


@contextmanager
def hold_lock(folder: Path, shard_range: tuple[int, int]) -> Iterator[None]:
    """Hold the folder's lock (one a range); it is released when the process ends, however it ends.

    Raises:
        MobjError: If another run holds it.
    """
    from filelock import FileLock, Timeout

    path = folder / f".lock{_suffix(shard_range)}"
    lock = FileLock(path, timeout=0)
    with explain_os_errors(path):
        try:
            lock.acquire()
        except Timeout as error:
            raise MobjError(
                f"another mobj run is writing to {folder}; wait for it, or choose another --out."
            ) from error
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        lock.release()


class Journal:
    """Appends finished shards to ``.progress.jsonl``; its first line is the data set's identity."""

    def __init__(self, folder: Path, shard_range: tuple[int, int], identity: Mapping[str, Any]) -> None:
        self.path = folder / f".progress{_suffix(shard_range)}.jsonl"
        self.identity = identity

    def __enter__(self) -> Journal:
        with explain_os_errors(self.path):
            lines = _whole_lines(self.path) if self.path.exists() else []
            self.file = open(self.path, "w")  # closed in __exit__
        for document in [{"identity": self.identity}, *lines[1:]]:
            self.append(document)
        return self

    def append(self, document: Mapping[str, Any]) -> None:
        """Append one line and flush it to the disk."""
        with explain_os_errors(self.path):
            self.file.write(json.dumps(document) + "\n")
            self.file.flush()
            os.fsync(self.file.fileno())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # a full disk has been reported by `append`
            self.file.close()


def read_journals(folder: Path, identity: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the finished shards of every range.

    Raises:
        UsageError: If the folder holds the beginnings of another data set.
    """
    shards: list[dict[str, Any]] = []
    for path in sorted(folder.glob(".progress*.jsonl")):
        lines = _whole_lines(path)
        if lines:
            refuse_difference(folder, lines[0].get("identity", {}), identity)
            shards += lines[1:]
    return shards


def remove_journals(folder: Path) -> None:
    """Delete the journals of all ranges: the manifest has taken their place."""
    for path in folder.glob(".progress*.jsonl"):
        path.unlink()
    for path in folder.glob(".*.tmp-*"):  # of runs that were killed
        path.unlink()


def refuse_difference(folder: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raise ``UsageError``, naming the first setting that differs, unless both are the same data set."""
    there, here = json.loads(json.dumps(there)), json.loads(json.dumps(here))
    flat_there, flat_here = _flatten(there), _flatten(here)
    for name in [*flat_here, *flat_there]:
        if flat_there.get(name) != flat_here.get(name):
            raise UsageError(
                f"{folder} holds another data set: {name} is {flat_there.get(name)!r} there, {flat_here.get(name)!r} "
                "in this command. Choose another --out, or delete the folder."
            )


def is_whole(folder: Path, record: ShardRecord) -> bool:
    """Return whether a shard is there with the recorded bytes."""
    path = folder / record.file
    return path.is_file() and sha256_of(path) == record.sha256


def stray_shards(folder: Path, expected: set[str]) -> list[str]:
    """Return the names of HDF5 files in the folder that are not expected."""
    return sorted(path.name for path in folder.glob("*.h5") if path.name not in expected)


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """Parse a journal; a last line torn by a crash is left out."""
    lines = []
    for text in path.read_text(errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            break
        if not isinstance(line, dict):
            break
        lines.append(line)
    return lines


def _flatten(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _suffix(shard_range: tuple[int, int]) -> str:
    part, parts = shard_range
    return f"-{part}-of-{parts}" if parts > 1 else ""
