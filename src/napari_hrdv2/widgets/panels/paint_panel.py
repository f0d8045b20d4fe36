"""Painting: the classes, live or by hand, what is shown, and where to paint next."""

from __future__ import annotations

from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from app_model.types import KeyCode, KeyMod
from napari.utils.key_bindings import coerce_keybinding
from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import (
    QFileDialog,
    QListWidget,
    QListWidgetItem,
    QProgressBar,
    QSizePolicy,
    QSpinBox,
    QWidget,
)

from napari_hrdv2.widgets.label_taker import LabelTaker
from napari_hrdv2.widgets.viewer.guidance_overlays import GuidanceOverlay, PlaceWalk
from napari_hrdv2.widgets.viewer.result_views import VIEWS, ResultViews
from napari_hrdv2.widgets.viewer.shortcuts import Shortcut, Shortcuts

from . import PanelSpec
from . import controls as ui
from .class_table import ClassTable

if TYPE_CHECKING:
    from napari_hrdv2.session import Session
    from napari_hrdv2.widgets.blocks import BlockWork
    from napari_hrdv2.widgets.controller import Controller

TRAIN, TOGGLE, CYCLE, NEXT, POLYGON = "T", "R", "C", "N", "G"
_CLASS_KEYS = "123456789"
_UNDO = str(coerce_keybinding(KeyMod.CtrlCmd | KeyCode.KeyZ))
_PLACES, _MOST_PLACES = 16, 99
_DRAWING = ("paint", "polygon", "fill")  # the modes in which a class can be painted
# So that a long name does not make the dock wider.
_ANY_WIDTH = QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed
_LINES_SEEN = 6  # of the list of label issues


class PaintPanel(QWidget):
    """Hands classes to the brush, and says when, what and where."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller, self._link = controller, controller.link
        link, side = controller.link, controller.side
        self.views = ResultViews(link, side)
        self.guide = GuidanceOverlay(link, side)
        self.classes = ClassTable(link, self.views, controller.attempt)
        self.guidance = GuidancePanel(link.session, self.guide)
        self.shortcuts = Shortcuts(link, self._wanted_keys())
        self.places = PlacesPanel(controller, self.shortcuts)
        self.taker = LabelTaker(controller)
        self._make_controls()
        self._show_offer()
        self.classes.chosen.connect(self._on_class)
        controller.live_changed.connect(self.live.setChecked)
        link.images_changed.connect(self._on_images_changed)
        link.session.images_changed.connect(self._show_offer)
        self.views.changed.connect(self._show_view)
        self.views.changed.connect(controller.blocks.look_soon)
        controller.blocks.mapped.connect(self.views.show_parts)
        self.shortcuts.changed.connect(self.show_keys)
        self.show_keys()

    def show_keys(self) -> None:
        """List the keys, and write those that work on their buttons."""
        active = self.shortcuts.active
        texts = []
        for shortcut in self.shortcuts.shortcuts:
            if shortcut.key in _CLASS_KEYS[1:]:
                continue
            key = "1 … 9" if shortcut.key == _CLASS_KEYS[0] else shortcut.key
            text = f"<b>{key}</b>&nbsp; {escape(shortcut.does)}"
            texts.append(text if shortcut.key in active else f"<s>{text}</s>")
        self.keys.setText("<br>".join(texts))
        for button, text, key in (
            (self.train, "Train", TRAIN),
            (self.toggle, "Show/hide", TOGGLE),
            (self.guidance.next, "Next uncertain region", NEXT),
        ):
            button.setText(f"{text} ({key})" if key in active else text)

    def _wanted_keys(self) -> list[Shortcut]:
        choose, does = self.classes.choose_position, "choose the class of that row"
        return [
            *(
                Shortcut(key, does, partial(choose, position), replaces=True)
                for position, key in enumerate(_CLASS_KEYS)
            ),
            Shortcut(TOGGLE, "show the image or the result", self.views.toggle),
            Shortcut(CYCLE, "result, probability, uncertainty …", self.views.cycle),
            Shortcut(NEXT, "next uncertain region", self.guide.go_next),
            Shortcut(TRAIN, "train now", self._controller.train_anew),
            Shortcut(POLYGON, "polygon, which napari has on 3", self._take_polygon),
        ]

    def _make_controls(self) -> None:
        controller = self._controller
        tip = "The layer is of the size of the image, on which nothing is painted yet"
        self.offer = ui.push_button("", "use_labels_layer", self._on_offer, tip)
        self.offer.setSizePolicy(*_ANY_WIDTH)
        self.paint = ui.push_button("Paint", "paint", self._on_paint)
        self.train = ui.push_button("Train", "train", controller.train_anew)
        tip = "Train and segment after every scribble, undo and redo"
        self.live = ui.check_box("Live", "live", tip, checked=controller.live)
        self.live.toggled.connect(controller.set_live)
        self.view = ui.combo_box(
            "view",
            "What is shown over the image: the result, the probability of the "
            "selected class, where the classifier hesitates, or what is unlike all "
            "that was painted: black where it is not",
            [view.capitalize() for view in VIEWS],
        )
        self.view.activated.connect(self._on_view)
        self.toggle = ui.push_button("Show/hide", "toggle_result", self.views.toggle)
        self.keys = ui.hint(
            "keys",
            "They work while the scribble layer is selected. A key that napari, or "
            "you, use for something else is left alone and struck through here",
        )
        tip = "While it is off, 1 to 7 choose napari's own tools again"
        self.use_keys = ui.check_box("Use these keys", "use_keys", tip, checked=True)
        self.use_keys.toggled.connect(self.shortcuts.set_on)
        keys = ui.fill_column(QWidget(), self.keys, self.use_keys)
        ui.fill_column(
            self,
            self.places,
            self.classes,
            self.offer,
            ui.row(self.paint, self.train, self.live),
            ui.row(self.view, self.toggle),
            BlockPanel(controller.blocks),
            self.guidance,
            ui.Section("Keys", "keys_fold", keys),
        )

    def _on_class(self, class_id: int) -> None:
        self._link.select_label(class_id)
        scribbles = self._link.scribbles
        present = self._link.viewer.layers
        if scribbles is not None and scribbles in present:
            present.selection.active = scribbles
            if scribbles.mode not in _DRAWING:
                scribbles.mode = "paint"

    def _on_images_changed(self) -> None:
        if self._link.scribbles is not None:
            self.classes.show_selected(int(self._link.scribbles.selected_label))
        self._show_offer()

    def _show_offer(self) -> None:
        layer = self.taker.offered()
        self.offer.setVisible(layer is not None)
        if layer is not None:
            self.offer.setText(ui.plain(f"Use {layer.name} as scribbles"))

    def _on_offer(self) -> None:
        """Paint this labels layer over the scribbles."""
        layer = self.taker.offered()
        if layer is not None:
            self.taker.take(layer)

    def _on_paint(self) -> None:
        """Select the scribble layer and take the brush; makes the layer if needed."""
        self._link.prepare_scribbles()
        self._link.select_label(self.classes.selected)
        layer = self._link.scribbles
        if layer is not None and not layer.visible:
            layer.visible = True
            layer.mode = "paint"

    def _show_view(self) -> None:
        self.view.setCurrentIndex(VIEWS.index(self.views.shown))

    def _on_view(self, position: int) -> None:
        self.views.show(VIEWS[position])

    def _take_polygon(self) -> None:
        if self._link.scribbles is not None:
            self._link.scribbles.mode = "polygon"


class PlacesPanel(QWidget):
    """A button that proposes places, how many, and what to do at the one shown."""

    def __init__(self, controller: Controller, shortcuts: Shortcuts) -> None:
        super().__init__()
        link, side = controller.link, controller.side
        session = self._session = link.session
        self.walk, self._shortcuts = PlaceWalk(link, side), shortcuts
        self.propose = ui.JobButton(
            "", "propose_places", self._on_propose, side, PlaceWalk.job
        )
        self.count = QSpinBox(objectName="place_count", toolTip="How many places")
        self.count.setRange(2, _MOST_PLACES)
        self.count.setValue(_PLACES)
        self.note = ui.hint("place_note", "Which place is shown, and what the keys do")
        tip = "How many of the images have been searched"
        ui.fill_column(
            self,
            ui.row(self.propose, self.count, stretched=0),
            ui.JobProgress("place_progress", tip, side, PlaceWalk.job),
            self.note,
        )
        self._keys = self._wanted_keys()
        self.count.valueChanged.connect(self.show_places)
        self.walk.changed.connect(self.show_places)
        session.features_changed.connect(self.show_places)
        side.changed.connect(self.show_places)
        self.show_places()

    def show_places(self) -> None:
        """Show the place that waits for a name, and whether places can be proposed."""
        self.propose.rename(f"Propose {self.count.value()} places")
        has_features = self._session.features is not None
        self.propose.setEnabled(has_features or self.propose.is_running)
        ui.set_hint(self.note, self.walk.text())
        self._shortcuts.lend(self._keys if self.walk.shown is not None else ())

    def _wanted_keys(self) -> list[Shortcut]:
        walk, does = self.walk, "name what is in the ring"
        return [
            *(
                Shortcut(key, does, partial(walk.name, int(key)), replaces=True)
                for key in _CLASS_KEYS
            ),
            Shortcut("0", "skip this place", walk.skip, replaces=True),
            Shortcut(_UNDO, "take the last one back", walk.take_back, replaces=True),
            Shortcut("Escape", "end with the places", walk.end, replaces=True),
        ]

    def _on_propose(self) -> None:
        """Look for places whose names tell the most, and go from one to the next.

        A digit names what is in the ring. No scribble is needed yet.
        """
        ui.give_keys_back(self)
        self.walk.start(self.count.value())


class BlockPanel(QWidget):
    """Segments all blocks of a large image; seen only where there is one."""

    def __init__(self, work: BlockWork) -> None:
        super().__init__()
        self._work = work
        tip = "Into a file. What is done stays when it is cancelled; a scribble ends it"
        self.all = ui.push_button("", "segment_all", self._on_all, tip)
        self.progress = QProgressBar(objectName="blocks_progress")
        self.progress.setToolTip("How much of the blocks is segmented")
        self.note = ui.hint("blocks_note")
        ui.fill_column(self, self.all, self.progress, self.note)
        work.changed.connect(self.show_work)
        work.progress_changed.connect(self.show_progress)
        self.show_work()

    def show_work(self) -> None:
        """Offer to segment all, or to cancel that."""
        is_busy = any(jobs.request is not None for jobs in self._work.runners)
        self.setVisible(self._work.is_there or self._work.is_of_all)
        self.all.setText("Cancel" if self._work.is_of_all else "Segment all")
        self.all.setEnabled(self._work.is_of_all or self._work.has_more)
        for control in (self.progress, self.note):
            control.setVisible(is_busy)

    def show_progress(self, done: int, total: int, text: str) -> None:
        """Show how far the work is, and the time left."""
        self.progress.setRange(0, total)
        self.progress.setValue(done)
        self.note.setText(text)

    def _on_all(self) -> None:
        work, title = self._work, "Folder for the segmentation of all"
        if work.is_of_all:
            work.cancel()
            return
        target = work.target
        if target is None and (folder := QFileDialog.getExistingDirectory(self, title)):
            target = work.target_in(Path(folder))
        question = f"{target} is there already. Replace it, if it is another one?"
        if target and (not target.exists() or ui.agrees(self, question)):
            work.segment_all(target)


class GuidancePanel(QWidget):
    """A button to the next uncertain region, and the list of label issues."""

    def __init__(self, session: Session, guide: GuidanceOverlay) -> None:
        super().__init__()
        self._session, self._guide = session, guide
        self.next = ui.push_button("", "next_uncertain_region", guide.go_next)
        self.region_note = ui.hint("region_note", "Why this region is proposed")
        self.check = ui.push_button(
            "Check scribbles", "check_scribbles", guide.check_scribbles
        )
        self.clear = ui.push_button("Clear", "clear_label_issues", guide.clear)
        self.checked = ui.hint("checked")
        self.label_issues = self._make_list()
        self.relabel = ui.push_button("", "relabel_scribble", guide.relabel)
        self.erase = ui.push_button("Erase", "erase_scribble", guide.erase)
        self.relabel.setSizePolicy(*_ANY_WIDTH)
        checking = ui.fill_column(
            QWidget(),
            ui.row(self.check, self.clear, stretched=0),
            self.checked,
            self.label_issues,
            ui.row(self.relabel, self.erase, stretched=0),
        )
        fold = ui.Section("Check scribbles", "check_scribbles_fold", checking)
        ui.fill_column(self, self.next, self.region_note, fold)
        guide.changed.connect(self.show_guidance)
        session.classes_changed.connect(self.show_guidance)
        self.show_guidance()

    def show_guidance(self) -> None:
        """Show the uncertain region, the label issues, and what can be done."""
        guidance, region = self._session.guidance, self._guide.region
        text, regions = "", guidance.uncertain_regions
        if region is not None:
            number = regions.index(region) + 1
            text = f"{number} of {len(regions)}: {region.reason}"
        ui.set_hint(self.region_note, text)
        self._show_label_issues()
        count, text = len(guidance.label_issues), ""
        if guidance.has_checked:
            text = "No scribble contradicts the others."
            if count:
                text = f"{count} to look at; undo brings scribbles back."
        ui.set_hint(self.checked, text)
        self.clear.setVisible(guidance.has_checked)

    def _show_label_issues(self) -> None:
        label_issues, chosen = self._session.guidance.label_issues, self._guide.chosen
        with QSignalBlocker(self.label_issues):
            self.label_issues.clear()
            for label_issue in label_issues:
                item = QListWidgetItem(label_issue.reason)
                item.setToolTip(label_issue.reason)
                info = self._session.classes.get(label_issue.class_id)
                if info is not None:
                    item.setIcon(ui.swatch(info.color))
                self.label_issues.addItem(item)
                if label_issue is chosen:
                    self.label_issues.setCurrentItem(item)
        for widget in (self.label_issues, self.relabel, self.erase):
            widget.setVisible(bool(label_issues))
        self._show_buttons()

    def _show_buttons(self) -> None:
        chosen = self._guide.chosen
        into = self._session.classes.get(chosen.predicted_id) if chosen else None
        name = "…" if into is None else ui.plain(into.name)
        self.relabel.setText(f"Relabel as {name}")
        for button in (self.relabel, self.erase):
            button.setEnabled(chosen is not None)

    def _make_list(self) -> QListWidget:
        tip = "Select a scribble to go there"
        issues = QListWidget(objectName="label_issues", toolTip=tip, wordWrap=True)
        issues.setVerticalScrollMode(QListWidget.ScrollMode.ScrollPerPixel)
        issues.setMaximumHeight(_LINES_SEEN * issues.fontMetrics().lineSpacing())
        issues.currentRowChanged.connect(self._on_chosen)
        return issues

    def _on_chosen(self, position: int) -> None:
        label_issues = self._session.guidance.label_issues
        if 0 <= position < len(label_issues):
            self._guide.choose(label_issues[position])
            self._show_buttons()


PANELS = (PanelSpec("paint", "Paint", 0, PaintPanel),)
