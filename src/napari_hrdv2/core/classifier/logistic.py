"""Multinomial logistic regression that is fast enough to follow a brush.

The objective is the usual one: class-weighted cross-entropy plus an L2 penalty on the
coefficients. L-BFGS needs hundreds of steps on it because channels of deep features are
strongly correlated. In coordinates where an approximation of the Hessian is the
identity it needs a few dozen, and a few when it starts from the last fit. The
approximation is one Gram matrix, weighted by how undecided the start is about each
sample, for all classes alike; Böhning's bound [1]_ is of the same form.

References
----------
.. [1] D. Böhning, "Multinomial logistic regression algorithm", Annals of the
   Institute of Statistical Mathematics 44, 197-200 (1992).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from napari_hrdv2.core.classifier.lbfgs import minimum
from napari_hrdv2.core.errors import stop_fit_if

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

REUSE_FACTOR = 1.3  # a preconditioner serves until the samples have grown by this
SAMPLES = 1024  # of the design that are copied at once
LEAST_CURVATURE = 0.02  # samples that are decided now may not stay so


@dataclass(frozen=True)
class Preconditioner:
    """A factored approximation of the Hessian for one class, and its size.

    Attributes
    ----------
    factor, inverse : (k + 1, k + 1) float32 tensors
        Lower Cholesky factor and its inverse.
    samples, classes : int
        What it was made from.
    """

    factor: Tensor
    inverse: Tensor
    samples: int
    classes: int

    def serves(self, design: Tensor, classes: int) -> bool:
        """Whether it is still close enough to the samples at hand."""
        growth = design.shape[1] / self.samples
        return (
            len(self.factor) == len(design)
            and self.classes == classes
            and 1 / REUSE_FACTOR <= growth <= REUSE_FACTOR
        )


def fit_logistic(
    design: Tensor,
    classes: Tensor,
    weights: Tensor,
    *,
    regularisation: float,
    tolerance: float,
    start: Tensor | None = None,
    preconditioner: Preconditioner | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> tuple[Tensor, Preconditioner]:
    """Return the coefficients that minimise the penalised cross-entropy.

    Parameters
    ----------
    design : (k + 1, N) float32 tensor
        Samples in the coordinates that the penalty means, see `PCACoordinates`.
    classes : (N,) int64 tensor
        Class indices 0 … K-1; each occurs, or is known to the start.
    weights : (N,) float32 tensor
        Of the samples.
    regularisation : float
        Weight of the loss against the penalty, scikit-learn's C.
    tolerance : float
        Largest component of the preconditioned gradient that counts as zero.
    start : (K, k + 1) float32 tensor, optional
        Where to begin.
    preconditioner : Preconditioner, optional
        Of an earlier fit to similar samples.
    should_stop : callable, optional
        Asked between evaluations of the objective.

    Returns
    -------
    solution : (K, k + 1) float32 tensor
    preconditioner : Preconditioner
        For the next fit.

    Raises
    ------
    Cancelled
        If `should_stop` said so.
    """
    # All large products in torch: the threads of another library, NumPy's or SciPy's,
    # would go on spinning on the cores that the segmentation needs next.
    solution = start
    if solution is None:
        solution = torch.zeros(int(classes.max()) + 1, len(design))
    total = float(weights.sum())
    weights, penalty = weights / total, 1 / (regularisation * total)
    truth = (torch.arange(len(solution))[:, None] == classes).float()
    objective = _Objective(
        design, truth, weights, penalty=penalty, should_stop=should_stop
    )
    if preconditioner is None or not preconditioner.serves(design, len(solution)):
        # What a rough solution is undecided about makes a far better one.
        rough = _precondition(design, solution, weights, penalty)
        solution = _minimised(objective, solution, rough, max(tolerance, 1e-3))
        preconditioner = _precondition(design, solution, weights, penalty)
    return _minimised(objective, solution, preconditioner, tolerance), preconditioner


def _minimised(
    objective: _Objective,
    solution: Tensor,
    preconditioner: Preconditioner,
    tolerance: float,
) -> Tensor:
    """Descend from a solution until the preconditioned gradient is small."""

    def coefficients(inner: Vector) -> Tensor:
        return (
            torch.from_numpy(inner).float().view_as(solution) @ preconditioner.inverse
        )

    def loss_and_gradient(inner: Vector) -> tuple[float, Vector]:
        loss, gradient = objective(coefficients(inner))
        return loss, _as_vector(gradient @ preconditioner.inverse.T)

    inner = _as_vector(solution @ preconditioner.factor)
    return coefficients(minimum(loss_and_gradient, inner, tolerance=tolerance))


def _as_vector(coefficients: Tensor) -> Vector:
    vector: Vector = coefficients.double().numpy().ravel()
    return vector


class _Objective:
    """Mean loss and its gradient, as a function of the (K, k + 1) coefficients.

    `truth` is (K, N) float32, 1 for the class of each sample.
    """

    def __init__(
        self,
        design: Tensor,
        truth: Tensor,
        weights: Tensor,
        *,
        penalty: float,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        self.design, self.truth, self.weights = design, truth, weights
        self.penalty, self.should_stop = penalty, should_stop
        self.exact_weights = weights.double()

    def __call__(self, coefficients: Tensor) -> tuple[float, Tensor]:
        stop_fit_if(self.should_stop)
        log_probability = (coefficients @ self.design).log_softmax(0)  # (K, N)
        losses = -(log_probability * self.truth).sum(0)
        errors = log_probability.exp_() - self.truth
        gradient = (errors * self.weights) @ self.design.T  # (K, k + 1)
        inner = coefficients[:, :-1]
        gradient[:, :-1] += self.penalty * inner
        # Near the end steps change the loss by less than float32 resolves.
        loss = float(self.exact_weights @ losses.double())
        size = float(inner.double().square().sum())
        return loss + 0.5 * self.penalty * size, gradient


def _precondition(
    design: Tensor, solution: Tensor, weights: Tensor, penalty: float
) -> Preconditioner:
    probability = (solution @ design).softmax(0)
    curvature = (probability * (1 - probability)).mean(0) + LEAST_CURVATURE
    hessian = torch.zeros(len(design), len(design))
    # In parts: no second copy of all of the design.
    parts = (torch.split(each, SAMPLES, -1) for each in (design, weights * curvature))
    for samples, factors in zip(*parts, strict=True):
        hessian.addmm_(samples * factors, samples.T)
    hessian = hessian.double()
    diagonal = hessian.diagonal()
    diagonal += penalty + 1e-6 * diagonal.mean()  # positive however weak the penalty
    factor = torch.linalg.cholesky(hessian)
    inverse = torch.linalg.solve_triangular(
        factor, torch.eye(len(factor), dtype=torch.float64), upper=False
    )
    samples, classes = design.shape[1], len(solution)
    return Preconditioner(factor.float(), inverse.float(), samples, classes)
