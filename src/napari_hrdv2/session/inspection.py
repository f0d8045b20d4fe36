"""What features show without labels: attention, regions, colours, clusters, places."""

from __future__ import annotations

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
    from .snapshots import ImageSnapshot
    from .tasks import Task, TaskContext

    _Images = list[ImageSnapshot]
    Maps = dict[PlaneKey, NDArray[Any]]

_JOINT = ("features", "exclusion")  # of an image, for what looks at many
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
class ClusterMaps:
    """Which cluster, from 1 on, each pixel of each image is in; 0 where left out.

    `shares` are fractions of all images together, `classes` what clusters were named
    as, both by cluster.
    """

    maps: Maps
    shares: dict[int, float]
    classes: dict[int, int] = field(default_factory=dict)

    def named(self, key: PlaneKey) -> NDArray[Any]:
        """Return the classes on an image, 0 where its clusters have no name."""
        ids = self.classes.values()  # a wider kind could not be undone in its layer
        table = np.zeros(256, np.min_scalar_type(max(ids, default=0)))
        for cluster, class_id in self.classes.items():
            table[cluster] = class_id
        return table[self.maps[key]]


@dataclass(frozen=True, eq=False)
class AlikePlaces:
    """How alike all images are to a place, and where they are most."""

    maps: Maps
    places: list[tuple[PlaneKey, AlikePlace]]


class Inspection:
    """Whether there is anything to see, and the requests for it."""

    def __init__(self, images: Images, features: FeatureStore) -> None:
        self._images, self._features = images, features
        self.clusters: ClusterMaps | None = None  # that were found last

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

    def why_no_joint_look(self) -> str:
        """Return why colours, clusters and places cannot be shown now, or ""."""
        entry = self._images.current
        if entry is None:
            return _NO_IMAGE
        return "" if entry.features is not None else "compute features first"

    def joint_images(self) -> list[ImageEntry]:
        """Return the images that are looked at together, the current one first.

        Of other stacks only the planes with scribbles: neighbours were begun ahead.
        """
        current = self._images.current
        others = [
            one
            for one in self._images.values()
            if one is not current
            and one.features is not None
            and self._images.is_usable(one)
            and (one.class_ids or not one.key.plane)
        ]
        return others if current is None else [current, *others]

    def colors_request(self) -> Task:
        """Return the request for principal components as colours, by key."""

        def find(images: _Images, context: TaskContext) -> Maps:
            from napari_hrdv2.core.classifier.clusters import principal_colors

            return _each(images, principal_colors(**_together(images)).paint, context)

        return self._joint_request("colours", find)

    def clusters_request(self, count: int) -> Task:
        """Return the request for clusters; they keep the names of those before."""
        former = self.clusters

        def find(images: _Images, context: TaskContext) -> ClusterMaps:
            from napari_hrdv2.core.classifier.clusters import find_clusters

            clusters = find_clusters(count=count, **_together(images))
            maps = _each(images, lambda *a, **k: clusters.predict(*a, **k) + 1, context)
            every = np.concatenate([labels.ravel() for labels in maps.values()])
            sizes = np.bincount(every, minlength=256)
            shares = sizes[1 : len(clusters.model.bias) + 1] / max(sizes[1:].sum(), 1)
            found = ClusterMaps(maps, dict(enumerate(shares.tolist(), start=1)))
            if former is not None and former.classes:
                _keep_names(former, found)
            return found

        return self._joint_request("clusters", find)

    def alike_request(self, row: int, column: int) -> Task:
        """Return the request for what looks like a place on the current image."""

        def find(images: _Images, context: TaskContext) -> AlikePlaces:
            from napari_hrdv2.core.guidance.alike import alike_places, similar_to

            joint = _together(images)
            similarity = similar_to(row=row, column=column, **joint)
            maps = _each(images, similarity.of, context)
            seen, query = [*maps.values()], (0, row, column)
            places = alike_places(similarity, maps=seen, query=query, **joint)
            return AlikePlaces(maps, [(images[p.image].key, p) for p in places])

        return self._joint_request("place", find)

    def dabs_request(self) -> Task:
        """Return the request for scribbles from the clusters that have names, by key.

        They are where the classes are deepest, and not on what is painted.
        """
        found = self.clusters
        if found is None or not found.classes:
            raise ValueError("clusters: none has a name yet; give one a class first")
        found = replace(found, classes=dict(found.classes))
        entries = [one for key in found.maps if (one := self._images.find(key))]
        fitting = [one for one in entries if one.shape == found.maps[one.key].shape]
        painted = [(one.key, one.scribbles) for one in fitting]

        def find(context: TaskContext) -> Maps:
            from napari_hrdv2.core.classifier.clusters import deepest_dabs

            dabs = {}
            for number, (key, scribbles) in enumerate(painted):
                context.stop_if_cancelled()
                context.progress("Scribbles from clusters", number, len(painted))
                dabs[key] = deepest_dabs(found.named(key))
                if scribbles is not None:
                    dabs[key][scribbles.labels != 0] = 0
            return {key: drawn for key, drawn in dabs.items() if drawn.any()}

        return find

    def _joint_request(self, wanted: str, find: Any) -> Task:
        self._entry(wanted, self.why_no_joint_look())
        images = [one.snapshot() for one in self.joint_images()]

        def run(context: TaskContext) -> Any:
            context.progress("Looking", 0, len(images))
            return find(images, context)

        return run

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


def _together(images: _Images) -> dict[str, Any]:
    features, masks = ([getattr(one, name) for one in images] for name in _JOINT)
    return dict(zip(_JOINT, (features, masks), strict=True))


def _each(images: _Images, look: Any, context: TaskContext) -> Maps:
    """Return what is seen of each image, 0 where that is excluded."""
    maps = {}
    for number, one in enumerate(images):
        context.progress("Looking", number, len(images))
        maps[one.key] = look(one.features, should_stop=context.should_stop)
        if one.exclusion is not None:
            maps[one.key][one.exclusion] = 0
    return maps


def _keep_names(former: ClusterMaps, found: ClusterMaps) -> None:
    """Name clusters as most of their pixels were named before, if most were."""
    pairs = [
        (labels, former.named(key))
        for key, labels in found.maps.items()
        if key in former.maps and former.maps[key].shape == labels.shape
    ]
    for cluster in found.shares if pairs else ():
        counts = np.bincount(
            np.concatenate([was[labels == cluster] for labels, was in pairs])
        )
        best = int(counts.argmax()) if counts.size else 0
        if best and 2 * counts[best] > counts.sum():
            found.classes[cluster] = best
