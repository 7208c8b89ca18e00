"""Every export is read back with the library that it is for, and compared with the shards."""

import gc
import io
import json
import logging
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multiobj_data.errors import DataError, UsageError
from multiobj_data.exports import subset
from multiobj_data.exports.formats import export
from multiobj_data.exports.rle import encode
from multiobj_data.exports.subset import columns_of, json_values
from multiobj_data.files import sha256_of
from multiobj_data.generation.plan import Plan
from multiobj_data.generation.running import generate
from multiobj_data.generation.verification import differences
from multiobj_data.loading import GeneratedScenes, open_dataset
from multiobj_data.rendering.bodies import SHAPES
from multiobj_data.scenes import Scenes
from multiobj_data.shards.hdf5 import config_attributes, encode_shard, shard_name
from multiobj_data.shards.manifest import Manifest, ShardRecord, SplitRecord

WITH_FOLDER = ["parquet", "webdataset", "tfds", "npz", "coco"]


def rectangles(rng, n, *, amodal=True):
    """Scenes of up to three rectangles on four background parts, in colour, with factors of many dtypes."""
    h, w, k, parts = 20, 24, 3, 4
    count = rng.integers(0, k + 1, n)
    count[0] = k
    segments = np.broadcast_to((np.arange(w) * parts // w).astype(np.uint8), (n, h, w)).copy()
    own = np.zeros((n, k, h, w), bool)
    boxes = np.full((n, k, 4), np.nan, np.float32)
    for b in range(n):
        for j in range(count[b]):
            x, y = rng.integers(0, w - 8), rng.integers(0, h - 8)
            x1, y1 = x + rng.integers(2, 8), y + rng.integers(2, 8)
            if b == 0:  # the last object hides the others
                x, y, x1, y1 = (4, 4, 9, 9) if j < k - 1 else (3, 2, 12, 11)
            own[b, j, y:y1, x:x1] = True
            boxes[b, j] = x, y, x1, y1
            segments[b][own[b, j]] = parts + j
    there = np.arange(k) < count[:, None]
    colour = np.where(there[..., None], rng.random((n, k, 3)), np.nan)
    factors = {
        "class": np.where(there, rng.integers(0, 5, (n, k)), -1).astype(np.int16),
        "colour": colour,  # float64 [B, K, 3]
        "round": there & (rng.random((n, k)) < 0.5),
        "seed": rng.integers(0, 2**64, (n, k), np.uint64),
        "x": np.where(there, boxes[..., 0], np.nan).astype(np.float32),
    }
    light = rng.random((n, 2)).astype(np.float32)
    light[-1] = np.nan
    return Scenes(
        image=rng.integers(0, 256, (n, h, w, 3), np.uint8),
        count=count,
        segments=segments,
        boxes=boxes,
        background_segments=parts,
        factors=factors,
        scene_factors={"light": light, "stable": rng.integers(-1, 2, n).astype(np.int8)},
        amodal=own if amodal else None,
    )


def store(folder: Path, splits: dict[str, Scenes], rows=5):
    """Write scenes as shards of five, as another program might."""
    folder.mkdir()
    records = {}
    for split, scenes in splits.items():
        shards = []
        for number, first in enumerate(range(0, len(scenes), rows)):
            part = scenes[first : first + rows]
            path = folder / shard_name(split, number, -(-len(scenes) // rows))
            path.write_bytes(encode_shard([part], config_attributes("boxes-v2", split, first, {})))
            shards.append(ShardRecord(path.name, first, len(part), sha256_of(path)))
        records[split] = SplitRecord(len(scenes), shards)
    first = next(iter(splits.values()))
    shape, k = first.image.shape[1:], first.boxes.shape[1]
    Manifest("boxes-v2", "elsewhere:Boxes", {}, 3, shape, k, {}, rows, records, "0.1.0").write(folder)
    return folder


@pytest.fixture(scope="module")
def boxes(tmp_path_factory):
    rng = np.random.default_rng(0)
    splits = {"train": rectangles(rng, 12), "test-ood": rectangles(rng, 4)}
    return store(tmp_path_factory.mktemp("boxes") / "boxes", splits)


@pytest.fixture(scope="module")
def exported(boxes, tmp_path_factory):
    """Every export of `boxes`, by format; made when it is first asked for."""
    root, made = tmp_path_factory.mktemp("exports"), {}

    def of(name):
        if name not in made:
            made[name] = Path(export(boxes, name, root / name).folder)
        return made[name]

    return of


# -- reading back: each returns rows of {"image", "segments", "amodal", name: value}


def read_parquet(folder, split, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.utils.logging, "_tqdm_active", False, raising=False)
    for row in datasets.load_dataset(str(folder), split=split.replace("-", "_"), cache_dir=str(tmp_path)):
        pictures = {name: np.asarray(row.pop(name)) for name in ("image", "segments")}
        yield pictures | {"amodal": np.stack(row.pop("amodal"))} | flat(row)


def read_webdataset(folder, split, tmp_path, monkeypatch):
    webdataset = pytest.importorskip("webdataset")
    urls = sorted(map(str, folder.glob(f"{split.replace('-', '_')}-*.tar")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset does not close its files
        rows = list(webdataset.WebDataset(urls, shardshuffle=False))
        gc.collect()
    for row in rows:
        pictures = {name: np.asarray(Image.open(io.BytesIO(row[key]))) for name, key in MEMBERS.items()}
        k = len(pictures["amodal"]) // len(pictures["image"])
        pictures["amodal"] = pictures["amodal"].reshape(k, *pictures["segments"].shape)
        yield pictures | flat(json.loads(row["json"]))


MEMBERS = {"image": "png", "segments": "seg.png", "amodal": "amodal.png"}


def read_tfds(folder, split, tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    logging.getLogger("absl").setLevel(logging.ERROR)  # it recommends OpenCV
    builder = tfds.builder_from_directory(folder)
    for row in builder.as_data_source(split.replace("-", "_")):
        row["segments"] = row["segments"][..., 0]
        row["image"] = row["image"][..., 0] if row["image"].shape[-1] == 1 else row["image"]
        yield flat(row)


def read_npz(folder, split, tmp_path, monkeypatch):
    with np.load(folder / f"{split.replace('-', '_')}.npz", allow_pickle=False) as file:
        arrays = dict(file)
    for b in range(len(arrays["image"])):
        yield {name: values[b] for name, values in arrays.items()}


READERS = {
    "parquet": read_parquet,
    "webdataset": read_webdataset,
    "tfds": read_tfds,
    "npz": read_npz,
}


def flat(row):
    out = {}
    for name, value in row.items():
        out |= {f"{name}/{n}": v for n, v in value.items()} if isinstance(value, dict) else {name: value}
    return out


def truth(folder, split, n=None):
    source = open_dataset(folder, split)
    indices = np.arange(len(source) if n is None else n)
    return indices, source.scenes(indices)


@pytest.mark.parametrize("split", ["train", "test-ood"])
@pytest.mark.parametrize("name", READERS)
def test_all_of_the_truth_survives(name, split, boxes, exported, tmp_path, monkeypatch):
    rows = list(READERS[name](exported(name), split, tmp_path, monkeypatch))
    indices, scenes = truth(boxes, split)
    expected = columns_of(indices, scenes)
    expected |= {"image": scenes.image, "segments": scenes.segments, "amodal": scenes.amodal}
    assert len(rows) == len(indices)
    for b, row in enumerate(rows):
        assert set(row) == set(expected)
        for column, values in expected.items():
            np.testing.assert_array_equal(np.array(row[column], values.dtype), values[b], err_msg=column)


@pytest.mark.parametrize("name", ["tfds", "npz"])
def test_array_formats_keep_dtypes(name, boxes, exported, tmp_path, monkeypatch):
    row = next(iter(READERS[name](exported(name), "train", tmp_path, monkeypatch)))
    for column, values in columns_of(*truth(boxes, "train")).items():
        if values.ndim > 1:
            assert row[column].dtype == values.dtype, column
            assert row[column].shape == values.shape[1:], column


@pytest.mark.parametrize("name", READERS)
def test_grey_digits_and_a_limit(name, small_dataset, tmp_path, monkeypatch):
    done = export(small_dataset, name, tmp_path / "out", splits=["test"], limit=9)
    assert done.request["splits"] == {"test": 9}
    rows = list(READERS[name](tmp_path / "out", "test", tmp_path / "cache", monkeypatch))
    _, scenes = truth(small_dataset, "test", 9)
    assert len(rows) == 9
    for b, row in enumerate(rows):
        np.testing.assert_array_equal(np.reshape(row["image"], scenes.image.shape[1:]), scenes.image[b])
        np.testing.assert_array_equal(np.array(row["boxes"], np.float32), scenes.boxes[b])


def test_tfds_knows_name_version_and_sizes(exported):
    tfds = pytest.importorskip("tensorflow_datasets")
    info = tfds.builder_from_directory(exported("tfds")).info
    assert (info.name, str(info.version)) == ("boxes", "2.0.0")
    assert info.splits["train"].shard_lengths == [5, 5, 2]
    assert info.splits["test_ood"].num_examples == 4


@pytest.mark.parametrize("name", WITH_FOLDER)
def test_scenes_without_amodal_masks_and_objects(name, tmp_path):
    scenes = rectangles(np.random.default_rng(1), 3, amodal=False)
    empty = Scenes(
        scenes.image, np.zeros(3, np.int64), np.zeros_like(scenes.segments), scenes.boxes[:, :0].copy()
    )
    done = export(store(tmp_path / "d", {"train": scenes}), name, tmp_path / name)
    assert "amodal_segmentation" not in (tmp_path / name / "README.md").read_text()
    assert "`amodal`" not in (tmp_path / name / "README.md").read_text()
    assert done.fresh
    assert export(store(tmp_path / "e", {"train": empty}), name, tmp_path / "empty").fresh


# -- COCO


def read_coco(folder, split):
    coco = pytest.importorskip("pycocotools.coco")
    return coco.COCO(str(folder / "annotations" / f"instances_{split}.json"))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools with NumPy 2
def test_coco_masks_boxes_and_factors(boxes, exported):
    pytest.importorskip("pycocotools")
    from pycocotools import mask as rle

    folder = exported("coco")
    coco = read_coco(folder, "train")
    hidden = json.loads((folder / "annotations" / "instances_train.json").read_text())["hidden_annotations"]
    indices, scenes = truth(boxes, "train")
    assert sorted(coco.imgs) == list(indices)
    assert {entry["image_id"] for entry in hidden} >= {0}
    for b in indices:
        image = coco.imgs[b]
        pixels = {
            kind: np.asarray(Image.open(folder / kind / "train" / image["file_name"]))
            for kind in ("images", "segments")
        }
        np.testing.assert_array_equal(pixels["images"], scenes.image[b])
        np.testing.assert_array_equal(pixels["segments"], scenes.segments[b])
        assert (image["count"], image["background_segments"]) == (scenes.count[b], 4)
        light = np.array(image["scene_factors"]["light"], np.float32)
        np.testing.assert_array_equal(light, scenes.scene_factors["light"][b])
        annotations = coco.imgToAnns[b] + [entry for entry in hidden if entry["image_id"] == b]
        assert sorted(entry["object"] for entry in annotations) == list(range(scenes.count[b]))
        for entry in annotations:
            k = entry["object"]
            mask = scenes.segments[b] == 4 + k
            np.testing.assert_array_equal(coco.annToMask(entry), mask)
            np.testing.assert_array_equal(rle.decode(entry["amodal_segmentation"]), scenes.amodal[b, k])
            assert entry["area"] == mask.sum() == rle.area(entry["segmentation"])
            np.testing.assert_array_equal(rle.toBbox(entry["segmentation"]), entry["bbox"])
            np.testing.assert_array_equal(rle.toBbox(entry["amodal_segmentation"]), entry["amodal_bbox"])
            assert coco.cats[entry["category_id"]]["name"] == str(scenes.factors["class"][b, k])
            for name, values in scenes.factors.items():
                np.testing.assert_array_equal(np.array(entry["factors"][name], values.dtype), values[b, k])


def test_cocos_own_evaluation_finds_the_truth_perfect(exported):
    pytest.importorskip("pycocotools")
    from pycocotools.cocoeval import COCOeval

    coco = read_coco(exported("coco"), "train")
    found = [
        {key: entry[key] for key in ("image_id", "category_id", "segmentation")} | {"score": 0.9}
        for entry in coco.anns.values()
    ]
    evaluation = COCOeval(coco, coco.loadRes(found), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == 1


def test_categories_have_the_generators_words(tmp_path):
    settings = {"counts": "1-2", "shapes": "heart,square"}
    plan = Plan.create("multi-dsprites", settings, splits={"train": 8, "test": 8}, shard_rows=8)
    generate(plan, tmp_path / "d")
    export(tmp_path / "d", "coco", tmp_path / "coco", splits=["test"])
    coco = read_coco(tmp_path / "coco", "test")
    assert {entry["id"]: entry["name"] for entry in coco.dataset["categories"]} == {2: "square", 4: "heart"}
    assert "Values: 1 square, 2 ellipse, 3 heart." in (tmp_path / "coco" / "README.md").read_text()
    _, scenes = truth(tmp_path / "d", "test")
    for entry in coco.anns.values():
        assert entry["category_id"] == scenes.factors["shape"][entry["image_id"], entry["object"]] + 1


def test_categories_do_not_depend_on_the_limit(boxes, exported, tmp_path):
    export(boxes, "coco", tmp_path / "one", limit=1)
    texts = [path / "annotations" / "instances_train.json" for path in (tmp_path / "one", exported("coco"))]
    one, all_scenes = (json.loads(path.read_text())["categories"] for path in texts)
    assert one == all_scenes


@pytest.mark.parametrize("fill", [0.0, 0.01, 0.5, 0.99, 1.0])
def test_run_lengths_equal_those_of_cocos_tools(fill):
    rle = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(7)
    for shape in [(1, 1), (3, 70), (200, 300)]:
        mask = rng.random(shape) < fill
        expected = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert encode(mask)["counts"] == expected["counts"].decode()


@pytest.mark.parametrize("name", WITH_FOLDER)
def test_two_exports_are_equal_byte_by_byte(name, boxes, exported, tmp_path, monkeypatch):
    if name != "parquet":  # there a batch is a row group
        monkeypatch.setattr(subset, "BATCH", 2)
    again = export(boxes, name, tmp_path / "again")
    record = json.loads((exported(name) / "export.json").read_text())
    assert again.files == record["files"]
    on_disk = {p.relative_to(tmp_path / "again").as_posix() for p in (tmp_path / "again").rglob("*.*")}
    assert on_disk - {"export.json"} == set(again.files)


def test_requests_that_cannot_be_met(boxes, tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'parquet'"):
        export(boxes, "parket", tmp_path / "out")
    with pytest.raises(UsageError, match="Did you mean 'train'"):
        export(boxes, "npz", tmp_path / "out", splits=["tarin"])
    with pytest.raises(UsageError, match="give one with --out"):
        export(boxes, "npz")
    with pytest.raises(UsageError, match="SPDX"):
        export(boxes, "npz", tmp_path / "out", licence="do as you like")
    with pytest.raises(DataError, match="no data set"):
        export(tmp_path / "nowhere", "npz", tmp_path / "out")
    five = rectangles(np.random.default_rng(3), 2)
    wide = Scenes(np.zeros((2, 20, 24, 5), np.uint8), five.count, five.segments, five.boxes, 4)
    with pytest.raises(DataError, match="1 to 4 channels, these scenes have 5; use --to npz"):
        export(store(tmp_path / "wide", {"train": wide}), "webdataset", tmp_path / "out")
    assert os.listdir(tmp_path) == ["wide"]


@pytest.mark.parametrize("name", WITH_FOLDER)
def test_scenes_without_objects_are_stored_and_exported(tmp_path, name):
    plan = Plan.create("rooms", {"counts": "0", "canvas": 32}, splits={"train": 3})
    generate(plan, tmp_path / "empty")
    stored = open_dataset(tmp_path / "empty", "train").scenes([2, 0])
    assert differences(stored, GeneratedScenes(plan, "train").scenes([2, 0])) == []
    assert stored.amodal.shape == (2, 0, 32, 32)
    export(tmp_path / "empty", name, tmp_path / name)


def test_a_number_of_a_scene_becomes_a_number_in_json():
    values = np.array([0.5, np.nan, np.inf], np.float32)
    assert [json_values(value) for value in values] == [0.5, None, None]
    assert json_values(values) == [0.5, None, None]


@pytest.mark.parametrize(("generator", "known"), [("rooms", SHAPES), ("towers", SHAPES[:3])])
def test_classes_of_bodies_keep_their_names(tmp_path, generator, known):
    plan = Plan.create(generator, {"canvas": 32}, splits={"train": 20})
    generate(plan, tmp_path / "d")
    export(tmp_path / "d", "coco", tmp_path / "coco")
    document = json.loads((tmp_path / "coco" / "annotations" / "instances_train.json").read_text())
    names = {category["id"]: category["name"] for category in document["categories"]}
    assert names == {number + 1: name for number, name in enumerate(known)}
    assert "Values: 0 box, 1 cylinder, 2 sphere" in (tmp_path / "coco" / "README.md").read_text()
