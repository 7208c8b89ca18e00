import numpy as np
import pytest
import scipy.stats
import torch

from metrics import Mean


def mean_of(values, ids=None):
    mean = Mean()
    mean.update(values, ids)
    return mean


def test_mean_and_standard_error_are_those_of_scipy(rng):
    values = rng.normal(7000, 1, 500)
    summary = mean_of(values).summary()
    assert summary["mean"] == pytest.approx(values.mean(), rel=1e-14)
    assert summary["stderr"] == pytest.approx(scipy.stats.sem(values), rel=1e-10)
    assert (summary["n"], summary["skipped"]) == (500, 0)


def test_nan_is_skipped_and_counted(rng):
    values = rng.normal(size=50)
    with_gaps = np.insert(values, [0, 10, 50], np.nan)
    assert mean_of(with_gaps).summary() == mean_of(values).summary() | {"skipped": 3}


@pytest.mark.parametrize("with_ids", [False, True])
def test_merged_parts_equal_one_pass_bit_for_bit(rng, with_ids):
    values = rng.normal(size=300) * 10.0 ** rng.integers(-8, 9, 300)
    ids = rng.permutation(300)
    whole = mean_of(values, ids if with_ids else None)
    merged = Mean()
    for part in np.array_split(rng.permutation(300), 7):
        merged.merge(mean_of(values[part], ids[part] if with_ids else None))
    assert merged.summary() == whole.summary()


def test_an_image_counts_once(rng):
    values = rng.normal(size=10)
    first, second = mean_of(values[:6], np.arange(6)), mean_of(values[4:], np.arange(4, 10))
    first.merge(second)
    assert first.summary() == mean_of(values).summary()
    np.testing.assert_array_equal(first.values, values)


def test_what_does_not_exist_is_nan():
    nothing, one = Mean().summary(), mean_of(np.array([2.0, np.nan])).summary()
    assert np.isnan(nothing["mean"])
    assert np.isnan(nothing["stderr"])
    assert nothing["n"] == nothing["skipped"] == 0
    assert one["mean"] == 2
    assert np.isnan(one["stderr"])


def test_tensors_can_be_added():
    assert mean_of(torch.tensor([1.0, 3.0]), torch.tensor([0, 1])).summary()["mean"] == 2


def test_ids_in_some_updates_only_are_refused():
    mean = mean_of(np.ones(2), np.arange(2))
    with pytest.raises(ValueError, match="every update or in none"):
        mean.update(np.ones(2))
    with pytest.raises(ValueError, match="both sides"):
        mean.merge(mean_of(np.ones(2)))
    with pytest.raises(ValueError, match="ids: expected shape"):
        mean.update(np.ones(2), np.arange(3))
