"""Features by region: every way of reading them equals the dense map."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_hrdv2 import HighResFeatures, PixelClassifier
from napari_hrdv2.core.features.base import JoinedFeatures
from napari_hrdv2.core.features.superpixels import SuperpixelFeatures
from napari_hrdv2.core.features.transforms import parse_transforms

SHAPE = (45, 71)
SPECS = ["identity", "flip", "rotate", "shift:1,2", "lattice:2*flip", "shift:3*rotate"]


def copies_of(spec):
    return parse_transforms(spec, 16).copies


def random_features(spec, boundary="periodic", dtype=torch.float32, shape=SHAPE):
    """Tokens and label maps of any kind, each copy its own."""
    generator = torch.Generator().manual_seed(2)
    tokens, maps = [], []
    for number, copy in enumerate(copies_of(spec)):
        count = 20 + number
        tokens.append(torch.randn(count, 5, generator=generator).to(dtype))
        seen = shape[::-1] if copy.transform.transpose else shape
        maps.append(torch.randint(0, count, seen, generator=generator))
    transforms = parse_transforms(spec, 16)
    return SuperpixelFeatures(tokens, maps, transforms, boundary=boundary)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("boundary", ["periodic", "reflect"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_project_is_the_readout_of_the_dense_map(spec, boundary, dtype):
    features = random_features(spec, boundary, dtype)
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((3, 5)), rng.standard_normal(3)
    dense = np.einsum("kc,cyx->kyx", weight, features.materialize())
    np.testing.assert_allclose(
        features.project(weight, bias), dense + bias[:, None, None], atol=1e-5
    )


@pytest.mark.parametrize("spec", SPECS)
def test_sample_and_argmax_read_the_same_map(spec):
    features = random_features(spec)
    dense = features.materialize()
    rows, columns = np.array([0, 44, 17, 17]), np.array([0, 70, 3, 3])
    np.testing.assert_allclose(
        features.sample(rows, columns), dense[:, rows, columns].T, atol=1e-6
    )
    weight, bias = np.eye(5)[:4], np.zeros(4)
    best = np.argmax(dense[:4], 0)
    assert (features.argmax(weight, bias) == best).mean() > 0.999


@pytest.mark.parametrize("spec", SPECS)
def test_maps_of_transformed_copies_are_brought_back_to_the_image(spec):
    """Every pixel is a region with its own number, so each copy must come back."""
    transforms = parse_transforms(spec, 16)
    upright = torch.arange(SHAPE[0] * SHAPE[1]).view(SHAPE)
    generator = torch.Generator().manual_seed(0)
    tokens = [
        torch.randn(upright.numel(), 2, generator=generator) for _ in transforms.copies
    ]
    maps = [copy.transform.apply(upright) for copy in transforms.copies]
    features = SuperpixelFeatures(tokens, maps, transforms)
    expected = sum(
        share * table for table, share in zip(tokens, transforms.weights, strict=True)
    )
    np.testing.assert_allclose(
        features.materialize(), expected.T.view(2, *SHAPE), atol=1e-6
    )


def test_with_reflection_only_the_border_shows_what_is_nearest():
    upright = torch.arange(SHAPE[0] * SHAPE[1]).view(SHAPE)
    transforms = parse_transforms("shift:2", 16)
    maps = [copy.transform.apply(upright, "reflect") for copy in transforms.copies]
    one = torch.arange(upright.numel())[:, None].float()
    tokens = [one] * len(maps)
    features = SuperpixelFeatures(tokens, maps, transforms, boundary="reflect")
    inside = (slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(
        features.materialize()[0][inside], upright[inside], rtol=1e-6
    )
    near = (features.label_maps % upright.numel())[:, 0, 20]
    assert set(near.tolist()) == {18 + 2, 20 + 2 * 71}


def test_a_tall_image_joins_a_grid_of_tokens():
    shape = (230, 32)
    regions = random_features("flip", shape=shape)
    grid = HighResFeatures(
        np.ones((1, 17, 3, 2), np.float32), "identity", shape, 14, 14
    )
    joined = JoinedFeatures([regions, grid])
    weight = np.random.default_rng(1).standard_normal((2, 7))
    dense = np.einsum("kc,cyx->kyx", weight, joined.materialize())
    np.testing.assert_allclose(joined.project(weight, [0, 0]), dense, atol=1e-5)


def test_a_classifier_learns_regions_from_one_scribble_each():
    labels = np.repeat(np.arange(6), 40).reshape(6, 40)
    tokens = torch.tensor([[0.0, 1], [4, 1], [0, 1], [4, 1], [0, 1], [4, 1]])
    plain = parse_transforms("identity", 16)
    features = SuperpixelFeatures([tokens], [torch.from_numpy(labels)], plain)
    scribbles = np.zeros(labels.shape, int)
    scribbles[0, :5], scribbles[1, :5] = 1, 2
    predicted = PixelClassifier().fit(features, scribbles).predict(features)
    np.testing.assert_array_equal(predicted, 1 + labels % 2)


def test_memory_and_counts_are_told():
    features = random_features("flip", dtype=torch.float16)
    assert features.counts == (20, 21, 22, 23)
    assert features.nbytes == sum(features.counts) * 5 * 2 + 4 * 45 * 71 * 4
    assert "tokens=86" in repr(features)


TOKENS = torch.zeros(3, 2)
MAP = torch.zeros(4, 5, dtype=torch.int64)


@pytest.mark.parametrize(
    ("tokens", "maps", "transforms", "message"),
    [
        ([TOKENS], [MAP], "flip", "tokens: 1 tables and 1 label maps do not fit 4"),
        ([TOKENS], [MAP + 3], "identity", r"labels 3..3 do not fit 3 tokens; 0 to 2"),
        ([TOKENS], [MAP - 1], "identity", "labels -1..-1"),
        ([TOKENS], [MAP + 0.5], "identity", "not an .* map of whole numbers"),
        ([TOKENS], [MAP[0]], "identity", "label_maps: .*map of whole numbers"),
        ([TOKENS] * 4, [MAP] * 4, "rotate", "H and W swap"),
        ([TOKENS, TOKENS[:, :1]] * 2, [MAP] * 4, "flip", "are not .* of one C"),
    ],
)
def test_what_does_not_fit_is_refused(tokens, maps, transforms, message):
    with pytest.raises(ValueError, match=message):
        SuperpixelFeatures(tokens, maps, parse_transforms(transforms, 16))
