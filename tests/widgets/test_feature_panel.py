"""What the feature panel shows."""

import pytest

from napari_hrdv2.cli import _demo_gui


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
    assert panel.interpolation.currentText() == "bilinear"
    assert "bilateral follows the edges" in panel.interpolation.toolTip()
    row = panel.interpolation.findText("bilateral+2")
    panel.interpolation.setCurrentIndex(row)
    panel.interpolation.textActivated.emit("bilateral+2")
    assert bench.session.settings.interpolation == "bilateral+2"


def test_what_to_take_out_of_tokens_is_chosen_in_the_panel(bench):
    panel = bench.widget.features
    assert panel.debias.currentText() == "none"
    assert "gradient over even surfaces" in panel.debias.toolTip()
    panel.debias.textActivated.emit("project")
    assert bench.session.settings.debias == "project"
    assert panel.debias.currentText() == "project"


def test_grey_levels_of_a_loaded_classifier_are_shown(bench, tmp_path):
    bench.session.configure(backbone="filters")  # which knows absolute levels
    bench.segment()
    bench.controller.save_classifier(tmp_path / "a.safetensors")
    bench.controller.load_classifier(tmp_path / "a.safetensors")
    assert "Grey levels 0 to 255" in bench.widget.features.cost.text()
    bench.settle()
    bench.paint((30,), (20,), 2)
    bench.wait(lambda: "Grey levels" not in bench.widget.features.cost.text())


def test_the_demo_without_a_display_is_refused_in_one_sentence(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(OSError, match="there is no display"):
        _demo_gui.launch("grains")


def test_a_backbone_from_a_file_says_so(bench):
    panel = bench.widget.features
    bench.session.configure(backbone="spit-small")
    assert "spit-small (from a file)" in panel.backbone.currentText()
    assert "chosen under More choices" in panel.backbone_note.text()
    assert panel.weights.isEnabled()
    assert panel.compute.text() == "Compute features"
