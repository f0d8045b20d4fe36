"""Places that look like a chosen one, on one or more images, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.classifier.clusters import Masks, PlainCoordinates

if TYPE_CHECKING:
    from napari_hrdv2.core.errors import Stop
    from napari_hrdv2.core.features.base import Features

RADIUS = 4  # pixels of the disc whose mean is looked for
APART = 16  # pixels at least between places
_CANDIDATES = 50  # of an image, of which the best are listed
_LEAST_LENGTH = 1e-3  # of a place in deviations: below, nothing sets it apart


@dataclass(frozen=True, eq=False)
class Similarity:
    """How alike pixels are to a place: 1 as the place itself, 0 as the mean pixel.

    `point` is the place in the coordinates, (k,).
    """

    space: PlainCoordinates
    point: NDArray[np.float32]

    def of(
        self, features: Features, *, should_stop: Stop = None
    ) -> NDArray[np.float32]:
        """Return the similarity of every pixel of an image, (H, W)."""
        model = self.space.model_of(self.point[None] / np.square(self.point).sum())
        return np.asarray(features.project(*model, should_stop=should_stop)[0])

    def cosines(
        self, features: Features, places: Sequence[tuple[int, int]]
    ) -> NDArray[np.float32]:
        """Return the cosine between the place and each of others, -1 to 1."""
        others = _means_of_discs(self.space, features, places)
        lengths = np.linalg.norm(others, axis=1) * np.linalg.norm(self.point)
        return np.asarray(others @ self.point / np.maximum(lengths, _LEAST_LENGTH))


class AlikePlace(NamedTuple):
    """A place on the image of that number, and the cosine between it and the query."""

    image: int
    row: int
    column: int
    similarity: float


def similar_to(
    features: Sequence[Features],
    row: int,
    column: int,
    *,
    image: int = 0,
    exclusion: Masks = None,
) -> Similarity:
    """Return how alike pixels are to the mean of a disc on the image of that number.

    Notes
    -----
    The scalar product of both, from the mean of the images, in the coordinates of a
    plain fit: a linear classifier trained on one example, as in [1]_. It is one linear
    function of the features, so that no feature map is made for it.

    References
    ----------
    .. [1] B. Hariharan, J. Malik, D. Ramanan, "Discriminative decorrelation for
       clustering and classification", ECCV 2012.
    """
    space = PlainCoordinates.of(features, exclusion)
    (point,) = _means_of_discs(space, features[image], [(row, column)])
    if not np.linalg.norm(point) > _LEAST_LENGTH:  # NaN, too
        raise ValueError(
            f"row, column: nothing at {row}, {column} stands out from the mean of the "
            "images; choose another place, within the image"
        )
    return Similarity(space, point)


def alike_places(
    similarity: Similarity,
    features: Sequence[Features],
    maps: Sequence[NDArray[np.float32]],
    *,
    count: int = 10,
    exclusion: Masks = None,
    query: tuple[int, int, int] | None = None,
) -> list[AlikePlace]:
    """Return the places that are most alike on images, the best first.

    The highest places of the (H, W) `maps` of similarity, in the order of the cosine,
    which does not favour what is extreme and must be above 0. They are `APART` from
    each other and, if that is given, from the `query`: image, row and column.
    """
    places = []
    for number, one in enumerate(maps):
        values = one
        if exclusion is not None and (mask := exclusion[number]) is not None:
            values = np.where(mask, np.float32(np.nan), one)
        taken = [query[1:]] if query is not None and query[0] == number else []
        highest = highest_places(values, _CANDIDATES, taken)
        cosines = similarity.cosines(features[number], highest).tolist()
        pairs = zip(highest, cosines, strict=True)
        places += [AlikePlace(number, *at, value) for at, value in pairs if value > 0]
    return sorted(places, key=lambda place: -place.similarity)[:count]


def highest_places(
    values: NDArray[np.float32], count: int, taken: Sequence[tuple[int, int]] = ()
) -> list[tuple[int, int]]:
    """Return rows and columns where means of squares as wide as the disc are highest.

    They are `APART` from each other and from those that are taken, along rows or
    columns, and not NaN.
    """
    from scipy.ndimage import uniform_filter

    means = uniform_filter(np.nan_to_num(values), 2 * RADIUS + 1, mode="nearest")
    means[np.isnan(values)] = -np.inf
    found: list[tuple[int, int]] = []
    for row, column in taken:
        _leave_out(means, row, column)
    while len(found) < count:
        row, column = map(int, np.unravel_index(means.argmax(), means.shape))
        if means[row, column] == -np.inf:
            break
        found.append((row, column))
        _leave_out(means, row, column)
    return found


def _leave_out(means: NDArray[np.float32], row: int, column: int) -> None:
    rows, columns = (slice(max(i - APART + 1, 0), i + APART) for i in (row, column))
    means[rows, columns] = -np.inf


def _means_of_discs(
    space: PlainCoordinates, features: Features, places: Sequence[tuple[int, int]]
) -> NDArray[np.float32]:
    """Return the means of discs in the coordinates, (N, k), by one look at them all."""
    from skimage.draw import disk

    discs = [disk(at, RADIUS + 0.5, shape=features.shape[1:]) for at in places]
    points = space(features.sample(*np.concatenate([np.zeros((2, 0), int), *discs], 1)))
    parts = np.split(points, np.cumsum([len(rows) for rows, _ in discs]))[:-1]
    means = [part.sum(0) / max(len(part), 1) for part in parts]
    return np.array(means, np.float32).reshape(len(places), points.shape[1])
