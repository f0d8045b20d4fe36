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
        self._fits[fingerprint] = light_copy(classifier)
        self._fits.move_to_end(fingerprint)
        while len(self._fits) > self._limit:
            self._fits.popitem(last=False)


def light_copy(classifier: PixelClassifier) -> PixelClassifier:
    """Return what it takes to predict, without what only speeds up the next fit."""
    copy = type(classifier)(
        C=classifier.C,
        balanced=classifier.balanced,
        tolerance=classifier.tolerance,
        self_training=classifier.self_training,
        most_per_class=classifier.most_per_class,
    )
    copy.classes = classifier.classes
    copy.weight, copy.bias = classifier.weight, classifier.bias
    copy._overview = classifier._overview  # shared, and slow to make anew
    copy.part_options, copy.labels_hash = (
        classifier.part_options,
        classifier.labels_hash,
    )
    return copy
