"""Operations, and the seconds they take."""

import math

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import napari_hrdv2 as hr
from napari_hrdv2.core.backbones.embedded.network import ConvNet, ConvNetConfig
from napari_hrdv2.core.backbones.loading import ViTBackbone
from napari_hrdv2.core.backbones.spit import SpitBackbone, SpitConfig, SpitEncoder
from napari_hrdv2.core.backbones.spit import random_weights as random_spit
from napari_hrdv2.core.backbones.spit.encoder import operations as spit_operations
from napari_hrdv2.core.backbones.vit.model import Facet, VisionTransformer, ViTConfig
from napari_hrdv2.core.backbones.vit.weights import random_weights
from napari_hrdv2.core.features.memory import estimate
from napari_hrdv2.core.features.pace import (
    PACES,
    Paces,
    convolution_operations,
    matrix_speed,
    operations,
    vit_operations,
)

CPU = torch.device("cpu")
CONFIG = ViTConfig(embed_dim=32, depth=3, heads=2, patch_size=4, image_size=16)


@pytest.fixture(autouse=True)
def no_runs_before():
    PACES.clear()
    yield
    PACES.clear()


def vit(facets=()):
    return ViTBackbone(
        "tiny",
        CONFIG,
        random_weights(CONFIG),
        device=CPU,
        dtype=torch.float32,
        facets=facets,
    )


def counted(run):
    # The fused attention of a CPU is not counted, its parts are.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("feed_forward", ["mlp", "swiglu"])
def test_the_operations_of_a_vit_are_those_that_torch_counts(feed_forward):
    config = ViTConfig(
        embed_dim=32, depth=3, heads=2, patch_size=4, feed_forward=feed_forward
    )
    model = VisionTransformer(config).eval().requires_grad_(False)
    image = torch.zeros(1, 3, 20, 28)
    found = counted(lambda: model(image, stride=4))
    assert vit_operations(config, config.depth, 35) == found


def test_facets_of_an_early_block_cost_no_more_than_the_blocks_up_to_it():
    whole, first = vit(), vit((Facet("token", 0),))
    sizes = {"tokens": 16, "pixels": 256}
    image = torch.zeros(1, 3, 16, 16)
    assert first.operations(**sizes) < whole.operations(**sizes) / 2
    assert first.operations(**sizes) == counted(lambda: first.tokens(image, stride=4))


def test_the_operations_of_spit_are_those_that_torch_counts():
    config = SpitConfig(embed_dim=32, depth=2, heads=2)
    with torch.device("meta"):
        encoder = SpitEncoder(config)
        tokens = torch.empty(11, config.token_dim)
    assert spit_operations(config, 11) == counted(lambda: encoder(tokens))


def test_the_operations_of_the_embedded_network_are_those_that_torch_counts():
    config = ConvNetConfig(stem=4, widths=(8, 6, 4), outputs=5, scales=1)
    with torch.device("meta"):
        network = ConvNet(config)
        image = torch.empty(1, 3, 32, 48)
    told = convolution_operations(config) * 32 * 48
    assert told == pytest.approx(counted(lambda: network(image)), rel=1e-6)


def test_the_embedded_network_runs_four_times_at_stride_one():
    embedded = hr.load_backbone("embedded")
    half = operations(embedded, tokens=256, pixels=1024)
    full = operations(embedded, tokens=961, pixels=1024)
    assert 3.5 < full / half < 4


def test_the_time_of_a_run_tells_that_of_the_next():
    backbone, paces = vit(), Paces()
    paces.record(backbone, seconds=2.0, operations=100, tokens=7)
    sizes = {"tokens": 9, "pixels": 50}
    assert paces.seconds(backbone, operations=250, **sizes) == 5.0
    paces.record(backbone, seconds=1.0, operations=100, tokens=7)
    assert paces.seconds(backbone, operations=250, **sizes) == 2.5


def test_where_operations_are_unknown_tokens_tell_after_a_run():
    backbone, paces = vit(), Paces()
    assert paces.seconds(backbone, operations=0, tokens=30, pixels=9) is None
    paces.record(backbone, seconds=2.0, operations=0, tokens=10)
    assert paces.seconds(backbone, operations=0, tokens=30, pixels=9) == 6.0


def test_before_a_run_the_speed_of_a_product_tells(monkeypatch):
    from napari_hrdv2.core.features import pace

    monkeypatch.setattr(pace, "matrix_speed", lambda device, dtype: 1e9)
    told = Paces().seconds(vit(), operations=3 * 10**9, tokens=1, pixels=1)
    assert told == pytest.approx(3 / pace.EFFICIENCY)
    bank = hr.load_backbone("filters")
    assert Paces().seconds(bank, operations=6000, tokens=1, pixels=1) == pytest.approx(
        pace.FILTER_TIME / 1e9
    )


def test_a_device_that_is_asleep_is_not_woken_up():
    if torch.cuda.is_initialized():
        pytest.skip("it is awake")
    assert matrix_speed(torch.device("cuda"), torch.float32) is None
    assert matrix_speed(torch.device("mps"), torch.float32) is None
    assert matrix_speed(CPU, torch.float32) > 0


def test_computing_features_leaves_its_pace_behind():
    image = np.random.default_rng(0).random((13, 18), np.float32)
    backbone = vit()
    hr.compute_features(image, backbone, "lattice:2")
    key = next(iter(PACES._seconds))
    assert key[0] == "tiny"
    told = estimate((13, 18), backbone, "lattice:2")
    assert told.operations == 4 * backbone.operations(tokens=20, pixels=320)
    assert told.seconds == pytest.approx(PACES._seconds[key] * told.operations)


def test_regions_are_counted_as_regions():
    config = SpitConfig(embed_dim=32, depth=2, heads=2)
    backbone = SpitBackbone("spit-tiny", config, random_spit(config))
    plain = estimate((64, 96), backbone, "flip")
    assert plain.passes == 4
    assert plain.tokens == 1.5 * 4 * 6
    assert plain == estimate((64, 96), backbone, "flip", debias="project")
    assert plain == estimate((64, 96), backbone, "flip", 3, interpolation="bilateral")
    image = np.random.default_rng(0).random((64, 96), np.float32)
    features = hr.compute_features(image, backbone, "flip")
    labels = 4 * 4 * 64 * 96
    assert plain.token_bytes == labels + 4 * 36 * 32 * 4
    assert features.nbytes == labels + sum(features.counts) * 32 * 4


def test_a_joined_backbone_is_as_unknown_as_its_parts():
    class Mean:
        name, channels, patch_size, dtype, device = "mean", 1, 4, torch.float32, CPU
        equivariant, activations, default_transforms = False, 1, "identity"
        context_cell = 0

        def channels_for(self, image_channels):
            return 1

        def tokens(self, images, **options):
            raise NotImplementedError

    from napari_hrdv2.core.backbones.loading import JoinedBackbone

    told = estimate((16, 16), JoinedBackbone((Mean(), vit())))
    assert (told.operations, told.seconds) == (0, None)
    assert math.isfinite(estimate((16, 16), vit()).seconds)
