"""Places to name: in the middle of patches, rare ones too, none where nothing is."""

import numpy as np
import pytest

from napari_hrdv2 import Cancelled, HighResFeatures, propose_places
from napari_hrdv2.core.classifier.clusters import find_clusters
from napari_hrdv2.core.guidance.places import APART, RADIUS, _patches
from synthetic import halves

SHAPE = (83, 117)
MIDDLES = {1: (20, 20), 2: (60, 30), 3: (40, 90)}


def truth_of(shape=SHAPE):
    """A matrix with three patches, the last of them rare."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    truth = np.zeros(shape, int)
    for label, (row, column) in MIDDLES.items():
        radius = 6 if label == 3 else 15
        truth[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = label
    return truth


def patched(truth=None, seed=0, noise=0.1):
    """Features in which the patches differ, with noise."""
    truth = truth_of() if truth is None else truth
    rng = np.random.default_rng(seed)
    tokens = noise * rng.standard_normal((1, *truth.shape, 5)).astype(np.float32)
    for label in range(4):
        tokens[0, truth == label, label] += 2
    return HighResFeatures(tokens, "identity", truth.shape, 1, 1)


def at(places):
    return [(one.image, one.row, one.column) for one in places]


def test_places_are_in_the_middle_of_each_kind_of_patch():
    truth, places = truth_of(), propose_places(patched(), 5)
    found = {truth[one.row, one.column]: one for one in places[::-1]}
    assert set(found) == {0, 1, 2, 3}
    for label, middle in MIDDLES.items():
        assert np.hypot(*np.subtract(middle, at([found[label]])[0][1:])) <= 2


def test_a_structure_of_a_hundredth_of_the_image_is_among_sixteen_places():
    truth, places = truth_of(), propose_places(patched(noise=0.3))
    assert 0.005 < (truth == 3).mean() < 0.015
    assert 3 in {truth[one.row, one.column] for one in places}
    assert len(places) == 16
    assert {one.is_rare for one in places} == {False, True}


def test_common_ones_come_first_and_shares_are_those_of_the_sample():
    features = patched()
    places = propose_places(features, 4)
    assert not any(one.is_rare for one in places)
    shares = [one.share for one in places]
    assert shares == sorted(shares, reverse=True)
    clusters = find_clusters(features, 4)
    np.testing.assert_allclose(sorted(shares), sorted(clusters.shares))
    assert [one.cluster for one in places] == list(range(len(places)))


def test_the_same_places_are_proposed_twice():
    once, again = propose_places(patched()), propose_places(patched())
    assert at(once) == at(again)
    for one, other in zip(once, again, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)


def test_places_are_apart_and_their_pixels_of_the_same_cluster():
    truth, places = truth_of(), propose_places(patched())
    spots = np.array(at(places))[:, 1:]
    away = np.hypot(*(spots[:, None] - spots).transpose(2, 0, 1))
    assert away[~np.eye(len(spots), dtype=bool)].min() >= APART
    for one in places:
        rows, columns = np.divmod(one.pixels, SHAPE[1])
        reach = np.hypot(rows - one.row, columns - one.column)
        assert reach.min() == 0
        assert reach.max() <= RADIUS
        assert set(truth.flat[one.pixels]) == {truth[one.row, one.column]}


def test_depth_in_patches_is_that_of_a_slow_search():
    features = patched()
    mask = np.zeros(SHAPE, bool)
    mask[:9, 70:] = True
    clusters = find_clusters(features, 4)
    labels, depth = _patches(features, mask, clusters, 1)
    np.testing.assert_array_equal(labels, clusters.predict(features))
    borders = [
        (y, x)
        for y in range(-1, SHAPE[0] + 1)
        for x in range(-1, SHAPE[1] + 1)
        if _is_border(labels, mask, y, x)
    ]
    for row, column in ((20, 20), (0, 0), (40, 90), (82, 116), (30, 60), (9, 80)):
        away = np.hypot(*(np.array(borders) - (row, column)).T).min()
        assert depth[row, column] == pytest.approx(away)
    assert (depth[mask] == -1).all()


def _is_border(labels, mask, y, x):
    if not (0 <= y < SHAPE[0] and 0 <= x < SHAPE[1]) or mask[y, x]:
        return True
    near = ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
    return any(
        labels[v, u] != labels[y, x]
        for v, u in near
        if 0 <= v < SHAPE[0] and 0 <= u < SHAPE[1]
    )


def test_nothing_is_proposed_where_the_image_is_excluded_or_has_no_numbers():
    mask = np.zeros((40, 60), bool)
    mask[:, :40] = True
    bad = [(row, column) for row in range(10, 30) for column in range(45, 55)]
    places = propose_places(halves(bad=bad), 8, exclusion=[mask])
    assert places
    for one in places:
        assert one.column >= 40
        assert (one.row, one.column) not in bad
        assert not mask.flat[one.pixels].any()


def test_places_of_two_images_come_from_both_and_are_joint():
    truth = truth_of()
    other = np.where(truth == 3, 0, truth)[::-1].copy()
    places = propose_places([patched(other, 1), patched(truth, 2)], 12)
    assert {one.image for one in places} == {0, 1}
    assert any(one.image == 1 and truth[one.row, one.column] == 3 for one in places)


def test_a_coarse_search_of_a_large_image_still_names_pixels_exactly(monkeypatch):
    monkeypatch.setattr("napari_hrdv2.core.guidance.places.MOST_PIXELS", 1000)
    truth, places = truth_of(), propose_places(patched(), 6)
    for one in places:
        assert one.row % 4 == one.column % 4 == 0
        assert set(truth.flat[one.pixels]) == {truth[one.row, one.column]}


def test_a_constant_image_has_one_place():
    tokens = np.ones((1, 21, 34, 3), np.float32)
    places = propose_places(HighResFeatures(tokens, "identity", (21, 34), 1, 1))
    assert len(places) == 1
    assert places[0].share == 1


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"count": 0}, "count: 0 is not a whole number"),
        ({"exclusion": [None, None]}, "exclusion: 2 masks for 1 images"),
        ({"exclusion": [np.ones((40, 60), bool)]}, "exclude less"),
        ({"exclusion": [np.ones((4, 6), bool)]}, "does not fit an image"),
    ],
)
def test_what_cannot_be_is_refused(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        propose_places(halves(), **values)


def test_the_search_tells_its_progress_and_can_be_stopped():
    told = []
    propose_places([halves(), halves()], progress=lambda *at: told.append(at))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    propose_places(halves(), 8, progress=lambda *at: told.append(at))
    assert told[4:] == [(1, 1)]
    with pytest.raises(Cancelled):
        propose_places(halves(), should_stop=lambda: True)
