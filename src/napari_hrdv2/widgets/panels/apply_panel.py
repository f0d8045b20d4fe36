"""The trained classifier on a folder of micrographs, or on all planes of a stack."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QFileDialog, QTableWidget, QTableWidgetItem, QWidget

from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.core.postprocess.exclusion import SharedExclusion
from napari_hrdv2.files import find_images
from napari_hrdv2.session import PipelineInput, PipelineResult, ProcessedImage, TimeLeft
from napari_hrdv2.session.batch import ApplyRequest, Run, jobs_for, open_images
from napari_hrdv2.session.batch.applied import Applied, most_doubtful, table_in
from napari_hrdv2.session.export import report as pages
from napari_hrdv2.widgets.viewer import layers, planes

from . import PanelSpec
from . import controls as ui
from .images_panel import VolumePanel, raise_problems, show_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.session import TaskContext
    from napari_hrdv2.session.batch import OpenedImage
    from napari_hrdv2.session.features import FeatureSource
    from napari_hrdv2.widgets.controller import Controller

KIND = "apply"
_ROWS_SHOWN = 5
_DOUBT_TIP = (
    "How probable it is that the mean IoU is below 0.5. From 20 % on an image is "
    "flagged; means are told without these, and with them"
)


class ApplyPanel(QWidget):
    """Lists micrographs, segments them in the background, and says how each went."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        link, side = self._link, self._side = controller.link, controller.side
        session = self._session = controller.session
        self._attempt = controller.attempt
        self._files: list[Path] = []
        self._time_left = TimeLeft()
        self._done = self._stale = 0
        self._next: Path | None = None  # the most doubtful of the last run
        self._page: Path | None = None  # its report
        self.add_files = ui.push_button("Files…", "apply_files", self._on_files)
        self.add_folder = ui.PathButton("Folder…", "apply_folder", self._on_folder)
        self.clear = ui.push_button("Clear", "apply_clear", self.empty)
        self.table = self._make_table()
        self.run = ui.JobButton("Segment all…", "apply_run", self._on_run, side, KIND)
        self.run.cancelled.connect(self._on_cancelled)
        self.stack = VolumePanel(controller, self.start_stack)
        self.run_stack = self.stack.run
        tip = "How many micrographs are done"
        self.progress = ui.JobProgress("apply_progress", tip, side, KIND)
        self.note = ui.hint("apply_note")
        self.label_next = ui.push_button(
            "Label this one next", "apply_label_next", self._on_label_next
        )
        self.report = ui.push_button("Open report", "apply_report", self._on_report)
        self.excludes = ui.check_box(
            "Exclude the same",
            "apply_exclude",
            "Exclude of each micrograph of this size what is excluded of this image",
            checked=True,
        )
        self.resamples = ui.check_box(
            "Same pixel size",
            "apply_resample",
            "Bring images, also this one, to the pixel size of the classifier",
            checked=True,
        )
        ui.fill_column(
            self,
            ui.row(self.add_files, self.add_folder, self.clear),
            self.table,
            ui.row(self.excludes, self.resamples),
            self.run,
            self.progress,
            self.note,
            ui.row(self.label_next, self.report),
            self.stack,
        )
        side.progressed.connect(self._on_progressed)
        for signal in (
            session.images_changed,
            session.segmentation_changed,
            session.options_changed,
            link.images_changed,
            side.changed,
            controller.volumes.changed,
        ):
            signal.connect(self.show_state)
        self.resamples.toggled.connect(self._on_resamples)
        self.show_files()

    def _make_table(self) -> QTableWidget:
        tip = "The micrographs, and what became of each"
        table = QTableWidget(0, 3, objectName="apply_table", toolTip=tip)
        table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        table.setHorizontalHeaderLabels(["Micrograph", "Result", "Doubt"])
        header = table.horizontalHeader()
        header.setSectionResizeMode(header.ResizeMode.Stretch)
        table.verticalHeader().hide()
        height = table.verticalHeader().defaultSectionSize()
        table.setFixedHeight((_ROWS_SHOWN + 1) * height)
        return table

    def add(self, paths: Sequence[Path]) -> None:
        """Add files, or all micrographs of folders, that are not in the list yet."""
        found = find_images(paths)
        self._files += [path for path in found.files if path not in self._files]
        self.show_files()
        ui.set_hint(self.note, found.left_out and f"{found.left_out}.")

    def empty(self) -> None:
        """Empty the list; no file is touched."""
        self._files = []
        self.show_files()

    def start(self, out: Path) -> None:
        """Segment the micrographs of the list, with the results in a folder."""
        self._link.flush()
        session = self._session
        training, trained = session.series.request(), session.series.classifier
        classifier = session.named_classifier(trained)
        if out.exists() and not out.is_dir():
            raise ValueError(f"out: {out} is a file; choose a folder")
        out.mkdir(parents=True, exist_ok=True)
        options, page = session.options_in_use, pages.report_in(out)
        refinement, resamples = session.refinement.settings, self.resamples.isChecked()
        run = Run(refinement, self._exclusion(), resamples=resamples)
        settings = run.described(options)

        def prepare(context: TaskContext, source: FeatureSource) -> PixelClassifier:
            assert training is not None
            made = training(context, source)
            for name in ("class_names", "class_colors", "pixel_size"):
                setattr(made, name, getattr(classifier, name))
            return made

        def hear(part: Applied | PixelClassifier) -> None:
            if isinstance(part, Applied):
                self._on_applied(part)
            elif training is not None:
                session.series.accept(training, part)

        request = ApplyRequest(
            jobs_for(self._files, out),
            table_in(out),
            copy.copy(classifier),
            options.device,
            options.weights,
            run,
            prepare if training is not None else None,
            lambda done, used: pages.write_report(page, done, used, settings),
        )
        self._page = page
        self.show_files()
        if training is not None:
            session.say(training.text)
        self._submit(request, self._on_finished, hear)

    def _exclusion(self) -> SharedExclusion | None:
        current = self._session.current
        mask = None if current is None else current.exclusion
        if mask is None or not self.excludes.isChecked():
            return None
        return SharedExclusion.of(mask)

    def start_stack(self) -> None:
        """Segment all planes of the stack that is shown."""
        link, session = self._link, self._session
        classifier, options = session.named_classifier(), session.options_in_use
        if link.image is None or not link.index:
            raise ValueError("image: it is no stack; choose a stack under Features")
        indices = np.ndindex(*planes.sizes(link.image))
        keys = [link.layers.add_entry(link.image, index) for index in indices]
        entries = [session.images[key] for key in keys]
        parts, shown = classifier.part_options, session.current
        made = None if shown is None else shown.options
        request = PipelineInput(
            tuple(replace(one.snapshot(), features=None) for one in entries),
            session.refinement.settings,
            classifier=copy.copy(classifier),
            fingerprint=session.classifier_fingerprint,
            options=FeatureOptions.of(parts, options.device, options.weights),
            resamples=bool(made and made.pixel_ratio),
        )
        self._submit(request, self._on_stack_finished, self._on_plane)

    def _on_resamples(self, resamples: bool) -> None:
        self._session.configure(resamples=resamples)

    def _submit(self, request: Any, hear: Any, hear_part: Any) -> None:
        self._time_left, self._done, self._stale = TimeLeft(), 0, 0
        self._side.submit(KIND, request, hear, hear_part=hear_part)

    def show_files(self) -> None:
        """List the micrographs, none of them segmented yet."""
        self.table.setRowCount(len(self._files))
        for number, path in enumerate(self._files):
            self._set(number, 0, path.name, str(path))
            for column in (1, 2):
                self._set(number, column, "", "")
        self._next = None
        self.table.setVisible(bool(self._files))
        ui.set_hint(self.note, "")
        self.show_state()

    def show_state(self) -> None:
        """Offer what can be done now."""
        running, ready = self.run.is_running, self._session.classifier is not None
        self.run.setEnabled(running or (ready and bool(self._files)))
        self.resamples.setChecked(self._session.options.resamples)
        current = self._session.current
        self.excludes.setVisible(current is not None and current.exclusion is not None)
        self.stack.show_stack(is_busy=running)
        self.label_next.setVisible(self._next is not None and not running)
        has_page = self._page is not None and self._page.is_file()
        self.report.setVisible(has_page and not running)
        for button in (self.add_files, self.add_folder, self.clear):
            button.setEnabled(not running)

    def _set(self, number: int, column: int, text: str, tool_tip: str) -> None:
        item = QTableWidgetItem(text)
        item.setToolTip(tool_tip)
        self.table.setItem(number, column, item)

    def _on_progressed(self, stage: str, done: int, total: int) -> None:
        if self._side.kind == KIND:
            left = self._time_left.text(stage.partition(" ")[0], done, total)
            show_whole(self.note, ", ".join(filter(None, (stage, left))))

    def _on_applied(self, result: Applied) -> None:
        number = self._files.index(result.job.file)
        if result.error:
            self._set(number, 1, "failed", result.error)
        elif result.left_out:
            self._set(number, 1, "left out", result.left_out)
        else:
            tip = "\n".join((str(result.outputs[0]), *result.notes))
            names, found = self._names(), result.fractions.items()
            text = ", ".join(f"{names.get(i, i)} {part:.1%}" for i, part in found)
            self._set(number, 1, text, tip)
            self._set(number, 2, pages.doubt_text(result), _DOUBT_TIP)
            self._done += 1
        self.table.scrollToItem(self.table.item(number, 0))

    def _on_finished(self, results: list[Applied]) -> None:
        failed = [result.error for result in results if result.error]
        done = sum(result.is_done for result in results)
        text = f"{done} of {len(results)} segmented; results and their table are in "
        text += f"{results[0].job.target.parent}."
        if there := sum(result.was_there for result in results):
            text += f" {there} were there from a former run."
        if done > 1:
            text += f" {pages.mean_text(results, self._names())}."
        following = most_doubtful(results)
        if following is not None:
            self._next = following.job.file
            text += f" The most doubtful is {following.job.file.name}."
        self.show_state()
        notes = [note for result in results for note in result.notes]
        self._tell(" ".join((text, *notes[:3])), failed)

    def _on_plane(self, done: ProcessedImage) -> None:
        if done.result is None:
            return
        if self._session.accept(done):
            self._done += 1
            self._link.layers.write_result(done.key)
        else:
            self._stale += 1

    def _on_stack_finished(self, answer: PipelineResult) -> None:
        results = answer.images
        text = f"{self._done} of {len(results)} planes segmented."
        if self._stale:
            text += f" {self._stale} left as they were: scribbles or exclusion mask "
            text += "changed meanwhile."
        self._tell(text, [done.error for done in results if done.error])

    def _tell(self, text: str, failed: list[str]) -> None:
        # The note has the rest.
        status = text.partition(". ")[0].removesuffix(".") + "."
        if failed:
            why = " Failed: " + " ".join(f"{error}." for error in failed[:3])
            text, status = text + why, status + why
        show_whole(self.note, text)
        self._session.say(status)

    def _names(self) -> dict[int, str]:
        return {i: info.name for i, info in self._session.classes.items()}

    def _on_label_next(self) -> None:
        """Open the most doubtful micrograph, to paint on it as well."""
        request = partial(open_images, paths=(str(self._next),))
        self._side.submit(
            "label next", request, raise_problems, hear_part=self._on_opened
        )

    def _on_opened(self, opened: OpenedImage) -> None:
        self._next = None  # once is enough
        layers.add_opened(self._link.viewer, opened)
        self.show_state()

    def _on_report(self) -> None:
        """Open the report of the last run in the browser."""
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._page)))

    def _on_files(self) -> None:
        """Add micrographs to the list."""
        paths, _ = QFileDialog.getOpenFileNames(self, "Micrographs", "", ui.MICROGRAPHS)
        self._attempt(self.add, [Path(path) for path in paths])

    def _on_folder(self, path: str) -> None:
        """Add all micrographs of a folder to the list."""
        self._attempt(self.add, [Path(path)])

    def _on_run(self) -> None:
        """Choose a folder for the results, and segment every micrograph of the list.

        By a classifier that is trained for other images on all scribbles, see Features,
        and refined as the result on the screen. What a former run did is kept.
        """
        path = QFileDialog.getExistingDirectory(self, "Folder for the results")
        if path:
            self.start(Path(path))

    def _on_cancelled(self) -> None:
        ui.set_hint(self.note, f"Cancelled; {self._done} are done and kept.")


PANELS = (PanelSpec("apply", "Result", 40, ApplyPanel, "Apply to many"),)
