"""Scenes a second: shards on disk against the loop-an-image generators of the literature.

Two peers. *Digits*: as Pyro's and `observations`' generators do, for each image draw digits, resize each with
Pillow, pad each to the whole canvas, add them up, and start again if a pixel exceeds 255. *Sprites*: paste
precomputed patches of 20 pixels one image at a time, add and clip; without overlap, a patch is tried at up to 100
places until its square is free, or else the image is dropped. Both keep images in memory and nothing else. Ours
writes images, label maps, boxes, masks and all factors into HDF5 shards with their SHA-256, the start of its workers
included. ``--memory`` measures the largest resident memory instead.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from multiobj_data.composition.memory import keep_freed_memory
from multiobj_data.generation.plan import Plan
from multiobj_data.generation.running import generate
from multiobj_data.generators.sprites import COLOURS, sprite_mask
from multiobj_data.sprites.digits import load_digits

SIDE = 20
SPRITES = {"sides": (SIDE, SIDE), "colours": "rgb", "amodal": True}
SMALL = {"canvas": 20, "sides": (6, 8)}  # so that a million scenes take little room


# -- the peers


def peer(draw_one: Callable[[], np.ndarray | None], n: int) -> float:
    """Return scenes a second of a loop, over ``n`` scenes kept in memory; ``None`` is an image that was dropped."""
    kept: list[np.ndarray] = []
    start = time.perf_counter()
    while len(kept) < n:
        image = draw_one()
        if image is not None:
            kept.append(image)
    return n / (time.perf_counter() - start)


def digits_scene(images: np.ndarray, counts: list[int], rng: np.random.Generator) -> np.ndarray:
    count = int(rng.choice(counts))
    while True:
        canvas = np.zeros((50, 50))
        for _ in range(count):
            side = int(28 / rng.normal(1.3, 0.1))
            digit = Image.fromarray(images[rng.integers(len(images))])
            patch = np.asarray(digit.resize((side, side), Image.Resampling.BILINEAR))
            top, left = rng.integers(50 - side, size=2)
            canvas += np.pad(patch, ((top, 50 - side - top), (left, 50 - side - left)))
        if canvas.max() <= 255:
            return canvas


def sprites_scene(
    patches: np.ndarray, canvas: int, counts: list[int], overlap: bool, rng: np.random.Generator
) -> np.ndarray | None:
    image = np.zeros((canvas, canvas, 3), np.int64)
    taken = np.zeros((canvas, canvas), bool)
    for _ in range(counts[rng.integers(len(counts))]):
        patch = patches[rng.integers(len(patches))]
        for _ in range(1 if overlap else 100):
            top, left = rng.integers(canvas - SIDE + 1, size=2)
            square = (slice(top, top + SIDE), slice(left, left + SIDE))
            if overlap or not taken[square].any():
                break
        else:
            return None
        image[square] += patch
        taken[square] = True
    return np.clip(image, 0, 255).astype(np.uint8)


def sprite_patches() -> np.ndarray:
    """Return our three sprites as the peer keeps them, uint8 ``[3, 20, 20, 3]``."""
    masks = np.stack([sprite_mask(shape, SIDE) for shape in range(3)])
    return (255 * masks[..., None] * COLOURS[:, None, None]).astype(np.uint8)


# -- ours


def ours(name: str, settings: Mapping[str, object], n: int, workers: int, folder: str) -> tuple[float, int]:
    """Return scenes a second of ``mobj generate`` into a new folder, and the bytes written."""
    plan = Plan.create(name, settings, splits={"train": n})
    with tempfile.TemporaryDirectory(dir=folder) as out:
        start = time.perf_counter()
        generate(plan, Path(out), workers=workers)
        seconds = time.perf_counter() - start
        return n / seconds, sum(file.stat().st_size for file in Path(out).iterdir())


def disk(size: int, folder: str) -> float:
    """Return the seconds in which the disk takes as many bytes, written plainly and synchronised once."""
    block = np.random.default_rng(0).bytes(1 << 24)
    with tempfile.TemporaryFile(dir=folder) as file:
        start = time.perf_counter()
        for begin in range(0, size, len(block)):
            file.write(block[: size - begin])
        file.flush()
        os.fsync(file.fileno())
        return time.perf_counter() - start


def compare(
    title: str, slow: float, name: str, settings: Mapping[str, object], arguments: argparse.Namespace
) -> None:
    """Print scenes a second of the peer and ours: with new workers, with the same again, with one process."""
    n, folder = arguments.scenes, arguments.folder
    new, size = ours(name, settings, n, arguments.workers, folder)
    warm, _ = ours(name, settings, n, arguments.workers, folder)
    one, _ = ours(name, settings, n, 1, folder)
    limit = n / disk(size, folder)
    print(f"{title}: {new:,.0f} scenes/s against {slow:,.0f} scenes/s, ratio {new / slow:.1f}")
    print(
        f"  the same {arguments.workers} workers again {warm:,.0f}/s, ratio {warm / slow:.1f}; "
        f"one process {one:,.0f}/s: {arguments.workers} workers are {warm / one:.2f} times as fast"
    )
    print(
        f"  {size / n / 1e3:.1f} kB a scene, of which the disk alone takes {limit:,.0f} scenes/s", flush=True
    )


def compare_digits(arguments: argparse.Namespace) -> None:
    digits = {"digits": "mnist", "digits_root": arguments.digits_root}
    images = load_digits("train", "mnist", arguments.digits_root).images
    rng = np.random.default_rng(0)
    for title, counts, overlap, sample in (
        ("0-2 digits, legacy rule", [0, 1, 2], {"overlap": False, "overlap_rule": "legacy"}, 4000),
        ("2 or 4 digits, exact", [2, 4], {"overlap": False}, 300),
    ):
        slow = peer(lambda: digits_scene(images, counts, rng), sample)  # noqa: B023  # called at once
        settings = {"counts": ",".join(map(str, counts)), **overlap, **digits}
        compare(title, slow, "multi-mnist", settings, arguments)


def compare_sprites(arguments: argparse.Namespace) -> None:
    patches, rng = sprite_patches(), np.random.default_rng(0)
    slow = peer(lambda: sprites_scene(patches, 64, [0, 1, 2], True, rng), 10_000)
    free = {"counts": "0-2", "canvas": 64, "overlap": True, **SPRITES}
    compare("0-2 sprites in 64x64x3, overlap free", slow, "sprites", free, arguments)
    slow = peer(lambda: sprites_scene(patches, 50, [4], False, rng), 300)
    for rule in ("boxes", "pixels"):
        crowded = {"counts": "4", "canvas": 50, "overlap_rule": rule, **SPRITES}
        compare(f"4 sprites in 50x50x3, no overlap of {rule}", slow, "sprites", crowded, arguments)


# -- memory


def print_memory(arguments: argparse.Namespace) -> None:
    """Print the largest resident memory of parent and workers for few scenes and for many."""
    for n in (10_000, 1_000_000):
        command = [sys.executable, __file__, "--one-run", str(n), "--workers", str(arguments.workers)]
        subprocess.run([*command, "--folder", arguments.folder], check=True)


def one_run(n: int, arguments: argparse.Namespace) -> None:
    speed, _ = ours("sprites", SMALL, n, arguments.workers, arguments.folder)
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)  # workers are counted once they have ended
    parent, worker = (
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(
        f"{n:,} scenes, {speed:,.0f}/s: parent {parent:.0f} MiB, largest worker {worker:.0f} MiB", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--of", choices=("sprites", "digits", "both"), default="both")
    parser.add_argument("--digits-root", help="folder of MNIST; otherwise it is downloaded")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scenes", type=int, default=200_000)
    parser.add_argument(
        "--folder", default=tempfile.gettempdir(), help="where shards are written, and removed"
    )
    parser.add_argument("--memory", action="store_true", help="measure memory at 10,000 and 1,000,000 scenes")
    parser.add_argument("--one-run", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one_run:
        one_run(arguments.one_run, arguments)
    elif arguments.memory:
        print_memory(arguments)
    else:
        print_speed(arguments)


def print_speed(arguments: argparse.Namespace) -> None:
    keep_freed_memory()  # as each worker does
    print(f"{arguments.workers} workers, {arguments.scenes:,} scenes on disk; each peer has one process")
    if arguments.of in ("sprites", "both"):
        compare_sprites(arguments)
    if arguments.of in ("digits", "both"):
        compare_digits(arguments)


if __name__ == "__main__":
    main()
