"""From features and strokes to a classifier and a segmentation, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_hrdv2.session import recipes
from napari_hrdv2.session.history import FitHistory
from napari_hrdv2.session.requests import TrainRequest, TrainResult

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.classifier import PixelClassifier, SampleCache
    from napari_hrdv2.session.scribbles import Scribbles


class Training:
    """Features, classifier and segmentation of one image, and what was fitted before.

    Attributes
    ----------
    features : Features or None
    classifier : PixelClassifier or None
    segmentation : (H, W) int array or None
    is_loaded : bool
        Whether the classifier came from a file, not from the strokes.
    """

    def __init__(self) -> None:
        self.features: Any = None
        self.classifier: PixelClassifier | None = None
        self.segmentation: NDArray[np.integer[Any]] | None = None
        self.is_loaded = False
        self._samples: SampleCache | None = None
        self._history = FitHistory()
        self._digest: bytes | None = None
        self._digest_when_loaded: bytes | None = None
        self._generation = 0

    def begin(self, features: Any) -> None:
        """Start over on other features, or on none; a loaded classifier stays."""
        self._generation += 1
        self._history.clear()
        self._digest = self.segmentation = self._samples = None
        self.features = features
        if not self.is_loaded:
            self.classifier = None
        if features is not None:
            from napari_hrdv2.core.classifier import SampleCache

            self._samples = SampleCache(features)

    def adopt(self, classifier: PixelClassifier, scribbles: Scribbles | None) -> None:
        """Take over a classifier from a file, until other strokes replace it."""
        self._generation += 1
        self._digest = None
        self._digest_when_loaded = None if scribbles is None else scribbles.digest
        self.classifier = classifier
        self.is_loaded = True

    def can_train(self, scribbles: Scribbles | None, *, force: bool = False) -> bool:
        """Whether there are features, and strokes of two classes to train on."""
        if self.features is None or scribbles is None or len(scribbles.class_ids) < 2:
            return False
        return (
            force or not self.is_loaded or scribbles.digest != self._digest_when_loaded
        )

    def request(self, scribbles: Scribbles, *, force: bool) -> TrainRequest | None:
        """Return what to fit for these strokes; None if the result is theirs already.

        An answer that is still on its way is dropped in either case.
        """
        self._generation += 1
        if scribbles.digest == self._digest and not force:
            return None
        known = None if force else self._history.get(scribbles.digest)
        start = None if self.is_loaded else self.classifier
        return TrainRequest(
            self._generation,
            self.features,
            None if known else scribbles.labels,
            scribbles.digest,
            known or start,
            self._samples,
        )

    def mismatch(self) -> str:
        """Return why the classifier cannot be used on the features as it is, or ""."""
        if self.features is None or self.classifier is None:
            return "There are no features yet."
        return recipes.mismatch(self.classifier, self.features)

    def request_as_is(self) -> TrainRequest | None:
        """Return the request to segment by the loaded classifier, unless it is done."""
        self._generation += 1
        if self._digest == b"" or not self.is_loaded or self.mismatch() != "":
            return None
        return TrainRequest(
            self._generation, self.features, None, b"", self.classifier, self._samples
        )

    def accept(self, result: TrainResult) -> bool:
        """Take a result over; return False if it is too old."""
        if result.generation != self._generation:
            return False
        self.classifier = result.classifier
        self.segmentation = result.segmentation
        self._digest = result.digest
        if result.digest:
            self.is_loaded = False
            self._history.put(result.digest, result.classifier)
        return True

    def clear(self) -> bool:
        """Give up a result whose strokes are gone; return whether there was one."""
        self._generation += 1
        if self.is_loaded or self.segmentation is None or not self._digest:
            return False
        self.classifier = self._digest = None
        self.segmentation = np.zeros_like(self.segmentation)
        return True
