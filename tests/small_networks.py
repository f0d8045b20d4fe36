"""Networks with little in them, and others than the published ones."""

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from napari_hrdv2.core.backbones.embedded.network import BUNDLED
from napari_hrdv2.core.backbones.spit.backbone import SpitBackbone
from napari_hrdv2.core.backbones.spit.backbone import random_weights as random_spit
from napari_hrdv2.core.backbones.spit.encoder import SpitConfig
from napari_hrdv2.core.backbones.vit.backbone import ViTBackbone
from napari_hrdv2.core.backbones.vit.model import ViTConfig
from napari_hrdv2.core.backbones.vit.weights import random_weights

VIT = ViTConfig(embed_dim=32, depth=2, heads=2, patch_size=16, image_size=32)
SPIT = SpitConfig(embed_dim=32, depth=2, heads=2)


def load_small(name, **_):
    """Return a ViT, or a SPiT where the name says so; in place of `load_backbone`."""
    if name.startswith("spit"):
        return SpitBackbone(name, SPIT, random_spit(SPIT))
    return ViTBackbone(name, VIT, random_weights(VIT))


def adapted_embedded(path):
    """Write a file of the embedded backbone with other numbers; return its path."""
    with safe_open(BUNDLED, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = file.metadata()
    state["trust"] = state["trust"] * torch.linspace(0.3, 3, len(state["trust"]))
    save_file(state, path, about)
    return path
