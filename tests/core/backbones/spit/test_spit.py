"""SPiT: tokens and encoder are the reference's, from regions of any origin."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_hrdv2.core.backbones import LoadOptions, load_backbone
from napari_hrdv2.core.backbones.spit.backbone import (
    SPIT_SPECS,
    SpitBackbone,
    SpitSpec,
    load_spit,
    load_weights,
    random_weights,
)
from napari_hrdv2.core.backbones.spit.encoder import (
    SpitConfig,
    SpitEncoder,
    attention_flow,
    region_tokens,
)
from napari_hrdv2.core.backbones.superpixels import superpixels
from napari_hrdv2.core.backbones.superpixels.pixels import pixel_features
from napari_hrdv2.core.errors import WeightsError
from napari_hrdv2.core.features.superpixels import region_features

FIXTURES = Path(__file__).parents[3] / "fixtures" / "spit"
STORED = np.load(FIXTURES / "spit_io.npz")
CHECKPOINT = FIXTURES / "spit_tiny_grad.safetensors"
TINY = SpitConfig(embed_dim=32, depth=2, heads=2, sigma=0.05)


def stored_features(name):
    image = torch.from_numpy(STORED[f"{name}_image"]).permute(2, 0, 1) / 255
    return pixel_features(image)


def stored_labels(name, mode):
    return torch.from_numpy(STORED[f"{name}_{mode}_levels"][-1]).long()


def tiny_encoder(config=TINY):
    encoder = SpitEncoder(config)
    encoder.load_state_dict(random_weights(config).state)
    return encoder.requires_grad_(False)


def tiny_backbone(**changes):
    config = replace(TINY, **changes)
    return SpitBackbone("spit-tiny", config, random_weights(config))


def entry(channels=1, shape=(61, 47)):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, channels, 6, 5, generator=generator)
    return torch.nn.functional.interpolate(coarse, shape, mode="bilinear")[0]


@pytest.mark.parametrize("name", ["grains", "stain"])
def test_tokens_of_stored_regions_are_those_of_the_reference(name):
    ours = region_tokens(stored_features(name), stored_labels(name, "grad"), sigma=0.05)
    np.testing.assert_allclose(ours, STORED[f"{name}_grad_tokens"], atol=1e-5)


def test_tokens_without_gradients_are_those_of_the_reference():
    ours = region_tokens(
        stored_features("grains"),
        stored_labels("grains", "nograd"),
        sigma=0.025,
        gradients=False,
    )
    np.testing.assert_allclose(ours, STORED["grains_nograd_tokens"], atol=1e-5)


def test_tokens_of_squares_are_those_of_the_reference():
    image = torch.from_numpy(STORED["stain_image"][:64, :80]).permute(2, 0, 1) / 255
    labels = torch.from_numpy(STORED["grid_seg"]).long()
    ours = region_tokens(pixel_features(image), labels, sigma=0.025)
    np.testing.assert_allclose(ours, STORED["grid_tokens"], atol=1e-5)


def test_histograms_of_large_and_small_regions_equal_the_sum_over_their_pixels():
    features = stored_features("stain")
    labels = torch.zeros(72, 88, dtype=torch.int64)
    labels[10:40, 5:60], labels[50, 50] = 1, 2
    tokens = region_tokens(features, labels, sigma=0.05).view(3, 16, 16, 5)
    centres = torch.linspace(-1 + 1 / 16, 1 - 1 / 16, 16)
    for region in range(3):
        inside = features[:, labels == region]  # (7, N)
        for channel, first in ((3, 3), (4, 5)):
            near = [
                torch.exp(-((inside[axis][:, None] - centres) ** 2) / (2 * 0.05**2))
                for axis in (first, first + 1)
            ]
            expected = torch.einsum("ny,nx->yx", *near) / (inside.shape[1] / 4)
            torch.testing.assert_close(
                tokens[region, :, :, channel], expected, atol=1e-6, rtol=1e-5
            )


@pytest.mark.parametrize("name", ["grains", "stain"])
def test_the_encoder_gives_the_stored_output(name):
    encoder = SpitEncoder(TINY)
    encoder.load_state_dict(load_weights(CHECKPOINT, TINY).state)
    ours = encoder(torch.from_numpy(STORED[f"{name}_grad_tokens"])).detach()
    np.testing.assert_allclose(ours, STORED[f"{name}_grad_out"], atol=1e-5)


def test_the_order_of_the_regions_does_not_matter():
    encoder = tiny_encoder()
    tokens = torch.from_numpy(STORED["stain_grad_tokens"])
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))
    there = encoder(tokens)[1:][order]
    torch.testing.assert_close(encoder(tokens[order])[1:], there, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replace(TINY, gradients=False), "1280 numbers and 1024 are needed"),
        (replace(TINY, depth=3), r"missing blocks.2.norm1.weight"),
        (replace(TINY, depth=1), r"unexpected blocks.1."),
        (replace(TINY, embed_dim=64), r"misshaped cls_token"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(config, message):
    with pytest.raises(WeightsError, match=message):
        load_weights(CHECKPOINT, config)


def test_files_that_are_none_or_damaged_are_refused(tmp_path):
    other = tmp_path / "other.safetensors"
    save_file({"pos_embed": torch.zeros(2)}, other)
    with pytest.raises(WeightsError, match="no checkpoint of SPiT"):
        load_weights(other, TINY)
    state = load_file(CHECKPOINT)
    state["norm.weight"][3] = torch.nan
    save_file(state, other)
    with pytest.raises(WeightsError, match="NaN or infinite numbers in norm.weight"):
        load_weights(other, TINY)


def test_the_fingerprint_tells_weights_apart():
    assert load_weights(CHECKPOINT, TINY).hash == load_weights(CHECKPOINT, TINY).hash
    assert random_weights(TINY).hash == "random"
    first, again, other = (random_weights(TINY, seed=s).state for s in (0, 0, 1))
    assert torch.equal(first["embed.weight"], again["embed.weight"])
    assert not torch.equal(first["embed.weight"], other["embed.weight"])


@pytest.mark.parametrize("partition", ["superpixels", "squares", "pca-tree"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("spec", ["identity", "shift:1,2", "lattice:2*flip", "rotate"])
def test_project_is_the_readout_of_the_dense_map(partition, channels, spec):
    backbone = tiny_backbone(partition=partition)
    features = region_features(backbone, entry(channels), spec)
    assert features.shape == (32, 61, 47)
    weight = np.random.default_rng(0).standard_normal((3, 32))
    dense = np.einsum("kc,cyx->kyx", weight, features.materialize())
    assert np.isfinite(dense).all()
    np.testing.assert_allclose(features.project(weight, np.zeros(3)), dense, atol=1e-5)


def test_features_are_the_tokens_of_the_superpixels():
    image = entry(3)
    features = region_features(tiny_backbone(), image)
    labels = superpixels(image)
    raw = region_tokens(pixel_features(image), labels, sigma=0.05)
    expected = tiny_encoder()(raw)[1:][labels]
    assert features.counts == (int(labels.max()) + 1,)
    np.testing.assert_allclose(
        features.materialize(), expected.movedim(-1, 0), atol=1e-6
    )


@pytest.mark.parametrize("spec", ["identity", "flip", "shift:2"])
def test_any_label_map_may_be_the_partition(spec):
    partition = np.zeros((61, 47), np.uint16)
    partition[5:20, 5:20], partition[30:, 30:], partition[50:, :4] = 9, 400, 9
    features = region_features(tiny_backbone(), entry(), spec, partition=partition)
    dense = features.materialize()
    assert set(features.counts) == {3}
    for label in (0, 9, 400):
        inside = dense[:, partition == label]
        np.testing.assert_allclose(inside - inside[:, :1], 0, atol=1e-6)
    assert np.abs(dense[:, 6, 6] - dense[:, 0, 0]).max() > 1e-3


def test_ticks_are_counted_and_may_end_the_run():
    backbone = tiny_backbone()
    calls = []
    region_features(backbone, entry(), "flip", tick=lambda: calls.append(1))
    assert len(calls) == 4 * backbone.steps

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        region_features(backbone, entry(), tick=stop)


def test_tokens_may_be_kept_in_half_precision():
    backbone = tiny_backbone()
    backbone.dtype = torch.float16
    exact = region_features(tiny_backbone(), entry()).materialize()
    half = region_features(backbone, entry())
    assert half.tokens.dtype == torch.float16
    np.testing.assert_allclose(half.materialize(), exact, atol=5e-3)


def test_attention_flow_is_the_row_of_the_product_of_all_blocks():
    encoder = tiny_encoder()
    tokens = torch.from_numpy(STORED["stain_grad_tokens"])
    x = encoder.start(tokens)
    count = x.shape[1]
    flow = torch.eye(count).expand(2, -1, -1)
    for block in encoder.blocks:
        qkv = block.attn.qkv(block.norm1(x))[0].view(count, 3, 2, 16)
        query, key = qkv[:, 0].transpose(0, 1), qkv[:, 1].transpose(0, 1)
        attention = (query @ key.transpose(1, 2) / 4).softmax(2)
        flow = (0.9 * attention + 0.1 * torch.eye(count)) @ flow
        x = block(x)
    expected = flow[:, 0, 1:].amax(0).log()
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    torch.testing.assert_close(
        attention_flow(encoder, tokens), expected, atol=1e-4, rtol=0
    )


def test_saliency_is_constant_in_each_region():
    backbone, image = tiny_backbone(), entry()
    saliency = backbone.saliency(image)
    labels = superpixels(image.expand(3, -1, -1))
    assert (saliency.min(), saliency.max()) == (0, 1)
    assert all(len(saliency[labels == region].unique()) == 1 for region in range(5))


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (entry(2), {}, "image: spit-tiny takes 1 .* or 3"),
        (entry(), {"partition": np.zeros((3, 3), int)}, r"partition: .* \(61, 47\)"),
        (entry(), {"partition": np.zeros((61, 47))}, "partition: float64"),
        (entry(), {"boundary": "mirror"}, "boundary: 'mirror'"),
    ],
)
def test_bad_arguments_are_named(image, options, message):
    with pytest.raises(ValueError, match=message):
        region_features(tiny_backbone(), image, **options)


def test_every_entry_names_a_network_of_its_own():
    own = {(entry.md5, entry.compactness) for entry in SPIT_SPECS.values()}
    assert len(own) == len(SPIT_SPECS)
    sizes = {name: entry.download_bytes for name, entry in SPIT_SPECS.items()}
    # The reference says 22.2 and 86.8 million parameters.
    assert round(sizes["spit-small"] / 4e6, 1) == 22.2
    assert round(sizes["spit-base"] / 4e6, 1) == 86.8


@pytest.mark.parametrize("name", ["spit-small", "rvit-small", "spit-small:grid"])
def test_a_name_gives_a_network_with_random_weights(name):
    backbone = load_backbone(name, "random", "cpu")
    features = region_features(backbone, entry())
    assert features.shape == (384, 61, 47)
    assert features.tokens.isfinite().all()


def test_without_a_file_it_says_where_to_find_one():
    with pytest.raises(WeightsError, match=r"fetch SPiT-B16 \(w. grad.\) by the link"):
        load_backbone("spit-base", None, "cpu")
    with pytest.raises(WeightsError, match="rvit-small: no weights of it were pub"):
        load_backbone("rvit-small", None, "cpu")


def test_a_file_of_another_network_is_refused_though_its_tensors_fit(monkeypatch):
    fingerprint = hashlib.md5(CHECKPOINT.read_bytes()).hexdigest()
    entries = {
        "one": SpitSpec(name="one", config=TINY, file="One", md5="0"),
        "two": SpitSpec(name="two", config=TINY, file="Two", md5=fingerprint),
    }
    monkeypatch.setattr("napari_hrdv2.core.backbones.spit.backbone.SPIT_SPECS", entries)
    options = LoadOptions(CHECKPOINT, torch.device("cpu"))
    loose = replace(entries["two"], name="two:loose", compactness=0.0)
    entries["two:loose"] = loose
    for name, compactness in (("two", 0.1), ("two:loose", 0.0)):
        loaded = load_spit(entries[name], options)
        assert (loaded.name, loaded.compactness) == (name, compactness)
    with pytest.raises(WeightsError, match="is Two, not One; load it as two"):
        load_spit(entries["one"], options)
