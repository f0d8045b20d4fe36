"""Features of an image of another exposure or focus, as if it had that of others."""

import numpy as np
import pytest
import torch

from napari_hrdv2.core.classifier.alignment import (
    LEAST_SHARE,
    MOST_SHIFT,
    MOST_STRETCH,
    Alignment,
)
from napari_hrdv2.core.features.tiles import LinearModel

CENTRES = torch.tensor([[-3.0, 0.0, 5.0], [3.0, 1.0, 5.0]])
MODEL = LinearModel(torch.tensor([[-2.0, 0, 0], [2.0, 0, 0]]), torch.zeros(2))
UNSURE = MODEL._replace(weight=0.3 * MODEL.weight)  # 0.97 for one class, 0.03 for both


def pixels(counts, seed=0):
    """Features of so many pixels of two classes; the last channel never varies."""
    noise = np.random.default_rng(seed).normal(0, 0.3, (sum(counts), 3))
    noise[:, 2] = 0
    centres = CENTRES.repeat_interleave(torch.tensor(counts), 0)
    return centres + torch.from_numpy(noise.astype(np.float32))


@pytest.mark.parametrize("model", [MODEL, UNSURE])
@pytest.mark.parametrize("counts", [(1000, 1000), (1800, 200), (2000, 0)])
def test_what_all_classes_share_is_found_whatever_their_fractions(counts, model):
    known, seen = pixels((1000, 1000)), pixels(counts, 1)
    shift, scale = torch.tensor([0.6, -0.3, 0.0]), torch.tensor([1.1, 0.9, 1.0])
    seen = (seen - known.mean(0)) * scale + shift + known.mean(0)
    alignment = Alignment.of(seen, known, model)
    assert torch.allclose(alignment.scale, scale, atol=0.06)
    assert torch.allclose(alignment.shift, shift, atol=0.15)


@pytest.mark.parametrize("model", [MODEL, UNSURE])
@pytest.mark.parametrize("counts", [(1900, 100), (2000, 0)])
def test_other_fractions_alone_are_no_change(counts, model):
    alignment = Alignment.of(pixels(counts, 1), pixels((600, 1400)), model)
    assert torch.allclose(alignment.scale, torch.ones(3), atol=0.06)
    assert torch.allclose(alignment.shift, torch.zeros(3), atol=0.1)


def test_a_large_change_is_limited():
    known = pixels((1000, 1000))
    alignment = Alignment.of(1.8 * pixels((1000, 1000), 1) + 3, known, MODEL)
    most = MOST_SHIFT * known.std(0)
    assert (alignment.shift.abs() <= most + 1e-6).all()
    assert alignment.shift[1] == pytest.approx(float(most[1]), rel=0.01)
    assert ((alignment.scale - 1).abs() <= MOST_STRETCH + 1e-6).all()
    assert alignment.scale[0] == pytest.approx(1 + MOST_STRETCH)


def test_a_few_pixels_of_another_spread_change_little():
    few = (pixels((0, 12), 2) - CENTRES[1]) * 3 + CENTRES[1]
    seen = torch.cat([pixels((1988, 0), 1), few])
    alignment = Alignment.of(seen, pixels((1000, 1000)), MODEL)
    assert torch.allclose(alignment.scale, torch.ones(3), atol=0.1)
    assert torch.allclose(alignment.shift, torch.zeros(3), atol=0.15)


def test_a_class_of_too_few_pixels_tells_nothing():
    known = pixels((1000, 1000))
    few = int(LEAST_SHARE * 1000) - 1
    seen = torch.cat([pixels((1000 - few, 0), 1), pixels((0, few), 2) + 1])
    found = Alignment.of(seen, known, MODEL)
    without = Alignment.of(pixels((1000 - few, 0), 1), known, MODEL)
    assert torch.allclose(found.shift, without.shift, atol=1e-5)
    more = torch.cat([seen, pixels((0, 100), 3) + 1])
    assert not torch.allclose(
        Alignment.of(more, known, MODEL).shift, without.shift, atol=0.1
    )


@pytest.mark.parametrize("seen", [torch.empty(0, 3), torch.zeros(50, 3)])
def test_where_nothing_is_sure_nothing_is_changed(seen):
    alignment = Alignment.of(seen, pixels((1000, 1000)), MODEL)
    assert torch.equal(alignment.shift, torch.zeros(3))
    assert torch.equal(alignment.scale, torch.ones(3))


def test_a_model_of_aligned_features_reads_features_as_they_are():
    alignment = Alignment(
        torch.tensor([5.0, 3.0, -1.0]),
        torch.tensor([1.0, -2.0, 0.5]),
        torch.tensor([2.0, 0.5, 1.0]),
    )
    features = pixels((20, 30))
    aligned = MODEL.probabilities(alignment(features))
    direct = alignment.model_of(MODEL).probabilities(features)
    assert torch.allclose(aligned, direct, atol=1e-5)
