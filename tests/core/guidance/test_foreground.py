"""Foreground masks: of the first principal component, and of attention."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.morphology import disk

import napari_hrdv2 as hr
from napari_hrdv2 import HighResFeatures
from napari_hrdv2.core.backbones.vit.backbone import ViTBackbone
from napari_hrdv2.core.backbones.vit.weights import random_weights
from napari_hrdv2.core.classifier.clusters import find_clusters
from napari_hrdv2.core.guidance.attention import attention_maps
from napari_hrdv2.core.guidance.foreground import (
    PARTS,
    attention_foreground,
    entropy_of,
    principal_foreground,
)
from small_networks import VIT


def features_of(*planes: np.ndarray) -> HighResFeatures:
    """Features that are these planes, pixel by pixel."""
    tokens = np.stack(planes, -1).astype(np.float32)[None]
    return HighResFeatures(tokens, "identity", planes[0].shape, 1, 1)


def textured(shape: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Grey levels of an even and a textured part, and where the latter is."""
    rng = np.random.default_rng(seed)
    inside = np.zeros(shape, bool)
    inside[shape[0] // 4 :, : shape[1] // 2] = True
    levels = rng.integers(0, 256, shape)
    return np.where(inside, levels, 100).astype(np.uint8), inside


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("shape", [(45, 61), (64, 64)])
def test_the_foreground_is_the_half_that_shows_more(shape, sign) -> None:
    image, inside = textured(shape)
    rng = np.random.default_rng(1)
    first = sign * inside + 0.1 * rng.normal(size=shape)
    features = features_of(first, 2 * first, rng.normal(size=shape) / 9)
    mask = principal_foreground([features], [image]).predict(features)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, inside)


def test_it_is_the_sign_of_the_first_component_about_the_mean() -> None:
    rng = np.random.default_rng(2)
    shapes = (37, 53), (22, 41)
    images = [rng.integers(0, 256, (*one, 3)).astype(np.uint8) for one in shapes]
    many = [features_of(*rng.normal(size=(4, *one)) * 2) for one in shapes]
    found = principal_foreground(many, images)
    rows = np.concatenate([one.samples.background(1000) for one in many])
    scaled = (rows - rows.mean(0)) / rows.std(0)
    axis = np.linalg.eigh(scaled.T @ scaled)[1][:, -1]
    dense = [one.materialize().reshape(4, -1).T for one in many]
    values = [(one - rows.mean(0)) / rows.std(0) @ axis for one in dense]
    sides = np.concatenate(values) > 0
    entropy = np.concatenate([entropy_of(one).ravel() for one in images])
    starts = 0, 37 * 53
    seen = np.concatenate(
        [one.background_pixels(1000) + n for one, n in zip(many, starts, strict=True)]
    )
    chosen, above = entropy[seen], sides[seen]
    if chosen[~above].mean() > chosen[above].mean():
        sides = ~sides
    ours = np.concatenate([found.predict(one).ravel() for one in many])
    assert (ours == sides).mean() > 0.999  # of values next to 0 rounding decides


def test_entropy_is_that_of_the_levels_in_a_disc() -> None:
    image, _ = textured((31, 44))
    found = entropy_of(image)
    import torch

    from napari_hrdv2.core.postprocess.guides import guide_from

    levels = guide_from(torch.from_numpy(image)[None].float())[0].numpy()
    inside = disk(10).astype(bool)
    for row, column in ((15, 20), (0, 0), (30, 17)):
        window = np.pad(levels.astype(int), 10, constant_values=-1)
        seen = window[row : row + 21, column : column + 21][inside]
        shares = np.unique(seen[seen >= 0], return_counts=True)[1]
        shares = shares / shares.sum()
        slow = -(shares * np.log2(shares)).sum()
        assert found[row, column] == pytest.approx(slow, abs=1e-5)
    assert not entropy_of(np.full((12, 15), 7.0)).any()
    holes = image.astype(float)
    holes[:2] = np.nan
    assert np.isfinite(entropy_of(holes)).all()


def test_excluded_and_missing_pixels_do_not_decide() -> None:
    image, inside = textured((45, 61))
    rng = np.random.default_rng(3)
    first = inside + 0.1 * rng.normal(size=inside.shape)
    image[:, -12:] = rng.integers(0, 256, (45, 12))  # a texture that does not count
    mask = np.zeros(inside.shape, bool)
    mask[:, -23:] = True
    first[3, 4] = np.nan
    features = features_of(first, first)
    found = principal_foreground([features], [image], exclusion=[mask])
    seen = ~mask
    seen[3, 4] = False
    predicted = found.predict(features)
    np.testing.assert_array_equal(predicted[seen], inside[seen])
    assert predicted[3, 4] == 0


def test_a_constant_image_has_no_foreground() -> None:
    flat = np.full((20, 31), 0.3)
    features = features_of(flat, flat)
    found = principal_foreground([features], [flat])
    assert len(np.unique(found.predict(features))) == 1
    attention = np.ones((2, 20, 31), np.float32)
    assert not attention_foreground(features, attention).any()


def test_what_is_looked_at_more_than_the_mean_cluster_is_foreground() -> None:
    rng = np.random.default_rng(4)
    features = features_of(*rng.normal(size=(3, 37, 53)))
    attention = rng.random((2, 37, 53), np.float32) ** 3
    exclusion = rng.random((37, 53)) < 0.2
    attention[:, 5, 6] = np.nan
    mask = attention_foreground(features, attention, exclusion=exclusion)
    labels = find_clusters(features, PARTS, exclusion=[exclusion]).predict(features)
    kept = ~exclusion & np.isfinite(attention[0])
    total = attention.astype(float).sum(0)
    density = {i: total[kept & (labels == i)].mean() for i in np.unique(labels[kept])}
    mean = np.mean(list(density.values()))
    slow = [[density.get(i, 0) > mean for i in row] for row in labels]
    np.testing.assert_array_equal(mask, slow & kept)
    assert not attention_foreground(features, np.full_like(attention, np.nan)).any()


def test_a_small_network_has_a_foreground_of_both_kinds() -> None:
    image, _ = textured((50, 67))
    vit = ViTBackbone("tiny", VIT, random_weights(VIT))
    features = hr.compute_features(image, vit, "identity")
    mask = principal_foreground([features], [image]).predict(features)
    assert set(np.unique(mask)) == {0, 1}
    looked = attention_foreground(features, attention_maps(image, vit, "identity"))
    assert looked.shape == image.shape
    assert 0 < looked.mean() < 1
