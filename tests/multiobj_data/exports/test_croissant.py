"""What we write is valid Croissant, and mlcroissant finds the scenes by it; in a process of its own, which may warn."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from multiobj_data.errors import UsageError
from multiobj_data.exports.formats import export
from multiobj_data.files import sha256_of
from multiobj_data.loading import open_dataset

pytest.importorskip("mlcroissant")
pytest.importorskip("pyarrow")

FORMATS = ["parquet", "webdataset", "tfds", "npz", "coco", "croissant"]
READ = """
import json, sys
import numpy as np
import mlcroissant as mlc

def plain(value):
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else np.asarray(value).tolist()

out = {}
for folder in sys.argv[1:]:
    dataset = mlc.Dataset(jsonld=f"{folder}/croissant.json")
    issues = dataset.metadata.ctx.issues
    sets = {s.uuid: [{k: plain(v) for k, v in r.items()} for r in dataset.records(s.uuid)]
            for s in dataset.metadata.record_sets}
    out[folder] = {"issues": sorted(map(str, issues.errors | issues.warnings)), "records": sets}
print(json.dumps(out))
"""
ROWS = 7


@pytest.fixture(scope="module")
def folders(small_dataset, tmp_path_factory):
    root = tmp_path_factory.mktemp("croissant")
    for name in FORMATS[:-1]:
        export(small_dataset, name, root / name, limit=ROWS, licence="CC0-1.0")
    (root / "croissant").mkdir()
    for path in (*small_dataset.glob("*.h5"), small_dataset / "dataset.json"):
        os.link(path, root / "croissant" / path.name)
    export(root / "croissant", "croissant", licence="CC0-1.0")
    return {name: root / name for name in FORMATS}


@pytest.fixture(scope="module")
def read(folders, tmp_path_factory):
    """What mlcroissant says of each folder: issues, and every record of every set."""
    cache = str(tmp_path_factory.mktemp("cache"))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READ, *map(str, folders.values())],
        env={**os.environ, "CROISSANT_CACHE": cache},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout)
    return {name: answer[str(folder)] for name, folder in folders.items()}


@pytest.mark.parametrize("name", FORMATS)
def test_mlcroissant_has_nothing_to_say_against_it(name, read):
    assert read[name]["issues"] == []


def test_records_of_parquet_are_the_scenes(read, small_dataset):
    records = read["parquet"]["records"]
    assert {name: len(rows) for name, rows in records.items()} == {"train": ROWS, "test": ROWS}
    scenes = open_dataset(small_dataset, "test").scenes(np.arange(ROWS))
    for b, row in enumerate(records["test"]):
        assert (row["test/index"], row["test/count"]) == (b, scenes.count[b])
        np.testing.assert_array_equal(row["test/image"], scenes.image[b, ..., 0])
        np.testing.assert_array_equal(row["test/segments"], scenes.segments[b])
        np.testing.assert_array_equal(row["test/amodal"], scenes.amodal[b])
        np.testing.assert_array_equal(np.float32(row["test/boxes"]), scenes.boxes[b])
        for name, values in scenes.factors.items():
            np.testing.assert_array_equal(np.array(row[f"test/factors/{name}"], values.dtype), values[b])


def test_records_of_webdataset_are_the_members(read, small_dataset):
    records = read["webdataset"]["records"]
    scenes = open_dataset(small_dataset, "train").scenes(np.arange(ROWS))
    for b in range(ROWS):
        assert int(records["train-image"][b]["train-image/key"]) == b
        np.testing.assert_array_equal(records["train-image"][b]["train-image/image"], scenes.image[b, ..., 0])
        np.testing.assert_array_equal(
            records["train-segments"][b]["train-segments/segments"], scenes.segments[b]
        )
        assert json.loads(records["train-truth"][b]["train-truth/truth"])["count"] == scenes.count[b]


def test_records_of_coco_are_images_and_annotations(read, small_dataset):
    records = read["coco"]["records"]
    scenes = open_dataset(small_dataset, "train").scenes(np.arange(ROWS))
    grey = np.array(records["train-images"][ROWS - 1]["train-images/image"])[..., 0]  # read as RGB
    np.testing.assert_array_equal(grey, scenes.image[ROWS - 1, ..., 0])
    areas = [row["train-annotations/area"] for row in records["train-annotations"]]
    assert sum(areas) == (scenes.segments > 0).sum()


def test_records_beside_shards_list_the_shards(read, folders):
    shards = read["croissant"]["records"]["shards"]
    assert {row["shards/file"] for row in shards} == {path.name for path in folders["croissant"].glob("*.h5")}
    assert sum(row["shards/rows"] for row in shards) == 1000


@pytest.mark.parametrize("name", FORMATS)
def test_every_file_is_listed_with_its_bytes(name, folders):
    document = json.loads((folders[name] / "croissant.json").read_text())
    objects = [part for part in document["distribution"] if part["@type"] == "cr:FileObject"]
    for part in objects:
        path = folders[name] / part["contentUrl"]
        assert (part["sha256"], part["contentSize"]) == (sha256_of(path), f"{path.stat().st_size} B")
    ours = {"README.md", "croissant.json", "export.json"}
    there = {
        path.relative_to(folders[name]).as_posix() for path in folders[name].rglob("*") if path.is_file()
    }
    assert {part["contentUrl"] for part in objects} == {n for n in there - ours if not n.endswith(".png")}
    assert document["license"] == "https://spdx.org/licenses/CC0-1.0.html"


def test_the_hub_reads_the_cards_header(folders):
    hub = pytest.importorskip("huggingface_hub")
    for name, folder in folders.items():
        data = hub.DatasetCard.load(folder / "README.md").data
        assert data.license == "cc0-1.0"
        assert data.size_categories == ["1K<n<10K" if name == "croissant" else "n<1K"]
        assert ("configs" in data.to_dict()) == (name in ("parquet", "webdataset"))


def test_croissant_writes_over_its_own_files_alone(folders):
    folder = folders["croissant"]
    before = (folder / "croissant.json").read_bytes()
    export(folder, "croissant", licence="CC0-1.0")
    assert (folder / "croissant.json").read_bytes() == before
    own = (folder / "README.md").read_text()
    (folder / "README.md").write_text("my notes")
    with pytest.raises(UsageError, match="README.md was not written by this command"):
        export(folder, "croissant")
    (folder / "README.md").write_text(own)
    with pytest.raises(UsageError, match="leave the limit out"):
        export(folder, "croissant", limit=3)
