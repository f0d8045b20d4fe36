"""SPiT behind the one entry that computes features."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import napari_hrdv2 as hr
from napari_hrdv2.core.backbones import backbone_info, backbone_state
from napari_hrdv2.core.features.superpixels import SuperpixelFeatures

IMAGE = np.random.default_rng(0).integers(0, 255, (45, 71), dtype=np.uint8)


@pytest.fixture(scope="module")
def backbone():
    return hr.load_backbone("spit-small", weights="random", device="cpu")


def test_the_registry_knows_spit():
    info = backbone_info("spit-base")
    assert (info.channels, info.default_transforms) == (768, "identity")
    assert backbone_state("spit-base") == "file"
    assert backbone_state("spit-base+dinov3-base") == "file"
    for ask in (backbone_info, partial(hr.load_backbone, weights="random")):
        with pytest.raises(ValueError, match=r"spit-small gives the tokens of its reg"):
            ask("spit-small@k11")


def test_features_are_region_wise_and_report_progress(backbone):
    seen = []
    features = hr.compute_features(
        IMAGE, backbone, progress=lambda done, total: seen.append((done, total))
    )
    assert isinstance(features, SuperpixelFeatures)
    assert features.part_options[0].backbone == "spit-small"
    assert seen[-1] == (backbone.steps, backbone.steps)


def test_a_labels_layer_may_be_the_partition(backbone):
    partition = np.arange(45)[:, None] // 20 + np.zeros(71, int)
    features = hr.compute_features(IMAGE, backbone, "flip", partition=partition)
    assert set(features.counts) == {3}
    with pytest.raises(ValueError, match="partition: filters has no tokens of regions"):
        hr.compute_features(IMAGE, hr.load_backbone("filters"), partition=partition)


def test_regions_and_a_grid_stand_side_by_side():
    joined = hr.load_backbone("spit-small+filters", weights="random", device="cpu")
    features = hr.compute_features(IMAGE, joined, "identity")
    weight = np.random.default_rng(1).standard_normal((2, features.shape[0])) / 20
    dense = np.einsum("kc,cyx->kyx", weight, features.materialize())
    np.testing.assert_allclose(features.project(weight, [0, 0]), dense, atol=1e-5)
