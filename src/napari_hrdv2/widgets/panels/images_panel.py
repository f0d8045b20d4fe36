"""All images and painted planes: which train, and whether that serves the others.

And the planes of a stack: what they know of each other, and all of them segmented.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_warning
from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QFileDialog,
    QLabel,
    QSizePolicy,
    QTreeWidget,
    QTreeWidgetItem,
    QWidget,
)

from napari_hrdv2.files.label_store import unfinished
from napari_hrdv2.files.volumes import PLANES
from napari_hrdv2.session import TimeLeft
from napari_hrdv2.session.batch import open_images
from napari_hrdv2.session.batch import volumes as batch
from napari_hrdv2.session.planes import AXIS_NAMES
from napari_hrdv2.widgets.jobs import when_rested
from napari_hrdv2.widgets.viewer import layers, planes
from napari_hrdv2.widgets.viewer import volume_overlay as volumes

from . import PanelSpec
from . import controls as ui

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_hrdv2.session import ImageEntry
    from napari_hrdv2.session.batch import OpenedImage
    from napari_hrdv2.session.guidance import ValidationResult
    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.widgets.controller import Controller

_KEY = Qt.ItemDataRole.UserRole
_ROWS_SHOWN = 6
_OPENING, _SCORING = "open files", "leave one image out"
_CHOOSE = "choose"
_RELATIONS = {  # of planes, and when they help
    "Planes: each alone": "for fields of view, points in time and thick sections",
    "Planes: with neighbours": "beside each channel its mean over planes nearby, for "
    "noisy stacks of planes that are alike",
    "Planes: three orientations": "the mean of the slices along all three axes, for "
    "noisy volumes that look alike along all of them, with voxels as deep as wide",
}
_NEIGHBOURS, _ORIENTATIONS = 1, 2  # positions of these


class ImagesPanel(QWidget):
    """Lists the images, chooses those that train, and scores whether they suffice."""

    asks = Signal()
    """A stack is shown of which an axis has no name."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self._session, self._link = controller.session, controller.link
        session, link = self._session, self._link
        self._result: ValidationResult | None = None
        self._scored: dict[PlaneKey, Any] = {}  # the scribbles that there were, by key
        self._axes = QWidget(objectName="stack_axes")
        self._axes.setSizePolicy(
            QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum
        )
        self._axes_form = ui.form(parent=self._axes)
        self._axes_shown: tuple[Any, ...] = ()
        self.list = self._make_list()
        self.add = ui.push_button("Add files…", "add_files", self._on_add)
        self.score = ui.JobButton(
            "Score: leave one image out",
            "leave_one_image_out",
            self._on_score,
            controller.side,
            _SCORING,
        )
        self.summary = ui.hint("validation_summary")
        self.summary.hide()
        buttons = ui.row(self.add, self.score)
        ui.fill_column(self, self._axes, self.list, buttons, self.summary)
        # Scribbles come one after the other; a list that is late by this does no harm.
        self._later = when_rested(self, 50, self.show_images)
        link.images_changed.connect(self._ask_for_axes)
        link.images_changed.connect(self._later.throttle)
        session.images_changed.connect(self._later.throttle)
        session.classes_changed.connect(self._later.throttle)
        self.show_images()

    def _make_list(self) -> QTreeWidget:
        tip = (
            "The ticked images train together; click one to go to it. Painted: pixels "
            "with scribbles. mIoU: how well its scribbles are predicted by those on "
            "the others"
        )
        middle = Qt.TextElideMode.ElideMiddle
        tree = QTreeWidget(objectName="images", toolTip=tip, textElideMode=middle)
        ui.set_up_tree(tree, ("Image", "Painted", "Features", "mIoU"))
        line = tree.fontMetrics().lineSpacing() + 6
        tree.setMinimumHeight(3 * line)
        tree.setMaximumHeight((_ROWS_SHOWN + 2) * line)
        tree.setMinimumWidth(0)
        tree.itemChanged.connect(self._on_ticked)
        tree.itemClicked.connect(self._on_clicked)
        return tree

    def show_images(self) -> None:
        """Show the list as it is now."""
        self._show_axes()
        if self._result is not None and self._painted() != self._scored:
            self._result = None  # the scribbles are not those that were scored
            ui.set_hint(self.summary, "")
        with QSignalBlocker(self.list):
            position = self.list.verticalScrollBar().value()
            self.list.clear()
            for layer in self._link.layers.images():
                self.list.addTopLevelItems(self._items(layer))
            self.list.verticalScrollBar().setValue(position)

    def release(self) -> None:
        """Show nothing any more."""
        self._later.cancel()

    def _items(self, layer: Image) -> list[QTreeWidgetItem]:
        own, images = self._link.layers.key_of(layer), self._session.images
        family = [one for one in images.family(own) if one.class_ids]
        shown = images.find(own)
        if shown is not None and shown not in family:
            family.append(shown)
        if family:
            return [self._item(entry) for entry in family]
        return [_row(own, [layer.name], "Nothing is painted")]

    def _item(self, entry: ImageEntry) -> QTreeWidgetItem:
        counts = {} if entry.counted is None else entry.counted.counts
        names = {i: info.name for i, info in self._session.classes.items()}
        details = [f"{names.get(i, i)}: {count} px" for i, count in counts.items()]
        score = self._result.scores.get(entry.key) if self._result else None
        miou = "" if score is None or math.isnan(score.miou) else f"{score.miou:.2f}"
        painted = ui.short_count(sum(counts.values())) if counts else ""
        detail = ", ".join(details) or "Nothing is painted"
        name = entry.name or str(entry.key)
        state = _state(entry)
        if entry in self._session.live.of_other_kind():
            state = "other kind"
            detail += "; they do not train with the image shown: one is grey"
        item = _row(entry.key, [name, painted, state, miou], detail)
        if counts:
            item.setCheckState(0, ui.checked(entry.trains))
        font = item.font(0)
        font.setBold(entry is self._session.current)
        item.setFont(0, font)
        return item

    def _painted(self) -> dict[PlaneKey, Any]:
        painted = self._session.images.painted()
        return {one.key: (one.scribbles_fingerprint, one.options) for one in painted}

    def _ask_for_axes(self) -> None:
        if self._link.unnamed_axes():
            self.asks.emit()

    def _show_axes(self) -> None:
        unnamed = self._link.unnamed_axes()
        shown = (self._link.image, *unnamed)
        if shown == self._axes_shown:
            return
        self._axes_shown = shown
        while self._axes_form.rowCount():
            self._axes_form.removeRow(0)
        for axis, size in unnamed:
            tip = "What this axis of the stack is; it is never guessed"
            combo = ui.combo_box(f"axis_{axis}", tip, [_CHOOSE, *AXIS_NAMES])
            combo.textActivated.connect(partial(self._on_axis, axis))
            self._axes_form.addRow(f"axis {axis} ({size})", combo)
        self._axes.setVisible(bool(unnamed))

    def _on_axis(self, axis: int, name: str) -> None:
        if name != _CHOOSE:
            self._link.name_axis(axis, name)

    def _on_ticked(self, item: QTreeWidgetItem, column: int) -> None:
        key = item.data(0, _KEY)
        if key in self._session.images:
            trains = item.checkState(0) == Qt.CheckState.Checked
            self._session.set_trains(key, trains)
            self._controller.train()

    def _on_clicked(self, item: QTreeWidgetItem, column: int) -> None:
        self._link.show_image(item.data(0, _KEY))

    def _on_add(self) -> None:
        """Open micrographs as layers."""
        title = "Add micrographs"
        paths, _ = QFileDialog.getOpenFileNames(self, title, "", ui.MICROGRAPHS)
        if paths:
            self.add_files(paths)

    def add_files(self, paths: list[str]) -> None:
        """Read micrographs, each of which becomes a layer when it is there."""
        request = partial(open_images, paths=tuple(paths))
        self._controller.side.submit(
            _OPENING, request, raise_problems, hear_part=self._on_file
        )

    def _on_file(self, opened: OpenedImage) -> None:
        for note in opened.image.notes:
            show_warning(note)
        selection = self._link.viewer.layers.selection
        active = selection.active
        layers.add_opened(self._link.viewer, opened)
        if active is not None and self._session.current is not None:
            selection.active = active  # the user is at work on another one

    def _on_score(self) -> None:
        """Predict the scribbles of each image by the scribbles on all others.

        It shows whether the classifier will serve images that it has not seen.
        """
        self._link.flush()
        request = self._session.guidance.validation_request()
        self._scored = self._painted()
        ui.set_hint(self.summary, "")
        self._controller.side.submit(_SCORING, request, self._on_scored)

    def _on_scored(self, result: ValidationResult) -> None:
        self._result = result
        ui.set_hint(self.summary, result.text)
        self.show_images()


class VolumePanel(QWidget):
    """Chooses what planes of a stack know of each other, and segments all of them."""

    def __init__(self, controller: Controller, into_memory: Callable[[], Any]) -> None:
        super().__init__()
        self._into_memory = into_memory
        self._session, self._link = controller.session, controller.link
        side, self._time_left = controller.volumes, TimeLeft()
        self.overlay = volumes.VolumeOverlay(controller.link, side)
        told = ". ".join(f"{name}: {text}" for name, text in _RELATIONS.items())
        tip = f"What planes know of each other when all are segmented. {told}"
        self.relation = ui.combo_box("planes", tip, _RELATIONS)
        self.relation.activated.connect(self._on_relation)
        tip = "Standard deviation of the mean over neighbours; it ends at two of them"
        self.context: Any = ui.number_box("planes_width", tip, 0.01, 9999.0)
        self.context.setPrefix("Width ")
        self.context.valueChanged.connect(self._on_width)
        self.cost = ui.hint("planes_cost", "What segmenting all planes takes")
        self.run = ui.JobButton(
            "Segment all planes", "apply_stack", self._on_run, side, self.overlay.role
        )
        tip = "How much of the stack is done"
        progress = ui.JobProgress("volume_progress", tip, side, self.overlay.role)
        self.note = ui.hint("volume_note")
        ui.fill_column(
            self,
            self.relation,
            self.context,
            self.cost,
            self.run,
            progress,
            self.note,
        )
        side.progressed.connect(self._on_progressed)
        side.changed.connect(self._on_changed)
        self._session.refinement.changed.connect(self._on_changed)

    def show_stack(self, *, is_busy: bool) -> None:
        """Show what is chosen for the stack that is shown, and what can be done."""
        session, image, text, painted = self._session, self._link.image, "", 0
        is_there = image is not None and volumes.is_volume(image)
        if image is not None and is_there and session.current is not None:
            family = session.images.family(session.current.key)
            painted = len({i for one in family for i in one.class_ids})
            text = self._cost(planes.data_of(image), max(painted, 2))
            is_alike = volumes.has_cubes(image, session.current)
            self.relation.model().item(_ORIENTATIONS).setEnabled(is_alike)
        kind, width, unit = ("z", None, "")
        if found := PLANES.fullmatch(session.options.planes):
            kind, width, unit = found.groups()
        position = _ORIENTATIONS if kind == "xyz" else _NEIGHBOURS if width else 0
        self.relation.setCurrentIndex(position)
        with QSignalBlocker(self.context):
            self.context.setSuffix(f" {unit or 'planes'}")
            decimals = max(2, len((width or "").partition(".")[2]))
            self.context.setDecimals(decimals)
            self.context.setMinimum(10.0**-decimals)
            self.context.setSingleStep(float(f"{float(width or 1) / 4:.1g}"))
            self.context.setValue(float(width or 0))
        self.relation.setVisible(is_there)
        self.context.setVisible(is_there and position == _NEIGHBOURS)
        show_whole(self.cost, text)
        self._on_changed()
        self.setVisible(bool(self._link.index) or self.run.is_running)
        is_ready = session.classifier is not None or painted > 1
        self.run.setEnabled(self.run.is_running or (is_ready and not is_busy))

    def _cost(self, pixels: Any, classes: int) -> str:
        try:
            volume = self.overlay.volume()
            assert volume is not None
            text = batch.cost_text(volume, batch.volume_options(self._session), classes)
        except ValueError as error:
            return str(error)
        into = "a file" if batch.is_streamed(volume, pixels) else "memory"
        return f"{text}; into {into}"

    def _on_relation(self, position: int) -> None:
        near, spacing = "z+2", self._link.image and volumes.spacing_of(self._link.image)
        if spacing and 0.01 <= spacing[0] < 1000:
            near = f"z+{2 * spacing[0]:.4g}{spacing[1]}"
        self._session.configure(planes=("z", near, "xyz")[position])

    def _on_width(self, value: float) -> None:
        unit = self.context.suffix().strip().removesuffix("planes")
        width = f"{value:.{self.context.decimals()}f}".rstrip("0").rstrip(".")
        self._session.configure(planes=f"z+{width}{unit}")

    def _on_run(self) -> None:
        """Segment every plane of the stack shown.

        Into its segmentation layer; or, of a stack that is lazy or large or whose
        planes are to know of each other, into a file that is gone on with after Cancel.
        """
        volume, image = self.overlay.volume(), self._link.image
        if not (image and volume and batch.is_streamed(volume, planes.data_of(image))):
            self._into_memory()
            return
        target, title = self.overlay.target, "Folder for the segmentation"
        if target is None and (folder := QFileDialog.getExistingDirectory(self, title)):
            target = self.overlay.target_in(Path(folder))
            there = next(filter(Path.exists, (target, unfinished(target))), None)
            question = f"{there} is there already. Replace it, if it is another one?"
            if there is not None and not ui.agrees(self, question):
                return
        if target is not None:
            self._time_left = TimeLeft()
            self.overlay.start(target)

    def _on_progressed(self, stage: str, done: int, total: int) -> None:
        left = self._time_left.text(stage, done, total)
        show_whole(self.note, ", ".join(filter(None, (stage, left))))

    def _on_changed(self) -> None:
        if not self.run.is_running:
            show_whole(self.note, self.overlay.note)


def raise_problems(problems: list[str]) -> None:
    """Raise what opening files met with; the side work tells it."""
    if problems:
        raise ValueError("; ".join(problems))


def show_whole(label: QLabel, text: str) -> None:
    """Show a text, whole: wrapped lines would else lie over what is beneath."""
    ui.set_hint(label, text)
    label.setMinimumHeight(0)
    label.setMinimumHeight(max(label.heightForWidth(label.width()), 0))


def _row(key: PlaneKey, texts: list[str], detail: str) -> QTreeWidgetItem:
    item = QTreeWidgetItem(texts)
    item.setData(0, _KEY, key)
    item.setToolTip(0, texts[0])
    item.setToolTip(1, detail)
    for column in (1, 2, 3):
        item.setTextAlignment(column, Qt.AlignmentFlag.AlignRight)
    return item


def _state(entry: ImageEntry) -> str:
    if entry.features is not None:
        return "ready"
    if entry.pending:
        return "…"
    return "scribbles" if entry.training_features is not None else "none"


PANELS = (PanelSpec("images", "Features", 10, ImagesPanel, "Images and stacks"),)
