"""Every cell of the tables in metrics/CONVENTIONS.md, and the references that they were taken from."""

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

import metrics
from metrics import (
    CONVENTIONS,
    Convention,
    adjusted_rand_index,
    matched_mask_iou,
    mean_best_overlap,
    mean_segmentation_covering,
    segmentation_covering,
)
from metrics.segmentation.conventions import convention_for
from multiobj_data.errors import UsageError

nan = math.nan
NAMES = ["mobj", "deepmind", "sklearn", "genesis", "savi", "emorl", "sri", "ocl"]


def case(true, predicted):
    return np.array([[[int(c) for c in row] for row in part.split("/")] for part in (true, predicted)])[
        :, None
    ]


# Foreground: mobj, deepmind, savi & ocl, sklearn & genesis, emorl & sri: the table of the fact sheet and of the page.
CELLS = {
    "no object, one slot": (case("000/000", "000/000"), [nan, 1, 1, 1, 0]),
    "no object, several slots": (case("000/000", "001/022"), [nan, nan, 1, 1, 0]),
    "one object, exact, background in another slot": (case("011/011", "300/300"), [1, nan, 1, 1, 1]),
    "one object, whole image in one slot": (case("011/011", "222/222"), [1, 1, 1, 1, 1]),
    "second object alone, whole image in one slot": (case("022/022", "111/111"), [1, nan, 1, 1, 1]),
    "one object, split": (case("011/011", "001/002"), [0, 0, 0, 0, 0]),
    "one object, split by a pixel": (case("011/011", "011/012"), [0, 0, 0, 0, 0]),
    "two objects, one slot": (case("011/022", "000/000"), [0, 0, 0, 0, 0]),
    "two objects, one slot for both, not for the background": (case("011/022", "100/100"), [0, 0, 0, 0, 0]),
    "one foreground pixel, exact": (case("000/010", "000/010"), [nan, nan, 1, 1, 1]),
    "one foreground pixel, whole image in one slot": (case("000/010", "000/000"), [nan, 1, 1, 1, 1]),
    "two objects of one pixel, exact": (case("001/200", "001/200"), [1, nan, 1, 1, 0]),
    "two objects of one pixel, merged": (case("001/200", "001/100"), [0, 0, 0, 0, 0]),
    "second object fills the image, one slot": (case("222/222", "111/111"), [1, 1, 1, 1, 1]),
    "three objects, exact but for a pixel": (
        case("011/223", "011/233"),
        [adjusted_rand_score([1, 1, 2, 2, 3], [1, 1, 2, 3, 3])] * 5,
    ),
}
COLUMNS = {"mobj": 0, "deepmind": 1, "savi": 2, "ocl": 2, "sklearn": 3, "genesis": 3, "emorl": 4, "sri": 4}
WHOLE = {
    "background alone, one slot": (case("000/000", "000/000"), [1] * 5),
    "background alone, two slots": (case("000/000", "000/001"), [0] * 5),
    "one pixel": (case("0", "0"), [nan, 1, 1, 1, 1]),
    "single pixels": (case("0123", "3210"), [1, nan, 1, 1, 0]),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("which", CELLS)
def test_each_convention_is_as_its_column_of_the_table(name, which):
    (true, predicted), row = CELLS[which]
    score = adjusted_rand_index(true, predicted, foreground_only=True, convention=name)
    np.testing.assert_allclose(score, [row[COLUMNS[name]]], atol=1e-15)
    if name == "mobj":
        np.testing.assert_array_equal(adjusted_rand_index(true, predicted, foreground_only=True), score)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("which", WHOLE)
def test_so_it_is_with_all_pixels_scored(name, which):
    (true, predicted), row = WHOLE[which]
    score = adjusted_rand_index(true, predicted, convention=name)
    np.testing.assert_array_equal(score, [row[COLUMNS[name]]])


# references, from formulas


def deepmind(true, predicted, drop_first):
    """Its definition, per image: one-hot truth (without label 0), tables, and the test by argmax over all pixels."""
    t, p = np.eye(true.max() + 1)[true.ravel()], np.eye(predicted.max() + 1)[predicted.ravel()]
    t = t[:, 1:] if drop_first else t
    if not t.shape[1]:  # data sets declare more labels than an image has
        t = np.zeros((len(t), 1))
    n_ij = t.T @ p
    n, a, b = n_ij.sum(), n_ij.sum(1), n_ij.sum(0)
    together, in_a, in_b = ((x * (x - 1)).sum() for x in (n_ij, a, b))
    with np.errstate(all="ignore"):
        expected = np.float64(in_a * in_b) / (n * (n - 1))
        ari = np.float64(together - expected) / ((in_a + in_b) / 2 - expected)
    single = len(np.unique(t.argmax(1))) == 1 and len(np.unique(p.argmax(1))) == 1
    return 1.0 if single else ari


def emorl(true, predicted, drop_first):
    """Its outcome: no number becomes 0; one cell of the table alone is 1."""
    t, p = true.ravel(), predicted.ravel()
    keep = t > 0 if drop_first else t >= 0
    if len(set(zip(t[keep], p[keep], strict=True))) == 1:
        return 1.0
    if not keep.any() or len(set(t[keep])) == len(set(p[keep])) == keep.sum():
        return 0.0
    return adjusted_rand_score(t[keep], p[keep])


def sklearn(true, predicted, drop_first):
    t, p = true.ravel(), predicted.ravel()
    return adjusted_rand_score(t[t > 0], p[t > 0]) if drop_first else adjusted_rand_score(t, p)


REFERENCES = {
    "deepmind": deepmind, "emorl": emorl, "sri": emorl, "sklearn": sklearn, "genesis": sklearn, "savi": sklearn,
    "ocl": sklearn,
}  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(sorted(REFERENCES)), st.booleans())
def test_each_convention_is_its_definition_on_small_images(seed, name, only):
    rng = np.random.default_rng(seed)
    shape = (8, 1, rng.integers(1, 7))
    true, predicted = (rng.integers(0, rng.integers(1, 4), shape) for _ in range(2))
    want = [REFERENCES[name](t, p, only) for t, p in zip(true, predicted, strict=True)]
    got = adjusted_rand_index(true, predicted, foreground_only=only, convention=name)
    np.testing.assert_allclose(got, want, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_on_ordinary_images_all_conventions_agree(seed, only):
    rng = np.random.default_rng(seed)
    true = np.repeat(rng.integers(0, 3, (3, 1, 8)), 2, 1)
    true[:, :, :6] = [0, 0, 1, 1, 2, 2]
    predicted = rng.integers(0, 4, true.shape)
    want = adjusted_rand_index(true, predicted, foreground_only=only)
    assert not np.isnan(want).any()
    for name in NAMES:
        got = adjusted_rand_index(true, predicted, foreground_only=only, convention=name)
        np.testing.assert_array_equal(got, want)


def test_deepmind_counts_ignored_pixels_as_dropped_ones():
    (true, predicted), _ = CELLS["one object, whole image in one slot"]
    ignore = np.zeros(true.shape, bool)
    ignore[:, 0, 1] = True
    options = {"foreground_only": True, "ignore": ignore, "convention": "deepmind"}
    assert adjusted_rand_index(true, predicted, **options) == 1
    predicted = predicted.copy()
    predicted[:, 0, 1] = 0
    assert np.isnan(adjusted_rand_index(true, predicted, **options))


def test_deepmind_looks_for_the_first_kept_label():
    """With other background labels than 0, `argmax` of an empty row is the first label that is kept."""
    true, predicted = np.array([[[0, 1, 1, 2, 2]], [[0, 1, 1, 3, 3]]]), np.zeros((2, 1, 5), int)
    options = {"foreground_only": True, "background": (0, 1), "convention": "deepmind"}
    np.testing.assert_array_equal(adjusted_rand_index(true, predicted, **options), [1, nan])


# covering, overlap, matching


@pytest.mark.parametrize("metric", [segmentation_covering, mean_segmentation_covering])
def test_genesis_scores_0_where_there_is_nothing_to_cover(metric):
    true, predicted = np.array([[[0, 0]], [[1, 0]]]), np.array([[[0, 1]], [[1, 0]]])
    np.testing.assert_array_equal(metric(true, predicted, foreground_only=True), [nan, 1])
    np.testing.assert_array_equal(metric(true, predicted, foreground_only=True, convention="genesis"), [0, 1])
    np.testing.assert_array_equal(metric(true, predicted, convention="genesis"), [0.5, 1])
    unscored = np.full((1, 1, 2), -1)
    np.testing.assert_array_equal(metric(unscored, predicted[:1], convention="genesis"), [0])


def test_genesis_merges_its_backgrounds():
    true, predicted = np.array([[[0, 0, 1, 1, 2, 2]]]), np.array([[[0, 0, 0, 0, 1, 1]]])
    options = {"background": (0, 1)}
    for metric in (adjusted_rand_index, segmentation_covering, mean_segmentation_covering):
        assert metric(true, predicted, **options) < 1
        assert metric(true, predicted, convention="genesis", **options) == 1


@pytest.mark.parametrize("name", NAMES)
def test_negative_labels_are_a_class_for_some(name, rng):
    true, predicted = rng.integers(-2, 3, (4, 5, 5)), rng.integers(0, 3, (4, 5, 5))
    got = adjusted_rand_index(true, predicted, convention=name)
    kept = [(t.ravel(), p.ravel()) for t, p in zip(true, predicted, strict=True)]
    if name not in ("sklearn", "genesis"):
        kept = [(t[t >= 0], p[t >= 0]) for t, p in kept]
    np.testing.assert_allclose(got, [adjusted_rand_score(*pair) for pair in kept], rtol=1e-12)
    kept = [(t[t > 0], p[t > 0]) for t, p in zip(true, predicted, strict=True)]
    got = adjusted_rand_index(true, predicted, foreground_only=True, convention=name)
    np.testing.assert_allclose(got, [adjusted_rand_score(*pair) for pair in kept], rtol=1e-12)


def test_negative_predicted_labels_are_a_class_for_scikit_learn():
    true, predicted = np.array([[[0, 0, 1, 1]]]), np.array([[[-1, -1, 0, 2]]])
    want = adjusted_rand_score(true.ravel(), predicted.ravel())
    assert adjusted_rand_index(true, predicted, convention="sklearn") == pytest.approx(want)


def test_ocl_skips_images_without_objects_and_lets_surplus_slots_go_free():
    true, predicted = np.array([[[0, 0, 0]], [[1, 0, 0]]]), np.array([[[0, 1, 2]], [[1, 2, 3]]])
    np.testing.assert_array_equal(matched_mask_iou(true, predicted), [0, 0.5])
    np.testing.assert_array_equal(matched_mask_iou(true, predicted, convention="ocl"), [nan, 1])
    np.testing.assert_array_equal(mean_best_overlap(true, predicted, convention="ocl"), [nan, 1])


# names


def test_a_convention_is_refused_where_it_defines_nothing():
    maps = np.zeros((1, 2, 2), int)
    for metric, name, says in [
        (
            mean_best_overlap,
            "genesis",
            "convention 'genesis' defines no mean best overlap; those that do: mobj, ocl.",
        ),
        (
            segmentation_covering,
            "savi",
            "'savi' defines no segmentation covering; those that do: mobj, genesis.",
        ),
        (matched_mask_iou, "deepmind", "'deepmind' defines no matched mask IoU; those that do: mobj, ocl."),
        (adjusted_rand_index, "genisis", "no convention 'genisis'. Did you mean 'genesis'?"),
        (adjusted_rand_index, ["ocl"], "no convention"),
    ]:
        with pytest.raises(UsageError, match=re.escape(says)):
            metric(maps, maps, convention=name)


def test_every_convention_is_whole_and_on_the_page():
    assert list(CONVENTIONS) == NAMES
    page = (Path(metrics.__file__).parent / "CONVENTIONS.md").read_text()
    for name, convention in CONVENTIONS.items():
        assert convention is convention_for(name, convention.defines[0])
        assert f"`{name}`" in page
        assert convention.source
    with pytest.raises(dataclasses.FrozenInstanceError):
        CONVENTIONS["ocl"].name = "other"
    assert isinstance(convention_for(None, "adjusted Rand index"), Convention)


ROWS = {
    "no object, prediction in one slot": "no object, one slot",
    "no object, prediction in several slots": "no object, several slots",
    "one object, found exactly, background in another slot": "one object, exact, background in another slot",
    "one object, whole image in one slot": "one object, whole image in one slot",
    "one object, split by the prediction": "one object, split",
    "two objects or more, whole image in one slot": "two objects, one slot",
    "one foreground pixel, found exactly": "one foreground pixel, exact",
    "two objects of one pixel each, found exactly": "two objects of one pixel, exact",
    "*all pixels scored:* background alone, in one slot": "background alone, one slot",
}


def test_the_page_prints_what_is_tested():
    page = (Path(metrics.__file__).parent / "CONVENTIONS.md").read_text()
    for title, which in ROWS.items():
        (line,) = (line for line in page.splitlines() if line.startswith(f"| {title} |"))
        printed = [float(cell.split()[0]) for cell in line.split("|")[2:-1]]
        np.testing.assert_array_equal(printed, (CELLS | WHOLE)[which][1])
