import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from multiobj_data.loading import open_dataset


@pytest.fixture(scope="module")
def source(public_files, tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "tetrominoes_train.tfrecords"
    public_files.tetrominoes(path, 60)
    return path


@pytest.fixture
def converted(mobj, source, tmp_path):
    result = mobj("convert", "tetrominoes", source, "--out", tmp_path / "set", "--no-sheet")
    assert result.code == 0, result.err
    return tmp_path / "set"


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


# -- the main line


def test_convert_verify_inspect_sheet(mobj, source, tmp_path):
    out = tmp_path / "set"
    result = mobj("convert", "tetrominoes", source, "--out", out)
    assert result.code == 0
    assert [line.split() for line in result.out.splitlines()[2:5]] == [
        ["test", "3", "1"],
        ["train", "54", "1"],
        ["val", "3", "1"],
    ]
    assert (out / "sheet-train.png").read_bytes().startswith(b"\x89PNG")
    assert "NOTE: protocol default: ours: as stored" in result.err
    assert mobj("verify", out).out == f"{out}: 60 scenes, every byte as written.\n"
    shown = mobj("inspect", out).out
    assert "converted by `mobj convert tetrominoes`" in shown
    for line in (
        r"protocol.name           default",
        r"protocol.split          cycle:18,1,1",
        "selection.rule",
    ):
        assert line in shown
    assert mobj("sheet", out, "--split", "val").code == 0


def test_json_says_what_was_done_and_nothing_else(mobj, source, tmp_path):
    options = ("--protocol", "genesis", "--limit", 20, "--json", "--no-sheet", "--max-objects", 2)
    result = mobj("convert", "tetrominoes", source, "--out", tmp_path / "set", *options)
    document = json.loads(result.out)
    assert document["schema_version"] == 1
    assert document["config"]["protocol"]["size"] == 32
    assert document["config"]["selection"] == {"rule": "source", "least": 0, "most": 2, "min_pixels": 1}
    assert document["config"]["limit"] == 20
    assert list(document["splits"]) == ["test"]
    counts = open_dataset(tmp_path / "set", "test").scenes(range(document["splits"]["test"]["rows"])).count
    assert counts.max() <= 2


def test_the_same_command_again_changes_nothing(mobj, source, converted):
    before = content(converted)
    assert mobj("convert", "tetrominoes", source, "--out", converted, "--no-sheet").code == 0
    assert content(converted) == before


def test_help_is_quick_and_lists_sets_and_protocols():
    heavy = ("h5py", "torch", "pandas", "PIL", "tensorflow_datasets")
    code = (
        "import sys; from cli.main import main; sys.argv = ['mobj', 'convert', '--help']\n"
        f"try: main()\nexcept SystemExit: print([name for name in {heavy} if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.endswith("[]\n")
    for word in ("clevr6", "shapestacks", "slot-attention", "as-stored", "tfds:SET"):
        assert word in out


def test_ls_lists_the_public_sets(mobj):
    assert {"clevr6", "objects-room", "shapestacks"} <= set(
        json.loads(mobj("ls", "sets", "--json").out)["sets"]
    )


# -- what goes wrong


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("clevr7", "{source}"), 2, "no public set named 'clevr7'. Did you mean 'clevr'?"),
        (("tetrominoes", "{source}", "--protocol", "oclf"), 2, "tetrominoes has no protocol 'oclf'"),
        (
            ("tetrominoes", "{folder}"),
            3,
            "expected one of tetrominoes_train.tfrecords, or a folder that holds it",
        ),
        (("tetrominoes", "nowhere"), 3, "`mobj convert tetrominoes download` gets them from https://"),
        (("clevr", "{source}"), 3, "expected clevr, got a file that looks like tetrominoes"),
        (("tetrominoes", "{text}"), 3, "is the file a TFRecord?"),
        (("tetrominoes", "{empty}"), 3, "expected records, got an empty file"),
        (("tetrominoes", "{pipe}"), 3, "expected a file on a disk, got a pipe or a device"),
        (("tetrominoes", "x" * 5000), 3, "File name too long"),
        (("shapestacks", "x" * 5000), 3, "File name too long"),
        (("tetrominoes", " "), 2, "SOURCE: expected a file, a folder, an address"),
        (("tetrominoes", "{source}", "--downloads", ""), 2, "--downloads: expected a text"),
        (("tetrominoes", "{source}", "--mirror", "here"), 2, "--mirror: expected an address"),
        (
            ("tetrominoes", "{source}", "--count-rule", "none", "--min-objects", "1"),
            2,
            "--min-objects counts objects and --count-rule none counts nothing",
        ),
        (
            ("tetrominoes", "{source}", "--min-pixels", "9", "--max-objects", "3"),
            2,
            "--min-pixels belongs to --count-rule visible or visible-before-crop, the rule is source",
        ),
        (
            ("tetrominoes", "{source}", "--min-objects", "3", "--max-objects", "2"),
            2,
            "expected no more than the most objects, 2, as the fewest; got 3",
        ),
        (
            ("clevr6", "{source}", "--count-rule", "none"),
            2,
            "convert the whole set instead (clevr, not clevr6)",
        ),
        (
            ("clevr6", "{source}", "--max-objects", "7"),
            2,
            "convert the whole set instead (clevr, not clevr6)",
        ),
        (("tfds:movi_a", "{folder}"), 2, "films (Kubric's MOVi) are not read"),
        (("tfds:clevr", "download"), 2, "cannot be downloaded by mobj: prepare it with tensorflow-datasets"),
        (("tetrominoes", "{source}", "--blacklists"), 2, "--blacklists does not belong to tetrominoes"),
        (
            ("tetrominoes", "{source}", "--min-objects", "9"),
            3,
            "no scene of the source is kept by these settings",
        ),
        (("tetrominoes", "{source}", "--limit", "0"), 2, "--limit"),
        (("tetrominoes", "{source}", "--count-rule", "all"), 2, "--count-rule"),
        (("multi-dsprites-mod", "download"), 2, "3 variants; give one address as SOURCE"),
        (("shapestacks", "download"), 2, "cannot be downloaded by mobj"),
        (("tfds:mnist", "{folder}"), 3, "expected a data set prepared by TensorFlow Datasets"),
    ],
)
def test_every_wrong_request_is_one_sentence(mobj, source, tmp_path, arguments, code, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("no TFRecord at all, but long enough for a header\n")
    (tmp_path / "nothing").touch()
    os.mkfifo(tmp_path / "pipe")
    places = {
        "source": source,
        "pipe": tmp_path / "pipe",
        "folder": tmp_path / "empty",
        "text": tmp_path / "text",
        "empty": tmp_path / "nothing",
    }
    filled = [argument.format(**places) for argument in arguments]
    result = mobj("convert", *filled, "--out", tmp_path / "set")
    assert result.code == code, result.err
    assert message in " ".join(result.err.split())
    assert "Traceback" not in result.err
    assert result.out == ""


def test_a_cut_off_file_keeps_what_came_before_it(mobj, source, tmp_path):
    path, out = tmp_path / "tetrominoes_train.tfrecords", tmp_path / "set"
    whole = source.read_bytes()
    path.write_bytes(whole[: len(whole) * 3 // 4])
    command = ("convert", "tetrominoes", path, "--out", out, "--shard-rows", 8, "--no-sheet")
    result = mobj(*command)
    assert result.code == 3
    assert "cut off" in result.err
    assert "with the file mended, the same command goes on from there." in result.err
    assert "unfinished data set; run the command that began it again" in mobj("verify", out).err
    path.write_bytes(whole)
    assert mobj(*command).code == 0
    assert mobj("verify", out).code == 0


def test_a_damaged_set_names_the_command_that_mends_it(mobj, source, converted):
    whole = content(converted)
    next(converted.glob("val-*")).unlink()
    result = mobj("verify", converted)
    assert result.code == 4
    assert f"run the same `mobj convert tetrominoes SOURCE --out {converted}`" in result.err
    result = mobj("verify", converted, "--repair")
    assert result.code == 4
    assert result.out.startswith("missing: val-")
    assert "converted from the files of tetrominoes, not generated" in result.err
    result = mobj("verify", converted, "--regenerate", "1%")
    assert result.code == 2
    assert "nothing can be drawn anew; leave it out" in result.err
    assert mobj("convert", "tetrominoes", source, "--out", converted, "--no-sheet").code == 0
    assert content(converted) == whole


def test_a_read_only_folder_is_one_sentence(mobj, source, tmp_path):
    if os.geteuid() == 0:
        folder = Path("/proc/mobj")  # root may write anywhere else
    else:
        folder = tmp_path / "set"
        folder.mkdir(mode=0o555)
    result = mobj("convert", "tetrominoes", source, "--out", folder)
    assert result.code == 1
    assert "error: cannot" in result.err


def test_evaluate_finds_a_converted_set_or_says_that_it_cannot_be_drawn(mobj, converted, tmp_path):
    from multiobj_data.errors import DataError
    from multiobj_data.loading import find_split

    reference = open_dataset(converted, "train").reference
    with find_split(reference, "test", print) as found:
        assert len(found) == 3
    shutil.rmtree(converted)
    told = []
    with (
        pytest.raises(
            DataError, match=r"is gone; it was converted from the files of tetrominoes.*give --data"
        ),
        find_split(reference, "test", told.append),
    ):
        pass
    assert told == []


# -- interruption of the real command


def test_killed_at_any_moment_the_command_ends_with_the_same_bytes(start_mobj, source, tmp_path):
    def start(out):
        return start_mobj("convert", "tetrominoes", source, "--out", out, "--shard-rows", 4, "--no-sheet")

    assert start(tmp_path / "whole").wait(60) == 0
    kills = 0
    for shards in (0, 1, 2, 4, 6, 9, 12, 14):  # 14 of train, 1 of test, 1 of val; then they are renamed
        process = start(tmp_path / "set")
        while process.poll() is None and len(list((tmp_path / "set").glob("*.h5"))) < shards + 1:
            time.sleep(0.0005)
        process.send_signal(signal.SIGKILL)
        kills += process.wait(60) != 0
        if process.returncode == 0:
            shutil.rmtree(tmp_path / "set")
    assert kills >= 4
    assert start(tmp_path / "set").wait(60) == 0
    there = content(tmp_path / "set")
    there.pop(".lock", None)  # of a run that was killed
    assert there == content(tmp_path / "whole")


# -- the files written by TensorFlow itself


@pytest.fixture(scope="module")
def public():
    folder = os.environ.get("MOBJ_TEST_PUBLIC")
    if not folder:
        pytest.skip(
            "no public files at hand (set MOBJ_TEST_PUBLIC to the folder of *.tfrecords and their truth)"
        )
    return Path(folder)


def truth_of(public, name):
    with np.load(public / f"{name}.truth.npz") as arrays:
        return arrays["image"], arrays["ids"], json.loads((public / f"{name}.truth.json").read_text())


def test_every_value_of_clevr_equals_the_truth(mobj, public, tmp_path):
    name = "clevr_with_masks_train"
    images, ids, facts = truth_of(public, name)
    command = ("clevr", public / f"{name}.tfrecords", "--protocol", "as-stored", "--out", tmp_path / "set")
    assert mobj("convert", *command, "--no-sheet").code == 0
    scenes = open_dataset(tmp_path / "set", "train").scenes(range(len(images)))
    assert np.array_equal(scenes.image, images)
    assert scenes.scene_factors["source_count"].tolist() == [fact["count"] for fact in facts]
    for scene, fact in enumerate(facts):
        entity = scenes.factors["source_entity"][scene, : scenes.count[scene]]
        label = np.zeros(256, int)
        label[entity] = 1 + np.arange(len(entity))
        assert np.array_equal(scenes.segments[scene], label[ids[scene]])
        assert set(entity) == set(np.unique(ids[scene])) - {0}
        for factor in ("x", "color", "shape"):
            expected = np.array(fact[factor])[entity]
            assert np.array_equal(scenes.factors[factor][scene, : len(entity)], expected.astype(np.float32))


@pytest.mark.parametrize(
    ("kind", "split"),
    [
        ("train", "train"),
        ("test_empty_room", "empty-room"),
        ("test_six_objects", "six-objects"),
        ("test_identical_color", "identical-color"),
    ],
)
def test_every_value_of_objects_room_equals_the_truth(mobj, public, tmp_path, kind, split):
    images, ids, facts = truth_of(public, f"objects_room_{kind}")
    out = tmp_path / "set"
    assert (
        mobj("convert", "objects-room", public, "--protocol", "as-stored", "--out", out, "--no-sheet").code
        == 0
    )
    scenes = open_dataset(out, split).scenes(range(len(images)))
    assert np.array_equal(scenes.image, images)
    assert scenes.background_segments == 4
    for scene in range(len(images)):
        moved = int(scenes.scene_factors["background_repaired"][scene] == 1)  # a wall that was not there
        entity = scenes.factors["source_entity"][scene, : scenes.count[scene]] - moved
        label = np.arange(256)
        label[entity] = 4 + np.arange(len(entity))
        assert np.array_equal(scenes.segments[scene], label[ids[scene]])
        assert scenes.scene_factors["source_count"][scene] == facts[scene]["count"]


@pytest.mark.parametrize(
    "protocol", ["default", "iodine", "slot-attention", "genesis", "emorl", "sri", "oclf"]
)
def test_every_clevr_protocol_runs_on_the_real_file(mobj, public, tmp_path, protocol):
    _, _, facts = truth_of(public, "clevr_with_masks_train")
    path = public / "clevr_with_masks_train.tfrecords"
    assert (
        mobj(
            "convert", "clevr6", path, "--protocol", protocol, "--out", tmp_path / "s", "--no-sheet", "--json"
        ).code
        == 0
    )
    most = 5 if protocol in ("iodine", "oclf") else 6  # these count the background
    kept = [index for index, fact in enumerate(facts) if fact["count"] <= most]
    seen = []
    for path in sorted((tmp_path / "s").glob("*.h5")):
        stored = open_dataset(tmp_path / "s", path.name.split("-")[0])
        seen += stored.scenes(range(len(stored))).scene_factors["source_index"].tolist()
    assert sorted(seen) == kept


def test_real_shapestacks_recordings(mobj, tmp_path):
    folder = os.environ.get("MOBJ_TEST_SHAPESTACKS")
    if not folder:
        pytest.skip("no ShapeStacks recordings at hand (set MOBJ_TEST_SHAPESTACKS to their folder)")
    options = ("--release-split", "all", "--maps", "vseg", "--no-sheet", "--workers", 1)
    assert mobj("convert", "shapestacks", folder, *options, "--out", tmp_path / "set").code == 0
    scenes = open_dataset(tmp_path / "set", "train").scenes([0])
    assert scenes.image.shape == (1, 64, 64, 3)
    assert (
        mobj(
            "convert", "shapestacks", folder, *options, "--protocol", "as-stored", "--out", tmp_path / "raw"
        ).code
        == 0
    )
    stored = open_dataset(tmp_path / "raw", "train").scenes([0])
    assert np.bincount(stored.segments.reshape(-1)).tolist() == [48641, 249, 489, 327, 470]
    pick = 14 + np.arange(64) * 196 // 64  # centre crop of 196, nearest
    assert np.array_equal(scenes.segments[0] > 0, stored.segments[0][pick[:, None], pick] > 0)


def test_an_address_is_downloaded_once_and_converted(mobj, source, tmp_path, monkeypatch):
    monkeypatch.setattr("multiobj_data.loaders.download._PAUSE", 0.0)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=source.parent)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/{source.name}"
        command = (
            "convert",
            "tetrominoes",
            address,
            "--downloads",
            tmp_path / "cache",
            "--no-sheet",
            "--out",
        )
        first = mobj(*command, tmp_path / "set")
        server.shutdown()
        thread.join()
    assert first.code == 0
    assert f"download {source.name}: " in first.err
    assert mobj(*command, tmp_path / "again").code == 0  # the server is gone
    mobj("convert", "tetrominoes", source, "--no-sheet", "--out", tmp_path / "local")
    assert content(tmp_path / "set") == content(tmp_path / "again") == content(tmp_path / "local")
    kept = tmp_path / "cache" / "tetrominoes" / source.name
    kept.write_bytes(kept.read_bytes()[:1000])
    damaged = mobj(*command, tmp_path / "set2")
    assert damaged.code == 3
    assert f"What was downloaded is kept in {kept}: delete what is damaged" in damaged.err
    gone = mobj(
        "convert", "tetrominoes", f"{address}2", "--downloads", tmp_path / "cache", "--out", tmp_path / "x"
    )
    assert gone.code == 3
    assert "give its path as SOURCE" in gone.err
