"""The factored features equal the dense map in every way of reading them."""

from __future__ import annotations

from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from napari_hrdv2 import HighResFeatures
from napari_hrdv2.core.features.base import JoinedFeatures
from napari_hrdv2.core.features.transforms import (
    Copy,
    Transform,
    TransformSet,
    parse_transforms,
)
from napari_hrdv2.core.features.upsampling.separable import padded_length

RNG = np.random.default_rng(0)


def transforms_of(spec, stride, compat="corrected"):
    chosen = parse_transforms(spec, stride, compat=compat)
    return [copy.transform for copy in chosen.copies]


def random_features(
    spec, shape=(45, 71), patch_size=14, stride=14, channels=5, dtype=None, **options
):
    compat = options.get("compat", "corrected")
    grid = [1 + (padded_length(n, patch_size, stride) - patch_size) // stride
            for n in shape]  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    tokens = [
        torch.randn(
            *(grid[::-1] if transform.transpose else grid),
            channels,
            generator=generator,
        ).to(dtype or torch.float32)
        for transform in transforms_of(spec, stride, compat)
    ]
    features = HighResFeatures(tokens, spec, shape, patch_size, stride, **options)
    return features, tokens


def upsampled(grid, patch_size, stride, interpolation):
    """Interpolate (h, w, C) at every pixel of the padded image, one after the other."""
    for axis in (0, 1):
        last = grid.shape[axis] - 1
        length = patch_size + stride * last
        slices = []
        for pixel in range(length):
            position = (pixel - (patch_size - 1) / 2) / stride
            if interpolation == "nearest":
                near = [i for i in range(-1, last + 2) if abs(position - i) <= 0.5]
                weights = dict.fromkeys(near, 1 / len(near)) if near else {}
                if not near:
                    weights = {0 if position < 0 else last: 1.0}
            elif interpolation == "bilinear":
                position = min(max(position, 0), last)
                weights = {i: max(0, 1 - abs(position - i)) for i in range(last + 1)}
            else:
                floor = int(np.floor(position))
                weights = {
                    i: cubic(abs(position - i)) for i in range(floor - 1, floor + 3)
                }
            slices.append(
                sum(
                    weight * grid.select(axis, min(max(i, 0), last))
                    for i, weight in weights.items()
                )
            )
        grid = torch.stack(slices, axis)
    return grid.movedim(2, 0)


def cubic(distance, a=-0.75):
    if distance <= 1:
        return (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    return a * distance**3 - 5 * a * distance**2 + 8 * a * distance - 4 * a


def dense_map(tokens, spec, shape, patch_size, stride=None, interpolation="bilinear"):
    """The definition, step by step, on pixels."""
    stride = stride or patch_size
    total = 0.0
    chosen = parse_transforms(spec, stride)
    for grid, transform, weight in zip(
        tokens, transforms_of(spec, stride), chosen.weights, strict=True
    ):
        image = upsampled(grid, patch_size, stride, interpolation)
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
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize(("patch_size", "stride"), [(7, 7), (7, 3), (6, 1), (4, 3)])
def test_the_map_is_the_average_of_upsampled_and_inverted_tokens(
    spec, interpolation, patch_size, stride
):
    shape = (22, 19)
    features, tokens = random_features(
        spec, shape, patch_size, stride, interpolation=interpolation
    )
    expected = dense_map(tokens, spec, shape, patch_size, stride, interpolation)
    np.testing.assert_allclose(features.materialize(), expected, atol=1e-5)
    planes = features.project(np.eye(5), np.zeros(5))
    np.testing.assert_allclose(planes, expected, atol=2e-5)


# --- The code that HR-Dv2 published, written again from its description --------------


def published_shifts(distances):
    moves = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
    steps = [(d * i, d * j) for d in distances for i, j in moves]
    roll = partial(torch.roll, dims=(-2, -1))
    forward = [lambda x: x, *(partial(roll, shifts=(i, j)) for i, j in steps)]
    inverse = [lambda x: x, *(partial(roll, shifts=(-i, -j)) for i, j in steps)]
    return forward, inverse


def published_flips():
    across, down = (partial(torch.flip, dims=(axis,)) for axis in (-1, -2))
    flips = [lambda x: x, across, lambda x: x, down]
    return flips, flips


def published_turns():
    quarters = [0, 1, 2, 3, 3, 1]
    return (
        [partial(torch.rot90, k=k, dims=(-2, -1)) for k in quarters],
        [partial(torch.rot90, k=-k, dims=(-2, -1)) for k in quarters],
    )


def published_products(first, second):
    pairs = list(product(range(len(first[0])), range(len(second[0]))))
    forward = [lambda x, i=i, j=j: second[0][j](first[0][i](x)) for i, j in pairs]
    # the published code undoes the first one first
    inverse = [lambda x, i=i, j=j: second[1][j](first[1][i](x)) for i, j in pairs]
    return forward, inverse


PUBLISHED = {
    "shift:1,2": published_shifts([1, 2]),
    "flip": published_flips(),
    "rotate": published_turns(),
    "shift:1,2*flip": published_products(published_shifts([1, 2]), published_flips()),
    "shift:1*rotate": published_products(published_shifts([1]), published_turns()),
    "flip*rotate": published_products(published_flips(), published_turns()),
}


@pytest.mark.parametrize("spec", PUBLISHED)
@pytest.mark.parametrize("stride", [14, 7, 4])
def test_compat_reference_does_what_the_published_code_does(spec, stride):
    # Of these sizes no pixel lies half way between two tokens, where flips pick either.
    size = {14: 42, 7: 42, 4: 50}[stride]
    image = torch.rand(3, size, size)

    def tokens_of(images):  # a backbone that is linear, so that all copies can be told
        grids = torch.nn.functional.unfold(images, 14, stride=stride)
        side = 1 + (size - 14) // stride
        return grids[:, ::97].unflatten(2, (side, side))  # (B, 7, h, w)

    forward, inverse = PUBLISHED[spec]
    total = 0.0
    for transform, undo in zip(forward, inverse, strict=True):
        grid = tokens_of(transform(image)[None])
        dense = interpolate(grid, size=(size, size), mode="nearest-exact")[0]
        total = total + undo(dense)
    chosen = parse_transforms(spec, stride, compat="reference")
    tokens = [
        tokens_of(copy.transform.apply(image)[None])[0].movedim(0, -1)
        for copy in chosen.copies
    ]
    features = HighResFeatures(
        tokens, spec, (size, size), 14, stride, "nearest", compat="reference"
    )
    expected = (total / len(forward)).numpy()
    np.testing.assert_allclose(features.materialize(), expected, atol=1e-5)
    np.testing.assert_allclose(
        features.project(np.eye(7), np.zeros(7)), expected, atol=1e-5
    )


def test_where_the_published_code_is_right_both_ways_agree():
    features, tokens = random_features("shift:1,2", (42, 56), interpolation="nearest")
    reference = HighResFeatures(
        tokens, "shift:1,2", (42, 56), 14, 14, "nearest", compat="reference"
    )
    assert np.array_equal(features.materialize(), reference.materialize())


def test_a_shift_of_one_pixel_patches_is_undone():
    tokens = np.arange(12, dtype=np.float32).reshape(1, 3, 4, 1)
    down = Transform(1, 0)
    shifted = TransformSet("down", (Copy(down, down.inverse()),), (1.0,))
    features = HighResFeatures(tokens, shifted, (3, 4), 1, 1)
    assert features.project([[1]], [0])[0, :, 0].tolist() == [4, 8, 0]


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
    monkeypatch.setattr(
        "napari_hrdv2.core.features.upsampling.separable.STRIP_BYTES", 1000
    )
    monkeypatch.setattr(
        "napari_hrdv2.core.features.upsampling.separable.ROWS_PER_TILE", 9
    )
    monkeypatch.setattr("napari_hrdv2.core.features.tiles.ROWS_PER_TILE", 9)
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


@pytest.mark.parametrize("values", [[2, 7, 255], [0, 3, 70_000]])
def test_values_stand_for_the_readouts(values):
    features, _ = random_features("shift:1")
    weight, bias = np.eye(5)[:3], np.zeros(3)
    best = features.project(weight, bias).argmax(0)
    labels = features.argmax(weight, bias, values)
    assert np.array_equal(labels, np.array(values)[best])
    assert labels.dtype == (np.uint8 if values[-1] < 256 else np.int64)


def test_a_single_readout_is_the_largest_everywhere():
    features, _ = random_features("identity")
    assert (features.argmax(np.ones((1, 5)), [0], [9]) == 9).all()


@pytest.mark.parametrize("values", [[2, 1], [-1, 1]])
def test_values_that_do_not_ascend_from_zero_are_refused(values):
    features, _ = random_features("identity")
    with pytest.raises(ValueError, match="values: .* not ascending"):
        features.argmax(np.zeros((2, 5)), np.zeros(2), values)


def test_tokens_that_do_not_fit_are_refused():
    tokens = np.zeros((1, 3, 3, 2), np.float32)
    with pytest.raises(ValueError, match="tokens: a grid of .* does not fit an image"):
        HighResFeatures(tokens, "identity", (28, 42), 14, 14)
    with pytest.raises(
        ValueError, match="tokens: 1 of shape .* do not fit 9 transforms"
    ):
        HighResFeatures(tokens, "shift:1", (42, 42), 14, 14)
    with pytest.raises(ValueError, match="tokens: grids of .* differ; where one turns"):
        HighResFeatures([np.zeros((2, 3, 1))] * 4, "rotate", (28, 42), 14, 14)
    with pytest.raises(ValueError, match="stride: 0 is not a whole number"):
        HighResFeatures(tokens, "identity", (42, 42), 14, 0)
    with pytest.raises(ValueError, match="stride: 15 px would leave gaps"):
        HighResFeatures(tokens, "identity", (42, 42), 14, 15)
    with pytest.raises(ValueError, match=r"image_shape: \(42, 42, 3\) is not \(H, W\)"):
        HighResFeatures(tokens, "identity", (42, 42, 3), 14, 14)
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
    with pytest.raises(TypeError, match="rows: float64 are not pixel indices"):
        features.sample([1.7], [2])
    with pytest.raises(ValueError, match="rows, cols: shapes"):
        features.sample([1, 2], [0])
