"""Folders that appear whole or not at all, with a record of every file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from multiobj_data.errors import MobjError, UsageError
from multiobj_data.files import explain_os_errors, make_folder, sha256_of, to_json, write_atomically
from multiobj_data.shards.journal import hold_lock
from multiobj_data.version import __version__

RECORD = "export.json"
RECORD_VERSION = 1
_MANY = 100  # files, above which one flush of everything costs less than one of each
_ADVICE = "free some and run the same command again."


@dataclass(frozen=True)
class Exported:
    """A finished export.

    Attributes:
        folder: Where it is.
        request: What was asked for: format, data set, splits with rows, licence.
        files: Path within the folder -> SHA-256.
        fresh: Whether this call wrote it.
    """

    folder: str
    request: dict[str, Any]
    files: dict[str, str]
    fresh: bool = True

    @classmethod
    def read(cls, folder: Path, fresh: bool = True) -> Exported:
        """Read the record of a finished export."""
        document = json.loads((folder / RECORD).read_text())
        return cls(str(folder), document["request"], document["files"], fresh)

    def document(self) -> dict[str, Any]:
        """Return all of it, JSON-ready."""
        return asdict(self)


def finished_export(folder: Path, request: Mapping[str, Any]) -> Exported | None:
    """Return the export that is there already if it is this one and whole, ``None`` if nothing is there.

    Raises:
        UsageError: If the folder holds anything else.
    """
    with explain_os_errors(folder):
        if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
            return None
    why = "it is not an export of this toolkit"
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        there = Exported.read(folder, fresh=False)
        why = f"it holds another export ({_difference(there.request, request)})"
        if there.request == dict(request):
            why = "the export in it is damaged"
            if not (damaged := _damaged(folder, there.files)):
                return there
            why += f" ({damaged} is missing or changed)"
    raise UsageError(f"{folder} is in the way: {why}; choose another --out, or delete it.")


@contextmanager
def new_folder(folder: Path, request: Mapping[str, Any]) -> Iterator[Path]:
    """Yield a folder to fill; give it its name, with a record of its files, once that has gone well.

    What a killed run left under the temporary name is cleared away; after an error nothing is left.

    Raises:
        MobjError: If another run is writing the same export, or the disk is full.
    """
    folder = Path(os.path.realpath(folder))  # the folder itself, where `folder` is a link to an empty one
    make_folder(folder.parent)
    desk = folder.with_name(f".{folder.name}.unfinished")
    make_folder(desk)
    try:
        with hold_lock(desk, (0, 1)), explain_os_errors(folder, _ADVICE):
            content = desk / "content"
            if content.exists():
                shutil.rmtree(content)
            content.mkdir()
            try:
                yield content
                _finish(content, folder, request)
            finally:
                shutil.rmtree(content, ignore_errors=True)
    finally:
        with suppress(OSError):  # another run holds it
            desk.rmdir()


def _finish(content: Path, folder: Path, request: Mapping[str, Any]) -> None:
    """Record the files, have the disk keep them, and give the folder its name."""
    paths = sorted(path for path in content.rglob("*") if path.is_file())
    files = {path.relative_to(content).as_posix(): sha256_of(path) for path in paths}
    record = {
        "schema_version": RECORD_VERSION,
        "toolkit": __version__,
        "request": dict(request),
        "files": files,
    }
    if len(paths) > _MANY:
        os.sync()
    else:
        for path in paths:
            _sync(path)
    write_atomically(content / RECORD, to_json(record).encode(), _ADVICE)
    for path in sorted({content, *(path.parent for path in paths)}):
        _sync(path)
    with suppress(FileNotFoundError):
        folder.rmdir()  # an empty one that was there
    try:
        content.rename(folder)
    except OSError as error:
        raise MobjError(f"cannot give {folder} its name: {error.strerror}; choose another --out.") from error
    _sync(folder.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _damaged(folder: Path, files: Mapping[str, str]) -> str | None:
    for name, sha256 in files.items():
        if not (folder / name).is_file() or sha256_of(folder / name) != sha256:
            return name
    return None


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    for name in {**there, **here}:
        if there.get(name) != here.get(name):
            return f"{name} is {there.get(name)!r} there, {here.get(name)!r} here"
    return "the same"
