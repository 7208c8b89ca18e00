"""What commands share: progress and log on stderr, results on stdout."""

from __future__ import annotations

import io
import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TextIO

import click

from multiobj_data.errors import MobjError, UsageError, quoted

_LINE_EVERY = 10.0  # seconds between progress lines where there is no terminal
_MOST_SEEDS = 1000
_LARGEST_SEED = 2**32 - 1


class InterruptedRunError(MobjError):
    """Ctrl-C or SIGTERM, with the line that goes on from here."""

    exit_code = 130


@contextmanager
def resumable(command: str, *, sigterm: bool = True) -> Iterator[None]:
    """On Ctrl-C or SIGTERM, say which command continues; see `interruptible`."""
    with interruptible(f"nothing finished is lost. To continue: {command}", sigterm=sigterm):
        yield


@contextmanager
def interruptible(consequence: str, *, sigterm: bool = True) -> Iterator[None]:
    """On Ctrl-C or SIGTERM, tidy up and say what that means.

    Args:
        consequence: What is left, and what to type next.
        sigterm: Whether SIGTERM, as batch systems and `kill` send it, is to count; not where the work inside deals
            with it.

    Raises:
        InterruptedRunError: After either.
    """
    try:
        with _sigterm_as_ctrl_c() if sigterm else nullcontext():
            yield
    except KeyboardInterrupt:
        raise InterruptedRunError(f"interrupted; {consequence}") from None


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    def stop(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not disturb the tidying up
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGTERM)
    if before != signal.SIG_DFL or threading.current_thread() is not threading.main_thread():
        yield  # someone else decides what it means
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def refuse_empty_options(options: Mapping[str, Any]) -> None:
    """Raise ``UsageError`` for an option that was given without a text: ``--out ''``, often an unset variable."""
    for name, value in options.items():
        texts = value if isinstance(value, tuple) else (value,)
        if any(isinstance(text, str) and not text.strip() for text in texts):
            raise UsageError(
                f"--{name.replace('_', '-')}: expected a text, got an empty one; give one, or leave the option out."
            )


def same_command(*more: str) -> str:
    """Return the command line as it was typed, plus ``more``."""
    import shlex

    arguments = [argument for argument in sys.argv[1:] if argument not in more]
    return shlex.join(["mobj", *arguments, *more])


def start_logging() -> None:
    """Show the library's warnings on stderr, one line each."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    for name in ("multiobj_data", "metrics", "reference_models"):
        logger = logging.getLogger(name)
        if not logger.handlers:
            logger.addHandler(handler)


@contextmanager
def progress(label: str, total: int, unit: str) -> Iterator[Callable[..., None]]:
    """Yield ``advance(n, note="")``: a bar on a terminal, a line now and then otherwise.

    Args:
        label: What is being done.
        total: Units to do; 0 if nobody knows.
        unit: Name of a unit, plural.
    """
    with (_bar if is_terminal(sys.stderr) else _lines)(label, total, unit) as advance:
        yield advance


@contextmanager
def _bar(label: str, total: int, unit: str) -> Iterator[Callable[..., None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(label, total=total or None, note="", rate="")

        def advance(n: int, note: str | None = None) -> None:
            bars.update(task, advance=n)
            if note is not None:
                bars.update(task, note=note)
            speed = bars.tasks[task].speed
            bars.update(task, rate=f"{speed:,.0f}/s" if speed else "")

        yield advance


@contextmanager
def _lines(label: str, total: int, unit: str) -> Iterator[Callable[..., None]]:
    start = last = time.monotonic()
    done = shown = found = 0
    latest = ""

    def show(ended: bool = False) -> None:
        nonlocal last, shown
        last, shown = time.monotonic(), done
        rate = (done - found) / max(last - start, 1e-9)
        left = f", {(total - done) / rate:.0f} s left" if rate and done < total and not ended else ""
        of = f"/{total:,}" if total else ""
        click.echo(f"{label}: {done:,}{of} {unit}, {rate:,.0f}/s{left} {latest}".rstrip(), err=True)

    def advance(n: int, note: str | None = None) -> None:
        nonlocal done, latest, start, found
        if not done and n < total:
            # The first report may hold what an earlier run had done: speed is measured from there.
            start, found = time.monotonic(), n
        done += n
        latest = latest if note is None else note
        if shown < total <= done or time.monotonic() - last >= _LINE_EVERY:
            show()

    yield advance
    if done != shown:  # fewer than expected, or nobody knew how many
        show(ended=True)


def say(message: str) -> None:
    """Tell the user something that is not the result: on stderr."""
    click.echo(message, err=True)


def emit_json(document: Any) -> None:
    """Print the one JSON document of ``--json``."""
    click.echo(json.dumps(document, indent=2, allow_nan=False))


def emit_table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> None:
    """Print a table on stdout; nothing is cut off, and a pipe gets lines without trailing spaces."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_header=any(header), show_edge=False)
    for title in header:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(file=io.StringIO(), width=None if is_terminal(sys.stdout) else 1000, markup=False)
    console.print(table)
    for line in console.file.getvalue().splitlines():  # type: ignore[attr-defined]
        click.echo(line.rstrip())


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal; a closed one is ``None``."""
    return stream is not None and stream.isatty()


def parse_range(text: str) -> tuple[int, int]:
    """Read ``i/n`` of ``--shard-range``."""
    part, sign, parts = text.partition("/")
    numbers = sign and part.isdecimal() and parts.isdecimal() and len(parts) < 10 and len(part) < 10
    if not numbers or int(part) >= int(parts):
        raise UsageError(f"--shard-range: expected i/n with 0 <= i < n, e.g. 0/4, got {quoted(text)}.")
    return int(part), int(parts)


def parse_seeds(text: str) -> list[int]:
    """Read ``--seeds``: ``3`` means 0, 1, 2; ``0,4`` (or ``4,``) are these seeds."""
    parts = [part.strip() for part in text.split(",")]
    if parts and parts[-1] == "" and len(parts) > 1:
        parts.pop()
    least, most = (0, _LARGEST_SEED) if "," in text else (1, _MOST_SEEDS)
    seeds = [int(part) for part in parts if part.isdecimal() and len(part) <= len(str(most))]
    if len(seeds) < len(parts) or not all(least <= seed <= most for seed in seeds):
        raise UsageError(
            f"--seeds: expected a number of seeds such as 3 (at most {_MOST_SEEDS:,}), or a list such as 0,1,2 "
            f"or 7, (seeds up to {_LARGEST_SEED:,}); got {text[:40]!r}."
        )
    if "," not in text:
        return list(range(seeds[0]))
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"--seeds: {text!r} names a seed twice.")
    return seeds
