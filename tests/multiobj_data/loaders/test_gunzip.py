"""Inflating without gzip's checksum, and ahead of the reader, gives the same bytes and tells the same damage."""

import gzip
import io
import threading
import zlib

import numpy as np
import pytest

from multiobj_data.errors import DataError
from multiobj_data.loaders.gunzip import header_length
from multiobj_data.loaders.inflate import open_stream

WAYS = [
    {"inflater": "zlib", "checksum": False},
    {"ahead": True},
    {"inflater": "zlib", "checksum": False, "ahead": True},
]


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(0).integers(0, 60, 1_500_000, np.uint8).tobytes() + bytes(2_000_000)


def member(data, flags, level=1):
    """A gzip member whose header has these optional parts (RFC 1952)."""
    header = b"\x1f\x8b\x08" + bytes([flags]) + bytes(6)
    header += b"\x05\x00extra" if flags & 4 else b""
    header += b"a name\0" if flags & 8 else b""
    header += b"a comment\0" if flags & 16 else b""
    header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little") if flags & 2 else b""
    body = zlib.compressobj(level, wbits=-15)
    trailer = zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")
    return header, body.compress(data) + body.flush() + trailer


@pytest.mark.parametrize("flags", range(0, 32, 2))
def test_headers_of_every_kind(tmp_path, flags):
    header, rest = member(b"content", flags)
    assert gzip.GzipFile(fileobj=io.BytesIO(header + rest)).read() == b"content"
    assert header_length(header + rest) == len(header)
    assert all(header_length(header[:n]) is None for n in range(len(header)))
    (tmp_path / "a").write_bytes(header + rest)
    for way in WAYS:
        with open_stream(tmp_path / "a", **way) as stream:
            stream.block = 3
            assert stream.read(100) == b"content"
            assert stream.read(1) == b""
            assert stream.read(1) == b""


@pytest.mark.parametrize("wrong", [b"\x1f\x8c", b"\x1f\x8b\x07\0", b"\x1f\x8b\x08\xe0", b"PK"])
def test_what_is_no_header(wrong):
    with pytest.raises(ValueError, match="no gzip header"):
        header_length(wrong + bytes(20))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("block", [1000, 300_000, 1 << 20])
def test_members_and_padding_are_the_file(tmp_path, data, way, block):
    parts = [data[:700_000], b"", data[700_000:]]
    (tmp_path / "a").write_bytes(
        b"".join(b"".join(member(part, 8 * i)) + bytes(3 * i) for i, part in enumerate(parts))
    )
    with open_stream(tmp_path / "a", **way) as stream:
        out = [stream.read(12)]
        stream.block = block
        while part := stream.read(99_999):
            out.append(part)
        assert b"".join(out) == data
        assert (stream.offset, stream.position) == (len(data), stream.total)


@pytest.mark.parametrize("way", [{"inflater": "zlib"}, *WAYS])
@pytest.mark.parametrize("kept", [5, 11, 400_000, -9, -1])
def test_what_lies_before_a_cut_is_handed_out(tmp_path, data, way, kept):
    whole = gzip.compress(data[:1_000_000], 1)
    (tmp_path / "a").write_bytes(whole[:kept])
    have = len(zlib.decompressobj(31).decompress(whole[:kept]))
    out = []
    with open_stream(tmp_path / "a", **way) as stream:
        out.append(stream.read(min(have, 12)))
        stream.block = 50_000
        with pytest.raises(DataError, match=f"end too early.* after byte {have:,} of"):
            out.extend(iter(lambda: stream.read(7_000 if have - stream.offset >= 7_000 else 1), b""))
        assert b"".join(out) == data[:have]
        with pytest.raises(DataError, match="end too early"):
            stream.read(1)


@pytest.mark.parametrize("way", [{"inflater": "zlib"}, *WAYS])
def test_a_member_of_another_length_than_it_says_is_told(tmp_path, data, way):
    whole = bytearray(gzip.compress(data[:1000]))
    whole[-2] ^= 1
    (tmp_path / "a").write_bytes(whole)
    with open_stream(tmp_path / "a", **way) as stream:
        stream.block = 100
        with pytest.raises(DataError, match="are damaged"):
            list(iter(lambda: stream.read(100), b""))


def test_looking_ahead_uses_nothing_up(tmp_path, data):
    (tmp_path / "a").write_bytes(gzip.compress(data, 1)[:500_000])
    with open_stream(tmp_path / "a") as stream:
        assert stream.peek(5).tobytes() == data[:5]
        assert stream.offset == 0
        most = stream.peek(1 << 24).size  # and raises nothing
        assert stream.take(most).tobytes() == data[:most]
        with pytest.raises(DataError, match="end too early"):
            stream.take(1)


def test_a_thread_that_inflates_ahead_ends_with_the_stream(tmp_path, data):
    (tmp_path / "a").write_bytes(gzip.compress(data, 1))
    before = set(threading.enumerate())
    with open_stream(tmp_path / "a", ahead=True) as stream:
        stream.block = 10_000
        assert stream.read(10) == data[:10]
        assert len(set(threading.enumerate()) - before) == 1  # it waits, far from the end
    assert set(threading.enumerate()) <= before
