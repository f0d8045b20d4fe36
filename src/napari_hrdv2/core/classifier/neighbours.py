"""A classifier without training: the labels of the most similar labelled pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NEIGHBOURS = 30
TEMPERATURE = 0.02
QUERIES_AT_ONCE = 2048


def neighbour_classes(
    memory: NDArray[np.float32],
    labels: NDArray[Any],
    queries: NDArray[np.float32],
    *,
    neighbours: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> NDArray[np.int64]:
    """Return the class of each of (M, C) queries by dense nearest-neighbour retrieval.

    Of the (N, C) `memory`, whose (N,) `labels` are known, the `neighbours` nearest
    vote, weighted by ``softmax(cosine / temperature)``: in-context retrieval as in
    [1]_, whose evaluation code NeCo uses.

    References
    ----------
    .. [1] I. Balažević et al., "Towards In-context Scene Understanding", NeurIPS 2023,
       arXiv:2306.01667.

    Examples
    --------
    >>> memory = np.array([[1, 0], [2, 0.1], [0, 3]], np.float32)
    >>> queries = np.array([[5, 1], [1, 9]], np.float32)
    >>> neighbour_classes(memory, np.array([4, 4, 7]), queries, neighbours=2).tolist()
    [4, 7]
    """
    if not len(memory) == len(labels) > 0:
        raise ValueError(
            f"labels: {len(labels)} labels for {len(memory)} vectors in the memory; "
            "one for each is needed, and one at least"
        )
    classes, places = np.unique(labels, return_inverse=True)
    votes = torch.eye(len(classes))[torch.from_numpy(places)]  # (N, K)
    keys = _normalised(memory).T.contiguous()  # (C, N)
    found = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        part = slice(start, start + QUERIES_AT_ONCE)
        cosines = _normalised(queries[part]) @ keys  # (m, N)
        nearest, which = cosines.topk(min(neighbours, keys.shape[1]), 1)
        weights = (nearest / temperature).softmax(1)[:, None]  # (m, 1, neighbours)
        found[part] = (weights @ votes[which])[:, 0].argmax(1).numpy()
    return classes.astype(np.int64)[found]


def _normalised(rows: NDArray[np.float32]) -> Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(rows), dim=1)
