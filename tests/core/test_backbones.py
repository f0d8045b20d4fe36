"""The registry, loading by name, and the Hub when it cannot be reached."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants, errors
from safetensors.torch import save_file

from napari_hrdv2.core import _registry, hub
from napari_hrdv2.core.backbones import (
    DEFAULT_BACKBONE,
    JoinedBackbone,
    backbone_info,
    backbone_names,
    backbone_state,
    load_backbone,
)
from napari_hrdv2.core.errors import Cancelled, WeightsError
from napari_hrdv2.core.vit import ViTConfig
from napari_hrdv2.core.weights import random_weights

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
    entries = dict(_registry.ENTRIES)
    entries["dinov2-small"] = replace(entries["dinov2-small"], config=TINY)
    monkeypatch.setattr(_registry, "ENTRIES", entries)
    monkeypatch.setattr("napari_hrdv2.core.backbones.ENTRIES", entries)
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
    assert len(names) == len(set(names)) == 10
    giant = backbone_info("dinov2-giant-reg")
    assert giant.source == "facebook/dinov2-with-registers-giant"
    assert (giant.channels, giant.patch_size) == (1536, 14)
    # 82 kB less than the file: the names of its tensors
    assert backbone_info("dinov2-giant").download_bytes == 4_545_923_072


def test_every_download_is_pinned_to_its_own_full_commit():
    revisions = [backbone_info(name).revision for name in backbone_names()[2:]]
    assert all(len(revision) == 40 for revision in revisions)
    assert len(set(revisions)) == 8


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
    expected = backbone.model((image - mean) / deviation).tokens
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
        raise OSError("Connection refused")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub.urllib.request, "getproxies", dict)
    monkeypatch.setattr(hub.socket, "create_connection", refused)
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

    monkeypatch.setattr(hub, "_can_reach_hub", lambda: True)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    with pytest.raises(WeightsError, match=sentence):
        load("lab/tiny", None)


def test_a_model_type_that_is_not_known_is_named(folder):
    config = {**HUB_CONFIG, "model_type": "siglip"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="model of type 'siglip'"):
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

    monkeypatch.setattr(hub, "_can_reach_hub", lambda: True)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    load("dinov2-small", None, progress=lambda *counts: reports.append(counts))
    revision = backbone_info("dinov2-small").revision
    assert asked == [("model.safetensors", revision), ("pytorch_model.bin", revision)]
    assert reports == [(40, 100), (100, 100)]


def test_the_hub_s_client_does_not_tell_of_its_tries(monkeypatch, capfd):
    def retry(*arguments: object, **options: object) -> None:
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s")
        raise errors.LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(hub, "_can_reach_hub", lambda: True)
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

    monkeypatch.setattr("napari_hrdv2.core._checkpoint.torch.load", allocate)
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
