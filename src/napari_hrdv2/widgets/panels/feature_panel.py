"""Which image, which backbone, which transforms: the choices before the features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_hrdv2.core.features.options import (
    DEBIAS_CHOICES,
    STRIDE_WORDS,
    TRANSFORM_CHOICES,
    parse_stride,
)
from napari_hrdv2.core.features.upsampling import INTERPOLATIONS
from napari_hrdv2.widgets.panels import backbone_texts
from napari_hrdv2.widgets.panels.parts import (
    Fold,
    combo_box,
    note,
    select_text,
    set_note,
)

if TYPE_CHECKING:
    from napari_hrdv2.widgets.controller import Controller

_IMAGE_TIP = "The image layer to segment; of a stack, the plane shown"
_BACKBONE_TIP = (
    "The backbone: what turns the image into features; a size is what there is to "
    "download"
)
_VARIANT_TIP = (
    "The backbone itself, a variant after a colon, or facets after @: keys (k), "
    "queries (q), values (v), attention (a) or tokens (t) of blocks, as in "
    "dino-small-8@k9,k11. Any name may be typed, several joined by +, or the id of a "
    "Hub repository, as in facebook/vit-mae-base"
)
_TRANSFORMS_TIP = (
    "Copies of the image that are averaged: factors joined by *, such as shift:1,2 or "
    "lattice:4 or shift:1*flip"
)
_STRIDE_TIP = (
    "Distance of the tokens: half a patch is finer and slower. Pixels may be typed, "
    "down to 1; what that takes is said below"
)
_FINE_STRIDES = ("4", "2", "1")  # pixels
_BILATERAL_NOTE = (
    "bilateral is sharper where classes differ in grey level and worse where they do "
    "not. If in doubt, bilinear+2."
)
_INTERPOLATION_TIP = (
    "How tokens become pixels. +1 and +2 sharpen; interleaved makes lattices of shifts "
    "one finer grid; bilateral follows the edges of the image, which helps where "
    "classes differ in grey level and harms where they do not"
)
_DEBIAS_TIP = (
    "Networks put a gradient over even surfaces, because they know where a token is. "
    "mean takes off what noise images have in common, project also the directions "
    "along which that varies most; leave none where position matters, as in layers"
)
_CANCEL_TIP = "Stop computing; features that were there before are kept"
_NO_PATCHES_TIP = (
    "Filters see every pixel already: transforms, stride, interpolation and debias "
    "would change nothing"
)


class FeaturePanel(QWidget):
    """Shows the options of the session, and starts and cancels the computation."""

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._controller, self._session = controller, controller.session
        self._make_controls()
        self._lay_out()
        self._connect()
        self.show_images()
        self.show_options()
        self.show_computing(False)

    def _make_controls(self) -> None:
        self.image = combo_box("image", _IMAGE_TIP)
        self.backbone = combo_box("backbone", _BACKBONE_TIP)
        for name in backbone_texts.offered():
            self._add_backbone(name)
        self.backbone_note = note("backbone_note")
        self.weights = QPushButton("Weights file…", objectName="weights")
        self.weights.setToolTip(
            "Use a file of this machine for the weights of this backbone instead of "
            "the download; choose the backbone again to go back"
        )
        self.variant = _typed_combo("variant", _VARIANT_TIP)
        self.transforms = _typed_combo("transforms", _TRANSFORMS_TIP)
        self.transforms.addItems(TRANSFORM_CHOICES)
        self.transforms_note = note("transforms_note")
        self.stride = _typed_combo("stride", _STRIDE_TIP)
        self.stride.addItems((*STRIDE_WORDS, *_FINE_STRIDES))
        self.interpolation = combo_box("interpolation", _INTERPOLATION_TIP)
        self.interpolation.addItems(INTERPOLATIONS)
        self.interpolation_note = note("interpolation_note")
        self.debias = combo_box("debias", _DEBIAS_TIP)
        self.debias.addItems(DEBIAS_CHOICES)
        self.device = combo_box("device", "Where to compute; auto takes the fastest")
        self.device.addItems(backbone_texts.devices())
        self.cost = note("cost")
        self.compute = QPushButton("Compute features", objectName="compute")
        self.progress = QProgressBar(objectName="progress")
        self.progress.setToolTip("How much of the features is computed")
        self.progress_note = note("progress_note")

    def _lay_out(self) -> None:
        first = _form()
        first.addRow("Image", self.image)
        first.addRow(self.backbone)  # its text needs the whole width
        first.addRow(self.backbone_note)
        inside = QWidget()
        more = _form(inside)
        more.addRow("Variant", self.variant)
        more.addRow("Transforms", self.transforms)
        more.addRow(self.transforms_note)
        more.addRow("Stride", self.stride)
        more.addRow("Interpolation", self.interpolation)
        more.addRow(self.interpolation_note)
        more.addRow("Debias", self.debias)
        more.addRow("Device", self.device)
        more.addRow("Weights", self.weights)
        self.more = Fold("More choices", "more_features", inside)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(first)
        for control in (
            self.more,
            self.cost,
            self.compute,
            self.progress,
            self.progress_note,
        ):
            layout.addWidget(control)

    def _connect(self) -> None:
        self.image.activated.connect(self._on_image)
        self.backbone.activated.connect(self._on_backbone)
        self.transforms.editTextChanged.connect(self._on_transforms)
        for typed, chosen in (
            (self.variant, self._on_variant),
            (self.stride, self._on_stride),
        ):
            typed.textActivated.connect(chosen)
            typed.lineEdit().editingFinished.connect(chosen)
        self.interpolation.textActivated.connect(self._on_interpolation)
        self.debias.textActivated.connect(self._on_debias)
        self.device.textActivated.connect(self._on_device)
        self.weights.clicked.connect(self._on_weights)
        self.compute.clicked.connect(self._on_compute)
        self._controller.link.images_changed.connect(self.show_images)
        self._controller.computing_changed.connect(self.show_computing)
        self._controller.progress_changed.connect(self.show_progress)
        self._session.options_changed.connect(self.show_options)
        self._session.features_changed.connect(self.show_options)

    def _add_backbone(self, name: str) -> None:
        """List a backbone, with its size, licence and source as its tooltip."""
        self.backbone.addItem(backbone_texts.item_text(name), name)
        tip = backbone_texts.item_tip(name)
        role = Qt.ItemDataRole.ToolTipRole
        self.backbone.setItemData(self.backbone.count() - 1, tip, role)

    # What the session says.

    def show_images(self) -> None:
        """List the image layers, and select the one that is worked on."""
        link = self._controller.link
        images = link.layers.images()
        with QSignalBlocker(self.image):
            self.image.clear()
            self.image.addItems([layer.name for layer in images])
            self.image.setCurrentIndex(
                images.index(link.image) if link.image in images else -1
            )
        self._show_cost()

    def show_options(self) -> None:
        """Show the options, and what they cost."""
        options = self._session.options
        with QSignalBlocker(self.backbone), QSignalBlocker(self.transforms):
            for row in range(self.backbone.count()):
                name = self.backbone.itemData(row)
                self.backbone.setItemText(row, backbone_texts.item_text(name))
            row = self.backbone.findData(options.backbone)
            if row < 0:
                row = self.backbone.count()
                self._add_backbone(options.backbone)
            self.backbone.setCurrentIndex(row)
            if self.transforms.currentText() != options.transforms:
                self.transforms.setEditText(options.transforms)
            set_note(self.transforms_note, "")
        with QSignalBlocker(self.variant):
            self.variant.clear()
            self.variant.addItems(backbone_texts.forms(options.backbone))
        select_text(self.variant, options.backbone)
        select_text(self.stride, backbone_texts.stride(options))
        select_text(self.interpolation, options.interpolation)
        is_guided = options.interpolation.startswith("bilateral")
        set_note(self.interpolation_note, _BILATERAL_NOTE if is_guided else "")
        select_text(self.debias, options.debias)
        select_text(self.device, options.device)
        detail = backbone_texts.detail(options)
        self.backbone.setToolTip(f"{_BACKBONE_TIP}\n{detail}")
        in_package = backbone_texts.needs_no_download(options)
        set_note(self.backbone_note, "" if in_package else detail)
        self.weights.setEnabled(backbone_texts.takes_weights(options.backbone))
        self._show_what_counts()
        self._show_button()
        self._show_cost()

    def show_computing(self, computing: bool) -> None:
        """Turn the button into Cancel, or back."""
        self._show_button()
        for control in (self.image, self.backbone, self.variant, self.device):
            control.setEnabled(not computing)
        self.progress.setVisible(computing)
        self.progress_note.setVisible(computing)
        self.progress.setRange(0, 0)
        self.progress_note.setText("Starting")
        if not computing:
            self.show_options()
        else:
            self.weights.setEnabled(False)
            self._show_what_counts()

    def _show_button(self) -> None:
        """Say what a click does; a download is named with its size and licence."""
        if self._controller.is_computing:
            text, tool_tip = "Cancel", _CANCEL_TIP
        else:
            text, tool_tip = backbone_texts.compute_button(self._session.options)
        self.compute.setText(text)
        self.compute.setToolTip(tool_tip)

    def show_progress(self, done: int, total: int, text: str) -> None:
        """Show how far the computation is, and the time left."""
        # Downloads count bytes: beyond what the bar's integers hold.
        self.progress.setRange(0, 1000 if total else 0)
        self.progress.setValue(round(1000 * done / total) if total else 0)
        self.progress_note.setText(text)

    def _show_what_counts(self) -> None:
        """Offer what is about patches only where there are any."""
        counts = backbone_texts.has_patches(self._session.options.backbone)
        computing = self._controller.is_computing
        for control, tool_tip in (
            (self.transforms, _TRANSFORMS_TIP),
            (self.stride, _STRIDE_TIP),
            (self.interpolation, _INTERPOLATION_TIP),
            (self.debias, _DEBIAS_TIP),
        ):
            control.setEnabled(counts and not computing)
            control.setToolTip(tool_tip if counts else _NO_PATCHES_TIP)

    def _show_cost(self) -> None:
        possible = self._session.image is not None
        text = details = ""
        if possible:
            try:
                cost = self._session.cost()
                text = cost.brief() if cost.fits else cost.refusal()
                text += backbone_texts.levels(self._session.options)
                text += self._regions()
                details = f"What computing the features takes: {cost.text()}"
            except ValueError as error:
                text = str(error)
                possible = False
        set_note(self.cost, text)
        self.cost.setToolTip(details)
        computing = self._controller.is_computing
        possible = possible and not self.transforms_note.text()
        self.compute.setEnabled(computing or possible)

    def _regions(self) -> str:
        """Return how many regions the image has, once it is divided, as a sentence."""
        made = self._session.options_in_use
        if made is None or made.backbone != self._session.options.backbone:
            return ""
        count = self._session.inspection.region_count()
        return f". {count}" if count else ""

    # What the user does.

    def _on_image(self, row: int) -> None:
        images = self._controller.link.layers.images()
        if 0 <= row < len(images):
            self._controller.link.select_image(images[row])
        self.show_images()

    def _on_backbone(self, row: int) -> None:
        self._configure(backbone=self.backbone.itemData(row), weights=None)

    def _on_variant(self, text: str | None = None) -> None:
        name = self.variant.currentText().strip()
        if name != self._session.options.backbone:
            self._configure(backbone=name, weights=None)

    def _on_stride(self, text: str | None = None) -> None:
        self._configure()

    def _on_interpolation(self, text: str) -> None:
        self._configure(interpolation=text)

    def _on_debias(self, text: str) -> None:
        self._configure(debias=text)

    def _on_device(self, text: str) -> None:
        self._configure(device=text)

    def _configure(self, **changes: str | None) -> None:
        backbone = changes.get("backbone") or self._session.options.backbone
        stride = self.stride.currentText().strip()
        try:
            pixels = parse_stride(stride, backbone)
            self._session.configure(**changes, stride=pixels)
        except ValueError as error:
            self._controller.report(error)
            self.show_options()

    def _on_transforms(self, text: str) -> None:
        set_note(self.transforms_note, "")
        try:
            self._session.configure(transforms=text)
        except ValueError as error:
            # While one types it is no error yet, so it is only noted here.
            set_note(self.transforms_note, str(error))
        self._show_cost()

    def _on_weights(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self,
            "Weights of the backbone",
            "",
            "Weights (*.safetensors *.bin *.ckpt *.pth *.pt);;All files (*)",
        )
        if path:
            self._configure(weights=path)

    def _on_compute(self) -> None:
        if self._controller.is_computing:
            self._controller.cancel()
        else:
            self._controller.compute_features()


def _typed_combo(name: str, tool_tip: str) -> QComboBox:
    """Return a combo box into which something else can be typed."""
    combo = combo_box(name, tool_tip)
    combo.setEditable(True)
    combo.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
    combo.setCompleter(None)  # which would finish names otherwise than meant
    return combo


def _form(parent: QWidget | None = None) -> QFormLayout:
    form = QFormLayout(parent)
    form.setContentsMargins(0, 0, 0, 0)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    return form
