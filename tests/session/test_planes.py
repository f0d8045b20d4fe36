import threading

import numpy as np
import pytest

from napari_hrdv2.session import Session, compute
from napari_hrdv2.session.planes import (
    Plane,
    PlaneKey,
    axis_names,
    neighbours,
    text_of,
)


@pytest.mark.parametrize(
    "label", ["", " ", "-3", "0", "axis 0", "axis_-1", "dim 2", "Q"]
)
def test_a_label_that_says_nothing_is_no_name(label):
    assert axis_names((label,)) == (None,)


def test_letters_of_any_case_are_the_names_they_stand_for():
    labels = ("z", "time", "CH", "tilt")
    assert axis_names(labels) == ("Z", "T", "channel", "tilt")


def test_two_axes_cannot_have_one_name():
    assert axis_names(("Z", "depth")) == ("Z", None)


def test_a_key_tells_the_image_and_the_plane():
    key = PlaneKey("alloy", (12, 0))
    assert str(key) == "alloy/12,0"
    assert PlaneKey.parse("alloy/12,0") == key


def test_planes_lie_in_the_order_of_their_stack():
    keys = [PlaneKey("alloy", (place,)) for place in (10, 9)]
    assert sorted(keys) == keys[::-1]


def test_a_session_knows_an_image_by_its_key_or_by_what_is_written():
    session = Session()
    session.set_image(np.zeros((4, 4)), "alloy/3")
    assert session.images[PlaneKey("alloy", (3,))] is session.images["alloy/3"]


def test_a_key_of_an_image_is_its_own_id():
    for text in ("image", "a/b", "a/", str(PlaneKey("alloy"))):
        assert PlaneKey.parse(text) == PlaneKey(text)


def test_planes_ahead_end_where_the_stack_ends():
    assert neighbours((8,), (10,), step=1) == [(9,), (7,)]
    assert neighbours((0,), (1,)) == []
    assert neighbours((), ()) == []
    assert neighbours((3, 4), (9, 9), axis=1, step=-1) == [(3, 3), (3, 2), (3, 5)]


def test_a_plane_in_words():
    assert text_of({"Z": 3, "T": 0}) == "Z 3, T 0"


def test_a_plane_is_read_once_and_only_when_it_is_needed():
    reads = []

    def read():
        reads.append(threading.current_thread().name)
        return np.eye(3, 4)

    plane = Plane(read, (3, 4), np.float64)
    assert (plane.shape, plane.ndim, plane.size, len(plane)) == ((3, 4), 2, 12, 3)
    assert reads == []
    assert plane[1].tolist() == [0, 1, 0, 0]
    np.testing.assert_array_equal(np.asarray(plane), np.eye(3, 4))
    assert len(reads) == 1
    plane.forget()
    assert np.asarray(plane).sum() == 3
    assert len(reads) == 2


def test_a_plane_of_another_shape_than_was_said_is_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 2\) where \(3, 4\)"):
        np.asarray(Plane(lambda: np.eye(2), (3, 4), float))


def test_features_of_a_plane_read_it_while_they_are_computed(image):
    reads = []

    def read():
        reads.append(1)
        return image

    session = Session()
    session.set_image(Plane(read, image.shape, image.dtype), "stack/0", plane={"Z": 0})
    request = session.feature_request()
    assert reads == []
    session.accept(compute(request))
    assert reads == [1]
    assert session.features.shape[1:] == image.shape
