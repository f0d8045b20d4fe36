"""How large a pixel is: shown, typed, or told by the scale bar in the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QInputDialog, QLabel, QLineEdit, QWidget

from napari_hrdv2.files.units import length_of
from napari_hrdv2.widgets.viewer import layers
from napari_hrdv2.widgets.viewer.drawn_overlays import ScaleBarOverlay

from . import PanelSpec
from . import controls as ui

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_hrdv2.widgets.controller import Controller

_TIP = (
    "The side of a pixel, from the layer or its file; type another one, such as "
    "0.5 nm, or nothing to have that of the file again"
)


class ScalePanel(QWidget):
    """Shows the size of a pixel of the current image, and lets the user set it."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._link, self._attempt = controller.link, controller.attempt
        self._session = controller.session
        self.bar = ScaleBarOverlay(controller.link, controller.side)
        self.size = QLineEdit(objectName="pixel_size", toolTip=_TIP)
        self.size.setPlaceholderText("unknown")
        self.size.editingFinished.connect(self._on_typed)
        tip = "Draw a line over the scale bar in the image, and type what it says"
        self.draw = ui.push_button("Scale bar…", "scale_bar", self.bar.draw, tip)
        row = ui.row(QLabel("Pixel size"), self.size, self.draw, stretched=1)
        ui.fill_column(self, row)
        self.bar.measured.connect(self._on_measured)
        controller.link.images_changed.connect(self.show_size)
        self.show_size()

    def show_size(self) -> None:
        """Show the size of a pixel as it is known now."""
        image = self._link.image
        self.size.setText("" if image is None else size_text(image))
        for control in (self.size, self.draw):
            control.setEnabled(image is not None)

    def set_size(self, text: str) -> bool:
        """Set the size of a pixel, such as "0.5 nm"; "" goes by the file again."""
        done: bool = self._attempt(self._set, text)
        self.show_size()
        return done

    def ask(self, pixels: float) -> str:
        """Ask the user how long the scale bar is; "" for no answer."""
        question = f"The line is {pixels:.1f} pixels long. What does the scale bar say?"
        question += " For instance 10 µm"
        text, agreed = QInputDialog.getText(self, "Scale bar", question)
        return str(text) if agreed else ""

    def _set(self, text: str) -> None:
        self._take(length_of(text) if text.strip() else None)

    def _take(self, size: tuple[float, str] | None) -> None:
        image = self._link.image
        if image is not None:
            layers.set_pixel_size(image, size)
            self._link.layers.describe(image)
            self._link.images_changed.emit()

    def _on_typed(self) -> None:
        image, text = self._link.image, self.size.text()
        if image is not None and text != size_text(image):
            self.set_size(text)

    def _on_measured(self, pixels: float) -> None:
        text = self.ask(pixels)
        if text.strip():
            self._attempt(self._set_by_bar, text, pixels)
        self.show_size()

    def _set_by_bar(self, text: str, pixels: float) -> None:
        long, unit = length_of(text)
        self._take((long / pixels, unit))
        step = self._session.next_step()
        self._session.say(f"A pixel is {long / pixels:.4g} {unit}. {step}")


def size_text(image: Image) -> str:
    """Return the size of a pixel of an image as it can be typed, "" for none."""
    found = layers.pixel_size_of(image)
    if found is None:
        return ""
    size, unit = found
    sides = size if isinstance(size, tuple) else (size,)
    return f"{' × '.join(f'{side:.6g}' for side in sides)} {unit}"


PANELS = (PanelSpec("scale", "Features", 5, ScalePanel),)
