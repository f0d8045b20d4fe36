import numpy as np
import pytest
import tifffile
from qtpy.QtWidgets import QAbstractButton, QCheckBox, QComboBox

from napari_hrdv2 import PixelClassifier
from napari_hrdv2.files import read_labels, write_labels
from napari_hrdv2.session import Session, compute
from napari_hrdv2.session.project.snapshot import project_of
from napari_hrdv2.session.project.store import load_project, save_project
from napari_hrdv2.widgets.panels.files_panel import FilesPanel


@pytest.fixture
def answers():
    """What the user says; what he was asked goes to `asked`."""
    return {"yes": True, "asked": []}


@pytest.fixture
def panel_of(qtbot, monkeypatch, answers):
    """Return a function that makes the panel of a bench."""

    def ask(panel, question):
        answers["asked"].append(question)
        return answers["yes"]

    monkeypatch.setattr(FilesPanel, "ask", ask)

    def make(bench):
        panel = FilesPanel(bench.controller)
        qtbot.addWidget(panel)
        bench.settle()
        return panel

    return make


@pytest.fixture
def panel(panel_of, bench):
    return panel_of(bench)


@pytest.fixture
def another(make_viewer, make_bench):
    """A window in which nothing is open."""
    return make_bench(make_viewer())


@pytest.fixture
def labels():
    labels = np.zeros((64, 80), np.uint8)
    labels[10:12, 5:20], labels[40:42, 60:70] = 1, 2
    return labels


@pytest.fixture
def project(bench, panel, tmp_path):
    """The path of a project that was saved in the window."""
    bench.segment()
    bench.session.classes.rename(2, "pore")
    panel.save_project(tmp_path / "alloy")
    bench.settle()
    bench.former = bench.session.segmentation.copy()
    return tmp_path / "alloy.hrdv2"


def test_saving_says_where(bench, project):
    assert bench.widget.status.text() == f"Project saved to {project}."
    (saved,) = load_project(project).images
    np.testing.assert_array_equal(saved.image, bench.session.image)
    np.testing.assert_array_equal(saved.scribbles, bench.scribbles.data)


def test_without_the_images_they_are_left_out(bench, panel, tmp_path):
    panel.with_images.setChecked(False)
    panel.save_project(tmp_path / "alloy")
    bench.settle()
    (saved,) = load_project(tmp_path / "alloy.hrdv2").images
    assert saved.image is None


def test_a_project_that_cannot_be_written_is_told(bench, panel, tmp_path):
    panel.save_project(tmp_path / "nowhere" / "alloy")
    bench.settle()
    assert "alloy.hrdv2" in bench.widget.status.text()


def test_a_project_opens_in_an_empty_window(bench, project, another, panel_of):
    panel_of(another).loader.open(project)
    another.wait(lambda: "Scribbles: Image" in another.names)
    another.settle()
    np.testing.assert_array_equal(another.scribbles.data, bench.scribbles.data)
    assert another.session.classes[2].name == "pore"
    assert another.session.current.pixel_size == (0.5, "nm")
    another.compute()
    another.wait(lambda: "Segmentation: Image" in another.names)
    another.settle()
    np.testing.assert_array_equal(another.session.segmentation, bench.former)


def test_a_project_whose_images_are_open_makes_no_new_layers(bench, panel, project):
    bench.paint((30,), range(10, 20), 2)
    bench.settle()
    names = bench.names
    former = load_project(project).images[0].scribbles
    panel.loader.open(project)
    bench.wait(lambda: np.array_equal(bench.scribbles.data, former))
    bench.settle()
    assert bench.names == names


def test_scribbles_are_replaced_only_if_the_user_agrees(bench, panel, project, answers):
    bench.paint((30,), range(10, 20), 2)
    bench.settle()
    painted = bench.scribbles.data.copy()
    answers["yes"] = False
    panel.loader.open(project)
    bench.wait(lambda: bool(answers["asked"]))
    bench.settle()
    assert "Image has scribbles already" in answers["asked"][0]
    np.testing.assert_array_equal(bench.scribbles.data, painted)


def test_scribbles_since_give_way_to_a_project_without_any_after_a_question(
    bench, panel, tmp_path, answers
):
    panel.save_project(tmp_path / "bare")
    bench.settle()
    bench.paint((30,), range(10, 20), 2)
    bench.settle()
    painted = bench.scribbles.data.copy()
    answers["yes"] = False
    panel.loader.open(tmp_path / "bare.hrdv2")
    bench.wait(lambda: len(answers["asked"]) == 1)
    bench.settle()
    assert "Image has scribbles already" in answers["asked"][0]
    np.testing.assert_array_equal(bench.scribbles.data, painted)
    answers["yes"] = True
    panel.loader.open(tmp_path / "bare.hrdv2")
    bench.wait(lambda: not bench.scribbles.data.any())
    bench.settle()
    assert bench.session.current.class_ids == ()
    bench.scribbles.undo()
    bench.settle()
    np.testing.assert_array_equal(bench.session.scribbles.labels, painted)


def test_what_was_left_out_since_counts_again_after_opening(bench, panel, project):
    bench.session.set_exclusion(np.eye(64, 80, dtype=bool))
    bench.settle()
    panel.loader.open(project)
    bench.wait(lambda: bench.session.current.exclusion is None)
    bench.settle()
    assert bench.session.current.exclusion is None


def test_a_plane_without_scribbles_opens_on_a_stack_that_shows_another(
    make_viewer, make_bench, panel_of, tmp_path, image
):
    stack = np.stack([image + number for number in range(9)])
    session, mask = Session(), np.eye(64, 80, dtype=bool)
    session.set_image(stack[0], "stack/0", plane={"Z": 0})
    session.set_exclusion(mask)
    project = project_of(session)
    save_project(project, tmp_path / "stack", with_images=False)
    bench = make_bench(make_viewer())
    bench.viewer.add_image(stack, name="again", axis_labels=("z", "y", "x"))
    bench.wait(lambda: "Scribbles: again" in bench.names)
    panel_of(bench).loader.open(tmp_path / "stack.hrdv2")
    bench.wait(lambda: bench.controller.link.index == (0,))
    bench.settle()
    np.testing.assert_array_equal(bench.session.current.exclusion, mask)


def test_opening_over_scribbles_can_be_undone(bench, panel, project):
    bench.paint((30,), range(10, 20), 2)
    bench.settle()
    painted = bench.scribbles.data.copy()
    panel.loader.open(project)
    bench.wait(lambda: not np.array_equal(bench.scribbles.data, painted))
    bench.settle()
    bench.scribbles.undo()
    bench.settle()
    np.testing.assert_array_equal(bench.session.scribbles.labels, painted)


def test_a_project_opens_beside_other_work(project, another, panel_of, image):
    another.viewer.add_image(image[::-1].copy(), name="other")
    another.wait(lambda: "Scribbles: other" in another.names)
    another.paint((30,), range(10, 20), 2)
    another.settle()
    panel_of(another).loader.open(project)
    another.wait(lambda: "Image" in another.names)
    another.settle()
    scribbles = {p.name: p.class_ids for p in another.session.images.values()}
    assert scribbles == {"other": (2,), "Image": (1, 3)}
    assert another.session.classes[2].name == "Class 2"
    assert another.session.classes[3].name == "pore"


def test_missing_images_are_told_and_located(
    project, another, panel_of, tmp_path, bench, image
):
    saved = load_project(project)
    source = str(tmp_path / "gone" / "alloy.tif")
    object.__setattr__(saved.images[0], "source", source)
    save_project(saved, project, with_images=False)
    panel = panel_of(another)
    panel.loader.open(project)
    another.settle()
    assert f"Not found: {source}; press Locate…" in another.widget.status.text()
    assert not panel.locate_button.isHidden()
    (tmp_path / "here").mkdir()
    tifffile.imwrite(tmp_path / "here" / "renamed.tif", image)
    panel.loader.locate(tmp_path / "here")
    another.wait(lambda: "Scribbles: Image" in another.names)
    another.settle()
    np.testing.assert_array_equal(another.scribbles.data, bench.scribbles.data)
    assert panel.locate_button.isHidden()


def test_planes_of_an_open_stack_get_their_scribbles(
    make_viewer, make_bench, panel_of, tmp_path, image
):
    stack = np.stack([image, image[::-1], image[:, ::-1]])
    first = make_bench(make_viewer())
    first.viewer.add_image(stack, name="stack", axis_labels=("z", "y", "x"))
    first.viewer.dims.set_point(0, 2)
    first.wait(lambda: first.session.current is not None)
    first.settle()
    first.scribbles.data[2, 10:12, 10:20] = 1
    first.scribbles.data[0, 30:32, 10:20] = 2
    first.scribbles.events.data()
    first.wait(
        lambda: len([p for p in first.session.images.values() if p.class_ids]) == 2
    )
    project = project_of(first.session)
    save_project(project, tmp_path / "stack", with_images=False)
    second = make_bench(make_viewer())
    second.viewer.add_image(stack, name="again", axis_labels=("z", "y", "x"))
    second.wait(lambda: "Scribbles: again" in second.names)
    panel_of(second).loader.open(tmp_path / "stack.hrdv2")
    second.wait(lambda: np.array_equal(second.scribbles.data, first.scribbles.data))
    second.settle()
    assert second.controller.link.index == (2,)


def test_something_else_than_a_project_is_refused(bench, panel, tmp_path):
    (tmp_path / "a.hrdv2").write_text("nothing")
    panel.loader.open(tmp_path / "a.hrdv2")
    bench.settle()
    assert bench.widget.status.text().startswith("project: ")


def test_imported_labels_are_painted_over_the_scribbles(bench, panel, tmp_path, labels):
    names = {1: "grain", 2: "Class 1"}
    write_labels(tmp_path / "a.tif", labels, class_names=names)
    bench.paint((30,), range(10, 20), 1)
    bench.settle()
    former = bench.scribbles.data.copy()
    panel.import_labels(tmp_path / "a.tif")
    bench.wait(lambda: not np.array_equal(bench.scribbles.data, former))
    bench.settle()
    data, classes = bench.scribbles.data, bench.session.classes
    assert classes[data[10, 5]].name == "grain"
    assert classes[data[40, 60]].name == "Class 1"
    assert (data[30, 10:20] == 1).all()
    assert "2 classes as in the file." in bench.widget.status.text()
    bench.scribbles.undo()
    bench.settle()
    np.testing.assert_array_equal(bench.session.scribbles.labels, former)


def test_grey_levels_become_classes(bench, panel, tmp_path, labels):
    labels[50, 5:9] = 3
    levels = np.array([0, 85, 170, 255], np.uint8)[labels]
    tifffile.imwrite(tmp_path / "a.tif", levels)
    panel.import_labels(tmp_path / "a.tif")
    bench.settle()
    np.testing.assert_array_equal(bench.session.scribbles.labels, labels)
    assert "grey levels 85, 170, 255" in bench.widget.status.text()


def test_labels_of_another_image_are_refused(bench, panel, tmp_path):
    write_labels(tmp_path / "a.tif", np.ones((3, 4), np.uint8))
    panel.import_labels(tmp_path / "a.tif")
    bench.settle()
    assert "is 4 × 3 and the image 80 × 64" in bench.widget.status.text()


def test_a_labels_layer_becomes_scribbles(bench, panel, labels):
    bench.viewer.add_labels(
        labels, name="mine", features={"index": [1, 2], "name": ["grain", "pore"]}
    )
    bench.settle()
    bench.wait(lambda: panel.layer_choice.findText("mine") >= 0)
    panel.layer_choice.setCurrentText("mine")
    panel.take.click()
    bench.settle()
    np.testing.assert_array_equal(bench.scribbles.data, labels)
    assert bench.session.classes[2].name == "pore"
    assert panel.layer_choice.findText("Scribbles: Image") < 0


def test_objects_that_are_numbered_are_no_classes(bench, panel):
    layer = bench.viewer.add_labels(np.arange(64 * 80).reshape(64, 80), name="grains")
    bench.settle()
    panel.take_layer(layer)
    assert "5119 of them from 1 to 5119" in bench.widget.status.text()
    assert not np.any(bench.scribbles.data)


def test_an_empty_layer_is_refused(bench, panel):
    layer = bench.viewer.add_labels(np.zeros((64, 80), int), name="empty")
    panel.take_layer(layer)
    assert "nothing is painted in them" in bench.widget.status.text()


def test_what_is_ticked_is_exported(bench, panel, tmp_path):
    bench.segment()
    for kind, box in panel.export_box.boxes.items():
        box.setChecked(kind in ("labels", "script"))
    panel.export_box.export(tmp_path / "out")
    bench.settle()
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert "Image_labels.tif" in found
    assert "segment.py" in found
    np.testing.assert_array_equal(
        read_labels(tmp_path / "out" / "Image_labels.tif"), bench.session.segmentation
    )
    assert "files written to" in panel.export_box.written.text()
    assert panel.export_box.button.text() == "Export…"


def test_files_are_replaced_only_if_the_user_agrees(bench, panel, tmp_path, answers):
    bench.segment()
    (tmp_path / "Image_labels.tif").write_text("mine")
    answers["yes"] = False
    panel.export_box.export(tmp_path)
    bench.settle()
    assert "Image_labels.tif already. Replace them?" in answers["asked"][0]
    assert (tmp_path / "Image_labels.tif").read_text() == "mine"


def test_with_nothing_to_export_the_status_says_why(bench, panel, tmp_path):
    panel.export_box.export(tmp_path / "out")
    assert "there is none to export yet" in bench.widget.status.text()
    assert not (tmp_path / "out").exists()


def test_the_classifier_can_be_saved_once_there_is_one(bench, panel):
    assert not panel.save_classifier.isEnabled()
    bench.segment()
    assert panel.save_classifier.isEnabled()


def test_a_saved_classifier_is_trained_for_a_series(bench, panel, tmp_path):
    bench.segment()
    path = tmp_path / "kept.safetensors"
    panel._save_classifier(str(path))
    bench.wait(path.is_file)
    kept = PixelClassifier.load(path)
    assert kept.normalisation.kind == "matched"
    assert kept.trained_on is not None
    assert np.array_equal(kept.weight, bench.session.classifier.weight)
    path.unlink()
    panel._save_classifier(str(path))
    assert path.is_file()  # there is nothing to train any more


def test_training_for_a_series_can_be_cancelled(bench, panel, tmp_path):
    bench.segment()
    path = tmp_path / "kept.safetensors"
    panel._save_classifier(str(path))
    assert panel.cancel.isVisibleTo(panel)
    panel.cancel.click()
    bench.wait(lambda: not bench.controller.side.is_busy)
    assert not panel.cancel.isVisibleTo(panel)
    assert not path.exists()
    assert bench.session.series.request() is not None


def test_every_control_has_a_name_and_a_tooltip_and_the_panel_is_narrow(panel):
    controls = [
        one
        for kind in (QAbstractButton, QComboBox, QCheckBox)
        for one in panel.findChildren(kind)
    ]
    assert len(controls) > 10
    assert all(one.objectName() and one.toolTip() for one in controls)
    assert panel.minimumSizeHint().width() <= 330


def test_an_image_that_goes_while_the_project_is_read_is_named(
    bench, panel, project, image
):
    bench.viewer.add_image(image[::-1].copy(), name="other")
    bench.settle()
    said = []
    bench.session.status_changed.connect(said.append)
    panel.loader.open(project)
    bench.viewer.layers.remove("Image")
    bench.settle()
    told = "Image was closed meanwhile and is not included."
    assert any(told in text for text in said)
    assert bench.session.classes[2].name == "pore"


def test_all_images_are_exported_also_those_that_were_never_shown(
    make_bench, make_viewer, image, tmp_path
):
    viewer = make_viewer()
    viewer.add_image(image[:, ::-1].copy(), name="other")
    viewer.add_image(image, name="shown")
    bench = make_bench(viewer)
    bench.session.configure(backbone="filters")
    bench.compute()
    bench.segment()
    box = bench.widget.files.export_box
    box.all_images.setChecked(True)
    box.export(tmp_path)
    bench.settle()
    assert (tmp_path / "shown_labels.tif").is_file()
    assert (tmp_path / "other_labels.tif").is_file()


def test_what_was_painted_is_read_in_the_worker(bench, panel, tmp_path):
    bench.segment()
    path, session = tmp_path / "kept.safetensors", bench.session
    request = session.series.request()
    session.series.accept(request, compute(request))  # as for Apply to many
    panel._save_classifier(str(path))
    assert panel.cancel.isVisibleTo(panel)
    bench.wait(path.is_file)
    assert PixelClassifier.load(path).painted is not None
