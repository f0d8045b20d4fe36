"""Places to name: the most telling ones, rare ones too, none where nothing is."""

import numpy as np
import pytest

from napari_hrdv2 import Cancelled, HighResFeatures, propose_places
from napari_hrdv2.core.classifier.clusters import PlainCoordinates
from napari_hrdv2.core.guidance.places import (
    APART,
    NOISE,
    RADIUS,
    _discs,
    _most_telling,
)
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


def test_the_first_places_are_inside_of_each_kind_of_patch():
    truth, places = truth_of(), propose_places(patched(), 5)
    found = {truth[one.row, one.column]: one for one in places[::-1]}
    assert set(found) == {0, 1, 2, 3}
    for label, middle in MIDDLES.items():
        away = np.hypot(*np.subtract(middle, at([found[label]])[0][1:]))
        assert away <= (6 if label == 3 else 15) - 2


def test_a_structure_of_a_hundredth_of_the_image_is_among_sixteen_places():
    truth, places = truth_of(), propose_places(patched(noise=0.3))
    assert 0.005 < (truth == 3).mean() < 0.015
    assert 3 in {truth[one.row, one.column] for one in places}
    assert len(places) == 16
    assert {one.is_rare for one in places} == {False, True}


def test_the_first_of_more_places_are_the_fewer_ones():
    assert at(propose_places(patched(), 16))[:5] == at(propose_places(patched(), 5))


def test_shares_are_those_of_the_sample_that_is_nearest():
    features = patched()
    places = propose_places(features, 4)
    space = PlainCoordinates.of(features)
    spots = np.array(at(places))[:, 1:]
    centres, points = space(features.sample(*spots.T)), space(space.rows)
    nearest = ((points[:, None] - centres) ** 2).sum(2).argmin(1)
    shares = [one.share for one in places]
    assert shares == (np.bincount(nearest) / len(points)).tolist()
    assert [one.is_rare for one in places] == [share < 1 / 8 for share in shares]


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


def test_each_place_lowers_the_variance_of_all_as_a_slow_search_says():
    rng = np.random.default_rng(3)
    points = rng.standard_normal((30, 4)) * (3, 1, 1, 0.2)
    spread, scale = rng.random(30), (points**2).sum(1).mean()
    spots = np.stack([np.arange(30)] * 3, 1)  # each in an image of its own
    found = _most_telling(points, spread, spots, 6)
    for number, place in enumerate(found):
        sums = [
            _variance_left(points, spread, scale, [*found[:number], one])
            for one in range(30)
        ]
        assert sums[place] == pytest.approx(min(sums))


def _variance_left(points, spread, scale, named):
    """The sum of predictive variances, from the normal equations."""
    known, noise = points[named] / scale**0.5, NOISE + 0.1 * spread[named] / scale
    precision = np.eye(points.shape[1]) + known.T @ np.diag(1 / noise) @ known
    return np.trace(points @ np.linalg.inv(precision) @ points.T) / scale


def test_a_disc_is_that_of_the_pixels_around_where_they_count():
    features = halves(bad=[(20, 30)])
    mask = np.zeros((40, 60), bool)
    mask[:, 32:] = True
    space = PlainCoordinates.of(features, [mask])
    at_rows, at_columns = np.array([20, 0, 20]), np.array([30, 0, 31])
    points, has_place = _discs(features, mask, space, at_rows, at_columns)
    assert has_place.tolist() == [False, True, True]
    own = space(features.sample([20], [31]))[0]
    reach = range(-RADIUS, RADIUS + 1, 2)
    expected = []
    for y in reach:
        for x in reach:
            row, column = 20 + y, 31 + x
            is_bad = np.isnan(features.sample([row], [column])).any()
            if np.hypot(y, x) <= RADIUS:
                spot = (20, 31) if is_bad or mask[row, column] else (row, column)
                expected.append(space(features.sample([spot[0]], [spot[1]]))[0])
    np.testing.assert_allclose(points[2, 0], own, atol=1e-5)
    np.testing.assert_allclose(points[2].mean(0), np.mean(expected, 0), atol=1e-5)


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
    assert told == [(1, 2), (2, 2)]
    propose_places(halves(), 8, progress=lambda *at: told.append(at))
    assert told[2:] == [(1, 1)]
    with pytest.raises(Cancelled):
        propose_places(halves(), should_stop=lambda: True)
