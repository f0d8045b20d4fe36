"""Logistic regression that is fast enough to follow a brush, with self-training.

The loss is scikit-learn's: weighted cross-entropy and an L2 penalty. L-BFGS [1]_ needs
hundreds of steps on it because channels of deep features are strongly correlated; where
an approximate Hessian is the identity it needs a few dozen, and a few after one more
scribble. The approximation is one Gram matrix, weighted by how undecided the start is.
By hand because SciPy's L-BFGS-B needs 1.0 to 1.3 times the processor time of a warm
fit, and importing scikit-learn takes 0.7 s.

Self-training [3]_ [4]_: what a classifier is sure of, among pixels from all over the
image, is taken as labelled, and the fit repeated. A few scribbles say which of its
structures an image is to be divided into; the unlabelled pixels say where these
structures end.

.. [1] J. Nocedal, Mathematics of Computation 35, 773-782 (1980).
.. [2] W. W. Hager and H. Zhang, SIAM J. Optimization 16, 170-192 (2005).
.. [3] H. J. Scudder, IEEE Transactions on Information Theory 11, 363-371 (1965).
.. [4] D.-H. Lee, "Pseudo-label", ICML Workshop on Challenges in Representation
   Learning (2013).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_hrdv2.core.errors import Stop, stop_if

if TYPE_CHECKING:
    from napari_hrdv2.core.features.tiles import LinearModel

    from .background import PCACoordinates

Vector = NDArray[np.float64]

ROUNDS = 2
GUESS_TOLERANCE = 1e-3  # of fits that are only asked what they are sure of
UNSURE, SURE = 0.6, 0.9  # probabilities at which an unlabelled pixel begins to count

REUSE_FACTOR = 1.3  # a preconditioner serves until the samples have grown by this
SAMPLES_AT_ONCE = 1024  # that are copied
POSITIVE = 1e-5  # more than the rounding of a Hessian whose diagonal is 1
LEAST_CURVATURE = 0.02  # samples that are decided now may not stay so
MOST_STEPS, MOST_TRIALS, MEMORY = 500, 10, 10  # MEMORY: steps that tell the curvature
DECREASE, SHORTER = 1e-4, 0.4  # of what the slope promises; the next length to try
ROUNDING, FLATTER = 1e-6, 0.9  # of values; where it hides a gain, slopes tell [2]_


class Preconditioner(NamedTuple):
    """Cholesky factor of an approximate Hessian for one class, and its inverse."""

    factor: Tensor  # (k + 1, k + 1)
    inverse: Tensor
    samples: int
    classes: int

    @classmethod
    def of(
        cls, design: Tensor, start: Tensor, weights: Tensor, penalties: Tensor
    ) -> Self:
        """Return that at the start of a fit."""
        odds = (start @ design).softmax(0)
        curvature = weights * ((odds * (1 - odds)).mean(0) + LEAST_CURVATURE)
        # Each coordinate in its own unit: a few values that tower above all others, of
        # a channel that is nearly always 0, would drown the rest in their rounding.
        parts = range(0, len(weights), SAMPLES_AT_ONCE)  # no second copy of all
        unit = penalties.clone()
        for at in parts:
            part = design[:, at : at + SAMPLES_AT_ONCE]
            unit += part.square() @ curvature[at : at + SAMPLES_AT_ONCE]
        unit = unit.clamp_min(torch.finfo(unit.dtype).tiny).rsqrt()[:, None]
        hessian = torch.zeros(len(design), len(design))
        for at in parts:
            part = design[:, at : at + SAMPLES_AT_ONCE] * unit
            hessian.addmm_(part * curvature[at : at + SAMPLES_AT_ONCE], part.T)
        hessian, unit = hessian.double(), unit.double()
        hessian.diagonal().add_(penalties * unit[:, 0] ** 2 + POSITIVE)
        factor, ones = torch.linalg.cholesky(hessian), torch.eye(len(hessian)).double()
        inverse = torch.linalg.solve_triangular(factor, ones, upper=False)
        factor, inverse = factor / unit, inverse * unit.T
        return cls(factor.float(), inverse.float(), len(weights), len(start))

    def serves(self, design: Tensor, classes: int) -> bool:
        """Whether it is still close enough to the samples at hand."""
        is_close = 1 / REUSE_FACTOR <= design.shape[1] / self.samples <= REUSE_FACTOR
        return is_close and (len(self.factor), self.classes) == (len(design), classes)


def fit_logistic(
    design: Tensor,
    classes: Tensor,
    weights: Tensor,
    *,
    penalties: Tensor,
    tolerance: float,
    start: Tensor | None = None,
    preconditioner: Preconditioner | None = None,
    should_stop: Stop = None,
) -> tuple[Tensor, Preconditioner]:
    """Return the (K, k + 1) coefficients of the least loss, and a preconditioner.

    `design` is (k + 1, N), samples in `PCACoordinates`; `classes` are 0 … K - 1, each
    of which occurs or is known to the start; `weights` are of the samples; `penalties`
    are (k + 1,), of the coordinates, each 1 / C in scikit-learn's terms; `tolerance` is
    the largest component of the preconditioned gradient that counts as zero. `start`
    and `preconditioner` are what an earlier fit returned; `should_stop` is asked before
    each evaluation.
    """
    # Large products in torch: NumPy's threads would spin on when the fit is over.
    total, count = float(weights.sum()), int(classes.max()) + 1
    solution = torch.zeros(count, len(design)) if start is None else start
    weights, penalties = weights / total, penalties / total
    truth = (torch.arange(len(solution))[:, None] == classes).float()  # (K, N)

    def loss_and_gradient(coefficients: Tensor) -> tuple[float, Tensor]:
        stop_if(should_stop, "the fit")
        log_odds = (coefficients @ design).log_softmax(0)  # (K, N)
        losses = -(log_odds * truth).sum(0)
        gradient = ((log_odds.exp_() - truth) * weights) @ design.T
        pulls = penalties * coefficients
        size = 0.5 * float((pulls.double() * coefficients).sum())
        return float(weights.double() @ losses.double()) + size, gradient + pulls

    def descended(by: Preconditioner, tolerance: float) -> Tensor:
        def coefficients(point: Vector) -> Tensor:
            return torch.from_numpy(point).float().view_as(solution) @ by.inverse

        def function(point: Vector) -> tuple[float, Vector]:
            loss, gradient = loss_and_gradient(coefficients(point))
            return loss, (gradient @ by.inverse.T).double().numpy().ravel()

        point = (solution @ by.factor).double().numpy().ravel()
        return coefficients(minimum(function, point, tolerance))

    if preconditioner is None or not preconditioner.serves(design, len(solution)):
        # What a rough solution is undecided about makes a far better one.
        rough = Preconditioner.of(design, solution, weights, penalties)
        solution = descended(rough, max(tolerance, 1e-3))
        preconditioner = Preconditioner.of(design, solution, weights, penalties)
    return descended(preconditioner, tolerance), preconditioner


def minimum(
    function: Callable[[Vector], tuple[float, Vector]], start: Vector, tolerance: float
) -> Vector:
    """Return where a convex function is smallest; best near `start`, of curvature 1."""
    point, (value, gradient) = start, function(start)
    steps: list[tuple[Vector, Vector, float]] = []  # change of gradient, product
    for _ in range(MOST_STEPS):
        if np.abs(gradient).max() <= tolerance:
            break
        direction, parts = -gradient, []  # where Newton's method would go
        for step, change, product in reversed(steps):
            parts.append(step @ direction / product)
            direction -= parts[-1] * change
        if steps:
            direction *= steps[-1][2] / (steps[-1][1] @ steps[-1][1])
        for (step, change, product), part in zip(steps, parts[::-1], strict=True):
            direction += (part - change @ direction / product) * step
        slope, length = float(gradient @ direction), 1.0
        for _ in range(MOST_TRIALS):
            new = point + length * direction
            new_value, new_gradient = function(new)
            rise, new_slope = new_value - value, abs(new_gradient @ direction)
            is_hidden = rise <= ROUNDING * abs(value) and new_slope <= FLATTER * -slope
            if is_hidden or (rise < 0 and rise <= DECREASE * length * slope):
                break
            length *= SHORTER
        else:
            break  # rounding allows no better point
        step, change = new - point, new_gradient - gradient
        if (product := float(step @ change)) > 1e-10 * (change @ change):
            steps = [*steps[1 - MEMORY :], (step, change, product)]
        point, value, gradient = new, new_value, new_gradient
    return point


@dataclass(frozen=True)
class SelfTrainingRounds:
    """What each of the fits in a row ended with: the next ones begin there.

    `models` are those of the labelled pixels alone, then of each round;
    `preconditioners` that of the labelled pixels alone and that of the rounds, of use
    in the `coordinates` that they were made in only.
    """

    coordinates: PCACoordinates | None = None
    models: tuple[LinearModel, ...] = ()
    preconditioners: tuple[Preconditioner, ...] = ()

    @property
    def result(self) -> LinearModel:
        """What the last fit ended with."""
        return self.models[-1]


def guessed(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Return the class that each pixel is taken for, and how much that counts, 0 to 1.

    `probabilities` are (K, N); both results are (N,).
    """
    surety, guess = probabilities.max(0)
    return guess, ((surety - UNSURE) / (SURE - UNSURE)).clamp(0, 1)


def fit_with_self_training(
    design: Tensor,
    classes: NDArray[np.intp],
    *,
    coordinates: PCACoordinates,
    regularisation: float,
    sample_weight: NDArray[np.float32],
    tolerance: float,
    whitening: float = 0.0,
    unlabelled: Tensor | None = None,
    start: SelfTrainingRounds | None = None,
    should_stop: Stop = None,
) -> SelfTrainingRounds:
    """Return linear models of classes, from labelled and unlabelled pixels.

    `design` is (k + 1, N), the labelled pixels in these coordinates, `unlabelled` other
    pixels likewise: all of them weigh as much as all samples, if the classifier is sure
    of them. `classes` are 0 … K - 1, each of which occurs. `regularisation` is
    scikit-learn's C for a coordinate of mean variance; for the others it goes with
    their variance to the power of `whitening`, downwards. `start` is of an earlier fit
    to similar samples, of the same classes; the rest is as for `fit_logistic`.
    """
    former = start or SelfTrainingRounds()
    begin = [coordinates.solution_of(model) for model in former.models]
    is_same = former.coordinates is coordinates
    preconditioners = dict(enumerate(former.preconditioners)) if is_same else {}
    solutions: list[Tensor] = []
    penalties = coordinates.variances.pow(whitening) / regularisation
    penalties = torch.cat([penalties, torch.zeros(1)])  # none on the bias

    def fit(
        design: Tensor, classes: Tensor, weights: Tensor, tolerance: float
    ) -> Tensor:
        number = len(solutions)
        kind = min(number, 1)  # the rounds share their preconditioner
        # Each begins where it ended last time, else where the one before did.
        known = begin[number : number + 1] or solutions[-1:]
        solution, preconditioners[kind] = fit_logistic(
            design,
            classes,
            weights,
            penalties=penalties,
            tolerance=tolerance,
            start=known[0] if known else None,
            preconditioner=preconditioners.get(kind),
            should_stop=should_stop,
        )
        solutions.append(solution)
        return solution

    index, weights = torch.from_numpy(classes), torch.from_numpy(sample_weight)
    if unlabelled is None or not unlabelled.shape[1]:
        fit(design, index, weights, tolerance)
    else:
        rough = max(tolerance, GUESS_TOLERANCE)
        solution = fit(design, index, weights, rough)
        both = torch.cat([design, unlabelled], 1)
        each = weights.sum() / unlabelled.shape[1]
        for number in range(1, 1 + ROUNDS):
            guess, counts = guessed((solution @ unlabelled).softmax(0))
            solution = fit(
                both,
                torch.cat([index, guess]),
                torch.cat([weights, counts * each]),
                rough if number < ROUNDS else tolerance,
            )
    models = tuple(coordinates.model_of(solution) for solution in solutions)
    return SelfTrainingRounds(coordinates, models, tuple(preconditioners.values()))
