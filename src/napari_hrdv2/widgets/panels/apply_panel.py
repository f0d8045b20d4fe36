"""The trained classifier on a folder of micrographs, or on all planes of a stack."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import (
    QFileDialog,
    QHeaderView,
    QProgressBar,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.files import image_files
from napari_hrdv2.session import PipelineInput, PipelineResult, ProcessedImage, TimeLeft
from napari_hrdv2.session.batch.apply import (
    TABLE,
    Applied,
    ApplyRequest,
    jobs_for,
)
from napari_hrdv2.widgets.panels.parts import note, push_button, row, set_note
from napari_hrdv2.widgets.viewer import planes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_hrdv2.widgets.controller import Controller

KIND = "apply"
_ROWS_SHOWN = 5
_FILTER = "Micrographs (*.tif *.tiff *.png *.jpg *.jpeg *.bmp);;All files (*)"


class ApplyPanel(QWidget):
    """Lists micrographs, segments them in the background, and says how each went."""

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._controller, self._session = controller, controller.session
        self._files: list[Path] = []
        self._time_left = TimeLeft()
        self._done = self._stale = 0
        self._make_controls()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row(self.add_files, self.add_folder, self.clear))
        layout.addWidget(self.table)
        layout.addLayout(row(self.run, self.run_stack))
        layout.addWidget(self.progress)
        layout.addWidget(self.note)
        controller.side.progressed.connect(self._on_progressed)
        controller.side.changed.connect(self.show_state)
        controller.link.images_changed.connect(self.show_state)
        self._session.segmentation_changed.connect(self.show_state)
        self.show_files()

    def _make_controls(self) -> None:
        self.add_files = push_button(
            "Files…", "apply_files", "Add micrographs to the list", self._on_files
        )
        self.add_folder = push_button(
            "Folder…",
            "apply_folder",
            "Add all micrographs of a folder to the list",
            self._on_folder,
        )
        self.clear = push_button(
            "Clear", "apply_clear", "Empty the list; no file is touched", self.empty
        )
        self.table = QTableWidget(0, 2, objectName="apply_table")
        self.table.setToolTip("The micrographs, and what became of each")
        self.table.setHorizontalHeaderLabels(["Micrograph", "Result"])
        self.table.verticalHeader().hide()
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        height = self.table.verticalHeader().defaultSectionSize()
        self.table.setFixedHeight((_ROWS_SHOWN + 1) * height)
        self.run = push_button(
            "Segment all…",
            "apply_run",
            "Choose a folder for the results, and segment every micrograph of the list "
            "by the classifier as it is now, refined as the result on the screen",
            self._on_run,
        )
        self.run_stack = push_button(
            "Segment all planes",
            "apply_stack",
            "Segment every plane of the stack that is shown, into its segmentation "
            "layer",
            self._on_run_stack,
        )
        self.progress = QProgressBar(objectName="apply_progress")
        self.progress.setToolTip("How many micrographs are done")
        self.note = note("apply_note")

    @property
    def is_running(self) -> bool:
        """Whether micrographs are being segmented, or wait for it."""
        return self._controller.side.has(KIND)

    def add(self, paths: Sequence[Path]) -> None:
        """Add files, or all micrographs of folders, that are not in the list yet."""
        found = image_files(list(paths))
        self._files += [path for path in found if path not in self._files]
        self.show_files()

    def empty(self) -> None:
        """Take everything off the list."""
        self._files = []
        self.show_files()

    def start(self, out: Path) -> None:
        """Segment the micrographs of the list, with the results in a folder.

        Raises
        ------
        ValueError, OSError
            If there is no classifier yet, or the folder cannot be made.
        """
        classifier = self._session.named_classifier()
        if out.exists() and not out.is_dir():
            raise ValueError(f"out: {out} is a file; choose a folder")
        out.mkdir(parents=True, exist_ok=True)
        options = self._session.options_in_use
        request = ApplyRequest(
            jobs_for(self._files, out),
            out / TABLE,
            copy.copy(classifier),
            options.device,
            options.weights,
            self._session.refinement.settings,
        )
        self._time_left, self._done, self._stale = TimeLeft(), 0, 0
        self.show_files()
        self._controller.side.submit(
            KIND, request, self._on_finished, hear_part=self._on_applied
        )

    def start_stack(self) -> None:
        """Segment all planes of the stack that is shown.

        Raises
        ------
        ValueError
            If there is no classifier yet, or no stack.
        """
        link, session = self._controller.link, self._session
        classifier = session.named_classifier()
        if link.image is None or not link.index:
            raise ValueError("image: it is no stack; choose a stack under Features")
        keys = [
            link.layers.add_entry(link.image, index)
            for index in np.ndindex(*planes.sizes(link.image))
        ]
        entries = [session.images[key] for key in keys]
        made, parts = session.options_in_use, classifier.part_options
        request = PipelineInput(
            tuple(replace(one.snapshot(), features=None) for one in entries),
            session.refinement.settings,
            classifier=copy.copy(classifier),
            fingerprint=session.classifier_fingerprint,
            options=FeatureOptions.of(parts, made.device, made.weights),
        )
        self._time_left, self._done, self._stale = TimeLeft(), 0, 0
        self._controller.side.submit(
            KIND, request, self._on_stack_finished, hear_part=self._on_plane
        )

    # What there is to see.

    def show_files(self) -> None:
        """List the micrographs, none of them segmented yet."""
        self.table.setRowCount(len(self._files))
        for number, path in enumerate(self._files):
            self._set(number, 0, path.name, str(path))
            self._set(number, 1, "", "")
        self.table.setVisible(bool(self._files))
        set_note(self.note, "")
        self.show_state()

    def show_state(self) -> None:
        """Offer what can be done now."""
        running = self.is_running
        ready = self._session.classifier is not None and bool(self._files)
        self.run.setText("Cancel" if running else "Segment all…")
        self.run.setEnabled(running or ready)
        is_stack = bool(self._controller.link.index)
        self.run_stack.setVisible(is_stack)
        self.run_stack.setEnabled(self._session.classifier is not None and not running)
        for button in (self.add_files, self.add_folder, self.clear):
            button.setEnabled(not running)
        self.progress.setVisible(running)

    def _set(self, number: int, column: int, text: str, tool_tip: str) -> None:
        item = QTableWidgetItem(text)
        item.setToolTip(tool_tip)
        self.table.setItem(number, column, item)

    def _on_progressed(self, stage: str, done: int, total: int) -> None:
        if self._controller.side.kind != KIND:
            return
        self.progress.setRange(0, total)
        self.progress.setValue(done)
        left = self._time_left.text("Segmenting", done, total)
        set_note(self.note, ", ".join(filter(None, (stage, left))))

    def _on_applied(self, result: Applied) -> None:
        number = self._files.index(result.job.file)
        if result.error:
            self._set(number, 1, "failed", result.error)
        else:
            self._set(number, 1, self._shares(result), str(result.outputs[0]))
            self._done += 1
        self.table.scrollToItem(self.table.item(number, 0))

    def _on_finished(self, results: list[Applied]) -> None:
        failed = [result for result in results if result.error]
        text = f"{len(results) - len(failed)} of {len(results)} segmented; "
        text += f"results and {TABLE} are in {results[0].job.target.parent}."
        if failed:
            text += " Failed: " + " ".join(f"{result.error}." for result in failed[:3])
        set_note(self.note, text)
        self._session.say(text)

    def _on_plane(self, done: ProcessedImage) -> None:
        if done.result is None:
            return
        if self._session.accept(done):
            self._done += 1
            self._controller.link.layers.write_result(done.key)
        else:
            self._stale += 1

    def _on_stack_finished(self, answer: PipelineResult) -> None:
        results = answer.images
        failed = [done.error for done in results if done.error]
        text = f"{self._done} of {len(results)} planes segmented."
        if self._stale:
            text += (
                f" {self._stale} left as they were: the strokes, or what is left out, "
                "changed meanwhile."
            )
        if failed:
            text += " Failed: " + " ".join(f"{error}." for error in failed[:3])
        set_note(self.note, text)
        self._session.say(text)

    def _shares(self, result: Applied) -> str:
        classes = self._session.classes
        return ", ".join(
            f"{classes[i].name if i in classes else i} {share:.1%}"
            for i, share in result.fractions.items()
        )

    # What the user does.

    def _on_files(self) -> None:
        paths, _ = QFileDialog.getOpenFileNames(self, "Micrographs", "", _FILTER)
        self._controller.attempt(self.add, [Path(path) for path in paths])

    def _on_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Folder of micrographs")
        if path:
            self._controller.attempt(self.add, [Path(path)])

    def _on_run_stack(self) -> None:
        self._controller.attempt(self.start_stack)

    def _on_run(self) -> None:
        if self.is_running:
            self._controller.side.cancel(KIND)
            set_note(
                self.note,
                f"Cancelled; {self._done} are done and kept.",
            )
            return
        path: Any = QFileDialog.getExistingDirectory(self, "Folder for the results")
        if path:
            self._controller.attempt(self.start, Path(path))
