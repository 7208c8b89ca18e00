import itertools
import multiprocessing
import os
import pickle
import resource
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from multiobj_data import loading
from multiobj_data.errors import DataError, UsageError, VerificationError
from multiobj_data.generation.plan import Plan
from multiobj_data.generation.running import generate
from multiobj_data.generation.verification import differences
from multiobj_data.loading import GeneratedScenes, batches, find_split, open_dataset
from multiobj_data.scenes import Scenes
from multiobj_data.shards.manifest import MANIFEST, Manifest, ShardRecord
from multiobj_data.sheet import box_overlaps, contact_sheet, sheet_of
from multiobj_data.tensors.datasets import SceneDataset, SceneStream, stack

ORDERS = [[0], [699, 0, 256, 255, 255, 3], list(range(700)), []]


@pytest.mark.parametrize("indices", ORDERS)
def test_stored_and_drawn_scenes_are_the_same(small_plan, small_dataset, indices):
    stored, drawn = open_dataset(small_dataset, "train"), GeneratedScenes(small_plan, "train")
    assert len(stored) == len(drawn) == 700
    assert stored.image_shape == drawn.image_shape == (50, 50, 1)
    assert differences(stored.scenes(indices), drawn.scenes(indices)) == []
    assert np.array_equal(stored.images(indices), drawn.images(indices))
    assert np.array_equal(stored.images(indices), stored.scenes(indices).image)


def test_images_may_be_changed_without_touching_the_file(small_dataset):
    stored = open_dataset(small_dataset, "test")
    before = stored.images([7]).copy()
    stored.images([7])[:] = 255
    assert np.array_equal(stored.images([7]), before)


@pytest.mark.parametrize("damage", ["chunk", "count", "dataset"])
def test_damaged_content_is_named_with_what_to_type(small_dataset, tmp_path, damage):
    import h5py

    folder = Path(shutil.copytree(small_dataset, tmp_path / "copy"))
    shard = folder / "test-00000-of-00002.h5"
    with h5py.File(shard, "r+") as file:
        if damage == "chunk":
            file["segments"].id.write_direct_chunk((0, 0, 0), b"no deflate stream")
        elif damage == "count":
            file["count"][3] = 200
        else:
            del file["segments"]
    with pytest.raises(DataError, match=r"test-00000-of-00002.h5 is damaged .* run `mobj verify --repair"):
        open_dataset(folder, "test").scenes([3])


def test_no_flipped_bit_shows_more_than_a_sentence(small_dataset, tmp_path):
    folder = Path(shutil.copytree(small_dataset, tmp_path / "copy"))
    shard = folder / "test-00000-of-00002.h5"
    whole, rng, named = bytearray(shard.read_bytes()), np.random.default_rng(0), 0
    header = 4096  # where HDF5 says what is where
    for bit in rng.integers(0, 8 * header, 150).tolist():
        flipped = whole.copy()
        flipped[bit // 8] ^= 1 << bit % 8
        shard.write_bytes(flipped)
        for read in ("scenes", "images"):
            try:
                getattr(open_dataset(folder, "test"), read)([3])
            except DataError as error:
                named += "test-00000-of-00002.h5" in str(error)
    assert named > 30


def test_more_shards_than_files_may_be_open_are_read(tmp_path, monkeypatch):
    plan = Plan.create("multi-mnist", {"digits": "bundled"}, splits={"train": 400}, shard_rows=2)
    generate(plan, tmp_path)
    stored, drawn = open_dataset(tmp_path, "train"), GeneratedScenes(plan, "train")
    order = np.random.default_rng(0).permutation(400)
    monkeypatch.setattr(loading, "_OPEN", 32)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.dup(0) for _ in range(3)]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (held[-1] + 80, hard))
        assert len(stored.shards) > 80
        images, scenes = stored.images(order), stored.scenes(order)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for file in held:
            os.close(file)
    assert np.array_equal(images, drawn.images(order))
    assert differences(scenes, drawn.scenes(order)) == []


def test_indices_out_of_range_are_refused(small_plan, small_dataset):
    for source in (open_dataset(small_dataset, "test"), GeneratedScenes(small_plan, "test")):
        for index in (-1, 300):
            with pytest.raises(IndexError, match=r"indices in 0\.\.299"):
                source.images([0, index])


def test_a_pickled_source_reads_on(small_dataset):
    stored = open_dataset(small_dataset, "train")
    stored.scenes([1])
    copy = pickle.loads(pickle.dumps(stored))
    assert np.array_equal(copy.images([5]), stored.images([5]))


def test_missing_splits_and_folders_are_named(small_dataset, tmp_path):
    with pytest.raises(UsageError, match="has no split 'tset'. Did you mean 'test'"):
        open_dataset(small_dataset, "tset")
    with pytest.raises(DataError, match="no such folder"):
        open_dataset(tmp_path / "nowhere", "train")
    with pytest.raises(DataError, match="is no data set of this toolkit"):
        open_dataset(tmp_path, "train")


def test_batches_cover_each_scene_once(small_dataset):
    seen = [indices for indices, scenes in batches(open_dataset(small_dataset, "test"), 128)]
    assert np.array_equal(np.concatenate(seen), np.arange(300))
    assert sum(len(i) for i, _ in batches(open_dataset(small_dataset, "test"), 128, limit=130)) == 130


@pytest.mark.parametrize("context", [None, "fork", "spawn"])
def test_loaders_with_workers_give_every_scene_once(small_dataset, context):
    if context == "fork" and context not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork on this platform")
    stored = open_dataset(small_dataset, "test")
    stored.scenes([0])  # handles are open before workers start
    loader = DataLoader(
        SceneDataset(stored, ("image", "count", "class")),
        batch_size=64,
        shuffle=True,
        collate_fn=stack,
        num_workers=2 if context else 0,
        multiprocessing_context=context,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "This process .* is multi-threaded, use of fork", DeprecationWarning
        )
        parts = list(loader)
    images = torch.cat([part["image"] for part in parts]).numpy()
    everything = stored.images(np.arange(300))
    assert sorted(map(bytes, images)) == sorted(map(bytes, everything))
    assert parts[0]["class"].shape == (64, 4)
    assert sum(int(part["count"].sum()) for part in parts) == 900


def test_unknown_fields_are_refused_with_the_known_ones(small_dataset):
    with pytest.raises(UsageError, match="no field 'colour'; they have: amodal, attempts"):
        SceneDataset(open_dataset(small_dataset, "test"), ("colour",))[0]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # an endless loader is cut off
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_begins_with_the_stored_scenes_and_goes_on(small_plan, small_dataset, workers):
    stream = SceneStream(small_plan, "train")
    loader = DataLoader(
        stream,
        batch_size=256,
        collate_fn=stack,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
    )
    parts = [part["image"].numpy() for part in itertools.islice(loader, 4)]
    stored = open_dataset(small_dataset, "train").images(np.arange(700))
    assert np.array_equal(np.concatenate(parts)[:700], stored)
    assert not np.array_equal(parts[3], parts[0])


def test_a_stream_can_start_anywhere(small_plan):
    stream = SceneStream(small_plan, "train", ("image", "count"), start=300)
    first = list(itertools.islice(stream, 300))
    drawn = GeneratedScenes(small_plan, "train").scenes(np.arange(300, 600))
    assert np.array_equal(np.stack([item["image"] for item in first]), drawn.image)


def test_a_damaged_manifest_is_not_called_gone(small_dataset, tmp_path):
    reference = open_dataset(small_dataset, "train").reference
    folder = tmp_path / "damaged"
    shutil.copytree(small_dataset, folder)
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text[: len(text) // 2])
    told = []
    with find_split({**reference, "folder": str(folder)}, "test", told.append):
        pass
    assert "is gone" not in told[0]
    assert str(folder / MANIFEST) in told[0]


def test_a_lost_data_set_is_drawn_again_with_the_recorded_bytes(small_dataset, tmp_path):
    reference = open_dataset(small_dataset, "train").reference
    told = []
    everything = np.arange(300)
    with find_split(reference, "test", told.append) as here:
        assert here.folder == small_dataset
        assert told == []
        expected = here.scenes(everything)
    with find_split({**reference, "folder": str(tmp_path / "gone")}, "test", told.append) as again:
        assert "is gone" in told[0]
        assert differences(again.scenes(everything), expected) == []
    assert not again.folder.exists()


def test_a_lost_data_set_that_comes_out_otherwise_is_refused(small_dataset, tmp_path):
    manifest = Manifest.read(small_dataset)
    manifest.splits["test"].shards[0] = ShardRecord("test-00000-of-00002.h5", 0, 256, "0" * 64)
    reference = {"manifest": manifest.document(), "folder": str(tmp_path / "gone"), "split": "train"}
    with pytest.raises(VerificationError, match="came out with SHA-256"), find_split(reference, "test", str):
        pass
    with pytest.raises(DataError, match="does not say which data"), find_split({}, "test", str):
        pass


def test_the_contact_sheet_is_a_picture(small_dataset, tmp_path):
    from PIL import Image

    path = tmp_path / "sheet.png"
    sheet_of(open_dataset(small_dataset, "train"), path, "title")
    with Image.open(path) as picture:
        assert picture.size[0] > 1000


def test_sheets_show_scenes_of_every_kind(tmp_path):
    for counts in ("0", "1", "0-3"):
        plan = Plan.create("multi-mnist", {"counts": counts, "digits": "bundled"}, splits={"train": 5})
        sheet_of(GeneratedScenes(plan, "train"), tmp_path / f"{counts}.png", counts)


def test_box_overlap_counts_each_pair_once(small_plan):
    scenes = GeneratedScenes(small_plan, "test").scenes(np.arange(300))
    overlap = box_overlaps(scenes)
    assert len(overlap) == 150 * 1 + 150 * 6
    assert 0 <= overlap.min() < overlap.max() < 1


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([0.7], r"expected a list of whole numbers, got \[0.7\]; one scene is \[i\]"),
        (np.arange(300) < 3, "of a mask, take np.flatnonzero"),
        ([True, False], "of a mask"),
        (5, r"got 5; one scene is \[i\]"),
        ("12", "got '12'"),
        ([[1], [2, 3]], "list of whole numbers"),
        ([[1, 2]], "list of whole numbers"),
        ([2**70], "list of whole numbers"),
        (None, "got None"),
    ],
)
def test_what_is_no_list_of_indices_is_refused(small_plan, small_dataset, indices, message):
    for source in (open_dataset(small_dataset, "test"), GeneratedScenes(small_plan, "test")):
        for read in (source.images, source.scenes):
            with pytest.raises(UsageError, match=message):
                read(indices)


@pytest.mark.parametrize(
    "indices", [(3, 5), range(3, 6, 2), np.array([3, 5], np.uint8), torch.tensor([3, 5])]
)
def test_whole_numbers_of_any_kind_are_indices(small_dataset, indices):
    stored = open_dataset(small_dataset, "test")
    assert np.array_equal(stored.images(indices), stored.images([3, 5]))
    assert np.array_equal(stored.scenes(indices).image, stored.images([3, 5]))


def test_splits_lengths_and_starts_that_do_not_exist_are_refused(small_plan):
    for make in (
        lambda: GeneratedScenes(small_plan, "tran"),
        lambda: GeneratedScenes(small_plan, "tran", 5),
        lambda: SceneStream(small_plan, "tran"),
    ):
        with pytest.raises(UsageError, match="no split 'tran'. Did you mean 'train'?"):
            make()
    with pytest.raises(UsageError, match="start: expected .* 0 or more, got -300"):
        SceneStream(small_plan, start=-300)
    with pytest.raises(UsageError, match="length: expected 0 or more scenes, got -1"):
        GeneratedScenes(small_plan, "train", -1)


def test_large_scenes_are_shrunk_by_averaging_and_the_lines_between_them_stay(tmp_path):
    """White checkers of one pixel are grey from afar; lines and boxes are as wide as ever."""
    from PIL import Image

    n, side = 20, 512
    checkers = (255 * (np.indices((side, side)).sum(0) % 2)).astype(np.uint8)[None, ..., None]
    box = np.full((n, 1, 4), (96.5, 96.5, 420.5, 420.5), np.float32)
    segments = np.zeros((n, side, side), np.uint8)
    segments[:, 97:420, 97:420] = 1
    contact_sheet(Scenes(np.repeat(checkers, n, 0), np.ones(n, int), segments, box), tmp_path / "s.png", "")
    with Image.open(tmp_path / "s.png") as picture:
        page = np.asarray(picture.convert("RGB")).astype(int)
    left = page[:, : page.shape[1] // 2]
    grey = np.abs(left - 128).max(-1) <= 2
    rows, columns = (np.flatnonzero(grey.mean(axis) > 0.5) for axis in (1, 0))
    panel = left[rows[0] : rows[-1], columns[0] : columns[-1]]
    line = (panel == 96).all(-1)  # the colour between scenes
    assert runs(line.mean(0) > 0.9) == 3
    assert runs(line.mean(1) > 0.7) == 3
    blue = (panel[..., 2] - panel[..., 0]) > 60  # edges of the boxes
    assert runs(blue.mean(0) > 0.5) == 8
    assert not ((panel == 0) | (panel == 255)).all(-1).any()  # no pixel of a checker was picked


def runs(mask):
    """How many times a row of truth values becomes true."""
    return int((np.diff(np.concatenate([[0], mask.astype(int)])) == 1).sum())
