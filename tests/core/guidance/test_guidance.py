"""Where to paint next: values, uncertain regions, and strokes the others contradict."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import measure

from napari_hrdv2 import Cancelled, HighResFeatures, PixelClassifier
from napari_hrdv2.core.classifier.samples import SparseLabels
from napari_hrdv2.core.guidance import (
    explained_by,
    find_label_issues,
    probability_of,
    regions_within,
    scribbles_of,
    uncertain_regions,
    uncertainty_of,
)
from synthetic import SHAPE, TRUTH, striped_features, strokes

CLASSES = (3, 70, 7000)


def upsampled_features(shape=(131, 47), channels=6):
    """Features with patches, of an odd size and more rows than one block."""
    rng = np.random.default_rng(1)
    grid = [-(-length // 7) for length in shape]
    tokens = rng.standard_normal((9, *grid, channels)).astype(np.float32)
    return HighResFeatures(tokens, "shift:1", shape, 7, 7)


def trained(features, count):
    rng = np.random.default_rng(2)
    labels = rng.integers(1, count + 1, features.shape[1:])
    labels[rng.random(labels.shape) < 0.9] = 0
    return PixelClassifier(C=1).fit(features, labels)


def many_strokes(height=12):
    """Six strokes in each stripe of striped_features, by rows."""
    painted = np.zeros(SHAPE, int)
    for row in range(0, height, 2):
        for label, start in zip(CLASSES, (2, 14, 24), strict=True):
            painted[row, start : start + 5] = label
    return painted


# Uncertainty


@pytest.mark.parametrize("count", [2, 3, 5])
def test_uncertainty_by_blocks_is_that_of_the_probabilities(count):
    features = upsampled_features()
    model = trained(features, count)
    ordered = np.sort(model.predict_proba(features), axis=0)
    slow = 255 * (1 - (ordered[-1] - ordered[-2]))
    fast = uncertainty_of(model, features)
    assert fast.dtype == np.uint8
    assert np.abs(fast - slow).max() <= 0.51
    assert slow.std() > 5


@pytest.mark.parametrize("count", [2, 4])
def test_probability_by_blocks_is_that_of_the_classifier(count):
    features = upsampled_features()
    model = trained(features, count)
    slow = 255 * model.predict_proba(features)
    for plane, class_id in zip(slow, model.classes.tolist(), strict=True):
        assert np.abs(probability_of(model, features, class_id) - plane).max() <= 0.51


def test_huge_logits_give_certainty_and_no_warning():
    features = upsampled_features()
    model = trained(features, 3)
    model.weight = model.weight * 1e6
    assert np.median(uncertainty_of(model, features)) == 0
    assert set(np.unique(probability_of(model, features, 1))) >= {0, 255}


def test_no_more_than_a_block_of_rows_is_held():
    features = upsampled_features()
    sizes = []

    class Watched(HighResFeatures):
        def planes(self, *arguments):
            for tile, block in super().planes(*arguments):
                sizes.append(block.shape)
                yield tile, block

    features.__class__ = Watched
    uncertainty_of(trained(features, 3), features)
    assert len(sizes) > 1
    assert all(rows < 131 and planes == 2 for rows, planes, _ in sizes)


def test_a_region_is_that_part_of_the_whole_and_can_be_stopped():
    features = upsampled_features()
    model, region = trained(features, 3), (slice(100, 125), slice(5, 31))
    part = uncertainty_of(model, features, region=region)
    np.testing.assert_array_equal(part, uncertainty_of(model, features)[region])
    part = probability_of(model, features, 2, region=region)
    np.testing.assert_array_equal(part, probability_of(model, features, 2)[region])
    with pytest.raises(Cancelled):
        uncertainty_of(model, features, should_stop=lambda: True)


def test_what_cannot_be_read_is_refused():
    features = upsampled_features()
    model = trained(features, 2)
    with pytest.raises(ValueError, match="class_id: 9 is none of .* classes 1, 2"):
        probability_of(model, features, 9)
    with pytest.raises(ValueError, match="was not trained"):
        uncertainty_of(PixelClassifier(), features)
    with pytest.raises(ValueError, match="6 channels do not fit"):
        uncertainty_of(trained(upsampled_features(channels=5), 2), features)


def test_nan_is_refused_in_a_sentence():
    features = upsampled_features()
    model = trained(features, 3)
    features.tokens[0, 3, 2] = float("nan")
    with pytest.raises(ValueError, match="^features: some are NaN or infinite"):
        uncertainty_of(model, features)
    with pytest.raises(ValueError, match="^features: some are NaN or infinite"):
        probability_of(model, features, 1)
    with pytest.raises(ValueError, match="^uncertainty: some pixels are NaN"):
        uncertain_regions(np.full((3, 3), np.nan))


# Places


def test_a_uncertain_area_wins_over_borders_that_are_more_valuesful():
    values = np.zeros((150, 211), np.float32)
    values[:, ::25] = values[::25] = 1
    values[90:115, 130:150] = 0.5
    first = uncertain_regions(values)[0]
    assert 90 <= first.row < 115
    assert 130 <= first.column < 150


def test_regions_are_apart_and_the_best_comes_first():
    values = np.random.default_rng(0).random((97, 143))
    regions = uncertain_regions(values, radius=6, count=12)
    scores = [region.score for region in regions]
    assert len(regions) == 12
    assert scores == pytest.approx(sorted(scores, reverse=True), abs=2e-3)
    for number, one in enumerate(regions):
        for other in regions[:number]:
            assert np.hypot(one.row - other.row, one.column - other.column) >= 12


def test_the_next_region_is_a_new_one():
    values = np.zeros((90, 90), np.uint8)
    values[10:22, 10:22], values[60:72, 60:72] = 255, 200
    before = uncertain_regions(values, radius=6, count=1)[0]
    labelled = np.zeros((90, 90), int)
    labelled[before.row, before.column - 4 : before.column + 4] = 2
    after = uncertain_regions(values, scribbles=labelled, radius=6, count=1)[0]
    assert before.row < 30
    assert after.row >= 60


def test_excluded_pixels_are_never_proposed():
    values = np.ones((60, 80), np.float32)
    exclusion = np.zeros((60, 80), bool)
    exclusion[:, :60] = True
    regions = uncertain_regions(values, exclusion=exclusion, radius=3)
    assert regions
    assert all(region.column >= 57 for region in regions[:5])


def test_the_score_is_a_share_whatever_the_type():
    values = np.zeros((61, 47), np.uint8)
    values[20:50, 10:40] = 255
    (first,) = uncertain_regions(values, count=1)
    (same,) = uncertain_regions(values / 255, count=1)
    assert first == same
    assert first.score == pytest.approx(1)
    assert first.reason == "100% uncertain"


def test_regions_within_windows_are_those_of_each_alone():
    features = upsampled_features()
    model = trained(features, 3)
    values = uncertainty_of(model, features)
    mask, drawn = (np.zeros(values.shape, kind) for kind in (bool, int))
    mask[20:40], drawn[80:84, 9:30] = True, 2
    whole = regions_within(
        [None], model, features, scribbles=drawn, exclusion=mask, count=9
    )
    assert whole == uncertain_regions(
        values,
        scribbles=drawn,
        exclusion=mask,
        count=9,
        explain=explained_by(model, features),
    )
    slow = []
    windows = [(slice(top, top + 66), slice(3, 47)) for top in (0, 65)]
    for window in windows:
        alone = uncertain_regions(values[window], scribbles=drawn[window], count=5000)
        top = window[0].start
        slow += [(one.score, one.row + top, one.column + 3) for one in alone]
    found = regions_within(windows, model, features, scribbles=drawn, count=5000)
    assert sorted((one.score, one.row, one.column) for one in found) == sorted(slow)
    few = regions_within(windows, model, features, scribbles=drawn, count=5)
    assert few == found[:5]
    assert found[0].score > max(one.score for one in found) - 0.01
    assert all(one.reason.startswith("Class ") for one in found)


@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (7, 3), (64, 64)])
def test_certain_images_have_no_regions_and_uncertain_ones_of_any_size_have(shape):
    assert uncertain_regions(np.zeros(shape, np.uint8)) == []
    regions = uncertain_regions(np.ones(shape, np.float32))
    assert regions
    assert all(0 <= p.row < shape[0] and 0 <= p.column < shape[1] for p in regions)


def test_cells_at_the_far_border_are_means_too():
    values = np.zeros((100, 101), np.float32)
    values[70:, 70:] = 1
    region = uncertain_regions(values, radius=9, count=1)[0]
    assert region.row >= 70
    assert region.column >= 70
    assert region.score == pytest.approx(1)


def test_bad_arguments_of_regions_are_named():
    values = np.ones((5, 6), np.float32)
    with pytest.raises(TypeError, match="uncertainty: dtype int64"):
        uncertain_regions(np.ones((5, 6), np.int64))
    with pytest.raises(ValueError, match=r"uncertainty: shape \(0, 6\)"):
        uncertain_regions(values[:0])
    with pytest.raises(ValueError, match=r"scribbles: shape \(6, 5\) does not fit"):
        uncertain_regions(values, scribbles=values.T)
    with pytest.raises(ValueError, match="count: 0 is not a whole number from 1"):
        uncertain_regions(values, count=0)


def test_the_reason_names_the_two_classes_and_their_probabilities():
    features = striped_features()
    model = PixelClassifier(C=1).fit(features, strokes(*CLASSES))
    model.class_names = {70: "Pore"}
    border = explained_by(model, features)(10, 22, 2)
    planes = model.predict_proba(features)[:, 8:13, 20:25].mean(axis=(1, 2))
    assert "Pore" in border
    assert "Class 7000" in border
    numbers = [float(word) for word in border.split() if word.startswith("0.")]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] == pytest.approx(planes.max(), abs=0.2)
    assert explained_by(model, features)(0, 0, 1).startswith("Class 3 or ")


# Label issues

ALL = {"least_fraction": 0, "least_margin": -1}  # scribbles, issues or not


def test_scribbles_are_connected_patches_of_one_class():
    labels = np.zeros((6, 9), np.uint16)
    labels[1, 1], labels[2, 2] = 300, 300  # touch by a corner
    labels[3, 3] = 7  # another class
    labels[5, 8] = 300
    found = [(class_id, pixels.tolist()) for class_id, pixels in scribbles_of(labels)]
    assert found == [(7, [30]), (300, [10, 20]), (300, [53])]
    assert scribbles_of(np.zeros((3, 4), int)) == []


@pytest.mark.parametrize("shape", [(31, 17), (9, 1), (1, 9), (12, 2), (7, 3)])
@pytest.mark.parametrize("ids", [2, 3])
def test_scribbles_are_those_of_a_labelling_of_the_whole(shape, ids):
    labels = np.random.default_rng(0).integers(0, ids, shape)
    numbers = measure.label(labels, connectivity=2, background=0)
    slow = [np.flatnonzero(numbers == i) for i in range(1, numbers.max() + 1)]
    slow = [(int(labels.flat[one[0]]), one.tolist()) for one in slow]
    pixels = np.flatnonzero(labels)
    for given in labels, SparseLabels(shape, pixels, labels.ravel()[pixels]):
        found = [(class_id, one.tolist()) for class_id, one in scribbles_of(given)]
        assert found == sorted(slow, key=lambda one: (one[0], one[1][0]))


def test_a_scribble_of_the_wrong_class_is_found_and_no_other():
    painted = many_strokes()
    painted[6, 14:19] = 3
    (label_issue,) = find_label_issues(striped_features(), painted)
    assert (label_issue.class_id, label_issue.predicted_id) == (3, 70)
    assert label_issue.pixels.tolist() == list(range(6 * 30 + 14, 6 * 30 + 19))
    assert (label_issue.row, label_issue.column) == (6, 16)
    assert label_issue.fraction == 1
    assert label_issue.reason == (
        "Painted as Class 3, but without this scribble 100% of its pixels are another "
        "class, mostly Class 70"
    )


def test_right_scribbles_are_no_issues():
    features, painted = striped_features(), many_strokes()
    assert find_label_issues(features, painted) == []
    assert len(find_label_issues(features, painted, **ALL)) == 18


def test_a_scribble_that_the_classifier_gives_in_to_is_still_found():
    features, painted = striped_features(), many_strokes()
    painted[13:20, 23:30] = 3  # by far the largest of its class
    features.tokens[0, 13:20, 23:30, 3] += 3  # and a little different
    model = PixelClassifier(C=1).fit(features, painted)
    assert (model.predict(features)[13:20, 23:30] == 3).mean() > 0.8
    (label_issue,) = find_label_issues(features, painted, classifier=model)
    assert label_issue.predicted_id == 7000
    assert len(label_issue.pixels) == 49


def test_judging_is_the_same_as_a_fit_without_the_scribble():
    features, painted = striped_features(), many_strokes()
    painted[6, 14:19] = 3
    for label_issue in find_label_issues(features, painted, **ALL):
        rest = painted.copy()
        rest.ravel()[label_issue.pixels] = 0
        planes = (
            PixelClassifier(self_training=False)
            .fit(features, rest)
            .predict_proba(features)
        )
        mean = planes.reshape(3, -1)[:, label_issue.pixels].mean(axis=1)
        own = CLASSES.index(label_issue.class_id)
        other = CLASSES.index(label_issue.predicted_id)
        # Rows that do not train still take part in the standardisation.
        assert label_issue.margin == pytest.approx(mean[other] - mean[own], abs=0.1)


def test_known_rows_and_a_trained_classifier_change_nothing():
    features, painted = striped_features(), many_strokes()
    painted[6, 14:19] = 3
    model = PixelClassifier().fit(features, painted)
    weight = model.weight.copy()
    one = find_label_issues(features, painted, classifier=model)
    other = find_label_issues(features, painted)
    assert [s.pixels.tolist() for s in one] == [s.pixels.tolist() for s in other]
    np.testing.assert_array_equal(model.weight, weight)


def test_long_scribbles_are_read_in_part_but_reported_whole():
    features = HighResFeatures(
        np.random.default_rng(0).random((1, 60, 60, 2)), "identity", (60, 60), 1, 1
    )
    painted = np.zeros((60, 60), int)
    for row in range(0, 60, 20):
        painted[row : row + 9], painted[row + 10 : row + 19] = 1, 2
    judged = find_label_issues(features, painted, **ALL)
    assert [len(label_issue.pixels) for label_issue in judged] == [540] * 6


@pytest.mark.parametrize("classes", [(), (70,)])
def test_without_two_classes_nothing_is_an_issue(classes):
    assert find_label_issues(striped_features(), strokes(*classes)) == []


def test_a_class_of_few_scribbles_is_not_judged():
    painted = many_strokes(height=4)
    painted[4, 2:7] = 3
    judged = find_label_issues(striped_features(), painted, **ALL)
    assert {label_issue.class_id for label_issue in judged} == {3}


def test_a_constant_image_contradicts_nothing():
    features = HighResFeatures(np.ones((1, *SHAPE, 4)), "identity", SHAPE, 1, 1)
    assert find_label_issues(features, many_strokes()) == []


def test_only_the_worst_scribbles_are_judged_where_few_are_wanted():
    painted = many_strokes()
    painted[6, 14:19] = 3
    (first,) = find_label_issues(striped_features(), painted, most=1, **ALL)
    assert first.pixels[0] == 6 * 30 + 14


def test_judging_can_be_stopped():
    with pytest.raises(Cancelled):
        find_label_issues(striped_features(), many_strokes(), should_stop=lambda: True)


def test_bad_labels_and_features_are_refused():
    features = striped_features()
    with pytest.raises(TypeError, match="labels: dtype float64"):
        find_label_issues(features, TRUTH.astype(float))
    features.tokens[0, 2, 3] = float("nan")
    with pytest.raises(ValueError, match="^features: .* labelled pixels have NaN"):
        find_label_issues(features, many_strokes())
