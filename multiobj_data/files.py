"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from multiobj_data.errors import DataError, MobjError, UsageError


def temporary_of(path: Path) -> Path:
    """Return where this process writes a file before it is renamed onto ``path``."""
    writer = f"{socket.gethostname()}-{os.getpid()}"  # workers on several hosts may share a process id
    return path.with_name(f".{path.name}.tmp-{writer}")


@contextmanager
def replacing(path: str | os.PathLike[str], advice: str | None = None) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it onto ``path`` once its content is on the disk.

    After an error, the temporary file is removed and what was at ``path`` is still there. For ``advice`` see
    `explain_os_errors`.

    Raises:
        UsageError: If the folder does not exist.
        MobjError: If it cannot be written to, or the disk is full.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise UsageError(f"{path}: expected an existing folder, {path.parent} is none; create it first.")
    temporary = temporary_of(path)
    try:
        try:
            yield temporary
        except OSError as error:
            if error.filename is not None and Path(error.filename) not in (path, temporary):
                raise  # of another file, that the content comes from
            with explain_os_errors(path, advice):
                raise
        with explain_os_errors(path, advice):
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes, advice: str | None = None) -> None:
    """Write a whole file; see `replacing`."""
    with replacing(path, advice) as temporary:
        temporary.write_bytes(content)


@contextmanager
def explain_os_errors(path: Path, advice: str | None = None) -> Iterator[None]:
    """Turn an ``OSError`` about ``path`` into one clear sentence.

    Args:
        path: What is written.
        advice: What to do next, where neither the same command again nor another ``--out`` is the answer.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MobjError(
                f"no space left on the disk while writing {path}; "
                + (advice or "free some and run the same command again, it continues where it stopped.")
            ) from error
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            raise MobjError(
                f"cannot write to {path.parent}: {error.strerror}; {advice or 'choose another --out.'}"
            ) from error
        if isinstance(error, IsADirectoryError):
            raise MobjError(f"cannot write {path}: a folder is in the way; move it away.") from error
        if isinstance(error, FileExistsError | NotADirectoryError):
            raise MobjError(
                f"cannot create {path}: a file is in the way; {advice or 'choose another --out.'}"
            ) from error
        raise MobjError(
            f"cannot write {path}: {error.strerror or error}" + (f"; {advice}" if advice else ".")
        ) from error


def make_folder(path: Path) -> None:
    """Create a folder and its parents, or say in one sentence why that fails."""
    with explain_os_errors(path):
        path.mkdir(parents=True, exist_ok=True)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, as a hexadecimal text.

    Raises:
        DataError: If it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()


def to_json(document: Any) -> str:
    """Return readable JSON, strict (no NaN), ending in a newline."""
    return json.dumps(document, indent=2, allow_nan=False) + "\n"
