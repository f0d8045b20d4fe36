"""The search for a minimum, against solvers that take their time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from napari_hrdv2.core.classifier.lbfgs import minimum


def bowl(size=40, steepest=1e3, seed=0):
    """A convex quadratic function, and where it is smallest."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((size, size)))[0]
    matrix = turn @ np.diag(np.geomspace(1, steepest, size)) @ turn.T
    place = rng.standard_normal(size)

    def function(point):
        gradient = matrix @ (point - place)
        return float(0.5 * (point - place) @ gradient), gradient

    return function, place


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
    function, place = bowl(steepest=steepest)
    found = minimum(function, np.zeros(40), tolerance=1e-7)
    np.testing.assert_allclose(found, place, atol=1e-6)


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
    function, place = bowl()
    counted, start = Counted(function), place + 1e-9
    assert minimum(counted, start, tolerance=1e-4) is start
    assert counted.calls == 1


@pytest.mark.parametrize(
    ("function", "start"),
    [(softplus(), np.full(30, 0.5)), (lopsided, np.array([-0.1]))],
)
def test_values_never_rise_from_step_to_step(monkeypatch, function, start):
    values = []
    for most in range(12):
        monkeypatch.setattr("napari_hrdv2.core.classifier.lbfgs.MAXIMUM_STEPS", most)
        found = minimum(function, start, tolerance=1e-8)
        values.append(function(found)[0])
    assert (np.diff(values) <= 1e-9).all()
    assert values[-1] < values[0]


def test_it_goes_on_where_rounding_hides_what_a_step_gains():
    function, place = bowl()

    def rounded(point):  # the value is near 5 wherever it matters
        value, gradient = function(point)
        return float(np.float32(value + 5)), gradient.astype(np.float32).astype(float)

    counted = Counted(rounded)
    found = minimum(counted, place + 0.01, tolerance=1e-5)
    np.testing.assert_allclose(found, place, atol=1e-4)
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
