from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import ndimage

from micrographs import compose, framed, objects, random_micrograph, random_series
from micrographs.paint import Look, paint
from micrographs.streams import SeriesRng, settle


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


def test_a_series_is_decided_by_seed_and_size_whatever_its_length() -> None:
    first, again = random_series(3, 2, 64), random_series(3, 4, (64, 64))
    for one, same in zip(first, again, strict=False):
        assert np.array_equal(one.image, same.image)
        assert np.array_equal(one.labels, same.labels)
    assert not np.array_equal(again[0].labels, again[1].labels)


@pytest.mark.parametrize("seed", range(20))
def test_pictures_of_a_series_are_of_one_kind(seed: int) -> None:
    made = random_series(seed, 4, (80, 96))
    assert {each.layout for each in made} == {made[0].layout}
    assert {each.image.shape for each in made} == {made[0].image.shape}
    assert all(each.image.shape[:2] == each.labels.shape == (80, 96) for each in made)
    k = int(made[0].labels.max())
    share = np.bincount(made[0].labels.ravel()) / made[0].labels.size
    assert share[0] == 0
    assert len(share) - 1 == k
    assert all(0 < each.labels.min() <= each.labels.max() <= k for each in made)


def test_classes_of_a_series_look_alike_and_those_of_others_do_not() -> None:
    def levels(picture: compose.Micrograph) -> np.ndarray:
        image, labels = picture.image, picture.labels
        standard = (image - image.mean()) / image.std()
        return np.array([standard[labels == i].mean() for i in (1, 2)])

    apart: dict[str, list[float]] = {"own": [], "other": []}
    series = [random_series(seed, 2, 96, color=False) for seed in range(60)]
    two = [one for one in series if all(p.labels.max() == 2 for p in one)]
    for one, other in itertools.pairwise(two):
        for name, picture in (("own", one[1]), ("other", other[1])):
            if len(np.unique(picture.labels)) == 2:
                apart[name].append(np.abs(levels(one[0]) - levels(picture)).max())
    assert np.median(apart["own"]) < 0.5 * np.median(apart["other"])


def test_fractions_exposure_and_magnification_differ_within_a_series() -> None:
    made = [random_series(seed, 3, 96, color=False) for seed in range(20)]
    first = [[(each.labels == 1).mean() for each in one] for one in made]
    assert np.median(np.ptp(first, axis=1)) > 0.05
    means = [[each.image.mean() for each in one] for one in made]
    assert np.median(np.ptp(means, axis=1)) > 10
    edges = [[(np.diff(each.labels) != 0).mean() for each in one] for one in made]
    assert np.median(np.max(edges, axis=1) / np.min(edges, axis=1)) > 1.2


def test_one_number_is_of_the_material_and_an_array_of_the_picture() -> None:
    one, other = (SeriesRng([1], [2, index], {}) for index in range(2))
    assert one.uniform(0, 5) == other.uniform(0, 5)
    assert one.integers(900) == other.integers(900)
    assert one.choice([3, 4, 5]) == other.choice([3, 4, 5])
    assert (one.uniform(size=3) != other.uniform(size=3)).all()
    assert one.standard_normal() == other.standard_normal()
    assert settle(one, "span", 7) == settle(one, "span", 8) == 7
    assert settle(np.random.default_rng(0), "span", 8) == 8


def test_a_frame_is_unlabelled_and_leaves_the_rest_as_it_was() -> None:
    kept, shares = 0, []
    for seed in range(30):
        picture = random_micrograph(seed, (90, 120))
        made, again = (framed(np.random.default_rng(seed), picture) for _ in range(2))
        assert np.array_equal(made.image, again.image)
        own = made.labels > 0
        assert np.array_equal(made.labels[own], picture.labels[own])
        assert np.array_equal(made.image[own], picture.image[own])
        assert len(np.unique(made.labels[own])) == picture.labels.max()
        assert len(np.unique(made.image[~own])) <= 2  # ground and text
        kept += own.all()
        shares.append(1 - own.mean())
    assert kept < 10
    assert 0 < np.median(shares) < max(shares) < 0.6


def test_pictures_of_one_instrument_have_one_data_bar() -> None:
    one, other = (random_micrograph(seed, 96, color=False) for seed in (1, 2))
    bars = [framed(np.random.default_rng(4), each).labels == 0 for each in (one, other)]
    assert bars[0].any()
    assert np.array_equal(*bars)


def test_one_class_in_ten_pictures_is_of_two_materials() -> None:
    keys = [(seed, 96, 96) for seed in range(300)]
    two = [key for key in keys if compose.draw_materials(key, 3) == 4]
    assert 15 < len(two) < 50
    assert compose.draw_materials(two[0], compose.MOST_CLASSES) == compose.MOST_CLASSES
    for seed, *shape in two[:6]:
        classes = compose.draw_kind(np.random.default_rng([seed, *shape]), None)[1]
        labels = random_micrograph(seed, (96, 96)).labels
        assert np.unique(labels).tolist() == list(range(1, classes + 1))


@pytest.mark.parametrize("seed", range(6))
def test_the_inside_of_an_axon_touches_hardly_anything_but_its_shell(seed: int) -> None:
    labels = objects._axons(np.random.default_rng(seed), (120, 140), 40.0).labels
    assert np.unique(labels).tolist() == [0, 1, 2]
    beside = ndimage.binary_dilation(labels == 2) & (labels != 2)
    assert (labels[beside] == 1).mean() > 0.95  # but where cells of a corner meet


def test_etched_grains_differ_and_their_walls_are_of_one_dark_grey() -> None:
    layout = compose.LAYOUTS["walls"][0](np.random.default_rng(0), (96, 96), 24.0, 2)
    layout.name, looks = "walls", [Look(0.6), Look(0.5)]
    drawn = [
        paint(np.random.default_rng(seed), layout, looks, 0.1) for seed in range(40)
    ]
    walls, grains = layout.labels == 0, layout.labels == 1
    etched = np.array([np.median(each[walls]) < 0.5 for each in drawn])
    spread = np.array([each[grains].std() for each in drawn])
    assert 0 < etched.sum() < 20
    assert spread[etched].mean() > 2 * spread[~etched].mean()
