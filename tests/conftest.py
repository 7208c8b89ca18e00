import gzip
import os
import struct
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from multiobj_data.generation.plan import Plan
from multiobj_data.generation.running import generate

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests are small: threads that wait for each other cost more
for name in ("MOBJ_DIGITS_ROOT", "MOBJ_DSPRITES_FILE"):
    os.environ.pop(name, None)  # tests use the bundled digits; those that want real files ask for them


@pytest.fixture(scope="session")
def mnist_root() -> str:
    """A folder with the real MNIST, or skip."""
    root = os.environ.get("MOBJ_TEST_MNIST")
    if not root:
        pytest.skip("real MNIST is not at hand (set MOBJ_TEST_MNIST to its folder)")
    return root


@pytest.fixture(scope="session")
def small_plan() -> Plan:
    """700 train and 300 test scenes of 2 or 4 digits without overlap, in shards of 256."""
    settings = {"counts": "2,4", "overlap": False, "digits": "bundled", "amodal": True}
    return Plan.create("multi-mnist", settings, seed=5, splits={"train": 700, "test": 300}, shard_rows=256)


@pytest.fixture(scope="session")
def small_dataset(small_plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `small_plan`; tests must not change it."""
    folder = tmp_path_factory.mktemp("data") / "small"
    generate(small_plan, folder)
    return folder


# -- files of public sets, written by struct, zlib and google-crc32c alone


class PublicFiles:
    """Writes TFRecord files as DeepMind's are: each scene an image and one mask an entity, background first."""

    def scenes(self, n, size, entities, seed, *, background=1, boxes=None):
        """Draw rectangles: images [n, h, w, 3], labels [n, h, w], counts [n]. ``boxes`` fixes them, else chance."""
        rng = np.random.default_rng(seed)
        labels = np.zeros((n, *size), np.uint8)
        images, counts = rng.integers(0, 256, (n, *size, 3), np.uint8), np.zeros(n, int)
        for scene, label in enumerate(labels):
            label[size[0] // 2 :] = background - 1
            label[:, size[1] // 2 :][: size[0] // 2] = max(background - 2, 0)
            for low in range(2, background - 1):
                label[:3, : low + 3] = low - 1
            listed = boxes[scene] if boxes else self.rectangles(rng, size, entities - background)
            for k, (x0, y0, x1, y1) in enumerate(listed):
                label[y0:y1, x0:x1] = background + k
            counts[scene] = len(listed)
        return images, labels, counts

    def rectangles(self, rng, size, most):
        """Up to ``most`` rectangles, side by side, so that all are visible."""
        width = size[1] // most
        corners = rng.integers(1, 4, (rng.integers(1, most + 1), 4))
        return [
            (k * width + a // 2, 8 + b, k * width + 3 + c, 15 + d) for k, (a, b, c, d) in enumerate(corners)
        ]

    def write(self, path, images, labels, entities, factors=lambda scene: {}, compressed=True):
        """Write scenes; ``factors`` gives a scene's others: name -> float values, or uint8 codes."""
        content = b""
        for scene in range(len(images)):
            masks = 255 * (labels[scene] == np.arange(entities)[:, None, None]).astype(np.uint8)
            values = {"image": images[scene], "mask": masks, **factors(scene)}
            example = b"".join(self._feature(name, value) for name, value in values.items())
            payload = self._delimited(1, example)
            length = struct.pack("<Q", len(payload))
            content += length + self._crc(length) + payload + self._crc(payload)
        path.write_bytes(gzip.compress(content, 1, mtime=0) if compressed else content)

    def tetrominoes(self, path, n=60, seed=0):
        """Write a file of Tetrominoes' layout; return images, labels and counts."""
        images, labels, counts = self.scenes(n, (35, 35), 4, seed)

        def factors(scene):
            there = np.arange(4) <= counts[scene]
            values = {name: scene + np.arange(4) / 8 for name in ("x", "y", "shape")}
            return {**values, "visibility": there.astype(float), "color": np.full(12, scene / 256)}

        self.write(path, images, labels, 4, factors)
        return images, labels, counts

    def objects_room(self, path, n=40, seed=0, entities=7):
        """Write a file of Objects Room's layout, four backgrounds; return images, labels and counts."""
        images, labels, counts = self.scenes(n, (64, 64), entities, seed, background=4)
        self.write(path, images, labels, entities)
        return images, labels, counts

    def clevr(self, path, boxes, seed=0):
        """Write a file of CLEVR's layout: ``boxes`` are each scene's rectangles (x0, y0, x1, y1)."""
        images, labels, counts = self.scenes(len(boxes), (240, 320), 11, seed, boxes=boxes)

        def factors(scene):
            there = np.arange(11) <= counts[scene]
            names = ("x", "y", "z", "rotation")
            floats = {name: 100 * scene + np.arange(11.0) for name in names}
            codes = {name: there.astype(np.uint8) for name in ("size", "material", "shape", "color")}
            return {**floats, **codes, "visibility": there.astype(float), "pixel_coords": np.arange(33.0)}

        self.write(path, images, labels, 11, factors)
        return images, labels, counts

    def _feature(self, name, values):
        if values.dtype == np.uint8:
            listed = np.insert(values.reshape(-1, 1), 0, [[0x0A], [1]], axis=1).tobytes()
            value = self._delimited(1, listed)
        else:
            value = self._delimited(2, self._delimited(1, values.astype("<f4").tobytes()))
        return self._delimited(1, self._delimited(1, name.encode()) + self._delimited(2, value))

    def _delimited(self, number, content):
        size, head = len(content), [number << 3 | 2]
        while size > 0x7F:
            head.append(size & 0x7F | 0x80)
            size >>= 7
        return bytes([*head, size]) + content

    def _crc(self, data):
        value = google_crc32c.value(data)
        return struct.pack("<I", (value >> 15 | value << 17) + 0xA282EAD8 & 0xFFFFFFFF)


@pytest.fixture(scope="session")
def public_files() -> PublicFiles:
    return PublicFiles()
