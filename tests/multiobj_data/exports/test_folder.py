"""An export is there whole or not at all; what stands in its way is left alone."""

import shutil
import sys

import pytest

from multiobj_data.errors import DataError, MobjError, UsageError, VerificationError
from multiobj_data.exports import formats
from multiobj_data.exports.formats import export


def test_a_failed_export_leaves_nothing(small_dataset, tmp_path, monkeypatch):
    def fail(*arguments):
        raise DataError("broken")

    monkeypatch.setattr(formats, "_describe", fail)
    with pytest.raises(DataError, match="broken"):
        export(small_dataset, "npz", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_same_export_again_changes_nothing_and_another_is_refused(small_dataset, tmp_path):
    out = tmp_path / "out"
    assert export(small_dataset, "npz", out, limit=2).fresh
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert not export(small_dataset, "npz", out, limit=2).fresh
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    with pytest.raises(UsageError, match="another export .splits is"):
        export(small_dataset, "npz", out, limit=3)
    (out / "train.npz").write_bytes(b"")
    with pytest.raises(UsageError, match=r"damaged \(train.npz is missing or changed\)"):
        export(small_dataset, "npz", out, limit=2)
    with pytest.raises(UsageError, match="not an export of this toolkit"):
        export(small_dataset, "npz", small_dataset)


def test_what_a_killed_run_left_is_cleared_away(small_dataset, tmp_path):
    rubbish = tmp_path / ".out.unfinished" / "content"
    rubbish.mkdir(parents=True)
    (rubbish / "half.npz").write_bytes(b"x")
    done = export(small_dataset, "npz", tmp_path / "out")
    assert "half.npz" not in done.files
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_and_a_link_to_one_are_filled(small_dataset, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert export(small_dataset, "npz", tmp_path / "link", limit=1).fresh
    assert (tmp_path / "real" / "train.npz").exists()
    assert (tmp_path / "link").is_symlink()


def test_damaged_shards_are_not_exported(small_dataset, tmp_path):
    folder = shutil.copytree(small_dataset, tmp_path / "d")
    shard = folder / "train-00001-of-00003.h5"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(VerificationError, match="train-00001-of-00003.h5 is not what the manifest says"):
        export(folder, "npz", tmp_path / "out")
    assert export(folder, "npz", tmp_path / "first", limit=256).fresh  # the first shard is whole
    shard.unlink()
    with pytest.raises(DataError, match="train-00001-of-00003.h5 is missing; run `mobj verify --repair"):
        export(folder, "npz", tmp_path / "out")


@pytest.mark.parametrize(("name", "library"), [("parquet", "pyarrow"), ("tfds", "array_record")])
def test_a_missing_library_is_named(name, library, small_dataset, tmp_path, monkeypatch):
    for module in [m for m in sys.modules if m.split(".")[0] == library]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MobjError, match=rf"needs the library {library}.*mobj\[export\]"):
        export(small_dataset, name, tmp_path / "out")
    assert not any(tmp_path.iterdir())
