"""The factored features equal the dense map in every way of reading them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from napari_hrdv2 import HighResFeatures
from napari_hrdv2.core.features import JoinedFeatures
from napari_hrdv2.core.interpolation import padded_length
from napari_hrdv2.core.transforms import parse_transforms

RNG = np.random.default_rng(0)


def random_features(
    spec, shape=(45, 71), patch_size=14, stride=14, channels=5, dtype=None, **options
):
    grid = [1 + (padded_length(n, patch_size, stride) - patch_size) // stride
            for n in shape]  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    tokens = [
        torch.randn(
            *(grid[::-1] if transform.transpose else grid),
            channels,
            generator=generator,
        ).to(dtype or torch.float32)
        for transform in parse_transforms(spec, stride).transforms
    ]
    features = HighResFeatures(tokens, spec, shape, patch_size, stride, **options)
    return features, tokens


def dense_map(tokens, spec, shape, patch_size):
    """The definition, step by step, for patches side by side."""
    total = 0.0
    chosen = parse_transforms(spec, patch_size)
    for grid, transform, weight in zip(
        tokens, chosen.transforms, chosen.weights, strict=True
    ):
        size = [patch_size * n for n in grid.shape[:2]]
        image = interpolate(grid.movedim(2, 0)[None], size=size, mode="bilinear")[0]
        if transform.flip_columns:
            image = image.flip(2)
        if transform.flip_rows:
            image = image.flip(1)
        if transform.transpose:
            image = image.transpose(1, 2)
        shift = (-transform.row_shift, -transform.column_shift)
        total = total + weight * torch.roll(image, shift, (1, 2))
    return total[:, : shape[0], : shape[1]].numpy()


SPECS = ["identity", "shift:1,2", "lattice:3", "flip", "rotate", "shift:5*rotate*flip"]


@pytest.mark.parametrize("spec", SPECS)
def test_the_map_is_the_average_of_upsampled_and_inverted_tokens(spec):
    features, tokens = random_features(spec)
    expected = dense_map(tokens, spec, (45, 71), 14)
    np.testing.assert_allclose(features.materialize(), expected, atol=1e-5)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("boundary", ["periodic", "reflect"])
@pytest.mark.parametrize(("patch_size", "stride"), [(14, 14), (14, 5), (8, 1), (1, 1)])
@pytest.mark.parametrize("spec", ["shift:1,2", "lattice:2*rotate"])
def test_readouts_commute_with_upsampling(
    spec, patch_size, stride, boundary, interpolation
):
    features, _ = random_features(
        spec, (23, 31), patch_size, stride,
        boundary=boundary, interpolation=interpolation,
    )  # fmt: skip
    dense = features.materialize()
    weight, bias = RNG.standard_normal((3, 5)), RNG.standard_normal(3)
    planes = np.einsum("kc,chw->khw", weight, dense) + bias[:, None, None]
    np.testing.assert_allclose(features.project(weight, bias), planes, atol=2e-5)
    assert np.array_equal(features.argmax(weight, bias), planes.argmax(0))
    rows, columns = RNG.integers(0, 23, 40), RNG.integers(0, 31, 40)
    expected = dense[:, rows, columns].T
    np.testing.assert_allclose(features.sample(rows, columns), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_tokens_are_summed_in_float32(dtype):
    features, tokens = random_features("shift:1,2", dtype=dtype)
    exact = dense_map([grid.float() for grid in tokens], "shift:1,2", (45, 71), 14)
    rows, columns = RNG.integers(0, 45, 40), RNG.integers(0, 71, 40)
    sampled = features.sample(rows, columns)
    np.testing.assert_allclose(sampled, exact[:, rows, columns].T, atol=1e-5)
    weight = RNG.standard_normal((2, 5))
    planes = np.einsum("kc,chw->khw", weight, exact)
    np.testing.assert_allclose(features.project(weight, [0, 0]), planes, atol=2e-5)


def test_a_large_image_is_worked_on_in_strips(monkeypatch):
    monkeypatch.setattr("napari_hrdv2.core.spread.STRIP_BYTES", 1000)
    monkeypatch.setattr("napari_hrdv2.core.features.ROWS_PER_BLOCK", 9)
    features, tokens = random_features("shift:1,20", (150, 40))
    expected = dense_map(tokens, "shift:1,20", (150, 40), 14)
    planes = features.project(np.eye(5), np.zeros(5))
    np.testing.assert_allclose(planes, expected, atol=1e-5)


def test_joined_features_are_the_parts_side_by_side():
    parts = [random_features("shift:1")[0], random_features("flip", channels=3)[0]]
    joined = JoinedFeatures(parts)
    dense = joined.materialize()
    assert joined.shape == dense.shape == (8, 45, 71)
    weight, bias = RNG.standard_normal((4, 8)), RNG.standard_normal(4)
    planes = np.einsum("kc,chw->khw", weight, dense) + bias[:, None, None]
    np.testing.assert_allclose(joined.project(weight, bias), planes, atol=2e-5)
    np.testing.assert_allclose(
        joined.sample([3, 44], [70, 0]), dense[:, [3, 44], [70, 0]].T, atol=1e-5
    )
    assert joined.nbytes == sum(part.nbytes for part in parts)


def test_flips_cost_no_memory_because_they_are_averaged_on_the_grid():
    plain, _ = random_features("shift:1")
    flipped, _ = random_features("shift:1*flip")
    assert flipped.nbytes == plain.nbytes


def test_the_first_of_equal_planes_wins():
    features, _ = random_features("identity")
    assert not features.argmax(np.zeros((3, 5)), np.zeros(3)).any()


def test_tokens_that_do_not_fit_are_refused():
    tokens = np.zeros((1, 3, 3, 2), np.float32)
    with pytest.raises(ValueError, match="tokens: a grid of .* does not fit an image"):
        HighResFeatures(tokens, "identity", (28, 42), 14, 14)
    with pytest.raises(ValueError, match="tokens: shape .* does not fit 9 transforms"):
        HighResFeatures(tokens, "shift:1", (42, 42), 14, 14)
    with pytest.raises(ValueError, match="interpolation: 'cubic' is unknown"):
        HighResFeatures(tokens, "identity", (42, 42), 14, 14, "cubic")


def test_readouts_and_pixels_that_do_not_fit_are_refused():
    features, _ = random_features("identity")
    with pytest.raises(ValueError, match="weight: shape"):
        features.project(np.zeros((2, 4)), np.zeros(2))
    with pytest.raises(ValueError, match="bias: shape"):
        features.project(np.zeros((2, 5)), np.zeros(3))
    with pytest.raises(ValueError, match=r"rows: pixels 45\.\.45"):
        features.sample([45], [0])
    with pytest.raises(ValueError, match="rows, cols: shapes"):
        features.sample([1, 2], [0])
