"""What tells where a token is is taken out, on the grid of each copy of the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import napari_hrdv2 as hr
from estimates import estimate
from napari_hrdv2.core.features.debias import (
    NOISE_IMAGES,
    POSITION_BIASES,
    PositionBias,
    bias_key,
    position_bias,
)


class MeanAndPlace:
    """A backbone whose tokens are the patch mean, plus a ramp over the grid."""

    name, channels, patch_size, equivariant = "placed", 6, 4, False
    default_transforms, absolute_levels, activations = "identity", True, 14
    device, dtype, weights_hash, steps = torch.device("cpu"), torch.float32, "", 2
    context_cell = 0

    def __init__(self, ramp=1.0):
        self.ramp, self.passes = ramp, 0

    def channels_for(self, image_channels):
        return self.channels

    def channel_weights_for(self, image_channels):
        return None

    def tokens(self, images, *, stride, tick=None):
        self.passes += len(images)
        for _ in range(self.steps):
            tick()
        means = images[:, 0].unfold(1, 4, stride).unfold(2, 4, stride).mean((-2, -1))
        _, rows, columns = means.shape
        row = torch.linspace(-1, 1, rows)[:, None].expand(rows, columns)
        column = torch.linspace(-1, 1, columns).expand(rows, columns)
        place = torch.stack([row, column, row * column, row**2], -1) * self.ramp
        return torch.cat(
            [
                means[..., None].expand(-1, -1, -1, 2),
                place.expand(len(images), -1, -1, -1),
            ],
            -1,
        )


IMAGE = np.random.default_rng(0).random((13, 18)).astype(np.float32)


@pytest.fixture(autouse=True)
def no_maps_from_before():
    POSITION_BIASES.clear()
    yield
    POSITION_BIASES.clear()


@pytest.mark.parametrize(
    "spec", ["identity", "flip", "rotate*flip", "shift:5", "lattice:2*rotate"]
)
@pytest.mark.parametrize("stride", [4, 3])
def test_where_a_token_is_is_taken_out_before_a_transform_is_undone(spec, stride):
    biased = hr.compute_features(IMAGE, MeanAndPlace(1), spec, stride, debias="mean")
    POSITION_BIASES.clear()
    even = hr.compute_features(IMAGE, MeanAndPlace(0), spec, stride, debias="mean")
    # Of a square its mean is left, which is no gradient.
    found, expected = (
        features.materialize() - features.materialize().mean((1, 2), keepdims=True)
        for features in (biased, even)
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_without_it_an_even_surface_has_a_gradient():
    plain, mean, project = (
        hr.compute_features(0.5 + IMAGE / 100, MeanAndPlace(), "shift:5", debias=debias)
        for debias in ("none", "mean", "project")
    )
    assert np.ptp(plain.materialize()[2:], (1, 2)).min() > 0.1
    assert np.ptp(mean.materialize()[2:], (1, 2)).max() < 1e-5
    assert np.ptp(project.materialize()[2:], (1, 2)).max() < 0.05


def test_what_the_image_shows_stays_but_for_the_noise_of_the_map():
    found = hr.compute_features(IMAGE, MeanAndPlace(), debias="mean")
    plain = hr.compute_features(IMAGE, MeanAndPlace())
    difference = found.materialize()[:2] - plain.materialize()[:2]
    assert 0 < np.abs(difference).max() < 0.03
    assert plain.materialize()[:2].std() > 0.04


def test_a_readout_still_commutes_with_upsampling():
    features = hr.compute_features(
        IMAGE, MeanAndPlace(), "shift:1*flip", debias="project",
        interpolation="bilinear+1",
    )  # fmt: skip
    weight = np.random.default_rng(1).standard_normal((3, 6)).astype(np.float32)
    expected = np.einsum("kc,chw->khw", weight, features.materialize())
    np.testing.assert_allclose(
        features.project(weight, np.zeros(3)), expected, atol=1e-5
    )
    rows, columns = np.array([0, 7, 12]), np.array([17, 3, 0])
    np.testing.assert_allclose(
        features.sample(rows, columns), features.materialize()[:, rows, columns].T,
        atol=1e-5,
    )  # fmt: skip


def test_the_leading_directions_are_those_of_the_map():
    generator = torch.Generator().manual_seed(0)
    ticks = []
    bias = position_bias(
        MeanAndPlace(),
        (1, 40, 48),
        4,
        debias="project",
        tick=lambda: ticks.append(1),
    )
    assert len(ticks) == 2 * NOISE_IMAGES
    gram = bias.directions.T @ bias.directions
    torch.testing.assert_close(gram, torch.eye(3))  # half of six channels
    tokens = torch.randn(2, 10, 12, 6, generator=generator)
    left = bias.removed_from(tokens) @ bias.directions
    torch.testing.assert_close(left, torch.zeros_like(left), atol=1e-5, rtol=0)
    rest = bias.map - bias.map @ bias.directions @ bias.directions.T
    smallest = torch.linalg.svdvals(bias.map.reshape(-1, 6))[3:]
    torch.testing.assert_close(rest.square().sum(), smallest.square().sum())


def test_tokens_keep_their_type():
    bias = PositionBias(torch.ones(2, 3, 4), torch.zeros(4, 0))
    tokens = torch.full((1, 2, 3, 4), 3.0, dtype=torch.bfloat16)
    assert bias.removed_from(tokens).dtype is torch.bfloat16
    assert bias.removed_from(tokens).tolist() == torch.full((1, 2, 3, 4), 2).tolist()


def test_maps_are_kept_for_the_next_image_of_the_size():
    backbone, steps = MeanAndPlace(), []
    told = estimate(IMAGE.shape, backbone, "rotate", debias="mean")
    for _ in range(2):
        hr.compute_features(
            IMAGE, backbone, "rotate", progress=lambda *step: steps.append(step),
            debias="mean",
        )  # fmt: skip
    # Upright and turned noise, and four copies of the image; then the copies alone.
    assert backbone.passes == (2 * NOISE_IMAGES + 4) + 4
    assert told.passes == 2 * NOISE_IMAGES + 4
    ends = [step for step in steps if step[0] == step[1]]
    assert ends == [(2 * told.passes, 2 * told.passes), (8, 8)]
    hr.compute_features(IMAGE[:12], backbone, "identity", debias="mean")
    assert backbone.passes == (2 * NOISE_IMAGES + 4) + 4 + NOISE_IMAGES + 1


def test_only_the_maps_used_last_are_kept():
    backbone = MeanAndPlace()
    for height in (8, 12, 16, 20, 24):
        position_bias(backbone, (1, height, 8), 4, debias="mean", tick=lambda: None)
    kept = [bias_key(backbone, (1, height, 8), 4) for height in (12, 16, 20, 24)]
    assert list(POSITION_BIASES) == kept


def test_a_cancel_gets_through_while_noise_is_looked_at():
    backbone, done = MeanAndPlace(), []
    with pytest.raises(hr.Cancelled):
        hr.compute_features(
            IMAGE, backbone, progress=lambda *step: done.append(step),
            should_stop=lambda: len(done) == 3, debias="mean",
        )  # fmt: skip
    assert backbone.passes == 2
    assert bias_key(backbone, (1, 16, 20), 4) not in POSITION_BIASES


def test_running_out_of_memory_does_not_lose_the_map():
    class Tight(MeanAndPlace):
        def tokens(self, images, *, stride, tick=None):
            if len(images) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().tokens(images, stride=stride, tick=tick)

    backbone, steps = Tight(), []
    hr.compute_features(
        IMAGE, backbone, "shift:1", batch_size=4, debias="mean",
        progress=lambda *step: steps.append(step),
    )  # fmt: skip
    assert backbone.passes == NOISE_IMAGES + 9
    assert steps[-1] == (2 * (NOISE_IMAGES + 9), 2 * (NOISE_IMAGES + 9))


def test_backbones_that_know_no_positions_are_left_as_they_are():
    filters = hr.load_backbone("filters", device="cpu")
    features = hr.compute_features(IMAGE, filters, debias="project")
    assert features.part_options[0].debias == "none"
    assert estimate(IMAGE.shape, filters, debias="project").passes == 1
    made = hr.compute_features(IMAGE, MeanAndPlace(), debias="project")
    assert made.part_options[0].debias == "project"


def test_an_unknown_choice_is_refused():
    with pytest.raises(ValueError, match="debias: 'all' is unknown; use none or mean"):
        hr.compute_features(IMAGE, MeanAndPlace(), debias="all")
