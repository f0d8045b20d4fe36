"""Context features: Gaussian means of tokens on large cells, read like other tokens."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from estimates import estimate
from napari_hrdv2 import PixelClassifier, compute_features, load_backbone
from napari_hrdv2.core.features.high_resolution import (
    CONTEXT_WIDTH,
    HighResFeatures,
    means_around,
    with_context,
)
from napari_hrdv2.core.features.options import PartOptions


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def features(height, width, *, stride=2, transforms="identity", channels=3, **options):
    grid = [1 + -(-(length - 2) // stride) for length in (height, width)]
    copies = {"identity": 1, "shift:1": 9}[transforms]
    tokens = noise(copies, *grid, channels)
    return HighResFeatures(tokens, transforms, (height, width), 2, stride, **options)


def means_token_by_token(tokens, count):
    """Gaussian means about the cells, the slow obvious way."""
    maps, height, width, channels = tokens.shape
    rows, columns = -(-height // count), -(-width // count)
    output = np.zeros((maps, rows, columns, channels))
    for row, column in np.ndindex(rows, columns):
        total = 0
        for down, right in np.ndindex(9, 9):
            at = mirrored(row + down - 4, rows), mirrored(column + right - 4, columns)
            top, left = count * at[0], count * at[1]
            cell = tokens[:, top : top + count, left : left + count]
            weight = np.exp(
                -((down - 4) ** 2 + (right - 4) ** 2) / (2 * CONTEXT_WIDTH**2)
            )
            output[:, row, column] += weight * cell.sum((1, 2))
            total += weight * cell.shape[1] * cell.shape[2]
        output[:, row, column] /= total
    return output


def mirrored(index, length):
    index %= 2 * length
    return min(index, 2 * length - 1 - index)


@pytest.mark.parametrize("shape", [(1, 24, 40), (2, 25, 13), (1, 3, 50), (1, 1, 1)])
@pytest.mark.parametrize("count", [8, 5, 1])
def test_means_are_those_of_the_slow_obvious_way(shape, count):
    tokens = noise(*shape, 4)
    expected = means_token_by_token(tokens.numpy(), count)
    found = means_around(tokens.half(), count)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("shape", [(64, 96), (61, 97), (2, 2), (17, 3)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("transforms", ["identity", "shift:1"])
@pytest.mark.parametrize("boundary", ["periodic", "reflect"])
def test_every_way_of_reading_agrees(shape, stride, transforms, boundary):
    own = features(*shape, stride=stride, transforms=transforms, boundary=boundary)
    both = with_context(own, 16)
    dense = both.materialize()
    assert dense.shape == both.shape == (6, *shape)
    np.testing.assert_array_equal(dense[:3], own.materialize())
    rows, columns = np.indices(shape).reshape(2, -1)
    sampled = both.sample(rows, columns).T.reshape(dense.shape)
    np.testing.assert_allclose(sampled, dense, atol=1e-5)
    weight = noise(4, 6, seed=1).numpy() - 0.5
    expected = np.tensordot(weight, dense, 1)
    np.testing.assert_allclose(both.project(weight, np.zeros(4)), expected, atol=1e-5)


@pytest.mark.parametrize("interpolation", ["interleaved+1", "bilateral+2"])
@pytest.mark.parametrize("shape", [(33, 40), (48, 49), (31, 17)])
def test_tokens_on_one_finer_grid(interpolation, shape):
    copies = noise(4, *(-(-length // 2) for length in shape), 3)
    own = HighResFeatures(
        copies, "lattice:2", shape, 2, 2, interpolation, guide=noise(*shape).numpy()
    )
    both = with_context(own, 16)
    dense = both.materialize()
    assert dense.shape == (6, *shape)
    weight = noise(2, 6, seed=1).numpy() - 0.5
    expected = np.tensordot(weight, dense, 1)
    np.testing.assert_allclose(both.project(weight, np.zeros(2)), expected, atol=1e-5)


def test_a_last_cell_of_one_pixel_counts_for_little():
    image = np.zeros((64, 209), np.float32)
    image[:, -1] = 1  # alone in its cell
    tokens = torch.from_numpy(image)[None, ..., None]
    around = with_context(
        HighResFeatures(tokens, "identity", (64, 209), 1, 1), 16
    ).materialize()[1]
    expected = ndimage.gaussian_filter(image, 15, mode="reflect")
    assert 0.5 < around.max() / expected.max() < 2


def test_context_features_are_smooth_and_lie_where_they_belong():
    rows, columns = torch.meshgrid(
        torch.arange(150.0), torch.arange(200.0), indexing="ij"
    )
    ramps = torch.stack([2 * rows + 0.5, 2 * columns + 0.5], -1)[None]  # in pixels
    both = with_context(HighResFeatures(ramps, "identity", (300, 400), 2, 2), 16)
    far = (slice(64, -64), slice(64, -64))  # from the border
    for axis in range(2):
        np.testing.assert_allclose(
            both.materialize()[2 + axis][far],
            np.indices((300, 400))[axis][far],
            atol=0.01,
        )
    point = torch.zeros(1, 150, 200, 1)
    point[0, 75, 100] = 1
    around = with_context(
        HighResFeatures(point, "identity", (300, 400), 2, 2), 16
    ).materialize()[1]
    spread = (around * (np.indices((300, 400))[0] - 150.5) ** 2).sum() / around.sum()
    assert 14 < spread**0.5 < 18  # Gaussian, cell and interpolation together
    assert around.max() < 0.0035


def test_an_even_map_has_itself_around():
    own = HighResFeatures(torch.full((1, 33, 21, 2), 0.7), "identity", (65, 41), 2, 2)
    np.testing.assert_allclose(with_context(own, 16).materialize(), 0.7, rtol=1e-6)


def test_they_cost_little_and_are_of_one_part():
    part = PartOptions("some", "", "identity", 2, 3)
    own = features(512, 512, options=part)
    both = with_context(own, 16)
    assert both.nbytes < 1.02 * own.nbytes
    (found,) = both.part_options
    assert (found.backbone, found.channels) == ("some", 6)
    assert with_context(features(64, 64), 16).part_options == ()


def test_they_are_trusted_a_quarter_as_much():
    assert (
        with_context(features(9, 9), 16).channel_weights.tolist()
        == [1] * 3 + [0.25] * 3
    )
    own = features(9, 9, channel_weights=torch.tensor([1.0, 2.0, 4.0]))
    assert with_context(own, 16).channel_weights.tolist() == [1, 2, 4, 0.25, 0.5, 1]


def before_context_features(classifier):
    """Make a classifier one that was trained when there were none."""
    half = classifier.weight.shape[1] // 2
    classifier.weight = classifier.weight[:, :half].copy()
    (part,) = classifier.part_options
    classifier.part_options = (replace(part, channels=half),)
    return classifier


@pytest.mark.parametrize("name", ["embedded", "filters"])
def test_a_classifier_from_before_is_told_to_be_trained_again(name, tmp_path):
    image = noise(40, 50).numpy()
    computed = compute_features(image, load_backbone(name, device="cpu"))
    labels = np.zeros((40, 50), int)
    labels[5:9, 5:40], labels[30:34, 5:40] = 1, 2
    classifier = before_context_features(PixelClassifier().fit(computed, labels))
    classifier.save(tmp_path / "old.safetensors")
    old = PixelClassifier.load(tmp_path / "old.safetensors")
    with pytest.raises(
        ValueError, match=f"{name} has context features now.*train it again"
    ):
        old.predict(computed)
    again = old.fit(computed, labels).predict(computed)
    assert (again[labels > 0] == labels[labels > 0]).mean() > 0.9


@pytest.mark.parametrize("name", ["embedded", "filters"])
@pytest.mark.parametrize("shape", [(64, 64), (33, 50), (41, 97, 3)])
@pytest.mark.parametrize(
    ("transforms", "interpolation"),
    [("identity", "bilinear"), ("shift:1", "bilinear"), ("lattice:2", "interleaved")],
)
def test_their_memory_is_told_before_they_are_computed(
    name, shape, transforms, interpolation
):
    if name == "filters" and interpolation == "interleaved":
        transforms, interpolation = "auto", "bilinear"  # it has nothing to interleave
    backbone = load_backbone(name, device="cpu")
    image = noise(*shape).numpy()
    options = {"transforms": transforms, "interpolation": interpolation}
    told = estimate(
        shape[:2], backbone, image_channels=3 if len(shape) == 3 else 1, **options
    )
    assert told.token_bytes == compute_features(image, backbone, **options).nbytes
