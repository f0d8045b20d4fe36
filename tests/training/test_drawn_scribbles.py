from __future__ import annotations

import numpy as np
import pytest

from micrographs import draw_scribbles, random_micrograph


@pytest.mark.parametrize("seed", range(12))
def test_true_strokes_lie_in_their_class_and_every_class_has_some(seed: int) -> None:
    labels = random_micrograph(seed, (96, 120)).labels
    strokes = draw_scribbles(np.random.default_rng(seed), labels, 2)
    drawn = strokes > 0
    assert strokes.dtype == np.uint8
    assert np.array_equal(strokes[drawn], labels[drawn])
    assert set(np.unique(strokes[drawn])) == set(np.unique(labels))
    assert drawn.mean() < 0.25


def test_a_wall_of_two_pixels_gets_strokes_along_it() -> None:
    labels = np.ones((80, 80), np.uint8)
    labels[40:42] = 2
    strokes = draw_scribbles(np.random.default_rng(0), labels, 2, length=30)
    columns = np.flatnonzero((strokes == 2).any(axis=0))
    assert len(columns) >= 25
    assert (labels[strokes == 2] == 2).all()


def test_wrong_strokes_stray_a_little() -> None:
    labels = np.ones((80, 80), np.uint8)
    labels[20:60, 20:60] = 2
    strokes = draw_scribbles(np.random.default_rng(1), labels, 4, wrong=0.8)
    drawn = strokes > 0
    share = (strokes[drawn] != labels[drawn]).mean()
    assert 0 < share < 0.3


def test_strokes_are_decided_by_the_generator_and_the_length() -> None:
    labels = np.ones((90, 90), np.uint8)
    labels[:, 45:] = 2
    short, again, long_ = (
        draw_scribbles(np.random.default_rng(2), labels, 2, length=length)
        for length in (8, 8, 40)
    )
    assert np.array_equal(short, again)
    assert (long_ > 0).sum() > 2 * (short > 0).sum()


def test_unlabelled_ground_gets_no_strokes() -> None:
    labels = np.zeros((60, 60), np.uint8)
    labels[10:30, 10:50] = 3
    strokes = draw_scribbles(np.random.default_rng(3), labels, 3)
    assert np.unique(strokes).tolist() == [0, 3]
