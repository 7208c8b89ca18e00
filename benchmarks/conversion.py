"""Reading public sets against inflating their file and doing nothing else, in the same run, on one core.

Without a file, records like CLEVR's are made: 3.2 MB each, which gzip makes 105 KB, as in the published file.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from multiobj_data.loaders.example import features
from multiobj_data.loaders.inflate import open_stream
from multiobj_data.loaders.layouts import detect
from multiobj_data.loaders.multi_object_datasets import open_records, read
from multiobj_data.loaders.tfrecord import crc32c, fast_crc32c, records

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
    floats: dict[str, np.ndarray] = {name: rng.normal(size=11) for name in ("x", "y", "z", "rotation")}
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
    with open_records(path, inflater=inflater) as stream:
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


TENSORFLOW = """
import json, os, sys, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
path, records, shapes = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
tf.config.threading.set_intra_op_parallelism_threads(2)
tf.config.threading.set_inter_op_parallelism_threads(2)
with open(path, "rb") as file:
    compression = "GZIP" if file.read(2) == bytes([0x1F, 0x8B]) else ""
features = {name: tf.io.FixedLenFeature(shape, getattr(tf, kind)) for name, (shape, kind) in shapes.items()}

def decode(record):
    example = tf.io.parse_single_example(record, features)
    return {n: tf.squeeze(tf.io.decode_raw(v, tf.uint8), -1) if v.dtype == tf.string else v for n, v in example.items()}

data = tf.data.TFRecordDataset(path, compression_type=compression).map(decode, num_parallel_calls=2)
items = iter(data.take(records + 1))
next(items)  # it traces its graph
work, clock = time.process_time(), time.perf_counter()
n = sum(1 for _ in items)
print(tf.__version__, n, time.process_time() - work, time.perf_counter() - clock)
"""


def compare_with_tensorflow(python: str, path: Path, crop: tuple[slice, slice] | None, most: int) -> None:
    """Run TensorFlow's own reader, as the set's publishers use it, with two threads, in an interpreter that has it."""
    with open_stream(path) as stream:
        layout = detect(features(next(records(stream)).payload))
    if layout is None:
        raise SystemExit(f"{path}: no set of multi_object_datasets.")
    (h, w, c), n = layout.image, layout.entities
    shapes: dict[str, tuple[list[int], str]] = {
        "image": ([h, w, c], "string"),
        "mask": ([h, w, n, 1] if layout.masks_last else [n, h, w, 1], "string"),
    }
    shapes |= {name: ([n, *shape], "string") for name, shape in layout.codes.items()}
    shapes |= {name: ([n, *shape], "float32") for name, shape in layout.floats.items()}
    command = [python, "-c", TENSORFLOW, str(path), str(most), json.dumps(shapes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    theirs, clock = (float(value) / int(done[1]) * 1e3 for value in done[2:])
    begin_clock, begin = time.perf_counter(), time.process_time()
    count = scenes(path, None, crop)
    ours, our_clock = (
        (now - then) / count * 1e3
        for now, then in ((time.process_time(), begin), (time.perf_counter(), begin_clock))
    )
    print(
        f"TensorFlow {done[0]}: {theirs:.2f} ms of work a scene, {clock:.2f} ms by the clock; reading {ours:.2f} and "
        f"{our_clock:.2f} ms: {theirs / ours:.1f} and {clock / our_clock:.1f} times its speed"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, help="a TFRecord of a public set; made if not given")
    parser.add_argument("--records", type=int, default=100, help="how many to make")
    parser.add_argument("--crop", action="store_true", help="cut to rows 29:221, columns 64:256 (CLEVR)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--tensorflow",
        metavar="PYTHON",
        help="compare with TensorFlow's reader too: an interpreter that has it",
    )
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
        if arguments.tensorflow:
            compare_with_tensorflow(arguments.tensorflow, path, crop, arguments.records)
    print(f"most memory used: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
