"""Counting: rules that infer a count, and tables of errors, against scikit-learn, loops and enumeration."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from metrics import (
    count_absolute_error,
    count_accuracy,
    count_accuracy_by_count,
    count_confusion,
    count_error,
    inferred_count,
    most_probable_count,
)


def test_confusion_is_that_of_scikit_learn(rng):
    true, predicted = rng.integers(0, 4, 200), rng.integers(0, 7, 200)
    table = count_confusion(true, predicted, largest=6)
    np.testing.assert_array_equal(table, confusion_matrix(true, predicted, labels=range(7)))


def test_confusion_is_as_wide_as_the_counts(rng):
    table = count_confusion(np.array([0, 2, 2]), np.array([5, 2, 0]))
    assert table.shape == (3, 6)
    assert table[0, 5] == table[2, 2] == table[2, 0] == 1
    assert table.sum() == 3


def test_confusions_of_batches_add_up(rng):
    true, predicted = rng.integers(0, 5, (2, 40))
    halves = [count_confusion(true[part], predicted[part], largest=4) for part in (slice(20), slice(20, 40))]
    np.testing.assert_array_equal(sum(halves), count_confusion(true, predicted, largest=4))


def test_counting_functions_agree_with_the_confusion(rng):
    true, predicted = rng.integers(0, 5, (2, 300))
    table = count_confusion(true, predicted, largest=4)
    off = np.arange(5) - np.arange(5)[:, None]
    assert count_accuracy(true, predicted).sum() == np.trace(table)
    assert count_error(true, predicted).sum() == (table * off).sum()
    assert count_absolute_error(true, predicted).sum() == (table * abs(off)).sum()


def test_count_errors_of_unsigned_counts_can_be_negative():
    assert count_error(np.array([3], np.uint8), np.array([1], np.uint8)) == -2


@pytest.mark.parametrize(
    ("true", "predicted", "says"),
    [
        (np.array([1.0]), np.array([1]), "expected signed integers or unsigned integers"),
        (np.array([1, 2]), np.array([1]), r"expected shape \[2\], got \[1\]"),
        (np.array([-1]), np.array([1]), "negative"),
        (np.array([1]), np.array([10**12]), "too large"),
        ([1], np.array([1]), "expected an array, got list"),
    ],
)
def test_what_is_no_count_is_refused(true, predicted, says):
    with pytest.raises(ValueError, match=says):
        count_confusion(true, predicted)


def test_accuracy_by_count_is_that_of_a_loop(rng):
    true, predicted = rng.integers(0, 5, 200), rng.integers(0, 8, 200)
    want = [count_accuracy(true[true == n], predicted[true == n]).mean() for n in range(5)]
    np.testing.assert_allclose(count_accuracy_by_count(true, predicted), want)


def test_a_count_that_no_image_has_is_no_failure_and_one_never_inferred_is():
    share = count_accuracy_by_count(np.array([0, 0, 2, 4]), np.array([0, 1, 2, 2]))
    np.testing.assert_array_equal(share, [0.5, np.nan, 1, np.nan, 0])
    np.testing.assert_array_equal(
        count_accuracy_by_count(np.array([1]), np.array([1]), largest=2), [np.nan, 1, np.nan]
    )


# rules that infer a count

presences = st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=5).map(np.array)


def enumerated(p):
    """Probability of each count when slot t is there with p_t as long as all before it are."""
    q = np.zeros(len(p) + 1)
    for on in itertools.product([0, 1], repeat=len(p)):
        stopped = on.index(0) if 0 in on else len(p)
        q[stopped] += np.prod([r if z else 1 - r for r, z in zip(p, on, strict=True)])
    return q


@given(presences)
def test_each_rule_is_its_definition(presence):
    got = {rule: inferred_count(presence, rule) for rule in ("threshold", "rounded", "cumulative")}
    assert got["threshold"].tolist() == [sum(p >= 0.5 for p in row) for row in presence]
    assert got["rounded"].tolist() == [sum(round(p) for p in row) for row in presence]
    for row, n in zip(presence, got["cumulative"], strict=True):
        assert all(np.prod(row[: t + 1]) >= 0.5 for t in range(n))
        assert n == len(row) or np.prod(row[: n + 1]) < 0.5


@given(presences)
def test_the_mode_is_that_of_all_outcomes(presence):
    for row, n in zip(presence, inferred_count(presence, "mode"), strict=True):
        q = enumerated(row)
        assert q[n] == pytest.approx(q.max(), abs=1e-12)


def test_the_rules_differ():
    presence = np.array([[0.6, 0.6, 0.5, 0.9]])
    counts = {
        rule: inferred_count(presence, rule).item() for rule in ("threshold", "rounded", "cumulative", "mode")
    }
    assert counts == {"threshold": 4, "rounded": 3, "cumulative": 1, "mode": 0}
    assert inferred_count(presence, threshold=0.7).item() == 1


def test_samples_are_distributed_as_enumeration_says(rng):
    p = np.array([0.8, 0.5, 0.7])
    counts = inferred_count(np.tile(p, (40_000, 1)), "sample", rng=rng)
    np.testing.assert_allclose(np.bincount(counts, minlength=4) / 40_000, enumerated(p), atol=0.01)
    sure = np.array([[1.0, 1, 0], [0, 1, 1]])
    assert inferred_count(sure, "sample", rng=rng).tolist() == [2, 0]


def test_the_most_probable_count_is_the_smaller_of_equals():
    q = np.array([[0.4, 0.2, 0.4], [0.1, 0.6, 0.3]])
    assert most_probable_count(q).tolist() == [0, 1]
    assert most_probable_count(torch.tensor(q)).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"presence": np.array([[1.5]])}, r"values in \[0, 1\], got 1.5"),
        ({"presence": np.array([[np.nan]])}, r"values in \[0, 1\]"),
        ({"presence": np.array([0.5])}, "expected shape"),
        ({"rule": "argmax"}, "expected one of threshold, .* got 'argmax'"),
        ({"rule": "sample"}, "expected a numpy.random.Generator"),
    ],
)
def test_presences_that_are_none_are_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        inferred_count(**{"presence": np.array([[0.5]])} | arguments)


def test_what_is_no_distribution_is_refused():
    with pytest.raises(ValueError, match="rows that sum to 1, got sums off by up to 0.2"):
        most_probable_count(np.array([[0.5, 0.3]]))
