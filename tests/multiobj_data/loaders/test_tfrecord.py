import struct

import numpy as np
import pytest

from multiobj_data.errors import DataError
from multiobj_data.loaders import tfrecord
from multiobj_data.loaders.inflate import open_stream
from multiobj_data.loaders.tfrecord import crc32c, fast_crc32c, records, skip

PAYLOADS = [b"", b"a", bytes(range(256)) * 9, b"last" * 1000]
STARTS = np.cumsum([0] + [len(p) + 16 for p in PAYLOADS]).tolist()


def read(path, **more):
    with open_stream(path) as stream:
        return [(r.number, r.offset, r.payload.tobytes()) for r in records(stream, **more)]


def test_crc32c_by_its_check_value():
    assert crc32c(b"123456789") == 0xE3069283
    if fast_crc32c():
        assert fast_crc32c()(np.frombuffer(b"123456789", np.uint8)) == 0xE3069283


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("check", [None, True, False])
def test_records_are_those_written(tmp_path, wire, compress, check):
    path = wire.write(tmp_path / "a", PAYLOADS, compress)
    expected = list(zip(range(4), STARTS[:-1], PAYLOADS, strict=True))
    assert read(path, check_data=check) == expected
    for start in range(5):
        assert read(path, check_data=check, start=start) == expected[start:]


def test_payloads_stay_when_others_are_read(tmp_path, wire):
    path = wire.write(tmp_path / "a", PAYLOADS * 50)
    with open_stream(path) as stream:
        assert [r.payload.tobytes() for r in list(records(stream))] == PAYLOADS * 50


@pytest.mark.parametrize("fast", [True, False])
def test_every_flipped_bit_is_found_in_its_record(tmp_path, wire, monkeypatch, fast):
    if not fast:
        monkeypatch.setattr(tfrecord, "fast_crc32c", lambda: None)
    whole = b"".join(map(wire.framed, PAYLOADS[:3]))
    path = tmp_path / "a"
    for place in [*range(50), *range(50, len(whole), 101), *range(len(whole) - 4, len(whole))]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        number = int(np.searchsorted(STARTS, place, "right")) - 1
        where = (
            rf"a: record {number} \(at byte {STARTS[number]:,}\) has a wrong checksum of its (length|data)"
        )
        before = []
        with open_stream(path) as stream, pytest.raises(DataError, match=where):
            before.extend(r.payload.tobytes() for r in records(stream, check_data=True))
        with open_stream(path) as stream:  # records before it are handed out
            kept = records(stream, check_data=True)
            assert [next(kept).payload.tobytes() for _ in range(number)] == PAYLOADS[:number]


def test_without_compiled_code_data_are_checked_on_demand_and_lengths_always(tmp_path, wire, monkeypatch):
    monkeypatch.setattr(tfrecord, "fast_crc32c", lambda: None)
    whole = bytearray(b"".join(map(wire.framed, PAYLOADS)))
    whole[STARTS[2] + 100] ^= 1
    (tmp_path / "a").write_bytes(whole)
    assert len(read(tmp_path / "a")) == 4
    with pytest.raises(DataError, match="record 2 .* wrong checksum of its data"):
        read(tmp_path / "a", check_data=True)
    whole[STARTS[3]] ^= 1
    (tmp_path / "a").write_bytes(whole)
    with pytest.raises(DataError, match="record 3 .* wrong checksum of its length"):
        read(tmp_path / "a")


@pytest.mark.parametrize("compress", [True, False])
def test_every_cut_is_told_with_its_record(tmp_path, wire, compress):
    whole = b"".join(map(wire.framed, PAYLOADS[:2])) + wire.framed(b"abcdef")
    for length in range(1, len(whole)):
        path = tmp_path / "a"
        if compress:
            import gzip

            path.write_bytes(gzip.compress(whole[:length]))
        else:
            path.write_bytes(whole[:length])
        if length in STARTS:
            assert len(read(path)) == STARTS.index(length)
            continue
        number = int(np.searchsorted(STARTS[:3], length, "right")) - 1
        with pytest.raises(DataError, match=rf"record {number} \(at byte {STARTS[number]}.* is cut off"):
            read(path)


@pytest.mark.parametrize("claim", [(1 << 30) + 1, 2 << 30, (1 << 64) - 1])
def test_a_claim_beyond_the_limit_is_told_and_asks_for_no_memory(tmp_path, wire, claim):
    length = struct.pack("<Q", claim)
    (tmp_path / "a").write_bytes(wire.framed(b"good") + length + wire.masked(length) + b"x" * 100)
    with pytest.raises(
        DataError, match=rf"record 1 .* claims {claim:,} bytes, more than the limit of 1,073,741,824"
    ):
        read(tmp_path / "a")


def test_a_claim_below_the_limit_is_a_cut(tmp_path, wire):
    length = struct.pack("<Q", 1 << 30)
    (tmp_path / "a").write_bytes(length + wire.masked(length) + b"x" * 100)
    with pytest.raises(DataError, match=r"record 0 .* is cut off: 100 of 1,073,741,828 bytes"):
        read(tmp_path / "a")


def test_a_file_that_is_no_tfrecord(tmp_path):
    (tmp_path / "a").write_bytes(b"\x89PNG and so on")
    with pytest.raises(DataError, match="record 0 .*is the file a TFRecord"):
        read(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"")
    assert read(tmp_path / "a") == []


def test_skipping_more_than_there_is(tmp_path, wire):
    path = wire.write(tmp_path / "a", PAYLOADS)
    with open_stream(path) as stream, pytest.raises(DataError, match="expected more than 5 records, got 4"):
        skip(stream, 5)
    (tmp_path / "a").write_bytes(wire.framed(b"abc")[:-1])
    with open_stream(path) as stream, pytest.raises(DataError, match="record 0 .* is cut off"):
        skip(stream, 1)
