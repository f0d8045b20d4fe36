"""NeCo: its checkpoints, flat and of a training, against its own code's outputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_hrdv2.core.backbones import (
    backbone_info,
    backbone_variants,
    load_backbone,
    registry,
)
from napari_hrdv2.core.backbones.vit.model import VisionTransformer, ViTConfig
from napari_hrdv2.core.backbones.vit.specs import VIT_SPECS
from napari_hrdv2.core.backbones.vit.weights import load_weights
from napari_hrdv2.core.errors import WeightsError

FIXTURES = Path(__file__).parents[2] / "fixtures" / "dinov2"
PLAIN = ViTConfig(embed_dim=32, depth=2, heads=2)
REGISTERS = replace(PLAIN, registers=4)  # resampled as NeCo's own code does
FLAT = FIXTURES / "neco_tiny_plain_model.ckpt"
LIGHTNING = FIXTURES / "neco_tiny_plain_lightning.ckpt"
WITH_REGISTERS = FIXTURES / "neco_tiny_reg_model.safetensors"


@pytest.fixture
def tiny(monkeypatch):
    """Make the NeCo networks of the registry tiny."""
    for name, spec in list(VIT_SPECS.items()):
        if name.startswith("neco-small") and spec.patch_size == 14:
            spec = replace(spec, config=REGISTERS if spec.config.registers else PLAIN)
            monkeypatch.setitem(registry.SPECS, name, spec)
            monkeypatch.setitem(VIT_SPECS, name, spec)


def load(name: str, weights: Path):
    return load_backbone(name, weights, "cpu", precision="float32")


def image_of(size: str) -> torch.Tensor:
    with np.load(FIXTURES / "dinov2_tiny_io.npz") as file:
        pixels = torch.from_numpy(file[f"image_{size}"]).permute(2, 0, 1)[None] / 255
    return pixels


@pytest.mark.parametrize("size", ["56x56", "70x98", "140x126"])
@pytest.mark.parametrize(
    ("kind", "name", "file"),
    [
        ("plain", "neco-small", FLAT),
        ("plain", "neco-small:dinov2", LIGHTNING),
        ("reg", "neco-small:dinov2r", WITH_REGISTERS),
    ],
)
def test_tokens_equal_those_of_neco_s_own_code(kind, name, file, size, tiny):
    tokens = load(name, file).tokens(image_of(size), stride=14)
    with np.load(FIXTURES / "neco_code_io.npz") as expected:
        np.testing.assert_allclose(
            tokens.flatten(1, 2),
            expected[f"{kind}_{size}_x_norm_patchtokens"],
            rtol=0,
            atol=1e-5,
        )


@pytest.mark.parametrize("size", ["56x56", "70x98", "140x126"])
def test_without_registers_neco_is_dinov2_with_other_weights(size, tiny):
    tokens = load("neco-small", FLAT).tokens(image_of(size), stride=14)
    with np.load(FIXTURES / "dinov2_tiny_io.npz") as expected:
        np.testing.assert_allclose(
            tokens.flatten(1, 2),
            expected[f"plain_{size}_x_norm_patchtokens"],
            rtol=0,
            atol=1e-5,
        )


def test_a_training_s_file_gives_its_student_or_its_teacher(tiny):
    student = load_weights(LIGHTNING, PLAIN).state
    teacher = load_weights(LIGHTNING, PLAIN, teacher=True).state
    flat = load_weights(FLAT, PLAIN).state
    for name, x in student.items():
        assert torch.equal(x, flat[name])
        torch.testing.assert_close(teacher[name], x + 0.01)
    by_name = [load(f"neco-small:dinov2{w}", LIGHTNING) for w in ("", "-teacher")]
    assert by_name[0].weights_hash != by_name[1].weights_hash


def test_a_student_alone_is_no_teacher(tiny, tmp_path):
    student = {f"model.{name}": x for name, x in load_file(WITH_REGISTERS).items()}
    torch.save({"state_dict": student}, tmp_path / "student.ckpt")
    with pytest.raises(WeightsError, match="the teacher is wanted and"):
        load("neco-small:dinov2r-teacher", tmp_path / "student.ckpt")


def test_registers_are_neither_dropped_nor_left_random(tiny):
    with pytest.raises(WeightsError, match="4 register tokens: choose neco-small:din"):
        load("neco-small", WITH_REGISTERS)
    with pytest.raises(WeightsError, match="no register tokens: choose neco-small"):
        load("neco-small:dinov2r", FLAT)
    state = load_weights(WITH_REGISTERS, REGISTERS).state
    assert torch.equal(
        state["register_tokens"], load_file(WITH_REGISTERS)["register_tokens"]
    )


@pytest.mark.parametrize("name", ["neco-small", "neco-small:dinov2-teacher"])
def test_a_file_that_would_load_nothing_is_refused(name, tiny, tmp_path):
    strange = {f"net.{key}": x for key, x in load_file(WITH_REGISTERS).items()}
    save_file(strange, tmp_path / "strange.safetensors")
    with pytest.raises(WeightsError, match="missing cls_token.*unexpected net\\."):
        load(name, tmp_path / "strange.safetensors")


def test_a_projection_head_of_the_training_is_all_that_is_left_out():
    names = set(load_file(WITH_REGISTERS))
    used = set(VisionTransformer(REGISTERS).state_dict())
    unused = {n for n in names - used if not n.startswith("projection_head.")}
    assert unused == {"mask_token"}


def test_variants_name_the_file_they_come_from():
    variants = backbone_variants("neco-small")
    assert len(variants) == 12
    assert len(backbone_variants("neco-base")) == 6
    files = {name: backbone_info(name).filename for name in variants}
    assert len(set(files.values())) == 12
    assert files["neco-small:dinov2r-xr-teacher"] == (
        "vit-small/dinov2-architectures/neco_on_dinov2r_xr_vit14_teacher.ckpt"
    )
    assert files["neco-small:timetuning"] == (
        "vit-small/dino-architectures/neco_on_timetuning_vit16_model.ckpt"
    )
    assert backbone_info("neco-small:leopart").patch_size == 16
    with pytest.raises(ValueError, match=r"no variant ':dinov3'; its variants are"):
        backbone_info("neco-base:dinov3")
