from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.core.measure.scores import iou_per_class
from napari_hrdv2.core.postprocess.refinement import Refinement, clean, refine
from napari_hrdv2.core.postprocess.smoothing import (
    COLOUR,
    ITERATIONS,
    guided_filter,
    mean_field,
)

SMOOTHINGS = ("guided", "crf")
CHECKERED = "12\n21"


def entry(text: str) -> np.ndarray:
    return np.array([[int(mark) for mark in line] for line in text.split()], np.uint8)


def planes_of(truth: np.ndarray, count: int, noise: float, seed: int = 0) -> np.ndarray:
    """Probabilities that are right on the whole, with noise in the log-odds."""
    rng = np.random.default_rng(seed)
    logits = 2.5 * (truth == np.arange(1, count + 1)[:, None, None])
    logits = logits + rng.normal(0, noise, logits.shape)
    odds = np.exp(logits)
    return (odds / odds.sum(0)).astype(np.float32)


def lines() -> tuple[np.ndarray, np.ndarray]:
    """Two halves, with lines of 1 and 2 px across them; and a noisy image."""
    truth = np.ones((97, 131), np.uint8)
    truth[:, 66:] = 2
    truth[20, 5:125] = truth[60:62, 5:65] = 3
    for step in range(40):
        truth[30 + step, 70 + step] = 3
    rng = np.random.default_rng(1)
    image = np.choose(truth, [0, 0.2, 0.6, 0.9]) + rng.normal(0, 0.05, truth.shape)
    return truth, image.astype(np.float32)


def test_nothing_is_done_by_default() -> None:
    planes = planes_of(lines()[0], 3, noise=2)
    labels = refine(planes, None, [4, 5, 9], Refinement())
    np.testing.assert_array_equal(labels, np.array([4, 5, 9])[planes.argmax(0)])
    assert labels.dtype == np.uint8
    assert Refinement().is_off
    assert Refinement("crf", strength=0).is_off
    assert not Refinement(fill_holes=3).is_off


def slow_guided(plane, guide, radius, contrast):
    """Fit every window by least squares; mean of the windows about each pixel."""
    pad = 2 * radius
    wide = np.pad(plane, pad, mode="symmetric").astype(float)
    wide_guide = np.pad(guide, [(0, 0), (pad, pad), (pad, pad)], mode="symmetric")
    height, width = plane.shape
    result = np.zeros(plane.shape)
    for row in range(height):
        for column in range(width):
            here = []
            for down in range(2 * radius + 1):
                for right in range(2 * radius + 1):
                    rows = slice(row + down, row + down + 2 * radius + 1)
                    columns = slice(column + right, column + right + 2 * radius + 1)
                    values = wide[rows, columns].ravel()
                    grey = wide_guide[:, rows, columns].reshape(len(guide), -1)
                    centred = grey - grey.mean(1, keepdims=True)
                    matrix = centred @ centred.T / values.size
                    matrix += contrast**2 * np.eye(len(guide))
                    slope = np.linalg.solve(matrix, centred @ values / values.size)
                    offset = values.mean() - slope @ grey.mean(1)
                    here.append(slope @ guide[:, row, column] + offset)
            result[row, column] = np.mean(here)
    return result


@pytest.mark.parametrize("channels", [1, 3])
def test_the_guided_filter_is_that_of_the_definition(channels: int) -> None:
    rng = np.random.default_rng(0)
    plane = rng.random((7, 9), dtype=np.float32)
    guide = rng.random((channels, 7, 9), dtype=np.float32)
    fast = guided_filter(plane[None], guide, radius=1, contrast=0.2)[0]
    # Windows beyond the border are mirrored here, and their fits there.
    inner = slice(2, -2), slice(2, -2)
    slow = slow_guided(plane, guide, 1, 0.2)
    np.testing.assert_allclose(fast[inner], slow[inner], atol=1e-4)


def slow_mean_field(logits, guide, radius, strength):
    height, width = guide.shape[1:]
    offsets = [
        (down * 2**step, right * 2**step)
        for step in range(radius.bit_length())
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
        if (down, right) != (0, 0)
    ]
    belief = np.exp(logits) / np.exp(logits).sum(0)
    for _ in range(ITERATIONS):
        message, norm = np.zeros_like(belief), np.zeros((height, width))
        for row in range(height):
            for column in range(width):
                for down, right in offsets:
                    r, c = row + down, column + right
                    if not (0 <= r < height and 0 <= c < width):
                        continue
                    grey = np.sum((guide[:, row, column] - guide[:, r, c]) ** 2)
                    space = (down**2 + right**2) / (radius / 2) ** 2
                    weight = np.exp(-grey / 2 / COLOUR**2 - space / 2)
                    message[:, row, column] += weight * belief[:, r, c]
                    norm[row, column] += weight
        odds = np.exp(logits + strength * message / norm)
        belief = odds / odds.sum(0)
    return belief


def test_the_mean_field_is_that_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 7, 6)).astype(np.float32)
    guide = (0.1 * rng.random((3, 7, 6))).astype(np.float32)
    options = {"radius": 4, "strength": 2.0}
    fast = mean_field(torch.from_numpy(logits), torch.from_numpy(guide), **options)
    slow = slow_mean_field(logits.astype(float), guide, **options)
    np.testing.assert_allclose(fast, slow, atol=1e-4)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_noise_goes_and_thin_lines_stay(smoothing: str) -> None:
    truth, image = lines()
    assert 0.015 < (truth == 3).mean() < 0.04
    planes = planes_of(truth, 3, noise=1.2)
    raw = refine(planes, None, [1, 2, 3], Refinement())
    refined = refine(planes, image, [1, 2, 3], Refinement(smoothing))
    before, after = (iou_per_class(truth, x, [1, 2, 3]) for x in (raw, refined))
    assert (after[:2] > before[:2] + 0.02).all()
    assert after[2] >= before[2]


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_a_line_that_the_image_does_not_show_stays_if_the_classifier_is_sure(
    smoothing: str,
) -> None:
    truth, _ = lines()
    planes = np.where(truth == np.arange(1, 4)[:, None, None], 0.996, 0.002)
    flat = np.full(truth.shape, 128, np.uint8)
    labels = refine(planes.astype(np.float32), flat, [1, 2, 3], Refinement(smoothing))
    np.testing.assert_array_equal(labels, truth)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_what_is_excluded_changes_nothing_beside_it(smoothing: str) -> None:
    truth, image = lines()
    planes = planes_of(truth, 3, noise=1.5)
    exclusion = np.zeros(truth.shape, bool)
    exclusion[80:] = True
    results = []
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        planes[:, 80:] = np.moveaxis(rng.dirichlet([1, 1, 1], (17, 131)), 2, 0)
        image[80:] = rng.normal(40, 500, (17, 131))
        results.append(
            refine(planes, image, [1, 2, 3], Refinement(smoothing), exclusion=exclusion)
        )
    # The guide is slightly smoothed before, which reaches two pixels.
    np.testing.assert_array_equal(results[0][:60], results[1][:60])
    assert not results[0][80:].any()
    assert results[0][:80].all()


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 3), (33, 18)])
def test_any_size_and_colour_image_can_be_smoothed(smoothing: str, shape) -> None:
    rng = np.random.default_rng(0)
    planes = np.moveaxis(rng.dirichlet([1, 1], shape), 2, 0).astype(np.float32)
    colours = rng.integers(0, 256, (*shape, 4), np.uint8)
    labels = refine(planes, colours, [2, 300], Refinement(smoothing))
    assert labels.shape == shape
    assert labels.dtype == np.uint16
    assert np.isin(labels, [2, 300]).all()


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_one_class_and_probabilities_that_are_all_equal(smoothing: str) -> None:
    image = np.arange(30.0).reshape(5, 6)
    one = refine(np.ones((1, 5, 6)), image, [7], Refinement(smoothing))
    assert (one == 7).all()
    equal = refine(np.full((2, 5, 6), 0.5), image, [3, 7], Refinement(smoothing))
    assert len(np.unique(equal)) <= 2


def test_the_probabilities_and_labels_given_are_left_as_they_are() -> None:
    truth, image = lines()
    planes = planes_of(truth, 3, noise=1)
    copies = planes.copy(), truth.copy()
    for smoothing in SMOOTHINGS:
        refine(planes, image, [1, 2, 3], Refinement(smoothing, min_object=50))
    clean(truth, 200, 200, exclusion=truth == 1)
    np.testing.assert_array_equal(planes, copies[0])
    np.testing.assert_array_equal(truth, copies[1])


def test_a_small_object_takes_the_class_it_shares_most_edges_with() -> None:
    labels = entry("1111222 1113222 1133222 1111222 1111222")
    expected = entry("1111222 1111222 1111222 1111222 1111222")
    np.testing.assert_array_equal(clean(labels, min_object=4), expected)
    np.testing.assert_array_equal(clean(labels, min_object=3), labels)


def test_small_objects_inside_small_objects_go_to_what_surrounds_both() -> None:
    labels = entry("1111111 1222221 1233321 1222221 1111111")
    assert (clean(labels, min_object=13) == 1).all()
    np.testing.assert_array_equal(
        clean(labels, min_object=4),
        entry("1111111 1222221 1222221 1222221 1111111"),
    )


def test_an_oblique_line_of_one_pixel_is_one_object() -> None:
    labels = np.ones((12, 12), int)
    np.fill_diagonal(labels, 2)
    np.testing.assert_array_equal(clean(labels, min_object=12), labels)
    assert (clean(labels, min_object=13) == 1).all()


def test_where_all_is_small_nothing_changes() -> None:
    labels = entry(CHECKERED)
    np.testing.assert_array_equal(clean(labels, min_object=100), labels)
    assert clean(np.zeros((0, 4), int), 5, 5).shape == (0, 4)
    assert not clean(np.zeros((3, 4), int), 5, 5).any()


def test_holes_are_filled_whatever_is_in_them() -> None:
    labels = entry("11111111 12231111 12331121 11111121 11111121 11111131")
    expected = labels.copy()
    expected[1:3, 1:4] = 1  # what reaches the border is no hole
    np.testing.assert_array_equal(clean(labels, fill_holes=7), expected)
    np.testing.assert_array_equal(clean(labels, fill_holes=5), labels)


def test_a_hole_inside_a_hole_takes_the_outer_class() -> None:
    labels = np.full((9, 9), 3)
    labels[2:7, 2:7], labels[3:6, 3:6], labels[4, 4] = 2, 3, 1
    assert (clean(labels, fill_holes=26) == 3).all()
    inner = clean(labels, fill_holes=10)
    assert (inner == 2).sum() == 25


def test_unlabelled_and_excluded_pixels_are_neither_filled_nor_spread() -> None:
    labels = entry("11111 10111 11121 11111")
    exclusion = np.zeros(labels.shape, bool)
    exclusion[2, 2] = True
    expected = entry("11111 10111 11011 11111")
    np.testing.assert_array_equal(clean(labels, 2, 3, exclusion=exclusion), expected)
    alone = entry("000 020 000")
    np.testing.assert_array_equal(clean(alone, 5, 5), alone)


def test_smoothing_comes_before_objects_and_holes() -> None:
    truth, image = lines()
    planes = planes_of(truth, 3, noise=1.5)
    both = refine(planes, image, [1, 2, 3], Refinement("crf", 4, 0.3, 9, 9))
    smooth = refine(planes, image, [1, 2, 3], Refinement("crf", 4, 0.3))
    np.testing.assert_array_equal(both, clean(smooth, 9, 9))
    assert (both != smooth).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"smoothing": "blur"},
            "smoothing: 'blur' is unknown; use none or guided or crf",
        ),
        ({"radius": 0}, "radius: 0 is not a whole number of pixels from 1"),
        ({"radius": 2.5}, "radius: 2.5"),
        ({"strength": 1.1}, "strength: 1.1 is not a number in 0..1"),
        ({"strength": float("nan")}, "strength: nan"),
        ({"min_object": -1}, "min_object: -1 is not a whole number of pixels from 0"),
        ({"fill_holes": True}, "fill_holes: True"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Refinement(**change).check()


def test_bad_arrays_are_refused_in_one_sentence() -> None:
    planes = np.full((2, 4, 5), 0.5, np.float32)
    image, smooth = np.zeros((4, 5)), Refinement("guided")
    bad = planes.copy()
    bad[0, 1, 1] = np.nan
    with pytest.raises(ValueError, match="probabilities: 1 of 40 are NaN"):
        refine(bad, image, [1, 2], smooth)
    with pytest.raises(ValueError, match=r"image: shape \(4, 4\) does not fit"):
        refine(planes, image[:, :4], [1, 2], smooth)
    with pytest.raises(ValueError, match="image: it holds NaN"):
        refine(planes, image * np.nan, [1, 2], smooth)
    with pytest.raises(ValueError, match=r"image: shape \(\) does not fit"):
        refine(planes, None, [1, 2], smooth)
    with pytest.raises(ValueError, match=r"classes: \[1\] are not the ids of 2"):
        refine(planes, image, [1], smooth)
    with pytest.raises(ValueError, match=r"classes: \[0, 1\]"):
        refine(planes, image, [0, 1], smooth)
    with pytest.raises(ValueError, match=r"exclusion: shape \(4, 4\) does not fit"):
        refine(planes, image, [1, 2], smooth, exclusion=np.zeros((4, 4), bool))
    with pytest.raises(ValueError, match="is not a label image"):
        clean(np.zeros((2, 3, 4), int), 3)
    with pytest.raises(ValueError, match="labels: -1 is not a label id"):
        clean(np.full((2, 3), -1), 3)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_it_stops_when_asked_in_the_middle(smoothing: str) -> None:
    asked = iter([False, False, True])
    planes = planes_of(lines()[0], 3, noise=1)
    with pytest.raises(Cancelled):
        refine(
            planes,
            lines()[1],
            [1, 2, 3],
            Refinement(smoothing),
            should_stop=lambda: next(asked),
        )
