from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from reference_models.parts.objects.windows import Windows, interpolation


@pytest.fixture
def windows() -> Windows:
    """Some inside, some across the border, smaller and larger than the samples taken."""
    rng = torch.Generator().manual_seed(0)
    x, y, side = (torch.rand(7, generator=rng, dtype=torch.float64) for _ in range(3))
    return Windows(x=x * 24, y=y * 18, side=2 + 20 * side)


def transformer(windows: Windows, height: int, width: int) -> Tensor:
    """Jaderberg's matrix from window to image coordinates, both in [-1, 1]: [7, 2, 3]."""
    zero = torch.zeros_like(windows.x)
    return torch.stack(
        [
            torch.stack([windows.side / width, zero, 2 * windows.x / width - 1], dim=-1),
            torch.stack([zero, windows.side / height, 2 * windows.y / height - 1], dim=-1),
        ],
        dim=1,
    )


def test_crop_is_the_spatial_transformer(windows: Windows) -> None:
    images = torch.rand(7, 3, 18, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    grid = affine_grid(transformer(windows, 18, 24), [7, 3, 9, 9], align_corners=False)
    torch.testing.assert_close(windows.crop(images, 9), grid_sample(images, grid, align_corners=False))


def test_paste_is_the_inverse_spatial_transformer(windows: Windows) -> None:
    glimpses = torch.rand(7, 3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    square = torch.eye(3, dtype=torch.float64).repeat(7, 1, 1)
    square[:, :2] = transformer(windows, 18, 24)
    grid = affine_grid(square.inverse()[:, :2], [7, 3, 18, 24], align_corners=False)
    torch.testing.assert_close(
        windows.paste(glimpses, 18, 24), grid_sample(glimpses, grid, align_corners=False)
    )


def test_crop_of_paste_gives_the_glimpse_back() -> None:
    aligned = Windows(*(torch.tensor([value], dtype=torch.float64) for value in (11.0, 9.0, 8.0)))
    glimpse = torch.rand(1, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(aligned.crop(aligned.paste(glimpse, 20, 20), 8), glimpse)


def test_crop_of_paste_nearly_gives_a_smooth_glimpse_back_wherever_the_window_is() -> None:
    window = Windows(*(torch.tensor([value], dtype=torch.float64) for value in (30.3, 24.8, 33.7)))
    ramp = torch.linspace(0, torch.pi, 28, dtype=torch.float64).sin() ** 2  # flat at both ends
    glimpse = (ramp[:, None] * ramp)[None, None]
    torch.testing.assert_close(window.crop(window.paste(glimpse, 60, 60), 28), glimpse, atol=0.02, rtol=0)


def test_nothing_is_pasted_outside_the_box(windows: Windows) -> None:
    canvas = windows.paste(torch.ones(7, 1, 9, 9, dtype=torch.float64), 18, 24)
    centres = torch.arange(24, dtype=torch.float64) + 0.5
    margin = windows.side / 9  # bilinear weights reach at most one sample beyond
    for image, x, reach in zip(canvas, windows.x, windows.side / 2 + margin, strict=True):
        assert (image[:, :, (centres - x).abs() > reach] == 0).all()


def test_boxes_round_trip(windows: Windows) -> None:
    back = Windows.from_boxes(windows.boxes())
    for name in ("x", "y", "side"):
        torch.testing.assert_close(getattr(back, name), getattr(windows, name))


def test_where_a_window_lies_has_a_correct_gradient(windows: Windows) -> None:
    images = torch.rand(7, 1, 18, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    where = [value.clone().requires_grad_() for value in (windows.x, windows.y, windows.side)]
    assert torch.autograd.gradcheck(lambda x, y, s: Windows(x, y, s).crop(images, 5), where)
    glimpses = images[..., :5, :5]
    assert torch.autograd.gradcheck(lambda x, y, s: Windows(x, y, s).paste(glimpses, 6, 8), where)


def test_interpolation_is_linear_between_samples() -> None:
    samples = torch.tensor([3.0, 5.0, 4.0], dtype=torch.float64)
    positions = torch.tensor([0.0, 0.25, 1.5, 2.0, 2.5, -2.0], dtype=torch.float64)
    expected = torch.tensor([3.0, 3.5, 4.5, 4.0, 2.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(interpolation(positions, 3) @ samples, expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_interpolation_is_mapped_over_any_axis(axis: int) -> None:
    rng = torch.Generator().manual_seed(0)
    positions = torch.rand(3, 4, 5, dtype=torch.float64, generator=rng).mul(10).sub(2).requires_grad_()
    weight = torch.rand(3, 4, 5, 6, dtype=torch.float64, generator=rng)
    plain = interpolation(positions, 6)
    mapped = torch.func.vmap(lambda p: interpolation(p, 6), in_dims=axis, out_dims=axis)(positions)
    assert torch.equal(mapped, plain)
    gradients = [torch.autograd.grad((result * weight).sum(), positions)[0] for result in (plain, mapped)]
    assert torch.equal(*gradients)
