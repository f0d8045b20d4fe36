"""Takes the view to where to paint next, and marks strokes that are suspicious."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Shapes
from qtpy.QtCore import QObject, Signal

from napari_hrdv2.widgets.viewer import layers as make
from napari_hrdv2.widgets.viewer.camera import look_at

if TYPE_CHECKING:
    import napari.components
    from numpy.typing import NDArray

    from napari_hrdv2.core.guidance import LabelIssue, UncertainRegion
    from napari_hrdv2.session.tasks.guidance import LabelIssues, UncertainRegions
    from napari_hrdv2.widgets.controller import Controller

MARKS = "Suspicious strokes"

_PLACES, _SUSPECTS = "places", "suspects"  # what the side work calls them
_LEAST_SHARE = 0.1  # of the view: where a place takes less, it is zoomed in
_EDGE, _EDGE_CHOSEN = "#ff4fd8", "#ffffff"
_MARGIN = 4  # pixels between a stroke and its mark


class Guide(QObject):
    """Asks the session where to paint next, and goes there.

    Attributes
    ----------
    place : Place or None
        Where the view was taken last, unless a stroke has been answered since.
    chosen : Suspect or None
        The suspicious stroke that is looked at.
    marks : Shapes or None
        The layer that frames the suspicious strokes.
    """

    changed = Signal()

    def __init__(
        self, viewer: napari.components.ViewerModel, controller: Controller
    ) -> None:
        super().__init__(controller)
        self._viewer, self._controller = viewer, controller
        self._session, self._link = controller.session, controller.link
        self.place: UncertainRegion | None = None
        self.chosen: LabelIssue | None = None
        self.marks: Shapes | None = None
        self._session.guidance.changed.connect(self._on_changed)
        controller.closing.connect(self._close)

    # Uncertain places.

    def go_next(self) -> None:
        """Go to the next uncertain place; look for such places if need be."""
        guidance = self._session.guidance
        if guidance.has_uncertain_regions:
            self._visit_next()
            return
        try:
            request = guidance.uncertain_regions_request()
        except ValueError as error:
            self._session.say(str(error))
            return
        self._session.say("Looking for uncertain places.")
        self._controller.side.submit(_PLACES, request, self._on_places)

    def _on_places(self, answer: UncertainRegions) -> None:
        if self._session.guidance.accept(answer):
            self._visit_next()
        else:  # a stroke came in between
            self.go_next()

    def _visit_next(self) -> None:
        self.place = place = self._session.guidance.next_uncertain_region()
        if place is None:
            self._session.say("The classifier is sure everywhere: no place stands out.")
        else:
            self._show(place.row, place.column, place.radius)
            self._session.say(f"Paint here? {place.reason}.")
        self.changed.emit()

    # Suspicious strokes.

    def check_scribbles(self) -> None:
        """Look for strokes that all the others contradict."""
        self._link.flush()
        try:
            request = self._session.guidance.label_issues_request()
        except ValueError as error:
            self._session.say(str(error))
            return
        self._session.say("Checking each stroke by the others.")
        self._controller.side.submit(_SUSPECTS, request, self._on_suspects)

    def choose(self, label_issue: LabelIssue) -> None:
        """Go to a suspicious stroke, and say what is suspicious."""
        self.chosen = label_issue
        top, left, bottom, right = self._frame(label_issue)
        radius = max(bottom - top, right - left) / 2
        self._show((top + bottom) / 2, (left + right) / 2, radius)
        self._session.say(f"{label_issue.reason}.")
        self._show_marks()

    def relabel(self) -> None:
        """Give the chosen stroke the class that the other strokes propose."""
        if self.chosen is not None:
            self._session.guidance.relabel(self.chosen, self.chosen.predicted_id)

    def erase(self) -> None:
        """Take the chosen stroke away."""
        if self.chosen is not None:
            self._session.guidance.erase(self.chosen)

    def clear(self) -> None:
        """Take the list of suspicious strokes away, and their frames."""
        self._controller.side.cancel(_SUSPECTS)
        self._session.guidance.drop_label_issues()

    def _on_suspects(self, answer: LabelIssues) -> None:
        if not self._session.guidance.accept(answer):
            current = self._session.current
            if current is not None and current.key == answer.key:
                self.check_scribbles()  # a stroke came in between
            return
        count = len(self._session.guidance.label_issues)
        strokes = "1 stroke does" if count == 1 else f"{count} strokes do"
        self._session.say(
            f"{strokes} not go with the others."
            if count
            else "No stroke contradicts the others."
        )

    # What is seen of it.

    def _on_changed(self) -> None:
        guidance = self._session.guidance
        if self.place not in guidance.uncertain_regions:
            self.place = None
        if not any(self.chosen is label_issue for label_issue in guidance.label_issues):
            self.chosen = None
        self._show_marks()
        self.changed.emit()

    def _show(self, row: float, column: float, radius: float) -> None:
        """Move the view to a part of the picture; zoom if it would be lost in it."""
        look_at(
            self._viewer,
            self._link.image,
            self._point(row, column),
            radius,
            least_share=_LEAST_SHARE,
        )
        if self._link.scribbles in self._viewer.layers:
            self._viewer.layers.selection.active = self._link.scribbles

    def _point(self, row: float, column: float) -> tuple[float, ...]:
        """Return a pixel of the current picture in the data of its layer."""
        return (*self._session.current.key.plane, row, column)

    def _frame(self, label_issue: LabelIssue) -> tuple[float, float, float, float]:
        """Return top, left, bottom and right of the frame around a stroke."""
        rows, columns = np.divmod(label_issue.pixels, self._session.current.shape[1])
        return (
            rows.min() - _MARGIN,
            columns.min() - _MARGIN,
            rows.max() + _MARGIN,
            columns.max() + _MARGIN,
        )

    def _show_marks(self) -> None:
        """Frame the suspicious strokes, the chosen one in white."""
        layers, former = self._viewer.layers, self.marks
        self.marks = None
        active = layers.selection.active
        if former is not None and former in layers:
            layers.remove(former)
        label_issues = self._session.guidance.label_issues
        if label_issues and self._link.image is not None:
            self.marks = self._make_marks(label_issues)
            layers.append(self.marks)
        if active is not None and active in layers:
            layers.selection.active = active

    def _make_marks(self, label_issues: tuple[LabelIssue, ...]) -> Shapes:
        image = self._link.image
        thickness = max(1.0, min(self._session.current.shape) / 300)
        layer = Shapes(
            [self._corners(label_issue) for label_issue in label_issues],
            shape_type="rectangle",
            name=MARKS,
            edge_color=[
                _EDGE_CHOSEN if label_issue is self.chosen else _EDGE
                for label_issue in label_issues
            ],
            edge_width=thickness,
            face_color="transparent",
            features={"reason": [label_issue.reason for label_issue in label_issues]},
            metadata=make.mark_of("suspects", make.id_of(self._viewer, image)),
            **make.spatial_metadata(image),
        )
        layer.editable = False
        return layer

    def _corners(self, label_issue: LabelIssue) -> NDArray[np.float64]:
        """Return the (4, dimensions) corners of the frame around a stroke."""
        top, left, bottom, right = self._frame(label_issue)
        around = ((top, left), (top, right), (bottom, right), (bottom, left))
        return np.array([self._point(*corner) for corner in around], np.float64)

    def _close(self) -> None:
        """Hear of the session no more; the layer stays as it is."""
        self._session.guidance.changed.disconnect(self._on_changed)
