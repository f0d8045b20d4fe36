"""Surroundings: Gaussian means of tokens on large cells, read like other tokens."""

import numpy as np
import pytest
import torch

from napari_hrdv2.core.features import HighResFeatures, Recipe
from napari_hrdv2.core.surroundings import WIDTH, SurroundedFeatures, means_around


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def features(height, width, *, stride=2, transforms="identity", channels=3, **options):
    grid = [1 + -(-(length - 2) // stride) for length in (height, width)]
    copies = {"identity": 1, "shift:1": 9}[transforms]
    tokens = noise(copies, *grid, channels)
    return HighResFeatures(tokens, transforms, (height, width), 2, stride, **options)


def means_token_by_token(tokens, count):
    """Gaussian means about the cells, the slow obvious way."""
    cells = [range(0, length, count) for length in tokens.shape[1:3]]
    means = np.stack(
        [
            [
                tokens[:, row : row + count, column : column + count].mean((1, 2))
                for column in cells[1]
            ]
            for row in cells[0]
        ]
    )  # (rows, columns, T, C)
    rows, columns = means.shape[:2]
    output = np.zeros_like(means)
    for row, column in np.ndindex(rows, columns):
        total = 0
        for down in range(-4, 5):
            for right in range(-4, 5):
                weight = np.exp(-(down**2 + right**2) / (2 * WIDTH**2))
                at = mirrored(row + down, rows), mirrored(column + right, columns)
                output[row, column] += weight * means[at]
                total += weight
        output[row, column] /= total
    return np.moveaxis(output, 2, 0)


def mirrored(place, length):
    place %= 2 * length
    return min(place, 2 * length - 1 - place)


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
    both = SurroundedFeatures(own, 16)
    dense = both.materialize()
    assert dense.shape == both.shape == (6, *shape)
    np.testing.assert_array_equal(dense[:3], own.materialize())
    rows, columns = np.indices(shape).reshape(2, -1)
    sampled = both.sample(rows, columns).T.reshape(dense.shape)
    np.testing.assert_allclose(sampled, dense, atol=1e-5)
    weight = noise(4, 6, seed=1).numpy() - 0.5
    expected = np.tensordot(weight, dense, 1)
    np.testing.assert_allclose(both.project(weight, np.zeros(4)), expected, atol=1e-5)


def test_surroundings_are_smooth_and_lie_where_they_belong():
    rows, columns = torch.meshgrid(
        torch.arange(150.0), torch.arange(200.0), indexing="ij"
    )
    ramps = torch.stack([2 * rows + 0.5, 2 * columns + 0.5], -1)[None]  # in pixels
    both = SurroundedFeatures(HighResFeatures(ramps, "identity", (300, 400), 2, 2), 16)
    far = (slice(64, -64), slice(64, -64))  # from the border
    for axis in range(2):
        np.testing.assert_allclose(
            both.materialize()[2 + axis][far],
            np.indices((300, 400))[axis][far],
            atol=0.01,
        )
    point = torch.zeros(1, 150, 200, 1)
    point[0, 75, 100] = 1
    around = SurroundedFeatures(
        HighResFeatures(point, "identity", (300, 400), 2, 2), 16
    ).materialize()[1]
    spread = (around * (np.indices((300, 400))[0] - 150.5) ** 2).sum() / around.sum()
    assert 14 < spread**0.5 < 18  # Gaussian, cell and interpolation together
    assert around.max() < 0.0035


def test_an_even_map_has_itself_around():
    own = HighResFeatures(torch.full((1, 33, 21, 2), 0.7), "identity", (65, 41), 2, 2)
    np.testing.assert_allclose(
        SurroundedFeatures(own, 16).materialize(), 0.7, rtol=1e-6
    )


def test_they_cost_little_and_have_one_recipe():
    recipe = Recipe("some", "", "identity", 2, 3)
    own = features(512, 512, recipe=recipe)
    both = SurroundedFeatures(own, 16)
    assert both.nbytes < 1.02 * own.nbytes
    (found,) = both.recipes
    assert (found.backbone, found.channels) == ("some", 6)
    assert SurroundedFeatures(features(64, 64), 16).recipes == ()


def test_they_are_trusted_a_quarter_as_much():
    assert SurroundedFeatures(features(9, 9), 16).trust.tolist() == [1] * 3 + [0.25] * 3
    own = features(9, 9, trust=torch.tensor([1.0, 2.0, 4.0]))
    assert SurroundedFeatures(own, 16).trust.tolist() == [1, 2, 4, 0.25, 0.5, 1]
