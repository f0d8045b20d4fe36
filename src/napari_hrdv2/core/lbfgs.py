"""Limited-memory BFGS [1]_ for smooth convex functions of a few thousand variables.

It runs after every stroke. PyTorch's spends more time between evaluations than in them,
which makes such a fit twice as slow, and SciPy's leaves threads that spin on the cores
that the evaluation needs. This one is a few NumPy operations on vectors.

References
----------
.. [1] J. Nocedal, "Updating quasi-Newton matrices with limited storage", Mathematics of
   Computation 35, 773-782 (1980).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]
    Function = Callable[[Vector], tuple[float, Vector]]

MEMORY = 10  # pairs of steps and changes of the gradient
MAXIMUM_STEPS = 500
MAXIMUM_HALVINGS = 20
DECREASE = 1e-4  # of what the slope promises, for a step to be long enough
ROUNDING = 1e-9  # of a value that was summed from float32 terms
FLAT = 1e-10  # curvature, against the gradient's change, that tells nothing

Pair = tuple["Vector", "Vector", float]  # step, change of the gradient, 1 / product


def minimum(function: Function, start: Vector, *, tolerance: float) -> Vector:
    """Return where a function is smallest.

    Parameters
    ----------
    function : callable
        Gives the value and the (n,) float64 gradient. What it raises ends the search.
    start : (n,) float64 array
        Near the minimum and scaled so that its curvature is about 1, if possible.
    tolerance : float
        Largest component of the gradient that counts as zero.

    Returns
    -------
    (n,) float64 array
        The last point that was an improvement, if rounding allows no better one.
    """
    pairs: deque[Pair] = deque(maxlen=MEMORY)
    point = start
    value, gradient = function(point)
    for _ in range(MAXIMUM_STEPS):
        if np.abs(gradient).max() <= tolerance:
            break
        direction = -_newton_step(gradient, pairs)
        found = _along(function, point, value, gradient, direction)
        if found is None:
            break
        moved, value, turned = found
        step, change = moved - point, turned - gradient
        curvature = float(step @ change)
        if curvature > FLAT * float(change @ change):
            pairs.append((step, change, 1 / curvature))
        point, gradient = moved, turned
    return point


def _newton_step(gradient: Vector, pairs: deque[Pair]) -> Vector:
    """Return the gradient times the inverse Hessian, as far as steps have told it."""
    product = gradient.copy()
    shares = []
    for step, change, scale in reversed(pairs):
        shares.append(scale * (step @ product))
        product -= shares[-1] * change
    if pairs:
        _, change, scale = pairs[-1]
        product /= scale * (change @ change)
    for (step, change, scale), share in zip(pairs, reversed(shares), strict=True):
        product += (share - scale * (change @ product)) * step
    return product


def _along(
    function: Function,
    point: Vector,
    value: float,
    gradient: Vector,
    direction: Vector,
) -> tuple[Vector, float, Vector] | None:
    """Return a better point in a direction with its value and gradient, if any is."""
    slope = float(gradient @ direction)
    length = 1.0
    for _ in range(MAXIMUM_HALVINGS):
        moved = point + length * direction
        reached, turned = function(moved)
        promised = DECREASE * length * slope
        if reached <= value + promised + ROUNDING * abs(value):
            return moved, reached, turned
        steepness = float(turned @ direction)
        # Between a falling and a rising slope is the minimum, about where a straight
        # line between the two is 0.
        factor = slope / (slope - steepness) if steepness > 0 else 0.5
        length *= min(max(factor, 0.1), 0.7)
    return None
