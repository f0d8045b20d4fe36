import weakref
from types import SimpleNamespace

import numpy as np
import pytest

from napari_hrdv2.core.classifier.background import BackgroundSample
from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.session import classifier as module
from napari_hrdv2.session.classifier import ClassifierState


@pytest.fixture
def state():
    return ClassifierState()


@pytest.fixture
def remember(state):
    """Return a function that puts fits to scribbles in order, and says what is kept."""

    def remember(*fingerprints):
        for value, fingerprint in enumerate(fingerprints):
            classifier = PixelClassifier()
            classifier.classes = np.array([1, 2])
            classifier.weight = np.full((2, 3), value, np.float32)
            classifier._background = BackgroundSample(*[np.zeros(3)] * 5)
            state._use(classifier, fingerprint, SimpleNamespace(options=None))
        return {key: one.weight[0, 0] for key, one in state._fits.items()}

    return remember


def test_fits_are_found_by_their_scribbles(remember):
    assert remember(b"one", b"two") == {b"one": 0, b"two": 1}


def test_the_oldest_fit_goes_first(remember, monkeypatch):
    monkeypatch.setattr(module, "_REMEMBERED", 2)
    assert remember(b"one", b"two", b"one", b"three") == {b"one": 2, b"three": 3}


def test_no_fit_but_the_last_keeps_a_background_sample(state, remember):
    remember(b"one")
    gone = weakref.ref(state.classifier._background)
    remember(b"two")
    assert gone() is None
    assert state._remembered(b"one")._background is state.classifier._background
