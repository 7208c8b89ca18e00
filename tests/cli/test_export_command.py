import json
import signal
import time

import numpy as np

from multiobj_data.loading import open_dataset


def test_export_says_what_it_wrote(mobj, small_dataset, tmp_path):
    result = mobj("export", small_dataset, "--to", "npz", "--out", tmp_path / "out", "--split", "test")
    assert result.code == 0, result.err
    assert result.out == f"npz in {tmp_path / 'out'}: 300 scenes, 3 files\n"
    assert "300/300 scenes" in result.err
    with np.load(tmp_path / "out" / "test.npz") as file:
        np.testing.assert_array_equal(
            file["image"], open_dataset(small_dataset, "test").images(np.arange(300))
        )
    again = mobj("export", small_dataset, "--to", "npz", "--out", tmp_path / "out", "--split", "test")
    assert (again.code, again.out.rstrip().endswith("already there and whole")) == (0, True)


def test_json_lists_every_file_with_its_hash(mobj, small_dataset, tmp_path):
    out = tmp_path / "out"
    result = mobj("export", small_dataset, "--to", "webdataset", "--out", out, "--limit", 4, "--json")
    document = json.loads(result.out)
    assert (document["schema_version"], document["fresh"]) == (1, True)
    assert document["request"]["splits"] == {"train": 4, "test": 4}
    assert set(document["files"]) == {path.name for path in out.iterdir()} - {"export.json"}


def test_an_unknown_licence_is_said_and_can_be_named(mobj, small_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("multiobj_data.exports.about._SOURCE_LICENCES", {})
    arguments = ("export", small_dataset, "--to", "npz", "--limit", 1, "--out")
    assert "licence is not known; name it with --license" in mobj(*arguments, tmp_path / "a").err
    named = mobj(*arguments, tmp_path / "b", "--license", "CC-BY-SA-3.0")
    assert "NOTE" not in named.err
    assert 'license: "cc-by-sa-3.0"' in (tmp_path / "b" / "README.md").read_text()


def test_requests_that_cannot_be_met_have_their_exit_codes(mobj, small_dataset, tmp_path):
    out = ("--out", tmp_path / "out")
    for code, arguments in {
        2: ("export", small_dataset, "--to", "npz"),
        3: ("export", tmp_path, "--to", "npz", *out),
    }.items():
        result = mobj(*arguments)
        assert (result.code, result.out) == (code, "")
        assert result.err.startswith("error: ")
        assert result.err.count("\n") == 1
    assert mobj("export", small_dataset, "--to", "zip", *out).code == 2
    assert mobj("export", small_dataset, "--to", "npz", "--limit", 0, *out).code == 2
    assert not (tmp_path / "out").exists()


def test_a_folder_inside_the_data_set_is_refused(mobj, small_dataset):
    before = sorted(small_dataset.iterdir())
    for out in (small_dataset / "npz", small_dataset / "a" / "b"):
        result = mobj("export", small_dataset, "--to", "npz", "--out", out)
        assert (result.code, "lies inside the data set" in result.err) == (2, True), result.err
    result = mobj("export", small_dataset, "--to", "croissant", "--out", "")
    assert (result.code, "--out: expected a text" in result.err) == (2, True)
    assert sorted(small_dataset.iterdir()) == before


def test_a_killed_export_leaves_nothing_that_looks_finished(mobj, start_mobj, small_dataset, tmp_path):
    out = tmp_path / "out"
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        process = start_mobj("export", small_dataset, "--to", "coco", "--out", out)
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob(".out.unfinished/content/images/*/*")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(sign)
        _, err = process.communicate(timeout=30)
        assert not out.exists()
        if sign != signal.SIGKILL:
            assert process.returncode == 130
            assert "To start again: mobj export" in err
            assert list(tmp_path.iterdir()) == []
    assert mobj("export", small_dataset, "--to", "coco", "--out", out).code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_verify_accepts_the_description_beside_the_shards(mobj, tmp_path):
    folder = tmp_path / "d"
    small = ("--digits", "bundled", "--train", 3, "--test", 0, "--no-sheet")
    assert mobj("generate", "multi-mnist", *small, "--out", folder).code == 0
    result = mobj("export", folder, "--to", "croissant")
    assert result.out == f"croissant in {folder}: 3 scenes, 2 files\n"
    assert mobj("verify", folder).code == 0
