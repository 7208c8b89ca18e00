import dataclasses

import numpy as np
import pytest

from multiobj_data.checks import scene_problems
from multiobj_data.errors import DataError
from multiobj_data.loaders.preparing import Selection, collect, prepare
from multiobj_data.loaders.protocols import find_protocol
from multiobj_data.loaders.raw import Raw
from multiobj_data.loaders.tfds_stream import _raw

STORED = find_protocol("clevr", "as-stored")
CROPPED = dataclasses.replace(STORED, rows=(2, 10), columns=(2, 12))


def scene(labels, *, background=1, present=None, index=0, entities=6):
    """A scene of 12 x 16 pixels; entity k's factors are 10 k."""
    labels = np.asarray(labels, np.uint8)
    there = np.isin(np.arange(entities), labels) if present is None else np.isin(np.arange(entities), present)
    image = np.random.default_rng(index).integers(0, 256, (*labels.shape, 3), np.uint8)
    factors = {
        "x": 10 * np.arange(entities, dtype=np.float32),
        "code": np.arange(entities, dtype=np.uint8),
        "color": 10 * np.arange(3 * entities, dtype=np.float32).reshape(entities, 3),
    }
    return Raw(
        image, labels, entities, background, there, factors, {"unclear_pixels": np.int32(7)}, "f", index
    )


def canvas(**rectangles):
    labels = np.zeros((12, 16), np.uint8)
    for name, (x0, y0, x1, y1) in rectangles.items():
        labels[y0:y1, x0:x1] = int(name[1:])
    return labels


THREE = canvas(e1=(3, 3, 6, 5), e3=(0, 0, 2, 2), e5=(8, 6, 9, 9))  # entity 3 lies outside the crop


def test_objects_that_the_crop_hides_go_and_the_others_keep_their_factors():
    done = prepare(scene(THREE, index=4), CROPPED, Selection(), cropped=False)
    assert np.array_equal(done.image, scene(THREE, index=4).image[2:10, 2:12])
    assert np.array_equal(np.unique(done.segments), [0, 1, 2])
    assert np.array_equal(done.segments == 2, THREE[2:10, 2:12] == 5)
    assert done.factors["source_entity"].tolist() == [1, 5]
    assert done.factors["x"].tolist() == [10, 50]
    assert done.factors["code"].tolist() == [1, 5]
    assert done.factors["color"].tolist() == [[30, 40, 50], [150, 160, 170]]
    assert done.factors["pixels"].tolist() == [6, 3]
    assert done.boxes.tolist() == [[1, 1, 4, 3], [6, 4, 7, 7]]
    assert done.scene_factors["source_index"] == 4
    assert done.scene_factors["source_count"] == 3
    assert done.scene_factors["unclear_pixels"] == 7


@pytest.mark.parametrize("name", ["default", "genesis", "emorl", "iodine", "oclf"])
def test_boxes_are_tight_around_what_is_stored(name):
    rng = np.random.default_rng(3)
    labels = np.kron(rng.integers(0, 11, (24, 32)), np.ones((10, 10))).astype(np.uint8)
    raw = scene(labels, entities=11)
    scenes = collect([prepare(raw, find_protocol("clevr", name), Selection(), cropped=False)], 10)
    assert not list(scene_problems(scenes))
    for k in range(scenes.count[0]):
        y, x = np.nonzero(scenes.segments[0] == k + 1)
        assert scenes.boxes[0, k].tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
        assert scenes.factors["pixels"][0, k] == len(y)


def test_a_reader_that_crops_gives_the_same_scene():
    whole = scene(THREE)
    cut = dataclasses.replace(whole, image=whole.image[2:10, 2:12], segments=whole.segments[2:10, 2:12])
    for selection in (Selection(), Selection("source", 3, 3), Selection("visible", 2, 2)):
        one = prepare(whole, CROPPED, selection, cropped=False)
        two = prepare(cut, CROPPED, selection, cropped=True)
        assert one.segments.tolist() == two.segments.tolist()
        assert np.array_equal(one.image, two.image)


@pytest.mark.parametrize(
    ("rule", "min_pixels", "count"),
    [
        ("source", 1, 4),  # entities 1, 2, 3, 5: 2 is there but hidden
        ("source-with-background", 1, 5),
        ("visible-before-crop", 1, 3),
        ("visible-before-crop", 4, 2),  # 1 has 6 pixels, 3 has 4, 5 has 3
        ("visible", 1, 2),
        ("visible", 3, 2),
        ("visible", 4, 1),
        ("visible", 7, 0),
    ],
)
def test_each_rule_counts_what_it_says(rule, min_pixels, count):
    raw = scene(THREE, present=[0, 1, 2, 3, 5])
    kept = [
        n
        for n in range(7)
        if prepare(raw, CROPPED, Selection(rule, n, n, min_pixels), cropped=False) is not None
    ]
    assert kept == [count]
    assert prepare(raw, CROPPED, Selection(rule, count + 1, None, min_pixels), cropped=False) is None
    assert prepare(raw, CROPPED, Selection(rule, 0, None, min_pixels), cropped=False) is not None


def test_without_a_rule_everything_is_kept():
    assert prepare(scene(THREE), CROPPED, Selection("none", 5, 5), cropped=False) is not None


def test_background_segments_keep_their_labels_even_where_one_is_empty():
    labels = canvas(e1=(0, 6, 16, 12), e2=(0, 0, 3, 6), e4=(5, 5, 7, 7), e6=(9, 1, 10, 2))  # 3 and 5 empty
    done = prepare(scene(labels, background=4, entities=7), STORED, Selection(), cropped=False)
    expected = np.where(labels == 6, 5, labels)  # objects are numbered anew: 4, 5
    assert np.array_equal(done.segments, expected)
    assert done.background == 4
    assert done.factors["source_entity"].tolist() == [4, 6]


def test_the_label_map_of_the_cut_is_kept_where_a_protocol_says_so():
    labels = np.zeros((240, 320), np.uint8)
    labels[100:140, 100:140], labels[36, 71] = 2, 4  # the second is lost when it is resized
    done = prepare(scene(labels), find_protocol("clevr", "emorl"), Selection(), cropped=False)
    kept = done.scene_factors["segments_source"]
    assert kept.shape == (192, 192)
    assert np.array_equal(kept == 1, labels[29:221, 64:256] == 2)
    assert done.segments.shape == (96, 96)
    assert set(np.unique(kept)) == {0, 1}  # what is not stored as an object is background here too


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.uint16, np.uint32])
def test_whole_numbers_without_sign_keep_their_values(dtype):
    largest = 1 if dtype is np.bool_ else np.iinfo(dtype).max
    parts = [
        dataclasses.replace(prepare(scene(labels), STORED, Selection(), cropped=False), factors={"id": ids})
        for labels, ids in (
            (canvas(e2=(1, 1, 4, 4)), np.array([largest], dtype)),
            (canvas(), np.zeros(0, dtype)),
        )
    ]
    values = collect(parts, 2).factors["id"]
    assert values.tolist() == [[largest, -1], [-1, -1]]


def test_numbers_that_no_stored_type_holds_are_refused():
    part = prepare(scene(canvas(e2=(1, 1, 4, 4))), STORED, Selection(), cropped=False)
    for number in (2**63 - 1, 2**63):
        large = dataclasses.replace(part, factors={"id": np.array([number], np.uint64)})
        if number < 2**63:
            assert collect([large], 1).factors["id"].tolist() == [[number]]
        else:
            with pytest.raises(DataError, match=r"factor id: expected whole numbers below 2\^63"):
                collect([large], 1)


def test_scenes_are_padded_to_the_slots():
    parts = [
        prepare(scene(labels, index=i), STORED, Selection(), cropped=False)
        for i, labels in enumerate([THREE, canvas(), canvas(e2=(1, 1, 4, 4))])
    ]
    scenes = collect(parts, 5)
    assert not list(scene_problems(scenes))
    assert scenes.count.tolist() == [3, 0, 1]
    assert scenes.boxes.shape == (3, 5, 4)
    assert scenes.factors["code"][0].tolist() == [1, 3, 5, -1, -1]
    assert scenes.factors["x"][2, 0] == 20
    assert np.isnan(scenes.factors["x"][1]).all()
    assert scenes.scene_factors["source_index"].tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="scene 0 of the source shows 3 objects, more than the 2"):
        collect(parts, 2)


@pytest.mark.parametrize(
    ("selection", "slots"),
    [
        (Selection(), 10),
        (Selection("none", 0, 6), 10),  # nothing is counted, so that nothing bounds
        (Selection("source", 0, 6), 6),
        (Selection("source", 0, 12), 10),
        (Selection("source", 3, None), 10),
        (Selection("visible", 0, 6), 6),
        (Selection("visible", 0, 6, 9), 10),  # smaller ones are stored, though not counted
    ],
)
def test_as_many_slots_as_a_kept_scene_can_need(selection, slots):
    assert selection.bound(10) == slots


def test_objects_beyond_the_table_of_factors_have_none():
    labels = np.array([[0, 1], [2, 3]], np.uint8)
    objects = {"size": np.array([4.0, 5.0], np.float32), "cls": np.array([7, 8], np.uint8)}
    raw = _raw(np.zeros((2, 2, 3), np.uint8), labels, {"objects": objects}, "scene", 0)
    np.testing.assert_array_equal(raw.factors["size"], np.array([np.nan, 4, 5, np.nan], np.float32))
    np.testing.assert_array_equal(raw.factors["cls"], [-1, 7, 8, -1])
