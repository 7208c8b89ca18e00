"""DCI: perfect, mixed and empty codes, the formulas, and the ancestor's bug."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import entropy

from metrics.slots.disentanglement import disentanglement, disentanglement_of
from metrics.slots.probes import split_images
from multiobj_data.errors import UsageError

N = 400


@pytest.fixture
def factors(rng):
    return {
        "x": rng.random(N),
        "class": rng.integers(0, 3, N),
        "y": rng.random(N),
        "size": rng.integers(0, 2, N),
    }


def as_codes(factors):
    return np.stack([np.asarray(values, float) for values in factors.values()], axis=1)


@pytest.mark.parametrize("estimator", ["forest", "boosting", "lasso"])
def test_one_code_a_factor_is_perfect_and_a_rotation_is_worse(factors, rng, estimator):
    codes = as_codes(factors)
    codes = (codes - codes.mean(0)) / codes.std(0)
    straight = disentanglement(codes, factors, estimator=estimator)
    assert straight.disentanglement == pytest.approx(1, abs=0.1)
    assert straight.completeness == pytest.approx(1, abs=0.1)
    assert straight.importance.argmax(0).tolist() == [0, 1, 2, 3]
    rotation = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    mixed = disentanglement(codes @ rotation, factors, estimator=estimator)
    assert mixed.disentanglement < straight.disentanglement - 0.2
    assert mixed.completeness < straight.completeness - 0.2


@pytest.mark.parametrize("order", [["x", "class", "y", "size"], ["class", "x", "size", "y"]])
@pytest.mark.parametrize("estimator", ["forest", "boosting"])
def test_every_factor_has_the_estimator_of_its_own_kind(factors, order, estimator):
    """The ancestor reuses the first factor's kind for all later ones: classes after a quantity then score 0."""
    result = disentanglement(as_codes(factors), {name: factors[name] for name in order}, estimator=estimator)
    assert result.kinds == {
        "x": "regression", "class": "classification", "y": "regression", "size": "classification"
    }  # fmt: skip
    assert all(value > 0.95 for value in result.informed.values()), result.informed


def test_codes_of_noise_know_nothing(factors, rng):
    result = disentanglement(rng.normal(size=(N, 5)), factors)
    assert result.disentanglement < 0.15
    assert result.completeness < 0.15
    for name, value in result.informed.items():
        assert value < result.chance[name] + 0.12
    assert result.chance["x"] == pytest.approx(0, abs=0.05)
    assert 0.25 < result.chance["class"] < 0.5


@pytest.mark.parametrize("estimator", ["forest", "lasso"])
def test_the_order_of_codes_and_factors_changes_nothing(factors, rng, estimator):
    codes = as_codes(factors) + 0.3 * rng.normal(size=(N, 4))
    order = np.array([2, 0, 3, 1])
    one = disentanglement(codes, factors, estimator=estimator)
    other = disentanglement(codes[:, order], dict(reversed(factors.items())), estimator=estimator)
    assert other.disentanglement == pytest.approx(one.disentanglement, abs=0.02)
    assert other.completeness == pytest.approx(one.completeness, abs=0.02)
    np.testing.assert_allclose(other.importance, one.importance[order][:, ::-1], atol=0.03)


def test_the_same_seed_gives_the_same_figures(factors, rng):
    codes = as_codes(factors) + 0.3 * rng.normal(size=(N, 4))
    some = {"x": factors["x"], "class": factors["class"]}
    one, two = (disentanglement(codes, some, seed=3).to_json() for _ in range(2))
    assert json.dumps(one, allow_nan=False) == json.dumps(two, allow_nan=False)
    assert disentanglement(codes, some, seed=4).to_json() != one


def test_tensors_are_taken(factors):
    tensors = {name: torch.as_tensor(values) for name, values in factors.items()}
    codes = as_codes(factors)
    got = disentanglement(torch.as_tensor(codes), tensors, torch.arange(N), estimator="lasso")
    assert got.to_json() == disentanglement(codes, factors, estimator="lasso").to_json()


def test_objects_of_one_image_are_on_one_side(rng):
    """Codes that tell the image apart and nothing else are worth nothing once images are held out."""
    images = np.repeat(np.arange(20), 20)
    colour_of_image = rng.random(20)
    codes = (colour_of_image * 1e3 % 1)[images][:, None]  # a hash of the image's own factor
    factor = {"light": colour_of_image[images], "other": rng.random(N)}
    by_row = disentanglement(codes, factor)  # the same image is on both sides: its hash is known by heart
    assert by_row.informed["light"] > 0.8
    assert disentanglement(codes, factor, images).informed["light"] < 0.2


@given(
    images=arrays(np.int64, st.integers(4, 60), elements=st.integers(-5, 8)),
    share=st.floats(0.1, 0.9),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_a_split_is_of_images_and_blind_to_rows(images, share, seed):
    n = len(np.unique(images))
    if not 0 < round(share * n) < n:
        with pytest.raises(ValueError, match="images enough for both sides"):
            split_images(images, share, seed)
        return
    test = split_images(images, share, seed)
    assert not set(images[test]) & set(images[~test])
    assert len(set(images[test])) == round(share * n)
    np.testing.assert_array_equal(split_images(images[::-1], share, seed), test[::-1])
    np.testing.assert_array_equal(split_images(np.repeat(images, 3), share, seed), np.repeat(test, 3))


# -- the formulas


@given(arrays(np.float64, (4, 3), elements=st.floats(0, 1)))
@settings(max_examples=100, deadline=None)
def test_scores_are_those_of_the_formulas(table):
    table = np.where(table < 1e-3, 0, table)
    d, c, by_code, by_factor = disentanglement_of(table)
    for scores, rows, base in ((by_code, table, 3), (by_factor, table.T, 4)):
        expected = [1 - entropy(row, base=base) if row.sum() else math.nan for row in rows]
        np.testing.assert_allclose(scores, expected, atol=1e-12)
    if not table.any():
        assert math.isnan(d)
        assert math.isnan(c)
        return
    used = table.sum(1) > 0
    assert d == pytest.approx(np.average(by_code[used], weights=table.sum(1)[used]), abs=1e-12)
    met = table.sum(0) > 0
    assert c == pytest.approx(np.average(by_factor[met], weights=table.sum(0)[met]), abs=1e-12)
    assert -1e-9 <= d <= 1 + 1e-9
    assert -1e-9 <= c <= 1 + 1e-9


def test_perfect_even_and_lopsided_tables():
    assert disentanglement_of(np.diag([0.2, 1.0, 3.0]))[:2] == pytest.approx((1, 1))
    assert disentanglement_of(np.ones((3, 4)))[:2] == pytest.approx((0, 0))
    d, c, _, _ = disentanglement_of(np.repeat(np.eye(2), 2, axis=0))  # two codes for each factor
    assert d == pytest.approx(1)
    assert c == pytest.approx(0.5)


def test_a_code_of_no_use_is_left_out():
    with_idle = np.concatenate([np.eye(3), np.zeros((2, 3))])
    d, _, by_code, _ = disentanglement_of(with_idle)
    assert d == pytest.approx(1)
    assert np.isnan(by_code).tolist() == [False] * 3 + [True] * 2


@pytest.mark.parametrize("table", [np.zeros((3, 2)), np.ones((1, 1))])
def test_what_cannot_be_said_is_nan(table):
    assert all(map(math.isnan, disentanglement_of(table)[:2]))


def test_one_factor_has_no_disentanglement_and_one_code_no_completeness(factors):
    single = disentanglement(as_codes(factors), {"x": factors["x"]})
    assert math.isnan(single.disentanglement)
    assert single.completeness == pytest.approx(1, abs=0.05)
    only = disentanglement(factors["x"][:, None], {"x": factors["x"], "y": factors["y"]})
    assert math.isnan(only.completeness)
    assert single.to_json()["disentanglement"] is None


def test_codes_that_lasso_drops_leave_nothing_to_share(factors, rng):
    codes = np.full((N, 2), 0.5)  # constant: no coefficient
    result = disentanglement(codes, {"x": factors["x"], "y": factors["y"]}, estimator="lasso")
    assert not result.importance.any()
    assert math.isnan(result.disentanglement)
    assert math.isnan(result.completeness)
    assert result.informativeness == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("wrong", [np.full((2, 2), -1.0), np.full((2, 2), np.nan)])
def test_importance_must_be_importance(wrong):
    with pytest.raises(ValueError, match="finite values of 0 or more"):
        disentanglement_of(wrong)


# -- degenerate factors and bad input


def test_factors_that_cannot_be_learnt_are_skipped_with_the_reason(factors, rng):
    result = disentanglement(
        as_codes(factors),
        factors | {"same": np.ones(N), "id": np.arange(N), "rare": np.where(np.arange(N) < 8, 1.0, np.nan)},
        estimator="lasso",
    )
    assert result.factors == ("x", "class", "y", "size")
    assert result.skipped["same"] == "the same for all training objects"
    assert "different whole numbers, more than 50 classes" in result.skipped["id"]
    assert "fewer than 10 on a side" in result.skipped["rare"]
    kinds = {"id": "regression"}
    assert (
        "id"
        in disentanglement(as_codes(factors), {"id": np.arange(N)}, kinds=kinds, estimator="lasso").informed
    )


def test_unknown_values_are_left_out(factors, rng):
    holes = rng.random(N) < 0.3
    given = {"x": np.where(holes, np.nan, factors["x"]), "class": np.where(holes, -1, factors["class"])}
    result = disentanglement(as_codes(factors), given)
    assert result.informed["class"] == 1
    assert result.informed["x"] > 0.97


def test_vectors_are_one_factor_a_component(factors, rng):
    colour = rng.random((N, 3))
    result = disentanglement(colour, {"colour": colour})
    assert result.factors == ("colour[0]", "colour[1]", "colour[2]")
    assert result.disentanglement > 0.9


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"codes": np.zeros(N)}, ValueError, r"codes: expected shape \[any, any\]"),
        ({"codes": np.zeros((N, 2), int)}, ValueError, "codes: expected floats"),
        ({"codes": np.full((N, 2), np.inf)}, ValueError, "codes: expected finite values"),
        ({"codes": np.zeros((0, 2))}, ValueError, "codes: expected at least one row and one code"),
        ({"codes": np.zeros((7, 2))}, ValueError, "of 7 values as the codes"),
        ({"factors": {}}, ValueError, "factors: expected at least one"),
        (
            {"factors": {"x": np.zeros((N, 1, 1))}},
            ValueError,
            r"factor x: expected numbers \[N\] or \[N, M\]",
        ),
        ({"factors": {"x": np.array(["a"] * N)}}, ValueError, "factor x: expected numbers"),
        ({"factors": {"x": np.zeros(N), "y": np.zeros(3)}}, ValueError, "factors: expected one length"),
        ({"factors": {"x": np.zeros(N)}}, ValueError, "none can be learnt: x: the same for all"),
        (
            {"kinds": {"x": "class"}},
            UsageError,
            "expected kind 'regression' or 'classification', got 'class'",
        ),
        ({"kinds": {"x": "classification"}}, ValueError, "factor x: expected whole numbers for classes"),
        ({"kinds": {"siz": "regression"}}, UsageError, "no factor named 'siz'. Did you mean 'size'"),
        (
            {"estimator": "trees"},
            UsageError,
            "estimator: expected one of forest, boosting, lasso, got 'trees'",
        ),
        ({"images": np.zeros(N, int)}, ValueError, "images enough for both sides of a split, got 1"),
        ({"images": np.zeros(N)}, ValueError, "images: expected signed"),
        ({"test_share": 1.0}, ValueError, "images enough for both sides"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(factors, change, error, says):
    arguments = {"codes": as_codes(factors), "factors": factors} | change
    with pytest.raises(error, match=says):
        disentanglement(arguments.pop("codes"), arguments.pop("factors"), **arguments)
