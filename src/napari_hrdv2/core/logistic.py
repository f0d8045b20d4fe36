"""Multinomial logistic regression that is fast enough to follow a brush.

The objective is the usual one: class-weighted cross-entropy plus an L2 penalty on
standardised features. L-BFGS needs hundreds of steps on it because channels of deep
features are strongly correlated. In coordinates where an approximation of the Hessian
is the identity it needs a few dozen, and a few when it starts from the last fit. The
approximation is one Gram matrix, weighted by how undecided the start is about each
sample, for all classes alike; Böhning's bound [1]_ is of the same form.

References
----------
.. [1] D. Böhning, "Multinomial logistic regression algorithm", Annals of the
   Institute of Statistical Mathematics 44, 197-200 (1992).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAXIMUM_STEPS = 500
REUSE_FACTOR = 1.3  # a preconditioner serves until the samples have grown by this
NEGLIGIBLE = 1e-4  # deviation of a channel, against the median of all channels
LEAST_CURVATURE = 0.02  # samples that are decided now may not stay so


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
    """A factored approximation of the Hessian for one class, and its size.

    Attributes
    ----------
    factor, inverse : (C + 1, C + 1) float32 arrays
        Lower Cholesky factor and its inverse.
    samples, classes : int
        What it was made from.
    """

    factor: NDArray[np.float32]
    inverse: NDArray[np.float32]
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
        Largest component of the preconditioned gradient that counts as zero.
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
    design, mean, scale = _standardised(samples)
    count = int(classes.max()) + 1
    solution = np.zeros((count, design.shape[1]), np.float32)
    if start is not None:
        solution[:, :-1] = start.weight * scale
        solution[:, -1] = start.bias + start.weight @ mean
    objective = _Objective(design, classes, count, sample_weight, regularisation)
    if preconditioner is None or not preconditioner.serves(design, count):
        # What a rough solution is undecided about makes a far better one.
        rough = _precondition(design, solution, sample_weight, regularisation)
        solution = _minimised(objective, solution, rough, max(tolerance, 1e-3))
        preconditioner = _precondition(design, solution, sample_weight, regularisation)
    solution = _minimised(objective, solution, preconditioner, tolerance)
    weight = solution[:, :-1] / scale
    bias = solution[:, -1] - weight @ mean
    return Readout(_narrow(weight), _narrow(bias)), preconditioner


def _minimised(
    objective: _Objective,
    solution: NDArray[np.float32],
    preconditioner: Preconditioner,
    tolerance: float,
) -> NDArray[np.float32]:
    """Descend from a solution until the preconditioned gradient is small."""
    from scipy.optimize import minimize

    def preconditioned(
        flat: NDArray[np.float64],
    ) -> tuple[float, NDArray[np.float64]]:
        coefficients = _narrow(flat.reshape(solution.shape)) @ preconditioner.inverse
        loss, gradient = objective(coefficients)
        return loss, (gradient @ preconditioner.inverse.T).ravel().astype(np.float64)

    result = minimize(
        preconditioned,
        (solution @ preconditioner.factor).ravel().astype(np.float64),
        jac=True,
        method="L-BFGS-B",
        options={"maxcor": 20, "maxiter": MAXIMUM_STEPS, "ftol": 0, "gtol": tolerance},
    )
    return _narrow(result.x.reshape(solution.shape)) @ preconditioner.inverse


class _Objective:
    """Mean loss and its gradient, as a function of the (K, C + 1) coefficients."""

    def __init__(
        self,
        design: NDArray[np.float32],
        classes: NDArray[np.intp],
        count: int,
        sample_weight: NDArray[np.float32],
        regularisation: float,
    ) -> None:
        total = np.float32(sample_weight.sum())
        self.design = torch.from_numpy(design)
        self.weight = sample_weight / total
        self.target = np.zeros((count, len(classes)), np.float32)
        self.target[classes, np.arange(len(classes))] = 1
        self.penalty = np.float32(1 / (regularisation * total))

    def __call__(
        self, coefficients: NDArray[np.float32]
    ) -> tuple[float, NDArray[np.float32]]:
        logits = _times(coefficients, self.design.T)  # (K, N)
        logits -= logits.max(axis=0)
        picked = np.einsum("kn,kn->n", logits, self.target)
        np.exp(logits, out=logits)
        sums = logits.sum(axis=0)
        loss = np.dot(self.weight, np.log(sums) - picked)
        logits /= sums
        logits -= self.target
        logits *= self.weight
        gradient = _times(logits, self.design)  # (K, C + 1)
        inner = coefficients[:, :-1]
        gradient[:, :-1] += self.penalty * inner
        loss += 0.5 * self.penalty * np.vdot(inner, inner)
        return float(loss), gradient


def _times(left: NDArray[np.float32], right: torch.Tensor) -> NDArray[np.float32]:
    """Matrix product by torch, twice as fast as NumPy where one side is thin."""
    return _narrow((torch.from_numpy(left) @ right).numpy())


def _standardised(
    samples: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return standardised samples with a last column of ones, mean and scale."""
    mean = np.full(len(samples), 1 / len(samples), np.float32) @ samples
    design = np.empty((len(samples), samples.shape[1] + 1), np.float32)
    centred = design[:, :-1]
    np.subtract(samples, mean, out=centred)
    scale = np.sqrt(np.einsum("nc,nc->c", centred, centred) / len(samples))
    constant = scale <= 1e-6 * np.abs(mean)
    # Far below all others it is rounding, which must not be blown up to weigh alike.
    constant |= scale <= NEGLIGIBLE * np.median(scale)
    scale[constant] = 1
    centred /= scale
    design[:, -1] = 1
    return design, mean, scale


def _precondition(
    design: NDArray[np.float32],
    begin: NDArray[np.float32],
    sample_weight: NDArray[np.float32],
    regularisation: float,
) -> Preconditioner:
    logits = design @ begin.T
    probability = np.exp(logits - logits.max(axis=1, keepdims=True))
    probability /= probability.sum(axis=1, keepdims=True)
    curvature = (probability * (1 - probability)).mean(axis=1) + LEAST_CURVATURE
    total = sample_weight.sum()
    weighted = design * (sample_weight / total * curvature)[:, None]
    hessian = (design.T @ weighted).astype(np.float64)
    hessian[np.diag_indices_from(hessian)] += 1 / (regularisation * total)
    factor = np.linalg.cholesky(hessian)
    return Preconditioner(
        factor.astype(np.float32),
        np.linalg.inv(factor).astype(np.float32),
        len(design),
        len(begin),
    )


def _narrow(array: NDArray[Any]) -> NDArray[np.float32]:
    return array.astype(np.float32, copy=False)
