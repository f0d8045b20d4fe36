"""The solver finds what scikit-learn and SciPy find, from anywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from napari_hrdv2.core.classifier.background import PCACoordinates
from napari_hrdv2.core.classifier.fitting import (
    SelfTrainingRounds,
    fit_with_self_training,
    minimum,
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
    logits = samples @ model.weight.numpy().T + model.bias.numpy()
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def fit(
    samples, labels, tolerance=1e-6, channel_weights=None, coordinates=None, **options
):
    """Fit to these samples alone; coordinates that are only turned change nothing."""
    coordinates = coordinates or PCACoordinates.of(
        torch.from_numpy(samples), channel_weights, kept=1
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


def test_channel_weights_are_factors_on_the_standardised_channels():
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


@pytest.mark.parametrize("whitening", [0.15, 0.5, 1])
def test_whitening_is_what_scikit_learn_finds_with_raised_directions(whitening):
    samples, labels = blobs()
    model = fit(samples, labels, whitening=whitening).result
    scaled = StandardScaler().fit_transform(samples.astype(np.float64))
    variances, directions = np.linalg.eigh(np.cov(scaled.T, bias=True))
    raised = scaled @ directions * (variances / variances.mean()) ** (-whitening / 2)
    reference = LogisticRegression(class_weight="balanced", tol=1e-8, max_iter=5000)
    expected = reference.fit(raised, labels).predict_log_proba(raised)
    np.testing.assert_allclose(log_probability(model, samples), expected, atol=0.05)


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
def test_a_channel_that_does_not_vary_is_dropped(constant):
    samples, labels = blobs()
    samples[:, 4] = constant
    model = fit(samples, labels).result
    assert torch.isfinite(model.weight).all()
    assert model.weight[:, 4].abs().max() < 1e-6


def test_a_channel_of_rounding_errors_gets_no_weight():
    samples, labels = blobs()
    samples[:, 4] = 1e-9 * labels  # would separate the classes perfectly
    model = fit(samples, labels).result
    assert model.weight[:, 4].abs().max() < 1e-3


def test_one_sample_per_class_is_enough():
    model = fit(np.float32([[0, 1], [3, 1]]), np.array([0, 1])).result
    table = torch.tensor([[-1.0, 1], [4, 1]])
    assert (table @ model.weight.T + model.bias).argmax(1).tolist() == [0, 1]


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


class Evaluations:
    """Counts evaluations of the loss: before each the fit asks whether to stop."""

    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1
        return False


@pytest.mark.parametrize("tolerance", [1e-4, 1e-5, 1e-6])
def test_few_evaluations_do_although_the_loss_is_rounded(tolerance):
    samples, labels = blobs()
    first, more = Evaluations(), Evaluations()
    cold = fit(samples, labels, tolerance, should_stop=first)
    warm = fit(
        samples,
        labels,
        tolerance,
        start=cold,
        coordinates=cold.coordinates,
        should_stop=more,
    )
    assert first.count < 100
    assert more.count < 20
    np.testing.assert_allclose(warm.result.weight, cold.result.weight, rtol=0.01)


def test_a_start_that_is_wrong_now_costs_no_more_than_a_few_fits_from_zero():
    samples, labels = blobs()
    others = (labels + 1) % (labels.max() + 1)
    former = fit(samples, labels)
    counts, found = [], []
    for start in (None, former):
        evaluations = Evaluations()
        options = {"coordinates": former.coordinates, "should_stop": evaluations}
        found.append(fit(samples, others, 1e-5, start=start, **options))
        counts.append(evaluations.count)
    assert counts[1] < 4 * counts[0]
    probabilities = [log_probability(each.result, samples) for each in found]
    np.testing.assert_allclose(*probabilities, atol=0.05)


def bowl(size=40, steepest=1e3, seed=0):
    """A convex quadratic function, and where it is smallest."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((size, size)))[0]
    matrix = turn @ np.diag(np.geomspace(1, steepest, size)) @ turn.T
    lowest = rng.standard_normal(size)

    def function(point):
        gradient = matrix @ (point - lowest)
        return float(0.5 * (point - lowest) @ gradient), gradient

    return function, lowest


def softplus(size=30, count=200, seed=1):
    """Logistic losses with a small penalty: flat here, steep there."""
    rng = np.random.default_rng(seed)
    table = 5 * rng.standard_normal((count, size))

    def function(point):
        margins = table @ point + 1
        losses = np.logaddexp(0, margins)
        gradient = table.T @ (1 / (1 + np.exp(-margins))) / count + 1e-3 * point
        return float(losses.mean() + 5e-4 * point @ point), gradient

    return function


def lopsided(point):
    """Falls steeply on the left, rises gently on the right."""
    left = np.exp(-np.logaddexp(0, 40 * point))  # 1 on the left, 0 on the right
    value = 3 * np.logaddexp(0, -40 * point) / 40 + point
    return float(value.sum()), 1 - 3 * left


class Counted:
    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, point):
        self.calls += 1
        return self.function(point)


@pytest.mark.parametrize("steepest", [1, 10, 300])
def test_the_minimum_of_a_bowl_is_found(steepest):
    function, lowest = bowl(steepest=steepest)
    found = minimum(function, np.zeros(40), tolerance=1e-7)
    np.testing.assert_allclose(found, lowest, atol=1e-6)


@pytest.mark.parametrize(
    ("function", "size"), [(softplus(), 30), (bowl(steepest=1e3)[0], 40)]
)
def test_it_finds_what_scipy_finds_in_about_as_many_evaluations(function, size):
    counted, start = Counted(function), np.full(size, 0.5)
    found = minimum(counted, start, tolerance=1e-8)
    options = {"gtol": 1e-8, "ftol": 0, "maxcor": 10}
    reference = minimize(function, start, jac=True, method="L-BFGS-B", options=options)
    np.testing.assert_allclose(found, reference.x, atol=1e-5)
    assert counted.calls < 1.3 * reference.nfev


def test_the_start_is_kept_where_it_is_good_enough():
    function, lowest = bowl()
    counted, start = Counted(function), lowest + 1e-9
    assert minimum(counted, start, tolerance=1e-4) is start
    assert counted.calls == 1


@pytest.mark.parametrize(
    ("function", "start"),
    [(softplus(), np.full(30, 0.5)), (lopsided, np.array([-0.1]))],
)
def test_values_never_rise_from_step_to_step(monkeypatch, function, start):
    values = []
    for most in range(12):
        monkeypatch.setattr("napari_hrdv2.core.classifier.fitting.MOST_STEPS", most)
        found = minimum(function, start, tolerance=1e-8)
        values.append(function(found)[0])
    assert (np.diff(values) <= 1e-9).all()
    assert values[-1] < values[0]


def test_it_goes_on_where_rounding_hides_what_a_step_gains():
    function, lowest = bowl()

    def rounded(point):  # the value is near 5 wherever it matters
        value, gradient = function(point)
        return float(np.float32(value + 5)), gradient.astype(np.float32).astype(float)

    counted = Counted(rounded)
    found = minimum(counted, lowest + 0.01, tolerance=1e-5)
    np.testing.assert_allclose(found, lowest, atol=1e-4)
    assert counted.calls < 300


def test_it_ends_where_neither_value_nor_slope_changes():
    counted = Counted(lambda point: (5.0, np.ones_like(point)))
    start = np.zeros(4)
    assert minimum(counted, start, tolerance=1e-5) is start
    assert counted.calls < 20


def test_a_step_into_what_is_no_number_is_shortened():
    def walled(point):
        if np.abs(point).max() > 2:
            return np.nan, np.full_like(point, np.nan)
        return float(np.cosh(point - 1).sum()), np.sinh(point - 1)

    found = minimum(walled, np.array([-1.9, 1.9]), tolerance=1e-7)
    np.testing.assert_allclose(found, [1, 1], atol=1e-6)


def test_what_the_function_raises_ends_the_search():
    function, _ = bowl()
    counted = Counted(function)

    def refused(point):
        if counted.calls == 3:
            raise InterruptedError("enough")
        return counted(point)

    with pytest.raises(InterruptedError, match="enough"):
        minimum(refused, np.zeros(40), tolerance=1e-7)
