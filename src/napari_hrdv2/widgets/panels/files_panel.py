"""In and out: projects, labels from elsewhere, results, classifiers."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QCheckBox, QFileDialog, QGridLayout, QWidget

from napari_hrdv2.session.batch import read_labels
from napari_hrdv2.session.export import FORMATS, plan_export
from napari_hrdv2.session.project.format import SUFFIX
from napari_hrdv2.widgets.label_taker import LabelTaker

from . import Attempt, PanelSpec
from . import controls as ui

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels

    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.files import ImportedLabels
    from napari_hrdv2.session.export import Exported
    from napari_hrdv2.widgets.controller import Controller
    from napari_hrdv2.widgets.jobs import SideWork
    from napari_hrdv2.widgets.viewer.layer_sync import LayerSync

_PROJECT = f"Project (*{SUFFIX})"
_CLASSIFIER = "Classifier (*.safetensors)"
_LABELS = (
    "Labels (*.tif *.tiff *.png *.bmp *.ilp *.labeling *.roi *.zip);;All files (*)"
)
_EXPORT, _TRAINING = "export", "train for a series"


class FilesPanel(QWidget):
    """Saves and opens projects, takes labels in, writes results."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        link = self._link = controller.link
        self._controller, self._session = controller, controller.session
        self.taker = LabelTaker(controller)
        self.loader = controller.project_loader()
        self.loader.ask = self.ask
        self.loader.changed.connect(self._show_missing)
        self.export_box = ExportBox(link, controller.side, controller.attempt, self.ask)
        self._make_controls()
        ui.fill_column(
            self,
            ui.row(self.save, self.open),
            ui.row(self.with_images, self.locate_button),
            ui.row(self.import_button, self.import_zarr),
            ui.row(self.layer_choice, self.take),
            self.export_box,
            ui.row(self.save_classifier, self.load_classifier),
            ui.row(self.progress, self.cancel),
        )
        controller.side.changed.connect(self._show_training)
        link.images_changed.connect(self.show_layers)
        self._session.segmentation_changed.connect(self._show_classifier)
        self.show_layers()
        self._show_missing()
        self._show_classifier()

    def ask(self, question: str) -> bool:
        """Ask the user; return whether he agrees."""
        return ui.agrees(self, question)

    def save_project(self, path: str | os.PathLike[str]) -> None:
        """Write images, scribbles, classes, options and classifier into one file."""
        self.loader.save(path, with_images=self.with_images.isChecked())

    def import_labels(self, path: str | os.PathLike[str]) -> None:
        """Paint labels over the scribbles: TIFF, PNG, ilastik, Labkit, ImageJ ROIs."""
        self._controller.attempt(self._import_labels, Path(path))

    def _import_labels(self, path: Path) -> None:
        current = self.taker.current()
        key, name = current.key, current.source or current.name
        request = partial(read_labels, path=path, shape=current.shape, image_name=name)

        def hear(found: ImportedLabels) -> None:
            self.taker.paint(
                key,
                found.labels,
                found.note,
                names=found.classes.names,
                colors=found.classes.colors,
            )

        self._controller.side.submit("import", request, hear)

    def take_layer(self, layer: Labels) -> None:
        """Paint a labels layer over the scribbles of the current image."""
        self.taker.take(layer)

    def show_layers(self) -> None:
        """List the labels layers that scribbles can be taken from."""
        ui.fill(self.layer_choice, [layer.name for layer in self.taker.layers()])
        self.take.setEnabled(self.layer_choice.count() > 0)

    def _make_controls(self) -> None:
        controller = self._controller
        self.save = ui.PathButton(
            "Save project…",
            "save_project",
            self.save_project,
            _PROJECT,
            f"project{SUFFIX}",
        )
        self.open = ui.PathButton(
            "Open project…", "open_project", self.loader.open, _PROJECT
        )
        self.with_images = ui.check_box(
            "With the images",
            "save_with_images",
            "So that the project opens on a machine that does not have them",
            checked=True,
        )
        self.locate_button = ui.PathButton(
            "Locate…",
            "locate_images",
            self.loader.locate,
            tip="Say in which folder the images are that were not found",
        )
        self.import_button = ui.PathButton(
            "Import labels…", "import_labels", self.import_labels, _LABELS
        )
        self.import_zarr = ui.PathButton(
            "OME-Zarr…",
            "import_ome_zarr",
            self.import_labels,
            tip="Paint the labels in an OME-Zarr folder over the scribbles",
        )
        tip = "A labels layer to take scribbles from"
        self.layer_choice = ui.combo_box("labels_layer", tip)
        self.take = ui.push_button("To scribbles", "take_layer", self._on_take)
        self.save_classifier = ui.PathButton(
            "Save classifier…",
            "save_classifier",
            partial(controller.attempt, self._save_classifier),
            _CLASSIFIER,
            "classifier.safetensors",
            tip="Write the classifier to a file, trained for other images of a series",
        )
        tip = "How far the classifier for other images is trained"
        side = controller.side
        self.progress = ui.JobProgress("classifier_progress", tip, side, _TRAINING)
        self.cancel = ui.push_button("Cancel", "cancel_training", self._on_cancel)
        self.cancel.hide()
        self.load_classifier = ui.PathButton(
            "Load classifier…",
            "load_classifier",
            controller.load_classifier,
            _CLASSIFIER,
        )

    def _save_classifier(self, path: str) -> None:
        session, series = self._session, self._session.series
        request, known = series.request(), series.classifier
        if known is not None and (session.is_loaded or known.painted is not None):
            session.save_classifier(path, known)
            return
        if request is not None:
            session.say(request.text)

        def hear(made: PixelClassifier) -> None:
            if request is not None:
                series.accept(request, made)
            session.save_classifier(path, made)

        wanted = request or session.named_classifier(known)
        self._controller.side.submit(_TRAINING, series.with_painted(wanted), hear)

    def _show_training(self) -> None:
        self.cancel.setVisible(self._controller.side.has(_TRAINING))

    def _on_cancel(self) -> None:
        """Write no classifier."""
        self._controller.side.cancel(_TRAINING)
        self._session.say("Cancelled; no classifier was saved.")

    def _show_missing(self) -> None:
        are_missing = any(not saved.plane for saved in self.loader.missing)
        self.locate_button.setVisible(are_missing)

    def _show_classifier(self) -> None:
        self.save_classifier.setEnabled(self._session.classifier is not None)

    def _on_take(self) -> None:
        """Paint this labels layer over the scribbles."""
        layers, position = self.taker.layers(), self.layer_choice.currentIndex()
        if 0 <= position < len(layers):
            self.take_layer(layers[position])


class ExportBox(QWidget):
    """Check boxes for what is written; `ask` is called before files are replaced."""

    def __init__(
        self,
        link: LayerSync,
        side: SideWork,
        attempt: Attempt,
        ask: Callable[[str], bool],
    ) -> None:
        super().__init__()
        self._session, self._link, self._side = link.session, link, side
        self._attempt, self._ask = attempt, ask
        self.boxes: dict[str, QCheckBox] = {}
        for one in FORMATS:
            box = ui.check_box(one.title, f"export_{one.name}", one.hint)
            box.setChecked(one.is_default)
            self.boxes[one.name] = box
        tip = "All of them, segmented by the classifier as it is now"
        self.all_images = ui.check_box("All images", "export_all_images", tip)
        self.written = ui.hint("exported")
        self.written.hide()
        self.button = ui.JobButton("Export…", "export", self._on_clicked, side, _EXPORT)
        self.button.cancelled.connect(self.written.hide)
        grid = QGridLayout()
        for place, box in enumerate(self.boxes.values()):
            grid.addWidget(box, *divmod(place, 2))
        ui.fill_column(self, grid, ui.row(self.all_images, self.button), self.written)
        side.progressed.connect(self._on_progressed)

    @property
    def what(self) -> list[str]:
        """What is ticked."""
        return [kind for kind, box in self.boxes.items() if box.isChecked()]

    def export(self, folder: str | os.PathLike[str]) -> None:
        """Write what is ticked into a folder, in the worker thread."""
        self._link.flush()
        self._attempt(self._submit, folder)

    def _submit(self, folder: str | os.PathLike[str]) -> None:
        all_images = self.all_images.isChecked()
        if all_images:  # also those that were never shown
            self._link.layers.add_images()
        request = plan_export(
            self._session, folder, formats=self.what, all_images=all_images
        )
        names = [path.name for path in request.existing()]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        there = f"{request.folder} has {', '.join(names[:3])}{more} already"
        if names and not self._ask(f"{there}. Replace them?"):
            return
        self.written.hide()
        self._side.submit(
            _EXPORT, request, self._on_exported, hear_failure=self._on_failure
        )

    def _on_exported(self, exported: Exported) -> None:
        ui.set_hint(self.written, exported.text)
        self._session.say(exported.text)

    def _on_failure(self, error: Exception) -> None:
        self.written.hide()
        raise error  # told by the side work

    def _on_progressed(self, stage: str, done: int, total: int) -> None:
        if self._side.kind == _EXPORT:
            ui.set_hint(self.written, f"{stage}: {done + 1} of {total}")

    def _on_clicked(self) -> None:
        """Write what is ticked into a folder."""
        folder = QFileDialog.getExistingDirectory(self, "Export into a folder")
        if folder:
            self.export(folder)


PANELS = (PanelSpec("files", "Result", 30, FilesPanel, "Project, import and export"),)
