"""Attention maps, and the regions of SPiT as layers."""

import numpy as np
import pytest
import torch

import napari_hrdv2 as hr
from napari_hrdv2.core.backbones import JoinedBackbone
from napari_hrdv2.core.backbones.spit.backbone import SpitBackbone
from napari_hrdv2.core.backbones.spit.backbone import random_weights as random_spit
from napari_hrdv2.core.backbones.spit.encoder import SpitConfig
from napari_hrdv2.core.backbones.superpixels import borders
from napari_hrdv2.core.backbones.vit.backbone import ViTBackbone
from napari_hrdv2.core.backbones.vit.model import ViTConfig
from napari_hrdv2.core.backbones.vit.weights import random_weights
from napari_hrdv2.core.guidance.attention import (
    attention_flow_map,
    attention_maps,
    region_labels,
)

CONFIG = ViTConfig(embed_dim=32, depth=3, heads=2, patch_size=4, image_size=16)
IMAGE = np.random.default_rng(0).random((18, 25), np.float32)
OPTIONS = {"value_range": (0, 1)}


@pytest.fixture
def vit():
    return ViTBackbone("tiny", CONFIG, random_weights(CONFIG))


@pytest.fixture
def spit():
    config = SpitConfig(embed_dim=32, depth=2, heads=2)
    return SpitBackbone("spit-tiny", config, random_spit(config))


def slow_attention(vit, image, block):
    """Return the softmax of the class token's row, head by head, (heads, h, w)."""
    pixels = torch.from_numpy(image)[None, None]
    model = vit.model
    _, x, _ = model._start((pixels - vit._mean) / vit._deviation, 4)
    for number in range(block):
        x = model.blocks[number](x)
    q, k, _ = model.blocks[block].attn.qkv(model.blocks[block].norm1(x))[0].chunk(3, -1)
    rows = []
    for head in range(CONFIG.heads):
        channels = slice(head * 16, (head + 1) * 16)
        scores = k[:, channels] @ q[0, channels] / 4
        rows.append(len(x[0]) * scores.softmax(0)[1:])
    return torch.stack(rows).view(CONFIG.heads, 5, 7).numpy()


@pytest.mark.parametrize("block", [0, 1, -1])
def test_there_is_a_map_for_each_head(vit, block):
    whole = np.pad(IMAGE, ((0, 2), (0, 3)), "reflect")
    maps = attention_maps(
        IMAGE, vit, "identity", block=block, interpolation="nearest", **OPTIONS
    )
    assert maps.shape == (2, 18, 25)
    assert maps.dtype == np.float32
    expected = slow_attention(vit, whole, block % 3)
    patches = expected.repeat(4, 1).repeat(4, 2)[:, :18, :25]
    inside = np.arange(1, 18, 4)[:, None], np.arange(1, 25, 4)
    np.testing.assert_allclose(maps[:, *inside], patches[:, *inside], rtol=2e-3)


def test_the_maps_go_through_the_same_transforms(vit):
    maps = attention_maps(IMAGE, vit, "lattice:2*flip", 2, **OPTIONS)
    features = hr.compute_features(
        IMAGE,
        ViTBackbone(
            "tiny@a2",
            CONFIG,
            random_weights(CONFIG),
            facets=(attention_facet(2),),
        ),
        "lattice:2*flip",
        2,
        **OPTIONS,
    )
    np.testing.assert_array_equal(maps, features.materialize())


def attention_facet(block):
    from napari_hrdv2.core.backbones.vit.model import Facet

    return Facet("attention", block)


def test_other_facets_leave_the_backbone_as_it_was(vit):
    other = vit.with_facets((attention_facet(-3),))
    assert (other.name, other.channels, other.steps) == ("tiny@a0", 2, 1)
    assert (vit.name, vit.channels, vit.steps) == ("tiny", 32, 3)
    assert other.model is vit.model
    assert other.with_facets((attention_facet(1),)).name == "tiny@a1"
    assert (other.with_facets(()).name, other.with_facets(()).channels) == ("tiny", 32)


def test_of_a_joined_backbone_the_vision_transformer_is_asked(vit, spit):
    joined = JoinedBackbone((hr.load_backbone("filters"), vit))
    assert attention_maps(IMAGE, joined, "identity", **OPTIONS).shape == (2, 18, 25)
    with pytest.raises(ValueError, match="filters has no class token whose attention"):
        attention_maps(IMAGE, hr.load_backbone("filters"))
    with pytest.raises(ValueError, match="spit-tiny has no class token"):
        attention_maps(IMAGE, spit)


@pytest.mark.parametrize("block", [3, -4])
def test_a_block_that_there_is_not_is_refused(vit, block):
    with pytest.raises(ValueError, match=f"block: {block} is none of tiny; its blocks"):
        attention_maps(IMAGE, vit, block=block)


def test_the_flow_is_that_of_each_region(spit):
    halves = np.repeat([[3, 8]], 12, axis=1).repeat(30, axis=0)
    image = np.random.default_rng(1).random((30, 24), np.float32)
    flow = attention_flow_map(image, spit, partition=halves, **OPTIONS)
    assert flow.shape == (30, 24)
    assert sorted([*np.unique(flow[:, :12]), *np.unique(flow[:, 12:])]) == [0, 1]
    with pytest.raises(ValueError, match="filters does not divide images into regions"):
        attention_flow_map(image, hr.load_backbone("filters"))


@pytest.mark.parametrize("spec", ["identity", "flip", "shift:1"])
def test_regions_are_those_of_the_image_as_it_is(spit, spec):
    image = np.random.default_rng(2).random((40, 33), np.float32)
    plain = hr.compute_features(image, spit, "identity", **OPTIONS)
    features = hr.compute_features(image, spit, spec, **OPTIONS)
    labels = region_labels(features)
    np.testing.assert_array_equal(labels, region_labels(plain))
    assert (labels.min(), labels.max()) == (1, plain.counts[0])
    edges = borders(plain.label_maps[0].numpy())
    np.testing.assert_array_equal(borders(labels), edges)


def test_joined_features_show_the_regions_they_have(spit, vit):
    image = np.random.default_rng(2).random((40, 33), np.float32)
    joined = hr.compute_features(image, JoinedBackbone((vit, spit)), **OPTIONS)
    assert region_labels(joined).shape == (40, 33)
    with pytest.raises(ValueError, match="features: they stand for a grid of patches"):
        region_labels(hr.compute_features(image, vit, **OPTIONS))
