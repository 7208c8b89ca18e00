"""GECO in both conventions: against the rule in plain numbers, on a toy, and its state."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from multiobj_data.errors import UsageError
from reference_models.parts.slots.geco import ZETA_OF_ONE, Convention, Geco, balanced

BOTH: tuple[Convention, ...] = ("beta", "zeta")


def controller(convention: Convention = "beta", **changes: object) -> Geco:
    return Geco(**{"goal": 10.0, "convention": convention, "rate": 0.01, **changes}).double()  # type: ignore[arg-type]


def multiplier(geco: Geco) -> float:
    weights = geco.weights()
    return (weights.kl if geco.convention == "beta" else weights.error).item()


def multipliers(geco: Geco, errors: Sequence[float]) -> list[float]:
    found = []
    for error in errors:
        geco.update(torch.tensor(error, dtype=torch.float64))
        found.append(multiplier(geco))
    return found


def by_rule(convention: Convention, errors: Sequence[float], begin: int = 0) -> list[float]:
    """Apply the released codes' rules with goal 10, rate 0.01, speed-up 10, decay 0.99."""
    beta, zeta, average, found = 1.0, 0.55, None, []
    for t, error in enumerate(errors):
        if t >= begin:
            average = error if average is None else 0.99 * average + 0.01 * error
            rate = 0.1 if average < 10 else 0.01
            beta = min(max(beta * math.exp(rate * (10 - average)), 1e-10), 1e10)
            zeta = max(0.55, zeta - rate * (10 - average))
        counts = t + 1 >= begin
        found.append(beta if convention == "beta" else math.log1p(math.exp(zeta)) if counts else 1.0)
    return found


@pytest.mark.parametrize("begin", [0, 3])
@pytest.mark.parametrize("convention", BOTH)
def test_multiplier_follows_the_published_rule(convention: Convention, begin: int) -> None:
    errors = [12.0, 30.0, 11.0, 9.0, 14.0, -40.0, 3.0, *[8.0] * 60]
    found = multipliers(controller(convention, begin=begin), errors)
    assert found == pytest.approx(by_rule(convention, errors, begin))


def test_conventions_move_in_opposite_directions() -> None:
    for error in (11.0, 9.0):
        beta, zeta = (multipliers(controller(c), [14.0, error])[-1] for c in BOTH)
        assert beta < 1 < zeta
    assert multipliers(controller("beta"), [9.0])[0] > 1
    assert multipliers(controller("zeta"), [9.0])[0] == pytest.approx(1.005, abs=1e-3)  # never below


@pytest.mark.parametrize("convention", BOTH)
def test_multiplier_stays_within_its_limits(convention: Convention) -> None:
    limits = (0.5, 2.0) if convention == "beta" else (ZETA_OF_ONE, 3.0)
    geco = controller(convention, limits=limits)
    ends = [multipliers(geco, [error] * 500)[-1] for error in (1e5, -1e5)]
    expected = [0.5, 2.0] if convention == "beta" else [math.log1p(math.exp(3)), math.log1p(math.exp(0.55))]
    assert ends == pytest.approx(expected)


def test_tiny_moves_are_not_lost_in_single_precision() -> None:
    geco = Geco(goal=0.0, rate=1e-8)
    geco.log_beta.fill_(-16.0)
    for _ in range(100):
        geco.update(torch.tensor(1.0))
    assert geco.log_beta.item() + 16 == pytest.approx(-1e-6, rel=1e-3)


def test_a_goal_that_cannot_be_met_is_refused() -> None:
    with pytest.raises(UsageError, match=r"expected a goal above 0\.56226.*, got 0\.5,"):
        Geco(0.5, 3072, floor=0.56226)
    per_value, total = Geco(0.6, 100, floor=0.56), Geco(60.0, floor=56.0)
    assert per_value.goal == pytest.approx(total.goal)


def test_loss_uses_the_multiplier_from_before_and_shows_it() -> None:
    geco = controller()
    error, kl = torch.tensor([20.0, 40.0], dtype=torch.float64), torch.tensor([3.0, 5.0], dtype=torch.float64)
    assert geco.loss("nll", error, {"kl": kl}).total.item() == 34
    geco.update(error.mean())
    loss = geco.loss("nll", error, {"kl": kl})
    beta = math.exp(-0.01 * 20)
    assert loss.total.item() == pytest.approx(30 + beta * 4)
    assert loss.terms["nll_beta"].tolist() == pytest.approx([beta] * 2)
    assert balanced(None, "nll", error, {"kl": kl}).total.item() == 34
    zeta = controller("zeta").loss("nll", error, {"kl": kl})
    assert zeta.total.item() == pytest.approx(math.log1p(math.exp(0.55)) * 30 + 4)


@pytest.mark.parametrize("convention", BOTH)
def test_state_is_taken_up_again(convention: Convention) -> None:
    errors = [12.0, 30.0, 9.0, 14.0, 3.0, 8.0]
    whole, begun, resumed = (controller(convention, begin=1) for _ in range(3))
    expected = multipliers(whole, errors)
    multipliers(begun, errors[:3])
    resumed.load_state_dict(begun.state_dict())
    assert multipliers(resumed, errors[3:]) == expected[3:]


def toy(geco: Geco, steps: int) -> tuple[float, list[float]]:
    """Descend on one number: the error is its squared distance to 4, the KL half its square; it begins at 0."""
    x, error, found = 0.0, 16.0, []
    for _ in range(steps):
        weights = geco.weights()
        x -= 0.05 * (weights.error.item() * 2 * (x - 4) + weights.kl.item() * x)
        error = (x - 4) ** 2
        geco.update(torch.tensor(error, dtype=torch.float64))
        found.append(multiplier(geco))
    return error, found


@pytest.mark.parametrize("convention", BOTH)
def test_an_ambitious_goal_is_met(convention: Convention) -> None:
    geco = Geco(0.25, convention=convention, rate=0.05, speed_up=1.0, decay=0.8).double()
    error, found = toy(geco, 800)
    assert error == pytest.approx(0.25, abs=0.03)
    # There x = 3.5 and 2 (4 - x) = 1: the gradients balance at beta 1 / 3.5, and at its inverse for the error.
    assert found[-1] == pytest.approx(1 / 3.5 if convention == "beta" else 3.5, rel=0.05)


@pytest.mark.parametrize("convention", BOTH)
def test_an_easy_goal_brings_the_multiplier_back(convention: Convention) -> None:
    limits = (1e-10, 1.0) if convention == "beta" else None
    geco = Geco(3.0, convention=convention, rate=0.02, decay=0.8, limits=limits).double()
    error, found = toy(geco, 500)
    assert (min(found) < 0.9) if convention == "beta" else (max(found) > 1.1)  # the first error is 16
    assert found[-1] == pytest.approx(1, abs=0.01)
    assert error == pytest.approx((4 / 3) ** 2, rel=0.02)  # where the negative ELBO is least: x = 8 / 3
