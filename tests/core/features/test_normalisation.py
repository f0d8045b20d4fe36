"""Grey levels of one image are brought to those of others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_hrdv2.core.features import normalisation as module
from napari_hrdv2.core.features.levels import aligned_levels, image_levels
from napari_hrdv2.core.features.normalisation import Normalisation
from synthetic import two_phases


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


@pytest.mark.parametrize("scale", [1 / 255, 1 / 16, 1 / 4, 16, 257])
def test_grey_levels_on_another_scale_are_matched(known, scale):
    image, truth = two_phases(0.15, 1, gain=scale)
    mean, deviation = known.match(image).levels
    back = known.levels[0] + (image - mean) * (known.levels[1] / deviation)
    for label, grey in ((1, 90), (2, 170)):
        assert back[truth == label].mean() == pytest.approx(grey, abs=8)


@pytest.mark.parametrize(("gain", "offset"), [(1, 0), (0.8, -25), (1.2, 25)])
def test_an_image_of_one_class_is_not_stretched_to_two(known, gain, offset):
    image, _ = two_phases(0.0, 1, gain=gain, offset=offset)
    mean, deviation = known.match(image).levels
    back = known.levels[0] + (image - mean) * (known.levels[1] / deviation)
    assert back.mean() == pytest.approx(90, abs=8)


def test_a_class_that_next_to_nothing_is_of_leaves_a_match():
    image, truth = two_phases(0.3)
    plain = Normalisation.matched([image], [image_levels([image])], [truth])
    truth[:2, :40] = 3
    rare = Normalisation.matched([image], [image_levels([image])], [truth])
    rare = replace(rare, fractions=(0.7, 0.3, 0.0))
    seen, _ = two_phases(0.1, 1)
    assert rare.match(seen).levels == pytest.approx(plain.match(seen).levels, rel=0.05)


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
