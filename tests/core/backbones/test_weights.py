"""Checkpoints: every naming gives the same network; what does not fit is refused."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from napari_hrdv2.core.backbones.checkpoint import weights_file
from napari_hrdv2.core.backbones.vit.model import ViTConfig, rotary_periods
from napari_hrdv2.core.backbones.vit.specs import VIT_SPECS
from napari_hrdv2.core.backbones.vit.weights import (
    config_from,
    load_weights,
    random_weights,
    read_config,
)
from napari_hrdv2.core.errors import WeightsError

PLAIN = ViTConfig(embed_dim=32, depth=2, heads=2, image_size=56)
REGISTERS = replace(PLAIN, registers=4)
SWIGLU = replace(PLAIN, feed_forward="swiglu")
ROTARY = replace(REGISTERS, positions="rotary", patch_size=16)
PLUS = replace(ROTARY, feed_forward="swiglu", feed_forward_ratio=6.0)
State = dict[str, Tensor]


def tiny(config: ViTConfig = PLAIN) -> State:
    """Random weights with no two tensors alike, so that no mix-up goes unseen."""
    state = random_weights(config, seed=1).state
    return {n: x + 0.1 * torch.randn(x.shape) for n, x in state.items()}


def hugging_face(state: State, *, version: int) -> State:
    """Return the state under the names of transformers 4.x or 5.x."""
    queries = {
        4: [f"attention.attention.{part}" for part in ("query", "key", "value")],
        5: [f"attention.{part}_proj" for part in "qkv"],
    }[version]
    projection = {4: "attention.output.dense", 5: "attention.o_proj"}[version]
    gate = {4: ["weights_in"], 5: ["gate_proj", "up_proj"]}[version]
    down = {4: "weights_out", 5: "down_proj"}[version]
    renamed: State = {"embeddings.mask_token": torch.zeros(1, 32)}
    for name, x in state.items():
        name = name.replace("blocks.", "encoder.layer.").replace(
            "attn.proj", projection
        )
        name = name.replace("ls1.gamma", "layer_scale1.lambda1")
        name = name.replace("ls2.gamma", "layer_scale2.lambda1").replace("w3", down)
        if name.startswith("patch_embed"):
            name = name.replace("patch_embed.proj", "patch_embeddings.projection")
        name = name.replace("pos_embed", "position_embeddings")
        if "layer." not in name and not name.startswith("norm"):
            name = f"embeddings.{name}"
        name = f"layer{name}" if name.startswith("norm") else name
        parts = {"attn.qkv": queries, "w12": gate}
        found = [part for part in parts if part in name]
        if not found:
            renamed[name] = x
            continue
        for part, piece in zip(
            parts[found[0]], x.chunk(len(parts[found[0]])), strict=True
        ):
            renamed[name.replace(found[0], part)] = piece.contiguous()
    return renamed


def timm(state: State) -> State:
    """Return the state under the names and conventions of timm."""
    renamed = {
        n.replace("w12", "fc1").replace("w3", "fc2"): x for n, x in state.items()
    }
    if "register_tokens" in renamed:
        renamed["reg_token"] = renamed.pop("register_tokens")
        positions = renamed["pos_embed"]
        renamed["cls_token"] = renamed["cls_token"] + positions[:, :1]
        renamed["pos_embed"] = positions[:, 1:].contiguous()
    return renamed


def same_network(found: Mapping[str, Tensor], state: State) -> None:
    assert found.keys() == state.keys()
    for name in state.keys() - {"cls_token", "pos_embed"}:
        assert torch.equal(found[name], state[name]), name
    # timm holds the two only as their sum
    torch.testing.assert_close(
        found["cls_token"] + found["pos_embed"][:, :1],
        state["cls_token"] + state["pos_embed"][:, :1],
    )
    assert torch.equal(found["pos_embed"][:, 1:], state["pos_embed"][:, 1:])


def hugging_face_vit(state: State, *, version: int) -> State:
    """Return the state of a ViT or DINO as transformers names a classifier's."""
    blocks = {4: "encoder.layer", 5: "layers"}[version]
    parts = {
        4: [f"attention.attention.{part}" for part in ("query", "key", "value")],
        5: [f"attention.{part}_proj" for part in "qkv"],
    }[version]
    names = {
        4: ("attention.output.dense", "intermediate.dense", "output.dense"),
        5: ("attention.o_proj", "mlp.fc1", "mlp.fc2"),
    }[version]
    renamed: State = {
        "vit.pooler.dense.bias": torch.zeros(32),
        "classifier.bias": torch.zeros(9),
    }
    for name, x in state.items():
        name = name.replace("norm1", "layernorm_before")
        name = name.replace("norm2", "layernorm_after")
        name = re.sub("^norm", "layernorm", name)
        name = name.replace(
            "patch_embed.proj", "embeddings.patch_embeddings.projection"
        )
        name = name.replace("pos_embed", "embeddings.position_embeddings")
        name = name.replace("cls_token", "embeddings.cls_token")
        for ours, theirs in zip(
            ("attn.proj", "mlp.fc1", "mlp.fc2"), names, strict=True
        ):
            name = name.replace(ours, theirs)
        name = f"vit.{name.replace('blocks', blocks)}"
        if "attn.qkv" not in name:
            renamed[name] = x
            continue
        for part, piece in zip(parts, x.chunk(3), strict=True):
            renamed[name.replace("attn.qkv", part)] = piece.contiguous()
    return renamed


# --- DINOv3: its own names, transformers' and timm's ----------------------------------
def dinov3(state: State) -> State:
    renamed: State = {"mask_token": torch.zeros(1, 32)}
    for name, x in state.items():
        name = name.replace("register_tokens", "storage_tokens")
        if "mlp.w12" in name:
            gate, value = x.chunk(2)
            renamed[name.replace("w12", "w1")] = gate.contiguous()
            renamed[name.replace("w12", "w2")] = value.contiguous()
            continue
        renamed[name] = x
        if name.endswith("qkv.bias"):
            mask = torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(32)
            renamed[f"{name}_mask"] = mask
            renamed[name] = x + (1 - mask)  # biases of keys that must not be used
    return renamed


def hugging_face_dinov3(state: State, *, version: int) -> State:
    renamed: State = {"embeddings.mask_token": torch.zeros(1, 1, 32)}
    blocks = {4: "layer", 5: "model.layer"}[version]
    for name, x in state.items():
        name = name.replace("patch_embed.proj", "embeddings.patch_embeddings")
        name = re.sub("^(cls_token|register_tokens)", r"embeddings.\1", name)
        name = name.replace("blocks", blocks).replace("attn.proj", "attention.o_proj")
        name = re.sub(r"ls([12])\.gamma", r"layer_scale\1.lambda1", name)
        name = name.replace("fc1", "up_proj").replace("fc2", "down_proj")
        name = name.replace("w3", "down_proj")
        if name.startswith("rope_embed"):
            continue
        if "attn.qkv" in name:
            for part, piece in zip("qkv", x.chunk(3), strict=True):
                if part != "k" or name.endswith("weight"):
                    key = name.replace("attn.qkv", f"attention.{part}_proj")
                    renamed[key] = piece.contiguous()
        elif "mlp.w12" in name:
            for part, piece in zip(("gate", "up"), x.chunk(2), strict=True):
                renamed[name.replace("w12", f"{part}_proj")] = piece.contiguous()
        else:
            renamed[name] = x
    return renamed


def timm_dinov3(state: State) -> State:
    renamed: State = {}
    for name, x in state.items():
        name = name.replace("register_tokens", "reg_token").replace("w3", "fc2")
        name = re.sub(r"ls([12])\.gamma", r"gamma_\1", name)
        if name.startswith("rope_embed"):
            continue
        if name.endswith("qkv.bias"):
            query, _, value = x.chunk(3)
            renamed[name.replace("qkv.bias", "q_bias")] = query.contiguous()
            renamed[name.replace("qkv.bias", "v_bias")] = value.contiguous()
        elif "mlp.w12" in name:
            for part, piece in zip("gx", x.chunk(2), strict=True):
                renamed[name.replace("w12", f"fc1_{part}")] = piece.contiguous()
        else:
            renamed[name] = x
    return renamed


NAMINGS = {
    "original": lambda state: {**state, "mask_token": torch.zeros(1, 32)},
    "hugging face 4": lambda state: hugging_face(state, version=4),
    "hugging face 5": lambda state: hugging_face(state, version=5),
    "timm": timm,
}


@pytest.mark.parametrize(
    "config", [PLAIN, REGISTERS, SWIGLU], ids=["mlp", "reg", "glu"]
)
@pytest.mark.parametrize("naming", NAMINGS)
def test_every_naming_gives_the_same_network(naming, config, tmp_path):
    state = tiny(config)
    save_file(NAMINGS[naming](state), tmp_path / "tiny.safetensors")
    same_network(load_weights(tmp_path / "tiny.safetensors", config).state, state)


VIT_NAMINGS = {
    "original": lambda state: {**state, "head.weight": torch.zeros(3, 32)},
    "hugging face 4": lambda state: hugging_face_vit(state, version=4),
    "hugging face 5": lambda state: hugging_face_vit(state, version=5),
}


@pytest.mark.parametrize("naming", VIT_NAMINGS)
def test_every_naming_of_dino_deit_and_vit_gives_the_same_network(naming, tmp_path):
    config = replace(PLAIN, layer_scale=False)
    state = tiny(config)
    save_file(VIT_NAMINGS[naming](state), tmp_path / "tiny.safetensors")
    same_network(load_weights(tmp_path / "tiny.safetensors", config).state, state)


def tiny_dinov3(config: ViTConfig) -> State:
    """Return random weights without biases of keys, and the periods of the formula."""
    state = tiny(config)
    state["rope_embed.periods"] = rotary_periods(config)
    for name, x in state.items():
        if name.endswith("qkv.bias"):
            x[32:64] = 0
    return state


DINOV3_NAMINGS = {
    "original": dinov3,
    "hugging face 4": lambda state: hugging_face_dinov3(state, version=4),
    "hugging face 5": lambda state: hugging_face_dinov3(state, version=5),
    "timm": timm_dinov3,
}


@pytest.mark.parametrize("config", [ROTARY, PLUS], ids=["mlp", "glu"])
@pytest.mark.parametrize("naming", DINOV3_NAMINGS)
def test_every_naming_of_dinov3_gives_the_same_network(naming, config, tmp_path):
    state = tiny_dinov3(config)
    save_file(DINOV3_NAMINGS[naming](state), tmp_path / "tiny.safetensors")
    found = load_weights(tmp_path / "tiny.safetensors", config).state
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_periods_of_dinov3_s_own_files_are_kept(tmp_path):
    state = tiny_dinov3(ROTARY)
    state["rope_embed.periods"] *= 1.01
    save_file(dinov3(state), tmp_path / "tiny.safetensors")
    found = load_weights(tmp_path / "tiny.safetensors", ROTARY).state
    assert torch.equal(found["rope_embed.periods"], state["rope_embed.periods"])


def test_dinov3_of_timm_may_have_no_biases_of_queries_and_values(tmp_path):
    state = tiny_dinov3(ROTARY)
    for name, x in state.items():
        if name.endswith("qkv.bias"):
            x[:] = 0
    file = {n: x for n, x in timm_dinov3(state).items() if not n.endswith("_bias")}
    save_file(file, tmp_path / "tiny.safetensors")
    found = load_weights(tmp_path / "tiny.safetensors", ROTARY).state
    assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("naming", "lost"),
    [
        ("original", "blocks.1.attn.qkv.bias"),
        ("hugging face 4", "layer.1.attention.q_proj.bias"),
        ("timm", "blocks.0.attn.v_bias"),
    ],
)
def test_biases_that_only_some_blocks_have_are_missed(naming, lost, tmp_path):
    file = DINOV3_NAMINGS[naming](tiny_dinov3(ROTARY))
    del file[lost]
    file.pop(f"{lost}_mask", None)
    save_file(file, tmp_path / "tiny.safetensors")
    with pytest.raises(WeightsError, match=r"missing blocks\.\d\.attn\.qkv\.bias"):
        load_weights(tmp_path / "tiny.safetensors", ROTARY)


def test_biases_of_keys_are_kept_where_a_file_has_them(tmp_path):
    file = DINOV3_NAMINGS["hugging face 4"](tiny_dinov3(ROTARY))
    for block in (0, 1):
        file[f"layer.{block}.attention.k_proj.bias"] = torch.full((32,), 1.0 + block)
    save_file(file, tmp_path / "tiny.safetensors")
    found = load_weights(tmp_path / "tiny.safetensors", ROTARY).state
    assert (found["blocks.1.attn.qkv.bias"][32:64] == 2).all()
    del file["layer.0.attention.k_proj.bias"]
    save_file(file, tmp_path / "tiny.safetensors")
    with pytest.raises(WeightsError, match=r"missing blocks\.0\.attn\.qkv\.bias"):
        load_weights(tmp_path / "tiny.safetensors", ROTARY)


def test_other_networks_must_have_biases_of_keys(tmp_path):
    file = hugging_face(tiny(), version=4)
    file = {n: x for n, x in file.items() if not n.endswith("key.bias")}
    save_file(file, tmp_path / "tiny.safetensors")
    with pytest.raises(WeightsError, match=r"missing blocks\.0\.attn\.qkv\.bias"):
        load_weights(tmp_path / "tiny.safetensors", PLAIN)


def test_two_tensors_of_one_name_are_not_taken_for_one(tmp_path):
    file = {**dinov3(tiny_dinov3(ROTARY)), "reg_token": torch.zeros(1, 4, 32)}
    save_file(file, tmp_path / "tiny.safetensors")
    with pytest.raises(WeightsError, match="unexpected (reg_token|storage_tokens)"):
        load_weights(tmp_path / "tiny.safetensors", ROTARY)


def lightning(state: State) -> dict[str, object]:
    student = {f"model.{n}": x for n, x in state.items()}
    teacher = {f"teacher.{n}": x + 1 for n, x in state.items()}
    return {"epoch": 3, "state_dict": {**teacher, **student}}


WRAPPINGS = {
    "flat": lambda state: state,
    "with heads": lambda state: {
        **state,
        "head.weight": torch.zeros(2),
        "projection_head.0.bias": torch.zeros(2),
    },
    "student of lightning": lightning,
    "data parallel": lambda state: {"model": {f"module.{n}": state[n] for n in state}},
    "sharded teacher": lambda state: {
        "teacher": {
            **{
                f"backbone.{n}".replace("blocks.", "blocks.0."): x
                for n, x in state.items()
            },
            "dino_head.mlp.0.weight": torch.zeros(2),
        }
    },
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrapped_state_dicts_are_unwrapped(wrapping, tmp_path):
    state = tiny()
    torch.save(WRAPPINGS[wrapping](state), tmp_path / "tiny.pth")
    same_network(load_weights(tmp_path / "tiny.pth", PLAIN).state, state)


def test_half_precision_checkpoints_become_float32(tmp_path):
    state = {n: x.half() for n, x in tiny().items()}
    save_file(state, tmp_path / "half.safetensors")
    found = load_weights(tmp_path / "half.safetensors", PLAIN).state
    assert {x.dtype for x in found.values()} == {torch.float32}


def changed(**tensors: Tensor | None) -> State:
    state = {**tiny(), **tensors}
    return {name: x for name, x in state.items() if x is not None}


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (changed(cls_token=None), "missing cls_token"),
        (changed(decoder=torch.zeros(3)), "unexpected decoder"),
        (
            changed(cls_token=torch.zeros(1, 1, 16)),
            r"misshaped cls_token \(is \(1, 1, 16\), must be \(1, 1, 32\)\)",
        ),
        ({"encoder.weight": torch.zeros(3)}, r"missing .*and \d+ more; unexpected"),
    ],
)
def test_tensors_that_do_not_fit_are_named(state, sentence, tmp_path):
    save_file(state, tmp_path / "wrong.safetensors")
    with pytest.raises(WeightsError, match=sentence):
        load_weights(tmp_path / "wrong.safetensors", PLAIN)


def test_a_checkpoint_of_another_network_names_the_one_it_fits(tmp_path):
    known = {"tiny": PLAIN, "tiny-reg": REGISTERS, "tiny-deep": replace(PLAIN, depth=3)}
    path = tmp_path / "tiny.safetensors"
    save_file(tiny(REGISTERS), path)
    with pytest.raises(WeightsError, match="has 4 register tokens: choose tiny-reg"):
        load_weights(path, PLAIN, known=known)
    save_file(tiny(PLAIN), path)
    with pytest.raises(WeightsError, match="has no register tokens: choose tiny"):
        load_weights(path, REGISTERS, known=known)
    save_file(tiny(known["tiny-deep"]), path)
    with pytest.raises(WeightsError, match="choose tiny-deep"):
        load_weights(path, PLAIN, known=known)
    with pytest.raises(WeightsError, match="has 32 channels, 3 blocks"):
        load_weights(path, PLAIN)


@pytest.mark.parametrize("naming", DINOV3_NAMINGS)
def test_dinov3_and_dinov2_are_told_apart_by_name(naming, tmp_path):
    known = {"tiny": PLAIN, "tiny-v3": ROTARY}
    save_file(DINOV3_NAMINGS[naming](tiny_dinov3(ROTARY)), tmp_path / "3.safetensors")
    with pytest.raises(WeightsError, match="choose tiny-v3"):
        load_weights(tmp_path / "3.safetensors", PLAIN, known=known)
    save_file(tiny(PLAIN), tmp_path / "2.safetensors")
    with pytest.raises(WeightsError, match="no register tokens: choose tiny$"):
        load_weights(tmp_path / "2.safetensors", ROTARY, known=known)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "not a checkpoint: it is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "not a checkpoint: it begins with"),
        (b"Not found\n", "not a checkpoint: it begins with b'Not '"),
        (bytes(range(255, 0, -1)), "not a checkpoint"),
        (pickle.dumps({"answer": 42}, protocol=2), "Python objects beside tensors"),
    ],
    ids=["empty", "png", "text", "bytes", "pickle"],
)
def test_what_is_no_checkpoint_is_refused(content, sentence, tmp_path):
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=sentence):
        load_weights(tmp_path / "file.pth", PLAIN)


@pytest.mark.parametrize("kept", [0.5, 0.999])
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_truncated_files_are_called_damaged(suffix, kept, tmp_path):
    path = tmp_path / f"tiny.{suffix}"
    torch.save(tiny(), path) if suffix == "pth" else save_file(tiny(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(WeightsError, match="damaged or was not downloaded to its end"):
        load_weights(path, PLAIN)


@pytest.mark.parametrize("zipped", [True, False])
def test_odd_files_of_torch_are_called_damaged_wherever_they_break(zipped, tmp_path):
    path = tmp_path / "tiny.pth"
    torch.save(tiny(), path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    for kept in range(60, 4000, 97):  # where names and shapes are
        path.write_bytes(content[:kept])
        with pytest.raises(WeightsError, match="is damaged|Python objects"):
            load_weights(path, PLAIN)


def test_an_archive_with_a_broken_directory_is_called_damaged(tmp_path):
    path = tmp_path / "tiny.pth"
    torch.save(tiny(), path)
    path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"PK\x09\x09"))
    with pytest.raises(WeightsError, match="is damaged"):
        load_weights(path, PLAIN)


class Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit('code of the file was run')",))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_not_loaded(zipped, tmp_path):
    content = {"state_dict": tiny(), "optimizer": Harmful()}
    path = tmp_path / "bad.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="unpickling them can run code"):
        load_weights(path, PLAIN)


def test_archives_and_files_without_tensors_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "text.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(WeightsError, match="not one of a PyTorch state dict"):
        load_weights(tmp_path / "text.zip", PLAIN)
    torch.save({"epoch": 3, "model": {}}, tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="holds no tensors"):
        load_weights(tmp_path / "none.pth", PLAIN)


def test_a_folder_gives_its_model_or_its_only_checkpoint(tmp_path):
    with pytest.raises(WeightsError, match="no file or folder"):
        weights_file(tmp_path / "missing")
    with pytest.raises(WeightsError, match="it holds none"):
        weights_file(tmp_path)
    (tmp_path / "b.pth").touch()
    assert weights_file(tmp_path).name == "b.pth"
    (tmp_path / "a.pth").touch()
    with pytest.raises(WeightsError, match=r"it holds a\.pth, b\.pth"):
        weights_file(tmp_path)
    (tmp_path / "model.safetensors").touch()
    assert weights_file(tmp_path).name == "model.safetensors"


def test_the_hash_is_that_of_the_numbers_whatever_the_file(tmp_path):
    state = tiny()
    save_file(state, tmp_path / "original.safetensors")
    save_file(hugging_face(state, version=5), tmp_path / "other.safetensors")
    torch.save({"model": dict(reversed(state.items()))}, tmp_path / "original.pth")
    found = {load_weights(path, PLAIN).hash for path in tmp_path.iterdir()}
    assert len(found) == 1
    assert len(found.pop()) == 16
    state["norm.bias"][3] += 1e-6
    save_file(state, tmp_path / "changed.safetensors")
    hashes = {load_weights(path, PLAIN).hash for path in tmp_path.iterdir()}
    assert len(hashes) == 2


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused_by_name(value, tmp_path):
    state = tiny()
    state["blocks.1.norm2.weight"][5] = value
    save_file(state, tmp_path / "bad.safetensors")
    with pytest.raises(WeightsError, match=r"infinite numbers in blocks\.1\.norm2\.w"):
        load_weights(tmp_path / "bad.safetensors", PLAIN)


def test_random_weights_are_the_same_each_time():
    torch.manual_seed(5)
    first = random_weights(REGISTERS)
    torch.manual_seed(6)
    again, other = random_weights(REGISTERS), random_weights(REGISTERS, seed=1)
    assert all(torch.equal(first.state[n], again.state[n]) for n in first.state)
    assert not torch.equal(first.state["cls_token"], other.state["cls_token"])
    assert (first.hash, other.hash) == ("random", "random-1")


def test_configurations_of_the_hub_choose_the_position_rule():
    small = {"hidden_size": 384, "num_attention_heads": 6, "image_size": 518}
    plain = config_from({"model_type": "dinov2", **small}, source="x")
    assert plain == ViTConfig()
    registers = config_from(
        {"model_type": "dinov2_with_registers", "patch_size": 14, **small}, source="x"
    )
    assert (registers.registers, registers.position_offset) == (4, 0)
    assert registers.position_antialias
    assert config_from({"model_type": "clip"}, source="x") is None


def test_configurations_of_the_hub_equal_those_of_the_registry():
    for size, model in (("small", "s"), ("small-plus", "splus"), ("base", "b")):
        wide = {"hidden_size": 768, "num_attention_heads": 12}
        content = {"model_type": "dinov3_vit", "num_register_tokens": 4}
        content |= {"b": {**wide, "intermediate_size": 3072}}.get(model, {})
        if model == "splus":
            content |= {"use_gated_mlp": True, "hidden_act": "silu"}
        found = config_from(content, source="x")
        expected = VIT_SPECS[f"dinov3-{size}"].config
        assert found == replace(expected, image_size=224)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"model_type": "vit", "hidden_act": "quick_gelu"}, "only 'gelu' can be"),
        ({"model_type": "dinov3_vit", "use_gated_mlp": True}, "only 'silu' can be"),
        ({"model_type": "dinov3_vit", "rope_theta": 10.0}, "has rope_theta 10.0; only"),
    ],
)
def test_configurations_that_would_compute_something_else_are_refused(
    content, sentence
):
    with pytest.raises(WeightsError, match=sentence):
        config_from(content, source="x")


def test_a_vit_of_the_hub_is_what_its_two_files_say(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "vit", "image_size": 384}')
    found = read_config(tmp_path / "config.json")
    assert (found.trained_grid, found.embed_dim, found.epsilon) == (24, 768, 1e-12)
    assert found.pixel_mean == (0.5, 0.5, 0.5)
    own = '{"image_mean": [0.4, 0.5, 0.6], "image_std": [1, 1, 2]}'
    (tmp_path / "preprocessor_config.json").write_text(own)
    found = read_config(tmp_path / "config.json")
    assert found.pixel_mean == (0.4, 0.5, 0.6)
    assert found.pixel_deviation == (1, 1, 2)


def distilled(state: State) -> State:
    """Return the state of a network with one register as DeiT's repository has it."""
    renamed = dict(state)
    register, positions = renamed.pop("register_tokens"), renamed["pos_embed"]
    second = torch.randn(1, 1, 32)
    renamed["dist_token"] = register - second
    parts = [positions[:, :1], second, positions[:, 1:]]
    renamed["pos_embed"] = torch.cat(parts, dim=1)
    renamed |= {f"{head}.weight": torch.zeros(3, 32) for head in ("head", "head_dist")}
    return renamed


def hugging_face_deit(state: State, *, version: int) -> State:
    """Return the same as transformers names it."""
    names = {"dist_token": "embeddings.distillation_token"}
    state = {names.get(n, n): x for n, x in distilled(state).items() if "head" not in n}
    named = hugging_face_vit(state, version=version)
    heads = {"cls_classifier.bias": torch.zeros(9)}
    heads["distillation_classifier.bias"] = torch.zeros(9)
    return {re.sub("^vit", "deit", n): x for n, x in named.items()} | heads


DISTILLED_NAMINGS = {
    "original": distilled,
    "hugging face 4": lambda state: hugging_face_deit(state, version=4),
    "hugging face 5": lambda state: hugging_face_deit(state, version=5),
}


@pytest.mark.parametrize("naming", DISTILLED_NAMINGS)
def test_the_token_of_a_distillation_becomes_a_register(naming, tmp_path):
    config = replace(PLAIN, layer_scale=False, registers=1)
    state = tiny(config)
    save_file(DISTILLED_NAMINGS[naming](state), tmp_path / "tiny.safetensors")
    found = load_weights(tmp_path / "tiny.safetensors", config).state
    assert found.keys() == state.keys()
    for name in state:
        torch.testing.assert_close(found[name], state[name], msg=name)
    plain = replace(config, registers=0)
    known = {"deit-small:distilled": config}
    with pytest.raises(WeightsError, match="has 1 register.*choose deit-small:dist"):
        load_weights(tmp_path / "tiny.safetensors", plain, known=known)
