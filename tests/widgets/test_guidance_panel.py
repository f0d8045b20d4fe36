import numpy as np
import pytest

FRAMES = "Label issues: Image"


@pytest.fixture
def guidance(bench):
    return bench.widget.paint.guidance


@pytest.fixture
def guide(bench):
    return bench.widget.paint.guide


@pytest.fixture
def mislabelled(bench):
    """Strokes of both classes, and one of class 2 where class 1 belongs."""
    labels = np.zeros((64, 80), np.uint8)
    for row in (4, 20, 36, 52):
        labels[row : row + 4, 4:10], labels[row : row + 4, 66:72] = 1, 2
    labels[30:32, 20:28] = 2
    bench.scribbles.data = labels
    bench.compute()
    bench.settle()
    bench.wait(lambda: "Segmentation: Image" in bench.names)
    bench.settle()
    return bench


def camera(bench):
    return getattr(bench.viewer, "scene", bench.viewer).camera


def test_the_next_uncertain_region_is_in_the_middle_of_the_view(bench, guidance):
    bench.segment()
    bench.viewer.layers.selection.active = bench.viewer.layers["Image"]
    guidance.next.click()
    bench.settle()
    region = bench.session.guidance.uncertain_regions[0]
    # The image lies at (3, 4) and its pixels are half a nanometre wide.
    np.testing.assert_allclose(
        camera(bench).center[-2:], (3 + region.row / 2, 4 + region.column / 2)
    )
    fraction = (
        2 * region.radius * 0.5 * camera(bench).zoom / min(bench.viewer.canvas.size)
    )
    assert 0.1 <= fraction <= 0.8
    assert region.reason in bench.session.status
    assert guidance.region_note.text().startswith("1 of ")
    assert bench.viewer.layers.selection.active == bench.scribbles


def test_a_layer_with_more_axes_does_not_lead_astray(bench, guidance, guide):
    bench.segment()
    bench.viewer.add_points(np.zeros((1, 4)))
    guidance.next.click()
    bench.settle()
    np.testing.assert_allclose(
        camera(bench).center[-2:],
        (3 + guide.region.row / 2, 4 + guide.region.column / 2),
    )


def test_presses_walk_on_and_a_scribble_begins_anew(bench, guidance, guide):
    bench.segment()
    guidance.next.click()
    bench.settle()
    first = guide.region
    guidance.next.click()
    assert guide.region == bench.session.guidance.uncertain_regions[1] != first
    bench.paint((30, 34), (10, 20, 30), 2)
    bench.settle()
    assert guidance.region_note.isHidden()
    assert not bench.session.guidance.has_uncertain_regions
    guidance.next.click()
    bench.settle()
    assert guide.region == bench.session.guidance.uncertain_regions[0]


def test_a_zoom_that_shows_the_region_is_kept(bench, guidance):
    bench.segment()
    guidance.next.click()
    bench.settle()
    zoom = camera(bench).zoom * 1.5
    camera(bench).zoom = zoom
    guidance.next.click()
    assert camera(bench).zoom == zoom


def test_without_a_result_there_is_nowhere_to_go_and_nothing_to_check(bench, guidance):
    for button in (guidance.next, guidance.check):
        bench.session.say("")
        button.click()
        assert "There is no result yet" in bench.session.status


def test_suspicious_scribbles_are_listed_framed_and_visited(mislabelled, guidance):
    bench = mislabelled
    guidance.check.click()
    bench.settle()
    assert guidance.label_issues.count() == 1
    assert "Painted as Class 2" in guidance.label_issues.item(0).text()
    marks = bench.viewer.layers[FRAMES]
    rows, columns = marks.data[0].T
    assert (rows.min(), rows.max()) == (26, 35)
    assert (columns.min(), columns.max()) == (16, 31)
    assert not guidance.relabel.isEnabled()
    guidance.label_issues.setCurrentRow(0)
    assert guidance.relabel.text() == "Relabel as Class 1"
    np.testing.assert_allclose(camera(bench).center[-2:], (3 + 30.5 / 2, 4 + 23.5 / 2))
    assert bench.viewer.layers.selection.active == bench.scribbles


@pytest.mark.parametrize(("button", "label"), [("relabel", 1), ("erase", 0)])
def test_a_suspicious_scribble_is_put_right_and_undo_brings_it_back(
    mislabelled, guidance, button, label
):
    bench = mislabelled
    guidance.check.click()
    bench.settle()
    guidance.label_issues.setCurrentRow(0)
    fingerprint = bench.session.current.result.fingerprint
    getattr(guidance, button).click()
    assert (bench.scribbles.data[30:32, 20:28] == label).all()
    assert FRAMES not in bench.names
    assert "No scribble contradicts" in guidance.checked.text()
    bench.settle()
    assert bench.session.current.result.fingerprint != fingerprint
    bench.scribbles.undo()
    bench.settle()
    assert (bench.scribbles.data[30:32, 20:28] == 2).all()
    assert bench.session.current.result.fingerprint == fingerprint


def test_marks_that_the_user_deleted_are_no_trouble(mislabelled, guidance):
    bench = mislabelled
    guidance.check.click()
    bench.settle()
    bench.viewer.layers.remove(FRAMES)
    guidance.label_issues.setCurrentRow(0)
    assert FRAMES in bench.names
    bench.viewer.layers.remove(FRAMES)
    guidance.erase.click()
    assert FRAMES not in bench.names


def test_after_closing_the_session_moves_nothing(bench, guide):
    bench.segment()
    bench.controller.close()
    former = camera(bench).center
    bench.session.guidance.find_uncertain_regions()
    assert guide.region is None
    assert camera(bench).center == former


def test_a_scribble_on_a_plane_is_found_framed_and_put_right(
    make_viewer, make_bench, image
):
    viewer = make_viewer()
    viewer.add_image(np.stack([image] * 3), axis_labels=("z", "y", "x"))
    bench = make_bench(viewer)
    bench.wait(lambda: bench.session.current is not None)
    labels = np.zeros((3, 64, 80), np.uint8)
    for row in (4, 20, 36, 52):
        labels[1, row : row + 4, 4:10], labels[1, row : row + 4, 66:72] = 1, 2
    labels[1, 30:32, 20:28] = 2
    viewer.dims.set_current_step(0, 1)
    bench.scribbles.data = labels
    bench.settle()
    bench.compute()
    bench.settle()
    bench.wait(lambda: bench.session.segmentation is not None)
    guidance = bench.widget.paint.guidance
    guidance.check.click()
    bench.settle()
    assert (bench.viewer.layers[FRAMES].data[0][:, 0] == 1).all()
    guidance.label_issues.setCurrentRow(0)
    np.testing.assert_allclose(camera(bench).center[-2:], (30.5, 23.5))
    guidance.relabel.click()
    labels[1, 30:32, 20:28] = 1
    np.testing.assert_array_equal(bench.scribbles.data, labels)


def test_other_scribbles_take_list_and_frames_away(mislabelled, guidance):
    bench = mislabelled
    guidance.check.click()
    bench.settle()
    assert not guidance.clear.isHidden()
    bench.paint((60,), (4, 5), 1)
    bench.settle()
    assert FRAMES not in bench.names
    assert guidance.label_issues.count() == 0
    assert guidance.clear.isHidden()


def test_list_and_frames_can_be_cleared(mislabelled, guidance):
    bench = mislabelled
    guidance.check.click()
    bench.settle()
    guidance.clear.click()
    assert FRAMES not in bench.names
    assert guidance.checked.isHidden()
    assert guidance.clear.isHidden()
