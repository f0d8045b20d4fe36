"""Takes the view to where to paint next, and frames scribbles with label issues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes

from . import planes
from .overlay import Overlay

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.guidance import LabelIssue, UncertainRegion
    from napari_hrdv2.session.guidance import LabelIssues, UncertainRegions
    from napari_hrdv2.widgets.jobs import SideWork

    from .layer_sync import LayerSync

FRAMES = "Label issues"

_REGIONS, _ISSUES = "uncertain regions", "label issues"  # what the side work calls them
_EDGE, _EDGE_CHOSEN = "#ff4fd8", "#ffffff"
_MARGIN = 4  # pixels between a scribble and its frame


class GuidanceOverlay(Overlay):
    """Goes to uncertain regions, and frames label issues.

    `region` is where the view was taken last, `chosen` the label issue looked at.
    """

    role = _ISSUES

    def __init__(self, sync: LayerSync, side: SideWork) -> None:
        super().__init__(sync, side)
        self._guidance = self._session.guidance
        self.region: UncertainRegion | None = None
        self.chosen: LabelIssue | None = None
        self._guidance.changed.connect(self._on_changed)

    # Uncertain regions.

    def go_next(self) -> None:
        """Go to the next uncertain region; look for such regions if need be."""
        guidance = self._guidance
        if guidance.has_uncertain_regions:
            self._visit_next()
        elif self._ask(
            _REGIONS, guidance.uncertain_regions_request, self._on_uncertain_regions
        ):
            self._session.say("Looking for uncertain regions.")

    def _on_uncertain_regions(self, answer: UncertainRegions) -> None:
        if self._guidance.accept(answer):
            self._visit_next()
        else:  # a scribble came in between
            self.go_next()

    def _visit_next(self) -> None:
        self.region = region = self._guidance.next_uncertain_region()
        if region is None:
            self._session.say(
                "The classifier is sure everywhere: no region stands out."
            )
        else:
            self._look_at(region.row, region.column, region.radius)
            self._session.say(f"Paint here? {region.reason}.")
        self.changed.emit()

    # Label issues.

    def check_scribbles(self) -> None:
        """Look for scribbles that all the others contradict."""
        self._sync.flush()
        if self._ask(_ISSUES, self._guidance.label_issues_request, self._on_issues):
            self._session.say("Checking each scribble by the others.")

    def choose(self, label_issue: LabelIssue) -> None:
        """Go to a label issue, and say what it is."""
        self.chosen = label_issue
        top, left, bottom, right = self._frame(label_issue)
        radius = max(bottom - top, right - left) / 2
        self._look_at((top + bottom) / 2, (left + right) / 2, radius)
        self._session.say(f"{label_issue.reason}.")
        self._show_frames()

    def relabel(self) -> None:
        """Give the chosen scribble the class that the other scribbles propose."""
        if self.chosen is not None:
            self._guidance.relabel(self.chosen, self.chosen.predicted_id)

    def erase(self) -> None:
        """Erase the chosen scribble."""
        if self.chosen is not None:
            self._guidance.erase(self.chosen)

    def clear(self) -> None:
        """Take the list of label issues away, and their frames."""
        self._side.cancel(_ISSUES)
        self._guidance.drop_label_issues()

    def _on_issues(self, answer: LabelIssues) -> None:
        current = self._session.current
        if not self._guidance.accept(answer):
            if current is not None and current.key == answer.key:
                self.check_scribbles()  # a scribble came in between
            return
        count = len(self._guidance.label_issues)
        scribbles = "1 scribble does" if count == 1 else f"{count} scribbles do"
        self._session.say(
            f"{scribbles} not go with the others."
            if count
            else "No scribble contradicts the others."
        )

    # What is seen of it.

    def _on_changed(self) -> None:
        if self.region not in self._guidance.uncertain_regions:
            self.region = None
        if not any(self.chosen is one for one in self._guidance.label_issues):
            self.chosen = None
        self._show_frames()
        self.changed.emit()

    def _frame(self, label_issue: LabelIssue) -> tuple[float, float, float, float]:
        """Return top, left, bottom and right of the frame around a scribble."""
        current = self._session.current
        assert current is not None
        rows, columns = np.divmod(label_issue.pixels, current.shape[1])
        return (
            rows.min() - _MARGIN,
            columns.min() - _MARGIN,
            rows.max() + _MARGIN,
            columns.max() + _MARGIN,
        )

    def _show_frames(self) -> None:
        """Frame the label issues, the chosen one in white."""
        self._remove()
        image, issues = self._sync.image, self._guidance.label_issues
        if not issues or image is None:
            return
        edges = [_EDGE_CHOSEN if one is self.chosen else _EDGE for one in issues]
        layer = Shapes(
            [self._corners(one) for one in issues],
            shape_type="rectangle",
            name=self._named(FRAMES, image),
            edge_color=edges,
            edge_width=max(1.0, min(planes.label_shape(image)[-2:]) / 300),
            face_color="transparent",
            features={"reason": [one.reason for one in issues]},
            metadata=self._mark(image),
            **self._placement(image, image.ndim),
        )
        layer.editable = False
        self._add(layer, image, on_top=True)

    def _corners(self, label_issue: LabelIssue) -> NDArray[np.float64]:
        """Return the (4, dimensions) corners of the frame around a scribble."""
        top, left, bottom, right = self._frame(label_issue)
        around: Any = ((top, left), (top, right), (bottom, right), (bottom, left))
        return np.array([(*self._sync.index, *corner) for corner in around], float)

    def _close(self) -> None:
        super()._close()
        self._guidance.changed.disconnect(self._on_changed)
