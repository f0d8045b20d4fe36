"""Features of images that need not be in memory, block by block."""

from .features import BlockFeatures, block_features

__all__ = ["BlockFeatures", "block_features"]
