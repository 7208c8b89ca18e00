"""Records read together are what each is in a file of its own, whatever lies between them."""

import dataclasses

import numpy as np
import pytest

from multiobj_data.errors import DataError
from multiobj_data.loaders import multi_object_datasets
from multiobj_data.loaders.alike import Alike
from multiobj_data.loaders.multi_object_datasets import read
from multiobj_data.loaders.preparing import Selection, prepare, prepare_all
from multiobj_data.loaders.protocols import find_protocol
from tests.multiobj_data.loaders.test_multi_object_datasets import SETS, truth

CROP = (slice(5, 30), slice(2, 33))


def features_of(key, index):
    """A scene's features, in the same order in every record."""
    return dict(sorted(truth(key, index)[-1].items()))


def odd(features, how):
    if how == "reversed":
        return dict(reversed(features.items()))
    if how == "more":
        return {**features, "another": np.ones(2, np.float32)}
    if how == "unclear":
        mask = features["mask"].copy()
        first = 3 if len(mask) < 35 else 9  # a mask, or a row
        mask[first : first + 2, 9:20] = 255
        return {**features, "mask": mask}
    if how == "hole":
        mask = features["mask"].copy()
        first = 0 if len(mask) < 35 else 9
        mask[first : 11 if first else None, 9:20] = 0
        return {**features, "mask": mask}
    return features


def same(one, other):
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, dict):
            assert a.keys() == b.keys()
            for name in a:
                assert a[name].dtype == b[name].dtype
                assert np.array_equal(a[name], b[name])
        elif isinstance(a, np.ndarray):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            assert np.array_equal(a, b)
        elif field.name not in ("name", "index"):
            assert a == b


@pytest.fixture
def decoded_together(monkeypatch):
    """How many scenes were."""
    counts = []
    scenes = Alike.scenes
    monkeypatch.setattr(
        Alike,
        "scenes",
        lambda self, run, first, n, *rest: counts.append(n) or scenes(self, run, first, n, *rest),
    )
    return counts


@pytest.mark.parametrize("crop", [None, CROP])
@pytest.mark.parametrize("key", SETS)
def test_scenes_are_those_of_records_alone(tmp_path, wire, key, crop, decoded_together):
    hows = (
        ["", "", "", ""]
        if key == "clevr"
        else ["", "", "", "unclear", "", "reversed", "", "", "hole", "more", ""] * 2
    )
    payloads = [wire.example(odd(features_of(key, i), how)) for i, how in enumerate(hows)]
    together = list(read(wire.write(tmp_path / "all", payloads), crop=crop))
    assert sum(decoded_together) >= len(hows) // 2
    assert max(decoded_together) > 1 or key == "clevr"
    assert [raw.index for raw in together] == list(range(len(hows)))
    for i, (raw, how) in enumerate(zip(together, hows, strict=True)):
        same(raw, next(read(wire.write(tmp_path / "one", payloads[i : i + 1]), crop=crop)))
        image, labels, _, factors, _ = truth(key, i)
        cut = crop or (slice(None), slice(None))
        assert np.array_equal(raw.image, image[cut])
        if how in ("unclear", "hole"):
            assert raw.scene_factors["unclear_pixels"] > 0
        else:
            assert raw.scene_factors["unclear_pixels"] == 0
            assert np.array_equal(raw.segments, labels[cut])
        assert all(np.array_equal(raw.factors[name], values) for name, values in factors.items())


@pytest.mark.parametrize("key", ["room", "grayscale", "tetrominoes"])
@pytest.mark.parametrize("feature", ["image", "mask"])
def test_damage_in_one_of_them_is_told_of_that_one(tmp_path, wire, key, feature):
    payloads = [wire.example(features_of(key, i)) for i in range(6)]
    values = features_of(key, 4)[feature].reshape(-1)
    strings = [bytes([v]) for v in values.tolist()]
    strings[40:42] = [b"\x00\x00", b""]  # as long in all
    payloads[4] = wire.example({**features_of(key, 4), feature: strings})
    before = []
    with pytest.raises(DataError, match=f"record 4: {feature}: expected strings of one byte"):
        before.extend(read(wire.write(tmp_path / "a", payloads)))
    assert [raw.index for raw in before] == [0, 1, 2, 3]


@pytest.mark.parametrize("value", [1, 15, 16, 32, 128, 254])
def test_a_value_that_is_neither_0_nor_255_is_told_of_its_record(tmp_path, wire, value):
    payloads = [wire.example(features_of("room", i)) for i in range(8)]
    features = features_of("room", 5)
    assert features["mask"][2, 60, 60] == 0
    features["mask"][2, 60, 60] = value
    payloads[5] = wire.example(features)
    before = []
    with pytest.raises(DataError, match="record 5: mask: expected values 0 and 255"):
        before.extend(read(wire.write(tmp_path / "a", payloads)))
    assert [raw.index for raw in before] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("key", ["room", "grayscale", "tetrominoes"])
def test_a_feature_of_another_name_is_not_taken_for_the_one_that_was_there(tmp_path, wire, key):
    payloads = [wire.example(features_of(key, i)) for i in range(6)]
    for name in features_of(key, 0):
        other = name[:-1] + "~"
        payloads[4] = wire.example({n if n != name else other: v for n, v in features_of(key, 4).items()})
        assert len(payloads[4]) == len(payloads[3])
        with pytest.raises(DataError, match=f"record 4: expected the feature '{name}'"):
            list(read(wire.write(tmp_path / "a", payloads)))


@pytest.mark.parametrize("key", ["room", "tetrominoes"])
@pytest.mark.parametrize("ahead", [False, True])
def test_reading_stops_and_leaves_out_what_it_is_told_to(tmp_path, wire, key, ahead):
    payloads = [wire.example(features_of(key, i)) for i in range(12)]
    path = wire.write(tmp_path / "a", [*payloads[:9], payloads[9][:-5], *payloads[10:]])
    whole = list(read(path, stop=9))
    assert len(whole) == 9
    told, positions = [], []

    def wanted(index, present):
        told.append(present)
        return index % 3 == 1

    with multi_object_datasets.open_records(path, ahead=ahead) as stream:
        scenes = read(stream, start=2, stop=9, wanted=wanted, on_progress=positions.append)
        kept = list(scenes)
    assert [raw.index for raw in kept] == [4, 7]
    for raw in kept:
        same(raw, whole[raw.index])
    assert len(told) == len(positions) == 7
    assert positions == sorted(positions)
    for index, present in enumerate(told, 2):
        assert present is None if key == "room" else np.array_equal(present, whole[index].present)


@pytest.mark.parametrize("rule", ["none", "source", "source-with-background"])
def test_a_scene_that_may_not_be_kept_is_not(tmp_path, wire, rule):
    path = wire.write(tmp_path / "a", [wire.example(features_of("grayscale", i)) for i in range(20)])
    selection = Selection(rule, 2, 3)
    protocol = find_protocol("multi-dsprites-mod", "default")
    may = {}

    def wanted(index, present):
        may[index] = selection.may_keep(present, 1)
        return True

    for raw in read(path, wanted=wanted):
        assert (prepare(raw, protocol, selection, cropped=True) is not None) == may[raw.index]
    assert len(may) == 20
    assert rule == "none" or len(set(may.values())) == 2


@pytest.mark.parametrize("name", ["default", "genesis", "emorl"])
@pytest.mark.parametrize("cropped", [False, True])
def test_scenes_prepared_together_are_those_prepared_alone(name, cropped):
    rng = np.random.default_rng(0)
    protocol = find_protocol("clevr", name)
    raws = []
    for i in range(7):
        height, width = (192, 192) if cropped else (240, 320)
        labels = np.kron(rng.integers(0, 5 + 20 * (i % 2), (6, 8)), np.ones((height // 6, width // 8)))
        raws.append(
            multi_object_datasets.Raw(
                rng.integers(0, 256, (height, width, 3), np.uint8),
                labels.astype(np.uint8),
                25 if i % 2 else 5,  # two kinds
                1,
                np.ones(25 if i % 2 else 5, bool),
                {"x": np.arange(25.0 if i % 2 else 5.0)},
                {"unclear_pixels": np.int32(i)},
                "f",
                i,
            )
        )
    selection = Selection("visible", 3, 20)
    alone = [prepare(raw, protocol, selection, cropped=cropped) for raw in raws]
    together = prepare_all(raws, protocol, selection, cropped=cropped)
    assert [one is None for one in alone] == [one is None for one in together]
    for one, other in zip(alone, together, strict=True):
        if one is not None:
            same(one, other)
