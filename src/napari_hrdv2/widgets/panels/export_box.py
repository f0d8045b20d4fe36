"""Which results are written, and where."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QCheckBox, QFileDialog, QGridLayout, QVBoxLayout, QWidget

from napari_hrdv2.session.export import FORMATS, ExportFormat, plan_export
from napari_hrdv2.widgets.panels.parts import note, push_button, row, set_note

if TYPE_CHECKING:
    from napari_hrdv2.session.export import Exported
    from napari_hrdv2.widgets.controller import Controller

_KIND = "export"


class ExportBox(QWidget):
    """Check boxes for what is written, and the button that writes it.

    Parameters
    ----------
    controller : Controller
    ask : callable
        Called with a question before files are replaced; returns the answer.
    """

    def __init__(self, controller: Controller, ask: Callable[[str], bool]) -> None:
        super().__init__()
        self._controller, self._session = controller, controller.session
        self._ask = ask
        self.boxes = {one.name: _box(one) for one in FORMATS}
        self.all_images = QCheckBox("All images", objectName="export_all_images")
        self.all_images.setToolTip(
            "All of them, segmented by the classifier as it is now"
        )
        self.button = push_button(
            "Export…",
            "export",
            "Write what is ticked into a folder",
            self._on_clicked,
        )
        self.written = note("exported")
        set_note(self.written, "")
        grid = QGridLayout()
        for place, box in enumerate(self.boxes.values()):
            grid.addWidget(box, *divmod(place, 2))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(grid)
        layout.addLayout(row(self.all_images, self.button))
        layout.addWidget(self.written)
        controller.side.changed.connect(self._show_work)
        controller.side.progressed.connect(self._on_progressed)

    @property
    def what(self) -> list[str]:
        """What is ticked."""
        return [kind for kind, box in self.boxes.items() if box.isChecked()]

    def export(self, folder: str | os.PathLike[str]) -> None:
        """Write what is ticked into a folder, in the worker thread."""
        self._controller.link.flush()
        self._controller.attempt(self._submit, folder)

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
        set_note(self.written, "")
        self._controller.side.submit(_KIND, request, self._on_exported)

    def _on_exported(self, exported: Exported) -> None:
        set_note(self.written, exported.text)
        self._session.say(exported.text)

    def _on_progressed(self, stage: str, done: int, total: int) -> None:
        if self._controller.side.kind == _KIND:
            set_note(self.written, f"{stage}: {done + 1} of {total}")

    def _show_work(self) -> None:
        works = self._controller.side.kind == _KIND
        if not works and self.written.text().startswith("Exporting:"):
            set_note(self.written, "")  # it was cancelled, or failed
        self.button.setText("Cancel" if works else "Export…")

    def _on_clicked(self) -> None:
        if self._controller.side.kind == _KIND:
            self._controller.side.cancel(_KIND)
            return
        folder = QFileDialog.getExistingDirectory(self, "Export into a folder")
        if folder:
            self.export(folder)


def _box(one: ExportFormat) -> QCheckBox:
    box = QCheckBox(one.title, objectName=f"export_{one.name}")
    box.setToolTip(one.hint)
    box.setChecked(one.is_default)
    return box
