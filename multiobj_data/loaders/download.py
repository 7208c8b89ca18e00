"""Public files over HTTP into the user's cache: resumed where a connection broke, never half a file under its name."""

from __future__ import annotations

import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from multiobj_data.errors import DataError, MobjError, UsageError
from multiobj_data.files import explain_os_errors, make_folder
from multiobj_data.version import __version__

OnBytes = Callable[[str, int, int], None]
"""Called with a file's name, how many bytes of it are here and how many it has (0 if the server does not say)."""

_BLOCK = 1 << 20
_TRIES = 5  # in a row without a single byte
_TIMEOUT = 60.0  # seconds of silence
_PAUSE = 0.5  # seconds before the second try, longer before each other


def is_address(text: str) -> bool:
    """Return whether a text is an address rather than a path."""
    return text.lower().startswith(("http://", "https://"))


def default_cache() -> Path:
    """Return where downloads are kept."""
    import pooch

    return Path(pooch.os_cache("mobj")) / "public"


def fetch(address: str, folder: Path, on_bytes: OnBytes = lambda name, done, total: None) -> Path:
    """Return the file at an address, downloaded into ``folder`` unless it is there.

    What came of it is kept in ``NAME.part``; the next call asks for the rest, unless the file at the address is no
    longer the same (its ETag says so). There are no published checksums: the length is compared with the server's.

    Raises:
        DataError: If the file is not to be had, or the connection breaks again and again.
        UsageError: If the address names no file.
        MobjError: If another run downloads it, or there is no room.
    """
    from filelock import FileLock, Timeout

    name = Path(unquote(urlsplit(address).path)).name
    if not name:
        raise UsageError(f"{address}: expected the address of a file, or of a folder ending in '/'.")
    path = folder / name
    if path.is_file():
        return path
    make_folder(folder)
    with explain_os_errors(path, f"choose another --downloads folder, or get {address} yourself."):
        try:
            with FileLock(f"{path}.lock", timeout=0):
                if not path.is_file():
                    _complete(address, path, on_bytes)
        except Timeout as error:
            raise MobjError(
                f"another mobj run is downloading {path.name} into {folder}; wait for it."
            ) from error
    return path


def _complete(address: str, path: Path, on_bytes: OnBytes) -> None:
    """Download what is missing of a file and give it its name."""
    part, tries, problem = path.with_name(f"{path.name}.part"), 0, ""
    while tries < _TRIES:
        before = _size(part)
        try:
            if _download(address, part, on_bytes):
                os.replace(part, path)
                part.with_suffix(".etag").unlink(missing_ok=True)
                return
            problem = "the connection ended early"
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # what we have is not the beginning of what is there
                part.unlink(missing_ok=True)
            elif error.code < 500:
                raise DataError(
                    f"{address}: the server answers {error.code} {error.reason}. {_by_hand(path.name)}"
                ) from error
            problem = f"the server answers {error.code} {error.reason}"
        except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
            problem = str(getattr(error, "reason", error)) or type(error).__name__
        tries = 0 if _size(part) > before else tries + 1
        time.sleep(tries * _PAUSE if tries < _TRIES else 0)
    kept = f" {_size(part):,} bytes are kept, and the same command goes on from there." if _size(part) else ""
    raise DataError(f"{address} cannot be downloaded ({problem}).{kept} {_by_hand(path.name)}")


def _download(address: str, part: Path, on_bytes: OnBytes) -> bool:
    """Append to a part what the server sends; return whether that is all of the file."""
    have, etag = _size(part), part.with_suffix(".etag")
    headers = {"User-Agent": f"mobj/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if etag.is_file():
            headers["If-Range"] = etag.read_text()
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=_TIMEOUT) as answer:
        if answer.status != 206:  # the whole file: the server knows no ranges, or has another file now
            have = 0
        total = have + int(answer.headers.get("Content-Length") or 0)
        _expect_room(part, total - have)
        if mark := answer.headers.get("ETag"):
            etag.write_text(mark)
        size = have
        with open(part, "r+b" if have else "wb") as file:
            file.seek(have)
            while block := _read(answer):
                file.write(block)
                size += len(block)
                on_bytes(part.stem, size, total)
            file.flush()
            os.fsync(file.fileno())
    return size == total or (total == have and size > 0)


def _read(answer: Any) -> bytes:
    """Return the next bytes; those that came before the connection broke are not lost."""
    try:
        return answer.read1(_BLOCK)
    except http.client.IncompleteRead as error:
        return error.partial


def _expect_room(part: Path, n: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if n > free:
        raise MobjError(
            f"no room for {part.stem} in {part.parent}: {n:,} bytes are to come, {free:,} are free; make room, or "
            "choose another --downloads folder."
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _by_hand(name: str) -> str:
    return f"Without network, get {name} on another machine and give its path as SOURCE."
