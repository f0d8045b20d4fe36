"""What the feature panel shows."""

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from napari_hrdv2.widgets.panels.files_panel import FilesPanel
from small_networks import adapted_embedded


def test_the_name_and_state_of_every_backbone_can_be_read(
    make_napari_viewer, make_bench, image
):
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1024, 700)
    viewer.add_image(image)
    bench = make_bench(viewer)
    combo = bench.widget.features.backbone
    bench.wait(combo.isVisible)
    bench.qtbot.wait(50)
    arrow = 40
    texts = [combo.itemText(row) for row in range(combo.count())]
    widths = [combo.fontMetrics().horizontalAdvance(text) for text in texts]
    assert max(widths) + arrow < combo.width()


def test_filters_switch_off_what_changes_nothing(bench):
    panel = bench.widget.features
    bench.session.configure(backbone="filters")
    assert not panel.transforms.isEnabled()
    assert "see every pixel" in panel.stride.toolTip()
    bench.session.configure(backbone="dinov2-small")
    assert panel.transforms.isEnabled()
    assert panel.stride.isEnabled()
    assert "half a patch" in panel.stride.toolTip()


def test_the_interpolation_is_chosen_in_the_panel(bench):
    panel = bench.widget.features
    bench.session.configure(backbone="embedded")
    assert panel.interpolation.currentText() == "auto"
    assert "bilateral follows the edges" in panel.interpolation.toolTip()
    row = panel.interpolation.findText("bilateral+2")
    panel.interpolation.setCurrentIndex(row)
    panel.interpolation.textActivated.emit("bilateral+2")
    assert bench.session.options.interpolation == "bilateral+2"


def test_what_to_take_out_of_tokens_is_chosen_in_the_panel(bench):
    panel = bench.widget.features
    assert panel.debias.currentText() == "none"
    assert "gradient over even surfaces" in panel.debias.toolTip()
    panel.debias.textActivated.emit("project")
    assert bench.session.options.debias == "project"
    assert panel.debias.currentText() == "project"


def test_the_choice_that_follows_edges_says_when_it_loses(bench):
    panel = bench.widget.features
    bench.session.configure(interpolation="bilinear+2")
    assert panel.interpolation_note.text() == ""
    bench.session.configure(interpolation="bilateral+2")
    assert "worse where they do not" in panel.interpolation_note.text()
    bench.session.configure(backbone="dinov2-small+embedded", interpolation="auto")
    assert panel.interpolation_note.text() == ""
    bench.session.configure(backbone="dinov2-small@t6")
    assert "worse where they do not" in panel.interpolation_note.text()
    assert panel.variant.findText("dinov2-small@t6") >= 0


def type_into(combo, text):
    combo.setEditText(text)
    combo.lineEdit().editingFinished.emit()


def test_strides_down_to_one_pixel_are_chosen_or_typed_with_their_cost(bench):
    panel = bench.widget.features
    bench.session.configure(backbone="dino-small-16", transforms="identity")
    before = panel.cost.text()
    panel.stride.setCurrentText("1")
    panel.stride.textActivated.emit("1")
    assert bench.session.options.stride == 1
    assert "1 pass" in panel.cost.text() != before
    type_into(panel.stride, "3")
    assert bench.session.options.stride == 3
    type_into(panel.stride, "17")
    assert bench.session.options.stride == int(panel.stride.currentText()) == 3
    assert "1 to 16 pixels" in bench.widget.status.text()


def test_variants_and_facets_are_picked_and_any_name_can_be_typed(bench):
    panel = bench.widget.features
    bench.session.configure(backbone="neco-small")
    items = [panel.variant.itemText(row) for row in range(panel.variant.count())]
    assert items[0] == "neco-small"
    assert {"neco-small:dinov2r-xr-teacher", "neco-small@k11"} < set(items)
    panel.variant.setCurrentText("neco-small:dinov2r")
    panel.variant.textActivated.emit("neco-small:dinov2r")
    assert bench.session.options.backbone == "neco-small:dinov2r"
    assert panel.backbone.currentText() == "neco-small:dinov2r (110 MB)"
    for name in ("dino-small-8@k9,k11", "spit-small:grid+filters", "lab/model"):
        type_into(panel.variant, name)
        assert bench.session.options.backbone == panel.variant.currentText() == name
    assert panel.backbone.currentText() == "lab/model (from the Hub)"
    assert panel.compute.text() == "Download its files and compute"
    type_into(panel.variant, "dino-small-8@k12")
    assert panel.variant.currentText() == "lab/model"
    assert "its blocks are 0 to 11" in bench.widget.status.text()


def test_the_list_tells_size_licence_source_and_state(bench):
    combo = bench.widget.features.backbone
    rows = {combo.itemData(row): row for row in range(combo.count())}
    tip = combo.itemData(rows["dinov3-base"], Qt.ItemDataRole.ToolTipRole)
    assert "DINOv3 License (gated)" in tip
    assert "343 MB to download from facebook/dinov3-vitb16" in tip
    assert "read and accept them at" in tip
    assert combo.itemText(rows["dinov3-base"]) == "dinov3-base (343 MB, gated)"
    tip = combo.itemData(rows["spit-base"], Qt.ItemDataRole.ToolTipRole)
    assert "fetch SPiT-B16 (w. grad.) by the link at https" in tip


def test_grey_levels_of_a_loaded_classifier_are_shown(bench, tmp_path):
    bench.session.configure(backbone="filters")  # which knows absolute levels
    bench.segment()
    bench.controller.attempt(bench.session.save_classifier, tmp_path / "a.safetensors")
    bench.controller.load_classifier(tmp_path / "a.safetensors")
    assert "Grey levels 0 to 255" in bench.widget.features.cost.text()
    bench.settle()
    bench.paint((30,), (20,), 2)
    bench.wait(lambda: "Grey levels" not in bench.widget.features.cost.text())


def test_a_backbone_from_a_file_says_so(bench):
    panel = bench.widget.features
    bench.session.configure(backbone="spit-small")
    assert "spit-small (from a file)" in panel.backbone.currentText()
    assert "chosen under More choices" in panel.backbone_note.text()
    assert "link at https://github.com/dsb-ifi/SPiT" in panel.backbone_note.text()
    assert panel.weights.isEnabled()
    assert panel.compute.text() == "Compute features"


@pytest.fixture
def choose(monkeypatch):
    """Return a function that chooses a file by the button for weights."""

    def chosen(bench, path):
        picked = (str(path), "")
        monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: picked)
        bench.widget.features.weights.click()

    return chosen


@pytest.fixture
def adapted(bench, choose, tmp_path):
    """A segmentation on a file of the embedded backbone that was given by hand."""
    bench.session.configure(backbone="embedded")
    panel = bench.widget.features
    assert panel.backbone_note.text() == ""
    choose(bench, adapted_embedded(tmp_path / "adapted.safetensors"))
    assert "adapted.safetensors" in panel.backbone_note.text()
    bench.segment()
    bench.former = bench.session.segmentation.copy()
    return bench


@pytest.fixture
def another(make_viewer, make_bench):
    """A window in which nothing is open."""
    return make_bench(make_viewer())


def test_weights_given_by_hand_come_back_with_a_project(
    adapted, another, qtbot, tmp_path
):
    panel, opened = (FilesPanel(one.controller) for one in (adapted, another))
    qtbot.addWidget(panel)
    qtbot.addWidget(opened)
    panel.save_project(tmp_path / "alloy")
    adapted.settle()
    opened.loader.open(tmp_path / "alloy.hrdv2")
    another.wait(lambda: "Scribbles: Image" in another.names)
    another.settle()
    assert another.session.options.weights == adapted.session.options.weights
    another.compute()
    another.wait(lambda: "Segmentation: Image" in another.names)
    another.settle()
    np.testing.assert_array_equal(another.session.segmentation, adapted.former)


def test_a_classifier_of_weights_given_by_hand_leads_to_their_file(
    adapted, make_viewer, make_bench, choose, image, tmp_path
):
    adapted.session.save_classifier(tmp_path / "alloy.safetensors")
    viewer = make_viewer()
    viewer.add_image(image, name="Image")
    another = make_bench(viewer)
    another.session.configure(backbone="embedded")
    another.compute()
    another.controller.load_classifier(tmp_path / "alloy.safetensors")
    another.settle()
    assert "Weights file… is under More choices" in another.widget.status.text()
    choose(another, tmp_path / "adapted.safetensors")
    another.widget.features.compute.click()
    another.wait(lambda: "Segmentation: Image" in another.names)
    another.settle()
    np.testing.assert_array_equal(another.session.segmentation, adapted.former)


def test_filters_take_no_weights(bench):
    bench.session.configure(backbone="filters")
    assert not bench.widget.features.weights.isEnabled()
