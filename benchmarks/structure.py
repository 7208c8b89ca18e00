"""Calibration of structure accuracy on `towers`, whose physics is known.

    python benchmarks/structure.py [--scenes 1000] [--seed 2] [--canvas 64] [--shapestacks DIR] [--picture FILE]

Three tables, the same for the same seed. *True label maps*: how many towers pass, standing or not (blocks touch either
way), and how well the strict tests agree with the physics. *One block moved* by d pixels, drawn as a camera would
see it (what it hid comes into view), and cut out (its visible pixels moved, a hole left, as a poor sample might
look). *Blocks anywhere*: every block at a random place. The defaults of `StructureRule` were chosen on seed 1.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from metrics.structure.samples import wilson_interval
from metrics.structure.verdicts import REASONS, structure_accuracy, structure_report
from multiobj_data.generators.towers import Towers
from multiobj_data.scenes import Scenes, known

FAILURES = {0: "stands", 1: "centre of mass off", 2: "lies on a ball"}
PALETTE = np.array(
    [
        [24, 24, 24],
        [230, 70, 60],
        [70, 190, 80],
        [80, 110, 240],
        [240, 210, 60],
        [200, 80, 220],
        [70, 210, 220],
    ]
)


def towers(n: int, seed: int, canvas: int) -> Scenes:
    return Towers(canvas=canvas).scenes(np.random.default_rng(seed), n)


def kappa(a: np.ndarray, b: np.ndarray) -> float:
    """Cohen's kappa of two yes-no judgements."""
    by_chance = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    return float(((a == b).mean() - by_chance) / (1 - by_chance))


# -- what a moved block looks like


def paint(masks: np.ndarray, order: list[int]) -> np.ndarray:
    """Return the label map ``[H, W]`` of blocks ``[n, H, W]`` painted in this order."""
    labels = np.zeros(masks.shape[1:], np.uint8)
    for k in order:
        labels[masks[k]] = k + 1
    return labels


def depth_order(masks: np.ndarray, labels: np.ndarray) -> tuple[list[int], int]:
    """Return the order in which a tower's blocks must be painted, and in how many pixels that differs from the truth.

    Contacts are level, so that the block at the camera's height is nearest, and towards both ends each hides the next.
    """
    n = len(masks)
    orders = [[*range(top), *reversed(range(top, n))] for top in range(n)]
    wrong = [int((paint(masks, order) != labels).sum()) for order in orders]
    return orders[int(np.argmin(wrong))], min(wrong)


def shifted(mask: np.ndarray, right: int, up: int) -> np.ndarray:
    """Return a mask ``[H, W]`` moved; what leaves the picture is lost."""
    h, w = mask.shape
    moved = np.zeros_like(mask)
    y, x = np.nonzero(mask)
    y, x = y - up, x + right
    inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
    moved[y[inside], x[inside]] = True
    return moved


def move_one(scenes: Scenes, i: int, k: int, right: int, up: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scene i with block k moved: as seen, and cut out."""
    n = int(scenes.count[i])
    masks, labels = known(scenes.amodal)[i, :n].copy(), scenes.segments[i]
    order, _ = depth_order(masks, labels)
    masks[k] = shifted(masks[k], right, up)
    cut = np.where(labels == k + 1, 0, labels)
    cut[shifted(labels == k + 1, right, up)] = k + 1
    return paint(masks, order), cut.astype(np.uint8)


def moved(scenes: Scenes, direction: str, d: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return all scenes with one block moved: as seen, and cut out, ``[B, H, W]`` each.

    The lowest block is not lifted: label maps do not tell where the ground is.
    """
    pairs = []
    for i in range(len(scenes)):
        n = int(scenes.count[i])
        if direction == "up":
            pairs.append(move_one(scenes, i, int(rng.integers(1, n)), 0, d))
        else:
            pairs.append(move_one(scenes, i, int(rng.integers(n)), int(rng.choice([-d, d])), 0))
    seen, cut = zip(*pairs, strict=True)
    return np.stack(seen), np.stack(cut)


def anywhere(scenes: Scenes, rng: np.random.Generator) -> np.ndarray:
    """Return label maps in which every block is at a random place, ``[B, H, W]``."""
    maps = []
    for i in range(len(scenes)):
        masks = known(scenes.amodal)[i, : int(scenes.count[i])]
        h, w = masks.shape[1:]
        placed = []
        for mask in masks:
            y, x = np.nonzero(mask)
            right, down = rng.integers(-x.min(), w - x.max()), rng.integers(-y.min(), h - y.max())
            placed.append(shifted(mask, int(right), -int(down)))
        maps.append(paint(np.stack(placed), list(range(len(masks)))))
    return np.stack(maps)


# -- tables


def share(passed: np.ndarray) -> str:
    low, high = wilson_interval(int(np.nansum(passed)), len(passed))
    return f"{100 * np.nansum(passed) / len(passed):5.1f} [{100 * low:4.1f}, {100 * high:5.1f}]"


def print_agreement(scenes: Scenes) -> None:
    start = time.perf_counter()
    plain, strict = (structure_accuracy(scenes.segments, strict=strict) for strict in (False, True))
    took = (time.perf_counter() - start) / 2 / len(scenes)
    stable, violation = scenes.scene_factors["stable"] == 1, scenes.scene_factors["violation"]
    print(f"true label maps, {len(scenes)} towers             plain % [95 %]        strict % [95 %]")
    for code, name in FAILURES.items():
        chosen = violation == code
        print(f"  pass, {name:32s} {share(plain[chosen]):21s} {share(strict[chosen])}")
    for name, chosen in {
        "all": violation >= 0,
        "stands or centre of mass": violation != 2,
        "stands or on a ball": violation != 1,
    }.items():
        ours, true = strict[chosen] == 1, stable[chosen]
        figures = f"accuracy {(ours == true).mean():.3f}, kappa {kappa(ours, true):.3f}"
        print(f"  strict against physics, {name:26s} {figures}")
    print(f"  why, strict: {structure_report(scenes.segments, strict=True).count_reasons()}")
    print(f"  {1e3 * took:.2f} ms an image\n")


def print_curve(scenes: Scenes, seed: int) -> None:
    wrong = [
        depth_order(known(scenes.amodal)[i, :n], scenes.segments[i])[1] for i, n in enumerate(scenes.count)
    ]
    print(f"one block moved by d pixels: % that fail ({len(scenes)} towers that stand;")
    print(f"  painting reproduces {100 * np.mean(np.array(wrong) == 0):.1f} % of the label maps exactly)")
    print("                             sideways                        up")
    print("                    as seen        cut out         as seen        cut out")
    print("   d            plain strict   plain strict    plain strict   plain strict")
    for d in range(9):
        cells = []
        for direction in ("sideways", "up"):
            maps = moved(scenes, direction, d, np.random.default_rng([seed, d]))
            cells += [
                100 - 100 * np.nanmean(structure_accuracy(m, strict=s)) for m in maps for s in (False, True)
            ]
        a, b, c, e, f, g, h, i = cells
        print(f"   {d}            {a:7.1f}{b:7.1f} {c:7.1f}{e:7.1f}  {f:7.1f}{g:7.1f} {h:7.1f}{i:7.1f}")
    maps = anywhere(scenes, np.random.default_rng([seed, 99]))
    print(f"every block anywhere: {share(structure_accuracy(maps))} % pass (plain)\n")


def print_shapestacks(folder: Path) -> None:
    from multiobj_data.loaders.shapestacks import CROP, ShapeStacks, decode

    for raw in (decode(item, crop=CROP) for item in ShapeStacks(folder, split="all", maps="vseg").items()):
        whole = raw.segments[None]
        small = whole[:, 1::3, 1::3][:, :64, :64]  # 196 -> 65 -> 64 pixels
        for size, maps in {"196x196": whole, "64x64": small}.items():
            found = structure_report(maps, strict=True)
            camera, stable = (int(raw.scene_factors[name]) for name in ("camera", "stable"))
            verdict = f"{REASONS[int(found.reason[0])]} ({int(found.blocks[0])} labels)"
            print(f"ShapeStacks, camera {camera}, roles, {size}: {verdict}, stable {stable}")


def write_picture(path: Path, scenes: Scenes, seed: int, each: int = 6) -> None:
    """Write examples of every reason, strict mode: true, moved and scattered towers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rng = np.random.default_rng([seed, 100])
    parts = [
        scenes.segments,
        anywhere(scenes, rng),
        moved(scenes, "up", 5, rng)[1],
        moved(scenes, "sideways", 7, rng)[0],
    ]
    maps = np.concatenate(parts)
    maps = maps[rng.permutation(len(maps))]
    maps[::40] = np.where(maps[::40] > 1, 0, maps[::40])  # one block left
    reason = structure_report(maps, strict=True).reason
    rows = [code for code in range(len(REASONS)) if (reason == code).any()]
    figure, axes = plt.subplots(len(rows), each, figsize=(1.5 * each, 1.6 * len(rows)), squeeze=False)
    for row, code in zip(axes, rows, strict=True):
        chosen = maps[reason == code][:each]
        for axis in row:
            axis.set_axis_off()
        for axis, labels in zip(row, chosen, strict=False):
            axis.imshow(PALETTE[labels])
        row[0].set_title(REASONS[code], loc="left", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    print(f"wrote {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--canvas", type=int, default=64)
    parser.add_argument(
        "--shapestacks", type=Path, help="folder with ShapeStacks' recordings and their roles (vseg)"
    )
    parser.add_argument("--picture", type=Path, help="where to write examples of each reason")
    options = parser.parse_args()
    scenes = towers(options.scenes, options.seed, options.canvas)
    print_agreement(scenes)
    print_curve(scenes[np.flatnonzero(scenes.scene_factors["stable"] == 1)], options.seed)
    if options.shapestacks:
        print_shapestacks(options.shapestacks)
    if options.picture:
        write_picture(options.picture, scenes, options.seed)


if __name__ == "__main__":
    main()
