import numpy as np
import pytest

from multiobj_data.errors import DataError
from multiobj_data.loaders.example import Places, features, one_byte_strings, parse_example
from multiobj_data.loaders.spans import Span

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
QUICK = hypothesis.settings(max_examples=150, deadline=None, derandomize=True, database=None)
RNG = np.random.default_rng(0)
NAN = np.array([np.nan, -np.inf, -0.0, 1e-45], np.float32)
FEATURES = {
    "image": RNG.integers(0, 256, 5000, np.uint8),
    "few": np.array([10, 1, 0, 255], np.uint8),
    "words": [b"", b"a", b"bc", b"x" * 300],
    "even": [b"", b"ab", b"c"],  # nine bytes for three strings, as if each had one
    "floats": np.concatenate([RNG.normal(size=40).astype(np.float32), NAN]),
    "ints": np.array([0, 1, -1, 127, 128, 2**63 - 1, -(2**63)]),
}


def varint(value):
    out = []
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def entry(name, feature):
    return field(1, field(1, name) + field(2, feature))


def same(values, kind, expected):
    """Whether our values are protobuf's list, bit by bit."""
    if kind == 1:
        ours = [bytes([v]) for v in values.tolist()] if values.dtype == np.uint8 else values.tolist()
        return ours == expected
    if kind == 2:
        theirs = np.array(expected, np.float32)
        number = ~np.isnan(theirs)  # Python's floats, through which theirs went, quiet a signalling NaN
        return (
            values.dtype == np.float32
            and np.array_equal(np.isnan(values), ~number)
            and values[number].tobytes() == theirs[number].tobytes()
        )
    return values.dtype == np.int64 and values.tolist() == expected


def check(payload, wire):
    """Read as protobuf does, or refuse where it does."""
    from google.protobuf.message import DecodeError

    try:
        expected = wire.parsed(payload)
    except DecodeError:
        with pytest.raises(DataError):
            parse_example(payload)
        return
    values = parse_example(payload)
    assert values.keys() == expected.keys()
    for name, (kind, list_) in expected.items():
        assert same(values[name], kind, list_), name


def test_values_are_those_written(wire):
    values = parse_example(wire.example(FEATURES))
    assert values.keys() == FEATURES.keys()
    for name, expected in FEATURES.items():
        if isinstance(expected, list):
            assert values[name].tolist() == expected
        else:
            assert values[name].dtype == (expected.dtype if expected.dtype != np.int64 else np.int64)
            assert values[name].tobytes() == expected.tobytes()


def test_only_what_is_wanted(wire):
    payload = wire.example(FEATURES)
    assert parse_example(payload, ["ints", "none"]).keys() == {"ints"}
    assert parse_example(b"") == {}


@pytest.mark.parametrize(
    "payload",
    [
        field(1, entry(b"a", field(2, b"\x0d\0\0\x80\x3f\x0d\0\0\0\x40"))),  # floats, each with its tag
        field(1, entry(b"a", field(2, b"\x0d\0\0\x80\x3f" + field(1, b"\0\0\0\x40" * 2)))),  # both ways
        field(
            1, entry(b"a", field(3, b"\x08\x05\x08" + b"\xff" * 9 + b"\x01"))
        ),  # whole numbers, each its tag
        field(1, entry(b"a", field(3, field(1, b"\x05\x06") + b"\x08\x07"))),
        field(
            1, entry(b"a", field(1, b"")) + entry(b"b", b"") + entry(b"c", field(2, b""))
        ),  # empty lists, none
        field(
            1, entry(b"a", field(1, field(1, b"x"))) + entry(b"a", field(3, b"\x08\x05"))
        ),  # the last key wins
        field(1, entry(b"a", field(1, field(1, b"x"))) + entry(b"a", b"")),
        field(1, entry(b"a", field(3, b"\x08\x05"))) + field(1, entry(b"b", field(3, b"\x08\x06"))),  # joined
        field(1, entry(b"a", field(1, field(1, b"x")) + field(1, field(1, b"yz")))),  # a list in two parts
        field(
            1, entry(b"a", field(1, field(1, b"x")) + field(2, b"\x0d\0\0\0\0") + field(1, field(1, b"z")))
        ),
        field(1, field(1, field(2, field(1, field(1, b"x"))) + field(1, b"z"))),  # value before key
        field(1, field(1, field(2, field(1, field(1, b"x"))))),  # no key
        field(1, field(1, field(1, b"k"))),  # no value
        b"\x10\x05"
        + field(9, b"abc")
        + b"\x1d1234\x2112345678"
        + field(1, b""),  # unknown fields of all types
        b"\x1b\x10\x05\x23\x24\x1c" + field(1, entry(b"a", field(3, b"\x08\x05"))),  # unknown groups
        b"\x1b\x1c\x1c",
        b"\x1b\x24",
        b"\x1b" * 200 + b"\x1c" * 200,
        b"\x08\x05",  # a known field of another type
        field(1, entry(b"a", field(3, b"\x0d1234"))),
        b"\x0e",
        b"\x00\x00",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x0a\x80\x80\x80\x80\x80\x00",
        b"\x10" + b"\xff" * 10,
        b"\x10" + b"\xff" * 9 + b"\x01",
        field(1, entry(b"\xff", field(3, b"\x08\x05"))),
        field(1, entry(b"a", field(2, field(1, b"123")))),
    ],
)
def test_what_the_wire_format_allows_is_read_as_protobuf_reads_it(payload, wire):
    check(payload, wire)


@pytest.mark.parametrize("n", [0, 1, 1023, 1024, 1025, 5000])
def test_one_byte_strings_of_any_number(n):
    body = np.full((n, 3), (10, 1, 0), np.uint8)
    body[:, 2] = RNG.integers(0, 256, n)
    wire = body.reshape(-1)
    assert np.array_equal(one_byte_strings(wire), body[:, 2])
    for place in {0, 1, n // 2 * 3, n // 2 * 3 + 1, len(wire) - 3, len(wire) - 2} if n else ():
        for bit in (1, 4, 0x80, 0xFF):
            wrong = wire.copy()
            wrong[place] ^= bit
            assert one_byte_strings(wrong) is None
    assert one_byte_strings(np.append(wire, np.uint8(10))) is None


def test_places_hold_only_for_records_written_alike(wire):
    places = Places()
    base = {"b": np.arange(300, dtype=np.uint8), "f": np.ones(3, np.float32), "i": np.array([1, 2])}
    for change in (
        {},
        {"f": np.zeros(3, np.float32)},
        {"i": np.array([1, 300])},
        {"z": base["f"]},
        {"f": [b"abcd"]},
        {},
    ):
        payload = wire.example({**base, **change})
        shifted = Span(b"xy" + payload + b"z", 2, 2 + len(payload))
        ours, all_anew = places.features(shifted), features(payload)
        assert {n: (k, b.tobytes()) for n, (k, b) in ours.items()} == {
            n: (k, b.tobytes()) for n, (k, b) in all_anew.items()
        }


names = st.sampled_from(["a", "b", "image", ""])
content = st.one_of(
    st.lists(st.binary(max_size=3), max_size=5),
    st.lists(st.floats(width=32), max_size=5).map(lambda v: np.array(v, np.float32)),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5).map(lambda v: np.array(v, np.int64)),
    st.binary(max_size=8).map(lambda v: np.frombuffer(v, np.uint8)),
)


@QUICK
@hypothesis.given(st.dictionaries(names, content, max_size=4))
def test_any_example_is_read_as_protobuf_reads_it(wire, mapping):
    check(wire.example(mapping), wire)


@QUICK
@hypothesis.given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_as_by_protobuf(wire, payload):
    check(payload, wire)
    check(field(1, payload), wire)
    check(field(1, field(1, field(1, b"a") + field(2, payload))), wire)


@pytest.mark.parametrize("names", [(b"\xff", b"a"), (b"a", b"\xff"), (b"a", b"b")])
def test_every_name_of_an_entry_is_looked_at_and_the_last_counts(wire, names):
    check(field(1, field(1, b"".join(field(1, name) for name in names) + field(2, b""))), wire)


@pytest.mark.parametrize(
    "entry",
    [
        field(1, b"a")
        + field(2, field(1, field(1, b"x") + b"\x0a") + field(1, b"\x01y")),  # halves in two parts
        field(1, b"a")
        + field(2, field(1, b"\x0a\x05") + field(3, field(1, b"\x07"))),  # what another kind replaces
        field(1, b"a") + field(2, field(2, field(1, b"\x00")) + field(3, field(1, b"\x07"))),
        field(6, b"a") + field(2, field(3, field(1, b"\x07"))),  # the name's tag is another
        field(1, b"a") + b"\x13\x14" + field(2, b""),  # a group
    ],
)
def test_entries_damaged_in_their_structure_are_refused(wire, entry):
    with pytest.raises(DataError):
        parse_example(field(1, field(1, entry)))
    check(field(1, field(1, entry)), wire)


@QUICK
@hypothesis.given(st.data())
def test_damaged_examples_are_read_or_refused_as_by_protobuf(wire, data):
    payload = bytearray(wire.example({**FEATURES, "image": FEATURES["image"][:20]}))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(payload) - 1))
        payload[place] = data.draw(st.integers(0, 255))
    check(bytes(payload[: data.draw(st.integers(0, len(payload)))]), wire)
    check(bytes(payload), wire)
