"""When what a user made is kept: after each change, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_hrdv2.session.project.autosave import AutosaveStore
from napari_hrdv2.session.project.autosave_thread import AutosaveThread, log_error
from napari_hrdv2.session.project.snapshot import (
    Fingerprints,
    project_of,
    with_fingerprints,
)

if TYPE_CHECKING:
    from psygnal import SignalInstance

    from napari_hrdv2.session.project.format import Project
    from napari_hrdv2.session.session import Session

_SIGNALS = (
    "images_changed",
    "classes_changed",
    "options_changed",
    "segmentation_changed",  # with it the classifier
)


class Autosaver:
    """Writes an autosave after each change of what a user made.

    A write that failed is tried again with the next `keep`, changed or not.

    Parameters
    ----------
    session : Session
    autosave : Autosave
    soon : callable, optional
        Called after each change in place of `keep`, which it is to call soon: so that
        many changes cost one write. By default `keep` is called at once.
    on_error : callable, optional
        Called with the exception, in another thread, when a write failed; the default
        logs it.

    Attributes
    ----------
    digests : Digests
    written : set of pathlib.Path
        The autosaves of this very session.
    """

    def __init__(
        self,
        session: Session,
        autosave: AutosaveStore,
        *,
        soon: Callable[[], object] | None = None,
        on_error: Callable[[Exception], None] | None = None,
    ) -> None:
        self._session, self.autosave = session, autosave
        self.fingerprints = Fingerprints()
        self.written: set[Path] = set()
        self._soon = soon or self.keep
        self._on_error = on_error or log_error
        self._kept: _State | None = None
        self._has_failed = threading.Event()  # set by the thread that writes
        self._writer = AutosaveThread(
            _WithDigests(autosave, self.fingerprints),
            on_error=self._on_failed,
            on_saved=self.written.add,
        )
        for signal in self._signals():
            signal.connect(self._on_changed)

    def keep(self) -> None:
        """Have everything written as it is now, unless it was given to write before."""
        project = project_of(
            self._session, painted_only=True, fingerprints=self.fingerprints
        )
        if self._kept is None and not project.images:
            return  # nothing has been done yet
        state = _State.of(self._session, project)
        is_known = self._kept is not None and state.is_same(self._kept)
        if self._has_failed.is_set() or not is_known:
            self._has_failed.clear()  # before the write, which may fail at once
            self._kept = state
            self._writer.submit(project)

    def flush(self, timeout: float | None = None) -> bool:
        """Keep what there is now and wait until it is written, or has failed."""
        self.keep()
        return self._writer.flush(timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Keep what there is and listen no longer; the thread ends by itself."""
        for signal in self._signals():
            signal.disconnect(self._on_changed, missing_ok=True)
        self.keep()
        return self._writer.close(timeout)

    def _signals(self) -> list[SignalInstance]:
        of_session = [getattr(self._session, name) for name in _SIGNALS]
        return [*of_session, self._session.refinement.changed]

    def _on_changed(self) -> None:
        self._soon()

    def _on_failed(self, error: Exception) -> None:
        self._has_failed.set()
        self._on_error(error)


class _WithDigests(AutosaveStore):
    """The same, of projects whose images are not known yet: the thread reads them."""

    def __init__(self, autosave: AutosaveStore, fingerprints: Fingerprints) -> None:
        super().__init__(autosave.folder)
        self._autosave, self._digests = autosave, fingerprints

    def write(self, project: Project) -> Path | None:
        known = with_fingerprints(project, self._digests, with_images=False)
        return self._autosave.write(known)


@dataclass(frozen=True, eq=False)
class _State:
    """What differs when anything that is kept does; no pixel is compared."""

    values: tuple[Any, ...]
    objects: tuple[object, ...]  # never changed in place: another state has others

    @classmethod
    def of(cls, session: Session, project: Project) -> _State:
        images = [session.images[saved.key] for saved in project.images]
        fingerprints = [
            (o.key, o.trains, o.scribbles and o.scribbles.fingerprint) for o in images
        ]
        values = (
            fingerprints,
            list(project.classes.items()),
            project.options,
            project.refinement,
            project.current,
        )
        weight = project.classifier.weight if project.classifier else None
        arrays = (part for o in images for part in (o.exclusion, o.partition))
        return cls(values, (weight, *arrays))

    def is_same(self, other: _State) -> bool:
        return self.values == other.values and all(
            mine is theirs
            for mine, theirs in zip(self.objects, other.objects, strict=True)
        )
