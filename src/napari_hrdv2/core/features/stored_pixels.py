"""Features of the few pixels that were painted, where the rest was given up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from napari_hrdv2.core.features.base import Features
from napari_hrdv2.core.features.sample_cache import background_pixels

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    from napari_hrdv2.core.features.tiles import Tile


class KnownPixels(Features):
    """What remains of features when their memory is needed: enough to train on.

    Parameters
    ----------
    features : Features
        They are read here, and not kept.
    pixels : (N,) array of int
        Flat indices into (H, W); those of `training_pixels` are enough while the
        strokes stay as they are. Those of `background_pixels` are kept beside them.
    """

    def __init__(self, features: Features, pixels: NDArray[np.int64]) -> None:
        self.shape, self.part_options = features.shape, features.part_options
        self.channel_weights = features.channel_weights
        self._kept = np.union1d(pixels, background_pixels(self.shape[1:]))
        self._vectors = features.sample(*np.divmod(self._kept, self.shape[2]))

    @property
    def own_nbytes(self) -> int:
        """Bytes of memory that the rows take."""
        return self._vectors.nbytes

    def knows(self, pixels: NDArray[np.int64]) -> bool:
        """Whether all of these flat indices were kept."""
        return bool(np.isin(pixels, self._kept).all())

    def sample(self, rows: ArrayLike, cols: ArrayLike) -> NDArray[np.float32]:
        """Return the feature vectors at some of the pixels that were kept."""
        wanted = np.asarray(rows, np.int64) * self.shape[2] + np.asarray(cols, np.int64)
        if not self.knows(wanted):
            self._refuse()
        return self._vectors[np.searchsorted(self._kept, wanted)]

    def materialize(self) -> NDArray[np.float32]:
        """Raise ValueError: there is no map any more."""
        self._refuse()

    def planes(
        self,
        weight: Tensor,
        bias: Tensor,
        region: Tile | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Iterator[tuple[Tile, Tensor]]:
        """Raise ValueError: there is no map any more."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ValueError(
            "features: only those of painted pixels were kept of this image; compute "
            "its features again"
        )
