"""`mobj convert`, writing included, against inflating the same file and no more, in the same run, on one core.

Give a public file: its records are repeated into one file of --records. Without one, CLEVR-like records are made.
--memory converts a file and one four times as long, each in a process of its own.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from conversion import inflate_only, scenes, seconds, write

from multiobj_data.loaders import streams
from multiobj_data.loaders.conversion import convert
from multiobj_data.loaders.inflate import open_stream
from multiobj_data.loaders.preparing import Selection
from multiobj_data.loaders.protocols import find_protocol
from multiobj_data.loaders.sets import find_set
from multiobj_data.loaders.tfrecord import records


def repeat(file: Path, path: Path, at_least: int) -> int:
    """Write a file's bytes again and again (gzip files may be joined like that); return how many records it has."""
    with open_stream(file) as stream:
        count = sum(1 for _ in records(stream))
    times = -(-at_least // count)
    with open(path, "wb") as out:
        for _ in range(times):
            out.write(file.read_bytes())
    return count * times


def run(
    name: str, protocol: str, path: Path, folder: Path, inflater: str | None = None, ahead: bool | None = None
) -> None:
    public = find_set(name)
    selection = Selection("source", most=public.most) if public.most else Selection()
    request = streams.Request(public, find_protocol(public.source, protocol), selection)
    convert(streams.RecordStream(request, [(path, None)], inflater=inflater, ahead=ahead), folder)


def compare(arguments: argparse.Namespace, path: Path, n: int, inflater: str, folder: Path) -> None:
    """Print seconds of one core's work, and seconds by the clock, of inflating and of converting."""
    name, protocol = arguments.name, arguments.protocol
    crop = find_protocol(find_set(name).source, protocol).crop
    work: list[tuple[float, ...]] = []
    clock: list[tuple[float, ...]] = []
    for number in range(arguments.repeats):  # alternately, so that all meet the same machine
        out = folder / f"{inflater}-{number}"
        for times, measure in ((work, seconds), (clock, seconds_by_the_clock)):
            ahead = False if times is work else None  # as the command does it: a thread inflates ahead
            times.append(
                (
                    measure(lambda: inflate_only(path, inflater)),
                    measure(lambda: scenes(path, inflater, crop)),
                    measure(partial(run, name, protocol, path, out, inflater, ahead)),
                )
            )
            shutil.rmtree(out)
    for what, times in (("one core's work", work), ("by the clock", clock)):
        alone, reading, whole = np.median(times, axis=0) / n * 1e3
        least = np.min(times, axis=0)
        print(
            f"{inflater:5} {what:15} inflating {alone:6.3f} ms a record, reading {reading:6.3f}, converting "
            f"{whole:6.3f} ({1e3 / whole:6.0f} records/s): reading {alone / reading:.2f}, converting "
            f"{alone / whole:.2f} of its speed; at their fastest {least[0] / least[1]:.2f}, {least[0] / least[2]:.2f}"
        )


def seconds_by_the_clock(task: Callable[[], object]) -> float:
    begin = time.perf_counter()
    task()
    return time.perf_counter() - begin


def memory(arguments: argparse.Namespace, path: Path, folder: Path) -> None:
    code = (
        "import sys, resource; from pathlib import Path; from whole_conversion import run; "
        "run(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    values = (arguments.name, arguments.protocol, str(path), str(folder))
    command = [sys.executable, "-c", code, *values]
    used = subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    ).stdout
    print(f"{path.name}: most memory used {used.strip()} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--name", default="clevr", help="the set")
    parser.add_argument("--protocol", default="default")
    parser.add_argument("--records", type=int, default=240)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for times in (1, 4) if arguments.memory else (1,):
            n = arguments.records * times
            path = Path(folder, f"{n}-records.tfrecords")
            if arguments.file is None:
                write(path, n)
            else:
                n = repeat(arguments.file, path, n)
            print(f"{arguments.name}, {n} records, {path.stat().st_size / n / 1e3:.1f} KB each")
            if arguments.memory:
                memory(arguments, path, Path(folder, f"out-{n}"))
        if not arguments.memory:
            for inflater in ("isal", "zlib"):
                compare(arguments, path, n, inflater, Path(folder))
    print(f"most memory used here: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
