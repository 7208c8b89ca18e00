import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from multiobj_data.errors import DataError, UsageError
from multiobj_data.loaders.inflate import open_stream
from multiobj_data.loaders.multi_object_datasets import read

SETS = {  # name, H, W, C, N, masks last, factors by kind; from the published readers' feature tables
    "clevr": (
        "clevr",
        240,
        320,
        3,
        11,
        False,
        "size material shape color",
        "x y z rotation visibility pixel_coords:3",
    ),
    "room": ("objects-room", 64, 64, 3, 7, False, "", ""),
    "empty": ("objects-room", 64, 64, 3, 4, False, "", ""),
    "six": ("objects-room", 64, 64, 3, 10, False, "", ""),
    "binarized": (
        "multi-dsprites-mod",
        64,
        64,
        1,
        4,
        True,
        "",
        "x y shape orientation scale visibility color:1",
    ),
    "grayscale": (
        "multi-dsprites-mod",
        64,
        64,
        3,
        6,
        True,
        "",
        "x y shape orientation scale visibility color:3",
    ),
    "colored": (
        "multi-dsprites-mod",
        64,
        64,
        3,
        5,
        True,
        "",
        "x y shape orientation scale visibility color:3",
    ),
    "tetrominoes": ("tetrominoes", 35, 35, 3, 4, False, "", "x y shape visibility color:3"),
}
SMALL = [name for name in SETS if name != "clevr"]


def truth(key, index):
    """One scene of a set: image, label map, factors, and its features as they are on the wire."""
    _, h, w, c, n, last, codes, floats = SETS[key]
    rng = np.random.default_rng([len(key), index])
    labels = np.zeros((h, w), np.uint8)
    labels[h // 3 :] = min(1, n - 1) if key in ("room", "empty", "six") else 0
    if n > 3 and key in ("room", "empty", "six"):
        labels[h // 3 : h // 2, : w // 2], labels[h // 3 : h // 2, w // 2 :] = 2, 3
    first = 4 if key in ("room", "empty", "six") else 1
    count = int(rng.integers(0, n - first + 1))
    for k in range(count):
        labels[h // 2 + 2 * k : h // 2 + 2 * k + 2, 3 * k + 2 : 3 * k + 9] = first + k
    image = rng.integers(0, 256, (h, w, c), np.uint8)
    factors = {name: rng.integers(0, 9, n, np.uint8) for name in codes.split()}
    for name in floats.split():
        name, _, size = name.partition(":")
        factors[name] = rng.normal(size=(n, int(size)) if size else n).astype(np.float32)
    if "visibility" in factors:
        factors["visibility"] = (np.arange(n) <= count).astype(np.float32)
    masks = np.where(labels == np.arange(n)[:, None, None], 255, 0).astype(np.uint8)
    features = {**factors, "image": image, "mask": np.moveaxis(masks, 0, -1) if last else masks}
    shuffled = {name: features[name] for name in rng.permutation(list(features)).tolist()}
    return image, labels, count, factors, shuffled


@pytest.fixture(scope="module")
def written(tmp_path_factory, wire):
    """Write a set's file once: gzip, three scenes (one of CLEVR)."""
    files = {}

    def get(key):
        if key not in files:
            payloads = [wire.example(truth(key, i)[-1]) for i in range(1 if key == "clevr" else 3)]
            files[key] = wire.write(tmp_path_factory.mktemp("sets") / f"{key}.tfrecords", payloads)
        return files[key]

    return get


@pytest.mark.parametrize("key", SETS)
@pytest.mark.parametrize("crop", [None, (slice(5, 31), slice(2, 35))])
def test_everything_is_as_written(written, key, crop):
    name, _, _, _, n, *_ = SETS[key]
    scenes = list(read(written(key), name, crop=crop))
    assert [s.index for s in scenes] == list(range(len(scenes)))
    cut = crop or (slice(None), slice(None))
    background = 4 if name == "objects-room" else 1
    for raw in scenes:
        image, labels, count, factors, _ = truth(key, raw.index)
        assert raw.image.dtype == raw.segments.dtype == np.uint8
        assert np.array_equal(raw.image, image[cut])
        assert np.array_equal(raw.segments, labels[cut])
        assert (raw.entities, raw.background, raw.name) == (n, background, f"{key}.tfrecords")
        assert raw.present[background:].tolist() == (np.arange(n - background) < count).tolist()
        assert raw.factors.keys() == factors.keys()
        for factor, values in factors.items():
            assert raw.factors[factor].dtype == values.dtype
            assert np.array_equal(raw.factors[factor], values)
        assert raw.scene_factors["unclear_pixels"] == 0


@pytest.mark.parametrize("key", SMALL)
def test_the_set_is_told_from_the_features_and_reading_starts_anywhere(written, key):
    whole = list(read(written(key)))
    for start in range(4):
        later = list(read(written(key), start=start, check_data=False))
        assert [s.index for s in later] == list(range(start, 3))
        for one, other in zip(whole[start:], later, strict=True):
            assert np.array_equal(one.image, other.image)


def test_progress_ends_at_the_whole_file(written):
    positions = []
    assert len(list(read(written("room"), on_progress=positions.append))) == 3
    assert positions == sorted(positions)
    assert positions[-1] <= written("room").stat().st_size
    with open_stream(written("room")) as stream:
        assert len(list(read(stream))) == 3
        assert stream.position == stream.total


def test_a_hidden_object_counts_and_an_empty_slot_does_not(tmp_path, wire):
    _, _, _, _, features = truth("six", 0)
    masks = np.zeros((10, 64, 64), np.uint8)
    masks[0], masks[6, 40:50, 40:50] = 255, 255
    masks[0, 40:50, 40:50] = 0  # objects 4 and 5 are hidden
    path = wire.write(tmp_path / "a", [wire.example({**features, "mask": masks})])
    assert next(read(path)).present.tolist() == [
        True,
        False,
        False,
        False,
        True,
        True,
        True,
        False,
        False,
        False,
    ]


def test_three_background_masks_are_repaired(tmp_path, wire):
    _, labels, count, _, features = truth("six", 2)
    assert count > 1
    labels = np.where(labels == 3, 2, np.where(labels > 3, labels - 1, labels))  # one wall alone
    masks = np.where(labels == np.arange(10)[:, None, None], 255, 0).astype(np.uint8)
    path = wire.write(tmp_path / "a", [wire.example({**features, "mask": masks})])
    crop = (slice(30, 60), slice(0, 64))
    raw = next(read(path, crop=crop))
    assert raw.scene_factors["background_repaired"] == 1
    assert np.array_equal(raw.segments, np.where(labels >= 3, labels + 1, labels)[crop])
    assert raw.present.tolist() == [True, True, True, False] + [k < count for k in range(6)]


def change(features, **changes):
    return {name: value for name, value in {**features, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": None}, "record 1: expected the feature 'mask' of tetrominoes, got only"),
        ({"x": None}, "record 1: expected the feature 'x'"),
        (
            {"image": np.zeros(3676, np.uint8)},
            r"record 1: image: expected \[35, 35, 3\] .* 3,675 values, got 3,676",
        ),
        ({"color": np.zeros(4, np.float32)}, r"record 1: color: expected \[4, 3\] of tetrominoes"),
        ({"x": np.zeros(4, np.int64)}, "record 1: x: expected floats of tetrominoes, got whole numbers"),
        ({"image": [b"\0" * 3675]}, "record 1: image: expected strings of one byte, got others"),
        ({"mask": np.full(4900, 7, np.uint8)}, "record 1: mask: expected values 0 and 255, got others"),
    ],
)
def test_a_record_that_does_not_fit_is_named_and_those_before_it_are_read(tmp_path, wire, changes, message):
    scenes = [truth("tetrominoes", 0)[-1], change(truth("tetrominoes", 1)[-1], **changes)]
    path = wire.write(tmp_path / "a", map(wire.example, scenes))
    stream = read(path)
    assert next(stream).index == 0
    with pytest.raises(DataError, match=message):
        next(stream)


def test_another_set_or_none_is_told_by_its_name(written, tmp_path, wire):
    with pytest.raises(
        DataError, match=r"record 0: expected clevr, got a file that looks like objects-room \(train\)"
    ):
        next(read(written("room"), "clevr"))
    path = wire.write(tmp_path / "a", [wire.example({"label": np.array([1]), "text": [b"abc"]})])
    with pytest.raises(
        DataError, match=r"got an Example with 'label' \(1 whole numbers\), 'text' \(1 strings\)"
    ):
        next(read(path))
    path = wire.write(tmp_path / "a", [b"", b"\xff\xff"])
    with pytest.raises(DataError, match="got an Example with no features"):
        next(read(path))
    with pytest.raises(DataError, match="record 1: expected"):
        next(read(path, start=1))
    assert list(read(wire.write(tmp_path / "a", []))) == []


def test_requests_that_make_no_sense(written):
    with pytest.raises(UsageError, match="Did you mean 'objects-room'"):
        next(read(written("room"), "object-rooms"))
    with pytest.raises(UsageError, match="start: expected 0 or more"):
        next(read(written("room"), start=-1))
    for crop in ((slice(0, 65), slice(0, 64)), (slice(0, 64), slice(-3, 64)), (slice(9, 9), slice(0, 64))):
        with pytest.raises(UsageError, match="crop: expected rows and columns inside"):
            next(read(written("room"), crop=crop))


def test_memory_does_not_grow_with_the_file(tmp_path, wire):
    payload = wire.example(truth("tetrominoes", 0)[-1])
    peaks = []
    for n in (100, 400):
        path = wire.write(tmp_path / "a", [payload] * n)
        next(read(path))
        tracemalloc.start()
        assert sum(1 for _ in read(path)) == n
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[1] < 20e6


@pytest.mark.parametrize(
    "file",
    ["clevr_with_masks_train", "objects_room_train"]
    + [f"objects_room_test_{variant}" for variant in ("empty_room", "six_objects", "identical_color")],
)
def test_files_written_by_tensorflow_are_their_truth(file):
    folder = os.environ.get("MOBJ_TEST_MULTI_OBJECT_DATASETS")
    if not folder:
        pytest.skip("files written by TensorFlow are not at hand (set MOBJ_TEST_MULTI_OBJECT_DATASETS)")
    truths = json.loads(Path(folder, f"{file}.truth.json").read_text())
    with np.load(Path(folder, f"{file}.truth.npz")) as arrays:
        images, labels = arrays["image"], arrays["ids"]
    scenes = list(read(Path(folder, f"{file}.tfrecords")))
    assert len(scenes) == len(truths)
    for raw, image, segments, known in zip(scenes, images, labels, truths, strict=True):
        assert np.array_equal(raw.image, image)
        assert np.array_equal(raw.segments, segments)
        assert raw.present[raw.background :].sum() == known.pop("count")
        for name, values in known.items():
            assert np.array_equal(raw.factors[name], np.array(values, raw.factors[name].dtype))
