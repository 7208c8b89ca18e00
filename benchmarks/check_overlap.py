"""Count scenes in which two digits light the same pixel, with nothing of this toolkit: h5py, NumPy and Pillow only.

Twice: from the stored amodal masks, and by pasting each digit again from its stored source index, side and
position, which must also give the stored image. Scenes must have been made with ``--set amodal=true``, from
MNIST, with the default filter and grey levels.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

FILES = {"train": "train-images-idx3-ubyte.gz", "test": "t10k-images-idx3-ubyte.gz"}


def lit_twice_by_masks(file: h5py.File) -> int:
    masks, count = file["amodal"], 0
    for start in range(0, len(masks), 512):
        bits = np.unpackbits(masks[start : start + 512], axis=-1, count=int(masks.attrs["width"]))
        count += int((bits.sum(1) > 1).any((1, 2)).sum())
    return count


def lit_twice_by_pasting(file: h5py.File, digits: np.ndarray, every: int) -> tuple[int, int]:
    images = file["image"][:, :, :, 0]
    factors = {name: file["factors"][name][:] for name in ("source_index", "side", "x", "y")}
    bad = checked = 0
    for i in range(0, len(images), every):
        layers = np.zeros((int(file["count"][i]), *images.shape[1:]), int)
        for k, layer in enumerate(layers):
            source, side, x, y = (factors[name][i, k] for name in ("source_index", "side", "x", "y"))
            left, top = int(x - side / 2), int(y - side / 2)
            patch = Image.fromarray(digits[source]).resize((side, side), Image.Resampling.BILINEAR)
            layer[top : top + side, left : left + side] = np.asarray(patch)
        if not np.array_equal(np.minimum(layers.sum(0), 255), images[i]):
            raise SystemExit(f"{file.filename}: image {i} is not what its factors say.")
        bad += bool(((layers > 0).sum(0) > 1).any())
        checked += 1
    return bad, checked


def find(root: Path, name: str) -> Path:
    for folder in (root, root / "raw", root / "MNIST" / "raw"):
        if (folder / name).is_file():
            return folder / name
    raise SystemExit(
        f"--digits-root {root}: expected MNIST's {name} there, in raw or in MNIST/raw; there is none."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--digits-root", type=Path, required=True)
    parser.add_argument("--every", type=int, default=7, help="paste every n-th scene again")
    arguments = parser.parse_args()
    for split, name in FILES.items():
        raw = gzip.decompress(find(arguments.digits_root, name).read_bytes())
        digits = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28)
        masks = scenes = pasted = checked = 0
        for path in sorted(arguments.dataset.glob(f"{split}-*.h5")):
            with h5py.File(path) as file:
                scenes += len(file["image"])
                masks += lit_twice_by_masks(file)
                bad, more = lit_twice_by_pasting(file, digits, arguments.every)
                pasted, checked = pasted + bad, checked + more
        print(
            f"{split}: {masks} of {scenes:,} scenes by their masks, {pasted} of {checked:,} by pasting again"
        )


if __name__ == "__main__":
    main()
