"""Unlabelled pixels train where the classifier is sure of them."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from napari_hrdv2 import PixelClassifier
from napari_hrdv2.core.classifier.background import PCACoordinates
from napari_hrdv2.core.classifier.fitting import (
    ROUNDS,
    SURE,
    UNSURE,
    fit_with_self_training,
)
from synthetic import dots, halves


def two_clouds(count=600, seed=0):
    """Two clouds that a line parts, with a few labels far from where they meet."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(count) % 2
    rows = rng.standard_normal((count, 4)) * [3, 0.4, 1, 1]
    rows[:, 1] += 2.2 * truth
    return rows.astype(np.float32), truth


def fitted(rows, classes, unlabelled, regularisation=0.5, **options):
    coordinates = PCACoordinates.of(
        torch.from_numpy(np.concatenate([rows, unlabelled]))
    )
    others = coordinates(torch.from_numpy(unlabelled))
    return coordinates, fit_with_self_training(
        coordinates(torch.from_numpy(rows)),
        classes,
        coordinates=coordinates,
        regularisation=regularisation,
        sample_weight=np.ones(len(rows), np.float32),
        tolerance=1e-6,
        unlabelled=others,
        **options,
    )


def test_it_equals_the_slow_way_with_scikit_learn():
    rows, truth = two_clouds()
    few, rest = np.r_[0:12], rows[12:]
    coordinates, rounds = fitted(rows[few], truth[few], rest)
    # For two classes scikit-learn has one row of coefficients, and half the penalty.
    model = LogisticRegression(C=1.0, tol=1e-10, max_iter=10000)
    labelled, others = (
        coordinates(torch.from_numpy(part))[:-1].T.numpy() for part in (rows[few], rest)
    )
    model.fit(labelled, truth[few])
    for _ in range(ROUNDS):
        probability = model.predict_proba(others)
        counts = np.clip((probability.max(1) - UNSURE) / (SURE - UNSURE), 0, 1)
        model.fit(
            np.concatenate([labelled, others]),
            np.concatenate([truth[few], probability.argmax(1)]),
            np.concatenate([np.ones(12), counts * 12 / len(others)]),
        )
    found, first = (
        (torch.from_numpy(rest) @ each.weight.T + each.bias).softmax(1).numpy()
        for each in (rounds.result, rounds.models[0])
    )
    np.testing.assert_allclose(found, model.predict_proba(others), atol=5e-3)
    assert abs(found - first).max() > 0.1
    assert len(rounds.models) == 1 + ROUNDS


def test_unlabelled_pixels_show_where_classes_end():
    rows, truth = two_clouds()
    few = np.r_[np.flatnonzero(truth == 0)[:2], np.flatnonzero(truth == 1)[:2]]
    _, rounds = fitted(rows[few], truth[few], rows, regularisation=10)
    right = [
        ((rows @ each.weight.numpy().T + each.bias.numpy()).argmax(1) == truth).mean()
        for each in (rounds.models[0], rounds.result)
    ]
    assert right[1] > right[0]


def test_what_it_is_not_sure_of_does_not_count():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((40, 3)).astype(np.float32)
    classes = np.arange(40) % 2  # nothing tells them apart
    _, rounds = fitted(rows, classes, 0.01 * rows)
    first, last = rounds.models[0], rounds.result
    faint = torch.from_numpy(0.01 * rows)
    probability = (faint @ first.weight.T + first.bias).softmax(1)
    assert float(probability.max()) < UNSURE
    np.testing.assert_allclose(last.weight, first.weight, atol=1e-3)


def test_many_classes_and_a_warm_start_end_where_a_cold_one_does():
    rows, _ = two_clouds()
    classes = np.arange(30) % 3
    _, cold = fitted(rows[:30], classes, rows[30:])
    _, warm = fitted(rows[:30], classes, rows[30:], start=cold)
    models = [[part.numpy() for part in each.result] for each in (cold, warm)]
    logits = [rows @ weight.T + bias for weight, bias in models]
    np.testing.assert_allclose(*logits, atol=0.05)


def test_it_can_be_switched_off():
    features = halves()
    plain = PixelClassifier(self_training=False).fit(features, dots())
    more = PixelClassifier().fit(features, dots())
    assert not np.allclose(plain.weight, more.weight)
    truth = np.where(np.arange(60) < 30, 1, 2)
    assert (more.predict(features) == truth).mean() > 0.98


def test_an_image_with_everything_labelled_trains():
    labels = np.where(np.arange(60) < 30, 1, 2) * np.ones((40, 1), int)
    features = halves()
    found = PixelClassifier().fit(features, labels).predict(features)
    assert (found == labels).mean() > 0.99
