"""Backbones that features are computed with."""

from __future__ import annotations

import pytest

from napari_hrdv2 import load_backbone
from napari_hrdv2.core.backbones.vit.backbone import ViTBackbone
from napari_hrdv2.core.backbones.vit.model import ViTConfig
from napari_hrdv2.core.backbones.vit.weights import random_weights


@pytest.fixture(scope="session")
def backbones():
    loaded = {
        name: load_backbone(name, device="cpu") for name in ("filters", "embedded")
    }
    config = ViTConfig(embed_dim=32, depth=2, heads=2)
    loaded["vit"] = ViTBackbone("dinov2-small", config, random_weights(config))
    return loaded
