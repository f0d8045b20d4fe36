"""From features and strokes to a classifier, and what was fitted before."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from napari_hrdv2.session.fit_history import FitHistory
from napari_hrdv2.session.tasks.training import (
    Region,
    Strokes,
    TrainRequest,
    TrainResult,
)

if TYPE_CHECKING:
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.session.image_entry import ImageEntry

_AS_IS = b"as is"  # in place of the strokes' digest: what a loaded classifier gave


class ClassifierState:
    """The classifier of the strokes, or of a file, and what was fitted before.

    A loaded classifier is used while the strokes are those that were there when it was
    loaded, or do not suffice to train on; undoing all later strokes brings it back.

    Attributes
    ----------
    classifier : PixelClassifier or None
    is_loaded : bool
        Whether the classifier came from a file, not from the strokes.
    """

    def __init__(self) -> None:
        self.classifier: PixelClassifier | None = None
        self.is_loaded = False
        self._loaded: PixelClassifier | None = None
        self._history = FitHistory()
        self._digest = b""  # of the strokes that the classifier was fitted to
        self._strokes_when_loaded: bytes | None = None
        self._generation = 0

    @property
    def generation(self) -> int:
        """Number of the last request; answers to older ones are dropped."""
        return self._generation

    @property
    def fingerprint(self) -> bytes:
        """Names the strokes that the classifier was fitted to."""
        return self._digest

    def drop_answers(self) -> None:
        """Want no answer that is still on its way."""
        self._generation += 1

    def adopt(self, classifier: PixelClassifier, painted: Sequence[ImageEntry]) -> None:
        """Take over a classifier from a file, until other strokes replace it."""
        self._generation += 1
        self._strokes_when_loaded = _strokes_of(painted)
        self._loaded = classifier
        self._return_to_loaded()

    def can_train(
        self,
        painted: Sequence[ImageEntry],
        usable: Sequence[ImageEntry],
        *,
        force: bool = False,
    ) -> bool:
        """Whether there are strokes of two classes to train on that are new.

        `usable` are those of the `painted` pictures that have fitting features.
        """
        if len({i for one in usable for i in one.class_ids}) < 2:
            return False
        if force:  # from now on these strokes count, too
            self._strokes_when_loaded = None
        return self._loaded is None or _strokes_of(painted) != self._strokes_when_loaded

    def request(
        self,
        usable: Sequence[ImageEntry],
        target: ImageEntry,
        *,
        force: bool = False,
        visible: Region | None = None,
    ) -> TrainRequest | None:
        """Return what to fit to these strokes and what to segment by it.

        None if the result is there already. An answer that is still on its way is
        dropped in either case.
        """
        self._generation += 1
        fingerprint = _digest_of(usable)
        fitted = self.classifier if fingerprint == self._digest else None
        known = None if force else fitted or self._history.get(fingerprint)
        if (
            known
            and target.result is not None
            and target.result.fingerprint == fingerprint
        ):
            if known is not fitted:
                self._use(known, fingerprint)
            return None
        start = None if self.is_loaded else self.classifier
        strokes = () if known else tuple(one.training_part() for one in usable)
        return self._ask(target, fingerprint, strokes, known or start, visible)

    def mismatch(self, target: ImageEntry | None) -> str:
        """Return why the loaded classifier cannot be used on the features, or ""."""
        if target is None or target.features is None or self._loaded is None:
            return "There are no features yet."
        return self._loaded.mismatch(target.features)

    def request_as_is(
        self, target: ImageEntry | None, *, visible: Region | None = None
    ) -> TrainRequest | None:
        """Return the request to segment by the loaded classifier, unless it is done."""
        self._generation += 1
        if self._loaded is None:
            return None
        if not self.is_loaded:
            self._return_to_loaded()
        if target is None or self.mismatch(target) != "":
            return None
        if target.result is not None and target.result.fingerprint == _AS_IS:
            return None
        return self._ask(target, _AS_IS, (), self._loaded, visible)

    def is_as_loaded(self, entry: ImageEntry) -> bool:
        """Whether the result of a picture came from the loaded classifier."""
        return entry.result is not None and entry.result.fingerprint == _AS_IS

    def accept(self, result: TrainResult) -> bool:
        """Take a result over; return False if it is too old."""
        if result.generation != self._generation:
            return False
        self._use(result.classifier, result.fingerprint)
        return True

    def give_up_fit(self) -> None:
        """Let go of a classifier whose strokes are gone."""
        self._generation += 1
        if not self.is_loaded:
            self.classifier, self._digest = None, b""

    def _ask(
        self,
        target: ImageEntry,
        fingerprint: bytes,
        strokes: tuple[Strokes, ...],
        classifier: PixelClassifier | None,
        visible: Region | None,
    ) -> TrainRequest:
        return TrainRequest(
            target.key,
            self._generation,
            fingerprint,
            target.features,
            strokes,
            classifier,
            target.exclusion,
            visible,
        )

    def _use(self, classifier: PixelClassifier, fingerprint: bytes) -> None:
        self.classifier, self._digest = classifier, fingerprint
        self.is_loaded = fingerprint == _AS_IS
        if not self.is_loaded:
            self._history.put(fingerprint, classifier)

    def _return_to_loaded(self) -> None:
        self.classifier, self.is_loaded, self._digest = self._loaded, True, _AS_IS


def _digest_of(images: Sequence[ImageEntry]) -> bytes:
    """Return a digest of strokes and the features that they lie on."""
    text = b"|".join(entry.fingerprint() for entry in images)
    return hashlib.blake2b(text, digest_size=16).digest()


def _strokes_of(images: Sequence[ImageEntry]) -> bytes:
    """Return a digest of strokes, whichever features they lie on."""
    return b"|".join(
        str(one.key).encode() + one.scribbles_fingerprint for one in images
    )
