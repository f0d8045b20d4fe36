"""SPiT: a Vision Transformer whose tokens are regions of any shape."""

from .attribution import attention_flow
from .backbone import SpitBackbone
from .encoder import SpitConfig, SpitEncoder
from .tokens import region_tokens
from .weights import load_weights, random_weights

__all__ = [
    "SpitBackbone",
    "SpitConfig",
    "SpitEncoder",
    "attention_flow",
    "load_weights",
    "random_weights",
    "region_tokens",
]
