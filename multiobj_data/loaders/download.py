"""Public files over HTTP into the user's cache: resumed where a connection broke, never half a file under its name."""

from __future__ import annotations

import base64
import hashlib
import http.client
import logging
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from multiobj_data.errors import DataError, MobjError, UsageError, shortened
from multiobj_data.files import explain_os_errors, write_atomically
from multiobj_data.version import __version__

logger = logging.getLogger(__name__)

OnBytes = Callable[[str, int, int], None]
"""Called with a file's name, how many bytes of it are here and how many it has (0 if the server does not say)."""

_BLOCK = 1 << 20
_TRIES = 5  # in a row without a single new byte
_TIMEOUT = 60.0  # seconds of silence
_PAUSE = 0.5  # seconds before the second try, longer before each other
_LATER = (408, 425, 429)  # answers that ask for another try


def is_address(text: str) -> bool:
    """Return whether a text is an address rather than a path."""
    return text.lower().startswith(("http://", "https://"))


def default_cache() -> Path:
    """Return where downloads are kept."""
    import pooch

    return Path(pooch.os_cache("mobj")) / "public"


def fetch(
    address: str,
    folder: Path,
    on_bytes: OnBytes = lambda name, done, total: None,
    mirrors: Sequence[str] = (),
) -> Path:
    """Return the file at an address, downloaded into ``folder`` unless it is there.

    ``NAME.from`` keeps its address. A file of this name that came from another address, which is none of the
    ``mirrors``, is refused; one that was put there without a download is taken.

    What came of it is kept in ``NAME.part``; the next call asks for the rest, unless the file at the address is no
    longer the same (its ETag says so). The length is compared with the server's, and so is the MD5 where the server
    tells it (``x-goog-hash``, as the publisher of multi_object_datasets does); there are no published checksums.

    Raises:
        DataError: If the file is not to be had, the server answers with a web page, the MD5 differs, or the connection
            breaks again and again.
        UsageError: If the address names no file, or a file of its name came from another address.
        MobjError: If another run downloads it, or there is no room.
    """
    from filelock import FileLock, Timeout

    name = Path(unquote(urlsplit(address).path)).name
    if name in ("", ".", ".."):
        raise UsageError(f"{address}: expected the address of a file, or of a folder ending in '/'.")
    path = folder / name
    if path.is_file():
        _refuse_other_origin(path, {address, *mirrors})
        return path
    with explain_os_errors(path, f"choose another --downloads folder, or get {address} yourself."):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(f"{path}.lock", timeout=0):
                if not path.is_file():
                    _complete(address, path, on_bytes)
                    write_atomically(_origin(path), f"{address}\n".encode())
        except Timeout as error:
            raise MobjError(
                f"another mobj run is downloading {path.name} into {folder}; wait for it."
            ) from error
    return path


def fetch_any(
    addresses: Sequence[str], folder: Path, on_bytes: OnBytes = lambda name, done, total: None
) -> Path:
    """Return a file that several addresses have under the same name, from the first one that gives it; see `fetch`.

    What one address gave before it broke off is not lost where the next one has the same file (the same ETag).

    Raises:
        DataError: As `fetch` does of the last address.
    """
    for number, address in enumerate(addresses, 1):
        try:
            return fetch(address, folder, on_bytes, addresses)
        except DataError as error:
            if number == len(addresses):
                raise
            logger.warning("%s Trying %s.", error, addresses[number])
    raise UsageError("expected at least one address, got none.")


def _origin(path: Path) -> Path:
    return path.with_name(f"{path.name}.from")


def _refuse_other_origin(path: Path, addresses: Collection[str]) -> None:
    try:
        origin = _origin(path).read_text(encoding="utf-8").strip()
    except OSError:  # put there by hand
        return
    if origin not in addresses:
        raise UsageError(
            f"{path} came from {origin}, not from {min(addresses)}; remove it, or choose another --downloads folder."
        )


def _complete(address: str, path: Path, on_bytes: OnBytes) -> None:
    """Download what is missing of a file and give it its name."""
    part, tries, problem = path.with_name(f"{path.name}.part"), 0, ""
    most = _size(part)  # bytes ever here: no server may keep us for ever by making us begin anew
    while tries < _TRIES:
        try:
            got = _download(address, part, on_bytes)
            if got.whole:
                _compare(got.md5, part, address)
                os.replace(part, path)
                part.with_suffix(".etag").unlink(missing_ok=True)
                return
            problem = "the connection ended early"
        except urllib.error.HTTPError as error:
            error.close()
            problem = f"the server answers {error.code} {_one_line(error.reason)}"
            if error.code == 416:  # what we have is not the beginning of what is there
                part.unlink(missing_ok=True)
            elif error.code < 500 and error.code not in _LATER:
                raise DataError(f"{address}: {problem}. {_by_hand(path.name)}") from error
        except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
            problem = _one_line(getattr(error, "reason", error)) or type(error).__name__
        tries = 0 if _size(part) > most else tries + 1
        most = max(most, _size(part))
        time.sleep(tries * _PAUSE if tries < _TRIES else 0)
    kept = f" {_size(part):,} bytes are kept, and the same command goes on from there." if _size(part) else ""
    raise DataError(f"{address} cannot be downloaded ({problem}).{kept} {_by_hand(path.name)}")


class _Got(NamedTuple):
    """What a request brought: whether the part is all of the file now, and the MD5 that the server states."""

    whole: bool
    md5: str | None


def _download(address: str, part: Path, on_bytes: OnBytes) -> _Got:
    """Append to a part what the server sends."""
    have, etag = _size(part), part.with_suffix(".etag")
    headers = {"User-Agent": f"mobj/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if etag.is_file():
            headers["If-Range"] = etag.read_text()
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=_TIMEOUT) as answer:
        _refuse_pages(answer, address)
        if answer.status != 206:  # the whole file: the server knows no ranges, or has another file now
            have = 0
        elif not answer.headers.get("Content-Range", f"bytes {have}-").startswith(f"bytes {have}-"):
            part.unlink()  # not what was asked for: begin anew
            return _Got(False, None)
        total = have + _number(answer.headers.get("Content-Length"))
        _expect_room(part, total - have)
        if mark := answer.headers.get("ETag"):
            etag.write_text(mark)
        size = have
        with open(part, "r+b" if have else "wb") as file:
            file.seek(have)
            broken = False
            while not broken:
                block, broken = _read(answer)
                if not block:
                    break
                file.write(block)
                size += len(block)
                on_bytes(part.stem, size, total)
            file.flush()
            os.fsync(file.fileno())
        told = total > have  # else what came until the server closed the connection is the file
        return _Got(size == total if told else not broken and size > 0, _stated_md5(answer.headers))


def _refuse_pages(answer: Any, address: str) -> None:
    """Refuse a page that says why there is no file (log in, not found, ...), and what has been packed on the way."""
    kind, packing = answer.headers.get_content_type(), answer.headers.get("Content-Encoding", "identity")
    if kind in ("text/html", "application/xhtml+xml") or packing != "identity":
        got = "a web page" if packing == "identity" else f"the file packed as {packing}"
        raise DataError(
            f"{address}: expected the file itself, the server sends {got}"
            f"{f' from {answer.url}' if answer.url != address else ''}. "
            "Look at the address in a browser, get the file there and give its path as SOURCE."
        )


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() else 0


def _stated_md5(headers: Any) -> str | None:
    for part in ",".join(headers.get_all("x-goog-hash", [])).split(","):
        kind, _, value = part.strip().partition("=")
        if kind == "md5":
            try:
                return base64.b64decode(value, validate=True).hex()
            except ValueError:
                return None
    return None


def _compare(md5: str | None, part: Path, address: str) -> None:
    """Compare a whole part with the MD5 that the server stated; drop it if it differs."""
    if md5 is None:
        return
    with open(part, "rb") as file:
        got = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if got != md5:
        part.unlink()
        raise DataError(
            f"{address}: expected the MD5 {md5}, as the server states, got {got}; what came was deleted, run the same "
            "command again."
        )


def _one_line(text: object) -> str:
    """Return what a server or the system says, fit for one line of a terminal."""
    words = "".join(c if c.isprintable() else " " for c in str(text).partition("\n")[0])
    return shortened(" ".join(words.split()).rstrip("."))


def _read(answer: Any) -> tuple[bytes, bool]:
    """Return the next bytes, and whether the connection broke after them: what came before is not lost."""
    try:
        return answer.read1(_BLOCK), False
    except http.client.IncompleteRead as error:
        return error.partial, True


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
