"""Layers that show what a backbone looks at; nobody paints or segments them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap

from . import layers, planes
from .overlay import Overlay

if TYPE_CHECKING:
    import napari.components
    from numpy.typing import NDArray

    from napari_hrdv2.session.inspection import Attention, Regions
    from napari_hrdv2.session.planes import PlaneKey

    from .planes import Index

_OPACITY = 0.7
_BORDER_COLORS = {None: "transparent", 0: "transparent", 1: "yellow"}


class _MapOverlay(Overlay):
    """Maps of one image entry, which stay when another one is chosen."""

    _key: PlaneKey
    _has_heads = False

    def _put(self, kind: type, values: NDArray[Any], key: PlaneKey, **look: Any) -> Any:
        """Show (…, H, W) maps on their plane; the layer of the former ones goes."""
        image = self._sync.layers.image_of(key)
        if image is None:  # it has gone meanwhile
            return None
        self._key, metadata = key, self._mark(image)
        former = self._find(kind, metadata)
        if former is not None:
            self._viewer.layers.remove(former)
        ones = (1,) * len(key.plane)
        values = values.reshape(*values.shape[:-2], *ones, *values.shape[-2:])
        self._has_heads = values.ndim > image.ndim
        self._add(
            kind(values, metadata=metadata, **self._placement(image), **look), image
        )
        return self.layer

    def _placement(self, image: Image) -> dict[str, Any]:
        if self._has_heads:
            return layers.heads_metadata(image, self._key.plane)
        return layers.plane_metadata(image, self._key.plane)


class AttentionOverlay(_MapOverlay):
    """The attention maps of a backbone, with a slider for the heads."""

    role = "attention"

    def show(self, answer: Attention) -> Image | None:
        """Show the maps over their image; return None where that has gone."""
        maps = answer.maps if len(answer.maps) > 1 else answer.maps[0]
        finite = maps[np.isfinite(maps)]
        highest = float(np.percentile(finite, 99.5)) if finite.size else 0.0
        return self._put(
            Image,
            maps,
            answer.key,
            name=f"Attention of {answer.backbone}",
            colormap="inferno",
            contrast_limits=(0, highest or 1.0),
            blending="translucent",
            opacity=_OPACITY,
        )


class RegionOverlay(_MapOverlay):
    """The regions that the tokens of a backbone stand for, hidden at first."""

    role = "regions"

    def show(self, answer: Regions) -> Labels | None:
        """Show the regions over their image; return None where that has gone."""
        # Their many colours would hide the image.
        look = {"name": "Regions", "opacity": _OPACITY, "visible": False}
        return self._put(Labels, answer.labels, answer.key, **look)


class BorderOverlay(_MapOverlay):
    """The borders of the regions."""

    role = "region borders"

    def show(self, answer: Regions) -> Labels | None:
        """Show the borders over their image; return None where that has gone."""
        values = answer.borders.astype(np.uint8)
        colors = DirectLabelColormap(color_dict=_BORDER_COLORS)
        look = {"name": "Region borders", "colormap": colors}
        return self._put(Labels, values, answer.key, **look)


def partitions(
    viewer: napari.components.ViewerModel, image: Image, shape: tuple[int, int]
) -> list[Labels]:
    """Return the Labels layers that can divide an image entry into regions."""
    found = [layer for layer in viewer.layers if isinstance(layer, Labels)]
    return [
        layer
        for layer in found
        if tuple(layer.data.shape) == planes.label_shape(image)
        or _is_one_plane(layer, shape)
    ]


def plane_of(layer: Labels, index: Index, shape: tuple[int, int]) -> NDArray[Any]:
    """Return the (H, W) labels of one of `partitions` on the plane shown."""
    if _is_one_plane(layer, shape):
        return np.asarray(layer.data).reshape(shape)
    return np.asarray(layer.data[index])


def _is_one_plane(layer: Labels, shape: tuple[int, int]) -> bool:
    there = tuple(layer.data.shape)
    return there[-2:] == shape and math.prod(there) == math.prod(shape)
