"""In and out: projects, labels from elsewhere, results, classifiers."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from qtpy.QtWidgets import QCheckBox, QFileDialog, QGridLayout, QWidget

from napari_hrdv2.session.export import FORMATS, plan_export
from napari_hrdv2.session.project.format import SUFFIX
from napari_hrdv2.session.project.snapshot import project_of
from napari_hrdv2.session.project.store import save_project
from napari_hrdv2.session.tasks.files import read_labels, scribbles_with
from napari_hrdv2.widgets.viewer import layers
from napari_hrdv2.widgets.workers.project import ProjectLoader

from . import Attempt, PanelSpec
from . import controls as ui

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_hrdv2.files import ImportedLabels
    from napari_hrdv2.session import Session
    from napari_hrdv2.session.export import Exported
    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.session.tasks.context import TaskContext
    from napari_hrdv2.widgets.controller import Controller
    from napari_hrdv2.widgets.viewer.layer_sync import LayerSync
    from napari_hrdv2.widgets.workers.queue import SideWork

_PROJECT = f"Project (*{SUFFIX})"
_CLASSIFIER = "Classifier (*.safetensors)"
_LABELS = (
    "Labels (*.tif *.tiff *.png *.bmp *.ilp *.labeling *.roi *.zip);;All files (*)"
)
_EXPORT = "export"


class FilesPanel(QWidget):
    """Saves and opens projects, takes labels in, writes results."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller, self._session = controller, controller.session
        self._loader = ProjectLoader(controller, self.ask)
        self._loader.changed.connect(self._show_missing)
        self.export_box = ExportBox(
            self._session,
            controller.link,
            controller.side,
            controller.attempt,
            self.ask,
        )
        self._make_controls()
        ui.fill_column(
            self,
            ui.row(self.save, self.open),
            ui.row(self.with_images, self.locate_button),
            ui.row(self.import_button, self.import_zarr),
            ui.row(self.layer_choice, self.take),
            self.export_box,
            ui.row(self.save_classifier, self.load_classifier),
        )
        controller.link.images_changed.connect(self.show_layers)
        self._session.segmentation_changed.connect(self._show_classifier)
        self.show_layers()
        self._show_missing()
        self._show_classifier()

    def ask(self, question: str) -> bool:
        """Ask the user; return whether he ui.agrees."""
        return ui.agrees(self, question)

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
        """Paint labels from a file over the scribbles, read in the worker thread."""
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
        """Paint a labels layer over the scribbles of the current image."""
        self._controller.attempt(self._take_layer, layer)

    # Inside.

    def _take_layer(self, layer: Labels) -> None:
        current = self._session.current
        if current is None:
            raise ValueError("image: there is none yet; open an image first")
        data = np.asarray(layer.data)
        index = self._controller.link.index
        labels = data[index] if index and data.ndim == len(index) + 2 else data
        told = f"Scribbles taken from {layer.name}."
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
        self._session.say(f"{told} Undo brings the former scribbles back.")

    def _on_saved(self, path: Path) -> None:
        self._session.say(f"Project saved to {path}.")

    def show_layers(self) -> None:
        """List the labels layers that scribbles can be taken from."""
        chosen = self.layer_choice.currentText()
        self.layer_choice.clear()
        self.layer_choice.addItems([layer.name for layer in self._label_layers()])
        self.layer_choice.setCurrentText(chosen)
        self.take.setEnabled(self.layer_choice.count() > 0)

    def _label_layers(self) -> list[Labels]:
        """Return labels layers that are not the scribbles themselves."""
        labels = [one for one in self._controller.viewer.layers if _is_labels(one)]
        return [one for one in labels if one != self._controller.link.scribbles]

    def _make_controls(self) -> None:
        self.save = ui.push_button("Save project…", "save_project", self._on_save)
        self.open = ui.push_button("Open project…", "open_project", self._on_open)
        self.with_images = ui.check_box(
            "With the images",
            "save_with_images",
            "So that the project opens on a machine that does not have them",
            checked=True,
        )
        self.locate_button = ui.push_button("Locate…", "locate_images", self._on_locate)
        self.import_button = ui.push_button(
            "Import labels…", "import_labels", self._on_import
        )
        self.import_zarr = ui.push_button(
            "OME-Zarr…", "import_ome_zarr", self._on_import_folder
        )
        self.layer_choice = ui.combo_box(
            "labels_layer", "A labels layer to take scribbles from"
        )
        self.take = ui.push_button("To scribbles", "take_layer", self._on_take)
        self.save_classifier = ui.push_button(
            "Save classifier…", "save_classifier", self._on_save_classifier
        )
        self.load_classifier = ui.push_button(
            "Load classifier…", "load_classifier", self._on_load_classifier
        )

    def _show_missing(self) -> None:
        self.locate_button.setVisible(
            any(not saved.plane for saved in self._loader.missing)
        )

    def _show_classifier(self) -> None:
        self.save_classifier.setEnabled(self._session.classifier is not None)

    # Dialogs.

    def _on_save(self) -> None:
        """Write images, scribbles, classes, options and classifier into one file."""
        name = f"project{SUFFIX}"
        path = ui.ask_for_path(self, "Save project", name, _PROJECT)
        if path:
            self.save_project(path)

    def _on_open(self) -> None:
        """Open a project beside the images that are open."""
        path = ui.ask_for_file(self, "Open project", _PROJECT)
        if path:
            self.open_project(path)

    def _on_locate(self) -> None:
        """Say in which folder the images are that were not found."""
        folder = QFileDialog.getExistingDirectory(self, "Where are the images?")
        if folder:
            self.locate(folder)

    def _on_import(self) -> None:
        """Paint labels over the scribbles.

        TIFF or PNG, ilastik, Labkit, ImageJ ROIs.
        """
        path = ui.ask_for_file(self, "Import labels", _LABELS)
        if path:
            self.import_labels(path)

    def _on_import_folder(self) -> None:
        """Paint the labels in an OME-Zarr folder over the scribbles."""
        folder = QFileDialog.getExistingDirectory(self, "Import an OME-Zarr")
        if folder:
            self.import_labels(folder)

    def _on_take(self) -> None:
        """Paint this labels layer over the scribbles."""
        layers, position = self._label_layers(), self.layer_choice.currentIndex()
        if 0 <= position < len(layers):
            self.take_layer(layers[position])

    def _on_save_classifier(self) -> None:
        """Write the classifier to a file, to use it on other images."""
        name = "classifier.safetensors"
        path = ui.ask_for_path(self, "Save classifier", name, _CLASSIFIER)
        if path:
            self._controller.save_classifier(path)

    def _on_load_classifier(self) -> None:
        """Segment this image by a classifier that was saved."""
        path = ui.ask_for_file(self, "Load classifier", _CLASSIFIER)
        if path:
            self._controller.load_classifier(path)


class ExportBox(QWidget):
    """Check boxes for what is written, and the button that writes it.

    `ask` is called with a question before files are replaced, and returns the answer.
    """

    def __init__(
        self,
        session: Session,
        link: LayerSync,
        side: SideWork,
        attempt: Attempt,
        ask: Callable[[str], bool],
    ) -> None:
        super().__init__()
        self._session, self._link, self._side = session, link, side
        self._attempt, self._ask = attempt, ask
        self.boxes: dict[str, QCheckBox] = {
            one.name: ui.check_box(
                one.title, f"export_{one.name}", one.hint, checked=one.is_default
            )
            for one in FORMATS
        }
        self.all_images = ui.check_box(
            "All images",
            "export_all_images",
            "All of them, segmented by the classifier as it is now",
        )
        self.button = ui.JobButton("Export…", "export", self._on_clicked, side, _EXPORT)
        self.button.cancelled.connect(self._show_nothing)
        self.written = ui.hint("exported")
        self._show_nothing()
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
        request = plan_export(
            self._session,
            folder,
            formats=self.what,
            all_images=self.all_images.isChecked(),
        )
        names = [path.name for path in request.existing()]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        if names and not self._ask(
            f"{request.folder} has {', '.join(names[:3])}{more} already. Replace them?"
        ):
            return
        self._show_nothing()
        self._side.submit(
            _EXPORT, request, self._on_exported, hear_failure=self._on_failure
        )

    def _on_exported(self, exported: Exported) -> None:
        ui.set_hint(self.written, exported.text)
        self._session.say(exported.text)

    def _on_failure(self, error: Exception) -> None:
        self._show_nothing()
        raise error  # told by the side work

    def _on_progressed(self, stage: str, done: int, total: int) -> None:
        if self._side.kind == _EXPORT:
            ui.set_hint(self.written, f"{stage}: {done + 1} of {total}")

    def _show_nothing(self) -> None:
        ui.set_hint(self.written, "")

    def _on_clicked(self) -> None:
        """Write what is ticked into a folder."""
        folder = QFileDialog.getExistingDirectory(self, "Export into a folder")
        if folder:
            self.export(folder)


def _is_labels(layer: object) -> bool:
    return isinstance(layer, Labels)


PANELS = (PanelSpec("files", "Result", 30, FilesPanel, "Project, import and export"),)
