"""What tokens show without labels: what stands out, and what corresponds.

A token is a region where a backbone has regions, else a square of 16 px: the features
of the pixel in the middle stand for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.backbones.superpixels import squares
from napari_hrdv2.core.checks import check_choice
from napari_hrdv2.core.classifier.clusters import RESTARTS, Masks, PlainCoordinates
from napari_hrdv2.core.errors import Stop, stop_if

from .attention import region_count, region_labels

if TYPE_CHECKING:
    from napari_hrdv2.core.features.base import Features

Mask = NDArray[np.bool_] | None

METHODS = "normalised cut", "first component"
MOST_TOKENS = 8192  # whose similarities, each with each, take half a gigabyte
ALIKE, UNLIKE = 0.2, 1e-5  # cosine from which tokens are joined; weight of the others
_FEW = 32  # tokens that need no iterative solver
_LEAST_LENGTH = 1e-3  # of a token in deviations: below, nothing sets it apart


class TokenTable:
    """Tokens of an image: `labels` says which one each pixel is in, (H, W) from 0.

    `numbers` are those of the n whose middle is no NaN and not excluded, `rows` and
    `columns` their middle pixels, and `points` their (n, k) plain coordinates.
    """

    def __init__(
        self, features: Features, space: PlainCoordinates, mask: Mask = None
    ) -> None:
        shape = features.shape[1:]
        if region_count(features):
            self.labels = region_labels(features).astype(np.int64) - 1
        else:
            self.labels = squares(shape, _side(shape)).numpy()
        pixels = _middles(self.labels)
        if len(pixels) > MOST_TOKENS:
            raise ValueError(
                f"features: {len(pixels)} regions are too many to compare each with "
                f"each; {MOST_TOKENS} are possible: open a part of the image"
            )
        vectors = features.sample(*np.divmod(pixels, shape[1]))
        kept = np.isfinite(vectors).all(1)
        if mask is not None:
            kept &= ~mask.ravel()[pixels]
        self.numbers = np.flatnonzero(kept)
        self.rows, self.columns = np.divmod(pixels[kept], shape[1])
        self.points = space(vectors[kept]).astype(np.float64)

    @property
    def directions(self) -> NDArray[np.float64]:
        """The unit vectors of the points, 0 where nothing sets a token apart."""
        lengths = np.linalg.norm(self.points, axis=1, keepdims=True)
        return np.where(lengths > _LEAST_LENGTH, self.points / (lengths + 1e-30), 0)

    def paint(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return a value of each token as a map, (H, W) in 0..1.

        The largest in size is the brightest; 0 where tokens are left out or all alike.
        """
        table = np.zeros(self.labels.max() + 1, np.float32)
        if len(values) and np.ptp(values) > 1e-9:
            values = values if values.max() >= -values.min() else -values
            table[self.numbers] = (values - values.min()) / np.ptp(values)
        return table[self.labels]


def token_saliency(
    features: Features,
    method: str = METHODS[0],
    *,
    exclusion: Mask = None,
    should_stop: Stop = None,
) -> NDArray[np.float32]:
    """Return how much each token stands out, (H, W) in 0..1; see `METHODS`.

    Notes
    -----
    "normalised cut" is as TokenCut [1]_: tokens whose cosine is above 0.2 are joined
    with weight 1, others with 1e-5, and the second smallest solution of
    ``(D - W) y = λ D y`` divides them; the side with the largest ``|y|`` stands out.

    "first component" is the first principal component of the tokens, of which each
    counts once, whatever its size: SPiT's prototypes [2]_, without the classes of its
    authors' classifier.

    Both are in coordinates of a plain fit, about the mean of the image.

    References
    ----------
    .. [1] Y. Wang et al., "Self-supervised transformers for unsupervised object
       discovery using normalized cut", CVPR 2022.
    .. [2] M. Aasan et al., arXiv:2408.07680 (2024).
    """
    check_choice("method", method, METHODS)
    space = PlainCoordinates.of(features, [exclusion])
    tokens = TokenTable(features, space, exclusion)
    stop_if(should_stop, "the saliency")
    if method == METHODS[0]:
        return tokens.paint(normalised_cut(tokens.directions))
    centred = tokens.points - tokens.points.sum(0) / max(len(tokens.points), 1)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return tokens.paint(centred @ axes[:, -1])


def normalised_cut(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the second smallest solution for (n, k) unit vectors, (n,).

    0 where all are joined alike, so that nothing is to be cut.
    """
    from scipy.linalg import eigh
    from scipy.sparse.linalg import eigsh

    count = len(directions)
    graph = directions @ directions.T
    np.greater(graph, ALIKE, out=graph)
    if graph.size == 0 or graph.min() == graph.max():
        return np.zeros(count)
    graph *= 1 - UNLIKE
    graph += UNLIKE
    roots = np.sqrt(graph.sum(1))
    graph /= roots
    graph /= roots[:, None]
    if count <= _FEW:
        vectors = eigh(graph, subset_by_index=[count - 2, count - 1])[1]
    else:  # the largest two here are the smallest two of D - W; the first is known
        vectors = eigsh(graph, 2, which="LA", v0=np.linspace(1, 2, count))[1]
    return np.asarray(vectors[:, 0] / roots)


class Correspondence(NamedTuple):
    """A place on one image and its counterpart on another, with their cosine."""

    row: int
    column: int
    other_row: int
    other_column: int
    similarity: float


def correspondences(
    features: Sequence[Features], *, count: int = 10, exclusion: Masks = None
) -> list[Correspondence]:
    """Return places of two images that are most alike, the best first.

    Tokens that are the nearest of each other, by the cosine, as "best buddies" in [1]_:
    of each of `count` clusters of them the best, so that they differ.

    References
    ----------
    .. [1] S. Amir et al., "Deep ViT features as dense visual descriptors", ECCV
       Workshops 2022.
    """
    from sklearn.cluster import KMeans

    if len(features) != 2:
        raise ValueError(f"features: of {len(features)} images; give those of two")
    masks = exclusion or [None, None]
    space = PlainCoordinates.of(features, masks)
    one, other = map(TokenTable, features, [space] * 2, masks)
    cosines = one.directions @ other.directions.T
    if not cosines.size:
        return []
    nearest, back = cosines.argmax(1), cosines.argmax(0)
    mutual = np.flatnonzero(back[nearest] == np.arange(len(nearest)))
    values = cosines[mutual, nearest[mutual]]
    order = np.argsort(-values, kind="stable")
    order = order[values[order] > 0]
    mutual, values = mutual[order], values[order]
    if len(mutual) > count:
        both = np.hstack([one.directions[mutual], other.directions[nearest[mutual]]])
        groups = KMeans(count, n_init=RESTARTS, random_state=0).fit(both).labels_
        firsts = np.sort(np.unique(groups, return_index=True)[1])
        mutual, values = mutual[firsts], values[firsts]
    found = nearest[mutual]
    at = one.rows[mutual], one.columns[mutual], other.rows[found], other.columns[found]
    pairs = zip(*(each.tolist() for each in (*at, values)), strict=True)
    return [Correspondence(*pair) for pair in pairs]


def _side(shape: Sequence[int]) -> int:
    """Return the side of squares that an image has not too many of."""
    side = 16
    while -(-shape[0] // side) * -(-shape[1] // side) > MOST_TOKENS:
        side += 16
    return side


def _middles(labels: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return the flat index of the pixel of each label nearest to its middle."""
    flat = labels.ravel()
    sizes = np.bincount(flat)
    distance = np.zeros(flat.shape)
    for position in np.divmod(np.arange(flat.size), labels.shape[1]):
        middle = np.bincount(flat, position) / sizes
        distance += (position - middle[flat]) ** 2
    first: NDArray[np.intp] = sizes.cumsum() - sizes
    return np.lexsort((distance, flat))[first]
