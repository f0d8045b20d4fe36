"""The registry, loading by name, and the Hub when it cannot be reached."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub import constants, errors
from safetensors.torch import save_file

from napari_hrdv2.core.backbones import (
    DEFAULT_BACKBONE,
    JoinedBackbone,
    backbone_info,
    backbone_names,
    backbone_state,
    load_backbone,
    registry,
)
from napari_hrdv2.core.backbones.vit.model import Facet, VisionTransformer, ViTConfig
from napari_hrdv2.core.backbones.vit.specs import VIT_SPECS
from napari_hrdv2.core.backbones.vit.weights import random_weights
from napari_hrdv2.core.errors import Cancelled, WeightsError
from napari_hrdv2.core.features.compute import compute_features

TINY = ViTConfig(embed_dim=32, depth=2, heads=2, image_size=56)
HUB_CONFIG = {
    "model_type": "dinov2",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
}


@pytest.fixture(autouse=True)
def tiny_registry(monkeypatch, tmp_path):
    """Make dinov2-small a tiny network, and the Hub's cache an empty folder."""
    tiny = replace(registry.SPECS["dinov2-small"], config=TINY)
    monkeypatch.setitem(registry.SPECS, "dinov2-small", tiny)
    monkeypatch.setitem(VIT_SPECS, "dinov2-small", tiny)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Return a folder with a tiny network as transformers saves it."""
    path = tmp_path / "tiny"
    path.mkdir()
    save_file(random_weights(TINY, seed=3).state, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(HUB_CONFIG))
    return path


def load(name: str = "dinov2-small", weights="random", **options):
    return load_backbone(name, weights, "cpu", precision="float32", **options)


def test_names_begin_with_the_default_and_have_infos():
    names = backbone_names()
    assert names[0] == DEFAULT_BACKBONE == "embedded"
    assert len(names) == len(set(names)) == 27
    assert not any(":" in name or "@" in name for name in names)
    giant = backbone_info("dinov2-giant-reg")
    assert giant.source == "facebook/dinov2-with-registers-giant"
    assert (giant.channels, giant.patch_size) == (1536, 14)
    # 82 kB less than the file: the names of its tensors
    assert backbone_info("dinov2-giant").download_bytes == 4_545_923_072


def test_every_listed_backbone_is_in_the_docs_with_its_source(root):
    page = (root / "docs" / "backbones.md").read_text(encoding="utf-8")
    for name in backbone_names()[2:]:
        if not name.endswith("-reg"):  # one line stands for the four of them
            assert f"`{name}`" in page
            assert (backbone_info(name).source or "dsb-ifi/SPiT") in page


def test_every_pinned_download_has_its_own_full_commit():
    infos = [backbone_info(name) for name in backbone_names()[2:]]
    pinned = [info.revision for info in infos if info.revision is not None]
    assert all(len(revision) == 40 for revision in pinned)
    assert len(set(pinned)) == len(pinned) == 8
    assert all(i.name.startswith("dinov2") for i in infos if i.revision is not None)


def test_no_two_names_stand_for_one_file():
    infos = [backbone_info(name) for name in backbone_names()]
    files = [(i.source, i.filename) for i in infos if i.source]  # else not on the Hub
    assert len(set(files)) == len(files)
    assert all(source.count("/") == 1 for source, _ in files)


# Parameters without heads: DINO's and DeiT's papers and DINOv3's model table
@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("dino-small-8", 21.7),
        ("dino-small-16", 21.7),
        ("dino-base-8", 85.8),
        ("dino-base-16", 85.8),
        ("deit-base", 85.8),
        ("deit-small:distilled", 21.7),
        ("vit-base:384", 86.1),
        ("dinov3-small", 21.6),
        ("dinov3-small-plus", 28.7),
        ("dinov3-base", 85.7),
        ("neco-base", 86.6),
    ],
)
def test_networks_have_the_published_number_of_parameters(name, millions):
    with torch.device("meta"):
        model = VisionTransformer(registry.SPECS[name].config)
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert round(count, 1) == pytest.approx(millions)


def test_supervised_vits_are_normalised_as_they_were_trained():
    half = registry.SPECS["vit-small:384"].config
    imagenet = registry.SPECS["deit-small"].config
    assert half.pixel_mean == half.pixel_deviation == (0.5, 0.5, 0.5)
    assert imagenet.pixel_mean == (0.485, 0.456, 0.406)
    backbone = load("vit-small")
    image = torch.rand(1, 3, 16, 32)
    expected = backbone.model((image - 0.5) / 0.5)
    torch.testing.assert_close(backbone.tokens(image, stride=16), expected)


def test_gated_weights_say_so_before_a_download(monkeypatch, caplog):
    info = backbone_info("dinov3-base")
    assert info.licence == "DINOv3 License (gated)"
    assert "accept them at https://huggingface.co/facebook/dinov3-v" in info.conditions
    assert backbone_info("dinov2-base").conditions == ""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="offline mode is on"):
        load("dinov3-base", None)
    assert info.conditions in caplog.text


# --- Facets ---------------------------------------------------------------------------
def test_facets_stand_side_by_side_as_channels():
    image = torch.rand(1, 3, 28, 42)
    both, last = load("dinov2-small@k0,t1"), load()
    tokens = both.tokens(image, stride=14)
    assert both.channels == both.channels_for(1) == tokens.shape[-1] == 64
    torch.testing.assert_close(tokens[..., 32:], last.tokens(image, stride=14))
    pixels = (image - both._mean) / both._deviation
    keys = both.model(pixels, facets=[Facet("key", 0)])
    assert torch.equal(tokens[..., :32], keys)


def test_facets_of_an_early_block_stop_there_and_are_remembered():
    backbone, calls = load("dinov2-small@v0"), []
    backbone.tokens(torch.rand(1, 3, 28, 28), stride=14, tick=lambda: calls.append(1))
    assert len(calls) == backbone.steps == 1
    features = compute_features(torch.rand(28, 28).numpy(), backbone, "identity")
    (part,) = features.part_options
    assert part.backbone == "dinov2-small@v0"
    assert backbone_info("dinov2-small@k0,v1").channels == 64


def test_attention_has_a_channel_for_each_head():
    backbone = load("dinov2-small@a1,k1")
    features = compute_features(torch.rand(30, 40).numpy(), backbone, "flip", 7)
    info = backbone_info("dinov2-small@a1,k1")
    assert features.shape == (2 + 32, 30, 40)
    assert info.channels == backbone.channels == 34
    assert 0 < features.materialize()[:2].mean() < 2


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("dinov2-small@k2", "asks for block 2; its blocks are 0 to 1"),
        ("lab/tiny@q7", "asks for block 7; its blocks are 0 to 1"),
        ("filters@k0", "asks for k0; it has no blocks"),
        ("dinov2-small@", "'' in 'dinov2-small@' is not a facet"),
        ("dinov2-small@k1,w1", "'w1' in .* is not a facet"),
    ],
)
def test_facets_that_a_network_has_not_are_refused(name, sentence, folder):
    with pytest.raises(ValueError, match=sentence):
        load(name, folder)


def test_lists_refuse_facets_of_what_has_no_blocks():
    for ask in (backbone_state, backbone_info):
        with pytest.raises(ValueError, match="it has no blocks"):
            ask("filters@k0")


# --- Every small network, with its own shape ------------------------------------------
SMALL = [name for name in backbone_names() if "small" in name and "dinov2" not in name]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", [*SMALL, "neco-small:dino@k8,k11"])
def test_every_network_takes_any_image_stride_and_transforms(name, channels):
    backbone = load(name)
    rng = np.random.default_rng(1)
    image = rng.random((61, 45, 3) if channels == 3 else (61, 45))
    stride = backbone.patch_size // 2 - 1
    features = compute_features(image, backbone, "shift:1:neumann*flip", stride)
    assert features.shape == (backbone.channels, 61, 45)
    weight = rng.standard_normal((2, backbone.channels)).astype(np.float32)
    weight /= np.linalg.norm(weight, axis=1, keepdims=True)
    bias = np.array([0.5, -1], np.float32)
    expected = np.einsum("kc,chw->khw", weight, features.materialize())
    found = features.project(weight, bias)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected + bias[:, None, None], rtol=0, atol=1e-5)


def test_an_unknown_name_is_refused_with_what_comes_near():
    with pytest.raises(ValueError, match="did you mean dinov2-small") as caught:
        load("dinov2-smal")
    assert all(name in str(caught.value) for name in backbone_names())
    with pytest.raises(ValueError, match="'dinov2-tiny' is unknown"):
        load("filters+dinov2-tiny")


def test_grey_images_give_the_tokens_of_three_equal_channels():
    backbone, grey = load(), torch.rand(2, 1, 35, 49)
    tokens = backbone.tokens(grey, stride=7)
    assert tokens.shape == (2, 4, 6, 32)
    assert torch.equal(tokens, backbone.tokens(grey.expand(-1, 3, -1, -1), stride=7))
    assert backbone.channels_for(1) == backbone.channels_for(3) == 32
    with pytest.raises(ValueError, match="not 2"):
        backbone.tokens(torch.rand(2, 2, 35, 49), stride=7)


def test_images_are_normalised_as_in_training():
    backbone, image = load(), torch.rand(1, 3, 28, 28)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    expected = backbone.model((image - mean) / deviation)
    assert torch.equal(backbone.tokens(image, stride=14), expected)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_tokens_come_in_the_precision_asked_for(precision):
    backbone = load_backbone("dinov2-small", "random", "cpu", precision=precision)
    tokens = backbone.to("cpu").tokens(torch.rand(1, 3, 28, 28), stride=14)
    assert tokens.dtype == backbone.dtype == getattr(torch, precision)
    assert torch.isfinite(tokens).all()


def test_random_weights_give_the_same_tokens_each_time():
    image = torch.rand(1, 3, 28, 28)
    first, again = (load().tokens(image, stride=14) for _ in range(2))
    assert torch.equal(first, again)
    assert load().weights_hash == "random"


def test_tick_is_called_once_per_step_and_may_cancel():
    backbone, image, calls = load(), torch.rand(1, 3, 28, 28), []
    backbone.tokens(image, stride=14, tick=lambda: calls.append(1))
    assert len(calls) == backbone.steps == 2

    def stop() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        backbone.tokens(image, stride=14, tick=stop)


def test_a_folder_and_its_file_give_the_same_backbone(folder):
    image = torch.rand(1, 3, 28, 28)
    by_folder = load("dinov2-small", folder)
    by_file = load("dinov2-small", folder / "model.safetensors")
    by_hub_id = load("lab/tiny", folder)
    tokens = [
        backbone.tokens(image, stride=14)
        for backbone in (by_folder, by_file, by_hub_id)
    ]
    assert torch.equal(tokens[0], tokens[1])
    assert torch.equal(tokens[0], tokens[2])
    assert by_folder.weights_hash == by_hub_id.weights_hash
    assert len(by_folder.weights_hash) == 16


def test_a_larger_name_refuses_the_weights_of_a_smaller_network(folder):
    with pytest.raises(WeightsError, match="choose dinov2-small"):
        load("dinov2-base", folder)


def test_joined_names_load_each_part_with_its_own_weights(folder):
    joined = load("dinov2-small+filters", {"dinov2-small": folder})
    assert isinstance(joined, JoinedBackbone)
    network, filters = joined.parts
    assert joined.name == "dinov2-small+filters"
    assert joined.channels_for(3) == 32 + filters.channels_for(3)
    assert joined.weights_hash == f"{network.weights_hash}+"
    assert joined.to("cpu") is joined
    with pytest.raises(ValueError, match="'dinov2-base' is no part"):
        load("dinov2-small+filters", {"dinov2-base": folder})
    with pytest.raises(ValueError, match="filters has none"):
        load("filters", folder)


# --- The Hub --------------------------------------------------------------------------
def in_cache(tmp_path: Path, repository: str, revision: str, folder: Path) -> None:
    name = f"models--{repository.replace('/', '--')}"
    snapshot = tmp_path / "hub" / name / "snapshots" / revision
    snapshot.mkdir(parents=True)
    for file in folder.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text(revision)


def test_state_tells_what_must_be_downloaded(tmp_path, folder):
    assert backbone_state("filters") == "ready"
    assert backbone_state("dinov2-small+filters") == "download"
    info = backbone_info("dinov2-small")
    in_cache(tmp_path, info.source, info.revision, folder)
    assert backbone_state("dinov2-small+filters") == "cached"
    assert backbone_state("dinov2-small+dinov2-base") == "download"


def test_cached_weights_load_without_a_network(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    info = backbone_info("dinov2-small")
    in_cache(tmp_path, info.source, info.revision, folder)
    in_cache(tmp_path, "lab/tiny", "0" * 40, folder)
    named = load("dinov2-small", None)
    by_repository, other = load(info.source, None), load("lab/tiny", None)
    assert named.weights_hash == by_repository.weights_hash == other.weights_hash


@pytest.mark.parametrize("name", ["dinov2-small", "lab/tiny"])
def test_without_a_network_the_way_out_is_said(name, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        WeightsError, match="offline mode is on.*give weights= its path"
    ):
        load(name, None)

    def refused(*arguments: object, **options: object) -> None:
        raise errors.LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", refused)
    with pytest.raises(
        WeightsError, match="the Hub cannot be reached; .*give weights="
    ):
        load(name, None)


def answer(status: int) -> SimpleNamespace:
    """Return as much of a response as the Hub's errors read."""
    return SimpleNamespace(status_code=status, headers={}, request=None)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (errors.GatedRepoError("gated", response=answer(403)), "lab/tiny is gated"),
        (
            errors.RepositoryNotFoundError("none", response=answer(401)),
            "no Hub repository lab/tiny",
        ),
        (
            errors.RevisionNotFoundError("none", response=answer(404)),
            "has no revision",
        ),
        (
            errors.RemoteEntryNotFoundError("none", response=answer(404)),
            r"holds no config\.json",
        ),
        (errors.LocalEntryNotFoundError("no connection"), "the Hub cannot be reached"),
        (
            errors.HfHubHTTPError("down\nmore", response=answer(500)),
            "downloaded: down$",
        ),
        (OSError("disk is full"), "disk is full"),
        (OSError(28, "No space left"), "downloaded: No space left$"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_refusals_of_the_hub_become_one_sentence(error, sentence, monkeypatch):
    def refuse(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    with pytest.raises(WeightsError, match=sentence):
        load("lab/tiny", None)


def test_a_model_type_that_is_not_known_is_named(folder):
    config = {**HUB_CONFIG, "model_type": "unheard-of"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="model of type 'unheard-of'"):
        load("lab/tiny", folder)


def test_downloads_report_bytes_and_take_the_second_name(folder, monkeypatch):
    asked, reports = [], []

    def download(repository, filename, *, revision, tqdm_class=None):
        asked.append((filename, revision))
        if filename == "model.safetensors":
            raise errors.RemoteEntryNotFoundError("none", response=answer(404))
        with tqdm_class(total=100, unit="B", name="x", desc="x") as bar:
            bar.update(40)
            bar.update(60)
        return str(folder / "model.safetensors")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    load("dinov2-small", None, progress=lambda *counts: reports.append(counts))
    revision = backbone_info("dinov2-small").revision
    assert asked == [("model.safetensors", revision), ("pytorch_model.bin", revision)]
    assert reports == [(40, 100), (100, 100)]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("damaged", [False, True])
def test_a_download_is_compared_with_the_checksum_of_the_hub(
    damaged, shared, tmp_path, folder, monkeypatch
):
    content = (folder / "model.safetensors").read_bytes()
    blob = tmp_path / hashlib.sha256(content).hexdigest()
    # The client may keep one file for several repositories, under another hash.
    store = tmp_path / ("0" * 64) if shared else blob
    pointer = tmp_path / "pointer.safetensors"

    def download(*arguments: object, **options: object) -> str:
        store.write_bytes(content[:-4] + bytes(4) if damaged else content)
        if shared:
            blob.symlink_to(store)
        pointer.symlink_to(blob.name)
        return str(pointer)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    if not damaged:
        assert load("dinov2-small", None).channels == 32
        return
    with pytest.raises(WeightsError, match="sha256 is not that of the Hub"):
        load("dinov2-small", None)
    assert not any(
        path.is_symlink() or path.exists() for path in (store, blob, pointer)
    )


def test_a_network_among_others_asks_for_its_own_file(monkeypatch):
    asked = []

    def download(repository, filename, *, revision, tqdm_class):
        asked.append((repository, filename))
        raise errors.RemoteEntryNotFoundError("none", response=answer(404))

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    file = "vit-base/dinov2-architectures/neco_on_dinov2_vit14_teacher.ckpt"
    with pytest.raises(WeightsError, match=f"FunAILab/NeCo does not hold {file}"):
        load("neco-base:dinov2-teacher", None)
    assert asked == [("FunAILab/NeCo", file)]


def test_a_vit_of_the_hub_is_normalised_as_its_own_files_say(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    config = replace(TINY, layer_scale=False)
    files = tmp_path / "files"
    files.mkdir()
    save_file(random_weights(config).state, files / "model.safetensors")
    content = {**HUB_CONFIG, "model_type": "vit", "patch_size": 14}
    content["intermediate_size"] = 128
    (files / "config.json").write_text(json.dumps(content))
    in_cache(tmp_path, "lab/unprepared", "0" * 40, files)
    with pytest.raises(WeightsError, match="preprocessor_config.json of lab/unprep"):
        load("lab/unprepared", None)
    pixels = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.2]}
    (files / "preprocessor_config.json").write_text(json.dumps(pixels))
    in_cache(tmp_path, "lab/prepared", "0" * 40, files)
    assert load("lab/prepared", None).model.config.pixel_mean == (0.5, 0.4, 0.3)


def test_the_hub_s_client_does_not_tell_of_its_tries(monkeypatch, capfd):
    def retry(*arguments: object, **options: object) -> None:
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s")
        raise errors.LocalEntryNotFoundError("no connection")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", retry)
    before = logging.getLogger("huggingface_hub").level
    with pytest.raises(WeightsError):
        load("lab/tiny", None)
    assert capfd.readouterr().err == ""
    assert logging.getLogger("huggingface_hub").level == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((None,), "name: None is not a string"),
        ((3,), "name: 3 is not a string"),
        (("filters", None, None), "device: None is not a string"),
        (("dinov2-small", 5), "weights: 5 for dinov2-small is not a path"),
    ],
)
def test_arguments_of_other_kinds_are_named(arguments, sentence):
    with pytest.raises(TypeError, match=sentence):
        load_backbone(*arguments)


def test_weights_that_do_not_fit_into_memory_say_so(folder, monkeypatch):
    def allocate(*arguments: object, **options: object) -> None:
        torch.empty(10**14)  # the CPU's allocator refuses with a RuntimeError

    monkeypatch.setattr("napari_hrdv2.core.backbones.checkpoint.torch.load", allocate)
    torch.save({}, folder / "tiny.pth")
    with pytest.raises(MemoryError, match="weights of dinov2-small do not fit into"):
        load("dinov2-small", folder / "tiny.pth")


@pytest.mark.parametrize(("amx", "passes"), [(True, "bfloat16"), (False, "float32")])
def test_tokens_are_kept_in_half_precision_on_every_cpu(monkeypatch, amx, passes):
    monkeypatch.setattr("napari_hrdv2.core.devices._cpu_has_amx", lambda: amx)
    backbone = load_backbone("dinov2-small", weights="random", device="cpu")
    assert backbone.model.norm.weight.dtype == getattr(torch, passes)
    assert backbone.dtype.itemsize == 2
    exact = load_backbone(
        "dinov2-small", weights="random", device="cpu", precision="float32"
    )
    assert exact.dtype == torch.float32
