"""Models that only the package transformers knows, tiny and with random weights."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_hrdv2.core.backbones import LoadOptions, backbone_info, load_backbone
from napari_hrdv2.core.backbones.transformers import (
    TransformersBackbone,
    load_transformers,
)
from napari_hrdv2.core.errors import WeightsError
from napari_hrdv2.core.features.compute import compute_features

transformers = pytest.importorskip("transformers")

HUB_MODEL = backbone_info("lab/model")
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {**TINY, "num_hidden_layers": 1, "vocab_size": 40}
SAM = {
    **{key: TINY[key] for key in TINY if key != "intermediate_size"},
    "mlp_dim": 64,
    "output_channels": 16,
    "global_attn_indexes": [1],
    "window_size": 2,
}
PIXELS = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}


@dataclass(frozen=True)
class Kind:
    """A model, how many tokens come first, and how its own pass is asked for them."""

    model: str
    config: str
    options: dict[str, Any]
    prefix: int = 0


KINDS = {
    "clip": Kind(
        "CLIPModel", "CLIPConfig", {"vision_config": TINY, "text_config": TEXT}, 1
    ),
    "clip_vision": Kind("CLIPVisionModel", "CLIPVisionConfig", TINY, 1),
    "siglip": Kind(
        "SiglipModel", "SiglipConfig", {"vision_config": TINY, "text_config": TEXT}
    ),
    "siglip_vision": Kind("SiglipVisionModel", "SiglipVisionConfig", TINY),
    "mae": Kind(
        "ViTMAEForPreTraining",
        "ViTMAEConfig",
        {**TINY, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1},
        1,
    ),
    "ijepa": Kind("IJepaModel", "IJepaConfig", TINY),
    "dinov2": Kind("Dinov2Model", "Dinov2Config", TINY, 1),
    "vit": Kind("ViTModel", "ViTConfig", TINY, 1),
    "deit": Kind("DeiTModel", "DeiTConfig", TINY, 2),
    "sam": Kind("SamModel", "SamConfig", {"vision_config": SAM}),
}
OUR_OWN = ("dinov2", "vit", "deit")
FOREIGN = [kind for kind in KINDS if kind not in OUR_OWN]


def build(kind: str) -> Any:
    """Return the package's own model, with numbers in every tensor."""
    about = KINDS[kind]
    config = getattr(transformers, about.config)(**about.options)
    torch.manual_seed(1)
    model = getattr(transformers, about.model)(config)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def save(model: Any, folder: Path, pixels: dict[str, Any] = PIXELS) -> Path:
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    return folder


@pytest.fixture
def saved(tmp_path):
    """Return a function that gives a model and the folder that it was saved to."""

    def make(kind: str) -> tuple[Any, Path]:
        model = build(kind)
        return model, save(model, tmp_path / kind)

    return make


def load(folder: Path | str, **options: Any) -> Any:
    options = {"device": "cpu", "precision": "float32", **options}
    return load_backbone("lab/model", folder, **options)


def normalised(images: torch.Tensor) -> torch.Tensor:
    mean, deviation = (torch.tensor(x).view(3, 1, 1) for x in PIXELS.values())
    return (images - mean) / deviation


def own_tokens(model: Any, kind: str, images: torch.Tensor) -> torch.Tensor:
    """Return what the package gives for images of the size a model was made for."""
    encoder = getattr(model, "vision_model", getattr(model, "vit", model))
    options = {}
    if kind == "mae":
        encoder.config.mask_ratio = 0.0
        options["noise"] = torch.arange(16.0).expand(len(images), -1)
    if kind == "sam":
        encoder = model.vision_encoder
    with torch.no_grad():
        found = encoder(normalised(images), **options).last_hidden_state
    if kind == "sam":
        return found.permute(0, 2, 3, 1)
    return found[:, KINDS[kind].prefix :].unflatten(1, (4, 4))


@pytest.mark.parametrize("kind", FOREIGN)
def test_tokens_are_those_of_the_package(kind, saved):
    model, folder = saved(kind)
    images = torch.rand(2, 3, 32, 32)
    expected = own_tokens(model, kind, images)
    backbone = load(folder)
    assert isinstance(backbone, TransformersBackbone)
    found = backbone.tokens(images, stride=8)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert backbone.channels == backbone.channels_for(1) == found.shape[-1]
    assert (backbone.patch_size, len(backbone.weights_hash)) == (8, 16)


@pytest.mark.parametrize("kind", FOREIGN)
def test_any_image_is_taken_and_projected(kind, saved):
    backbone = load(saved(kind)[1])
    image = np.random.default_rng(1).random((61, 45))
    features = compute_features(image, backbone, "shift:1:neumann*flip")
    assert features.shape == (backbone.channels, 61, 45)
    weight = np.full((2, backbone.channels), 0.1, np.float32)
    weight[1, ::2] = -0.1
    expected = np.einsum("kc,chw->khw", weight, features.materialize())
    found = features.project(weight, np.zeros(2, np.float32))
    assert np.isfinite(found).all()
    assert np.ptp(found[1]) > 0.01
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "size"), [("dinov2", (32, 32)), ("vit", (40, 64)), ("deit", (40, 64))]
)
def test_our_own_network_gives_the_same_tokens(kind, size, saved):
    _, folder = saved(kind)
    own = load(folder)
    config = folder / "config.json"
    other = load_transformers(
        HUB_MODEL, config, LoadOptions(folder, torch.device("cpu"), "float32")
    )
    assert not isinstance(own, TransformersBackbone)
    images = torch.rand(2, 3, *size)
    found, expected = (b.tokens(images, stride=8) for b in (own, other))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_size_of_sam_leaves_the_next_as_it_would_be(saved):
    backbone = load(saved("sam")[1])
    first, other = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 64, 40)
    expected = backbone.tokens(first, stride=8)
    assert backbone.tokens(other, stride=8).shape == (1, 8, 5, 16)
    assert torch.equal(backbone.tokens(first, stride=8), expected)


def test_random_weights_half_precision_and_ticks(saved):
    _, folder = saved("ijepa")
    (folder / "model.safetensors").unlink()
    images, ticks = torch.rand(1, 1, 24, 16), []
    first, second = (
        load_transformers(
            HUB_MODEL,
            folder / "config.json",
            LoadOptions("random", torch.device("cpu"), "bfloat16"),
        )
        for _ in range(2)
    )
    tokens = first.tokens(images, stride=8, tick=lambda: ticks.append(1))
    assert torch.equal(tokens, second.tokens(images, stride=8))
    moved = second.to("cpu").tokens(images, stride=8)  # perhaps by a pass in float32
    torch.testing.assert_close(moved, tokens, atol=0.1, rtol=0)
    assert (tokens.shape, tokens.dtype) == ((1, 3, 2, 32), torch.bfloat16)
    assert (first.weights_hash, len(ticks)) == ("random", first.steps)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"images": torch.rand(1, 3, 32, 32), "stride": 4}, "stride: it is 4.*lattice"),
        ({"images": torch.rand(1, 2, 32, 32), "stride": 8}, "not 2"),
        ({"images": torch.rand(3, 32, 32), "stride": 8}, r"must be \(B, C, H, W\)"),
    ],
)
def test_what_a_model_cannot_do_is_refused(arguments, sentence, saved):
    backbone = load(saved("siglip_vision")[1])
    with pytest.raises(ValueError, match=sentence):
        backbone.tokens(**arguments)


def test_weights_are_told_apart_and_matched_strictly(saved):
    from safetensors.torch import load_file, save_file

    _, folder = saved("clip")
    file = folder / "model.safetensors"
    fingerprint, state = load(folder).weights_hash, load_file(file)
    name = "vision_model.encoder.layers.1.mlp.fc1.weight"
    state[name] += 1
    save_file(state, file)
    assert load(folder).weights_hash != fingerprint
    save_file({**state, name: torch.full_like(state[name], torch.nan)}, file)
    with pytest.raises(WeightsError, match=r"NaN .* in .*layers\.1\.mlp\.fc1\.weight"):
        load(folder)
    save_file({**state, name: torch.zeros(3, 3)}, file)
    with pytest.raises(WeightsError, match="does not load lab/model"):
        load(folder)
    del state[name]
    save_file(state, file)
    with pytest.raises(WeightsError, match=r"missing .*layers\.1\.mlp\.fc1\.weight$"):
        load(folder)


def test_other_kinds_of_files_are_not_read(saved):
    _, folder = saved("ijepa")
    torch.save({}, folder / "tiny.pth")
    with pytest.raises(WeightsError, match=r"tiny\.pth is no safetensors file"):
        load(folder / "tiny.pth")


def test_facets_are_of_our_own_networks(saved):
    _, folder = saved("ijepa")
    with pytest.raises(ValueError, match="leave out what follows @"):
        load_backbone("lab/model@k0", folder, "cpu")


def rewritten(folder: Path, file: str, **values: Any) -> None:
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, **values}))


@pytest.mark.parametrize(
    ("kind", "file", "values", "sentence"),
    [
        ("ijepa", "config.json", {"model_type": "unheard-of"}, "never run"),
        ("ijepa", "config.json", {"patch_size": [8, 4]}, r"patch_size \[8, 4\]"),
        ("ijepa", "config.json", {"patch_size": None}, "field 'patch_size'.*None"),
        ("ijepa", "config.json", {"num_channels": 4}, "num_channels 4"),
        ("ijepa", "preprocessor_config.json", {"image_std": None}, "normalised"),
    ],
)
def test_files_that_do_not_say_enough_are_refused(kind, file, values, sentence, saved):
    _, folder = saved(kind)
    rewritten(folder, file, **values)
    with pytest.raises(WeightsError, match=sentence):
        load(folder)


def test_pixels_may_be_told_by_a_processor_or_left_alone(saved):
    model, folder = saved("ijepa")
    images = torch.rand(1, 3, 32, 32)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match="says how its pixels are normalised"):
        load(folder)
    told = folder / "processor_config.json"
    told.write_text(json.dumps({"image_processor": PIXELS}))
    expected = own_tokens(model, "ijepa", images)
    torch.testing.assert_close(load(folder).tokens(images, stride=8), expected)
    told.write_text(json.dumps({"image_processor": {"do_normalize": False}}))
    other = load(folder).tokens(normalised(images), stride=8)
    torch.testing.assert_close(other, expected)


def test_tokens_that_are_no_grid_of_patches_are_refused(tmp_path):
    config = transformers.YolosConfig(**{**TINY, "image_size": [32, 32]})
    config.num_detection_tokens = 3  # which come after the patches
    folder = save(transformers.YolosModel(config), tmp_path / "yolos")
    with pytest.raises(WeightsError, match="not one for each patch of 8 pixels"):
        load(folder)


def test_positions_that_cannot_be_resampled_are_refused(saved, monkeypatch):
    _, folder = saved("clip_vision")
    monkeypatch.setattr(
        transformers.models.clip.modeling_clip.CLIPVisionEmbeddings,
        "interpolate_pos_encoding",
        lambda *_: torch.zeros(1, 17, 32),
    )
    with pytest.raises(WeightsError, match="position embeddings that can be resampled"):
        load(folder)


def test_without_the_extra_its_name_is_said(saved, monkeypatch):
    _, folder = saved("ijepa")
    for module in ("transformers", "transformers.utils"):
        monkeypatch.setitem(sys.modules, module, None)
    sentence = r"'ijepa'.*pip install \"napari-hrdv2\[transformers\]\""
    with pytest.raises(WeightsError, match=sentence):
        load(folder)


def test_loading_says_nothing_of_its_own(saved, capfd):
    _, folder = saved("clip")
    capfd.readouterr()
    load(folder)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
