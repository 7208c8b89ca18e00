"""Explanations: every case, every metric; each difference has its sentence."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.segmentation.conventions import CONVENTIONS
from metrics.segmentation.explain import CASES, explain, find_case
from metrics.segmentation.label_files import read_label_map
from multiobj_data.errors import DataError, UsageError


def differ(values):
    return {name for name, value in values.items() if repr(round(value, 9)) != repr(round(values["mobj"], 9))}


def check(found):
    for line in found.lines:
        others = differ(line.values)
        explained = [name for reason in line.reasons for name in reason.split(":")[0].split(", ")]
        assert sorted(explained) == sorted(others | {"mobj"} if others else [])
        for reason in line.reasons:
            assert reason.endswith(".")
            value = line.values[reason.split(":")[0].split(", ")[0]]
            assert f": {'NaN' if math.isnan(value) else ''}" in reason
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize("name", CASES)
def test_each_difference_has_a_reason(name):
    case = find_case(name)
    found = explain(case.true, case.predicted)
    check(found)
    assert [line.metric for line in found.lines] == [
        "ari",
        "ari_fg",
        "sc",
        "sc_fg",
        "msc_fg",
        "mbo",
        "mask_miou",
    ]
    assert list(found.lines[0].values) == list(CONVENTIONS)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_so_it_is_for_any_small_image(seed):
    rng = np.random.default_rng(seed)
    shape = (1, *rng.integers(1, 4, 2))
    true, predicted = rng.integers(-rng.integers(0, 2), rng.integers(1, 4), shape), rng.integers(0, 3, shape)
    check(explain(true, predicted, background=((0,), (0, 1))[seed % 2]))


def test_reasons_are_those_of_the_case():
    def reasons(name, metric):
        found = explain(find_case(name).true, find_case(name).predicted)
        return " ".join(next(line.reasons for line in found.lines if line.metric == metric))

    assert "deepmind: NaN, because the formula is 0/0" in reasons("one-exact", "ari_fg")
    assert "deepmind: 1, because its test for a single cluster" in reasons("empty-one-slot", "ari_fg")
    assert "emorl, sri: 0, because 0/0 is set to 0" in reasons("empty-split", "ari_fg")
    assert "genesis: 0, because a mean over no segment" in reasons("empty-split", "msc_fg")
    assert "mobj: NaN, because one pixel makes no pair" in reasons("one-pixel", "ari_fg")
    assert "emorl, sri: 0, because 0/0 is set to 0, and only" in reasons("two-pixels", "ari_fg")
    assert "ocl: 1, because it divides by true objects" in reasons("surplus-slots", "mask_miou")
    assert reasons("ordinary", "ari_fg") == ""


def test_one_example_at_a_time():
    maps = np.zeros((2, 3, 3), int)
    with pytest.raises(ValueError, match=r"true: expected one image, \[1, H, W\], got 2"):
        explain(maps, maps)
    with pytest.raises(UsageError, match="no case 'one-exat'. Did you mean 'one-exact'"):
        find_case("one-exat")


def test_label_maps_are_read_from_files(tmp_path, rng):
    from PIL import Image

    labels = rng.integers(0, 9, (5, 7)).astype(np.uint8)
    np.save(tmp_path / "a.npy", labels)
    np.save(tmp_path / "many.npy", np.stack([labels, labels * 0]))
    np.savez(tmp_path / "a.npz", labels=labels, other=labels[0])
    np.savez(tmp_path / "one.npz", anything=labels)
    Image.fromarray(labels).save(tmp_path / "a.png")
    palette = Image.fromarray(labels, "L").convert("P")
    palette.putpalette(list(range(255, -1, -1)) * 3)
    palette.save(tmp_path / "palette.png")
    Image.fromarray(labels.astype(np.uint16) * 1000).save(tmp_path / "deep.png")
    for name in ("a.npy", "a.npz", "one.npz", "a.png"):
        np.testing.assert_array_equal(read_label_map(tmp_path / name), labels[None])
    np.testing.assert_array_equal(read_label_map(tmp_path / "deep.png"), labels[None].astype(int) * 1000)
    np.testing.assert_array_equal(read_label_map(tmp_path / "many.npy", 1), labels[None] * 0)
    np.testing.assert_array_equal(np.unique(read_label_map(tmp_path / "palette.png")), np.unique(labels))


def test_files_that_hold_no_label_map_are_refused(tmp_path):
    from PIL import Image

    np.save(tmp_path / "flat.npy", np.zeros(3, int))
    np.save(tmp_path / "many.npy", np.zeros((2, 3, 3), int))
    np.savez(tmp_path / "two.npz", a=np.zeros(1), b=np.zeros(1))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    Image.new("RGB", (3, 3)).save(tmp_path / "colour.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "colour.png").read_bytes()[:40])
    (tmp_path / "empty.npy").write_bytes(b"")
    for name, index, says in [
        ("flat.npy", None, r"expected a label map \[H, W\] or several"),
        ("many.npy", None, "holds 2 label maps; say which one by --index"),
        ("many.npy", 2, "the last has index 1; got 2"),
        ("two.npz", None, "expected one array, or one named labels, got a, b"),
        ("objects.npy", None, "cannot be read as .npy"),
        ("colour.png", None, "one channel that holds labels, got mode RGB"),
        ("broken.png", None, "cannot be read as .png"),
        ("empty.npy", None, "cannot be read as .npy"),
        ("missing.npy", None, "there is no such file"),
        ("labels.tif", None, "as .npy, .npz or .png"),
    ]:
        with pytest.raises(DataError, match=says):
            read_label_map(tmp_path / name, index)
