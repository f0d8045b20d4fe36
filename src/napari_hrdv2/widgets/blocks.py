"""Blocks of a large image: segmented where one looks, or all of them into a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_hrdv2.core.postprocess.refinement import Refinement
from napari_hrdv2.files.label_store import SUFFIX
from napari_hrdv2.session import Preview, Stage, TimeLeft
from napari_hrdv2.session.batch.whole import is_taken, whole_request
from napari_hrdv2.session.export import stem_of
from napari_hrdv2.session.planes import PlaneKey

from .jobs import JobRunner, when_rested
from .viewer import planes

if TYPE_CHECKING:
    from .viewer.layer_sync import LayerSync

REST_TIME = 150  # milliseconds for which the view rests before its blocks are begun


class BlockWork(QObject):
    """Segments the blocks in view that the result lacks, and on demand all of them.

    Those in view are in memory; all of them go into an OME-Zarr, beside which what is
    done of it waits when it is cancelled. A new result ends what is on its way.
    """

    changed = Signal()
    mapped = Signal()
    progress_changed = Signal(int, int, str)

    def __init__(self, sync: LayerSync, report: Callable[[Exception], object]) -> None:
        super().__init__()
        self._sync, self._session, self._report = sync, sync.session, report
        self._in_view, self._all = self.runners = JobRunner(), JobRunner()
        self._time_left = TimeLeft()
        self._key = PlaneKey("")  # the image of which all is segmented
        self._by: tuple[bytes, Any] = b"", None  # the classifier, and what it is by
        self._begun: dict[PlaneKey, Path] = {}  # where what was begun is gone on with
        self._rest = when_rested(self, REST_TIME, self._look)
        camera = planes.camera_of(sync.viewer)
        self._moves = [camera.events.center, camera.events.zoom]
        for event in self._moves:
            event.connect(self.look_soon)
        self._session.live.stage_changed.connect(self._on_stage)
        self._session.segmentation_changed.connect(self.look_soon)
        self._session.images_changed.connect(self._on_images)
        self._session.refinement.changed.connect(self.look_soon)
        self._in_view.progressed.connect(self._on_view_progressed)
        self._in_view.partly_returned.connect(self._on_part)
        self._all.progressed.connect(self._on_progressed)
        for signal in (self._all.returned, self._all.failed, self._all.cancelled):
            signal.connect(self._on_all_ended)
        self._all.returned.connect(self._on_whole)
        self._all.failed.connect(self._on_all_failed)
        for jobs in self.runners:
            jobs.failed.connect(self._on_failed)
            for signal in (jobs.returned, jobs.cancelled):
                signal.connect(self._on_end)

    @property
    def is_of_all(self) -> bool:
        """Whether all blocks are being segmented."""
        return self._all.request is not None

    @property
    def is_there(self) -> bool:
        """Whether the image is one whose features are computed in blocks."""
        current = self._session.current
        return current is not None and current.is_in_blocks

    @property
    def has_more(self) -> bool:
        """Whether there is a result that lacks blocks, or is refined otherwise."""
        current, wanted = self._session.current, self._session.refinement.settings
        if current is None or current.result is None or not current.is_shown:
            return False
        is_refined = (current.result.refinement or Refinement()) == wanted
        return current.result.is_partial or not is_refined

    @property
    def target(self) -> Path | None:
        """The OME-Zarr in which all of this image was begun."""
        current = self._session.current
        return None if current is None else self._begun.get(current.key)

    def target_in(self, folder: Path) -> Path:
        """Return the OME-Zarr for all of this image in a folder, and of no other."""
        images, current, stem = self._session.images, self._session.current, ""
        begun = [path for key, path in self._begun.items() if key in images]
        taken = {path.name.removesuffix(SUFFIX) for path in begun}
        for entry in images.values():
            if entry is current or entry.key not in self._begun:
                stem = stem_of(entry, taken)
                taken.add(stem)
            if entry is current:
                break
        target = folder / f"{stem}{SUFFIX}"
        while current and is_taken(self._session, target):  # by a closed image
            taken.add(stem := stem_of(current, taken))
            target = folder / f"{stem}{SUFFIX}"
        return target

    def segment_all(self, target: Path) -> None:
        """Segment all blocks; what is done stays when it is cancelled."""
        try:
            self._all.start(whole_request(self._session, target))
        except (OSError, ValueError) as error:
            self._begun = {k: p for k, p in self._begun.items() if p != target}
            self._report(error)
            return
        assert self._session.current is not None
        self._key, self._time_left = self._session.current.key, TimeLeft()
        self._begun[self._key], self._session.live.whole = target, self._key
        self._by = self._session.classifier_fingerprint, self._trains()
        self._session.live.say_next_step()
        self.changed.emit()

    def look_soon(self, event: object = None) -> None:
        """Look for blocks in view that are missing."""
        self._rest.throttle()

    def cancel(self) -> None:
        """Segment no more than what is in view."""
        self._all.cancel()

    def close(self) -> None:
        """End the work, and let go of the viewer."""
        self._rest.cancel()
        for event in self._moves:
            event.disconnect(self.look_soon)
        self._moves = []
        for jobs in self.runners:
            jobs.close()

    def _look(self) -> None:
        """Begin with what is missing, unless another result is on its way."""
        running, (fingerprint, trained) = self._in_view.request, self._by
        is_other = fingerprint != self._session.classifier_fingerprint
        if self.is_of_all and is_other and trained != self._trains():
            self._all.cancel()  # as after an undo on another image
        if not self._moves or _is_answering(self._session.live.stage):
            return
        wanted = self._session.live.block_request(visible=self._sync.visible_region())
        if running is None:
            if wanted is not None:
                self._in_view.start(wanted)
            self.changed.emit()
            return
        windows = () if wanted is None else wanted.windows
        if not set(map(_corner, windows)) & set(map(_corner, running.windows)):
            self._in_view.cancel()  # one has gone elsewhere

    def _trains(self) -> tuple[bytes, set[bytes]]:
        """Return what a classifier is by, whichever image is shown."""
        session = self._session
        loaded = session.classifier_fingerprint if session.is_loaded else b""
        return loaded, {one.fingerprint() for one in session.images.painted()}

    def _on_images(self) -> None:
        if self._key not in self._session.images:
            self._all.cancel()
        self._rest.throttle()

    def _on_stage(self, stage: Stage | None) -> None:
        if not _is_answering(stage):
            self._rest.throttle()
            return
        self._in_view.cancel()
        current = self._session.current
        if stage == Stage.CLASSIFIER or (current and current.key == self._key):
            self._all.cancel()

    def _on_part(self, part: Preview) -> None:
        shown = self._session.live.map
        if shown is not None and shown.put(part):
            self.mapped.emit()
        elif self._session.live.accept(part):
            self._sync.show_part(part)

    def _on_view_progressed(self, stage: str, done: int, total: int) -> None:
        if not self.is_of_all:
            self.progress_changed.emit(done, total, stage)

    def _on_progressed(self, stage: str, done: int, total: int) -> None:
        left = self._time_left.text(stage, done, total)
        self.progress_changed.emit(done, total, ", ".join(filter(None, (stage, left))))
        self._rest.throttle()  # a block may be there by now that is far in view

    def _on_whole(self, done: Any) -> None:
        session, path = self._session, self._begun.pop(self._key)
        session.accept(done)  # it may be too old for the window
        session.say(f"Written to {path}. {session.next_step()}")

    def _on_all_ended(self, *told: object) -> None:
        self._session.live.whole = None
        self._session.live.say_next_step()

    def _on_all_failed(self, request: Any, error: Exception) -> None:
        self._begun.pop(self._key, None)  # it would fail there again

    def _on_failed(self, request: Any, error: Exception) -> None:
        self._report(error)
        self.changed.emit()  # and not again: it would fail

    def _on_end(self, told: object) -> None:
        self.changed.emit()
        self._rest.throttle()


def _is_answering(stage: Stage | None) -> bool:
    return stage is not None and stage <= Stage.SEGMENTATION


def _corner(window: tuple[slice, slice]) -> tuple[int, int]:
    return window[0].start, window[1].start
