"""What is done after the classifier: settings that can be undone, and the results."""

from __future__ import annotations

import weakref
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from psygnal import Signal

from napari_hrdv2.core.postprocess.refinement import Refinement
from napari_hrdv2.session.tasks.context import compute
from napari_hrdv2.session.tasks.refinement import Refined, RefineRequest
from napari_hrdv2.session.tasks.training import Region, shares

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.session.image_entry import ImageEntry
    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.session.session import Session

__all__ = ["RefineRequest", "Refined", "RefinementState"]

_OFF = Refinement()
_REMEMBERED = 100  # changes that can be undone


@dataclass
class _Origin:
    """Where the result of a picture came from, and what was made of it."""

    labels: weakref.ref[NDArray[Any]]
    fractions: dict[int, float]
    classifier: PixelClassifier | None
    refinement: Refinement | None  # None where nobody remembers


class RefinementState:
    """How results are refined; each change can be undone, and none loses the result.

    Requests are taken here, answered by `session.compute` in any thread, and handed
    back to `accept`; scripts have it all at once by `refine`.

    Attributes
    ----------
    settings : Refinement
        By default off.

    Examples
    --------
    >>> from napari_hrdv2.session import Session
    >>> session = Session()
    >>> session.refining.change(smoothing="guided", min_object=20)
    >>> session.refining.change(min_object=50)
    >>> session.refining.undo()
    >>> session.refining.settings.min_object
    20
    """

    changed: ClassVar[Signal] = Signal()
    """The settings are other ones."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.settings = _OFF
        self._former: list[Refinement] = []
        self._undone: list[Refinement] = []
        self._origins: dict[PlaneKey, _Origin] = {}
        session.segmentation_changed.connect(self._on_segmentation_changed)
        session.images_changed.connect(self._on_images_changed)

    # Settings.

    def change(self, **changes: Any) -> None:
        """Change fields of `settings`; one that cannot be used raises ValueError."""
        settings = replace(self.settings, **changes)
        settings.check()
        if settings != self.settings:
            self._former = [*self._former, self.settings][-_REMEMBERED:]
            self._undone.clear()
            self._set(settings)

    @property
    def can_undo(self) -> bool:
        """Whether there is a change to take back."""
        return bool(self._former)

    @property
    def can_redo(self) -> bool:
        """Whether there is a change that was taken back."""
        return bool(self._undone)

    def undo(self) -> None:
        """Take the last change of the settings back."""
        if self._former:
            self._undone.append(self.settings)
            self._set(self._former.pop())

    def redo(self) -> None:
        """Make the change again that was taken back last."""
        if self._undone:
            self._former.append(self.settings)
            self._set(self._undone.pop())

    def to_dict(self) -> dict[str, object]:
        """Return the settings as plain JSON values."""
        return asdict(self.settings)

    def from_dict(self, settings: Mapping[str, Any]) -> None:
        """Take settings that were saved; what is missing is as by default.

        Raises
        ------
        ValueError
            If they cannot be used; nothing has changed then.
        """
        known = [field.name for field in fields(Refinement)]
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise ValueError(
                f"refinement: {', '.join(unknown)} is no setting; there are "
                f"{', '.join(known)}"
            )
        restored = Refinement(**settings)
        try:
            restored.check()
        except TypeError as error:  # text where a number should be
            raise ValueError(f"refinement: {dict(settings)!r}: {error}") from error
        self._former.clear()
        self._undone.clear()
        self._set(restored)

    # Work.

    @property
    def is_pending(self) -> bool:
        """Whether the result shown is not yet what the settings ask for."""
        return self._asked_for() is not None

    def request(self, *, visible: Region | None = None) -> RefineRequest | None:
        """Return what there is to do on the current picture, or None.

        Where nothing is to be done any more, the result of the classifier is shown
        again at once.
        """
        entry = self._asked_for()
        if entry is None:
            return None
        assert entry.result is not None
        origin = self._origin_of(entry)
        if self.settings.is_off:
            origin.refinement = self.settings
            self._show(entry, None, origin.fractions)
            return None
        return RefineRequest(
            entry.key,
            replace(entry.result, refined=None, fractions=origin.fractions),
            self.settings,
            entry.image,
            entry.features,
            origin.classifier,
            entry.exclusion,
            visible,
        )

    def refine(self) -> None:
        """Refine the current result here and now, for scripts."""
        request = self.request()
        if request is not None:
            self.accept(compute(request))

    def accept(self, answer: Refined) -> bool:
        """Take an answer over; return False, and change nothing, if it is too old."""
        entry = self._session.images.get(answer.key)
        result = None if entry is None else entry.result
        if (
            entry is None
            or result is None
            or result.labels is not answer.result.labels
            or answer.refinement != self.settings
        ):
            return False
        self._origin_of(entry).refinement = answer.refinement
        self._show(entry, answer.labels, answer.fractions)
        return True

    def done_to(self, entry: ImageEntry) -> Refinement | None:
        """Return what was done to the result of a picture; None if nobody remembers."""
        return self._origin_of(entry).refinement

    def is_done(self, entry: ImageEntry) -> bool:
        """Whether the result of a picture is as the settings ask for."""
        assert entry.result is not None
        is_raw = self.settings.is_off and entry.result.refined is None
        return is_raw or self.done_to(entry) == self.settings

    def remember(
        self, entry: ImageEntry, refinement: Refinement | None, raw: dict[int, float]
    ) -> None:
        """Note what was done to a result that the classifier in force gave elsewhere.

        Parameters
        ----------
        picture : Picture
        refinement : Refinement or None
        raw : dict of int to float
            The share of each class before that.
        """
        assert entry.result is not None
        self._origins[entry.key] = _Origin(
            weakref.ref(entry.result.labels),
            raw,
            self._session.classifier,
            refinement or _OFF,
        )

    # Inside.

    def _set(self, settings: Refinement) -> None:
        self.settings = settings
        self.changed.emit()

    def _asked_for(self) -> ImageEntry | None:
        """Return the current picture if its result is not as the settings say."""
        entry = self._session.current
        if entry is None or entry.result is None or not entry.result.fractions:
            return None
        if self.is_done(entry):
            return None
        origin = self._origin_of(entry)
        can_smooth = entry.features is not None and origin.classifier is not None
        return entry if can_smooth or not self.settings.smooths else None

    def _origin_of(self, entry: ImageEntry) -> _Origin:
        """Return where a result came from: later classifiers replace its own."""
        result, origin = entry.result, self._origins.get(entry.key)
        assert result is not None
        if origin is None or origin.labels() is not result.labels:
            fractions = result.fractions
            refinement: Refinement | None = _OFF
            if result.refined is not None:
                classes = np.unique(result.labels[result.labels > 0]).tolist()
                fractions = shares(result.labels, classes, entry.exclusion)
                refinement = None
            origin = self._origins[entry.key] = _Origin(
                weakref.ref(result.labels),
                fractions,
                self._session.classifier,
                refinement,
            )
        return origin

    def _show(
        self,
        entry: ImageEntry,
        labels: NDArray[np.integer[Any]] | None,
        fractions: dict[int, float],
    ) -> None:
        assert entry.result is not None
        entry.result = replace(entry.result, refined=labels, fractions=fractions)
        if entry is self._session.current:
            self._session.segmentation_changed.emit()

    def _on_segmentation_changed(self) -> None:
        """Note which classifier a result came with, while it is in force."""
        entry = self._session.current
        if entry is not None and entry.result is not None:
            self._origin_of(entry)

    def _on_images_changed(self) -> None:
        images = self._session.images
        self._origins = {k: v for k, v in self._origins.items() if k in images}
