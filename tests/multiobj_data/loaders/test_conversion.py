import gzip
import json
import os
import shutil
import zlib
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from multiobj_data.checks import scene_problems
from multiobj_data.errors import DataError, MobjError, UsageError
from multiobj_data.loaders import conversion
from multiobj_data.loaders.conversion import convert, rows_a_shard
from multiobj_data.loaders.preparing import Selection
from multiobj_data.loaders.protocols import find_protocol
from multiobj_data.loaders.sets import find_files, find_set
from multiobj_data.loaders.streams import RecordStream, Request
from multiobj_data.loading import open_dataset
from multiobj_data.shards.journal import Journal
from multiobj_data.shards.manifest import Manifest

ROWS = 7


@pytest.fixture(scope="module")
def source(public_files, tmp_path_factory):
    """90 scenes: 81 train in 12 shards, 5 val, 4 test."""
    path = tmp_path_factory.mktemp("source") / "tetrominoes_train.tfrecords"
    public_files.tetrominoes(path, 90)
    return path


def stream_of(source, name="tetrominoes", protocol="default", limit=None, **selection):
    public = find_set(name)
    chosen = Selection(**selection)
    return RecordStream(
        Request(public, find_protocol(public.source, protocol), chosen, limit), find_files(public, source)
    )


def run(source, folder, **options):
    return convert(stream_of(source, **options), folder, shard_rows=ROWS)


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    """What an undisturbed run writes."""
    folder = tmp_path_factory.mktemp("whole") / "set"
    run(source, folder)
    return content(folder)


# -- what is written


def test_every_scene_goes_to_its_split_with_all_that_the_source_says(public_files, tmp_path):
    images, labels, counts = public_files.tetrominoes(tmp_path / "f", 45)
    manifest = run(tmp_path / "f", tmp_path / "set")
    assert {name: split.rows for name, split in manifest.splits.items()} == {"train": 41, "val": 2, "test": 2}
    seen = []
    for split in manifest.splits:
        stored = open_dataset(tmp_path / "set", split)
        scenes = stored.scenes(np.arange(len(stored)))
        assert not list(scene_problems(scenes))
        index = scenes.scene_factors["source_index"]
        assert np.array_equal(scenes.image, images[index])
        assert np.array_equal(stored.images(np.arange(len(stored))), images[index])
        assert np.array_equal(scenes.segments, labels[index])
        assert np.array_equal(scenes.count, counts[index])
        assert np.array_equal(scenes.factors["x"][:, 0], index + np.float32(1 / 8))
        assert np.allclose(scenes.factors["color"][:, 0], index[:, None] / 256)
        seen += index.tolist()
    assert sorted(seen) == list(range(45))
    assert manifest.sources == {"f": stream_of(tmp_path / "f").sources()["f"]}


def test_three_rooms_and_a_train_file_are_four_splits(public_files, tmp_path):
    for kind, n, entities in (("train", 9, 7), ("test_empty_room", 3, 4), ("test_six_objects", 4, 10)):
        path = tmp_path / f"objects_room_{kind}.tfrecords"
        if kind == "test_empty_room":
            images, labels, _ = public_files.scenes(n, (64, 64), 7, 1, background=4, boxes=[[]] * n)
            public_files.write(path, images, labels, entities)
        else:
            public_files.objects_room(path, n, entities=entities)
    manifest = run(tmp_path, tmp_path / "set", name="objects-room", protocol="as-stored")
    rows = {name: split.rows for name, split in manifest.splits.items()}
    assert rows == {"empty-room": 3, "six-objects": 4, "train": 9}
    assert manifest.max_objects == 6
    empty = open_dataset(tmp_path / "set", "empty-room").scenes(range(3))
    assert empty.background_segments == 4
    assert empty.count.tolist() == [0, 0, 0]


def test_clevr_is_filtered_and_cut(public_files, tmp_path):
    inside, outside = (100, 60, 130, 90), (2, 5, 30, 25)
    many = [(64 + 20 * k, 50, 80 + 20 * k, 70) for k in range(7)]
    images, labels, _ = public_files.clevr(tmp_path / "f", [[inside], many, [inside, outside], many[:6]])
    run(tmp_path / "f", tmp_path / "set", name="clevr6", protocol="genesis", rule="source", most=6)
    scenes = open_dataset(tmp_path / "set", "test").scenes(range(3))
    assert scenes.scene_factors["source_index"].tolist() == [0, 2, 3]
    assert scenes.scene_factors["source_count"].tolist() == [1, 2, 6]
    assert scenes.count.tolist() == [1, 1, 6]
    assert scenes.boxes.shape[1] == 6
    pick = np.arange(128) * 192 // 128  # nearest
    cut = images[0][24:216, 64:256][pick[:, None], pick]
    assert np.array_equal(scenes.image[0], cut)
    assert np.array_equal(scenes.segments[0], labels[0][24:216, 64:256][pick[:, None], pick])


def test_pictures_that_are_not_square_are_stored_as_they_are(public_files, tmp_path):
    images, labels, _ = public_files.clevr(tmp_path / "f", [[(100, 60, 130, 90)]])
    manifest = run(tmp_path / "f", tmp_path / "set", name="clevr", protocol="as-stored")
    assert manifest.image_shape == (240, 320, 3)
    scenes = open_dataset(tmp_path / "set", "train").scenes([0])
    assert np.array_equal(scenes.image, images)
    assert np.array_equal(scenes.segments, labels)


def test_small_objects_that_no_rule_counts_are_stored_all_the_same(public_files, tmp_path):
    big = [(70 + 25 * k, 100, 90 + 25 * k, 130) for k in range(6)]
    public_files.clevr(tmp_path / "f", [[*big, (70, 60, 72, 62), (80, 60, 82, 62)]])
    options = {"name": "clevr6", "rule": "visible", "most": 6, "min_pixels": 50, "protocol": "as-stored"}
    manifest = run(tmp_path / "f", tmp_path / "set", **options)
    assert manifest.max_objects == 10
    assert open_dataset(tmp_path / "set", "train").scenes([0]).count.tolist() == [8]


def test_limit_reads_the_first_records_alone(source, tmp_path, whole):
    assert run(source, tmp_path / "set", limit=20).splits["train"].rows == 18
    damaged = tmp_path / "damaged"
    damaged.write_bytes(gzip.decompress(source.read_bytes())[: 21 * 26200])  # cut off in the last
    assert run(damaged, tmp_path / "other", limit=20).splits["train"].rows == 18


def test_a_source_shorter_than_the_first_range_is_that_split_alone(source, tmp_path):
    assert list(run(source, tmp_path / "set", protocol="genesis").splits) == ["test"]


def test_nothing_kept_is_said(source, tmp_path):
    with pytest.raises(DataError, match="no scene of the source is kept by these settings"):
        run(source, tmp_path / "set", rule="source", least=3, most=2)
    assert content(tmp_path / "set") == {}


def test_shards_are_as_large_as_memory_allows():
    sizes = {4 * 64 * 64: 2048, 4 * 128 * 128: 512, 4 * 35 * 35: 4096, 4 * 240 * 320: 64, 10**9: 32}
    assert {size: rows_a_shard(size) for size in sizes} == sizes


# -- interruption


class StoppedError(Exception):
    """Stands for whatever ends a run."""


def stop_after(stream, n):
    """Let a stream fail when n more scenes have come."""
    scenes = stream.scenes

    def fewer(start, on_progress):
        with closing(scenes(start, on_progress)) as items:
            for number, item in enumerate(items):
                if number == n:
                    raise StoppedError
                yield item

    stream.scenes = fewer
    return stream


@pytest.mark.parametrize("steps", [[0], [1], [6, 0], [30, 30], [7] * 13, [88], [50, 3, 3, 60]])
def test_the_bytes_are_the_same_after_any_interruption(source, tmp_path, whole, steps):
    for n in steps:
        with pytest.raises(StoppedError):
            convert(stop_after(stream_of(source), n), tmp_path / "set", shard_rows=ROWS)
    run(source, tmp_path / "set")
    assert content(tmp_path / "set") == whole


@pytest.mark.parametrize("n", range(1, 15, 2))
def test_or_if_it_ends_between_a_shard_and_its_line(source, tmp_path, whole, n, monkeypatch):
    append, count = Journal.append, iter(range(100))

    def failing(journal, line):
        if next(count) == n:
            raise StoppedError
        append(journal, line)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", failing)
        with pytest.raises(StoppedError):
            run(source, tmp_path / "set")
    run(source, tmp_path / "set")
    assert content(tmp_path / "set") == whole


@pytest.mark.parametrize("n", [0, 1, 5, 13])
def test_or_while_shards_get_their_final_names(source, tmp_path, whole, n, monkeypatch):
    replace, count = os.replace, iter(range(100))

    def failing(old, new):
        if str(old).endswith(".h5") and "part-" in Path(old).name and next(count) == n:
            raise StoppedError
        replace(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing)
        with pytest.raises(StoppedError):
            run(source, tmp_path / "set")
    run(source, tmp_path / "set")
    assert content(tmp_path / "set") == whole


@pytest.mark.parametrize("function", ["remove_journals", "Manifest.write"])
def test_or_around_the_manifest(source, tmp_path, whole, function, monkeypatch):
    def failing(*arguments):
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(f"multiobj_data.loaders.conversion.{function}", failing)
        with pytest.raises(StoppedError):
            run(source, tmp_path / "set")
    run(source, tmp_path / "set")
    assert content(tmp_path / "set") == whole


@pytest.mark.parametrize("damage", ["part-train-00002.h5", "part-train-00000.h5", "part-val-00000.h5"])
@pytest.mark.parametrize("missing", [True, False])
def test_a_damaged_shard_is_written_again_before_the_run_goes_on(source, tmp_path, whole, damage, missing):
    folder = tmp_path / "set"
    stream = stop_after(stream_of(source), 89)
    convert_until_stopped(stream, folder, shard_rows=3)  # of 3, so that val has a shard as well
    path = folder / damage
    path.unlink() if missing else path.write_bytes(path.read_bytes()[:-100])
    convert_until_stopped(stop_after(stream_of(source), 60), folder, shard_rows=3)  # and interrupted again
    begun = {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*")}
    convert_until_stopped(stop_after(stream_of(source), 0), folder, shard_rows=3)
    assert begun == {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*")}  # not a third time
    convert(stream_of(source), folder, shard_rows=3)
    convert(stream_of(source), tmp_path / "at-once", shard_rows=3)
    assert content(folder) == content(tmp_path / "at-once")


def convert_until_stopped(stream, folder, shard_rows):
    with pytest.raises(StoppedError):
        convert(stream, folder, shard_rows=shard_rows)


def test_a_line_torn_by_a_crash_costs_one_shard(source, tmp_path, whole):
    convert_until_stopped(stop_after(stream_of(source), 60), tmp_path / "set", ROWS)
    path = tmp_path / "set" / ".progress.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    run(source, tmp_path / "set")
    assert content(tmp_path / "set") == whole


def test_a_finished_folder_is_left_alone_and_a_damaged_one_made_anew(source, tmp_path, whole, monkeypatch):
    folder = tmp_path / "set"
    run(source, folder)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(RecordStream, "scenes", None)  # not even read
        run(source, folder)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    shard = next(folder.glob("train-00003-*"))
    shard.write_bytes(shard.read_bytes()[:-1])
    run(source, folder)
    assert content(folder) == whole


# -- a source that is damaged, mended, or another


def record_starts(source):
    data, starts = gzip.decompress(source.read_bytes()), [0]
    while starts[-1] < len(data):
        starts.append(starts[-1] + int.from_bytes(data[starts[-1] : starts[-1] + 8], "little") + 16)
    return data, starts


@pytest.mark.parametrize("compressed", [True, False])
def test_a_cut_off_file_keeps_what_came_before_and_goes_on_when_it_is_whole(source, tmp_path, compressed):
    data, starts = record_starts(source)
    path = tmp_path / "tetrominoes_train.tfrecords"
    full = source.read_bytes() if compressed else data
    path.write_bytes(full[: len(full) * 2 // 3] if compressed else full[: starts[60] + 1000])
    with pytest.raises(
        DataError, match=r"cut off.*scenes in the shards written before it stay in .*same command goes on"
    ):
        run(path, tmp_path / "set")
    begun = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "set").glob("part-*")}
    assert len(begun) >= 4
    path.write_bytes(full)
    convert_until_stopped(stop_after(stream_of(path), 0), tmp_path / "set", ROWS)
    assert begun == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "set").glob("part-*")}  # kept
    run(path, tmp_path / "set")
    run(path, tmp_path / "at-once")
    assert content(tmp_path / "set") == content(tmp_path / "at-once")


def test_a_flipped_byte_in_the_middle_likewise(source, tmp_path):
    data, starts = record_starts(source)
    path = tmp_path / "f"
    path.write_bytes(
        data[: starts[50] + 500] + bytes([data[starts[50] + 500] ^ 1]) + data[starts[50] + 501 :]
    )
    with pytest.raises(DataError, match="record 50.*wrong checksum of its data.*The 42 scenes in the shards"):
        run(path, tmp_path / "set")
    path.write_bytes(data)
    convert_until_stopped(stop_after(stream_of(path), 0), tmp_path / "set", ROWS)
    assert len(list((tmp_path / "set").glob("part-*"))) >= 3  # but not what was written near the damage
    run(path, tmp_path / "set")
    run(path, tmp_path / "at-once")
    assert content(tmp_path / "set") == content(tmp_path / "at-once")


def test_damage_before_the_first_shard_is_the_readers_sentence_alone(source, tmp_path):
    data, starts = record_starts(source)
    (tmp_path / "f").write_bytes(data[: starts[2] + 9])
    with pytest.raises(DataError) as caught:
        run(tmp_path / "f", tmp_path / "set")
    assert "stay in" not in str(caught.value)
    (tmp_path / "f").write_bytes(data)
    assert run(tmp_path / "f", tmp_path / "set").splits["train"].rows == 82


def test_another_file_is_not_taken_for_a_mended_one(source, tmp_path, public_files):
    path = tmp_path / "tetrominoes_train.tfrecords"
    shutil.copy(source, path)
    convert_until_stopped(stop_after(stream_of(path), 60), tmp_path / "set", ROWS)
    before = content(tmp_path / "set")
    public_files.tetrominoes(path, 90, seed=1)
    with pytest.raises(UsageError, match="holds part of a data set of other source files"):
        run(path, tmp_path / "set")
    assert content(tmp_path / "set") == before
    run(source, tmp_path / "other")
    with pytest.raises(UsageError, match="holds another data set: sources.tetrominoes_train.tfrecords is"):
        run(path, tmp_path / "other")


def test_of_several_files_the_ones_before_must_be_the_same(public_files, tmp_path):
    for kind in ("train", "test_six_objects"):
        public_files.objects_room(
            tmp_path / f"objects_room_{kind}.tfrecords", 20, entities=10 if "six" in kind else 7
        )
    second = tmp_path / "objects_room_test_six_objects.tfrecords"
    good = second.read_bytes()
    second.write_bytes(good[: len(good) * 3 // 4])
    with pytest.raises(DataError, match="cut off"):
        run(tmp_path, tmp_path / "set", name="objects-room", protocol="as-stored")
    second.write_bytes(good)
    first = tmp_path / "objects_room_train.tfrecords"
    kept = first.read_bytes()
    public_files.objects_room(first, 20, seed=1)
    with pytest.raises(UsageError, match="other source files"):
        run(tmp_path, tmp_path / "set", name="objects-room", protocol="as-stored")
    first.write_bytes(kept)
    run(tmp_path, tmp_path / "set", name="objects-room", protocol="as-stored")
    run(tmp_path, tmp_path / "at-once", name="objects-room", protocol="as-stored")
    assert content(tmp_path / "set") == content(tmp_path / "at-once")


# -- folders


def test_other_settings_into_the_same_folder_are_refused(source, tmp_path):
    convert_until_stopped(stop_after(stream_of(source), 60), tmp_path / "set", ROWS)
    before = content(tmp_path / "set")
    for options, name in (({"protocol": "iodine"}, "config.protocol.name"), ({"limit": 9}, "config.limit")):
        with pytest.raises(UsageError, match=f"holds another data set: {name} is"):
            run(source, tmp_path / "set", **options)
    run(source, tmp_path / "done")
    with pytest.raises(UsageError, match="holds another data set"):
        run(source, tmp_path / "done", rule="source", most=2)
    assert content(tmp_path / "set") == before


def test_a_run_that_wrote_no_shard_binds_to_nothing(source, tmp_path, whole):
    convert_until_stopped(stop_after(stream_of(source, protocol="iodine"), 3), tmp_path / "set", ROWS)
    run(source, tmp_path / "set")
    assert content(tmp_path / "set") == whole


def test_a_generated_set_is_never_touched(source, tmp_path, small_dataset):
    folder = tmp_path / "set"
    shutil.copytree(small_dataset, folder)
    before = content(folder)
    with pytest.raises(UsageError, match="holds another data set"):
        run(source, folder)
    (folder / "dataset.json").unlink()
    identity = Manifest.read(small_dataset).identity
    (folder / ".progress.jsonl").write_text(json.dumps({"identity": identity}) + "\n")
    with pytest.raises(UsageError, match="holds another data set"):
        run(source, folder)
    (folder / ".progress.jsonl").unlink()
    with pytest.raises(UsageError, match="is no part of this data set"):
        run(source, folder)
    assert {
        name: data for name, data in content(folder).items() if name in before and name != ".progress.jsonl"
    } == {name: data for name, data in before.items() if name != "dataset.json"}


def test_a_full_disk_is_one_sentence_and_the_run_goes_on(source, tmp_path, whole, monkeypatch):
    write, count = conversion.write_atomically, iter(range(100))

    def full(path, data):
        if next(count) == 3:
            with open("/dev/full", "wb", buffering=0) as file, conversion.explain_os_errors(path):
                file.write(b"x")
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(conversion, "write_atomically", full)
        with pytest.raises(MobjError, match="no space left on the disk.*same command"):
            run(source, tmp_path / "set")
    run(source, tmp_path / "set")
    assert content(tmp_path / "set") == whole


def test_two_runs_into_one_folder_are_refused(source, tmp_path):
    from filelock import FileLock

    (tmp_path / "set").mkdir()
    with FileLock(tmp_path / "set" / ".lock"), pytest.raises(MobjError, match="another mobj run is writing"):
        run(source, tmp_path / "set")


def test_the_shards_say_the_protocol_and_wording_makes_no_other_set(source, tmp_path):
    manifest = run(source, tmp_path / "set")
    assert manifest.config["protocol"]["name"] == "default"
    assert "about" not in manifest.config["protocol"]
    assert any("of every 20 records one for val" in note for note in manifest.notes)
    assert zlib.crc32(json.dumps(manifest.config).encode())  # JSON-ready
