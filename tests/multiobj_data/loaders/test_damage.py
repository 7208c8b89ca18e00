"""Files damaged at random: what is read of them is right, or the one error that says so."""

import gzip
import struct

import google_crc32c
import numpy as np
import pytest

from multiobj_data.errors import DataError
from multiobj_data.loaders.multi_object_datasets import read

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
QUICK = hypothesis.settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
SCENES = 3


@pytest.fixture(scope="module")
def whole(public_files, tmp_path_factory):
    """A Tetrominoes file, not compressed, and its scenes."""
    path = tmp_path_factory.mktemp("whole") / "tetrominoes_train.tfrecords"
    public_files.tetrominoes(path, SCENES)
    data = path.read_bytes()
    data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    return data, list(read(path))


@st.composite
def damages(draw):
    """A function that damages bytes: flips, sets, deletes, inserts, cuts off or repeats, in one to three places."""
    steps = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["flip", "set", "delete", "insert", "cut", "repeat"]),
                st.floats(0, 1, exclude_max=True),
                st.integers(0, 255),
                st.booleans(),
            ),
            min_size=1,
            max_size=3,
        )
    )

    def damage(data):
        data = bytearray(data)
        for kind, share, value, early in steps:
            if not data:
                break
            at = int(
                share * (min(len(data), 40) if early else len(data))
            )  # lengths and names lie at the beginning
            match kind:
                case "flip":
                    data[at] ^= 1 << value % 8
                case "set":
                    data[at] = value
                case "delete":
                    del data[at : at + 1 + value % 7]
                case "insert":
                    data[at:at] = bytes([value]) * (1 + value % 7)
                case "cut":
                    del data[at:]
                case "repeat":
                    data[at : at + value] = data[:value]
        return bytes(data)

    return damage


def read_all(path):
    scenes, error = [], None
    try:
        for scene in read(path):
            scenes.append(scene)
    except DataError as raised:
        error = raised
    assert error is None or (str(path) in str(error) and "\n" not in str(error))
    return scenes, error


def is_same(one, other):
    factors = (np.array_equal(one.factors[name], other.factors[name]) for name in one.factors)
    return (
        np.array_equal(one.image, other.image)
        and np.array_equal(one.segments, other.segments)
        and all(factors)
    )


@QUICK
@hypothesis.given(damage=damages(), packed=st.booleans())
def test_damaged_files_give_what_was_stored_and_then_an_error(whole, tmp_path, damage, packed):
    data, scenes = whole
    path = tmp_path / "damaged"
    data = damage(gzip.compress(data, 1, mtime=0) if packed else data)
    path.write_bytes(data)
    found, error = read_all(path)
    assert len(found) <= SCENES
    assert all(is_same(one, other) for one, other in zip(found, scenes, strict=False))
    if error is None and len(found) < SCENES:  # nothing else can hide a loss
        assert not data or not packed


@QUICK
@hypothesis.given(damage=damages(), place=st.integers(0, SCENES - 1))
def test_a_damaged_record_with_right_checksums_is_refused_or_a_scene(whole, tmp_path, damage, place):
    data, scenes = whole
    size = struct.unpack("<Q", data[:8])[0]
    payloads = [data[k * (size + 16) + 12 :][:size] for k in range(SCENES)]
    payloads[place] = damage(payloads[place])
    path = tmp_path / "damaged"
    path.write_bytes(b"".join(framed(payload) for payload in payloads))
    found, error = read_all(path)
    assert (len(found) == SCENES) == (error is None)
    assert error is None or f"record {place}" in str(error)
    for number, scene in enumerate(found):
        assert number == place or is_same(scene, scenes[number])
        assert scene.image.shape == (35, 35, 3)
        assert scene.segments.shape == (35, 35)
        assert scene.segments.max() < scene.entities == 4


def framed(payload):
    length = struct.pack("<Q", len(payload))
    return length + masked(length) + payload + masked(payload)


def masked(data):
    value = google_crc32c.value(data)
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) % (1 << 32))
