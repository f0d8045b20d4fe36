"""*Adapt to these images*, from the button to the features of the new weights."""

import numpy as np
import pytest
from qtpy.QtWidgets import QLabel

from napari_hrdv2.core.backbones.registry import SPECS
from napari_hrdv2.core.backbones.vit.specs import ViTSpec
from small_networks import VIT


@pytest.fixture
def panel(bench, monkeypatch):
    monkeypatch.setitem(SPECS, "tiny", ViTSpec(name="tiny", config=VIT))
    monkeypatch.setattr("napari_hrdv2.core.adaptation.views.POINTS", 4)
    monkeypatch.setattr("napari_hrdv2.core.adaptation.training.REFERENCES", 16)
    monkeypatch.setattr("napari_hrdv2.core.adaptation.training.CHECKED_PAIRS", 2)
    bench.session.configure(backbone="tiny", weights="random", transforms="identity")
    panel = bench.widget.features.adapt
    panel.steps.setValue(2)
    return panel


def finished(bench, panel):
    bench.wait(lambda: not panel.stop.isVisibleTo(panel))
    bench.settle()


def test_it_opens_with_the_features(bench, panel):
    assert not panel.run.isEnabled()
    assert panel.run.toolTip() == "Compute features first."
    bench.compute()
    bench.settle()
    assert panel.run.isEnabled()
    about = panel.findChild(QLabel, "adapt_about").text()
    assert "Experimental" in about
    assert "docs/adapting.md" in about


def test_the_weights_are_written_and_used(bench, panel, tmp_path):
    bench.compute()
    before = bench.session.features.materialize()
    out = tmp_path / "mine.safetensors"
    panel.start(str(out))
    finished(bench, panel)
    assert "not shown to be better" in panel.note.text()  # nothing is painted
    assert "The weights are written" in panel.note.text()
    panel.use.click()
    assert bench.session.options.weights == str(out)
    assert "mine.safetensors" in bench.widget.features.backbone_note.text()
    bench.widget.features.compute.click()
    bench.settle()
    after = bench.session.features.materialize()
    assert after.shape == before.shape
    assert not np.array_equal(after, before)


def test_scores_are_told_and_what_is_no_better_is_not_written(
    bench, panel, monkeypatch, tmp_path
):
    better = "napari_hrdv2.core.adaptation.choice.ScribbleScores.is_better_than"
    monkeypatch.setattr(better, lambda self, other: False)
    bench.segment()  # two scribbles of each class
    out = tmp_path / "mine.safetensors"
    panel.start(str(out))
    finished(bench, panel)
    assert "Mean IoU on scribbles, after: " in panel.note.text()
    assert "No weights are written" in bench.widget.status.text()
    assert not out.exists()
    assert not panel.use.isVisibleTo(panel)
    panel.better.setChecked(False)
    panel.start(str(out))
    finished(bench, panel)
    assert out.exists()


def test_stop_keeps_the_best_so_far(bench, panel, tmp_path):
    bench.compute()
    panel.steps.setValue(5000)
    panel.start(str(tmp_path / "a.safetensors"))
    bench.wait(lambda: "Step 10 of 5000, loss " in panel.note.text())
    assert panel.stop.isVisibleTo(panel)
    assert not panel.run.isEnabled()
    panel.stop.click()
    finished(bench, panel)
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["a.safetensors"]


def test_a_backbone_that_cannot_be_adapted_is_told(bench, panel, tmp_path):
    bench.session.configure(backbone="filters", weights=None, transforms="auto")
    bench.compute()
    panel.start(str(tmp_path / "mine.safetensors"))
    finished(bench, panel)
    assert "filters cannot be adapted; choose embedded or" in bench.widget.status.text()
    assert panel.note.text() == ""
