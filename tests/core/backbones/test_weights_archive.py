"""One file with weights: written here, read there, refused where it is damaged."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from napari_hrdv2.core.backbones import (
    backbone_info,
    backbone_state,
    load_backbone,
    registry,
)
from napari_hrdv2.core.backbones.archive import export_weights, import_weights
from napari_hrdv2.core.backbones.vit.model import ViTConfig
from napari_hrdv2.core.backbones.vit.weights import random_weights
from napari_hrdv2.core.errors import WeightsError

TINY = ViTConfig(embed_dim=32, depth=2, heads=2, image_size=56)
HUB_CONFIG = {
    "model_type": "dinov2",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
}
COMMIT = "5" * 40


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """Make dinov2-small and neco-small tiny networks, and the Hub out of reach."""
    entries = dict(registry.SPECS)
    for name in ("dinov2-small", "neco-small"):
        entries[name] = replace(entries[name], config=TINY)
    monkeypatch.setattr(registry, "SPECS", entries)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("NAPARI_HRDV2_WEIGHTS", raising=False)
    use_cache(monkeypatch, tmp_path / "here")


def use_cache(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


def in_cache(cache: Path, repository: str, commit: str, filename: str) -> Path:
    """Put tiny weights where the Hub's client would, with a link to a blob."""
    home = cache / f"models--{repository.replace('/', '--')}"
    place = home / "snapshots" / commit / filename
    place.parent.mkdir(parents=True)
    torch.manual_seed(3)
    state = random_weights(TINY, seed=3).state
    if filename.endswith(".ckpt"):
        torch.save({"state_dict": state}, place)
    else:
        save_file(state, place)
    fingerprint = hashlib.sha256(place.read_bytes()).hexdigest()
    (home / "blobs").mkdir()
    place.rename(home / "blobs" / fingerprint)
    place.symlink_to(home / "blobs" / fingerprint)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    return place


@pytest.fixture
def exported(tmp_path) -> Path:
    """Return a file with dinov2-small, pinned, and lab/tiny, the newest."""
    cache, info = tmp_path / "here", backbone_info("dinov2-small")
    in_cache(cache, info.source, str(info.revision), "model.safetensors")
    tiny = in_cache(cache, "lab/tiny", COMMIT, "model.safetensors")
    (tiny.parent / "config.json").write_text(json.dumps(HUB_CONFIG))
    (tiny.parent / "preprocessor_config.json").write_text("{}")
    path = tmp_path / "weights.zip"
    assert export_weights(["dinov2-small", "lab/tiny"], path) == path.stat().st_size
    return path


def load(name: str) -> Any:
    return load_backbone(name, device="cpu", precision="float32")


def test_a_machine_without_a_network_gets_the_same_backbones(
    exported, tmp_path, monkeypatch
):
    names = ("dinov2-small", "lab/tiny")
    expected = [load(name).weights_hash for name in names]
    there = use_cache(monkeypatch, tmp_path / "there")
    assert backbone_state("dinov2-small") == "download"
    reports: list[tuple[int, int]] = []
    done = import_weights(exported, progress=lambda *counts: reports.append(counts))
    assert (done.names, done.written, done.present) == (names, 4, 0)
    assert done.folder == there
    assert [load(name).weights_hash for name in names] == expected
    assert reports[-1][0] == reports[-1][1] > 0
    assert {path.name[0] for path in there.iterdir()} == {"m"}  # nothing left over
    again = import_weights(exported)
    assert (again.written, again.present) == (0, 4)


def test_a_file_in_folders_of_its_repository_travels_too(tmp_path, monkeypatch):
    info = backbone_info("neco-small")
    in_cache(tmp_path / "here", info.source, COMMIT, str(info.filename))
    export_weights(["neco-small@k1"], tmp_path / "weights.zip")
    there = use_cache(monkeypatch, tmp_path / "there")
    import_weights(tmp_path / "weights.zip")
    assert load("neco-small").channels == 32
    (file,) = there.rglob("*.ckpt")
    assert file.is_relative_to(there / "models--FunAILab--NeCo" / "snapshots" / COMMIT)


def test_a_shared_folder_is_searched_before_the_cache(exported, tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    use_cache(monkeypatch, tmp_path / "empty")
    import_weights(exported, shared)
    assert backbone_state("dinov2-small") == "download"
    monkeypatch.setenv("NAPARI_HRDV2_WEIGHTS", str(shared))
    for path in sorted(shared.rglob("*"), reverse=True):
        path.chmod(0o500 if path.is_dir() else 0o400)
    assert backbone_state("dinov2-small+filters") == "cached"
    assert load("lab/tiny").weights_hash == load("dinov2-small").weights_hash
    assert not (tmp_path / "empty").exists()
    use_cache(monkeypatch, tmp_path / "here")
    config = next(shared.rglob("config.json"))
    config.chmod(0o600)
    config.write_text(json.dumps({**HUB_CONFIG, "num_hidden_layers": 7}))
    with pytest.raises(WeightsError, match=r"missing blocks\.2"):
        load("lab/tiny")


def test_a_shared_folder_that_is_not_there_is_said_once(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("NAPARI_HRDV2_WEIGHTS", str(tmp_path / "unmounted"))
    assert {backbone_state("dinov2-small"), backbone_state("vit-base")} == {"download"}
    assert caplog.text.count("NAPARI_HRDV2_WEIGHTS: there is no folder") == 1


# --- Refusals -------------------------------------------------------------------------
def rewritten(path: Path, change: Any) -> Path:
    """Rewrite an archive: `change` gets its manifest and its members by name."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members.pop("manifest.json"))
    change(manifest, members)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def renamed(key: str, value: Any) -> Any:
    """Return a change of one value of a file, with its member named to match."""

    def change(manifest: dict[str, Any], members: dict[str, bytes]) -> None:
        entry = manifest["files"][0]
        names = "repository", "commit", "filename"
        before = "/".join(str(entry[name]) for name in names)
        entry[key] = value
        members["/".join(str(entry[name]) for name in names)] = members.pop(before)

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (renamed("filename", "../../evil.json"), r"filename is '\.\./\.\./evil"),
        (renamed("filename", "/etc/evil.json"), "filename is '/etc"),
        (renamed("filename", "a/../../b.json"), r"filename is 'a/\.\."),
        (renamed("filename", "C:\\evil.json"), "filename is 'C:"),
        (renamed("filename", "run.py"), r"filename is 'run\.py'"),
        (renamed("repository", "../evil"), r"repository is '\.\./evil'"),
        (renamed("repository", "no-owner"), "repository is 'no-owner'"),
        (renamed("repository", "lab--a/b"), "repository is 'lab--a/b'"),
        (renamed("commit", ".."), r"commit is '\.\.'"),
        (renamed("commit", "main"), "commit is 'main'"),
        (renamed("bytes", "many"), "bytes is 'many'"),
        (renamed("bytes", 3), "has another size"),
        (renamed("owner", "me"), "owner is 'me' .Extra inputs"),
        (lambda m, _: m.update(format=2), "format is 2 .Input should be 1"),
        (lambda m, _: m.update(command="rm"), "command is 'rm'"),
        (lambda m, _: m.update(names=["dinov9"]), "'dinov9' is unknown"),
        (lambda m, _: m.update(names=[3]), r"names\.0 is 3"),
        (lambda m, _: m.update(files=[3]), r"files\.0 is 3"),
        (lambda m, _: m.pop("files"), "not understood: files is .*Field required"),
        (lambda m, _: m["files"].append(m["files"][0]), "a file twice"),
        (
            lambda _, x: x.update({"../../evil": b"1"}),
            r"holds '\.\./\.\./evil', wh",
        ),
        (lambda _, x: x.popitem(), "missing or there twice"),
    ],
)
def test_what_does_not_belong_into_the_file_is_refused(
    change, sentence, exported, tmp_path
):
    folder = tmp_path / "there"
    with pytest.raises(WeightsError, match=sentence):
        import_weights(rewritten(exported, change), folder)
    assert not folder.exists()


def test_damage_is_told_by_checksums_and_nothing_is_kept(exported, tmp_path):
    content = bytearray(exported.read_bytes())
    middle = len(content) // 2
    content[middle] ^= 1
    exported.write_bytes(content)
    with pytest.raises(WeightsError, match="is damaged .*copy the file again"):
        import_weights(exported, tmp_path / "there")
    assert not list((tmp_path / "there").iterdir())
    exported.write_bytes(content[:middle])
    with pytest.raises(WeightsError, match="its end is missing"):
        import_weights(exported, tmp_path / "there")


def test_other_numbers_under_a_right_crc_are_refused(exported, tmp_path):
    def change(manifest: dict[str, Any], members: dict[str, bytes]) -> None:
        name = next(iter(members))
        members[name] = bytes(len(members[name]))

    with pytest.raises(WeightsError, match="its sha256 is not that of the manifest"):
        import_weights(rewritten(exported, change), tmp_path / "there")
    assert not list((tmp_path / "there").iterdir())


def test_other_archives_and_compressed_ones_are_refused(exported, tmp_path):
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(WeightsError, match=r"it has no manifest\.json"):
        import_weights(other)
    with (
        zipfile.ZipFile(exported) as source,
        zipfile.ZipFile(other, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in source.namelist():
            archive.writestr(name, source.read(name))
    with pytest.raises(WeightsError, match="in it is compressed"):
        import_weights(other)


def test_nothing_is_overwritten(exported, tmp_path):
    folder = tmp_path / "there"
    import_weights(exported, folder)
    config = next(folder.rglob("config.json"))
    config.write_text("{}")
    with pytest.raises(FileExistsError, match=r"config\.json exists and is another"):
        import_weights(exported, folder)
    assert config.read_text() == "{}"
    config.unlink()
    (folder / "models--lab--tiny" / "refs" / "main").write_text("6" * 40)
    with pytest.raises(FileExistsError, match="at commit 6666666666, the file at 5555"):
        import_weights(exported, folder)
    with pytest.raises(FileExistsError, match=r"weights\.zip exists"):
        export_weights(["dinov2-small"], exported)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ([], "names: there are none"),
        (["embedded"], "embedded comes with the package"),
        (["spit-small"], "spit-small: its weights cannot be downloaded"),
        (["dinov2-small+filters"], "is unknown"),
        (["vit-base"], "offline mode is on"),
    ],
)
def test_what_cannot_be_exported_is_refused(names, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        export_weights(names, tmp_path / "weights.zip")
    assert not (tmp_path / "weights.zip").exists()
