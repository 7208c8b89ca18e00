"""An independent writer of TFRecords: Google's protobuf, classes made at run time; CRC-32C by its definition."""

import gzip
import struct
import sys
from functools import cache

import numpy as np
import pytest


@pytest.fixture(scope="session")
def wire():
    """This module, for tests that write TFRecords or ask protobuf what it reads."""
    pytest.importorskip("google.protobuf")
    return sys.modules[__name__]


@cache
def example_class():
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="wire", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto

    def message(name, *fields, parent=None):
        out = (parent.nested_type if parent else file.message_type).add(name=name)
        for number, (field, label, kind, of) in enumerate(fields, 1):
            out.field.add(name=field, number=number, label=label, type=kind, type_name=of)
        return out

    message("BytesList", ("value", kinds.LABEL_REPEATED, kinds.TYPE_BYTES, None))
    message("FloatList", ("value", kinds.LABEL_REPEATED, kinds.TYPE_FLOAT, None))
    message("Int64List", ("value", kinds.LABEL_REPEATED, kinds.TYPE_INT64, None))
    lists = ("bytes_list", "float_list", "int64_list")
    types = (".wire.BytesList", ".wire.FloatList", ".wire.Int64List")
    one = kinds.LABEL_OPTIONAL
    feature = message(
        "Feature", *((n, one, kinds.TYPE_MESSAGE, t) for n, t in zip(lists, types, strict=True))
    )
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    features = message(
        "Features", ("feature", kinds.LABEL_REPEATED, kinds.TYPE_MESSAGE, ".wire.Features.FeatureEntry")
    )
    entry = message(
        "FeatureEntry",
        ("key", one, kinds.TYPE_STRING, None),
        ("value", one, kinds.TYPE_MESSAGE, ".wire.Feature"),
        parent=features,
    )
    entry.options.map_entry = True
    message("Example", ("features", one, kinds.TYPE_MESSAGE, ".wire.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("wire.Example"))


def example(features):
    """An Example: uint8 arrays as one-byte strings, lists of bytes, float and int arrays."""
    out = example_class()()
    for name, values in features.items():
        feature = out.features.feature[name]
        if isinstance(values, list):
            feature.bytes_list.value.extend(values)
        elif values.dtype == np.uint8:
            feature.bytes_list.value.extend(bytes([v]) for v in values.reshape(-1).tolist())
        elif values.dtype.kind == "f":
            feature.float_list.value.extend(values.reshape(-1).tolist())
        else:
            feature.int64_list.value.extend(values.reshape(-1).tolist())
    return out.SerializeToString()


def parsed(payload):
    """What protobuf reads: name -> (kind, list)."""
    from google.protobuf.message import DecodeError
    from google.protobuf.unknown_fields import UnknownFieldSet

    message = example_class().FromString(payload)
    if any((field.field_number, field.wire_type) == (1, 2) for field in UnknownFieldSet(message.features)):
        raise DecodeError("an entry with fields besides its name and feature")
    kinds = {"bytes_list": 1, "float_list": 2, "int64_list": 3}
    return {
        name: (kinds[kind], list(getattr(feature, kind).value))
        for name, feature in message.features.feature.items()
        if (kind := feature.WhichOneof("kind"))
    }


@cache
def table():
    """The remainders of all bytes, by polynomial division bit by bit."""
    out = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        out.append(value)
    return out


def crc(data):
    value, remainders = 0xFFFFFFFF, table()
    for byte in data:
        value = value >> 8 ^ remainders[(value ^ byte) & 255]
    return value ^ 0xFFFFFFFF


def masked(data):
    value = crc(data)
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) % (1 << 32))


def framed(payload):
    length = struct.pack("<Q", len(payload))
    return length + masked(length) + payload + masked(payload)


def write(path, payloads, compress=True):
    data = b"".join(map(framed, payloads))
    path.write_bytes(gzip.compress(data) if compress else data)
    return path
