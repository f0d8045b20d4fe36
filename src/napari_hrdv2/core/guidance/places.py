"""Places to name before anything is painted: what is typical of images, and rare."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_hrdv2.core.checks import check_whole, checked_mask
from napari_hrdv2.core.classifier.clusters import Clusters, find_clusters
from napari_hrdv2.core.errors import stop_if

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from napari_hrdv2.core.features.base import Features

    Maps = list[tuple[NDArray[Any], NDArray[np.float32]]]

RADIUS = 4  # px, of what is painted at a place
APART = 12  # px, between places
COMMON = 8  # places at least, before any is for rare structures
RARE = 0.5  # of the further places are those that the others are least like
FINE = 64  # clusters among which rare structures are looked for
ALIKE = 0.5  # of the deepest: so deep inside is a place in another image as good
MOST_PIXELS = 1 << 24  # that are looked at for the middles of patches


@dataclass(frozen=True, eq=False)
class Place:
    """The middle of a patch of one cluster, for a person to name.

    Attributes
    ----------
    image, row, column : int
        Which of the images, counted from 0, and the pixel.
    cluster : int
        Which cluster, counted from 0: first the common ones, then the rare ones.
    share : float
        Fraction of the background sample that is like it.
    is_rare : bool
        Whether it was chosen because the other places are not like it.
    pixels : (N,) int64 array
        Flat indices of the pixels that are what it is: of a disc around it those of
        the same cluster, ascending.
    """

    image: int
    row: int
    column: int
    cluster: int
    share: float
    is_rare: bool
    pixels: NDArray[np.int64]


def propose_places(
    features: Features | Sequence[Features],
    count: int = 16,
    *,
    exclusion: Sequence[ArrayLike | None] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[Place]:
    """Return places whose names tell the most, the most common ones first.

    Most are the middles of clusters of k-means in the classifier's coordinates: the
    pixels deepest inside a patch. Of those beyond the first eight every second one is
    the middle of a finer cluster instead, each time the one farthest from all places
    so far, so that rare structures are among them.

    Parameters
    ----------
    features : Features, or a sequence of them
        Of one image or of several, which share the places.
    count : int
        How many; fewer where the images have no more that differ.
    exclusion : sequence of (H, W) arrays of bool or None, optional
        For each image the pixels without a place. Those without a number have none
        anyway.
    seed : int
        Of k-means; the same one gives the same places.
    progress : callable, optional
        Called with how much is done, and how much there is.
    should_stop : callable, optional
        Asked between images; `Cancelled` is raised when it says so.

    Notes
    -----
    It needs up to 30 bytes of memory for each pixel of the largest image.
    """
    many = list(features) if isinstance(features, Sequence) else [features]
    check_whole("count", count)
    given = [None] * len(many) if exclusion is None else list(exclusion)
    if len(given) != len(many) or not many:
        raise ValueError(
            f"exclusion: {len(given)} masks for {len(many)} images; one for each is "
            "needed, or None"
        )
    masks = [
        checked_mask(mask, one.shape[1:]) for mask, one in zip(given, many, strict=True)
    ]
    step = int(
        np.ceil((sum(one.shape[1] * one.shape[2] for one in many) / MOST_PIXELS) ** 0.5)
    )
    places: list[Place] = []
    rare = int(RARE * max(count - COMMON, 0))
    stages = 2 if rare else 1
    for stage in range(stages):
        is_rare = stage == 1
        clusters = find_clusters(
            many, FINE if is_rare else count - rare, exclusion=masks, seed=seed
        )
        maps: Maps = []
        for one, mask in zip(many, masks, strict=True):
            stop_if(should_stop, "the search for places")
            maps.append(_patches(one, mask, clusters, step))
            if progress is not None:
                progress(stage * len(many) + len(maps), stages * len(many))
        for place in places:
            _blank(maps, place, step)
        order = np.argsort(-clusters.shares, kind="stable").tolist()
        if is_rare:
            order = _unlike(clusters, many, places)
        for cluster in order:
            if len(places) == count:
                break
            found = _deepest(maps, cluster, [place.image for place in places])
            if found is None:
                continue
            image, row, column = found[0], found[1] * step, found[2] * step
            place = Place(
                image,
                row,
                column,
                len(places),
                float(clusters.shares[cluster]),
                is_rare,
                _like(many[image], masks[image], clusters, row, column),
            )
            _blank(maps, place, step)
            places.append(place)
    return places


def _unlike(
    clusters: Clusters, many: Sequence[Features], places: Sequence[Place]
) -> Iterator[int]:
    """Yield clusters, each time the one farthest from those of all places so far."""
    centres = clusters.centres
    spots = [many[one.image].sample([one.row], [one.column]) for one in places]
    known = centres[clusters.nearest(np.concatenate(spots))]
    distance = ((centres[:, None] - known) ** 2).sum(2).min(1)
    while distance.max() > 0:
        farthest = int(distance.argmax())
        yield farthest
        distance = np.minimum(distance, ((centres - centres[farthest]) ** 2).sum(1))


def _patches(
    features: Features, mask: NDArray[np.bool_] | None, clusters: Clusters, step: int
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Return the cluster of every step-th pixel, and how deep in a patch it is.

    That is the distance to the next pixel at a border; -1 where there can be no place.
    """
    from scipy.ndimage import distance_transform_edt

    model = clusters.model
    bad = ~np.isfinite(features.project(model.weight[:1], model.bias[:1])[0])
    if mask is not None:
        bad |= mask
    labels, bad = clusters.predict(features)[::step, ::step], bad[::step, ::step]
    inside = np.pad(~bad, 1)
    for axis in (0, 1):
        before = labels.take(range(labels.shape[axis] - 1), axis)
        differs = before != labels.take(range(1, labels.shape[axis]), axis)
        for ends in ((1, 2), (2, 1)):  # the pixels on both sides are at the border
            widths = [(1, 1), (1, 1)]
            widths[axis] = ends
            inside &= ~np.pad(differs, widths)
    depth = distance_transform_edt(inside)[1:-1, 1:-1].astype(np.float32)
    depth[bad] = -1
    return labels, depth


def _deepest(
    maps: Maps, cluster: int, images: list[int]
) -> tuple[int, int, int] | None:
    """Return image, row and column of the middle of a cluster's largest patch.

    Among images with patches of about this size it is the one with the fewest of the
    places so far, whose `images` are given. None if nothing of the cluster is left.
    """
    found = []
    for labels, depth in maps:
        inside = np.where(labels == cluster, depth, -1)
        row, column = np.unravel_index(inside.argmax(), inside.shape)
        found.append((float(inside[row, column]), int(row), int(column)))
    most = max(found)[0]
    if most < 0:
        return None
    able = [i for i, one in enumerate(found) if one[0] >= ALIKE * most]
    image = min(able, key=lambda i: (images.count(i), -found[i][0]))
    return image, *found[image][1:]


def _blank(maps: Maps, place: Place, step: int) -> None:
    """Let no other place be near this one."""
    depth = maps[place.image][1]
    rows, columns = (np.arange(length) * step for length in depth.shape)
    near_rows = np.flatnonzero(abs(rows - place.row) < APART)
    near_columns = np.flatnonzero(abs(columns - place.column) < APART)
    window = depth[np.ix_(near_rows, near_columns)]
    away = (rows[near_rows] - place.row)[:, None] ** 2
    away = away + (columns[near_columns] - place.column) ** 2
    depth[np.ix_(near_rows, near_columns)] = np.where(away < APART**2, -1, window)


def _like(
    features: Features,
    mask: NDArray[np.bool_] | None,
    clusters: Clusters,
    row: int,
    column: int,
) -> NDArray[np.int64]:
    """Return the pixels of a disc around a pixel that are of the same cluster."""
    height, width = features.shape[1:]
    rows = np.arange(max(row - RADIUS, 0), min(row + RADIUS + 1, height))
    columns = np.arange(max(column - RADIUS, 0), min(column + RADIUS + 1, width))
    region = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    model = clusters.model
    labels = features.argmax(model.weight, model.bias, region=region)
    same = labels == labels[row - rows[0], column - columns[0]]
    same &= (rows[:, None] - row) ** 2 + (columns - column) ** 2 <= RADIUS**2
    if mask is not None:
        same &= ~mask[region]
    return np.asarray((rows[:, None] * width + columns)[same], np.int64)
