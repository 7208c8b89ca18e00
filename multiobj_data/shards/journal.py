"""What makes a run resumable and alone: a lock, and a journal of finished shards.

A journal's first line says which data set it is; each other line is a `generation.plan.Finished`. A shard is
renamed into place, then its line is appended. A run that is killed between the two writes that one shard again.
Each range of an array job has a lock and a journal of its own.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from multiobj_data.errors import DataError, MobjError, UsageError
from multiobj_data.files import explain_os_errors, sha256_of
from multiobj_data.shards.manifest import ShardRecord
from multiobj_data.version import __version__


@contextmanager
def hold_lock(folder: Path, shard_range: tuple[int, int]) -> Iterator[None]:
    """Hold the folder's lock (one a range); it is released when the process ends, however it ends.

    Raises:
        MobjError: If another run holds it.
    """
    from filelock import FileLock, Timeout

    path = folder / f".lock{_suffix(shard_range)}"
    lock = FileLock(path, timeout=0)
    with explain_os_errors(path, _advice_on_lock(path)):
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


@contextmanager
def wait_to_finish(folder: Path) -> Iterator[None]:
    """Let one range after the other see whether it is the last one, and then write the manifest."""
    from filelock import FileLock

    path = folder / ".lock-finish"
    lock = FileLock(path)
    with explain_os_errors(path, _advice_on_lock(path)):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _advice_on_lock(path: Path) -> str | None:
    if path.exists() and not os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        return f"{path.name} is a file of another user, or read-only: if no other run is writing there, delete it."
    return None


class Journal:
    """Appends finished shards to ``.progress.jsonl``.

    Args:
        folder: The data set's folder.
        shard_range: ``(i, n)``; each range has a journal of its own.
        identity: As `multiobj_data.generation.plan.Plan.identity`; the first line.
        notes: What the manifest will note; kept so that `mobj merge` needs no generator.
    """

    def __init__(
        self,
        folder: Path,
        shard_range: tuple[int, int],
        identity: Mapping[str, Any],
        notes: Sequence[str] = (),
    ) -> None:
        self.path = folder / f".progress{_suffix(shard_range)}.jsonl"
        self.header = {"identity": identity, "notes": list(notes), "toolkit": __version__}

    def __enter__(self) -> Journal:
        with explain_os_errors(self.path):
            lines, size = _whole_lines(self.path) if self.path.exists() else ([], 0)
            self.file = open(self.path, "ab")  # closed in __exit__
            self.file.truncate(size)  # a line torn by a crash goes
        if not lines:
            try:
                self.append(self.header)
            except BaseException:
                self.__exit__(None, None, None)  # which Python calls only of what was entered
                raise
        return self

    def append(self, document: Mapping[str, Any]) -> None:
        """Append one line and flush it to the disk."""
        with explain_os_errors(self.path):
            self.file.write(json.dumps(document).encode() + b"\n")
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
        UsageError: If the folder holds the beginnings of another data set, or of one made by another version.
    """
    shards: list[dict[str, Any]] = []
    for path in sorted(folder.glob(".progress*.jsonl")):
        lines, _ = _whole_lines(path)
        if lines:
            refuse_difference(folder, lines[0].get("identity", {}), identity)
            if (toolkit := lines[0].get("toolkit")) != __version__:
                raise UsageError(
                    f"{folder} was begun by mobj {toolkit}, this is {__version__}, and two versions may draw other "
                    "scenes; go on with that version, or delete the folder."
                )
            shards += lines[1:]
    return shards


def read_whole_journals(folder: Path) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """Return for each range ``(i, n)`` its journal's lines: the header, then the finished shards."""
    journals = {}
    for path in sorted(folder.glob(".progress*.jsonl")):
        match = re.fullmatch(r"\.progress(?:-(\d+)-of-(\d+))?\.jsonl", path.name)
        lines, _ = _whole_lines(path)
        if match and lines:
            journals[int(match[1] or 0), int(match[2] or 1)] = lines
    return journals


def remove_journals(folder: Path) -> None:
    """Delete the journals of all ranges, and locks: the manifest has taken their place."""
    (folder / ".lock-finish").unlink(missing_ok=True)  # who waits for it will find the manifest
    for path in folder.glob(".progress*.jsonl"):
        path.unlink(missing_ok=True)
    for path in folder.glob(".*.tmp-*"):  # of runs that were killed
        path.unlink(missing_ok=True)


def refuse_difference(folder: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raise ``UsageError``, naming the first setting that differs, unless both are the same data set."""
    if difference := first_difference(there, here):
        name, value_there, value_here = difference
        raise UsageError(
            f"{folder} holds another data set: {name} is {value_there!r} there, {value_here!r} in this command. "
            "Choose another --out, or delete the folder."
        )


def first_difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """Return the first setting that differs between two identities: its name and both values."""
    there, here = json.loads(json.dumps(there)), json.loads(json.dumps(here))
    flat_there, flat_here = _flatten(there), _flatten(here)
    for name in [*flat_here, *flat_there]:
        if flat_there.get(name) != flat_here.get(name):
            return name, flat_there.get(name), flat_here.get(name)
    return None


def is_whole(folder: Path, record: ShardRecord) -> bool:
    """Return whether a shard is there with the recorded bytes."""
    path = folder / record.file
    return path.is_file() and sha256_of(path) == record.sha256


def stray_shards(folder: Path, expected: set[str]) -> list[str]:
    """Return the names of HDF5 files in the folder that are not expected."""
    return sorted(path.name for path in folder.glob("*.h5") if path.name not in expected)


def _whole_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Parse a journal as far as it is whole; return its lines and how many bytes they take."""
    lines, size = [], 0
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    for text in content.splitlines(keepends=True):
        try:
            line = json.loads(text)
        except ValueError:
            break
        if not isinstance(line, dict) or not text.endswith(b"\n"):
            break
        lines.append(line)
        size += len(text)
    return lines, size


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
