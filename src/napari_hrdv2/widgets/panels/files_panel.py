"""In and out: projects, labels from elsewhere, results, classifiers."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from qtpy.QtWidgets import QCheckBox, QFileDialog, QGridLayout, QWidget

from napari_hrdv2.session.batch import read_labels, scribbles_with
from napari_hrdv2.session.export import FORMATS, plan_export
from napari_hrdv2.session.project.format import SUFFIX
from napari_hrdv2.widgets.viewer import layers

from . import PanelSpec
from . import controls as ui

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_hrdv2.files import ImportedLabels
    from napari_hrdv2.session.export import Exported
    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.widgets.controller import Controller
    from napari_hrdv2.widgets.jobs import SideWork
    from napari_hrdv2.widgets.projects import ProjectLoader
    from napari_hrdv2.widgets.reporting import Reporter
    from napari_hrdv2.widgets.viewer.layer_sync import LayerSync

_PROJECT = f"Project (*{SUFFIX})"
_CLASSIFIER = "Classifier (*.safetensors)"
_LABELS = (
    "Labels (*.tif *.tiff *.png *.bmp *.ilp *.labeling *.roi *.zip);;All files (*)"
)
_EXPORT = "export"


class FilesPanel(QWidget):
    """Saves and opens projects, takes labels in, writes results."""

    def __init__(
        self,
        link: LayerSync,
        side: SideWork,
        reporter: Reporter,
        loader: ProjectLoader,
        *,
        train: Callable[[], object],
        load_classifier: Callable[[str], object],
    ) -> None:
        super().__init__()
        self._link, self._session, self._side = link, link.session, side
        self._reporter, self.loader = reporter, loader
        self._train = train
        loader.ask = self.ask
        loader.changed.connect(self._show_missing)
        self.export_box = ExportBox(link, side, reporter, self.ask)
        self._make_controls(load_classifier)
        ui.fill_column(
            self,
            ui.row(self.save, self.open),
            ui.row(self.with_images, self.locate_button),
            ui.row(self.import_button, self.import_zarr),
            ui.row(self.layer_choice, self.take),
            self.export_box,
            ui.row(self.save_classifier, self.load_classifier),
        )
        link.images_changed.connect(self.show_layers)
        self._session.segmentation_changed.connect(self._show_classifier)
        self.show_layers()
        self._show_missing()
        self._show_classifier()

    def ask(self, question: str) -> bool:
        """Ask the user; return whether he agrees."""
        return ui.agrees(self, question)

    def save_project(self, path: str | os.PathLike[str]) -> None:
        """Write everything into one file, in the worker thread."""
        self.loader.save(path, with_images=self.with_images.isChecked())

    def import_labels(self, path: str | os.PathLike[str]) -> None:
        """Paint labels from a file over the scribbles, read in the worker thread."""
        current = self._session.current
        if current is None:
            error = ValueError("image: there is none yet; open an image first")
            self._reporter.report(error)
            return
        name = current.source or current.name
        key, shape = current.key, current.shape
        request = partial(read_labels, path=Path(path), shape=shape, image_name=name)

        def hear(found: ImportedLabels) -> None:
            about = {"names": found.classes.names, "colors": found.classes.colors}
            self._reporter.attempt(self._paint, key, found.labels, found.note, **about)

        self._side.submit("import", request, hear)

    def take_layer(self, layer: Labels) -> None:
        """Paint a labels layer over the scribbles of the current image."""
        self._reporter.attempt(self._take_layer, layer)

    def _take_layer(self, layer: Labels) -> None:
        current = self._session.current
        if current is None:
            raise ValueError("image: there is none yet; open an image first")
        data = np.asarray(layer.data)
        index = self._link.index
        labels = data[index] if index and data.ndim == len(index) + 2 else data
        told = f"Scribbles taken from {layer.name}."
        self._paint(current.key, labels, told, names=layers.class_names_of(layer))

    def _paint(
        self, key: PlaneKey, labels: Any, told: str, **about: dict[int, str]
    ) -> None:
        if key not in self._session.images:
            raise ValueError("labels: their image is no longer open")
        self._link.flush()
        session = self._session
        painted = scribbles_with(session.images, session.classes, key, labels, **about)
        self._link.write_scribbles(key, painted)
        self._train()
        self._session.say(f"{told} Undo brings the former scribbles back.")

    def show_layers(self) -> None:
        """List the labels layers that scribbles can be taken from."""
        chosen = self.layer_choice.currentText()
        self.layer_choice.clear()
        self.layer_choice.addItems([layer.name for layer in self._label_layers()])
        self.layer_choice.setCurrentText(chosen)
        self.take.setEnabled(self.layer_choice.count() > 0)

    def _label_layers(self) -> list[Labels]:
        """Return labels layers that are not the scribbles themselves."""
        labels = [one for one in self._link.viewer.layers if isinstance(one, Labels)]
        return [one for one in labels if one != self._link.scribbles]

    def _make_controls(self, load_classifier: Callable[[str], object]) -> None:
        self.save = ui.PathButton(
            "Save project…",
            "save_project",
            "Write images, scribbles, classes, options and classifier into one file",
            self.save_project,
            *(_PROJECT, f"project{SUFFIX}"),
        )
        tip = "Open a project beside the images that are open"
        self.open = ui.PathButton(
            "Open project…", "open_project", tip, self.loader.open, _PROJECT
        )
        tip = "So that the project opens on a machine that does not have them"
        self.with_images = ui.check_box(
            "With the images", "save_with_images", tip, checked=True
        )
        tip = "Say in which folder the images are that were not found"
        self.locate_button = ui.PathButton(
            "Locate…", "locate_images", tip, self.loader.locate
        )
        tip = "Paint labels over the scribbles: TIFF, PNG, ilastik, Labkit, ImageJ ROIs"
        self.import_button = ui.PathButton(
            "Import labels…", "import_labels", tip, self.import_labels, _LABELS
        )
        tip = "Paint the labels in an OME-Zarr folder over the scribbles"
        self.import_zarr = ui.PathButton(
            "OME-Zarr…", "import_ome_zarr", tip, self.import_labels
        )
        tip = "A labels layer to take scribbles from"
        self.layer_choice = ui.combo_box("labels_layer", tip)
        self.take = ui.push_button("To scribbles", "take_layer", self._on_take)
        self.save_classifier = ui.PathButton(
            "Save classifier…",
            "save_classifier",
            "Write the classifier to a file, to use it on other images",
            partial(self._reporter.attempt, self._session.save_classifier),
            *(_CLASSIFIER, "classifier.safetensors"),
        )
        tip = "Segment this image by a classifier that was saved"
        self.load_classifier = ui.PathButton(
            "Load classifier…", "load_classifier", tip, load_classifier, _CLASSIFIER
        )

    def _show_missing(self) -> None:
        self.locate_button.setVisible(
            any(not saved.plane for saved in self.loader.missing)
        )

    def _show_classifier(self) -> None:
        self.save_classifier.setEnabled(self._session.classifier is not None)

    def _on_take(self) -> None:
        """Paint this labels layer over the scribbles."""
        layers, position = self._label_layers(), self.layer_choice.currentIndex()
        if 0 <= position < len(layers):
            self.take_layer(layers[position])


class ExportBox(QWidget):
    """Check boxes for what is written; `ask` is called before files are replaced."""

    def __init__(
        self,
        link: LayerSync,
        side: SideWork,
        reporter: Reporter,
        ask: Callable[[str], bool],
    ) -> None:
        super().__init__()
        self._session, self._link, self._side = link.session, link, side
        self._reporter, self._ask = reporter, ask
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
        self._reporter.attempt(self._submit, folder)

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


def make_files_panel(controller: Controller) -> FilesPanel:
    """Return the panel of a window."""
    return FilesPanel(
        controller.link,
        controller.side,
        controller.reporter,
        controller.project_loader(),
        train=controller.train,
        load_classifier=controller.load_classifier,
    )


PANELS = (
    PanelSpec("files", "Result", 30, make_files_panel, "Project, import and export"),
)
