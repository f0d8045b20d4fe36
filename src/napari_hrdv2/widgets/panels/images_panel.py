"""All images and painted planes: which train, and whether that serves the others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import (
    QFileDialog,
    QFormLayout,
    QHeaderView,
    QLabel,
    QSizePolicy,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import QSignalDebouncer

from napari_hrdv2.session.planes import AXIS_NAMES
from napari_hrdv2.session.tasks.files import open_images
from napari_hrdv2.widgets.panels.parts import (
    combo_box,
    note,
    push_button,
    row,
    set_note,
)
from napari_hrdv2.widgets.viewer import layers

if TYPE_CHECKING:
    from napari_hrdv2.session import ImageEntry
    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.session.tasks.files import OpenedImage
    from napari_hrdv2.session.tasks.guidance import ValidationResult
    from napari_hrdv2.widgets.controller import Controller

_COLUMNS = ("Image", "Painted", "Features", "mIoU")
_KEY = Qt.ItemDataRole.UserRole
_ROWS_SHOWN = 6
_OPENING, _SCORING = "open files", "leave one image out"
_FILES = "Micrographs (*.tif *.tiff *.png *.jpg *.jpeg *.bmp);;All files (*)"
_CHOOSE = "choose"


@dataclass(frozen=True)
class _Row:
    """What the list says of one picture."""

    key: PlaneKey
    name: str
    trains: bool | None  # None: nothing is painted on it
    painted: str
    detail: str
    features: str
    is_current: bool


class ImagesPanel(QWidget):
    """Lists the pictures, chooses those that train, and scores whether they suffice.

    Parameters
    ----------
    controller : Controller
    parent : QWidget, optional
    """

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._controller, self._session = controller, controller.session
        self._rows: list[_Row] = []
        self._result: ValidationResult | None = None
        self._scored: dict[PlaneKey, Any] = {}  # the strokes that there were, by key
        self._axes = QWidget(objectName="stack_axes")
        self._axes.setSizePolicy(
            QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum
        )
        self._axes_form = QFormLayout(self._axes)
        self._axes_form.setContentsMargins(0, 0, 0, 0)
        self._axes_shown: tuple[Any, ...] = ()
        self.list = self._make_list()
        self.add = push_button(
            "Add files…", "add_files", "Open micrographs as layers", self._on_add
        )
        self.score = push_button(
            "Score: leave one image out",
            "leave_one_image_out",
            "Predict the strokes of each image by the strokes on all others: whether "
            "the classifier will serve images that it has not seen",
            self._on_score,
        )
        self.summary = note("validation_summary")
        set_note(self.summary, "")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._axes)
        layout.addWidget(self.list)
        layout.addLayout(row(self.add, self.score))
        layout.addWidget(self.summary)
        # Strokes come one after the other; a list that is late by this does no harm.
        self._later = QSignalDebouncer(parent=self)
        self._later.setTimeout(50)
        self._later.triggered.connect(self.show_pictures)
        controller.link.images_changed.connect(self._later.throttle)
        controller.side.changed.connect(self._show_work)
        controller.closing.connect(self._later.cancel)
        self._session.images_changed.connect(self._on_changed)
        self._session.classes_changed.connect(self._on_changed)
        self.show_pictures()

    def _make_list(self) -> QTreeWidget:
        tree = QTreeWidget(objectName="pictures")
        tree.setToolTip(
            "The ticked images train together; click one to go to it. Painted: pixels "
            "with strokes. mIoU: how well its strokes are predicted by those on the "
            "others"
        )
        tree.setHeaderLabels(_COLUMNS)
        tree.setRootIsDecorated(False)
        tree.setUniformRowHeights(True)
        tree.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        tree.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        header = tree.header()
        header.setStretchLastSection(False)
        header.setMinimumSectionSize(20)
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        line = tree.fontMetrics().lineSpacing() + 6
        tree.setMinimumHeight(3 * line)
        tree.setMaximumHeight((_ROWS_SHOWN + 2) * line)
        tree.setMinimumWidth(0)
        tree.itemChanged.connect(self._on_ticked)
        tree.itemClicked.connect(self._on_clicked)
        return tree

    # What there is.

    def show_pictures(self) -> None:
        """Show the list as it is now."""
        self._show_axes()
        rows = self._list_rows()
        if self._result is not None and self._signatures() != self._scored:
            self._result = None  # the strokes are not those that were scored
            set_note(self.summary, "")
        elif rows == self._rows and self._result is None:
            return
        self._rows = rows
        with QSignalBlocker(self.list):
            position = self.list.verticalScrollBar().value()
            self.list.clear()
            for one in rows:
                self.list.addTopLevelItem(self._item(one))
            self.list.verticalScrollBar().setValue(position)
        self._show_work()

    def _list_rows(self) -> list[_Row]:
        link, images, rows = self._controller.link, self._session.images, []
        for layer in link.layers.images():
            own = link.layers.key_of(layer)
            family = [one for one in images.family(own) if one.class_ids]
            shown = images.find(own)
            if shown is not None and shown not in family:
                family.append(shown)
            for entry in family:
                rows.append(self._row_of(entry))
            if not family:
                rows.append(_Row(own, layer.name, None, "", "", "", is_current=False))
        return rows

    def _row_of(self, entry: ImageEntry) -> _Row:
        counts = {} if entry.counted is None else entry.counted.counts
        names = self._session.classes
        detail = ", ".join(
            f"{names[i].name if i in names else i}: {count} px"
            for i, count in counts.items()
        )
        return _Row(
            entry.key,
            entry.name or str(entry.key),
            entry.trains if counts else None,
            _short(sum(counts.values())),
            detail,
            _state(entry),
            entry is self._session.current,
        )

    def _item(self, one: _Row) -> QTreeWidgetItem:
        score = self._result.scores.get(one.key) if self._result else None
        value = "" if score is None or math.isnan(score.miou) else f"{score.miou:.2f}"
        item = QTreeWidgetItem([one.name, one.painted, one.features, value])
        item.setData(0, _KEY, one.key)
        item.setToolTip(0, one.name)
        item.setToolTip(1, one.detail or "Nothing is painted")
        for column in (1, 2, 3):
            item.setTextAlignment(column, Qt.AlignmentFlag.AlignRight)
        if one.trains is not None:
            ticked = Qt.CheckState.Checked if one.trains else Qt.CheckState.Unchecked
            item.setCheckState(0, ticked)
        font = item.font(0)
        font.setBold(one.is_current)
        item.setFont(0, font)
        return item

    def _signatures(self) -> dict[PlaneKey, Any]:
        painted = self._session.images.painted()
        return {one.key: (one.scribbles_fingerprint, one.options) for one in painted}

    def _show_work(self) -> None:
        is_scoring = self._controller.side.kind == _SCORING
        self.score.setText("Stop" if is_scoring else "Score: leave one image out")

    # Axes of a stack that nobody named.

    def _show_axes(self) -> None:
        link = self._controller.link
        unnamed = link.unnamed_axes()
        shown = (link.image, *unnamed)
        if shown == self._axes_shown:
            return
        self._axes_shown = shown
        while self._axes_form.rowCount():
            self._axes_form.removeRow(0)
        for axis, size in unnamed:
            combo = combo_box(
                f"axis_{axis}", "What this axis of the stack is; it is never guessed"
            )
            combo.addItems([_CHOOSE, *AXIS_NAMES])
            combo.setProperty("axis", axis)
            combo.textActivated.connect(self._on_axis)
            self._axes_form.addRow(QLabel(f"axis {axis} ({size})"), combo)
        self._axes.setVisible(bool(unnamed))

    def _on_axis(self, name: str) -> None:
        combo = self.sender()
        if combo is not None and name != _CHOOSE:
            self._controller.link.name_axis(int(combo.property("axis")), name)

    # What the user does.

    def _on_changed(self) -> None:
        self._later.throttle()

    def _on_ticked(self, item: QTreeWidgetItem, column: int) -> None:
        key = item.data(0, _KEY)
        if key in self._session.images:
            trains = item.checkState(0) == Qt.CheckState.Checked
            self._session.set_trains(key, trains)
            self._controller.train()

    def _on_clicked(self, item: QTreeWidgetItem, column: int) -> None:
        self._controller.link.show_image(item.data(0, _KEY))

    def _on_add(self) -> None:
        paths, _ = QFileDialog.getOpenFileNames(self, "Add micrographs", "", _FILES)
        if paths:
            self.add_files(paths)

    def add_files(self, paths: list[str]) -> None:
        """Read micrographs, each of which becomes a layer when it is there."""
        self._controller.side.submit(
            _OPENING,
            partial(open_images, paths=tuple(paths)),
            self._on_opened,
            hear_part=self._on_file,
        )

    def _on_file(self, opened: OpenedImage) -> None:
        image = opened.image
        layers.add_image(
            self._controller.viewer,
            image.data,
            opened.path,
            pixel_size=image.pixel_size,
            unit=image.unit,
        )

    def _on_opened(self, problems: list[str]) -> None:
        if problems:
            self._controller.report(ValueError("; ".join(problems)))

    def _on_score(self) -> None:
        if self._controller.side.kind == _SCORING:
            self._controller.side.cancel(_SCORING)
            return
        self._controller.link.flush()
        self._controller.attempt(self._submit_score)

    def _submit_score(self) -> None:
        request = self._session.guidance.validation_request()
        self._scored = self._signatures()
        set_note(self.summary, "")
        self._controller.side.submit(_SCORING, request, self._on_scored)

    def _on_scored(self, result: ValidationResult) -> None:
        self._result = result
        set_note(self.summary, result.text)
        self.show_pictures()


def _short(count: int) -> str:
    if not count:
        return ""
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k"


def _state(entry: ImageEntry) -> str:
    if entry.features is not None:
        return "ready"
    if entry.pending:
        return "…"
    return "strokes" if entry.training_features is not None else "none"
