"""The session, the viewer's layers and the worker, brought together."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from napari.utils.notifications import show_error
from qtpy.QtCore import QCoreApplication, QObject, Signal

from napari_hrdv2.session import (
    FeatureRequest,
    FeatureResult,
    Session,
    TimeLeft,
    TrainRequest,
    TrainResult,
)
from napari_hrdv2.widgets.jobs import JobRunner
from napari_hrdv2.widgets.link import ViewerLink

if TYPE_CHECKING:
    import os

    import napari.components

logger = logging.getLogger(__name__)

# What the core raises on purpose: its text is one sentence for the user.
_EXPECTED = (ValueError, TypeError, OSError, MemoryError)


class Controller(QObject):
    """Turns what the user does into requests, and answers into layers.

    It has no window of its own and outlives the dock widget, so that it can end the
    worker and let go of the layers when the widget is destroyed.

    Attributes
    ----------
    session : Session
    link : ViewerLink
    jobs : JobRunner
    """

    computing_changed = Signal(bool)
    progress_changed = Signal(int, int, str)

    def __init__(self, viewer: napari.components.ViewerModel) -> None:
        super().__init__()
        self.session = Session()
        self.link = ViewerLink(viewer, self.session)
        self.jobs = JobRunner()
        self._time_left = TimeLeft()
        self._wants_features = self._wants_training = self._forced = False
        self._closed = False
        self.link.strokes_changed.connect(self.train)
        self.link.images_changed.connect(self._on_images_changed)
        self.link.refused.connect(self.report)
        self.jobs.progressed.connect(self._on_progressed)
        self.jobs.returned.connect(self._on_returned)
        self.jobs.failed.connect(self._on_failed)
        self.jobs.cancelled.connect(self._on_cancelled)
        application = QCoreApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(self.close)

    @property
    def is_computing(self) -> bool:
        """Whether features are being computed."""
        return isinstance(self.jobs.request, FeatureRequest)

    def compute_features(self) -> None:
        """Compute features as the settings say, then segment if there are strokes."""
        self._wants_features = True
        self._advance()

    def cancel(self) -> None:
        """Stop computing features."""
        self._wants_features = False
        if self.is_computing:
            self.session.say("Cancelling.")
            self.jobs.cancel()

    def train(self) -> None:
        """Train and segment if the strokes have changed."""
        self._wants_training = True
        strokes = self.session.scribbles
        if self.is_computing and strokes is not None and strokes.class_ids:
            self.session.say("Your strokes count when the features are ready.")
        self._advance()

    def train_anew(self) -> None:
        """Train and segment although nothing may have changed."""
        self.link.flush()
        self._forced = True
        self.train()

    def save_classifier(self, path: str | os.PathLike[str]) -> bool:
        """Save; on failure say why in one sentence, and change nothing."""
        try:
            self.session.save_classifier(path)
        except Exception as error:  # noqa: BLE001 - told to the user
            self.report(error)
            return False
        return True

    def load_classifier(self, path: str | os.PathLike[str]) -> bool:
        """Load and segment by it; on failure say why, and change nothing."""
        try:
            self.session.load_classifier(path)
        except Exception as error:  # noqa: BLE001 - told to the user
            self.report(error)
            return False
        self.train()
        return True

    def report(self, error: Exception) -> None:
        """Show an error as one sentence, with the trace in the log."""
        sentence = _sentence(error)
        logger.info("%s", sentence, exc_info=error)
        self.session.say(sentence)
        show_error(sentence)

    def stop_work(self) -> None:
        """Give up what is being computed; its thread ends by itself."""
        self._wants_features = self._wants_training = False
        was_computing = self.is_computing
        self.jobs.close()
        if was_computing:
            self.session.drop_request()
            self.computing_changed.emit(False)

    def close(self) -> None:
        """End the worker, and let go of the viewer's layers; may be called twice."""
        if self._closed:
            return
        self._closed = True
        for name in ("status", "settings", "classes", "features", "segmentation"):
            getattr(self.session, f"{name}_changed").disconnect(missing_ok=True)
        self.stop_work()
        self.link.close()

    def _advance(self) -> None:
        """Start the next thing that is wanted, if nothing is running."""
        if self._closed or self.jobs.request is not None:
            return
        request = None
        if self._wants_features:
            self._wants_features = False
            try:
                request = self.session.feature_request()
            except Exception as error:  # noqa: BLE001 - told to the user
                self.report(error)
        if request is None and self._wants_training:
            request = self.session.train_request(force=self._forced)
            self._wants_training = self._forced = False
        if request is not None:
            self.jobs.start(request)
            self.computing_changed.emit(self.is_computing)

    def _on_images_changed(self) -> None:
        request = self.jobs.request
        if self.is_computing and request.image is not self.session.image:
            self.jobs.cancel()

    def _on_progressed(self, stage: str, done: int, total: int) -> None:
        left = self._time_left.text(stage, done, total)
        self.progress_changed.emit(done, total, ", ".join(filter(None, (stage, left))))

    def _on_returned(self, result: FeatureResult | TrainResult) -> None:
        self.session.accept(result)
        if isinstance(result, FeatureResult):
            self._time_left = TimeLeft()
            self.computing_changed.emit(False)
            self.link.flush()
            self._wants_training = True
        self._advance()

    def _on_failed(
        self, request: FeatureRequest | TrainRequest, error: Exception
    ) -> None:
        if isinstance(request, FeatureRequest):
            self._stop_waiting(request, "Failed.")
        self.report(error)
        self._advance()

    def _on_cancelled(self, request: FeatureRequest | TrainRequest) -> None:
        if isinstance(request, FeatureRequest):
            self._stop_waiting(request, "Cancelled.")
        self._advance()

    def _stop_waiting(self, request: FeatureRequest, reason: str) -> None:
        self._time_left = TimeLeft()
        if request.image is self.session.image:
            self.session.drop_request(reason)
        if self.session.features is None:
            self._wants_training = False  # there is nothing to train on
        self.computing_changed.emit(False)


def _sentence(error: Exception) -> str:
    if not isinstance(error, _EXPECTED):
        return f"Unexpected error: {error!r}"
    if isinstance(error, OSError) and error.strerror and error.filename is None:
        return error.strerror  # without the number of the error
    return str(error)
