"""The session, the viewer's layers and the workers, brought together."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QCoreApplication, QObject, Signal

from napari_hrdv2.session import FeatureRequest, Preview, Session, Stage, TimeLeft

from .backbone_texts import needs_no_download
from .blocks import BlockWork
from .jobs import JobRunner, Reporter, SideWork
from .preferences import read_preferences
from .projects import AutosaveWorker, ProjectLoader
from .viewer.layer_sync import LayerSync

if TYPE_CHECKING:
    import os

    from napari.components import ViewerModel

    from napari_hrdv2.session.features import FeatureResult
    from napari_hrdv2.session.images import ImageEntry
    from napari_hrdv2.session.pipeline import (
        PipelineInput,
        PipelineResult,
        ProcessedImage,
    )
    from napari_hrdv2.session.planes import PlaneKey

logger = logging.getLogger(__name__)


class Controller(QObject):
    """Turns what the user does into tasks, and answers into layers.

    It outlives the dock widget, so that it can end the workers and let go of the layers
    when that is destroyed. No worker waits for another: `feature_jobs`; `live_jobs`,
    the pipeline of the current image; `volumes`; and `side`, all else. While `live` is
    False, scribbles are answered by `train_anew` only.
    """

    computing_changed = Signal(bool)
    progress_changed = Signal(int, int, str)
    live_changed = Signal(bool)
    closing = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self.preferences = read_preferences()
        self.session = Session()
        try:
            self.session.configure(backbone=self.preferences.backbone)
        except ValueError as error:
            logger.warning("preferences: %s", error)
        self.link = LayerSync(viewer, self.session)
        self.feature_jobs, self.live_jobs = JobRunner(), JobRunner()
        reporter = self.reporter = Reporter(self.session)
        self.attempt, self.report = reporter.attempt, reporter.report
        self.blocks = BlockWork(self.link, self.report)
        self.side, self.volumes = SideWork(self.report), SideWork(self.report)
        self._sides = self.side, self.volumes
        self.autosave = AutosaveWorker(
            self.session, self.side, reporter, self.preferences
        )
        self.live = self.preferences.live
        self._time_left = TimeLeft()
        self._wants_features = self._wants_training = self._forced = False
        self._wants_result = self._accepts = self._closed = False
        self._refines, self._was_refused, self._was_forced = True, False, False
        self.link.scribbles_changed.connect(self.train)
        self.link.images_changed.connect(self._on_images_changed)
        self.link.refused.connect(self.report)
        self.session.relabelled.connect(self._on_relabelled)
        self.session.features_changed.connect(self._start_by_itself)
        self.session.options_changed.connect(self._start_by_itself)
        self.session.segmentation_changed.connect(self._on_segmentation_changed)
        self.session.refinement.changed.connect(self._on_refinement_changed)
        self.session.measurement.scope_changed.connect(self._on_scope_changed)
        self.feature_jobs.progressed.connect(self._on_progressed)
        for jobs in (self.feature_jobs, self.live_jobs):
            jobs.failed.connect(self._on_failed)
            jobs.cancelled.connect(self._on_cancelled)
        self.feature_jobs.returned.connect(self._on_features)
        self.live_jobs.returned.connect(self._on_processed)
        self.live_jobs.partly_returned.connect(self._on_part)
        application = QCoreApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(self.close)

    @property
    def is_computing(self) -> bool:
        """Whether features of the current image are being computed."""
        request, current = self.feature_jobs.request, self.session.current
        return bool(request and current and request.key == current.key)

    @property
    def is_busy(self) -> bool:
        """Whether anything is being computed."""
        runners = (self.feature_jobs, self.live_jobs, *self.blocks.runners)
        return any(r.request for r in runners) or any(s.is_busy for s in self._sides)

    @property
    def is_answering(self) -> bool:
        """Whether a result for the scribbles and the mask as they are will come."""
        session = self.session
        classes = {i for one in session.images.usable() for i in one.class_ids}
        can_segment = session.is_loaded or len(classes) > 1
        is_run = self.live and self.live_jobs.request is not None
        return can_segment and (self._wants_training or is_run)

    def compute_features(self) -> None:
        """Compute features as the options say, then segment if there are scribbles."""
        self._wants_features = True
        if self.feature_jobs.request is not None and not self.is_computing:
            self.feature_jobs.cancel()  # those of another image can wait
            self.session.say("Computing features begins in a moment.")
        self._advance()

    def _start_by_itself(self) -> None:
        """Compute features that need no download without being asked."""
        session, current = self.session, self.session.current
        if not self.preferences.start_features or current is None or current.pending:
            return
        if current.features is not None and not session.live.outdated(current):
            return
        if needs_no_download(session.options) and session.cost().fits:
            self.compute_features()

    def cancel(self) -> None:
        """Stop computing features."""
        self._wants_features = False
        if self.feature_jobs.request is not None:
            self.session.say("Cancelling.")
            self.feature_jobs.cancel()

    def set_live(self, live: bool) -> None:
        """Answer every scribble from now on, or only when asked to."""
        if live != self.live:
            self.live = live
            self.live_changed.emit(live)
            self.train()

    def train(self) -> None:
        """Train and segment if the scribbles have changed, and answers are live."""
        if not self.live and not self._forced:
            if self.session.features is not None:
                self.session.say("Live is off: train by hand to see the result.")
            return
        self._wants_training = True
        scribbles = self.session.scribbles
        if self.is_computing and scribbles is not None and scribbles.class_ids:
            self.session.say("Your scribbles count when the features are ready.")
        self._drop_run()  # it answers older scribbles
        self._advance()

    def train_anew(self) -> None:
        """Train and segment now; while Live is on it happens after each scribble."""
        self.link.flush()
        self._forced = True
        self.train()

    def cancel_refinement(self) -> None:
        """Keep the result of the classifier as it is, until the next change."""
        if self.session.refinement.is_pending:
            self._drop_run()
            self._refines = False
            self._advance()

    def load_classifier(self, path: str | os.PathLike[str]) -> bool:
        """Segment this image by a classifier that was saved."""
        if not self.attempt(self.session.load_classifier, path):
            return False
        self._wants_training = True
        self._advance()
        return True

    def project_loader(self) -> ProjectLoader:
        """Return a loader of projects for a panel."""
        return ProjectLoader(
            self.link, self.side, self.reporter, self.autosave, self.train
        )

    def stop_work(self) -> None:
        """Give up what is being computed; its thread ends by itself."""
        self._wants_features = self._wants_training = self._wants_result = False
        request = self.feature_jobs.request
        for jobs in (self.feature_jobs, self.live_jobs, self.blocks, *self._sides):
            jobs.close()
        self.session.live.begin(None)
        if request is not None:
            self.session.drop_request(key=request.key)
            self.computing_changed.emit(False)

    def close(self) -> None:
        """End the workers, and let go of the viewer's layers; may be called twice."""
        if self._closed:
            return
        self._closed = True
        self.closing.emit()
        self.autosave.close()
        session = self.session
        for signal in (
            session.status_changed,
            session.options_changed,
            session.classes_changed,
            session.images_changed,
            session.features_changed,
            session.segmentation_changed,
            session.relabelled,
            session.live.stage_changed,
            session.refinement.changed,
            session.measurement.changed,
            session.measurement.scope_changed,
        ):
            signal.disconnect(missing_ok=True)
        self.stop_work()
        self.link.close()

    def _advance(self) -> None:
        """Start the next things that are wanted, as far as nothing is running."""
        if self._closed:
            return
        if self.feature_jobs.request is None:
            self._advance_features()
        if self.live_jobs.request is None:
            request = self._next_run()
            if request is not None and self.live_jobs.request is None:
                self.live_jobs.start(request)
                self.session.live.begin(request)

    def _next_run(self) -> PipelineInput | None:
        """Return what the pipeline is to do next for the current image."""
        session, visible = self.session, self.link.visible_region()
        waits = self.is_computing and session.features is None  # for the features
        if self._wants_training and not waits:
            forced, self._wants_training, self._forced = self._forced, False, False
            request = session.train_request(
                force=forced, visible=visible, until=session.live.wanted_stage
            )
            if request is not None:
                self._refines, self._was_forced = True, forced
                return request
        if self._wants_result:
            self._wants_result = False
            return session.live.result_request(visible=visible, refines=self._refines)
        return None

    def _drop_run(self) -> None:
        """Want the answer of the pipeline no more; what it was to do is still owed."""
        request, stage = self.live_jobs.request, self.session.live.stage
        if request is None:
            return
        self._wants_result = True
        if stage is not None and stage <= Stage.SEGMENTATION:
            if request.version:  # it was to answer scribbles, or a loaded classifier
                self._wants_training = True
                self._forced |= self._was_forced
        elif self.live_jobs.abandon():
            self.session.live.begin(None)
            return
        self.live_jobs.cancel()

    def _advance_features(self) -> None:
        request = None
        if self._wants_features:
            self._wants_features = False
            try:
                request = self.session.feature_request()
            except Exception as error:  # noqa: BLE001 - told to the user
                if self.session.current is None:
                    self.report(error)
                else:
                    self._refuse(self.session.current, error)
        if request is None:
            request = self.session.next_feature_request(self.link.keys_ahead())
        if request is not None:
            self.feature_jobs.start(request)
            self.computing_changed.emit(self.is_computing)
            if self.is_computing:
                self.session.live.say_next_step()

    def _on_images_changed(self) -> None:
        request = self.feature_jobs.request
        if request is not None:
            entry = self.session.images.find(request.key)
            is_gone = entry is None or entry.image is not request.image
            if is_gone or self.link.may_wait(request.key):
                self.feature_jobs.cancel()
        self.computing_changed.emit(self.is_computing)
        self._advance()

    def _on_relabelled(self, key: PlaneKey) -> None:
        self.link.write_scribbles(key)
        self.train()

    def _on_progressed(self, stage: str, done: int, total: int) -> None:
        if self.is_computing:
            left = self._time_left.text(stage, done, total)
            text = ", ".join(filter(None, (stage, left)))
            self.progress_changed.emit(done, total, text)

    def _on_features(self, result: FeatureResult) -> None:
        self._time_left = TimeLeft()
        self.session.accept(result)
        self.computing_changed.emit(False)
        self.link.flush()
        if self.live:
            self._wants_training = True
        else:
            self.train()  # which says that live is off
        self._advance()

    def _on_part(self, part: Preview | ProcessedImage) -> None:
        if isinstance(part, Preview):
            self.link.show_part(part)
        else:
            self._accept(part)

    def _on_processed(self, result: PipelineResult) -> None:
        is_refused = not self._accept(result) and result.measured is not None
        self.session.live.begin(None)
        if not (is_refused and self._was_refused):  # else it would be for ever
            self._wants_result = True  # all images may be owed
        self._was_refused = is_refused
        self._advance()

    def _accept(self, answer: ProcessedImage | PipelineResult) -> bool:
        self._accepts = True
        try:
            return self.session.accept(answer)
        finally:
            self._accepts = False

    def _on_segmentation_changed(self) -> None:
        """Refine and measure a result that did not come from the pipeline."""
        if not self._accepts:
            self._on_refinement_changed()

    def _on_refinement_changed(self) -> None:
        self._drop_run()
        self._refines = self._wants_result = True
        self._was_refused = False
        self._advance()

    def _on_scope_changed(self) -> None:
        request = self.live_jobs.request
        is_measuring = request is not None and request.until is Stage.MEASUREMENT
        if is_measuring and len(request.targets) > 1:  # of all images
            self._drop_run()
        self._wants_result = True
        self._advance()

    def _on_failed(self, request: Any, error: Exception) -> None:
        current, is_features = self.session.current, isinstance(request, FeatureRequest)
        if is_features:
            self._stop_waiting(request)
        else:
            if self.session.live.stage is Stage.REFINEMENT:  # measured as it is
                self._refines, self._wants_result = False, True
            self.session.live.begin(None)
        if current is None or request.key != current.key:  # nobody asked for it yet
            logger.info("%s: %s", request.key, error)
        elif is_features:
            self._refuse(current, error)
        else:
            self.report(error)
        self._advance()

    def _on_cancelled(self, request: Any) -> None:
        if isinstance(request, FeatureRequest):
            self._stop_waiting(request, "Cancelled.")
        else:
            self.session.live.begin(None)
        self._advance()

    def _refuse(self, entry: ImageEntry, error: Exception) -> None:
        """Say why an image has no features; the status keeps saying so."""
        sentence, is_expected = self.reporter.explain(error)
        self.session.live.refuse(entry, sentence)
        self.session.say(sentence)
        if not is_expected:
            self.report(error)

    def _stop_waiting(self, request: FeatureRequest, reason: str = "") -> None:
        self._time_left = TimeLeft()
        # Scribbles that were read later would say the next step over the reason.
        self.link.flush()
        self.session.drop_request(reason, request.key)
        if self.session.features is None:
            self._wants_training = False  # there is nothing to train on
        self.computing_changed.emit(False)
