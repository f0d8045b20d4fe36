"""Taps equal torch's interpolation where that is defined, and true centres else."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import interpolate

from napari_hrdv2.core.features.upsampling.separable import KERNELS, Axis, padded_length

MODES = {"nearest": "nearest-exact", "bilinear": "linear", "bicubic": "bicubic"}


@pytest.mark.parametrize("interpolation", KERNELS)
def test_whole_patches_are_upsampled_as_torch_does(interpolation):
    axis = Axis(35, 5, 7, 7, interpolation)
    values = torch.rand(5)
    pixels = axis.matrix(torch.arange(35)) @ values
    if interpolation == "bicubic":
        grid = values[None, None, None].expand(1, 1, 5, 5)
        expected = interpolate(grid, size=(5, 35), mode="bicubic")[0, 0, 0]
    else:
        expected = interpolate(values[None, None], size=35, mode=MODES[interpolation])
    assert torch.allclose(pixels, expected.flatten(), atol=1e-6)


@pytest.mark.parametrize(("patch_size", "stride"), [(14, 4), (14, 7), (9, 5), (1, 1)])
def test_a_ramp_of_token_centres_is_reproduced_between_them(patch_size, stride):
    axis = Axis(patch_size + 6 * stride, 7, patch_size, stride)
    centres = stride * torch.arange(7.0) + (patch_size - 1) / 2
    pixels = torch.arange(int(centres[0] + 0.5), int(centres[-1]) + 1)
    assert torch.allclose(axis.matrix(pixels) @ centres, pixels.float(), atol=1e-4)


@pytest.mark.parametrize("shift", [-9, -1, 0, 3, 40])
def test_a_periodic_shift_rolls_the_positions(shift):
    axis = Axis(26, 3, 14, 6)
    straight = axis.matrix(torch.arange(26))
    expected = torch.roll(straight, -shift, 0)
    assert torch.equal(axis.matrix(torch.arange(26), shift), expected)


def test_a_reflected_shift_stops_at_the_last_pixel():
    axis = Axis(28, 2, 14, 14, boundary="reflect")
    moved = axis.matrix(torch.arange(28), 5)
    assert torch.equal(moved[-5:], axis.matrix(torch.full((5,), 27)))


def test_a_band_holds_the_same_numbers_as_the_matrix():
    axis = Axis(50, 4, 14, 12, "bicubic")
    index, matrix = axis.band(torch.arange(11, 30), 3)
    dense = axis.matrix(torch.arange(11, 30), 3)
    assert torch.equal(dense[:, index], matrix)
    assert matrix.sum() == pytest.approx(19, abs=1e-4)


@pytest.mark.parametrize(
    ("length", "patch_size", "stride", "expected"),
    [
        (28, 14, 14, 28),
        (29, 14, 14, 42),
        (29, 14, 4, 30),
        (14, 14, 5, 14),
        (7, 1, 1, 7),
    ],
)
def test_padding_covers_the_image_with_whole_patches(
    length, patch_size, stride, expected
):
    assert padded_length(length, patch_size, stride) == expected
