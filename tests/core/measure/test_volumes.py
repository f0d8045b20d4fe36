"""Objects of a volume: cleaned, numbered and measured, against the obvious way."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from napari_hrdv2.core.measure import particle_table
from napari_hrdv2.core.postprocess.instances import instances
from napari_hrdv2.core.postprocess.refinement import (
    without_small_holes,
    without_small_objects,
)

SIZE = (7, 9, 11)
FACES = [
    tuple(s) for s in np.concatenate([np.eye(3, dtype=int), -np.eye(3, dtype=int)])
]
ALL = [step for step in product((-1, 0, 1), repeat=3) if any(step)]


def speckled(seed=0, classes=3):
    random = np.random.default_rng(seed)
    return random.choice(classes, SIZE, p=[0.15, 0.6, 0.25][:classes]).astype(np.uint8)


def neighbours(place, steps):
    for step in steps:
        other = tuple(np.add(place, step).tolist())
        if all(0 <= i < n for i, n in zip(other, SIZE, strict=True)):
            yield other


def flooded(mask, steps):
    """Return the sets of voxels of a mask that touch, in the order of their first."""
    left, found = set(map(tuple, np.argwhere(mask).tolist())), []
    while left:
        todo, inside = [min(left)], set()
        while todo:
            place = todo.pop()
            if place in left:
                left.discard(place)
                inside.add(place)
                todo += neighbours(place, steps)
        found.append(inside)
    return found


@pytest.mark.parametrize(("connectivity", "steps"), [(1, FACES), (3, ALL)])
def test_objects_are_voxels_that_touch(connectivity, steps):
    labels = speckled()
    found = instances(labels, 2, connectivity=connectivity)
    wanted = {frozenset(each) for each in flooded(labels == 2, steps)}
    numbers = range(1, found.max() + 1)
    assert {
        frozenset(map(tuple, np.argwhere(found == i).tolist())) for i in numbers
    } == wanted
    with pytest.raises(ValueError, match="connectivity: 4"):
        instances(labels, 2, connectivity=4)


def test_the_table_is_that_of_counting():
    found = instances(speckled(), 2)
    table = particle_table(found, pixel_size=((0.5, 0.25), "µm"), depth=2.0)
    assert table.headers[:4] == [
        "label",
        "volume (µm³)",
        "equivalent diameter (µm)",
        "surface voxels",
    ]
    for row, label in enumerate(table.columns["label"].tolist()):
        places = list(map(tuple, np.argwhere(found == label).tolist()))
        volume = len(places) * 0.25
        assert table.columns["volume"][row] == pytest.approx(volume)
        diameter = table.columns["equivalent diameter"][row]
        assert np.pi / 6 * diameter**3 == pytest.approx(volume)
        surface = [
            p for p in places if any(found[o] != label for o in neighbours(p, FACES))
        ]
        assert table.columns["surface voxels"][row] == len(surface)
        middle = np.mean(places, axis=0) * (2.0, 0.5, 0.25)
        names = [f"centroid {axis}" for axis in "zyx"]
        assert [table.columns[n][row] for n in names] == pytest.approx(middle.tolist())
        ends = [
            any(i in (0, n - 1) for i, n in zip(p, SIZE, strict=True)) for p in places
        ]
        assert table.columns["touches border"][row] == any(ends)


def test_no_objects_make_an_empty_table():
    assert len(particle_table(np.zeros(SIZE, np.int32))) == 0


def test_small_objects_and_holes_go_in_three_dimensions():
    labels = np.ones(SIZE, np.uint8)
    labels[2:5, 2:6, 2:6] = 2
    labels[3, 3, 3] = 1  # enclosed by class 2 in all directions
    labels[:, 8, 8] = 2  # a thread that a plane has one pixel of
    labels[6, 0, 0] = 2
    found = without_small_objects(labels, 4)
    found = without_small_holes(found, 3, lambda: None)
    wanted = labels.copy()
    wanted[3, 3, 3], wanted[6, 0, 0] = 2, 1
    np.testing.assert_array_equal(found, wanted)


def test_cleaning_gives_small_objects_to_whom_they_share_most_faces_with():
    labels = np.where(speckled(4) == 2, 2, 1).astype(np.uint8)
    labels[:, :, 6:] = np.where(labels[:, :, 6:] == 2, 2, 3)
    found, wanted = without_small_objects(labels, 3), labels.copy()
    small = [(2, each) for each in flooded(labels == 2, ALL) if len(each) < 3]
    for _, inside in small:
        votes = [
            labels[o] for p in inside for o in neighbours(p, FACES) if o not in inside
        ]
        for place in inside:
            wanted[place] = np.bincount(votes).argmax()
    np.testing.assert_array_equal(found, wanted)
