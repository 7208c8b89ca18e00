import json
import shlex

import pytest

REQUEST = (
    "generate",
    "multi-mnist",
    "--digits",
    "bundled",
    "--train",
    300,
    "--test",
    100,
    "--shard-rows",
    100,
)


@pytest.fixture
def parts(mobj, tmp_path):
    for i in range(2):
        result = mobj(*REQUEST, "--shard-range", f"{i}/2", "--out", tmp_path / f"part {i}")
        assert result.code == 0, result.err
        assert "mobj merge" in result.err
    return [tmp_path / "part 0", tmp_path / "part 1"]


def test_parts_of_an_array_job_become_one_data_set(mobj, parts, tmp_path):
    out = tmp_path / "all"
    dry = mobj("merge", *parts, "--out", out, "--dry-run")
    assert (dry.code, out.exists()) == (0, False)
    assert "nothing is missing: 400 scenes in 4 shards" in dry.out
    result = mobj("merge", *parts, parts[0], "--out", out, "--json")
    assert result.code == 0, result.err
    document = json.loads(result.out)
    assert (document["complete"], document["linked"], document["duplicates"]) == (True, 4, 0)
    assert mobj("verify", out, "--regenerate", "100%").code == 0
    mobj(*REQUEST, "--no-sheet", "--out", tmp_path / "whole")
    for path in (tmp_path / "whole").iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()
    assert mobj("merge", out, "--copy", "--out", tmp_path / "again").out.count("4 copied") == 1


def test_what_is_missing_is_code_3_with_commands(mobj, parts, tmp_path):
    result = mobj("merge", parts[1], "--out", tmp_path / "all", "--json")
    assert result.code == 3
    document = json.loads(result.out)
    assert document["missing"] == ["train-00000-of-00003.h5", "train-00002-of-00003.h5"]
    (command,) = document["commands"]
    assert command in result.err
    assert mobj(*shlex.split(command)[1:]).code == 0
    assert mobj("merge", parts[1], shlex.split(command)[-1], "--out", tmp_path / "all").code == 0


def test_other_data_sets_and_foreign_files_are_code_2_and_leave_nothing(mobj, parts, tmp_path):
    mobj(*REQUEST, "--seed", 1, "--shard-range", "0/2", "--out", tmp_path / "other")
    result = mobj("merge", tmp_path / "other", parts[1], "--out", tmp_path / "all")
    assert (result.code, result.out) == (2, "")
    assert "seed is 0 and 1" in result.err
    (parts[0] / "x.h5").write_bytes(b"")
    result = mobj("merge", *parts, "--out", tmp_path / "all")
    assert result.code == 2
    assert "x.h5 is no part of" in result.err
    assert mobj("merge", tmp_path / "nowhere", "--out", tmp_path / "all").code == 3
    assert mobj("merge", "--out", tmp_path / "all").code == 2
    assert not (tmp_path / "all").exists()


def test_a_folder_inside_a_part_is_refused(mobj, parts, tmp_path):
    for out in (parts[1] / "all", tmp_path / "elsewhere" / ".." / parts[1].name / "a" / "b"):
        result = mobj("merge", *parts, "--out", out)
        assert (result.code, "lies inside the part" in result.err) == (2, True), result.err
    result = mobj("merge", *parts, "--out", "")
    assert (result.code, "--out: expected a text" in result.err) == (2, True)
    assert not (parts[1] / "all").exists()


def test_a_scheduler_and_workers_contradict_each_other(mobj, tmp_path):
    result = mobj(*REQUEST, "--scheduler", "tcp://x:1", "--workers", 2, "--out", tmp_path / "d")
    assert result.code == 2
    assert "--scheduler tcp://x:1" in result.err
    assert "--workers 2" in result.err
    assert mobj(*REQUEST, "--scheduler", "nonsense", "--out", tmp_path / "d").code == 2
    assert not (tmp_path / "d").exists()
