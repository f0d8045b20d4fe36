import numpy as np
import pytest
import tifffile

from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.session import Session
from napari_hrdv2.session.batch import scribbles_with
from napari_hrdv2.session.planes import PlaneKey
from napari_hrdv2.session.project.format import Fingerprints
from napari_hrdv2.session.project.opening import Stack, open_project
from napari_hrdv2.session.project.snapshot import project_of
from napari_hrdv2.session.project.store import save_project
from napari_hrdv2.session.tasks import TaskContext
from saved_projects import written


@pytest.fixture
def source(tmp_path, image):
    path = tmp_path / "alloy.tif"
    tifffile.imwrite(path, image)
    return path


@pytest.fixture
def opened(session, labels, tmp_path, source):
    """Return a function that opens a project that has no image in it."""
    session.current.source = str(source)
    session.set_scribbles(labels)
    path = tmp_path / "alloy.hrdv2"
    save_project(project_of(session), path, with_images=False)

    def opens(images=(), **options):
        return open_project(path, tuple(images), (), Fingerprints(), **options)

    return opens


def test_the_file_of_an_image_is_read(opened, image):
    found = opened()
    np.testing.assert_array_equal(found.images[PlaneKey("image")], image)
    assert (found.keys, found.missing, found.altered) == ({}, (), ())


def test_an_image_that_is_open_is_not_read_again(opened, session):
    found = opened(session.images.values())
    assert (written(found.keys), found.images) == ({"image": "image"}, {})


def test_a_file_with_other_pixels_is_named(opened, source, image):
    tifffile.imwrite(source, image + 1)
    found = opened()
    assert found.altered == ("image",)
    np.testing.assert_array_equal(found.images[PlaneKey("image")], image + 1)


def test_a_file_of_another_size_is_missing(opened, source, image):
    tifffile.imwrite(source, image[:20])
    assert [str(saved.key) for saved in opened().missing] == ["image"]


def test_what_is_missing_or_other_is_told_and_a_part_can_be_taken(
    opened, source, image
):
    tifffile.imwrite(source, image + 1)
    assert opened().notes() == ["image holds other pixels than then."]
    source.unlink()
    found = opened()
    told = f"Not found: {source}; press Locate… to say in which folder to look."
    assert found.notes() == [told]
    assert found.only(set()).project.images == ()


def test_images_are_found_in_a_folder_by_their_pixels(opened, source, tmp_path, image):
    source.unlink()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.tif").write_bytes(b"II*\0")
    tifffile.imwrite(tmp_path / "in" / "other.tif", image + 1)
    tifffile.imwrite(tmp_path / "in" / "moved.tif", image)
    found = opened(folder=tmp_path / "in")
    np.testing.assert_array_equal(found.images[PlaneKey("image")], image)
    assert found.altered == ()


def test_autosaves_read_no_images(opened):
    found = opened(reads_images=False)
    assert (found.images, found.missing) == ({}, ())


def test_a_plane_is_found_in_an_open_stack(image, labels, tmp_path):
    session, stack = Session(), np.stack([image, image[::-1]])
    session.set_image(stack[1], "old/1", plane={"Z": 1})
    session.set_scribbles(labels)
    path = save_project(project_of(session), tmp_path / "a", with_images=False)
    for data, keys in ((stack, {"old/1": "new/1"}), (stack[::-1], {}), (stack[:1], {})):
        there = Stack("new", (len(data),), lambda index, data=data: data[index])
        found = open_project(path, (), (there,), Fingerprints())
        assert written(found.keys) == keys
        assert len(found.missing) == 1 - len(keys)


def test_opening_can_be_cancelled(opened):
    with pytest.raises(Cancelled):
        opened(context=TaskContext(should_stop=lambda: True))


def test_labels_without_names_go_by_number_and_leave_scribbles_where_they_are_0(
    session, labels
):
    session.set_scribbles(labels)
    new = np.zeros_like(labels)
    new[0, :3], new[5, 4] = 7, 2
    scribbles = scribbles_with(session.images, session.classes, "image", new)
    assert scribbles[0, :3].tolist() == [7, 7, 7]
    assert scribbles[5, 4:7].tolist() == [2, 1, 1]


def test_names_of_labels_are_taken_over_where_nothing_is_painted(session, labels):
    scribbles = scribbles_with(
        session.images,
        session.classes,
        "image",
        labels,
        names={1: "pore"},
        colors={1: "#123456"},
    )
    np.testing.assert_array_equal(scribbles, labels)
    assert session.classes[1].name == "pore"
    assert session.classes[1].color == "#123456"


@pytest.mark.parametrize(
    ("labels", "error"),
    [
        (np.ones((3, 4), int), "shape \\(3, 4\\) is not that of the image"),
        (np.zeros((40, 48), int), "nothing is painted"),
        (np.arange(40 * 48).reshape(40, 48), "objects rather than classes"),
        (np.full((40, 48), -1), "objects rather than classes"),
    ],
)
def test_labels_that_are_no_scribbles_are_refused(session, labels, error):
    with pytest.raises(ValueError, match=error):
        scribbles_with(session.images, session.classes, "image", labels)
