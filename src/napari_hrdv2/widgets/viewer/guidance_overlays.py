"""Where to paint next: uncertain regions, label issues, a walk over proposed places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import planes
from .overlay import Overlay

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.guidance import LabelIssue, Place, UncertainRegion
    from napari_hrdv2.session import guidance
    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.widgets.jobs import SideWork

    from .layer_sync import LayerSync

_REGIONS, _ISSUES = "uncertain regions", "label issues"  # as the side work calls them
FRAMES, RING = "Label issues", "Place"
_EDGE, _EDGE_CHOSEN = "#ff4fd8", "#ffffff"
_MARGIN = 4  # pixels between a scribble and its frame
_RADIUS = 10  # pixels, of the ring
_SEEN = 24  # pixels around a place that should be seen well


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

    def go_next(self) -> None:
        """Go to the next uncertain region; look for such regions if need be."""
        guidance = self._guidance
        if guidance.has_uncertain_regions:
            self._visit_next()
        elif self._ask(_REGIONS, guidance.uncertain_regions_request, self._on_regions):
            self._session.say("Looking for uncertain regions.")

    def _on_regions(self, answer: guidance.UncertainRegions) -> None:
        if self._guidance.accept(answer):
            self._visit_next()
        else:  # a scribble came in between
            self.go_next()

    def _visit_next(self) -> None:
        self.region = region = self._guidance.next_uncertain_region()
        if region is None:
            current, where = self._session.current, "everywhere"
            if current is not None and current.is_in_blocks:
                where = "in the blocks computed so far"
            self._session.say(f"The classifier is sure {where}: no region stands out.")
        else:
            self._look_at(region.row, region.column, region.radius)
            self._session.say(f"Paint here? {region.reason}.")
        self.changed.emit()

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

    def _on_issues(self, answer: guidance.LabelIssues) -> None:
        current = self._session.current
        if not self._guidance.accept(answer):
            if current is not None and current.key == answer.key:
                self.check_scribbles()  # a scribble came in between
            return
        count = len(self._guidance.label_issues)
        text = "1 scribble does" if count == 1 else f"{count} scribbles do"
        text = f"{text} not go with the others."
        self._session.say(text if count else "No scribble contradicts the others.")

    def _on_changed(self) -> None:
        if self.region not in self._guidance.uncertain_regions:
            self.region = None
        if not any(self.chosen is one for one in self._guidance.label_issues):
            self.chosen = None
        self._show_frames()
        self.changed.emit()

    def _frame(self, label_issue: LabelIssue) -> tuple[float, float, float, float]:
        assert self._session.current is not None
        places = np.divmod(label_issue.pixels, self._session.current.shape[1])
        (top, left), (bottom, right) = np.min(places, 1), np.max(places, 1)
        return top - _MARGIN, left - _MARGIN, bottom + _MARGIN, right + _MARGIN

    def _show_frames(self) -> None:
        self._remove()
        image, issues = self._sync.image, self._guidance.label_issues
        if not issues or image is None:
            return
        edges = [_EDGE_CHOSEN if one is self.chosen else _EDGE for one in issues]
        layer = self._add_shapes(
            image,
            self._named(FRAMES, image),
            data=[self._corners(one) for one in issues],
            shape_type="rectangle",
            edge_color=edges,
            edge_width=max(1.0, min(planes.label_shape(image)[-2:]) / 300),
            face_color="transparent",
            features={"reason": [one.reason for one in issues]},
        )
        layer.editable = False

    def _corners(self, label_issue: LabelIssue) -> NDArray[np.float64]:
        top, left, bottom, right = self._frame(label_issue)
        around: Any = ((top, left), (top, right), (bottom, right), (bottom, left))
        return np.array([(*self._sync.index, *corner) for corner in around], float)

    def _close(self) -> None:
        super()._close()
        self._guidance.changed.disconnect(self._on_changed)


class PlaceWalk(Overlay):
    """Shows one place after the other in a ring, and paints what each is named.

    `shown` is the place that waits for a name, None while there is no walk.
    """

    role = "place"
    job = "places"
    """What the side work calls it."""

    def __init__(self, sync: LayerSync, side: SideWork) -> None:
        super().__init__(sync, side)
        self._guidance = self._session.guidance
        self._proposed: guidance.ProposedPlaces | None = None
        self._painted: list[NDArray[np.int64]] = []  # at each place so far
        sync.images_changed.connect(self._on_images_changed)

    @property
    def shown(self) -> Place | None:
        """The place that waits for a name."""
        proposed, position = self._proposed, len(self._painted)
        if proposed is None or position == len(proposed.places):
            return None
        return proposed.places[position]

    def text(self) -> str:
        """Return where the walk is, and what the keys do; empty without one."""
        place, proposed = self.shown, self._proposed
        if place is None or proposed is None:
            return ""
        kind = "rare" if place.is_rare else "common"
        return (
            f"Place {len(self._painted) + 1} of {len(proposed.places)} ({kind}, "
            f"{place.share:.1%} is like it): what is in the ring? 1 … 9 name its "
            f"class, 0 skips, Ctrl+Z takes back, Esc ends. {proposed.text}"
        ).rstrip()

    def start(self, count: int) -> None:
        """Look for places, then go to the first."""
        self.end()
        self._sync.flush()
        request = self._guidance.places_request
        if self._ask(self.job, lambda: request(count), self._on_found):
            self._session.say("Looking for places.")

    def name(self, number: int) -> None:
        """Give the place the class of a row, counted from 1, and go on.

        Classes are added until there is that row.
        """
        key, place = self._key_shown, self.shown
        if place is None or key is None:
            return
        current = self._session.current
        if current is None or current.key != key:  # the user looks at another image
            self._show()
            return
        while len(self._session.classes) < number:
            self._session.add_class()
        class_id = list(self._session.classes)[number - 1]
        self._sync.flush()
        self._painted.append(self._guidance.name_place(key, place, class_id))
        self._show()

    def skip(self) -> None:
        """Go on, and leave this place without a name."""
        if self.shown is not None:
            self._painted.append(np.empty(0, np.int64))
            self._show()

    def take_back(self) -> None:
        """Undo the last change to the scribbles; of a name, go back to its place."""
        if not self._painted:
            return
        pixels = self._painted.pop()
        self._show()
        layer = self._sync.scribbles
        if not len(pixels) or layer is None:
            return
        layer.undo()
        self._sync.flush()
        if np.any(layer.data[self._sync.index].flat[pixels]):
            self._painted.append(pixels)  # what was undone is a stroke of the brush
            self._show()

    def end(self) -> None:
        """End the walk; what was painted stays."""
        was_found, self._proposed, self._painted = self._proposed, None, []
        self._side.cancel(self.job)
        if was_found is not None:
            self._remove()
            self._session.say(self._session.next_step())
            self.changed.emit()

    def _on_found(self, answer: guidance.ProposedPlaces) -> None:
        if not answer.places:
            self._session.say("There is no place left that has no scribble.")
            return
        self._proposed, self._painted = answer, []
        self._show()

    @property
    def _key_shown(self) -> PlaneKey | None:
        place, proposed = self.shown, self._proposed
        return proposed.key_of(place) if place and proposed else None

    def _show(self) -> None:
        """Go to the place, and draw the ring around it; end after the last one."""
        key, place = self._key_shown, self.shown
        image = self._sync.layers.image_of(key) if key else None
        if key is None or place is None or image is None:
            self.end()
            return
        self._sync.show_image(key)
        self._look_at(place.row, place.column, _SEEN)
        around = _RADIUS * np.array([(-1, -1), (-1, 1), (1, 1), (1, -1)])
        corners = [(*key.plane, place.row + y, place.column + x) for y, x in around]
        ring = [np.array(corners, float)]
        if self.layer is not None and self._image is image:
            self.layer.data = ring  # a new layer takes long
        else:
            self._remove()
            self._add_shapes(
                image,
                self._named(RING, image),
                data=ring,
                shape_type="ellipse",
                edge_color=_EDGE,
                edge_width=1,
                face_color="transparent",
            )
        self._session.say(self.text())
        self.changed.emit()

    def _on_images_changed(self) -> None:
        key = self._key_shown
        if key is not None and key not in self._session.images:
            self.end()
