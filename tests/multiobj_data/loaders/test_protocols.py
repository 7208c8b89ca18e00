import dataclasses

import numpy as np
import pytest

from multiobj_data.errors import UsageError
from multiobj_data.loaders.protocols import Protocol, find_protocol, protocols, splitter
from multiobj_data.loaders.resampling import resize_image, resize_labels
from multiobj_data.loaders.sets import PUBLIC_SETS

IODINE_CROP, CENTRE = ((29, 221), (64, 256)), ((24, 216), (64, 256))
CYCLE, ALL = "cycle:18,1,1", "all"
GENESIS_SPLIT = "ranges:test=0-10000,val=10000-20000,train=20000-"
OCLF_SPLIT = "permutation:837452923;train=70000,val=15000,test=15000"
MONITOR = "ranges:val=0-512,train=512-"
COUNTED = "source-with-background"
TABLE = {  # crop, size, image, label map, range, counted, split: what each project's code or paper does
    ("clevr", "default"): (IODINE_CROP, 128, "pillow-bilinear", "nearest-exact", "[0, 1]", "source", CYCLE),
    ("clevr", "iodine"): (IODINE_CROP, 128, "bilinear-corner", "nearest", "[0, 1]", COUNTED, ALL),
    ("clevr", "slot-attention"): (IODINE_CROP, 128, "bilinear", "nearest", "[-1, 1]", "source", MONITOR),
    ("clevr", "genesis"): (CENTRE, 128, "nearest", "nearest", "[0, 1]", "none", GENESIS_SPLIT),
    ("clevr", "emorl"): (IODINE_CROP, 96, "pillow-bicubic", "nearest", "[-1, 1]", "source", ALL),
    ("clevr", "sri"): (IODINE_CROP, 96, "pillow-bicubic", "nearest", "[-1, 1]", "source", CYCLE),
    ("clevr", "oclf"): (CENTRE, 128, "pillow-bilinear", "nearest-exact", "[-1, 1]", COUNTED, OCLF_SPLIT),
    ("clevr", "as-stored"): (None, 0, "nearest", "nearest", "[0, 255]", "none", ALL),
    ("objects-room", "default"): (None, 64, "pillow-bilinear", "nearest", "[0, 1]", "none", CYCLE),
    ("objects-room", "iodine"): (None, 64, "bilinear-corner", "nearest", "[0, 1]", "none", ALL),
    ("objects-room", "genesis"): (None, 64, "nearest", "nearest", "[0, 1]", "none", GENESIS_SPLIT),
    ("objects-room", "as-stored"): (None, 0, "nearest", "nearest", "[0, 255]", "none", ALL),
    ("multi-dsprites-mod", "default"): (None, 64, "pillow-bilinear", "nearest", "[0, 1]", "none", CYCLE),
    ("multi-dsprites-mod", "iodine"): (None, 64, "bilinear-corner", "nearest", "[0, 1]", "none", ALL),
    ("multi-dsprites-mod", "genesis"): (None, 64, "nearest", "nearest", "[0, 1]", "none", GENESIS_SPLIT),
    ("multi-dsprites-mod", "as-stored"): (None, 0, "nearest", "nearest", "[0, 255]", "none", ALL),
    ("tetrominoes", "default"): (None, 35, "pillow-bilinear", "nearest", "[0, 1]", "none", CYCLE),
    ("tetrominoes", "iodine"): (None, 35, "bilinear-corner", "nearest", "[0, 1]", "none", ALL),
    ("tetrominoes", "genesis"): (None, 32, "nearest", "nearest", "[0, 1]", "none", GENESIS_SPLIT),
    ("tetrominoes", "as-stored"): (None, 0, "nearest", "nearest", "[0, 255]", "none", ALL),
    **{
        ("shapestacks", name): (
            ((14, 210), (14, 210)),
            64,
            "pillow-bilinear",
            "nearest",
            scale,
            "none",
            "source",
        )
        for name, scale in (("default", "[0, 1]"), ("genesis", "[0, 1]"), ("sri", "[-1, 1]"))
    },
    ("shapestacks", "as-stored"): (None, 0, "nearest", "nearest", "[0, 255]", "none", "source"),
}


def all_protocols():
    sources = dict.fromkeys(each.source for each in PUBLIC_SETS.values())
    return {(source, name): each for source in sources for name, each in protocols(source).items()}


def test_every_protocol_is_the_one_of_its_project():
    found = {}
    for key, each in all_protocols().items():
        crop = (each.rows, each.columns) if each.rows else None
        rest = (each.image_filter, each.mask_filter, each.value_range, each.count_rule, each.split)
        found[key] = (crop, each.size, *rest)
    assert found == TABLE


@pytest.mark.parametrize("key", TABLE, ids="/".join)
def test_every_protocol_can_be_carried_out(key):
    each = all_protocols()[key]
    assert each.name == key[1]
    assert each.about
    side = 35 if key[0] == "tetrominoes" else 250
    image, labels = np.zeros((side, 320, 3), np.uint8), np.zeros((side, 320), np.uint8)
    if each.crop:
        image, labels = image[each.crop], labels[each.crop]
        assert image.shape[0] == image.shape[1]  # all of these are square
    shape = resize_image(image, each.size, each.image_filter).shape[:2]
    assert shape == resize_labels(labels, each.size, each.mask_filter).shape
    assert shape == ((each.size, each.size) if each.size else image.shape[:2])
    split_of = splitter(each.split)
    assert {split_of(i) for i in range(0, 100_000, 7)} <= {"train", "val", "test"}


def test_only_efficientmorl_keeps_the_label_map_of_the_cut():
    assert [key for key, each in all_protocols().items() if each.keep_labels] == [("clevr", "emorl")]


def test_an_unknown_protocol_is_corrected():
    with pytest.raises(UsageError, match="Did you mean 'iodine'"):
        find_protocol("clevr", "iodin")
    with pytest.raises(UsageError, match="clevr has no protocol 'monet'.*Known: as-stored, default, emorl"):
        find_protocol("clevr", "monet")


def test_protocols_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        find_protocol("clevr", "iodine").size = 3
    assert isinstance(find_protocol("clevr", "iodine"), Protocol)


def test_cycle_gives_of_every_twenty_one_to_val_and_one_to_test():
    split_of = splitter("cycle:18,1,1")
    assert [split_of(i) for i in range(40)] == 2 * (18 * ["train"] + ["val", "test"])


def test_ranges_are_half_open_and_what_lies_in_none_is_left_out():
    split_of = splitter("ranges:test=0-3,val=5-7,train=7-")
    assert [split_of(i) for i in range(9)] == [*["test"] * 3, None, None, "val", "val", "train", "train"]
    assert split_of(10**12) == "train"


def test_a_permutation_is_numpys_of_that_seed_and_shorter_sources_take_their_part():
    split_of = splitter("permutation:5;train=6,val=3,test=1")
    order = np.random.RandomState(5).permutation(10)
    parts = {"train": order[:6], "val": order[6:9], "test": order[9:]}
    expected = {int(i): name for name, indices in parts.items() for i in indices}
    assert {i: split_of(i) for i in range(10)} == expected
    assert split_of(10) is None


@pytest.mark.parametrize(
    "text", ["", "cycle:1,2", "ranges:a=b", "permutation:x;train=3", "ranges:", "halves"]
)
def test_what_is_no_split_is_refused(text):
    with pytest.raises(UsageError, match="split: expected"):
        splitter(text)
