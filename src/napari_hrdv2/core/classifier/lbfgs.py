"""Limited-memory BFGS [1]_ for smooth convex functions of a few thousand variables.

It runs after every stroke. PyTorch's spends more time between evaluations than in them,
which makes such a fit twice as slow, and SciPy's leaves threads that spin on the cores
that the evaluation needs. This one is a few NumPy operations on vectors.

Values are sums of float32 terms, and near the minimum rounding hides what a step gains.
The slopes at both ends of the step still tell [2]_.

References
----------
.. [1] J. Nocedal, "Updating quasi-Newton matrices with limited storage", Mathematics of
   Computation 35, 773-782 (1980).
.. [2] W. W. Hager and H. Zhang, "A new conjugate gradient method with guaranteed
   descent and an efficient line search", SIAM Journal on Optimization 16, 170-192
   (2005).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]
    Function = Callable[[Vector], tuple[float, Vector]]

MEMORY = 10  # steps that tell the curvature
MAXIMUM_STEPS = 500
MAXIMUM_TRIALS = 10  # lengths of a step
DECREASE = 1e-4  # of what the slope promises, for a step to be good
ROUNDING = 1e-6  # of a value
FLATTER = 0.9  # the slope after a step, against before, where rounding hides its gain
LEAST_CURVATURE = 1e-10  # against the change of the gradient


def minimum(function: Function, start: Vector, *, tolerance: float) -> Vector:
    """Return where a function is smallest.

    Parameters
    ----------
    function : callable
        Gives the value and the (n,) float64 gradient. What it raises ends the search.
    start : (n,) float64 array
        Near the minimum and scaled so that the curvature is about 1, if possible.
    tolerance : float
        Largest component of the gradient that counts as zero.

    Returns
    -------
    (n,) float64 array
        Where rounding allows no better place, or after `MAXIMUM_STEPS`, the last one.
    """
    here = _Place.of(function, start)
    steps: deque[_Step] = deque(maxlen=MEMORY)
    for _ in range(MAXIMUM_STEPS):
        if np.abs(here.gradient).max() <= tolerance:
            break
        there = _moved(function, here, _direction(here.gradient, steps))
        if there is None:
            break
        step = _Step.of(there.point - here.point, there.gradient - here.gradient)
        if step.curvature > LEAST_CURVATURE * float(step.change @ step.change):
            steps.append(step)
        here = there
    return here.point


@dataclass(frozen=True)
class _Place:
    """A point with the function's value and gradient."""

    point: Vector
    value: float
    gradient: Vector

    @classmethod
    def of(cls, function: Function, point: Vector) -> Self:
        return cls(point, *function(point))


@dataclass(frozen=True)
class _Step:
    """A step, the change of the gradient over it, and the product of both."""

    step: Vector
    change: Vector
    curvature: float

    @classmethod
    def of(cls, step: Vector, change: Vector) -> Self:
        return cls(step, change, float(step @ change))


def _direction(gradient: Vector, steps: deque[_Step]) -> Vector:
    """Return where Newton's method would go, as far as former steps tell."""
    direction = -gradient
    shares = []
    for each in reversed(steps):
        shares.append(each.step @ direction / each.curvature)
        direction -= shares[-1] * each.change
    if steps:
        last = steps[-1]
        direction *= last.curvature / (last.change @ last.change)
    for each, share in zip(steps, reversed(shares), strict=True):
        direction += (share - each.change @ direction / each.curvature) * each.step
    return direction


def _moved(function: Function, here: _Place, direction: Vector) -> _Place | None:
    """Return a better place in a direction, or None if there seems to be none."""
    slope = float(here.gradient @ direction)
    length = 1.0
    for _ in range(MAXIMUM_TRIALS):
        there = _Place.of(function, here.point + length * direction)
        new_slope = float(there.gradient @ direction)
        rise = there.value - here.value
        if rise < 0 and rise <= DECREASE * length * slope:
            return there
        is_hidden = rise <= ROUNDING * abs(here.value)
        if is_hidden and abs(new_slope) <= FLATTER * abs(slope):
            return there
        length *= min(max(_lowest(rise, length * slope, length * new_slope), 0.1), 0.7)
    return None


def _lowest(rise: float, slope: float, new_slope: float) -> float:
    """Return where in 0..1 the cubic through both ends of a step is lowest."""
    bend = slope + new_slope - 3 * rise
    square = bend * bend - slope * new_slope
    if not square >= 0:  # no such place, or no numbers
        return 0.5
    root = math.sqrt(square)
    return 1 - (new_slope + root - bend) / (new_slope - slope + 2 * root)
