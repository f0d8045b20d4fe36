"""Stacks: the plane that is shown is the picture, and all planes train together."""

import threading

import dask.array
import numpy as np
import pytest

from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.session import features as feature_work
from napari_hrdv2.session.planes import PlaneKey
from napari_hrdv2.widgets.viewer.result_overlays import ErrorOverlay
from widgets.desk import Desk, stack_of


@pytest.fixture
def desk(qtbot):
    desk = Desk(qtbot)
    yield desk
    desk.controller.close()


@pytest.fixture
def stack(desk, image):
    desk.layer = desk.open_stack(stack_of(image, 6))
    desk.go(2)
    return desk


def test_the_plane_that_is_shown_is_the_picture(stack, image):
    assert stack.session.current.plane == {"Z": 2}
    assert stack.session.current.name == "stack, Z 2"
    np.testing.assert_array_equal(stack.session.image, image + 2)
    assert stack.link.scribbles.data.shape == (6, 64, 80)
    assert stack.errors == []


def test_features_of_the_plane_and_its_neighbours_start_by_themselves(stack):
    assert stack.session.features is not None
    ready = {k for k, p in stack.session.images.items() if p.features is not None}
    assert {(1,), (2,), (3,), (4,)} <= {key.plane for key in ready}


def test_scribbles_on_several_planes_train_together(stack):
    stack.paint((10, 50), (10, 20), 1)
    stack.go(4)
    assert not stack.session.current.class_ids
    stack.paint((10, 50), (60, 70), 2)
    assert stack.painted() == [(2,), (4,)]
    assert stack.session.classifier.classes.tolist() == [1, 2]
    result = stack.link.segmentation.data
    assert result.shape == (6, 64, 80)
    assert np.mean(result[4][:, :20] == 1) > 0.9
    assert np.mean(result[4][:, 60:] == 2) > 0.9


def test_a_plane_is_compared_with_the_truth_of_its_place(stack):
    truth = np.ones((6, 64, 80), np.uint8)
    truth[:, :, 40:] = 2
    truth[2, :, 38:40] = 2  # on this plane alone
    labels = stack.viewer.add_labels(truth, name="truth")
    stack.paint_both()
    overlay = ErrorOverlay(stack.link, stack.controller.side)
    assert overlay.truth_layers() == [labels]
    overlay.compare(labels, boundary_width=3)
    stack.settle()
    result = stack.link.segmentation.data[2]
    counts = overlay.answer.comparison.confusion
    free = stack.link.scribbles.data[2] == 0
    assert counts[1, 0] == ((truth[2] == 2) & (result == 1) & free).sum() > 0
    np.testing.assert_array_equal(
        overlay.layer.data[0] > 0, (truth[2] != result) & free
    )
    assert overlay.layer.translate[0] == 2
    stack.go(3)
    assert overlay.answer is None
    assert "Errors: stack" in stack.viewer.layers


def test_a_plane_that_is_visited_is_segmented_by_the_scribbles_elsewhere(stack):
    stack.paint_both()
    stack.go(5)
    assert np.mean(stack.link.segmentation.data[5][:, 60:] == 2) > 0.9
    assert not stack.link.segmentation.data[0].any()


def test_coming_back_shows_what_later_scribbles_made_of_a_plane(stack):
    stack.paint_both()
    stack.go(3)
    stack.paint((30, 31), (5, 6, 7, 8), 3)
    stack.go(2)
    assert stack.session.classifier.classes.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(
        stack.link.segmentation.data[2], stack.session.segmentation
    )


def test_undo_of_a_scribble_on_a_plane_left_behind_is_seen(stack):
    stack.paint_both()
    stack.go(4)
    stack.link.scribbles.undo()
    stack.settle()
    entry = next(p for p in stack.session.images.values() if p.plane == {"Z": 2})
    assert entry.class_ids == (1,)


def test_a_scribble_just_before_the_slider_moves_counts(stack):
    stack.link.scribbles.paint((2, 10, 10), 1)
    stack.viewer.dims.set_current_step(0, 5)
    stack.settle()
    assert stack.painted() == [(2,)]


def test_redo_on_a_plane_left_behind_is_seen(stack):
    stack.paint((10,), (10,), 1)
    stack.link.scribbles.undo()
    stack.go(5)
    stack.link.scribbles.redo()
    stack.settle()
    assert stack.painted() == [(2,)]


def test_scribbles_through_several_planes_are_all_seen(stack):
    stack.link.scribbles.n_edit_dimensions = 3
    stack.link.scribbles.brush_size = 3
    stack.paint((10,), (10,), 1)
    assert stack.painted() == [(1,), (2,), (3,)]


def test_replaced_labels_are_read_on_all_planes(stack):
    labels = np.zeros((6, 64, 80), np.uint8)
    labels[0, 5:9, 5:20], labels[5, 5:9, 60:70] = 1, 2
    stack.link.scribbles.data = labels
    stack.settle()
    assert stack.painted() == [(0,), (5,)]


def test_labels_of_another_shape_are_refused_in_one_sentence(stack):
    stack.link.scribbles.data = np.zeros((3, 64, 80), np.uint8)
    stack.settle()
    assert "shape (3, 64, 80) is not that of the image" in str(stack.errors[-1])


def test_scribbles_that_the_session_changes_reach_their_plane(stack):
    stack.paint_both()
    stack.go(4)
    stack.session.delete_class(2)
    assert set(np.unique(stack.link.scribbles.data[2])) == {0, 1}
    stack.link.scribbles.undo()
    assert set(np.unique(stack.link.scribbles.data[2])) == {0, 1, 2}


def test_only_planes_that_are_looked_at_are_read(desk, image):
    read = []

    def plane(block_info=None):
        read.append(block_info[None]["chunk-location"][0])
        return image[np.newaxis]

    lazy = dask.array.map_blocks(
        plane, chunks=((1,) * 50, (64,), (80,)), dtype=np.uint8, meta=np.empty(0, "u1")
    )
    desk.open_stack(lazy, contrast_limits=(0, 255), cache=False)
    desk.go(10)
    desk.paint_both()
    # The viewer shows the first and the middle one before the sliders are moved.
    assert set(read) <= {0, 23, 24, 25, 26, 8, 9, 10, 11}
    assert desk.session.segmentation.any()


def test_of_a_multiscale_stack_the_finest_level_counts(desk, image):
    planes = stack_of(image, 3)
    desk.open_stack([planes, planes[:, ::2, ::2]], multiscale=True)
    assert desk.session.image.shape == (64, 80)


def test_planes_may_be_in_colour(desk, image):
    colours = np.stack([stack_of(image, 3)] * 3, axis=-1)
    desk.open_stack(colours, rgb=True)
    assert desk.session.image.shape == (64, 80, 3)
    assert desk.link.scribbles.data.shape == (3, 64, 80)


def test_two_axes_make_one_plane(desk, image):
    data = stack_of(image, 6).reshape(2, 3, 64, 80)
    desk.open_stack(data, ("t", "z", "y", "x"))
    desk.go(1, 2)
    assert desk.session.current.plane == {"T": 1, "Z": 2}
    np.testing.assert_array_equal(desk.session.image, data[1, 2])
    desk.paint((10,), (10,), 1)
    assert desk.link.scribbles.data[1, 2].any()


def test_an_axis_that_nobody_named_is_asked_for_and_nothing_starts(desk, image):
    desk.open_stack(stack_of(image, 3), None)
    assert desk.session.image is None
    assert desk.session.status == (
        "stack is a stack: choose under Images and stacks what axis 0 (3) is, Z, T or "
        "channel."
    )
    assert desk.link.unnamed_axes() == [(0, 3)]
    desk.link.name_axis(0, "Z")
    desk.settle()
    assert desk.session.current.plane == {"Z": 1}
    assert desk.link.scribbles.axis_labels[0] == "Z"
    assert desk.session.features is not None


def test_an_axis_of_length_one_needs_no_name(desk, image):
    desk.open_stack(image[np.newaxis], None)
    np.testing.assert_array_equal(desk.session.image, image)
    assert desk.link.unnamed_axes() == []
    assert desk.errors == []


def test_in_3d_the_status_says_what_to_do_and_the_plane_stays(stack):
    current = stack.session.current
    stack.viewer.dims.ndisplay = 3
    stack.settle()
    assert stack.session.status.startswith("The view is 3-D: switch it back")
    assert stack.session.current is current
    stack.viewer.dims.ndisplay = 2
    stack.settle()
    assert not stack.session.status.startswith("The view is 3-D")


def test_a_stack_that_is_chosen_in_3d_keeps_its_results(stack, image):
    stack.paint_both()
    former = stack.link.segmentation.data.copy()
    assert former.any()
    flat = stack.viewer.add_image(image, name="flat")
    stack.settle()
    stack.link.select_image(flat)
    stack.viewer.dims.ndisplay = 3
    stack.link.select_image(stack.layer)
    stack.settle()
    np.testing.assert_array_equal(stack.link.segmentation.data, former)


def test_seen_from_the_side_the_status_says_what_to_do(stack):
    stack.viewer.dims.order = (1, 0, 2)
    stack.settle()
    assert "from the side" in stack.session.status
    stack.go(0)
    assert stack.session.current.plane == {"Z": 2}


def test_a_removed_stack_takes_all_its_planes_along(stack):
    stack.paint_both()
    stack.go(4)
    stack.viewer.layers.remove(stack.layer)
    stack.settle()
    assert len(stack.session.images) == 0
    assert stack.session.image is None
    assert stack.errors == []


def test_a_renamed_stack_renames_its_planes(stack):
    stack.paint_both()
    stack.layer.name = "alloy"
    stack.settle()
    assert stack.session.current.name == "alloy, Z 2"


def test_other_data_of_the_same_shape_keep_the_scribbles(stack, image):
    stack.paint_both()
    stack.layer.data = 255 - stack_of(image, 6)
    stack.settle()
    np.testing.assert_array_equal(stack.session.image, 255 - (image + 2))
    assert stack.painted() == [(2,)]


@pytest.mark.parametrize("shape", [(3, 64, 80), (6, 50, 40)])
def test_other_data_of_another_shape_begin_anew(stack, shape):
    stack.paint_both()
    stack.layer.data = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    stack.settle()
    assert stack.session.image.shape == shape[1:]
    assert stack.link.scribbles.data.shape == shape
    assert stack.painted() == []
    assert stack.errors == []


def test_a_stack_that_becomes_flat_is_one_image(stack, image):
    stack.paint_both()
    stack.layer.data = image
    stack.settle()
    assert stack.link.index == ()
    assert stack.session.image.shape == (64, 80)
    assert len(stack.session.images) == 1


def test_an_array_that_was_written_into_and_given_again_begins_anew(desk, image):
    layer = desk.viewer.add_image(image, name="image")
    desk.settle()
    desk.controller.compute_features()
    desk.settle()
    image[:] = 255 - image
    layer.data = image
    desk.settle()
    assert len(desk.session.images) == 1
    assert desk.session.features is None


def test_an_image_that_becomes_a_stack_asks_for_its_axis(desk, image):
    layer = desk.viewer.add_image(image, name="image")
    desk.settle()
    layer.data = stack_of(image, 4)
    desk.settle()
    assert desk.link.unnamed_axes() == [(0, 4)]
    assert desk.session.image is None
    layer.scale = (2, 1, 1)
    desk.link.name_axis(0, "T")
    desk.settle()
    assert "T" in desk.session.current.plane


def test_other_data_of_a_stack_left_behind_are_noticed(stack, image):
    stack.paint_both()
    stack.viewer.add_image(image, name="other")
    stack.settle()
    stack.link.select_image(stack.viewer.layers["other"])
    stack.layer.data = 255 - stack_of(image, 6)
    stack.settle()
    assert stack.painted() == [(2,)]
    (entry,) = stack.session.images.painted()
    np.testing.assert_array_equal(np.asarray(entry.image), 255 - (image + 2))


def test_a_duplicate_is_a_stack_of_its_own(stack, image):
    stack.paint_both()
    copy = stack.viewer.add_image(
        stack.layer.data,
        name="copy",
        metadata=dict(stack.layer.metadata),
        axis_labels=("Z", "y", "x"),
    )
    stack.viewer.layers.move(stack.viewer.layers.index(copy), 0)
    stack.settle()
    assert stack.link.layers.key_of(copy) != stack.link.layers.key_of(stack.layer)
    stack.link.select_image(copy)
    stack.settle()
    assert not stack.session.current.class_ids
    assert stack.painted() == [(2,)]


def test_a_deleted_scribble_layer_takes_the_scribbles_of_all_planes(stack):
    stack.paint_both()
    stack.go(4)
    stack.viewer.layers.remove(stack.link.scribbles)
    stack.settle()
    assert stack.painted() == []
    stack.go(3)
    assert stack.link.scribbles is None
    stack.link.prepare_scribbles()
    stack.paint((10,), (10,), 1)
    assert stack.painted() == [(3,)]


def test_scrolling_leaves_the_tool_in_the_hand(stack):
    stack.link.scribbles.mode = "pan_zoom"
    stack.go(4)
    assert stack.link.scribbles.mode == "pan_zoom"


def test_a_world_of_other_units_is_the_same_stack(desk, image):
    desk.open_stack(stack_of(image, 6), scale=(3, 0.5, 0.5), translate=(100, 5, 5))
    desk.go(4)
    assert desk.session.current.plane == {"Z": 4}


def test_layers_that_the_project_asks_for_are_made_and_found(stack):
    key = stack.link.layers.add_entry(stack.layer, (5,))
    labels = np.zeros((64, 80), np.uint16)
    labels[3, 4:9] = 2
    stack.link.write_scribbles(key, labels)
    layer = stack.link.layers.scribbles_of(key)
    assert layer == stack.link.scribbles
    np.testing.assert_array_equal(layer.data[5], labels)
    assert stack.link.layers.image_of(key) == stack.layer
    assert stack.painted() == [(5,)]
    stack.link.show_image(key)
    stack.settle()
    assert stack.session.current.key == key
    assert stack.viewer.dims.current_step[0] == 5


def test_scribbles_of_an_image_that_was_never_shown_get_a_layer(desk, image):
    for name in ("one", "two"):
        desk.viewer.add_image(image, name=name)
    desk.settle()
    other = next(i for i in desk.link.layers.images() if i != desk.link.image)
    key = desk.link.layers.key_of(other)
    labels = np.full((64, 80), 300, np.uint16)
    desk.link.write_scribbles(key, labels)
    assert desk.link.layers.scribbles_of(key) not in (None, desk.link.scribbles)
    assert desk.session.images[key].class_ids == (300,)
    with pytest.raises(ValueError, match="is no image that is open"):
        desk.link.write_scribbles(PlaneKey("nothing"), labels)
    assert desk.link.layers.image_of(PlaneKey("nothing")) is None
    assert desk.link.layers.scribbles_of(PlaneKey("nothing")) is None


def test_planes_that_are_not_there_are_refused(stack):
    for index in ((6,), (-1,), (), (0, 0)):
        with pytest.raises(ValueError, match="has no plane"):
            stack.link.layers.add_entry(stack.layer, index)


def test_a_closed_link_hears_nothing_any_more(stack, image):
    stack.controller.close()
    current = stack.session.current
    stack.viewer.dims.set_current_step(0, 5)
    stack.layer.data = stack_of(image, 2)
    stack.viewer.layers.clear()
    stack.qtbot.wait(150)
    assert stack.session.current is current


def test_features_start_by_themselves_though_scribbles_are_not_answered(stack):
    stack.controller.set_live(False)
    stack.go(0)
    assert stack.session.features is not None


def test_the_plane_that_is_shown_does_not_wait_for_one_ahead(stack, monkeypatch):
    gate = threading.Event()
    real = feature_work.FeatureRequest.__call__

    def slow(self, context):
        while self.key.plane == (5,) and not gate.is_set():
            if context.should_stop():
                raise Cancelled
            gate.wait(0.005)
        return real(self, context)

    monkeypatch.setattr(feature_work.FeatureRequest, "__call__", slow)
    stack.viewer.dims.set_current_step(0, 3)
    jobs = stack.controller.feature_jobs
    stack.wait(lambda: jobs.request and jobs.request.key.plane == (5,))
    stack.viewer.dims.set_current_step(0, 0)
    stack.wait(lambda: stack.session.current.plane == {"Z": 0})
    stack.wait(lambda: stack.session.features is not None)
    gate.set()
    stack.settle()


def test_the_status_says_that_features_of_a_plane_have_begun(stack):
    said = []
    stack.session.status_changed.connect(said.append)
    stack.go(0)
    assert any(text.startswith("Computing features: 1 pass") for text in said)
