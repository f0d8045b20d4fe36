"""Painting: the classes, live or by hand, what is shown, and where to paint next."""

from __future__ import annotations

from functools import partial
from html import escape
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget

from napari_hrdv2.widgets.panels.class_table import ClassTable
from napari_hrdv2.widgets.panels.guidance_panel import GuidancePanel
from napari_hrdv2.widgets.panels.parts import Fold, combo_box, note, push_button, row
from napari_hrdv2.widgets.viewer.guidance_overlay import GuidanceOverlay
from napari_hrdv2.widgets.viewer.result_views import VIEWS, ResultViews
from napari_hrdv2.widgets.viewer.shortcuts import Shortcut, Shortcuts

if TYPE_CHECKING:
    from napari_hrdv2.widgets.controller import Controller

TRAIN, TOGGLE, CYCLE, NEXT, POLYGON = "T", "R", "C", "N", "G"
_CLASS_KEYS = "123456789"
_DRAWING = ("paint", "polygon", "fill")  # the modes in which a class can be painted


class PaintPanel(QWidget):
    """Hands classes to the brush, and says when, what and where.

    Attributes
    ----------
    classes : ClassTable
    views : ResultViews
    guide : GuidanceOverlay
    shortcuts : Shortcuts
    """

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._controller, self._link = controller, controller.link
        self._viewer = controller.viewer
        self.views = ResultViews(controller.link, controller.side)
        self.guide = GuidanceOverlay(controller.link, controller.side)
        self.classes = ClassTable(controller, self.views)
        self.guidance = GuidancePanel(controller, self.guide)
        self.add = self.classes.add
        self.shortcuts = Shortcuts(controller.link, self._wanted_keys())
        self._make_controls()
        self._lay_out()
        self.classes.chosen.connect(self._on_class)
        controller.live_changed.connect(self.live.setChecked)
        self._link.images_changed.connect(self._on_images_changed)
        self.views.changed.connect(self.show_view)
        self.shortcuts.changed.connect(self.show_keys)
        self.show_keys()

    def show_view(self) -> None:
        """Show which view is on."""
        self.view.setCurrentIndex(VIEWS.index(self.views.shown))

    def show_keys(self) -> None:
        """List the keys, and write those that work on their buttons."""
        active = self.shortcuts.active
        texts = []
        for shortcut in self.shortcuts.shortcuts:
            if shortcut.key in _CLASS_KEYS[1:]:
                continue
            key = "1 … 9" if shortcut.key == _CLASS_KEYS[0] else shortcut.key
            text = f"<b>{key}</b>&nbsp; {escape(shortcut.does)}"
            texts.append(text if shortcut.key in active else f"<s>{text}</s>")
        self.keys.setText("<br>".join(texts))
        for button, text, key in (
            (self.train, "Train", TRAIN),
            (self.toggle, "Show/hide", TOGGLE),
            (self.guidance.next, "Next uncertain place", NEXT),
        ):
            button.setText(f"{text} ({key})" if key in active else text)

    def _wanted_keys(self) -> list[Shortcut]:
        keys = [
            Shortcut(
                key,
                "choose the class of that row",
                partial(self.classes.choose_position, position),
                replaces=True,
            )
            for position, key in enumerate(_CLASS_KEYS)
        ]
        return [
            *keys,
            Shortcut(TOGGLE, "show the image or the result", self.views.toggle),
            Shortcut(CYCLE, "result, probability, uncertainty", self.views.cycle),
            Shortcut(NEXT, "next uncertain place", self.guide.go_next),
            Shortcut(TRAIN, "train now", self._controller.train_anew),
            Shortcut(POLYGON, "polygon, which napari has on 3", self._take_polygon),
        ]

    def _make_controls(self) -> None:
        controller = self._controller
        self.paint = push_button(
            "Paint",
            "paint",
            "Select the scribble layer and take the brush; makes the layer if needed",
            self._on_paint,
        )
        self.train = push_button(
            "Train",
            "train",
            "Train and segment now; while Live is on it happens after each stroke",
            controller.train_anew,
        )
        self.live = _check_box(
            "Live", "live", "Train and segment after every stroke, undo and redo"
        )
        self.live.setChecked(controller.live)
        self.live.toggled.connect(controller.set_live)
        self.view = combo_box(
            "view",
            "What is shown over the image: the result, the probability of the "
            "selected class, or where the classifier hesitates",
        )
        self.view.addItems([view.capitalize() for view in VIEWS])
        self.view.activated.connect(self._on_view)
        self.toggle = push_button(
            "Show/hide",
            "toggle_result",
            "Show the image or the result on it",
            self.views.toggle,
        )
        self.keys = note("keys")
        self.keys.setToolTip(
            "They work while the scribble layer is selected. A key that napari, or "
            "you, use for something else is left alone and struck through here"
        )
        self.use_keys = _check_box(
            "Use these keys",
            "use_keys",
            "While it is off, 1 to 7 choose napari's own tools again",
        )
        self.use_keys.setChecked(True)
        self.use_keys.toggled.connect(self.shortcuts.set_on)

    def _lay_out(self) -> None:
        keys = QWidget()
        column = QVBoxLayout(keys)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.keys)
        column.addWidget(self.use_keys)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.classes)
        layout.addLayout(row(self.paint, self.train, self.live))
        layout.addLayout(row(self.view, self.toggle))
        layout.addWidget(self.guidance)
        layout.addWidget(Fold("Keys", "keys_fold", keys))

    def _on_class(self, class_id: int) -> None:
        """Put a brush with this class into the user's hand."""
        self._link.select_label(class_id)
        scribbles = self._link.scribbles
        if scribbles is not None and scribbles in self._viewer.layers:
            self._viewer.layers.selection.active = scribbles
            if scribbles.mode not in _DRAWING:
                scribbles.mode = "paint"

    def _on_images_changed(self) -> None:
        if self._link.scribbles is not None:
            self.classes.show_selected(int(self._link.scribbles.selected_label))

    def _on_paint(self) -> None:
        self._link.prepare_scribbles()
        self._link.select_label(self.classes.selected)

    def _on_view(self, position: int) -> None:
        self.views.show(VIEWS[position])

    def _take_polygon(self) -> None:
        if self._link.scribbles is not None:
            self._link.scribbles.mode = "polygon"


def _check_box(text: str, name: str, tool_tip: str) -> QCheckBox:
    box = QCheckBox(text, objectName=name)
    box.setToolTip(tool_tip)
    return box
