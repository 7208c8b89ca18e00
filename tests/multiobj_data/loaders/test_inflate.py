import gzip
import importlib.util
import zlib

import numpy as np
import pytest

from multiobj_data.errors import DataError, UsageError
from multiobj_data.loaders.inflate import open_stream

NO_ISAL = importlib.util.find_spec("isal") is None
INFLATERS = ["zlib", pytest.param("isal", marks=pytest.mark.skipif(NO_ISAL, reason="isal is not installed"))]


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, 1_500_000, np.uint8)  # more than a chunk of the file, incompressible
    return noise.tobytes() + bytes(3_000_000)


def pieces(stream, sizes):
    """Read pieces of these sizes, round and round, to the end."""
    out, i = [], 0
    while piece := stream.read(sizes[i % len(sizes)]):
        out.append(piece)
        i += 1
    return out


@pytest.mark.parametrize("inflater", INFLATERS)
@pytest.mark.parametrize("block", [0, 1000, 1 << 20])
def test_any_pieces_are_the_file(tmp_path, data, inflater, block):
    path = tmp_path / "a"
    path.write_bytes(
        gzip.compress(data[:2_000_000], 1) + bytes(7) + gzip.compress(data[2_000_000:], 1) + bytes(5)
    )
    with open_stream(path, inflater=inflater) as stream:
        assert (stream.compressed, stream.inflater) == (True, inflater)
        stream.block = block
        sizes = [12, 700_000, 4, 1, 99_999]
        read = pieces(stream, sizes)
        assert [len(r) for r in read[:-1]] == [sizes[i % 5] for i in range(len(read) - 1)]
        assert b"".join(read) == data
        assert stream.offset == len(data)
        assert stream.position == stream.total == path.stat().st_size
        assert stream.read(1) == b""


def test_a_plain_file_of_any_name_is_read_as_it_is(tmp_path, data):
    path = tmp_path / "a.gz"
    path.write_bytes(data)
    with open_stream(path) as stream:
        assert (stream.compressed, stream.inflater) == (False, "none")
        assert b"".join(pieces(stream, [3, 800_000])) == data


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("far", [0, 5, 1000, 3_000_000, 4_499_990, 5_000_000])
def test_skipping_is_reading(tmp_path, data, compress, far):
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(data, 1) if compress else data)
    with open_stream(path) as stream:
        head = stream.read(10)
        assert stream.skip(far) == min(far, len(data) - 10)
        assert head + data[10 : 10 + far] + b"".join(pieces(stream, [1 << 20])) == data
        assert stream.offset == len(data)


@pytest.mark.parametrize("inflater", INFLATERS)
@pytest.mark.parametrize("kept", [1, 9, 5000, -9, -1])
def test_what_lies_before_a_cut_is_handed_out(tmp_path, data, inflater, kept):
    path = tmp_path / "a"
    whole = gzip.compress(data[1_490_000:1_520_000], 1)
    path.write_bytes(whole[:kept] if kept != 1 else whole[:2])
    have = len(zlib.decompressobj(31).decompress(path.read_bytes()))
    with open_stream(path, inflater=inflater) as stream:
        read = []
        with pytest.raises(DataError, match=r"end too early.* after byte [\d,]+ of the inflated") as error:
            read.extend(iter(lambda: stream.read(1), b""))
        assert f"after byte {len(read):,} of" in str(error.value)
        assert b"".join(read) == data[1_490_000 : 1_490_000 + len(read)]
        assert len(read) == have


@pytest.mark.parametrize("inflater", INFLATERS)
@pytest.mark.parametrize("place", [-6, -2])
def test_a_wrong_checksum_or_length_of_gzip_is_told(tmp_path, data, inflater, place):
    whole = bytearray(gzip.compress(data[:1000]))
    whole[place] ^= 1
    path = tmp_path / "a"
    path.write_bytes(whole)
    with open_stream(path, inflater=inflater) as stream, pytest.raises(DataError, match="are damaged"):
        pieces(stream, [100])


def test_what_follows_a_member_and_is_no_member_is_told(tmp_path, data):
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(data[:10]) + b"more and more of it")
    with open_stream(path) as stream, pytest.raises(DataError, match="are damaged"):
        pieces(stream, [100])


def test_other_inflaters_and_no_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(b""))
    with pytest.raises(UsageError, match="expected 'isal' or 'zlib', got 'lz4'"):
        open_stream(path, inflater="lz4")
    with pytest.raises(DataError, match="cannot be read"):
        open_stream(tmp_path / "none")
    with pytest.raises(DataError, match="cannot be read"):
        open_stream(tmp_path)
