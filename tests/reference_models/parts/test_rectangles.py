from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from reference_models.parts.objects.rectangles import Rectangles

H, W, A = 11, 14, 6


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_grown_rectangles_are_larger_on_every_side() -> None:
    found = rectangles()
    x0, y0, x1, y1 = found.boxes().unbind(-1)
    wide, high = 0.25 * (x1 - x0), 0.25 * (y1 - y0)
    torch.testing.assert_close(
        found.grown(0.25).boxes(), torch.stack([x0 - wide, y0 - high, x1 + wide, y1 + high], dim=-1)
    )


def rectangles(b: int = 3, k: int = 4) -> Rectangles:
    """Some of any size, many of which leave the canvas."""
    corner = torch.rand(b, k, 2, dtype=torch.float64, generator=rng()) * 16 - 4
    sides = torch.rand(b, k, 2, dtype=torch.float64, generator=rng(1)) * 9 + 1
    return Rectangles(corner, sides)


def canvases(b: int = 3, channels: int = 2) -> Tensor:
    return torch.rand(b, channels, H, W, dtype=torch.float64, generator=rng(2))


def sampled(images: Tensor, boxes: Tensor, padding: str) -> Tensor:
    """The reference: torch's general sampler at the centres of the patch's cells."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    cells = (torch.arange(A, dtype=torch.float64) + 0.5) / A
    x = x0[:, None] + (x1 - x0)[:, None] * cells
    y = y0[:, None] + (y1 - y0)[:, None] * cells
    height, width = images.shape[-2:]
    grid = torch.stack(
        [
            (2 * x / width - 1)[:, None, :].expand(-1, A, -1),
            (2 * y / height - 1)[:, :, None].expand(-1, -1, A),
        ],
        -1,
    )
    return grid_sample(images, grid, padding_mode=padding, align_corners=False)


def test_reading_is_bilinear_sampling_that_goes_on_beyond_the_edge() -> None:
    images, found = canvases(), rectangles()
    read = found.sampling(A, H, W).read(images)
    for k in range(4):
        torch.testing.assert_close(read[:, k], sampled(images, found.boxes()[:, k], "border"))


def test_samples_count_as_far_as_they_are_on_the_canvas() -> None:
    found = rectangles()
    inside = found.sampling(A, H, W).inside
    ones = torch.ones(3, 1, H, W, dtype=torch.float64)
    for k in range(4):
        torch.testing.assert_close(inside[:, k, None], sampled(ones, found.boxes()[:, k], "zeros"))


def test_gradient_of_reading_is_that_of_bilinear_sampling() -> None:
    found = rectangles(k=1)
    weight = torch.rand(3, 2, A, A, dtype=torch.float64, generator=rng(3))
    corner, sides = found.corner.requires_grad_(), found.sides.requires_grad_()
    ours = (Rectangles(corner, sides).sampling(A, H, W).read(canvases())[:, 0] * weight).sum()
    theirs = (sampled(canvases(), Rectangles(corner, sides).boxes()[:, 0], "border") * weight).sum()
    for one, other in zip(
        torch.autograd.grad(ours, (corner, sides)), torch.autograd.grad(theirs, (corner, sides)), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_coverage_is_the_share_of_each_pixel() -> None:
    found = rectangles()
    covered = found.coverage(H, W).pixels
    fine = 40  # brute force: look at 40 x 40 points in each pixel
    y, x = (torch.arange(n * fine, dtype=torch.float64).add(0.5).div(fine) for n in (H, W))
    for b in range(3):
        for k in range(4):
            x0, y0, x1, y1 = found.boxes()[b, k].tolist()
            hit = ((y >= y0) & (y < y1)).double()[:, None] * ((x >= x0) & (x < x1)).double()
            expected = hit.unflatten(0, (H, fine)).unflatten(2, (W, fine)).mean((1, 3))
            torch.testing.assert_close(covered[b, k], expected, atol=0.06, rtol=0)


def test_area_on_the_canvas_is_covered() -> None:
    found = Rectangles(torch.tensor([[[2.3, 4.1]]]).double(), torch.tensor([[[5.2, 0.4]]]).double())
    torch.testing.assert_close(found.coverage(H, W).pixels.sum((-2, -1)), found.area())
    torch.testing.assert_close(found.boxes(), torch.tensor([[[4.1, 2.3, 4.5, 7.5]]], dtype=torch.float64))


def test_scattered_weights_are_those_of_the_sampler() -> None:
    found = Rectangles(torch.tensor([[[2.3, 1.6]]]).double(), torch.tensor([[[4.2, 9.7]]]).double())
    images = canvases(1, 1).requires_grad_()
    (weights,) = torch.autograd.grad(sampled(images, found.boxes()[:, 0], "zeros").sum(), images)
    scattered = found.scattered(A, H, W)
    torch.testing.assert_close(scattered.rows[0, 0], (weights[0, 0].sum(1) / A).clamp(max=1))
    torch.testing.assert_close(scattered.columns[0, 0], (weights[0, 0].sum(0) / A).clamp(max=1))
    assert scattered.rows.max() == 1  # six samples on four rows overlap
    assert scattered.columns.max() < 1


def test_drawing_is_bilinear_sampling_of_the_patch() -> None:
    found = rectangles()
    patches = torch.rand(3, 4, 2, A, A, dtype=torch.float64, generator=rng(4))
    drawn = found.draw(patches, H, W)
    assert drawn.shape == (3, 4, 2, H, W)
    for b in range(3):
        for k in range(4):
            x0, y0, x1, y1 = found.boxes()[b, k].tolist()
            x = 2 * (torch.arange(W, dtype=torch.float64) + 0.5 - x0) / (x1 - x0) - 1
            y = 2 * (torch.arange(H, dtype=torch.float64) + 0.5 - y0) / (y1 - y0) - 1
            grid = torch.stack([x.expand(H, W), y[:, None].expand(H, W)], -1)[None]
            expected = grid_sample(patches[b, k, None], grid, padding_mode="border", align_corners=False)
            torch.testing.assert_close(drawn[b, k], expected[0])


def test_what_is_drawn_is_read_again() -> None:
    ramp = torch.linspace(0, 1, A, dtype=torch.float64)
    patch = (ramp[:, None] * 0.7 + ramp * 0.3)[None, None, None]
    found = Rectangles(torch.tensor([[[1.5, 2.5]]]).double(), torch.tensor([[[8.0, 10.0]]]).double())
    again = found.sampling(A, H, W).read(found.draw(patch, H, W)[:, 0])
    torch.testing.assert_close(again, patch[:, 0, None], atol=0.05, rtol=0)


@pytest.mark.parametrize("size", [1, 2])
def test_the_smallest_patches_can_be_read_and_drawn(size: int) -> None:
    found = rectangles()
    patches = found.sampling(size, H, W).read(canvases())
    assert patches.shape == (3, 4, 2, size, size)
    assert found.draw(patches, H, W).isfinite().all()
