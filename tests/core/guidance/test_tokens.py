"""Saliency of tokens, and correspondences between two images."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

import napari_hrdv2 as hr
from napari_hrdv2 import HighResFeatures
from napari_hrdv2.core.backbones.spit.backbone import SpitBackbone, random_weights
from napari_hrdv2.core.classifier.background import PLAIN_WHITENING, PCACoordinates
from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.core.features.superpixels import SuperpixelFeatures
from napari_hrdv2.core.features.transforms import parse_transforms
from napari_hrdv2.core.guidance import tokens as module
from napari_hrdv2.core.guidance.attention import region_labels
from napari_hrdv2.core.guidance.tokens import (
    METHODS,
    correspondences,
    normalised_cut,
    token_saliency,
)
from small_networks import SPIT

CUT, COMPONENT = METHODS


def unit(points: np.ndarray) -> np.ndarray:
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def dense_cut(directions: np.ndarray) -> np.ndarray:
    """TokenCut's bipartition, as it is written: a generalised dense problem."""
    count = len(directions)
    graph = np.array(
        [
            [1 if one @ other > 0.2 else 1e-5 for other in directions]
            for one in directions
        ]
    )
    degrees = np.diag(graph.sum(1))
    return scipy.linalg.eigh(
        degrees - graph, degrees, subset_by_index=[1, min(2, count - 1)]
    )[1][:, 0]


@pytest.mark.parametrize("count", [2, 3, 7, 31, 33, 90])
def test_the_cut_solves_the_generalised_problem(count: int) -> None:
    rng = np.random.default_rng(count)
    points = rng.normal(size=(count, 5))
    points[:, 0] += np.where(np.arange(count) <= count // 3, 3, -1)
    directions = unit(points)
    found, slow = normalised_cut(directions), dense_cut(directions)
    cosine = found @ slow / np.linalg.norm(found) / np.linalg.norm(slow)
    assert abs(cosine) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("directions", [np.zeros((9, 3)), np.ones((1, 3)), np.eye(0)])
def test_what_is_joined_alike_is_not_cut(directions: np.ndarray) -> None:
    assert normalised_cut(directions).tolist() == [0] * len(directions)


def spit_features(shape: tuple[int, int], seed: int = 0) -> SuperpixelFeatures:
    image = np.random.default_rng(seed).random(shape, np.float32)
    image[: shape[0] // 2] *= 0.3
    spit = SpitBackbone("spit-tiny", SPIT, random_weights(SPIT))
    return hr.compute_features(image, spit, "identity", value_range=(0, 1))


def plain_points(features, vectors: np.ndarray) -> np.ndarray:
    """Vectors in the coordinates of a plain fit, written out."""
    rows = features.samples.background(2000)
    coordinates = PCACoordinates.of(torch.from_numpy(rows), None)
    deviation = rows.std(0)
    deviation[deviation < 1e-6] = 1
    scaled = (vectors - rows.mean(0)) / deviation
    stretch = coordinates.variances.numpy() ** (-PLAIN_WHITENING / 2)
    return scaled @ coordinates.directions.numpy() * stretch


def scaled_map(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if -values.min() > values.max():
        values = -values
    return ((values - values.min()) / np.ptp(values))[labels]


@pytest.mark.parametrize("shape", [(70, 83), (64, 48)])
def test_saliency_of_regions_equals_a_plain_restatement(shape) -> None:
    features = spit_features(shape)
    labels = region_labels(features) - 1
    vectors = features.tokens.float().numpy()  # one for each region
    points = plain_points(features, vectors)
    cut = scaled_map(dense_cut(unit(points)), labels)
    np.testing.assert_allclose(token_saliency(features, CUT), cut, atol=1e-3)
    centred = points - points.mean(0)
    first = centred @ np.linalg.svd(centred)[2][0]
    component = token_saliency(features, COMPONENT)
    np.testing.assert_allclose(component, scaled_map(first, labels), atol=1e-3)
    assert component.shape == shape
    assert component.dtype == np.float32


def bright_square(shape, top: int, left: int, seed: int = 0) -> HighResFeatures:
    """Features that differ in a square of 32 px from the rest."""
    rng = np.random.default_rng(seed)
    planes = rng.normal(0, 0.1, (3, *shape))
    planes[1:, top : top + 32, left : left + 32] += 3
    tokens = np.moveaxis(planes, 0, -1).astype(np.float32)[None]
    return HighResFeatures(tokens, "identity", shape, 1, 1)


@pytest.mark.parametrize("method", METHODS)
def test_any_backbone_has_tokens_and_the_odd_ones_stand_out(method: str) -> None:
    features = bright_square((101, 119), 32, 48)
    found = token_saliency(features, method)
    inside = found[32:64, 48:80].min()
    found[32:64, 48:80] = 0
    assert found.max() < 0.8 * inside


@pytest.mark.parametrize("method", METHODS)
def test_excluded_and_nan_tokens_do_not_stand_out(method: str) -> None:
    features = bright_square((101, 119), 32, 48)
    dense = np.moveaxis(features.materialize(), 0, -1)[None].copy()
    dense[0, 80:96] = 1000.0
    dense[0, :16, :16] = np.nan
    spoilt = HighResFeatures(dense, "identity", (101, 119), 1, 1)
    mask = np.zeros((101, 119), bool)
    mask[80:96] = True
    found = token_saliency(spoilt, method, exclusion=mask)
    assert not found[80:96].any()
    assert not found[:16, :16].any()
    inside = found[32:64, 48:80].min()
    found[32:64, 48:80] = 0
    assert found.max() < inside


@pytest.mark.parametrize("method", METHODS)
def test_nothing_stands_out_of_what_is_all_alike(method: str) -> None:
    flat = HighResFeatures(
        np.full((1, 40, 50, 3), 0.3, np.float32), "identity", (40, 50), 1, 1
    )
    assert not token_saliency(flat, method).any()
    one = SuperpixelFeatures(
        [torch.ones(1, 3)],
        [torch.zeros(9, 12, dtype=torch.long)],
        parse_transforms("identity", 1),
    )
    assert token_saliency(one, method).shape == (9, 12)
    assert not token_saliency(one, method).any()


def test_too_many_tokens_become_larger_squares_or_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(module, "MOST_TOKENS", 12)
    found = token_saliency(bright_square((101, 119), 32, 48))
    assert len(np.unique(found[::48, ::48])) > 1
    assert np.ptp(found[:32, :32]) == 0
    regions = spit_features((70, 83))
    with pytest.raises(ValueError, match="regions are too many to compare"):
        token_saliency(regions)
    with pytest.raises(ValueError, match="method: 'cut' is unknown; use normalised"):
        token_saliency(regions, "cut")
    with pytest.raises(Cancelled, match="the saliency was cancelled"):
        token_saliency(bright_square((30, 30), 0, 0), should_stop=lambda: True)


def test_pairs_are_the_nearest_of_each_other() -> None:
    rng = np.random.default_rng(5)
    many = []
    for shape in ((101, 119), (66, 150)):
        planes = rng.normal(size=(4, *shape)).astype(np.float32)
        tokens = np.moveaxis(planes, 0, -1)[None]
        many.append(HighResFeatures(tokens, "identity", shape, 1, 1))
    found = correspondences(many, count=200)

    rows = np.concatenate([one.samples.background(1000) for one in many])
    coordinates = PCACoordinates.of(torch.from_numpy(rows), None)
    stretch = coordinates.variances.numpy() ** (-PLAIN_WHITENING / 2)
    points, places = [], []
    for one in many:
        height, width = one.shape[1:]
        middles = [
            (
                min(16 * i + 15, height - 1) + 16 * i,
                min(16 * j + 15, width - 1) + 16 * j,
            )
            for i in range(-(-height // 16))
            for j in range(-(-width // 16))
        ]
        places.append([(y // 2, x // 2) for y, x in middles])
        vectors = one.sample(*np.transpose(places[-1]))
        scaled = (vectors - rows.mean(0)) / rows.std(0)
        points.append(unit(scaled @ coordinates.directions.numpy() * stretch))
    cosines = points[0] @ points[1].T
    slow = {}
    for i, row in enumerate(cosines):
        j = int(row.argmax())
        if cosines[:, j].argmax() == i:
            slow[(*places[0][i], *places[1][j])] = row[j]
    assert {pair[:4] for pair in found} == set(slow)
    values = [pair.similarity for pair in found]
    assert values == sorted(values, reverse=True)
    for pair in found:
        assert pair.similarity == pytest.approx(slow[pair[:4]], abs=1e-4)
    few = correspondences(many, count=5)
    assert len(few) == 5
    assert few[0] == found[0]
    assert set(few) < set(found)


def test_the_odd_squares_of_two_images_correspond() -> None:
    many = [bright_square((101, 119), 32, 48), bright_square((120, 90), 64, 16, 1)]
    odd = [
        pair
        for pair in correspondences(many, count=40)
        if 32 <= pair.row < 64 and 48 <= pair.column < 80
    ]
    assert odd
    assert all(64 <= pair.other_row < 96 for pair in odd)
    assert all(16 <= pair.other_column < 48 for pair in odd)


def test_regions_of_two_images_correspond_outside_of_the_exclusion_mask() -> None:
    many = [spit_features((70, 83)), spit_features((64, 48), 1)]
    mask = np.zeros((70, 83), bool)
    mask[:, :40] = True
    found = correspondences(many, exclusion=[mask, None])
    assert 0 < len(found) <= 10
    assert all(pair.column >= 40 for pair in found)
    flat = HighResFeatures(
        np.full((1, 40, 50, 3), 0.3, np.float32), "identity", (40, 50), 1, 1
    )
    assert correspondences([flat, flat]) == []
    with pytest.raises(ValueError, match="features: of 1 images; give those of two"):
        correspondences(many[:1])
