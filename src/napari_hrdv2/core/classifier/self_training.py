"""Fitting a classifier to a few labelled pixels and to many that are not.

Self-training [1]_ [2]_: what a classifier is sure of, among pixels from all over the
image, is taken as labelled, and the fit repeated. A few scribbles say which of its
structures an image is to be divided into; the unlabelled pixels say where these
structures end.

.. [1] H. J. Scudder, IEEE Transactions on Information Theory 11, 363-371 (1965).
.. [2] D.-H. Lee, "Pseudo-label", ICML Workshop on Challenges in Representation
   Learning (2013).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .solver import Preconditioner, fit_logistic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .background import LinearModel, PCACoordinates

ROUNDS = 2
GUESS_TOLERANCE = 1e-3  # of fits that are only asked what they are sure of
UNSURE, SURE = 0.6, 0.9  # probabilities at which an unlabelled pixel begins to count


@dataclass(frozen=True)
class SelfTrainingRounds:
    """What each of the fits in a row ended with: the next ones begin there.

    Attributes
    ----------
    coordinates : PCACoordinates or None
        What they were made in.
    models : tuple of LinearModel
        Of the labelled pixels alone, then of each round; the last one is the result.
    preconditioners : tuple of Preconditioner
        Of the labelled pixels alone, and of the rounds; of use in these
        coordinates only.
    """

    coordinates: PCACoordinates | None = None
    models: tuple[LinearModel, ...] = ()
    preconditioners: tuple[Preconditioner, ...] = ()

    @property
    def result(self) -> LinearModel:
        """What the last fit ended with."""
        return self.models[-1]


def fit_with_self_training(
    design: Tensor,
    classes: NDArray[np.intp],
    *,
    coordinates: PCACoordinates,
    regularisation: float,
    sample_weight: NDArray[np.float32],
    tolerance: float,
    unlabelled: Tensor | None = None,
    start: SelfTrainingRounds | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> SelfTrainingRounds:
    """Return linear models of classes, from labelled and unlabelled pixels.

    Parameters
    ----------
    design : (k + 1, N) float32 tensor
        The labelled pixels in these coordinates.
    classes : (N,) array of int
        Class indices 0 … K-1, each of which occurs.
    coordinates : PCACoordinates
    sample_weight : (N,) float32 array
    regularisation, tolerance, should_stop
        As for `fit_logistic`.
    unlabelled : (k + 1, M) float32 tensor, optional
        Other pixels likewise; all of them weigh as much as all samples, if
        the classifier is sure of them.
    start : SelfTrainingRounds, optional
        Of an earlier fit to similar samples, of the same classes.
    """
    former = start or SelfTrainingRounds()
    begin = [coordinates.solution_of(model) for model in former.models]
    is_same = former.coordinates is coordinates
    preconditioners = list(former.preconditioners) if is_same else []
    solutions: list[Tensor] = []

    def fit(
        design: Tensor, classes: Tensor, weights: Tensor, tolerance: float
    ) -> Tensor:
        number = len(solutions)
        kind = min(number, 1)  # the rounds share their preconditioner
        # Each begins where it ended last time, else where the one before did.
        known = begin[number : number + 1] or solutions[-1:]
        solution, preconditioner = fit_logistic(
            design,
            classes,
            weights,
            regularisation=regularisation,
            tolerance=tolerance,
            start=known[0] if known else None,
            preconditioner=next(iter(preconditioners[kind:]), None),
            should_stop=should_stop,
        )
        solutions.append(solution)
        preconditioners[kind : kind + 1] = [preconditioner]
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
            surety, guess = (solution @ unlabelled).softmax(0).max(0)
            counts = ((surety - UNSURE) / (SURE - UNSURE)).clamp(0, 1)
            solution = fit(
                both,
                torch.cat([index, guess]),
                torch.cat([weights, counts * each]),
                rough if number < ROUNDS else tolerance,
            )
    models = tuple(coordinates.model_of(solution) for solution in solutions)
    return SelfTrainingRounds(coordinates, models, tuple(preconditioners))
