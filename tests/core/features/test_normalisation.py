"""Grey levels of one image are brought to those of others."""

from __future__ import annotations

import numpy as np
import pytest

from napari_hrdv2 import compute_features, load_backbone
from napari_hrdv2.core.features import normalisation as module
from napari_hrdv2.core.features.normalisation import (
    Normalisation,
    aligned_levels,
    image_levels,
)


def two_phases(fraction, seed=0, shape=(67, 81), gain=1.0, offset=0.0):
    """Return an image whose left is dark and right is light, and its truth."""
    rng = np.random.default_rng(seed)
    truth = np.ones(shape, np.uint8)
    truth[:, round(shape[1] * (1 - fraction)) :] = 2
    grey = np.where(truth == 2, 170.0, 90.0) + rng.normal(0, 8, shape)
    return gain * grey + offset, truth


@pytest.fixture
def known():
    image, truth = two_phases(0.3)
    return Normalisation.matched([image], [image_levels([image])], [truth])


@pytest.mark.parametrize(
    ("fraction", "gain", "offset"),
    [(0.3, 1, 0), (0.05, 0.8, 20), (0.0, 1.2, -25), (0.7, 1.2, 25)],
)
def test_gain_and_offset_are_found_whatever_the_fractions(
    known, fraction, gain, offset
):
    image, _ = two_phases(fraction, 1, gain=gain, offset=offset)
    mean, deviation = known.match(image).levels
    back = known.levels[0] + (image - mean) * (known.levels[1] / deviation)
    expected = (image - offset) / gain
    assert np.abs(back - expected).mean() < 8  # the noise; phases are 80 apart


def test_scores_are_those_of_the_slow_obvious_way(known):
    image, _ = two_phases(0.1, 2, gain=0.9)
    values = module._smoothed(image)
    counts, edges = np.histogram(values, 512)
    centres, share = (edges[1:] + edges[:-1]) / 2, counts / counts.sum()
    fast = known._scores(share, centres, np.array([-1.0, 0.25]), 0.1, known.levels)
    for offset, score in zip((-1.0, 0.25), fast, strict=True):
        assert score == pytest.approx(slow_score(known, share, centres, offset, 0.1))


def slow_score(known, share, centres, offset, log_gain):
    mean, deviation = known.levels
    density = []
    for centre in centres:
        place = (centre - mean - offset * deviation) / (deviation * np.exp(log_gain))
        number = int(np.clip(np.floor((place + 6) * 20), 0, 239))
        density.append([table[number] + 1e-4 for table in known.densities])
    fractions = list(known.fractions)
    for _ in range(module.ROUNDS):
        found = [0.0, 0.0]
        for part, likely in zip(share, density, strict=True):
            total = sum(f * p for f, p in zip(fractions, likely, strict=True))
            for k in range(2):
                found[k] += part * fractions[k] * likely[k] / total
        pixels, prior = module.INDEPENDENT_PIXELS, module.KNOWN_FRACTIONS
        fractions = [
            (pixels * f + prior * q) / (pixels + prior)
            for f, q in zip(found, known.fractions, strict=True)
        ]
    likelihood = sum(
        part * np.log(sum(f * p for f, p in zip(fractions, likely, strict=True)))
        for part, likely in zip(share, density, strict=True)
    )
    return (
        module.INDEPENDENT_PIXELS * (likelihood - log_gain)
        + module.KNOWN_FRACTIONS * np.dot(known.fractions, np.log(fractions))
        - (log_gain / module.GAIN) ** 2 / 2
        - (offset / module.OFFSET) ** 2 / 2
    )


def test_an_image_of_another_depth_is_matched_too(known):
    image, _ = two_phases(0.3, gain=2, offset=1000)
    mean, deviation = known.match(image).levels
    assert (mean - 1000) / 2 == pytest.approx(known.levels[0], abs=4)
    assert deviation / 2 == pytest.approx(known.levels[1], rel=0.1)


def test_a_constant_image_and_one_of_no_numbers_get_the_known_levels(known):
    assert known.match(np.full((9, 7), 3.0)).levels == known.levels
    assert known.match(np.full((9, 7), np.nan)).levels == known.levels


def test_what_is_excluded_or_no_number_does_not_count(known):
    image, _ = two_phases(0.3, 1)
    kept = known.match(image).levels
    framed = np.pad(image, ((0, 40), (0, 0)), constant_values=1000.0)
    mask = np.zeros(framed.shape, bool)
    mask[-50:] = True
    assert known.match(framed, mask).levels == pytest.approx(kept, rel=0.05)
    framed[-40:] = np.nan
    assert known.match(framed).levels == pytest.approx(kept, rel=0.05)


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


def test_what_a_new_image_is_matched_to_has_light_and_dark_as_in_most():
    first, truth = two_phases(0.3)
    negative, _ = two_phases(0.3, 1, gain=-1, offset=300)
    third, _ = two_phases(0.2, 2)
    images = [negative, first, third]
    levels = aligned_levels(images, [truth] * 3)
    known = Normalisation.matched(images, levels, [truth] * 3)
    alone = Normalisation.matched([first], [image_levels([first])], [truth])
    assert known.levels == pytest.approx(alone.levels, rel=0.1)


@pytest.mark.parametrize(("gain", "offset"), [(-1, 255), (-0.8, 300), (-2, 5000)])
def test_a_negative_is_matched_with_light_and_dark_exchanged(known, gain, offset):
    image, truth = two_phases(0.15, 1, gain=gain, offset=offset)
    straight, inverted = known.match(image), known.match(image, inverted=True)
    mean, deviation = inverted.levels
    assert deviation < 0 < straight.levels[1]
    assert inverted.likelihood > straight.likelihood
    back = known.levels[0] + (image - mean) * (known.levels[1] / deviation)
    for label, grey in ((1, 90), (2, 170)):
        assert back[truth == label].mean() == pytest.approx(grey, abs=8)


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
