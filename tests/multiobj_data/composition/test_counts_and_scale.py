import types

import numpy as np
import pytest

from multiobj_data.composition.counts import Counts
from multiobj_data.composition.scale import Scale
from multiobj_data.errors import UsageError
from multiobj_data.randomness import BLOCK, block_rng


def counts_of(text, n, seed=0):
    """Draw a split's counts block by block, as generation does."""
    counts = Counts(text)
    blocks = [counts.draw(block_rng(seed, "train", b), BLOCK, b * BLOCK) for b in range(-(-n // BLOCK))]
    return np.concatenate(blocks)[:n]


@pytest.mark.parametrize("text", ["2,4", "0-2", "0-6", "1:3,2:1", "3", "0-2:2,7"])
@pytest.mark.parametrize("n", [1, 240, 1000, 5003])
def test_shares_are_exact_to_within_one_cycle(text, n):
    weights = Counts(text).weights
    total = sum(weights.values())
    drawn = counts_of(text, n)
    for count, weight in weights.items():
        assert abs((drawn == count).sum() - n * weight / total) < weight + 1e-9
    assert set(np.unique(drawn)) <= set(weights)


def test_shares_of_a_whole_number_of_cycles_are_equal():
    values, numbers = np.unique(counts_of("0-2", 60_000), return_counts=True)
    assert values.tolist() == [0, 1, 2]
    assert numbers.tolist() == [20_000] * 3


def test_order_is_random_and_follows_the_seed():
    assert not np.array_equal(counts_of("2,4", 1000), counts_of("2,4", 1000, seed=1))
    assert np.array_equal(counts_of("2,4", 1000), counts_of("2,4", 1000))
    first = counts_of("2,4", 4000).reshape(-1, 2)[:, 0]
    assert abs((first == 2).mean() - 0.5) < 0.05


def test_fractional_weights_are_probabilities():
    drawn = counts_of("1:.3,2:.7", 20_000)
    assert abs((drawn == 1).mean() - 0.3) < 0.015


@pytest.mark.parametrize(
    "text",
    ["2,x", "-1", "", "1,,2", "3-1", "2,2", "1:0", "1.5", "999", "0-99999999999", "1:1e9", "1:9" + "9" * 400],
)
def test_malformed_counts_are_refused(text):
    with pytest.raises(UsageError, match="counts"):
        Counts(text)


@pytest.mark.parametrize("text", ["1", "0.75", "0.5..0.9", "divisor:1.3,0.1"])
def test_every_drawn_side_is_among_the_announced_ones(text):
    scale = Scale(text)
    sides = scale.draw(np.random.default_rng(0), 20_000, 28)
    assert set(np.unique(sides)) <= set(scale.sides(28))
    assert sides.min() >= 1


@pytest.mark.parametrize("mean", [0.56, 0.91, 1.0, 1.12, 1.3])
@pytest.mark.parametrize("deviation", [0.0, 0.03, 0.1])
def test_divisors_at_their_cuts_give_the_first_and_the_last_side(mean, deviation):
    scale = Scale(f"divisor:{mean},{deviation}")
    for cut, end in ((1e9, 0), (-1e9, -1)):
        rng = types.SimpleNamespace(normal=lambda a, b, n, cut=cut: np.full(n, a + b * cut))
        assert scale.draw(rng, 1, 28).item() == scale.sides(28)[end]


def test_divisor_follows_the_normal_of_the_literature():
    rng = np.random.default_rng(1)
    sides = Scale("divisor:1.3,0.1").draw(rng, 50_000, 28)
    independent = (28 / np.random.default_rng(2).normal(1.3, 0.1, 50_000)).astype(int)
    for side in range(18, 25):
        assert abs((sides == side).mean() - (independent == side).mean()) < 0.012


@pytest.mark.parametrize("text", ["big", "0", "0.9..0.5", "divisor:1.3", "divisor:0.3,0.1", "-1"])
def test_malformed_scales_are_refused(text):
    with pytest.raises(UsageError, match="scale"):
        Scale(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-1", "factors above 0 and up to 1,000"),
        ("0.5..1e999", "factors above 0 and up to 1,000"),
        ("divisor:0.3,0.1", "mean is more than 4 deviations above 0, got mean 0.3 and deviation 0.1"),
        ("divisor:1.3,-0.1", "got mean 1.3 and deviation -0.1"),
    ],
)
def test_numbers_out_of_range_are_named(text, message):
    with pytest.raises(UsageError, match=message):
        Scale(text)


def test_numbers_may_have_exponents():
    assert Scale("5e-1").sides(28) == Scale("0.5").sides(28)


def test_huge_weights_are_shares_like_others():
    assert set(counts_of("1:999999999999,2:1", 1000)) == {1}
