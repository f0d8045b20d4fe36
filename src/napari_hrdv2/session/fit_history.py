"""Fits of strokes that were there before, so that undo brings back the same result."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier


class FitHistory:
    """The last classifiers by the digest of the strokes they were fitted to.

    A fit that starts from the last one depends, within its tolerance, on the way that
    led to it: only remembering it can give exactly the same segmentation again.

    Parameters
    ----------
    limit : int, optional
        How many to keep; the default is more than napari's undo goes back.
    """

    def __init__(self, limit: int = 128) -> None:
        self._limit = limit
        self._fits: OrderedDict[bytes, PixelClassifier] = OrderedDict()

    def get(self, fingerprint: bytes) -> PixelClassifier | None:
        """Return the fit to these strokes, or None."""
        return self._fits.get(fingerprint)

    def put(self, fingerprint: bytes, classifier: PixelClassifier) -> None:
        """Remember a fit; the oldest one goes when there are too many."""
        self._fits[fingerprint] = classifier.light_copy()
        self._fits.move_to_end(fingerprint)
        while len(self._fits) > self._limit:
            self._fits.popitem(last=False)
