"""The classes as a table, and all that can be done with them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from qtpy.QtCore import QPoint, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QColorDialog, QMenu, QMessageBox, QVBoxLayout, QWidget

from napari_hrdv2.widgets.panels.class_rows import ClassRows
from napari_hrdv2.widgets.panels.parts import push_button, row, swatch

if TYPE_CHECKING:
    from napari_hrdv2.widgets.controller import Controller
    from napari_hrdv2.widgets.viewer.result_views import ResultViews


class ClassTable(QWidget):
    """Shows the classes of the session, and hands the chosen one to the brush."""

    chosen = Signal(int)
    """The user wants to paint this class."""

    def __init__(
        self,
        controller: Controller,
        views: ResultViews,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._controller, self._session = controller, controller.session
        self._views = views
        self.selected = 1
        self.rows = ClassRows(self)
        self._menu = QMenu(self)
        self._lay_out()
        self._session.classes_changed.connect(self.show_classes)
        self._session.images_changed.connect(self.show_numbers)
        self._session.segmentation_changed.connect(self.show_numbers)
        controller.link.label_selected.connect(self.show_selected)
        views.changed.connect(self.show_classes)
        self.rows.chosen.connect(self.choose)
        self.rows.color_wanted.connect(self._on_color_wanted)
        self.rows.renamed.connect(self._on_renamed)
        self.rows.seen_changed.connect(views.set_class_visible)
        self.rows.customContextMenuRequested.connect(self._on_menu)
        self.show_classes()

    # What it shows.

    def show_classes(self) -> None:
        """Show names, colours and order."""
        self.rows.show_classes(self._session.classes, self._views.hidden)
        self.show_numbers()
        self.show_selected(self.selected)

    def show_numbers(self) -> None:
        """Show how much of each class is painted, and its share of the result."""
        self.rows.show_numbers(*self._painted(), self._session.phase_fractions())

    def show_selected(self, class_id: int) -> None:
        """Select the row of the label that the brush holds; none if it has no row."""
        self.selected = class_id
        self.rows.show_selected(class_id)
        ids = list(self._session.classes)
        position = ids.index(class_id) if class_id in ids else -1
        self.up.setEnabled(position > 0)
        self.down.setEnabled(0 <= position < len(ids) - 1)
        self.more.setEnabled(position >= 0)

    # What it does.

    def choose_position(self, position: int) -> None:
        """Paint the class in this row, counted from 0, as its key does."""
        ids = list(self._session.classes)
        if position < len(ids):
            self.choose(ids[position])
        else:
            self._session.say(
                f"There are only {len(ids)} classes; press + to add another one."
            )

    def choose(self, class_id: int) -> None:
        """Paint this class from now on."""
        self.show_selected(class_id)
        self.chosen.emit(class_id)

    def add_class(self) -> None:
        """Add a class and paint it."""
        self.choose(self._session.add_class())

    def rename(self) -> None:
        """Let the user type another name of the selected class."""
        self.rows.rename(self.selected)

    def recolor(self) -> None:
        """Let the user pick another colour of the selected class."""
        class_id = self.selected
        info = self._session.classes[class_id]
        color = QColorDialog.getColor(
            QColor(info.color), self, f"Colour of {info.name}"
        )
        if color.isValid() and class_id in self._session.classes:
            self._controller.attempt(
                self._session.classes.recolor, class_id, color.name()
            )

    def move(self, by: int) -> None:
        """Put the selected class some rows further down; its key changes too."""
        ids = list(self._session.classes)
        target = ids.index(self.selected) + by
        if 0 <= target < len(ids):
            self._session.classes.move(self.selected, target)

    def merge(self, into: int) -> None:
        """Make the strokes of the selected class those of another one."""
        class_id = self.selected
        self._controller.link.flush()
        if self._controller.attempt(self._session.merge_class, class_id, into):
            self.choose(into)

    def delete(self) -> None:
        """Take the selected class out; ask first if it has strokes."""
        class_id, classes = self.selected, self._session.classes
        self._controller.link.flush()
        if not self._may_erase(class_id):
            return
        if self._controller.attempt(self._session.delete_class, class_id):
            self.choose(next(iter(classes)))

    def fill_menu(self, menu: QMenu) -> None:
        """Write what can be done with the selected class into a menu."""
        menu.clear()
        classes = self._session.classes
        if self.selected not in classes:
            return
        name = classes[self.selected].name
        menu.addAction("Rename…", self.rename)
        menu.addAction("Change colour…", self.recolor)
        into = menu.addMenu(f"Merge {name} into")
        for class_id, info in classes.items():
            if class_id != self.selected:
                action = into.addAction(swatch(info.color), info.name)
                action.setData(class_id)
        into.triggered.connect(self._on_merge)
        into.setEnabled(len(classes) > 1)
        menu.addAction(f"Delete {name}…", self.delete).setEnabled(len(classes) > 1)

    # Inside.

    def _lay_out(self) -> None:
        self.add = push_button(
            "+", "add_class", "Add a class and paint it", self.add_class
        )
        self.up = push_button(
            "▲", "class_up", "Move the class up; its key changes too", self._on_up
        )
        self.down = push_button(
            "▼", "class_down", "Move the class down; its key changes too", self._on_down
        )
        self.more = push_button(
            "Class…",
            "class_menu",
            "Rename, recolour, merge or delete the selected class",
            self._on_more,
        )
        for button in (self.add, self.up, self.down):
            button.setMaximumWidth(32)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.rows)
        buttons = row(self.add, self.up, self.down, self.more)
        buttons.addStretch(1)
        layout.addLayout(buttons)

    def _painted(self) -> tuple[dict[int, int], dict[int, int]]:
        """Return the pixels painted of each class on this picture, and on all."""
        total: Counter[int] = Counter()
        for entry in self._session.images.values():
            if entry.counted is not None:
                total.update(entry.counted.counts)
        current = self._session.current
        strokes = None if current is None else current.counted
        return {} if strokes is None else strokes.counts, total

    def _may_erase(self, class_id: int) -> bool:
        count = self._painted()[1].get(class_id, 0)
        if not count:
            return True
        name = self._session.classes[class_id].name
        answer = QMessageBox.question(
            self,
            f"Delete {name}",
            f"{name} has {count:,} painted pixels. Erase them and delete the class? "
            "Undo in the scribble layer brings them back.",
        )
        return bool(answer == QMessageBox.StandardButton.Yes)

    def _on_renamed(self, class_id: int, name: str) -> None:
        if not self._controller.attempt(self._session.classes.rename, class_id, name):
            self.show_classes()  # the name it has

    def _on_color_wanted(self, class_id: int) -> None:
        self.show_selected(class_id)
        self.recolor()

    def _on_menu(self, place: QPoint) -> None:
        self.fill_menu(self._menu)
        self._menu.popup(self.rows.viewport().mapToGlobal(place))

    def _on_more(self) -> None:
        self.fill_menu(self._menu)
        self._menu.popup(self.more.mapToGlobal(self.more.rect().bottomLeft()))

    def _on_merge(self, action: object) -> None:
        self.merge(action.data())

    def _on_up(self) -> None:
        self.move(-1)

    def _on_down(self) -> None:
        self.move(1)
