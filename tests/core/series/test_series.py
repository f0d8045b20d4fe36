"""What is painted on some images of a series stands for the others."""

from __future__ import annotations

import numpy as np
import pytest

from napari_hrdv2 import (
    HighResFeatures,
    PixelClassifier,
    compute_features,
    load_backbone,
)
from napari_hrdv2.core.backbones.embedded.backbone import EmbeddedBackbone
from napari_hrdv2.core.classifier import alignment
from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.core.features.high_resolution import with_context
from napari_hrdv2.core.features.resampled import compute_resampled
from napari_hrdv2.core.series.left_out import predict_left_out
from napari_hrdv2.core.series.reading import reading_of
from napari_hrdv2.core.series.training import _best, train_series
from synthetic import dabs, discs


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("embedded")


@pytest.fixture(scope="module")
def trained(backbone):
    image, inside = discs(0.25)
    return train_series([image], [dabs(inside, each=12)], backbone)


@pytest.mark.parametrize(
    ("fraction", "gain", "offset"),
    [(0.25, 1, 0), (0.1, 0.8, 25), (0.02, 1.2, -25), (0.0, 1.2, 25), (0.0, 0.8, -25)],
)
def test_fractions_hold_where_they_fall_and_the_exposure_changes(
    trained, backbone, fraction, gain, offset
):
    image, inside = discs(fraction, 5, gain=gain, offset=offset)
    read = reading_of(trained.classifier, image, backbone)
    found = (read.predict() == 2).mean()
    assert found == pytest.approx(inside.mean(), abs=0.015)


def test_by_its_own_levels_an_empty_image_is_filled(trained, backbone):
    image, _ = discs(0.0, 5)
    features = compute_features(image, backbone)
    assert (trained.classifier.predict(features) == 2).mean() > 0.05


def test_one_image_is_segmented_as_ever(trained, backbone):
    image, inside = discs(0.25)
    features = compute_features(image, backbone)
    plain = PixelClassifier().fit(features, dabs(inside, each=12))
    assert np.array_equal(
        trained.classifier.predict(trained.features[0]), plain.predict(features)
    )
    assert trained.classifier.normalisation.kind == "matched"
    assert "one image" in trained.classifier.normalisation.reason
    assert plain.normalisation.kind == "image"


def test_two_images_choose_by_leaving_one_out(backbone):
    pairs = [discs(0.3, 1), discs(0.04, 2, (90, 143))]
    images, labels = [p[0] for p in pairs], [dabs(p[1]) for p in pairs]
    calls = []
    made = train_series(
        images, labels, backbone, progress=lambda *both: calls.append(both)
    )
    assert set(made.scores) == {"image", "shared", "matched"}
    chosen = made.classifier.normalisation
    assert chosen.kind != "image"
    assert made.scores[chosen.kind] > made.scores["image"] + 0.05
    assert f"{made.scores[chosen.kind]:.2f}" in chosen.reason
    assert calls == sorted(calls)
    assert calls[-1][0] == calls[-1][1]


@pytest.mark.parametrize(
    ("images", "scores", "kind"),
    [
        (4, {"matched": 0.80, "shared": 0.84, "image": 0.7}, "matched"),
        (4, {"matched": 0.80, "shared": 0.7, "image": 0.86}, "image"),
        (3, {"matched": 0.80, "shared": 0.7, "image": 0.86}, "matched"),
        (3, {"matched": 0.80, "shared": 0.7, "image": 0.92}, "image"),
        (2, {"matched": 0.60, "shared": 0.95, "image": 0.9}, "matched"),
        (2, {"matched": 0.30, "shared": 0.75, "image": 0.5}, "shared"),
        (2, {"matched": np.nan, "shared": 0.3, "image": 0.2}, "shared"),
        (4, {"matched": np.nan, "shared": np.nan, "image": np.nan}, "matched"),
    ],
)
def test_another_normalisation_must_be_clearly_better(images, scores, kind):
    assert _best(scores, images)[0] == (kind,)


def test_each_image_is_predicted_by_the_others(backbone):
    pairs = [discs(0.3, 1), discs(0.1, 2, (90, 143))]
    images, labels = [p[0] for p in pairs], [dabs(p[1]) for p in pairs]
    results = list(predict_left_out(images, labels, backbone, normalisation="shared"))
    assert [each.index for each in results] == [0, 1]
    for (_, inside), result in zip(pairs, results, strict=True):
        assert ((result.segmentation == 2) == inside).mean() > 0.97
        other = images[1 - result.index]
        mean, deviation = result.classifier.normalisation.levels
        assert mean == pytest.approx(other.mean())
        assert deviation == pytest.approx(other.std())


def test_masks_and_pixel_sizes_go_along_with_images_left_out(backbone):
    pairs = [discs(0.3, 1), discs(0.1, 2, (90, 143))]
    images, labels = [p[0] for p in pairs], [dabs(p[1]) for p in pairs]
    masks, ratios = [np.indices(images[0].shape)[0] < 60, None], [(0.5, 0.5), None]
    found = predict_left_out(
        *(images, labels, backbone),
        normalisation="image",
        exclusion=masks,
        pixel_ratios=ratios,
    )
    features = [
        compute_resampled(i, backbone, r) for i, r in zip(images, ratios, strict=True)
    ]
    for (own, result), other in zip(enumerate(found), (1, 0), strict=True):
        wanted = PixelClassifier().fit(
            features[other], labels[other], exclusion=masks[other]
        )
        np.testing.assert_array_equal(
            result.segmentation, wanted.predict(features[own])
        )


def test_a_backbone_of_absolute_levels_needs_no_normalisation():
    image, inside = discs(0.25)
    made = train_series([image] * 2, [dabs(inside)] * 2, load_backbone("filters"))
    assert made.classifier.normalisation.kind == "image"
    assert made.classifier.normalisation.match(image).levels is None


def test_the_file_of_a_classifier_keeps_its_normalisation(trained, tmp_path):
    trained.classifier.save(tmp_path / "discs.safetensors")
    loaded = PixelClassifier.load(tmp_path / "discs.safetensors")
    assert loaded.normalisation == trained.classifier.normalisation
    image, _ = discs(0.1, 5)
    matches = [one.normalisation.match(image) for one in (loaded, trained.classifier)]
    assert matches[0] == matches[1]


def test_what_was_chosen_is_taken(backbone):
    image, inside = discs(0.25)
    made = train_series([image], [dabs(inside)], backbone, normalisation="image")
    assert made.classifier.normalisation.match(image).levels is None
    assert made.classifier.normalisation.reason == "chosen"


def test_bad_input_gets_a_sentence(backbone):
    image, inside = discs(0.25)
    labels = dabs(inside)
    with pytest.raises(ValueError, match="nothing is labelled in image 2"):
        train_series([image, image], [labels, 0 * labels], backbone)
    with pytest.raises(ValueError, match="2 label images"):
        train_series([image], [labels, labels], backbone)
    with pytest.raises(ValueError, match="normalisation: 'own'"):
        train_series([image], [labels], backbone, normalisation="own")
    with pytest.raises(ValueError, match="two at least"):
        list(predict_left_out([image], [labels], backbone))
    for ratios in ([(1, 1)], [(1, 1)] * 3):
        with pytest.raises(ValueError, match="pixel_ratios: .* for 2 images"):
            train_series([image] * 2, [labels] * 2, backbone, pixel_ratios=ratios)
    with pytest.raises(ValueError, match="pixel_ratio: 0.5 is not two numbers"):
        train_series([image], [labels], backbone, pixel_ratios=[0.5])
    with pytest.raises(Cancelled):
        train_series([image], [labels], backbone, should_stop=lambda: True)


def test_a_labelled_image_gets_what_it_was_trained_on(trained, backbone):
    image, _ = discs(0.25)
    read = reading_of(trained.classifier, image, backbone)
    assert read.classifier is trained.classifier
    assert read.doubt is None
    assert np.array_equal(read.predict(), read.classifier.predict(trained.features[0]))
    other = image.copy()
    other[0, 0] += 1
    assert trained.classifier.normalisation.known_levels(other) == (False, None)


def test_adapting_is_a_fit_with_one_more_image(trained, backbone, monkeypatch):
    """Against the slow obvious way: the new image in the fit, with no labels."""
    monkeypatch.setattr(alignment, "ROUNDS", 0)
    image, _ = discs(0.1, 5)
    first, inside = discs(0.25)
    read = reading_of(trained.classifier, image, backbone)
    new, adapted = read.features, read.classifier
    known = compute_features(first, backbone)
    labels = [dabs(inside, each=12), np.zeros(image.shape, np.uint8)]
    whole = PixelClassifier().fit([known, new], labels)
    assert (adapted.predict(new) == whole.predict(new)).mean() > 0.995
    assert adapted.trained_on is trained.classifier.trained_on


def test_what_a_channel_says_may_shift_and_stretch(trained, backbone):
    image, _ = discs(0.1, 5)
    features = compute_features(image, backbone)
    own = features.parts[0]
    change = 0.4 * own.tokens.std((0, 1, 2))
    moved = with_context(
        HighResFeatures(
            1.1 * own.tokens + change,
            "identity",
            own.shape[1:],
            own.patch_size,
            own.rows.stride,
            boundary=own.boundary,
            channel_weights=own.channel_weights,
        ),
        EmbeddedBackbone.context_cell,
    )
    sure = trained.classifier.adapted_to(features).predict_proba(features)
    adapted = trained.classifier.adapted_to(moved).predict_proba(moved)
    as_it_is = trained.classifier.predict_proba(moved)
    assert abs(adapted - sure).mean() < 0.5 * abs(as_it_is - sure).mean()


def test_a_file_adapts_as_the_classifier_does(trained, backbone, tmp_path):
    trained.classifier.save(tmp_path / "discs.safetensors")
    loaded = PixelClassifier.load(tmp_path / "discs.safetensors")
    image, _ = discs(0.1, 5)
    read = reading_of(trained.classifier, image, backbone)
    again = loaded.adapted_to(read.features)
    assert np.array_equal(again.predict(read.features), read.predict())


def test_what_is_excluded_does_not_train(trained, backbone):
    image, _ = discs(0.1, 5)
    mask = np.zeros(image.shape, bool)
    mask[60:] = True
    features = compute_features(image, backbone)
    some = trained.classifier.adapted_to(features, exclusion=mask)
    all_ = trained.classifier.adapted_to(features)
    assert not np.array_equal(some.weight, all_.weight)
    none = trained.classifier.adapted_to(features, exclusion=np.ones_like(mask))
    assert (none.predict(features) == trained.classifier.predict(features)).mean() > 0.9


def test_a_plain_fit_adapts_to_nothing(backbone):
    image, inside = discs(0.25)
    features = compute_features(image, backbone)
    plain = PixelClassifier().fit(features, dabs(inside))
    assert plain.adapted_to(features) is plain


@pytest.mark.parametrize("kind", ["shared", "matched"])
def test_images_in_blocks_share_grey_levels_as_in_memory(backbone, kind):
    pairs = [discs(0.3, 1), discs(0.1, 2, (90, 143), 0.8, 25)]
    images, labels = [p[0] for p in pairs], [dabs(p[1]) for p in pairs]
    mask = np.zeros(images[0].shape, bool)
    mask[:, :31] = True
    labels[0][mask] = 0
    given = {"normalisation": kind, "exclusion": [mask, None]}
    wanted = train_series(images, labels, backbone, **given).classifier
    made = train_series(images, labels, backbone, **given, blocks=True)
    assert made.classifier.normalisation == wanted.normalisation
    assert np.allclose(made.classifier.weight, wanted.weight, atol=1e-4)
    for image, features in zip(images, made.features, strict=True):
        read = reading_of(wanted, image, backbone)
        same = made.classifier.predict(features) == wanted.predict(read.features)
        assert same.mean() > 0.9999


@pytest.mark.parametrize("kind", ["shared", "matched"])
def test_of_large_images_only_windows_and_what_is_painted_are_looked_at(
    backbone, kind, monkeypatch
):
    pairs = [discs(0.3, 1, (331, 318)), discs(0.1, 2, (290, 343), 0.8, 25)]
    images, labels = [p[0] for p in pairs], [dabs(p[1]) for p in pairs]
    wanted = train_series(images, labels, backbone, normalisation=kind).classifier
    monkeypatch.setattr("napari_hrdv2.core.features.levels.WINDOW", 48)
    made = train_series(images, labels, backbone, normalisation=kind, blocks=True)
    found = made.classifier.normalisation
    assert found.levels == pytest.approx(wanted.normalisation.levels, rel=0.05)
    assert found.levels != wanted.normalisation.levels
    assert found.fractions == pytest.approx(wanted.normalisation.fractions, abs=0.05)


@pytest.mark.parametrize("blocks", [False, True])
def test_images_of_two_pixel_sizes_are_seen_with_one(backbone, blocks):
    image, inside = discs(0.25)
    finer, within = (np.kron(part, np.ones((2, 2), np.uint8)) for part in discs(0.3, 3))
    finer = (finer + np.random.default_rng(1).normal(0, 8, finer.shape)).clip(0, 255)
    given = [image, finer.astype(np.uint8)], [dabs(inside), dabs(within > 0)]
    about = {"normalisation": "image", "blocks": blocks}
    ratios = [(1.0, 1.0), (0.5, 0.5)]
    seen = train_series(*given, backbone, pixel_ratios=ratios, **about)
    resized = compute_resampled(given[0][1], backbone, (0.5, 0.5))
    at = np.array([3, 100, 201]), np.array([5, 77, 230])
    apart = seen.features[1].sample(*at) - resized.sample(*at)
    assert np.abs(apart).max() < 0.02 * np.abs(resized.sample(*at)).max()
    plain = train_series(*given, backbone, **about)
    first = np.array([3, 70]), np.array([5, 77])
    np.testing.assert_array_equal(
        seen.features[0].sample(*first), plain.features[0].sample(*first)
    )
    assert seen.features[1].shape == plain.features[1].shape
    assert seen.classifier.labels_hash == plain.classifier.labels_hash
    assert not np.array_equal(seen.classifier.weight, plain.classifier.weight)


def test_known_features_of_resampled_images_are_taken(backbone):
    images, insides = zip(discs(0.25), discs(0.3, 3), strict=True)
    labels = [dabs(inside) for inside in insides]
    ratios = [(1.0, 1.0), (0.5, 0.5)]
    known = [
        compute_resampled(i, backbone, r) for i, r in zip(images, ratios, strict=True)
    ]
    about = {"normalisation": "image", "pixel_ratios": ratios}
    made = train_series(images, labels, backbone, known=known, **about).classifier
    anew = train_series(images, labels, backbone, **about).classifier
    np.testing.assert_array_equal(made.weight, anew.weight)
