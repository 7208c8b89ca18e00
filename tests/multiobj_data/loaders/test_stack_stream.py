"""ShapeStacks converted: what makes two sources the same, and how a run goes on with a mended archive."""

import gzip
import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from multiobj_data.errors import DataError, UsageError
from multiobj_data.loaders.conversion import convert
from multiobj_data.loaders.preparing import Selection
from multiobj_data.loaders.protocols import find_protocol
from multiobj_data.loaders.sets import find_set
from multiobj_data.loaders.shapestacks import ShapeStacks
from multiobj_data.loaders.stack_stream import StackStream
from multiobj_data.loaders.streams import Request

SIDE = 32


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def files_of(scenarios, cameras=8):
    """Pictures and label maps by name: two blocks, one on the other."""
    rng, files = np.random.default_rng(0), {}
    labels = np.zeros((SIDE, SIDE), np.uint8)
    labels[20:28, 8:16], labels[12:20, 8:16] = 1, 2
    for variant in scenarios:
        folder = f"recordings/env_blocks-easy-h=2-vcom=0-vpsf=0-v={variant}"
        for camera in range(1, cameras + 1):
            noise = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
            files[f"{folder}/rgb-w=0-f=0-l=0-c=original-cam_{camera}-mono-0.png"] = png(noise)
            files[f"{folder}/iseg-w=0-f=0-l=0-c=original-cam_{camera}-mono-0.map"] = png(32 * labels)
    return files


def pack(folder, files):
    folder.mkdir(exist_ok=True)
    for kind in ("rgb", "iseg"):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, content in files.items():
                if f"/{kind}-" in name:
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        (folder / f"shapestacks-{kind}.tar.gz").write_bytes(gzip.compress(buffer.getvalue(), 1, mtime=0))
    return folder


def unpack(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def stream(folder, **options):
    request = Request(find_set("shapestacks"), find_protocol("shapestacks", "as-stored"), Selection())
    return StackStream(request, ShapeStacks(folder, split="all", **options), workers=1)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_mended_archive_goes_on_from_where_it_broke_off(tmp_path):
    files = files_of(range(1, 31))
    whole, broken = pack(tmp_path / "whole", files), pack(tmp_path / "broken", files)
    path = broken / "shapestacks-rgb.tar.gz"
    packed = bytearray(path.read_bytes())
    packed[len(packed) * 9 // 10] ^= 64
    path.write_bytes(packed)
    with pytest.raises(
        DataError, match=r"scenes in the shards written before it stay in .*goes on from there"
    ):
        convert(stream(broken), tmp_path / "set", shard_rows=8)
    parts = len(list((tmp_path / "set").glob("*.h5")))
    assert parts >= 2
    path.write_bytes((whole / path.name).read_bytes())
    read = []
    convert(stream(broken), tmp_path / "set", shard_rows=8, on_progress=read.append)
    assert sum(read) < len(files) // 2 - 8  # what had been written was not decoded again
    convert(stream(whole), tmp_path / "reference", shard_rows=8)
    assert content(tmp_path / "set") == content(tmp_path / "reference")


def test_another_archive_is_another_source(tmp_path):
    first = pack(tmp_path / "first", files_of([1]))
    convert(stream(first), tmp_path / "set")
    before = content(tmp_path / "set")
    with pytest.raises(UsageError, match=r"holds another data set: sources\.shapestacks-(rgb|iseg)"):
        convert(stream(pack(tmp_path / "second", files_of([1, 2]))), tmp_path / "set")
    (first / "meta").mkdir()
    (first / "meta" / "blacklist_stable.txt").write_text("env_blocks-easy-h=2-vcom=0-vpsf=0-v=9\n")
    with pytest.raises(UsageError, match=r"another data set: config\.blacklists"):
        convert(stream(first, blacklists=True), tmp_path / "set")
    assert content(tmp_path / "set") == before


def test_other_folders_of_recordings_are_another_source(tmp_path):
    convert(stream(unpack(tmp_path / "first", files_of([1]))), tmp_path / "set")
    with pytest.raises(UsageError, match=r"another data set: sources\.scenarios of all"):
        convert(stream(unpack(tmp_path / "second", files_of([2]))), tmp_path / "set")
