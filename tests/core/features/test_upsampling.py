"""Every way of upsampling is one linear operator, and the one that is described."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import napari_hrdv2 as hr
from estimates import estimate
from napari_hrdv2.core.backbones import JoinedBackbone
from napari_hrdv2.core.features.transforms import parse_transforms
from napari_hrdv2.core.features.upsampling import INTERPOLATIONS
from napari_hrdv2.core.features.upsampling.separable import padded_length
from napari_hrdv2.core.features.upsampling.sharpening import (
    lattice_of,
    parse_interpolation,
)

RNG = np.random.default_rng(0)
IMAGE = RNG.random((37, 23))
CHANGED = [
    name
    for name in INTERPOLATIONS[:-1]
    if "+" in name or parse_interpolation(name).needs_one_grid
]


class PatchMeans:
    """The ideal backbone: a token is the mean grey level of its patch."""

    name, channels, equivariant = "mean", 1, False
    default_transforms, absolute_levels, activations = "identity", True, 14
    device, dtype, weights_hash, steps = torch.device("cpu"), torch.float32, "", 0
    context_cell = 0

    def __init__(self, patch_size=6):
        self.patch_size = patch_size

    def channels_for(self, image_channels):
        return 1

    def channel_weights_for(self, image_channels):
        return None

    def tokens(self, images, *, stride, tick=None):
        means = torch.nn.functional.avg_pool2d(images[:, :1], self.patch_size, stride)
        return means.movedim(1, 3)


def random_features(spec, shape, patch_size, stride, interpolation, **options):
    grid = [1 + (padded_length(n, patch_size, stride) - patch_size) // stride
            for n in shape]  # fmt: skip
    count = len(parse_transforms(spec, stride))
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(count, *grid, 5, generator=generator)
    if "rotate" in spec:
        turned = [c.transform.transpose for c in parse_transforms(spec, stride).copies]
        pairs = zip(tokens, turned, strict=True)
        tokens = [grid.transpose(0, 1) if turn else grid for grid, turn in pairs]
    return hr.HighResFeatures(
        tokens, spec, shape, patch_size, stride, interpolation,
        guide=np.random.default_rng(2).random((3, *shape)), **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    "interpolation",
    ["bilinear+2", "bicubic+1", "interleaved", "interleaved+2", "bilateral+1"],
)
@pytest.mark.parametrize("boundary", ["periodic", "reflect"])
@pytest.mark.parametrize(("patch_size", "stride"), [(14, 14), (14, 5), (7, 3), (2, 2)])
@pytest.mark.parametrize("spec", ["identity", "shift:1,2", "lattice:3*flip*rotate"])
def test_readouts_commute_with_upsampling(
    spec, patch_size, stride, boundary, interpolation
):
    if spec == "shift:1,2" and interpolation.startswith("interleaved"):
        spec = "lattice:2"  # what is no lattice is refused, as another test says
    features = random_features(
        spec, (23, 31), patch_size, stride, interpolation, boundary=boundary
    )
    dense = features.materialize()
    weight, bias = RNG.standard_normal((3, 5)), RNG.standard_normal(3)
    planes = np.einsum("kc,chw->khw", weight, dense) + bias[:, None, None]
    np.testing.assert_allclose(features.project(weight, bias), planes, atol=1e-5)
    assert np.array_equal(features.argmax(weight, bias), planes.argmax(0))
    rows, columns = RNG.integers(0, 23, 40), RNG.integers(0, 31, 40)
    expected = dense[:, rows, columns].T
    np.testing.assert_allclose(features.sample(rows, columns), expected, atol=1e-5)


def box_means(planes, patch_size, stride):
    """Patch means of (C, H, W), as (h, w, C)."""
    means = torch.nn.functional.avg_pool2d(planes[None], patch_size, stride)
    return means[0].movedim(0, 2)


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "bilateral"])
@pytest.mark.parametrize(("patch_size", "stride"), [(14, 14), (14, 7), (9, 4)])
def test_steps_add_the_upsampled_residual_of_the_patch_means(
    kernel, patch_size, stride
):
    shape = tuple(patch_size + n * stride for n in (3, 4))  # nothing is padded
    given = random_features("identity", shape, patch_size, stride, kernel)
    tokens, planes = given.tokens[0], torch.from_numpy(given.materialize())
    for steps in (1, 2):
        residual = tokens - box_means(planes, patch_size, stride)
        correction = hr.HighResFeatures(
            residual[None], "identity", shape, patch_size, stride, kernel,
            guide=np.random.default_rng(2).random((3, *shape)),
        )  # fmt: skip
        planes = planes + torch.from_numpy(correction.materialize())
        name = f"{kernel}+{steps}"
        sharp = random_features("identity", shape, patch_size, stride, name)
        np.testing.assert_allclose(sharp.materialize(), planes, atol=2e-5)


def test_steps_bring_patch_means_closer_to_the_tokens():
    image = (RNG.random((6, 8)) > 0.5).repeat(7, 0).repeat(7, 1).astype(np.float32)
    errors = []
    for name in ("bilinear", "bilinear+1", "bilinear+2"):
        features = hr.compute_features(image, PatchMeans(7), interpolation=name)
        planes = torch.from_numpy(features.materialize())
        truth = box_means(torch.from_numpy(image)[None], 7, 7)
        errors.append(float((box_means(planes, 7, 7) - truth).abs().mean()))
    assert errors[1] < 0.6 * errors[0]
    assert errors[2] < 0.6 * errors[1]


@pytest.mark.parametrize("interpolation", CHANGED)
def test_a_constant_stays_constant(interpolation):
    tokens = torch.full((4, 4, 6, 2), 3.0)
    features = hr.HighResFeatures(
        tokens, "lattice:2", (20, 27), 5, 5, interpolation, guide=RNG.random((20, 27))
    )
    np.testing.assert_allclose(features.materialize(), 3, atol=1e-5)


@pytest.mark.parametrize("boundary", ["periodic", "reflect"])
@pytest.mark.parametrize(("spec", "stride"), [("lattice:2", 6), ("lattice:3", 6)])
def test_interleaved_tokens_are_those_of_the_finer_stride(spec, stride, boundary):
    image = RNG.random((36, 24))
    fine = stride // int(spec[-1])
    merged = hr.compute_features(
        image, PatchMeans(), spec, stride, interpolation="interleaved+1",
        boundary=boundary,
    )  # fmt: skip
    direct = hr.compute_features(
        image, PatchMeans(), "identity", fine, interpolation="bilinear+1"
    )
    np.testing.assert_allclose(merged.tokens, direct.tokens, atol=1e-5)
    np.testing.assert_allclose(merged.materialize(), direct.materialize(), atol=1e-5)


def test_between_the_tokens_of_an_uneven_lattice_it_is_interpolated():
    ramp = np.tile(np.linspace(0, 1, 50), (50, 1))
    features = hr.compute_features(
        ramp, PatchMeans(10), "lattice:3", 10, interpolation="interleaved"
    )
    assert features.tokens.shape[1:3] == (14, 14)  # every 10 // 3 pixels
    row = features.materialize()[0, 25]
    np.testing.assert_allclose(row[5:43], ramp[25, 5:43], atol=1e-5)


def test_shifts_that_are_no_lattice_are_averaged_at_the_centres():
    ramp = np.tile(np.linspace(0, 1, 56), (42, 1))
    features = hr.compute_features(
        ramp, PatchMeans(14), "shift:1,2", interpolation="bilateral", boundary="reflect"
    )
    plain = hr.compute_features(ramp, PatchMeans(14), "identity")
    assert features.tokens.shape == plain.tokens.shape == (1, 3, 4, 1)
    np.testing.assert_allclose(features.tokens[:, :, 1:3], plain.tokens[:, :, 1:3])


@pytest.mark.parametrize(
    ("spec", "stride", "count"),
    [
        ("identity", 14, 1),
        ("lattice:2", 14, 2),
        ("lattice:4*flip", 14, 4),
        ("lattice:5", 14, 5),
        ("shift:1,2", 14, None),
        ("shift:1", 14, None),
        ("shift:1", 3, 3),
        ("lattice:2*shift:1", 14, None),
    ],
)
def test_lattices_are_known_by_their_even_steps(spec, stride, count):
    assert lattice_of(parse_transforms(spec, stride).shifts(), stride) == count


@pytest.mark.parametrize("interpolation", CHANGED)
@pytest.mark.parametrize("spec", ["identity", "lattice:2", "lattice:4"])
def test_the_estimate_counts_the_tokens_that_are_kept(interpolation, spec):
    backbone = PatchMeans()
    told = estimate((37, 23), backbone, spec, 6, interpolation=interpolation)
    features = hr.compute_features(
        IMAGE, backbone, spec, 6, interpolation=interpolation
    )
    assert told.token_bytes == features.nbytes
    assert told.peak_bytes >= 2 * features.tokens.nbytes


def test_joined_features_may_be_guided_too():
    joined = JoinedBackbone((PatchMeans(), hr.load_backbone("filters")))
    features = hr.compute_features(IMAGE, joined, interpolation="bilateral+1")
    dense = features.materialize()
    weight = RNG.standard_normal((2, features.shape[0]))
    planes = np.einsum("kc,chw->khw", weight, dense)
    np.testing.assert_allclose(features.project(weight, [0, 0]), planes, atol=1e-4)


def test_an_image_smaller_than_a_patch_can_be_guided():
    tokens = torch.randn(1, 1, 2, 3)
    features = hr.HighResFeatures(
        tokens, "identity", (4, 20), 14, 14, "bilateral+2", guide=RNG.random((4, 20))
    )
    assert np.isfinite(features.materialize()).all()


def test_tokens_of_the_caller_are_not_changed():
    tokens = torch.randn(1, 3, 3, 2)
    before = tokens.clone()
    features = hr.HighResFeatures(tokens, "identity", (9, 9), 3, 3, "bilinear+2")
    assert torch.equal(tokens, before)
    assert not torch.equal(features.tokens, before)


def test_where_every_pixel_is_a_token_nothing_is_upsampled():
    bank = hr.load_backbone("filters")
    plain = hr.compute_features(IMAGE, bank).materialize()
    for name in ("bilateral+2", "interleaved+1", "bicubic+2"):
        other = hr.compute_features(IMAGE, bank, "shift:1,2", interpolation=name)
        assert np.array_equal(other.materialize(), plain)


def test_what_cannot_be_is_refused_in_one_sentence():
    backbone = PatchMeans()
    with pytest.raises(ValueError, match="'interleaved' sorts .* 'shift:1' is none"):
        hr.compute_features(IMAGE, backbone, "shift:1", interpolation="interleaved+2")
    with pytest.raises(ValueError, match="'bilateral' needs the true centres"):
        hr.compute_features(
            IMAGE, backbone, interpolation="bilateral", compat="reference"
        )
    with pytest.raises(ValueError, match=r"interpolation: 'bilinear\+3' is unknown"):
        parse_interpolation("bilinear+3")
    tokens = torch.zeros(1, 3, 3, 2)
    with pytest.raises(ValueError, match="guide: interpolation 'bilateral' is guided"):
        hr.HighResFeatures(tokens, "identity", (9, 9), 3, 3, "bilateral")
    with pytest.raises(ValueError, match=r"guide: shape \(1, 9, 8\) does not fit"):
        hr.HighResFeatures(
            tokens, "identity", (9, 9), 3, 3, "bilateral", guide=np.zeros((9, 8))
        )
