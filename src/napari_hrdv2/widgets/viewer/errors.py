"""Where the result differs from a truth, as a layer that follows the result."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import Signal

from napari_hrdv2.core.errors import EXPECTED, explained
from napari_hrdv2.session.measurement import Compared, Truth, compare_result

from . import layers, planes
from .overlay import Overlay

if TYPE_CHECKING:
    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.widgets.jobs import SideWork

    from .layer_sync import LayerSync

JOB = "comparison"  # what the side work calls it


class ErrorOverlay(Overlay):
    """Compares the result with a truth, until the layer of errors is removed."""

    role = "errors"
    refused = Signal(str)

    def __init__(self, sync: LayerSync, side: SideWork) -> None:
        super().__init__(sync, side)
        self.answer: Compared | None = None
        self._asked: tuple[PlaneKey, Labels | Path] | None = None
        self._choices: dict[str, Any] = {}
        self._without_scribbles = True
        self._session.segmentation_changed.connect(self._on_result)

    def truth_layers(self) -> list[Labels]:
        """Return the labels layers that may be the truth of the current image."""
        image, current = self._sync.image, self._session.current
        if image is None or current is None:
            return []
        own = (self._sync.scribbles, self._sync.segmentation)
        return [
            layer
            for layer in self._viewer.layers
            if isinstance(layer, Labels)
            and layer not in own
            and layers.mark_on(layer).get("role") != self.role
            and planes.lies_on(layer, image, current.shape)
        ]

    def compare(
        self,
        truth: Labels | Path,
        *,
        boundary_width: int,
        without_scribbles: bool = True,
        match: Mapping[int, int] | None = None,
    ) -> None:
        """Compare the result with a truth now, and whenever it changes."""
        self._sync.flush()
        current = self._session.current
        if current is None or not current.is_segmented:
            self.refused.emit(
                "There is no result to compare yet: compute features and paint two "
                "classes first."
            )
            return
        self._choices = {"boundary_width": boundary_width, "match": match}
        self._without_scribbles = without_scribbles
        self._asked = (current.key, truth)
        self._ask_again()

    def _ask_again(self) -> None:
        self._ask(JOB, self._request, self._on_compared, hear_failure=self._on_failure)

    def _request(self) -> Any:
        """Return the task; the truth of a layer is copied, as it may be painted on."""
        current = self._session.current
        assert self._asked is not None
        assert current is not None
        _, source = self._asked
        if isinstance(source, Path):
            truth = Truth(source.name, source, {})
        else:
            plane = planes.labels_on_plane(source, self._sync.index, current.shape)
            names = layers.class_names_of(source)
            truth = Truth(source.name, np.array(plane), names)
        drawn = current.scribbles if self._without_scribbles else None
        return partial(
            compare_result,
            image=current.snapshot(result=current.result),
            truth=truth,
            class_names={i: one.name for i, one in self._session.classes.items()},
            scribbles=None if drawn is None else drawn.labels,
            **self._choices,
        )

    def _on_compared(self, answer: Compared) -> None:
        current, key = self._session.current, answer.key
        if self._asked is None or self._asked[0] != key or self._sync.image is None:
            return
        result = None if current is None or current.key != key else current.result
        if result is None or result.shown is not answer.source:
            return
        self.answer = answer
        self._put(Labels, answer.errors, key, mark={"plane": key.plane}, name="Errors")
        if self.layer is not None:
            self.layer.colormap = layers.colormap_of(self._session.classes)
            self.layer.editable = False
        self.changed.emit()

    def _on_failure(self, error: Exception) -> None:
        self._asked = self.answer = None
        self._remove()  # it is of a former result, or another truth
        self.changed.emit()
        if not isinstance(error, EXPECTED):
            raise error  # told by the side work
        self.refused.emit(explained(error))

    def _on_result(self) -> None:
        """Compare what is shown now; not what will be refined in a moment."""
        current, session = self._session.current, self._session
        if self._asked is None:
            return
        if current is None or current.key != self._asked[0]:
            self._on_removed()  # its layer stays
        elif current.is_segmented and not session.refinement.is_pending:
            self._ask_again()

    def _on_removed(self) -> None:
        """Follow the result no more."""
        self._asked, self.answer = None, None
        self._side.cancel(JOB)
        self._follow(None, None)
        self.changed.emit()
