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

_AS_IS = b"as is"  # in place of the strokes' digest: what a loaded classifier gave


class Training:
    """Features, classifier and segmentation of one image, and what was fitted before.

    A loaded classifier is used while the strokes are those that were there when it was
    loaded, or do not suffice to train on; undoing all later strokes brings it back.

    Attributes
    ----------
    features : Features or None
    classifier : PixelClassifier or None
    segmentation : (H, W) int array or None
    fractions : dict of int to float
        The share of each class in the segmentation.
    is_loaded : bool
        Whether the classifier came from a file, not from the strokes.
    """

    def __init__(self) -> None:
        self.features: Any = None
        self.classifier: PixelClassifier | None = None
        self.segmentation: NDArray[np.integer[Any]] | None = None
        self.fractions: dict[int, float] = {}
        self.is_loaded = False
        self._loaded: PixelClassifier | None = None
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
        self.fractions = {}
        self.features = features
        if not self.is_loaded:
            self.classifier = None
        if features is not None:
            from napari_hrdv2.core.classifier import SampleCache

            self._samples = SampleCache(features)

    def forget_replaced(self) -> None:
        """Give up a loaded classifier that strokes have replaced."""
        if not self.is_loaded:
            self._loaded = self._digest_when_loaded = None

    def adopt(self, classifier: PixelClassifier, scribbles: Scribbles | None) -> None:
        """Take over a classifier from a file, until other strokes replace it."""
        self._generation += 1
        self._digest_when_loaded = b"" if scribbles is None else scribbles.digest
        self._loaded = classifier
        self._return_to_loaded()

    def can_train(self, scribbles: Scribbles | None, *, force: bool = False) -> bool:
        """Whether there are features, and strokes of two classes to train on."""
        if self.features is None or scribbles is None or len(scribbles.class_ids) < 2:
            return False
        if force:  # from now on these strokes count, too
            self._digest_when_loaded = None
        return self._loaded is None or scribbles.digest != self._digest_when_loaded

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
        """Return why the loaded classifier cannot be used on the features, or ""."""
        if self.features is None or self._loaded is None:
            return "There are no features yet."
        return recipes.mismatch(self._loaded, self.features)

    def request_as_is(self) -> TrainRequest | None:
        """Return the request to segment by the loaded classifier, unless it is done."""
        self._generation += 1
        if self._loaded is None:
            return None
        if not self.is_loaded:
            self._return_to_loaded()
        if self._digest == _AS_IS or self.mismatch() != "":
            return None
        return TrainRequest(
            self._generation, self.features, None, _AS_IS, self._loaded, self._samples
        )

    def accept(self, result: TrainResult) -> bool:
        """Take a result over; return False if it is too old."""
        if result.generation != self._generation:
            return False
        self.classifier = result.classifier
        self.segmentation, self.fractions = result.segmentation, result.fractions
        self._digest = result.digest
        self.is_loaded = result.digest == _AS_IS
        if not self.is_loaded:
            self._history.put(result.digest, result.classifier)
        return True

    def clear(self) -> bool:
        """Give up a result that nothing supports now; return whether there was one."""
        self._generation += 1
        if self._digest == _AS_IS or self.segmentation is None or not self.fractions:
            return False
        if not self.is_loaded:
            self.classifier = None
        self._digest, self.fractions = None, {}
        self.segmentation = np.zeros_like(self.segmentation)
        return True

    def _return_to_loaded(self) -> None:
        self.classifier, self.is_loaded, self._digest = self._loaded, True, None
