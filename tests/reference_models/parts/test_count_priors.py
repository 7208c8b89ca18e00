from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from reference_models.parts.objects import count_priors
from reference_models.parts.objects.counts import geometric_prior, stick_breaking


def test_any_prior_can_be_written_as_decisions() -> None:
    log_p = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = stick_breaking(count_priors.decisions_of(log_p)).probs
    torch.testing.assert_close(found, log_p.softmax(-1))


@pytest.mark.parametrize("ratio", [1e-6, 0.3, 1.0, 50.0])
def test_geometric(ratio: float) -> None:
    found = stick_breaking(count_priors.geometric(4, ratio)).probs
    torch.testing.assert_close(found, geometric_prior(4, ratio).probs)


def test_per_step_leaves_the_rest_to_the_last_count() -> None:
    p = stick_breaking(count_priors.per_step(2, odds=1 / 3)).probs
    torch.testing.assert_close(p, torch.tensor([0.75, 0.1875, 0.0625], dtype=torch.float64))


@pytest.mark.parametrize("weights", [(0, 1, 0, 1), (0, 0, 0, 1), (1,), (0, 2, 6)])
def test_categorical(weights: tuple[float, ...]) -> None:
    found = stick_breaking(count_priors.categorical(4, weights)).probs
    expected = torch.zeros(5, dtype=torch.float64)
    expected[: len(weights)] = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", ["linear", "exponential", "log-linear"])
def test_annealing_falls_from_start_to_end(kind: str) -> None:
    annealing = count_priors.Annealing(kind, start=10.0, begin=100, steps=1000)  # type: ignore[arg-type]
    odds = [annealing.odds(1e-3, step) for step in range(0, 1500, 50)]
    assert odds[0] == odds[2] == pytest.approx(10.0)
    assert odds[-1] == pytest.approx(1e-3)
    assert annealing.odds(1e-3, float("inf")) == pytest.approx(1e-3)  # type: ignore[arg-type]
    assert all(one >= other for one, other in pairwise(odds))


def test_log_linear_annealing_is_linear_in_the_log_odds() -> None:
    annealing = count_priors.Annealing("log-linear", start=1e4, begin=0, steps=39_000)
    assert annealing.odds(1e-9, 3000) == pytest.approx(1e3)  # ln(1e4 * .1 ** (step / 3000))


def test_without_annealing_the_end_holds_throughout() -> None:
    assert count_priors.Annealing().odds(0.2, 1) == 0.2
