"""The classifier that the features are trained for, in a form that has a gradient.

As in R2-D2 [1]_: ridge regression from the features of the scribbled pixels to their
classes, solved in closed form, so that the loss on all other pixels reaches the
features. Balanced classes, and features standardised by what the whole picture holds,
as in the package's classifier.

References
----------
.. [1] L. Bertinetto et al., "Meta-learning with differentiable closed-form solvers",
   ICLR 2019, arXiv:1805.08136.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class RidgeHead(nn.Module):
    """Ridge regression whose penalty and scale are learnt.

    So is how much each channel is to be trusted before any stroke is drawn: a factor on
    the standardised channels, which the penalty then weighs against one another.

    Parameters
    ----------
    channels : int
        The most that a picture has.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_penalty = nn.Parameter(torch.tensor(-3.0))
        self.log_scale = nn.Parameter(torch.tensor(1.5))
        self.log_trust = nn.Parameter(torch.zeros(channels))

    def forward(self, support: Tensor, classes: Tensor, query: Tensor) -> Tensor:
        """Return the logits of the query pixels.

        Parameters
        ----------
        support : (N, C) float32 tensor
            Features of the scribbled pixels.
        classes : (N,) int64 tensor
            0 … K - 1, every class at least once.
        query : (M, C) float32 tensor

        Returns
        -------
        (M, K) tensor
        """
        targets = functional.one_hot(classes).float()
        weight = (targets / targets.sum(0)).sum(1, keepdim=True) / targets.shape[1]
        mean = (weight * support).sum(0)
        centred = support - mean
        # Of pixels from all over the picture, as in the package's classifier.
        deviation = (query.var(0, correction=0) + 1e-4).sqrt()
        factor = self.log_trust[: support.shape[1]].exp() / deviation
        design, query = centred * factor, (query - mean) * factor
        share = targets - 1 / targets.shape[1]
        weighted = (weight * design).T
        gram = weighted @ design
        penalty = self.log_penalty.exp() * torch.eye(len(gram))
        solution = torch.linalg.solve(gram + penalty, weighted @ share)
        return self.log_scale.exp() * (query @ solution)


def balanced_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the cross-entropy, classes weighted by the inverse root of their share."""
    classes = logits.shape[1]
    counts = torch.bincount(truth, minlength=classes).clamp_min(1).float()
    weight = counts.rsqrt()
    weight = weight / (weight * counts).sum() * len(truth)
    return functional.cross_entropy(logits, truth, weight, reduction="sum") / len(truth)
