"""Neighbourhood attention: against a slow way of writing the published pass down."""

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import napari_hrdv2 as hr
from napari_hrdv2.core.backbones.vit.backbone import ViTBackbone
from napari_hrdv2.core.backbones.vit.model import ViTConfig
from napari_hrdv2.core.backbones.vit.weights import random_weights
from napari_hrdv2.core.errors import WeightsError
from napari_hrdv2.core.features.memory import estimate
from napari_hrdv2.core.features.upsampling import naf as naf_module
from napari_hrdv2.core.features.upsampling.naf import (
    NafConfig,
    load_naf,
    naf_file,
    random_naf,
)
from napari_hrdv2.core.features.upsampling.sharpening import (
    Upsampling,
    parse_interpolation,
)

CONFIG = NafConfig(channels=32, heads=2, layers=2, groups=4)
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def naf():
    return random_naf(CONFIG)


@pytest.fixture
def installed(monkeypatch, tmp_path, naf):
    """Make small random weights those of this machine."""
    monkeypatch.setattr(
        "napari_hrdv2.core.features.upsampling.naf_upsampling.installed_naf",
        lambda: naf,
    )
    return naf


# --- The published pass, slowly ------------------------------------------------------
@torch.no_grad()
def slow_encoder(state, image):
    """Return (channels, H, W) of a (3, H, W) image, with torch's own layers."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    x = ((image - mean) / deviation)[None]

    def conv(x, name):
        weight = state[f"{name}.weight"]
        layer = nn.Conv2d(
            weight.shape[1],
            weight.shape[0],
            weight.shape[2],
            padding=weight.shape[2] // 2,
            padding_mode="reflect",
        )
        layer.load_state_dict(
            {part: state[f"{name}.{part}"] for part in ("weight", "bias")}
        )
        return layer(x)

    def norm(x, name):
        return F.silu(
            F.group_norm(
                x, CONFIG.groups, state[f"{name}.weight"], state[f"{name}.bias"]
            )
        )

    branches = []
    for branch in ("encoder", "sem_encoder"):
        y = conv(x, f"image_encoder.{branch}.0")
        for block in (1, 2):
            for layer in (1, 2):
                name = f"image_encoder.{branch}.{block}."
                y = conv(norm(y, f"{name}norm{layer}"), f"{name}conv{layer}")
        branches.append(y[0])
    return torch.cat(branches)


def slow_rotation(x):
    """Turn (channels, H, W), head by head, pixel by pixel."""
    channels, height, width = x.shape
    dim = channels // CONFIG.heads
    turned = x.clone()
    for row in range(height):
        for column in range(width):
            v = 2 * (row + 0.5) / height - 1, 2 * (column + 0.5) / width - 1
            angles = [
                2 * math.pi * place / 100 ** (n / (dim // 4))
                for place in v
                for n in range(dim // 4)
            ]
            for head in range(CONFIG.heads):
                for n, angle in enumerate(angles):
                    one, other = head * dim + n, head * dim + n + dim // 2
                    a, b = x[one, row, column], x[other, row, column]
                    turned[one, row, column] = a * math.cos(angle) - b * math.sin(angle)
                    turned[other, row, column] = b * math.cos(angle) + a * math.sin(
                        angle
                    )
    return turned


def slow_naf(network, image, features):
    """Return (C, H, W): features at the nearest, then dilated attention."""
    x = slow_rotation(slow_encoder(network.state_dict(), image))
    _, height, width = x.shape
    C, h, w = features.shape
    keys = F.adaptive_avg_pool2d(x, (h, w))
    keys, values = (
        F.interpolate(m[None], size=(height, width), mode="nearest-exact")[0]
        for m in (keys, features)
    )
    dilation = height // h, width // w
    output = torch.zeros(C, height, width)
    dim, share = len(x) // CONFIG.heads, C // CONFIG.heads
    for row in range(height):
        rows = neighbours(row, height, dilation[0])
        for column in range(width):
            columns = neighbours(column, width, dilation[1])
            for head in range(CONFIG.heads):
                mine = slice(head * dim, (head + 1) * dim)
                near = keys[mine][:, rows][:, :, columns].flatten(1)
                weight = (x[mine, row, column] @ near / math.sqrt(dim)).softmax(0)
                some = slice(head * share, (head + 1) * share)
                seen = values[some][:, rows][:, :, columns].flatten(1)
                output[some, row, column] = seen @ weight
    return output


def neighbours(index, length, dilation, size=9):
    """Return the places that NATTEN takes, a window moved inside its dilation group."""
    group = list(range(index % dilation, length, dilation))
    start = min(max(group.index(index) - size // 2, 0), len(group) - size)
    return group[start : start + size]


def test_it_is_the_published_pass_where_patches_tile_the_image(installed):
    image = torch.from_numpy(RNG.random((3, 20, 22), np.float32))
    tokens = torch.from_numpy(RNG.standard_normal((1, 10, 11, 6)).astype(np.float32))
    features = hr.HighResFeatures(
        tokens, "identity", (20, 22), 2, 2, "naf", guide=image
    )
    expected = slow_naf(installed.network, image, tokens[0].movedim(-1, 0))
    found = features.materialize()
    np.testing.assert_allclose(found, expected, atol=5e-3)
    rows, columns = np.mgrid[:20, :22]
    sampled = features.sample(rows.ravel(), columns.ravel()).T.reshape(6, 20, 22)
    np.testing.assert_allclose(sampled, found, atol=1e-5)


def test_the_network_is_the_published_one(naf):
    image = torch.from_numpy(RNG.random((3, 7, 9), np.float32))
    expected = slow_rotation(slow_encoder(naf.network.state_dict(), image))
    found = naf.network(image).float().movedim(-1, 0)
    np.testing.assert_allclose(found, expected, atol=4e-3 * expected.abs().max())
    grey = naf.network(image[:1])
    torch.testing.assert_close(grey, naf.network(image[:1].expand(3, -1, -1)))


def test_strips_of_the_image_give_what_the_whole_gives(naf, monkeypatch):
    image = torch.from_numpy(RNG.random((3, 13, 8), np.float32))
    whole = naf.network(image)
    monkeypatch.setattr(naf_module, "STRIP", 4)
    torch.testing.assert_close(naf.network(image), whole, atol=2e-3, rtol=0)


# --- Behind the features -------------------------------------------------------------
GEOMETRIES = [
    ((20, 26), 4, 4, "identity"),
    ((21, 27), 4, 2, "identity"),  # overlapping patches, and an image that was padded
    ((23, 30), 5, 5, "lattice:2"),
    ((22, 25), 4, 4, "shift:1"),
    ((9, 40), 8, 3, "identity"),  # fewer tokens than the window has
]


def features(shape, patch, stride, spec, C=7, **options):
    grid = [-(-max(0, n - patch) // stride) + 1 for n in shape]
    count = {"identity": 1, "lattice:2": 4, "shift:1": 9}[spec]
    tokens = np.random.default_rng(3).standard_normal((count, *grid, C))
    guide = np.random.default_rng(4).random((1, *shape), np.float32)
    return hr.HighResFeatures(
        tokens.astype(np.float32),
        spec,
        shape,
        patch,
        stride,
        "naf",
        guide=guide,
        **options,
    )


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_projecting_and_upsampling_commute(installed, geometry):
    made = features(*geometry)
    dense = made.materialize()
    assert dense.shape == made.shape
    weight = RNG.standard_normal((3, 7)).astype(np.float32)
    bias = np.array([10.0, -20.0, 0.5], np.float32)
    expected = np.tensordot(weight, dense, 1) + bias[:, None, None]
    np.testing.assert_allclose(made.project(weight, bias), expected, atol=1e-4)
    rows, columns = (
        RNG.integers(0, made.shape[1], 50),
        RNG.integers(0, made.shape[2], 50),
    )
    sampled = made.sample(rows, columns)
    np.testing.assert_allclose(sampled.T, dense[:, rows, columns], atol=1e-5)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_region_is_the_same_part_of_the_whole(installed, geometry):
    made = features(*geometry)
    weight, bias = RNG.standard_normal((2, 7)).astype(np.float32), np.zeros(2)
    region = slice(3, 8), slice(5, 21)
    part = made.project(weight, bias, region=region)
    np.testing.assert_array_equal(part, made.project(weight, bias)[:, *region])


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_constant_tokens_stay_constant(installed, geometry):
    made = features(*geometry)
    made.tokens = torch.full_like(made.tokens, 3.0)
    np.testing.assert_allclose(made.materialize(), 3.0, rtol=1e-5)


def test_a_constant_image_gives_finite_weights(installed):
    tokens = np.ones((1, 5, 5, 4), np.float32)
    made = hr.HighResFeatures(
        tokens, "identity", (20, 20), 4, 4, "naf", guide=np.zeros((20, 20))
    )
    assert np.isfinite(made.materialize()).all()


def test_the_image_must_be_there_and_grey_or_rgb(installed):
    tokens = np.ones((1, 5, 5, 4), np.float32)
    with pytest.raises(ValueError, match="guide: interpolation 'naf' is guided by the"):
        hr.HighResFeatures(tokens, "identity", (20, 20), 4, 4, "naf")
    with pytest.raises(ValueError, match="guide: 2 channels"):
        hr.HighResFeatures(
            tokens, "identity", (20, 20), 4, 4, "naf", guide=np.zeros((2, 20, 20))
        )


def test_computed_features_say_which_weights_upsampled_them(installed):
    config = ViTConfig(embed_dim=32, depth=1, heads=2, patch_size=4, image_size=16)
    backbone = ViTBackbone(
        "tiny",
        config,
        random_weights(config),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    image = RNG.random((21, 26), np.float32)
    made = hr.compute_features(image, backbone, "identity", interpolation="naf")
    assert made.part_options[0].interpolation == "naf@random"
    again = hr.compute_features(image, backbone, "identity", interpolation="naf@random")
    np.testing.assert_array_equal(made.materialize(), again.materialize())
    with pytest.raises(WeightsError, match="on this machine are random and 1234 are"):
        hr.compute_features(image, backbone, "identity", interpolation="naf@1234")
    filters = hr.load_backbone("filters")  # has nothing to upsample
    pixels = hr.compute_features(image, filters, interpolation="naf@1234")
    assert pixels.shape[1:] == (21, 26)
    told = estimate((21, 26), backbone, "identity", interpolation="naf")
    plain = estimate((21, 26), backbone, "identity")
    assert told.token_bytes > plain.token_bytes


def test_its_name_may_carry_a_fingerprint():
    assert parse_interpolation("naf") == Upsampling("naf")
    assert parse_interpolation("naf@12ab").weights_hash == "12ab"
    assert parse_interpolation("naf").needs_one_grid
    for name in ("naf+1", "naf@", "nafs"):
        with pytest.raises(ValueError, match=re.escape(f"{name!r} is unknown; use")):
            parse_interpolation(name)


# --- Weights -------------------------------------------------------------------------
def test_the_released_network_has_as_many_numbers_as_its_authors_say():
    state = random_naf().network.state_dict()
    numbers = {n: x.numel() for n, x in state.items()}
    assert numbers.pop("image_encoder.rope.periods") == 16
    assert sum(numbers.values()) == 662_528  # 0.66 M
    assert state["image_encoder.sem_encoder.2.conv2.weight"].shape == (128, 128, 3, 3)


def test_a_file_is_loaded_as_it_is(naf, tmp_path):
    state = naf.network.state_dict()
    torch.save(state, tmp_path / "naf.pth")
    loaded = load_naf(tmp_path / "naf.pth", CONFIG)
    assert len(loaded.hash) == 16
    for name, x in loaded.network.state_dict().items():
        torch.testing.assert_close(x, state[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("image_encoder.encoder.0.bias"), "missing image_encoder.enc"),
        (lambda s: s.update(extra=torch.zeros(1)), "unexpected extra"),
        (
            lambda s: s.update({"image_encoder.rope.periods": torch.zeros(3)}),
            "misshaped image_encoder.rope.periods",
        ),
        (
            lambda s: s["image_encoder.encoder.0.bias"].fill_(math.nan),
            "NaN or infinite numbers in image_encoder.encoder.0.bias",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(naf, tmp_path, change, message):
    state = {name: x.clone() for name, x in naf.network.state_dict().items()}
    change(state)
    torch.save(state, tmp_path / "naf.pth")
    with pytest.raises(WeightsError, match=message):
        load_naf(tmp_path / "naf.pth", CONFIG)


def test_where_there_are_no_weights_it_is_said_where_to_put_them(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("NAPARI_HRDV2_NAF", raising=False)
    monkeypatch.delenv("NAPARI_HRDV2_WEIGHTS", raising=False)
    with pytest.raises(WeightsError, match="naf_release.pth is not on this machine"):
        features(*GEOMETRIES[0])
    (tmp_path / "naf_release.pth").write_bytes(b"")
    assert naf_file() == tmp_path / "naf_release.pth"
    monkeypatch.setenv("NAPARI_HRDV2_NAF", str(tmp_path / "other.pth"))
    with pytest.raises(WeightsError, match="there is no file .*other.pth"):
        features(*GEOMETRIES[0])


def test_the_weights_of_this_machine_are_read_once(monkeypatch, tmp_path):
    file = tmp_path / "naf_release.pth"
    torch.save(random_naf().network.state_dict(), file)
    monkeypatch.setenv("NAPARI_HRDV2_NAF", str(file))
    first = naf_module.installed_naf()
    assert naf_module.installed_naf() is first
    assert first.hash == load_naf(file).hash
