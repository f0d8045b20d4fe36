from __future__ import annotations

import numpy as np
import pytest

from micrographs import compose, random_micrograph


def test_the_seed_and_the_size_decide_everything() -> None:
    first, again = random_micrograph(3, 64), random_micrograph(3, (64, 64))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.labels, again.labels)
    other = random_micrograph(4, 64, color=first.image.ndim == 3)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("seed", range(40))
def test_each_class_has_its_share_of_an_eight_bit_picture(seed: int) -> None:
    made = random_micrograph(seed, (96, 112))
    assert made.image.dtype == made.labels.dtype == np.uint8
    assert made.image.shape[:2] == made.labels.shape == (96, 112)
    assert made.image.shape[2:] in [(), (3,)]
    share = np.bincount(made.labels.ravel()) / made.labels.size
    assert share[0] == 0
    assert 2 <= len(share) - 1 <= 5
    assert share[1:].min() >= 0.005
    assert np.ptp(made.image) > 20


def test_color_is_as_asked_or_one_in_four() -> None:
    assert random_micrograph(1, 48, color=True).image.shape == (48, 48, 3)
    assert random_micrograph(1, 48, color=False).image.shape == (48, 48)
    colored = [random_micrograph(seed, 48).image.ndim == 3 for seed in range(120)]
    assert 0.12 < np.mean(colored) < 0.38


def test_two_and_three_classes_are_the_rule() -> None:
    counts = np.array([random_micrograph(seed, 48).labels.max() for seed in range(120)])
    assert 0.3 < (counts == 2).mean() < 0.6
    assert 0.2 < (counts == 3).mean() < 0.5
    assert (counts > 3).any()


@pytest.mark.parametrize("name", compose.LAYOUTS)
def test_every_layout_makes_the_classes_it_promises(name: str) -> None:
    make, _, classes, _ = compose.LAYOUTS[name]
    for k in classes:
        rng = np.random.default_rng(k)
        made = [make(rng, (131, 97), 20.0, k) for _ in range(6)]
        assert all(layout.labels.shape == (131, 97) for layout in made)
        assert all(layout.labels.dtype == np.uint8 for layout in made)
        assert all(layout.objects.max() < layout.count for layout in made)
        assert {int(layout.labels.max()) for layout in made} >= {k - 1}


def test_too_small_a_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="less than 48 pixels"):
        random_micrograph(0, (47, 90))
