"""Fitting a classifier to a few labelled pixels and to many that are not.

Self-training [1]_ [2]_: what a classifier is sure of, among pixels from all over the
image, is taken as labelled, and the fit repeated. A few strokes say which of its
structures an image is to be divided into; the unlabelled pixels say where these
structures end.

References
----------
.. [1] H. J. Scudder, "Probability of error of some adaptive pattern-recognition
   machines", IEEE Transactions on Information Theory 11, 363-371 (1965).
.. [2] D.-H. Lee, "Pseudo-label: the simple and efficient semi-supervised learning
   method for deep neural networks", ICML Workshop on Challenges in Representation
   Learning (2013).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from .logistic import minimised

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from .basis import Basis
    from .logistic import Preconditioner, Readout

ROUNDS = 2
GUESS_TOLERANCE = 1e-3  # of fits that are only asked what they are sure of
UNSURE, SURE = 0.6, 0.9  # probabilities at which an unlabelled pixel begins to count


@dataclass(frozen=True)
class Stages:
    """What each of the fits in a row ended with: the next ones begin there.

    Attributes
    ----------
    readouts : tuple of Readout
        Of the labelled pixels alone, then of each round; the last one is the result.
    preconditioners : tuple of Preconditioner
        Of the labelled pixels alone, and of the rounds.
    """

    readouts: tuple[Readout, ...] = ()
    preconditioners: tuple[Preconditioner, ...] = ()

    @property
    def result(self) -> Readout:
        """What the last fit ended with."""
        return self.readouts[-1]


def fit_stages(
    samples: NDArray[np.float32],
    classes: NDArray[np.intp],
    *,
    basis: Basis,
    regularisation: float,
    sample_weight: NDArray[np.float32],
    tolerance: float,
    unlabelled: Tensor | None = None,
    start: Stages | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Stages:
    """Return linear readouts of classes, from labelled and unlabelled pixels.

    Parameters
    ----------
    samples : (N, C) float32 array
        Feature vectors as they are.
    classes : (N,) array of int
        Class indices 0 … K-1, each of which occurs.
    basis : Basis
        The coordinates that the penalty means.
    regularisation : float
        Weight of the loss against the penalty, scikit-learn's C.
    sample_weight : (N,) float32 array
    tolerance : float
        Where each fit stops; see `minimised`.
    unlabelled : (M, k + 1) float32 tensor, optional
        Other pixels, in these coordinates; all of them weigh as much as all samples, if
        the classifier is sure of them.
    start : Stages, optional
        Of an earlier fit to similar samples, of the same classes.
    should_stop : callable, optional
        Asked between evaluations of the objective.

    Raises
    ------
    Cancelled
        If `should_stop` said so.
    """
    former = Stages() if start is None else start
    begin = [basis.solution(readout) for readout in former.readouts]
    preconditioners = list(former.preconditioners)
    index, weights = torch.from_numpy(classes), torch.from_numpy(sample_weight)
    labelled = basis.design(torch.from_numpy(samples))
    fit = partial(minimised, regularisation=regularisation, should_stop=should_stop)
    trains_more = unlabelled is not None and len(unlabelled) > 0
    rough = max(tolerance, GUESS_TOLERANCE)
    solution, made = fit(
        labelled,
        index,
        weights,
        tolerance=rough if trains_more else tolerance,
        start=begin[0] if begin else None,
        preconditioner=preconditioners[0] if preconditioners else None,
    )
    solutions, preconditioners[:1] = [solution], [made]
    if unlabelled is None or not trains_more:
        return Stages((basis.readout(solution),), (made,))
    design = torch.cat([labelled, unlabelled])
    for number in range(1, 1 + ROUNDS):
        surety, guess = (unlabelled @ solution.T).softmax(1).max(1)
        counts = ((surety - UNSURE) / (SURE - UNSURE)).clamp(0, 1)
        solution, made = fit(
            design,
            torch.cat([index, guess]),
            torch.cat([weights, counts * (weights.sum() / len(unlabelled))]),
            tolerance=rough if number < ROUNDS else tolerance,
            start=begin[number] if number < len(begin) else solution,
            preconditioner=preconditioners[1] if len(preconditioners) > 1 else None,
        )
        solutions.append(solution)
        preconditioners[1:] = [made]
    readouts = tuple(basis.readout(each) for each in solutions)
    return Stages(readouts, tuple(preconditioners))
