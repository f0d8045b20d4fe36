"""Every kind of micrograph becomes (C, H, W) in 0..1, and the rest is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from napari_hrdv2.core.checks import grey_if_equal, prepare_image

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)


@pytest.mark.parametrize(
    ("image", "axis", "shape"),
    [
        (GREY, None, (1, 3, 4)),
        (np.dstack([GREY] * 3), None, (3, 3, 4)),
        (np.dstack([GREY] * 4), None, (3, 3, 4)),
        (np.stack([GREY] * 5), 0, (5, 3, 4)),
        (GREY[..., None], -1, (1, 3, 4)),
    ],
)
def test_channels_come_first(image, axis, shape):
    prepared = prepare_image(image, channel_axis=axis)
    assert prepared.pixels.shape == shape
    assert prepared.pixels.dtype == np.float32
    np.testing.assert_allclose(prepared.pixels[0], GREY / 255, atol=1e-7)


@pytest.mark.parametrize("image", [GREY > 4, GREY / 20.0, GREY.astype(np.float16) / 16])
def test_values_in_0_to_1_stay_as_they_are(image):
    prepared = prepare_image(image)
    np.testing.assert_allclose(prepared.pixels[0], image, atol=1e-7)
    assert prepared.value_range == (0, 1)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float64])
def test_a_range_of_its_own_is_said(dtype):
    with pytest.warns(UserWarning, match=r"own range 0\.\.1100"):
        prepared = prepare_image(GREY.astype(dtype) * dtype(100))
    np.testing.assert_allclose(prepared.pixels[0], GREY / 11, atol=1e-6)
    assert prepared.value_range == (0, 1100)


def test_a_given_range_is_mapped_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepared = prepare_image(GREY.astype(np.uint16), value_range=(-1, 11))
    np.testing.assert_allclose(prepared.pixels[0], (GREY + 1.0) / 12, atol=1e-6)


def test_much_clipping_is_said():
    with pytest.warns(UserWarning, match=r"58% of the grey levels lie outside"):
        prepared = prepare_image(GREY, value_range=(2, 6))
    expected = np.clip((GREY - 2.0) / 4, 0, 1)
    np.testing.assert_allclose(prepared.pixels[0], expected, atol=1e-6)


def test_a_range_far_from_the_image_is_refused():
    with pytest.raises(ValueError, match="value_range: no grey level of the image"):
        prepare_image(GREY.astype(np.uint16) + 4000, value_range=(0, 255))


@pytest.mark.parametrize("offset", [0, 2**31])
def test_contrast_on_top_of_a_large_number_is_kept(offset):
    levels = np.arange(2000, dtype=np.int64).reshape(40, 50) + offset
    prepared = prepare_image(levels, value_range=(offset, offset + 1999))
    assert len(np.unique(prepared.pixels)) == 2000
    fractions = prepare_image(1e9 + np.linspace(0, 1, 50).reshape(5, 10),
                              value_range=(1e9, 1e9 + 1))  # fmt: skip
    assert len(np.unique(fractions.pixels)) == 50


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros(5), r"image: shape \(5,\) is not one micrograph"),
        (np.zeros((1, 1, 1, 4, 4)), "image: shape .* is not one micrograph"),
        (np.zeros((7, 5, 5)), "image: shape .* with channel_axis"),
        (np.zeros((0, 4)), "holds no pixels"),
        (np.full((3, 4), 7), "image: every pixel has the value 7"),
        (np.where(GREY == 3, np.nan, GREY), "image: 1 of 12 values are NaN"),
        (np.where(GREY > 9, np.inf, GREY), "image: 2 of 12 values are NaN or infinite"),
    ],
)
def test_what_is_no_micrograph_is_refused_in_one_sentence(image, message):
    with pytest.raises(ValueError, match=message):
        prepare_image(image)


def test_what_are_no_numbers_is_refused():
    with pytest.raises(TypeError, match="image: dtype complex128"):
        prepare_image(np.ones((3, 4), complex))


@pytest.mark.parametrize("value_range", [(1, 1), (3, 2), (0, np.nan), (3,), "ab"])
def test_a_range_that_is_none_is_refused(value_range):
    with pytest.raises(ValueError, match="value_range: .* is not a range"):
        prepare_image(GREY, value_range=value_range)


def test_a_channel_axis_must_exist():
    with pytest.raises(ValueError, match="channel_axis: 3 does not fit"):
        prepare_image(np.stack([GREY] * 3), channel_axis=3)


@pytest.mark.parametrize("fill", [np.finfo("f4").min, np.finfo("f4").max, -1e36])
@pytest.mark.parametrize("warn", [True, False])
def test_fill_values_leave_the_grey_levels_their_range(fill, warn):
    levels = np.random.default_rng(0).uniform(1000, 1200, (40, 50)).astype(np.float32)
    filled = levels.copy()
    filled[:8] = fill
    with pytest.warns(UserWarning, match=r"20.0% of the values are beyond ±1e\+30"):
        found = prepare_image(filled, warn=warn)
    assert found.value_range == (levels[8:].min(), levels[8:].max())
    wanted = prepare_image(levels, value_range=found.value_range).pixels
    assert np.allclose(found.pixels[:, 8:], wanted[:, 8:], atol=1e-6)
    assert (found.pixels[:, :8] == (fill > 0)).all()


def test_an_image_of_fill_values_and_one_level_is_refused():
    image = np.full((8, 9), 7.0)
    image[2:] = 1e38
    with pytest.raises(ValueError, match="75.0% of the values are beyond"):
        prepare_image(image)


def test_hot_pixels_that_stretch_the_range_are_told_with_their_share():
    image = np.random.default_rng(0).integers(1000, 1200, (80, 90), dtype=np.uint16)
    assert prepare_image(image, warn=False).value_range == (1000, 1199)
    image[3, :20] = 65535
    with pytest.warns(UserWarning, match=r"of the grey levels stretch the range"):
        found = prepare_image(image, warn=False)
    assert found.value_range == (1000, 65535)


def test_grey_levels_in_three_bands_have_no_colours_missing_ones_included():
    grey = np.random.default_rng(0).random((70, 9)).astype(np.float32)
    grey[3, 4] = grey[66, 2] = np.nan
    image = np.dstack([grey] * 3)
    np.testing.assert_array_equal(grey_if_equal(image), grey)
    image[68, 1, 2] = np.nan  # in one band alone
    assert grey_if_equal(image).shape == image.shape
