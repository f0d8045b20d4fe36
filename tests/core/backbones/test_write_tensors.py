"""Weights files that the package writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from napari_hrdv2.core.backbones.checkpoint import read_checkpoint, write_tensors
from napari_hrdv2.core.backbones.embedded.network import (
    BUNDLED,
    load_weights,
    save_weights,
)

METADATA = {name: name * 3 for name in "zyxwvut"}


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    state = {
        "b": torch.randn(3, 5, generator=generator),
        "a": torch.arange(7, dtype=torch.float16),
        "scalar": torch.tensor(2.0, requires_grad=True),
        "turned": torch.randn(4, 2, generator=generator).T,
    }
    files = [tmp_path / f"{number}.safetensors" for number in range(5)]
    for file in files:
        write_tensors(file, state, METADATA)
    assert len({file.read_bytes() for file in files}) == 1
    found = read_checkpoint(files[0])
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)
    with safe_open(files[0], framework="pt") as file:
        assert file.metadata() == METADATA


def test_what_cannot_be_written_leaves_the_former_file(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    write_tensors(file, {"a": torch.ones(2)}, {})
    before = file.read_bytes()
    shared = torch.ones(4)
    with pytest.raises(RuntimeError, match="share memory"):
        write_tensors(file, {"a": shared, "b": shared}, {})
    assert file.read_bytes() == before


def test_weights_of_the_embedded_backbone_are_written_as_they_are(
    tmp_path: Path,
) -> None:
    bundled = load_weights(BUNDLED)
    file = tmp_path / "again.safetensors"
    save_weights(bundled.network, bundled.channel_weights, file, trained="again")
    assert load_weights(file).hash == bundled.hash
