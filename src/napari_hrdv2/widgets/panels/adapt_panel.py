"""*Adapt to these images*: the backbone, trained on in what is open."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QWidget

from napari_hrdv2.session.batch.adapting import AdaptRequest
from napari_hrdv2.session.planes import is_large

from . import controls as ui

if TYPE_CHECKING:
    from napari_hrdv2.session.batch.adapting import Adapted
    from napari_hrdv2.widgets.controller import Controller

KIND = "adapt"
_ABOUT = (
    "Experimental: nothing was gained where it was measured. "
    '<a style="color: #4c8bf5" href="https://github.com/napari-hrdv2/napari-hrdv2/blob/'
    'main/docs/adapting.md">What it does</a>'
)
_LINES = 3  # that are seen of what is told


class AdaptPanel(QWidget):
    """Trains the backbone on, says whether that helped, and offers the weights."""

    _request: AdaptRequest  # the last one
    _told: list[str]  # of it

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller, self._side = controller, controller.side
        self._session = session = controller.session
        about, self.note = ui.hint("adapt_about", text=_ABOUT), ui.hint("adapt_note")
        about.setOpenExternalLinks(True)
        tip = "How long to train; a step takes about a second"
        self.steps = ui.count_box("adapt_steps", tip, 1, 100_000, 100)
        tip = "Of the views that are drawn; the same seed gives the same weights"
        self.seed = ui.count_box("adapt_seed", tip, 0, 100_000, 0)
        tip = "Write nothing if the scribbles say that the weights are no better"
        self.better = ui.check_box("Only if better", "adapt_better", tip, checked=True)
        self.run = ui.PathButton(
            "Adapt to these images…",
            "adapt",
            self.start,
            "Weights (*.safetensors)",
            "mine.safetensors",
        )
        self.stop = ui.push_button("Stop", "adapt_stop", self._on_stop)
        self.use = ui.push_button("Use the weights", "adapt_use", self._on_use)
        self.use.hide()
        tip = "How many steps are done"
        ui.fill_column(
            self,
            about,
            ui.form(("Steps", self.steps), ("Seed", self.seed), ("", self.better)),
            ui.row(self.run, self.stop),
            ui.JobProgress("adapt_progress", tip, self._side, KIND),
            self.note,
            self.use,
        )
        self._side.changed.connect(self.show_state)
        session.features_changed.connect(self.show_state)
        controller.link.images_changed.connect(self.show_state)
        ui.set_hint(self.note, "")
        self.show_state()

    def show_state(self) -> None:
        """Offer what can be done now."""
        is_running = self._side.has(KIND)
        reason = self._session.images.why_not_together()
        ui.enable(self.run, "it is being adapted" if is_running else reason)
        self.stop.setVisible(is_running)

    def start(self, path: str) -> None:
        """Train the backbone on in all open images, and write its weights to a file.

        A run that was given up goes on where file, steps and seed are the same.
        """
        self._controller.link.flush()
        images = self._session.images.values()
        read = [one for one in images if not (one.is_in_blocks or is_large(one.image))]
        self._request = AdaptRequest(
            [one.image for one in read],
            [None if one.counted is None else one.counted.labels for one in read],
            self._session.options_in_use,
            Path(path),
            self.steps.value(),
            self.seed.value(),
            self.better.isChecked(),
        )
        self._told = []
        self.use.hide()
        self._side.submit(
            KIND, self._request, self._on_adapted, hear_part=self._on_told
        )

    def _on_told(self, text: str) -> None:
        self._told = [*self._told, f"{text[:1].upper()}{text[1:]}."][-_LINES:]
        ui.set_hint(self.note, "\n".join(self._told))

    def _on_adapted(self, adapted: Adapted) -> None:
        told = "The weights are written"
        if not adapted.is_kept:
            told = "No weights are written; without Only if better they would be"
        self._on_told(told)
        self.use.setVisible(adapted.is_kept)
        self._session.say(self._told[-1])

    def _on_stop(self) -> None:
        """End the training here; its best step counts as if it were the result."""
        self._request.stop.set()

    def _on_use(self) -> None:
        """Take the file as the backbone's weights; compute features anew with it."""
        backbone, out = self._request.features.backbone, self._request.out
        self._session.configure(backbone=backbone, weights=str(out))
