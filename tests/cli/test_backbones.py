from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants
from safetensors.torch import save_file

from napari_hrdv2.core.backbones import (
    backbone_info,
    backbone_names,
    backbone_state,
    registry,
)
from napari_hrdv2.core.backbones.vit.model import ViTConfig
from napari_hrdv2.core.backbones.vit.weights import random_weights

TINY = ViTConfig(embed_dim=32, depth=1, heads=2, image_size=56)


def test_all_backbones_are_listed_with_their_state(command) -> None:
    outcome = command("backbones", "--json")
    rows = {row["name"]: row for row in outcome.json["backbones"]}
    assert list(rows) == list(backbone_names())
    assert rows["filters"]["state"] == "ready"
    assert rows["dinov2-small"]["channels"] == 384
    assert rows["dinov2-small"]["patch_size"] == 14
    assert rows["dinov2-small"]["licence"]
    assert "fetch SPiT-S16" in rows["spit-small"]["conditions"]


def test_the_table_is_aligned(command) -> None:
    lines = command("backbones").out.splitlines()
    assert lines[0].split()[:3] == ["name", "channels", "patch"]
    column = lines[0].index("state")
    states = {line[column:] for line in lines[1:]}
    assert states - {"cached"} == {"ready", "download", "gated", "file"}


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """Return a cache with a tiny dinov2-small, on a machine without a network."""
    entries = dict(registry.SPECS)
    entries["dinov2-small"] = replace(entries["dinov2-small"], config=TINY)
    monkeypatch.setattr(registry, "SPECS", entries)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    info = backbone_info("dinov2-small")
    home = tmp_path / "cache" / f"models--{info.source.replace('/', '--')}"
    (home / "snapshots" / str(info.revision)).mkdir(parents=True)
    file = home / "snapshots" / str(info.revision) / "model.safetensors"
    save_file(random_weights(TINY).state, file)
    return file


def test_weights_travel_in_one_file(command, cache, tmp_path, monkeypatch):
    out, there = tmp_path / "weights.zip", tmp_path / "there"
    first = command("backbones", "export", "dinov2-small", "--out", out, "--json")
    assert (first.code, first.json["bytes"]) == (0, out.stat().st_size)
    second = command("backbones", "import", out, "--to", there)
    assert second.out == f"dinov2-small: 1 files into {there}\n"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(there))
    assert backbone_state("dinov2-small") == "cached"
    again = command("backbones", "import", out, "--json").json
    assert (again["written"], again["present"]) == (0, 1)
    assert command("backbones", "import", out).out.endswith("1 were there already\n")


def test_what_is_in_the_cache_is_not_downloaded_again(command, cache):
    outcome = command("backbones", "download", "dinov2-small", "--json")
    assert outcome.json == {"downloaded": {"dinov2-small": [str(cache)]}}
    assert "licence" not in outcome.err


def test_the_licence_is_said_before_a_download(command, cache, caplog):
    outcome = command("backbones", "download", "dinov3-small")
    assert outcome.code == 1
    assert "86 MB, licence: DINOv3 License (gated)" in outcome.out
    assert "read and accept them at" in caplog.text
    assert "offline mode is on" in outcome.err


def test_of_joined_names_the_parts_are_downloaded(command, cache):
    outcome = command("backbones", "download", "dinov2-small+filters", "--json")
    assert outcome.json == {"downloaded": {"dinov2-small": [str(cache)]}}


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("export", "dinov9", "--out", "x.zip"), 1, "'dinov9' is unknown"),
        (("export", "dinov2-small"), 2, "--out"),
        (("download", "embedded"), 1, "comes with the package"),
        (("download", "spit-small"), 1, "spit-small: its weights cannot be downloaded"),
        (("download", "rvit-small"), 1, "no weights of it were published"),
        (("import", "nowhere.zip"), 1, "nowhere.zip: No such file"),
        (("delete",), 2, "No such command"),
    ],
)
def test_wrong_wishes_end_with_one_line(command, cache, arguments, code, sentence):
    outcome = command("backbones", *arguments)
    assert (outcome.code, len(outcome.err.splitlines())) == (code, 1)
    assert sentence in outcome.err


def test_a_file_from_elsewhere_is_refused_in_one_line(command, tmp_path):
    (tmp_path / "x.zip").write_text(json.dumps({}))
    outcome = command("backbones", "import", tmp_path / "x.zip")
    assert (outcome.code, len(outcome.err.splitlines())) == (1, 1)
    assert "is not a file of `backbones export`" in outcome.err
