"""Each image is predicted from all the others, and the score says how well."""

from __future__ import annotations

import numpy as np
import pytest

from napari_hrdv2 import Cancelled, HighResFeatures, PixelClassifier
from napari_hrdv2.core.classifier.cross_validation import (
    HeldOut,
    leave_one_image_out,
    summary,
)
from napari_hrdv2.core.classifier.samples import training_pixels
from napari_hrdv2.core.features.base import StoredPixels
from napari_hrdv2.core.measure.scores import mean_iou
from synthetic import SHAPE, TRUTH, halves, striped_features, strokes

CLASSES = (3, 70, 7000)


def slow_scores(features, labels):
    """Fit anew without each image, and predict all of it."""
    for index, (held, painted) in enumerate(zip(features, labels, strict=True)):
        rest = [i for i in range(len(features)) if i != index]
        model = PixelClassifier().fit(
            [features[i] for i in rest], [labels[i] for i in rest]
        )
        drawn = painted > 0
        found, true = model.predict(held)[drawn], painted[drawn]
        yield mean_iou(true, found, np.unique(true).tolist()), (found == true).mean()


def noisy_images(count):
    features = [striped_features(seed, offset=0.3 * seed) for seed in range(count)]
    for seed, each in enumerate(features):
        noise = np.random.default_rng(seed + 50).standard_normal(each.tokens.shape)
        each.tokens += each.tokens.new_tensor(noise) * 0.8
    return features, [strokes(*CLASSES) for _ in features]


def test_scores_are_those_of_a_fit_without_the_image():
    features, labels = noisy_images(4)
    results = leave_one_image_out(features, labels)
    slow = list(slow_scores(features, labels))
    assert [each.index for each in results] == [0, 1, 2, 3]
    assert 0.2 < min(miou for miou, _ in slow) < 0.9
    for held, (miou, accuracy) in zip(results, slow, strict=True):
        assert held.miou == pytest.approx(miou, abs=0.02)
        assert held.accuracy == pytest.approx(accuracy, abs=0.02)
        assert held.miou == pytest.approx(np.mean(list(held.iou.values())))
        assert held.pixels == 60


def test_pixels_that_train_are_enough_and_count_for_all_painted_ones():
    features, labels = halves(), np.where(np.arange(60) < 28, 1, 2)
    labels = np.broadcast_to(labels, (40, 60))  # some thousand, 2 of each 30 wrong
    whole = leave_one_image_out([features, features], [labels, labels])
    kept = StoredPixels(features, training_pixels(labels))
    some = leave_one_image_out([kept, features], [labels, labels])
    assert some == whole
    assert some[0].pixels == 2400
    predicted = PixelClassifier().fit(features, labels).predict(features)
    assert some[0].accuracy == pytest.approx((predicted == labels).mean(), abs=0.02)
    assert some[0].miou == pytest.approx(mean_iou(labels, predicted, [1, 2]), abs=0.02)


def test_an_image_unlike_the_others_scores_low():
    features = [striped_features(seed) for seed in range(4)]
    turned = np.select([TRUTH == 3, TRUTH == 70], [70, 7000], 3)
    features[2] = striped_features(9, truth=turned)
    results = leave_one_image_out(features, [strokes(*CLASSES)] * 4)
    assert results[2].miou < 0.1
    assert min(held.miou for held in results if held.index != 2) > 0.7


def test_a_class_of_one_image_only_is_not_scored_and_named():
    features = [striped_features(seed) for seed in range(3)]
    labels = [strokes(3, 70), strokes(3, 70), strokes(*CLASSES)]
    results = leave_one_image_out(features, labels)
    assert [held.missing for held in results] == [(), (), (7000,)]
    assert set(results[2].iou) == {3, 70}
    assert results[2].miou > 0.9
    assert results[2].pixels == (labels[0] > 0).sum()
    said = summary(results, names=["a.tif", "b.tif", "c.tif"])
    assert "Class 7000 is painted in c.tif only" in said


def test_images_without_scribbles_or_teachers_have_no_score():
    features = [striped_features(seed) for seed in range(3)]
    labels = [strokes(3, 70), strokes(3), np.zeros(SHAPE, int)]
    results = leave_one_image_out(features, labels)
    assert np.isnan(results[0].miou)  # only class 3 is painted elsewhere
    assert results[0].missing == (70,)
    assert results[1].miou > 0.9
    assert np.isnan(results[2].miou)
    assert results[2].missing == ()
    assert summary(results).endswith("Not scored at all: image 1, image 3.")


def test_known_rows_settings_and_progress_are_used():
    features, labels = noisy_images(3)
    model, told = PixelClassifier(C=1e-6), []
    weak = leave_one_image_out(
        features,
        labels,
        classifier=model,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert not model.is_fitted
    assert all(len(each.samples._pixels) == 60 for each in features)
    usual = leave_one_image_out(features, labels)
    assert [held.accuracy for held in weak] != [held.accuracy for held in usual]


def test_constant_images_score_and_do_not_fail():
    features = [
        HighResFeatures(np.ones((1, *SHAPE, 4)), "identity", SHAPE, 1, 1)
        for _ in range(2)
    ]
    results = leave_one_image_out(features, [strokes(3, 70)] * 2)
    assert all(0 <= held.miou <= 0.6 for held in results)


@pytest.mark.parametrize("painted", [0, 1])
def test_two_painted_images_are_needed(painted):
    labels = [strokes(*CLASSES)] * painted + [strokes()] * (3 - painted)
    with pytest.raises(ValueError, match=f"scribbles in two images .* {painted} have"):
        leave_one_image_out([striped_features()] * 3, labels)


def test_what_does_not_fit_is_refused():
    one, two = striped_features(0), striped_features(1)
    labels = [strokes(*CLASSES)] * 2
    with pytest.raises(ValueError, match="3 label images for 2 features"):
        leave_one_image_out([one, two], labels + labels[:1])
    other = HighResFeatures(np.ones((1, *SHAPE, 5)), "identity", SHAPE, 1, 1)
    with pytest.raises(ValueError, match="5 channels"):
        leave_one_image_out([other, one], labels)
    two.tokens[0, 4, 5] = float("nan")
    with pytest.raises(ValueError, match="^features: .* labelled pixels have NaN"):
        leave_one_image_out([one, two], labels)


def test_validation_can_be_stopped():
    features, labels = noisy_images(2)
    with pytest.raises(Cancelled):
        leave_one_image_out(features, labels, should_stop=lambda: True)


def test_the_summary_gives_mean_and_lowest_with_names():
    results = [HeldOut(0, 0.9), HeldOut(1, 0.4), HeldOut(2, 0.8, missing=(4,))]
    said = summary(results, names=["a", "b", "c"], class_names={4: "Pore"})
    assert said == (
        "Predicted from the other images, 3 images reach a mean IoU of 0.70 on their "
        "scribbles; the lowest is b with 0.40. Pore is painted in c only, so no other "
        "image teaches it and it is not scored."
    )
    assert summary([HeldOut(0), HeldOut(1)]) == "No image could be scored."


def test_masks_that_are_too_few_are_refused_with_their_number():
    features, labels = noisy_images(3)
    with pytest.raises(ValueError, match="exclusion: 1 masks for 3 images"):
        leave_one_image_out(features, labels, exclusion=[None])


def test_what_is_excluded_takes_no_part_in_the_fits(monkeypatch):
    features, labels = noisy_images(2)
    exclusion = [np.zeros(SHAPE, bool), np.ones(SHAPE, bool)]
    seen, fit = [], PixelClassifier.fit

    def watched(self, *parts, exclusion, **options):
        seen.append([0 if mask is None else int(mask.sum()) for mask in exclusion])
        return fit(self, *parts, exclusion=exclusion, **options)

    monkeypatch.setattr(PixelClassifier, "fit", watched)
    leave_one_image_out(features, labels, exclusion=exclusion)
    assert seen == [[exclusion[1].size], [0]]
