"""Multinomial logistic regression that is fast enough to follow a brush.

The objective is the usual one: class-weighted cross-entropy plus an L2 penalty on
standardised features. L-BFGS needs hundreds of steps on it because channels of deep
features are strongly correlated; in coordinates where an upper bound of the Hessian
[1]_ is the identity it needs a few dozen, and a few when it starts from the last fit.

References
----------
.. [1] D. Böhning, "Multinomial logistic regression algorithm", Annals of the
   Institute of Statistical Mathematics 44, 197-200 (1992).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import minimize

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAXIMUM_STEPS = 500
REUSE_FACTOR = 1.3  # a preconditioner serves until the samples have grown by this


@dataclass(frozen=True)
class Readout:
    """A linear readout of features, ``weight @ features + bias``.

    Attributes
    ----------
    weight : (K, C) float32 array
    bias : (K,) float32 array
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True)
class Preconditioner:
    """The lower Cholesky factor of a bound of the Hessian, and what it was made from.

    Attributes
    ----------
    factor : (C + 1, C + 1) float32 array
    samples, classes : int
    """

    factor: NDArray[np.float32]
    samples: int
    classes: int

    def serves(self, design: NDArray[np.float32], classes: int) -> bool:
        """Whether it is still close enough to the samples at hand."""
        growth = len(design) / self.samples
        return (
            len(self.factor) == design.shape[1]
            and self.classes == classes
            and 1 / REUSE_FACTOR <= growth <= REUSE_FACTOR
        )


def fit_readout(
    samples: NDArray[np.float32],
    classes: NDArray[np.intp],
    *,
    regularisation: float,
    sample_weight: NDArray[np.float32],
    tolerance: float,
    start: Readout | None = None,
    preconditioner: Preconditioner | None = None,
) -> tuple[Readout, Preconditioner]:
    """Return the readout that minimises the penalised cross-entropy.

    Parameters
    ----------
    samples : (N, C) float32 array
        Feature vectors as they are; standardisation is folded into the result.
    classes : (N,) array of int
        Class indices 0 … K-1, each of which occurs.
    regularisation : float
        Weight of the loss against the penalty, scikit-learn's C.
    sample_weight : (N,) float32 array
    tolerance : float
        Largest component of the gradient, per sample weight, that counts as zero.
    start : Readout, optional
        Where to begin, on features as they are.
    preconditioner : Preconditioner, optional
        Of an earlier fit to similar samples.

    Returns
    -------
    readout : Readout
    preconditioner : Preconditioner
        For the next fit.
    """
    mean, scale = _moments(samples)
    design = _design(samples, mean, scale)
    count = int(classes.max()) + 1
    if preconditioner is None or not preconditioner.serves(design, count):
        preconditioner = _precondition(design, sample_weight, regularisation, count)
    objective = _Objective(
        design, classes, count, sample_weight, regularisation, preconditioner.factor
    )
    begin = np.zeros((count, design.shape[1]), np.float32)
    if start is not None:
        begin[:, :-1] = start.weight * scale
        begin[:, -1] = start.bias + start.weight @ mean
    result = minimize(
        objective,
        objective.inward(begin).ravel().astype(np.float64),
        jac=True,
        method="L-BFGS-B",
        options={"maxcor": 20, "maxiter": MAXIMUM_STEPS, "ftol": 0, "gtol": tolerance},
    )
    solution = objective.outward(result.x.reshape(count, -1).astype(np.float32))
    weight = solution[:, :-1] / scale
    bias = solution[:, -1] - weight @ mean
    return Readout(weight, bias.astype(np.float32)), preconditioner


class _Objective:
    """Mean loss and gradient as a function of preconditioned coefficients."""

    def __init__(
        self,
        design: NDArray[np.float32],
        classes: NDArray[np.intp],
        count: int,
        sample_weight: NDArray[np.float32],
        regularisation: float,
        factor: NDArray[np.float32],
    ) -> None:
        total = np.float32(sample_weight.sum())
        self.design, self.factor = design, factor
        self.weight = (sample_weight / total)[:, None]
        self.target = np.zeros((len(classes), count), np.float32)
        self.target[np.arange(len(classes)), classes] = 1
        self.penalty = np.float32(1 / (regularisation * total))

    def __call__(self, flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        coefficients = self.outward(
            flat.reshape(self.target.shape[1], -1).astype(np.float32)
        )
        logits = self.design @ coefficients.T
        logits -= logits.max(axis=1, keepdims=True)
        picked = (logits * self.target).sum(axis=1)
        np.exp(logits, out=logits)
        sums = logits.sum(axis=1, keepdims=True)
        loss = np.dot(self.weight[:, 0], np.log(sums[:, 0]) - picked)
        logits /= sums
        logits -= self.target
        logits *= self.weight
        gradient = logits.T @ self.design
        inner = coefficients[:, :-1]
        gradient[:, :-1] += self.penalty * inner
        loss += 0.5 * self.penalty * np.vdot(inner, inner)
        back = solve_triangular(self.factor, gradient.T, lower=True, check_finite=False)
        return float(loss), back.T.ravel().astype(np.float64)

    def outward(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """From preconditioned to ordinary coefficients, (K, C + 1)."""
        solved = solve_triangular(
            self.factor, values.T, lower=True, trans="T", check_finite=False
        )
        return np.ascontiguousarray(solved.T)

    def inward(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """From ordinary to preconditioned coefficients, (K, C + 1)."""
        return values @ self.factor


def _moments(
    samples: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation per channel; 1 where a channel does not vary."""
    ones = np.full(len(samples), 1 / len(samples), np.float32)
    mean = ones @ samples
    centred = samples - mean
    deviation = np.sqrt(ones @ (centred * centred))
    flat = deviation <= 1e-6 * np.maximum(np.abs(mean), 1e-6)
    return mean, np.where(flat, np.float32(1), deviation)


def _design(
    samples: NDArray[np.float32],
    mean: NDArray[np.float32],
    scale: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Standardised samples with a last column of ones."""
    design = np.empty((len(samples), samples.shape[1] + 1), np.float32)
    np.subtract(samples, mean, out=design[:, :-1])
    design[:, :-1] /= scale
    design[:, -1] = 1
    return design


def _precondition(
    design: NDArray[np.float32],
    sample_weight: NDArray[np.float32],
    regularisation: float,
    count: int,
) -> Preconditioner:
    total = sample_weight.sum()
    weighted = design * (sample_weight / total)[:, None]
    bound = (design.T @ weighted).astype(np.float64)
    bound *= 0.5 * (1 - 1 / count)
    bound[np.diag_indices_from(bound)] += 1 / (regularisation * total)
    factor = np.linalg.cholesky(bound).astype(np.float32)
    return Preconditioner(factor, len(design), count)
