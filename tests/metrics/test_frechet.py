"""The Frechet and the kernel distance against closed forms, SciPy, loops, and other people's packages."""

import itertools
import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics import GaussianStatistics, frechet_distance, kernel_distance
from metrics.generation.frechet import _sum_of_singular_values, frechet_floor
from metrics.generation.gaussians import FeatureMoments
from multiobj_data.errors import DataError


def features(rng, n, d, scale=1.0, shift=0.0):
    """Correlated features with a spread of scales."""
    mix = np.random.default_rng(99).normal(size=(d, d)) * np.geomspace(1, 0.05, d)
    return rng.normal(size=(n, d)) @ mix * scale + shift


def by_square_root(x, y):
    """The distance as it is usually computed, for n > d."""
    s, t = np.cov(x.T), np.cov(y.T)
    root = scipy.linalg.sqrtm(s @ t)
    assert abs(root.imag).max() < 1e-6
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s + t - 2 * root.real)


def statistics(x):
    return GaussianStatistics(x.mean(0), np.cov(x.T))  # says nothing of n


# -- the Frechet distance


def test_of_diagonal_gaussians_is_the_closed_form(rng):
    mean1, mean2 = rng.normal(size=(2, 9))
    sd1, sd2 = rng.uniform(0.1, 3, (2, 9))
    got = frechet_distance(
        GaussianStatistics(mean1, np.diag(sd1**2)), GaussianStatistics(mean2, np.diag(sd2**2))
    )
    assert got == pytest.approx(((mean1 - mean2) ** 2).sum() + ((sd1 - sd2) ** 2).sum(), rel=1e-12)


def test_of_covariances_that_share_eigenvectors_is_the_closed_form_even_if_singular(rng):
    axes = np.linalg.qr(rng.normal(size=(7, 7)))[0]
    sd1, sd2 = np.array([3, 2, 1, 0.5, 0, 0, 0]), np.array([1, 0, 2, 0.1, 0, 4, 0])
    one, two = (GaussianStatistics(np.zeros(7), axes * sd**2 @ axes.T) for sd in (sd1, sd2))
    assert frechet_distance(one, two) == pytest.approx(((sd1 - sd2) ** 2).sum(), rel=1e-9)


@pytest.mark.parametrize(("n", "m", "d"), [(80, 90, 20), (300, 200, 64), (21, 500, 20)])
def test_equals_the_square_root_of_scipy(rng, n, m, d):
    x, y = features(rng, n, d), features(rng, m, d, 1.3, 0.4)
    want = by_square_root(x, y)
    assert frechet_distance(x, y) == pytest.approx(want, rel=1e-9)
    assert frechet_distance(statistics(x), statistics(y)) == pytest.approx(want, rel=1e-9)
    assert frechet_distance(x, statistics(y)) == pytest.approx(want, rel=1e-9)


def test_equals_pytorch_fid(rng):
    pytest.importorskip("pytorch_fid")
    from pytorch_fid.fid_score import calculate_frechet_distance

    x, y = features(rng, 200, 30), features(rng, 150, 30, 1.1)
    s, t = statistics(x), statistics(y)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            want = calculate_frechet_distance(s.mean, s.covariance, t.mean, t.covariance)
    except TypeError:
        pytest.skip("this SciPy has no sqrtm(disp=...) any more, which pytorch-fid needs")
    assert frechet_distance(x, y) == pytest.approx(want, rel=1e-9)


def test_equals_torch_fidelity(rng):
    pytest.importorskip("torch_fidelity")
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    x, y = features(rng, 200, 30), features(rng, 150, 30, 1.1)
    s, t = ({"mu": z.mean(0), "sigma": np.cov(z.T)} for z in (x, y))
    want = fid_statistics_to_metric(s, t, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(x, y) == pytest.approx(want, rel=1e-8)


@pytest.mark.parametrize("n", [2, 5, 39, 40, 41])
def test_of_a_set_with_itself_is_zero_with_fewer_images_than_dimensions_too(rng, n):
    x = features(rng, n, 40, shift=10)
    size = np.trace(np.cov(x.T))
    assert frechet_distance(x, x) <= 1e-13 * size
    assert frechet_distance(x, x[::-1].copy()) <= 1e-12 * size
    assert frechet_distance(GaussianStatistics.of(x), GaussianStatistics.of(x)) <= 1e-11 * size


@pytest.mark.parametrize(("n", "m"), [(6, 9), (6, 200), (39, 41)])
def test_statistics_of_few_images_say_what_features_say(rng, n, m):
    x, y = features(rng, n, 40), features(rng, m, 40, 1.2, 0.3)
    want = frechet_distance(x, y)
    assert frechet_distance(GaussianStatistics.of(x), GaussianStatistics.of(y)) == pytest.approx(
        want, rel=1e-6
    )
    assert frechet_distance(statistics(x), statistics(y)) == pytest.approx(want, rel=1e-6)


def test_of_two_points_each_is_the_distance_of_line_segments():
    # Scatter along unit vectors u and v with variances s^2 and t^2: tr (S T)^(1/2) = s t |u.v|.
    x, y = np.array([[0.0, 0, 0], [2, 0, 0]]), np.array([[0.0, 0, 0], [3, 4, 0]])
    s2, t2, cosine = 2.0, 12.5, 0.6
    want = (1 - 1.5) ** 2 + 2.0**2 + s2 + t2 - 2 * np.sqrt(s2 * t2) * cosine
    assert frechet_distance(x, y) == pytest.approx(want, rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 30), st.integers(2, 30), st.integers(1, 12), st.integers(0, 10**6))
def test_is_symmetric_at_least_zero_and_blind_to_rotation_and_common_shift(n, m, d, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)), rng.normal(size=(m, d)) * 2 + 1
    turn, shift = np.linalg.qr(rng.normal(size=(d, d)))[0], rng.normal(size=d)
    got = frechet_distance(x, y)
    assert got >= 0
    assert frechet_distance(y, x) == pytest.approx(got, rel=1e-9, abs=1e-12)
    assert frechet_distance(x @ turn + shift, y @ turn + shift) == pytest.approx(got, rel=1e-6, abs=1e-9)
    assert frechet_distance(3 * x, 3 * y) == pytest.approx(9 * got, rel=1e-6, abs=1e-9)
    assert frechet_distance(x, x + shift) == pytest.approx(shift @ shift, rel=1e-6)


def test_takes_tensors_of_half_the_bits(rng):
    x, y = features(rng, 60, 8).astype(np.float32), features(rng, 50, 8, 2).astype(np.float32)
    # Not to the last bit: sums of a product come in another order where the arrays begin at another address.
    want = pytest.approx(frechet_distance(x, y), rel=1e-12)
    assert frechet_distance(torch.from_numpy(x), torch.from_numpy(y)) == want
    assert frechet_distance(torch.from_numpy(x), y) == want


def test_floor_is_of_disjoint_halves_and_falls_with_n(rng):
    x = features(rng, 2000, 10)
    value, half = frechet_floor(x, rng=np.random.default_rng(1))
    order = np.random.default_rng(1).permutation(2000)
    assert half == 1000
    assert value == frechet_distance(x[order[:1000]], x[order[1000:]])
    small, n = frechet_floor(x, rng=np.random.default_rng(1), n=50)
    assert n == 50
    assert small > 5 * value


def test_a_singular_matrix_is_not_summed_by_its_gram_matrix(rng):
    turns = [np.linalg.qr(rng.normal(size=(40, 40)))[0] for _ in range(2)]
    matrix = turns[0] * np.repeat([1.0, 0.0], 20) @ turns[1]
    assert _sum_of_singular_values(matrix, full_rank=True) == pytest.approx(20, rel=1e-13)


# -- statistics


def test_what_n_rules_out_is_no_part_of_the_factor(rng):
    noisy = np.diag([2.0, 1.0, 1e-9, 1e-9])  # three images span two directions
    assert GaussianStatistics(np.zeros(4), noisy, n=3).factor.shape == (2, 4)
    assert GaussianStatistics(np.zeros(4), noisy, n=9).factor.shape == (4, 4)


def test_a_stream_gives_what_two_passes_give_even_far_from_zero(rng):
    x = features(rng, 1000, 12, shift=1e6)
    moments = FeatureMoments()
    for part in np.array_split(x, [1, 2, 300, 300, 900]):
        moments.update(part)
    got, want = moments.statistics(), np.cov(x.T)
    assert got.n == 1000
    np.testing.assert_allclose(got.mean, x.mean(0), rtol=1e-14)
    np.testing.assert_allclose(got.covariance, want, atol=1e-9 * abs(want).max())


def test_parts_merge_in_any_order_and_library(rng):
    x = features(rng, 90, 5, shift=3)
    want = GaussianStatistics.of(x)
    for order in itertools.permutations(range(3)):
        whole = FeatureMoments()
        for i in order:
            part = FeatureMoments()
            rows = x[[slice(0, 10), slice(10, 11), slice(11, 90)][i]]
            part.update(torch.from_numpy(rows) if i == 1 else rows)
            whole.merge(part)
        whole.merge(FeatureMoments())
        got = whole.statistics()
        assert got.n == want.n
        np.testing.assert_allclose(got.mean, want.mean, rtol=1e-13)
        np.testing.assert_allclose(got.covariance, want.covariance, rtol=1e-11, atol=1e-13)


def test_are_kept_in_a_file_that_pytorch_fid_reads_and_read_from_one_that_it_wrote(rng, tmp_path):
    ours = GaussianStatistics.of(features(rng, 30, 4), {"images": {"kind": "array"}})
    ours.save(tmp_path / "ours.npz")
    again = GaussianStatistics.load(tmp_path / "ours.npz")
    assert (again.n, again.stamp) == (30, {"images": {"kind": "array"}})
    np.testing.assert_array_equal(again.covariance, ours.covariance)
    with np.load(tmp_path / "ours.npz") as file:
        np.testing.assert_array_equal(file["mu"], ours.mean)
        np.testing.assert_array_equal(file["sigma"], ours.covariance)
    np.savez_compressed(tmp_path / "theirs.npz", mu=ours.mean, sigma=ours.covariance)
    theirs = GaussianStatistics.load(tmp_path / "theirs.npz")
    assert theirs.n is None
    assert frechet_distance(ours, theirs) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda p: np.savez(p, mu=np.zeros(3)), "expected the arrays 'mu' and 'sigma'"),
        (lambda p: np.savez(p, mu=np.zeros(3), sigma=np.eye(2)), "expected shape [3, 3]"),
        (lambda p: np.savez(p, mu=np.zeros(2), sigma=np.array([[1.0, 2], [0, 1]])), "symmetric"),
        (lambda p: p.write_bytes(b"PK\x03\x04 cut"), "cannot be read"),
        (lambda p: np.savez(p, mu=np.array([None, 1]), sigma=np.eye(2)), "cannot be read"),
        (lambda p: None, "no such file"),
    ],
)
def test_a_file_that_holds_none_is_refused_in_a_sentence(tmp_path, write, words):
    path = tmp_path / "s.npz"
    write(path)
    with pytest.raises(DataError) as error:
        GaussianStatistics.load(path)
    assert words in str(error.value)
    assert str(path) in str(error.value)


# -- the kernel distance


def by_loops(x, y, degree=3):
    d, total = x.shape[1], 0.0
    for one, other, sign, skip in ((x, x, 1, True), (y, y, 1, True), (x, y, -2, False)):
        values = [
            (a @ b / d + 1) ** degree
            for i, a in enumerate(one)
            for j, b in enumerate(other)
            if not (skip and i == j)
        ]
        total += sign * sum(values) / len(values)
    return total


def test_kernel_distance_of_whole_sets_equals_a_double_loop(rng):
    x, y = features(rng, 12, 5), features(rng, 12, 5, 1.5, 0.5)
    got = kernel_distance(x, y, rng=rng, subsets=3, subset_size=12)
    assert got.mean == pytest.approx(by_loops(x, y), rel=1e-10)
    assert got.std == pytest.approx(0, abs=1e-10)
    assert kernel_distance(x, y, rng=rng, subsets=1, subset_size=12, degree=2).mean == pytest.approx(
        by_loops(x, y, 2), rel=1e-10
    )


def test_kernel_distance_averages_seeded_subsets(rng):
    x, y = features(rng, 40, 5), features(rng, 30, 5, 1.5)
    again = np.random.default_rng(3)
    values = [
        by_loops(x[again.choice(40, 10, replace=False)], y[again.choice(30, 10, replace=False)])
        for _ in range(4)
    ]
    got = kernel_distance(x, torch.from_numpy(y), rng=np.random.default_rng(3), subsets=4, subset_size=10)
    assert got.mean == pytest.approx(np.mean(values), rel=1e-10)
    assert got.std == pytest.approx(np.std(values, ddof=1), rel=1e-9)
    assert got.stderr == pytest.approx(np.std(values, ddof=1) / 2, rel=1e-9)


def test_kernel_distance_equals_torch_fidelity(rng):
    pytest.importorskip("torch_fidelity")
    from torch_fidelity.metric_kid import kid_features_to_metric

    x, y = (torch.from_numpy(features(rng, 50, 8, scale)) for scale in (1, 1.4))
    want = kid_features_to_metric(x, y, kid_subsets=1, kid_subset_size=50, verbose=False)
    got = kernel_distance(x, y, rng=rng, subsets=1, subset_size=50)
    assert got.mean == pytest.approx(want["kernel_inception_distance_mean"], rel=1e-9)


def test_kernel_distance_is_unbiased(rng):
    values = [
        kernel_distance(
            rng.normal(size=(8, 3)), rng.normal(size=(8, 3)), rng=rng, subsets=1, subset_size=8
        ).mean
        for _ in range(4000)
    ]
    assert abs(np.mean(values)) < 4 * np.std(values) / 4000**0.5


# -- refusals


@pytest.mark.parametrize(
    ("real", "generated", "words"),
    [
        (np.zeros((5, 3)), np.zeros((5, 4)), "same extractor"),
        (np.zeros(5), np.zeros((5, 4)), "real: expected shape"),
        (np.zeros((1, 3)), np.zeros((5, 3)), "real: expected 2 or more"),
        (np.zeros((5, 3)), np.zeros((5, 3), np.uint8), "feature extractor first"),
        (np.zeros((5, 0)), np.zeros((5, 0)), "at least one dimension"),
        (np.array([[0.0], [np.nan]]), np.zeros((5, 1)), "finite"),
        (np.zeros((5, 1)), torch.tensor([[0.0], [float("inf")]]), "generated: expected finite"),
        (GaussianStatistics(np.zeros(2), np.diag([1.0, -0.5])), np.zeros((5, 2)), "negative eigenvalue"),
        ("features.npz", np.zeros((5, 2)), "expected an array"),
    ],
)
def test_bad_features_are_refused_in_a_sentence(real, generated, words):
    with pytest.raises(ValueError, match=words):
        frechet_distance(real, generated)


@pytest.mark.parametrize("settings", [{"subset_size": 6}, {"subset_size": 1}, {"subsets": 0}, {"degree": 0}])
def test_a_kernel_distance_of_too_few_is_refused(rng, settings):
    with pytest.raises(ValueError, match="subset_size of 2..5"):
        kernel_distance(
            np.ones((5, 2)), np.ones((5, 2)), rng=rng, **({"subsets": 2, "subset_size": 5} | settings)
        )


def test_moments_of_nothing_or_of_other_dimensions_are_refused(rng):
    moments = FeatureMoments()
    moments.update(np.zeros((0, 4)))
    with pytest.raises(ValueError, match="2 or more for a covariance, got 0"):
        moments.statistics()
    moments.update(np.ones((3, 4)))
    with pytest.raises(ValueError, match="expected 4 dimensions"):
        moments.update(np.ones((3, 5)))
