"""Blocks of a large image: segmented in a worker where one looks, or all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal
from superqt.utils import QSignalDebouncer

from napari_hrdv2.session import Preview, Stage, TimeLeft

from .jobs import JobRunner
from .viewer import planes

if TYPE_CHECKING:
    from .viewer.layer_sync import LayerSync

REST_TIME = 150  # milliseconds for which the view rests before its blocks are begun


class BlockWork(QObject):
    """Segments the blocks in view that the result lacks, and the rest on demand.

    A new result ends what is on its way; what was done of it stays until then.
    """

    changed = Signal()
    progress_changed = Signal(int, int, str)

    def __init__(self, sync: LayerSync, report: Callable[[Exception], object]) -> None:
        super().__init__()
        self._sync, self._session = sync, sync.session
        self.jobs, self._time_left = JobRunner(), TimeLeft()
        self._wants_all = False
        self._rest = QSignalDebouncer(parent=self)
        self._rest.setTimeout(REST_TIME)
        self._rest.triggered.connect(self._look)
        camera = planes.camera_of(sync.viewer)
        self._moves = [camera.events.center, camera.events.zoom]
        for event in self._moves:
            event.connect(self._on_moved)
        self._session.live.stage_changed.connect(self._on_stage)
        self._session.segmentation_changed.connect(self._on_moved)
        self._session.images_changed.connect(self._on_moved)
        self.jobs.progressed.connect(self.tell)
        self.jobs.partly_returned.connect(self._on_part)
        self.jobs.failed.connect(lambda request, error: report(error))
        for signal in (self.jobs.returned, self.jobs.cancelled, self.jobs.failed):
            signal.connect(self._on_end)

    @property
    def is_of_all(self) -> bool:
        """Whether all blocks are being segmented."""
        return self._wants_all

    @property
    def is_there(self) -> bool:
        """Whether the image is one whose features are computed in blocks."""
        current = self._session.current
        return current is not None and current.is_in_blocks

    @property
    def has_more(self) -> bool:
        """Whether there is a result that lacks blocks."""
        current = self._session.current
        return bool(current and current.result and current.result.is_partial)

    def segment_all(self) -> None:
        """Segment all blocks; what is done stays when it is cancelled."""
        self._wants_all = True
        self.jobs.cancel()  # of what is in view, which comes first now
        self._look()
        self.changed.emit()

    def cancel(self) -> None:
        """Segment no more than what is in view."""
        self._wants_all = False
        self.jobs.cancel()
        self.changed.emit()

    def tell(self, stage: str, done: int, total: int) -> None:
        """Tell how far the work is, and the time left."""
        text = ", ".join(
            filter(None, (stage, self._time_left.text(stage, done, total)))
        )
        self.progress_changed.emit(done, total, text)

    def close(self) -> None:
        """End the work, and let go of the viewer."""
        self._rest.cancel()
        for event in self._moves:
            event.disconnect(self._on_moved)
        self._moves = []
        self.jobs.close()

    def _look(self) -> None:
        """Begin with what is missing, unless another result is on its way."""
        current, running = self._session.current, self.jobs.request
        if not self._moves or _is_answering(self._session.live.stage):
            return
        wanted = self._session.live.filling(
            visible=self._sync.visible_region(), everything=self._wants_all
        )
        if running is None:
            self._wants_all &= wanted is not None
            if wanted is not None:
                self._time_left = TimeLeft()
                self.jobs.start(wanted)
            self.changed.emit()
        elif not running.is_of_all or running.key != (current and current.key):
            windows = () if wanted is None else wanted.windows
            if not set(map(_corner, windows)) & set(map(_corner, running.windows)):
                self.jobs.cancel()  # one has gone elsewhere

    def _on_moved(self, event: object = None) -> None:
        self._rest.throttle()

    def _on_stage(self, stage: Stage | None) -> None:
        if _is_answering(stage):
            self._wants_all = False
            self.jobs.cancel()
        else:
            self._rest.throttle()

    def _on_part(self, part: Preview) -> None:
        if self._session.live.accept(part):
            self._sync.show_part(part)

    def _on_end(self, *told: Any) -> None:
        failed = len(told) > 1  # it would fail again
        self._wants_all &= self.has_more and not failed
        self.changed.emit()
        if not failed:
            self._rest.throttle()


def _is_answering(stage: Stage | None) -> bool:
    """Whether a new result is on its way."""
    return stage is not None and stage <= Stage.SEGMENTATION


def _corner(window: tuple[slice, slice]) -> tuple[int, int]:
    return window[0].start, window[1].start
