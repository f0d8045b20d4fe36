import weakref

import numpy as np

from napari_hrdv2.core.classifier.background import BackgroundSample
from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.session.classifier import FitHistory


def fitted(value):
    classifier = PixelClassifier()
    classifier.classes = np.array([1, 2])
    classifier.weight = np.full((2, 3), value, np.float32)
    return classifier


def test_fits_are_found_by_their_scribbles():
    history = FitHistory()
    history.put(b"one", fitted(1))
    history.put(b"two", fitted(2))
    assert history.get(b"one").weight[0, 0] == 1
    assert history.get(b"three") is None


def test_no_fit_but_the_last_keeps_a_background_sample():
    history, classifiers = FitHistory(), [fitted(1), fitted(2)]
    for name, classifier in zip((b"one", b"two"), classifiers, strict=True):
        classifier._background = BackgroundSample(*[np.zeros(3)] * 4)
        history.put(name, classifier)
    gone = weakref.ref(classifiers[0]._background)
    last = classifiers[1]._background
    del classifier, classifiers
    assert gone() is None
    assert history.get(b"one")._background is last


def test_the_oldest_fit_goes_first():
    history = FitHistory(limit=2)
    for name in (b"one", b"two", b"one", b"three"):
        history.put(name, fitted(1))
    assert history.get(b"two") is None
    assert history.get(b"one") is not None
