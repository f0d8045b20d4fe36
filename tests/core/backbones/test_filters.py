"""The filter bank against slow obvious versions and known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from napari_hrdv2.core.backbones.filters import (
    FilterBank,
    filter_names,
    filter_planes,
)
from napari_hrdv2.core.features.compute import compute_features

Planes = dict[str, NDArray[np.float32]]


def noise(height: int = 33, width: int = 47, channels: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(channels, height, width, generator=generator)


def filter_bank(image: torch.Tensor) -> torch.Tensor:
    return filter_planes(image[None], torch.float32)[0]


def planes_of(image: torch.Tensor) -> Planes:
    planes = filter_bank(image).numpy()
    return dict(zip(filter_names(image.shape[0]), planes, strict=True))


def smoothed(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    return ndimage.gaussian_filter(image, sigma, mode="reflect")


def derivative(image: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    return ndimage.correlate1d(image, [-0.5, 0, 0.5], axis=axis, mode="reflect")


@pytest.mark.parametrize("sigma", [1, 2, 4, 8])
def test_gaussians_and_their_differences_equal_scipy(sigma: int) -> None:
    image = noise()
    planes, grey = planes_of(image), image[0].numpy()
    expected = smoothed(grey, sigma)
    np.testing.assert_allclose(planes[f"gaussian {sigma}"], expected, atol=1e-5)
    expected = expected - smoothed(grey, 2 * sigma)
    found = planes[f"difference {sigma} {2 * sigma}"]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_wide_gaussians_stray_little_from_scipy() -> None:
    image = noise(137, 253)
    found = planes_of(image)["gaussian 16"]
    np.testing.assert_allclose(found, smoothed(image[0].numpy(), 16), atol=5e-4)


@pytest.mark.parametrize("sigma", [1, 4])
def test_derivatives_equal_numpy_eigenvalues(sigma: int) -> None:
    image = noise()
    planes, smooth = planes_of(image), smoothed(image[0].numpy(), sigma)
    rows, columns = derivative(smooth, 0), derivative(smooth, 1)
    gradient = sigma * np.hypot(rows, columns)
    np.testing.assert_allclose(planes[f"gradient {sigma}"], gradient, atol=1e-5)
    second = [
        ndimage.correlate1d(smooth, [1, -2, 1], axis=axis, mode="reflect")
        for axis in (0, 1)
    ]
    mixed = derivative(rows, 1)
    matrices = np.array([[second[0], mixed], [mixed, second[1]]]).transpose(2, 3, 0, 1)
    small, large = np.moveaxis(np.linalg.eigvalsh(matrices), -1, 0) * sigma**2
    np.testing.assert_allclose(planes[f"hessian large {sigma}"], large, atol=1e-5)
    np.testing.assert_allclose(planes[f"hessian small {sigma}"], small, atol=1e-5)


@pytest.mark.parametrize("sigma", [1, 4])
def test_structure_tensor_equals_numpy_eigenvalues(sigma: int) -> None:
    image = noise()
    planes, smooth = planes_of(image), smoothed(image[0].numpy(), sigma)
    slopes = [derivative(smooth, axis) for axis in (0, 1)]
    tensor = np.array([[smoothed(a * b, sigma) for a in slopes] for b in slopes])
    values = np.linalg.eigvalsh(tensor.transpose(2, 3, 0, 1)).clip(0)
    small, large = np.moveaxis(sigma * np.sqrt(values), -1, 0)
    np.testing.assert_allclose(planes[f"structure large {sigma}"], large, atol=1e-4)
    np.testing.assert_allclose(planes[f"structure small {sigma}"], small, atol=1e-4)


@pytest.mark.parametrize("radius", [2, 8, 32])
def test_morphology_equals_scipy(radius: int) -> None:
    image = noise()
    planes, smooth = planes_of(image), smoothed(image[0].numpy(), 1)
    size = 2 * radius + 1
    high = ndimage.maximum_filter(smooth, size, mode="reflect")
    low = ndimage.minimum_filter(smooth, size, mode="reflect")
    opened = ndimage.maximum_filter(low, size, mode="reflect")
    closed = ndimage.minimum_filter(high, size, mode="reflect")
    floor = 4 / 255
    expected = {
        "rank": (smooth - low) / (high - low + floor),
        "white top-hat": np.sqrt(smooth - opened),
        "black top-hat": np.sqrt(closed - smooth),
        "toggle": (2 * smooth - opened - closed) / (closed - opened + floor),
    }
    for name, plane in expected.items():
        np.testing.assert_allclose(planes[f"{name} {radius}"], plane, atol=1e-3)


def test_contrast_skewness_and_levels_equal_their_formulas() -> None:
    image = noise(65, 97)
    planes, grey = planes_of(image), image[0].numpy()
    mean = smoothed(grey, 16)
    spread = np.sqrt(smoothed(grey**2, 16) - mean**2)
    contrast = np.tanh((smoothed(grey, 4) - mean) / (spread + 2 / 255))
    np.testing.assert_allclose(planes["contrast 4 16"], contrast, atol=1e-2)
    skewness = np.cbrt(smoothed((grey - smoothed(grey, 2)) ** 3, 2))
    np.testing.assert_allclose(planes["skewness 2"], skewness, atol=1e-3)
    member = np.exp(-0.5 * ((smoothed(grey, 1) - 0.5) * 8) ** 2)
    np.testing.assert_allclose(planes["level 0.5"], member, atol=1e-5)
    found = planes["level 0.5 gaussian 8"]
    np.testing.assert_allclose(found, smoothed(member, 8), atol=1e-5)


def test_a_step_edge_has_its_gradient_at_the_edge_and_none_along_it() -> None:
    image = torch.zeros(1, 31, 32)
    image[:, :, 16:] = 1
    planes = planes_of(image)
    gradient = planes["gradient 2"][15]
    assert set(np.argsort(gradient)[-2:]) == {15, 16}
    assert gradient[15] == pytest.approx(1 / np.sqrt(2 * np.pi), rel=0.08)
    assert np.abs(planes["structure small 2"]).max() < 1e-3


def test_a_bright_line_has_one_strongly_negative_curvature() -> None:
    image = torch.zeros(1, 31, 31)
    image[:, 15] = 1
    planes = planes_of(image)
    assert planes["hessian small 1"][15, 15] < -0.2
    assert abs(planes["hessian large 1"][15, 15]) < 1e-5
    assert planes["white top-hat 2"][15, 15] > 0.5
    assert planes["black top-hat 2"][15, 15] == 0


def test_a_dark_blob_has_two_equal_positive_curvatures() -> None:
    rows, columns = np.mgrid[-15:16, -15:16]
    blob = 1 - np.exp(-(rows**2 + columns**2) / 32).astype(np.float32)
    planes = planes_of(torch.from_numpy(blob)[None])
    large, small = (planes[f"hessian {name} 4"][15, 15] for name in ("large", "small"))
    assert small > 0.2
    assert large == pytest.approx(small, abs=1e-4)
    assert planes["rank 8"][15, 15] == 0


@pytest.mark.parametrize(("patch_size", "stride"), [(2, 2), (2, 1), (3, 2), (1, 2)])
def test_planes_of_patches_are_means_of_the_channels(
    patch_size: int, stride: int
) -> None:
    image = noise()[None]
    whole = filter_planes(image, torch.float32)
    found = filter_planes(image, torch.float32, patch_size=patch_size, stride=stride)
    expected = torch.nn.functional.avg_pool2d(whole, patch_size, stride)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_names_are_unique_and_as_many_as_channels() -> None:
    for image_channels in (1, 3):
        names = filter_names(image_channels)
        shape = filter_bank(noise(5, 7, image_channels)).shape
        assert len(set(names)) == len(names) == shape[0]
        assert FilterBank().channels_for(image_channels) == len(names)
        assert shape[1:] == (5, 7)


def test_features_have_the_filters_and_their_surroundings() -> None:
    image = noise(20, 33)
    features = compute_features(image[0].numpy(), FilterBank(), value_range=(0.0, 1.0))
    names = filter_names(1)
    dense = features.materialize()
    np.testing.assert_allclose(dense[: len(names)], filter_bank(image), atol=2e-3)
    assert dense.shape == (2 * len(names), 20, 33)
    assert dense[len(names) :].std((1, 2)).max() < dense[: len(names)].std((1, 2)).max()
    assert features.channel_weights.tolist() == [1] * len(names) + [0.25] * len(names)


def test_colour_adds_the_smoothed_channels_to_the_bank_of_the_luminance() -> None:
    image = noise(9, 11, 3)
    planes = planes_of(image)
    assert set(filter_names(1)) < set(planes)
    red, green, blue = image.numpy()
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    np.testing.assert_allclose(planes["intensity"], luminance, atol=1e-6)
    found = planes["blue gaussian 2"]
    np.testing.assert_allclose(found, smoothed(blue, 2), atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (2, 1)])
@pytest.mark.parametrize("image_channels", [1, 3])
def test_any_size_gives_finite_channels(
    shape: tuple[int, int], image_channels: int
) -> None:
    assert filter_bank(noise(*shape, image_channels)).isfinite().all()


@pytest.mark.parametrize("grey", [0.0, 0.3, 1.0])
def test_a_constant_image_gives_finite_channels(grey: float) -> None:
    images = torch.full((1, 1, 21, 20), grey)
    assert FilterBank().tokens(images, stride=1).isfinite().all()
    assert planes_of(images[0])["gradient 4"].max() < 1e-5


@pytest.mark.parametrize("axes", [(-1,), (-2,), (-2, -1)])
def test_flipping_the_image_flips_the_channels(axes: tuple[int, ...]) -> None:
    image = noise(40, 51)
    flipped = filter_bank(image.flip(axes)).flip(axes)
    torch.testing.assert_close(flipped, filter_bank(image), atol=1e-3, rtol=0)


def test_tokens_are_half_precision_channels_at_every_stride() -> None:
    images = noise(9, 13)[None].repeat(2, 1, 1, 1)
    tokens = FilterBank().tokens(images, stride=4)
    assert tokens.shape == (2, 3, 4, len(filter_names(1)))
    assert tokens.dtype == torch.float16
    expected = filter_bank(images[0]).permute(1, 2, 0)[::4, ::4]
    torch.testing.assert_close(tokens[1].float(), expected, atol=1e-3, rtol=1e-3)
    assert FilterBank(dtype=torch.float32).tokens(images, stride=4).dtype == (
        torch.float32
    )


@pytest.mark.parametrize("image_channels", [1, 3])
def test_tick_is_called_as_often_as_promised(image_channels: int) -> None:
    calls: list[None] = []
    bank = FilterBank()
    images = noise(5, 6, image_channels)[None]
    bank.tokens(images, stride=1, tick=lambda: calls.append(None))
    assert len(calls) == bank.steps


def test_a_tick_that_raises_stops_the_work() -> None:
    calls: list[None] = []

    def tick() -> None:
        calls.append(None)
        if len(calls) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        FilterBank().tokens(noise()[None], stride=1, tick=tick)
    assert len(calls) == 3


def test_other_channel_counts_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"1 \(grey\) or 3 \(RGB\) channels, not 2"):
        filter_bank(noise(4, 4, 2))
    with pytest.raises(ValueError, match="not 4"):
        FilterBank().channels_for(4)


def test_stripes_have_no_second_direction_at_any_scale():
    stripes = torch.sin(torch.arange(61) * 0.7).expand(1, 53, 61) * 0.5 + 0.5
    planes = dict(zip(filter_names(1), filter_bank(stripes), strict=True))
    for sigma in ("1", "2", "4", "8", "16"):
        assert planes[f"structure large {sigma}"].max() > 0.01
        assert not planes[f"structure small {sigma}"].any()
