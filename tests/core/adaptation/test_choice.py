"""Scores on scribbles that were left out."""

from __future__ import annotations

import numpy as np
import pytest

from napari_hrdv2 import PixelClassifier, compute_features, load_backbone
from napari_hrdv2.core.adaptation.choice import score_on_scribbles
from napari_hrdv2.core.classifier.cross_validation import leave_one_image_out
from napari_hrdv2.core.measure.scores import mean_iou

SHAPE = (50, 61)


def world(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image of two phases, and four scribbles."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 1.5, SHAPE)
    image[:, 30:] += 2
    image = np.clip(100 + 20 * image, 0, 255).astype(np.uint8)
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[5:8, 4:38], drawn[40:43, 4:20] = 1, 1  # the first goes too far
    drawn[5:8, 40:55], drawn[40:43, 40:55] = 2, 2
    return image, drawn


def features_of(*images: np.ndarray) -> list:
    """Features that take no network."""
    backbone = load_backbone("filters")
    return [compute_features(image, backbone) for image in images]


def test_scores_are_those_of_fits_without_what_is_scored() -> None:
    images, labels = zip(*map(world, range(2)), strict=True)
    features = features_of(*images)
    found = score_on_scribbles(features, labels)
    own = []
    for made, drawn in zip(features, labels, strict=True):
        upper = np.where(np.arange(SHAPE[0])[:, None] < 25, drawn, 0)
        lower = drawn - upper
        for training, truth in ((upper, lower), (lower, upper)):
            model = PixelClassifier().fit(made, training)
            where = truth > 0
            own.append(mean_iou(truth[where], model.predict(made)[where], [1, 2]))
    assert found.own == pytest.approx(np.mean(own))
    others = [each.miou for each in leave_one_image_out(features, labels)]
    assert found.others == pytest.approx(np.mean(others))
    assert 0.3 < found.own < 0.99


def test_a_class_with_one_scribble_trains_and_is_not_scored() -> None:
    image, drawn = world(0)
    drawn[5:8, 40:55] = 0
    features = features_of(image)
    found = score_on_scribbles(features, [drawn])
    assert 0.3 < found.own <= 1
    assert np.isnan(found.others)
    drawn[5:8, 4:38] = 0  # one of each
    assert np.isnan(score_on_scribbles(features, [drawn]).mean)
    drawn[drawn == 2] = 0  # one class
    assert np.isnan(score_on_scribbles(features, [drawn]).mean)


def test_grey_and_coloured_images_do_not_predict_each_other() -> None:
    (grey, drawn), (colour, other) = world(0), world(1)
    colour = np.stack([colour] * 2 + [255 - colour], -1)
    found = score_on_scribbles(features_of(grey, colour), [drawn, other])
    assert np.isnan(found.others)
    assert found.own > 0.3
