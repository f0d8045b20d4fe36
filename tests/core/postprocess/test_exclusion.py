import numpy as np
import pytest

from napari_hrdv2.core.postprocess.exclusion import (
    find_databar,
    mask_of,
    outline_of,
    rectangles_of,
    unasked_databar,
)


def with_databar(shape, *, level, ink, rows, dtype=np.uint8, noise=0.0):
    """Return noise with a databar of two lines of text and a frame beneath."""
    rng = np.random.default_rng(2)
    most = np.iinfo(dtype).max
    image = rng.normal(0.5, 0.15, shape[:2]).clip(0, 1) * most
    bar = image[-rows:]
    bar[:] = level * most
    bar[4:-4][rng.random(bar[4:-4].shape) < 0.25] = ink * most
    bar[rows // 2] = bar[-1] = ink * most
    bar += rng.normal(0, noise * most, bar.shape)
    image = image.clip(0, most).astype(dtype)
    return np.dstack([image] * 3) if len(shape) == 3 else image


@pytest.mark.parametrize("shape", [(200, 301), (97, 64), (200, 200, 3)])
@pytest.mark.parametrize(("level", "ink"), [(0, 1), (1, 0), (0.8, 0)])
@pytest.mark.parametrize(("dtype", "noise"), [(np.uint8, 0.005), (np.uint16, 0.0)])
def test_a_databar_is_found_where_it_is(shape, level, ink, dtype, noise):
    about = {"level": level, "ink": ink, "dtype": dtype, "noise": noise}
    image = with_databar(shape, rows=20, **about)
    height, width = shape[:2]
    assert find_databar(image) == (height - 20, 0, height, width)


@pytest.mark.parametrize("shape", [(3, 5), (30, 40), (200, 101)])
def test_where_there_is_no_databar_none_is_found(shape):
    rows, columns = np.indices(shape)
    rng = np.random.default_rng(1)
    dark = rng.normal(120, 20, shape).clip(0, 255)
    dark[rows > 0.8 * shape[0] + 0.1 * shape[0] * np.sin(columns / 9)] = 0
    for image in (
        rng.random(shape),
        np.full(shape, 7),
        np.full(shape, np.nan),
        dark,  # a dark phase at the bottom, of a wavy border
        rows * 1.0,
        rng.random(shape) < 0.03,  # bright on black
    ):
        assert find_databar(np.asarray(image)) is None


def test_an_image_with_missing_pixels_is_looked_at_without_a_warning():
    image = np.arange(4800.0).reshape(60, 80) % 97
    image[50:, 40:], image[3, 3] = np.inf, np.nan
    assert unasked_databar(image) is None
    image[50:] = 0
    assert unasked_databar(image) == (50, 0, 60, 80)
    assert unasked_databar(np.broadcast_to(np.uint8(0), (20000, 9000))) is None


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
