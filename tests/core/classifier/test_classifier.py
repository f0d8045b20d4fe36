"""The classifier learns from scribbles, and refuses what it cannot learn from."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from napari_hrdv2 import HighResFeatures, PixelClassifier
from napari_hrdv2.core.errors import Cancelled
from synthetic import PART, SHAPE, TRUTH, striped_features, strokes


def test_three_stripes_are_found_with_any_label_ids():
    features = striped_features()
    predicted = PixelClassifier().fit(features, strokes(3, 70, 7000)).predict(features)
    assert predicted.dtype == np.uint16
    assert (predicted == TRUTH).mean() > 0.98


def test_probabilities_sum_to_one_and_agree_with_the_prediction():
    features = striped_features()
    classifier = PixelClassifier().fit(features, strokes(3, 70))
    probability = classifier.predict_proba(features)
    assert probability.shape == (2, *SHAPE)
    np.testing.assert_allclose(probability.sum(0), 1, atol=1e-5)
    best = classifier.classes[probability.argmax(0)]
    assert np.array_equal(best, classifier.predict(features))


def test_many_images_train_one_classifier():
    first, second = striped_features(0), striped_features(1)
    classifier = PixelClassifier().fit([first, second], [strokes(3, 70), strokes(7000)])
    assert classifier.classes.tolist() == [3, 70, 7000]
    assert (classifier.predict(second) == TRUTH).mean() > 0.98


def test_a_small_class_counts_as_much_as_a_large_one():
    features = striped_features()
    scribbles = strokes(3)
    scribbles[:, :12] = 3
    scribbles[7, 15] = 70
    found = {
        balanced: (
            PixelClassifier(balanced=balanced, C=1e-3)
            .fit(features, scribbles)
            .predict(features)[:, 12:22]
            == 70
        ).mean()
        for balanced in (True, False)
    }
    assert found[True] > 0.8 > 0.1 > found[False]


def test_fitting_again_starts_warm_and_ends_at_the_same_place():
    features = striped_features()
    warm = PixelClassifier(tolerance=1e-6).fit(features, strokes(3, 70))
    warm.fit(features, strokes(3, 70, 7000))
    cold = PixelClassifier(tolerance=1e-6).fit(features, strokes(3, 70, 7000))
    np.testing.assert_allclose(
        warm.predict_proba(features), cold.predict_proba(features), atol=2e-3
    )


def test_a_class_that_is_erased_is_forgotten():
    features = striped_features()
    classifier = PixelClassifier().fit(features, strokes(3, 70, 7000))
    classifier.fit(features, strokes(3, 7000))
    assert classifier.classes.tolist() == [3, 7000]
    assert 70 not in classifier.predict(features)


def test_a_second_fit_reads_only_the_pixels_of_the_new_scribble(monkeypatch):
    features, labels = striped_features(), strokes(3, 70)
    asked, sample = [], features.sample
    monkeypatch.setattr(
        features, "sample", lambda r, c: asked.append(len(r)) or sample(r, c)
    )
    classifier = PixelClassifier().fit(features, labels)
    assert sum(asked) == 44 + 600  # and the background sample
    asked.clear()
    labels[12, 25:28] = 7000
    warm = classifier.fit(features, labels)
    assert asked == [3]
    cold = PixelClassifier().fit(striped_features(), labels)
    np.testing.assert_allclose(warm.weight, cold.weight, atol=2e-3)


def test_what_was_read_before_does_not_change_the_result():
    features = striped_features()
    features.samples.rows(np.arange(0, 600, 7))
    known = PixelClassifier().fit(features, strokes(3, 70))
    plain = PixelClassifier().fit(striped_features(), strokes(3, 70))
    np.testing.assert_allclose(plain.weight, known.weight, atol=1e-3)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.zeros(SHAPE, int), ValueError, "labels: no pixel is labelled"),
        (strokes(70), ValueError, "labels: only class 70 is labelled"),
        (np.ones((30, 20), int), ValueError, r"labels: shape \(30, 20\) does not fit"),
        (-strokes(3, 70), ValueError, "labels: -70 is not a label id"),
        (strokes(3, 70) / 1.0, TypeError, "labels: dtype float64"),
    ],
)
def test_labels_that_cannot_train_are_refused_and_nothing_is_lost(
    labels, error, message
):
    features = striped_features()
    classifier = PixelClassifier().fit(features, strokes(3, 7000))
    before = classifier.predict(features)
    with pytest.raises(error, match=message):
        classifier.fit(features, labels)
    assert np.array_equal(classifier.predict(features), before)


def test_features_of_another_backbone_are_refused_by_name():
    classifier = PixelClassifier().fit(striped_features(), strokes(3, 70))
    other = striped_features(options=replace(PART, backbone="filters"))
    with pytest.raises(
        ValueError, match="trained on dinov2-small and cannot read filt"
    ):
        classifier.predict(other)
    other = striped_features(options=replace(PART, weights_hash="def"))
    with pytest.raises(ValueError, match="weights abc.*weights def"):
        classifier.predict(other)


def test_features_of_other_transforms_are_read_with_a_warning():
    classifier = PixelClassifier().fit(striped_features(), strokes(3, 70))
    other = striped_features(options=replace(PART, transforms="shift:1"))
    with pytest.warns(UserWarning, match="these features have 'shift:1'"):
        classifier.predict(other)


def test_an_untrained_classifier_says_so():
    with pytest.raises(ValueError, match="classifier: it was not trained"):
        PixelClassifier().predict(striped_features())


def test_images_and_labels_must_come_in_pairs():
    with pytest.raises(ValueError, match="labels: 1 label images for 2 features"):
        PixelClassifier().fit([striped_features()] * 2, [strokes(3, 70)])


def test_a_channel_that_never_varies_does_no_harm():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = striped_features()
        features.tokens[..., 3] = 5
        classifier = PixelClassifier().fit(features, strokes(3, 70, 7000))
    assert (classifier.predict(features) == TRUTH).mean() > 0.98


@pytest.mark.parametrize("seed", [0, 1])
def test_channels_that_are_nearly_always_zero_do_no_harm(seed):
    rng = np.random.default_rng(seed)
    tokens = np.maximum(rng.standard_normal((1, 64, 64, 64)), 0).astype(np.float32)
    tokens[:, 32:, :, :5] += 2
    noise = rng.random((64, 64, 44))
    rare = rng.random(noise.shape) < 1e-3
    tokens[0, ..., 20:] = np.where(rare, 1e3, 1e-5) * noise
    labels = np.zeros((64, 64), np.uint8)
    labels[10:14, 5:60], labels[40:44, 5:60] = 1, 2
    features = HighResFeatures(tokens, "identity", (64, 64), 1, 1)
    found = PixelClassifier().fit(features, labels).predict(features)
    assert (found == np.repeat([[1], [2]], 32, 0)).mean() > 0.9


def test_the_former_name_of_the_mask_gives_the_fit_of_then():
    features, labels = striped_features(), strokes(3, 70, 7000)
    former = PixelClassifier().fit(features, labels, excluded=labels > 9000)
    plain = PixelClassifier(by_place=False).fit(features, labels)
    assert not former.by_place
    assert np.array_equal(former.weight, plain.weight)
    assert not np.allclose(
        PixelClassifier().fit(features, labels).weight, plain.weight, rtol=0.01
    )


def test_features_that_are_none_are_refused():
    with pytest.raises(TypeError, match="features: ndarray are no features"):
        PixelClassifier().fit([np.zeros((4, *SHAPE))], [strokes(3, 70)])


def test_features_that_are_no_numbers_are_refused():
    features = striped_features()
    features.tokens[0, 4, 5] = np.nan
    with pytest.raises(ValueError, match="features: . of 44 labelled pixels have NaN"):
        PixelClassifier().fit(features, strokes(3, 70))


@pytest.mark.parametrize("C", [0, -1, np.inf, np.nan])
def test_a_weight_of_the_labels_must_be_a_positive_number(C):
    with pytest.raises(ValueError, match="C: .* is not a weight"):
        PixelClassifier(C=C)


def test_hardly_any_penalty_is_possible():
    features = striped_features()
    features.tokens[..., 3] = features.tokens[..., 2]
    classifier = PixelClassifier(C=1e9).fit(features, strokes(3, 70, 7000))
    assert np.isfinite(classifier.weight).all()


def test_large_label_ids_stay_what_they_are():
    features = striped_features()
    labels = strokes(3, 70).astype(np.uint64)
    labels[labels == 70] = 2**60 + 1
    classifier = PixelClassifier().fit(features, labels)
    assert classifier.classes.tolist() == [3, 2**60 + 1]
    assert 2**60 + 1 in classifier.predict(features)


def test_another_debias_is_warned_of():
    trained = PixelClassifier().fit(striped_features(), strokes(3, 70))
    other = striped_features(options=replace(PART, debias="mean"))
    with pytest.warns(UserWarning, match="trained with debias 'none'"):
        trained.predict(other)


def dense(*labels):
    """Every pixel of some stripes but a few, unlike in number."""
    scribbles = np.where(np.isin(TRUTH, labels), TRUTH, 0)
    scribbles[3:, 12:22] = 0
    return scribbles


def test_a_class_with_many_pixels_trains_on_some_of_them(monkeypatch):
    features = striped_features()
    asked = []
    sample = features.sample
    monkeypatch.setattr(
        features, "sample", lambda r, c: asked.append(len(r)) or sample(r, c)
    )
    scribbles = dense(3, 70, 7000)
    classifier = PixelClassifier(most_per_class=50).fit(features, scribbles)
    assert asked[0] == 50 + 30 + 40  # of 60 blocks, of few pixels, and 40 blocks
    assert (classifier.predict(features) == TRUTH).mean() > 0.98


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("most", [None, 1000, 100, 7])
def test_classes_weigh_as_if_all_their_pixels_trained(monkeypatch, balanced, most):
    def weighed(table, index, *, sample_weight, **_):
        raise Cancelled(np.bincount(index, sample_weight).tolist())

    monkeypatch.setattr(
        "napari_hrdv2.core.classifier.pixel_classifier.fit_with_self_training", weighed
    )
    many, labels = [striped_features(0), striped_features(1)], dense(3, 70, 7000)
    with pytest.raises(Cancelled) as caught:
        PixelClassifier(balanced=balanced, most_per_class=most).fit(
            many, [labels, strokes(3)]
        )
    counts = np.array([240 + 24, 30, 160])
    expected = np.full(3, counts.sum() / 3) if balanced else counts
    np.testing.assert_allclose(caught.value.args[0], expected, rtol=1e-5)


def test_a_limit_that_is_not_reached_changes_nothing():
    features = striped_features()
    limited, free = (
        PixelClassifier(most_per_class=most).fit(features, dense(3, 7000))
        for most in (240, 5000)
    )
    assert np.array_equal(limited.weight, free.weight)


def test_where_neighbours_are_alike_one_for_all_gives_what_all_give(monkeypatch):
    monkeypatch.setattr("napari_hrdv2.core.classifier.samples.SUBSAMPLED_ABOVE", 10)
    features = striped_features()
    features.tokens = features.tokens[:, ::2, ::2].repeat_interleave(2, 1)
    features.tokens = features.tokens.repeat_interleave(2, 2)
    one, every = (
        PixelClassifier(most_per_class=most, tolerance=1e-7).fit(
            features, strokes(3, 70, 7000)
        )
        for most in (5000, None)
    )
    np.testing.assert_allclose(one.weight, every.weight, atol=1e-3)
    np.testing.assert_allclose(one.bias, every.bias, atol=1e-3)


def test_the_limit_holds_for_each_image(monkeypatch):
    many, asked = [striped_features(0), striped_features(1)], []
    for each in many:
        sample = each.sample
        monkeypatch.setattr(
            each, "sample", lambda r, c, s=sample: asked.append(len(r)) or s(r, c)
        )
    PixelClassifier(most_per_class=20).fit(many, [dense(3, 7000), dense(3)])
    assert asked[:2] == [40, 20]


def test_the_hash_is_that_of_all_labels():
    features = striped_features()
    hashes = {
        PixelClassifier(most_per_class=most).fit(features, dense(3, 7000)).labels_hash
        for most in (None, 7, 100)
    }
    assert len(hashes) == 1
    fewer = dense(3, 7000)
    fewer[19, 29] = 0
    assert PixelClassifier().fit(features, fewer).labels_hash not in hashes


@pytest.mark.parametrize("most", [0, -3, 2.5, True])
def test_a_limit_must_be_a_positive_whole_number(most):
    with pytest.raises(ValueError, match=f"most_per_class: {most} is not a whole num"):
        PixelClassifier(most_per_class=most)


@pytest.mark.parametrize("asked_before", [0, 1, 5])
def test_a_fit_that_is_stopped_leaves_the_classifier_as_it_was(asked_before):
    features = striped_features()
    classifier = PixelClassifier().fit(features, strokes(3, 70))
    before = dict(vars(classifier))
    answers = iter([False] * asked_before)
    with pytest.raises(Cancelled, match="the fit was cancelled"):
        classifier.fit(
            features, strokes(3, 70, 7000), should_stop=lambda: next(answers, True)
        )
    assert all(vars(classifier)[name] is value for name, value in before.items())


def test_nothing_is_read_for_a_fit_that_is_stopped_at_once(monkeypatch):
    features = striped_features()
    monkeypatch.setattr(features, "sample", None)  # not called
    with pytest.raises(Cancelled):
        PixelClassifier().fit(features, strokes(3, 70), should_stop=lambda: True)
