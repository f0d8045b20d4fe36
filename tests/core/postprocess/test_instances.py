from __future__ import annotations

import numpy as np
import pytest

from napari_hrdv2.core.postprocess.instances import instances, touches_border


def disks(*centres: tuple[int, int], radius: int = 9, shape=(41, 83)) -> np.ndarray:
    rows, columns = np.indices(shape)
    labels = np.ones(shape, np.uint8)
    for row, column in centres:
        labels[np.hypot(rows - row, columns - column) <= radius] = 2
    return labels


def test_components_are_numbered_from_one_and_other_classes_are_zero() -> None:
    labels = disks((20, 15), (20, 60))
    found = instances(labels, 2)
    assert found.dtype == np.int32
    assert (found[20, 15], found[20, 60], found.max()) == (1, 2, 2)
    np.testing.assert_array_equal(found > 0, labels == 2)


def test_corners_join_pixels_if_they_are_told_to() -> None:
    labels = np.eye(5, dtype=int)
    assert instances(labels, 1).max() == 5
    assert instances(labels, 1, connectivity=2).max() == 1


def test_watershed_cuts_disks_that_overlap_and_components_do_not() -> None:
    labels = disks((20, 20), (20, 36), (20, 70))
    assert instances(labels, 2).max() == 2
    found = instances(labels, 2, method="watershed")
    assert found.max() == 3
    np.testing.assert_array_equal(found > 0, labels == 2)
    areas = np.bincount(found.ravel())[1:]
    assert areas[found[20, 20] - 1] == pytest.approx(areas[found[20, 36] - 1], rel=0.05)


def test_a_large_minimum_distance_cuts_less() -> None:
    labels = disks((20, 20), (20, 36))
    assert instances(labels, 2, method="watershed", min_distance=30).max() == 1


def test_watershed_keeps_every_component_however_small() -> None:
    labels = np.ones((30, 31), int)
    labels[3, 3] = labels[20, 5:9] = labels[10:18, 15:25] = 2
    found = instances(labels, 2, method="watershed", min_distance=20)
    assert found.max() == instances(labels, 2).max() == 3
    np.testing.assert_array_equal(found > 0, labels == 2)


def test_a_ring_and_a_full_image_are_one_object_each() -> None:
    ring = disks((20, 40), radius=15)
    ring[disks((20, 40), radius=11) == 2] = 1
    assert instances(ring, 2).max() == 1
    assert instances(np.ones((7, 5), int), 1, method="watershed").max() == 1


def test_a_class_that_is_nowhere_gives_no_objects() -> None:
    for method in ("components", "watershed"):
        assert not instances(np.ones((4, 6), int), 3, method=method).any()
        assert instances(np.zeros((0, 6), int), 1, method=method).shape == (0, 6)


def test_what_is_excluded_belongs_to_no_object_and_cuts_them() -> None:
    labels = np.full((9, 9), 2)
    exclusion = np.zeros((9, 9), bool)
    exclusion[4] = True
    found = instances(labels, 2, exclusion=exclusion)
    assert found.max() == 2
    assert not found[4].any()


def test_objects_at_the_border_or_beside_what_is_excluded_touch_it() -> None:
    found = np.zeros((8, 9), int)
    found[0, 4], found[2:4, 2:4], found[3, 8], found[5, 5] = 1, 2, 4, 5
    assert touches_border(found).tolist() == [False, True, False, False, True, False]
    exclusion = np.zeros((8, 9), bool)
    exclusion[6:] = True
    assert touches_border(found, exclusion=exclusion)[5]
    assert touches_border(np.zeros((3, 3), int)).tolist() == [False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"method": "magic"},
            "method: 'magic' is unknown; use components or watershed",
        ),
        ({"min_distance": 0}, "min_distance: 0 is not a whole number"),
        ({"connectivity": 8}, "connectivity: 8 is neither 1"),
        ({"exclusion": np.zeros((1, 2), bool)}, r"exclusion: shape \(1, 2\)"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        instances(np.ones((3, 3), int), 1, **options)


def test_watershed_leaves_an_object_of_one_width_whole():
    band = np.zeros((100, 300), np.uint8)
    band[:37] = 1
    assert instances(band, 1, method="watershed").max() == 1
