"""FeatUp's upsampler against the published pass, written down a second, slow way."""

import numpy as np
import pytest
import torch
from torch.nn import functional

import napari_hrdv2 as hr
from napari_hrdv2.core.backbones.checkpoint import Weights
from napari_hrdv2.core.errors import WeightsError
from napari_hrdv2.core.features.high_resolution import HighResFeatures
from napari_hrdv2.core.features.upsampling import featup
from napari_hrdv2.core.features.upsampling.featup import (
    installed_featup,
    jbu_cost,
    load_featup,
    shapes,
)
from napari_hrdv2.core.features.upsampling.sharpening import (
    Upsampling,
    parse_interpolation,
)

CHANNELS = 5
GENERATOR = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def weights(monkeypatch):
    generator, state = torch.Generator().manual_seed(0), {}
    for name, shape in shapes(CHANNELS).items():
        fan = shape[1] if len(shape) == 4 else 9
        state[name] = torch.randn(shape, generator=generator) / fan**0.5
        if name.endswith("sigma_spatial"):
            state[name] = torch.tensor(0.8)
    found = Weights(state, "random")
    monkeypatch.setattr(featup, "installed_featup", lambda: found)
    return found


def slow_stage(state, stage, source, guide):
    """Return one stage pixel by pixel, as the authors' modules compute it."""
    part = {k.removeprefix(f"up{stage}."): v for k, v in state.items()}

    def linear(name, vector):
        return part[f"{name}.weight"][:, :, 0, 0] @ vector + part[f"{name}.bias"]

    height, width = guide.shape[1:]
    fine = functional.interpolate(source[None], (height, width), mode="bicubic")
    fine = functional.pad(fine, [3] * 4, mode="reflect")[0]
    keys = torch.zeros(32, height, width)
    for y in range(height):
        for x in range(width):
            hidden = functional.gelu(linear("range_proj.0", guide[:, y, x]))
            keys[:, y, x] = linear("range_proj.3", hidden)
    near = functional.pad(keys[None], [3] * 4, mode="reflect")[0]
    axis = torch.linspace(-1, 1, 7)
    y_of, x_of = torch.meshgrid(axis, axis, indexing="ij")
    spatial = torch.exp(-(x_of**2 + y_of**2) / (2 * part["sigma_spatial"] ** 2))
    output = torch.zeros(len(source), height, width)
    for y in range(height):
        for x in range(width):
            window = near[:, y : y + 7, x : x + 7]
            scores = (window * keys[:, y, x][:, None, None]).sum(0)
            scores = scores * part["range_temp"].exp()
            kernel = scores.flatten().softmax(0) * spatial.flatten()
            kernel = kernel / kernel.sum()
            both = torch.cat([kernel, guide[:, y, x]])
            hidden = functional.gelu(linear("fixup_proj.0", both))
            kernel = (kernel + 0.1 * linear("fixup_proj.3", hidden)).view(7, 7)
            output[:, y, x] = (fine[:, y : y + 7, x : x + 7] * kernel).sum((1, 2))
    return output


def slow_stack(state, tokens, image):
    """Return the four stages, (C, 16h, 16w), without the last 1 × 1 convolution."""
    mean = torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)
    deviation = torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
    guide = (torch.from_numpy(image).expand(3, -1, -1) - mean) / deviation
    source = torch.from_numpy(tokens).movedim(2, 0)
    for stage in range(1, 5):
        size = source.shape[1] * 2, source.shape[2] * 2
        small = functional.adaptive_avg_pool2d(guide, size)
        source = slow_stage(state, stage, source, small)
    return source.numpy()


def made(tokens, image, patch=16, stride=16):
    return HighResFeatures(
        tokens[None],
        "identity",
        image.shape[-2:],
        patch,
        stride,
        "jbu",
        guide=image,
    )


def example(height, width, patch=16, stride=16, channels=()):
    grid = [1 + -(-max(0, n - patch) // stride) for n in (height, width)]
    tokens = GENERATOR.standard_normal((*grid, CHANNELS)).astype(np.float32)
    return tokens, GENERATOR.random((*channels, height, width), np.float32)


def close(found, expected):
    """Half precision of the kernels leaves a few thousandths."""
    np.testing.assert_allclose(found, expected, atol=5e-3 * np.abs(expected).max())


@pytest.mark.parametrize("channels", [(), (3,)])
def test_the_map_is_that_of_the_published_stages(weights, channels):
    tokens, image = example(32, 48, channels=channels)
    close(made(tokens, image).materialize(), slow_stack(weights.state, tokens, image))


def test_patches_of_14_px_are_enlarged_16_times_and_then_resized(weights):
    tokens, image = example(28, 42, 14, 14)
    large = torch.from_numpy(slow_stack(weights.state, tokens, image))
    expected = functional.interpolate(large[None], (28, 42), mode="bilinear")[0]
    # torch leaves out what lies between two samples when it makes an image smaller,
    # and so is it done here.
    close(made(tokens, image, 14, 14).materialize(), expected.numpy())


@pytest.mark.parametrize(
    ("height", "width", "patch", "stride"),
    [(32, 32, 16, 16), (45, 51, 16, 16), (33, 70, 14, 14), (40, 37, 16, 8)],
)
def test_pixels_are_those_of_the_map(height, width, patch, stride):
    tokens, image = example(height, width, patch, stride)
    features = made(tokens, image, patch, stride)
    whole = features.materialize()
    rows, columns = (part.flatten() for part in np.mgrid[:height, :width])
    expected = whole[:, rows, columns].T
    sampled = features.sample(rows, columns)
    np.testing.assert_allclose(sampled, expected, atol=2e-5 * np.abs(expected).max())


def test_the_last_convolution_of_the_authors_is_a_readout(weights):
    """It commutes with the stages, so applying it before or after them is the same."""
    tokens, image = example(32, 32)
    matrix = weights.state["fixup_proj.1.weight"][:, :, 0, 0]
    shift = weights.state["fixup_proj.1.bias"]
    stack = torch.from_numpy(slow_stack(weights.state, tokens, image))
    published = 0.1 * functional.conv2d(stack[None], matrix[..., None, None], shift)
    published = published[0] + stack
    readout = torch.eye(CHANNELS) + 0.1 * matrix
    close(made(tokens, image).project(readout, 0.1 * shift), published.numpy())


def test_the_bias_of_a_readout_is_not_upsampled():
    tokens, image = example(32, 48)
    features = made(0 * tokens, image)
    bias = torch.tensor([1.0, -2.0])
    planes = features.project(torch.ones(2, CHANNELS), bias)
    np.testing.assert_array_equal(planes, np.broadcast_to([[[1]], [[-2]]], (2, 32, 48)))


def test_a_region_is_the_same_part_of_the_whole():
    tokens, image = example(48, 64)
    features = made(tokens, image)
    weight, bias = torch.randn(3, CHANNELS), torch.randn(3)
    region = (slice(5, 31), slice(17, 18))
    part = features.project(weight, bias, region=region)
    np.testing.assert_array_equal(part, features.project(weight, bias)[:, *region])


def test_features_are_computed_and_remember_the_weights(weights):
    backbone = hr.load_backbone("dino-small-16", "random", "cpu")
    _, image = example(40, 50)
    features = hr.compute_features(
        image, backbone, "shift:1", interpolation="jbu", value_range=(0, 1)
    )
    assert features.shape == (384, 40, 50)
    assert features.part_options[0].interpolation == "jbu@random"
    assert features.nbytes > sum(
        2 * 49 * (3 << stage) * (4 << stage) for stage in range(1, 5)
    )
    with pytest.raises(WeightsError, match="the weights of 'jbu' on this machine"):
        hr.compute_features(image, backbone, "identity", interpolation="jbu@other")


@pytest.mark.parametrize(("size", "patch", "stride"), [(64, 16, 16), (56, 14, 14)])
def test_the_memory_that_is_kept_is_foretold(size, patch, stride):
    features = made(*example(size, size, patch, stride), patch, stride)
    kernels = features.nbytes - features.tokens.numel() * 4
    assert abs(jbu_cost(size**2, stride)[0] / kernels - 1) < 0.01


def test_names_are_parsed():
    assert parse_interpolation("jbu") == Upsampling("jbu")
    assert parse_interpolation("jbu@abc") == Upsampling("jbu", weights_hash="abc")
    for name in ("jbu+1", "jbu@"):
        with pytest.raises(ValueError, match="interpolation"):
            parse_interpolation(name)


def test_tokens_too_near_or_too_few_are_refused():
    tokens, image = example(32, 32, 16, 4)
    with pytest.raises(ValueError, match="must be 7 px or more"):
        made(tokens, image, 16, 4)
    tokens, image = example(16, 48)
    with pytest.raises(ValueError, match="there are 1 × 3"):
        made(tokens, image)


def test_an_image_is_needed():
    tokens, _ = example(32, 32)
    with pytest.raises(ValueError, match="guide: interpolation 'jbu'"):
        HighResFeatures(tokens[None], "identity", (32, 32), 16, 16, "jbu")
    with pytest.raises(ValueError, match="guide: 4 channels"):
        made(tokens, np.zeros((4, 32, 32), np.float32))


# --- Files ----------------------------------------------------------------------------
def checkpoint(state):
    """Return what the authors' training run keeps: backbone and all."""
    more = {
        "model.0.blocks.0.weight": torch.zeros(2),
        "model.1.norm.weight": torch.ones(CHANNELS),
        "downsampler.layer.weight": torch.zeros(3),
        "scale_net.net.weight": torch.zeros(1),
    }
    return {"state_dict": {f"upsampler.{k}": v for k, v in state.items()} | more}


def test_the_upsampler_is_found_in_a_checkpoint(tmp_path, weights):
    torch.save(checkpoint(weights.state), tmp_path / "x.ckpt")
    found = load_featup(tmp_path / "x.ckpt")
    assert found.state.keys() == weights.state.keys()
    assert all(torch.equal(found.state[n], x) for n, x in weights.state.items())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("up1.range_temp", None),
        ("up5.range_temp", torch.tensor(0.0)),
        ("up2.fixup_proj.0.weight", torch.zeros(49, 49, 1, 1)),
        ("fixup_proj.1.bias", None),
    ],
)
def test_a_file_that_does_not_fit_exactly_is_refused(tmp_path, weights, name, value):
    state = dict(weights.state)
    if value is None:
        del state[name]
    else:
        state[name] = value
    torch.save(checkpoint(state), tmp_path / "x.ckpt")
    with pytest.raises(WeightsError, match=r"does not fit: (missing|unexp|missh)"):
        load_featup(tmp_path / "x.ckpt")


def test_numbers_that_are_not_finite_are_refused(tmp_path, weights):
    state = weights.state | {"up3.sigma_spatial": torch.tensor(float("nan"))}
    torch.save(checkpoint(state), tmp_path / "x.ckpt")
    with pytest.raises(WeightsError, match=r"NaN or infinite numbers in up3\.sigma"):
        load_featup(tmp_path / "x.ckpt")


def test_missing_weights_are_told_in_one_sentence(monkeypatch, tmp_path):
    monkeypatch.delenv("NAPARI_HRDV2_FEATUP", raising=False)
    monkeypatch.setattr(featup, "_folders", lambda: [tmp_path])
    with pytest.raises(WeightsError, match=f"put it into {tmp_path}"):
        installed_featup()
    for name in ("dino16", "dinov2"):
        (tmp_path / f"{name}_jbu_stack_cocostuff.ckpt").touch()
        if name == "dino16":
            assert featup.featup_file() == tmp_path / f"{name}_jbu_stack_cocostuff.ckpt"
    with pytest.raises(WeightsError, match="let NAPARI_HRDV2_FEATUP name the one"):
        featup.featup_file()
