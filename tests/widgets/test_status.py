"""The status says what is going on, and why something does not."""

from dataclasses import replace

import numpy as np
import pytest

from napari_hrdv2.core.errors import WeightsError
from napari_hrdv2.core.features.cost import Cost
from widgets.desk import Desk, stack_of


@pytest.fixture
def told(monkeypatch):
    """What napari would have shown as notifications."""
    told = []
    monkeypatch.setattr("napari_hrdv2.widgets.jobs.show_error", told.append)
    return told


@pytest.fixture
def desk(qtbot, told, preferences, monkeypatch):
    """Features are computed without being asked for."""
    monkeypatch.setattr(
        "napari_hrdv2.widgets.controller.read_preferences",
        lambda: replace(preferences, start_features=True),
    )
    desk = Desk(qtbot)
    desk.session.configure(backbone="embedded")
    yield desk
    desk.controller.close()


def test_features_being_computed_are_not_asked_for(desk, image, endless):
    desk.viewer.add_image(image, name="one")
    desk.wait(lambda: desk.controller.is_computing)
    desk.link.flush()
    assert desk.session.status == "Computing features; you can paint meanwhile."
    desk.controller.cancel()
    desk.wait(lambda: not desk.controller.is_busy)
    assert desk.session.status.startswith("Cancelled. Press Compute features")


def test_that_features_are_ready_is_said_and_stays(desk, image):
    desk.viewer.add_image(image, name="one")
    desk.settle()
    told = "Features are ready. Paint a few scribbles of each class."
    assert desk.session.status == told
    desk.link.flush()
    assert desk.session.status == told


def test_another_backbone_says_what_is_computed_and_what_is_shown(desk, image, endless):
    desk.viewer.add_image(image, name="one")
    desk.wait(lambda: desk.controller.is_computing)
    desk.session.current.set_features(np.zeros((1, 64, 80)), desk.session.options)
    desk.session.drop_request()
    desk.controller.cancel()
    desk.wait(lambda: not desk.controller.is_busy)
    desk.session.configure(backbone="filters")
    desk.wait(lambda: desk.controller.is_computing)
    assert desk.session.status == (
        "Computing features by filters; until then the features are from embedded."
    )


def test_a_refusal_is_one_sentence_that_stays(desk, image, told, monkeypatch):
    def refuse(*_, **__):
        raise WeightsError("no network; give weights= its path, or go on without")

    monkeypatch.setattr("napari_hrdv2.core.backbones.load_backbone", refuse)
    desk.viewer.add_image(image, name="one")
    desk.settle()
    sentence = (
        "no network; choose it by Weights file… under More choices, or go on without"
    )
    assert desk.session.status == sentence
    desk.paint((10,), (10, 20), 1)
    assert desk.session.status == sentence
    assert told == []
    monkeypatch.undo()
    desk.session.configure(backbone="filters")
    desk.settle()
    assert sentence not in desk.session.status


def test_a_fault_of_ours_is_also_notified(desk, image, told, monkeypatch):
    def fail(*_, **__):
        raise KeyError("lost")

    monkeypatch.setattr("napari_hrdv2.core.backbones.load_backbone", fail)
    desk.viewer.add_image(image, name="one")
    desk.settle()
    assert "Unexpected error" in desk.session.status
    assert len(told) == 1


def test_an_image_too_large_says_so_at_once(desk, image, told, monkeypatch):
    monkeypatch.setattr(
        "napari_hrdv2.core.devices.available_memory", lambda device: 1_000_000
    )
    desk.viewer.add_image(image, name="one")
    desk.settle()
    assert desk.session.status.startswith("These features need")
    assert "1 MB are free: choose" in desk.session.status
    assert "Press Compute" not in desk.session.status
    desk.controller.compute_features()
    desk.settle()
    assert desk.session.status.startswith("These features need")
    assert told == []


def test_what_is_too_large_says_what_helps():
    cost = Cost(1, 10, 2 * 10**9, 10**9)
    assert cost.refusal().endswith("choose a smaller backbone or crop the image.")


def test_a_neighbour_that_cannot_be_read_is_not_told_of(desk, image, told):
    import dask.array

    def read(plane, block_info):
        if block_info[None]["chunk-location"][0] == 2:
            raise ValueError("plane 2 is damaged")
        return plane

    stack = dask.array.from_array(stack_of(image, 3), chunks=(1, -1, -1))
    said = []
    desk.session.status_changed.connect(said.append)
    broken = stack.map_blocks(read, dtype=stack.dtype, meta=np.empty(0, np.uint8))
    desk.viewer.add_image(
        broken, name="stack", axis_labels=("z", "y", "x"), contrast_limits=(0, 255)
    )
    desk.settle()
    assert desk.session.current.key.plane == (1,)
    assert told == []
    assert not any("damaged" in text for text in said)
