"""DINO, DeiT, ViT and DINOv3 against their published pass, written out slowly.

No outputs of the original code are stored for these, so this is a second reading of
the same papers and sources: it proves that two ways of writing them down agree.
"""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_hrdv2.core.backbones.vit.model import Facet, VisionTransformer, ViTConfig
from napari_hrdv2.core.backbones.vit.weights import random_weights

OLDER = ViTConfig(
    embed_dim=32, depth=2, heads=2, patch_size=8, image_size=24, layer_scale=False
)
ROTARY = replace(OLDER, registers=4, layer_scale=True, positions="rotary", epsilon=1e-5)
CONFIGS = {
    "dino": OLDER,
    "dinov3": ROTARY,
    "dinov3 plus": replace(ROTARY, feed_forward="swiglu", feed_forward_ratio=6.0),
}
SIZES = {"dino": (24, 24), "dinov3": (24, 40), "dinov3 plus": (16, 8)}
State = dict[str, np.ndarray]


def uneven_state(config: ViTConfig) -> dict[str, torch.Tensor]:
    """Return random weights in which biases, norms and scales are uneven too."""
    torch.manual_seed(3)
    state = random_weights(config, seed=1).state
    fixed = "rope_embed.periods"
    return {
        n: x if n == fixed else x + 0.1 * torch.randn(x.shape) for n, x in state.items()
    }


def model_of(config: ViTConfig) -> VisionTransformer:
    model = VisionTransformer(config)
    model.load_state_dict(uneven_state(config))
    return model.eval().requires_grad_(False)


# --- The published pass, one number at a time -----------------------------------------
def norm(x: np.ndarray, name: str, state: State, epsilon: float) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt(variance + epsilon)
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(x: np.ndarray, name: str, state: State) -> np.ndarray:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def turned(head: np.ndarray, places: list[tuple[float, float] | None]) -> np.ndarray:
    """Turn the (tokens, dim) queries or keys of a head, element by element."""
    result = head.copy()
    half = head.shape[1] // 2
    for token, place in enumerate(places):
        if place is None:
            continue
        for channel in range(half):
            row_or_column = place[0] if channel < half // 2 else place[1]
            exponent = (channel % (half // 2)) / (half // 2)
            angle = 2 * math.pi * row_or_column / 100**exponent
            first, second = head[token, channel], head[token, channel + half]
            cosine, sine = math.cos(angle), math.sin(angle)
            result[token, channel] = first * cosine - second * sine
            result[token, channel + half] = second * cosine + first * sine
    return result


def attention(x: np.ndarray, name: str, state: State, heads: int, places) -> np.ndarray:
    dim = x.shape[1] // heads
    queries, keys, values = np.split(linear(x, f"{name}.qkv", state), 3, axis=1)
    results = []
    for head in range(heads):
        part = slice(head * dim, (head + 1) * dim)
        query, key = queries[:, part], keys[:, part]
        if places is not None:
            query, key = turned(query, places), turned(key, places)
        scores = np.exp(query @ key.T / math.sqrt(dim))
        results.append(scores / scores.sum(axis=1, keepdims=True) @ values[:, part])
    return linear(np.concatenate(results, axis=1), f"{name}.proj", state)


def feed_forward(x: np.ndarray, name: str, state: State, gated: bool) -> np.ndarray:
    if gated:
        gate, value = np.split(linear(x, f"{name}.w12", state), 2, axis=1)
        return linear(gate / (1 + np.exp(-gate)) * value, f"{name}.w3", state)
    hidden = linear(x, f"{name}.fc1", state)
    error_function = np.vectorize(math.erf)
    hidden = hidden * 0.5 * (1 + error_function(hidden / math.sqrt(2)))
    return linear(hidden, f"{name}.fc2", state)


def embedded(
    image: np.ndarray, config: ViTConfig, state: State
) -> tuple[np.ndarray, list[tuple[float, float] | None]]:
    """Return the tokens before the first block, and where in -1..1 each patch is."""
    size = config.patch_size
    rows, columns = image.shape[1] // size, image.shape[2] // size
    tokens = [state["cls_token"][0, 0]]
    places: list[tuple[float, float] | None] = [None]
    for register in range(config.registers):
        tokens.append(state["register_tokens"][0, register])
        places.append(None)
    for row in range(rows):
        for column in range(columns):
            patch = image[:, row * size :, column * size :][:, :size, :size]
            kernel, bias = (
                state[f"patch_embed.proj.{part}"] for part in ("weight", "bias")
            )
            tokens.append((kernel * patch).sum(axis=(1, 2, 3)) + bias)
            places.append(
                (2 * (row + 0.5) / rows - 1, 2 * (column + 0.5) / columns - 1)
            )
    return np.stack(tokens), places


def slow_pass(image: np.ndarray, config: ViTConfig, state: State) -> np.ndarray:
    x, places = embedded(image, config, state)
    if config.positions == "learned":
        x = x + state["pos_embed"][0]
    for block in range(config.depth):
        name = f"blocks.{block}"
        scales = [state.get(f"{name}.ls{i}.gamma", 1.0) for i in (1, 2)]
        inner = norm(x, f"{name}.norm1", state, config.epsilon)
        rotary = places if config.positions == "rotary" else None
        x = x + scales[0] * attention(
            inner, f"{name}.attn", state, config.heads, rotary
        )
        inner = norm(x, f"{name}.norm2", state, config.epsilon)
        gated = config.feed_forward == "swiglu"
        x = x + scales[1] * feed_forward(inner, f"{name}.mlp", state, gated)
    return norm(x, "norm", state, config.epsilon)


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_token_equals_that_of_the_published_pass(kind):
    config, size = CONFIGS[kind], SIZES[kind]
    image = torch.randn(3, *size, generator=torch.Generator().manual_seed(1))
    state = {n: x.double().numpy() for n, x in uneven_state(config).items()}
    expected = slow_pass(image.double().numpy(), config, state)
    model, seen = model_of(config), []
    model.norm.register_forward_hook(lambda _, __, output: seen.append(output))
    tokens = model(image[None]).flatten(1, 2)
    assert torch.equal(tokens, seen[0][:, 1 + config.registers :])
    np.testing.assert_allclose(seen[0][0], expected, rtol=0, atol=1e-5)


def test_rotary_positions_are_where_patches_are_whatever_the_stride():
    rotary = model_of(ROTARY).rope_embed
    plain = torch.stack(rotary(3, 4, 1.0, 0)).unflatten(1, (3, 4))
    finer = torch.stack(rotary(5, 7, 0.5, 0)).unflatten(1, (5, 7))
    torch.testing.assert_close(finer[:, ::2, ::2], plain)


def test_rotary_positions_leave_the_tokens_in_front_as_they_are():
    cosine, sine = model_of(ROTARY).rope_embed(2, 2, 1.0, 5)
    assert cosine.shape == (5 + 4, 16)
    assert (cosine[:5] == 1).all()
    assert (sine[:5] == 0).all()
    assert (sine[5:] != 0).any(dim=1).all()


def test_periods_stay_in_float32_in_a_half_precision_model():
    model = model_of(ROTARY)
    periods = model.rope_embed.periods.clone()
    model.to(torch.bfloat16)
    assert model.norm.weight.dtype == torch.bfloat16
    assert torch.equal(model.rope_embed.periods, periods)


def test_half_precision_tokens_are_near_those_of_float32():
    model, image = model_of(ROTARY), torch.randn(1, 3, 32, 48)
    exact = model(image)
    rough = model.to(torch.bfloat16)(image.bfloat16())
    assert (rough.float() - exact).abs().mean() < 0.02


@pytest.mark.parametrize("kind", CONFIGS)
def test_facets_are_what_the_attention_of_a_block_is_made_of(kind):
    model, image = model_of(CONFIGS[kind]), torch.randn(1, 3, 24, 32)
    seen: list[torch.Tensor] = []
    model.blocks[1].attn.qkv.register_forward_hook(
        lambda module, inputs, output: seen.append(output)
    )
    model(image)
    kinds = ("value", "key", "query")
    facets = model(image, facets=[Facet(facet, 1) for facet in kinds]).chunk(3, dim=-1)
    for facet, part in zip(facets, reversed(seen[0].chunk(3, dim=-1)), strict=True):
        patches = part[:, 1 + model.config.registers :]
        torch.testing.assert_close(facet.flatten(1, 2), patches)


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_class_token_s_attention_makes_what_it_reads(kind):
    model, image = model_of(CONFIGS[kind]), torch.randn(1, 3, 24, 32)
    seen: list[torch.Tensor] = []
    model.blocks[1].attn.proj.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0])
    )
    _, x, rotation = model._start(image, 8)
    x = model.blocks[0](x, rotation)
    inner = model.blocks[1].norm1(x)
    shares = model.blocks[1].attn.part(inner, "attention", rotation)[0] / x.shape[1]
    torch.testing.assert_close(shares.sum(dim=0), torch.ones(2))
    values = model.blocks[1].attn.part(inner, "value")[0].unflatten(1, (2, 16))
    read = torch.einsum("nh,nhd->hd", shares, values).flatten()
    model(image)
    torch.testing.assert_close(read, seen[0][0, 0])
    facet = model(image, facets=[Facet("attention", 1)])
    patches = shares[1 + model.config.registers :] * x.shape[1]
    torch.testing.assert_close(facet[0].flatten(0, 1), patches)


def test_facets_run_no_more_blocks_than_they_need():
    model, image, calls = model_of(OLDER), torch.randn(1, 3, 24, 24), []
    model(image, facets=[Facet("key", 0)], tick=lambda: calls.append(1))
    assert len(calls) == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak as Linux tells it")
@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_memory_does_not_grow_with_the_square_of_the_tokens(positions):
    """Six heads' scores of 16 130 tokens with one another would be 6.2 GB."""
    code = f"""
import resource
import torch
from napari_hrdv2.core.backbones.vit.model import VisionTransformer, ViTConfig

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

config = ViTConfig(embed_dim=96, depth=1, positions={positions!r})
model, image = VisionTransformer(config), torch.rand(1, 3, 518, 518)
with torch.no_grad():
    model(image)
    before = peak()
    assert model(image, stride=4).shape == (1, 127, 127, 96)
print(peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 250
