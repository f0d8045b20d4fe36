"""In and out: projects, labels from elsewhere, results, classifiers."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QMessageBox,
    QVBoxLayout,
    QWidget,
)

from napari_hrdv2.session.project.format import SUFFIX
from napari_hrdv2.session.project.snapshot import project_of
from napari_hrdv2.session.project.store import save_project
from napari_hrdv2.session.tasks.files import read_labels, scribbles_with
from napari_hrdv2.widgets.panels.export_box import ExportBox
from napari_hrdv2.widgets.panels.parts import combo_box, push_button, row
from napari_hrdv2.widgets.viewer import layers
from napari_hrdv2.widgets.workers.project import ProjectLoader

if TYPE_CHECKING:
    from napari_hrdv2.files import ImportedLabels
    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.session.tasks.context import TaskContext
    from napari_hrdv2.widgets.controller import Controller

_PROJECT = f"Project (*{SUFFIX})"
_CLASSIFIER = "Classifier (*.safetensors)"
_LABELS = (
    "Labels (*.tif *.tiff *.png *.bmp *.ilp *.labeling *.roi *.zip);;All files (*)"
)


class FilesPanel(QWidget):
    """Saves and opens projects, takes labels in, writes results.

    Parameters
    ----------
    controller : Controller
    parent : QWidget, optional
    """

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._controller, self._session = controller, controller.session
        self._loader = ProjectLoader(controller, self.ask)
        self._loader.changed.connect(self._show_missing)
        self.export_box = ExportBox(controller, self.ask)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._make_project(layout)
        self._make_labels(layout)
        layout.addWidget(self.export_box)
        self._make_classifier(layout)
        controller.link.images_changed.connect(self.show_layers)
        self._session.segmentation_changed.connect(self._show_classifier)
        self.show_layers()
        self._show_missing()
        self._show_classifier()

    def ask(self, question: str) -> bool:
        """Ask the user; return whether he agrees."""
        answer = QMessageBox.question(self, "napari-hrdv2", question)
        return bool(answer == QMessageBox.StandardButton.Yes)

    # What can be done, also without a dialog.

    def save_project(self, path: str | os.PathLike[str]) -> None:
        """Write everything into one file, in the worker thread."""
        self._controller.link.flush()
        if not self._session.images:
            error = ValueError("image: there is none to save yet; open an image first")
            self._controller.report(error)
            return
        autosave = self._controller.autosave
        if autosave.saver is not None:
            autosave.saver.save()  # else older than the project, and shown in vain
        known, with_images = autosave.fingerprints, self.with_images.isChecked()
        project = project_of(self._session, fingerprints=known)

        def run(context: TaskContext) -> Path:
            context.progress("Saving the project", 0, 1)
            return save_project(
                project, path, with_images=with_images, fingerprints=known
            )

        self._controller.side.submit("save project", run, self._on_saved)

    def open_project(self, path: str | os.PathLike[str]) -> None:
        """Open a project beside what is open, in the worker thread."""
        self._loader.open(path)

    def locate(self, folder: str | os.PathLike[str]) -> None:
        """Look in a folder for the images of the project that were not found."""
        self._loader.locate(folder)

    def import_labels(self, path: str | os.PathLike[str]) -> None:
        """Paint labels from a file over the strokes, read in the worker thread."""
        current = self._session.current
        if current is None:
            error = ValueError("image: there is none yet; open an image first")
            self._controller.report(error)
            return
        name = current.source or current.name
        key, shape = current.key, current.shape
        request = partial(read_labels, path=Path(path), shape=shape, image_name=name)

        def hear(found: ImportedLabels) -> None:
            about = {"names": found.classes.names, "colors": found.classes.colors}
            self._controller.attempt(
                self._paint, key, found.labels, found.note, **about
            )

        self._controller.side.submit("import", request, hear)

    def take_layer(self, layer: Labels) -> None:
        """Paint a labels layer over the strokes of the current picture."""
        self._controller.attempt(self._take_layer, layer)

    # Inside.

    def _take_layer(self, layer: Labels) -> None:
        current = self._session.current
        if current is None:
            raise ValueError("image: there is none yet; open an image first")
        data = np.asarray(layer.data)
        index = self._controller.link.index
        labels = data[index] if index and data.ndim == len(index) + 2 else data
        told = f"Strokes taken from {layer.name}."
        self._paint(current.key, labels, told, names=layers.class_names_of(layer))

    def _paint(
        self, key: PlaneKey, labels: Any, told: str, **about: dict[int, str]
    ) -> None:
        if key not in self._session.images:
            raise ValueError("labels: their image is no longer open")
        self._controller.link.flush()
        session = self._session
        painted = scribbles_with(session.images, session.classes, key, labels, **about)
        self._controller.link.write_scribbles(key, painted)
        self._controller.train()
        self._session.say(f"{told} Undo brings the former strokes back.")

    def _on_saved(self, path: Path) -> None:
        self._session.say(f"Project saved to {path}.")

    def show_layers(self) -> None:
        """List the labels layers that strokes can be taken from."""
        chosen = self.layer_choice.currentText()
        self.layer_choice.clear()
        self.layer_choice.addItems([layer.name for layer in self._label_layers()])
        self.layer_choice.setCurrentText(chosen)
        self.take.setEnabled(self.layer_choice.count() > 0)

    def _label_layers(self) -> list[Labels]:
        """Return labels layers that are not the strokes themselves."""
        labels = [one for one in self._controller.viewer.layers if _is_labels(one)]
        return [one for one in labels if one != self._controller.link.scribbles]

    def _make_project(self, layout: QVBoxLayout) -> None:
        self.save = push_button(
            "Save project…",
            "save_project",
            "Write images, scribbles, classes, settings and classifier into one file",
            self._on_save,
        )
        self.open = push_button(
            "Open project…",
            "open_project",
            "Open a project beside the images that are open",
            self._on_open,
        )
        self.with_images = QCheckBox("With the images", objectName="save_with_images")
        self.with_images.setToolTip(
            "So that the project opens on a machine that does not have them"
        )
        self.with_images.setChecked(True)
        self.locate_button = push_button(
            "Locate…",
            "locate_images",
            "Say in which folder the images are that were not found",
            self._on_locate,
        )
        layout.addLayout(row(self.save, self.open))
        layout.addLayout(row(self.with_images, self.locate_button))

    def _make_labels(self, layout: QVBoxLayout) -> None:
        self.import_button = push_button(
            "Import labels…",
            "import_labels",
            "Paint labels over the strokes: TIFF or PNG, ilastik, Labkit, ImageJ ROIs",
            self._on_import,
        )
        self.import_zarr = push_button(
            "OME-Zarr…",
            "import_ome_zarr",
            "Paint the labels in an OME-Zarr folder over the strokes",
            self._on_import_folder,
        )
        self.layer_choice = combo_box(
            "labels_layer", "A labels layer to take strokes from"
        )
        self.take = push_button(
            "To strokes",
            "take_layer",
            "Paint this labels layer over the strokes",
            self._on_take,
        )
        layout.addLayout(row(self.import_button, self.import_zarr))
        layout.addLayout(row(self.layer_choice, self.take))

    def _make_classifier(self, layout: QVBoxLayout) -> None:
        self.save_classifier = push_button(
            "Save classifier…",
            "save_classifier",
            "Write the classifier to a file, to use it on other images",
            self._on_save_classifier,
        )
        self.load_classifier = push_button(
            "Load classifier…",
            "load_classifier",
            "Segment this image by a classifier that was saved",
            self._on_load_classifier,
        )
        layout.addLayout(row(self.save_classifier, self.load_classifier))

    def _show_missing(self) -> None:
        self.locate_button.setVisible(
            any(not saved.plane for saved in self._loader.missing)
        )

    def _show_classifier(self) -> None:
        self.save_classifier.setEnabled(self._session.classifier is not None)

    # Dialogs.

    def _on_save(self) -> None:
        path = self._new_file("Save project", "project", _PROJECT, SUFFIX)
        if path:
            self.save_project(path)

    def _on_open(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open project", "", _PROJECT)
        if path:
            self.open_project(path)

    def _on_locate(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Where are the images?")
        if folder:
            self.locate(folder)

    def _on_import(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Import labels", "", _LABELS)
        if path:
            self.import_labels(path)

    def _on_import_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Import an OME-Zarr")
        if folder:
            self.import_labels(folder)

    def _on_take(self) -> None:
        layers, row_chosen = self._label_layers(), self.layer_choice.currentIndex()
        if 0 <= row_chosen < len(layers):
            self.take_layer(layers[row_chosen])

    def _on_save_classifier(self) -> None:
        path = self._new_file(
            "Save classifier", "classifier", _CLASSIFIER, ".safetensors"
        )
        if path:
            self._controller.save_classifier(path)

    def _on_load_classifier(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Load classifier", "", _CLASSIFIER)
        if path:
            self._controller.load_classifier(path)

    def _new_file(self, title: str, name: str, kinds: str, suffix: str) -> str:
        """Return the path the user chose; the dialog asks before it replaces a file."""
        dialog = QFileDialog(self, title, name, kinds)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix(suffix.removeprefix("."))
        return str(dialog.selectedFiles()[0]) if dialog.exec() else ""


def _is_labels(layer: object) -> bool:
    return isinstance(layer, Labels)
