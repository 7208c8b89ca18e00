"""Parts of an array job that shared no disk: what merge makes of them, and what it refuses."""

import errno
import json
import os
import shlex
import shutil
import sys

import pytest

from cli import main as cli_main
from multiobj_data.errors import DataError, MobjError, UsageError
from multiobj_data.generation import merging
from multiobj_data.generation.merging import commands_for_missing, merge, survey
from multiobj_data.generation.plan import Plan
from multiobj_data.generation.running import generate


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def made(small_plan, tmp_path_factory):
    """Three ranges of the small data set, each in a folder of its own."""
    home = tmp_path_factory.mktemp("made")
    for i in range(3):
        assert generate(small_plan, home / f"part-{i}", shard_range=(i, 3)) is None
    return home


@pytest.fixture
def parts(made, tmp_path):
    """Copies that a test may damage."""
    return [shutil.copytree(made / f"part-{i}", tmp_path / f"part-{i}") for i in range(3)]


@pytest.fixture
def run_line(monkeypatch, tmp_path):
    """Run a command line as it was suggested, and return the folder that it wrote."""

    def run(line):
        arguments = shlex.split(line)
        monkeypatch.setattr(sys, "argv", arguments)
        assert cli_main._run() == 0
        return tmp_path / arguments[-1]

    return run


@pytest.mark.parametrize("link", [True, False])
def test_the_parts_become_what_one_run_writes_and_stay_as_they_were(parts, small_dataset, tmp_path, link):
    before = [files_of(part) for part in parts]
    merged = merge(survey(parts), tmp_path / "all", link=link)
    assert files_of(tmp_path / "all") == files_of(small_dataset)
    assert [files_of(part) for part in parts] == before
    assert (merged.linked, merged.copied, merged.kept) == ((5, 0, 0) if link else (0, 5, 0))


def test_it_needs_neither_the_generator_nor_its_digits(parts, small_dataset, tmp_path, monkeypatch):
    def fail(*arguments, **named):
        raise AssertionError

    monkeypatch.setattr("multiobj_data.generators.multi_mnist.MultiMNIST.scenes", fail)
    monkeypatch.setattr("multiobj_data.sprites.digits.load_digits", fail)
    merge(survey(parts), tmp_path / "all")
    assert files_of(tmp_path / "all") == files_of(small_dataset)


def test_where_links_are_impossible_shards_are_copied(parts, small_dataset, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    assert merge(survey(parts), tmp_path / "all").copied == 5
    assert files_of(tmp_path / "all") == files_of(small_dataset)


def test_a_missing_range_is_named_with_the_command_that_makes_it(parts, small_plan, run_line, tmp_path):
    shutil.rmtree(parts[1])
    inventory = survey([parts[0], parts[2]])
    numbers = [number for number, task in enumerate(small_plan.tasks()) if task in inventory.missing]
    assert numbers == [1, 4]
    (command,) = commands_for_missing(inventory)
    assert "--shard-range 1/3" in command
    made = run_line(command)
    assert survey([parts[0], parts[2], made]).missing == []
    with pytest.raises(DataError, match="2 shards are missing"):
        merge(inventory, tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_a_damaged_shard_is_named_and_made_again_by_the_command(parts, run_line):
    shard = sorted(parts[2].glob("*.h5"))[0]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    inventory = survey(parts)
    assert (inventory.damaged, [task.file for task in inventory.missing]) == ([shard], [shard.name])
    (command,) = commands_for_missing(inventory)
    assert shlex.split(command)[-2:] == ["--out", str(parts[2])]
    run_line(command)
    assert (survey(parts).damaged, survey(parts).missing) == ([], [])


def test_equal_duplicates_are_counted_and_stand_in_for_damaged_ones(parts, small_dataset, tmp_path):
    twin = shutil.copytree(parts[0], tmp_path / "twin")
    inventory = survey([*parts, twin])
    assert (inventory.duplicates, inventory.damaged) == (2, [])
    shard = sorted(parts[0].glob("*.h5"))[0]
    shard.write_bytes(b"torn")
    inventory = survey([*parts, twin])
    assert (inventory.duplicates, inventory.damaged, inventory.missing) == (1, [shard], [])
    merge(inventory, tmp_path / "all")
    assert files_of(tmp_path / "all") == files_of(small_dataset)


def test_a_finished_data_set_is_a_part_as_well(parts, small_dataset, tmp_path):
    whole = shutil.copytree(small_dataset, tmp_path / "whole")
    assert survey([parts[0], whole]).duplicates == 2
    sorted(whole.glob("*.h5"))[0].unlink()  # the last shard, test 0, is in part 0
    assert len(survey([whole]).missing) == 1
    merge(survey([whole, *parts]), tmp_path / "all")
    assert files_of(tmp_path / "all") == files_of(small_dataset)


def with_other_scenes(plan, folder, shard_range, monkeypatch):
    """Write a range as another version of a library would: other bytes under the same identity."""
    from multiobj_data.generation import plan as plan_module

    draw = plan_module.draw_blocks
    monkeypatch.setattr(plan_module, "draw_blocks", lambda *a: [scenes[::-1] for scenes in draw(*a)])
    generate(plan, folder, shard_range=shard_range)
    monkeypatch.undo()


@pytest.mark.parametrize("other_is", ["journal", "manifest"])
def test_different_bytes_under_one_name_are_refused_with_both_files(
    parts, small_plan, small_dataset, tmp_path, monkeypatch, other_is
):
    with_other_scenes(small_plan, tmp_path / "other", (0, 3), monkeypatch)
    others = [small_dataset] if other_is == "manifest" else parts
    with pytest.raises(
        UsageError, match=r"train-00000-of-00003.h5 and .*other.*train-00000-of-00003.h5.*different"
    ):
        survey([*others, tmp_path / "other"])
    if other_is == "manifest":  # what a manifest says binds even where its shard is gone
        broken = shutil.copytree(small_dataset, tmp_path / "broken")
        (broken / "train-00000-of-00003.h5").unlink()
        with pytest.raises(UsageError, match="different bytes"):
            survey([broken, tmp_path / "other"])


def test_parts_of_other_data_sets_are_refused(parts, small_plan, tmp_path):
    other = Plan(small_plan.name, small_plan.generator, 6, small_plan.splits, small_plan.shard_rows)
    generate(other, tmp_path / "other", shard_range=(1, 3))
    with pytest.raises(UsageError, match=r"other and .*part-0 are of different data sets: seed is 6 and 5"):
        survey([parts[0], tmp_path / "other"])
    generate(other, tmp_path / "begun", shard_range=(1, 3))
    with pytest.raises(UsageError, match="begun and .*part-0 are of different data sets"):
        survey(parts, tmp_path / "begun")


def test_parts_of_two_versions_are_refused_and_one_other_version_is_recorded(parts, tmp_path):
    def made_by(version, folder):
        journal = next(folder.glob(".progress*"))
        head, *lines = journal.read_text().splitlines()
        head = json.dumps(json.loads(head) | {"toolkit": version})
        journal.write_text("\n".join([head, *lines]) + "\n")

    made_by("0.0.1", parts[1])
    with pytest.raises(UsageError, match=r"part-1 was made by mobj 0.0.1 and .*part-0 by "):
        survey(parts)
    for part in parts:
        made_by("0.0.1", part)
    assert merge(survey(parts), tmp_path / "all").manifest.toolkit == "0.0.1"


def test_foreign_files_and_folders_are_named(parts, tmp_path):
    (parts[1] / "train-00007-of-00009.h5").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"part-1/train-00007-of-00009.h5 is no part of the data set"):
        survey(parts)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="neither a whole journal"):
        survey([tmp_path / "empty"])
    with pytest.raises(DataError, match="no such folder"):
        survey([tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"identity": {"seed": "five"}}', "journal in .* is damaged"),
        ('{"identity": 5}', "journal in .* is damaged"),
        ("{}", "journal in .* is damaged"),
        ("nonsense", "neither a whole journal"),
    ],
)
def test_a_damaged_journal_is_named(parts, line, sentence):
    journal = next(parts[0].glob(".progress*"))
    journal.write_text(line + "\n" + journal.read_text())
    with pytest.raises(DataError, match=sentence):
        survey(parts)


def test_a_journal_cannot_point_out_of_its_folder(parts):
    journal = next(parts[0].glob(".progress*"))
    journal.write_text(journal.read_text().replace("train-00000-of-00003.h5", "../../secret.h5"))
    with pytest.raises(DataError, match="no shard of its data set"):
        survey(parts)


def test_out_must_not_be_a_part_nor_hold_something_else(parts, tmp_path):
    with pytest.raises(UsageError, match="is one of the parts"):
        survey(parts, tmp_path / "part-1" / ".." / "part-0")
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "test-00000-of-00002.h5").write_bytes(b"x")
    with pytest.raises(UsageError, match="of unknown origin"):
        survey(parts, tmp_path / "strange")


@pytest.mark.parametrize("link", [True, False])
@pytest.mark.parametrize("shards", [0, 2, 4])
def test_an_interrupted_merge_goes_on(parts, small_dataset, tmp_path, monkeypatch, shards, link):
    before, brought, out = [files_of(part) for part in parts], [], tmp_path / "all"
    bring = merging._bring

    def interrupted(source, target, record, link):
        if len(brought) == shards:
            target.with_name(f".{target.name}.tmp-1").write_bytes(b"half")
            raise KeyboardInterrupt
        brought.append(target)
        return bring(source, target, record, link)

    monkeypatch.setattr(merging, "_bring", interrupted)
    with pytest.raises(KeyboardInterrupt):
        merge(survey(parts, out), out, link=link)
    monkeypatch.undo()
    assert not (out / "dataset.json").exists()
    merged = merge(survey(parts, out), out, link=link)
    assert (merged.kept, merged.linked + merged.copied) == (shards, 5 - shards)
    assert files_of(out) == files_of(small_dataset)
    assert [files_of(part) for part in parts] == before
    again = merge(survey(parts, out), out)
    assert (again.kept, files_of(out)) == (5, files_of(small_dataset))


def test_a_shard_that_changes_under_the_copy_is_not_taken(parts, tmp_path):
    inventory = survey(parts)
    next(parts[0].glob("*.h5")).write_bytes(b"changed")
    with pytest.raises(DataError, match="changed"):
        merge(inventory, tmp_path / "all", link=False)
    assert not (tmp_path / "all" / "dataset.json").exists()
    assert not list((tmp_path / "all").glob(".*.tmp-*"))


def test_two_merges_into_one_folder_do_not_mix(parts, tmp_path):
    from multiobj_data.shards.journal import hold_lock

    inventory = survey(parts)
    (tmp_path / "all").mkdir()
    with hold_lock(tmp_path / "all", (0, 1)), pytest.raises(MobjError, match="another mobj run"):
        merge(inventory, tmp_path / "all")


def test_commands_for_single_shards_make_just_these(small_plan, run_line, tmp_path):
    generate(small_plan, tmp_path / "one")  # no array job
    for name in ("train-00001-of-00003.h5", "test-00001-of-00002.h5"):
        (tmp_path / "one" / name).unlink()
    commands = commands_for_missing(survey([tmp_path / "one"]))
    assert len(commands) == 2
    made = [run_line(command) for command in commands]
    assert survey([tmp_path / "one", *made]).missing == []
