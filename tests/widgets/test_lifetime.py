import logging
import threading

import numpy as np
import pytest

from napari_hrdv2.widgets.jobs import THREAD_NAME

pytestmark = pytest.mark.usefixtures("make_napari_viewer_proxy")  # real windows


def threads():
    return [t for t in threading.enumerate() if t.name == THREAD_NAME]


@pytest.fixture(autouse=True)
def nothing_is_left(caplog):
    caplog.set_level(logging.WARNING, logger="napari_hrdv2")
    yield
    for thread in threads():
        thread.join(5)
    assert not threads()
    assert [record.message for record in caplog.records] == []


def start(bench, endless):
    bench.widget.features.compute.click()
    bench.wait(endless.began.is_set)


def test_cancel_stops_the_computation_within_a_second(bench, endless):
    start(bench, endless)
    assert bench.widget.features.compute.text() == "Cancel"
    bench.widget.features.compute.click()
    bench.qtbot.waitUntil(lambda: not bench.controller.is_computing, timeout=1000)
    assert endless.ended.is_set()
    assert bench.widget.status.text().startswith("Cancelled.")
    assert bench.widget.features.compute.text() == "Compute features"


def test_closing_the_viewer_ends_the_thread(bench, endless):
    start(bench, endless)
    bench.viewer.close()
    assert endless.ended.is_set()


def test_hiding_the_whole_window_ends_the_thread(
    make_napari_viewer, make_bench, image, endless
):
    viewer = make_napari_viewer(show=True)
    viewer.add_image(image)
    bench = make_bench(viewer)
    bench.wait(bench.widget.isVisible)
    start(bench, endless)
    bench.widget.window().hide()
    assert endless.ended.is_set()


def test_closing_the_dock_ends_the_thread_and_lets_go_of_the_layers(bench, endless):
    start(bench, endless)
    bench.viewer.window.remove_dock_widget(bench.widget)
    assert endless.ended.is_set()
    bench.paint((10,), (10,), 2)
    bench.viewer.add_image(np.eye(60))
    bench.qtbot.wait(50)
    assert bench.session.scribbles is None or not bench.session.scribbles.class_ids


def test_hiding_the_dock_goes_on_computing(
    make_napari_viewer, make_bench, image, endless
):
    viewer = make_napari_viewer(show=True)
    viewer.add_image(image)
    bench = make_bench(viewer)
    bench.wait(bench.widget.isVisible)
    start(bench, endless)
    bench.widget.parent().hide()
    bench.qtbot.wait(50)
    assert bench.controller.is_computing
    bench.controller.close()


def test_removing_the_image_stops_its_computation(bench, endless):
    start(bench, endless)
    bench.viewer.layers.remove("Image")
    bench.wait(lambda: not bench.controller.is_computing)
    assert bench.session.image is None
    assert bench.widget.status.text() == "Open an image to begin."


def test_a_removed_scribble_layer_can_be_made_again(bench):
    bench.segment()
    bench.viewer.layers.remove("Scribbles: Image")
    bench.wait(lambda: not bench.viewer.layers["Segmentation: Image"].data.any())
    bench.widget.paint.paint.click()
    assert bench.viewer.layers.selection.active == bench.scribbles
    bench.paint((10,), (10,), 1)
    bench.paint((40,), (60,), 2)
    bench.wait(lambda: bench.viewer.layers["Segmentation: Image"].data.any())


def test_a_removed_segmentation_layer_comes_back_with_the_next_scribble(bench):
    bench.segment()
    bench.viewer.layers.remove("Segmentation: Image")
    bench.qtbot.wait(50)
    bench.paint((30,), (20,), 1)
    bench.wait(lambda: "Segmentation: Image" in bench.names)


def test_renamed_and_reordered_layers_stay_what_they_are(bench):
    bench.segment()
    bench.viewer.layers["Image"].name = "alloy"
    bench.scribbles.name = "strokes"
    bench.viewer.layers.move(0, 2)
    bench.wait(lambda: bench.widget.features.image.currentText() == "alloy")
    assert bench.controller.link.scribbles.name == "strokes"


def test_an_answer_after_the_close_reaches_nobody(bench, monkeypatch, qtbot):
    gate, told = threading.Event(), []
    monkeypatch.setattr(
        "napari_hrdv2.widgets.jobs.compute", lambda *_, **__: gate.wait(10)
    )
    jobs = bench.controller.feature_jobs
    jobs.returned.disconnect()
    jobs.returned.connect(told.append)
    jobs.start("request")
    assert not jobs.close(timeout=0.05)
    (thread,) = threads()
    gate.set()
    thread.join(5)
    qtbot.wait(20)
    assert told == []


def test_a_failed_training_is_not_called_cancelled(bench, monkeypatch):
    bench.segment()

    def fail(*_, **__):
        raise ValueError("no way")

    said = []
    bench.session.status_changed.connect(said.append)
    monkeypatch.setattr("napari_hrdv2.widgets.jobs.compute", fail)
    bench.paint((30,), (20,), 2)
    bench.wait(lambda: "no way" in said)
    assert not [text for text in said if "Cancelled" in text]


def test_scribbles_during_the_computation_are_told_to_count(bench, endless):
    start(bench, endless)
    bench.paint((10,), (10,), 1)
    bench.wait(lambda: "Your scribbles count" in bench.widget.status.text())
    bench.widget.features.compute.click()
    bench.wait(lambda: not bench.controller.is_computing)
    assert bench.widget.status.text().startswith("Cancelled.")
