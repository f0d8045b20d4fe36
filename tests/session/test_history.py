from types import SimpleNamespace

import numpy as np
import pytest

from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.session import classifier as module
from napari_hrdv2.session.classifier import ClassifierState


@pytest.fixture
def remembered():
    """Return what is remembered of fits to scribbles that came in this order."""

    def remember(*fingerprints):
        state = ClassifierState()
        for value, fingerprint in enumerate(fingerprints):
            classifier = PixelClassifier()
            classifier.classes = np.array([1, 2])
            classifier.weight = np.full((2, 3), value, np.float32)
            state._use(classifier, fingerprint, SimpleNamespace(options=None))
        return {key: one.weight[0, 0] for key, one in state._fits.items()}

    return remember


def test_fits_are_found_by_their_scribbles(remembered):
    assert remembered(b"one", b"two") == {b"one": 0, b"two": 1}


def test_the_oldest_fit_goes_first(remembered, monkeypatch):
    monkeypatch.setattr(module, "_REMEMBERED", 2)
    assert remembered(b"one", b"two", b"one", b"three") == {b"one": 2, b"three": 3}
