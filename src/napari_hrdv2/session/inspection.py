"""What features show without labels: attention, regions, colours, clusters, places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .images import has_regions
from .planes import is_large

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
    from napari_hrdv2.core.features.options import FeatureOptions
    from napari_hrdv2.core.guidance.alike import AlikePlace

    from .features import FeatureStore
    from .images import ImageEntry, Images
    from .planes import PlaneKey
    from .tasks import Task, TaskContext

    Maps = dict[PlaneKey, NDArray[Any]]
    _Each = Callable[[Any], Maps]
    _Find = Callable[[dict[str, Any], _Each], dict[str, Any]]

FEWEST_CLUSTERS, MOST_CLUSTERS = 2, 50
_WIDTH = 256  # of tables by cluster, which are uint8
_NOT_LOADED = "compute features with this backbone first, which loads it"
_NO_IMAGE = "open an image first"


@dataclass(frozen=True)
class Attention:
    """How much the class token looks at each pixel."""

    key: PlaneKey
    backbone: str
    maps: NDArray[np.float32]  # (heads, H, W); of a network of regions one, the flow


@dataclass(frozen=True)
class Regions:
    """The regions that the features of an image stand for."""

    key: PlaneKey
    labels: NDArray[np.int32]  # from 1 on
    borders: NDArray[np.bool_]  # where one ends and another begins
    count: int


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


class Inspection:
    """Whether there is anything to see, and the requests for it."""

    def __init__(self, images: Images, features: FeatureStore) -> None:
        self._images, self._features = images, features
        self._clusters: JointLook | None = None  # that were found last

    def why_no_attention(self) -> str:
        """Return why no attention can be shown now, or ""."""
        from napari_hrdv2.core.guidance.attention import shows_attention

        name = self._features.options.backbone
        if self._images.current is None:
            return _NO_IMAGE
        if not shows_attention(name):
            return (
                f"{name} has no class token; choose a Vision Transformer such as "
                "dino-small-8, or a network of regions such as spit-small"
            )
        current = self._images.current
        if current is not None and (current.is_in_blocks or is_large(current.image)):
            return "this image is too large to be looked at as a whole"
        return "" if self._backbone() is not None else _NOT_LOADED

    def why_no_regions(self) -> str:
        """Return why no regions can be shown now, or ""."""
        entry = self._images.current
        if entry is None:
            return _NO_IMAGE
        made = entry.options or self._features.options
        return _why_no_regions(made) or (
            "" if entry.features is not None else "compute features first"
        )

    def region_count(self) -> str:
        """Return how many regions the current image's features have, or ""."""
        entry = self._images.current
        if entry is None or self.why_no_regions():
            return ""
        from napari_hrdv2.core.guidance.attention import region_count

        count = region_count(entry.features)
        each = entry.shape[0] * entry.shape[1] / count
        return f"{count} regions, {each:.0f} px each on average."

    def why_no_partition(self) -> str:
        """Return why regions from elsewhere would be of no use, or ""."""
        if self._images.current is None:
            return _NO_IMAGE
        return _why_no_regions(self._features.options)

    def why_no_upsampler(self) -> str:
        """Return what to do for the weights of the chosen interpolation, or ""."""
        if not self._features.options.interpolation.startswith("jbu"):
            return ""
        from napari_hrdv2.core.errors import WeightsError
        from napari_hrdv2.core.features.upsampling.featup import featup_file

        try:
            featup_file()
        except WeightsError as error:
            return str(error).removeprefix("interpolation: ")
        return ""

    def attention_request(self) -> Task:
        """Return the request for the attention on the current image."""
        entry = self._entry("attention", self.why_no_attention())
        options, backbone = self._features.options, self._backbone()
        assert backbone is not None  # else there is a reason
        partition = entry.partition_for(options)
        key, image, levels = entry.key, entry.image, options.value_range

        def find(context: TaskContext) -> Attention:
            """Run the backbone once more, with the chosen transforms."""
            from napari_hrdv2.core.backbones.spit.backbone import SpitBackbone
            from napari_hrdv2.core.guidance.attention import (
                attention_flow_map,
                attention_maps,
            )

            context.progress("Attention", 0, 0)
            if isinstance(backbone, SpitBackbone):
                flow = attention_flow_map(
                    image, backbone, partition=partition, value_range=levels
                )
                return Attention(key, options.backbone, flow[None])
            maps = attention_maps(
                image,
                backbone,
                options.transforms,
                options.stride,
                partial(context.progress, "Attention"),
                context.should_stop,
                interpolation=options.interpolation,
                value_range=levels,
            )
            return Attention(key, options.backbone, maps)

        return find

    def regions_request(self) -> Task:
        """Return the request for the regions of the current image's features."""
        entry = self._entry("regions", self.why_no_regions())
        key, features = entry.key, entry.features

        def find(context: TaskContext) -> Regions:
            from napari_hrdv2.core.backbones.superpixels import borders
            from napari_hrdv2.core.guidance.attention import region_labels

            context.progress("Regions", 0, 0)
            labels = region_labels(features)
            return Regions(key, labels, borders(labels), int(labels.max()))

        return find

    # Without labels, on all images whose features are alike.

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

        def find(joint: dict[str, Any], each: _Each) -> dict[str, Any]:
            from napari_hrdv2.core.classifier.clusters import principal_colors

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

        def find(joint: dict[str, Any], each: _Each) -> dict[str, Any]:
            from napari_hrdv2.core.classifier.clusters import find_clusters

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

        def find(joint: dict[str, Any], each: _Each) -> dict[str, Any]:
            from napari_hrdv2.core.guidance.alike import alike_places, similar_to

            similarity = similar_to(row=row, column=column, **joint)
            maps = each(similarity.of)
            seen, query = [*maps.values()], (0, row, column)
            places = alike_places(similarity, maps=seen, query=query, **joint)
            return {"maps": maps, "places": places}

        return self._joint_request("place", find)

    def _joint_request(self, wanted: str, find: _Find) -> Task:
        self._entry(wanted, self._images.why_not_together())
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
            from napari_hrdv2.core.classifier.clusters import deepest_discs

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

    def use_partition(self, labels: ArrayLike | None, name: str = "") -> bool:
        """Use regions from elsewhere on the current image; return if they changed."""
        entry = self._entry("partition", self.why_no_partition())
        return self._images.set_partition(entry, labels, name)

    def _entry(self, wanted: str, reason: str) -> ImageEntry:
        entry = self._images.current
        if reason or entry is None:
            raise ValueError(f"{wanted}: {reason}")
        return entry

    def _backbone(self) -> Backbone | JoinedBackbone | None:
        loaded, options = self._features.loaded, self._features.options
        return loaded.backbone if loaded and loaded.serves(options) else None


def _why_no_regions(options: FeatureOptions) -> str:
    if has_regions(options):
        return ""
    return (
        f"{options.backbone} sees square patches, not regions; choose a network such "
        "as spit-small"
    )


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
