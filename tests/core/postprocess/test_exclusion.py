import numpy as np
import pytest

from napari_hrdv2.core.postprocess.exclusion import mask_of, outline_of, rectangles_of


def test_a_turned_outline_covers_the_pixels_within():
    corners = np.array([(8, 2), (2, 9), (9, 15), (15, 8)], float)
    mask = mask_of([corners], (18, 19))
    for row in range(18):
        for column in range(19):
            along, to = np.roll(corners, -1, 0) - corners, (row, column) - corners
            crossed = along[:, 0] * to[:, 1] - along[:, 1] * to[:, 0]
            if np.abs(crossed).min() > 1e-9:  # not on an edge
                assert mask[row, column] == (np.ptp(np.sign(crossed)) == 0)


def test_outlines_may_overlap_and_reach_beyond_the_picture():
    outlines = [outline_of((-3, -2, 2, 99)), outline_of((1, 3, 4, 5))]
    expected = np.zeros((6, 7), bool)
    expected[:2] = expected[1:4, 3:5] = True
    np.testing.assert_array_equal(mask_of(outlines, (6, 7)), expected)
    assert not mask_of([outline_of((9, 9, 12, 12))], (6, 7)).any()
    assert not mask_of([], (6, 7)).any()


@pytest.mark.parametrize("seed", range(4))
def test_rectangles_cover_exactly_the_pixels_of_a_mask(seed):
    mask = np.random.default_rng(seed).random((9, 11)) < 0.6
    found = rectangles_of(mask)
    count = np.zeros(mask.shape, int)
    for top, left, bottom, right in found:
        count[top:bottom, left:right] += 1
    np.testing.assert_array_equal(count, mask.astype(int))
    np.testing.assert_array_equal(mask_of(map(outline_of, found), mask.shape), mask)
    assert rectangles_of(np.zeros((3, 4), bool)) == []
