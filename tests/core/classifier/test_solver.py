"""The solver finds the optimum that scikit-learn finds, from anywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from napari_hrdv2.core.classifier.background import LinearModel, PCACoordinates
from napari_hrdv2.core.classifier.logistic import _Objective
from napari_hrdv2.core.classifier.self_training import (
    SelfTrainingRounds,
    fit_with_self_training,
)
from napari_hrdv2.core.errors import Cancelled


def blobs(count=400, channels=12, classes=3, seed=0):
    """Overlapping classes in correlated channels of very different scale."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count) ** 2 % classes
    labels[:classes] = np.arange(classes)
    mixing = rng.standard_normal((channels, channels))
    samples = rng.standard_normal((count, channels)) @ mixing
    samples += rng.standard_normal((classes, channels))[labels]
    samples = samples * np.logspace(-3, 3, channels) + 5
    return samples.astype(np.float32), labels


def balanced(labels):
    counts = np.bincount(labels)
    return (len(labels) / (len(counts) * counts))[labels].astype(np.float32)


def log_probability(model, samples):
    logits = samples @ model.weight.T + model.bias
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def fit(
    samples, labels, tolerance=1e-6, channel_weights=None, coordinates=None, **options
):
    """Fit to these samples alone; coordinates that are only turned change nothing."""
    coordinates = coordinates or PCACoordinates.of(
        torch.from_numpy(samples), channel_weights, kept=1, whitening=0
    )
    return fit_with_self_training(
        coordinates(torch.from_numpy(samples)),
        labels,
        coordinates=coordinates,
        regularisation=1.0,
        sample_weight=balanced(labels),
        tolerance=tolerance,
        **options,
    )


def test_probabilities_equal_those_of_scikit_learn():
    samples, labels = blobs()
    model = fit(samples, labels).result
    scaled = StandardScaler().fit_transform(samples.astype(np.float64))
    reference = LogisticRegression(class_weight="balanced", tol=1e-8, max_iter=5000)
    expected = reference.fit(scaled, labels).predict_log_proba(scaled)
    np.testing.assert_allclose(log_probability(model, samples), expected, atol=0.05)


def test_trust_is_a_factor_on_the_standardised_channels():
    samples, labels = blobs()
    channel_weights = np.geomspace(0.2, 4, samples.shape[1]).astype(np.float32)
    model = fit(
        samples, labels, channel_weights=torch.from_numpy(channel_weights)
    ).result
    scaled = (
        StandardScaler().fit_transform(samples.astype(np.float64)) * channel_weights
    )
    reference = LogisticRegression(class_weight="balanced", tol=1e-8, max_iter=5000)
    expected = reference.fit(scaled, labels).predict_log_proba(scaled)
    np.testing.assert_allclose(log_probability(model, samples), expected, atol=0.05)
    plain = fit(samples, labels).result
    assert not np.allclose(plain.weight, model.weight, rtol=0.1)


def test_a_warm_start_ends_where_a_cold_one_does():
    samples, labels = blobs(500)
    coordinates = PCACoordinates.of(torch.from_numpy(samples))
    cold = fit(samples, labels, coordinates=coordinates)
    former = fit(samples[:450], labels[:450], coordinates=coordinates)
    warm = fit(samples, labels, coordinates=coordinates, start=former)
    assert warm.preconditioners[0] is former.preconditioners[0]
    np.testing.assert_allclose(
        log_probability(warm.result, samples),
        log_probability(cold.result, samples),
        atol=0.05,
    )


def test_starting_at_the_optimum_changes_nothing_to_speak_of():
    samples, labels = blobs()
    optimum = fit(samples, labels)
    again = fit(samples, labels, 1e-4, start=optimum).result
    np.testing.assert_allclose(
        log_probability(again, samples),
        log_probability(optimum.result, samples),
        atol=1e-3,
    )


def test_the_same_samples_give_the_same_model_to_the_bit():
    samples, labels = blobs()
    first, second = fit(samples, labels).result, fit(samples, labels).result
    assert np.array_equal(first.weight, second.weight)
    assert np.array_equal(first.bias, second.bias)


def test_a_preconditioner_of_other_classes_is_not_used():
    samples, labels = blobs()
    coordinates = PCACoordinates.of(torch.from_numpy(samples))
    former = fit(samples, labels.clip(max=1), coordinates=coordinates)
    start = SelfTrainingRounds(coordinates, (), former.preconditioners)
    fresh = fit(samples, labels, coordinates=coordinates, start=start)
    assert fresh.preconditioners[0] is not former.preconditioners[0]


def test_a_preconditioner_of_another_coordinates_is_not_used():
    samples, labels = blobs()
    former = fit(samples, labels)
    fresh = fit(
        samples,
        labels,
        coordinates=PCACoordinates.of(torch.from_numpy(samples), kept=1),
    )
    same = fit(samples, labels, coordinates=former.coordinates, start=former)
    assert same.preconditioners[0] is former.preconditioners[0]
    other = fit(samples, labels, coordinates=fresh.coordinates, start=former)
    assert other.preconditioners[0] is not former.preconditioners[0]


@pytest.mark.parametrize("constant", [0.0, 1.0, -4e4])
def test_a_channel_that_does_not_vary_is_left_out(constant):
    samples, labels = blobs()
    samples[:, 4] = constant
    model = fit(samples, labels).result
    assert np.isfinite(model.weight).all()
    assert np.abs(model.weight[:, 4]).max() < 1e-6


def test_a_channel_of_rounding_errors_gets_no_weight():
    samples, labels = blobs()
    samples[:, 4] = 1e-9 * labels  # would separate the classes perfectly
    model = fit(samples, labels).result
    assert np.abs(model.weight[:, 4]).max() < 1e-3


def test_one_sample_per_class_is_enough():
    model = fit(np.float32([[0, 1], [3, 1]]), np.array([0, 1])).result
    assert (np.float32([[-1, 1], [4, 1]]) @ model.weight.T + model.bias).argmax(
        1
    ).tolist() == [0, 1]
    assert isinstance(model, LinearModel)


def test_stopping_is_possible_between_evaluations():
    samples, labels = blobs()
    asked = []

    def counted():
        asked.append(None)
        return False

    expected = fit(samples, labels).result
    model = fit(samples, labels, should_stop=counted).result
    assert np.array_equal(model.weight, expected.weight)
    for last in range(len(asked)):
        answers = iter([False] * last)
        with pytest.raises(Cancelled, match="the fit was cancelled"):
            fit(samples, labels, should_stop=lambda left=answers: next(left, True))
    assert len(asked) > 5


@pytest.fixture
def evaluated(monkeypatch):
    """The coefficients at which the loss has been evaluated."""
    points, evaluate = [], _Objective.__call__
    monkeypatch.setattr(
        _Objective, "__call__", lambda self, at: points.append(at) or evaluate(self, at)
    )
    return points


@pytest.mark.parametrize("tolerance", [1e-4, 1e-5, 1e-6])
def test_few_evaluations_do_although_the_loss_is_rounded(evaluated, tolerance):
    samples, labels = blobs()
    cold = fit(samples, labels, tolerance)
    first = len(evaluated)
    warm = fit(samples, labels, tolerance, start=cold, coordinates=cold.coordinates)
    assert first < 100
    assert len(evaluated) - first < 20
    np.testing.assert_allclose(warm.result.weight, cold.result.weight, rtol=0.01)


def test_a_start_that_is_wrong_now_costs_no_more_than_a_few_fits_from_zero(evaluated):
    samples, labels = blobs()
    others = (labels + 1) % (labels.max() + 1)
    former = fit(samples, labels)
    counts, found = [], []
    for start in (None, former):
        evaluated.clear()
        found.append(
            fit(samples, others, 1e-5, start=start, coordinates=former.coordinates)
        )
        counts.append(len(evaluated))
    assert counts[1] < 4 * counts[0]
    probabilities = [log_probability(each.result, samples) for each in found]
    np.testing.assert_allclose(*probabilities, atol=0.05)
