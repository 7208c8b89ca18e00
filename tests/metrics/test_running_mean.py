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


def test_infinity_is_refused():
    with pytest.raises(ValueError, match="no mean can hold"):
        mean_of(np.array([1.0, np.inf]))


# intervals


@pytest.mark.parametrize("method", ["bca", "percentile"])
@pytest.mark.parametrize("n", [12, 300])
def test_intervals_are_those_of_scipy(rng, method, n):
    values = np.sort(rng.exponential(size=n))  # skewed, so that the methods differ
    want = scipy.stats.bootstrap(
        (values,), np.mean, confidence_level=0.9, n_resamples=999, method=method, rng=np.random.default_rng(5)
    ).confidence_interval
    got = mean_of(rng.permutation(values)).interval(
        0.9, rng=np.random.default_rng(5), method=method, resamples=999
    )
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_resamples_that_equal_the_mean_count_half(rng):
    low, high = mean_of(np.array([0.0, 1.0])).interval(0.6, rng=rng)  # half of all resamples have the mean
    assert (low, high) == (0, 1)


def test_drawing_in_parts_changes_nothing(rng, monkeypatch):
    mean = mean_of(rng.normal(size=40))
    whole = mean.interval(rng=np.random.default_rng(0))
    monkeypatch.setattr("metrics.bootstrap._AT_ONCE", 130)
    assert mean.interval(rng=np.random.default_rng(0)) == whole


def test_intervals_hold_the_true_mean_as_often_as_they_say(rng):
    held = 0
    for values in rng.exponential(size=(300, 40)):
        low, high = mean_of(values).interval(0.8, rng=rng, resamples=300)
        held += low <= 1 <= high
    assert 0.72 < held / 300 < 0.86


def test_an_interval_depends_neither_on_order_nor_on_gaps_nor_on_sharding(rng):
    values = np.append(rng.normal(size=60), np.nan)
    whole = mean_of(values).summary(interval=0.95, rng=np.random.default_rng(3))
    merged = Mean()
    for part in np.array_split(rng.permutation(61), 4):
        merged.merge(mean_of(values[part]))
    assert merged.summary(interval=0.95, rng=np.random.default_rng(3)) == whole
    assert whole["low"] < whole["mean"] < whole["high"]
    assert whole["high"] - whole["low"] == pytest.approx(3.92 * whole["stderr"], rel=0.15)


def test_too_few_values_have_no_interval_and_equal_ones_no_width(rng):
    assert np.isnan(mean_of(np.array([2.0])).interval(rng=rng)).all()
    assert np.isnan(Mean().interval(rng=rng)).all()
    assert mean_of(np.full(5, 0.1)).interval(rng=rng) == (0.1, 0.1)
    assert np.isnan(mean_of(np.array([0.0] * 999 + [1.0])).interval(rng=rng, resamples=1)).all()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"interval": 95, "rng": np.random.default_rng(0)}, "share above 0 and below 1, got 95"),
        ({"interval": 0.95}, "rng: expected"),
        ({"interval": 0.9, "rng": np.random.default_rng(0), "method": "t"}, "'bca' or 'percentile', got 't'"),
        ({"interval": 0.9, "rng": np.random.default_rng(0), "resamples": 0}, "resamples: expected 1"),
    ],
)
def test_intervals_that_mean_nothing_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        mean_of(np.arange(4.0)).summary(**options)


# saving


@pytest.mark.parametrize("ids", [None, np.array([7, 7, 9])])
def test_a_saved_mean_goes_on_where_it_was(tmp_path, ids):
    mean = mean_of(np.array([0.1, 5.0, np.nan]), ids)
    np.savez(tmp_path / "mean.npz", **mean.state())
    with np.load(tmp_path / "mean.npz") as state:
        again = Mean.from_state(state)
    assert again.summary() == mean.summary()
    for one in (mean, again):
        one.update(np.array([0.3]), None if ids is None else np.array([10]))
    assert again.summary() == mean.summary()
    assert Mean.from_state(Mean().state()).summary()["n"] == 0


def test_what_is_no_state_is_refused():
    with pytest.raises(ValueError, match="expected 'values'"):
        Mean.from_state({"mean": np.zeros(1)})
    with pytest.raises(ValueError, match="ids: expected shape"):
        Mean.from_state({"values": np.zeros(2), "ids": np.zeros(1, int)})


def test_without_processes_gathering_copies():
    mean = mean_of(np.array([1.0, 3.0]))
    copy = mean.gather()
    copy.update(np.array([100.0]))
    assert mean.summary()["mean"] == 2


def test_a_mean_shows_its_figure():
    mean = Mean()
    assert repr(mean) == "Mean(nan ± nan, n=0, skipped=0)"
    mean.update(np.array([0.5, 0.75, np.nan]))
    assert repr(mean) == "Mean(0.625 ± 0.12, n=2, skipped=1)"
