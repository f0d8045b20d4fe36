"""The Vision Transformer against stored outputs of the original code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_hrdv2.core.backbones.vit.model import (
    Facet,
    VisionTransformer,
    ViTConfig,
)
from napari_hrdv2.core.backbones.vit.weights import load_weights, random_weights

FIXTURES = Path(__file__).parents[2] / "fixtures" / "dinov2"
PLAIN = ViTConfig(embed_dim=32, depth=2, heads=2)
CONFIGS = {
    "plain": PLAIN,
    "reg": replace(PLAIN, registers=4, position_offset=0.0, position_antialias=True),
}
SIZES = [(56, 56), (70, 98), (140, 126), (518, 518)]


def model_for(config: ViTConfig) -> VisionTransformer:
    model = VisionTransformer(config)
    model.load_state_dict(random_weights(config).state)
    return model.eval().requires_grad_(False)


def stored_model(kind: str) -> VisionTransformer:
    weights = load_weights(FIXTURES / f"dinov2_tiny_{kind}.safetensors", CONFIGS[kind])
    model = VisionTransformer(CONFIGS[kind])
    model.load_state_dict(weights.state)
    return model.eval().requires_grad_(False)


def stored_image(height: int, width: int) -> torch.Tensor:
    i, j, c = np.ogrid[:height, :width, :3]
    pixels = ((i * i * 3 + j * 7 + i * j + c * 53) // 5) % 256
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    normalised = (pixels / 255 - mean) / deviation
    return torch.from_numpy(normalised.transpose(2, 0, 1)[None]).float()


@pytest.fixture(scope="module")
def stored():
    with np.load(FIXTURES / "dinov2_tiny_io.npz") as file:
        return dict(file)


def close(tensor: torch.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(tensor.numpy(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", ["plain", "reg"])
def test_outputs_equal_those_of_the_original_code(kind, size, stored):
    model, seen = stored_model(kind), []
    model.norm.register_forward_hook(lambda _, __, output: seen.append(output))
    output = model(stored_image(*size))
    key = f"{kind}_{size[0]}x{size[1]}_x_norm"
    step = 37 if size == (518, 518) else 1
    close(output.flatten(1, 2)[:, ::step], stored[f"{key}_patchtokens"])
    close(seen[0][:, 0], stored[f"{key}_clstoken"])
    if kind == "reg":
        close(seen[0][:, 1:5], stored[f"{key}_regtokens"])


@pytest.mark.parametrize("size", [(56, 56), (70, 98)], ids=str)
@pytest.mark.parametrize("kind", ["plain", "reg"])
def test_positions_and_inner_blocks_equal_those_of_the_original_code(
    kind, size, stored
):
    model = stored_model(kind)
    key = f"{kind}_{size[0]}x{size[1]}"
    close(model.positions(size[0] // 14, size[1] // 14), stored[f"{key}_pos_embed"])
    image = stored_image(*size)
    both = model(image, facets=[Facet("token", 0), Facet("token", -1)])
    first, last = both.chunk(2, dim=-1)
    close(first.permute(0, 3, 1, 2), stored[f"{key}_block1_normed"])
    assert torch.equal(last, model(image))


def test_the_stored_images_follow_the_formula_of_this_file(stored):
    i, j, c = np.ogrid[:70, :98, :3]
    formula = ((i * i * 3 + j * 7 + i * j + c * 53) // 5) % 256
    assert np.array_equal(stored["image_70x98"], formula)


def test_the_two_position_rules_differ_off_the_trained_grid():
    model = stored_model("reg")
    other = VisionTransformer(replace(model.config, position_offset=0.1))
    other.load_state_dict(model.state_dict())
    assert (model.positions(5, 7) - other.positions(5, 7)).abs().max() > 1e-3
    assert torch.equal(model.positions(37, 37), other.positions(37, 37))


@pytest.mark.parametrize("stride", [14, 7, 5, 1])
def test_the_grid_counts_whole_strides_after_the_first_patch(stride):
    height, width = 14 + 3 * stride, 14 + 5 * stride
    output = model_for(PLAIN)(torch.zeros(2, 3, height, width), stride=stride)
    assert output.shape == (2, 4, 6, 32)


def test_a_finer_stride_embeds_the_same_patches_at_every_second_token():
    embed = model_for(PLAIN).patch_embed
    image = torch.rand(1, 3, 56, 70)
    fine, coarse = embed(image, 7), embed(image, 14)
    torch.testing.assert_close(fine[:, :, ::2, ::2], coarse)


@pytest.mark.parametrize("shape", [(1, 3, 56, 57), (1, 3, 13, 14), (1, 1, 14, 14)])
def test_images_that_leave_pixels_over_are_refused(shape):
    with pytest.raises(ValueError, match="images"):
        model_for(PLAIN)(torch.zeros(shape))


def test_a_tick_that_raises_stops_the_pass_after_that_block():
    calls = []

    def tick() -> None:
        calls.append(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model_for(PLAIN)(torch.zeros(1, 3, 28, 28), tick=tick)
    assert len(calls) == 1


def test_feed_forward_in_pieces_gives_the_same_tokens(monkeypatch):
    model, image = model_for(PLAIN), torch.rand(2, 3, 70, 98)
    whole = model(image)
    monkeypatch.setattr(
        "napari_hrdv2.core.backbones.vit.model._PIECE_BYTES", 128 * 4 * 10
    )
    torch.testing.assert_close(model(image), whole, rtol=0, atol=1e-5)


def test_swiglu_gates_one_half_of_the_hidden_values_with_the_other():
    config = replace(PLAIN, feed_forward="swiglu")
    layer = model_for(config).blocks[0].mlp
    x = torch.rand(3, 32)
    gate, value = layer.w12(x)[:, :88], layer.w12(x)[:, 88:]
    expected = layer.w3(gate * torch.sigmoid(gate) * value)
    assert config.hidden_dim == 88
    torch.testing.assert_close(layer(x), expected)


def test_random_weights_keep_activations_near_one_in_bfloat16():
    config = ViTConfig(embed_dim=64, depth=12, heads=2)
    model = model_for(config).to(torch.bfloat16)
    image = torch.randn(1, 3, 56, 56, dtype=torch.bfloat16)
    tap = model(image).float()
    assert 0.9 < tap.std() < 1.1
    assert model.blocks[11](torch.randn(1, 9, 64).bfloat16()).abs().max() < 50
