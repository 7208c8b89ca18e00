"""Structures, settings and input of sum-product networks."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from multiobj_data.errors import DataError, UsageError
from reference_models.parts.spn import SPNConfig, SumProductNetwork, em_step, region_graph

TINY = SPNConfig(
    pixels=5, replicas=2, depth=2, leaves=2, sums=3, min_variance=0.2, max_variance=0.9, channels=2, seed=3
)


@pytest.mark.parametrize("structure", ["random", "structured"])
@pytest.mark.parametrize(
    ("canvas", "depth"), [((6, 10), 3), ((5, 7), 2), ((3, 5), 3), ((1, 9), 3), ((50, 50), 1)]
)
def test_region_graphs(structure: Any, canvas: tuple[int, int], depth: int) -> None:
    pixels = canvas[0] * canvas[1]
    config = SPNConfig(pixels, 4, depth, 2, 2, 0.1, 0.2, structure=structure, canvas=canvas, seed=7)
    graph = region_graph(config)
    assert graph.shape == (4, pixels)
    assert np.array_equal(graph, region_graph(config))
    assert np.array_equal(graph[:2], region_graph(replace(config, replicas=2)))
    for replica in graph:
        sizes = np.bincount(replica, minlength=2**depth)
        assert len(sizes) == 2**depth  # each pixel has one region, and each region has pixels
        assert (sizes > 0).all()
        if structure == "random":
            assert sizes.max() - sizes.min() <= 1
            continue
        for level in range(depth):  # every region, not the leaf regions alone, is a rectangle
            for region in range(2 ** (depth - level)):
                y, x = np.nonzero((replica >> level).reshape(canvas) == region)
                assert len(y) == (np.ptp(y) + 1) * (np.ptp(x) + 1)
    if pixels > 30:
        assert not np.array_equal(graph[0], graph[1])
        assert not np.array_equal(graph, region_graph(replace(config, seed=8)))


def test_weights_belong_to_their_structure() -> None:
    network = SumProductNetwork(TINY)
    same = SumProductNetwork(TINY)
    same.load_state_dict(network.state_dict())
    assert torch.equal(
        same.log_likelihood(torch.full((2, 10), 0.3)), network.log_likelihood(torch.full((2, 10), 0.3))
    )
    with pytest.raises(DataError, match="another region graph than that of structure='random', seed=4"):
        SumProductNetwork(replace(TINY, seed=4)).load_state_dict(network.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"min_variance": 0.5, "max_variance": 0.4}, "0 < min_variance < max_variance, got 0.5 and 0.4"),
        ({"min_variance": 0.0}, "0 < min_variance"),
        ({"max_variance": math.nan}, "0 < min_variance"),
        ({"depth": 3}, "5 pixels cannot be split into 8 leaf regions; lower depth=3 to at most 2"),
        ({"depth": 0}, "depth to be at least 1, got 0"),
        ({"structure": "strutured"}, "no structure 'strutured'. Did you mean 'structured'"),
        ({"structure": "structured"}, r"give its canvas=\(height, width\)"),
        ({"structure": "structured", "canvas": (2, 3)}, "a canvas of 5 pixels, got 2 x 3"),
        ({"seed": -1}, "a seed of 0 or more, got -1"),
    ],
)
def test_settings_that_make_no_network(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(TINY, **change)


def test_straight_cuts_that_cannot_be_made() -> None:
    config = SPNConfig(9, 1, 3, 2, 2, 0.1, 0.2, structure="structured", canvas=(3, 3))
    with pytest.raises(
        UsageError, match="cannot split 3 x 3 pixels into 8 rectangles at depth 3; lower depth"
    ):
        region_graph(config)


def test_input_that_does_not_fit() -> None:
    network, x, visible = SumProductNetwork(TINY), torch.full((2, 10), 0.3), torch.ones(2, 5)
    with pytest.raises(UsageError, match=r"images \[B, 10\] \(5 pixels of 2 channels\), got \[2, 12\]"):
        network.log_likelihood(torch.ones(2, 12))
    with pytest.raises(UsageError, match=r"visible \[B, pixels\] = \[2, 5\], got \[2, 10\]"):
        network.mpe(x, torch.full((2, 10), 0.3))
    network.check(x, visible)
    x[1, 7] = math.nan
    with pytest.raises(UsageError, match="1 visible values are NaN or infinite"):
        network.check(x)
    visible[1, 2] = 0
    network.check(x, visible)
    for outside in (math.nan, 1.5, -0.1):
        with pytest.raises(UsageError, match=r"visible to be within \[0, 1\]"):
            network.check(x, torch.full_like(visible, outside))
    with pytest.raises(ValueError, match="at least one image"):
        em_step(network, [])
