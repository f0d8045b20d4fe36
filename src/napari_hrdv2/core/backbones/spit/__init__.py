"""SPiT: a Vision Transformer whose tokens are regions of any shape."""

from napari_hrdv2.core.backbones.spit.attribution import attention_flow
from napari_hrdv2.core.backbones.spit.backbone import SpitBackbone
from napari_hrdv2.core.backbones.spit.encoder import SpitConfig, SpitEncoder
from napari_hrdv2.core.backbones.spit.tokens import region_tokens
from napari_hrdv2.core.backbones.spit.weights import load_weights, random_weights

__all__ = [
    "SpitBackbone",
    "SpitConfig",
    "SpitEncoder",
    "attention_flow",
    "load_weights",
    "random_weights",
    "region_tokens",
]
