"""`mobj convert`, writing included, against inflating the same file and no more, in the same run, on one core.

Give a public file: its records are repeated into one file of --records. Without one, CLEVR-like records are made.
--memory converts a file and one four times as long, each in a process of its own.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from conversion import inflate_only, scenes, seconds, write

from multiobj_data.conversion import convert
from multiobj_data.loaders import streams
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


def run(name: str, protocol: str, path: Path, folder: Path) -> None:
    public = find_set(name)
    selection = Selection("source", most=public.most) if public.most else Selection()
    request = streams.Request(public, find_protocol(public.source, protocol), selection)
    convert(streams.RecordStream(request, [(path, None)]), folder)


def compare(arguments: argparse.Namespace, path: Path, n: int, inflater: str, folder: Path) -> None:
    streams.open_stream = lambda path: open_stream(path, inflater=inflater)
    crop = find_protocol(find_set(arguments.name).source, arguments.protocol).crop
    rows = []
    for number in range(arguments.repeats):  # alternately, so that all meet the same machine
        out = folder / f"{inflater}-{number}"
        rows.append(
            (
                seconds(lambda: inflate_only(path, inflater)),
                seconds(lambda: scenes(path, inflater, crop)),
                seconds(lambda out=out: run(arguments.name, arguments.protocol, path, out)),
            )
        )
    alone, reading, whole = np.median(rows, axis=0) / n * 1e3
    print(
        f"{inflater:5} inflating {alone:6.2f} ms a record, reading {reading:6.2f}, converting {whole:6.2f} "
        f"({1e3 / whole:6.0f} records/s): reading {alone / reading:.2f}, converting {alone / whole:.2f} of its speed"
    )


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
