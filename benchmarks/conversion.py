"""Reading public sets against inflating their file and doing nothing else, in the same run, on one core.

Without a file, records like CLEVR's are made: 3.2 MB each, which gzip makes 105 KB, as in the published file.
"""

from __future__ import annotations

import argparse
import gzip
import resource
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from multiobj_data.loaders.inflate import open_stream
from multiobj_data.loaders.multi_object_datasets import read
from multiobj_data.loaders.tfrecord import crc32c, fast_crc32c

CROP = (slice(29, 221), slice(64, 256))


def field(number: int, content: bytes) -> bytes:
    """Return a length-delimited protocol buffer field."""
    size, out = len(content), bytearray([number << 3 | 2])
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(out) + bytes([size]) + content


def one_byte_strings(values: np.ndarray) -> bytes:
    body = np.full((values.size, 3), (0x0A, 1, 0), np.uint8)
    body[:, 2] = values.reshape(-1)
    return body.tobytes()  # each three bytes a field of its own


def clevr_like(rng: np.random.Generator) -> bytes:
    """Return an Example with 3 to 10 discs on a noisy gradient."""
    row, column = np.mgrid[:240, :320]
    masks = np.zeros((11, 240, 320), bool)
    masks[0] = True
    image = np.broadcast_to(100 + row[..., None] // 4, (240, 320, 3)).astype(float)
    count = rng.integers(3, 11)
    for k in range(1, count + 1):
        y, x, r = rng.integers(60, 200), rng.integers(40, 280), rng.integers(10, 28)
        disc = (row - y) ** 2 + (column - x) ** 2 < r**2
        masks[:, disc] = False
        masks[k] = disc
        image[disc] = rng.integers(0, 256, 3)
    image += rng.normal(0, 0.9, image.shape)
    floats = {name: rng.normal(size=11) for name in ("x", "y", "z", "rotation")}
    floats |= {"visibility": np.arange(11) <= count, "pixel_coords": rng.normal(size=33)}
    lists = {name: field(2, field(1, np.asarray(v, "<f4").tobytes())) for name, v in floats.items()}
    for name in ("size", "material", "shape", "color"):
        lists[name] = field(1, one_byte_strings(rng.integers(1, 3, 11)))
    lists["mask"] = field(1, one_byte_strings(masks * 255))
    lists["image"] = field(1, one_byte_strings(image.clip(0, 255)))
    entries = (field(1, field(1, name.encode()) + field(2, value)) for name, value in lists.items())
    return field(1, b"".join(entries))


def write(path: Path, n: int) -> None:
    crc = fast_crc32c() or crc32c

    def masked(data: bytes) -> bytes:
        value = crc(data)
        return struct.pack("<I", (value >> 15 | value << 17) + 0xA282EAD8 & 0xFFFFFFFF)

    with gzip.open(path, "wb", compresslevel=6) as file:
        for index in range(n):
            payload = clevr_like(np.random.default_rng(index))
            length = struct.pack("<Q", len(payload))
            file.write(length + masked(length) + payload + masked(payload))


def inflate_only(path: Path, inflater: str | None) -> None:
    with open_stream(path, inflater=inflater) as stream:
        while stream.take(1 << 20).size:
            pass


def scenes(path: Path, inflater: str | None, crop: tuple[slice, slice] | None) -> int:
    with open_stream(path, inflater=inflater) as stream:
        return sum(1 for _ in read(stream, crop=crop))


def seconds(task: Callable[[], object]) -> float:
    begin = time.process_time()  # of this process alone: others may share the core
    task()
    return time.process_time() - begin


def compare(path: Path, inflater: str | None, crop: tuple[slice, slice] | None, repeats: int) -> None:
    n = scenes(path, inflater, crop)
    pairs = [
        (seconds(lambda: inflate_only(path, inflater)), seconds(lambda: scenes(path, inflater, crop)))
        for _ in range(repeats)  # alternately, so that both meet the same machine
    ]
    alone, reading = np.median(pairs, axis=0) / n * 1e3
    print(
        f"{inflater or 'default':8} inflating {alone:6.2f} ms a scene, reading {reading:6.2f} ms "
        f"({1e3 / reading:6.0f} scenes/s): {alone / reading:.2f} of its speed"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, help="a TFRecord of a public set; made if not given")
    parser.add_argument("--records", type=int, default=100, help="how many to make")
    parser.add_argument("--crop", action="store_true", help="cut to rows 29:221, columns 64:256 (CLEVR)")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, crop = arguments.file, CROP if arguments.crop else None
        if path is None:
            path, crop = Path(folder, "clevr_like.tfrecords"), CROP
            write(path, arguments.records)
        with open_stream(path) as stream:
            print(
                f"{path.name}: {stream.total / 1e6:.1f} MB, data checksums {'on' if fast_crc32c() else 'off'}"
            )
        for inflater in ("isal", "zlib"):
            compare(path, inflater, crop, arguments.repeats)
    print(f"most memory used: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
