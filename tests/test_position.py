"""The position benchmark finds what tells the position, and nothing else."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

import napari_hrdv2 as hr

FILE = Path(__file__).parents[1] / "benchmarks" / "position.py"
SPEC = importlib.util.spec_from_file_location("position", FILE)
position = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(position)


@pytest.mark.parametrize(("strength", "low", "high"), [(1, 0.95, 1), (0, -0.5, 0.05)])
def test_the_share_explained_is_that_of_the_position(strength, low, high):
    rng = np.random.default_rng(0)
    rows, columns = position._row_and_column(12, 12)
    place = np.stack([rows, columns, rows**2, columns**2], 1) @ rng.random((4, 9))
    maps = [
        strength * (place - place.mean(0)) + 0.01 * rng.standard_normal((144, 9))
        for _ in range(position.IMAGES)
    ]
    assert low < position.explained(maps) <= high


def test_features_are_read_at_the_centres_row_by_row():
    class Ramp:
        name, channels, patch_size, equivariant = "ramp", 2, 4, False
        default_transforms, absolute_levels, activations = "identity", True, 14
        device, dtype, weights_hash, steps = torch.device("cpu"), torch.float32, "", 0
        context_cell = 0

        def channels_for(self, image_channels):
            return 2

        def channel_weights_for(self, image_channels):
            return None

        def tokens(self, images, *, stride, tick=None):
            rows, columns = torch.meshgrid(*[torch.arange(3.0)] * 2, indexing="ij")
            return torch.stack([rows, columns], -1)[None]

    image = next(position.surfaces(0.02, 12))
    found = position.features_of(image, Ramp(), "identity", "none")
    rows, columns = position._row_and_column(3, 3)
    np.testing.assert_allclose(np.corrcoef(found[:, 0], rows)[0, 1], 1, atol=1e-2)
    np.testing.assert_allclose(np.corrcoef(found[:, 1], columns)[0, 1], 1, atol=1e-2)


def test_smooth_positions_are_as_strong_as_those_they_replace():
    model = hr.load_backbone("dinov2-small", "random", "cpu").model
    before = model.pos_embed[0, 1:].clone()
    position.smooth_positions(model)
    after = model.pos_embed[0, 1:]
    assert after.std().item() == pytest.approx(before.std().item(), rel=0.1)
    grid = after.reshape(37, 37, -1)
    assert grid.diff(dim=0).std() < 0.2 * after.std()
