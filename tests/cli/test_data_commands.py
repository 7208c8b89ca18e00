import json
import os
import signal
import sys
import time

import numpy as np
import pytest

from cli.reproduction.tables import find_table
from multiobj_data.loading import open_dataset

SMALL = ("--digits", "bundled", "--train", 300, "--test", 100)


def test_generate_writes_scenes_a_manifest_and_a_contact_sheet(mobj, tmp_path):
    result = mobj(
        "generate", "multi-mnist", "--counts", "2,4", "--no-overlap", *SMALL, "--out", tmp_path / "d"
    )
    assert result.code == 0, result.err
    assert {path.name for path in (tmp_path / "d").iterdir()} == {
        "dataset.json",
        "sheet.png",
        "train-00000-of-00001.h5",
        "test-00000-of-00001.h5",
    }
    counts = open_dataset(tmp_path / "d", "train").scenes(np.arange(300)).count
    assert [(counts == n).sum() for n in (2, 4)] == [150, 150]
    assert "bundled with scikit-learn, not MNIST" in result.err
    assert "multi-mnist-v1 in" in result.out


def test_json_is_one_document_on_stdout(mobj, tmp_path):
    result = mobj("generate", "multi-mnist", *SMALL, "--out", tmp_path / "d", "--json", "--no-sheet")
    document = json.loads(result.out)
    assert document["schema_version"] == 1
    assert document["splits"]["train"]["rows"] == 300
    assert document["config"]["digits"] == "bundled"
    for command in (("inspect", tmp_path / "d"), ("verify", tmp_path / "d"), ("ls",), ("doctor",)):
        answer = mobj(*command, "--json")
        assert answer.code == 0, answer.err
        assert json.loads(answer.out)["schema_version"] == 1


def test_inspect_has_facts_for_scripts_and_sentences_for_people(mobj, tmp_path):
    mobj("generate", "multi-mnist", *SMALL, "--counts", "2", "--out", tmp_path / "d", "--no-sheet")
    document = json.loads(mobj("inspect", tmp_path / "d", "--json").out)
    assert (document["kind"], document["dataset"], document["seed"]) == ("dataset", "multi-mnist-v1", 0)
    assert (document["image_shape"], document["max_objects"]) == ([50, 50, 1], 2)
    assert document["config"]["counts"] == "2"
    test = document["splits"]["test"]
    assert (test["rows"], test["shards"], test["acceptance"]["2"]["scenes"]) == (100, 1, 100)
    assert document["fields"]["boxes"] == {"dtype": "float32", "shape": [2, 4], "compression": None}
    assert all(key.isidentifier() for key in document)
    text = mobj("inspect", tmp_path / "d").out
    assert "data set: multi-mnist-v1\n" in text
    assert "float32 [n, 2, 4]\n" in text
    assert "100 scenes, shards: 1\n" in text


def test_every_name_that_ls_lists_can_be_asked_for(mobj):
    listed = json.loads(mobj("ls", "--json").out)
    for name in (*listed["generators"], *listed["models"]):
        answer = mobj("ls", "settings", name)
        assert answer.code == 0, answer.err
    for name, about in listed["tables"].items():
        assert find_table(name).title in about


def test_a_preset_is_overridden_by_options(mobj, tmp_path):
    arguments = (
        "generate",
        "multi-mnist",
        "--preset",
        "air-0-2",
        "--digits",
        "bundled",
        "--dry-run",
        "--json",
    )
    whole = json.loads(mobj(*arguments).out)
    assert whole["splits"] == {"train": 60000, "test": 10000}
    assert set(whole["acceptance"]) == {"0", "1", "2"}
    changed = json.loads(mobj(*arguments, "--counts", "1", "--train", 50, "--test", 0).out)
    assert (changed["splits"], set(changed["acceptance"])) == ({"train": 50}, {"1"})


def test_a_dry_run_writes_nothing_and_foretells_the_size(mobj, tmp_path):
    arguments = ("generate", "multi-mnist", *SMALL, "--out", tmp_path / "d", "--json", "--no-sheet")
    foretold = json.loads(mobj(*arguments, "--dry-run").out)
    assert not (tmp_path / "d").exists()
    mobj(*arguments)
    written = sum(path.stat().st_size for path in (tmp_path / "d").glob("*.h5"))
    assert foretold["shards"] == 2
    assert foretold["bytes"] == pytest.approx(written, rel=0.2)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("--counts", "2,x"), 2, "counts: expected whole numbers such as '2,4'"),
        (("--counts", "-1"), 2, "counts: expected whole numbers"),
        (("--canvas", "20"), 2, "canvas 20 is too small"),
        (("--canvas", "20", "--scale", "1"), 2, "need 28 pixels"),
        (("--counts", "9", "--no-overlap"), 5, "Use at most"),
        (("--overlap", "--overlap-rule", "boxes"), 2, "give one of the two"),
        (("--overlap", "--max-iou", "0.1"), 2, "give one of the two"),
        (("--scale", "0.01"), 2, "digits as small as 1 pixel"),
        (("--canvas", "4096"), 2, "1 to 1024 pixels"),
        (("--counts", "200", "--canvas", "600"), 2, "amodal=false"),
        (("--set", "canvas=inf"), 2, "canvas must be a whole number"),
        (("--seed", "99999999999999999999999"), 2, "seed"),
        (("--train", "1000000000000"), 2, "at most 1,000,000,000 scenes"),
        (("--shard-range", "²/4"), 2, "expected i/n"),
        (("--overlap-rule", "pixels", "--margin", "2"), 2, "belong to overlap_rule=boxes"),
        (("--set", "polarty=x"), 2, "Did you mean 'polarity'"),
        (("--set", "canvas"), 2, "expected key=value"),
        (("--preset", "air"), 2, "no preset named 'air'"),
        (("--shard-range", "4/4"), 2, "expected i/n"),
        (("--train", "-5"), 2, "Invalid value for '--train'"),
        (("--train", "0", "--test", "0"), 2, "nothing to generate"),
        (("--digits", "mnist", "--digits-root", "/nonexistent"), 3, "found no idx file"),
    ],
)
def test_bad_requests_get_one_sentence_and_leave_nothing(mobj, tmp_path, arguments, code, sentence):
    result = mobj("generate", "multi-mnist", "--digits", "bundled", *arguments, "--out", tmp_path / "d")
    assert result.code == code
    assert sentence in result.err
    assert "Traceback" not in result.err
    assert result.out == ""
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("generate", "multi-mnits"), "Did you mean 'multi-mnist'"),
        (("genrate",), "Did you mean 'generate'"),
        (("generate", "multi-mnist", "--conuts", "2"), "No such option"),
        (("verify",), "Missing argument"),
        (("sheet", "D", "--first", "1000"), "has 300 scenes"),
    ],
)
def test_mistyped_commands_get_a_suggestion(mobj, tmp_path, arguments, sentence):
    mobj("generate", "multi-mnist", *SMALL, "--out", tmp_path / "d", "--no-sheet")
    result = mobj(*(tmp_path / "d" if argument == "D" else argument for argument in arguments))
    assert result.code == 2
    assert sentence in result.err


def test_an_unwritable_folder_is_named(mobj, tmp_path):
    (tmp_path / "file").write_text("")
    result = mobj("generate", "multi-mnist", *SMALL, "--out", tmp_path / "file" / "d")
    assert result.code == 1
    assert "a file is in the way" in result.err


def test_a_folder_of_another_configuration_is_refused(mobj, tmp_path):
    mobj("generate", "multi-mnist", *SMALL, "--out", tmp_path / "d", "--no-sheet")
    result = mobj("generate", "multi-mnist", *SMALL, "--counts", "3", "--out", tmp_path / "d")
    assert result.code == 2
    assert "config.counts is '0-2' there, '3' in this command" in result.err


def test_verify_finds_a_flipped_byte_and_repairs_it(mobj, tmp_path):
    folder = tmp_path / "d"
    mobj("generate", "multi-mnist", *SMALL, "--out", folder, "--no-sheet")
    shard = folder / "test-00000-of-00001.h5"
    good = shard.read_bytes()
    shard.write_bytes(good[:5000] + bytes([good[5000] ^ 1]) + good[5001:])
    found = mobj("verify", folder)
    assert found.code == 4
    assert "changed: test-00000-of-00001.h5" in found.out
    assert f"mobj verify --repair {folder}" in found.err
    repaired = mobj("verify", folder, "--repair", "--regenerate", "50%")
    assert repaired.code == 0, repaired.err
    assert "repaired test-00000-of-00001.h5" in repaired.out
    assert "scenes drawn anew are equal" in repaired.out
    assert shard.read_bytes() == good
    (folder / "train-00007-of-00009.h5").write_bytes(b"")
    assert mobj("verify", folder, "--repair").code == 4


def test_verify_of_nothing_is_missing_data(mobj, tmp_path):
    assert mobj("verify", tmp_path / "nowhere").code == 3
    assert mobj("verify", tmp_path).code == 3
    assert mobj("verify", tmp_path, "--regenerate", "nonsense").code == 2


def test_verify_of_a_part_names_what_joins_parts(mobj, tmp_path):
    mobj("generate", "multi-mnist", *SMALL, "--shard-range", "0/2", "--out", tmp_path / "part")
    result = mobj("verify", tmp_path / "part")
    assert result.code == 3
    assert "part of a data set" in result.err
    assert "`mobj merge`" in result.err


def test_sheet_draws_any_split(mobj, tmp_path):
    mobj("generate", "multi-mnist", *SMALL, "--out", tmp_path / "d", "--no-sheet")
    result = mobj("sheet", tmp_path / "d", "--split", "test", "--first", 40, "--out", tmp_path / "s.png")
    assert result.code == 0, result.err
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


def test_sheet_takes_the_first_split_where_there_is_no_train(mobj, tmp_path):
    arguments = ("--digits", "bundled", "--train", 0, "--val", 30, "--test", 20)
    mobj("generate", "multi-mnist", *arguments, "--out", tmp_path / "d", "--no-sheet")
    assert (mobj("sheet", tmp_path / "d").out.strip(), (tmp_path / "d" / "sheet-val.png").exists()) == (
        str(tmp_path / "d" / "sheet-val.png"),
        True,
    )
    wrong = mobj("sheet", tmp_path / "d", "--split", "train")
    assert (wrong.code, "has no split 'train'" in wrong.err) == (2, True)


def test_every_command_has_help_with_an_example(mobj):
    from cli.main import COMMANDS

    for command in COMMANDS:
        result = mobj(command, "--help")
        assert result.code == 0
        assert f"mobj {command}" in result.out


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_ends_like_ctrl_c(mobj, start_mobj, tmp_path, workers):
    out = tmp_path / "d"
    arguments = (
        "generate",
        "multi-mnist",
        "--digits",
        "bundled",
        "--train",
        10**6,
        "--test",
        0,
        "--out",
        out,
    )
    process = start_mobj(*arguments, "--workers", workers, "--no-sheet")
    wait_for(lambda: list(out.glob("*.h5")))
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    told = [line for line in err.splitlines() if not line.startswith("generate: ")]
    assert len(told) == 1, err
    assert told[0].startswith(
        "error: interrupted; nothing finished is lost. To continue: mobj generate multi-mnist"
    )
    assert not list(out.glob(".lock*"))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_killed_in_the_middle_the_same_command_finishes_the_job(mobj, start_mobj, tmp_path):
    arguments = (
        "generate",
        "multi-mnist",
        "--digits",
        "bundled",
        "--train",
        30_000,
        "--test",
        0,
        "--shard-rows",
        2048,
    )
    process = start_mobj(*arguments, "--workers", 2, "--out", tmp_path / "killed", "--no-sheet")
    wait_for(lambda: list((tmp_path / "killed").glob("*.h5")))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("*.h5")}
    assert not (tmp_path / "killed" / "dataset.json").exists()
    wait_for(lambda: mobj(*arguments, "--out", tmp_path / "killed", "--no-sheet", "--workers", 1).code == 0)
    mobj(*arguments, "--out", tmp_path / "whole", "--no-sheet", "--workers", 1)
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert {path.name for path in (tmp_path / "killed").iterdir()} == names
    for name in names:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert len(finished) < 15


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_interrupted_it_says_how_to_go_on(start_mobj, tmp_path):
    arguments = ("generate", "multi-mnist", "--digits", "bundled", "--train", 200_000, "--shard-rows", 512)
    process = start_mobj(*arguments, "--workers", 1, "--out", tmp_path / "d")
    wait_for(lambda: list((tmp_path / "d").glob("*.h5")))
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "To continue: mobj generate multi-mnist" in err
    assert "Traceback" not in err
    assert not list((tmp_path / "d").glob(".*.tmp-*"))


@pytest.mark.parametrize(
    "command",
    [
        ("train", "air", "--data", "{data}", "--out", ""),
        ("verify", "{data}", "--regenerate", ""),
        ("sheet", "{data}", "--out", ""),
        ("metrics", "fid", "{data}", "{data}", "--features", ""),
        ("metrics", "train-features", "--data", "{data}", "--out", ""),
    ],
    ids=lambda command: command[0] + command[1],
)
def test_an_empty_text_is_no_option_left_out(mobj, small_dataset, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    result = mobj(*(part.format(data=small_dataset) for part in command))
    assert result.code == 2
    assert "expected a text, got an empty one" in result.err
    assert list(tmp_path.iterdir()) == []


def test_a_picture_is_called_what_it_is(mobj, small_dataset, tmp_path):
    result = mobj("sheet", small_dataset, "--split", "test", "--out", tmp_path / "x.jpg")
    assert result.code == 2
    assert "ends in .png" in result.err


@pytest.mark.parametrize("command", ["sheet", "verify", "inspect"])
def test_the_manifest_is_not_its_folder(mobj, small_dataset, command):
    result = mobj(command, small_dataset / "dataset.json")
    assert result.code == 3
    assert f"is the manifest of a data set; give its folder, {small_dataset}" in result.err
