"""Which image, and the options that features are made with; compute and cancel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import QComboBox, QProgressBar, QWidget

from napari_hrdv2.core.backbones import backbone_names
from napari_hrdv2.core.devices import device_names
from napari_hrdv2.core.features.options import (
    DEBIAS_CHOICES,
    NORMALISATION_CHOICES,
    STRIDE_WORDS,
    TRANSFORM_CHOICES,
    parse_stride,
)
from napari_hrdv2.core.features.upsampling import INTERPOLATIONS
from napari_hrdv2.widgets import backbone_texts
from napari_hrdv2.widgets.viewer import planes

from . import PanelSpec
from . import controls as ui
from .adapt_panel import AdaptPanel

if TYPE_CHECKING:
    from napari_hrdv2.session import FeatureOptions
    from napari_hrdv2.widgets.controller import Controller


@dataclass(frozen=True)
class _Choice:
    """A field of the feature options, and how it is chosen."""

    tip: str
    choices: tuple[str, ...] = ()
    typed: bool = False
    of_patches: bool = False  # no difference to a backbone that sees every pixel


_CHOICES = {
    "variant": _Choice(
        "The backbone itself, a variant after a colon, or facets after @: keys (k), "
        "queries (q), values (v), attention (a) or tokens (t) of blocks, as in "
        "dino-small-8@k9,k11. Any name may be typed, several joined by +, or the id of "
        "a Hub repository, as in facebook/vit-mae-base",
        typed=True,
    ),
    "transforms": _Choice(
        "Copies of the image that are averaged: factors joined by *, such as shift:1,2 "
        "or lattice:4 or shift:1*flip. auto is lattice:2 for Vision Transformers, 4 "
        "passes; published is shift:1,2, as auto was before, 17 passes",
        TRANSFORM_CHOICES,
        typed=True,
        of_patches=True,
    ),
    "stride": _Choice(
        "Distance of the tokens: half a patch is finer and slower. Pixels may be "
        "typed, down to 1; what that takes is said below",
        (*STRIDE_WORDS, "4", "2", "1"),
        typed=True,
        of_patches=True,
    ),
    "interpolation": _Choice(
        "How tokens become pixels. +1 and +2 sharpen; interleaved makes lattices of "
        "shifts one finer grid; bilateral follows the edges of the image, which helps "
        "where classes differ in grey level and harms where they do not. auto is "
        "bilateral for a Vision Transformer alone, where it is far better on most "
        "micrographs, and else bilinear",
        ("auto", *INTERPOLATIONS),
        of_patches=True,
    ),
    "debias": _Choice(
        "Networks put a gradient over even surfaces, because they know where a token "
        "is. mean takes off what noise images have in common, project also the "
        "directions along which that varies most; leave none where position matters, "
        "as in layers",
        DEBIAS_CHOICES,
        of_patches=True,
    ),
    "normalisation": _Choice(
        "Whose grey levels count in other images of a series, when the classifier is "
        "applied to many or saved: each image's own (image), those of the labelled "
        "ones (shared), or found by what the classes have there (matched); auto tries "
        "all where two or more images are labelled. Painting is not affected",
        NORMALISATION_CHOICES,
    ),
    "channels": _Choice(
        "Channels of an image that are taken together, each through the backbone by "
        "itself: their names with commas between, as in BSE,Fe; empty for one by one",
        typed=True,
    ),
    "device": _Choice(
        "Where to compute; auto takes the fastest", ("auto", *device_names())
    ),
}
_BACKBONE_TIP = (
    "The backbone: what turns the image into features; a size is what there is to "
    "download. embedded is for fine structure; for large, textured or coloured objects "
    "join DINOv2 to it: dinov2-small+embedded, under Variant. DINOv2 alone is better "
    "and cheaper by a middle block: dinov2-small@t6"
)
_BILATERAL_HINT = (
    "bilateral is sharper where classes differ in grey level and worse where they do "
    "not. If in doubt, bilinear+2."
)
_NO_PATCHES_TIP = (
    "Filters see every pixel already: transforms, stride, interpolation and debias "
    "would change nothing"
)
_WEIGHTS = "Weights (*.safetensors *.bin *.ckpt *.pth *.pt);;All files (*)"
_TIP_ROLE = Qt.ItemDataRole.ToolTipRole


class FeaturePanel(QWidget):
    """Shows the feature options of the session, and starts and cancels computing."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self._session, self._link = controller.session, controller.link
        session, link = self._session, self._link
        self._make_controls()
        self._lay_out()
        link.images_changed.connect(self.show_images)
        controller.computing_changed.connect(self.show_computing)
        controller.progress_changed.connect(self.show_progress)
        session.options_changed.connect(self.show_options)
        session.features_changed.connect(self.show_options)
        self.show_images()
        self.show_computing(False)

    def _make_controls(self) -> None:
        tip = "The image layer to segment; of a stack, the plane shown"
        self.image = ui.combo_box("image", tip)
        self.image.activated.connect(self._on_image)
        self.backbone = ui.combo_box("backbone", _BACKBONE_TIP)
        for title, names in backbone_texts.groups(backbone_names()).items():
            self.backbone.addItem(title)
            self.backbone.model().item(self.backbone.count() - 1).setEnabled(False)
            for name in names:
                self._add_backbone(name)
        self.backbone.activated.connect(self._on_backbone)
        self.choices = {name: self._choice(name, _CHOICES[name]) for name in _CHOICES}
        self.variant, self.transforms, self.stride = list(self.choices.values())[:3]
        self.interpolation, self.debias = list(self.choices.values())[3:5]
        self.transforms.editTextChanged.connect(self._on_transforms)
        self.weights = ui.PathButton(
            "Weights file…", "weights", self._on_weights, _WEIGHTS
        )
        self.backbone_note = ui.hint("backbone_note")
        self.transforms_note = ui.hint("transforms_note")
        self.interpolation_note = ui.hint("interpolation_note")
        self.adapt = AdaptPanel(self._controller)
        self.cost = ui.hint("cost")
        self.compute = ui.push_button("", "compute", self._on_compute)
        self.progress = QProgressBar(objectName="progress")
        self.progress.setToolTip("How much of the features is computed")
        self.progress_note = ui.hint("progress_note")

    def _choice(self, name: str, choice: _Choice) -> QComboBox:
        combo = ui.combo_box(name, choice.tip, choice.choices, typed=choice.typed)
        if name != "transforms":  # which are taken while they are typed
            combo.textActivated.connect(partial(self._on_choice, name))
            if choice.typed:
                combo.lineEdit().editingFinished.connect(partial(self._on_choice, name))
        return combo

    def _lay_out(self) -> None:
        rows = [
            (name.capitalize(), combo)
            for name, combo in self.choices.items()
            if name != "channels"
        ]
        rows.insert(2, ("", self.transforms_note))
        rows.insert(5, ("", self.interpolation_note))
        more = QWidget()
        adapt = ui.Section("Adapt to these images", "adapt_fold", self.adapt)
        rows += [("Weights", self.weights), ("", adapt), ("", self.cost)]
        ui.form(*rows, parent=more)
        ui.fill_column(
            self,
            ui.form(
                ("Image", self.image),
                ("", self.choices["channels"]),
                ("", self.backbone),  # its text needs the whole width
                ("", self.backbone_note),
            ),
            ui.Section("More choices", "more_features", more),
            *(self.compute, self.progress, self.progress_note),
        )

    def _add_backbone(self, name: str) -> None:
        self.backbone.addItem(backbone_texts.item_text(name), name)
        position = self.backbone.count() - 1
        self.backbone.setItemData(position, backbone_texts.detail(name), _TIP_ROLE)

    def show_images(self) -> None:
        """List the image layers, and select the one that is worked on."""
        images, shown = self._link.layers.images(), self._link.image
        ui.fill(self.image, [layer.name for layer in images])
        with QSignalBlocker(self.image):
            self.image.setCurrentIndex(images.index(shown) if shown in images else -1)
        names = [] if shown is None else planes.channels_of(shown)
        chosen = self._session.options.channels
        ui.fill(self.choices["channels"], ["", ",".join(names)], chosen)
        self.choices["channels"].setVisible(bool(names or chosen))
        self._show_cost()

    def show_options(self) -> None:
        """Show the feature options, and what they cost."""
        options = self._session.options
        self._show_backbone(options.backbone)
        ui.fill(self.variant, backbone_texts.forms(options.backbone), options.backbone)
        for name, combo in self.choices.items():
            _select_text(combo, _text(options, name))
        ui.set_hint(self.transforms_note, "")
        is_guided = options.upsampling.startswith("bilateral")
        ui.set_hint(self.interpolation_note, _BILATERAL_HINT if is_guided else "")
        detail = backbone_texts.detail(options.backbone, options.weights)
        self.backbone.setToolTip(f"{_BACKBONE_TIP}\n{detail}")
        is_bundled = backbone_texts.needs_no_download(options)
        as_it_came = is_bundled and options.weights is None
        ui.set_hint(self.backbone_note, "" if as_it_came else detail)
        self._show_what_counts()
        self._show_cost()

    def _show_backbone(self, chosen: str) -> None:
        image = self._session.image
        best = backbone_texts.recommended(None if image is None else image.shape)
        with QSignalBlocker(self.backbone):
            if self.backbone.findData(chosen) < 0:
                self._add_backbone(chosen)
            for position in range(self.backbone.count()):
                name = self.backbone.itemData(position)
                if name is not None:  # else it is the title of a group
                    text = backbone_texts.item_text(name, is_recommended=name == best)
                    self.backbone.setItemText(position, text)
            self.backbone.setCurrentIndex(self.backbone.findData(chosen))

    def show_computing(self, computing: bool) -> None:
        """Turn the button into Cancel, or back."""
        for control in (self.progress, self.progress_note):
            control.setVisible(computing)
        self.progress.setRange(0, 0)
        self.progress_note.setText("Starting")
        self.show_options()

    def show_progress(self, done: int, total: int, text: str) -> None:
        """Show how far the computation is, and the time left."""
        # Downloads count bytes: beyond what the bar's integers hold.
        self.progress.setRange(0, 1000 if total else 0)
        self.progress.setValue(round(1000 * done / total) if total else 0)
        self.progress_note.setText(text)

    def _show_what_counts(self) -> None:
        """Offer what makes a difference to the backbone, while nothing is computed."""
        options, computing = self._session.options, self._controller.is_computing
        has_patches = backbone_texts.has_patches(options.backbone)
        for name, combo in self.choices.items():
            counts = has_patches or not _CHOICES[name].of_patches
            combo.setEnabled(counts and not computing)
            combo.setToolTip(_CHOICES[name].tip if counts else _NO_PATCHES_TIP)
        for control in (self.image, self.backbone):
            control.setEnabled(not computing)
        takes_weights = backbone_texts.takes_weights(options.backbone)
        self.weights.setEnabled(takes_weights and not computing)
        current = self._session.current
        again = bool(
            current is not None
            and current.features is not None
            and not self._session.live.outdated(current)
        )
        text, tool_tip = backbone_texts.compute_button(options, again=again)
        if computing:
            text = "Cancel"
            tool_tip = "Stop computing; features that were there before are kept"
        self.compute.setText(text)
        self.compute.setToolTip(tool_tip)

    def _show_cost(self) -> None:
        text = details = ""
        possible = self._session.image is not None
        if possible:
            try:
                cost = self._session.cost()
                text = cost.brief() if cost.fits else cost.refusal()
                text += backbone_texts.levels(self._session.options)
                text += self._regions()
                details = f"What computing the features takes: {cost.text()}"
            except ValueError as error:
                text, possible = str(error), False
        ui.set_hint(self.cost, text)
        self.cost.setToolTip(details)
        possible = possible and not self.transforms_note.text()
        self.compute.setEnabled(self._controller.is_computing or possible)

    def _regions(self) -> str:
        made = self._session.options_in_use
        if made is None or made.backbone != self._session.options.backbone:
            return ""
        count = self._session.inspection.region_count()
        return f". {count}" if count else ""

    def _on_image(self, position: int) -> None:
        images = self._link.layers.images()
        if 0 <= position < len(images):
            self._link.select_image(images[position])
        self.show_images()

    def _on_backbone(self, position: int) -> None:
        self._configure(backbone=self.backbone.itemData(position), weights=None)

    def _on_choice(self, name: str, text: str = "") -> None:
        text = (text or self.choices[name].currentText()).strip()
        if text == _text(self._session.options, name):
            return
        if name == "variant":
            self._configure(backbone=text, weights=None)
        else:
            self._configure(**({} if name == "stride" else {name: text}))

    def _on_transforms(self, text: str) -> None:
        ui.set_hint(self.transforms_note, "")
        try:
            self._session.configure(transforms=text)
        except ValueError as error:
            # While one types it is no error yet, so it is only noted here.
            ui.set_hint(self.transforms_note, str(error))
        self._show_cost()

    def _on_weights(self, path: str) -> None:
        """Use a file for the weights; choose the backbone again to go back."""
        self._configure(weights=path)

    def _configure(self, **changes: str | None) -> None:
        """Change options; what the stride says in words depends on the backbone."""
        backbone = changes.get("backbone") or self._session.options.backbone
        try:
            stride = parse_stride(self.stride.currentText().strip(), backbone)
            self._session.configure(**changes, stride=stride)
        except ValueError as error:
            self._controller.report(error)
            self.show_options()

    def _on_compute(self) -> None:
        if self._controller.is_computing:
            self._controller.cancel()
        else:
            self._controller.compute_features()


def _text(options: FeatureOptions, name: str) -> str:
    if name == "stride":
        return backbone_texts.stride(options)
    return str(getattr(options, "backbone" if name == "variant" else name))


def _select_text(combo: QComboBox, text: str) -> None:
    """Show a text, adding it to the list if it must be there; emits nothing."""
    if combo.currentText() != text:
        with QSignalBlocker(combo):
            if not combo.isEditable() and combo.findText(text) < 0:
                combo.addItem(text)
            combo.setCurrentText(text)


PANELS = (PanelSpec("features", "Features", 0, FeaturePanel),)
