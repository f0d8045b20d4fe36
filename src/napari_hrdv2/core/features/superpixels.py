"""Features that are constant within regions of any shape: the other geometry.

A region map per transformed copy of the image says which token a pixel shows::

    F = mean_t tokens_t[labels_t]

A linear model acts on channels and the look-up on space, so they commute::

    W · F + b = mean_t (tokens_t · Wᵀ + b)[labels_t]
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from napari_hrdv2.core.checks import check_choice, checked_partition
from napari_hrdv2.core.errors import stop_if

from .base import Features
from .tiles import LinearModel, Needed, Stop, Tile, as_mask, projected, tiles_of
from .transforms import BOUNDARIES, TransformSet, moved_back, parse_transforms

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones.base import RegionBackbone

    from .options import PartOptions

log = logging.getLogger(__name__)


class SuperpixelFeatures(Features):
    """The average of region-wise tokens of T transformed copies of one image.

    Of each copy, `tokens` has an (n, C) table and `label_maps` the (H, W) rows of it
    that the pixels of the transformed image show: (W, H) where the transform turns it.
    They are kept as one (N, C) table and a (T, H, W) map of the upright image.

    >>> labels = torch.tensor([[0, 0, 1], [2, 2, 1]])
    >>> plain = parse_transforms("identity", 1)
    >>> features = SuperpixelFeatures([torch.eye(3)], [labels], plain)
    >>> features.shape, features.sample([1], [0]).tolist()
    ((3, 2, 3), [[0.0, 0.0, 1.0]])
    """

    def __init__(
        self,
        tokens: Sequence[Tensor],
        label_maps: Sequence[Tensor],
        transforms: TransformSet,
        *,
        boundary: str = "periodic",
        options: PartOptions | None = None,
    ) -> None:
        self.transforms = transforms
        _check_fit(tokens, label_maps, len(transforms))
        self.counts = tuple(len(table) for table in tokens)
        self.tokens = torch.cat(list(tokens))
        pairs = zip(transforms.copies, label_maps, strict=True)
        upright = [
            moved_back(copy.inverse.symmetry(labels), copy.shift, boundary)
            for copy, labels in pairs
        ]
        shapes = sorted({tuple(labels.shape) for labels in upright})
        if len(shapes) > 1:
            raise ValueError(
                f"label_maps: shapes {shapes} after undoing the transforms differ; "
                "where one turns the image, H and W swap"
            )
        starts = np.cumsum([0, *self.counts[:-1]]).tolist()
        numbered = [x + start for x, start in zip(upright, starts, strict=True)]
        self.label_maps = torch.stack(numbered).to(self.tokens.device, torch.int32)
        height, width = shapes[0]
        self.shape = (self.tokens.shape[1], height, width)
        self.part_options = () if options is None else (options,)

    def __repr__(self) -> str:
        return (
            f"SuperpixelFeatures(shape={self.shape}, tokens={sum(self.counts)}, "
            f"transforms={self.transforms.spec!r}, {self.nbytes / 1e6:.0f} MB)"
        )

    @property
    def own_nbytes(self) -> int:
        """Bytes of memory that tokens and label maps take."""
        return self.tokens.nbytes + self.label_maps.nbytes

    def sample(self, rows: ArrayLike, cols: ArrayLike) -> NDArray[np.float32]:  # noqa: D102 - inherited
        index = [x.to(self.tokens.device) for x in self._pixels(rows, cols)]
        seen = self.label_maps[:, index[0], index[1]]  # (T, N)
        total = torch.zeros(seen.shape[1], self.shape[0], device=self.tokens.device)
        for labels, weight in zip(seen, self.transforms.weights, strict=True):
            total += weight * self.tokens[labels].float()
        return total.cpu().numpy()

    def planes(  # noqa: D102 - inherited
        self, model: LinearModel, area: Tile, stop: Stop = None
    ) -> Iterator[tuple[Tile, Tensor]]:
        model = model.to(self.tokens.device)
        needed = None if area.shape == self.shape[1:] else self._needed(area)
        table = projected(self.tokens[None, None], model, needed, stop)[0, :, 0]
        for tile in tiles_of(self.shape[1:], area):  # the table is (K, N)
            stop_if(stop, "the prediction")
            total = torch.zeros((), device=table.device)
            maps = self.label_maps[:, tile.rows, tile.columns].flatten(1)
            for labels, weight in zip(maps, self.transforms.weights, strict=True):
                total = total + weight * table.index_select(1, labels)
            yield tile, total.view(len(table), *tile.shape).movedim(0, 1)

    def _needed(self, region: Tile) -> Needed:
        """Return the tokens that a region shows, as columns of a grid of one row."""
        labels = self.label_maps[:, region.rows, region.columns]
        return [(torch.ones(1, dtype=torch.bool), as_mask(labels, len(self.tokens)))]

    def materialize(self) -> NDArray[np.float32]:  # noqa: D102 - inherited
        total = torch.zeros(*self.shape[1:], self.shape[0])
        tokens, maps = self.tokens.float().cpu(), self.label_maps.cpu()
        for labels, weight in zip(maps, self.transforms.weights, strict=True):
            total += weight * tokens[labels]
        return np.ascontiguousarray(total.movedim(-1, 0).numpy())


def _check_fit(tables: Sequence[Tensor], maps: Sequence[Tensor], copies: int) -> None:
    if not len(tables) == len(maps) == copies:
        raise ValueError(
            f"tokens: {len(tables)} tables and {len(maps)} label maps do not fit "
            f"{copies} transforms; one of each is needed for each transform"
        )
    channels = {table.shape[1:] for table in tables}
    if len(channels) != 1 or tables[0].ndim != 2:
        raise ValueError(
            f"tokens: shapes {sorted(tuple(t.shape) for t in tables)} are not (n, C) "
            "of one C"
        )
    for table, labels in zip(tables, maps, strict=True):
        if labels.ndim != 2 or labels.is_floating_point() or not labels.numel():
            raise ValueError(
                f"label_maps: {labels.dtype} of shape {tuple(labels.shape)} is not an "
                "(H, W) map of whole numbers"
            )
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(table):
            raise ValueError(
                f"label_maps: labels {low}..{high} do not fit {len(table)} tokens; "
                f"0 to {len(table) - 1} are needed"
            )


@torch.no_grad()
def region_features(
    backbone: RegionBackbone,
    image: Tensor,
    transforms: str | TransformSet = "identity",
    *,
    boundary: str = "periodic",
    partition: ArrayLike | None = None,
    options: PartOptions | None = None,
    tick: Callable[[], None] | None = None,
) -> SuperpixelFeatures:
    """Return the features of an image by a backbone that divides it into regions.

    `image` is a (1 or 3, H, W) float32 tensor, nominally in 0..1. Each copy of it is
    divided by itself, or like the (H, W) ints of `partition`. `tick` is called
    ``backbone.steps`` times for each copy; what it raises ends the work.
    """
    check_choice("boundary", boundary, BOUNDARIES)
    chosen = parse_transforms(transforms, backbone.patch_size)
    given = None
    if partition is not None:
        given = torch.from_numpy(checked_partition(partition, image.shape[1:]))
    tables, maps = [], []
    for copy in chosen.copies:
        seen = copy.transform.apply(image, boundary)
        regions = None if given is None else copy.transform.apply(given, boundary)
        tokens, labels = backbone.tokens(seen, partition=regions, tick=tick)
        tables.append(tokens)
        maps.append(labels)
    count = len(tables[0])
    size = maps[0].numel() / count
    log.info("%s: %d regions of %.0f px on average", backbone.name, count, size)
    return SuperpixelFeatures(tables, maps, chosen, boundary=boundary, options=options)
