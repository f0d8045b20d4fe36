import numpy as np
import pytest


@pytest.fixture
def views(bench):
    bench.segment()
    return bench.widget.paint.views


def show(bench, views, view):
    views.show(view)
    bench.settle()
    return views.layer


def test_the_uncertainty_lies_on_the_image_beneath_the_scribbles(bench, views):
    layer = show(bench, views, "uncertainty")
    np.testing.assert_array_equal(layer.data, bench.session.guidance.uncertainty())
    image = bench.viewer.layers["Image"]
    np.testing.assert_array_equal(layer.scale, image.scale)
    np.testing.assert_array_equal(layer.translate, image.translate)
    assert tuple(layer.contrast_limits) == (0, 255)
    assert bench.names == [
        "Image",
        "Segmentation: Image",
        "Uncertainty: Image",
        "Scribbles: Image",
    ]
    assert not bench.viewer.layers["Segmentation: Image"].visible
    assert bench.viewer.layers.selection.active == bench.scribbles


def test_the_probability_follows_the_selected_class(bench, views):
    layer = show(bench, views, "probability")
    assert layer.name == "Probability of Class 1: Image"
    assert layer.data[:, :20].mean() > 200
    bench.scribbles.selected_label = 2
    bench.settle()
    assert views.layer.name == "Probability of Class 2: Image"
    assert views.layer.data[:, :20].mean() < 55


def test_what_is_unlike_all_painted_is_shown_with_its_share(bench, views):
    layer = show(bench, views, "unlike painted")
    values = bench.session.guidance.unlike_painted()
    np.testing.assert_array_equal(layer.data, values)
    assert layer.name == f"Unlike painted ({(values > 127).mean():.1%}): Image"
    assert tuple(layer.contrast_limits) == (127, 191)  # black where it is like it
    bench.scribbles.selected_label = 2
    bench.paint((30, 34), (10, 20, 30), 2)
    bench.settle()
    np.testing.assert_array_equal(
        views.layer.data, bench.session.guidance.unlike_painted()
    )


def test_a_class_without_scribbles_is_probable_nowhere(bench, views):
    show(bench, views, "probability")
    bench.widget.paint.classes.add_class()
    bench.settle()
    assert not views.layer.data.any()
    assert "Class 3 has no scribbles yet" in bench.session.status


def test_views_go_round_and_the_last_one_leaves_no_layer(bench, views):
    seen = []
    for _ in range(4):
        views.cycle()
        bench.settle()
        seen.append(views.shown)
    assert seen == ["probability", "uncertainty", "unlike painted", "result"]
    assert bench.names == ["Image", "Segmentation: Image", "Scribbles: Image"]
    assert bench.viewer.layers["Segmentation: Image"].visible


def test_the_round_leaves_out_a_probability_that_there_is_not(bench, views):
    bench.widget.paint.classes.add_class()
    views.cycle()
    assert views.shown == "uncertainty"


def test_what_is_shown_follows_each_scribble(bench, views):
    layer = show(bench, views, "uncertainty")
    former = layer.data.copy()
    bench.paint((30, 34), (10, 20, 30), 2)
    bench.settle()
    assert views.layer is layer
    assert (layer.data != former).any()
    np.testing.assert_array_equal(layer.data, bench.session.guidance.uncertainty())


def test_no_map_is_computed_while_the_result_is_shown(bench, views, monkeypatch):
    asked = []
    monkeypatch.setattr(
        bench.controller.side, "submit", lambda kind, *_: asked.append(kind)
    )
    bench.paint((30, 34), (10, 20, 30), 2)
    bench.settle()
    assert asked == []


def test_hiding_what_is_shown_shows_the_image(bench, views):
    views.toggle()
    assert not bench.viewer.layers["Segmentation: Image"].visible
    views.toggle()
    layer = show(bench, views, "uncertainty")
    views.toggle()
    assert not layer.visible
    assert not bench.viewer.layers["Segmentation: Image"].visible


def test_a_view_that_the_user_deletes_gives_way_to_the_result(bench, views):
    show(bench, views, "uncertainty")
    bench.viewer.layers.remove("Uncertainty: Image")
    assert views.shown == "result"
    assert bench.viewer.layers["Segmentation: Image"].visible
    bench.paint((30, 34), (10, 20, 30), 2)
    bench.settle()
    assert "Uncertainty: Image" not in bench.names


def test_scribbles_that_no_longer_suffice_end_the_view(bench, views):
    show(bench, views, "uncertainty")
    bench.scribbles.data = np.zeros_like(bench.scribbles.data)
    bench.settle()
    assert views.shown == "result"
    assert "Uncertainty: Image" not in bench.names


def test_another_image_waits_for_its_own_map(bench, views):
    show(bench, views, "uncertainty")
    other = bench.viewer.add_image(bench.session.image[:60, :70].copy(), name="other")
    bench.controller.link.select_image(other)
    bench.settle()
    assert "Uncertainty: Image" not in bench.names
    bench.compute()
    bench.settle()
    bench.wait(lambda: "Uncertainty: other" in bench.names)
    assert views.layer.data.shape == (60, 70)


def test_the_map_of_a_plane_lies_on_that_plane(make_viewer, make_bench, image):
    viewer = make_viewer()
    stack = viewer.add_image(
        np.stack([image] * 3),
        name="stack",
        axis_labels=("z", "y", "x"),
        scale=(2, 0.5, 0.5),
        translate=(1, 3, 4),
        affine=[[1, 0, 0, 9], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]],
    )
    bench = make_bench(viewer)
    bench.wait(lambda: bench.session.current is not None)
    viewer.dims.set_current_step(0, 1)
    bench.settle()
    labels = np.zeros(stack.data.shape, np.uint8)
    labels[1, 10:14, 10:20], labels[1, 10:14, 60:70] = 1, 2
    bench.scribbles.data = labels
    bench.compute()
    bench.settle()
    bench.wait(lambda: bench.session.segmentation is not None)
    layer = show(bench, bench.widget.paint.views, "uncertainty")
    np.testing.assert_array_equal(layer.data[0], bench.session.guidance.uncertainty())
    np.testing.assert_allclose(
        layer.data_to_world((0, 5, 6)), stack.data_to_world((1, 5, 6))
    )


def test_a_view_is_no_image_to_segment(bench, views):
    show(bench, views, "uncertainty")
    bench.settle()
    assert bench.controller.link.layers.images() == [bench.viewer.layers["Image"]]
    bench.viewer.layers.remove("Image")
    bench.wait(lambda: bench.controller.link.image is None)
    assert "Uncertainty: Image" not in bench.names


def test_a_view_that_was_edited_is_made_anew(bench, views):
    layer = show(bench, views, "uncertainty")
    layer.data = np.zeros((3, 3), np.uint8)
    bench.paint((30, 34), (10, 20, 30), 2)
    bench.settle()
    assert layer not in bench.viewer.layers
    np.testing.assert_array_equal(
        bench.viewer.layers["Uncertainty: Image"].data,
        bench.session.guidance.uncertainty(),
    )


def test_a_map_that_cannot_be_computed_gives_way_to_the_result(
    bench, views, monkeypatch
):
    def fail(*_, **__):
        raise ValueError("doubt: too much of it")

    monkeypatch.setattr("napari_hrdv2.core.guidance.uncertainty_of", fail)
    show(bench, views, "uncertainty")
    assert views.shown == "result"
    assert bench.viewer.layers["Segmentation: Image"].visible
    assert "too much of it" in bench.widget.status.text()


def test_refining_a_result_asks_for_no_other_map(bench, views, monkeypatch):
    layer, asked = show(bench, views, "uncertainty"), []
    submit = bench.controller.side.submit

    def listen(kind, *args, **more):
        asked.append(kind)
        submit(kind, *args, **more)

    monkeypatch.setattr(bench.controller.side, "submit", listen)
    bench.session.refinement.change(min_object=5)
    bench.settle()
    assert asked == []
    assert views.layer is layer
    assert not bench.viewer.layers["Segmentation: Image"].visible


def test_a_result_hidden_for_a_map_is_seen_when_its_image_returns(bench, image):
    bench.segment()
    first = bench.viewer.layers["Image"]
    assert bench.widget.paint.views.show("uncertainty")
    bench.settle()
    other = bench.viewer.add_image(255 - image, name="other")
    bench.controller.link.select_image(other)
    bench.settle()
    bench.widget.paint.views.show("result")
    bench.controller.link.select_image(first)
    bench.settle()
    assert bench.viewer.layers["Segmentation: Image"].visible
