import csv
from dataclasses import replace

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_hrdv2.core.measure import particle_table, phase_fractions_with_error
from napari_hrdv2.core.postprocess.instances import instances
from napari_hrdv2.session import Result, Stage
from napari_hrdv2.session.planes import PlaneKey
from napari_hrdv2.session.snapshots import label_fractions
from napari_hrdv2.widgets.panels.measure_panel import fraction_text
from napari_hrdv2.widgets.panels.particle_views import Histogram, nice_ticks


@pytest.fixture
def image() -> np.ndarray:
    """Four bright squares of different sizes on dark ground; one is cut off."""
    rows, columns = np.mgrid[:64, :80]
    image = (60 + (rows * 7 + columns) % 5).astype(np.uint8)
    for top, left, size in ((5, 5, 12), (5, 40, 8), (40, 10, 16), (54, 60, 10)):
        image[top : top + size, left : left + size] = 180
    return image


@pytest.fixture
def measured(bench):
    bench.session.configure(transforms="identity")
    bench.compute()
    bench.paint((30, 34), (10, 50), 1)
    bench.paint((8, 12, 45, 50), (8, 12), 2)
    bench.wait(lambda: "Segmentation: Image" in bench.names)
    bench.panel = bench.widget.measure
    bench.panel.show()
    bench.panel.window().show()
    bench.settle()
    show_squares(bench)
    return bench


def show_squares(bench):
    """Let the result be exactly the squares: four objects of class 2."""
    current = bench.session.current
    labels = np.where(current.image > 100, 2, 1).astype(np.uint8)
    fractions = label_fractions(labels)
    current.result = replace(current.result, labels=labels, fractions=fractions)
    bench.session.segmentation_changed.emit()
    bench.settle()


def split(bench, class_id=2):
    part = bench.panel.particles
    part.class_id.setCurrentIndex(part.class_id.findData(class_id))
    part.split.click()
    bench.settle()
    return part


def table_text(part, row, column):
    return part.table.model().index(row, column).data(Qt.ItemDataRole.DisplayRole)


def test_fractions_with_their_errors_follow_the_result(measured):
    rows = measured.panel.fractions.rows
    expected = phase_fractions_with_error(measured.session.segmentation, [1, 2])
    texts = [rows.topLevelItem(i).text(1) for i in range(2)]
    assert texts == [fraction_text(phase) for phase in expected.phases]
    assert expected.method in rows.topLevelItem(0).toolTip(1)
    assert rows.isColumnHidden(2)
    measured.paint((20, 24), (60, 70), 2)
    measured.settle()
    now = phase_fractions_with_error(measured.session.segmentation, [1, 2])
    assert now != expected
    assert rows.topLevelItem(0).text(1) == fraction_text(now.phases[0])


def test_nothing_is_measured_while_nobody_looks(bench):
    bench.segment()
    assert bench.session.measurement.measured is None


def test_fractions_of_all_images_stand_beside(measured, tmp_path):
    part, session = measured.panel.fractions, measured.session
    assert part.every.isHidden()
    result = session.current.result
    other = session.images.add(np.zeros((64, 80)), "b", name="other")
    other.result = result
    part.show_fractions()
    assert not part.every.isHidden()
    part.every.click()
    measured.settle()
    assert not part.rows.isColumnHidden(2)
    assert part.rows.headerItem().text(2) == "All 2"
    assert part.rows.topLevelItem(1).text(2).endswith("± 0.00 %")
    assert part.save_to(tmp_path / "a.csv")
    with open(tmp_path / "a.csv", encoding="utf-8") as file:
        names = [line["image"] for line in csv.DictReader(file)]
    assert names == ["Image", "Image", "other", "other", "all images", "all images"]


def test_splitting_makes_a_protected_layer_placed_like_the_image(measured):
    split(measured)
    layer, image = (
        measured.viewer.layers["Instances of Class 2: Image"],
        measured.viewer.layers["Image"],
    )
    assert layer.data.max() == 4
    np.testing.assert_array_equal(layer.scale, image.scale)
    np.testing.assert_array_equal(layer.translate, image.translate)
    assert not layer.editable
    assert measured.viewer.layers.selection.active == measured.scribbles


def test_the_table_has_physical_units_and_sorts_by_number(measured):
    part = split(measured)
    labels = measured.session.measurement.objects.labels
    expected = particle_table(labels, pixel_size=(0.5, "nm"))
    model = part.table.model()
    assert model.headerData(1, Qt.Orientation.Horizontal) == "Area\nnm²"
    part.table.sortByColumn(1, Qt.SortOrder.DescendingOrder)
    areas = np.sort(expected.columns["area"])[::-1]
    assert [table_text(part, i, 1) for i in range(4)] == [f"{a:.3g}" for a in areas]


def test_choosing_a_row_goes_to_the_particle(measured):
    part = split(measured)
    part.table.sortByColumn(1, Qt.SortOrder.DescendingOrder)
    part.table.selectRow(0)
    layer = part.splitting.layer
    assert layer.selected_label == measured.session.measurement.objects.labels[48, 18]
    image, viewer = measured.viewer.layers["Image"], measured.viewer
    camera = getattr(viewer, "scene", viewer).camera
    np.testing.assert_allclose(
        camera.center[-2:], image.data_to_world((47.5, 17.5)), atol=1
    )
    part.alone.click()
    assert layer.show_selected_label


def test_a_particle_that_is_picked_in_the_layer_selects_its_row(measured):
    part = split(measured)
    part.table.sortByColumn(1, Qt.SortOrder.DescendingOrder)
    part.table.chosen.connect(pytest.fail)  # the view stays where it is
    part.splitting.layer.selected_label = 3
    assert table_text(part, part.table.currentIndex().row(), 0) == "3"
    measured.viewer.layers.remove(part.splitting.layer)
    assert part._layer is None


def test_particles_that_are_cut_off_can_be_left_away(measured, tmp_path):
    part = split(measured)
    part.inside.click()
    assert part.table.model().rowCount() == 3
    assert "without 1 at the border" in part.note.text()
    assert sum(part.histogram.counts) == 3
    assert part.save_to(tmp_path / "p.csv")
    with open(tmp_path / "p.csv", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 3
    assert "equivalent diameter (nm)" in lines[0]


def test_a_file_that_cannot_be_written_is_told(measured, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr("napari_hrdv2.widgets.jobs.show_error", told.append)
    assert not split(measured).save_to(tmp_path / "missing" / "p.csv")
    assert len(told) == 1


def test_objects_follow_the_result_until_their_layer_is_removed(measured):
    part = split(measured)
    measured.session.refinement.change(min_object=100)
    measured.settle()
    assert part.splitting.layer.data.max() == 3
    measured.viewer.layers.remove(part.splitting.layer)
    assert measured.session.measurement.objects is None
    assert part.table.model().rowCount() == 0
    measured.session.refinement.undo()
    measured.settle()
    assert "Instances of Class 2: Image" not in measured.names


def test_a_watershed_cuts_at_once_by_another_distance(measured):
    part = split(measured)
    part.method.setCurrentIndex(1)
    part.method.activated.emit(1)
    assert not part.distance.isHidden()
    part.distance.setValue(3)
    measured.settle()
    shown = measured.session.segmentation
    expected = instances(shown, 2, method="watershed", min_distance=3)
    np.testing.assert_array_equal(part.splitting.layer.data, expected)


def test_splitting_without_a_result_says_what_to_do(bench):
    bench.widget.measure.particles.split.click()
    assert "There is no result to measure yet" in bench.widget.status.text()
    assert "Instances of Class 1: Image" not in bench.names


def test_a_class_that_is_nowhere_has_an_empty_table(measured):
    measured.session.classes.ensure((7,), names={7: "pore"})
    part = split(measured, 7)
    assert part.note.text() == "0 objects of pore"
    assert part.table.model().rowCount() == 0
    assert not any(part.histogram.counts)


@pytest.mark.parametrize(
    ("low", "high", "count"), [(0, 1, 5), (3, 3.07, 4), (-20, 9000, 6), (0, 1e-6, 3)]
)
def test_ticks_are_round_and_few(low, high, count):
    ticks = nice_ticks(low, high, count)
    assert 1 <= len(ticks) <= count + 1
    assert low <= ticks[0] < ticks[-1] * (1 + 1e-9) + 1e-12
    assert ticks[-1] <= high * (1 + 1e-9)
    assert all(len(f"{tick:g}") <= 6 for tick in ticks)
    assert nice_ticks(2, 2, 5) == []


def test_the_histogram_draws_its_bars_in_the_colour_of_the_class(qtbot):
    histogram = Histogram("h")
    qtbot.addWidget(histogram)
    histogram.resize(200, 120)
    histogram.show_counts([1, 0, 4], [0, 1, 2, 3], title="area (µm²)", color="#ff0000")
    entry = histogram.grab().toImage()
    area = histogram._area()
    heights = []
    for bar in range(3):
        x = int(area.left() + (bar + 0.5) * area.width() / 3)
        assert histogram.bar_at(x) == bar
        column = [entry.pixelColor(x, y).name() for y in range(120)]
        heights.append(column.count("#ff0000"))
    assert heights[1] == 0
    assert abs(heights[2] - 4 * heights[0]) <= 4
    assert histogram.text_of(2) == "4 from 2 to 3"
    histogram.show_counts()
    assert histogram.bar_at(100) is None


@pytest.fixture
def stages(measured):
    """The stages of the current image that were computed since."""
    stages = []
    measured.session.live.stage_changed.connect(stages.append)
    return stages


def test_a_scribble_that_is_refined_is_measured_once(measured, stages):
    measured.session.refinement.change(min_object=5)
    measured.settle()
    stages.clear()
    measured.paint((20, 24), (60, 70), 2)
    measured.settle()
    assert stages == [
        Stage.CLASSIFIER,  # and segmentation, at once
        Stage.REFINEMENT,
        Stage.MEASUREMENT,
        None,
    ]
    assert measured.session.measurement.measured is not None


def test_what_is_not_refined_after_all_is_measured_as_it_is(measured, stages):
    measured.session.refinement.change(min_object=5)
    measured.settle()
    stages.clear()
    measured.session.segmentation_changed.connect(measured.controller.cancel_refinement)
    measured.paint((20, 24), (60, 70), 2)
    measured.settle()
    assert stages[:2] == [Stage.CLASSIFIER, Stage.REFINEMENT]
    assert stages[-2:] == [Stage.MEASUREMENT, None]
    assert measured.session.refinement.is_pending
    assert measured.session.measurement.measured is not None


@pytest.fixture
def both(measured):
    """A second image of the same classifier, and both of them are measured."""
    session, current = measured.session, measured.session.current
    other = session.images.add(current.image, "b", name="other")
    other.set_features(current.features, current.options)
    other.result = current.result
    measured.panel.fractions.show_fractions()
    measured.panel.fractions.every.click()
    measured.settle()
    assert len(session.measurement.measured.images) == 2
    return measured


@pytest.fixture
def requests(both, monkeypatch):
    """What the pipeline was asked for since."""
    requests, jobs = [], both.controller.live_jobs
    start = jobs.start
    monkeypatch.setattr(jobs, "start", lambda one: (requests.append(one), start(one)))
    return requests


def test_all_images_are_measured_once_while_the_current_one_shows_nothing(
    both, requests
):
    current = both.session.current
    blank = np.zeros_like(current.result.labels)
    current.result, current.features = Result(blank, {}, b""), None
    both.session.segmentation_changed.emit()
    both.settle()  # features come back by themselves meanwhile
    asked = [[image.key for image in one.targets] for one in requests]
    assert asked.count([PlaneKey("b")]) == 1


def test_a_refinement_is_cancelled_while_all_images_are_measured(both, requests):
    session = both.session
    session.segmentation_changed.emit()
    session.refinement.change(min_object=100)
    assert session.live.stage is Stage.REFINEMENT
    both.controller.cancel_refinement()
    both.settle()
    assert session.current.result.refined is None
    assert session.refinement.is_pending
    assert session.measurement.measured is not None
    assert [len(one.targets) for one in requests] == [2, 1, 2]
    assert requests[-1].targets[0].is_final


def test_a_refinement_that_fails_is_told_once(both, requests, monkeypatch):
    told = []
    monkeypatch.setattr("napari_hrdv2.widgets.jobs.show_error", told.append)

    def fail(*_, **__):
        raise ValueError("no refinement")

    monkeypatch.setattr("napari_hrdv2.session.pipeline.refine_labels", fail)
    both.session.segmentation_changed.emit()
    both.session.refinement.change(min_object=100)
    both.settle()
    assert len(told) == 1
    assert both.session.measurement.measured is not None
    assert [len(one.targets) for one in requests] == [2, 1, 2]
    assert requests[-1].targets[0].is_final


def test_all_images_are_measured_no_more_once_only_one_is_wanted(both, requests):
    both.session.segmentation_changed.emit()
    assert len(requests[-1].targets) == 2
    both.panel.fractions.every.click()
    both.settle()
    assert [len(one.targets) for one in requests] == [2, 1]
    assert len(both.session.measurement.measured.images) == 1
    assert both.panel.fractions.rows.isColumnHidden(2)


def test_a_image_that_is_finished_is_not_said_to_be_refined(both):
    both.session.live.stage = Stage.REFINEMENT  # of another image
    both.widget.refine.show_work()
    assert both.widget.refine.cancel.isHidden()
    assert both.widget.refine.state.text() == ""


def test_what_trains_nothing_is_dropped_without_training(both, requests):
    both.controller.set_live(False)
    both.session.images["b"].result = None  # is to be segmented first
    both.session.segmentation_changed.emit()
    assert both.session.live.stage is Stage.SEGMENTATION
    both.paint((20, 24), (60, 70), 2)
    both.controller.link.flush()
    both.session.refinement.change(min_object=5)
    both.settle()
    assert not any(one.version for one in requests)
