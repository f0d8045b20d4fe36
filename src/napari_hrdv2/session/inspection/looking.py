"""What features show without labels, on all images whose features are alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.classifier.clusters import (
    deepest_discs,
    find_clusters,
    principal_colors,
)
from napari_hrdv2.core.guidance.alike import AlikePlace, alike_places, similar_to
from napari_hrdv2.core.guidance.foreground import principal_foreground
from napari_hrdv2.core.guidance.tokens import correspondences, token_saliency
from napari_hrdv2.session.images import ImageEntry, Images
from napari_hrdv2.session.planes import PlaneKey
from napari_hrdv2.session.tasks import Task, TaskContext

Maps = dict[PlaneKey, NDArray[Any]]
_Joint = dict[str, Any]
_Stop = Callable[[], bool]
_Each = Callable[[Any], Maps]
_Find = Callable[[_Joint, _Each], dict[str, Any]]

FEWEST_CLUSTERS, MOST_CLUSTERS = 2, 50
_WIDTH = 256  # of tables by cluster, which are uint8
_PAIR_RADIUS = 8  # pixels of the discs on two images that correspond


@dataclass(frozen=True, eq=False)
class JointLook:
    """What is seen of images together: maps, clusters, or places that are alike.

    A map of clusters says which one, from 1 on, and 0 where pixels are left out;
    `shares` are fractions of all images, `classes` what clusters are named as, both by
    cluster. `seen` are the images, with the versions of their features.
    """

    maps: Maps
    seen: dict[PlaneKey, tuple[ImageEntry, int]]
    shares: dict[int, float] = field(default_factory=dict)
    classes: dict[int, int] = field(default_factory=dict)
    places: Sequence[AlikePlace] = ()

    def key_of(self, place: AlikePlace) -> PlaneKey:
        """Return the image that a place is on."""
        return [*self.seen][place.image]

    def named(self, key: PlaneKey) -> NDArray[Any]:
        """Return the classes on an image, 0 where its clusters have no name."""
        ids = self.classes.values()  # a wider kind could not be undone in its layer
        table = np.zeros(_WIDTH, np.min_scalar_type(max(ids, default=0)))
        for cluster, class_id in self.classes.items():
            table[cluster] = class_id
        return table[self.maps[key]]


class Looking:
    """The requests for what is seen of images together, and what clusters they have."""

    def __init__(self, images: Images) -> None:
        self._images = images
        self._clusters: JointLook | None = None  # that were found last

    def joint_images(self) -> list[ImageEntry]:
        """Return the images that are looked at together, the current one first.

        Of other stacks only the planes with scribbles: neighbours were begun ahead.
        """
        current = self._images.current
        return [
            one
            for one in self._images.together()
            if one is current or one.class_ids or not one.key.plane
        ]

    def colors_request(self) -> Task:
        """Return the request for principal components as colours."""

        def find(joint: _Joint, each: _Each) -> dict[str, Any]:
            return {"maps": each(principal_colors(**joint).paint)}

        return self._joint_request("colours", find)

    def clusters_request(self, count: int) -> Task:
        """Return the request for clusters; they keep the names of those before."""
        if not FEWEST_CLUSTERS <= count <= MOST_CLUSTERS:
            raise ValueError(
                f"count: {count} clusters are not from {FEWEST_CLUSTERS} to "
                f"{MOST_CLUSTERS}"
            )
        former = self.clusters
        if former is not None:
            maps = {
                key: former.maps[key] for key in former.maps if self._has(former, key)
            }
            former = replace(former, maps=maps, classes=dict(former.classes))

        def find(joint: _Joint, each: _Each) -> dict[str, Any]:
            found = find_clusters(count=count, **joint)
            maps = each(partial(found.predict, first=1))
            sizes = np.zeros(_WIDTH, np.int64)
            for labels in maps.values():
                sizes += np.bincount(labels.ravel(), minlength=_WIDTH)
            shares = sizes[1 : found.count + 1] / max(sizes[1:].sum(), 1)
            names = {} if former is None else _names_kept(former, maps)
            numbered = dict(enumerate(shares.tolist(), start=1))
            return {"maps": maps, "shares": numbered, "classes": names}

        return self._joint_request("clusters", find)

    def alike_request(self, row: int, column: int) -> Task:
        """Return the request for what looks like a place on the current image."""

        def find(joint: _Joint, each: _Each) -> dict[str, Any]:
            similarity = similar_to(row=row, column=column, **joint)
            maps = each(similarity.of)
            seen, query = [*maps.values()], (0, row, column)
            places = alike_places(similarity, maps=seen, query=query, **joint)
            return {"maps": maps, "places": places}

        return self._joint_request("place", find)

    def foreground_request(self) -> Task:
        """Return the request for the foreground by the first principal component."""
        pictures = [one.image for one in self.joint_images()]

        def find(joint: _Joint, each: _Each) -> dict[str, Any]:
            found = principal_foreground(images=pictures, **joint)
            return {"maps": each(found.predict)}

        return self._joint_request("foreground", find)

    def saliency_request(self, method: str) -> Task:
        """Return the request for how much each token stands out of its image."""

        def find(joint: _Joint, each: _Each) -> dict[str, Any]:
            masks = iter(joint["exclusion"])  # of the images, in their order

            def see(features: Any, should_stop: _Stop) -> NDArray[np.float32]:
                return token_saliency(
                    features, method, exclusion=next(masks), should_stop=should_stop
                )

            return {"maps": each(see)}

        return self._joint_request("saliency", find)

    def pairs_request(self) -> Task:
        """Return the request for places of this image and the next that correspond.

        The maps have a disc for each, of the same number on both.
        """
        two = self.joint_images()[:2]

        def find(joint: _Joint, each: _Each) -> dict[str, Any]:
            from skimage.draw import disk

            features, masks = joint["features"][:2], joint["exclusion"][:2]
            found = correspondences(features, exclusion=masks)
            maps = {one.key: np.zeros(one.shape, np.uint8) for one in two}
            places = []
            for number, pair in enumerate(found, start=1):
                for image, at in enumerate((pair[:2], pair[2:4])):
                    drawn = maps[two[image].key]
                    drawn[disk(at, _PAIR_RADIUS, shape=drawn.shape)] = number
                    places.append(AlikePlace(image, *at, pair.similarity))
            return {"maps": maps, "places": places}

        few = "" if len(two) == 2 else "open a second image, with features made alike"
        return self._joint_request("correspondences", find, few)

    def _joint_request(self, wanted: str, find: _Find, why_not: str = "") -> Task:
        if reason := self._images.why_not_together() or why_not:
            raise ValueError(f"{wanted}: {reason}")
        entries = self.joint_images()
        images = [one.snapshot() for one in entries]
        seen = {one.key: (one, one.version) for one in entries}

        def look(context: TaskContext) -> JointLook:
            def each(see: Any) -> Maps:
                maps = {}
                for number, one in enumerate(images):
                    context.progress("Looking", number, len(images))
                    maps[one.key] = see(one.features, should_stop=context.should_stop)
                    if one.exclusion is not None:
                        maps[one.key][one.exclusion] = 0
                return maps

            context.progress("Looking", 0, len(images))
            joint = {
                "features": [one.features for one in images],
                "exclusion": [one.exclusion for one in images],
            }
            found = find(joint, each)
            return JointLook(seen=seen, **found)

        return look

    def accept(self, look: JointLook) -> bool:
        """Forget maps of what has changed since; return whether any is left."""
        for key, (entry, version) in look.seen.items():
            if not self._has(look, key) or entry.version != version:
                look.maps.pop(key, None)
        if look.maps and look.shares:
            self._clusters = look
        return bool(look.maps)

    @property
    def clusters(self) -> JointLook | None:
        """Those that were found last, of images that are open still."""
        found = self._clusters
        is_there = found and any(self._has(found, key) for key in found.maps)
        return found if is_there else None

    def discs_request(self) -> Task:
        """Return the request for discs where the clusters with names are deepest."""
        found = self.clusters
        if found is None or not found.classes:
            raise ValueError("clusters: none has a name yet; give one a class first")
        found = replace(found, classes=dict(found.classes))

        def find(context: TaskContext) -> JointLook:
            discs = {}
            for number, key in enumerate(found.maps):
                context.stop_if_cancelled()
                context.progress("Scribbles from clusters", number, len(found.maps))
                discs[key] = deepest_discs(found.named(key))
            return replace(found, maps=discs)

        return find

    def paintable(self, discs: JointLook) -> Maps:
        """Return discs where nothing is painted or left out now, of images with any."""
        maps = {}
        for key, drawn in discs.maps.items():
            if self._has(discs, key):
                mask = self._images[key].not_to_paint()
                free = drawn if mask is None else np.where(mask, 0, drawn)
                if free.any():
                    maps[key] = free
        return maps

    def _has(self, look: JointLook, key: PlaneKey) -> bool:
        """Whether an image is still open, with the same pixels."""
        return self._images.get(key) is look.seen[key][0]


def _names_kept(former: JointLook, maps: Maps) -> dict[int, int]:
    """Name clusters as most of their pixels were named before, if most were."""
    table = np.zeros((_WIDTH, _WIDTH), np.int64)  # pixels by new and former cluster
    for key in maps.keys() & former.maps.keys():
        pairs = maps[key].astype(np.int32) * _WIDTH + former.maps[key]
        table += np.bincount(pairs.ravel(), minlength=table.size).reshape(table.shape)
    names = {}
    for cluster in np.flatnonzero(table.sum(1)[1:]) + 1:
        votes: Counter[int] = Counter()
        for old, class_id in former.classes.items():
            votes[class_id] += table[cluster, old]
        for class_id, count in votes.most_common(1):
            if 2 * count > table[cluster].sum():
                names[int(cluster)] = class_id
    return names
