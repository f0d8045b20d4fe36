"""A walk from one proposed place to the next, where a key says what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Shapes

from .overlay import Overlay

if TYPE_CHECKING:
    from napari.layers import Image
    from numpy.typing import NDArray

    from napari_hrdv2.core.guidance import Place
    from napari_hrdv2.session.guidance import ProposedPlaces
    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.widgets.jobs import SideWork

    from .layer_sync import LayerSync

JOB = "places"  # as the side work calls it
RING = "Place"
_EDGE = "#ff4fd8"
_RADIUS = 10  # pixels, of the ring
_SEEN = 24  # pixels around a place that should be seen well


class PlaceWalk(Overlay):
    """Shows one place after the other in a ring, and paints what each is named.

    `shown` is the place that waits for a name, None while there is no walk.
    """

    role = "place"

    def __init__(self, sync: LayerSync, side: SideWork) -> None:
        super().__init__(sync, side)
        self._guidance = self._session.guidance
        self._proposed: ProposedPlaces | None = None
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
            "class, 0 skips, Ctrl+Z takes back, Esc ends."
        )

    def start(self, count: int) -> None:
        """Look for places, then go to the first."""
        self.end()
        self._sync.flush()
        request = self._guidance.places_request
        if self._ask(JOB, lambda: request(count), self._on_found):
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
        self._side.cancel(JOB)
        if was_found is not None:
            self._remove()
            self._session.say(self._session.next_step())
            self.changed.emit()

    def _on_found(self, answer: ProposedPlaces) -> None:
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
        corners = [
            (*key.plane, place.row + y * _RADIUS, place.column + x * _RADIUS)
            for y, x in ((-1, -1), (-1, 1), (1, 1), (1, -1))
        ]
        if self.layer is not None and self._image is image:
            self.layer.data = [np.array(corners, float)]  # a new layer takes long
        else:
            self._add_ring(np.array(corners, float), image)
        self._session.say(self.text())
        self.changed.emit()

    def _add_ring(self, corners: NDArray[np.float64], image: Image) -> None:
        self._remove()
        layer = Shapes(
            [corners],
            shape_type="ellipse",
            name=self._named(RING, image),
            edge_color=_EDGE,
            edge_width=1,
            face_color="transparent",
            metadata=self._mark(image),
            **self._placement(image, image.ndim),
        )
        self._add(layer, image, on_top=True)

    def _on_images_changed(self) -> None:
        """End where the image of the place has been closed."""
        key = self._key_shown
        if key is not None and key not in self._session.images:
            self.end()
