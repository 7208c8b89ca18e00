import gzip
import io
import logging
import os
import pickle
import tarfile
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multiobj_data.errors import DataError, MobjError, UsageError
from multiobj_data.loaders.shapestacks import CROP, ShapeStacks, decode
from multiobj_data.loaders.shapestacks_archives import Archives

SCENARIOS = {  # name -> height
    "env_ccs-easy-h=3-vcom=2-vpsf=0-v=10": 3,
    "env_ccs-easy-h=3-vcom=2-vpsf=0-v=2": 3,
    "env_blocks-hard-h=2-vcom=0-vpsf=0-v=1": 2,
    "env_ccs-hard-h=4-vcom=0-vpsf=3-v=7": 4,
}
NAMES = list(SCENARIOS)
SIDE = 40


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def image_of(scenario, camera):
    return (
        np.random.default_rng([NAMES.index(scenario), camera])
        .integers(0, 256, (SIDE, SIDE, 3))
        .astype(np.uint8)
    )


def labels_of(scenario, camera):
    labels = np.zeros((SIDE, SIDE), np.uint8)
    for block in range(1, SCENARIOS[scenario] + 1):
        labels[36 - 8 * block : 44 - 8 * block, 10 + camera : 20 + camera] = block
    return labels


def label_file(labels):
    grey = 32 * labels
    return png(np.stack([grey, grey, grey, np.full_like(grey, 255)], -1))


def release(cameras=(1, 2, 10)):
    """The files of a small release by name."""
    files = {}
    for scenario in NAMES:
        for camera in cameras:
            view = f"cam_{camera}-mono-0"
            rgb = f"rgb-w={camera * 5 % 6}-f=2-l=3-c=random-{view}.png"
            files[f"recordings/{scenario}/{rgb}"] = png(image_of(scenario, camera))
            name = f"iseg-w=0-f=0-l=0-c=original-{view}.map"
            files[f"recordings/{scenario}/{name}"] = label_file(labels_of(scenario, camera))
    files["splits/default/train.txt"] = "\n".join(NAMES[:2]).encode()  # without a final newline
    files["splits/default/eval.txt"] = f"{NAMES[2]}\n".encode()
    files["splits/default/test.txt"] = f"\ufeff\r\n{NAMES[3]}\r\n\r\n".encode()
    files["meta/blacklist_stable.txt"] = f"{NAMES[2]}\n".encode()
    files["meta/blacklist_unstable.txt"] = f"mjcf/{NAMES[1]}.xml: explodes\n".encode()
    return files


def unpack(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_archive(path, files, prefix=""):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(buffer.getvalue(), 1))


def pack(folder, files, prefix="", reverse_maps=False):
    """The same as the release's archives."""
    kinds = {
        "rgb": {n: c for n, c in files.items() if "/rgb-" in n},
        "iseg": {n: c for n, c in files.items() if "/iseg-" in n},
        "meta": {n: c for n, c in files.items() if n.endswith(".txt")},
    }
    if reverse_maps:
        kinds["iseg"] = dict(reversed(kinds["iseg"].items()))
    for kind, chosen in kinds.items():
        write_archive(folder / f"shapestacks-{kind}.tar.gz", chosen, prefix)
    return folder


@pytest.fixture(params=["folder", "archives"])
def store(request, tmp_path):
    """Write a release in either form; return where."""
    return lambda files: (unpack if request.param == "folder" else pack)(tmp_path / "data", files)


def keys(items):
    return [(item.pair.scenario.name, item.pair.recording.camera) for item in items]


# -- what is found


def test_every_picture_comes_with_its_labels_and_what_the_names_say(store):
    stacks = ShapeStacks(store(release()), parts=("train", "eval", "test"))
    items = list(stacks.items())
    assert sorted(keys(items)) == sorted((name, camera) for name in NAMES for camera in (1, 2, 10))
    assert [item.index for item in items] == list(range(12))
    part_of = dict(zip(NAMES, ["train", "train", "eval", "test"], strict=True))
    for item in items:
        scenario, camera = keys([item])[0]
        raw = decode(item)
        assert item.part == part_of[scenario]
        assert (raw.image == image_of(scenario, camera)).all()
        assert (raw.segments == labels_of(scenario, camera)).all()
        assert raw.entities == 7
        assert raw.present.tolist() == [entity <= SCENARIOS[scenario] for entity in range(7)]
        assert raw.factors["level"][raw.present].tolist() == list(range(SCENARIOS[scenario] + 1))
        found = {name: int(value) for name, value in raw.scene_factors.items()}
        assert found["stable"] == (scenario == NAMES[2])
        assert (found["height"], found["camera"], found["wall_texture"]) == (
            SCENARIOS[scenario],
            camera,
            camera * 5 % 6,
        )
        assert (found["floor_texture"], found["light"], found["colour_mode"]) == (2, 3, 2)
        assert (found["stray_pixels"], found["blended_pixels"], found["labels_are_roles"]) == (0, -1, 0)
    assert not stacks.tally.sentences()
    assert stacks.source.progress() == 1


@pytest.mark.parametrize("prefix", ["", "./", "shapestacks/", "data/of/groth/"])
def test_archives_are_read_wherever_their_members_lie(tmp_path, prefix):
    items = list(ShapeStacks(pack(tmp_path, release(), prefix)).items())
    assert {name for name, _ in keys(items)} == set(NAMES[:2])


@pytest.mark.parametrize("place", ["iseg", "recordings"])
@pytest.mark.parametrize("suffix", ["map", "png"])
def test_label_maps_lie_apart_or_beside_the_pictures_in_either_form(tmp_path, place, suffix):
    colours = np.array([[0, 0, 0], [76, 0, 0], [0, 76, 0], [0, 0, 76], [76, 76, 0]], np.uint8)
    files = {}
    for name, content in release().items():
        _, _, file = name.partition("/")
        if "/iseg-" in name:
            scenario, camera = file.split("/")[0], int(file.split("cam_")[1].split("-")[0])
            content = label_file(labels_of(scenario, camera))
            if suffix == "png":
                content = png(colours[labels_of(scenario, camera)])
            files[f"{place}/{file.removesuffix('map')}{suffix}"] = content
        else:
            files[name] = content
    items = list(ShapeStacks(unpack(tmp_path, files)).items())
    assert len(items) == 6
    for item in items:
        assert (decode(item).segments == labels_of(*keys([item])[0])).all()


def test_order_is_that_of_the_list_then_the_camera(tmp_path):
    found = keys(ShapeStacks(unpack(tmp_path, release())).items())
    assert found == [(name, camera) for name in NAMES[:2] for camera in (1, 2, 10)]
    whole = keys(ShapeStacks(tmp_path, split="all").items())
    assert whole == [(name, camera) for name in sorted(NAMES) for camera in (1, 2, 10)]


def test_going_on_gives_the_rest(store):
    stacks = ShapeStacks(store(release()), parts=("train", "test"))
    whole = list(stacks.items())
    for start in (0, 1, 4, 9):
        assert list(stacks.items(start)) == whole[start:]


def test_passing_over_decodes_nothing(tmp_path):
    files = {name: content if content.isascii() else b"no picture" for name, content in release().items()}
    for folder in (unpack(tmp_path / "folder", files), pack(tmp_path / "archives", files)):
        items = list(ShapeStacks(folder).items(5))
        assert len(items) == 1
        with pytest.raises(DataError, match=r"rgb-.*\.png is no PNG"):
            decode(items[0])


def test_items_decode_in_other_processes(store):
    items = list(ShapeStacks(store(release())).items())
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        for item, raw in zip(items, pool.map(decode, items), strict=True):
            assert (raw.image == decode(item).image).all()


def test_items_of_a_folder_hold_no_pictures(tmp_path):
    for item in ShapeStacks(unpack(tmp_path, release())).items():
        assert len(pickle.dumps(item)) < 2000 + 4 * len(str(tmp_path))


def test_crop_keeps_rows_and_columns(tmp_path):
    item = next(ShapeStacks(unpack(tmp_path, release())).items())
    whole, cut = decode(item), decode(item, crop=(slice(3, 33), slice(5, 30)))
    assert (cut.image == whole.image[3:33, 5:30]).all()
    assert (cut.segments == whole.segments[3:33, 5:30]).all()
    with pytest.raises(UsageError, match=r"crop: expected rows and columns within 40 x 40"):
        decode(item, crop=CROP)


# -- lists


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n \n"])
@pytest.mark.parametrize("between", ["\n", "\r\n", "\n\n"])
def test_no_line_of_a_list_is_lost(store, between, end):
    files = release() | {"splits/ccs_all/train.txt": (between.join(NAMES[:3]) + end).encode()}
    stacks = ShapeStacks(store(files), split="ccs_all")
    assert [scenario.name for scenario in stacks.scenarios["train"]] == NAMES[:3]


def test_what_is_listed_and_not_there_is_counted_and_said(store, caplog):
    absent = "env_ccs-easy-h=6-vcom=1-vpsf=0-v=3"
    listed = "\n".join([absent, NAMES[0], "../../etc/passwd", NAMES[0]])
    stacks = ShapeStacks(store(release() | {"splits/default/train.txt": listed.encode()}))
    with caplog.at_level(logging.WARNING):
        assert len(list(stacks.items())) == 3
    assert stacks.tally.missing == [absent]
    assert stacks.tally.unparsed == ["../../etc/passwd"]
    assert stacks.tally.repeated == 1
    assert "1 scenarios of the list are not there: 'env_ccs-easy-h=6-vcom=1-vpsf=0-v=3'." in caplog.text
    assert "1 names were not understood and left out: '../../etc/passwd'." in caplog.text
    list(stacks.items())
    assert stacks.tally.missing == [absent]  # counted anew


def test_pictures_whose_names_do_not_read_are_counted(store):
    name = f"recordings/{NAMES[0]}/rgb-w=0-f=0-cam_1.png"
    stacks = ShapeStacks(store(release() | {name: b""}))
    assert len(list(stacks.items())) == 6
    assert stacks.tally.unparsed == [name.removeprefix("recordings/")]


def test_a_scenario_in_two_parts_is_in_both_and_that_is_said(store):
    stacks = ShapeStacks(
        store(release() | {"splits/default/eval.txt": NAMES[0].encode()}), parts=("train", "eval")
    )
    items = list(stacks.items())
    assert sum(item.part == "eval" for item in items) == 3
    assert len(items) == 9
    assert "1 scenarios are in several parts" in stacks.tally.sentences()[0]


@pytest.mark.parametrize("split", ["default", "all"])
def test_blacklists_apply_when_asked_for(store, split):
    folder = store(release())
    parts = ("train", "eval", "test")
    assert len(list(ShapeStacks(folder, split=split, parts=parts).items())) == 12
    stacks = ShapeStacks(folder, split=split, parts=parts, blacklists=True)
    assert {name for name, _ in keys(stacks.items())} == {NAMES[0], NAMES[3]}
    assert sorted(stacks.tally.blacklisted) == sorted(NAMES[1:3])


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"split": "defualt"}, UsageError, "no split 'defualt'. Did you mean 'default'?"),
        ({"split": "../default"}, UsageError, "no split '../default'."),
        ({"parts": ("val",)}, UsageError, "parts: expected train or eval or test, got 'val'."),
        ({"parts": ()}, UsageError, "parts: expected at least one of"),
        ({"maps": "depth"}, UsageError, "maps: expected iseg or vseg, got 'depth'."),
    ],
)
def test_requests_that_cannot_be_met(store, arguments, kind, message):
    with pytest.raises(kind) as raised:
        ShapeStacks(store(release()), **arguments)
    assert message in str(raised.value)


def test_lists_that_are_not_there(store):
    bare = {name: content for name, content in release().items() if not name.endswith(".txt")}
    folder = store(bare)
    with pytest.raises(
        DataError, match=r"found no splits; unpack shapestacks-meta\.tar\.gz too, or ask for split=all"
    ):
        ShapeStacks(folder)
    with pytest.raises(DataError, match=r"expected meta/blacklist_\*\.txt"):
        ShapeStacks(folder, split="all", blacklists=True)
    assert len(list(ShapeStacks(folder, split="all").items())) == 12


def test_a_list_without_any_scenario_that_is_there(store):
    files = release() | {"splits/default/train.txt": b"env_ccs-easy-h=6-vcom=1-vpsf=0-v=3"}
    with pytest.raises(DataError, match="expected pictures of split 'default', found none"):
        list(ShapeStacks(store(files)).items())


def test_a_list_that_is_no_text(store):
    with pytest.raises(DataError, match=r"splits/default/train\.txt: expected text"):
        ShapeStacks(store(release() | {"splits/default/train.txt": b"\xff\xfe\x00"}))


@pytest.mark.parametrize("name", ["nothing", "file.zip", "empty"])
def test_places_that_hold_no_shapestacks(tmp_path, name):
    (tmp_path / "file.zip").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="expected a folder with recordings/ in it"):
        ShapeStacks(tmp_path / name)


# -- label maps


def vseg_only(files):
    return {name.replace("/iseg-", "/vseg-"): content for name, content in files.items()}


def test_maps_of_roles_are_refused_unless_asked_for(tmp_path):
    folder = unpack(tmp_path, vseg_only(release()))
    with pytest.raises(DataError, match="found vseg alone, whose labels are roles .* or ask for maps=vseg"):
        list(ShapeStacks(folder).items())
    raw = decode(next(ShapeStacks(folder, maps="vseg").items()))
    assert raw.entities == 5
    assert raw.scene_factors["labels_are_roles"] == 1
    assert raw.factors["role"].tolist() == [0, 1, 2, 3, 4]


def test_archives_of_roles_are_refused_unless_asked_for(tmp_path):
    folder = pack(tmp_path, release())
    (tmp_path / "shapestacks-iseg.tar.gz").rename(tmp_path / "shapestacks-vseg.tar.gz")
    with pytest.raises(DataError, match="found vseg alone"):
        list(ShapeStacks(folder).items())


def test_a_picture_without_label_map_is_named(store):
    lost = f"recordings/{NAMES[1]}/iseg-w=0-f=0-l=0-c=original-cam_2-mono-0.map"
    files = release()
    del files[lost]
    items = ShapeStacks(store(files)).items()
    with pytest.raises(DataError, match=rf"{NAMES[1]}/rgb-.*cam_2-mono-0\.png: expected its iseg label map"):
        list(items)


def test_stray_labels_are_mended_or_kept(tmp_path):
    files = release()
    name = f"recordings/{NAMES[0]}/iseg-w=0-f=0-l=0-c=original-cam_1-mono-0.map"
    clean = labels_of(NAMES[0], 1)
    stray = clean.copy()
    stray[30, 15], stray[2, 2] = 7, 5
    item = next(ShapeStacks(unpack(tmp_path, files | {name: label_file(stray)})).items())
    mended, kept = decode(item), decode(item, stray="keep")
    assert (mended.segments == clean).all()
    assert (kept.segments == stray).all()
    assert mended.scene_factors["stray_pixels"] == kept.scene_factors["stray_pixels"] == 2
    assert np.flatnonzero(kept.present).tolist() == [0, 1, 2, 3, 5, 7]
    with pytest.raises(UsageError, match="stray: expected mend or keep"):
        decode(item, stray="drop")


# -- damage


@pytest.mark.parametrize(
    ("part", "content", "message"),
    [
        ("rgb", b"", "is no PNG"),
        ("rgb", b"GIF89a....", "is no PNG"),
        ("rgb", png(np.zeros((SIDE, SIDE, 3), np.uint8))[:-20], "is a truncated PNG"),
        ("rgb", png(np.zeros((SIDE, SIDE), np.uint8)), "expected a picture in colour"),
        (
            "iseg",
            png(np.zeros((SIDE, 30), np.uint8)),
            "expected the size of its picture, 40 x 40, got 30 x 40",
        ),
        ("iseg", png(np.full((SIDE, SIDE), 200, np.uint8)), "multiples of 32"),
        ("iseg", label_file(np.full((SIDE, SIDE), 5, np.uint8)), "expected labels up to 3"),
    ],
)
def test_damage_is_one_sentence_that_names_the_file(store, part, content, message):
    files = release()
    name = next(n for n in files if f"{NAMES[0]}/{part}-" in n)
    item = next(ShapeStacks(store(files | {name: content})).items())
    with pytest.raises(DataError, match=message) as raised:
        decode(item)
    assert f"{NAMES[0]}/{part}-" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_picture_that_vanishes_is_named(tmp_path):
    item = next(ShapeStacks(unpack(tmp_path, release())).items())
    item.pair.image.path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        decode(item)


def test_archives_in_another_order_give_the_same_pairs(tmp_path):
    first = list(ShapeStacks(pack(tmp_path / "a", release())).items())
    second = list(ShapeStacks(pack(tmp_path / "b", release(), reverse_maps=True)).items())
    assert keys(first) == keys(second)
    for one, two in zip(first, second, strict=True):
        assert (decode(one).segments == decode(two).segments).all()


def test_memory_does_not_grow_with_the_archives(tmp_path):
    """As long as both have the same order: 600 pictures and maps of 30 kB."""
    filler = os.urandom(30_000)
    files = {}
    for number in range(100):
        scenario = f"env_ccs-easy-h=3-vcom=2-vpsf=0-v={number}"
        for camera in range(6):
            view = f"w=0-f=0-l=0-c=original-cam_{camera}-mono-0"
            files[f"recordings/{scenario}/rgb-{view}.png"] = filler
            files[f"recordings/{scenario}/iseg-{view}.map"] = filler
    pack(tmp_path, files)
    stacks = ShapeStacks(tmp_path, split="all")
    tracemalloc.start()
    assert sum(1 for _ in stacks.items()) == 600
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6  # of 18 MB of maps, and as much of pictures


def test_two_pictures_by_one_camera_share_the_map(store):
    files = {}
    for name, content in release().items():
        files[name] = content
        if "/rgb-" in name:
            files[name.replace("c=random", "c=unique")] = content
    items = list(ShapeStacks(store(files)).items())
    assert len(items) == 12
    for item in items:
        assert (decode(item).segments == labels_of(*keys([item])[0])).all()


def test_a_truncated_archive_ends_in_one_sentence_after_what_is_whole(tmp_path):
    pack(tmp_path, release())
    path = tmp_path / "shapestacks-rgb.tar.gz"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    found = []
    with pytest.raises(DataError, match=r"shapestacks-rgb\.tar\.gz"):
        found.extend(decode(item) for item in ShapeStacks(tmp_path, split="all").items())
    assert 4 <= len(found) < 12


def test_flipped_bytes_in_archives_are_found_or_change_nothing(tmp_path):
    pack(tmp_path, release(cameras=(1,)))
    whole = list(map(decode, ShapeStacks(tmp_path).items()))
    rng = np.random.default_rng(0)
    for kind in ("rgb", "iseg", "meta"):
        path = tmp_path / f"shapestacks-{kind}.tar.gz"
        data = path.read_bytes()
        for at in rng.integers(len(data), size=40):
            damaged = bytearray(data)
            damaged[at] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            try:
                found = list(map(decode, ShapeStacks(tmp_path).items()))
            except MobjError:
                continue
            for one, two in zip(whole, found, strict=True):
                assert (one.image == two.image).all()
                assert (one.segments == two.segments).all()
        path.write_bytes(data)


def test_an_archive_with_an_escaping_name_is_refused(tmp_path):
    pack(tmp_path, release())
    write_archive(tmp_path / "shapestacks-rgb.tar.gz", {f"recordings/../../{NAMES[0]}/rgb.png": b""})
    with pytest.raises(DataError, match=r"shapestacks-rgb\.tar\.gz: expected relative names"):
        list(ShapeStacks(tmp_path).items())


def test_lists_beside_the_archives_come_first(tmp_path):
    unpack(pack(tmp_path, release()), {"splits/mine/train.txt": NAMES[3].encode()})
    assert {name for name, _ in keys(ShapeStacks(tmp_path, split="mine").items())} == {NAMES[3]}
    picture_archive = ShapeStacks(tmp_path / "shapestacks-rgb.tar.gz")
    assert isinstance(picture_archive.source, Archives)
    assert len(list(picture_archive.items())) == 6


# -- the real thing


@pytest.fixture(scope="session")
def real():
    folder = os.environ.get("MOBJ_TEST_SHAPESTACKS")
    if not folder:
        pytest.skip("real ShapeStacks recordings are not at hand (set MOBJ_TEST_SHAPESTACKS to their folder)")
    return Path(folder)


def test_real_recordings_decode_to_the_known_labels(real):
    first, second = map(decode, ShapeStacks(real, split="all", maps="vseg").items())
    assert first.name.startswith("env_ccs-easy-h=5-vcom=2-vpsf=0-v=1/")
    assert np.bincount(first.segments.ravel()).tolist() == [48641, 249, 489, 327, 470]
    assert first.image.shape == second.image.shape == (224, 224, 3)
    assert not first.scene_factors["stable"]
    assert [int(raw.scene_factors["camera"]) for raw in (first, second)] == [1, 2]
    assert 0 < first.scene_factors["stray_pixels"] < 20 < first.scene_factors["blended_pixels"]


def test_real_recordings_lie_whole_inside_the_crop(real):
    for item in ShapeStacks(real, split="all", maps="vseg").items():
        whole, cut = decode(item), decode(item, crop=CROP)
        assert cut.image.shape == (196, 196, 3)
        assert (np.bincount(cut.segments.ravel())[1:] == np.bincount(whole.segments.ravel())[1:]).all()
