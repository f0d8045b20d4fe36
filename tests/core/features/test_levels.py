"""Grey levels of images, and those that make the classes of labelled ones alike."""

from __future__ import annotations

import numpy as np
import pytest

from napari_hrdv2 import compute_features, load_backbone
from napari_hrdv2.core.features import levels as module
from napari_hrdv2.core.features.levels import aligned_levels, image_levels
from synthetic import two_phases


def test_classes_are_aligned_by_least_squares():
    first, truth = two_phases(0.3)
    second, _ = two_phases(0.3, 1, gain=0.8, offset=40)
    (mean, deviation), (other, narrower) = aligned_levels([first, second], [truth] * 2)
    assert narrower / deviation == pytest.approx(0.8, rel=0.02)
    for label in (1, 2):
        ours = (first[truth == label].mean() - mean) / deviation
        theirs = (second[truth == label].mean() - other) / narrower
        assert ours == pytest.approx(theirs, abs=0.05)


def three_phases(order, seed=0):
    """Return an image of three phases of these grey levels, and its truth."""
    truth = np.repeat(np.array([1, 2, 3], np.uint8), 20)[None].repeat(50, 0)
    noise = np.random.default_rng(seed).normal(0, 3, truth.shape)
    return np.take([0, *order], truth) + noise, truth


def test_of_labelled_images_light_and_dark_are_as_in_most():
    first, truth = three_phases((40, 90, 160))
    negative, _ = three_phases((215, 165, 95), 1)
    third, _ = three_phases((50, 100, 170), 2)
    for images in ([first, negative, third], [negative, first, third]):
        levels = aligned_levels(images, [truth] * 3)
        assert [deviation < 0 for _, deviation in levels] == [
            image is negative for image in images
        ]
        seen = [
            [(image[truth == i].mean() - mean) / deviation for i in (1, 2, 3)]
            for image, (mean, deviation) in zip(images, levels, strict=True)
        ]
        for each in seen[1:]:
            assert each == pytest.approx(seen[0], abs=0.1)


@pytest.mark.parametrize(
    "signs", [(1, -1, 1), (-1, 1, 1), (1, 1, -1), (1, -1), (-1, 1, 1, -1, 1)]
)
@pytest.mark.parametrize("lacks", [None, 0, 1])
def test_signs_are_those_of_most_images_whatever_the_order(signs, lacks):
    rng = np.random.default_rng(len(signs))
    greys = np.array([-1.0, 0.2, 0.9]) + rng.normal(0, 0.1, (len(signs), 3))
    rows = np.array(signs)[:, None] * greys
    if lacks is not None:
        rows[lacks, 0] = np.nan  # a class that an image has none of
    wanted = np.array(signs) if sum(signs) > 0 else signs[0] * np.array(signs)
    assert module._signs(rows).tolist() == wanted.tolist()


def test_an_image_that_shares_classes_with_later_ones_alone_is_found():
    nan = np.nan
    rows = np.array([[-1, 1, nan, nan], [nan, nan, 1, -1], [-1, 1, -1, 1.0]])
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        found = module._signs(rows[order])
        assert dict(zip(order, found.tolist(), strict=True)) == {0: 1, 1: -1, 2: 1}


def test_classes_that_hardly_differ_in_grey_level_exchange_nothing():
    rng = np.random.default_rng(0)
    truth = np.repeat(np.array([1, 2], np.uint8), 40)[None].repeat(50, 0)
    images = [
        rng.normal(100 + lighter * (truth == 2), 20) for lighter in (4.0, -4.0, 4.0)
    ]
    assert all(deviation > 0 for _, deviation in aligned_levels(images, [truth] * 3))


def test_images_of_unlike_classes_keep_their_own_levels():
    image, truth = two_phases(0.3)
    labels = [np.where(truth == 1, 1, 0), np.where(truth == 2, 2, 0)]
    assert aligned_levels([image, 2 * image], labels) == [
        pytest.approx(image_levels([each])) for each in (image, 2 * image)
    ]


def test_colours_count_as_one_and_alpha_as_none():
    image = np.zeros((4, 5, 4))
    image[..., 0], image[..., 3] = 3, 255
    assert image_levels([image]) == pytest.approx((1.0, 2**0.5))


def test_levels_make_features_blind_to_exposure_alone():
    backbone = load_backbone("embedded")
    image, _ = two_phases(0.3, shape=(37, 45))
    mean, deviation = 120.0, 30.0
    one = compute_features(
        image, backbone, levels=(mean, deviation), value_range=(0, 255)
    )
    other = compute_features(
        image / 2 + 9,
        backbone,
        levels=(mean / 2 + 9, deviation / 2),
        value_range=(0, 255),
    )
    own = compute_features(image, backbone, value_range=(0, 255))
    close = {"rtol": 0.05, "atol": 0.05}
    np.testing.assert_allclose(one.materialize(), other.materialize(), **close)
    assert np.abs(one.materialize() - own.materialize()).max() > 0.5
    assert one.part_options[0].levels == (mean, deviation)
    assert own.part_options[0].levels is None


def test_a_deviation_below_0_gives_the_features_of_the_negative():
    backbone = load_backbone("embedded")
    image, _ = two_phases(0.3, shape=(37, 45))
    about = {"value_range": (-255, 255)}
    one = compute_features(image, backbone, levels=(120.0, -30.0), **about)
    other = compute_features(-image, backbone, levels=(-120.0, 30.0), **about)
    close = {"rtol": 0.02, "atol": 0.02}
    np.testing.assert_allclose(one.materialize(), other.materialize(), **close)
    assert one.part_options[0].levels == (120.0, -30.0)


@pytest.mark.parametrize("levels", [(1.0, 0.0), (1.0,), "ab", (np.nan, 1.0)])
def test_levels_that_are_none_are_refused_in_a_sentence(levels):
    with pytest.raises(ValueError, match="no mean and deviation"):
        compute_features(np.eye(40), load_backbone("embedded"), levels=levels)
