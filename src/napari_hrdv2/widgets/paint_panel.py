"""Which class the brush paints, and training by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QButtonGroup,
    QGridLayout,
    QGroupBox,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_hrdv2.widgets.parts import push_button, row, swatch

if TYPE_CHECKING:
    from napari_hrdv2.widgets.controller import Controller

_PER_ROW = 5
_BUTTON_WIDTH = 44


class PaintPanel(QGroupBox):
    """Shows the classes as buttons, and hands the chosen one to the brush."""

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__("Paint", parent)
        self._controller, self._session = controller, controller.session
        self._selected = 1
        self._group = QButtonGroup(self)
        self._group.idClicked.connect(self._on_class)
        self._grid = QGridLayout()
        self._grid.setColumnStretch(_PER_ROW, 1)
        self.add = push_button(
            "+", "add_class", "Add a class and paint it", self._on_add
        )
        self.add.setMaximumWidth(_BUTTON_WIDTH)
        self.paint = push_button(
            "Paint",
            "paint",
            "Select the scribble layer and take the brush; makes the layer if needed",
            self._on_paint,
        )
        self.train = push_button(
            "Train",
            "train",
            "Train and segment now; it also happens by itself after each stroke",
            controller.train_anew,
        )
        layout = QVBoxLayout(self)
        layout.addLayout(self._grid)
        layout.addLayout(row(self.paint, self.train))
        self._session.classes_changed.connect(self.show_classes)
        controller.link.label_selected.connect(self.show_selected)
        self.show_classes()

    def show_classes(self) -> None:
        """Make one button for each class."""
        for button in self._group.buttons():
            self._group.removeButton(button)
            self._grid.removeWidget(button)
            button.hide()  # until it is deleted
            button.deleteLater()
        for position, (class_id, info) in enumerate(self._session.classes.items()):
            button = QPushButton(
                swatch(info.color), str(class_id), self, objectName=f"class_{class_id}"
            )
            button.setCheckable(True)
            button.setMaximumWidth(_BUTTON_WIDTH)
            button.setToolTip(f"Paint {info.name} (label {class_id})")
            self._group.addButton(button, class_id)
            self._grid.addWidget(button, position // _PER_ROW, position % _PER_ROW)
        count = len(self._session.classes)
        self._grid.addWidget(self.add, count // _PER_ROW, count % _PER_ROW)
        self.show_selected(self._selected)

    def show_selected(self, class_id: int) -> None:
        """Press the button of the label that the brush holds."""
        button = self._group.button(class_id)
        if button is None:
            # The user typed an id of his own into napari's label box.
            self._group.setExclusive(False)
            for other in self._group.buttons():
                other.setChecked(False)
            self._group.setExclusive(True)
        else:
            button.setChecked(True)
        self._selected = class_id

    def _on_class(self, class_id: int) -> None:
        self._selected = class_id
        self._controller.link.select_label(class_id)

    def _on_add(self) -> None:
        self._selected = self._session.add_class()
        self.show_selected(self._selected)
        self._controller.link.select_label(self._selected)

    def _on_paint(self) -> None:
        self._controller.link.prepare_scribbles()
        self._controller.link.select_label(self._selected)
