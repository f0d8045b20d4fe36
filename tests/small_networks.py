"""Networks with little in them, under the names of the registry."""

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
