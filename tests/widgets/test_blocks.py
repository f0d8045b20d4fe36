"""The window with an image whose features do not fit: what is seen, and Segment all."""

import dask.array as da
import numpy as np
import pytest
from qtpy.QtWidgets import QFileDialog, QMessageBox, QPushButton

from napari_hrdv2.files.lazy import LazyImage
from napari_hrdv2.session.blocks import features as rooms
from napari_hrdv2.widgets.viewer import planes

SHAPE, BLOCK = (700, 900), 256
VIEW = slice(0, 120), slice(0, 120)


@pytest.fixture
def truth():
    """A chessboard of two classes."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return (rows // 130 + columns // 110) % 2 + 1


@pytest.fixture
def bench(make_napari_viewer_proxy, make_bench, truth, monkeypatch, tmp_path):
    """Small blocks; all that is lazy is large; one looks at the upper left corner."""
    monkeypatch.setattr("napari_hrdv2.session.features.BLOCK", BLOCK)
    monkeypatch.setattr("napari_hrdv2.session.planes.LARGE", 2**16)
    monkeypatch.setattr("napari_hrdv2.widgets.viewer.layers.LARGE", 2**16)
    monkeypatch.setattr(rooms, "user_cache_path", lambda *_, **__: tmp_path)
    monkeypatch.setattr("napari_hrdv2.files.label_store.SMALLEST_LEVEL", 256)
    asked = []

    def ask(parent, title):
        asked.append(title)
        return str(tmp_path)

    monkeypatch.setattr(QFileDialog, "getExistingDirectory", ask)
    monkeypatch.setattr("napari_hrdv2.core.features.blocks.features.SAMPLED_BLOCKS", 2)
    pixels = (60 * truth + np.arange(SHAPE[1]) % 5).astype(np.uint8)
    viewer = make_napari_viewer_proxy()
    levels = [pixels, pixels[::2, ::2]]
    lazy = [da.from_array(level, chunks=100) for level in levels]
    viewer.add_image(lazy, name="Image", multiscale=True, contrast_limits=(0, 255))
    bench = make_bench(viewer)
    bench.session.configure(backbone="filters")
    bench.look = lambda *view: monkeypatch.setattr(
        bench.controller.link, "visible_region", lambda: view
    )
    bench.look(*VIEW)
    bench.button = bench.widget.findChild(QPushButton, "segment_all")
    bench.asked, bench.target = asked, tmp_path / "Image_segmentation.zarr"
    return bench


def segment(bench):
    """Paint in view, and wait until its block is segmented."""
    bench.compute()
    bench.paint(range(20, 40), range(20, 40), 1)
    bench.paint(range(20, 40), range(120, 140), 2)
    bench.controller.link.flush()
    bench.wait(lambda: bench.session.current.is_shown and bool(done(bench)))
    bench.settle()


def done(bench):
    return bench.session.current.result.blocks.done


def test_the_window_says_that_blocks_are_computed_on_demand(bench):
    assert "computed where you look and paint" in bench.widget.features.cost.text()
    assert not bench.button.isVisibleTo(bench.widget)


def test_what_is_in_view_is_segmented_and_shown(bench, truth):
    segment(bench)
    layer = bench.controller.link.segmentation
    assert layer.multiscale
    assert np.mean(layer.data[0][VIEW] == truth[VIEW]) > 0.99
    assert not layer.data[0][300:].any()
    assert list(done(bench)) == [(0, 0)]
    assert "1 of 12 blocks" in bench.session.status
    bench.look(slice(600, 680), slice(560, 600))
    planes.camera_of(bench.viewer).zoom *= 1.5
    bench.wait(lambda: len(done(bench)) == 2)
    assert np.mean(layer.data[0][600:680, 560:600] == truth[600:680, 560:600]) > 0.97


def test_segment_all_does_the_rest(bench, truth):
    segment(bench)
    assert bench.button.isVisibleTo(bench.widget)
    bench.button.click()
    assert bench.button.text() == "Cancel"
    bench.wait(lambda: bool(bench.session.phase_fractions()))
    assert str(bench.target) in bench.session.status
    bench.settle()
    layer = bench.controller.link.segmentation
    assert isinstance(layer.data[0], LazyImage)
    labels = layer.data[0][:]
    assert np.mean(labels == truth) > 0.97
    assert np.array_equal(layer.data[1][:], labels[::2, ::2])
    assert not bench.button.isEnabled()
    assert layer.get_value((200, 300)) is not None
    bench.session.refinement.change(min_object=40)
    bench.wait(bench.button.isEnabled)


def unfinished(bench):
    return bench.target.with_name(f"{bench.target.name}.unfinished")


def stopped(bench):
    """Press Segment all, and Cancel when some blocks are done."""
    bench.button.click()
    lines = unfinished(bench) / "done.txt"
    bench.wait(lambda: lines.exists() and len(lines.read_text().split()) >= 6)
    bench.button.click()
    bench.settle()
    return len(lines.read_text().split()) // 3


def test_cancel_keeps_what_is_done_and_the_next_press_goes_on(bench):
    segment(bench)
    assert 2 <= stopped(bench) < 12
    assert not bench.target.exists()
    assert bench.session.phase_fractions() == {}
    assert bench.button.text() == "Segment all"
    bench.button.click()
    bench.wait(lambda: bool(bench.session.phase_fractions()))
    assert len(bench.asked) == 1
    assert bench.target.is_dir()


def test_a_stroke_ends_it(bench):
    segment(bench)
    bench.button.click()
    former = bench.session.current.result
    bench.paint(range(60, 70), range(20, 30), 1)
    bench.controller.link.flush()
    bench.wait(lambda: bench.session.current.result is not former)
    bench.settle()
    assert not bench.target.exists()
    assert isinstance(bench.session.segmentation, np.ndarray)
    assert bench.button.text() == "Segment all"


def add_small(bench):
    """Open a small image, which becomes the current one."""
    small = np.repeat(np.uint8([[70, 130]]), 25, axis=1).repeat(40, axis=0)
    layer = bench.viewer.add_image(small, name="Image")
    bench.viewer.layers.selection = {layer}
    bench.wait(lambda: bench.session.current.shape == small.shape)
    return layer


def test_a_folder_that_failed_is_not_taken_again(bench, monkeypatch):
    def fail(*_, **__):
        raise OSError("the disk is full")

    segment(bench)
    monkeypatch.setattr("napari_hrdv2.session.batch.whole.stream_labels", fail)
    bench.button.click()
    bench.settle()
    assert "disk is full" in bench.session.status
    bench.button.click()
    bench.settle()
    assert len(bench.asked) == 2


def test_images_of_one_name_have_folders_of_their_own(bench, tmp_path):
    segment(bench)
    stopped(bench)
    assert bench.controller.blocks.target == bench.target
    add_small(bench)
    assert bench.controller.blocks.target is None
    bench.session.current.source = "elsewhere/Image.tif"
    other = bench.controller.blocks.target_in(tmp_path)
    assert other == tmp_path / "Image_2_segmentation.zarr"


def test_while_another_image_is_chosen_it_goes_on_and_can_be_cancelled(bench):
    segment(bench)
    bench.button.click()
    add_small(bench)
    assert bench.button.isVisibleTo(bench.widget)
    assert bench.button.text() == "Cancel"
    bench.wait(lambda: not bench.controller.blocks.is_of_all)
    assert f"Written to {bench.target}" in bench.session.status
    assert bench.target.is_dir()
    assert not bench.button.isVisibleTo(bench.widget)


def test_closing_the_image_ends_it(bench):
    segment(bench)
    bench.button.click()
    bench.viewer.layers.remove("Image")
    bench.wait(lambda: not bench.controller.blocks.is_of_all)
    assert not bench.target.exists()


def test_uncertain_regions_are_said_to_be_of_the_blocks_so_far(bench, monkeypatch):
    segment(bench)
    monkeypatch.setattr(
        "napari_hrdv2.core.guidance.regions_within", lambda *_, **__: ()
    )
    bench.widget.paint.guidance.next.click()
    bench.wait(lambda: bench.session.guidance.has_uncertain_regions)
    assert "sure in the blocks computed so far" in bench.session.status


def test_another_result_is_replaced_only_if_one_agrees(bench, monkeypatch):
    segment(bench)
    bench.target.mkdir()
    no = QMessageBox.StandardButton.No
    monkeypatch.setattr(QMessageBox, "question", lambda *_: no)
    bench.button.click()
    bench.settle()
    assert list(bench.target.iterdir()) == []
    assert bench.session.phase_fractions() == {}


def test_scribbles_on_a_large_image_are_saved(bench, preferences):
    from napari_hrdv2.session.project.store import load_project

    segment(bench)
    bench.controller.close()
    store = bench.controller.autosave.saver.store
    bench.wait(lambda: bool(store.own) and store.own[-1].exists())
    (saved,) = load_project(store.own[-1]).images
    assert np.count_nonzero(saved.scribbles) == bench.session.scribbles.counts[1] * 2


def test_a_map_is_of_what_one_looks_at_and_follows_it(bench):
    segment(bench)
    views = bench.widget.paint.views
    assert views.show("uncertainty")
    bench.wait(lambda: "in 1 of 12 blocks" in bench.session.status)
    layer = views.layer
    assert layer.multiscale
    assert layer.name == "Uncertainty in 1 of 12 blocks: Image"
    assert layer.data[0][VIEW].all()
    assert not layer.data[0][300:].any()
    assert layer.colormap.map(np.array([0, 1 / 255]))[:, 3].tolist() == [0, 1]
    bench.look(slice(600, 680), slice(560, 600))
    planes.camera_of(bench.viewer).zoom *= 1.5
    bench.wait(lambda: "Uncertainty in 2 of 12 blocks: Image" in bench.names)
    assert layer.data[0][600:680, 560:600].all()
    bench.paint(range(60, 70), range(20, 30), 2)
    bench.settle()
    bench.wait(lambda: "Uncertainty in 1 of 12 blocks: Image" in bench.names)
    assert views.layer is layer
    views.show("probability")
    bench.wait(lambda: bench.names[-2].startswith("Probability of Class 1 in 1 of"))
    bench.widget.paint.classes.add_class()
    bench.settle()
    assert "has no scribbles yet" in bench.session.status
    assert not views.layer.data[0][VIEW].any()
    views.show("result")
    assert "Uncertainty" not in " ".join(bench.names)
    assert "The map" not in bench.session.status


def test_maps_are_there_when_all_is_segmented_too(bench):
    segment(bench)
    bench.button.click()
    bench.wait(lambda: bool(bench.session.phase_fractions()))
    assert bench.widget.paint.views.show("unlike painted")
    bench.wait(lambda: "Unlike painted in 1 of 12 blocks: Image" in bench.names)
    assert bench.widget.paint.views.layer.data[0][VIEW].all()


def test_places_are_proposed_and_named(bench):
    bench.compute()
    bench.widget.paint.places.propose.click()
    walk = bench.widget.paint.places.walk
    bench.wait(lambda: walk.shown is not None)
    assert "Looked for in 2 of 12 blocks." in bench.widget.paint.places.note.text()
    walk.name(1)
    bench.controller.link.flush()
    assert bench.session.scribbles.counts[1] > 9


def test_zoomed_out_the_status_knows_that_all_is_being_segmented(bench, monkeypatch):
    segment(bench)
    monkeypatch.setattr(bench.session.live, "is_far", True)
    bench.button.click()
    assert "Segment all is at work" in bench.session.status
    assert "press Segment all" not in bench.session.status
    bench.button.click()
    bench.wait(lambda: not bench.controller.blocks.is_of_all)
    assert "Segment all is at work" not in bench.session.next_step()


def segment_all_and_leave(bench, large, other):
    """Begin with all of an image, and go to another one meanwhile."""
    bench.controller.link.select_image(large)
    bench.settle()
    bench.wait(bench.button.isEnabled)
    bench.button.click()
    bench.controller.link.select_image(other)
    bench.controller.link.flush()
    assert bench.controller.blocks.is_of_all


def test_an_undo_on_another_image_ends_it(bench):
    segment(bench)
    large, other = bench.controller.link.image, add_small(bench)
    bench.compute()
    layer, before = bench.controller.link.scribbles, bench.session.classifier
    layer.paint((20, 20), 2)
    bench.settle()
    assert bench.session.classifier is not before
    segment_all_and_leave(bench, large, other)
    layer.undo()
    bench.controller.link.flush()
    bench.wait(lambda: not bench.controller.blocks.is_of_all)
    assert not bench.target.exists()
    assert unfinished(bench).exists()


def test_taking_an_image_out_of_the_training_ends_it(bench):
    segment(bench)
    large, other = bench.controller.link.image, add_small(bench)
    bench.compute()
    alone = bench.session.classifier_fingerprint
    bench.controller.link.scribbles.paint((20, 20), 2)
    bench.settle()
    assert bench.session.classifier_fingerprint != alone
    segment_all_and_leave(bench, large, other)
    bench.session.set_trains(bench.session.current.key, False)
    bench.controller.train()  # as a tick in the list of images
    bench.wait(lambda: not bench.controller.blocks.is_of_all)
    assert not bench.target.exists()


def test_what_was_begun_of_a_closed_image_of_this_name_stays(bench, truth):
    segment(bench)
    count = stopped(bench)
    bench.viewer.layers.remove("Image")
    bench.wait(lambda: bench.session.current is None)
    other = da.from_array((50 * truth[::-1] + 9).astype(np.uint8), chunks=100)
    levels = [other, other[::2, ::2]]
    bench.viewer.add_image(levels, name="Image", multiscale=True)
    bench.wait(lambda: bench.session.current is not None)
    bench.compute()
    scribbles = bench.controller.link.scribbles
    for column in range(20, 40):
        scribbles.paint((column, 30), 1)
        scribbles.paint((column, 130), 2)
    bench.settle()
    bench.wait(bench.button.isEnabled)
    bench.button.click()
    bench.wait(lambda: bool(bench.session.phase_fractions()))
    assert bench.target.with_name("Image_2_segmentation.zarr").is_dir()
    assert len((unfinished(bench) / "done.txt").read_text().split()) // 3 == count
