"""Coarse parts of joined features are trusted as far as the scribbles tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_hrdv2 import HighResFeatures, PixelClassifier
from napari_hrdv2.core.classifier import joining
from napari_hrdv2.core.classifier.background import BackgroundSample
from napari_hrdv2.core.classifier.joining import (
    BIAS,
    RIDGE,
    SHARES,
    coarse_channels,
    folds_of,
    held_out_losses,
    trusted,
)
from napari_hrdv2.core.classifier.samples import TrainingSamples, labelled_images
from napari_hrdv2.core.features.base import JoinedFeatures
from napari_hrdv2.core.features.options import PartOptions

SHAPE = (70, 98)


def part(name, channels):
    return PartOptions(name, "abc", "identity", 1, channels)


def joined(told_by, channels=4, seed=0, shape=SHAPE):
    """Features of embedded and of a ViT, of which one knows left from right.

    The other part knows where scribbles are: it is the same within squares of 14 px.
    """
    rng = np.random.default_rng(seed)
    knows = rng.normal(0, 1, (*shape, channels)) + 0.0
    knows[:, shape[1] // 2 :] += 1.5
    grid = rng.normal(0, 1, (*[-(-n // 14) for n in shape], channels))
    guesses = grid.repeat(14, 0).repeat(14, 1)[: shape[0], : shape[1]]
    maps = {"fine": (knows, guesses), "coarse": (guesses, knows)}[told_by]
    names = "embedded", "dinov2-small"
    return JoinedFeatures(
        [
            HighResFeatures(
                torch.from_numpy(one[None]).float(),
                *("identity", shape, 1, 1),
                options=part(name, channels),
            )
            for name, one in zip(names, maps, strict=True)
        ]
    )


def scribbles(shape=SHAPE):
    labels = np.zeros(shape, np.uint8)
    for row in (3, 20, 37, 54, 66):
        labels[row : row + 2, 5:25] = 1
        labels[row : row + 2, 70:90] = 2
    return labels


def training_of(features, labels):
    images = labelled_images(features, labels, None)
    return images, TrainingSamples.read(images, None, balanced=True, by_place=True)


def factor_of(features, labels):
    """The weight of the coarse channels."""
    images, training = training_of(features, labels)
    table = torch.from_numpy(BackgroundSample.of(images, training.rows).rows)
    fine, coarse = trusted(training, table).split(features.shape[0] // 2)
    torch.testing.assert_close(fine, torch.ones_like(fine))
    return float(coarse.unique())


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("dinov2-small", "filters"), [True, False]),
        (("embedded", "dino-small-8"), [False, True]),
        (("dino-small-8", "dinov2-small"), None),
        (("embedded", "filters"), None),
        (("mine", "dinov2-small"), [False, True]),
        (("dinov2-small",), None),
        ((), None),
    ],
)
def test_coarse_is_what_has_patches_of_four_times_the_size(names, expected):
    found = coarse_channels([part(name, 3) for name in names])
    if expected is not None:
        found, expected = found.tolist(), list(np.repeat(expected, 3))
    assert found == expected


@pytest.mark.parametrize("classes", [2, 3])
def test_the_closed_form_is_leaving_out_and_fitting_again(classes):
    rng = np.random.default_rng(3)
    parts = [torch.from_numpy(rng.normal(size=(41, n))) for n in (5, 3)]
    index = torch.from_numpy(rng.permutation(np.arange(41) % classes))
    weights = torch.from_numpy(rng.uniform(0.2, 3, 41))
    folds = rng.integers(0, 6, 41)
    found = held_out_losses(*parts, index, weights, folds)
    targets = np.where(index[:, None] == np.arange(classes), 1.0, -1.0)
    for share, loss in zip(SHARES, found, strict=True):
        table = [parts[0], share**0.5 * parts[1], torch.full((41, 1), BIAS**0.5)]
        table, errors = torch.cat(table, 1).numpy(), np.empty_like(targets)
        for fold in range(6):
            rest, own = folds != fold, folds == fold
            weighed = table[rest].T * weights.numpy()[rest]
            square = weighed @ table[rest] + RIDGE * np.eye(9)
            model = np.linalg.solve(square, weighed @ targets[rest])
            errors[own] = targets[own] - table[own] @ model
        expected = np.average((errors**2).mean(1), weights=weights)
        assert loss == pytest.approx(expected, rel=1e-4)


def test_scribbles_are_left_out_one_by_one():
    labels = np.zeros((80, 100), np.uint8)
    labels[5:8, 5:60] = 1  # over several places
    labels[50:52, 10:20] = 1
    labels[30, :40] = 2  # a single one: by its three places
    _, training = training_of(joined("fine", shape=labels.shape), labels)
    folds = folds_of(training)
    rows, columns = np.divmod(training.orders[0], 100)
    names = np.select(
        [training.index == 1, rows < 20], [2 + columns // 16, 0], default=1
    )
    pairs = set(zip(folds.tolist(), names.tolist(), strict=True))
    assert len(pairs) == len(set(folds)) == len(set(names)) == 5


def test_many_scribbles_of_two_images_are_not_mixed_up(monkeypatch):
    labels = np.zeros((100, 400), np.uint8)
    labels[::40, ::40], labels[20::40, ::40] = 1, 2
    both = [joined("fine", seed=seed, shape=labels.shape) for seed in (0, 1)]
    _, training = training_of(both, [labels, labels])
    counts = [len(set(folds_of(training)[training.index == k])) for k in (0, 1)]
    assert counts == [joining.MOST_FOLDS] * 2
    monkeypatch.setattr(joining, "MOST_FOLDS", 1000)
    folds = folds_of(training)
    assert len(np.unique(folds)) == len(folds) == 2 * np.count_nonzero(labels)


def test_what_tells_classes_apart_is_trusted():
    for seed in range(3):
        fine, coarse = (joined(kind, seed=seed) for kind in ("fine", "coarse"))
        labels = scribbles()
        assert factor_of(fine, labels) <= 0.5 < 1 <= factor_of(coarse, labels)


def test_little_evidence_leaves_the_usual_share(monkeypatch):
    monkeypatch.setattr(joining, "DOUBT", 1e3)
    usual = SHARES[joining.USUAL] ** 0.5
    for kind in ("fine", "coarse"):
        assert factor_of(joined(kind), scribbles()) == pytest.approx(usual)


def test_joining_loses_little_to_the_better_part():
    labels, truth = scribbles(), np.ones(SHAPE, int)
    truth[:, SHAPE[1] // 2 :] = 2
    for kind in ("fine", "coarse"):
        features = joined(kind)
        better = features.parts[kind == "coarse"]
        scores = [
            (PixelClassifier().fit(one, labels).predict(one) == truth).mean()
            for one in (features, better)
        ]
        assert scores[0] > scores[1] - 0.03


def test_where_pixels_count_all_parts_are_trusted_alike():
    features, labels = joined("fine"), scribbles()
    for by_place in (True, False):
        classifier = PixelClassifier(by_place=by_place).fit(features, labels)
        weights = classifier._background.channel_weights
        assert (len(weights.unique()) == 1) == (not by_place)


def test_a_scribble_may_change_the_share_and_taking_it_back_returns_to_it(monkeypatch):
    features, labels = joined("fine"), scribbles()
    wrong = labels.copy()
    wrong[30:34, 5:25] = 2
    shares = iter((0.2, 0.4, 0.2))

    def chosen(training, table):
        return torch.tensor([1.0] * 4 + [next(shares)] * 4)

    monkeypatch.setattr("napari_hrdv2.core.classifier.pixel_classifier.trusted", chosen)
    classifier = PixelClassifier(tolerance=1e-7)
    classifier.fit(features, labels)
    first = classifier._background
    weight = classifier.weight
    classifier.fit(features, wrong)
    assert classifier._background.coordinates is not first.coordinates
    classifier.fit(features, labels)
    assert classifier._background.coordinates is first.coordinates
    assert len(classifier._background.others) == 1
    np.testing.assert_allclose(classifier.weight, weight, atol=1e-3)


def test_what_adapts_to_new_images_trusts_alike():
    features, labels = joined("fine"), scribbles()
    classifier = PixelClassifier(most_per_class=None).fit(features, labels)
    classifier.keep_training([features], [labels])
    expected = classifier._background.channel_weights.numpy()
    np.testing.assert_array_equal(classifier.trained_on.channel_weights, expected)
    classifier.by_place = False
    classifier.keep_training([features], [labels])
    assert set(classifier.trained_on.channel_weights) == {1}
